//! The way out of a run: told, signalled, killed, empty, and what follows.

use std::time::Duration;

use hilum_shared::config::spec::OnFailure;
use hilum_shared::signal::{Exit, Signal};

use super::{
    Cause, Instance, Killing, LEFTOVER_GRACE, Phase, STUCK_AFTER, SWEEP_PAUSE, Step, Stopping, Want,
};
use crate::core::action::{Action, OrderKind, Scope};
use crate::core::event::EventKind;
use crate::core::input::{HookPoint, ProbePurpose};
use crate::core::output::{Notice, Output};
use crate::core::restart::{End, Verdict};
use crate::core::time::Moment;

impl Instance {
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

    pub(super) fn end(
        &mut self,
        why: &str,
        grace: Option<Duration>,
        now: Moment,
        out: &mut Output,
    ) {
        match &mut self.phase {
            Phase::Down => {
                if self.want == Want::Down {
                    self.reason = Some(why.to_owned());
                    self.rest(Phase::Down, now, out);
                }
            }
            Phase::Backoff { .. } | Phase::Completed | Phase::Failed => {
                self.history.clear();
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
                } else if let Some(hook) = &self.spec.policy.hooks.before_stop {
                    // Whoever says how long it may take means all of it.
                    let hook_time = grace.map_or(hook.timeout, |_| Duration::ZERO);
                    self.stopping(Cause::Asked, Step::Hook, now, hook_time + timeout, out);
                    if let Phase::Stopping(stop) = &mut self.phase {
                        stop.hook_time = hook_time;
                    }
                    self.wait_for(HookPoint::BeforeStop, now, out);
                } else {
                    self.stopping(Cause::Asked, Step::Hook, now, timeout, out);
                    self.tell(now, out);
                }
            }
            // It ends already: what was asked for last is what it ends for.
            Phase::Stopping(stop) => {
                stop.cause = Cause::Asked;
                if let Some(grace) = grace {
                    stop.kill_at = stop.kill_at.min(now + grace);
                }
                let over = stop.kill_at <= now;
                self.reason = Some(why.to_owned());
                if over {
                    self.kill(Cause::Asked, now, out);
                }
            }
            Phase::Killing(killing) => {
                killing.cause = Cause::Asked;
                self.reason = Some(why.to_owned());
            }
            Phase::Closing(cause) => {
                *cause = Cause::Asked;
                self.reason = Some(why.to_owned());
            }
        }
    }

    pub(super) fn stopping(
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
            hook_time: Duration::ZERO,
            sweep_at: None,
            leftovers_told: false,
        });
    }

    /// Tells it to stop by the channel; the stop command or signal follows where that is not heard.
    pub(super) fn tell(&mut self, now: Moment, out: &mut Output) {
        let Phase::Stopping(stop) = &mut self.phase else {
            return;
        };
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

    pub(super) fn signal(&mut self, out: &mut Output) {
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

    pub(super) fn send(&self, signal: Signal, scope: Scope, out: &mut Output) {
        out.action(Action::Signal { instance: self.id.clone(), run: self.run, signal, scope });
    }

    pub(super) fn kill(&mut self, cause: Cause, now: Moment, out: &mut Output) {
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
    pub(super) fn fault(&mut self, why: String, now: Moment, out: &mut Output) {
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

    pub(super) fn exited(&mut self, exit: Exit, now: Moment, out: &mut Output) {
        let Some(life) = &mut self.life else { return };
        life.exit = Some(exit);
        life.ready = false;
        life.paused = None;
        let uptime = now.since(life.up_at.unwrap_or(life.since));
        self.exit = Some((exit, out.wall()));
        let by_hand = life
            .signalled
            .filter(|sent| matches!(exit, Exit::Signal { signal, .. } if signal == *sent));
        let (asked, fault) = match &self.phase {
            Phase::Stopping(Stopping { cause, .. }) | Phase::Killing(Killing { cause, .. }) => {
                match cause {
                    Cause::Asked => (true, None),
                    Cause::Fault(why) => (false, Some(why.clone())),
                    Cause::Exited => (false, None),
                }
            }
            _ => (false, None),
        };
        let success =
            matches!(exit, Exit::Code(code) if self.spec.policy.restart.success.contains(&code));
        let crash = !asked && (!success || fault.is_some());
        let cause = fault.or_else(|| by_hand.map(|_| "the signal was sent by hand".to_owned()));
        out.event(self, EventKind::Exited { exit, uptime, crash, cause });
        match &mut self.phase {
            Phase::Stopping(stop) => stop.sweep_at = Some(now + SWEEP_PAUSE.0),
            Phase::Killing(_) => {}
            _ => {
                self.reason = Some(exit.to_string());
                let grace = self.spec.policy.stop.timeout.min(LEFTOVER_GRACE);
                self.stopping(Cause::Exited, Step::Signalled, now, grace, out);
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
    pub(super) fn empty(&mut self, now: Moment, out: &mut Output) {
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
            self.wait_for(HookPoint::AfterStop, now, out);
        } else {
            self.close(now, out);
        }
    }

    /// The run is over: what now?
    pub(super) fn close(&mut self, now: Moment, out: &mut Output) {
        let Phase::Closing(cause) = std::mem::replace(&mut self.phase, Phase::Down) else {
            return;
        };
        let life = self.life.as_ref();
        let uptime = life.and_then(|life| life.up_at).map_or(Duration::ZERO, |at| now.since(at));
        let ready = life.is_some_and(|life| life.ready_at.is_some());
        let (exit, killed) = life.map_or((None, false), |life| (life.exit, life.killed));
        self.forget(out);
        if cause == Cause::Asked {
            out.event(self, EventKind::Stopped { killed });
            out.notice(&self.id, Notice::Stopped { killed });
            self.rest(Phase::Down, now, out);
            return;
        }
        let fault = matches!(cause, Cause::Fault(_));
        let end = End { exit, fault, ready, uptime };
        self.follow(end, Duration::ZERO, now, out);
    }

    /// What follows a run that ended, or could not begin: the policy decides, but no sooner than after `pause`.
    pub(super) fn follow(&mut self, end: End, pause: Duration, now: Moment, out: &mut Output) {
        let policy = &self.spec.policy;
        match self.history.judge(&policy.restart, policy.kind, end, now, (&self.id, self.run)) {
            Verdict::Again(delay) => {
                let delay = delay.max(pause);
                let reason = self.reason.clone().unwrap_or_default();
                out.notice(&self.id, Notice::Restarting { delay, reason });
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

    pub(super) fn forget(&mut self, out: &mut Output) {
        self.life = None;
        out.action(Action::Forget { instance: self.id.clone(), run: self.run });
    }

    pub(in crate::core) fn rest(&mut self, phase: Phase, now: Moment, out: &mut Output) {
        self.phase = phase;
        self.waiting_since = now;
        out.notice(&self.id, if self.waits() { Notice::Waits } else { Notice::Rests });
    }

    pub(super) fn left(&mut self, pids: Vec<u32>, stuck: bool, now: Moment, out: &mut Output) {
        match &mut self.phase {
            Phase::Stopping(stop) => {
                if self.life.as_ref().is_none_or(|life| life.exit.is_none()) {
                    return;
                }
                let waited = now.since(stop.since).max(SWEEP_PAUSE.0);
                stop.sweep_at = Some(now + waited.min(SWEEP_PAUSE.1));
                if std::mem::replace(&mut stop.leftovers_told, true) {
                    return;
                }
                if stop.cause == Cause::Exited {
                    // Who was killed had no time for them; who left by itself looks like a daemon.
                    if matches!(self.exit, Some((Exit::Code(_), _))) {
                        let end = self.reason.take().unwrap_or_default();
                        self.reason = Some(format!(
                            "{end}, leaving processes behind: does it daemonise? Run it in the foreground"
                        ));
                    }
                    out.event(self, EventKind::LeftBehind(pids.clone()));
                }
                // Also those that left the group: nobody else would tell them before the KILL.
                out.action(Action::SignalLeft {
                    instance: self.id.clone(),
                    run: self.run,
                    signal: self.spec.policy.stop.signal,
                    pids,
                });
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

    /// Nobody listens on the channel: the signal at once.
    pub(super) fn unheard(&mut self, out: &mut Output) {
        if matches!(&self.phase, Phase::Stopping(stop) if matches!(stop.step, Step::Ordered(_))) {
            self.signal(out);
        }
    }
}
