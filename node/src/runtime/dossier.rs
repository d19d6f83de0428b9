//! What a crash dossier says besides the last lines: everything that is known at the end of a run and not later.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hilum_shared::config::spec::ServiceSpec;
use hilum_shared::name::{InstanceId, Run};
use hilum_shared::protocol::env;
use hilum_shared::secret::{MASK, masked, masked_command};
use hilum_shared::signal::{Exit, Signal};
use hilum_shared::units::Bytes;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};

use super::Runtime;
use crate::core::event::{Event, EventKind};
use crate::core::instance::Instance;
use crate::driver::identity::Account;
use crate::driver::oom::Verdict;
use crate::driver::sys::Usage;
use crate::launch::context::References;
use crate::launch::environment::{EnvVar, OURS, given};
use crate::launch::prepare::Start;

/// What has to be noted at the moment of the crash; the rest is made of it when there is time.
pub(super) struct Dossier {
    instance: InstanceId,
    run: Run,
    event: Event,
    /// How many processes of its control group the kernel has killed for want of memory.
    group_kills: u64,
    usage: Option<Usage>,
    /// The most resident memory that was seen while it ran, of all its processes.
    sampled: Option<Bytes>,
    /// `None` where the instance is not in the plan any more.
    known: Option<Known>,
}

struct Known {
    spec: Arc<ServiceSpec>,
    reason: Option<String>,
    restarts: u32,
    info: Option<String>,
    dependencies: BTreeMap<String, Vec<Value>>,
}

/// All of it, as it is written down.
struct Facts<'a> {
    crash: &'a Dossier,
    oom: Option<Value>,
    environment: Option<Vec<EnvVar<'a>>>,
    /// As it ran.
    command: Vec<String>,
    ports: Option<&'a BTreeMap<String, u16>>,
    config_hash: Option<&'a str>,
}

impl Runtime {
    /// Notes what is known when an instance ends.
    pub(super) fn begin_dossier(&mut self, event: &Event) {
        let (Some(instance), Some(run)) = (event.instance.clone(), event.run) else {
            return;
        };
        let known = self.parts.core.instance(&instance).map(|life| Known {
            spec: Arc::clone(&life.spec),
            reason: life.reason.clone(),
            restarts: life.restarts,
            info: life.info.clone(),
            dependencies: self.dependencies(life),
        });
        let held = self.held.get(&(instance.clone(), run));
        let group = held.and_then(|held| held.leaf.as_ref());
        self.dossiers.push(Dossier {
            group_kills: group.map_or(0, crate::driver::cgroup::Leaf::oom_kills),
            usage: self.parts.processes.usage(&instance, run),
            sampled: self.sampler.peak(&instance, run),
            event: event.clone(),
            instance,
            run,
            known,
        });
    }

    /// Writes down what was begun.
    pub(super) fn write_dossiers(&mut self) {
        for crash in std::mem::take(&mut self.dossiers) {
            let nobody = Account { identity: None, variables: Vec::new() };
            let oom = self.want_of_memory(&crash);
            let known = crash.known.as_ref();
            if let Some(known) = known {
                self.remember_hash(&known.spec);
            }
            let facts = Facts {
                oom,
                environment: known.and_then(|known| {
                    // What it inherited is the node's own: it says little of the crash and may say much of its user.
                    let start = Start {
                        context: &self.context,
                        spec: &known.spec,
                        instance: &crash.instance,
                        run: crash.run,
                        token: "",
                    };
                    given(start, &nobody).ok()
                }),
                command: known.map_or(Vec::new(), |known| {
                    let values =
                        References { instance: &crash.instance, ports: &self.context.ports };
                    let words = known.spec.launch.command.iter();
                    // A port that is gone by now stays a reference.
                    words
                        .map(|word| word.expand(&values).unwrap_or_else(|_| word.to_string()))
                        .collect()
                }),
                ports: self.context.ports.get(&crash.instance),
                config_hash: known
                    .and_then(|known| self.hashes.get(&known.spec.name))
                    .map(|(_, hash)| hash.as_str()),
                crash: &crash,
            };
            let facts = serde_json::to_string(&facts).unwrap_or_default(); // texts and numbers only
            self.parts.log.crash(crash.instance, crash.run, facts);
        }
    }

