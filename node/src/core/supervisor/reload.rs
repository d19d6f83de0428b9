//! What a new configuration changes: nothing but the difference.

use std::sync::Arc;

use hilum_shared::config::spec::{Cluster, ReloadVia, ServiceSpec};
use hilum_shared::name::{InstanceId, Run, ServiceName};
use hilum_shared::protocol::control::{Reloaded, Targets};

use super::request::starts_by_itself;
use super::stop::Order;
use super::{Supervisor, settings};
use crate::core::action::{Action, Reply};
use crate::core::event::EventKind;
use crate::core::graph::Graph;
use crate::core::input::{ProbePurpose, Reread};
use crate::core::instance::{Instance, Phase, Want};
use crate::core::operation::{Expect, Items};
use crate::core::plan::{Change, Plan, diff, launch_keys, watchdog};
use crate::core::service::Service;
use crate::core::target;
use crate::core::time::Now;

impl Supervisor {
    pub(super) fn reconfigure(
        &mut self,
        reason: Reread,
        new: Arc<Cluster>,
        dry_run: bool,
        now: Now,
    ) {
        let mut plan = diff(&self.cluster, &new);
        self.add_outdated(&mut plan.services, &new);
        let told = self.told(&plan.services, &new);
        let lines = self.describe(&plan, &told, &new);
        let mut reloaded =
            Reloaded { plan: lines.clone(), warnings: new.warnings.clone(), ..Reloaded::default() };
        if !dry_run && self.going.is_none() {
            let mut items = Items::new();
            self.cluster = new.clone();
            self.out.set(settings(&new.node));
            self.reindex();
            for (name, change) in plan.services {
                self.apply(&name, change, &new, &mut items, now);
            }
            self.graph = Graph::of(&self.cluster);
            for (id, _) in told {
                self.ask_to_reload(&id, "the configuration changed");
                items.push((id, "reload", Err("sent")));
            }
            // A mended file is told as well as the broken one was.
            let mended = std::mem::take(&mut self.refused);
            if reason != Reread::Saved || mended || !lines.is_empty() {
                self.out.event_of(None, EventKind::Reloaded(lines));
            }
            // Who needs a scheduled job is known when all services are there.
            for (id, action, expect) in &mut items {
                let is_up = self.instance(id).is_some_and(Instance::is_up);
                if *action == "start" && !is_up && self.waits_for_a_time(&id.service, now, true) {
                    *expect = expect.and(Err("scheduled"));
                }
            }
            // What an earlier change still does is waited for, too.
            for (id, action, expect) in self.operations.open_items(self.reloading) {
                if !items.iter().any(|(other, ..)| *other == id) {
                    items.push((id, action, Ok(expect)));
                }
            }
            let accepted = self.operations.begin(items, Vec::new());
            self.reloading = accepted.operation;
            reloaded.operation = accepted.operation;
            reloaded.changed = accepted.changed;
            self.release_wave(now);
            self.gate_dirty = true;
        }
        if let Reread::Asked(id) = reason {
            self.out.action(Action::Reply { id, reply: Reply::Reloaded(reloaded) });
        }
    }

    /// Services that the file leaves as they are, of which something runs an older definition: a rolling restart stopped
    /// half-way, or one instance was restarted with the file as it was then.
    fn add_outdated(&self, changes: &mut Vec<(ServiceName, Change)>, new: &Cluster) {
        for (name, service) in &self.services {
            let Some(spec) = new.services.get(name) else { continue };
            let behind = service.instances.values().any(|instance| {
                !self.is_rolled(&instance.id) && !instance.outdated(spec).is_empty()
            });
            if behind && !changes.iter().any(|(changed, _)| changed == name) {
                let nothing =
                    Change::Changed { launch: Vec::new(), policy: Vec::new(), count: None };
                changes.push((name.clone(), nothing));
            }
        }
    }

    /// Deadlines depend on settings that may have changed.
    fn reindex(&mut self) {
        self.deadlines.clear();
        let settings = self.out.settings();
        let deadlines: Vec<_> =
            self.instances().filter_map(|i| Some((i.deadline(settings)?, i.id.clone()))).collect();
        self.deadlines.extend(deadlines);
    }

