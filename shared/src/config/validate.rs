//! Cross checks: what no key can tell alone.

mod cluster;
mod graph;
mod machine;
mod ports;

use super::diagnostic::Problems;
use super::load::LoadOptions;
use super::raw::join;
use super::shape::Reference;
use super::source::{Pos, Sources};
use super::spec::{
    AliveKind, Cluster, Kind, PortChoice, Probe, ReadyKind, RestartWhen, ServiceSpec, WatchAction,
};
use super::tree::Node;
use crate::registry::Choice;
use crate::units::{Bytes, format_duration};

/// The shortest and longest `log.max_line`: a line must fit a pipe's buffer and a message.
const MAX_LINE: (Bytes, Bytes) = (Bytes(256), Bytes(1 << 20));

/// Checks a cluster against itself and the machine. What only `hilum check` shows goes to `notes`. The answer is the paths of
/// the defaults that do nothing where they are: to write them would be complained of.
pub(super) fn validate(
    cluster: &Cluster,
    root: &Node,
    references: &[Reference],
    context: &Context<'_>,
    problems: &mut Problems,
    notes: &mut Problems,
) -> Vec<Vec<String>> {
    let mut check =
        Check { cluster, root, sources: context.sources, problems, idle_defaults: Vec::new() };
    // What a part that could not be read would have said is not known.
    if !check.problems.gaps.beside_services() {
        check.cluster();
    }
    if check.problems.gaps.is_empty() {
        check.profiles(&context.options.profiles);
        check.ports();
    }
    for service in check.whole_services() {
        check.job(service);
        check.restart(service);
        check.ready(service);
        check.alive(service);
        check.stop(service);
        check.rolling(service);
        check.log(service);
    }
    check.dependencies();
    check.references(references);
    check.machine(context.options, notes);
    check.idle_defaults
}

/// What the checks need to know beside the cluster.
pub(super) struct Context<'a> {
    /// Project folder, profiles and environment.
    pub(super) options: &'a LoadOptions,
    /// For places within messages.
    pub(super) sources: &'a Sources,
}

struct Check<'a> {
    cluster: &'a Cluster,
    root: &'a Node,
    sources: &'a Sources,
    problems: &'a mut Problems,
    idle_defaults: Vec<Vec<String>>,
}

impl<'a> Check<'a> {
    /// The services that could be read to the end.
    fn whole_services(&self) -> Vec<&'a ServiceSpec> {
        let cluster = self.cluster;
        let gaps = &self.problems.gaps;
        let services = cluster.services.values().map(std::convert::AsRef::as_ref);
        services.filter(|service: &&ServiceSpec| !gaps.in_service(service.name.as_str())).collect()
    }
}

