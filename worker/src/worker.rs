//! The handle by which a service speaks of itself: readiness, business, status, metrics; and hears that it is to go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hilum_shared::protocol::WorkerState;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::contract::Contract;

/// The longest status text, in bytes: the node keeps no more.
const MAX_STATUS: usize = 1024;
/// Metrics of one worker; with their names they must fit a heartbeat of 64 KiB.
const MAX_METRICS: usize = 256;
/// The longest name of a metric, in bytes.
const MAX_METRIC_NAME: usize = 128;

/// Why a worker is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The node said so on its shutdown channel.
    Order,
    /// SIGTERM or SIGINT.
    Signal,
    /// The node has gone without a word.
    NodeGone,
    /// With `--reload`: another program is to take this one's place.
    NewProgram,
}

/// The order to finish what is at hand and leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Who wants it.
    pub cause: Cause,
    /// Why, for people.
    pub reason: String,
    /// How much time was given.
    pub grace: Duration,
    /// When [`crate::run()`] returns, whatever is unfinished: a little before the grace is over, so that the log is flushed
    /// before KILL comes.
    pub deadline: Instant,
}

impl Drain {
    /// An order that came now. The last tenth of the grace, at most half a second, is kept for the flush.
    pub(crate) fn now(cause: Cause, reason: String, grace: Duration) -> Self {
        let kept = (grace / 10).min(Duration::from_millis(500));
        Self { cause, reason, grace, deadline: Instant::now() + grace.saturating_sub(kept) }
    }

    /// The time that is left; zero when it is over.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// The service's side of its heartbeats and orders. Clones are the same worker.
#[derive(Clone, Debug)]
pub struct Worker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    contract: Contract,
    face: Mutex<Face>,
    changed: Notify,
    drain: watch::Sender<Option<Drain>>,
    reload: Notify,
}

#[derive(Debug, Default)]
struct Face {
    ready: bool,
    busy: usize,
    status: Option<String>,
    metrics: BTreeMap<String, f64>,
}

/// While it lives the worker is busy.
#[derive(Debug)]
#[must_use = "the worker is busy only while this lives"]
pub struct Busy {
    worker: Worker,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut face = self.worker.face();
        face.busy -= 1;
        let last = face.busy == 0;
        drop(face);
        if last {
            self.worker.inner.changed.notify_one();
        }
    }
}

impl Worker {
    pub(crate) fn new(contract: Contract) -> Self {
        Self {
            inner: Arc::new(Inner {
                contract,
                face: Mutex::default(),
                changed: Notify::new(),
                drain: watch::Sender::new(None),
                reload: Notify::new(),
            }),
        }
    }

    /// What the node said in the environment.
    pub fn contract(&self) -> &Contract {
        &self.inner.contract
    }

    /// Says that the service can be used. Before that it is `starting`; saying it again does nothing.
    pub fn ready(&self) {
        let was = std::mem::replace(&mut self.face().ready, true);
        if !was {
            self.inner.changed.notify_one();
        }
    }

    /// Says that the worker takes no more work until the guard is dropped. Guards may overlap.
    pub fn busy(&self) -> Busy {
        let mut face = self.face();
        face.busy += 1;
        let first = face.busy == 1;
        drop(face);
        if first {
            self.inner.changed.notify_one();
        }
        Busy { worker: self.clone() }
    }

    /// Sets the line for people that `ps` shows, from the next heartbeat on; what exceeds 1024 bytes is cut off, an
    /// empty one takes it away.
    pub fn set_status(&self, status: impl Into<String>) {
        let mut status = status.into();
        status.truncate(status.floor_char_boundary(MAX_STATUS));
        self.face().status = (!status.is_empty()).then_some(status);
    }

    /// Sets a figure that goes with the next heartbeat. A worker has at most 256, their names at most 128 bytes:
    /// `false` when that would be exceeded or the value is not finite, and nothing is set.
    pub fn set_metric(&self, name: &str, value: f64) -> bool {
        if !value.is_finite() || name.len() > MAX_METRIC_NAME {
            return false;
        }
        let mut face = self.face();
        if let Some(there) = face.metrics.get_mut(name) {
            *there = value;
        } else if face.metrics.len() < MAX_METRICS {
            face.metrics.insert(name.to_owned(), value);
        } else {
            return false;
        }
        true
    }

