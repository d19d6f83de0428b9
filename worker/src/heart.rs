//! The heart: beats, orders, signals and the question whether the node is gone, in the service's own main task.
//!
//! ```text
//!            ┌───────────── one task ─────────────┐
//!  node ◄────┤ heart: beat every interval,        │ a service that blocks its task stops its
//!  node ────►│        hear echoes and orders      │ heart, and the node sees the silence
//!  signals ─►│ service: the author's future       │
//!            └────────────────────────────────────┘
//! ```

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hilum_shared::protocol::{Beat, Echo, Order, OrderKind, WorkerState};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::absence;
use crate::contract::{Identity, rhythm};
use crate::links::{Links, News, send_beat};
use crate::worker::{Cause, Drain, Worker};

/// Between two beats of a worker that changes between ready and busy all the time.
const RESTLESS: Duration = Duration::from_millis(50);
/// Orders that are remembered, so that one that comes again is obeyed once.
const REMEMBERED: usize = 64;

/// Why a service was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The grace was over.
    GraceOver,
    /// A second SIGINT: somebody at a terminal waits no longer.
    Interrupted,
}

pub(crate) struct Heart {
    worker: Worker,
    links: Links,
    signals: Signals,
    grace: Duration,
    identity: Option<Identity>,
    interval: Duration,
    timeout: Duration,
    seq: u64,
    /// State and time of the last beat.
    last: Option<(WorkerState, Instant)>,
    heard: Instant,
    orders: VecDeque<String>,
    interrupts: u32,
}

impl Heart {
    /// A heart for `worker`; `grace` is what a signal gives, which names no time.
    pub(crate) fn new(worker: Worker, links: Links, signals: Signals, grace: Duration) -> Self {
        let contract = worker.contract();
        Self {
            identity: contract.identity().filter(|_| links.heart.is_some()),
            interval: contract.interval,
            timeout: contract.timeout,
            worker,
            links,
            signals,
            grace,
            seq: 0,
            last: None,
            heard: Instant::now(),
            orders: VecDeque::new(),
            interrupts: 0,
        }
    }

