//! How processes are looked after.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::super::template::Template;
use crate::name::ServiceName;
use crate::signal::Signal;
use crate::units::Bytes;

/// How the processes are looked after. A change applies to what runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Service or job.
    pub kind: Kind,
    /// Whether `up` starts it.
    pub autostart: bool,
    /// Started only when one of these is chosen; none = always.
    pub profiles: Vec<String>,
    /// What must hold before it starts.
    pub depends_on: Vec<Dependency>,
    /// What happens when it ends.
    pub restart: RestartPolicy,
    /// What happens to the others when it has failed for good.
    pub on_failure: OnFailure,
    /// How it is known to be ready; `None`: running is ready.
    pub ready: Option<ReadyCheck>,
    /// How it is known to live; `None`: by heartbeats as soon as one was sent.
    pub alive: Option<AliveCheck>,
    /// How it is stopped.
    pub stop: StopPolicy,
    /// How several are replaced; `None`: all at once.
    pub rolling: Option<Rolling>,
    /// Files whose change restarts it.
    pub watch: Option<Watch>,
    /// How it takes a new configuration without a restart.
    pub reload: Option<ReloadVia>,
    /// Commands at points of its life.
    pub hooks: Hooks,
    /// How its output is read.
    pub log: LogPolicy,
    /// Recycled after this age.
    pub max_age: Option<MaxAge>,
    /// When a job runs.
    pub schedule: Option<Schedule>,
    /// Pause between the starts of its instances.
    pub start_stagger: Duration,
    /// Restart above this resident memory of the group.
    pub memory: Option<Bytes>,
    /// Shown by `ps`.
    pub description: Option<String>,
    /// Kept by `export`, shown by `ps --json`.
    pub labels: BTreeMap<String, String>,
}

/// Service or job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs until stopped.
    Service,
    /// Runs to its end; success is `completed`.
    Job,
}

/// One edge of `depends_on`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The other service.
    pub service: ServiceName,
    /// What of it is waited for.
    pub condition: Condition,
    /// Of how many of its instances.
    pub quorum: Quorum,
    /// How long; `None` = for ever.
    pub timeout: Option<Duration>,
    /// Whether its restart restarts this one, too.
    pub on_restart: OnDependencyRestart,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Its process was executed.
    Started,
    /// It said that it is ready.
    Ready,
    /// It has ended with success.
    Completed,
}

/// Of how many instances a condition must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quorum {
    /// Every one.
    All,
    /// At least one.
    Any,
    /// At least this many (never more than there are).
    Count(u32),
    /// At least this share of them, rounded up; 1 to 100.
    Percent(u8),
}

/// What a dependency's restart means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDependencyRestart {
    /// Nothing.
    Ignore,
    /// Restart, too.
    Restart,
}

/// When and how fast an ended process is started again.
#[derive(Clone, Debug, PartialEq)]
pub struct RestartPolicy {
    /// After which ends.
    pub when: RestartWhen,
    /// After an uptime of at least this the restart is at once.
    pub min_uptime: Duration,
    /// The first delay.
    pub delay: Duration,
    /// Each further delay is this many times the one before; at least 1.
    pub factor: f64,
    /// The longest delay.
    pub max_delay: Duration,
    /// Random share added to or taken from a delay, 0 to 1.
    pub jitter: f64,
    /// After an uptime of this the count starts anew.
    pub reset_after: Duration,
    /// So many restarts …
    pub limit: Option<u32>,
    /// … within this time, then it has failed.
    pub within: Duration,
    /// Exit codes that are success.
    pub success: Vec<i32>,
}

/// After which ends a process is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartWhen {
    /// All.
    Always,
    /// Those that are no success.
    OnFailure,
    /// None.
    Never,
}

impl RestartWhen {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::OnFailure => "on-failure",
            Self::Never => "never",
        }
    }
}

/// What happens to the others when a service has failed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Nothing.
    Continue,
    /// What depends on it is stopped.
    StopDependents,
    /// The cluster ends with its exit code.
    Shutdown,
}

impl Policy {
    /// Whether what it has registered at the node says how it is.
    pub fn needs_registry(&self) -> bool {
        let registered = |check: &ReadyCheck| matches!(check.kind, ReadyKind::Registered(_));
        let called = |check: &AliveCheck| check.kind == AliveKind::Rpc;
        self.ready.as_ref().is_some_and(registered) || self.alive.as_ref().is_some_and(called)
    }
}

/// How readiness is known.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadyCheck {
    /// By what.
    pub kind: ReadyKind,
    /// Between two probes.
    pub interval: Duration,
    /// Of one probe.
    pub timeout: Duration,
    /// So many failures in a row make a ready one not ready.
    pub failures: u32,
    /// Not ready within this after its start: a failed start.
    pub within: Duration,
}

/// By what readiness is known.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadyKind {
    /// The first heartbeat that says ready.
    Heartbeat,
    /// `READY=1` on the notify socket.
    Notify,
    /// A newline on this descriptor (s6).
    NotifyFd(i32),
    /// A probe that succeeds.
    Probe(Probe),
    /// A line of its output that matches.
    Log(String),
    /// A file that exists.
    File(Template),
    /// So much time.
    Delay(Duration),
    /// An entry of its own in the node's registry: under this name, or any.
    Registered(Option<String>),
}

