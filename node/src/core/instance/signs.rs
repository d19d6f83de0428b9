//! Signs of life: heartbeats, watchdog, probes, and what excuses their absence.

use hilum_shared::config::spec::{AliveKind, ReadyKind};
use hilum_shared::protocol::WorkerState;
use hilum_shared::units::Bytes;

use super::{Cause, Instance, Phase, Step, Stopping, Suspicion};
use crate::core::action::Action;
use crate::core::event::EventKind;
use crate::core::input::{NotifyMessage, ProbePurpose, Pulse};
use crate::core::output::Output;
use crate::core::time::Moment;

impl Instance {
    /// A sign of life came: whatever was suspected is forgotten.
    fn sign(&mut self, now: Moment, out: &mut Output) {
        let Some(life) = &mut self.life else { return };
        life.last_sign = Some(now);
        if matches!(life.suspect, Some(Suspicion::Silence(_))) {
            life.suspect = None;
        }
        if life.paused.take().is_some() {
            life.look_at = None;
            out.event(self, EventKind::Resumed);
        }
    }

    pub(super) fn beat(
        &mut self,
        state: WorkerState,
        status: Option<String>,
        now: Moment,
        out: &mut Output,
    ) {
        let Some(life) = &mut self.life else { return };
        life.last_beat = Some(now);
        if status.is_some() {
            self.info = status;
        }
        match (state, &mut self.phase) {
            (_, Phase::Starting | Phase::Running) => {
                let watched = self
                    .spec
                    .policy
                    .alive
                    .as_ref()
                    .is_none_or(|check| check.kind == AliveKind::Heartbeat);
                if watched {
                    self.sign(now, out);
                }
                let by_heartbeat = self
                    .spec
                    .policy
                    .ready
                    .as_ref()
                    .is_some_and(|check| check.kind == ReadyKind::Heartbeat);
                if by_heartbeat {
                    match state {
                        WorkerState::Ready | WorkerState::Busy => self.became_ready(now, out),
                        WorkerState::Starting | WorkerState::Draining => {
                            self.not_ready("it says so", out);
                        }
                    }
                }
            }
            (WorkerState::Draining, Phase::Stopping(stop))
                if matches!(stop.step, Step::Ordered(_)) =>
            {
                stop.step = Step::Draining;
            }
            _ => {}
        }
    }

    fn not_ready(&mut self, why: &str, out: &mut Output) {
        let Some(life) = &mut self.life else { return };
        if self.phase == Phase::Running && life.ready {
            life.ready = false;
            out.event(self, EventKind::NotReady(why.to_owned()));
        }
    }

    /// These services have an entry of the present run now.
    pub(in crate::core) fn offered(&mut self, names: &[String], now: Moment, out: &mut Output) {
        let Some(life) = &mut self.life else { return };
        let policy = &self.spec.policy;
        let newly = !names.is_empty() && !std::mem::replace(&mut life.called, !names.is_empty());
        let asked = policy.alive.as_ref().is_some_and(|check| check.kind == AliveKind::Rpc);
        // Before it is ready nobody asks. A probe that began with readiness had no address to ask.
        if newly && asked && self.phase == Phase::Running {
            self.start_probe(ProbePurpose::Alive, out);
        }
        let Some(ReadyKind::Registered(wanted)) = policy.ready.as_ref().map(|check| &check.kind)
        else {
            return;
        };
        let there = match wanted {
            Some(name) => names.contains(name),
            None => !names.is_empty(),
        };
        if there {
            self.became_ready(now, out);
        } else {
            self.not_ready("it is not registered any more", out);
        }
    }

    pub(super) fn notified(&mut self, message: NotifyMessage, now: Moment, out: &mut Output) {
        let Some(life) = &mut self.life else { return };
        if message.status.is_some() {
            self.info = message.status;
        }
        if message.watchdog_interval.is_some() {
            life.watchdog = message.watchdog_interval;
        }
        if let Some(extend) = message.extend_timeout {
            match &mut self.phase {
                Phase::Starting => life.ready_by = life.ready_by.max(Some(now + extend)),
                Phase::Stopping(Stopping { cause: Cause::Asked, kill_at, .. }) => {
                    // Its own words may lengthen a stop, but no more than double it.
                    let most = *kill_at + self.spec.policy.stop.timeout;
                    *kill_at = (*kill_at).max(now + extend).min(most);
                }
                _ => {}
            }
        }
        let watched =
            self.spec.policy.alive.as_ref().is_some_and(|check| check.kind == AliveKind::Notify);
        if message.watchdog && watched && self.is_up() {
            self.sign(now, out);
        }
        if message.ready
            && self.spec.policy.ready.as_ref().is_some_and(|check| check.kind == ReadyKind::Notify)
        {
            self.became_ready(now, out);
        }
        if message.reloading {
            self.not_ready("it reloads", out);
        }
        if message.trigger && watched && matches!(self.phase, Phase::Starting | Phase::Running) {
            self.fault("its watchdog asked for it".into(), now, out);
        }
    }

