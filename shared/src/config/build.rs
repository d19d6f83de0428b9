//! From a checked and completed document to [`Cluster`]. What a key may be was settled before; here is only
//! what it becomes. A key that is broken was reported, and reads as nothing.

mod env;
mod launch;
mod policy;
mod section;
mod shell_syntax;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Problems, Severity, quote};
use super::keys::{service as service_keys, top};
use super::service::Section as Whole;
use super::source::Sources;
use super::spec::{
    Cluster, Condition, ContainerSpec, LogsSpec, NodeSpec, OnAllExited, Overflow, ServiceSpec,
    SocketSpec,
};
use super::tree::{Node, Value};
use crate::name::ServiceName;
use crate::registry::{Choice, check_interface};
use crate::units::Bytes;
use env::EnvFiles;
use section::Section;

#[cfg(test)]
pub(crate) use section::asked;

/// What the builder is given beside the document.
pub(super) struct Builder<'a> {
    /// Where errors go.
    pub(super) problems: &'a mut Problems,
    /// For origins, and the files of variables that are read on the way.
    pub(super) sources: &'a mut Sources,
    /// Where relative paths start.
    pub(super) project_dir: &'a Path,
    /// `node.heartbeat.interval` and `timeout`.
    heartbeat: (std::time::Duration, std::time::Duration),
    /// Files of variables that were read.
    env_files: EnvFiles,
}

/// Builds the cluster; complete only when there were no errors.
pub(super) fn cluster(
    root: &Node,
    name: Option<&str>,
    project_dir: &Path,
    sources: &mut Sources,
    problems: &mut Problems,
) -> Cluster {
    let mut builder = Builder {
        problems,
        sources,
        project_dir,
        heartbeat: Default::default(),
        env_files: EnvFiles::default(),
    };
    let top = Section::new(Some(root), top::TOP);
    let folder = project_dir.file_name().map(|name| name.to_string_lossy());
    let name = name
        .or_else(|| top.text("name"))
        .map(str::to_owned)
        .or_else(|| folder.map(std::borrow::Cow::into_owned))
        .unwrap_or_else(|| "project".to_owned());
    let container = builder.container(&top.section("container"), root);
    builder.interfaces(root);
    let node = node(&top.section("node"), project_dir);
    builder.heartbeat = (node.heartbeat_interval, node.heartbeat_timeout);
    let sockets = builder.sockets(&top, &container);
    let common = builder.variables(&top, BTreeMap::new(), "");
    let mut services = BTreeMap::new();
    if let Some(Value::Map(map)) = top.get("instances").map(|node| &node.value) {
        for entry in &map.0 {
            let Ok(service) = ServiceName::parse(&entry.key) else {
                continue;
            };
            let section = Section::new(Some(&entry.value), service_keys::SERVICE);
            let spec = builder.service(service.clone(), &section, &common, &sockets);
            services.insert(service, spec);
        }
        settle_conditions(map, &mut services);
    }
    let services = services.into_iter().map(|(name, spec)| (name, Arc::new(spec))).collect();
    Cluster {
        name,
        files: Vec::new(),
        content: 0,
        services,
        sockets,
        container,
        logs: logs(&top.section("logs"), project_dir),
        node,
        profiles: Vec::new(),
        warnings: Vec::new(),
    }
}

/// A condition that is not given depends on the other service.
fn settle_conditions(
    instances: &super::tree::Map,
    services: &mut BTreeMap<ServiceName, ServiceSpec>,
) {
    let defaults: BTreeMap<ServiceName, Condition> =
        services.iter().map(|(name, spec)| (name.clone(), spec.default_condition())).collect();
    for entry in &instances.0 {
        let Some(spec) = services.get_mut(entry.key.as_str()) else {
            continue;
        };
        let section = Section::new(Some(&entry.value), service_keys::SERVICE);
        for edge in section.entries("depends_on") {
            let given = Section::new(Some(&edge.value), service_keys::DEPENDENCY)
                .text("condition")
                .is_some();
            let dependency =
                spec.policy.depends_on.iter_mut().find(|d| d.service.as_str() == edge.key);
            if let (false, Some(dependency)) = (given, dependency)
                && let Some(condition) = defaults.get(&dependency.service)
            {
                dependency.condition = *condition;
            }
        }
    }
}

