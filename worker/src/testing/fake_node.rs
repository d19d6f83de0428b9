//! A node in the same process, for tests of services: real sockets in a temporary folder, one instance.
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use hilum_worker::testing::FakeNode;
//! use hilum_worker::{Builder, WorkerState};
//!
//! let node = FakeNode::start()?;
//! let service = Builder::with_contract(node.contract()).without_logging().try_run(|worker| async move {
//!     worker.ready();
//!     worker.draining().await;
//!     Ok(())
//! });
//! let test = async {
//!     node.beat(|beat| beat.state == WorkerState::Ready).await;
//!     node.shutdown("test", std::time::Duration::from_secs(5));
//! };
//! let (result, ()) = tokio::join!(service, test);
//! result?;
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example()).unwrap();
//! ```
//!
//! It supervises nothing: it starts, ends and judges no process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hilum_shared::lock::{Lock, LockError};
use hilum_shared::name::{InstanceId, NameError, Run};
use hilum_shared::protocol::{Echo, HEARTBEAT_FRAME, LOG_FRAME, LOG_HIGH_WATER, env, topics};
use hilum_shared::transport::{
    Flow, Frames, Handler, Hub, Kind, OpenError, Port, Socket, SocketSpec,
};
use hilum_shared::wire::message::{new_id, pack, unpack};
use tokio::sync::Notify;

pub use hilum_shared::protocol::{Beat, LogRecord, Order, OrderKind};

use crate::contract::Contract;
use crate::heart::unix_now;

/// Beats and records that are kept, of each the latest.
const KEPT: usize = 10_000;
/// How long a test waits for anything before it fails: far more than anything takes.
const LIMIT: Duration = Duration::from_secs(30);

/// Why there is no fake node.
#[derive(Debug, thiserror::Error)]
pub enum FakeNodeError {
    /// Not an instance's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No folder or thread.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// No socket.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No lock.
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// A node for one instance. Dropping it closes its sockets, frees its lock and removes its folder.
pub struct FakeNode {
    instance: InstanceId,
    run: Run,
    token: String,
    shared: Arc<Shared>,
    heart: Option<Socket>,
    orders: Option<Socket>,
    records: Option<Socket>,
    hub: Option<Hub>,
    lock: Option<Lock>,
    folder: tempfile::TempDir,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    notify: Notify,
}

struct State {
    beats: VecDeque<Beat>,
    records: VecDeque<LogRecord>,
    subscribed: usize,
    in_force: Option<Frames>,
    echoing: bool,
    holding: bool,
    interval: f64,
    timeout: f64,
    ignored: usize,
}

impl Default for State {
    fn default() -> Self {
        Self {
            beats: VecDeque::new(),
            records: VecDeque::new(),
            subscribed: 0,
            in_force: None,
            echoing: true,
            holding: false,
            interval: 0.05,
            timeout: 5.0,
            ignored: 0,
        }
    }
}

impl FakeNode {
    /// A node for run 1 of instance `test.1`, with an interval of 50 ms and a timeout of 5 s.
    ///
    /// # Errors
    /// See [`FakeNodeError`].
    pub fn start() -> Result<Self, FakeNodeError> {
        Self::start_for("test.1", 1)
    }

    /// A node for this run of this instance.
    ///
    /// # Errors
    /// See [`FakeNodeError`].
    pub fn start_for(instance: &str, run: u32) -> Result<Self, FakeNodeError> {
        let instance = InstanceId::parse(instance)?;
        // Not under $TMPDIR: a socket's path has 107 bytes at most.
        let folder = tempfile::Builder::new().prefix("hilum-test-").tempdir_in("/tmp")?;
        let lock = Lock::take(&folder.path().join("lock"))?;
        let hub = Hub::start("fake-node")?;
        let shared = Arc::new(Shared::default());
        let token = new_id();
        let address = |name: &str| format!("ipc://{}/{name}", folder.path().display());
        let ear = |part| Ear {
            part,
            instance: instance.clone(),
            run: Run(run),
            token: token.clone(),
            shared: Arc::clone(&shared),
        };
        let open = |kind, name, part| {
            let mut spec = SocketSpec::new(kind).bind(address(name));
            if matches!(part, Part::Records) {
                spec.high_water = LOG_HIGH_WATER;
            }
            hub.open(spec, ear(part))
        };
        let heart = open(Kind::Router, "heartbeat.sock", Part::Beats)?;
        let orders = open(Kind::Xpub, "shutdown.sock", Part::Subscriptions)?;
        let records = open(Kind::Pull, "log.sock", Part::Records)?;
        Ok(Self {
            instance,
            run: Run(run),
            token,
            shared,
            heart: Some(heart),
            orders: Some(orders),
            records: Some(records),
            hub: Some(hub),
            lock: Some(lock),
            folder,
        })
    }

