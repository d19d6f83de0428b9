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
//! What both have in common is here; what we dial is in `dialled`, what others dial in `accepted`.
//!
//! **Nothing is lost at the beginning**: a request waits until hands are shaken, and is told when that fails.
//! **Liveness**: a connection that is in use and silent is pinged each second; three seconds after the last sign its
//! instance is passed over, after thirty it is closed and the pings end with it. Where a call is given up without a sign since it
//! was made, others are taken instead until there is one. An unused connection is closed after a minute.
//! **Giving up**: who does not wait any longer says so on the same connection, and the other side stops working on it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::HashMap;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::accepted::accept;
use super::complaints::{Complaints, Peer};
use super::dialled::{Answer, Call, Dial, Ended, Pending};
use super::error::{Error, OVERLOADED};
use super::network::{Network, Sockets};
use super::reply;
pub use super::reply::{Incoming, ReplyChannel, ReplyError};
use super::room::Held;
use super::trace;
use super::wire::{Liveness, Wire};
use crate::wire::limits::MAX_ANSWER;
use crate::wire::message::{Headers, Kind, Message, NIL, new_id};

/// How connections are kept; lymph's keys under `container.rpc.connection` with lymph's defaults, and bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Between two pings of a silent connection in use; zero: no pings.
    pub heartbeat_interval: Duration,
    /// Silence, with a ping in it, from which on the other side is passed over.
    pub timeout: Duration,
    /// How long after its last call a connection counts as in use.
    pub idle_timeout: Duration,
    /// Silence, with a ping in it, that ends the connection.
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
    /// Bytes of memory that messages may hold that have not come whole, over all accepted connections; where there is no room
    /// left, who has come no further for the longest is closed. A message takes up to twice its size, and 128 KiB of each connection
    /// do not count.
    pub max_partial: usize,
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
            max_partial: 8 * MAX_ANSWER,
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
    pub(super) config: Config,
    pub(super) network: Arc<dyn Network>,
    handler: Arc<dyn Handler>,
    /// The first address that we listen at: our name for others; empty = none.
    pub(super) address: String,
    addresses: Vec<String>,
    state: Mutex<State>,
    pub(super) complaints: Complaints,
    /// What accepted connections hold of messages that have not come whole.
    pub(super) held: Arc<Held>,
    pub(super) closed: AtomicBool,
}

#[derive(Default)]
pub(super) struct State {
    /// By id of the request.
    pub(super) pending: HashMap<CallId, Pending>,
    pub(super) dials: HashMap<String, Arc<Dial>>,
    /// To services that end: what they have begun they may still answer.
    pub(super) left: Vec<Arc<Dial>>,
    /// Addresses that refused a connection, and how long they count as such.
    pub(super) refused: HashMap<String, Instant>,
    pub(super) accepted: HashMap<usize, Arc<Wire>>,
    /// Connections to us whose hands are not shaken yet.
    pub(super) shaking: usize,
    /// Callers of ours are told that we end.
    pub(super) leaving: bool,
    /// What accepts connections; none: we listen no longer.
    pub(super) listeners: Vec<AbortHandle>,
}

/// The id of a request of ours: 32 hex digits.
pub(super) type CallId = u128;

