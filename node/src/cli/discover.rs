//! `discover`: which services the registry knows, in which versions, and where their instances are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use hilum_shared::registry::{Instance, Instances};
use serde_json::json;

use super::caller::{self, Caller, CallerArgs, unknown_service};
use super::exit::{ExitStatus, Outcome};
use super::output::{Painter, Style, printable};
use super::session::Session;
use super::table::{Align, Cell, Table};
use crate::core::target::glob;

/// The words of `discover`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum discover                  all services, and how many instances each has\n  \
    hilum discover echo             its instances, and where they are\n  \
    hilum discover --versions       each version by itself\n  \
    hilum discover echo --full      all that is known of each\n  \
    hilum discover --json | jq -r '.services[].instances[].endpoint'\n\n\
    Services without instances are left out, which lymph calls `--only-running`; `--all` shows them. `--ip` and `-g` are taken for\n\
    lymph's sake: they say where answers to calls come, and this makes none.")]
pub(crate) struct DiscoverArgs {
    /// Only these services (their instances are shown, too); globs
    #[arg(value_name = "NAME", add = super::completions::registered())]
    names: Vec<String>,
    /// Show the instances
    #[arg(long)]
    instances: bool,
    /// Show all that is known of each instance
    #[arg(long)]
    full: bool,
    /// Show each version of a service by itself
    #[arg(long)]
    versions: bool,
    /// Show services without instances, too
    #[arg(long)]
    all: bool,
    /// Leave them out, as is usual
    #[arg(long, conflicts_with = "all", hide = true)]
    only_running: bool,
    #[command(flatten)]
    pub(crate) caller: CallerArgs,
}

/// A service, or with `--versions` one version of it.
struct Group {
    name: String,
    instances: Vec<Instance>,
}

impl Group {
    /// Containers, of which one may offer several versions.
    fn containers(&self) -> usize {
        self.instances.iter().map(|one| &one.identity).collect::<BTreeSet<_>>().len()
    }

    /// In order, `None` first.
    fn versions(&self) -> BTreeSet<Option<&str>> {
        self.instances.iter().map(|one| one.version.as_deref()).collect()
    }
}

/// Runs `discover`.
pub(crate) fn run(session: &Session, args: &DiscoverArgs) -> Outcome {
    if args.only_running {
        session.out.note(
            "`--only-running` is what `discover` does; `--all` shows services without instances",
        );
    }
    if args.caller.names_an_address() {
        session.out.note(
            "`--ip` and `-g` say where answers to calls are taken, and `discover` makes none",
        );
    }
    caller::run(session, &args.caller, async |caller| {
        caller.listen().await?;
        show(caller, args).await
    })
}

/// Shows what the registry knows.
pub(crate) async fn show(caller: &Caller<'_>, args: &DiscoverArgs) -> Outcome {
    let mut all = caller.discover().await?;
    let out = caller.session.out;
    // The node's registry forgets who is gone; what the node keeps is a service all the same.
    if args.all || !args.names.is_empty() {
        for name in caller.kept()? {
            all.entry(name).or_default();
        }
    }
    for name in &args.names {
        if !all.keys().any(|known| is_meant(name, known)) {
            return Err(unknown_service(name, all.into_keys().collect(), caller.session));
        }
    }
    let groups = groups(&all, args);
    if !out.json && !args.names.is_empty() {
        for empty in groups.iter().filter(|group| group.instances.is_empty()) {
            let name = &empty.name;
            out.note(&format!(
                "no instance of `{name}` is registered; `hilum ps {name}` shows what runs"
            ));
        }
        if groups.iter().all(|group| group.instances.is_empty()) {
            return Ok(ExitStatus::Done);
        }
    }
    if out.json {
        let services: Vec<_> = groups
            .iter()
            .map(|group| {
                let instances: Vec<_> = group.instances.iter().map(as_json).collect();
                json!({"name": group.name, "versions": group.versions(), "instances": instances})
            })
            .collect();
        out.json(&json!({ "services": services }))?;
    } else if groups.is_empty() {
        out.note("no service is registered");
    } else if args.full {
        out.text(&full(&groups, out.paint))?;
    } else if args.instances || !args.names.is_empty() {
        out.text(&instances(&groups).render(out.paint))?;
    } else {
        out.text(&services(&groups).render(out.paint))?;
    }
    Ok(ExitStatus::Done)
}

fn is_meant(pattern: &str, name: &str) -> bool {
    glob(pattern.as_bytes(), name.as_bytes())
}

fn groups(all: &BTreeMap<String, Instances>, args: &DiscoverArgs) -> Vec<Group> {
    let wanted =
        |name: &str| args.names.is_empty() || args.names.iter().any(|one| is_meant(one, name));
    let mut groups = Vec::new();
    for (name, instances) in all.iter().filter(|(name, _)| wanted(name)) {
        let mut instances = instances.to_vec();
        instances.sort_by(|a, b| (&a.version, &a.endpoint).cmp(&(&b.version, &b.endpoint)));
        if instances.is_empty() && !(args.all || args.names.contains(name)) {
            continue;
        }
        if !args.versions || instances.is_empty() {
            groups.push(Group { name: name.clone(), instances });
            continue;
        }
        for same in instances.chunk_by(|a, b| a.version == b.version) {
            let name = match &same[0].version {
                Some(version) => format!("{name}@{version}"),
                None => name.clone(),
            };
            groups.push(Group { name, instances: same.to_vec() });
        }
    }
    groups
}

