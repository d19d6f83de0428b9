//! What a crash dossier says besides the last lines: everything that is known at the end of a run and not later.

use std::sync::Arc;

use hilum_shared::config::spec::ServiceSpec;
use hilum_shared::name::{InstanceId, Run};
use hilum_shared::protocol::env;
use hilum_shared::secret::{MASK, masked};
use hilum_shared::signal::{Exit, Signal};
use serde_json::{Map, Value, json};

use super::Runtime;
use crate::core::event::{Event, EventKind};
use crate::core::instance::Instance;
use crate::driver::identity::Account;
use crate::driver::oom::Verdict;
use crate::launch::environment::{INHERITED, environment};

impl Runtime {
    /// What was known when an instance ended.
    pub(super) fn dossier(&mut self, event: &Event) -> Map<String, Value> {
        let mut facts = event.to_json();
        facts.remove("seq");
        let (Some(id), Some(run)) = (&event.instance, event.run) else {
            return facts;
        };
        if let Some(oom) = self.want_of_memory(event, id, run) {
            facts.insert("oom".into(), oom);
        }
        let Some(instance) = self.parts.core.instance(id) else {
            return facts;
        };
        let spec = Arc::clone(&instance.spec);
        facts.insert("reason".into(), json!(instance.reason));
        facts.insert("restarts".into(), json!(instance.restarts));
        facts.insert("info".into(), json!(instance.info));
        facts.insert("command".into(), json!(spec.launch.command));
        facts.insert("dependencies".into(), self.dependencies(instance));
        facts.insert("environment".into(), self.environment(&spec, id, run));
        facts.insert("ports".into(), json!(self.context.ports.get(id)));
        if let Some(usage) = self.parts.processes.usage(id, run) {
            facts.insert("cpu_seconds".into(), json!(usage.cpu.as_secs_f64()));
            facts.insert("peak_rss_bytes".into(), json!(usage.peak_rss));
        }
        facts.insert("config_hash".into(), json!(self.config_hash(spec)));
        facts
    }

    /// Who says that the kernel ended it for want of memory, where somebody does.
    fn want_of_memory(&mut self, event: &Event, id: &InstanceId, run: Run) -> Option<Value> {
        let group = self.held.get(&(id.clone(), run)).and_then(|held| held.leaf.as_ref());
        let kills = group.map_or(0, crate::driver::cgroup::Leaf::oom_kills);
        if kills > 0 {
            return Some(json!({"by": "cgroup", "kills": kills}));
        }
        // A KILL that we sent says nothing of the kernel.
        let unexplained = matches!(
            &event.kind,
            EventKind::Exited { exit: Exit::Signal { signal: Signal::KILL, .. }, cause: None, .. }
        );
        if !unexplained {
            return None;
        }
        Some(match self.oom.look(event.pid?)? {
            Verdict::Named => json!({"by": "kernel"}),
            Verdict::Likely { kills } => json!({"by": "machine", "kills": kills}),
        })
    }

    /// The states of what it depends on, by service.
    fn dependencies(&self, instance: &Instance) -> Value {
        let all = instance.spec.policy.depends_on.iter().map(|dependency| {
            let others = self.parts.core.instances();
            let states: Vec<Value> = others
                .filter(|other| other.id.service == dependency.service)
                .map(|other| {
                    json!({"instance": other.id, "state": other.state(), "ready": other.ready()})
                })
                .collect();
            (dependency.service.to_string(), Value::Array(states))
        });
        Value::Object(all.collect())
    }

    /// What the configuration and the node gave it, secrets masked. What it inherited is the node's own and is left out:
    /// it says little of the crash and may say much of its user.
    fn environment(&self, spec: &ServiceSpec, id: &InstanceId, run: Run) -> Value {
        let nobody = Account { identity: None, variables: Vec::new() };
        let Ok(all) = environment(&self.context, spec, &nobody, id, run, "") else {
            return Value::Null;
        };
        let given = all.iter().filter(|one| one.origin != INHERITED).map(|one| {
            let (name, value) = (one.name.to_string_lossy(), one.value.to_string_lossy());
            let value = match name.as_ref() {
                env::TOKEN | env::CLUSTER => MASK.to_owned(),
                name => masked(name, &value),
            };
            (name.into_owned(), Value::String(value))
        });
        Value::Object(given.collect())
    }

    fn config_hash(&mut self, spec: Arc<ServiceSpec>) -> &str {
        let known = self.hashes.entry(spec.name.clone());
        let (of, hash) = known.or_insert_with(|| (Arc::clone(&spec), super::config::hash(&spec)));
        if !Arc::ptr_eq(of, &spec) {
            *hash = super::config::hash(&spec);
            *of = spec;
        }
        hash
    }
}