pub(super) fn call_id(text: &str) -> Option<CallId> {
    if text.len() == 32 { CallId::from_str_radix(text, 16).ok() } else { None }
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
            held: Held::new(config.max_partial),
            config,
            network,
            handler,
            address: addresses.first().cloned().unwrap_or_default(),
            addresses,
            state: Mutex::default(),
            complaints: Complaints::default(),
            closed: AtomicBool::new(false),
        });
        let accept = |listener| tokio::spawn(accept(Arc::clone(&inner), listener)).abort_handle();
        inner.state().listeners.extend(listeners.into_iter().map(accept));
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
    /// Dropping the future gives the call up: the other side, where it is one of ours, is told to stop working on it. A deadline of the current task (see [`trace`]) shortens the wait.
    ///
    /// # Errors
    /// [`Error::NotConnected`], [`Error::Lost`], [`Error::Timeout`], [`Error::Congested`], [`Error::Closed`].
    pub async fn request(&self, address: &str, outgoing: Outgoing) -> Result<Message, Error> {
        let Outgoing { subject, version, body, timeout, trace_id } = outgoing;
        let trace_id = Some(trace_id.unwrap_or_else(trace::trace_id_or_new));
        let headers = Headers { version, trace_id, ..Headers::default() };
        let (id, kind) = (new_id(), Kind::Request);
        let mut message = Message { id, kind, subject, headers, body };
        let begun = Instant::now();
        let timeout = trace::time_left(begun, timeout);
        let mut asked = self.ask(address, &mut message, begun, timeout)?;
        let late = || Error::Timeout { subject: message.subject.clone(), after: timeout };
        asked.answer(begun + timeout, address, &message).await.unwrap_or_else(|| Err(late()))
    }

    /// Sends this request, whose timeout it fills in; `now` is now.
    pub(super) fn ask(
        &self,
        address: &str,
        message: &mut Message,
        now: Instant,
        timeout: Duration,
    ) -> Result<Asked<'_>, Error> {
        message.headers.timeout = Some(timeout.as_secs_f64());
        let (answer, call) = self.inner.begin(address, message)?;
        Ok(Asked { answer, call, begun: now })
    }

    /// How an address is, as far as we know without asking.
    pub fn liveness(&self, address: &str) -> Liveness {
        let mut state = self.inner.state();
        if let Some(dial) = state.dials.get(address) {
            return dial.liveness();
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
        state.dials.len() + state.left.len() + state.accepted.len()
    }

    /// Requests of others that are being worked on.
    pub fn serving(&self) -> u32 {
        let state = self.inner.state();
        state.accepted.values().map(|wire| wire.open.load(Ordering::Relaxed)).sum()
    }

    /// Begins nothing more for callers of ours: they are told, also those that connect from now on, and what comes too late is refused.
    /// Others are served until [`Self::close`], and may still answer what we ask: lymph's containers connect to us for that.
    pub fn leave(&self) {
        let mut state = self.inner.state();
        state.leaving = true;
        state.accepted.values().for_each(|wire| wire.say_leave());
    }

    /// Leaves, lets what is being worked on finish within this time, and closes everything.
    pub async fn close(self, within: Duration) {
        self.leave();
        let deadline = Instant::now() + within;
        until(deadline, || self.serving() == 0).await;
        self.inner.state().stop_listening();
        let last = deadline.min(Instant::now() + LAST_REQUESTS);
        until(last, || !self.inner.state().may_be_asked()).await;
        until(deadline, || self.serving() == 0).await;
        self.inner.shut();
        until(deadline, || self.connections() == 0).await;
    }
}

async fn until(deadline: Instant, is_so: impl Fn() -> bool) {
    while !is_so() && Instant::now() < deadline {
        tokio::time::sleep(CLOSE_POLL).await;
    }
}

impl State {
    fn stop_listening(&mut self) {
        self.listeners.drain(..).for_each(|task| task.abort());
    }

    /// Whether requests may be on their way that were written before their callers heard of our end.
    fn may_be_asked(&self) -> bool {
        self.shaking > 0 || self.accepted.values().any(|wire| wire.is_awaited())
    }
}

/// A request that waits for its answer; dropped, it is given up.
pub(super) struct Asked<'a> {
    answer: Answer,
    call: Call<'a>,
    begun: Instant,
}

