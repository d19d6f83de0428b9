//! What a new configuration changes: nothing but the difference.

use std::sync::Arc;

use hilum_shared::config::spec::{Cluster, ReloadVia};
use hilum_shared::name::{InstanceId, Run, ServiceName};
use hilum_shared::protocol::control::{Reloaded, Targets};

use super::request::starts_by_itself;
use super::stop::Order;
use super::{Supervisor, settings};
use crate::core::action::{Action, Reply};
use crate::core::event::EventKind;
use crate::core::graph::Graph;
use crate::core::input::{ProbePurpose, RequestId};
use crate::core::instance::{Instance, Phase, Want};
use crate::core::operation::Expect;
use crate::core::plan::{Change, diff, launch_keys};
use crate::core::service::Service;
use crate::core::target;
use crate::core::time::Now;

type Items = Vec<(InstanceId, &'static str, Result<Expect, &'static str>)>;

impl Supervisor {
    pub(super) fn reconfigure(
        &mut self,
        request: Option<RequestId>,
        new: Arc<Cluster>,
        dry_run: bool,
        now: Now,
    ) {
        let plan = diff(&self.cluster, &new);
        let told = self.told(&plan.services, &new);
        let lines = self.describe(&plan.services, &told, &new, &plan.node);
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
            if request.is_some() || !lines.is_empty() {
                self.out.event_of(None, EventKind::Reloaded(lines));
            }
            let accepted = self.operations.begin(items, Vec::new());
            reloaded.operation = accepted.operation;
            reloaded.changed = accepted.changed;
            self.release_wave(now);
            self.gate_dirty = true;
        }
        if let Some(id) = request {
            self.out.action(Action::Reply { id, reply: Reply::Reloaded(reloaded) });
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
            let up = stay.filter(|instance| instance.started() && !instance.dropping);
            told.extend(up.map(|instance| (instance.id.clone(), via)));
        }
        told
    }

    /// The plan in lines: `+ web.2`, `- web.3`, `~ db.1 env: restart`, `~ web.1 content: told by signal HUP`.
    fn describe(
        &self,
        changes: &[(ServiceName, Change)],
        told: &[(InstanceId, ReloadVia)],
        new: &Cluster,
        node: &[&str],
    ) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, change) in changes {
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
                        let what = if launch.is_empty() {
                            format!("{}: live", policy.join(", "))
                        } else if instance.is_up() {
                            format!("{}: restart", launch.join(", "))
                        } else {
                            format!("{}: at its next start", launch.join(", "))
                        };
                        (!launch.is_empty() || !policy.is_empty())
                            .then(|| format!("~ {} {what}", instance.id))
                    });
                    lines.extend(kept);
                    lines.extend(indexes(present, after).map(|id| format!("+ {id}")));
                    lines.extend(indexes(after, present).map(|id| format!("- {id}")));
                }
            }
        }
        lines.extend(told.iter().map(|(id, via)| format!("~ {id} content: told by {via}")));
        lines.extend(node.iter().map(|key| format!("~ {key}: at the next start of the node")));
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
                        let expect = if want == Want::Up {
                            Ok(Expect::UpAfter(Run(0)))
                        } else {
                            Err("stopped")
                        };
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
                    service.fires_at = Self::next_fire(service, None, now);
                }
                if let Some(count) = count {
                    self.rescale(name, count, items, now);
                }
                if launch.is_empty() {
                    self.apply_live(name, &policy);
                } else {
                    self.apply_launch(name, &launch, previous, items, now);
                }
            }
        }
    }

    /// Changed policies apply to what runs.
    fn apply_live(&mut self, name: &ServiceName, keys: &[&str]) {
        let Some(service) = self.services.get(name) else { return };
        let spec = service.spec.clone();
        let ids: Vec<InstanceId> =
            service.instances.values().map(|instance| instance.id.clone()).collect();
        let probes = [(ProbePurpose::Ready, "ready"), (ProbePurpose::Alive, "alive")];
        for id in ids {
            self.with(&id, |instance, out| {
                let old = std::mem::replace(&mut instance.spec, spec.clone());
                for (purpose, key) in probes {
                    if keys.contains(&key) {
                        instance.change_probe(purpose, &old, out);
                    }
                }
            });
        }
    }

    fn apply_launch(
        &mut self,
        name: &ServiceName,
        keys: &[&str],
        previous: Arc<hilum_shared::config::spec::ServiceSpec>,
        items: &mut Items,
        now: Now,
    ) {
        let Some(service) = self.services.get(name) else { return };
        let mut restart = Vec::new();
        for instance in service.instances.values().filter(|i| i.want == Want::Up && !i.dropping) {
            match instance.phase {
                // A finished job is not done again because its text changed.
                Phase::Completed | Phase::Down => {}
                _ => restart.push((instance.id.clone(), instance.run)),
            }
        }
        items.extend(
            restart.iter().map(|(id, run)| (id.clone(), "restart", Ok(Expect::UpAfter(*run)))),
        );
        let ids = restart.into_iter().map(|(id, _)| id).collect();
        self.replace(name, ids, &format!("{} changed", keys.join(", ")), Some(previous), now);
    }

    /// Restarts instances: one after another where `rolling` is configured.
    pub(super) fn replace(
        &mut self,
        name: &ServiceName,
        ids: Vec<InstanceId>,
        why: &str,
        previous: Option<Arc<hilum_shared::config::spec::ServiceSpec>>,
        now: Now,
    ) {
        let rolling =
            self.services.get(name).is_some_and(|service| service.spec.policy.rolling.is_some());
        if rolling {
            self.roll(name, ids, why, previous, now);
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
            if !launch_keys(&service.spec.launch, &spec.launch).is_empty() {
                let mut taken = (*service.spec).clone();
                let sockets = std::mem::take(&mut taken.launch.sockets);
                taken.launch = spec.launch.clone();
                taken.launch.sockets = sockets;
                service.spec = Arc::new(taken);
                cluster.services.insert(name.clone(), service.spec.clone());
            }
        }
        self.cluster = Arc::new(cluster);
    }
}

impl Instance {
    /// Exchanges a probe of what runs for the one that is configured now.
    fn change_probe(
        &mut self,
        purpose: ProbePurpose,
        old: &hilum_shared::config::spec::ServiceSpec,
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
