//! Messages of the channels between a node, its workers and its clients (`docs/protocol.md`).
//!
//! Types only: the codec is MessagePack with named fields (`wire::pack`), unknown fields
//! are ignored, absent ones take their default.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::{InstanceId, Run};

/// Names of the variables that the node sets for every instance.
pub mod env {
    /// The control endpoint.
    pub const NODE: &str = "HILUM_NODE";
    /// The shutdown endpoint.
    pub const SHUTDOWN: &str = "HILUM_SHUTDOWN";
    /// The heartbeat endpoint.
    pub const HEARTBEAT: &str = "HILUM_HEARTBEAT";
    /// The endpoint for structured records.
    pub const LOG: &str = "HILUM_LOG";
    /// Where all lines are published.
    pub const LOG_ENDPOINT: &str = "HILUM_LOG_ENDPOINT";
    /// The event broker.
    pub const EVENTS: &str = "HILUM_EVENTS";
    /// The lock's path.
    pub const LOCK: &str = "HILUM_LOCK";
    /// `<id>.<nonce>`: marks every descendant of a node's life.
    pub const CLUSTER: &str = "HILUM_CLUSTER";
    /// Random, per run: proves that a message is the process's own.
    pub const TOKEN: &str = "HILUM_TOKEN";
    /// Seconds between two heartbeats.
    pub const HEARTBEAT_INTERVAL: &str = "HILUM_HEARTBEAT_INTERVAL";
    /// Seconds of silence that are too many.
    pub const HEARTBEAT_TIMEOUT: &str = "HILUM_HEARTBEAT_TIMEOUT";
    /// The project's name.
    pub const PROJECT: &str = "HILUM_PROJECT";
    /// The service's name.
    pub const SERVICE: &str = "HILUM_SERVICE";
    /// The instance, `echo.3`.
    pub const INSTANCE: &str = "HILUM_INSTANCE";
    /// Its index, `3`.
    pub const INDEX: &str = "HILUM_INDEX";
    /// How many times this index has been started.
    pub const RUN: &str = "HILUM_RUN";
}

/// What a worker says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// Not ready yet.
    Starting,
    /// Takes work.
    Ready,
    /// Works, takes no more.
    Busy,
    /// Was told to stop and finishes what it has.
    Draining,
}

/// Worker to node: the second frame of `["HB", beat]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    /// Who.
    pub instance: InstanceId,
    /// Which of its lives.
    pub run: Run,
    /// The process.
    pub pid: u32,
    /// What the node gave it as [`env::TOKEN`].
    pub token: String,
    /// Counts from 1.
    pub seq: u64,
    /// What it says of itself.
    pub state: WorkerState,
    /// Unix seconds at the worker.
    #[serde(default)]
    pub at: f64,
    /// A line for people, shown by `ps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Figures by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
}

/// Node to worker: the second frame of `["HB", echo]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Echo {
    /// Of the beat that is answered.
    pub seq: u64,
    /// Unix seconds at the node.
    pub at: f64,
    /// Seconds between two beats, as configured now.
    pub interval: f64,
    /// Seconds of silence that are too many, as configured now.
    pub timeout: f64,
}

/// First frame of every heartbeat message.
pub const HEARTBEAT_FRAME: &[u8] = b"HB";
/// First frame of every batch of log records.
pub const LOG_FRAME: &[u8] = b"LOG";
/// Batches of records that may wait in the node's libzmq for each worker. Each has 64 KiB at most, so that a store that takes nothing
/// costs the node a MiB for each, and the worker soon waits.
pub const LOG_HIGH_WATER: u32 = 16;

/// What an order asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderKind {
    /// Drain and exit 0.
    Shutdown,
    /// Read the configuration again.
    Reload,
}

/// Node to worker on the shutdown channel: the second frame of `[topic, order]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The same order may come twice and is obeyed once.
    pub id: String,
    /// What is asked.
    pub kind: OrderKind,
    /// Only for this run; `None` = for all.
    #[serde(default)]
    pub run: Option<Run>,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
    /// Seconds until KILL.
    #[serde(default)]
    pub grace: f64,
    /// Unix seconds at the node.
    #[serde(default)]
    pub at: f64,
}

/// The topics that a worker subscribes to; each ends in a slash so that no prefix is ambiguous.
pub fn topics(instance: &InstanceId) -> [String; 3] {
    ["all/".to_owned(), format!("service/{}/", instance.service), format!("instance/{instance}/")]
}

/// Levels by lymph's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// For the author.
    Debug,
    /// What happens.
    Info,
    /// Recovered, look tomorrow.
    Warning,
    /// Someone should act.
    Error,
    /// Nothing works.
    Critical,
}

impl Level {
    /// lymph's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }

    /// Reads any of the common names, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "trace" | "debug" | "verbose" | "fine" | "finer" | "finest" => Self::Debug,
            "info" | "information" | "notice" | "i" => Self::Info,
            "warn" | "warning" | "w" => Self::Warning,
            "error" | "err" | "severe" | "e" => Self::Error,
            "critical" | "crit" | "fatal" | "panic" | "alert" | "emerg" | "emergency" | "f" => {
                Self::Critical
            }
            _ => return None,
        })
    }
}

/// A structured record, one frame each in `["LOG", token, record…]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Who.
    pub instance: InstanceId,
    /// Counts from 1 in each run; a hole is shown as a gap. Absent: the record is taken as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Unix seconds at the worker.
    #[serde(default)]
    pub at: f64,
    /// The level's name; unknown ones count as INFO.
    #[serde(default)]
    pub level: String,
    /// The logger's name.
    #[serde(default)]
    pub logger: String,
    /// The text.
    pub message: String,
    /// Further values by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, serde_json::Value>,
    /// The request it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// Calls of interface `node` and what they answer. The command line is a client of exactly this.
