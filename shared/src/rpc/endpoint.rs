//! One container's side of all its connections.
//!
//! **Two kinds of peers, told apart by the handshake.** A ZMTP handshake says which kind of socket is there. We dial as a DEALER whose
//! routing id is our own address, and listen as a ROUTER does:
//!
//! | who dials | what we see | its answers go |
//! |---|---|---|
//! | ours, the command line, any DEALER | `DEALER` | back on the same connection |
//! | a lymph container | `ROUTER` with its address as routing id | to that address, on a connection of ours |
//!
//! A lymph container that we dial takes our request as one of its kind and answers by dialling our address; one of ours answers
//! on the same connection. An answer finds its call by the request's id, wherever it comes from. So nobody has to know
//! beforehand what an address is.
//!
//! **Nothing is lost at the beginning**: a request waits until hands are shaken, and is told when that fails.
//! **Liveness**: a connection that is in use and silent is pinged each second; after three seconds without a sign its
//! instance is passed over, after thirty it is closed and the pings end with it. An unused connection is closed after a minute.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::error::Error;
use super::link::{Link, LinkError, Liveness, NotTaken, Owner, Wire};
use super::network::{Listener, Network, Sockets, Stream};
use super::reply;
pub use super::reply::{Incoming, ReplyChannel, ReplyError};
use super::trace;
use crate::transport::endpoint::Endpoint as Address;
use crate::wire::limits::MAX_ANSWER;
use crate::wire::message::{DecodeError, Headers, Kind, Message, NIL, new_id, pack};
use crate::wire::zmtp::Hello;

/// How connections are kept; lymph's keys under `container.rpc.connection` with lymph's defaults, and bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Between two pings of a silent connection in use; zero: no pings.
    pub heartbeat_interval: Duration,
    /// Silence after a ping from which on the other side is passed over.
    pub timeout: Duration,
    /// How long after its last call a connection counts as in use.
    pub idle_timeout: Duration,
    /// Silence after a ping that ends the connection.
    pub unresponsive_disconnect: Duration,
    /// How long after its last call a connection is closed.
    pub idle_disconnect: Duration,
    /// How long connecting and shaking hands may take.
    pub handshake: Duration,
    /// How long an address that refused a connection is called only where there is no other.
    pub retry_after: Duration,
    /// The largest message taken, in bytes.
    pub max_message: usize,
    /// Bytes that may wait to be sent on one connection.
    pub max_waiting: usize,
    /// Requests of one connection that may be worked on at once.
    pub max_open: u32,
    /// Connections that are accepted at once.
    pub max_connections: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(1),
            timeout: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(10),
            unresponsive_disconnect: Duration::from_secs(30),
            idle_disconnect: Duration::from_secs(60),
            handshake: Duration::from_secs(5),
            retry_after: Duration::from_secs(1),
            max_message: MAX_ANSWER,
            max_waiting: MAX_ANSWER,
            max_open: 4096,
            max_connections: 4096,
        }
    }
}

/// Takes requests. It runs in the connection's task: it hands the work on and returns.
pub trait Handler: Send + Sync + 'static {
    /// A request came. Dropping its channel without an answer refuses it.
    fn request(&self, incoming: Incoming);
}

impl<F: Fn(Incoming) + Send + Sync + 'static> Handler for F {
    fn request(&self, incoming: Incoming) {
        self(incoming);
    }
}

/// A request to one address.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// `interface.method`.
    pub subject: String,
    /// The version of the interface, where the instance has one.
    pub version: Option<String>,
    /// The packed arguments.
    pub body: Vec<u8>,
    /// How long to wait.
    pub timeout: Duration,
    /// The trace; `None`: that of the current task, or a new one.
    pub trace_id: Option<String>,
}

impl Outgoing {
    /// A request that waits three seconds, lymph's default.
    pub fn new(subject: impl Into<String>, body: Vec<u8>) -> Self {
        let timeout = Duration::from_secs(3);
        Self { subject: subject.into(), version: None, body, timeout, trace_id: None }
    }
}

/// One container's side of all its connections. Clones are the same endpoint; when the last one is dropped, everything is closed.
#[derive(Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
    _life: Arc<Life>,
}

struct Life(Arc<Inner>);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.shut();
    }
}

pub(super) struct Inner {
    config: Config,
    network: Arc<dyn Network>,
    handler: Arc<dyn Handler>,
    /// The first address that we listen at: our name for others; empty = none.
    address: String,
    addresses: Vec<String>,
    state: Mutex<State>,
    closed: AtomicBool,
}

