//! What a node shows of itself: the body of `node.status` and of `ps --json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::{InstanceId, Run, ServiceName};
use crate::signal::Exit;

/// One look at a whole node. Only additive changes; absent things are `null`; seconds are floats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The project's name.
    pub project: String,
    /// The first config, absolute.
    pub config: String,
    /// The node's process.
    pub node: NodeStatus,
    /// The services, in name order.
    pub services: Vec<ServiceStatus>,
    /// All instances, in order of service and index.
    pub instances: Vec<InstanceStatus>,
}

/// The node's process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its pid.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime: f64,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// Whether it is on its way down.
    #[serde(default)]
    pub stopping: bool,
    /// Where every line is published, for `tail`.
    #[serde(default)]
    pub log_endpoint: Option<String>,
    /// Where its metrics are, for Prometheus.
    #[serde(default)]
    pub metrics: Option<String>,
    /// What it warns of: degraded modes, lost log lines.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Messages on its sockets that were counted and ignored, by reason.
    #[serde(default)]
    pub ignored: BTreeMap<String, u64>,
    /// Lines that the timeline misses since its start, by anybody.
    #[serde(default)]
    pub dropped: u64,
    /// The same, by the word of the cause.
    #[serde(default)]
    pub dropped_by: BTreeMap<String, u64>,
    /// Lines that the timeline has, and a copy of it misses: a `log-file`, a `subscriber`.
    #[serde(default)]
    pub missed_by: BTreeMap<String, u64>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: ServiceName,
    /// How many processes are wanted now.
    pub count: u32,
    /// How many the file says.
    pub configured: u32,
    /// Whether the file has it no more.
    #[serde(default)]
    pub removed: bool,
    /// Whether it is a job.
    #[serde(default)]
    pub job: bool,
    /// From the file.
    #[serde(default)]
    pub description: Option<String>,
}

/// Where an instance is, as the user sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not wanted, nothing runs.
    Stopped,
    /// Wanted, waits for a dependency, a slot or its schedule.
    Waiting,
    /// Executed or about to be, not ready yet.
    Starting,
    /// Runs (and was ready).
    Running,
    /// Was told to stop.
    Stopping,
    /// Ended, will be started again.
    Backoff,
    /// Ended with success and stays so.
    Completed,
    /// Given up.
    Failed,
}

impl State {
    /// The word of `ps`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

/// Something that is so besides the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flag {
    /// Stopped by SIGSTOP or held by a debugger.
    Paused,
    /// Survives SIGKILL.
    Stuck,
    /// The machine had no time for it.
    Starved,
    /// Its output waits for us.
    HeldBack,
    /// Lines of this run were dropped; the timeline says how many and why.
    LinesDropped,
    /// The file has it no more.
    Removed,
    /// It was started with another definition than the one in force.
    Outdated,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// The service.
    pub service: ServiceName,
    /// `echo.3`.
    pub instance: InstanceId,
    /// `3`.
    pub index: u32,
    /// The leader's pid.
    pub pid: Option<u32>,
    /// Where it is.
    pub state: State,
    /// Whether it is ready now.
    pub ready: bool,
    /// What is so besides.
    pub flags: Vec<Flag>,
    /// Every start counts one.
    pub run: Run,
    /// Automatic restarts.
    pub restarts: u32,
    /// Seconds since the leader was executed.
    pub uptime: Option<f64>,
    /// The last end, also while it runs again.
    pub exit: Option<ExitStatus>,
    /// Why it is where it is, in a sentence.
    pub reason: Option<String>,
    /// Seconds until the next automatic step.
    pub next_at: Option<f64>,
    /// The program's own status text.
    pub info: Option<String>,
    /// Of one processor, in percent.
    pub cpu_percent: Option<f64>,
    /// Resident memory of the whole group.
    pub rss_bytes: Option<u64>,
    /// Seconds since the last heartbeat.
    pub heartbeat_age: Option<f64>,
    /// By name.
    pub ports: BTreeMap<String, u16>,
    /// From the file.
    pub labels: BTreeMap<String, String>,
    /// What it waits for: `db.1 to be ready`.
    #[serde(default)]
    pub blocked_by: Vec<String>,
    /// Why nobody should wait for it to come up: it has failed, ended again and again too soon, or needs one that did.
    #[serde(default)]
    pub in_vain: Option<String>,
    /// The hook before whose end it goes no further.
    #[serde(default)]
    pub hook: Option<Hook>,
    /// Its lines that the timeline misses, in all its lives under this node.
    #[serde(default)]
    pub dropped: u64,
    /// The same, by the word of the cause.
    #[serde(default)]
    pub dropped_by: BTreeMap<String, u64>,
    /// Its lines that the timeline has, and a copy of it misses.
    #[serde(default)]
    pub missed_by: BTreeMap<String, u64>,
}

/// A hook that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hook {
    /// As in the configuration: `before_stop`.
    pub name: String,
    /// Seconds since it was begun.
    pub uptime: f64,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// The exit code, when it exited.
    pub code: Option<i32>,
    /// The signal's name without SIG, when one ended it.
    pub signal: Option<String>,
    /// Unix seconds.
    pub at: f64,
}

impl ExitStatus {
    /// The end `exit` at `at` (Unix seconds).
    pub fn new(exit: Exit, at: f64) -> Self {
        match exit {
            Exit::Code(code) => Self { code: Some(code), signal: None, at },
            Exit::Signal { signal, .. } => Self { code: None, signal: Some(signal.name()), at },
        }
    }
}
