//! The difference of two configurations: what a reload would do, before anything is done.

use std::time::Duration;

use hilum_shared::config::spec::{AliveKind, Cluster, Launch, Policy, ServiceSpec, SocketSpec};
use hilum_shared::name::ServiceName;

/// What a new configuration changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Service by service, in name order; unchanged ones are not there.
    pub services: Vec<(ServiceName, Change)>,
    /// Which shared sockets are bound and closed, in words.
    pub sockets: Option<String>,
    /// Keys of the node that take effect at once.
    pub live: Vec<&'static str>,
    /// Top-level keys that take effect at the next start of the node only.
    pub node: Vec<&'static str>,
}

/// What changes of one service.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It stays, and these keys differ.
    Changed {
        /// Keys whose change needs a restart.
        launch: Vec<&'static str>,
        /// Keys that apply to what runs.
        policy: Vec<&'static str>,
        /// The new `numprocesses`, when it differs.
        count: Option<u32>,
    },
}

/// Compares two valid configurations.
pub fn diff(old: &Cluster, new: &Cluster) -> Plan {
    let mut plan = Plan::default();
    let names = old
        .services
        .keys()
        .chain(new.services.keys().filter(|name| !old.services.contains_key(*name)));
    for name in names {
        let change = match (old.services.get(name), new.services.get(name)) {
            (None, _) => Change::Added,
            (Some(_), None) => Change::Removed,
            (Some(before), Some(after)) => match changed(before, after) {
                Some(change) => change,
                None => continue,
            },
        };
        plan.services.push((name.clone(), change));
    }
    plan.services.sort_by(|a, b| a.0.cmp(&b.0));
    plan.sockets = sockets(&old.sockets, &new.sockets);
    let (before, after) = (&old.node, &new.node);
    let live = [
        (
            "node.heartbeat",
            (before.heartbeat_interval, before.heartbeat_timeout)
                != (after.heartbeat_interval, after.heartbeat_timeout),
        ),
        ("node.start_parallel", before.start_parallel != after.start_parallel),
        ("node.stop_timeout", before.stop_timeout != after.stop_timeout),
        ("node.watch_config", before.watch_config != after.watch_config),
        ("node.stats_interval", before.stats_interval != after.stats_interval),
    ];
    plan.live = differing(&live);
    let node = [
        ("logs", old.logs != new.logs),
        ("container", old.container != new.container),
        ("node.run_dir", before.run_dir != after.run_dir),
        ("node.on_all_exited", before.on_all_exited != after.on_all_exited),
        ("node.metrics", before.metrics != after.metrics),
    ];
    plan.node = differing(&node);
    plan
}

fn differing(keys: &[(&'static str, bool)]) -> Vec<&'static str> {
    keys.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key).collect()
}

/// What `WATCHDOG_USEC` tells a process at its start, where its watchdog is watched.
pub fn watchdog(policy: &Policy) -> Option<Duration> {
    policy
        .alive
        .as_ref()
        .filter(|check| check.kind == AliveKind::Notify)
        .map(|check| check.interval)
}

/// A socket with another name only is kept.
fn sockets(old: &[SocketSpec], new: &[SocketSpec]) -> Option<String> {
    let beyond = |these: &[SocketSpec], those: &[SocketSpec], verb: &str| {
        let held: Vec<String> = those.iter().map(SocketSpec::address).collect();
        let only = these.iter().map(SocketSpec::address).filter(|address| !held.contains(address));
        let only: Vec<String> = only.collect();
        (!only.is_empty()).then(|| format!("{verb} {}", only.join(", ")))
    };
    let words = [beyond(new, old, "binds"), beyond(old, new, "closes")];
    let words: Vec<String> = words.into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join("; "))
}

fn changed(before: &ServiceSpec, after: &ServiceSpec) -> Option<Change> {
    let launch = launch_keys(&before.launch, &after.launch);
    let policy = policy_keys(&before.policy, &after.policy);
    let count = (before.numprocesses != after.numprocesses).then_some(after.numprocesses);
    (!launch.is_empty() || !policy.is_empty() || count.is_some()).then_some(Change::Changed {
        launch,
        policy,
        count,
    })
}

/// The keys in which two launches differ.
pub fn launch_keys(a: &Launch, b: &Launch) -> Vec<&'static str> {
    let differs = [
        ("command", a.command != b.command),
        ("directory", a.directory != b.directory),
        ("env", a.inherit_env != b.inherit_env || !same_env(a, b)),
        ("ports", a.ports != b.ports),
        ("sockets", a.sockets != b.sockets),
        ("tty", a.tty != b.tty),
        ("limits", a.limits != b.limits),
        ("user", a.user != b.user || a.group != b.group),
        ("umask", a.umask != b.umask),
        ("nice", a.nice != b.nice),
        ("cpus", a.cpus != b.cpus),
        ("no_new_privs", a.no_new_privs != b.no_new_privs),
    ];
    differing(&differs)
}

/// A variable that only moved to another line is the same variable.
fn same_env(a: &Launch, b: &Launch) -> bool {
    a.env.len() == b.env.len()
        && a.env
            .iter()
            .all(|(name, value)| b.env.get(name).is_some_and(|other| other.value == value.value))
}

fn policy_keys(a: &Policy, b: &Policy) -> Vec<&'static str> {
    let differs = [
        ("kind", a.kind != b.kind),
        ("autostart", a.autostart != b.autostart),
        ("profiles", a.profiles != b.profiles),
        ("depends_on", a.depends_on != b.depends_on),
        ("restart", a.restart != b.restart),
        ("on_failure", a.on_failure != b.on_failure),
        ("ready", a.ready != b.ready),
        ("alive", a.alive != b.alive),
        ("stop", a.stop != b.stop),
        ("rolling", a.rolling != b.rolling),
        ("watch", a.watch != b.watch),
        ("reload", a.reload != b.reload),
        ("hooks", a.hooks != b.hooks),
        ("log", a.log != b.log),
        ("max_age", a.max_age != b.max_age),
        ("schedule", a.schedule != b.schedule),
        ("start_stagger", a.start_stagger != b.start_stagger),
        ("limits.memory", a.memory != b.memory),
        ("description", a.description != b.description),
        ("labels", a.labels != b.labels),
    ];
    differing(&differs)
}