    /// Beats until the service must be cut off.
    pub(crate) async fn live(&mut self) -> Cut {
        loop {
            if let Some(cut) = self.turn() {
                return cut;
            }
            let wake = self.wake();
            tokio::select! {
                biased;
                name = self.signals.next() => self.signalled(name),
                news = self.links.next() => match news {
                    News::Echo(echo) => self.echoed(echo),
                    News::Order(order) => self.ordered(order),
                },
                () = self.worker.changed() => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Whose heart this is.
    pub(crate) fn worker(&self) -> Worker {
        self.worker.clone()
    }

    /// The channels, for their end.
    pub(crate) fn into_links(self) -> Links {
        self.links
    }

    /// Does what is due now.
    fn turn(&mut self) -> Option<Cut> {
        let now = Instant::now();
        if self.identity.is_some() && now >= self.next_beat(now) {
            self.beat(now);
        }
        if let Some(drain) = self.worker.drain() {
            return if self.interrupts > 1 {
                Some(Cut::Interrupted)
            } else {
                (now >= drain.deadline).then_some(Cut::GraceOver)
            };
        }
        if self.identity.is_some() && now >= self.heard + self.timeout {
            let lock = absence::ask(self.worker.contract().lock.as_deref());
            let closed = self.links.connection.closed_for();
            if absence::is_gone(now - self.heard, self.timeout, lock, closed) {
                tracing::warn!(
                    silence_ms = (now - self.heard).as_millis() as u64,
                    "the node is gone; leaving"
                );
                self.drain(Cause::NodeGone, "the node is gone".to_owned(), self.grace);
            }
        }
        None
    }

    /// When the next beat is due: at once for a new state, but a worker that flickers between ready and busy is
    /// held to a bearable pace.
    fn next_beat(&self, now: Instant) -> Instant {
        let Some((state, at)) = self.last else { return now };
        let next = self.worker.state();
        if next == state {
            return at + self.interval;
        }
        match (state, next) {
            (WorkerState::Ready, WorkerState::Busy) | (WorkerState::Busy, WorkerState::Ready) => {
                at + RESTLESS.min(self.interval)
            }
            _ => now,
        }
    }

    fn wake(&self) -> Instant {
        let now = Instant::now();
        let mut wake = now + Duration::from_secs(3600);
        if self.identity.is_some() {
            wake = wake.min(self.next_beat(now));
        }
        match self.worker.drain() {
            Some(drain) => wake.min(drain.deadline),
            None => wake,
        }
    }

    fn beat(&mut self, now: Instant) {
        let (Some(identity), Some(socket)) = (&self.identity, &self.links.heart) else { return };
        let state = self.worker.state();
        let (status, metrics) = self.worker.status_and_metrics();
        self.seq += 1;
        let beat = Beat {
            instance: identity.instance.clone(),
            run: identity.run,
            pid: std::process::id(),
            token: identity.token.clone(),
            seq: self.seq,
            state,
            at: unix_now(),
            status,
            metrics,
        };
        if let Err(error) = send_beat(socket, &beat) {
            // A node that does not read has enough beats of ours waiting.
            tracing::debug!(%error, "heartbeat not sent");
        }
        self.last = Some((state, now));
    }

    fn echoed(&mut self, echo: Echo) {
        self.heard = Instant::now();
        if let Some(interval) = rhythm(echo.interval) {
            self.interval = interval;
        }
        if let Some(timeout) = rhythm(echo.timeout) {
            self.timeout = timeout;
        }
    }

    fn ordered(&mut self, order: Order) {
        let own = self.worker.contract().run;
        let other_run = order.run.is_some_and(|run| own.is_some_and(|own| own != run));
        if other_run || self.orders.contains(&order.id) {
            return;
        }
        if self.orders.len() == REMEMBERED {
            self.orders.pop_front();
        }
        self.orders.push_back(order.id);
        match order.kind {
            OrderKind::Reload => {
                tracing::debug!(reason = order.reason, "told to read the configuration again");
                self.worker.ask_reload();
            }
            OrderKind::Shutdown => {
                let grace = rhythm(order.grace).unwrap_or(Duration::ZERO);
                self.drain(Cause::Order, order.reason, grace);
            }
        }
    }

    fn signalled(&mut self, name: &'static str) {
        if name == INTERRUPT {
            self.interrupts += 1;
        }
        // The node's signal stands behind its order and means the same: it changes nothing of it. Who only meant to start anew ends.
        let leaves = self.worker.drain().is_some_and(|drain| drain.cause != Cause::NewProgram);
        if !leaves {
            self.drain(Cause::Signal, format!("signal {name}"), self.grace);
        }
    }

    fn drain(&self, cause: Cause, reason: String, grace: Duration) {
        let drain = Drain::now(cause, reason, grace);
        let (reason, grace) = (drain.reason.clone(), drain.grace.as_secs_f64());
        if self.worker.begin_drain(drain) {
            tracing::debug!(reason, grace, "draining");
        }
    }
}

const INTERRUPT: &str = "INT";

/// SIGTERM and SIGINT, or neither.
pub(crate) struct Signals {
    term: Option<Signal>,
    interrupt: Option<Signal>,
}

impl Signals {
    /// Takes both from their default action.
    pub(crate) fn take() -> std::io::Result<Self> {
        Ok(Self {
            term: Some(signal(SignalKind::terminate())?),
            interrupt: Some(signal(SignalKind::interrupt())?),
        })
    }

    /// Leaves them to others.
    pub(crate) fn leave() -> Self {
        Self { term: None, interrupt: None }
    }

    async fn next(&mut self) -> &'static str {
        async fn one(signal: &mut Option<Signal>) {
            let came = match signal {
                Some(signal) => signal.recv().await.is_some(),
                None => false,
            };
            if !came {
                std::future::pending::<()>().await;
            }
        }
        tokio::select! {
            () = one(&mut self.term) => "TERM",
            () = one(&mut self.interrupt) => INTERRUPT,
        }
    }
}

/// Seconds since 1970, to inform people.
pub(crate) fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