#[derive(Default)]
struct State {
    /// By id of the request.
    pending: HashMap<CallId, Pending>,
    dials: HashMap<String, Arc<Dial>>,
    /// Addresses that refused a connection, and how long they count as such.
    refused: HashMap<String, Instant>,
    accepted: HashMap<usize, Arc<Wire>>,
    tasks: Vec<AbortHandle>,
}

/// The id of a request of ours: 32 hex digits.
type CallId = u128;

fn call_id(text: &str) -> Option<CallId> {
    if text.len() == 32 { CallId::from_str_radix(text, 16).ok() } else { None }
}

struct Pending {
    answer: oneshot::Sender<Result<Message, Ended>>,
    dial: Arc<Dial>,
}

/// How the connection ended before the answer came.
enum Ended {
    /// We closed everything.
    Closed,
    /// It was never made.
    NotConnected(Arc<LinkError>),
    /// The request may have left.
    Lost(Arc<LinkError>),
    /// It did not end: an answer came, which nobody can read.
    Unreadable(Arc<DecodeError>),
}

impl Ended {
    fn error(self, address: &str, subject: String) -> Error {
        let address = address.to_owned();
        match self {
            Self::Closed => Error::Closed,
            Self::NotConnected(source) => Error::NotConnected { address, source },
            Self::Lost(source) => Error::Lost { address, subject, source },
            Self::Unreadable(source) => Error::Answer { subject, source },
        }
    }
}

/// A connection that we made, or are making.
struct Dial {
    address: String,
    wire: Arc<Wire>,
    connected: AtomicBool,
}

impl Endpoint {
    /// Listens at `addresses` (none: a client of our own services only; lymph services need a `tcp://` address to answer to) and
    /// gives what comes to `handler`. The first address is our name: write it as others reach it.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub async fn open(
        network: Arc<dyn Network>,
        addresses: &[&str],
        handler: Arc<dyn Handler>,
        config: Config,
    ) -> io::Result<Self> {
        let mut listeners = Vec::new();
        for address in addresses {
            listeners.push(network.listen(address).await?);
        }
        let addresses: Vec<String> =
            listeners.iter().map(|listener| listener.address().to_owned()).collect();
        let inner = Arc::new(Inner {
            config,
            network,
            handler,
            address: addresses.first().cloned().unwrap_or_default(),
            addresses,
            state: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        for listener in listeners {
            let task = tokio::spawn(accept(Arc::clone(&inner), listener));
            inner.state().tasks.push(task.abort_handle());
        }
        Ok(Self { _life: Arc::new(Life(Arc::clone(&inner))), inner })
    }

    /// A caller over the system's sockets that serves nothing and listens nowhere: it reaches every service of ours.
    ///
    /// # Errors
    /// Never at present; the signature is that of [`Endpoint::open`].
    pub async fn caller() -> io::Result<Self> {
        Self::open(Arc::new(Sockets), &[], Arc::new(|_: Incoming| {}), Config::default()).await
    }

    /// Our name for others; empty where we do not listen.
    pub fn address(&self) -> &str {
        &self.inner.address
    }

    /// All addresses that we listen at, with real ports.
    pub fn addresses(&self) -> &[String] {
        &self.inner.addresses
    }

    /// Sends a request to an address and waits for its answer, of whatever kind it is.
    ///
    /// Dropping the future gives the call up. A deadline of the current task (see [`trace`]) shortens the wait.
    ///
    /// # Errors
    /// [`Error::NotConnected`], [`Error::Lost`], [`Error::Timeout`], [`Error::Congested`], [`Error::Closed`].
    pub async fn request(&self, address: &str, outgoing: Outgoing) -> Result<Message, Error> {
        let Outgoing { subject, version, body, timeout, trace_id } = outgoing;
        let left = trace::deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(timeout, |left| timeout.min(left));
        let trace_id = Some(trace_id.unwrap_or_else(trace::trace_id_or_new));
        let headers = Headers { version, trace_id, timeout: Some(timeout.as_secs_f64()) };
        let (id, kind) = (new_id(), Kind::Request);
        let message = Message { id, kind, subject, headers, body };
        let (answer, _call) = self.inner.begin(address, &message)?;
        let subject = message.subject;
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(Ok(message))) => Ok(message),
            Ok(Ok(Err(ended))) => Err(ended.error(address, subject)),
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::Timeout { subject, after: timeout }),
        }
    }

    /// How an address is, as far as we know without asking.
    pub fn liveness(&self, address: &str) -> Liveness {
        let mut state = self.inner.state();
        if let Some(dial) = state.dials.get(address) {
            return dial.wire.liveness();
        }
        match state.refused.get(address) {
            Some(until) if *until > Instant::now() => Liveness::Refused,
            Some(_) => {
                state.refused.remove(address);
                Liveness::Unknown
            }
            None => Liveness::Unknown,
        }
    }

    /// Calls to an address that wait for their answer.
    pub fn waiting(&self, address: &str) -> u32 {
        let state = self.inner.state();
        state.dials.get(address).map_or(0, |dial| dial.wire.open.load(Ordering::Relaxed))
    }

    /// Connections that are open, in both directions.
    pub fn connections(&self) -> usize {
        let state = self.inner.state();
        state.dials.len() + state.accepted.len()
    }

    /// Requests of others that are being worked on.
    pub fn serving(&self) -> u32 {
        let state = self.inner.state();
        state.accepted.values().map(|wire| wire.open.load(Ordering::Relaxed)).sum()
    }

    /// Listens no longer, lets what is being worked on finish within this time, and closes everything.
    pub async fn close(self, within: Duration) {
        let tasks = std::mem::take(&mut self.inner.state().tasks);
        tasks.iter().for_each(AbortHandle::abort);
        let deadline = Instant::now() + within;
        while self.serving() > 0 && Instant::now() < deadline {
            tokio::time::sleep(CLOSE_POLL).await;
        }
        self.inner.shut();
        while self.connections() > 0 && Instant::now() < deadline {
            tokio::time::sleep(CLOSE_POLL).await;
        }
    }
}

