//! What an unknown key probably means.

use std::borrow::Cow;

use super::super::diagnostic::nearest;
use super::super::keys::{self, Key};

/// Keys of other supervisors, and what they are called here.
const FOREIGN: &[(&str, &str)] = &[
    ("args", "command"),
    ("cmd", "command"),
    ("exec_start", "command"),
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
    ("kill_timeout", "stop.timeout"),
    ("shutdown", "stop"),
    ("startsecs", "restart.min_uptime"),
    ("startretries", "restart.limit"),
    ("max_restarts", "restart.limit"),
    ("restart_sec", "restart.delay"),
    ("stdout_logfile", "log.file"),
    ("log_location", "log.file"),
    ("availability", "restart"),
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

/// What an unknown key probably means: another program's word, a key that stands one level lower, or a slip.
pub(super) fn likely(name: &str, known: &'static [Key]) -> Option<Cow<'static, str>> {
    let here = |ours: &str| names(known).any(|known| ours.split(['.', '`']).next() == Some(known));
    let foreign = || FOREIGN.iter().filter(|(_, ours)| here(ours));
    let plain = name.to_ascii_lowercase().replace('-', "_");
    let same = || foreign().find(|(other, _)| *other == plain).map(|(_, ours)| Cow::from(*ours));
    let similar = || {
        let other = nearest(name, foreign().map(|(other, _)| *other))?;
        foreign().find(|(word, _)| *word == other).map(|(_, ours)| Cow::from(*ours))
    };
    same()
        .or_else(|| lower(&plain, known).map(Cow::from))
        .or_else(|| nearest(name, names(known)).map(Cow::from))
        .or_else(similar)
}

/// The key one level lower that is meant: `stop_timeout`, `min_uptime`. Where several maps have a key of that name, none.
fn lower(name: &str, known: &'static [Key]) -> Option<String> {
    let maps = known.iter().filter(|key| !key.refused && !key.ty.named());
    let below = maps.filter_map(|key| {
        let inner = key.ty.keys()?;
        let rest = name.strip_prefix(key.name).and_then(|rest| rest.strip_prefix(['_', '.']));
        let found = keys::find(inner, rest.unwrap_or(name)).filter(|inner| !inner.refused)?;
        Some((rest.is_some(), format!("{}.{}", key.name, found.name)))
    });
    let mut found: Vec<_> = below.collect();
    if found.iter().any(|(whole, _)| *whole) {
        found.retain(|(whole, _)| *whole);
    }
    (found.len() == 1).then(|| found.remove(0).1)
}

#[cfg(test)]
mod tests {
    use super::super::super::keys::service;
    use super::*;

    #[test]
    fn a_word_of_another_program_leads_to_a_key_that_exists() {
        for (_, ours) in FOREIGN {
            for ours in ours.split("` and `") {
                let mut found = false;
                let below = format!(".{ours}");
                keys::walk(&mut |path, _| found |= path == ours || path.ends_with(&below));
                assert!(found, "{ours}");
            }
        }
    }

    #[test]
    fn what_stands_one_level_lower_is_found() {
        let meant = |name| likely(name, service::SERVICE).unwrap_or_default();
        assert_eq!(meant("stop_timeout"), "stop.timeout");
        assert_eq!(meant("stop-timeout"), "stop.timeout");
        assert_eq!(meant("min_uptime"), "restart.min_uptime");
        assert_eq!(meant("restart_delay"), "restart.delay");
        assert_eq!(meant("working_dri"), "directory");
        assert_eq!(meant("startsecs"), "restart.min_uptime");
        assert_eq!(meant("comand"), "command");
    }
}