fn services(groups: &[Group]) -> Table {
    let mut table = Table::new(&[
        ("SERVICE", Align::Left),
        ("INSTANCES", Align::Right),
        ("VERSIONS", Align::Left),
    ]);
    for group in groups {
        let versions: Vec<&str> =
            group.versions().into_iter().map(|version| version.unwrap_or("-")).collect();
        table.row(vec![
            printable(&group.name).into_owned().into(),
            group.containers().to_string().into(),
            printable(&versions.join(", ")).into_owned().into(),
        ]);
    }
    table
}

fn instances(groups: &[Group]) -> Table {
    let mut table = Table::new(&[
        ("SERVICE", Align::Left),
        ("VERSION", Align::Left),
        ("IDENTITY", Align::Left),
        ("ENDPOINT", Align::Left),
        ("HOST", Align::Left),
        ("INSTANCE", Align::Left),
    ]);
    for group in groups {
        for one in &group.instances {
            let text = |text: Option<&str>| Cell::new(printable(text.unwrap_or("-")).into_owned());
            table.row(vec![
                text(Some(&group.name)),
                text(one.version.as_deref()),
                text(Some(identity(one))),
                text(Some(&one.endpoint)),
                text(one.hostname.as_deref().filter(|name| !name.is_empty())),
                text(run_by(one)),
            ]);
        }
    }
    table
}

/// The first ten digits, which tell it apart from others.
fn identity(instance: &Instance) -> &str {
    instance.identity.get(..10).unwrap_or(&instance.identity)
}

/// An entry as it stands in the registry, and which instance of a node it is.
fn as_json(instance: &Instance) -> serde_json::Value {
    let mut entry = json!(instance);
    entry["instance"] = run_by(instance).into();
    entry
}

/// Which instance of a node it is: its local socket bears the name.
pub(crate) fn run_by(instance: &Instance) -> Option<&str> {
    let local = instance.local_endpoint.as_deref()?.strip_prefix("ipc://")?;
    Path::new(local).file_name()?.to_str()?.strip_suffix(".sock")
}

fn full(groups: &[Group], paint: Painter) -> String {
    let mut text = String::new();
    for group in groups {
        let name = paint.paint(Style::Bold, &printable(&group.name));
        // A String takes all.
        let _ = writeln!(text, "{name} [{}]", group.containers());
        for one in &group.instances {
            let version = one.version.as_deref().unwrap_or("-");
            let head = format!("[{}]  {version}  {}", identity(one), one.endpoint);
            let _ = writeln!(text, "{}", printable(&head));
            let Ok(serde_json::Value::Object(keys)) = serde_json::to_value(one) else { continue };
            let keys: BTreeMap<_, _> = keys.into_iter().collect();
            for (key, value) in keys {
                let _ = writeln!(text, "    {}", printable(&format!("{key}: {value}")));
            }
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> BTreeMap<String, Instances> {
        let echo = vec![
            Instance::new("echo", "tcp://127.0.0.1:2", Some("2.0.0")),
            Instance::new("echo", "tcp://127.0.0.1:2", Some("1.2.0")),
            Instance::new("echo", "tcp://127.0.0.1:1", Some("1.2.0")),
        ];
        [("echo".to_owned(), echo), ("gone".to_owned(), Vec::new())]
            .map(|(name, instances)| (name, Instances::new(instances)))
            .into()
    }

    fn args(names: &[&str]) -> DiscoverArgs {
        DiscoverArgs {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            instances: false,
            full: false,
            versions: false,
            all: false,
            only_running: false,
            caller: CallerArgs::default(),
        }
    }

    #[test]
    fn a_container_that_offers_two_versions_is_one_instance() {
        let shown = services(&groups(&all(), &args(&[]))).render(Painter::plain());
        insta::assert_snapshot!(shown, @r"
        SERVICE  INSTANCES  VERSIONS
        echo             2  1.2.0, 2.0.0
        ");
    }

    #[test]
    fn versions_stand_apart_where_it_is_asked_for() {
        let shown = groups(&all(), &DiscoverArgs { versions: true, ..args(&[]) });
        let shown: Vec<_> =
            shown.iter().map(|group| (group.name.as_str(), group.containers())).collect();
        assert_eq!(shown, [("echo@1.2.0", 2), ("echo@2.0.0", 1)]);
    }

    #[test]
    fn a_service_without_instances_is_shown_to_who_asks() {
        let names = |args| -> Vec<String> {
            groups(&all(), &args).into_iter().map(|group| group.name).collect()
        };
        assert_eq!(names(args(&[])), ["echo"]);
        assert_eq!(names(DiscoverArgs { all: true, ..args(&[]) }), ["echo", "gone"]);
        assert_eq!(names(args(&["gone"])), ["gone"]);
        assert_eq!(names(args(&["e*"])), ["echo"]);
    }

    #[test]
    fn an_instance_of_a_node_is_known_by_its_socket() {
        let mut one = Instance::new("echo", "tcp://127.0.0.1:1", None);
        assert_eq!(run_by(&one), None);
        one.local_endpoint = Some("ipc:///run/x/echo.2.sock".into());
        assert_eq!(run_by(&one), Some("echo.2"));
    }
}
