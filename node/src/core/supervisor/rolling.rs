//! Replacing instances one after another, each only when the one before is ready.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hilum_shared::config::spec::{RollingFailure, ServiceSpec, SocketSpec};
use hilum_shared::name::{InstanceId, Run, ServiceName};

use super::Supervisor;
use super::vain::Vain;
use crate::core::event::EventKind;
use crate::core::instance::{Instance, Phase, Want};
use crate::core::time::{Moment, Now};

/// For a rolling restart by hand of a service without `rolling`: the defaults of its keys.
const MIN_READY: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(120);

/// One service's rolling restart.
#[derive(Debug)]
pub(super) struct Roll {
    why: String,
    /// Each with the run that is to be replaced.
    queue: VecDeque<(InstanceId, Run)>,
    flying: Vec<Flight>,
    done: Vec<InstanceId>,
    most_down: usize,
    min_ready: Duration,
    deadline: Duration,
    on_failure: RollingFailure,
    previous: Option<Arc<ServiceSpec>>,
    /// Stand-ins above the count, while the others are replaced (`max_surge`).
    stand_ins: Vec<InstanceId>,
}

#[derive(Debug)]
struct Flight {
    id: InstanceId,
    old_run: Run,
    by: Moment,
    settled_at: Option<Moment>,
    /// Why the new run ended by itself.
    ended: Option<String>,
}

impl Roll {
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.flying.iter().map(|flight| flight.settled_at.unwrap_or(flight.by)).min()
    }

    /// What a rollback would go back to.
    pub(super) fn previous(&self) -> Option<&ServiceSpec> {
        self.previous.as_deref()
    }

    pub(super) fn stalled(&mut self, by: Duration) {
        for flight in &mut self.flying {
            flight.by = flight.by + by;
        }
    }
}

/// What became of one that was replaced.
enum Landing {
    NotYet,
    /// Ready; long enough at this moment.
    SettlesAt(Moment),
    Gone,
    Failed(String),
}

impl Supervisor {
    /// Begins to replace `ids`, or adds them to what is being replaced; the first goes when this input is settled. `unsure`
    /// have been replaced before and are not ready: they are waited for first, and count as down.
    pub(super) fn roll(
        &mut self,
        name: &ServiceName,
        ids: Vec<InstanceId>,
        unsure: Vec<InstanceId>,
        why: &str,
        previous: Option<Arc<ServiceSpec>>,
        now: Now,
    ) {
        let Some(service) = self.services.get(name) else { return };
        let with_run = |id: InstanceId| {
            let run = service.instances.get(&id.index).map_or(Run(0), |instance| instance.run);
            (id, run)
        };
        let queue: VecDeque<(InstanceId, Run)> = ids.into_iter().map(with_run).collect();
        if let Some(roll) = self.rolls.get_mut(name) {
            why.clone_into(&mut roll.why);
            roll.queue.retain(|(queued, _)| !queue.iter().any(|(id, _)| id == queued));
            roll.queue.extend(queue);
            return;
        }
        let rolling = service.spec.policy.rolling.clone();
        let (count, spec) = (service.count, service.spec.clone());
        let surge = rolling.as_ref().map_or(0, |rolling| rolling.max_surge);
        let mut roll = Roll {
            why: why.to_owned(),
            queue,
            flying: Vec::new(),
            done: Vec::new(),
            most_down: rolling.as_ref().map_or(1, |r| r.max_unavailable.max(r.max_surge)).max(1)
                as usize,
            min_ready: rolling.as_ref().map_or(MIN_READY, |r| r.min_ready),
            deadline: rolling.as_ref().map_or(DEADLINE, |r| r.deadline),
            on_failure: rolling.as_ref().map_or(RollingFailure::Pause, |r| r.on_failure),
            previous,
            stand_ins: Vec::new(),
        };
        for index in count + 1..=count + surge {
            let id = InstanceId::new(name.clone(), index);
            let taken = self
                .services
                .get(name)
                .is_none_or(|service| service.instances.contains_key(&index));
            if taken {
                continue;
            }
            let instance = Instance::new(id.clone(), spec.clone(), Want::Down, now.mono);
            if let Some(service) = self.services.get_mut(name) {
                service.instances.insert(index, instance);
            }
            self.with(&id, |instance, out| instance.want_up(now.mono, out));
            roll.flying.push(Flight {
                id: id.clone(),
                old_run: Run(0),
                by: now.mono + roll.deadline,
                settled_at: None,
                ended: None,
            });
            roll.stand_ins.push(id);
        }
        for id in unsure {
            let Some(instance) = self.instance(&id) else { continue };
            roll.flying.push(Flight {
                old_run: Run(instance.run.0.saturating_sub(1)),
                by: now.mono + roll.deadline,
                settled_at: None,
                ended: None,
                id,
            });
        }
        self.rolls.insert(name.clone(), roll);
    }