impl Asked<'_> {
    /// Its answer; `None` when there is none by then, and it may be waited for further.
    pub(super) async fn answer(
        &mut self,
        by: Instant,
        address: &str,
        request: &Message,
    ) -> Option<Result<Message, Error>> {
        match tokio::time::timeout_at(by, &mut self.answer).await {
            Ok(Ok(Ok(message))) => Some(Ok(message)),
            Ok(Ok(Err(ended))) => Some(Err(ended.error(address, request.subject.clone()))),
            Ok(Err(_)) => Some(Err(Error::Closed)),
            Err(_) => None,
        }
    }

    /// Whether nothing at all was heard of the other side since then. If so, others are taken instead, until it gives a sign.
    pub(super) fn is_silent(&self) -> bool {
        self.call.is_silent(self.begun.elapsed())
    }
}

/// How often a closing endpoint looks whether it is done.
const CLOSE_POLL: Duration = Duration::from_millis(5);
/// How long it waits for what callers wrote before they heard of the end: one that does not read holds up nobody.
const LAST_REQUESTS: Duration = Duration::from_millis(250);

impl Inner {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tick(&self) -> Duration {
        let interval = self.config.heartbeat_interval;
        if interval.is_zero() { Duration::from_secs(1) } else { interval }
    }

    /// A message from anybody: an answer finds its call, a request the handler. What cannot be read is refused where that can be told,
    /// or passed over.
    pub(super) fn take(
        self: &Arc<Self>,
        frames: &[&[u8]],
        route: impl FnOnce() -> reply::Route,
        open: Option<&Arc<Wire>>,
        peer: &Peer,
    ) {
        let message = match Message::decode(frames) {
            Ok(message) => message,
            Err(error) => {
                if let Some(id) = Message::salvage_id(frames) {
                    let trace_id = Message::salvage_trace(frames);
                    if self.complaints.is_to_be_told(peer) {
                        let subject = frames.get(2).map(|subject| String::from_utf8_lossy(subject));
                        let subject = subject.as_deref();
                        tracing::warn!(%peer, subject, trace_id, %error, "malformed: refused");
                    }
                    let nack = Message::answer(Kind::Nack, &id, trace_id, NIL.to_vec());
                    route().send(&nack);
                } else if let Some(id) = Message::salvage_subject(frames) {
                    self.answered(id, Err(Ended::Unreadable(Arc::new(error))));
                } else if self.complaints.is_to_be_told(peer) {
                    let bytes = frames.iter().map(|frame| frame.len()).sum::<usize>();
                    tracing::warn!(%peer, bytes, %error, "malformed: passed over");
                }
                return;
            }
        };
        if message.kind != Kind::Request {
            let id = message.subject.clone();
            self.answered(&id, Ok(message));
            return;
        }
        let is_ping = message.subject == "lymph.ping";
        if let Some(wire) = open.filter(|wire| !is_ping && wire.is_leaving()) {
            wire.refuse(&message.id);
            return;
        }
        let message = Arc::new(message);
        let channel = ReplyChannel::new(route(), &message, open);
        if is_ping {
            channel.pong(&message);
        } else if open.is_some_and(|wire| wire.open.load(Ordering::Relaxed) > self.config.max_open)
        {
            // The caller hears why; a failure to say it only means that it is gone.
            let _ = channel.error(OVERLOADED, "too many requests of this caller are open");
        } else {
            self.handler.request(Incoming { message, channel });
        }
    }

    /// Gives an answer to the call with this id.
    pub(super) fn answered(&self, id: &str, answer: Result<Message, Ended>) {
        let pending = call_id(id).and_then(|id| self.state().pending.remove(&id));
        if let Some(pending) = pending {
            // Whoever does not wait any longer need not know.
            let _ = pending.answer.send(answer);
        }
    }

    fn shut(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let mut state = self.state();
        state.stop_listening();
        state.dials.values().chain(&state.left).for_each(|dial| dial.wire.close());
        state.accepted.values().for_each(|wire| wire.close());
        let pending = std::mem::take(&mut state.pending);
        drop(state);
        for pending in pending.into_values() {
            let _ = pending.answer.send(Err(Ended::Closed)); // as above
        }
    }
}
