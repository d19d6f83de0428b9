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

use hilum_shared::config::spec::{AliveKind, OnFailure, ReadyKind, ServiceSpec};
use hilum_shared::name::{InstanceId, Run};
use hilum_shared::signal::{Exit, Signal};

use super::action::{Action, OrderKind, Scope};
use super::event::EventKind;
use super::input::{FailureClass, HookPoint, ProbePurpose, Report};
use super::output::{Notice, Output};
use super::restart::{End, History, Verdict, fraction};
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
    /// When to look again whether all is gone; only after the leader's end.
    sweep_at: Option<Moment>,
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
    /// Not ready by then: a failed start.
    ready_by: Option<Moment>,
    /// The leader's end.
    exit: Option<Exit>,
    /// It listens to the shutdown channel.
    subscribed: bool,
    /// Last heartbeat.
    pub last_beat: Option<Moment>,
    /// From when silence counts: last beat or watchdog sign, or readiness.
    last_sign: Option<Moment>,
    /// `WATCHDOG_USEC` as changed by the program.
    watchdog: Option<Duration>,
    /// Probes that failed in a row: ready, alive.
    failed_probes: [u32; 2],
    /// What the last failed probe said.
    probe_detail: String,
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
    /// Its turn to be recycled has been asked for.
    old: bool,
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
/// A machine that is short of something is asked again after this.
const SHORTAGE_PAUSE: Duration = Duration::from_secs(1);

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
    /// Goes for good when it is down.
    pub dropping: bool,
    /// The machine was short of something at the last try.
    pub shortage: bool,
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
            dropping: false,
            shortage: false,
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

    /// Whether its leader has been executed and not ended.
    pub fn started(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running)
            && self.life.as_ref().is_some_and(|life| life.pid.is_some())
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

    /// The next moment at which something is due.
    pub fn deadline(&self, settings: Settings) -> Option<Moment> {
        match &self.phase {
            Phase::Starting => earliest([
                self.life.as_ref().and_then(|life| life.ready_by),
                self.delay_over(),
                self.silence_ends(settings),
                self.life.as_ref().and_then(|life| life.look_at),
            ]),
            Phase::Running => earliest([
                self.silence_ends(settings),
                self.life.as_ref().and_then(|life| life.look_at),
                self.too_old(),
                None,
            ]),
            Phase::Stopping(stop) => earliest([
                Some(stop.kill_at),
                stop.sweep_at,
                if let Step::Ordered(signal_at) = stop.step { Some(signal_at) } else { None },
                None,
            ]),
            Phase::Killing(killing) => Some(killing.again_at),
            Phase::Backoff { until } => Some(*until),
            Phase::Down
            | Phase::Preparing
            | Phase::Closing(_)
            | Phase::Completed
            | Phase::Failed => None,
        }
    }

    /// `ready: {delay: …}` is over then.
    fn delay_over(&self) -> Option<Moment> {
        match (&self.spec.policy.ready, &self.life) {
            (Some(check), Some(life)) => match check.kind {
                ReadyKind::Delay(delay) if !life.ready => life.up_at.map(|at| at + delay),
                _ => None,
            },
            _ => None,
        }
    }

    /// Silence is too long then. `None` while nothing is expected or it is excused.
    fn silence_ends(&self, settings: Settings) -> Option<Moment> {
        let life = self.life.as_ref()?;
        if life.suspect.is_some() || life.paused.is_some() || life.held {
            return None;
        }
        let sign = life.last_sign?;
        match &self.spec.policy.alive {
            None => life.last_beat.map(|_| sign + settings.heartbeat_timeout),
            Some(check) => match check.kind {
                AliveKind::Heartbeat => Some(sign + settings.heartbeat_timeout),
                AliveKind::Notify => {
                    Some(sign + life.watchdog.unwrap_or(check.interval) * check.failures.max(1))
                }
                AliveKind::Probe(_) => None,
            },
        }
    }

    /// It is to be recycled then.
    fn too_old(&self) -> Option<Moment> {
        let (life, max_age) = (self.life.as_ref()?, self.spec.policy.max_age?);
        let extra = max_age.variance.mul_f64(fraction((&self.id, self.run)));
        (!life.old).then(|| life.up_at.map(|at| at + max_age.age + extra)).flatten()
    }

    /// The node itself did not run for `by`: nobody is blamed for that time.
    pub fn stalled(&mut self, by: Duration) {
        let shift = |moment: &mut Option<Moment>| {
            if let Some(moment) = moment {
                *moment = *moment + by;
            }
        };
        if let Some(life) = &mut self.life {
            shift(&mut life.last_sign);
            shift(&mut life.ready_by);
        }
        if let Phase::Stopping(stop) = &mut self.phase {
            stop.kill_at = stop.kill_at + by;
            if let Step::Ordered(signal_at) = &mut stop.step {
                *signal_at = *signal_at + by;
            }
        }
    }

    // --- orders of the supervisor ---------------------------------------------------------------

    /// Starts the next run. Only in `Down`.
    pub fn start(&mut self, spec: Arc<ServiceSpec>, now: Moment, out: &mut Output) {
        debug_assert!(self.waits(), "{} starts in {:?}", self.id, self.phase);
        self.spec = spec;
        self.run = self.run.next();
        self.reason = None;
        self.info = None;
        self.shortage = false;
        self.life = Some(Life {
            since: now,
            pid: None,
            up_at: None,
            ready: false,
            ready_by: None,
            exit: None,
            subscribed: false,
            last_beat: None,
            last_sign: None,
            watchdog: None,
            failed_probes: [0, 0],
            probe_detail: String::new(),
            suspect: None,
            look_at: None,
            paused: None,
            held: false,
            killed: false,
            old: false,
        });
        if self.spec.policy.hooks.before_start.is_some() {
            self.phase = Phase::Preparing;
            self.hook(HookPoint::BeforeStart, out);
        } else {
            self.spawn(out);
        }
    }

    fn spawn(&mut self, out: &mut Output) {
        self.phase = Phase::Starting;
        out.action(Action::Spawn {
            instance: self.id.clone(),
            run: self.run,
            spec: self.spec.clone(),
        });
    }

    /// The operator wants it up. Failures so far are forgiven.
    pub fn want_up(&mut self, now: Moment, out: &mut Output) {
        self.want = Want::Up;
        self.dropping = false;
        match self.phase {
            Phase::Backoff { .. } | Phase::Completed | Phase::Failed => {
                self.history.clear();
                self.rest(Phase::Down, now, out);
            }
            Phase::Down => {
                self.waiting_since = now;
                out.notice(&self.id, Notice::Waits);
            }
            _ => {}
        }
    }

    /// The operator wants it down.
    pub fn want_down(&mut self, why: &str, grace: Option<Duration>, now: Moment, out: &mut Output) {
        self.want = Want::Down;
        self.end(why, grace, now, out);
    }

    /// Ends the present run; the next follows when it is still wanted up.
    pub fn restart(&mut self, why: &str, grace: Option<Duration>, now: Moment, out: &mut Output) {
        self.history.clear();
        self.end(why, grace, now, out);
    }

    fn end(&mut self, why: &str, grace: Option<Duration>, now: Moment, out: &mut Output) {
        match &mut self.phase {
            Phase::Down => {
                if self.want == Want::Down {
                    self.reason = Some(why.to_owned());
                    self.rest(Phase::Down, now, out);
                }
            }
            Phase::Backoff { .. } | Phase::Completed | Phase::Failed => {
                self.reason = (self.want == Want::Down).then(|| why.to_owned());
                self.rest(Phase::Down, now, out);
            }
            Phase::Preparing => {
                self.reason = Some(why.to_owned());
                out.event(self, EventKind::Stopping(why.to_owned()));
                self.kill(Cause::Asked, now, out);
            }
            Phase::Starting | Phase::Running => {
                self.reason = Some(why.to_owned());
                out.event(self, EventKind::Stopping(why.to_owned()));
                let timeout = grace.unwrap_or(self.spec.policy.stop.timeout);
                if timeout.is_zero() {
                    self.kill(Cause::Asked, now, out);
                } else if self.spec.policy.hooks.before_stop.is_some() {
                    self.stopping(Cause::Asked, Step::Hook, now, timeout, out);
                    self.hook(HookPoint::BeforeStop, out);
                } else {
                    self.stopping(Cause::Asked, Step::Hook, now, timeout, out);
                    self.tell(now, out);
                }
            }
            Phase::Stopping(stop) => {
                let asked_before = stop.cause == Cause::Asked;
                stop.cause = Cause::Asked;
                if let Some(grace) = grace {
                    stop.kill_at = stop.kill_at.min(now + grace);
                }
                let over = stop.kill_at <= now;
                if !asked_before {
                    self.reason = Some(why.to_owned());
                }
                if over {
                    self.kill(Cause::Asked, now, out);
                }
            }
            Phase::Killing(killing) => killing.cause = Cause::Asked,
            Phase::Closing(cause) => *cause = Cause::Asked,
        }
    }

    // --- the way out ----------------------------------------------------------------------------

    fn stopping(
        &mut self,
        cause: Cause,
        step: Step,
        now: Moment,
        timeout: Duration,
        out: &mut Output,
    ) {
        for purpose in [ProbePurpose::Ready, ProbePurpose::Alive] {
            if self.probes(purpose) {
                out.action(Action::StopProbe { instance: self.id.clone(), run: self.run, purpose });
            }
        }
        if let Some(life) = &mut self.life {
            life.suspect = None;
            life.look_at = None;
        }
        self.phase = Phase::Stopping(Stopping {
            since: now,
            cause,
            step,
            kill_at: now + timeout,
            sweep_at: None,
        });
    }

    fn probes(&self, purpose: ProbePurpose) -> bool {
        match purpose {
            ProbePurpose::Ready => self.spec.policy.ready.as_ref().is_some_and(|check| {
                matches!(check.kind, ReadyKind::Probe(_) | ReadyKind::File(_))
            }),
            ProbePurpose::Alive => self
                .spec
                .policy
                .alive
                .as_ref()
                .is_some_and(|check| matches!(check.kind, AliveKind::Probe(_))),
        }
    }

    /// Tells it to stop: by the channel where it listens, by the stop command or signal where not.
    fn tell(&mut self, now: Moment, out: &mut Output) {
        let Phase::Stopping(stop) = &mut self.phase else {
            return;
        };
        let Some(life) = &self.life else { return };
        if !life.subscribed {
            self.signal(out);
            return;
        }
        let grace = stop.kill_at.since(now);
        // At most half of the time is given to an answer on the channel (docs/protocol.md).
        stop.step = Step::Ordered(now + out.settings().heartbeat_timeout.min(grace / 2));
        let reason = self.reason.clone().unwrap_or_default();
        out.action(Action::Order {
            instance: self.id.clone(),
            run: self.run,
            order: OrderKind::Shutdown { grace },
            reason,
        });
    }

    fn signal(&mut self, out: &mut Output) {
        let Phase::Stopping(stop) = &mut self.phase else {
            return;
        };
        stop.step = Step::Signalled;
        if self.spec.policy.stop.exec.is_some() {
            self.hook(HookPoint::StopCommand, out);
        } else {
            self.send(self.spec.policy.stop.signal, Scope::Group, out);
        }
    }

    fn send(&self, signal: Signal, scope: Scope, out: &mut Output) {
        out.action(Action::Signal { instance: self.id.clone(), run: self.run, signal, scope });
    }

    fn kill(&mut self, cause: Cause, now: Moment, out: &mut Output) {
        if let Some(life) = &mut self.life {
            life.killed = true;
        }
        if !matches!(self.phase, Phase::Stopping(_)) {
            // Also stops the probes.
            self.stopping(cause.clone(), Step::Signalled, now, Duration::ZERO, out);
        }
        let again_at = now + SWEEP_PAUSE.0;
        self.phase = Phase::Killing(Killing {
            since: now,
            cause,
            tries: 1,
            again_at,
            pids: Vec::new(),
            reported: false,
        });
        out.action(Action::Kill { instance: self.id.clone(), run: self.run });
    }

    /// Something is wrong with it: end it, the policy decides what follows.
    fn fault(&mut self, why: String, now: Moment, out: &mut Output) {
        self.reason = Some(why.clone());
        match self.spec.policy.alive.as_ref().and_then(|check| check.diagnose) {
            Some(diagnose) if !diagnose.pause.is_zero() => {
                self.stopping(Cause::Fault(why), Step::Signalled, now, diagnose.pause, out);
                self.send(diagnose.signal, Scope::Leader, out);
            }
            _ => self.kill(Cause::Fault(why), now, out),
        }
    }

    /// Ends it in the usual way because of something that is wrong with it.
    pub fn stop_for(&mut self, why: String, now: Moment, out: &mut Output) {
        if !matches!(self.phase, Phase::Starting | Phase::Running) {
            return;
        }
        self.reason = Some(why.clone());
        self.stopping(Cause::Fault(why), Step::Hook, now, self.spec.policy.stop.timeout, out);
        self.tell(now, out);
    }

    // --- what is reported -----------------------------------------------------------------------

    /// Takes news of the present run.
    pub fn report(&mut self, report: Report, now: Moment, out: &mut Output) {
        match report {
            Report::Spawned { pid } => self.spawned(pid, now, out),
            Report::SpawnFailed(failure) => match failure.class {
                FailureClass::Permanent => self.spawn_failed(failure.message, now, out),
                FailureClass::Shortage => self.spawn_postponed(failure.message, now, out),
            },
            Report::Exited(exit) => self.exited(exit, now, out),
            Report::Empty => self.empty(now, out),
            Report::Left { pids, stuck } => self.left(pids, stuck, now, out),
            Report::Subscribed => self.subscribed(now, out),
            Report::Ready => self.became_ready(now, out),
            Report::Probe { purpose, ok, detail } => self.probed(purpose, ok, detail, now, out),
            Report::Beat { state, status } => self.beat(state, status, now, out),
            Report::Notify(message) => self.notified(message, now, out),
            Report::Pulse(pulse) => self.pulse(pulse, now, out),
            Report::HookDone { point, result } => self.hook_done(point, result, now, out),
            Report::Held(held) => self.held(held, now),
            Report::Memory(rss) => self.memory(rss, now, out),
        }
    }

    fn spawned(&mut self, pid: u32, now: Moment, out: &mut Output) {
        let Some(life) = &mut self.life else { return };
        life.pid = Some(pid);
        life.up_at = Some(now);
        life.ready_by = self.spec.policy.ready.as_ref().map(|check| now + check.within);
        out.event(self, EventKind::Started);
        out.notice(&self.id, Notice::Started);
        if self.phase != Phase::Starting {
            return;
        }
        if self.spec.policy.ready.is_none() {
            self.became_ready(now, out);
        } else if self.probes(ProbePurpose::Ready) {
            self.start_probe(ProbePurpose::Ready, out);
        }
    }

    fn start_probe(&self, purpose: ProbePurpose, out: &mut Output) {
        out.action(Action::StartProbe {
            instance: self.id.clone(),
            run: self.run,
            purpose,
            spec: self.spec.clone(),
        });
    }

    fn spawn_failed(&mut self, message: String, now: Moment, out: &mut Output) {
        self.forget(out);
        match self.want {
            Want::Up => self.give_up(message, now, out),
            Want::Down => self.rest(Phase::Down, now, out),
        }
    }

    fn spawn_postponed(&mut self, message: String, now: Moment, out: &mut Output) {
        self.forget(out);
        if self.want == Want::Down {
            self.rest(Phase::Down, now, out);
            return;
        }
        out.event(self, EventKind::SpawnFailed(message.clone()));
        self.reason = Some(message);
        self.shortage = true;
        self.phase = Phase::Backoff { until: now + SHORTAGE_PAUSE };
        out.notice(&self.id, Notice::Shortage(now + SHORTAGE_PAUSE));
    }

    fn became_ready(&mut self, now: Moment, out: &mut Output) {
        let Some(life) = &mut self.life else { return };
        if !matches!(self.phase, Phase::Starting | Phase::Running) || life.ready {
            return;
        }
        life.ready = true;
        life.ready_by = None;
        if self.phase == Phase::Running {
            out.event(self, EventKind::Ready(Duration::ZERO));
            out.notice(&self.id, Notice::Ready);
            return;
        }
        let after = now.since(life.up_at.unwrap_or(life.since));
        if self
            .spec
            .policy
            .alive
            .as_ref()
            .is_some_and(|check| !matches!(check.kind, AliveKind::Probe(_)))
        {
            life.last_sign = life.last_sign.max(Some(now));
        }
        self.phase = Phase::Running;
        if self.spec.policy.ready.is_some() {
            out.event(self, EventKind::Ready(after));
        }
        out.notice(&self.id, Notice::Ready);
        if self.probes(ProbePurpose::Alive) {
            self.start_probe(ProbePurpose::Alive, out);
        }
        self.hook(HookPoint::AfterReady, out);
    }

    fn exited(&mut self, exit: Exit, now: Moment, out: &mut Output) {
        let Some(life) = &mut self.life else { return };
        life.exit = Some(exit);
        life.ready = false;
        life.paused = None;
        let uptime = now.since(life.up_at.unwrap_or(life.since));
        self.exit = Some((exit, out.wall()));
        let asked = matches!(&self.phase, Phase::Stopping(Stopping { cause, .. }) | Phase::Killing(Killing { cause, .. }) if *cause == Cause::Asked);
        let success =
            matches!(exit, Exit::Code(code) if self.spec.policy.restart.success.contains(&code));
        let crash = !asked && !success;
        out.event(self, EventKind::Exited { exit, uptime, crash });
        match &mut self.phase {
            Phase::Stopping(stop) => stop.sweep_at = Some(now + SWEEP_PAUSE.0),
            Phase::Killing(_) => {}
            _ => {
                self.reason = Some(exit.to_string());
                let grace = self.spec.policy.stop.timeout.min(LEFTOVER_GRACE);
                self.stopping(Cause::Exited, Step::Hook, now, grace, out);
                if let Phase::Stopping(stop) = &mut self.phase {
                    stop.sweep_at = Some(now + SWEEP_PAUSE.0);
                }
            }
        }
        if crash {
            self.hook(HookPoint::OnCrash, out);
        }
        out.action(Action::Sweep { instance: self.id.clone(), run: self.run });
    }

    /// Nothing of the run is left.
    fn empty(&mut self, now: Moment, out: &mut Output) {
        let Some(life) = &self.life else { return };
        if life.pid.is_some() && life.exit.is_none() {
            return; // the leader's own end is still to be reported
        }
        let cause = match &self.phase {
            Phase::Stopping(Stopping { cause, .. }) | Phase::Killing(Killing { cause, .. }) => {
                cause.clone()
            }
            _ => return,
        };
        if life.pid.is_none() && matches!(self.phase, Phase::Stopping(_)) {
            return; // the spawn's own answer is still to come
        }
        self.phase = Phase::Closing(cause);
        if self.spec.policy.hooks.after_stop.is_some() {
            self.hook(HookPoint::AfterStop, out);
        } else {
            self.close(now, out);
        }
    }

    /// The run is over: what now?
    fn close(&mut self, now: Moment, out: &mut Output) {
        let Phase::Closing(cause) = std::mem::replace(&mut self.phase, Phase::Down) else {
            return;
        };
        let (uptime, exit, killed) = match &self.life {
            Some(life) => {
                (life.up_at.map_or(Duration::ZERO, |at| now.since(at)), life.exit, life.killed)
            }
            None => (Duration::ZERO, None, false),
        };
        self.forget(out);
        if self.want == Want::Down || cause == Cause::Asked {
            out.event(self, EventKind::Stopped { killed });
            out.notice(&self.id, Notice::Stopped { killed });
            self.rest(Phase::Down, now, out);
            return;
        }
        let fault = matches!(cause, Cause::Fault(_));
        let end = End { exit, fault, uptime };
        let policy = &self.spec.policy;
        match self.history.judge(&policy.restart, policy.kind, end, now, (&self.id, self.run)) {
            Verdict::Again(delay) => {
                let reason = self.reason.clone().unwrap_or_default();
                self.restarts = self.restarts.saturating_add(1);
                out.event(self, EventKind::Restarting { delay, reason });
                out.notice(&self.id, Notice::Restarting);
                if delay.is_zero() {
                    self.rest(Phase::Down, now, out);
                } else {
                    self.phase = Phase::Backoff { until: now + delay };
                }
            }
            Verdict::Completed => {
                out.event(self, EventKind::Completed);
                self.rest(Phase::Completed, now, out);
            }
            Verdict::GiveUp(budget) => {
                let last = self.reason.clone().unwrap_or_else(|| "ended".into());
                let why = budget.map_or(last.clone(), |budget| format!("{budget}; last: {last}"));
                self.give_up(why, now, out);
            }
        }
    }

    /// Fails for good.
    pub fn give_up(&mut self, why: String, now: Moment, out: &mut Output) {
        self.reason = Some(why.clone());
        out.event(self, EventKind::Failed(why));
        self.rest(Phase::Failed, now, out);
        if self.spec.policy.on_failure != OnFailure::Continue || out.abort_on_failure() {
            out.notice(&self.id, Notice::Failed);
        }
    }

    fn forget(&mut self, out: &mut Output) {
        self.life = None;
        out.action(Action::Forget { instance: self.id.clone(), run: self.run });
    }

    fn rest(&mut self, phase: Phase, now: Moment, out: &mut Output) {
        self.phase = phase;
        self.waiting_since = now;
        out.notice(&self.id, if self.waits() { Notice::Waits } else { Notice::Rests });
    }

    fn left(&mut self, pids: Vec<u32>, stuck: bool, now: Moment, out: &mut Output) {
        match &mut self.phase {
            Phase::Stopping(stop) => {
                if self.life.as_ref().is_none_or(|life| life.exit.is_none()) {
                    return;
                }
                let waited = now.since(stop.since).max(SWEEP_PAUSE.0);
                stop.sweep_at = Some(now + waited.min(SWEEP_PAUSE.1));
                if stop.cause == Cause::Exited && stop.step == Step::Hook {
                    stop.step = Step::Signalled;
                    out.event(self, EventKind::LeftBehind(pids));
                    self.send(self.spec.policy.stop.signal, Scope::Group, out);
                }
            }
            Phase::Killing(killing) => {
                killing.pids.clone_from(&pids);
                if !killing.reported && (stuck || killing.tries >= STUCK_AFTER) {
                    killing.reported = true;
                    out.event(self, EventKind::Stuck(pids));
                    out.notice(&self.id, Notice::Stuck);
                }
            }
            _ => {}
        }
    }

    fn subscribed(&mut self, now: Moment, out: &mut Output) {
        let Some(life) = &mut self.life else { return };
        let first = !life.subscribed;
        life.subscribed = true;
        // It was signalled because it did not listen yet; told now, it knows its grace.
        if let Phase::Stopping(Stopping {
            cause: Cause::Asked, step: Step::Signalled, kill_at, ..
        }) = &self.phase
            && first
        {
            out.action(Action::Order {
                instance: self.id.clone(),
                run: self.run,
                order: OrderKind::Shutdown { grace: kill_at.since(now) },
                reason: self.reason.clone().unwrap_or_default(),
            });
        }
    }

    fn hook(&self, point: HookPoint, out: &mut Output) {
        let hooks = &self.spec.policy.hooks;
        let hook = match point {
            HookPoint::BeforeStart => hooks.before_start.clone(),
            HookPoint::AfterReady => hooks.after_ready.clone(),
            HookPoint::BeforeStop => hooks.before_stop.clone(),
            HookPoint::AfterStop => hooks.after_stop.clone(),
            HookPoint::OnCrash => hooks.on_crash.clone(),
            HookPoint::StopCommand => self.spec.policy.stop.exec.clone().map(|command| {
                let timeout = self.spec.policy.stop.timeout;
                hilum_shared::config::spec::Hook { command, timeout, ignore_failure: false }
            }),
        };
        if let Some(hook) = hook {
            out.action(Action::Hook {
                instance: self.id.clone(),
                run: self.run,
                point,
                hook: Arc::new(hook),
                spec: self.spec.clone(),
                exit: self.exit.map(|(exit, _)| exit),
            });
        }
    }

    fn hook_done(
        &mut self,
        point: HookPoint,
        result: Result<(), String>,
        now: Moment,
        out: &mut Output,
    ) {
        let hooks = &self.spec.policy.hooks;
        let forgiven = match point {
            HookPoint::BeforeStart => {
                hooks.before_start.as_ref().is_some_and(|hook| hook.ignore_failure)
            }
            _ => false,
        };
        if let Err(message) = &result {
            out.event(
                self,
                EventKind::HookFailed { point: point.as_str(), message: message.clone() },
            );
        }
        match (point, &self.phase) {
            (HookPoint::BeforeStart, Phase::Preparing) => match result {
                Err(message) if !forgiven => {
                    self.reason = Some(format!("hook before_start: {message}"));
                    self.phase = Phase::Closing(Cause::Fault(message));
                    self.close(now, out);
                }
                _ => self.spawn(out),
            },
            (HookPoint::BeforeStop, Phase::Stopping(stop)) if stop.step == Step::Hook => {
                self.tell(now, out)
            }
            (HookPoint::StopCommand, Phase::Stopping(_)) if result.is_err() => {
                self.send(self.spec.policy.stop.signal, Scope::Group, out);
            }
            (HookPoint::AfterStop, Phase::Closing(_)) => self.close(now, out),
            _ => {}
        }
    }

    /// A deadline may have come.
    pub fn tick(&mut self, now: Moment, out: &mut Output) {
        match &mut self.phase {
            Phase::Starting | Phase::Running => self.tick_up(now, out),
            Phase::Stopping(stop) => {
                if stop.kill_at <= now {
                    let cause = stop.cause.clone();
                    self.kill(cause, now, out);
                } else if matches!(stop.step, Step::Ordered(at) if at <= now) {
                    self.signal(out);
                } else if stop.sweep_at.is_some_and(|at| at <= now) {
                    let waited = now.since(stop.since).max(SWEEP_PAUSE.0);
                    stop.sweep_at = Some(now + waited.min(SWEEP_PAUSE.1));
                    out.action(Action::Sweep { instance: self.id.clone(), run: self.run });
                }
            }
            Phase::Killing(killing) if killing.again_at <= now => {
                killing.tries = killing.tries.saturating_add(1);
                let pause = SWEEP_PAUSE.0 * 2u32.saturating_pow(killing.tries.min(16));
                killing.again_at = now + pause.min(SWEEP_PAUSE.1);
                out.action(Action::Kill { instance: self.id.clone(), run: self.run });
            }
            Phase::Backoff { until } if *until <= now => self.rest(Phase::Down, now, out),
            _ => {}
        }
    }

    fn tick_up(&mut self, now: Moment, out: &mut Output) {
        if self.phase == Phase::Running && self.too_old().is_some_and(|at| at <= now) {
            if let Some(life) = &mut self.life {
                life.old = true;
            }
            out.notice(&self.id, Notice::Old);
        }
        if self.delay_over().is_some_and(|at| at <= now) {
            self.became_ready(now, out);
        }
        let silence_ends = self.silence_ends(out.settings());
        let Some(life) = &mut self.life else { return };
        if life.ready_by.is_some_and(|at| at <= now) {
            let within = now.since(life.up_at.unwrap_or(life.since));
            let mut why =
                format!("not ready within {}", hilum_shared::units::format_duration(within));
            if !life.probe_detail.is_empty() {
                why = format!("{why}: {}", life.probe_detail);
            }
            self.stop_for(why, now, out);
        } else if silence_ends.is_some_and(|at| at <= now) {
            let silence = now.since(life.last_sign.unwrap_or(now));
            life.suspect = Some(Suspicion::Silence(silence));
            out.action(Action::Inspect { instance: self.id.clone(), run: self.run });
        } else if life.look_at.is_some_and(|at| at <= now) {
            life.look_at = None;
            life.suspect = Some(Suspicion::Paused);
            out.action(Action::Inspect { instance: self.id.clone(), run: self.run });
        }
    }
}

mod signs;

fn earliest(moments: [Option<Moment>; 4]) -> Option<Moment> {
    moments.into_iter().flatten().min()
}
