//! Who may start: dependencies, slots, pauses, schedules.

use std::time::Duration;

use hilum_shared::config::cron;
use hilum_shared::config::spec::{Overlap, ScheduleWhen};
use hilum_shared::name::{InstanceId, ServiceName};

use super::Supervisor;
use crate::core::event::EventKind;
use crate::core::instance::{Phase, Want};
use crate::core::service::Service;
use crate::core::time::{Moment, Now};

/// So many starts between two ticks; then other inputs have their turn. A spawn takes about 0.4 ms, and a
/// command is to be answered within some tens of milliseconds.
pub(super) const STARTS_AT_ONCE: usize = 16;

/// A difference of the two clocks that is no step, in seconds: both may be read some time apart.
const CLOCK_STEP: f64 = 0.5;
/// A clock that is set by so many seconds was wrong: what it was to begin at times that it never showed, or showed
/// twice, is not made up for. The limit is that of Debian's cron(8).
const CLOCK_WRONG: f64 = 3.0 * 3600.0;

/// What the wall clock says beyond the monotonic one, in seconds.
pub(super) fn wall_ahead(now: Now) -> f64 {
    now.wall - now.mono.0.as_secs_f64()
}

/// When the wall clock will say `at`; now where it did.
fn moment(at: f64, now: Now) -> Moment {
    now.mono + Duration::try_from_secs_f64(at - now.wall).unwrap_or_default()
}

impl Service {
    /// Decides when the schedule fires next after `last`, or for the first time.
    pub(super) fn plan_next(&mut self, last: Option<Moment>, now: Now) {
        let when = self.spec.policy.schedule.as_ref().map(|schedule| &schedule.when);
        (self.fires_at, self.fires_for) = match when {
            None => (None, None),
            Some(ScheduleWhen::Every(every)) => {
                (Some(last.map_or(now.mono, |last| (last + *every).max(now.mono))), None)
            }
            Some(ScheduleWhen::Cron(expression)) => {
                // A clock that is a hair behind does not fire the same time again.
                let fired = self.fires_for.filter(|_| last.is_some());
                let next = cron::next(expression, fired.map_or(now.wall, |at| at.max(now.wall)));
                (next.map(|at| moment(at, now)), next)
            }
        };
    }
}

/// What follows a look at the waiting instances of one service.
#[derive(PartialEq, Eq)]
enum Look {
    /// A look at the next service.
    On,
    /// Another look, after the news of a spawn or at the next tick.
    Later,
}

impl Supervisor {
    /// Starts what waits and may: one process, and the others when that is reported. So each is known to be up
    /// before the next is made, and none of its lines comes before that word.
    pub(super) fn start_waiting(&mut self, now: Now) {
        self.gate_at = None;
        if self.going.is_some() || self.waiting.is_empty() {
            return;
        }
        if let Some(until) = self.paused_until {
            if until > now.mono {
                self.gate_at = Some(until);
                return;
            }
            self.paused_until = None;
        }
        let names: Vec<ServiceName> = self.waiting.keys().cloned().collect();
        for name in names {
            if self.start_waiting_of(&name, now) == Look::Later {
                self.look_again(now.mono);
                return;
            }
        }
    }

    fn start_waiting_of(&mut self, name: &ServiceName, now: Now) -> Look {
        let Some(service) = self.services.get(name) else { return Look::On };
        if service.spec.policy.schedule.is_some() && !service.due {
            return Look::On;
        }
        let blocked = !self.blocked_by(service).is_empty() || self.dependency_restarts(name);
        let stagger = service.spec.policy.start_stagger;
        let mut indexes: Vec<u32> = self.waiting.get(name).map_or(Vec::new(), |set| {
            // Only as many as can matter now: the set may be long.
            let all = blocked || service.breaker;
            set.iter().take(if all { usize::MAX } else { STARTS_AT_ONCE + 1 }).copied().collect()
        });
        if service.breaker {
            // Tried singly, each has its turn, or the same few would be tried for ever.
            indexes.sort_by_key(|index| service.instances.get(index).map(|i| i.waiting_since));
        }
        for index in indexes {
            let id = InstanceId::new(name.clone(), index);
            let Some(service) = self.services.get(name) else { return Look::On };
            let Some(instance) = service.instances.get(&index) else { continue };
            if self.wave.contains_key(&id) {
                continue; // it is to end first
            }
            if blocked && !instance.ignore_deps {
                self.wait_or_give_up(&id, now);
                continue;
            }
            if let Some(at) = service.not_before.filter(|at| *at > now.mono) {
                self.look_again(at);
                return Look::On;
            }
            if service.on_trial().is_some() {
                return Look::On; // its end, or that it holds, looks again
            }
            if self.starting >= self.cluster.node.start_parallel as usize {
                return Look::On; // the next `ready` looks again
            }
            if self.starts_left == 0 {
                return Look::Later;
            }
            self.starts_left -= 1;
            let spec = service.spec.clone();
            self.with(&id, |instance, out| instance.start(spec, now.mono, out));
            if !stagger.is_zero()
                && let Some(service) = self.services.get_mut(name)
            {
                service.not_before = Some(now.mono + stagger);
            }
            if self.instance(&id).is_some_and(|instance| instance.phase == Phase::Starting) {
                self.look_is_over(name);
                return Look::Later;
            }
        }
        self.look_is_over(name);
        Look::On
    }