impl Builder<'_> {
    fn service(
        &mut self,
        name: ServiceName,
        section: &Section<'_>,
        common: &env::Env,
        sockets: &[SocketSpec],
    ) -> ServiceSpec {
        let path = format!("instances.{name}");
        let numprocesses = match section.text("numprocesses") {
            Some("cores") => {
                std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32)
            }
            _ => section.count("numprocesses").unwrap_or(1),
        };
        ServiceSpec {
            numprocesses,
            launch: self.launch(section, common, sockets, &path),
            policy: self.policy(section, &path),
            name,
        }
    }

    fn container(&mut self, section: &Section<'_>, root: &Node) -> ContainerSpec {
        self.events(section.get("events"));
        let older = root.as_map().is_some_and(|map| map.get("registry").is_some());
        let given = section.get("registry").is_some_and(|node| node.at.is_some()) || older;
        ContainerSpec {
            ip: section
                .text("ip")
                .and_then(|ip| ip.parse().ok())
                .unwrap_or(std::net::Ipv4Addr::LOCALHOST.into()),
            log_endpoint: section.text("log_endpoint").map(str::to_owned),
            port: section.port("port").filter(|port| *port != 0),
            registry: if given { self.registry(root) } else { Choice::default() },
        }
    }

    /// The names of interfaces, which services would refuse. lymph's own classes are called as lymph calls them.
    fn interfaces(&mut self, root: &Node) {
        if root.as_map().is_none_or(|map| map.get("interfaces").is_none()) {
            return;
        }
        let all = Whole::of(root.clone(), self.sources.clone()).get("interfaces");
        for (key, interface) in all.entries().unwrap_or_default() {
            let is_lymphs = interface
                .get("class")
                .text()
                .ok()
                .flatten()
                .is_some_and(|it| it.starts_with("lymph."));
            let name = key.split('@').next().unwrap_or_default();
            if let (false, Err(wrong)) = (is_lymphs, check_interface(name)) {
                self.problems.take(interface.error(wrong.to_string(), None));
            }
        }
    }

    /// The same reading as in services, who see the same file.
    fn registry(&mut self, root: &Node) -> Choice {
        let gaps = &self.problems.gaps;
        if ["container", "registry", "dependencies"].iter().any(|key| gaps.below(key)) {
            return Choice::default();
        }
        let root = Whole::of(root.clone(), self.sources.clone());
        let class_section = Choice::class(&Choice::section(&root));
        let class = class_section.text().ok().flatten();
        if let Some(class) = class.filter(|class| Choice::is_foreign(class)) {
            // Services in Python know it; those on our library say themselves that they do not.
            let message = format!(
                "the registry {} is not known to the node, which uses its own",
                quote(&class)
            );
            let help = "services still read theirs from this file; `discover` and calls by name see only who is in the node's, \
                        use `zookeeper` where both are to meet";
            let help = help.to_owned();
            let mut said = class_section.error(message, Some(help));
            said.0.iter_mut().for_each(|one| one.severity = Severity::Warning);
            self.problems.take(said);
            return Choice::default();
        }
        if Choice::section(&root).is_broken() {
            return Choice::default(); // what is wrong was said
        }
        Choice::read(&root).unwrap_or_else(|wrong| {
            self.problems.take(wrong);
            Choice::default()
        })
    }

    /// The event system. Events without a broker are the services' own business. A class path is a lymph file's, which
    /// must go on working; a short name asks for what we do not have.
    fn events(&mut self, node: Option<&Node>) {
        let class = node.and_then(Node::as_map).and_then(|map| map.get("class"));
        let Some(class) = class.or(node).filter(|node| node.as_scalar().is_some()) else {
            return;
        };
        let (at, text) = (class.at, class.as_scalar().map_or("", |scalar| scalar.text.as_str()));
        let path = "container.events";
        let brokerless = ["null", "local"]
            .iter()
            .any(|name| text == *name || text.starts_with(&format!("lymph.events.{name}:")));
        if text == "embedded" || brokerless {
        } else if text == "amqp" {
            self.problems
                .error(at, path, format!("`{text}` is not supported yet"))
                .help("remove it, or write `{class: embedded}`");
        } else if text.contains([':', '.']) {
            self.problems
                .warning(
                    at,
                    path,
                    format!("{} is not supported yet; the node uses its embedded one", quote(text)),
                )
                .help("services still read their own `events` from this file");
        } else {
            self.problems
                .error(at, path, format!("{} is no class that is known", quote(text)))
                .help("write `{class: embedded}`");
        }
    }

    fn sockets(&mut self, top: &Section<'_>, container: &ContainerSpec) -> Vec<SocketSpec> {
        let mut out: Vec<SocketSpec> = Vec::new();
        for item in top.list("sockets") {
            let section = Section::new(Some(item), top::SOCKET);
            let port = section.port("port").unwrap_or(0);
            let socket = SocketSpec {
                name: section.text("name").map_or_else(|| port.to_string(), str::to_owned),
                host: section.text("host").map_or_else(|| container.ip.to_string(), str::to_owned),
                port,
            };
            if socket.name.contains(':') || socket.name.len() > 255 {
                self.problems
                    .error(
                        section.at("name"),
                        "sockets",
                        format!("{} cannot be the name of a socket", quote(&socket.name)),
                    )
                    .help("`LISTEN_FDNAMES` separates names by `:`; a name has at most 255 bytes");
            }
            if port != 0
                && let Some(other) = out
                    .iter()
                    .find(|o| o.name == socket.name || (o.port == port && o.host == socket.host))
            {
                let message = format!(
                    "the socket `{}` ({}:{}) is given twice",
                    other.name, other.host, other.port
                );
                self.problems.error(item.at, "sockets", message);
            }
            out.push(socket);
        }
        out
    }
}