/// How liveness is known.
#[derive(Clone, Debug, PartialEq)]
pub struct AliveCheck {
    /// By what.
    pub kind: AliveKind,
    /// Between two probes; of `notify`: what `WATCHDOG_USEC` says; of `heartbeat`: the node's.
    pub interval: Duration,
    /// Of one probe; of `heartbeat`: the silence that is too long.
    pub timeout: Duration,
    /// So many failures in a row, or intervals of silence (`notify`), and it is lost.
    pub failures: u32,
    /// Given before the KILL.
    pub diagnose: Option<Diagnose>,
}

/// By what liveness is known.
#[derive(Clone, Debug, PartialEq)]
pub enum AliveKind {
    /// Heartbeats on the heartbeat channel.
    Heartbeat,
    /// `WATCHDOG=1` on the notify socket.
    Notify,
    /// A probe that succeeds.
    Probe(Probe),
    /// It answers `lymph.ping` at the address that it has registered.
    Rpc,
}

/// A question that the node asks an instance from outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// A TCP connection to `host:port`.
    Tcp(Template),
    /// A connection to this Unix socket.
    Unix(Template),
    /// A GET that answers 200 to 399.
    Http(Template),
    /// A command that exits 0.
    Exec(Vec<Template>),
}

/// A signal that makes a silent process say where it hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Diagnose {
    /// Which, such as QUIT.
    pub signal: Signal,
    /// How long it may write before the KILL.
    pub pause: Duration,
}

/// How an instance is stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct StopPolicy {
    /// To the group, followed by CONT.
    pub signal: Signal,
    /// Then KILL to all that is left.
    pub timeout: Duration,
    /// A command in the signal's place.
    pub exec: Option<Vec<Template>>,
}

/// How several instances are replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct Rolling {
    /// So many may be down at once; at least 1 unless `max_surge` is.
    pub max_unavailable: u32,
    /// So many new ones may run beside the old.
    pub max_surge: u32,
    /// A new one must be ready for this long.
    pub min_ready: Duration,
    /// For the readiness of each.
    pub deadline: Duration,
    /// When a new one does not become ready.
    pub on_failure: RollingFailure,
}

/// What a failed rolling restart does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RollingFailure {
    /// Stop there.
    Pause,
    /// Take the previous launch again.
    Rollback,
}

/// Files whose change does something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Globs, relative to the project folder.
    pub paths: Vec<String>,
    /// Globs that are passed over.
    pub ignore: Vec<String>,
    /// Quiet time after the last change.
    pub debounce: Duration,
    /// What is done.
    pub action: WatchAction,
}

/// What a changed file does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchAction {
    /// Restart the service.
    Restart,
    /// Reload it (see [`ReloadVia`]).
    Reload,
    /// Run this command once.
    Run(Vec<String>),
}

/// How an instance takes a new configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadVia {
    /// By a signal to the leader.
    Signal(Signal),
    /// By an order of kind `reload` on the shutdown channel.
    Message,
}

impl std::fmt::Display for ReloadVia {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Message => f.write_str("message"),
        }
    }
}

/// Commands at points of an instance's life.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hooks {
    /// Before each start; its failure is a failed start.
    pub before_start: Option<Hook>,
    /// When it has become ready.
    pub after_ready: Option<Hook>,
    /// Before the stop signal.
    pub before_stop: Option<Hook>,
    /// When it is gone.
    pub after_stop: Option<Hook>,
    /// When it ended abnormally.
    pub on_crash: Option<Hook>,
}

/// One hook.
#[derive(Clone, Debug, PartialEq)]
pub struct Hook {
    /// Program and arguments.
    pub command: Vec<Template>,
    /// Then it is killed and has failed.
    pub timeout: Duration,
    /// Whether its failure changes nothing.
    pub ignore_failure: bool,
}

/// How an instance's output is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPolicy {
    /// Longer lines are split and marked.
    pub max_line: Bytes,
    /// Where a line's level is found.
    pub level_from: LevelFrom,
    /// Which lines are one record.
    pub multiline: Multiline,
    /// Whether colour codes stay in the store.
    pub color: Color,
    /// Lines a second; more are dropped and counted.
    pub rate: Option<u32>,
    /// A file that is written besides the store.
    pub file: Option<PathBuf>,
}

/// Where a line's level is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LevelFrom {
    /// The common forms.
    Auto,
    /// This key of a JSON line.
    Json(String),
    /// The first group of this expression.
    Regex(String),
}

/// Which lines are one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Multiline {
    /// Stack traces of the common languages.
    Auto,
    /// None are joined.
    Off,
    /// A line that matches begins a record, others join the one before.
    Starts(String),
}

/// What happens to colour codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// Kept in the store.
    Keep,
    /// Taken out before the store.
    Strip,
}

/// Recycling by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxAge {
    /// The age.
    pub age: Duration,
    /// A part of this is added, different for each instance.
    pub variance: Duration,
}

/// When a job runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// The times.
    pub when: ScheduleWhen,
    /// What happens when the one before still runs.
    pub overlap: Overlap,
}

/// The times of a schedule.
#[derive(Clone, Debug, PartialEq)]
pub enum ScheduleWhen {
    /// Five fields, the machine's local time.
    Cron(String),
    /// So long after the last start.
    Every(Duration),
}

/// What happens when a scheduled time comes while the job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// It is passed over.
    Skip,
    /// It runs when the one before has ended; one at most waits.
    Queue,
}