    pub(super) fn probed(
        &mut self,
        purpose: ProbePurpose,
        ok: bool,
        detail: String,
        now: Moment,
        out: &mut Output,
    ) {
        let Some(life) = &mut self.life else { return };
        if !matches!(self.phase, Phase::Starting | Phase::Running) {
            return;
        }
        let failures = &mut life.failed_probes[purpose as usize];
        if ok {
            *failures = 0;
            life.probe_detail.clear();
            if matches!(life.suspect, Some(Suspicion::Probe(_))) {
                life.suspect = None;
            }
            match purpose {
                ProbePurpose::Ready => self.became_ready(now, out),
                ProbePurpose::Alive if life.paused.take().is_some() => {
                    life.look_at = None;
                    out.event(self, EventKind::Resumed);
                }
                ProbePurpose::Alive => {}
            }
            return;
        }
        *failures = failures.saturating_add(1);
        let count = *failures;
        life.probe_detail.clone_from(&detail);
        match purpose {
            ProbePurpose::Ready => {
                let most = self.spec.policy.ready.as_ref().map_or(1, |check| check.failures);
                if count >= most {
                    self.not_ready(&detail, out);
                }
            }
            ProbePurpose::Alive => {
                let most = self.spec.policy.alive.as_ref().map_or(1, |check| check.failures);
                if count >= most && life.suspect.is_none() && life.paused.is_none() && !life.held {
                    life.suspect = Some(Suspicion::Probe(detail));
                    out.action(Action::Inspect { instance: self.id.clone(), run: self.run });
                }
            }
        }
    }

    /// A look at a silent process: is the silence its own?
    pub(super) fn pulse(&mut self, pulse: Pulse, now: Moment, out: &mut Output) {
        let settings = out.settings();
        let Some(life) = &mut self.life else { return };
        let Some(suspicion) = life.suspect.take() else {
            return;
        };
        let paused = match pulse {
            Pulse::Alive | Pulse::Starved => None,
            Pulse::Stopped => Some("stopped by SIGSTOP"),
            Pulse::Traced => Some("held by a debugger"),
        };
        match (paused, suspicion) {
            (Some(how), _) => {
                let first = life.paused.is_none();
                life.paused = Some(how);
                life.look_at = Some(
                    now + settings.heartbeat_interval.max(std::time::Duration::from_millis(100)),
                );
                if first {
                    out.event(self, EventKind::Paused(how.to_owned()));
                }
            }
            (None, Suspicion::Silence(_) | Suspicion::Probe(_)) if pulse == Pulse::Starved => {
                life.failed_probes = [0, 0];
                life.last_sign = life.last_sign.map(|_| now);
                out.event(self, EventKind::Starved);
            }
            (None, Suspicion::Paused) => {
                let told = life.paused.take().is_none(); // by a sign that came during the look
                life.failed_probes = [0, 0];
                life.last_sign = life.last_sign.map(|_| now);
                if !told {
                    out.event(self, EventKind::Resumed);
                }
            }
            (None, Suspicion::Silence(silence)) => {
                out.event(self, EventKind::HeartbeatLost { silence });
                let silence = hilum_shared::units::format_duration(silence);
                self.fault(format!("heartbeat lost: silent for {silence}"), now, out);
            }
            (None, Suspicion::Probe(detail)) => {
                out.event(self, EventKind::ProbeLost(detail.clone()));
                self.fault(format!("does not answer: {detail}"), now, out);
            }
        }
    }

    pub(super) fn held(&mut self, held: bool, now: Moment) {
        let Some(life) = &mut self.life else { return };
        life.held = held;
        if !held {
            life.failed_probes = [0, 0];
            life.last_sign = life.last_sign.map(|_| now);
        }
    }

    pub(super) fn memory(&mut self, rss: Bytes, now: Moment, out: &mut Output) {
        let Some(limit) = self.spec.policy.memory else {
            return;
        };
        if rss > limit && matches!(self.phase, Phase::Starting | Phase::Running) {
            out.event(self, EventKind::OverMemory { rss, limit });
            let why = EventKind::OverMemory { rss, limit }.text();
            self.stop_for(why, now, out);
        }
    }
}