pub mod control {
    use serde::{Deserialize, Serialize};

    use crate::name::InstanceId;

    /// The interface's name.
    pub const INTERFACE: &str = "node";

    /// `node.start`, `node.stop`, `node.restart`: which instances, and how.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    pub struct Targets {
        /// Services, instances or globs; none = all.
        #[serde(default)]
        pub targets: Vec<String>,
        /// Whether dependencies are started, too.
        #[serde(default = "yes")]
        pub deps: bool,
        /// One at a time, each after the one before is ready.
        #[serde(default)]
        pub rolling: bool,
        /// Seconds of `stop.timeout` in place of the configured ones; 0 = KILL now.
        #[serde(default)]
        pub grace: Option<f64>,
    }

    /// `node.scale`.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Scale {
        /// The counts to set.
        pub changes: Vec<ScaleTo>,
    }

    /// One count.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct ScaleTo {
        /// Which service.
        pub service: String,
        /// `5`, or `+2` / `-1` when `relative`.
        pub count: i64,
        /// Whether `count` is added to the present count.
        #[serde(default)]
        pub relative: bool,
    }

    /// `node.signal`.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Send {
        /// Services, instances or globs; at least one.
        pub targets: Vec<String>,
        /// A name or number.
        pub signal: String,
    }

    /// `node.reload`.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    pub struct Reload {
        /// Only say what would change.
        #[serde(default)]
        pub dry_run: bool,
    }

    /// `node.abort_on_failure`: from now on the first instance that fails ends the cluster; one that has failed already
    /// does so at once.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    pub struct AbortOnFailure {}

    /// `node.shutdown`: everything, then the node.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    pub struct Shutdown {
        /// Seconds in place of the configured ones; 0 = KILL now.
        #[serde(default)]
        pub grace: Option<f64>,
        /// Why, for the log.
        #[serde(default)]
        pub reason: String,
    }

    /// `node.wait`: until the operation is done. Answered when it is.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct Wait {
        /// What [`Accepted::operation`] said.
        pub operation: u64,
    }

    /// `node.await`: until every target is in the state. Answered when it is.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct Await {
        /// Services, instances or globs; none = all.
        #[serde(default)]
        pub targets: Vec<String>,
        /// What is waited for.
        pub state: AwaitState,
    }

    /// What `node.await` waits for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum AwaitState {
        /// Ready (or completed, for a job).
        Ready,
        /// Executed and not ended.
        Running,
        /// Nothing of it is left.
        Stopped,
        /// The present run has ended (the next one after the call where none runs).
        Exit,
    }

    /// The answer of every call that starts something.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    pub struct Accepted {
        /// To wait for with `node.wait`.
        pub operation: u64,
        /// What will be done, instance by instance; `result` is filled by `node.wait`.
        pub changed: Vec<Change>,
        /// Words for people: `running dependents: web`.
        #[serde(default)]
        pub notes: Vec<String>,
    }

    /// The answer of `node.wait`.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    pub struct Outcome {
        /// What was done.
        pub changed: Vec<Change>,
        /// Processes that outlived a stop.
        #[serde(default)]
        pub survivors: Vec<u32>,
        /// Whether all went well.
        pub ok: bool,
    }

    /// One instance's part of an operation.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct Change {
        /// Which; `None` for a change of the whole cluster.
        pub instance: Option<InstanceId>,
        /// `start stop restart signal scale reload keep wait`.
        pub action: String,
        /// `started ready completed stopped killed failed unchanged sent pending superseded`; of `wait` the state.
        #[serde(default)]
        pub result: Option<String>,
        /// Why.
        #[serde(default)]
        pub reason: Option<String>,
    }

    /// The answer of `node.reload`.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    pub struct Reloaded {
        /// 0 for a dry run.
        pub operation: u64,
        /// `+ web.2`, `- web.3`, `~ db.1 env: restart`.
        pub plan: Vec<String>,
        /// As in [`Accepted`].
        #[serde(default)]
        pub changed: Vec<Change>,
        /// Words of warning of the new configuration.
        #[serde(default)]
        pub warnings: Vec<String>,
    }

    /// Body of an ERROR reply.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct Fault {
        /// A stable code: `unknown-target`, `invalid-config`, `refused`, `usage`, `internal`.
        #[serde(rename = "type")]
        pub code: String,
        /// What, on which thing, why.
        pub message: String,
        /// The next step.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub help: Option<String>,
    }

    fn yes() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_end_in_a_slash() {
        let id = InstanceId::parse("echo.3").unwrap();
        assert_eq!(topics(&id), ["all/", "service/echo/", "instance/echo.3/"]);
    }

    #[test]
    fn messages_of_older_and_newer_peers_decode() {
        let beat: Beat = rmp_serde::from_slice(
            &rmp_serde::to_vec_named(&serde_json::json!({
                "instance": "echo.3", "run": 1, "pid": 7, "token": "t", "seq": 1, "state": "ready", "later": [1]
            }))
            .unwrap(),
        )
        .unwrap();
        assert_eq!(beat.state, WorkerState::Ready);
        let targets: control::Targets = serde_json::from_str("{}").unwrap();
        assert!(targets.deps);
    }

    #[test]
    fn levels_have_lymphs_names() {
        assert_eq!(Level::parse("warn"), Some(Level::Warning));
        assert_eq!(Level::parse("TRACE"), Some(Level::Debug));
        assert_eq!(Level::parse("loud"), None);
        assert!(Level::Error > Level::Warning);
    }
}