fn logs(section: &Section<'_>, project_dir: &Path) -> LogsSpec {
    let budget = section.size("budget").unwrap_or(Bytes(1 << 30));
    LogsSpec {
        dir: section.text("dir").map(|dir| project_dir.join(dir)),
        budget,
        keep_free: section.share("keep_free").unwrap_or_default(),
        // A small budget needs small segments; only the default bends to it.
        segment: match section.size("segment").unwrap_or(Bytes(64 << 20)) {
            Bytes(default) if !section.written("segment") => {
                Bytes(default.min((budget.0 / 8).max(64 << 10)))
            }
            written => written,
        },
        max_age: section.duration("max_age"),
        compress: section.truth("compress"),
        overflow: match section.text("overflow") {
            Some("drop") => Overflow::Drop,
            _ => Overflow::Block,
        },
    }
}

fn node(section: &Section<'_>, project_dir: &Path) -> NodeSpec {
    let heartbeat = section.section("heartbeat");
    NodeSpec {
        run_dir: section.text("run_dir").map(|dir| project_dir.join(PathBuf::from(dir))),
        heartbeat_interval: heartbeat.duration("interval").unwrap_or_default(),
        heartbeat_timeout: heartbeat.duration("timeout").unwrap_or_default(),
        start_parallel: section.count("start_parallel").unwrap_or(1),
        stop_timeout: section.duration("stop_timeout").unwrap_or_default(),
        on_all_exited: match section.text("on_all_exited") {
            Some("exit") => Some(OnAllExited::Exit),
            Some("keep") => Some(OnAllExited::Keep),
            _ => None,
        },
        watch_config: section.truth("watch_config"),
        stats_interval: section.duration("stats_interval").unwrap_or_default(),
        metrics: section.section("metrics").text("listen").and_then(|at| at.parse().ok()),
    }
}
