//! What may stand where a subject is being typed.

use std::collections::{BTreeMap, BTreeSet};

use hilum_shared::registry::{Instances, VersionRequest};

use super::Method;

/// Services, each with the versions that it has.
pub(super) type Services = BTreeMap<String, BTreeSet<String>>;

/// Those of the registry.
pub(super) fn of_instances(all: &BTreeMap<String, Instances>) -> Services {
    let one = |(name, instances): (&String, &Instances)| {
        let versions = instances.iter().filter_map(|one| one.version.clone()).collect();
        (name.clone(), versions)
    };
    all.iter().map(one).collect()
}

/// Those of a place, by its methods.
pub(super) fn of_methods(methods: &[Method]) -> Services {
    let mut services = Services::new();
    for method in methods {
        let Some((interface, _)) = method.name.rsplit_once('.') else { continue };
        let versions = services.entry(interface.to_owned()).or_default();
        versions.extend(method.version().map(str::to_owned));
    }
    services
}

/// What is to be offered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    /// Beginnings of subjects, or with a version whole ones.
    pub(super) names: Vec<String>,
    /// An interface whose methods are asked for, and what stands between the two: nothing, or `@1.2`.
    pub(super) methods: Option<(String, String)>,
}

/// What may stand for `typed`. Names end with a dot where a method follows.
pub(super) fn offer(typed: &str, services: &Services) -> Offer {
    let methods = |interface: &str, version: String| Some((interface.to_owned(), version));
    let Some((name, rest)) = typed.split_once('@') else {
        let begun: Vec<&String> = services.keys().filter(|name| name.starts_with(typed)).collect();
        let named = typed.rsplit_once('.').map(|(interface, _)| interface);
        let known = named.filter(|interface| services.contains_key(*interface));
        // The methods of the only one that is left are the next question anyhow.
        let only = || (begun.len() == 1).then(|| begun[0].as_str());
        return Offer {
            methods: known.or_else(only).and_then(|name| methods(name, String::new())),
            names: begun.into_iter().map(|name| format!("{name}.")).collect(),
        };
    };
    if let Some(versions) = services.get(name) {
        let behind = rest.rsplit_once('.').filter(|(version, method)| {
            VersionRequest::parse(version).is_ok()
                && !method.starts_with(|c: char| c.is_ascii_digit())
        });
        return Offer {
            names: versions.iter().map(|version| format!("{name}@{version}.")).collect(),
            methods: behind.and_then(|(version, _)| methods(name, format!("@{version}"))),
        };
    }
    let versions = name.rsplit_once('.').and_then(|(interface, _)| services.get(interface));
    let names = versions.into_iter().flatten().map(|version| format!("{name}@{version}"));
    Offer { names: names.collect(), methods: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_methods_and_versions_are_offered_where_they_may_stand() {
        let versions = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        let services: Services = [
            ("echo".to_owned(), versions(&["1.2.0", "2.0.0"])),
            ("job.echo".to_owned(), versions(&[])),
            ("job.sum".to_owned(), versions(&[])),
        ]
        .into();
        let check = |typed: &str, names: &[&str], methods: Option<(&str, &str)>| {
            let methods = methods.map(|(name, version)| (name.to_owned(), version.to_owned()));
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(offer(typed, &services), Offer { names, methods }, "{typed}");
        };
        check("", &["echo.", "job.echo.", "job.sum."], None);
        check("e", &["echo."], Some(("echo", "")));
        check("echo.up", &[], Some(("echo", "")));
        check("job.", &["job.echo.", "job.sum."], None);
        check("job.echo.", &[], Some(("job.echo", "")));
        check("zzz", &[], None);
        check("echo@", &["echo@1.2.0.", "echo@2.0.0."], None);
        check("echo@1.2.", &["echo@1.2.0.", "echo@2.0.0."], Some(("echo", "@1.2")));
        check("echo@1.2.up", &["echo@1.2.0.", "echo@2.0.0."], Some(("echo", "@1.2")));
        check("echo.upper@1", &["echo.upper@1.2.0", "echo.upper@2.0.0"], None);
        check("job.sum@", &[], None);
    }
}