impl Check<'_> {
    /// Where a key stands; the nearest one above it that was written where it was not.
    fn at(&self, path: &[&str]) -> Pos {
        let mut node = self.root;
        let mut found = node.at;
        for part in path {
            let Some(entry) = node.as_map().and_then(|map| map.entry(part)) else {
                break;
            };
            if entry.key_at.is_some() {
                found = entry.key_at;
            }
            node = &entry.value;
        }
        found
    }

    /// Where the value of a key stands.
    fn value_at(&self, path: &[&str]) -> Pos {
        let mut node = self.root;
        for part in path {
            match node.as_map().and_then(|map| map.get(part)) {
                Some(inner) => node = inner,
                None => return self.at(path),
            }
        }
        if node.at.is_some() { node.at } else { self.at(path) }
    }

    /// `(hilum.yml:12)`.
    fn origin(&self, at: Pos) -> String {
        format!("({})", self.sources.origin(at))
    }

    /// Whether the user wrote this key; a default is nobody's wish.
    fn written(&self, path: &[&str]) -> bool {
        let mut node = self.root;
        for part in path {
            match node.as_map().and_then(|map| map.get(part)) {
                Some(inner) => node = inner,
                None => return false,
            }
        }
        node.at.is_some()
    }

    fn error(
        &mut self,
        service: &ServiceSpec,
        key: &[&str],
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let (at, path) = self.locate(service, key);
        self.problems.error(at, &path, message).help(help);
    }

    fn warning(
        &mut self,
        service: &ServiceSpec,
        key: &[&str],
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let (at, path) = self.locate(service, key);
        self.problems.warning(at, &path, message).help(help);
    }

    fn locate(&self, service: &ServiceSpec, key: &[&str]) -> (Pos, String) {
        let mut whole = vec!["instances", service.name.as_str()];
        whole.extend(key);
        (self.value_at(&whole), whole.join("."))
    }

    fn written_in(&self, service: &ServiceSpec, key: &[&str]) -> bool {
        let mut whole = vec!["instances", service.name.as_str()];
        whole.extend(key);
        self.written(&whole)
    }

    /// Whether a section was written as one; another shape was complained of before.
    fn is_map(&self, service: &ServiceSpec, section: &str) -> bool {
        let mut node = self.root;
        for part in ["instances", service.name.as_str(), section] {
            match node.as_map().and_then(|map| map.get(part)) {
                Some(inner) => node = inner,
                None => return false,
            }
        }
        node.at.is_some() && node.as_map().is_some()
    }

    /// Warns of a key that was written where it does nothing.
    fn no_effect(&mut self, service: &ServiceSpec, key: &[&str], because: &str, help: &str) {
        if self.written_in(service, key) {
            let name = key.last().copied().unwrap_or_default();
            self.warning(service, key, format!("`{name}` has no effect {because}"), help);
        } else {
            let mut whole = vec!["instances", service.name.as_str()];
            whole.extend(key);
            self.idle_defaults.push(whole.into_iter().map(ToOwned::to_owned).collect());
        }
    }

    fn job(&mut self, service: &ServiceSpec) {
        let policy = &service.policy;
        let both = ["cron", "every"].map(|key| self.written_in(service, &["schedule", key]));
        if both == [true, true] {
            self.error(
                service,
                &["schedule", "every"],
                "`cron` and `every` exclude each other",
                "keep one of them",
            );
        }
        if self.is_map(service, "schedule") && both == [false, false] {
            self.error(
                service,
                &["schedule"],
                "the schedule has no times",
                "give `cron: '0 3 * * *'` or `every: 10m`",
            );
        }
        match policy.kind {
            Kind::Service if policy.schedule.is_some() => {
                self.error(service, &["schedule"], "only a job has a schedule", "add `kind: job`");
            }
            Kind::Job if policy.restart.when == RestartWhen::Always => self.error(
                service,
                &["restart"],
                "a job that is always restarted never completes",
                "use `on-failure` or `never`, or `kind: service`",
            ),
            _ => {}
        }
        if matches!(&policy.watch, Some(watch) if watch.action == WatchAction::Reload)
            && policy.reload.is_none()
        {
            self.error(
                service,
                &["watch", "action"],
                "the action `reload` needs to know how the service reloads",
                "add `reload: {signal: HUP}` or `reload: message`",
            );
        }
    }

    fn restart(&mut self, service: &ServiceSpec) {
        let restart = &service.policy.restart;
        if restart.max_delay < restart.delay {
            // Only one of the two may have been written; the message points to it.
            let key = if self.written_in(service, &["restart", "max_delay"]) {
                "max_delay"
            } else {
                "delay"
            };
            let message = format!(
                "`max_delay` ({}) is shorter than `delay` ({})",
                format_duration(restart.max_delay),
                format_duration(restart.delay)
            );
            self.error(service, &["restart", key], message, "raise `max_delay`");
        }
        if restart.limit.is_none() {
            let help = "add `limit: 10`, or remove it";
            self.no_effect(service, &["restart", "within"], "without `limit`", help);
        }
    }

    fn ready(&mut self, service: &ServiceSpec) {
        let Some(ready) = &service.policy.ready else {
            return;
        };
        let (name, unused): (&str, &[&str]) = match &ready.kind {
            ReadyKind::Heartbeat => ("heartbeat", &["interval", "timeout", "failures"]),
            ReadyKind::Notify => ("notify", &["interval", "timeout", "failures"]),
            ReadyKind::NotifyFd(_) => ("notify_fd", &["interval", "timeout", "failures"]),
            ReadyKind::Log(_) => ("log", &["interval", "timeout", "failures"]),
            ReadyKind::Delay(_) => ("delay", &["interval", "timeout", "failures"]),
            ReadyKind::Registered(_) => {
                self.needs_own_registry(service, "ready");
                ("registered", &["interval", "timeout", "failures"])
            }
            ReadyKind::File(_) => ("file", &["timeout"]),
            ReadyKind::Probe(_) => ("", &[]),
        };
        self.unused(service, "ready", name, unused);
        if let ReadyKind::Probe(probe) = &ready.kind {
            self.shared_socket(service, "ready", probe);
        }
        if let ReadyKind::Delay(delay) = ready.kind
            && delay >= ready.within
        {
            let message = format!(
                "after a delay of {} it could never be ready within {}",
                format_duration(delay),
                format_duration(ready.within)
            );
            self.error(service, &["ready", "delay"], message, "raise `within`");
        }
    }

    /// The node itself listens at a shared socket: it takes a connection before anybody is there to serve it.
    fn shared_socket(&mut self, service: &ServiceSpec, key: &str, probe: &Probe) {
        let Probe::Tcp(address) = probe else { return };
        let held = self
            .cluster
            .sockets
            .iter()
            .find(|socket| address.source() == format!("{}:{}", socket.host, socket.port));
        if let Some(socket) = held {
            let message = format!(
                "the shared socket `{}` takes connections also when no instance is there: this probe always succeeds",
                socket.name
            );
            self.warning(
                service,
                &[key, "tcp"],
                message,
                "ask by `http`, `exec`, `notify` or `log`",
            );
        }
    }

    fn alive(&mut self, service: &ServiceSpec) {
        let Some(alive) = &service.policy.alive else {
            return;
        };
        if let AliveKind::Probe(probe) = &alive.kind {
            self.shared_socket(service, "alive", probe);
        }
        match alive.kind {
            AliveKind::Heartbeat => {
                self.unused(service, "alive", "heartbeat", &["failures"]);
                if ["interval", "timeout"]
                    .iter()
                    .any(|key| self.written_in(service, &["alive", key]))
                {
                    let path = ["instances", service.name.as_str(), "alive"];
                    let path = join_path(&path, "timeout");
                    self.heartbeat(&path, alive.interval, alive.timeout);
                }
            }
            AliveKind::Notify => self.unused(service, "alive", "notify", &["timeout"]),
            AliveKind::Rpc => self.needs_own_registry(service, "alive"),
            AliveKind::Probe(_) => {}
        }
    }

    /// What stands in another registry is not the node's to know.
    fn needs_own_registry(&mut self, service: &ServiceSpec, key: &str) {
        if self.cluster.container.registry != Choice::Embedded {
            let message = format!(
                "`{key}` asks the node's own registry, and `container.registry` is another"
            );
            self.error(service, &[key], message, "use `heartbeat`, or a probe such as `tcp`");
        }
    }

    fn unused(&mut self, service: &ServiceSpec, section: &str, kind: &str, keys: &[&str]) {
        for key in keys {
            let because = format!("with `{kind}`");
            self.no_effect(service, &[section, key], &because, "remove it; it is for probes");
        }
    }

    fn stop(&mut self, service: &ServiceSpec) {
        let stop = &service.policy.stop;
        let whole = self.cluster.node.stop_timeout;
        if stop.timeout > whole {
            let message = format!(
                "`stop.timeout` ({}) is longer than `node.stop_timeout` ({}), which ends first at `down`",
                format_duration(stop.timeout),
                format_duration(whole)
            );
            self.warning(service, &["stop", "timeout"], message, "raise `node.stop_timeout`");
        }
        if stop.exec.is_some() {
            let because = "beside `exec`, which takes its place";
            self.no_effect(service, &["stop", "signal"], because, "keep one of them");
        }
    }

    fn rolling(&mut self, service: &ServiceSpec) {
        let Some(rolling) = &service.policy.rolling else {
            return;
        };
        if rolling.max_unavailable == 0 && rolling.max_surge == 0 {
            self.error(
                service,
                &["rolling", "max_unavailable"],
                "`max_unavailable` and `max_surge` cannot both be 0: nothing could be replaced",
                "set `max_surge: 1` to start the new one first",
            );
        }
        if rolling.min_ready >= rolling.deadline {
            let message = format!(
                "`min_ready` ({}) must be shorter than `deadline` ({})",
                format_duration(rolling.min_ready),
                format_duration(rolling.deadline)
            );
            self.error(service, &["rolling", "min_ready"], message, "raise `deadline`");
        }
        let fixed = service.launch.ports.iter().find(|port| port.choice != PortChoice::Auto);
        if let (Some(port), true) = (fixed, rolling.max_surge > 0) {
            let message = format!(
                "with `max_surge` the new instance starts beside the old one, which still holds the port `{}`",
                port.name
            );
            self.warning(
                service,
                &["rolling", "max_surge"],
                message,
                "use a port of `auto`, or shared `sockets`",
            );
        }
    }

    fn log(&mut self, service: &ServiceSpec) {
        let path = ["instances", service.name.as_str(), "log", "max_line"];
        self.size(&path, service.policy.log.max_line, MAX_LINE.0, MAX_LINE.1);
    }
}

fn join_path<'a>(path: &[&'a str], key: &'a str) -> Vec<&'a str> {
    path.iter().copied().chain([key]).collect()
}

/// The path of a key of a service.
fn service_path(service: &str, key: &str) -> String {
    join(&join("instances", service), key)
}
