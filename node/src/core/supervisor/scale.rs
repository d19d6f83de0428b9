//! How many processes a service has.

use hilum_shared::config::MAX_PROCESSES;
use hilum_shared::name::{InstanceId, Run, ServiceName};
use hilum_shared::protocol::control::{Accepted, Fault, Scale, ScaleTo};

use super::Supervisor;
use super::request::fault;
use super::stop::Order;
use crate::core::event::EventKind;
use crate::core::operation::{Expect, Items};
use crate::core::time::Now;

impl Supervisor {
    pub(super) fn scale(&mut self, scale: &Scale, now: Now) -> Result<Accepted, Fault> {
        self.refuse_while_stopping()?;
        let mut wanted = Vec::new();
        for ScaleTo { service: name, count, relative } in &scale.changes {
            let Some(service) = self.services.get(name.as_str()).filter(|service| !service.removed)
            else {
                return Err(self.unknown(name));
            };
            let target = if *relative { i64::from(service.count) + count } else { *count };
            match u32::try_from(target) {
                Ok(target) if i64::from(target) <= MAX_PROCESSES => {
                    wanted.push((service.spec.name.clone(), target));
                }
                _ => {
                    let message =
                        format!("`{name}` cannot have {target} processes: 0 to {MAX_PROCESSES}");
                    return Err(fault("usage", message, None));
                }
            }
        }
        let mut items = Items::new();
        for (name, count) in wanted {
            self.rescale(&name, count, &mut items, now);
        }
        let accepted = self.operations.begin(items, Vec::new());
        self.release_wave(now);
        Ok(accepted)
    }

    /// Starts or ends the difference; the highest indexes go first.
    pub(super) fn rescale(&mut self, name: &ServiceName, count: u32, items: &mut Items, now: Now) {
        let Some(service) = self.services.get_mut(name) else { return };
        let before = service.count;
        service.count = count;
        let want = service.want;
        if before != count {
            self.out.event_of(Some(name), EventKind::Scaled { from: before, to: count });
        }
        for id in self.grow(name, count, want, now) {
            let run = self.instance(&id).map_or(Run(0), |instance| instance.run);
            let expect = self.expect_of_new(name, want, run, now);
            items.push((id, "start", expect));
        }
        let Some(service) = self.services.get(name) else { return };
        let surplus: Vec<InstanceId> = service
            .instances
            .range(count + 1..)
            .filter(|(_, instance)| !instance.dropping)
            .map(|(_, instance)| instance.id.clone())
            .rev()
            .collect();
        for id in surplus {
            items.push((id.clone(), "stop", Ok(Expect::Down)));
            self.drop_later(&id, "scaled down");
        }
    }

    /// Ends an instance for good.
    pub(super) fn drop_later(&mut self, id: &InstanceId, why: &str) {
        self.with(id, |instance, _| instance.dropping = true);
        self.end_later(id, Order::stop(why, None));
    }
}

#[cfg(test)]
mod tests {
    use hilum_shared::protocol::control::{Scale, ScaleTo, Targets};

    use crate::core::action::Action;
    use crate::core::fixtures::{cluster, service};
    use crate::core::input::{Input, Request, RequestId};
    use crate::core::supervisor::{Options, Supervisor};
    use crate::core::time::{Moment, Now};

    fn starts(first: Option<Targets>) -> usize {
        let now = Now { mono: Moment::default(), wall: 0.0 };
        let cluster = cluster(vec![service("web", 0)]);
        let mut core = Supervisor::new(cluster, Options::default(), now);
        let mut actions = Vec::new();
        let changes = vec![ScaleTo { service: "web".into(), count: 2, relative: false }];
        let requests = first.map(Request::Start).into_iter();
        for request in requests.chain([Request::Scale(Scale { changes })]) {
            core.handle(Input::Request { id: RequestId(1), request }, now, &mut actions);
        }
        core.handle(Input::Tick, now, &mut actions);
        actions.iter().filter(|action| matches!(action, Action::Spawn { .. })).count()
    }

    #[test]
    fn a_service_without_processes_that_was_started_comes_up_when_it_is_scaled() {
        let targets = Targets { targets: Vec::new(), deps: true, rolling: false, grace: None };
        assert_eq!(starts(Some(targets)), 2);
        assert_eq!(starts(None), 0);
    }
}
