//! What time brings: deadlines follow from the state, and what is due is done.

use std::time::Duration;

use hilum_shared::config::spec::{AliveKind, ReadyKind};

use super::{Instance, LATE, Phase, SWEEP_PAUSE, Settings, Step, Suspicion};
use crate::core::action::Action;
use crate::core::output::{Notice, Output};
use crate::core::restart::fraction;
use crate::core::time::Moment;

impl Instance {
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
        // A run is judged by what it was told, however short the limit is by now.
        let [before, told] = life.silence;
        let silence = settings.heartbeat_timeout.max(before).max(told);
        match &self.spec.policy.alive {
            None => life.last_beat.map(|_| sign + silence),
            Some(check) => match check.kind {
                AliveKind::Heartbeat => Some(sign + silence),
                AliveKind::Notify => life.watchdog.map(|usec| sign + usec * check.failures.max(1)),
                AliveKind::Probe(_) | AliveKind::Rpc => None,
            },
        }
    }

    /// Its age, where `max_age` lets it be no older.
    pub(in crate::core) fn aged(&self, now: Moment) -> Option<Duration> {
        let life = self.life.as_ref().filter(|life| life.old)?;
        life.up_at.map(|at| now.since(at))
    }

    /// It is to be recycled then.
    fn too_old(&self) -> Option<Moment> {
        let (life, max_age) = (self.life.as_ref()?, self.spec.policy.max_age?);
        let extra = max_age.variance.mul_f64(fraction((&self.id, self.run)));
        (!life.old).then(|| life.up_at.map(|at| at + max_age.age + extra)).flatten()
    }

    /// The node itself did not run for `by` or longer: nobody is blamed for that time. What came meanwhile may
    /// still be on its way to us, and how long the gap was before the first deadline nobody knows: silence
    /// counts from now on.
    pub fn stalled(&mut self, by: Duration, now: Moment) {
        let shift = |moment: &mut Option<Moment>| {
            if let Some(moment) = moment {
                *moment = *moment + by;
            }
        };
        if let Some(life) = &mut self.life {
            life.last_sign = life.last_sign.map(|_| now);
            shift(&mut life.ready_by);
        }
        if let Phase::Stopping(stop) = &mut self.phase {
            stop.kill_at = stop.kill_at + by;
            if let Step::Ordered(signal_at) = &mut stop.step {
                *signal_at = *signal_at + by;
            }
        }
    }

    /// `alive` has another meaning from now on: silence counts anew.
    pub fn alive_changed(&mut self, now: Moment) {
        if let Some(life) = &mut self.life {
            life.last_sign = life.last_sign.map(|_| now);
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
            Phase::Backoff { until } if *until <= now => self.end_pause(now, out),
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
            let passed = now.since(life.up_at.unwrap_or(life.since));
            let limit = self.spec.policy.ready.as_ref().map_or(passed, |check| check.within);
            // The limit in its round number, unless the instance asked for more.
            let within = if passed < limit + LATE { limit } else { passed };
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

fn earliest(moments: [Option<Moment>; 4]) -> Option<Moment> {
    moments.into_iter().flatten().min()
}
