//! What a process counts of the calls that come: how many, what became of them, and how long they were worked on, by subject.
//!
//! The subjects are those that the process has, so that a call costs two looks at the clock and a few atomic additions, and a stranger
//! who makes up names fills no memory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use hilum_shared::rpc::TurnedAway;

use crate::metrics::{Kind, Metric, Series, Tags, Value};

/// The subject of all calls of what the process does not have.
const UNKNOWN: &str = "unknown";

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has its result.
    Ok,
    /// It was told an error with a name.
    Error,
    /// The method failed, panicked, refused, or left it without an answer.
    Nack,
    /// Wrong arguments, or nothing of that name.
    Refused,
    /// There were too many.
    Overloaded,
    /// The caller stopped waiting.
    Cancelled,
}

impl Outcome {
    /// By its number.
    const NAMES: [&'static str; 6] = ["ok", "error", "nack", "refused", "overloaded", "cancelled"];
}

/// The figures of one subject.
#[derive(Debug, Default)]
pub(super) struct Subject {
    came: AtomicU64,
    outcomes: [AtomicU64; Outcome::NAMES.len()],
    microseconds: AtomicU64,
}

impl Subject {
    fn ended(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// The figures of all subjects of a process. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Served {
    subjects: Arc<BTreeMap<String, Arc<Subject>>>,
}

impl Served {
    pub(super) fn new(subjects: impl Iterator<Item = String>) -> Self {
        let subjects = subjects.chain(std::iter::once(UNKNOWN.to_owned()));
        let subjects = subjects.map(|name| (name, Arc::default())).collect();
        Self { subjects: Arc::new(subjects) }
    }

    /// The figures of a subject; those of the unknown where the process does not have it.
    pub(super) fn of(&self, subject: &str) -> &Arc<Subject> {
        self.subjects.get(subject).unwrap_or_else(|| &self.subjects[UNKNOWN])
    }

    /// A request came to no method.
    pub(super) fn turned_away(&self, subject: &str, why: TurnedAway) {
        let (figures, outcome) = match why {
            // The subject may exist in another version.
            TurnedAway::Unknown => (self.of(UNKNOWN), Outcome::Refused),
            TurnedAway::Overloaded => (self.of(subject), Outcome::Overloaded),
        };
        figures.came.fetch_add(1, Ordering::Relaxed);
        figures.ended(outcome);
    }
}

impl Metric for Served {
    fn collect(&self, into: &mut Vec<Series>) {
        let called = || {
            let all = self.subjects.iter();
            all.map(|(name, figures)| (name, figures, figures.came.load(Ordering::Relaxed)))
                .filter(|(_, _, came)| *came > 0)
        };
        let tags = |name: &str| Tags::none().with("subject", Some(name.to_owned()));
        let mut tell = |name: &'static str, help: &'static str, value: Value, tags: Tags| {
            let (name, help) = (Cow::Borrowed(name), Cow::Borrowed(help));
            into.push(Series { name, value, tags, kind: Kind::Counter, help });
        };
        for (name, _, came) in called() {
            tell("rpc", "Calls that came.", came.into(), tags(name));
        }
        for (name, figures, _) in called() {
            for (outcome, count) in Outcome::NAMES.iter().zip(&figures.outcomes) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let tags = tags(name).with("outcome", Some((*outcome).to_owned()));
                    tell("rpc.answers", "Calls by what became of them.", count.into(), tags);
                }
            }
        }
        for (name, figures, _) in called().filter(|(name, ..)| *name != UNKNOWN) {
            let seconds = figures.microseconds.load(Ordering::Relaxed) as f64 / 1e6;
            let help = "Seconds from a call's start to its answer, of all calls together.";
            tell("rpc.seconds", help, seconds.into(), tags(name));
        }
    }
}

/// A call that is being worked on. The first word of what became of it counts; without one it was refused.
#[derive(Debug)]
pub(crate) struct Open {
    subject: Arc<Subject>,
    begun: Instant,
    is_told: AtomicBool,
}

impl Open {
    pub(super) fn begin(subject: &Arc<Subject>) -> Arc<Self> {
        subject.came.fetch_add(1, Ordering::Relaxed);
        let subject = Arc::clone(subject);
        Arc::new(Self { subject, begun: Instant::now(), is_told: AtomicBool::new(false) })
    }

    pub(crate) fn told(&self, outcome: Outcome) {
        if !self.is_told.swap(true, Ordering::Relaxed) {
            self.subject.ended(outcome);
            let took = self.begun.elapsed().as_micros() as u64;
            self.subject.microseconds.fetch_add(took, Ordering::Relaxed);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.told(Outcome::Nack);
    }
}

/// Dropped before its time, it says that the caller has stopped waiting.
pub(super) struct Unfinished(Option<Arc<Open>>);

impl Unfinished {
    pub(super) fn new(open: &Arc<Open>) -> Self {
        Self(Some(Arc::clone(open)))
    }

    pub(super) fn finished(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(open) = &self.0 {
            open.told(Outcome::Cancelled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(served: &Served) -> Vec<String> {
        let mut all = Vec::new();
        served.collect(&mut all);
        let seconds = all.iter().filter(|one| one.name == "rpc.seconds");
        assert!(seconds.clone().all(|one| one.value.as_f64() >= 0.0));
        let counts = all.iter().filter(|one| one.name != "rpc.seconds");
        counts.map(|one| serde_json::to_string(one).unwrap()).collect()
    }

    #[test]
    fn a_call_ends_once_and_made_up_names_are_one() {
        let served = Served::new(["a.x", "a.y"].map(str::to_owned).into_iter());
        let open = Open::begin(served.of("a.x"));
        let rest = Unfinished::new(&open);
        open.told(Outcome::Ok);
        open.told(Outcome::Error);
        rest.finished();
        drop(open);
        drop(Open::begin(served.of("a.x")));
        drop(Unfinished::new(&Open::begin(served.of("a.x"))));
        served.turned_away("a.x", TurnedAway::Overloaded);
        for n in 0..100 {
            served.turned_away(&format!("made.up{n}"), TurnedAway::Unknown);
        }
        assert_eq!(
            told(&served),
            [
                r#"["rpc",4,{"subject":"a.x"}]"#,
                r#"["rpc",100,{"subject":"unknown"}]"#,
                r#"["rpc.answers",1,{"subject":"a.x","outcome":"ok"}]"#,
                r#"["rpc.answers",1,{"subject":"a.x","outcome":"nack"}]"#,
                r#"["rpc.answers",1,{"subject":"a.x","outcome":"overloaded"}]"#,
                r#"["rpc.answers",1,{"subject":"a.x","outcome":"cancelled"}]"#,
                r#"["rpc.answers",100,{"subject":"unknown","outcome":"refused"}]"#,
            ]
        );
    }
}
