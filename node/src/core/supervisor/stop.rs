//! In which order things end: dependents first. And the end of the whole cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use hilum_shared::name::{InstanceId, ServiceName};

use super::Supervisor;
use crate::core::action::Action;
use crate::core::event::EventKind;
use crate::core::instance::{Instance, Phase, Want};
use crate::core::time::{Moment, Now};

/// What is to be done with an instance when its turn to end has come.
#[derive(Clone, Debug)]
pub(super) struct Order {
    why: String,
    grace: Option<Duration>,
    again: bool,
}

impl Order {
    /// It ends and stays down.
    pub(super) fn stop(why: &str, grace: Option<Duration>) -> Self {
        Self { why: why.to_owned(), grace, again: false }
    }

    /// It ends and starts anew.
    pub(super) fn restart(why: &str, grace: Option<Duration>) -> Self {
        Self { why: why.to_owned(), grace, again: true }
    }
}

/// The cluster is on its way down.
#[derive(Debug)]
pub(super) struct Going {
    kill_at: Option<Moment>,
    code: i32,
    exited: bool,
}

impl Going {
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.kill_at
    }

    pub(super) fn stalled(&mut self, by: Duration) {
        self.kill_at = self.kill_at.map(|at| at + by);
    }
}

impl Supervisor {
    /// Puts an instance among those that end when their dependents have. `release_wave` follows.
    pub(super) fn end_later(&mut self, id: &InstanceId, order: Order) {
        // What is on its way out for good does not come back by a restart of its service.
        if order.again && self.instance(id).is_some_and(|instance| instance.dropping) {
            return;
        }
        self.with(id, |instance, _| {
            instance.want = if order.again { Want::Up } else { Want::Down };
            instance.stopped_for = None;
        });
        self.wave.insert(id.clone(), order);
    }

    /// Ends those whose dependents are gone.
    pub(super) fn release_wave(&mut self, now: Now) {
        loop {
            let free: Vec<InstanceId> = {
                let mut verdicts: BTreeMap<&ServiceName, bool> = BTreeMap::new();
                self.wave
                    .iter()
                    .filter(|(id, order)| {
                        order.grace == Some(Duration::ZERO)
                            || *verdicts
                                .entry(&id.service)
                                .or_insert_with(|| !self.is_needed(&id.service))
                    })
                    .map(|(id, _)| id.clone())
                    .collect()
            };
            if free.is_empty() {
                return;
            }
            for id in free {
                let Some(order) = self.wave.remove(&id) else { continue };
                self.with(&id, |instance, out| {
                    if order.again {
                        instance.restart(&order.why, order.grace, now.mono, out);
                    } else {
                        instance.want_down(&order.why, order.grace, now.mono, out);
                    }
                });
            }
        }
    }

    /// Whether a dependent of `name` is itself about to end, or ending.
    fn is_needed(&self, name: &ServiceName) -> bool {
        self.graph.dependents(name).any(|dependent| {
            self.wave.keys().any(|id| id.service == *dependent)
                || self.services.get(dependent).is_some_and(super::Service::is_ending)
        })
    }

    /// Ends everything, then the node. Called again, it may only become faster.
    pub(super) fn shut_down(&mut self, why: &str, grace: Option<Duration>, code: i32, now: Now) {
        let limit = grace.unwrap_or(self.cluster.node.stop_timeout);
        let kill_at = now.mono + limit;
        match &mut self.going {
            Some(going) => going.kill_at = going.kill_at.map(|at| at.min(kill_at)),
            None => {
                self.out.event_of(None, EventKind::NodeStopping(why.to_owned()));
                self.going = Some(Going { kill_at: Some(kill_at), code, exited: false });
            }
        }
        self.rolls.clear();
        for service in self.services.values_mut() {
            service.want = Want::Down;
            service.fires_at = None;
            service.queued = false;
        }
        let ids: Vec<InstanceId> = self.instances().map(|instance| instance.id.clone()).collect();
        for id in ids {
            let done = self.instance(&id).is_some_and(|i| i.phase == Phase::Completed);
            if done && !self.wave.contains_key(&id) {
                self.with(&id, |instance, _| instance.want = Want::Down); // it stays what it became
            } else {
                self.end_later(&id, Order::stop(why, grace));
            }
        }
        self.release_wave(now);
    }

    /// The time of the whole cluster is up: KILL for all that is left.
    pub(super) fn hasten_shutdown(&mut self, now: Now) {
        let Some(going) = &mut self.going else { return };
        if going.kill_at.is_none_or(|at| at > now.mono) {
            return;
        }
        going.kill_at = None;
        let left: Vec<InstanceId> =
            self.instances().filter(|i| !i.at_rest()).map(|i| i.id.clone()).collect();
        for id in left {
            self.end_later(&id, Order::stop("node.stop_timeout is over", Some(Duration::ZERO)));
        }
        self.release_wave(now);
    }

    /// All is gone: the node may go.
    pub(super) fn finish_shutdown(&mut self) {
        if self.going.as_ref().is_none_or(|going| going.exited) || !self.wave.is_empty() {
            return;
        }
        if self.instances().any(|i| !matches!(i.phase, Phase::Down | Phase::Completed)) {
            return;
        }
        let Some(going) = &mut self.going else { return };
        going.exited = true;
        going.kill_at = None;
        let code = going.code;
        self.out.event_of(None, EventKind::NodeStopped);
        self.out.action(Action::Exit(code));
    }

    /// A foreground node whose instances have all ended by themselves has nothing left to do.
    pub(super) fn exit_when_idle(&mut self, now: Now) {
        if !self.options.exit_when_idle || self.going.is_some() {
            return;
        }
        let mut ended = false;
        let mut code = 0;
        for instance in self.instances() {
            match instance.phase {
                Phase::Completed => ended = true,
                Phase::Failed => {
                    ended = true;
                    code = 1;
                }
                Phase::Down if instance.want == Want::Down && instance.run.0 == 0 => {}
                _ => return,
            }
        }
        if ended && self.services.values().all(|service| service.fires_at.is_none()) {
            self.shut_down("everything has ended", None, code, now);
            self.settle_once(now);
        }
    }

    fn settle_once(&mut self, now: Now) {
        let notices = self.out.take_notices();
        for (id, notice) in notices {
            self.noticed(&id, notice, now);
        }
        self.release_wave(now);
        self.finish_shutdown();
    }

    /// Running instances of services that depend on `names` and are not among them, for a warning.
    pub(super) fn running_dependents(&self, names: &[ServiceName]) -> Vec<ServiceName> {
        let all = self.graph.with_dependents(names.iter().cloned());
        all.into_iter()
            .filter(|name| {
                !names.contains(name)
                    && self
                        .services
                        .get(name)
                        .is_some_and(|s| s.instances.values().any(Instance::is_up))
            })
            .collect()
    }
}