/// How often a closing endpoint looks whether it is done.
const CLOSE_POLL: Duration = Duration::from_millis(5);
/// After the system had no descriptor for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Times a call looks for a connection that does not end in the same moment.
const TRIES: usize = 3;

/// Counts a call on its connection, and forgets it when nobody waits any longer.
struct Call<'a> {
    inner: &'a Inner,
    id: CallId,
    dial: Arc<Dial>,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.dial.wire.open.fetch_sub(1, Ordering::Relaxed);
        self.inner.state().pending.remove(&self.id);
    }
}

type Answer = oneshot::Receiver<Result<Message, Ended>>;

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request, and says where its answer will come.
    fn begin(
        self: &Arc<Self>,
        address: &str,
        message: &Message,
    ) -> Result<(Answer, Call<'_>), Error> {
        let id = call_id(&message.id).expect("an id of ours has 32 hex digits");
        for _ in 0..TRIES {
            let (sender, answer) = oneshot::channel();
            let dial = {
                let mut state = self.state();
                let dial = self.dial(&mut state, address)?;
                state.pending.insert(id, Pending { answer: sender, dial: Arc::clone(&dial) });
                dial
            };
            dial.wire.open.fetch_add(1, Ordering::Relaxed);
            dial.wire.mark_used();
            let call = Call { inner: self, id, dial };
            match call.dial.wire.send(message) {
                Ok(()) => return Ok((answer, call)),
                Err(NotTaken::Full) => {
                    return Err(Error::Congested { address: address.to_owned() });
                }
                Err(NotTaken::Closed) => {} // it ended just now; the next look makes another
            }
        }
        let source = Arc::new(LinkError::Closed);
        Err(Error::NotConnected { address: address.to_owned(), source })
    }

    /// The connection to an address, made where there is none.
    fn dial(self: &Arc<Self>, state: &mut State, address: &str) -> Result<Arc<Dial>, Error> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::Closed);
        }
        if let Some(dial) = state.dials.get(address).filter(|dial| !dial.wire.is_closed()) {
            return Ok(Arc::clone(dial));
        }
        let dial = Arc::new(Dial {
            address: address.to_owned(),
            wire: Wire::new(self.config.max_waiting),
            connected: AtomicBool::new(false),
        });
        state.dials.insert(address.to_owned(), Arc::clone(&dial));
        tokio::spawn(Arc::clone(self).keep(Arc::clone(&dial)));
        Ok(dial)
    }

    /// The life of a connection that we make.
    async fn keep(self: Arc<Self>, dial: Arc<Dial>) {
        let error = match self.connect(&dial.address).await {
            Ok(link) => {
                dial.connected.store(true, Ordering::SeqCst);
                let mut owner =
                    Dialled { inner: &self, dial: &dial, asked: None, last: Instant::now() };
                link.run(&dial.wire, &mut owner, self.tick()).await
            }
            Err(error) => error,
        };
        dial.wire.close();
        tracing::debug!(address = dial.address, %error, "connection ended");
        self.end(&dial, Arc::new(error));
    }

    async fn connect(&self, address: &str) -> Result<Link, LinkError> {
        let limit = self.config.handshake;
        let connecting = tokio::time::timeout(limit, self.network.connect(address));
        let stream = connecting.await.map_err(|_| LinkError::Handshake(limit))??;
        // A local socket needs no name: nobody dials back there, and the name may be taken by our own last connection.
        let identity = if address.starts_with("ipc:") { "" } else { &self.address };
        let hello = Hello { socket_type: "DEALER".into(), identity: identity.as_bytes().to_vec() };
        Link::open(stream, &hello, self.config.max_message, limit).await
    }

    /// Forgets a connection that has ended, and tells everybody who waits on it.
    fn end(&self, dial: &Arc<Dial>, source: Arc<LinkError>) {
        let connected = dial.connected.load(Ordering::SeqCst);
        let address = &dial.address;
        let lost = {
            let mut state = self.state();
            if state.dials.get(address).is_some_and(|kept| Arc::ptr_eq(kept, dial)) {
                state.dials.remove(address);
            }
            if !matches!(*source, LinkError::Idle) {
                let now = Instant::now();
                state.refused.retain(|_, until| *until > now);
                state.refused.insert(address.clone(), now + self.config.retry_after);
            }
            let of_it = |_: &CallId, pending: &mut Pending| Arc::ptr_eq(&pending.dial, dial);
            state.pending.extract_if(of_it).collect::<Vec<_>>()
        };
        for (_, Pending { answer, .. }) in lost {
            let source = Arc::clone(&source);
            let ended = match () {
                () if self.closed.load(Ordering::SeqCst) => Ended::Closed,
                () if connected => Ended::Lost(source),
                () => Ended::NotConnected(source),
            };
            // Whoever does not wait any longer need not know.
            let _ = answer.send(Err(ended));
        }
    }

    fn tick(&self) -> Duration {
        let interval = self.config.heartbeat_interval;
        if interval.is_zero() { Duration::from_secs(1) } else { interval }
    }

    /// The life of a connection that somebody made to us.
    async fn serve(self: Arc<Self>, stream: Stream) {
        let hello =
            Hello { socket_type: "ROUTER".into(), identity: self.address.as_bytes().to_vec() };
        let opened =
            Link::open(stream, &hello, self.config.max_message, self.config.handshake).await;
        let link = match opened {
            Ok(link) => link,
            Err(error) => {
                tracing::debug!(%error, "no handshake with a caller");
                return;
            }
        };
        let wire = Wire::new(self.config.max_waiting);
        let key = Arc::as_ptr(&wire) as usize;
        {
            let mut state = self.state();
            if self.closed.load(Ordering::SeqCst)
                || state.accepted.len() >= self.config.max_connections
            {
                tracing::warn!(limit = self.config.max_connections, "connection refused: too many");
                return;
            }
            state.accepted.insert(key, Arc::clone(&wire));
        }
        let identity = String::from_utf8(link.peer.identity.clone()).unwrap_or_default();
        let back = link.peer.socket_type == "ROUTER" && Address::parse(&identity).is_ok();
        let mut owner = Accepted { inner: &self, wire: &wire, identity, back };
        let error = link.run(&wire, &mut owner, self.tick()).await;
        wire.close();
        tracing::trace!(%error, "a caller's connection ended");
        self.state().accepted.remove(&key);
    }

    /// A message from anybody: an answer finds its call, a request the handler.
    fn take(
        self: &Arc<Self>,
        frames: &[&[u8]],
        route: impl FnOnce() -> reply::Route,
        open: Option<&Arc<Wire>>,
    ) {
        let message = match Message::decode(frames) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(%error, "malformed message");
                if let Some(id) = Message::salvage_id(frames) {
                    let nack = Message::answer(Kind::Nack, &id, None, NIL.to_vec());
                    route().send(&nack);
                } else if let Some(id) = Message::salvage_subject(frames) {
                    self.answered(id, Err(Ended::Unreadable(Arc::new(error))));
                }
                return;
            }
        };
        if message.kind != Kind::Request {
            let id = message.subject.clone();
            self.answered(&id, Ok(message));
            return;
        }
        let message = Arc::new(message);
        let channel = ReplyChannel::new(route(), &message, open);
        if message.subject == "lymph.ping" {
            channel.pong(&message);
        } else if open.is_some_and(|wire| wire.open.load(Ordering::Relaxed) > self.config.max_open)
        {
            // The caller hears why; a failure to say it only means that it is gone.
            let _ = channel.error("Overloaded", "too many requests of this caller are open");
        } else {
            self.handler.request(Incoming { message, channel });
        }
    }

    /// Gives an answer to the call with this id.
    fn answered(&self, id: &str, answer: Result<Message, Ended>) {
        let pending = call_id(id).and_then(|id| self.state().pending.remove(&id));
        if let Some(pending) = pending {
            // Whoever does not wait any longer need not know.
            let _ = pending.answer.send(answer);
        }
    }

    fn shut(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let mut state = self.state();
        state.tasks.drain(..).for_each(|task| task.abort());
        state.dials.values().for_each(|dial| dial.wire.close());
        state.accepted.values().for_each(|wire| wire.close());
        let pending = std::mem::take(&mut state.pending);
        drop(state);
        for pending in pending.into_values() {
            let _ = pending.answer.send(Err(Ended::Closed)); // as above
        }
    }

    /// Sends an answer to a lymph container by dialling it.
    pub(super) fn send_back(self: &Arc<Self>, address: &str, message: &Message) {
        for _ in 0..TRIES {
            let dial = self.dial(&mut self.state(), address);
            let Ok(dial) = dial else { return };
            match dial.wire.send(message) {
                Ok(()) => {
                    dial.wire.mark_used();
                    return;
                }
                Err(NotTaken::Full) => {
                    tracing::warn!(address, "a caller does not read its answers: closed");
                    dial.wire.close();
                    return;
                }
                Err(NotTaken::Closed) => {}
            }
        }
    }
}