    /// Takes a figure away.
    pub fn remove_metric(&self, name: &str) {
        self.face().metrics.remove(name);
    }

    /// What the worker says of itself now.
    pub fn state(&self) -> WorkerState {
        if self.drain().is_some() {
            return WorkerState::Draining;
        }
        let face = self.face();
        match (face.ready, face.busy) {
            (false, _) => WorkerState::Starting,
            (true, 0) => WorkerState::Ready,
            (true, _) => WorkerState::Busy,
        }
    }

    /// The order to leave, as it stands now, when it has come.
    pub fn drain(&self) -> Option<Drain> {
        self.inner.drain.borrow().clone()
    }

    /// Waits for the order to leave; at once when it has come already. Any number of tasks may wait.
    pub async fn draining(&self) -> Drain {
        let mut drain = self.inner.drain.subscribe();
        loop {
            if let Some(drain) = drain.borrow_and_update().clone() {
                return drain;
            }
            if drain.changed().await.is_err() {
                // The sender lives in this very worker.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for the next order to read the configuration again. For one task; orders that came while nobody waited
    /// count as one, and none is lost.
    pub async fn reload(&self) {
        self.inner.reload.notified().await;
    }

    /// Takes an order to leave; a later one changes the time that is left. Whether it is the first.
    pub(crate) fn begin_drain(&self, drain: Drain) -> bool {
        let before = self.inner.drain.send_replace(Some(drain));
        self.inner.changed.notify_one();
        before.is_none()
    }

    pub(crate) fn ask_reload(&self) {
        self.inner.reload.notify_one();
    }

    /// Waits until the state may have changed.
    pub(crate) async fn changed(&self) {
        self.inner.changed.notified().await;
    }

    pub(crate) fn status_and_metrics(&self) -> (Option<String>, BTreeMap<String, f64>) {
        let face = self.face();
        (face.status.clone(), face.metrics.clone())
    }

    fn face(&self) -> MutexGuard<'_, Face> {
        self.inner.face.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_follow_what_the_service_says() {
        let worker = Worker::new(Contract::none());
        let early = worker.busy();
        assert_eq!(worker.state(), WorkerState::Starting);
        worker.ready();
        assert_eq!(worker.state(), WorkerState::Busy);
        let second = worker.busy();
        drop(early);
        assert_eq!(worker.state(), WorkerState::Busy);
        drop(second);
        assert_eq!(worker.state(), WorkerState::Ready);
    }

    #[tokio::test]
    async fn a_later_order_changes_the_time_that_is_left() {
        let worker = Worker::new(Contract::none());
        assert_eq!(worker.drain(), None);
        let second = Duration::from_secs(1);
        assert!(worker.begin_drain(Drain::now(Cause::Signal, "TERM".into(), second)));
        assert!(!worker.begin_drain(Drain::now(Cause::Order, "down".into(), 60 * second)));
        let drain = worker.draining().await;
        assert_eq!((drain.cause, drain.grace), (Cause::Order, 60 * second));
        assert!(drain.left() > 58 * second && drain.left() < 60 * second);
        assert_eq!(worker.state(), WorkerState::Draining);
    }

    #[test]
    fn status_and_metrics_are_bounded() {
        let worker = Worker::new(Contract::none());
        worker.set_status("ä".repeat(1000));
        assert!(!worker.set_metric("x", f64::NAN));
        for n in 0..300 {
            assert_eq!(worker.set_metric(&format!("m{n}"), 1.0), n < MAX_METRICS);
        }
        assert!(worker.set_metric("m0", 2.0));
        worker.remove_metric("m1");
        let (status, metrics) = worker.status_and_metrics();
        assert_eq!(status.unwrap().len(), MAX_STATUS);
        assert_eq!((metrics.len(), metrics["m0"]), (MAX_METRICS - 1, 2.0));
        worker.set_status("");
        assert_eq!(worker.status_and_metrics().0, None);
    }

    #[tokio::test]
    async fn a_reload_that_nobody_waited_for_is_not_lost() {
        let worker = Worker::new(Contract::none());
        worker.ask_reload();
        worker.ask_reload();
        worker.reload().await;
        assert!(tokio::time::timeout(Duration::ZERO, worker.reload()).await.is_err());
    }
}