    /// A scheduled job's time is used up when the last of its instances has started.
    fn look_is_over(&mut self, name: &ServiceName) {
        if let Some(service) = self.services.get_mut(name)
            && !self.waiting.contains_key(name)
        {
            service.due = false;
        }
    }

    fn look_again(&mut self, at: Moment) {
        self.gate_at = Some(self.gate_at.map_or(at, |other| other.min(at)));
    }

    /// A dependency that did not come in time fails the waiting instance.
    fn wait_or_give_up(&mut self, id: &InstanceId, now: Now) {
        let Some(service) = self.services.get(&id.service) else { return };
        let Some(instance) = service.instances.get(&id.index) else { return };
        let since = instance.waiting_since;
        let mut give_up = None;
        let mut next: Option<Moment> = None;
        for dependency in &service.spec.policy.depends_on {
            let Some(other) = self.services.get(&dependency.service) else { continue };
            let Some(timeout) = dependency.timeout else { continue };
            if other.satisfies(dependency) {
                continue;
            }
            let at = since + timeout;
            if at <= now.mono {
                give_up = Some(other.missing(dependency));
            } else {
                next = Some(next.map_or(at, |known| known.min(at)));
            }
        }
        if let Some(what) = give_up {
            self.with(id, |instance, out| {
                out.event(instance, EventKind::DependencyTimeout(what.clone()));
                instance.give_up(format!("waited in vain for {what}"), now.mono, out);
            });
        } else if let Some(at) = next {
            self.look_again(at);
        }
    }

    /// What a service's waiting instances wait for, in words.
    pub(super) fn blocked_by(&self, service: &Service) -> Vec<String> {
        let missing = service.spec.policy.depends_on.iter().filter_map(|dependency| {
            let other = self.services.get(&dependency.service)?;
            (!other.satisfies(dependency)).then(|| other.missing(dependency))
        });
        missing.collect()
    }

    /// Whether something that `name` needs is about to be ended, so that it is ready only for now.
    fn dependency_restarts(&self, name: &ServiceName) -> bool {
        self.graph.dependencies(name).any(|other| self.wave.keys().any(|id| id.service == *other))
    }

    // --- schedules ------------------------------------------------------------------------------

    /// Notices that the wall clock was set, or that the machine slept: times of the day come sooner or later by then.
    pub(super) fn look_at_clocks(&mut self, now: Now) {
        let step = wall_ahead(now) - self.wall_ahead;
        if step.abs() < CLOCK_STEP {
            return;
        }
        self.wall_ahead = wall_ahead(now);
        for service in self.services.values_mut().filter(|service| service.fires_at.is_some()) {
            match service.fires_for {
                // Neither skipped nor run twice.
                Some(at) if step.abs() < CLOCK_WRONG => service.fires_at = Some(moment(at, now)),
                Some(_) => service.plan_next(None, now),
                None => {}
            }
        }
    }

    pub(super) fn fire_schedules(&mut self, now: Now) {
        let due: Vec<ServiceName> = self
            .services
            .iter()
            .filter(|(_, service)| service.fires_at.is_some_and(|at| at <= now.mono))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            let Some(service) = self.services.get_mut(&name) else { continue };
            service.plan_next(Some(now.mono), now);
            if service.fires_at.is_some_and(|at| at <= now.mono) {
                service.fires_at = Some(now.mono + Duration::from_secs(1));
            }
            let overlap = service.spec.policy.schedule.as_ref().map(|schedule| schedule.overlap);
            // One that waits for its next try is tried now: the schedule goes before the backoff.
            let busy = service.instances.values().any(|i| !i.at_rest());
            match (service.want, busy, overlap) {
                (Want::Down, ..) => {}
                (Want::Up, true, Some(Overlap::Queue)) => service.queued = true,
                (Want::Up, true, _) => {}
                (Want::Up, false, _) => self.run_scheduled(&name, now),
            }
        }
    }

    /// A queued run follows the one that has just ended.
    pub(super) fn run_queued(&mut self, name: &ServiceName, now: Now) {
        let ready = self.services.get(name).is_some_and(|service| {
            service.queued
                && service.want == Want::Up
                && service
                    .instances
                    .values()
                    .all(|i| i.at_rest() && !matches!(i.phase, Phase::Backoff { .. }))
        });
        if ready {
            self.run_scheduled(name, now);
        }
    }

    fn run_scheduled(&mut self, name: &ServiceName, now: Now) {
        let Some(service) = self.services.get_mut(name) else { return };
        service.queued = false;
        service.due = true;
        let ids: Vec<InstanceId> = service
            .instances
            .values()
            .filter(|i| i.want == Want::Up)
            .map(|i| i.id.clone())
            .collect();
        for id in ids {
            self.with(&id, |instance, out| match instance.phase {
                Phase::Backoff { .. } => instance.fall_due(now.mono, out),
                _ => instance.want_up(now.mono, out),
            });
        }
    }
}
