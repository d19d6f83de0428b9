//! What the core is told.

use std::sync::Arc;
use std::time::Duration;

use hilum_shared::config::spec::Cluster;
use hilum_shared::name::{InstanceId, Run, ServiceName};
use hilum_shared::protocol::{WorkerState, control};
use hilum_shared::registry::Instance;
use hilum_shared::registry::directory::Watch;
use hilum_shared::signal::{Exit, Signal};
use hilum_shared::units::Bytes;

/// One thing that happened. Time is an argument beside it, never inside.
#[derive(Clone, Debug)]
pub enum Input {
    /// A deadline may have come.
    Tick,
    /// The node itself did not run for this long: it was stopped, suspended or starved.
    Stalled(Duration),
    /// A client asks for something.
    Request {
        /// To answer with.
        id: RequestId,
        /// What it asks.
        request: Request,
    },
    /// News of one run. A report of a run that is not the present one is ignored.
    Report {
        /// Whose.
        instance: InstanceId,
        /// Which of its lives.
        run: Run,
        /// The news.
        report: Report,
    },
    /// Somebody asks the node's registry.
    Entry {
        /// To answer with.
        id: RequestId,
        /// To whom an entry will belong.
        owner: Owner,
        /// What is asked.
        entry: Entry,
    },
    /// A client that had entries in the registry is gone.
    Departed(Owner),
    /// The registry of several hosts is away for a reason; `None` = it is there.
    RegistryAway(Option<String>),
    /// A watched file of this service changed.
    FilesChanged {
        /// The service.
        service: ServiceName,
        /// One of the files, for people.
        path: String,
    },
    /// The command that follows such a change has ended.
    WatchActionDone {
        /// The service.
        service: ServiceName,
        /// What went wrong.
        result: Result<(), String>,
    },
    /// The configuration file was read again and is valid.
    Reconfigure {
        /// Why.
        reason: Reread,
        /// The new configuration.
        cluster: Arc<Cluster>,
        /// Only say what would change.
        dry_run: bool,
    },
    /// The configuration file was saved and cannot be put in force, for this reason.
    ReloadRefused(String),
}

/// Why the configuration file was read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reread {
    /// It was saved.
    Saved,
    /// A signal said so.
    Ordered,
    /// Somebody waits for the answer.
    Asked(RequestId),
}

/// Stands for one client's call until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// To whom an entry of the registry belongs; with its owner it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A run, which proved itself by its token.
    Run(InstanceId, Run),
    /// A connection, by whatever tells it from others.
    Peer(String),
    /// The node.
    Node,
}

impl Owner {
    /// What the directory calls it.
    pub fn key(&self) -> String {
        match self {
            Self::Run(instance, run) => format!("{instance}#{run}"),
            Self::Peer(peer) => format!("peer {peer}"),
            Self::Node => "node".to_owned(),
        }
    }
}

/// What is asked of the registry.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Enter an instance.
    Register {
        /// Under this name.
        service: String,
        /// As it is.
        instance: Box<Instance>,
    },
    /// Take one out.
    Unregister {
        /// From this name.
        service: String,
        /// Its id.
        id: String,
    },
    /// Who offers this?
    Lookup {
        /// The name.
        service: String,
    },
    /// Who offers anything?
    Discover,
    /// Answer when something has another version.
    Watch(Watch),
}

/// What a client asks.
#[derive(Clone, Debug)]
pub enum Request {
    /// Start, with dependencies unless told otherwise.
    Start(control::Targets),
    /// Stop; dependents go on.
    Stop(control::Targets),
    /// Restart, with the file as it is now.
    Restart {
        /// Which.
        targets: control::Targets,
        /// The file as it is now, when it is valid.
        fresh: Option<Arc<Cluster>>,
        /// A word to the client.
        note: Option<String>,
    },
    /// Change process counts.
    Scale(control::Scale),
    /// From now on the first failure ends the cluster; so does one that has happened already.
    AbortOnFailure,
    /// Send a signal.
    Signal {
        /// Services, instances or globs.
        targets: Vec<String>,
        /// Which signal.
        signal: Signal,
    },
    /// Stop everything, then the node.
    Shutdown {
        /// In place of the configured grace; zero = KILL now.
        grace: Option<Duration>,
        /// Why.
        reason: String,
    },
    /// Answer when this operation is done.
    Wait(control::Wait),
    /// Answer when the targets are in this state.
    Await(control::Await),
    /// The client is gone: forget its calls.
    Cancel(RequestId),
}