    /// Who reads the changed files by itself when it is told: what has `reload:`, runs, and goes on as it is.
    fn told(
        &self,
        changes: &[(ServiceName, Change)],
        new: &Cluster,
    ) -> Vec<(InstanceId, ReloadVia)> {
        if new.content == self.cluster.content {
            return Vec::new();
        }
        let mut told = Vec::new();
        for (name, service) in &self.services {
            let Some(spec) = new.services.get(name) else { continue };
            let Some(via) = spec.policy.reload else { continue };
            let mut most = service.count;
            match changes.iter().find(|(changed, _)| changed == name) {
                None => {}
                Some((_, Change::Changed { launch, count, .. })) if launch.is_empty() => {
                    most = count.unwrap_or(most);
                }
                Some(_) => continue,
            }
            let stay = service.instances.range(..=most).map(|(_, instance)| instance);
            let up = stay.filter(|instance| {
                instance.started() && !instance.dropping && instance.outdated(spec).is_empty()
            });
            told.extend(up.map(|instance| (instance.id.clone(), via)));
        }
        told
    }

    /// The plan in lines: `+ web.2`, `- web.3`, `~ db.1 env: restart`, `~ web.1 content: told by signal HUP`.
    fn describe(
        &self,
        plan: &Plan,
        told: &[(InstanceId, ReloadVia)],
        new: &Cluster,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, change) in &plan.services {
            let indexes =
                |from: u32, to: u32| (from + 1..=to).map(move |index| format!("{name}.{index}"));
            match change {
                Change::Added => {
                    let count = new.services.get(name).map_or(0, |spec| spec.numprocesses);
                    lines.extend(indexes(0, count).map(|id| format!("+ {id}")));
                }
                Change::Removed => {
                    let ids = self
                        .services
                        .get(name)
                        .into_iter()
                        .flat_map(|service| service.instances.values());
                    lines.extend(ids.map(|instance| format!("- {}", instance.id)));
                }
                Change::Changed { launch, policy, count } => {
                    let present = self.services.get(name).map_or(0, |service| service.count);
                    let after = count.unwrap_or(present);
                    let kept = (1..=present.min(after)).filter_map(|index| {
                        let instance = self.services.get(name)?.instances.get(&index)?;
                        let spec = new.services.get(name)?;
                        let (later, live) = told_at_start(instance, spec, policy);
                        let restart = if launch.is_empty() && self.is_rolled(&instance.id) {
                            Vec::new() // its turn will come without this
                        } else {
                            instance.outdated(spec)
                        };
                        let what = if instance.is_up() && !restart.is_empty() {
                            format!("{}: restart", restart.join(", "))
                        } else if !instance.is_up() && !launch.is_empty() {
                            format!("{}: at its next start", launch.join(", "))
                        } else {
                            let parts = [(later, "at its next start"), (live, "live")];
                            let parts = parts.iter().filter(|(keys, _)| !keys.is_empty());
                            let parts =
                                parts.map(|(keys, when)| format!("{}: {when}", keys.join(", ")));
                            parts.collect::<Vec<_>>().join("; ")
                        };
                        (!what.is_empty()).then(|| format!("~ {} {what}", instance.id))
                    });
                    lines.extend(kept);
                    lines.extend(indexes(present, after).map(|id| format!("+ {id}")));
                    lines.extend(indexes(after, present).map(|id| format!("- {id}")));
                }
            }
        }
        lines.extend(told.iter().map(|(id, via)| format!("~ {id} content: told by {via}")));
        lines.extend(plan.sockets.iter().map(|words| format!("~ sockets: {words}")));
        lines.extend(plan.live.iter().map(|key| format!("~ {key}: live")));
        lines.extend(plan.node.iter().map(|key| format!("~ {key}: at the next start of the node")));
        lines
    }

    fn apply(
        &mut self,
        name: &ServiceName,
        change: Change,
        new: &Arc<Cluster>,
        items: &mut Items,
        now: Now,
    ) {
        match change {
            Change::Added => {
                let Some(spec) = new.services.get(name) else { return };
                let fresh = Service::new(spec.clone(), Want::Down);
                let want =
                    if starts_by_itself(&fresh, &self.options) { Want::Up } else { Want::Down };
                match self.services.get_mut(name) {
                    // It was removed a moment ago and is still on its way out.
                    Some(service) => {
                        service.removed = false;
                        service.spec = spec.clone();
                        service.want = want;
                        self.rescale(name, spec.numprocesses, items, now);
                    }
                    None => {
                        self.add_service(spec.clone(), want, now);
                        let ids = self.services.get(name).map_or(Vec::new(), |service| {
                            service.instances.values().map(|instance| instance.id.clone()).collect()
                        });
                        let expect = self.expect_of_new(name, want, Run(0), now);
                        items.extend(ids.into_iter().map(|id| (id, "start", expect)));
                    }
                }
            }
            Change::Removed => {
                let Some(service) = self.services.get_mut(name) else { return };
                service.removed = true;
                service.want = Want::Down;
                service.fires_at = None;
                let ids: Vec<InstanceId> =
                    service.instances.values().map(|i| i.id.clone()).collect();
                self.rolls.remove(name);
                if ids.is_empty() {
                    self.services.remove(name);
                }
                for id in ids {
                    items.push((id.clone(), "stop", Ok(Expect::Down)));
                    self.drop_later(&id, "removed from the configuration");
                }
            }
            Change::Changed { launch, policy, count } => {
                let Some(spec) = new.services.get(name) else { return };
                let Some(service) = self.services.get_mut(name) else { return };
                let previous = std::mem::replace(&mut service.spec, spec.clone());
                if policy.contains(&"schedule") {
                    service.plan_next(None, now);
                }
                if let Some(count) = count {
                    self.rescale(name, count, items, now);
                }
                if launch.contains(&"ports") {
                    self.reserve_ports(name);
                }
                self.apply_live(name, now);
                self.apply_launch(name, &launch, previous, items, now);
            }
        }
    }

    /// Changed policies apply to what runs. What is to be restarted ends by those that it was started with.
    fn apply_live(&mut self, name: &ServiceName, now: Now) {
        let Some(service) = self.services.get(name) else { return };
        let spec = service.spec.clone();
        let stays = |instance: &&Instance| {
            instance.phase == Phase::Down
                || launch_keys(&instance.spec.launch, &spec.launch).is_empty()
        };
        let ids: Vec<InstanceId> =
            service.instances.values().filter(stays).map(|instance| instance.id.clone()).collect();
        for id in ids {
            self.with(&id, |instance, out| {
                let old = std::mem::replace(&mut instance.spec, spec.clone());
                if old.policy.ready != spec.policy.ready {
                    instance.change_probe(ProbePurpose::Ready, &old, out);
                }
                if old.policy.alive != spec.policy.alive {
                    instance.alive_changed(now.mono);
                    instance.change_probe(ProbePurpose::Alive, &old, out);
                }
            });
        }
    }

    /// Restarts what was started with something else.
    fn apply_launch(
        &mut self,
        name: &ServiceName,
        launch: &[&str],
        previous: Arc<ServiceSpec>,
        items: &mut Items,
        now: Now,
    ) {
        let replaced = if launch.is_empty() { None } else { self.supersede_roll(name, now) };
        let previous = replaced.unwrap_or(previous);
        let Some(service) = self.services.get(name) else { return };
        let spec = service.spec.clone();
        let mut keys: Vec<&str> = Vec::new();
        let (mut restart, mut unsure) = (Vec::new(), Vec::new());
        for instance in service.instances.values() {
            // A finished job is not done again because its text changed.
            let differs = instance.outdated(&spec);
            if differs.is_empty() {
                let tried = !matches!(instance.phase, Phase::Down | Phase::Completed);
                if tried && instance.want == Want::Up && !instance.dropping && !instance.ready() {
                    unsure.push((instance.id.clone(), instance.run));
                }
                continue;
            }
            keys.extend(
                differs.iter().filter(|key| !keys.contains(key)).copied().collect::<Vec<_>>(),
            );
            restart.push((instance.id.clone(), instance.run));
        }
        if restart.is_empty() {
            return;
        }
        items.extend(
            restart.iter().map(|(id, run)| (id.clone(), "restart", Ok(Expect::UpAfter(*run)))),
        );
        // Nothing more is replaced before those hold that have been.
        let rolling = spec.policy.rolling.is_some() && !self.rolls.contains_key(name);
        unsure.retain(|_| rolling);
        items.extend(unsure.iter().map(|(id, run)| {
            (id.clone(), "restart", Ok(Expect::UpAfter(Run(run.0.saturating_sub(1)))))
        }));
        // What is down anyway is replaced first.
        restart.sort_by_key(|(id, _)| self.instance(id).is_some_and(Instance::ready));
        let ids = restart.into_iter().map(|(id, _)| id).collect();
        let why = format!("{} changed", keys.join(", "));
        if rolling {
            let unsure = unsure.into_iter().map(|(id, _)| id).collect();
            self.roll(name, ids, unsure, &why, Some(previous), now);
        } else {
            self.replace(name, ids, &why, Some(previous), now);
        }
    }

    /// The ports of a service are others now.
    pub(super) fn reserve_ports(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get(name) else { return };
        for instance in service.instances.values() {
            self.out.reserve(&instance.id, &service.spec);
        }
    }

    /// Restarts instances: one after another where `rolling` is configured.
    pub(super) fn replace(
        &mut self,
        name: &ServiceName,
        ids: Vec<InstanceId>,
        why: &str,
        previous: Option<Arc<ServiceSpec>>,
        now: Now,
    ) {
        let rolling =
            self.services.get(name).is_some_and(|service| service.spec.policy.rolling.is_some());
        if rolling {
            self.roll(name, ids, Vec::new(), why, previous, now);
            return;
        }
        for id in ids {
            self.end_later(&id, Order::restart(why, None));
        }
        self.release_wave(now);
    }

    /// Takes the launches of the file as it is now for what is about to be restarted.
    pub(super) fn refresh(&mut self, targets: &Targets, fresh: &Arc<Cluster>) {
        let mut cluster = (*self.cluster).clone();
        for (name, service) in &mut self.services {
            let meant = targets.targets.is_empty()
                || targets.targets.iter().any(|pattern| {
                    service
                        .instances
                        .keys()
                        .any(|index| target::matches(pattern, name.as_str(), *index))
                });
            let Some(spec) = fresh.services.get(name).filter(|_| meant) else { continue };
            let keys = launch_keys(&service.spec.launch, &spec.launch);
            if !keys.is_empty() {
                let mut taken = (*service.spec).clone();
                let sockets = std::mem::take(&mut taken.launch.sockets);
                taken.launch = spec.launch.clone();
                taken.launch.sockets = sockets; // others are bound by a reload
                service.spec = Arc::new(taken);
                if keys.contains(&"ports") {
                    for instance in service.instances.values() {
                        self.out.reserve(&instance.id, &service.spec);
                    }
                }
                cluster.services.insert(name.clone(), service.spec.clone());
            }
        }
        self.cluster = Arc::new(cluster);
    }
}

/// Those of the changed policies that a process learns at its start only, and the others.
fn told_at_start(
    instance: &Instance,
    spec: &ServiceSpec,
    policy: &[&'static str],
) -> (Vec<&'static str>, Vec<&'static str>) {
    let told = instance.is_up() && watchdog(&instance.spec.policy) != watchdog(&spec.policy);
    policy.iter().copied().partition(|key| told && *key == "alive")
}

impl Instance {
    /// Exchanges a probe of what runs for the one that is configured now.
    fn change_probe(
        &mut self,
        purpose: ProbePurpose,
        old: &ServiceSpec,
        out: &mut crate::core::output::Output,
    ) {
        if self.phase != Phase::Running {
            return;
        }
        let (instance, run) = (self.id.clone(), self.run);
        if Self::is_probed(old, purpose) {
            out.action(Action::StopProbe { instance: instance.clone(), run, purpose });
        }
        if Self::is_probed(&self.spec, purpose) {
            out.action(Action::StartProbe { instance, run, purpose, spec: self.spec.clone() });
        }
    }
}