    /// A rolling restart for a definition that is not wanted any more is over; the answer is what ran before it.
    pub(super) fn supersede_roll(
        &mut self,
        name: &ServiceName,
        now: Now,
    ) -> Option<Arc<ServiceSpec>> {
        self.rolls.get(name)?.previous.as_ref()?; // else it does not depend on the definition
        let roll = self.rolls.remove(name)?;
        self.dismiss(name, &roll.stand_ins, now);
        let spec = self.services.get(name)?.spec.clone();
        let as_wanted =
            |id: &&InstanceId| self.instance(id).is_some_and(|i| i.outdated(&spec).is_empty());
        let queued = roll.queue.iter().map(|(id, _)| id);
        let ids: Vec<InstanceId> = queued.filter(as_wanted).cloned().collect();
        self.end_operations(&ids, "unchanged", "it runs what is wanted");
        roll.previous
    }

    /// One that was replaced has ended by itself.
    pub(super) fn ended_in_flight(&mut self, id: &InstanceId, why: &str) {
        let flying = self.rolls.get_mut(&id.service).into_iter().flat_map(|roll| &mut roll.flying);
        for flight in flying.filter(|flight| flight.id == *id) {
            flight.ended = Some(why.to_owned());
        }
    }

    /// An instance is as old as it may be: it is replaced, one at a time.
    pub(super) fn recycle(&mut self, id: &InstanceId, now: Now) {
        let why = "as old as max_age allows";
        self.roll(&id.service, vec![id.clone()], Vec::new(), why, None, now);
    }

    pub(super) fn advance_rolls(&mut self, now: Now) {
        let names: Vec<ServiceName> = self.rolls.keys().cloned().collect();
        for name in names {
            self.advance_roll(&name, now);
        }
    }

    /// Whether it is one of those that are replaced, so that who waits for it waits until it has held.
    pub(super) fn is_rolled(&self, id: &InstanceId) -> bool {
        self.rolls.get(&id.service).is_some_and(|roll| {
            let queued = roll.queue.iter().any(|(queued, _)| queued == id);
            queued || roll.flying.iter().any(|flight| flight.id == *id)
        })
    }

    /// Somebody restarts it by hand: what becomes of it says nothing of the others any more.
    pub(super) fn leave_roll(&mut self, id: &InstanceId) {
        if let Some(roll) = self.rolls.get_mut(&id.service) {
            roll.queue.retain(|(other, _)| other != id);
            roll.flying.retain(|flight| flight.id != *id);
        }
    }

    fn advance_roll(&mut self, name: &ServiceName, now: Now) {
        let Some(mut roll) = self.rolls.remove(name) else { return };
        let mut failure = None;
        let mut landed = Vec::new();
        let flying = std::mem::take(&mut roll.flying);
        for mut flight in flying {
            match self.landing(&flight, &roll, now) {
                Landing::NotYet => {
                    flight.settled_at = None;
                    roll.flying.push(flight);
                }
                Landing::SettlesAt(at) if at > now.mono => {
                    flight.settled_at = Some(at);
                    roll.flying.push(flight);
                }
                Landing::SettlesAt(_) => {
                    landed.push(flight.id.clone());
                    roll.done.push(flight.id);
                }
                Landing::Gone => landed.push(flight.id),
                Landing::Failed(why) => {
                    roll.done.push(flight.id.clone());
                    failure = Some((flight.id, why));
                }
            }
        }
        for id in &landed {
            self.tell_operations(id, false);
        }
        if let Some((id, why)) = failure {
            self.roll_failed(name, roll, &id, &why, now);
            return;
        }
        let standing_in = roll.flying.iter().any(|flight| roll.stand_ins.contains(&flight.id));
        while !standing_in && roll.flying.len() < roll.most_down {
            let Some((id, old_run)) = roll.queue.pop_front() else { break };
            let Some(instance) = self.instance(&id) else { continue };
            if instance.want == Want::Down || instance.dropping {
                continue;
            }
            let flight = Flight {
                id: id.clone(),
                old_run,
                by: now.mono + roll.deadline,
                settled_at: None,
                ended: None,
            };
            // One that crashed and started anew since is what is wanted already.
            if instance.run == old_run {
                let why = roll.why.clone();
                self.with(&id, |instance, out| {
                    if let Some(age) = instance.aged(now.mono) {
                        out.event(instance, EventKind::Recycled(age));
                    }
                    instance.restart(&why, None, now.mono, out);
                });
            }
            roll.flying.push(flight);
        }
        if roll.flying.is_empty() && roll.queue.is_empty() {
            self.dismiss(name, &roll.stand_ins, now);
        } else {
            self.rolls.insert(name.clone(), roll);
        }
    }

