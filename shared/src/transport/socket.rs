//! A socket's description, and its handle for other threads.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::endpoint::{Endpoint, EndpointError};
use super::hub::{Command, Shared};
use crate::wire::limits::{MAX_FRAME, MAX_FRAMES};

/// One frame of a message.
pub type Frame = Vec<u8>;
/// One message.
pub type Frames = Vec<Frame>;

/// What the socket does, in libzmq's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Many peers, each by its routing id. Always mandatory: a message for nobody comes back as [`Undelivered`](super::Undelivered).
    Router,
    /// One conversation.
    Dealer,
    /// Sends to subscribers and sees each subscription, also repeated ones, and the last unsubscription of each topic
    /// (`ZMQ_XPUB_VERBOSE`; counting every unsubscription as VERBOSER does is not needed for "has it a listener").
    Xpub,
    /// Receives what it subscribed to.
    Sub,
    /// Receives from many.
    Pull,
    /// Sends to one of many.
    Push,
    /// Sends to subscribers.
    Pub,
}

/// How a socket is made. [`SocketSpec::new`] gives bounded defaults.
#[derive(Clone, Debug)]
pub struct SocketSpec {
    /// What it does.
    pub kind: Kind,
    /// Addresses to listen at.
    pub bind: Vec<String>,
    /// Addresses to connect to.
    pub connect: Vec<String>,
    /// The name by which a ROUTER knows this peer; 1 to 255 bytes that do not start with a zero byte.
    pub routing_id: Option<Vec<u8>>,
    /// Topics of a SUB.
    pub subscribe: Vec<Vec<u8>>,
    /// Messages that wait in libzmq for each peer in each direction before it pushes back.
    pub high_water: u32,
    /// Messages that wait between [`Socket::send`] and libzmq.
    pub queue: usize,
    /// Bytes of messages of a ROUTER that wait for each peer beyond those, five seconds at most, before it counts as one that does not read.
    pub late: usize,
    /// The largest frame taken, in bytes; a peer that sends a larger one is disconnected.
    pub max_frame: usize,
    /// Messages are only given to peers that are connected, not queued for those that may come.
    pub immediate: bool,
    /// File mode of a bound ipc socket: 0600, or 0666 where instances of other users connect.
    pub mode: u32,
    /// A new ROUTER peer with a known routing id takes over from the old connection.
    pub handover: bool,
    /// After each round of reading the socket rests this long, so that many small messages cost one wake-up. A message
    /// after a quiet time is read at once.
    pub pace: Duration,
    /// Whether [`Handler::event`](super::Handler::event) is told of connections.
    pub monitor: bool,
}

impl SocketSpec {
    /// A private socket with bounded defaults that neither binds nor connects yet.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            bind: Vec::new(),
            connect: Vec::new(),
            routing_id: None,
            subscribe: Vec::new(),
            high_water: 1000,
            queue: 1000,
            late: 0,
            max_frame: MAX_FRAME,
            immediate: false,
            mode: 0o600,
            handover: false,
            pace: Duration::ZERO,
            monitor: false,
        }
    }

    /// Listens at this address.
    #[must_use]
    pub fn bind(mut self, endpoint: impl Into<String>) -> Self {
        self.bind.push(endpoint.into());
        self
    }

    /// Connects to this address.
    #[must_use]
    pub fn connect(mut self, endpoint: impl Into<String>) -> Self {
        self.connect.push(endpoint.into());
        self
    }

    /// The one place where options are set: everything that keeps a socket from hanging, growing or lying.
    pub(crate) fn apply(&self, socket: &zmq::Socket) -> zmq::Result<()> {
        let high_water = i32::try_from(self.high_water.max(1)).unwrap_or(i32::MAX);
        socket.set_linger(LINGER_MS)?; // the default is to wait for ever when the context ends
        socket.set_sndhwm(high_water)?;
        socket.set_rcvhwm(high_water)?;
        socket.set_maxmsgsize(i64::try_from(self.max_frame).unwrap_or(i64::MAX))?;
        socket.set_handshake_ivl(HANDSHAKE_MS)?;
        socket.set_reconnect_ivl(RECONNECT_MS)?;
        socket.set_reconnect_ivl_max(RECONNECT_MAX_MS)?;
        socket.set_backlog(BACKLOG)?;
        socket.set_immediate(self.immediate)?;
        // libzmq looks for the other family only when it is told to.
        socket.set_ipv6(self.bind.iter().chain(&self.connect).any(|one| one.contains('[')))?;
        if let Some(id) = &self.routing_id {
            socket.set_identity(id)?;
        }
        match self.kind {
            Kind::Router => {
                socket.set_router_mandatory(true)?;
                socket.set_router_handover(self.handover)?;
            }
            Kind::Xpub => socket.set_xpub_verbose(true)?,
            Kind::Sub => {
                for topic in &self.subscribe {
                    socket.set_subscribe(topic)?;
                }
            }
            Kind::Dealer | Kind::Pull | Kind::Push | Kind::Pub => {}
        }
        Ok(())
    }

    pub(super) fn endpoints(&self) -> Result<Vec<(Endpoint, &str)>, OpenError> {
        let all = self.bind.iter().chain(&self.connect);
        all.map(|text| Ok((Endpoint::parse(text)?, text.as_str()))).collect()
    }
}

