//! History: numbered, for people and programs.

use std::time::Duration;

use hilum_shared::name::{InstanceId, Run, ServiceName};
use hilum_shared::protocol::Level;
use hilum_shared::signal::Exit;
use hilum_shared::units::{Bytes, format_duration, format_size};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// One thing that happened to an instance, a service or the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Counts from 1 in a node's life; a hole is a loss.
    pub seq: u64,
    /// Unix seconds, for people only.
    pub at: f64,
    /// The service, where it concerns one.
    pub service: Option<ServiceName>,
    /// The instance, where it concerns one.
    pub instance: Option<InstanceId>,
    /// Which of its lives.
    pub run: Option<Run>,
    /// The leader.
    pub pid: Option<u32>,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// The process was executed.
    Started,
    /// It is ready, so long after its start.
    Ready(Duration),
    /// It is not ready any more.
    NotReady(String),
    /// The leader ended.
    Exited {
        /// How.
        exit: Exit,
        /// After how long.
        uptime: Duration,
        /// Whether nobody asked for it and it is no success.
        crash: bool,
        /// Why the node ended it, or what was done to it by hand.
        cause: Option<String>,
    },
    /// It will be started again after this delay.
    Restarting {
        /// Zero = at once.
        delay: Duration,
        /// Why it ended.
        reason: String,
    },
    /// It was told to stop.
    Stopping(String),
    /// Nothing of it is left.
    Stopped {
        /// Whether KILL was needed.
        killed: bool,
    },
    /// Given up.
    Failed(String),
    /// All instances of the service crash: one at a time is tried.
    TriedSingly,
    /// It ended with success and stays so.
    Completed,
    /// It could not be executed; there will be another try.
    SpawnFailed(String),
    /// It fell silent.
    HeartbeatLost {
        /// For how long.
        silence: Duration,
    },
    /// A probe says that it does not live.
    ProbeLost(String),
    /// Found stopped or traced.
    Paused(String),
    /// Silent, but the machine gives it no processor: nobody is blamed.
    Starved,
    /// Goes on after that.
    Resumed,
    /// Survives KILL.
    Stuck(Vec<u32>),
    /// Left processes behind when its leader ended.
    LeftBehind(Vec<u32>),
    /// Above its memory limit.
    OverMemory {
        /// What it has.
        rss: Bytes,
        /// What it may have.
        limit: Bytes,
    },
    /// As old as `max_age` lets it be.
    Recycled(Duration),
    /// A hook failed.
    HookFailed {
        /// Which.
        point: &'static str,
        /// How.
        message: String,
    },
    /// Something that it waits for did not come in time.
    DependencyTimeout(String),
    /// A watched file changed.
    FilesChanged(String),
    /// It was told to read its configuration again: how and why.
    ReloadAsked {
        /// `signal HUP`, `message`.
        via: String,
        /// What changed.
        why: String,
    },
    /// A signal was sent by hand.
    Signalled(String),
    /// The process count changed.
    Scaled {
        /// From.
        from: u32,
        /// To.
        to: u32,
    },
    /// A new configuration is in force.
    Reloaded(Vec<String>),
    /// A saved configuration was not put in force: what is wrong with it.
    ReloadRefused(String),
    /// A rolling restart stopped half way.
    RollingStopped(String),
    /// The node itself did not run for a while.
    Stalled(Duration),
    /// The registry that other hosts know cannot be reached, or does not take the node.
    RegistryAway(String),
    /// It is there again.
    RegistryBack,
    /// The node began.
    NodeStarted,
    /// The node is going down.
    NodeStopping(String),
    /// The node is about to exit.
    NodeStopped,
}

