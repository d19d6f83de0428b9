//! What follows from what happened to one instance: for those who wait, for dependents, for the whole cluster.

use hilum_shared::config::spec::{OnDependencyRestart, OnFailure};
use hilum_shared::name::{InstanceId, ServiceName};
use hilum_shared::protocol::control::AwaitState;

use super::Supervisor;
use super::stop::Order;
use super::vain::Vain;
use crate::core::action::{Action, Reply};
use crate::core::event::EventKind;
use crate::core::instance::{Phase, Want};
use crate::core::operation::{Answers, arrived};
use crate::core::output::Notice;
use crate::core::service::Service;
use crate::core::time::Now;

impl Supervisor {
    pub(super) fn settle(&mut self, now: Now) {
        self.advance_rolls(now); // those that this input began
        loop {
            let notices = self.out.take_notices();
            if notices.is_empty() {
                if !std::mem::take(&mut self.gate_dirty) {
                    break;
                }
                self.start_waiting(now);
                continue;
            }
            self.gate_dirty = true;
            for (id, notice) in notices {
                self.noticed(&id, notice, now);
            }
            self.release_wave(now);
            self.advance_rolls(now);
        }
        self.finish_shutdown();
        self.exit_when_idle(now);
    }

    pub(super) fn noticed(&mut self, id: &InstanceId, notice: Notice, now: Now) {
        let killed = matches!(notice, Notice::Stopped { killed: true });
        let stays = self.instance(id).is_some_and(|instance| instance.want == Want::Up);
        if !(stays && self.is_rolled(id)) {
            self.tell_operations(id, killed);
        }
        if matches!(notice, Notice::Waits | Notice::Rests | Notice::Restarting { .. }) {
            self.end_waits_in_vain(id);
        }
        self.check_awaiting(Some(id));
        match notice {
            Notice::Ready { first } if first => self.dependents_of_restarted(id, now),
            Notice::Failed => self.failed(id, now),
            Notice::Shortage(until) => {
                self.paused_until = self.paused_until.max(Some(until));
                self.shortage = self.instance(id).and_then(|instance| instance.reason.clone());
            }
            Notice::Started => self.shortage = None,
            Notice::Restarting { delay, reason } => {
                self.ended_in_flight(id, &reason);
                if let Some(service) = self.services.get_mut(&id.service) {
                    service.due = true;
                    let fires_in = service.fires_at.map(|at| at.since(now.mono));
                    let delay = fires_in.map_or(delay, |fires_in| fires_in.min(delay));
                    if let Some(instance) = service.instances.get(&id.index) {
                        self.out.event(instance, EventKind::Restarting { delay, reason });
                    }
                }
                self.watch_crashes(&id.service);
            }
            Notice::Old => self.recycle(id, now),
            Notice::Rests => {
                self.rested(id);
                self.run_queued(&id.service, now);
            }
            Notice::Waits => self.bring_back_dependents(&id.service, now),
            Notice::Ready { .. } | Notice::Stopped { .. } | Notice::Stuck => {}
        }
    }

    /// Answers those who wait for what has become of it now.
    pub(super) fn tell_operations(&mut self, id: &InstanceId, killed: bool) {
        let mut answers = Answers::new();
        if let Some(instance) =
            self.services.get(&id.service).and_then(|service| service.instances.get(&id.index))
        {
            self.operations.settle(instance, killed, &mut answers);
        }
        for (request, outcome) in answers {
            self.out.action(Action::Reply { id: request, reply: Reply::Outcome(outcome) });
        }
    }

    /// Answers those who wait for what will not be done.
    pub(super) fn end_operations(&mut self, ids: &[InstanceId], result: &'static str, why: &str) {
        let mut answers = Answers::new();
        for id in ids {
            self.operations.give_up(id, result, why, &mut answers);
        }
        for (request, outcome) in answers {
            self.out.action(Action::Reply { id: request, reply: Reply::Outcome(outcome) });
        }
    }

    fn rested(&mut self, id: &InstanceId) {
        let gone = self
            .instance(id)
            .is_some_and(|i| i.dropping && i.want == Want::Down && i.phase == Phase::Down);
        if gone {
            self.remove(id);
        }
    }

