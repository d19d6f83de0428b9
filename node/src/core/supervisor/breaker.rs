//! When all instances of a service crash at once (what they need is gone), one at a time is tried until one holds;
//! then the others follow at once, whatever their backoff says. So what comes back is not run over by all of them,
//! and none waits half a minute more than it has to.

use hilum_shared::name::{InstanceId, ServiceName};

use super::Supervisor;
use crate::core::event::EventKind;
use crate::core::input::FailureClass;
use crate::core::instance::{Instance, Phase, Want};
use crate::core::service::{Service, is_job};
use crate::core::time::{Moment, Now};

/// So many failures in a row of each instance, all too soon, and they are not a coincidence.
const CRASHES: u32 = 2;

impl Service {
    fn wanted(&self) -> impl Iterator<Item = &Instance> {
        self.members().filter(|instance| instance.want == Want::Up)
    }

    /// When the first of those that run now will have held; `None` while none is ready.
    fn holds_at(&self) -> Option<Moment> {
        let min_uptime = self.spec.policy.restart.min_uptime;
        let ready = self.wanted().filter(|instance| instance.ready());
        ready.filter_map(|i| Some(i.life.as_ref()?.up_at? + min_uptime)).min()
    }

    /// Who is being tried, so that others wait.
    pub(super) fn on_trial(&self) -> Option<&Instance> {
        self.instances.values().find(|instance| self.breaker && !instance.at_rest())
    }
}

impl Supervisor {
    /// An instance ended and will be started again: is it one of all?
    pub(super) fn watch_crashes(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get_mut(name) else { return };
        let (mut all, mut crash) = (0, 0);
        for instance in service.wanted() {
            all += 1;
            crash += u32::from(instance.crashes() >= CRASHES && !instance.ready());
        }
        if !service.breaker && !is_job(&service.spec) && all > 1 && all == crash {
            service.breaker = true;
            self.out.event_of(Some(name), EventKind::TriedSingly);
        }
    }

    /// The next moment at which one that is tried will have held; at once where nobody is wanted any more.
    pub(super) fn breaker_deadline(&self) -> Option<Moment> {
        let tried = self.services.values().filter(|service| service.breaker);
        let over = |service: &Service| match service.wanted().next() {
            Some(_) => service.holds_at(),
            None => Some(Moment::default()),
        };
        tried.filter_map(over).min()
    }

    /// Lets the others follow where one has held, or where nobody is wanted any more.
    pub(super) fn close_breakers(&mut self, now: Now) {
        let over = |service: &Service| {
            let held = service.holds_at().is_some_and(|at| at <= now.mono);
            service.breaker && (held || service.wanted().next().is_none())
        };
        let names: Vec<ServiceName> =
            self.services.values().filter(|s| over(s)).map(|s| s.spec.name.clone()).collect();
        for name in names {
            let Some(service) = self.services.get_mut(&name) else { continue };
            service.breaker = false;
            let short = |i: &Instance| i.missed == Some(FailureClass::Shortage);
            let pausing = |i: &&Instance| matches!(i.phase, Phase::Backoff { .. }) && !short(i);
            let ids: Vec<InstanceId> =
                service.instances.values().filter(pausing).map(|i| i.id.clone()).collect();
            self.gate_dirty = true;
            for id in ids {
                self.with(&id, |instance, out| instance.rest(Phase::Down, now.mono, out));
            }
        }
    }
}