    fn landing(&self, flight: &Flight, roll: &Roll, now: Now) -> Landing {
        let Some(instance) = self.instance(&flight.id) else { return Landing::Gone };
        if instance.want == Want::Down {
            return Landing::Gone;
        }
        if instance.waits()
            && let Some(why) = Vain::of(self).why(instance)
        {
            return Landing::Failed(why);
        }
        if instance.phase == Phase::Failed {
            return Landing::Failed(instance.reason.clone().unwrap_or_else(|| "failed".into()));
        }
        let crashed =
            matches!(instance.phase, Phase::Backoff { .. }) && instance.run > flight.old_run;
        if crashed || instance.run > flight.old_run.next() {
            let why = flight.ended.clone().or_else(|| instance.reason.clone());
            let why = why.unwrap_or_else(|| "ended".into());
            return Landing::Failed(format!("the new one did not hold: {why}"));
        }
        if instance.run > flight.old_run && instance.phase == Phase::Completed {
            return Landing::Gone;
        }
        if instance.run > flight.old_run && instance.ready() {
            let up = instance.life.as_ref().and_then(|life| life.ready_at).unwrap_or(now.mono);
            return Landing::SettlesAt(up + roll.min_ready);
        }
        if flight.by <= now.mono {
            let state = instance.state_word();
            return Landing::Failed(format!("not ready in time (it is {state})"));
        }
        Landing::NotYet
    }

    fn roll_failed(
        &mut self,
        name: &ServiceName,
        roll: Roll,
        id: &InstanceId,
        why: &str,
        now: Now,
    ) {
        let back = roll.previous.is_some() && roll.on_failure == RollingFailure::Rollback;
        let next = match (back, roll.queue.len()) {
            (true, _) => "; all go back to what they ran before".to_owned(),
            (false, 0) => String::new(),
            (false, n) => format!(
                "; {n} not replaced yet: `hilum restart {name} --rolling` goes on with all of them"
            ),
        };
        self.out.event_of(Some(name), EventKind::RollingStopped(format!("{id}: {why}{next}")));
        self.dismiss(name, &roll.stand_ins, now);
        for done in roll.done.iter().filter(|done| back && *done != id) {
            self.operations.take_back(done, &format!("rolled back, because {id} did not hold"));
        }
        self.end_operations(std::slice::from_ref(id), "failed", why);
        let queue: Vec<InstanceId> = roll.queue.iter().map(|(id, _)| id.clone()).collect();
        self.end_operations(&queue, "kept", &format!("not replaced, because {id} did not hold"));
        let flying: Vec<InstanceId> = roll.flying.iter().map(|flight| flight.id.clone()).collect();
        self.end_operations(
            &flying,
            "failed",
            &format!("not waited for, because {id} did not hold"),
        );
        let Some(previous) = roll.previous.filter(|_| back) else { return };
        if let Some(service) = self.services.get_mut(name) {
            // All but the count, which was not rolled.
            let mut spec = (*previous).clone();
            spec.numprocesses = service.spec.numprocesses;
            let failed = std::mem::replace(&mut service.spec, Arc::new(spec));
            // what runs is not what the file says: the next reload sees the difference
            let mut cluster = (*self.cluster).clone();
            cluster.services.insert(name.clone(), service.spec.clone());
            let old = &previous.launch.sockets;
            let used = |socket: &SocketSpec| {
                cluster.services.values().any(|spec| spec.launch.sockets.contains(socket))
            };
            let left: Vec<SocketSpec> =
                failed.launch.sockets.iter().filter(|socket| !used(socket)).cloned().collect();
            cluster.sockets.retain(|socket| !left.contains(socket));
            let back = old.iter().filter(|socket| !cluster.sockets.contains(socket)).cloned();
            let back: Vec<SocketSpec> = back.collect();
            cluster.sockets.extend(back);
            self.cluster = Arc::new(cluster);
            if failed.launch.ports != previous.launch.ports {
                self.reserve_ports(name);
            }
        }
        for id in roll.done.iter().chain(roll.flying.iter().map(|flight| &flight.id)) {
            self.with(id, |instance, out| instance.restart("rolled back", None, now.mono, out));
        }
    }

    /// Stand-ins go, unless the service has meanwhile been scaled up to them.
    fn dismiss(&mut self, name: &ServiceName, stand_ins: &[InstanceId], now: Now) {
        let count = self.services.get(name).map_or(0, |service| service.count);
        for id in stand_ins.iter().filter(|id| id.index > count) {
            self.drop_later(id, "stood in during a rolling restart");
        }
        self.release_wave(now);
    }
}