    pub(super) fn check_awaiting(&mut self, changed: Option<&InstanceId>) {
        let mut answered = Vec::new();
        let mut vain = Vain::of(self);
        for (at, awaiting) in self.awaiting.iter().enumerate() {
            let concerned =
                changed.is_none_or(|id| awaiting.instances.iter().any(|(other, _)| other == id));
            if !concerned {
                continue;
            }
            let to_be_up = matches!(awaiting.state, AwaitState::Ready | AwaitState::Running);
            let states = awaiting.instances.iter().map(|(id, run)| {
                // One that is gone for good has arrived wherever it was waited for.
                let Some(instance) = self.instance(id) else { return Some(true) };
                arrived(awaiting.state, *run, instance).or_else(|| {
                    let lost = to_be_up && !self.is_rolled(id) && vain.why(instance).is_some();
                    lost.then_some(false)
                })
            });
            let states: Vec<Option<bool>> = states.collect();
            let failed = states.contains(&Some(false));
            if failed || states.iter().all(Option::is_some) {
                answered.push((at, !failed));
            }
        }
        for (at, ok) in answered.into_iter().rev() {
            let awaiting = self.awaiting.remove(at);
            let reply = Reply::Outcome(self.outcome_of(&awaiting, ok));
            self.out.action(Action::Reply { id: awaiting.request, reply });
        }
    }

    fn dependents_of_restarted(&mut self, id: &InstanceId, now: Now) {
        if self.instance(id).is_none_or(|instance| instance.run.0 < 2) {
            return;
        }
        let dependents: Vec<ServiceName> = self
            .graph
            .dependents(&id.service)
            .filter(|name| {
                self.services.get(*name).is_some_and(|service| {
                    service.spec.policy.depends_on.iter().any(|dependency| {
                        dependency.service == id.service
                            && dependency.on_restart == OnDependencyRestart::Restart
                    })
                })
            })
            .cloned()
            .collect();
        for name in dependents {
            let up: Vec<InstanceId> = self.services.get(&name).map_or(Vec::new(), |service| {
                service.instances.values().filter(|i| i.is_up()).map(|i| i.id.clone()).collect()
            });
            self.replace(&name, up, &format!("{id} was restarted"), None, now);
        }
    }

    /// From now on any failure ends the cluster, also one that is there already.
    pub(super) fn abort_on_failure(&mut self, now: Now) {
        self.out.set_abort_on_failure();
        let failed = self.instances().find(|i| i.phase == Phase::Failed && !i.dropping);
        if let Some(id) = failed.map(|instance| instance.id.clone()) {
            self.failed(&id, now);
        }
    }

    fn failed(&mut self, id: &InstanceId, now: Now) {
        let Some(instance) = self.instance(id) else { return };
        let code = instance.exit.map_or(1, |(exit, _)| exit.shell_code()).max(1);
        let shutdown =
            instance.spec.policy.on_failure == OnFailure::Shutdown || self.out.abort_on_failure();
        if shutdown {
            self.shut_down(&format!("{id} failed"), None, code, now);
            return;
        }
        if instance.spec.policy.on_failure == OnFailure::StopDependents {
            let names = self.graph.with_dependents(self.graph.dependents(&id.service).cloned());
            let ids: Vec<InstanceId> = self
                .instances()
                .filter(|i| names.contains(&i.id.service) && i.want == Want::Up)
                .map(|i| i.id.clone())
                .collect();
            for other in ids {
                self.end_later(&other, Order::stop(&format!("{id} failed"), None));
                self.with(&other, |instance, _| {
                    instance.stopped_for = Some(id.service.clone());
                });
            }
            self.release_wave(now);
        }
    }

    /// A service that had failed is to come up again: so are those that its failure stopped.
    fn bring_back_dependents(&mut self, of: &ServiceName, now: Now) {
        let failed = |service: &Service| {
            service.instances.values().any(|i| i.phase == Phase::Failed && !i.dropping)
        };
        if self.services.get(of).is_none_or(failed) {
            return;
        }
        let stopped: Vec<InstanceId> = self
            .instances()
            .filter(|instance| instance.stopped_for.as_ref() == Some(of))
            .map(|instance| instance.id.clone())
            .collect();
        for id in stopped {
            self.wave.remove(&id);
            self.with(&id, |instance, out| instance.want_up(now.mono, out));
        }
    }
}
