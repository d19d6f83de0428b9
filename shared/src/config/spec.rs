//! What a valid configuration means: the one form in which the rest of the house sees it.
//!
//! [`Launch`] holds what a process is started with (a change needs a restart), [`Policy`] how it is
//! looked after (a change applies to what runs). Everything here is checked; texts that still hold
//! `$(instance.…)` or `$(port.…)` are [`Template`](super::template::Template)s, expanded at each start.

mod launch;
mod policy;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use self::launch::*;
pub use self::policy::*;
use crate::name::ServiceName;
use crate::registry::Choice;
use crate::units::Bytes;

/// A whole cluster as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// What is shown as the project's name: `name:`, `-p`, else the folder's name.
    pub name: String,
    /// All files that were read, the first config first; absolute.
    pub files: Vec<PathBuf>,
    /// A hash of what the files hold, files of variables included: another one when that is another.
    pub content: u64,
    /// The services by name, in name order.
    pub services: BTreeMap<ServiceName, Arc<ServiceSpec>>,
    /// Sockets that the node binds once, in the order of the file.
    pub sockets: Vec<SocketSpec>,
    /// How services find each other.
    pub container: ContainerSpec,
    /// The log store.
    pub logs: LogsSpec,
    /// The node itself.
    pub node: NodeSpec,
    /// The chosen profiles; see [`ServiceSpec::enabled`].
    pub profiles: Vec<String>,
    /// Things that are right but worth a word; shown by `check` and `up`.
    pub warnings: Vec<String>,
}

/// One service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSpec {
    /// Its name.
    pub name: ServiceName,
    /// How many processes; 0 keeps it known and stopped.
    pub numprocesses: u32,
    /// What its processes are started with.
    pub launch: Launch,
    /// How they are looked after.
    pub policy: Policy,
}

/// A socket that the node binds and its instances share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSpec {
    /// Its name in `LISTEN_FDNAMES`; the port where none is given.
    pub name: String,
    /// The address; `container.ip` where none is given.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl SocketSpec {
    /// `host:port`, which tells it from others whatever it is called.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// How services find each other.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerSpec {
    /// Where services listen.
    pub ip: IpAddr,
    /// Where all logs are published; `None` = `pub.sock` in the run folder.
    pub log_endpoint: Option<String>,
    /// Where the node can be called over the network; `None` = a free port. Used where the registry is one that other hosts know.
    pub port: Option<u16>,
    /// Who offers what.
    pub registry: Choice,
}

/// The log store.
#[derive(Clone, Debug, PartialEq)]
pub struct LogsSpec {
    /// Its folder; `None` = `logs/` in the state folder.
    pub dir: Option<PathBuf>,
    /// In all.
    pub budget: Bytes,
    /// Share of the disk that stays free, 0 to 1.
    pub keep_free: f64,
    /// Size of a segment.
    pub segment: Bytes,
    /// Older segments go.
    pub max_age: Option<Duration>,
    /// Whether closed segments are compressed.
    pub compress: bool,
    /// What happens to a worker that outruns the disk.
    pub overflow: Overflow,
}

/// What happens to a worker that outruns the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// It waits.
    Block,
    /// Its lines are dropped and counted.
    Drop,
}

/// The node itself.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSpec {
    /// The run folder; `None` = computed.
    pub run_dir: Option<PathBuf>,
    /// Between two heartbeats.
    pub heartbeat_interval: Duration,
    /// The silence that is too long.
    pub heartbeat_timeout: Duration,
    /// So many instances may be between start and ready at once.
    pub start_parallel: u32,
    /// For the stop of the whole cluster.
    pub stop_timeout: Duration,
    /// What a foreground node does when everything has ended; `None`: exit in the foreground, keep when detached.
    pub on_all_exited: Option<OnAllExited>,
    /// Whether a saved config is applied.
    pub watch_config: bool,
    /// Between two samples of statistics.
    pub stats_interval: Duration,
    /// Where Prometheus asks.
    pub metrics: Option<SocketAddr>,
}

/// What a node does when nothing runs any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAllExited {
    /// It exits.
    Exit,
    /// It stays.
    Keep,
}

impl Cluster {
    /// The service with this name.
    pub fn service(&self, name: &str) -> Option<&Arc<ServiceSpec>> {
        self.services.get(name)
    }

    /// Whether any service has limits that need a control group.
    pub fn needs_cgroups(&self) -> bool {
        self.services.values().any(|spec| spec.launch.limits.need_cgroup())
    }
}

impl ServiceSpec {
    /// Whether `up` without a TARGET starts it: `autostart` is on, and it has no profiles or one that is chosen.
    pub fn enabled(&self, chosen: &[String]) -> bool {
        let policy = &self.policy;
        policy.autostart
            && (policy.profiles.is_empty() || policy.profiles.iter().any(|p| chosen.contains(p)))
    }

    /// What readiness of a dependency on this service means by default.
    pub fn default_condition(&self) -> Condition {
        match (self.policy.kind, &self.policy.ready) {
            (Kind::Job, _) => Condition::Completed,
            (_, Some(_)) => Condition::Ready,
            (_, None) => Condition::Started,
        }
    }
}
