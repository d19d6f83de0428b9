//! What an unknown key probably means.

use super::super::diagnostic::nearest;
use super::super::keys::Key;

/// Keys of other supervisors, and what they are called here.
const FOREIGN: &[(&str, &str)] = &[
    ("args", "command"),
    ("cmd", "command"),
    ("entrypoint", "command"),
    ("exec", "command"),
    ("run", "command"),
    ("script", "command"),
    ("replicas", "numprocesses"),
    ("processes", "numprocesses"),
    ("numprocs", "numprocesses"),
    ("scale", "numprocesses"),
    ("cwd", "directory"),
    ("working_dir", "directory"),
    ("working_directory", "directory"),
    ("environment", "env"),
    ("copy_env", "inherit_env"),
    ("services", "instances"),
    ("watchers", "instances"),
    ("programs", "instances"),
    ("stop_signal", "stop.signal"),
    ("stopsignal", "stop.signal"),
    ("stop_grace_period", "stop.timeout"),
    ("graceful_timeout", "stop.timeout"),
    ("stopwaitsecs", "stop.timeout"),
    ("autorestart", "restart"),
    ("restart_policy", "restart"),
    ("healthcheck", "ready` and `alive"),
    ("readiness_probe", "ready"),
    ("liveness_probe", "alive"),
    ("uid", "user"),
    ("gid", "group"),
    ("rlimits", "limits"),
    ("ulimits", "limits"),
    ("priority", "nice"),
    ("cpuset", "cpus"),
    ("every", "interval"),
    ("period", "interval"),
    ("retries", "failures"),
    ("use_sockets", "sockets"),
];

/// The names that can be written.
pub(super) fn names(known: &'static [Key]) -> impl Iterator<Item = &'static str> {
    known.iter().filter(|key| !key.refused).map(|key| key.name)
}

/// What an unknown key probably means: another program's word, or a slip.
pub(super) fn likely(name: &str, known: &'static [Key]) -> Option<&'static str> {
    let foreign = FOREIGN
        .iter()
        .find(|(other, ours)| *other == name && names(known).any(|n| ours.starts_with(n)));
    foreign.map(|(_, ours)| *ours).or_else(|| nearest(name, names(known)))
}
