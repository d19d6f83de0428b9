//! What is waited for in vain: whoever waits is told so, instead of waiting for ever. The node itself goes on trying.

use std::collections::BTreeMap;

use hilum_shared::config::spec::Dependency;
use hilum_shared::name::{InstanceId, ServiceName};
use hilum_shared::units::format_duration;

use super::Supervisor;
use crate::core::input::FailureClass;
use crate::core::instance::{Instance, Phase, Want};
use crate::core::service::{Service, is_job, meets};

/// So many runs in a row that ended too soon, and the next will hardly fare better.
const TRIES: u32 = 3;

/// One look at who comes in vain; each service is looked at once, however many need it.
pub(super) struct Vain<'a> {
    core: &'a Supervisor,
    needs: BTreeMap<&'a ServiceName, Option<String>>,
}

impl<'a> Vain<'a> {
    /// A look at the cluster as it is now.
    pub(super) fn of(core: &'a Supervisor) -> Self {
        Self { core, needs: BTreeMap::new() }
    }

    /// Why nobody should wait for this instance to come up: it has failed, ended again and again too soon (though it may
    /// be tried just now), finds its port taken, was stopped for another's failure, or needs one that did. `None` of one that is ready or not wanted.
    pub(super) fn why(&mut self, instance: &Instance) -> Option<String> {
        if let Some(failed) = &instance.stopped_for {
            return Some(format!("it was stopped because `{failed}` failed"));
        }
        let replaced =
            self.core.wave.contains_key(&instance.id) || self.core.is_rolled(&instance.id);
        if instance.want == Want::Down || replaced {
            return None;
        }
        let service = self.core.services.get(&instance.id.service)?;
        let exit = || instance.exit.map(|(exit, _)| exit.to_string());
        let last = instance.reason.clone().or_else(exit).unwrap_or_else(|| "it ended".into());
        match instance.phase {
            Phase::Failed => return Some(last),
            Phase::Completed => return None,
            _ if instance.ready() => return None,
            _ => {}
        }
        if instance.missed == Some(FailureClass::Conflict) {
            return Some(last); // whoever has what it needs may keep it
        }
        let crashes = service.crashes_of(instance);
        if crashes >= TRIES {
            if is_job(&instance.spec) {
                return Some(format!("it failed {crashes} times in a row, last: {last}"));
            }
            let policy = &instance.spec.policy;
            let within = format_duration(policy.restart.min_uptime);
            let or = if policy.ready.is_some() { " or before it was ready" } else { "" };
            return Some(format!(
                "it ended too soon {crashes} times in a row, each within {within} of its start{or}, last: {last}"
            ));
        }
        if instance.waits() && !instance.ignore_deps { self.needs(service) } else { None }
    }

    /// What of all that the service's waiting instances need comes in vain.
    fn needs(&mut self, service: &'a Service) -> Option<String> {
        let name = &service.spec.name;
        if !self.needs.contains_key(name) {
            let core = self.core;
            let missing = service.spec.policy.depends_on.iter().find_map(|dependency| {
                let other = core.services.get(&dependency.service)?;
                self.is_hopeless(other, dependency)
                    .then(|| format!("it waits for {}", other.missing(dependency)))
            });
            self.needs.insert(name, missing);
        }
        self.needs.get(name).cloned().flatten()
    }

    /// Whether too many of a service come in vain for what a dependency asks of it.
    fn is_hopeless(&mut self, other: &'a Service, dependency: &Dependency) -> bool {
        let hope = |i: &Instance| meets(i, dependency.condition) || self.why(i).is_none();
        !other.quorum(dependency, hope)
    }
}

impl Service {
    /// An instance's failures in a row; while all of them crash and are tried singly, one stands for all.
    fn crashes_of(&self, instance: &Instance) -> u32 {
        let all = self.members().filter(|_| self.breaker).map(Instance::ends_in_vain).max();
        all.unwrap_or(0).max(instance.ends_in_vain())
    }
}

impl Supervisor {
    /// Answers those who wait for what comes in vain, when that is news of this instance.
    pub(super) fn end_waits_in_vain(&mut self, id: &InstanceId) {
        let waited_for = self.operations.waited_for();
        if waited_for.is_empty() && self.awaiting.is_empty() {
            return;
        }
        let mut vain = Vain::of(self);
        if self.instance(id).is_none_or(|instance| vain.why(instance).is_none()) {
            return;
        }
        let lost = waited_for.into_iter().filter(|id| !self.is_rolled(id)).filter_map(|id| {
            let why = vain.why(self.instance(&id)?)?;
            Some((id, why))
        });
        for (id, why) in lost.collect::<Vec<_>>() {
            self.end_operations(&[id], "failed", &why);
        }
        self.check_awaiting(None); // those that need this one come in vain, too
    }
}