impl EventKind {
    /// Its name in `events` and `--json`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Ready(_) => "ready",
            Self::NotReady(_) => "not-ready",
            Self::Exited { .. } => "exited",
            Self::Restarting { .. } => "restarting",
            Self::Stopping(_) => "stopping",
            Self::Stopped { .. } => "stopped",
            Self::Failed(_) => "failed",
            Self::TriedSingly => "tried-singly",
            Self::Completed => "completed",
            Self::SpawnFailed(_) => "spawn-failed",
            Self::HeartbeatLost { .. } => "heartbeat-lost",
            Self::ProbeLost(_) => "probe-lost",
            Self::Paused(_) => "paused",
            Self::Starved => "starved",
            Self::Resumed => "resumed",
            Self::Stuck(_) => "stuck",
            Self::LeftBehind(_) => "left-behind",
            Self::OverMemory { .. } => "over-memory",
            Self::Recycled(_) => "recycled",
            Self::HookFailed { .. } => "hook-failed",
            Self::DependencyTimeout(_) => "dependency-timeout",
            Self::FilesChanged(_) => "files-changed",
            Self::ReloadAsked { .. } => "reload-asked",
            Self::Signalled(_) => "signalled",
            Self::Scaled { .. } => "scaled",
            Self::Reloaded(_) => "reloaded",
            Self::ReloadRefused(_) => "reload-refused",
            Self::RollingStopped(_) => "rolling-stopped",
            Self::Stalled(_) => "stalled",
            Self::RegistryAway(_) => "registry-away",
            Self::RegistryBack => "registry-back",
            Self::NodeStarted => "node-started",
            Self::NodeStopping(_) => "node-stopping",
            Self::NodeStopped => "node-stopped",
        }
    }

    /// How much it matters.
    pub fn level(&self) -> Level {
        match self {
            Self::Failed(_) | Self::Stuck(_) | Self::DependencyTimeout(_) => Level::Error,
            Self::Exited { crash: true, .. }
            | Self::Stopped { killed: true }
            | Self::SpawnFailed(_)
            | Self::NotReady(_)
            | Self::HeartbeatLost { .. }
            | Self::ProbeLost(_)
            | Self::LeftBehind(_)
            | Self::OverMemory { .. }
            | Self::HookFailed { .. }
            | Self::RollingStopped(_)
            | Self::ReloadRefused(_)
            | Self::Starved
            | Self::TriedSingly
            | Self::RegistryAway(_)
            | Self::Stalled(_) => Level::Warning,
            _ => Level::Info,
        }
    }

    /// A line for people.
    pub fn text(&self) -> String {
        match self {
            Self::Started => "started".into(),
            Self::Ready(after) => format!("ready after {}", format_duration(*after)),
            Self::NotReady(why) => format!("not ready any more: {why}"),
            Self::Exited { exit, uptime, .. } => {
                format!("ended after {}: {exit}", format_duration(*uptime))
            }
            Self::Restarting { delay, reason } if delay.is_zero() => {
                format!("restarting now: {reason}")
            }
            Self::Restarting { delay, reason } => {
                format!("restarting in {}: {reason}", format_duration(*delay))
            }
            Self::Stopping(why) => format!("stopping: {why}"),
            Self::Stopped { killed: false } => "stopped".into(),
            Self::Stopped { killed: true } => "stopped (killed)".into(),
            Self::Failed(why) => format!("failed: {why}"),
            Self::TriedSingly => {
                "all its instances crash: they are tried one at a time until one holds".into()
            }
            Self::Completed => "completed".into(),
            Self::SpawnFailed(why) => format!("cannot start: {why}"),
            Self::HeartbeatLost { silence } => {
                format!("heartbeat lost: silent for {}", format_duration(*silence))
            }
            Self::ProbeLost(why) => format!("does not answer: {why}"),
            Self::Paused(why) => format!("paused: {why}"),
            Self::Starved => {
                "silent, but it waits for a processor: the machine is busy, it is not blamed".into()
            }
            Self::Resumed => "goes on".into(),
            Self::Stuck(pids) => format!("stuck: survives SIGKILL: {}", list(pids)),
            Self::LeftBehind(pids) => {
                format!("left processes behind when it ended: {}; ending them", list(pids))
            }
            Self::OverMemory { rss, limit } => {
                format!("uses {}, above its limit of {}", format_size(*rss), format_size(*limit))
            }
            Self::Recycled(age) => format!("recycled at the age of {}", format_duration(*age)),
            Self::HookFailed { point, message } => format!("hook {point} failed: {message}"),
            Self::DependencyTimeout(what) => format!("waited in vain for {what}"),
            Self::FilesChanged(path) => format!("{path} changed"),
            Self::ReloadAsked { via, why } => format!("asked to reload ({via}): {why}"),
            Self::Signalled(signal) => format!("signal {signal} sent"),
            Self::Scaled { from, to } => format!("scaled from {from} to {to}"),
            Self::Reloaded(plan) if plan.is_empty() => "configuration unchanged".into(),
            Self::Reloaded(plan) => format!("configuration reloaded: {}", plan.join(", ")),
            Self::ReloadRefused(why) => why.clone(),
            Self::RollingStopped(why) => format!("rolling restart stopped: {why}"),
            Self::Stalled(gap) => {
                format!("the node did not run for {}; nobody is blamed", format_duration(*gap))
            }
            Self::RegistryAway(why) => format!("{why}; it is tried again and again"),
            Self::RegistryBack => "registry: it is there again".into(),
            Self::NodeStarted => "node started".into(),
            Self::NodeStopping(why) => format!("node stopping: {why}"),
            Self::NodeStopped => "node stopped".into(),
        }
    }
}

impl Event {
    /// What is said of it besides its number.
    ///
    /// # Errors
    /// The writer's.
    pub fn facts<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("at", &self.at)?;
        map.serialize_entry("event", self.kind.name())?;
        map.serialize_entry("service", &self.service)?;
        map.serialize_entry("instance", &self.instance)?;
        map.serialize_entry("run", &self.run)?;
        map.serialize_entry("pid", &self.pid)?;
        map.serialize_entry("text", &self.kind.text())?;
        match &self.kind {
            EventKind::Exited { exit, uptime, crash, cause } => {
                let (code, signal, core) = match exit {
                    Exit::Code(code) => (Some(*code), None, false),
                    Exit::Signal { signal, core } => (None, Some(signal.name()), *core),
                };
                map.serialize_entry("code", &code)?;
                map.serialize_entry("signal", &signal)?;
                map.serialize_entry("core", &core)?;
                map.serialize_entry("uptime", &uptime.as_secs_f64())?;
                map.serialize_entry("crash", crash)?;
                map.serialize_entry("cause", cause)
            }
            EventKind::Restarting { delay, .. } => {
                map.serialize_entry("delay", &delay.as_secs_f64())
            }
            EventKind::Scaled { from, to } => {
                map.serialize_entry("from", from)?;
                map.serialize_entry("to", to)
            }
            EventKind::HeartbeatLost { silence } => {
                map.serialize_entry("silence", &silence.as_secs_f64())
            }
            EventKind::Reloaded(plan) => map.serialize_entry("plan", plan),
            _ => Ok(()),
        }
    }
}

/// What `events --json` prints.
impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("seq", &self.seq)?;
        self.facts(&mut map)?;
        map.end()
    }
}

fn list(pids: &[u32]) -> String {
    let shown: Vec<String> = pids.iter().take(5).map(u32::to_string).collect();
    let more = pids.len().saturating_sub(5);
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("pid {}{tail}", shown.join(", "))
}
