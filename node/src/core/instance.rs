//! One index of a service and its life.
//!
//! ```text
//!    want up                       ready
//!  Down ─► Preparing ─► Starting ────────────► Running
//!   ▲        hook          │ exit / too late      │ exit / silent / too big / told to stop
//!   │                      └───────► Stopping ◄───┘
//!   │  want down               told, then signalled   ──kill_at──► Killing (again and again)
//!   ├──────────────────────────── empty ◄────────────────────────────┘
//!   ├── Backoff ◄─ policy ─┤
//!   ├── Completed ◄────────┤
//!   └── Failed ◄───────────┘
//! ```
//! What the operator **wants** and what **is** are two fields. Every run has a number; reports of
//! another run are ignored by the supervisor. Deadlines are computed from the state, never armed.
//! A run is over when it is *empty*: leader, group, session and descendants are gone.

use std::sync::Arc;
use std::time::Duration;

use hilum_shared::config::spec::ServiceSpec;
use hilum_shared::name::{InstanceId, Run, ServiceName};
use hilum_shared::signal::{Exit, Signal};

use super::input::{FailureClass, HookPoint, Report};
use super::output::Output;
use super::plan::launch_keys;
use super::restart::History;
use super::time::Moment;

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// It should run.
    Up,
    /// It should not.
    Down,
}

/// What is.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Nothing runs. Wanted up: it waits for its turn.
    Down,
    /// The `before_start` hook runs.
    Preparing,
    /// Executed or about to be, not ready.
    Starting,
    /// Was ready.
    Running,
    /// Told to end.
    Stopping(Stopping),
    /// KILL was sent, something is still there.
    Killing(Killing),
    /// All is gone, the `after_stop` hook runs.
    Closing(Cause),
    /// Will be started again.
    Backoff {
        /// When.
        until: Moment,
    },
    /// Ended with success.
    Completed,
    /// Given up.
    Failed,
}

/// Why a run ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// Somebody asked: stop, restart, scale, reload, shutdown.
    Asked,
    /// Its leader ended by itself.
    Exited,
    /// Something was wrong with it, in words.
    Fault(String),
}

/// A run on its way out.
#[derive(Clone, Debug, PartialEq)]
pub struct Stopping {
    /// Since when.
    pub since: Moment,
    /// Why.
    pub cause: Cause,
    /// How far.
    pub step: Step,
    /// Then everything left gets KILL.
    pub kill_at: Moment,
    /// So much of that is the `before_stop` hook's own time.
    hook_time: Duration,
    /// When to look again whether all is gone; only after the leader's end.
    sweep_at: Option<Moment>,
    /// What the leader left behind was told to stop, too.
    leftovers_told: bool,
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The `before_stop` hook runs.
    Hook,
    /// Told on the shutdown channel; the signal follows then unless it confirms.
    Ordered(Moment),
    /// It confirmed that it drains.
    Draining,
    /// The signal was sent, or `stop.exec` runs.
    Signalled,
}

/// KILL was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Killing {
    since: Moment,
    cause: Cause,
    tries: u32,
    again_at: Moment,
    pids: Vec<u32>,
    reported: bool,
}