    /// Who says that the kernel ended it for want of memory, where somebody does.
    fn want_of_memory(&mut self, crash: &Dossier) -> Option<Value> {
        let kills = crash.group_kills;
        if kills > 0 {
            return Some(json!({"by": "cgroup", "kills": kills}));
        }
        // A KILL that we sent says nothing of the kernel.
        let unexplained = matches!(
            &crash.event.kind,
            EventKind::Exited { exit: Exit::Signal { signal: Signal::KILL, .. }, cause: None, .. }
        );
        if !unexplained {
            return None;
        }
        Some(match self.oom.look(crash.event.pid?)? {
            Verdict::Named => json!({"by": "kernel"}),
            Verdict::Likely { kills } => json!({"by": "machine", "kills": kills}),
        })
    }

    /// The states of what it depends on, by service.
    fn dependencies(&self, instance: &Instance) -> BTreeMap<String, Vec<Value>> {
        let all = instance.spec.policy.depends_on.iter().map(|dependency| {
            let others = self.parts.core.instances();
            let states = others
                .filter(|other| other.id.service == dependency.service)
                .map(|other| {
                    json!({"instance": other.id, "state": other.state(), "ready": other.ready()})
                })
                .collect();
            (dependency.service.to_string(), states)
        });
        all.collect()
    }

    fn remember_hash(&mut self, spec: &Arc<ServiceSpec>) {
        let known = self.hashes.get(&spec.name);
        if !known.is_some_and(|(of, _)| Arc::ptr_eq(of, spec)) {
            let hash = super::config::hash(spec);
            self.hashes.insert(spec.name.clone(), (Arc::clone(spec), hash));
        }
    }
}

impl Dossier {
    /// `limits.cpu` in seconds, where that is what killed it: by XCPU, or by KILL when the run's CPU time had come to it. The
    /// kernel counts its clock's ticks for the limit and nanoseconds for what is told, and on a busy virtual machine these
    /// differ, so four fifths of it count, too.
    fn cpu_limit(&self) -> Option<u64> {
        let limit = self.known.as_ref()?.spec.launch.limits.cpu?;
        let signal = match &self.event.kind {
            EventKind::Exited { exit: Exit::Signal { signal, .. }, cause: None, .. } => *signal,
            _ => return None,
        };
        let used_up =
            || self.usage.is_some_and(|usage| usage.cpu * 5 >= Duration::from_secs(limit) * 4);
        (signal == Signal::XCPU || signal == Signal::KILL && used_up()).then_some(limit)
    }
}

/// Variables as an object, what is secret masked.
struct Masked<'a>(&'a [EnvVar<'a>]);

impl Serialize for Masked<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|one| {
            let (name, value) = (one.name.to_string_lossy(), one.value.to_string_lossy());
            let value = match name.as_ref() {
                env::TOKEN | env::CLUSTER => Cow::Borrowed(MASK),
                _ if one.origin == OURS => value,
                name => masked(name, &value).into(),
            };
            (name, value)
        }))
    }
}

impl Serialize for Facts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.crash.event.facts(&mut map)?;
        if let Some(oom) = &self.oom {
            map.serialize_entry("oom", oom)?;
        }
        let Some(known) = &self.crash.known else {
            return map.end();
        };
        if let Some(limit) = self.crash.cpu_limit() {
            map.serialize_entry("cpu_limit_seconds", &limit)?;
        }
        map.serialize_entry("reason", &known.reason)?;
        map.serialize_entry("restarts", &known.restarts)?;
        map.serialize_entry("info", &known.info)?;
        map.serialize_entry("command", &masked_command(&self.command))?;
        map.serialize_entry("dependencies", &known.dependencies)?;
        map.serialize_entry("environment", &self.environment.as_deref().map(Masked))?;
        map.serialize_entry("ports", &self.ports)?;
        if let Some(usage) = self.crash.usage {
            map.serialize_entry("cpu_seconds", &usage.cpu.as_secs_f64())?;
            let sampled = self.crash.sampled;
            map.serialize_entry(
                "peak_rss_bytes",
                &usage.peak_rss.and(usage.peak_rss.max(sampled)),
            )?;
            if usage.peak_rss.is_none() {
                // What was seen now and then is no peak.
                map.serialize_entry("peak_rss_at_least_bytes", &sampled)?;
                map.serialize_entry("peak_rss_below_bytes", &usage.peak_below)?;
            }
        }
        map.serialize_entry("config_hash", &self.config_hash)?;
        map.end()
    }
}
