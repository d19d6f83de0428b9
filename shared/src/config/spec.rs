//! What a valid configuration means: the one form in which the rest of the house sees it.
//!
//! [`Launch`] holds what a process is started with (a change needs a restart), [`Policy`] how it is
//! looked after (a change applies to what runs). Everything here is checked; texts that still hold
//! `$(instance.…)` or `$(port.…)` are [`Template`]s, expanded at each start.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::template::Template;
use crate::name::ServiceName;
use crate::signal::Signal;
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

/// What a process is started with. When any of it differs, a reload restarts the instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Program and arguments, already split; under `shell: true` this is `/bin/sh -c TEXT`.
    pub command: Vec<Template>,
    /// Working folder; a relative one is relative to the project folder.
    pub directory: Option<Template>,
    /// Whether the node's own environment is the base.
    pub inherit_env: bool,
    /// Variables of the file in their final order of precedence: top `env_file`, top `env`,
    /// `env_file`, `env`. `None` removes an inherited one.
    pub env: BTreeMap<String, EnvValue>,
    /// Ports by name, in the order of the file (the first is also `PORT`).
    pub ports: Vec<PortSpec>,
    /// Names or ports of the shared sockets to pass, as indexes into [`Cluster::sockets`].
    pub sockets: Vec<usize>,
    /// Whether its output is a pseudo-terminal.
    pub tty: bool,
    /// Resource limits.
    pub limits: Limits,
    /// The user to run as: a name or a number.
    pub user: Option<String>,
    /// The group to run as; the user's own where absent.
    pub group: Option<String>,
    /// File mode creation mask, 0 to 0o777.
    pub umask: Option<u32>,
    /// Scheduling priority, -20 to 19.
    pub nice: Option<i32>,
    /// Processors it may run on.
    pub cpus: Option<Vec<usize>>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
}

/// A variable and where it was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvValue {
    /// The value; `None` removes the variable.
    pub value: Option<Template>,
    /// Where it comes from, for people: `hilum.yml:12`, `.env:3`.
    pub origin: String,
}

/// A port of a service, one number for each instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// Its name, as in `$(port.NAME)` and `PORT_NAME`.
    pub name: String,
    /// How the number is found.
    pub choice: PortChoice,
    /// What happens when somebody else holds it.
    pub conflict: PortConflict,
}

/// How a port's number is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortChoice {
    /// A free one, chosen once.
    Auto,
    /// This one for every instance.
    Fixed(u16),
    /// `base + index - 1`.
    PerInstance(u16),
}

/// What happens when a port is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortConflict {
    /// Take the next free one.
    Next,
    /// Fail, naming the holder.
    Fail,
}

/// Limits of one process (rlimits) and of the instance as a whole (cgroup, or the node's watch).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Open files.
    pub nofile: Option<u64>,
    /// Processes of the user.
    pub nproc: Option<u64>,
    /// Core file size in bytes; `u64::MAX` is unlimited.
    pub core: Option<u64>,
    /// Address space in bytes.
    pub address_space: Option<u64>,
    /// CPU time in whole seconds.
    pub cpu: Option<u64>,
    /// Stack in bytes.
    pub stack: Option<u64>,
    /// cgroup `memory.max`.
    pub memory_max: Option<Bytes>,
    /// cgroup `cpu.max`, in processors (0.5 = half of one).
    pub cpu_max: Option<f64>,
    /// cgroup `pids.max`.
    pub pids_max: Option<u64>,
}

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

/// How services find each other.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerSpec {
    /// Where services listen.
    pub ip: IpAddr,
    /// Where all logs are published; `None` = `pub.sock` in the run folder.
    pub log_endpoint: Option<String>,
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