/// The present run.
#[derive(Clone, Debug)]
pub struct Life {
    /// When the start was ordered.
    since: Moment,
    /// The leader.
    pub pid: Option<u32>,
    /// When it was executed.
    pub up_at: Option<Moment>,
    /// Ready now.
    pub ready: bool,
    /// Since when.
    pub ready_at: Option<Moment>,
    /// Not ready by then: a failed start.
    pub ready_by: Option<Moment>,
    /// The leader's end.
    exit: Option<Exit>,
    /// Last heartbeat.
    pub last_beat: Option<Moment>,
    /// From when silence counts: last beat or watchdog sign, or readiness.
    last_sign: Option<Moment>,
    /// The heartbeat's longest silence as it was told before and last, at its start or by an echo. A beat proves that the
    /// echo before it was heard.
    silence: [Duration; 2],
    /// `WATCHDOG_USEC` as it was told at its start, or has changed it itself.
    watchdog: Option<Duration>,
    /// Probes that failed in a row: ready, alive.
    failed_probes: [u32; 2],
    /// What the last failed probe said.
    pub probe_detail: String,
    /// It has an address in the registry at which it is asked whether it lives.
    called: bool,
    /// An inspection is under way because of this.
    suspect: Option<Suspicion>,
    /// When to look at a paused one again.
    look_at: Option<Moment>,
    /// Stopped or traced, in words.
    pub paused: Option<&'static str>,
    /// The node holds back its output.
    pub held: bool,
    /// KILL was needed.
    killed: bool,
    /// The last signal that was sent by hand.
    pub signalled: Option<Signal>,
    /// Its turn to be recycled has been asked for.
    old: bool,
    /// The last hook that was waited for, and since when.
    hook: Option<(HookPoint, Moment)>,
}

/// Why an inspection was asked for.
#[derive(Clone, Debug, PartialEq)]
enum Suspicion {
    Silence(Duration),
    Probe(String),
    /// A look at one that is known to be paused.
    Paused,
}

/// What the machine needs to know of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Between two heartbeats.
    pub heartbeat_interval: Duration,
    /// The silence that is too long.
    pub heartbeat_timeout: Duration,
}

/// After the leader ended by itself, its leftovers have so long to follow the stop signal.
const LEFTOVER_GRACE: Duration = Duration::from_secs(2);
/// First and longest pause between two looks at what is left. SIGCHLD usually comes first.
const SWEEP_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// So many KILLs without effect and it is shown as stuck.
const STUCK_AFTER: u32 = 5;
/// A limit that is noticed so much later was still that limit.
const LATE: Duration = Duration::from_secs(1);
/// A machine that is short of something is asked again after this.
const SHORTAGE_PAUSE: Duration = Duration::from_secs(1);
/// The shortest pause after a start that another's port forbade: no process makes time pass between two tries.
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);

/// One index of a service.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Who.
    pub id: InstanceId,
    /// What the present run was started with, or the next will be.
    pub spec: Arc<ServiceSpec>,
    /// What the operator wants.
    pub want: Want,
    /// What is.
    pub phase: Phase,
    /// The present run, or the last.
    pub run: Run,
    /// The present run's facts.
    pub life: Option<Life>,
    /// Automatic restarts.
    pub restarts: u32,
    /// The last end and its wall time.
    pub exit: Option<(Exit, f64)>,
    /// Why it is where it is.
    pub reason: Option<String>,
    /// Its own status text.
    pub info: Option<String>,
    /// Since when it waits for its turn.
    pub waiting_since: Moment,
    /// Started by hand with `--no-deps`.
    pub ignore_deps: bool,
    /// The service whose failure stopped it (`on_failure: stop_dependents`); it comes back with that one.
    pub stopped_for: Option<ServiceName>,
    /// Goes for good when it is down.
    pub dropping: bool,
    /// Why the last try could not be executed; `None`: it was.
    pub missed: Option<FailureClass>,
    history: History,
}

impl Instance {
    /// A new index, down.
    pub fn new(id: InstanceId, spec: Arc<ServiceSpec>, want: Want, now: Moment) -> Self {
        Self {
            id,
            spec,
            want,
            phase: Phase::Down,
            run: Run::default(),
            life: None,
            restarts: 0,
            exit: None,
            reason: None,
            info: None,
            waiting_since: now,
            ignore_deps: false,
            stopped_for: None,
            dropping: false,
            missed: None,
            history: History::default(),
        }
    }

    /// Whether it is down and wanted up: it waits for its turn.
    pub fn waits(&self) -> bool {
        self.want == Want::Up && self.phase == Phase::Down
    }

