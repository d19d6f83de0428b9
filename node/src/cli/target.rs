//! TARGET: a service (`echo`), an instance (`echo.3`), or a glob (`web*`).

use std::collections::{BTreeMap, BTreeSet};

use hilum_shared::name::InstanceId;
use hilum_shared::status::Snapshot;

use super::exit::CliError;
use crate::core::target::{glob, matches};

/// All names that a TARGET may mean: from the config, the node, the log store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// The indexes that are known of each service; none = the count is not known.
    services: BTreeMap<String, BTreeSet<u32>>,
}

impl Names {
    /// Adds a service and the indexes that it has.
    pub(crate) fn add_service(&mut self, name: &str, count: u32) {
        self.services.entry(name.to_owned()).or_default().extend(1..=count);
    }

    /// Adds an instance and its service.
    pub(crate) fn add_instance(&mut self, id: &InstanceId) {
        self.services.entry(id.service.as_str().to_owned()).or_default().insert(id.index);
    }

    /// Adds all that a node knows.
    pub(crate) fn add_snapshot(&mut self, snapshot: &Snapshot) {
        for service in &snapshot.services {
            self.add_service(service.name.as_str(), 0);
        }
        for instance in &snapshot.instances {
            self.add_instance(&instance.instance);
        }
    }

    /// The services in order.
    pub(crate) fn services(&self) -> impl Iterator<Item = &str> {
        self.services.keys().map(String::as_str)
    }

    /// The instance of a service that has just one.
    pub(crate) fn only_instance(&self, service: &str) -> Option<String> {
        let indexes = self.services.get(service).filter(|indexes| indexes.len() == 1)?;
        indexes.first().map(|index| format!("{service}.{index}"))
    }

    /// Services and instances, as a shell completes them.
    pub(crate) fn all(&self) -> Vec<String> {
        let mut names: Vec<String> = self.services().map(str::to_owned).collect();
        for (service, indexes) in &self.services {
            names.extend(indexes.iter().map(|index| format!("{service}.{index}")));
        }
        names
    }

    /// Checks that each target means something.
    ///
    /// # Errors
    /// An unknown target is a usage error that lists the nearest names.
    pub(crate) fn check(&self, targets: &[String]) -> Result<Selection, CliError> {
        for target in targets {
            let one = Selection::of(std::slice::from_ref(target));
            let found = self.services.iter().any(|(service, indexes)| {
                one.service(service) || indexes.iter().any(|index| one.index(service, *index))
            });
            if !found {
                return Err(self.unknown(target));
            }
        }
        Ok(Selection::of(targets))
    }

    fn unknown(&self, target: &str) -> CliError {
        let of_service = InstanceId::parse(target)
            .ok()
            .and_then(|id| Some((self.services.get(id.service.as_str())?, id)));
        if let Some((indexes, id)) = of_service {
            let service = id.service;
            let has = match (indexes.first(), indexes.last()) {
                (Some(first), Some(last)) if first != last => {
                    format!("`{service}.{first}` to `{service}.{last}`")
                }
                (Some(only), _) => format!("only `{service}.{only}`"),
                _ => "no instance".to_owned(),
            };
            let help =
                format!("`{service}` has {has}; `hilum scale {service}={}` makes it", id.index);
            return CliError::NoSuchInstance { target: target.to_owned(), help };
        }
        CliError::UnknownTarget {
            target: target.to_owned(),
            nearest: nearest(target, &self.all()),
            known: self.services().map(str::to_owned).collect(),
        }
    }
}

/// The names that are like `text`, nearest first, at most three.
pub(crate) fn nearest(text: &str, names: &[String]) -> Vec<String> {
    let near = crate::core::target::nearest(text, names.iter().map(String::as_str));
    near.into_iter().map(str::to_owned).collect()
}

/// A choice among instances; empty means all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    patterns: Vec<String>,
}

impl Selection {
    /// What these targets choose, checked or not.
    pub(crate) fn of(targets: &[String]) -> Self {
        Self { patterns: targets.to_vec() }
    }

    /// Whether it means all.
    pub(crate) fn is_all(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a whole service is chosen.
    pub(crate) fn service(&self, service: &str) -> bool {
        self.is_all()
            || self.patterns.iter().any(|pattern| glob(pattern.as_bytes(), service.as_bytes()))
    }

    /// Whether this instance is chosen, by its service or by itself.
    pub(crate) fn instance(&self, id: &InstanceId) -> bool {
        self.is_all() || self.index(id.service.as_str(), id.index)
    }

    fn index(&self, service: &str, index: u32) -> bool {
        self.patterns.iter().any(|pattern| matches(pattern, service, index))
    }
}

#[cfg(test)]
mod tests {
    use super::super::exit::ExitStatus;
    use super::*;

    fn names() -> Names {
        let mut names = Names::default();
        names.add_service("echo", 3);
        names.add_service("web-api", 1);
        names.add_service("web-ui", 0);
        names
    }

    fn targets(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn chosen(texts: &[&str]) -> Vec<&'static str> {
        let selection = names().check(&targets(texts)).unwrap();
        ["echo.1", "echo.2", "echo.3", "web-api.1"]
            .into_iter()
            .filter(|id| selection.instance(&InstanceId::parse(id).unwrap()))
            .collect()
    }

    #[test]
    fn a_target_is_a_service_an_instance_or_a_glob() {
        assert_eq!(chosen(&["echo"]), ["echo.1", "echo.2", "echo.3"]);
        assert_eq!(chosen(&["echo.2"]), ["echo.2"]);
        assert_eq!(chosen(&["web*"]), ["web-api.1"]);
        assert_eq!(chosen(&["*.1"]), ["echo.1", "web-api.1"]);
        assert_eq!(chosen(&["echo.?"]), ["echo.1", "echo.2", "echo.3"]);
        assert_eq!(chosen(&[]).len(), 4);
    }

    #[test]
    fn an_unknown_target_names_what_is_near() {
        let error = names().check(&targets(&["ehco"])).unwrap_err();
        assert_eq!(error.status(), ExitStatus::Usage);
        assert!(error.help().unwrap().contains("`echo`"), "{:?}", error.help());
        let error = names().check(&targets(&["echo.9"])).unwrap_err();
        assert_eq!((error.status(), error.code()), (ExitStatus::Usage, "unknown-target"));
        assert_eq!(
            error.help().unwrap(),
            "`echo` has `echo.1` to `echo.3`; `hilum scale echo=9` makes it"
        );
        let error = names().check(&targets(&["zzz*"])).unwrap_err();
        assert_eq!(error.help().unwrap(), "there is `echo`, `web-api`, `web-ui`");
        assert!(
            names().check(&targets(&["web-ui"])).is_ok(),
            "a service without instances is known"
        );
    }
}