/// How long unsent messages may hold up the end of a socket, unless [`super::Hub::close`] says otherwise.
pub(super) const LINGER_MS: i32 = 200;
/// A peer that has not said hello by then is dropped (libzmq's own default is 30 s).
const HANDSHAKE_MS: i32 = 5000;
/// Between the first tries to connect again.
const RECONNECT_MS: i32 = 50;
/// Between later tries.
const RECONNECT_MAX_MS: i32 = 1000;
/// Connections that wait to be accepted: a thousand workers may start at once (libzmq's default is 100).
const BACKLOG: i32 = 4096;
/// A message with more frames is dropped whole.
pub(super) const FRAME_LIMIT: usize = MAX_FRAMES;

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is wrong.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// libzmq or the system said no to an address.
    #[error("{action} `{endpoint}`: {source}")]
    Address {
        /// `bind` or `connect`.
        action: &'static str,
        /// The address.
        endpoint: String,
        /// What was said.
        source: zmq::Error,
    },
    /// An option was refused, or no socket could be made.
    #[error("making a socket: {0}")]
    Socket(zmq::Error),
    /// The socket's file cannot get its mode.
    #[error("permissions of `{path}`: {source}")]
    Mode {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The thread has ended.
    #[error("the ZeroMQ thread has ended")]
    Ended,
}

/// Why a message was not even queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// As many messages wait as may.
    #[error("{waiting} messages wait to be sent already: the peer does not read")]
    Full {
        /// How many.
        waiting: usize,
    },
    /// The socket is closed or its thread has ended.
    #[error("the socket is closed")]
    Closed,
}

/// What a socket's handle and the thread share.
pub(super) struct Gate {
    pub(super) queued: AtomicUsize,
    pub(super) paused: AtomicBool,
    pub(super) closed: AtomicBool,
    pub(super) undelivered: AtomicUsize,
    waiting: AtomicUsize,
    lock: Mutex<()>,
    room: Condvar,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            queued: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            undelivered: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            lock: Mutex::new(()),
            room: Condvar::new(),
        }
    }

    /// One queued message has gone to libzmq, or nowhere.
    pub(super) fn release(&self) {
        self.queued.fetch_sub(1, Ordering::SeqCst);
        self.wake();
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            let _held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.room.notify_all();
        }
    }

    fn enter(&self, limit: usize) -> Result<(), SendError> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(SendError::Closed);
        }
        let before = self.queued.fetch_add(1, Ordering::SeqCst);
        if before >= limit {
            self.queued.fetch_sub(1, Ordering::SeqCst);
            return Err(SendError::Full { waiting: before });
        }
        Ok(())
    }
}

/// A handle to a socket on the ZeroMQ thread. Dropping the last clone closes the socket.
#[derive(Clone)]
pub struct Socket {
    inner: Arc<Inner>,
}

struct Inner {
    id: u64,
    endpoint: String,
    limit: usize,
    gate: Arc<Gate>,
    shared: Arc<Shared>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.gate.close();
        self.shared.push(Command::Close(self.id));
    }
}

impl Socket {
    pub(super) fn new(
        id: u64,
        endpoint: String,
        limit: usize,
        gate: Arc<Gate>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { inner: Arc::new(Inner { id, endpoint, limit, gate, shared }) }
    }

    /// The address it is bound to, with a real port where `*` was asked for; else the one it connects to.
    pub fn endpoint(&self) -> &str {
        &self.inner.endpoint
    }

    /// Queues a message. Never blocks.
    ///
    /// # Errors
    /// When the queue is full or the socket closed.
    pub fn send(&self, frames: Frames) -> Result<(), SendError> {
        self.inner.gate.enter(self.inner.limit)?;
        self.inner.shared.push(Command::Send(self.inner.id, frames));
        Ok(())
    }

    /// Queues a message, waiting for room at most this long. Not for an async task, and not for a handler.
    ///
    /// # Errors
    /// When there was no room in all that time, or the socket closed.
    pub fn send_within(&self, frames: Frames, limit: Duration) -> Result<(), SendError> {
        let gate = &self.inner.gate;
        let entered = gate.enter(self.inner.limit);
        if matches!(entered, Err(SendError::Full { .. })) {
            gate.waiting.fetch_add(1, Ordering::SeqCst);
            let held = gate.lock.lock().unwrap_or_else(PoisonError::into_inner);
            let mut last = entered;
            let waited = gate.room.wait_timeout_while(held, limit, |()| {
                last = gate.enter(self.inner.limit);
                matches!(last, Err(SendError::Full { .. }))
            });
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            gate.waiting.fetch_sub(1, Ordering::SeqCst);
            last?;
        } else {
            entered?;
        }
        self.inner.shared.push(Command::Send(self.inner.id, frames));
        Ok(())
    }

    /// Reads on after [`Flow::Full`](super::Flow::Full). Call it after each message taken from the handler's channel: it costs one load
    /// where the socket was not paused.
    pub fn resume(&self) {
        if self.inner.gate.paused.swap(false, Ordering::SeqCst) {
            self.inner.shared.push(Command::Resume(self.inner.id));
        }
    }

    /// Whether its handler had no room and peers are held back.
    pub fn is_paused(&self) -> bool {
        self.inner.gate.paused.load(Ordering::SeqCst)
    }

    /// Messages that wait to be given to libzmq.
    pub fn waiting(&self) -> usize {
        self.inner.gate.queued.load(Ordering::SeqCst)
    }

    /// Messages that did not leave, ever.
    pub fn undelivered(&self) -> usize {
        self.inner.gate.undelivered.load(Ordering::SeqCst)
    }

    /// Takes up a further topic on a SUB.
    pub fn subscribe(&self, topic: Vec<u8>) {
        self.inner.shared.push(Command::Subscribe(self.inner.id, topic));
    }
}