/// News of one run.
#[derive(Clone, Debug)]
pub enum Report {
    /// It was executed.
    Spawned {
        /// The leader.
        pid: u32,
    },
    /// It could not be executed.
    SpawnFailed(SpawnFailure),
    /// The leader ended. Others of the run may still be there.
    Exited(Exit),
    /// Nothing of the run is left: no session, no group, no descendant.
    Empty,
    /// A sweep or kill found these still there.
    Left {
        /// Some of them.
        pids: Vec<u32>,
        /// In uninterruptible sleep: KILL does not reach them.
        stuck: bool,
    },
    /// Nobody listens for its orders: it needs the signal.
    Unheard,
    /// It is ready (by `notify_fd`, a log line, …).
    Ready,
    /// A probe's answer.
    Probe {
        /// Which of the two.
        purpose: ProbePurpose,
        /// Whether it succeeded.
        ok: bool,
        /// What it said: `connection refused`.
        detail: String,
    },
    /// A heartbeat with the right token.
    Beat {
        /// What the worker says of itself.
        state: WorkerState,
        /// Its status text.
        status: Option<String>,
        /// The silence that is too long, as the echo of this beat says.
        told: Duration,
    },
    /// A datagram on the notify socket, of a process that is the run's own.
    Notify(NotifyMessage),
    /// The answer to an inspection.
    Pulse(Pulse),
    /// A hook or the stop command ended.
    HookDone {
        /// Which.
        point: HookPoint,
        /// What went wrong: `exit 1`, `timed out after 30s`.
        result: Result<(), String>,
    },
    /// The node began or ceased to hold back its output.
    Held(bool),
    /// Resident memory of the whole run, sampled because a limit needs it.
    Memory(Bytes),
}

/// What the notify socket said, as in `man 3 sd_notify`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotifyMessage {
    /// `READY=1`
    pub ready: bool,
    /// `STOPPING=1`
    pub stopping: bool,
    /// `RELOADING=1`
    pub reloading: bool,
    /// `WATCHDOG=1`
    pub watchdog: bool,
    /// `WATCHDOG=trigger`: it wants to be ended now.
    pub trigger: bool,
    /// `STATUS=…`
    pub status: Option<String>,
    /// `WATCHDOG_USEC=…`
    pub watchdog_interval: Option<Duration>,
    /// `EXTEND_TIMEOUT_USEC=…`
    pub extend_timeout: Option<Duration>,
}

/// Which of an instance's two probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbePurpose {
    /// `ready:`
    Ready,
    /// `alive:`
    Alive,
}

/// What a look at a silent process showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulse {
    /// Runs or sleeps: its silence is its own.
    Alive,
    /// SIGSTOP (state `T`).
    Stopped,
    /// Held by a debugger (`TracerPid`).
    Traced,
    /// Would run, and the machine gives it next to no processor time.
    Starved,
}

/// Points of an instance's life at which a command may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HookPoint {
    /// Before the start.
    BeforeStart,
    /// When ready.
    AfterReady,
    /// Before the stop signal.
    BeforeStop,
    /// `stop.exec`, in the stop signal's place.
    StopCommand,
    /// When gone.
    AfterStop,
    /// After an abnormal end.
    OnCrash,
}

impl HookPoint {
    /// As in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BeforeStart => "before_start",
            Self::AfterReady => "after_ready",
            Self::BeforeStop => "before_stop",
            Self::StopCommand => "stop.exec",
            Self::AfterStop => "after_stop",
            Self::OnCrash => "on_crash",
        }
    }
}

/// Why a process could not be executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SpawnFailure {
    /// A sentence with path and errno: "program `/x` not found (ENOENT)".
    pub message: String,
    /// What kind it is.
    pub class: FailureClass,
}

/// What a failed spawn means for the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureClass {
    /// No retry helps until something is changed (ENOENT, EACCES, unknown user): `failed` at once.
    Permanent,
    /// The machine is short of something (EAGAIN, ENOMEM, EMFILE): all spawns pause a second, does
    /// not count towards a limit.
    Shortage,
    /// Somebody else has what it needs (a port) and may let go of it: a failed start, and the policy
    /// says what follows.
    Conflict,
}
