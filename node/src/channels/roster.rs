//! Which runs live, by the token that each was given: what a worker's message is checked against.
//!
//! Written by the runtime, read on the ZeroMQ thread; held only for a look-up.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hilum_shared::name::{InstanceId, Run};

/// Ended runs whose log records are still taken: they may wait in a socket after the process is gone.
const DEPARTED: usize = 1024;

/// Seconds between beats and of silence that are too many, as configured now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rhythm {
    /// Between two beats.
    pub interval: Duration,
    /// Of silence.
    pub timeout: Duration,
}

/// The living runs. Clones share them.
#[derive(Clone, Default)]
pub struct Roster {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    present: HashMap<InstanceId, Present>,
    by_token: HashMap<String, (InstanceId, Run)>,
    departed: VecDeque<String>,
}

struct Present {
    run: Run,
    token: String,
    rhythm: Rhythm,
    beat: Option<Instant>,
    /// What its last beat said.
    metrics: BTreeMap<String, f64>,
}

/// Why a heartbeat is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// No such instance runs.
    Instance,
    /// It runs, but this is another of its lives.
    Run,
    /// The token is not the one that it was given.
    Token,
}

impl Roster {
    /// From now on this run's messages count. Call it before the process is executed.
    pub fn expect(&self, instance: InstanceId, run: Run, token: String, rhythm: Rhythm) {
        let mut inner = self.lock();
        inner.depart(&instance);
        inner.by_token.insert(token.clone(), (instance.clone(), run));
        let metrics = BTreeMap::new();
        inner.present.insert(instance, Present { run, token, rhythm, beat: None, metrics });
    }

    /// The run is over. Its log records are taken for a while longer.
    pub fn forget(&self, instance: &InstanceId, run: Run) {
        let mut inner = self.lock();
        if inner.present.get(instance).is_some_and(|present| present.run == run) {
            inner.depart(instance);
        }
    }

    /// A reload changed how often the instance is to beat; it learns that by the next echo.
    pub fn set_rhythm(&self, instance: &InstanceId, rhythm: Rhythm) {
        if let Some(present) = self.lock().present.get_mut(instance) {
            present.rhythm = rhythm;
        }
    }

    /// Checks a heartbeat and notes its time.
    ///
    /// # Errors
    /// See [`Stranger`].
    pub fn beat(&self, instance: &InstanceId, run: Run, token: &str) -> Result<Rhythm, Stranger> {
        let mut inner = self.lock();
        let present = inner.present.get_mut(instance).ok_or(Stranger::Instance)?;
        if present.run != run {
            return Err(Stranger::Run);
        }
        if !same(&present.token, token) {
            return Err(Stranger::Token);
        }
        present.beat = Some(Instant::now());
        Ok(present.rhythm)
    }

    /// Notes the figures of a beat that was taken.
    pub fn set_metrics(&self, instance: &InstanceId, metrics: BTreeMap<String, f64>) {
        if let Some(present) = self.lock().present.get_mut(instance) {
            present.metrics = metrics;
        }
    }

    /// The figures that the present run told last.
    pub fn metrics(&self, instance: &InstanceId) -> BTreeMap<String, f64> {
        self.lock().present.get(instance).map(|it| it.metrics.clone()).unwrap_or_default()
    }

    /// How long ago the present run was heard.
    pub fn heartbeat_age(&self, instance: &InstanceId) -> Option<Duration> {
        let beat = self.lock().present.get(instance)?.beat?;
        Some(beat.elapsed())
    }

    /// Whose token this is, also of a run that has just ended.
    pub fn owner(&self, token: &str) -> Option<(InstanceId, Run)> {
        self.lock().by_token.get(token).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn depart(&mut self, instance: &InstanceId) {
        let Some(present) = self.present.remove(instance) else {
            return;
        };
        self.departed.push_back(present.token);
        if self.departed.len() > DEPARTED
            && let Some(token) = self.departed.pop_front()
        {
            self.by_token.remove(&token);
        }
    }
}

/// Compares in a time that tells nothing of where the difference is.
fn same(one: &str, other: &str) -> bool {
    one.len() == other.len()
        && one.bytes().zip(other.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const RHYTHM: Rhythm =
        Rhythm { interval: Duration::from_secs(1), timeout: Duration::from_secs(5) };

    fn id(text: &str) -> InstanceId {
        InstanceId::parse(text).unwrap()
    }

    #[test]
    fn only_the_present_run_with_its_token_beats() {
        let roster = Roster::default();
        assert_eq!(roster.beat(&id("a.1"), Run(1), "t1"), Err(Stranger::Instance));
        roster.expect(id("a.1"), Run(1), "t1".into(), RHYTHM);
        assert_eq!(roster.heartbeat_age(&id("a.1")), None);
        assert_eq!(roster.beat(&id("a.1"), Run(2), "t1"), Err(Stranger::Run));
        assert_eq!(roster.beat(&id("a.1"), Run(1), "t2"), Err(Stranger::Token));
        assert_eq!(roster.heartbeat_age(&id("a.1")), None);
        assert_eq!(roster.beat(&id("a.1"), Run(1), "t1"), Ok(RHYTHM));
        assert!(roster.heartbeat_age(&id("a.1")).is_some());
    }

    #[test]
    fn a_late_forget_of_the_run_before_does_not_hurt_the_next() {
        let roster = Roster::default();
        roster.expect(id("a.1"), Run(1), "t1".into(), RHYTHM);
        roster.expect(id("a.1"), Run(2), "t2".into(), RHYTHM);
        roster.forget(&id("a.1"), Run(1));
        assert_eq!(roster.beat(&id("a.1"), Run(2), "t2"), Ok(RHYTHM));
    }

    #[test]
    fn records_of_an_ended_run_are_taken_for_a_while_and_memory_is_bounded() {
        let roster = Roster::default();
        for run in 1..=2000 {
            roster.expect(id("a.1"), Run(run), format!("t{run}"), RHYTHM);
            roster.forget(&id("a.1"), Run(run));
        }
        assert_eq!(roster.beat(&id("a.1"), Run(2000), "t2000"), Err(Stranger::Instance));
        assert_eq!(roster.owner("t2000"), Some((id("a.1"), Run(2000))));
        assert_eq!(roster.owner("t1"), None);
        assert_eq!(roster.lock().by_token.len(), DEPARTED);
    }
}