    /// The contract of the instance, for [`crate::Builder::with_contract`].
    pub fn contract(&self) -> Contract {
        let variables = self.env();
        Contract::from_env(&|name| variables.get(name).cloned())
            .expect("the variables are those of a node")
    }

    /// The variables of the instance, for a child process.
    pub fn env(&self) -> BTreeMap<String, String> {
        let address = |name: &str| format!("ipc://{}/{name}", self.folder.path().display());
        let state = self.shared.lock();
        [
            (env::INSTANCE, self.instance.to_string()),
            (env::SERVICE, self.instance.service.to_string()),
            (env::INDEX, self.instance.index.to_string()),
            (env::RUN, self.run.to_string()),
            (env::TOKEN, self.token.clone()),
            (env::PROJECT, "test".to_owned()),
            (env::LOCK, self.folder.path().join("lock").display().to_string()),
            (env::HEARTBEAT, address("heartbeat.sock")),
            (env::SHUTDOWN, address("shutdown.sock")),
            (env::LOG, address("log.sock")),
            (env::HEARTBEAT_INTERVAL, state.interval.to_string()),
            (env::HEARTBEAT_TIMEOUT, state.timeout.to_string()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    /// Sets the rhythm that the next contract and every echo names.
    pub fn set_rhythm(&self, interval: Duration, timeout: Duration) {
        let mut state = self.shared.lock();
        (state.interval, state.timeout) = (interval.as_secs_f64(), timeout.as_secs_f64());
    }

    /// Whether beats are echoed. A node that is stopped echoes none.
    pub fn set_echoing(&self, echoing: bool) {
        self.shared.lock().echoing = echoing;
    }

    /// Takes no records (as a node with a slow disk), or takes them again.
    pub fn hold_records(&self, hold: bool) {
        self.shared.lock().holding = hold;
        if let (false, Some(records)) = (hold, &self.records) {
            records.resume();
        }
    }

    /// The beats so far, the latest 10 000.
    pub fn beats(&self) -> Vec<Beat> {
        self.shared.lock().beats.iter().cloned().collect()
    }

    /// The records so far, the latest 10 000.
    pub fn records(&self) -> Vec<LogRecord> {
        self.shared.lock().records.iter().cloned().collect()
    }

    /// Messages that a real node would ignore: malformed, of another instance or run, with a wrong token.
    pub fn ignored(&self) -> usize {
        self.shared.lock().ignored
    }

    /// Orders the worker to drain and exit; one that subscribes later hears it too.
    pub fn shutdown(&self, reason: &str, grace: Duration) {
        self.send(&Order {
            id: new_id(),
            kind: OrderKind::Shutdown,
            run: Some(self.run),
            reason: reason.to_owned(),
            grace: grace.as_secs_f64(),
            at: unix_now(),
        });
    }

    /// Orders the worker to read its configuration again. Wait for [`FakeNode::subscription`] before.
    pub fn reload(&self, reason: &str) {
        self.send(&Order {
            id: new_id(),
            kind: OrderKind::Reload,
            run: Some(self.run),
            reason: reason.to_owned(),
            grace: 0.0,
            at: unix_now(),
        });
    }

    /// Sends any order to the instance's topic; a shutdown stays in force for later subscribers.
    pub fn send(&self, order: &Order) {
        let [_, _, topic] = topics(&self.instance);
        let body = pack(order).expect("an order always packs");
        let frames = vec![topic.into_bytes(), body];
        let mut state = self.shared.lock();
        if order.kind == OrderKind::Shutdown {
            state.in_force = Some(frames.clone());
        }
        if let (true, Some(orders)) = (state.subscribed > 0, &self.orders) {
            orders.send(frames).expect("a test sends few orders");
        }
    }

    /// Waits for a beat like this, among those that came and those to come.
    pub async fn beat(&self, like: impl Fn(&Beat) -> bool) -> Beat {
        self.until("beat", |state| state.beats.iter().find(|beat| like(beat)).cloned()).await
    }

    /// Waits for a record like this, among those that came and those to come.
    pub async fn record(&self, like: impl Fn(&LogRecord) -> bool) -> LogRecord {
        self.until("record", |state| state.records.iter().find(|record| like(record)).cloned())
            .await
    }

    /// Waits until the worker hears orders.
    pub async fn subscription(&self) {
        self.until("subscription", |state| (state.subscribed > 0).then_some(())).await;
    }

    /// As [`FakeNode::beat`], for a test without tokio.
    pub fn wait_for_beat(&self, like: impl Fn(&Beat) -> bool) -> Beat {
        self.wait("beat", |state| state.beats.iter().find(|beat| like(beat)).cloned())
    }

    /// As [`FakeNode::record`], for a test without tokio.
    pub fn wait_for_record(&self, like: impl Fn(&LogRecord) -> bool) -> LogRecord {
        self.wait("record", |state| state.records.iter().find(|record| like(record)).cloned())
    }

    /// As [`FakeNode::subscription`], for a test without tokio.
    pub fn wait_for_subscription(&self) {
        self.wait("subscription", |state| (state.subscribed > 0).then_some(()));
    }

    /// Frees the lock, as if the node had ended; the sockets stay open.
    pub fn free_lock(&mut self) {
        self.lock = None;
    }

    /// Makes the lock unreadable by taking its file away; it stays locked.
    pub fn hide_lock(&self) {
        let _ = std::fs::remove_file(self.folder.path().join("lock")); // gone is what is wanted
    }

    /// Closes the sockets; the lock stays held, as by a node that hangs in its end.
    pub fn close(&mut self) {
        (self.heart, self.orders, self.records) = (None, None, None);
        self.hub = None;
    }

    async fn until<T>(&self, what: &str, found: impl Fn(&State) -> Option<T>) -> T {
        let search = async {
            loop {
                let news = self.shared.notify.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                if let Some(found) = found(&self.shared.lock()) {
                    return found;
                }
                news.await;
            }
        };
        let Ok(found) = tokio::time::timeout(LIMIT, search).await else {
            panic!("no such {what} in {LIMIT:?}; {}", self.account());
        };
        found
    }

    fn wait<T>(&self, what: &str, found: impl Fn(&State) -> Option<T>) -> T {
        let deadline = Instant::now() + LIMIT;
        let mut state = self.shared.lock();
        loop {
            if let Some(found) = found(&state) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                panic!("no such {what} in {LIMIT:?}; {}", self.account());
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn account(&self) -> String {
        let state = self.shared.lock();
        format!(
            "{} beats, the last {:?}; {} records, the last {:?}; {} messages ignored",
            state.beats.len(),
            state.beats.back(),
            state.records.len(),
            state.records.back(),
            state.ignored
        )
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.notify_all();
        self.notify.notify_waiters();
    }
}

#[derive(Clone, Copy)]
enum Part {
    Beats,
    Subscriptions,
    Records,
}

struct Ear {
    part: Part,
    instance: InstanceId,
    run: Run,
    token: String,
    shared: Arc<Shared>,
}

impl Handler for Ear {
    fn message(&mut self, frames: Frames, port: &mut Port<'_>) -> Flow {
        let mut state = self.shared.lock();
        let flow = match self.part {
            Part::Beats => self.beat(&mut state, frames, port),
            Part::Subscriptions => self.subscription(&mut state, &frames, port),
            Part::Records if state.holding => Flow::Full(frames),
            Part::Records => self.records(&mut state, &frames),
        };
        drop(state);
        self.shared.tell();
        flow
    }
}

impl Ear {
    fn beat(&self, state: &mut State, mut frames: Frames, port: &mut Port<'_>) -> Flow {
        let beat = match frames.as_slice() {
            [id, kind, body]
                if kind == HEARTBEAT_FRAME
                    && *id == format!("{}#{}", self.instance, self.run).into_bytes() =>
            {
                unpack::<Beat>(body, "beat").ok()
            }
            _ => None,
        };
        let own = |beat: &Beat| {
            beat.instance == self.instance && beat.run == self.run && beat.token == self.token
        };
        let Some(beat) = beat.filter(own) else {
            state.ignored += 1;
            return Flow::Taken;
        };
        if state.echoing {
            let (interval, timeout) = (state.interval, state.timeout);
            let echo = Echo { seq: beat.seq, at: unix_now(), interval, timeout };
            frames[2] = pack(&echo).expect("an echo always packs");
            let _ = port.send(frames); // a worker that is gone misses it
        }
        keep(&mut state.beats, beat);
        Flow::Taken
    }

    fn subscription(&self, state: &mut State, frames: &Frames, port: &mut Port<'_>) -> Flow {
        let [_, _, topic] = topics(&self.instance);
        let Some((&first, rest)) = frames.first().and_then(|frame| frame.split_first()) else {
            state.ignored += 1;
            return Flow::Taken;
        };
        if rest != topic.as_bytes() {
            return Flow::Taken;
        }
        if first == 0 {
            state.subscribed = state.subscribed.saturating_sub(1);
            return Flow::Taken;
        }
        state.subscribed += 1;
        if let Some(order) = &state.in_force {
            let _ = port.send(order.clone()); // a worker that is gone needs none
        }
        Flow::Taken
    }

    fn records(&self, state: &mut State, frames: &Frames) -> Flow {
        match frames.as_slice() {
            [kind, token, records @ ..] if kind == LOG_FRAME && *token == self.token.as_bytes() => {
                for frame in records {
                    match unpack::<LogRecord>(frame, "record") {
                        Ok(record) if record.instance == self.instance => {
                            keep(&mut state.records, record);
                        }
                        _ => state.ignored += 1,
                    }
                }
            }
            _ => state.ignored += 1,
        }
        Flow::Taken
    }
}

fn keep<T>(kept: &mut VecDeque<T>, new: T) {
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back(new);
}
