//! The way into a run: hook, spawn, ready. And the hooks of the whole life.

use std::sync::Arc;
use std::time::Duration;

use hilum_shared::config::spec::{AliveKind, Hook, ReadyKind, ServiceSpec};

use super::{CONFLICT_PAUSE, Cause, Instance, Life, Phase, SHORTAGE_PAUSE, Step, Want};
use crate::core::action::{Action, Scope};
use crate::core::event::EventKind;
use crate::core::input::{FailureClass, HookPoint, ProbePurpose};
use crate::core::output::{Notice, Output};
use crate::core::plan::watchdog;
use crate::core::restart::End;
use crate::core::time::Moment;

impl Instance {
    /// Starts the next run. Only in `Down`.
    pub fn start(&mut self, spec: Arc<ServiceSpec>, now: Moment, out: &mut Output) {
        debug_assert!(self.waits(), "{} starts in {:?}", self.id, self.phase);
        self.spec = spec;
        self.run = self.run.next();
        self.restarts = self.restarts.saturating_add(u32::from(self.history.begin()));
        self.reason = None;
        self.info = None;
        self.missed = None;
        self.life = Some(Life {
            since: now,
            pid: None,
            up_at: None,
            ready: false,
            ready_at: None,
            ready_by: None,
            exit: None,
            last_beat: None,
            last_sign: None,
            silence: [out.settings().heartbeat_timeout; 2],
            watchdog: watchdog(&self.spec.policy),
            failed_probes: [0, 0],
            probe_detail: String::new(),
            called: false,
            suspect: None,
            look_at: None,
            paused: None,
            held: false,
            killed: false,
            signalled: None,
            old: false,
            hook: None,
        });
        if self.spec.policy.hooks.before_start.is_some() {
            self.phase = Phase::Preparing;
            self.wait_for(HookPoint::BeforeStart, now, out);
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

    pub(super) fn spawned(&mut self, pid: u32, now: Moment, out: &mut Output) {
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

    pub(super) fn start_probe(&self, purpose: ProbePurpose, out: &mut Output) {
        out.action(Action::StartProbe {
            instance: self.id.clone(),
            run: self.run,
            purpose,
            spec: self.spec.clone(),
        });
    }

    pub(super) fn spawn_failed(&mut self, message: String, now: Moment, out: &mut Output) {
        self.forget(out);
        match self.want {
            Want::Up => self.give_up(message, now, out),
            Want::Down => self.rest(Phase::Down, now, out),
        }
    }

    /// Notes why there is no process; `false` where none is wanted any more.
    fn missed_its_start(
        &mut self,
        message: String,
        why: FailureClass,
        now: Moment,
        out: &mut Output,
    ) -> bool {
        self.forget(out);
        if self.want == Want::Down {
            self.rest(Phase::Down, now, out);
            return false;
        }
        out.event(self, EventKind::SpawnFailed(message.clone()));
        self.reason = Some(message);
        self.missed = Some(why);
        true
    }

    pub(super) fn spawn_postponed(&mut self, message: String, now: Moment, out: &mut Output) {
        if !self.missed_its_start(message, FailureClass::Shortage, now, out) {
            return;
        }
        self.phase = Phase::Backoff { until: now + SHORTAGE_PAUSE };
        out.notice(&self.id, Notice::Shortage(now + SHORTAGE_PAUSE));
    }

    /// Somebody else has its port: a failed start.
    pub(super) fn spawn_refused(&mut self, message: String, now: Moment, out: &mut Output) {
        if !self.missed_its_start(message, FailureClass::Conflict, now, out) {
            return;
        }
        let end = End { exit: None, fault: true, ready: false, uptime: Duration::ZERO };
        self.follow(end, CONFLICT_PAUSE, now, out);
    }

    pub(super) fn became_ready(&mut self, now: Moment, out: &mut Output) {
        let Some(life) = &mut self.life else { return };
        if !matches!(self.phase, Phase::Starting | Phase::Running) || life.ready {
            return;
        }
        life.ready = true;
        life.ready_at = Some(now);
        life.ready_by = None;
        if self.phase == Phase::Running {
            out.event(self, EventKind::Ready(Duration::ZERO));
            out.notice(&self.id, Notice::Ready { first: false });
            return;
        }
        let after = now.since(life.up_at.unwrap_or(life.since));
        if self
            .spec
            .policy
            .alive
            .as_ref()
            .is_some_and(|check| !matches!(check.kind, AliveKind::Probe(_) | AliveKind::Rpc))
        {
            life.last_sign = life.last_sign.max(Some(now));
        }
        self.phase = Phase::Running;
        if self.spec.policy.ready.is_some() {
            out.event(self, EventKind::Ready(after));
        }
        out.notice(&self.id, Notice::Ready { first: true });
        if self.probes(ProbePurpose::Alive) {
            self.start_probe(ProbePurpose::Alive, out);
        }
        self.hook(HookPoint::AfterReady, out);
    }

    pub(super) fn probes(&self, purpose: ProbePurpose) -> bool {
        Self::is_probed(&self.spec, purpose)
    }

    /// Whether `spec` has the node ask for this.
    pub(in crate::core) fn is_probed(spec: &ServiceSpec, purpose: ProbePurpose) -> bool {
        let policy = &spec.policy;
        match purpose {
            ProbePurpose::Ready => policy.ready.as_ref().is_some_and(|check| {
                matches!(check.kind, ReadyKind::Probe(_) | ReadyKind::File(_))
            }),
            ProbePurpose::Alive => policy
                .alive
                .as_ref()
                .is_some_and(|check| matches!(check.kind, AliveKind::Probe(_) | AliveKind::Rpc)),
        }
    }

    /// Runs a hook before which nothing goes on.
    pub(super) fn wait_for(&mut self, point: HookPoint, now: Moment, out: &mut Output) {
        if let Some(life) = &mut self.life {
            life.hook = Some((point, now));
        }
        self.hook(point, out);
    }

    /// The hook that is waited for, and since when.
    pub(in crate::core) fn awaited_hook(&self) -> Option<(HookPoint, Moment)> {
        let point = match &self.phase {
            Phase::Preparing => HookPoint::BeforeStart,
            Phase::Stopping(stop) if stop.step == Step::Hook => HookPoint::BeforeStop,
            Phase::Closing(_) => HookPoint::AfterStop,
            _ => return None,
        };
        self.life.as_ref()?.hook.filter(|(of, _)| *of == point)
    }

    pub(super) fn hook(&self, point: HookPoint, out: &mut Output) {
        let hooks = &self.spec.policy.hooks;
        let hook = match point {
            HookPoint::BeforeStart => hooks.before_start.clone(),
            HookPoint::AfterReady => hooks.after_ready.clone(),
            HookPoint::BeforeStop => hooks.before_stop.clone(),
            HookPoint::AfterStop => hooks.after_stop.clone(),
            HookPoint::OnCrash => hooks.on_crash.clone(),
            HookPoint::StopCommand => self.spec.policy.stop.exec.clone().map(|command| {
                let timeout = self.spec.policy.stop.timeout;
                Hook { command, timeout, ignore_failure: false }
            }),
        };
        if let Some(hook) = hook {
            out.action(Action::Hook {
                instance: self.id.clone(),
                run: self.run,
                point,
                hook: Arc::new(hook),
                spec: self.spec.clone(),
                exit: match point {
                    // What came before is not the end of this run.
                    HookPoint::AfterReady | HookPoint::BeforeStop | HookPoint::StopCommand => {
                        self.life.as_ref().and_then(|life| life.exit)
                    }
                    HookPoint::BeforeStart | HookPoint::AfterStop | HookPoint::OnCrash => {
                        self.exit.map(|(exit, _)| exit)
                    }
                },
            });
        }
    }

    pub(super) fn hook_done(
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
        match (point, &mut self.phase) {
            (HookPoint::BeforeStart, Phase::Preparing) => match result {
                Err(message) if !forgiven => {
                    self.reason = Some(format!("hook before_start: {message}"));
                    self.phase = Phase::Closing(Cause::Fault(message));
                    self.close(now, out);
                }
                _ => self.spawn(out),
            },
            (HookPoint::BeforeStop, Phase::Stopping(stop)) if stop.step == Step::Hook => {
                let hook_ends = stop.since + stop.hook_time;
                if stop.kill_at > hook_ends {
                    stop.kill_at = stop.kill_at.min(now + stop.kill_at.since(hook_ends));
                }
                self.tell(now, out);
            }
            (HookPoint::StopCommand, Phase::Stopping(_)) if result.is_err() => {
                self.send(self.spec.policy.stop.signal, Scope::Group, out);
            }
            (HookPoint::AfterStop, Phase::Closing(_)) => self.close(now, out),
            _ => {}
        }
    }

    /// The pause between two tries is over. Failures so far are not forgiven.
    pub fn end_pause(&mut self, now: Moment, out: &mut Output) {
        if matches!(self.phase, Phase::Backoff { .. }) {
            self.rest(Phase::Down, now, out);
        }
    }

    /// Its time has come: what waited for its next try starts now, as one that is due and not as a restart.
    pub fn fall_due(&mut self, now: Moment, out: &mut Output) {
        self.history.ordered();
        self.end_pause(now, out);
    }

    /// The operator wants it up. Failures so far are forgiven.
    pub fn want_up(&mut self, now: Moment, out: &mut Output) {
        self.want = Want::Up;
        self.dropping = false;
        self.stopped_for = None;
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
}