/// Takes connections for ever.
async fn accept(inner: Arc<Inner>, mut listener: Box<dyn Listener>) {
    loop {
        match listener.accept().await {
            Ok(stream) => drop(tokio::spawn(Arc::clone(&inner).serve(stream))),
            Err(error) => {
                tracing::warn!(address = listener.address(), %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What the task of a connection that we made minds.
struct Dialled<'a> {
    inner: &'a Arc<Inner>,
    dial: &'a Arc<Dial>,
    /// The first ping that was not answered.
    asked: Option<Instant>,
    last: Instant,
}

impl Owner for Dialled<'_> {
    fn message(&mut self, frames: &[&[u8]]) {
        let wire = &self.dial.wire;
        self.inner.take(frames, || reply::Route::Same(Arc::clone(wire)), None);
    }

    fn tick(&mut self) -> Result<(), LinkError> {
        let (wire, config) = (&self.dial.wire, &self.inner.config);
        if wire.is_closed() {
            return Err(LinkError::Idle);
        }
        let late = self.last.elapsed() > 2 * self.inner.tick();
        self.last = Instant::now();
        if late || self.asked.is_some_and(|asked| wire.silence() < asked.elapsed()) {
            self.asked = None; // it was we who did not listen, or it answered
        }
        let busy = wire.open.load(Ordering::Relaxed) > 0;
        if !busy && wire.idle() > config.idle_disconnect {
            return Err(LinkError::Idle);
        }
        let silent = self.asked.map_or(Duration::ZERO, |asked| asked.elapsed());
        if silent >= config.unresponsive_disconnect {
            return Err(LinkError::Silent(silent));
        }
        if silent >= config.timeout {
            wire.set_unresponsive();
        }
        let in_use = busy || wire.idle() < config.idle_timeout || self.asked.is_some();
        let interval = config.heartbeat_interval;
        if in_use && !interval.is_zero() && wire.silence() >= interval {
            self.asked.get_or_insert_with(Instant::now);
            // Where so much waits that it is not taken, the silence is judged all the same.
            let _ = wire.send(&ping());
        }
        Ok(())
    }
}

fn ping() -> Message {
    #[derive(Serialize)]
    struct Ping {
        payload: &'static str,
    }
    let body = pack(&Ping { payload: "" }).expect("a text always packs");
    Message::request("lymph.ping", body)
}

/// What the task of a connection that was made to us minds.
struct Accepted<'a> {
    inner: &'a Arc<Inner>,
    wire: &'a Arc<Wire>,
    identity: String,
    /// A lymph container: answers go to its address.
    back: bool,
}

impl Owner for Accepted<'_> {
    fn message(&mut self, frames: &[&[u8]]) {
        if self.back
            && let Some(dial) = self.inner.state().dials.get(&self.identity)
        {
            dial.wire.hear();
        }
        let route = || {
            if self.back {
                reply::Route::Back(Arc::clone(self.inner), self.identity.clone())
            } else {
                reply::Route::Same(Arc::clone(self.wire))
            }
        };
        self.inner.take(frames, route, Some(self.wire));
    }

    fn tick(&mut self) -> Result<(), LinkError> {
        let unused = self.wire.silence() > self.inner.config.idle_disconnect;
        if self.wire.is_closed() || unused && self.wire.open.load(Ordering::Relaxed) == 0 {
            return Err(LinkError::Idle);
        }
        Ok(())
    }
}
