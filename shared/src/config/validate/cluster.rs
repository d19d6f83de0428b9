//! What concerns no single service: the project, its node, the log store, the chosen profiles.

use std::time::Duration;

use super::super::diagnostic::{nearest, quote};
use super::super::source::Pos;
use super::Check;
use crate::run_dir::{MAX_SOCKET_PATH, RunDir};
use crate::units::{Bytes, format_duration, format_size};

/// The smallest and largest `logs.segment`.
const SEGMENT: (Bytes, Bytes) = (Bytes(64 << 10), Bytes(1 << 30));

impl Check<'_> {
    pub(super) fn cluster(&mut self) {
        let cluster = self.cluster;
        if cluster.services.is_empty() && self.problems.errors() == 0 {
            let at = self.at(&["instances"]);
            self.problems
                .warning(at, "instances", "no instances: there is nothing to start")
                .help("declare them below `instances:`");
        }
        if cluster.name.is_empty() || cluster.name.chars().any(char::is_control) {
            let at = self.value_at(&["name"]);
            self.problems.error(at, "name", "the project's name is one line of text");
        }
        let node = &cluster.node;
        self.heartbeat(
            &["node", "heartbeat", "timeout"],
            node.heartbeat_interval,
            node.heartbeat_timeout,
        );
        let logs = &cluster.logs;
        self.size(&["logs", "segment"], logs.segment, SEGMENT.0, SEGMENT.1);
        if logs.budget.0 < logs.segment.0.saturating_mul(2) {
            let at = self.value_at(&["logs", "budget"]);
            let message = format!(
                "`budget` ({}) is less than two segments ({})",
                format_size(logs.budget),
                format_size(Bytes(logs.segment.0.saturating_mul(2)))
            );
            self.problems.error(at, "logs.budget", message).help(
                "one segment is written while older ones are removed: raise it, or lower `segment`",
            );
        }
        if logs.keep_free >= 1.0 {
            let at = self.value_at(&["logs", "keep_free"]);
            self.problems.error(
                at,
                "logs.keep_free",
                "nothing would ever be written with all of the disk kept free",
            );
        }
        let run_dir = node.run_dir.clone().map(RunDir::at);
        if let Some(Err(too_long)) = run_dir.map(|run_dir| run_dir.fits()) {
            let at = self.value_at(&["node", "run_dir"]);
            self.problems.error(at, "node.run_dir", too_long.to_string());
        }
        if let Some(endpoint) = &cluster.container.log_endpoint {
            self.endpoint(endpoint);
        }
    }

    fn endpoint(&mut self, endpoint: &str) {
        let at = self.value_at(&["container", "log_endpoint"]);
        let path = "container.log_endpoint";
        let good = match endpoint.split_once("://") {
            Some(("tcp", address)) => address
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()),
            Some(("ipc", file)) if file.len() > MAX_SOCKET_PATH => {
                let message = format!(
                    "the path of a socket has at most {MAX_SOCKET_PATH} bytes, this one has {}",
                    file.len()
                );
                self.problems.error(at, path, message);
                return;
            }
            Some(("ipc", file)) => !file.is_empty(),
            _ => false,
        };
        if !good {
            self.problems
                .error(at, path, format!("{} is no endpoint", quote(endpoint)))
                .help("write `tcp://127.0.0.1:5600` or `ipc:///path/to/socket`");
        }
    }

    pub(super) fn heartbeat(&mut self, path: &[&str], interval: Duration, timeout: Duration) {
        if timeout <= interval {
            let at = self.value_at(path);
            let message = format!(
                "the heartbeat's `timeout` ({}) must be longer than its `interval` ({})",
                format_duration(timeout),
                format_duration(interval)
            );
            self.problems
                .error(at, &path.join("."), message)
                .help("three to five intervals leave room for one late beat");
        }
    }

    pub(super) fn size(&mut self, path: &[&str], size: Bytes, min: Bytes, max: Bytes) {
        if size < min || size > max {
            let at = self.value_at(path);
            let key = path.last().copied().unwrap_or_default();
            let message = format!(
                "`{key}` is from {} to {}, not {}",
                format_size(min),
                format_size(max),
                format_size(size)
            );
            self.problems.error(at, &path.join("."), message);
        }
    }

    /// A chosen profile that no service has.
    pub(super) fn profiles(&mut self, chosen: &[String]) {
        let services = self.cluster.services.values();
        let known: Vec<&str> = services
            .flat_map(|service| service.policy.profiles.iter().map(String::as_str))
            .collect();
        for profile in chosen {
            if !known.contains(&profile.as_str()) {
                let message = format!("no service has the chosen profile {}", quote(profile));
                let near = nearest(profile, known.iter().copied());
                let problem = self.problems.warning(Pos::NONE, "", message);
                if let Some(near) = near {
                    problem.help(format!("did you mean `{near}`?"));
                }
            }
        }
    }
}
