//! One declared service at run time: its spec in force, its count, its instances.

use std::collections::BTreeMap;
use std::sync::Arc;

use hilum_shared::config::spec::{Condition, Dependency, Kind, Quorum, ServiceSpec};

use super::instance::{Instance, Phase, Want};
use super::time::Moment;

/// One service.
#[derive(Clone, Debug)]
pub struct Service {
    /// As configured now.
    pub spec: Arc<ServiceSpec>,
    /// How many processes are wanted now.
    pub count: u32,
    /// The file has it no more; it goes when it is down.
    pub removed: bool,
    /// What new instances want.
    pub want: Want,
    /// By index. Those above `count` are on their way out, or stand in during a rolling restart.
    pub instances: BTreeMap<u32, Instance>,
    /// No start before this (`start_stagger`).
    pub not_before: Option<Moment>,
    /// When the schedule fires next.
    pub fires_at: Option<Moment>,
    /// The same by the wall clock, of a schedule that goes by it.
    pub fires_for: Option<f64>,
    /// A scheduled job may start: its time has come, or it is tried again, or was asked for.
    pub due: bool,
    /// All of it crash: they are tried one at a time.
    pub breaker: bool,
    /// The schedule fired while the job ran (`overlap: queue`).
    pub queued: bool,
    /// How far the command of `watch.action` is.
    pub watch: WatchRun,
}

/// The command of `watch.action`: one at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchRun {
    /// It does not run.
    #[default]
    Idle,
    /// It runs.
    Running,
    /// It runs and does not know of the last change: it is run once more.
    Again,
}

impl Service {
    /// Declared, without instances.
    pub fn new(spec: Arc<ServiceSpec>, want: Want) -> Self {
        Self {
            count: spec.numprocesses,
            spec,
            removed: false,
            want,
            instances: BTreeMap::new(),
            not_before: None,
            fires_at: None,
            fires_for: None,
            due: false,
            breaker: false,
            queued: false,
            watch: WatchRun::default(),
        }
    }

    /// The instances that count: indexes up to the wanted number.
    pub fn members(&self) -> impl Iterator<Item = &Instance> {
        self.instances.range(..=self.count).map(|(_, instance)| instance)
    }

    /// Whether any instance is on its way out.
    pub fn is_ending(&self) -> bool {
        self.instances
            .values()
            .any(|i| matches!(i.phase, Phase::Stopping(_) | Phase::Killing(_) | Phase::Closing(_)))
    }

    /// Whether any instance is up.
    pub fn is_up(&self) -> bool {
        self.instances.values().any(Instance::is_up)
    }

    /// Whether what `dependency` waits for of this service holds.
    pub fn satisfies(&self, dependency: &Dependency) -> bool {
        self.quorum(dependency, |instance| meets(instance, dependency.condition))
    }

    /// Whether `so` holds of as many instances as `dependency` asks for.
    pub fn quorum(&self, dependency: &Dependency, so: impl FnMut(&Instance) -> bool) -> bool {
        let mut so = so;
        let met = self.members().filter(|instance| so(instance)).count() as u64;
        let all = u64::from(self.count);
        let need = match dependency.quorum {
            Quorum::All => all,
            Quorum::Any => 1,
            Quorum::Count(count) => u64::from(count).min(all),
            Quorum::Percent(percent) => (all * u64::from(percent)).div_ceil(100),
        };
        met >= need
    }

    /// What is still missing for `dependency`, for people: `db.1 to be ready`.
    pub fn missing(&self, dependency: &Dependency) -> String {
        let word = match dependency.condition {
            Condition::Started => "started",
            Condition::Ready => "ready",
            Condition::Completed => "completed",
        };
        let not: Vec<&Instance> =
            self.members().filter(|instance| !meets(instance, dependency.condition)).collect();
        match not.as_slice() {
            [] => format!("`{}`, which has no instances", self.spec.name),
            [one] if one.phase == Phase::Failed => {
                format!(
                    "{} to be {word} (it has failed: nothing happens until somebody starts it)",
                    one.id
                )
            }
            [one] => format!("{} to be {word} (it is {})", one.id, being(one)),
            [first, rest @ ..] => {
                format!(
                    "{} and {} more to be {word} (it is {})",
                    first.id,
                    rest.len(),
                    being(first)
                )
            }
        }
    }
}

/// Its state after "it is".
fn being(instance: &Instance) -> &'static str {
    if matches!(instance.phase, Phase::Backoff { .. }) {
        "in backoff"
    } else {
        instance.state_word()
    }
}

/// Whether an instance is where a dependency wants it.
pub fn meets(instance: &Instance, condition: Condition) -> bool {
    let completed = instance.phase == Phase::Completed;
    match condition {
        Condition::Started => instance.started() || completed,
        Condition::Ready => instance.ready() || completed,
        Condition::Completed => completed,
    }
}

/// Whether it is a job.
pub fn is_job(spec: &ServiceSpec) -> bool {
    spec.policy.kind == Kind::Job
}