    /// Whether nothing of it runs.
    pub fn at_rest(&self) -> bool {
        matches!(self.phase, Phase::Down | Phase::Backoff { .. } | Phase::Completed | Phase::Failed)
    }

    /// Whether a run is between its start and its order to end.
    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Preparing | Phase::Starting | Phase::Running)
    }

    /// Whether it is ready now.
    pub fn ready(&self) -> bool {
        self.phase == Phase::Running && self.life.as_ref().is_some_and(|life| life.ready)
    }

    /// Whether it is between two runs and the last one did its work: a job that is restarted `always`.
    pub fn has_succeeded(&self) -> bool {
        let success = &self.spec.policy.restart.success;
        matches!(self.phase, Phase::Backoff { .. })
            && matches!(self.exit, Some((Exit::Code(code), _)) if success.contains(&code))
    }

    /// The keys in which its present run differs from `spec`, so that it has to be restarted.
    pub fn outdated(&self, spec: &ServiceSpec) -> Vec<&'static str> {
        if matches!(self.phase, Phase::Down | Phase::Completed)
            || self.want == Want::Down
            || self.dropping
        {
            return Vec::new();
        }
        launch_keys(&self.spec.launch, &spec.launch)
    }

    /// How many of its runs in a row failed too soon.
    pub fn crashes(&self) -> u32 {
        self.history.crashes()
    }

    /// The same with those that ended too soon with success, or before they were ready: nobody should wait for more of them.
    pub fn ends_in_vain(&self) -> u32 {
        self.history.in_vain()
    }

    /// Whether its leader has been executed and not ended.
    pub fn started(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running)
            && self.life.as_ref().is_some_and(|life| life.pid.is_some())
    }

    /// The run whose entries in the registry stand: one that is executed and not on its way out.
    pub fn offers(&self) -> Option<Run> {
        matches!(self.phase, Phase::Starting | Phase::Running).then_some(self.run)
    }

    /// Whether it is stopped or held by a debugger, so that it cannot answer.
    pub fn is_paused(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.paused.is_some())
    }

    /// Whether it survives KILL.
    pub fn stuck(&self) -> bool {
        matches!(&self.phase, Phase::Killing(killing) if killing.reported)
    }

    /// Processes that a stop has not ended yet.
    pub fn survivors(&self) -> &[u32] {
        match &self.phase {
            Phase::Killing(killing) => &killing.pids,
            _ => &[],
        }
    }

    /// Takes news of the present run.
    pub fn report(&mut self, report: Report, now: Moment, out: &mut Output) {
        match report {
            Report::Spawned { pid } => self.spawned(pid, now, out),
            Report::SpawnFailed(failure) => match failure.class {
                FailureClass::Permanent => self.spawn_failed(failure.message, now, out),
                FailureClass::Shortage => self.spawn_postponed(failure.message, now, out),
                FailureClass::Conflict => self.spawn_refused(failure.message, now, out),
            },
            Report::Exited(exit) => self.exited(exit, now, out),
            Report::Empty => self.empty(now, out),
            Report::Left { pids, stuck } => self.left(pids, stuck, now, out),
            Report::Unheard => self.unheard(out),
            Report::Ready => self.became_ready(now, out),
            Report::Probe { purpose, ok, detail } => self.probed(purpose, ok, detail, now, out),
            Report::Beat { state, status, told } => {
                if let Some(life) = &mut self.life {
                    life.silence = [life.silence[1], told];
                }
                self.beat(state, status, now, out);
            }
            Report::Notify(message) => self.notified(message, now, out),
            Report::Pulse(pulse) => self.pulse(pulse, now, out),
            Report::HookDone { point, result } => self.hook_done(point, result, now, out),
            Report::Held(held) => self.held(held, now),
            Report::Memory(rss) => self.memory(rss, now, out),
        }
    }
}

mod deadlines;
mod ending;
mod signs;
mod starting;
