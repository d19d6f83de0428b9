//! Connections that we make: a call finds its own or makes it, and hears how it ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foldhash::HashSet;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::complaints::Peer;
use super::endpoint::{CallId, Inner, State, call_id};
use super::error::Error;
use super::link::{Link, LinkError, Owner};
use super::reply;
use super::wire::{Doubt, Liveness, NotTaken, Since, Wire};
use crate::wire::message::{DecodeError, Message, pack};
use crate::wire::words::Word;
use crate::wire::zmtp::Hello;

/// Times a call looks for a connection that does not end in the same moment.
const TRIES: usize = 3;

/// Shaking hands takes a round trip; what takes longer than this is passed over where there are others.
const HANDSHAKE: Duration = Duration::from_millis(500);

/// A call that waits for its answer.
pub(super) struct Pending {
    pub(super) answer: oneshot::Sender<Result<Message, Ended>>,
    dial: Arc<Dial>,
}

/// How the connection ended before the answer came.
pub(super) enum Ended {
    /// We closed everything.
    Closed,
    /// It was never made, or the request was not wholly written, or came when the service had said that it ends.
    NotConnected(Arc<LinkError>),
    /// The request may have left.
    Lost(Arc<LinkError>),
    /// It did not end: an answer came, which nobody can read.
    Unreadable(Arc<DecodeError>),
}

impl Ended {
    pub(super) fn error(self, address: &str, subject: String) -> Error {
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
pub(super) struct Dial {
    address: String,
    pub(super) wire: Arc<Wire>,
    connected: AtomicBool,
    begun: Instant,
    /// Of the endpoint's configuration.
    timeout: Duration,
    tick: Duration,
}

impl Dial {
    /// How the other side is. The system takes connections for a process that is stopped, too: who does not shake hands soon
    /// is as good as silent.
    pub(super) fn liveness(&self) -> Liveness {
        if !self.connected.load(Ordering::SeqCst) && self.begun.elapsed() > HANDSHAKE {
            return Liveness::Unresponsive;
        }
        self.wire.liveness(self.timeout, self.tick)
    }
}

/// Counts a call on its connection, and forgets it when nobody waits any longer.
pub(super) struct Call<'a> {
    inner: &'a Inner,
    id: CallId,
    dial: Arc<Dial>,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.dial.wire.open.fetch_sub(1, Ordering::Relaxed);
        let given_up = self.inner.state().pending.remove(&self.id).is_some();
        if given_up {
            self.dial.wire.give_up(self.id);
        }
    }
}

impl Call<'_> {
    /// It was not answered for so long: whether its instance gave no sign at all in this time. Then others are taken instead, until
    /// it gives one; it is asked for that.
    pub(super) fn is_silent(&self, waited: Duration) -> bool {
        let wire = &self.dial.wire;
        let doubt = wire.doubt(waited);
        if doubt == Some(Doubt::New) && self.dial.connected.load(Ordering::SeqCst) {
            let _ = wire.send(&ping()); // where so much waits that it is not taken, it stays doubtful
        }
        doubt.is_some()
    }
}

pub(super) type Answer = oneshot::Receiver<Result<Message, Ended>>;

impl Inner {
    /// Sends a request, and says where its answer will come.
    pub(super) fn begin(
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
            match call.dial.wire.request(message) {
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
        let takes = |dial: &&Arc<Dial>| dial.wire.takes_requests();
        if let Some(dial) = state.dials.get(address).filter(takes) {
            return Ok(Arc::clone(dial));
        }
        let dial = Arc::new(Dial {
            address: address.to_owned(),
            wire: Wire::early(self.config.max_waiting),
            connected: AtomicBool::new(false),
            begun: Instant::now(),
            timeout: self.config.timeout,
            tick: self.tick(),
        });
        state.dials.insert(address.to_owned(), Arc::clone(&dial));
        tokio::spawn(Arc::clone(self).keep(Arc::clone(&dial)));
        Ok(dial)
    }

    /// The life of a connection that we make.
    async fn keep(self: Arc<Self>, dial: Arc<Dial>) {
        let over = match self.connect(&dial.address).await {
            Ok(link) => {
                dial.wire.shaken(&link.peer);
                dial.connected.store(true, Ordering::SeqCst);
                let peer = Peer { address: dial.address.clone(), name: String::new() };
                let mut owner = Dialled { inner: &self, dial: &dial, watched: true, peer };
                Ok(link.run(&dial.wire, &mut owner, self.tick()).await)
            }
            Err(error) => Err(error),
        };
        dial.wire.close(); // from here on it takes nothing more
        let (unsent, error) = match over {
            Ok(over) => (over.unsent(&dial.wire), over.error),
            Err(error) => (HashSet::default(), error),
        };
        if let (LinkError::Zmtp(error), true) = (&error, dial.connected.load(Ordering::SeqCst)) {
            tracing::warn!(peer = dial.address, %error, "the connection is closed");
        } else {
            tracing::debug!(address = dial.address, %error, "connection ended");
        }
        self.end(&dial, Arc::new(error), &unsent);
    }

    async fn connect(&self, address: &str) -> Result<Link, LinkError> {
        let limit = self.config.handshake;
        let connecting = tokio::time::timeout(limit, self.network.connect(address));
        let stream = connecting.await.map_err(|_| LinkError::Handshake(limit))??;
        // A local socket needs no name: nobody dials back there, and the name may be taken by our own last connection.
        let identity = if address.starts_with("ipc:") { "" } else { &self.address };
        let identity = identity.as_bytes().to_vec();
        let hello = Hello { socket_type: "DEALER".into(), identity, cancels: false, leaves: true };
        Link::open(stream, &hello, self.config.max_message, limit).await
    }

    /// Forgets a connection that has ended, and tells everybody who waits on it; the requests in `unsent` did not get through.
    fn end(&self, dial: &Arc<Dial>, source: Arc<LinkError>, unsent: &HashSet<CallId>) {
        let connected = dial.connected.load(Ordering::SeqCst);
        let address = &dial.address;
        let lost = {
            let mut state = self.state();
            let _ = state.take_dial(dial);
            state.left.retain(|left| !Arc::ptr_eq(left, dial));
            if !matches!(*source, LinkError::Idle) {
                self.pass_over(&mut state, address);
            }
            let of_it = |_: &CallId, pending: &mut Pending| Arc::ptr_eq(&pending.dial, dial);
            state.pending.extract_if(of_it).collect::<Vec<_>>()
        };
        for (id, Pending { answer, .. }) in lost {
            let source = Arc::clone(&source);
            let ended = match () {
                () if self.closed.load(Ordering::SeqCst) => Ended::Closed,
                () if connected && !unsent.contains(&id) => Ended::Lost(source),
                () => Ended::NotConnected(source),
            };
            // Whoever does not wait any longer need not know.
            let _ = answer.send(Err(ended));
        }
    }

    /// For a while an address is called only where there is no other.
    fn pass_over(&self, state: &mut State, address: &str) {
        let now = Instant::now();
        state.refused.retain(|_, until| *until > now);
        state.refused.insert(address.to_owned(), now + self.config.retry_after);
    }

    /// A service ends: it gets no request of ours any more, and may still answer those that it has begun.
    fn leave(&self, dial: &Arc<Dial>) {
        let mut state = self.state();
        if let Some(dial) = state.take_dial(dial) {
            state.left.push(dial);
        }
        self.pass_over(&mut state, &dial.address);
        dial.wire.say_left();
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

impl State {
    /// Takes it out of those that are called, where it is still among them.
    fn take_dial(&mut self, dial: &Arc<Dial>) -> Option<Arc<Dial>> {
        let is_kept = self.dials.get(&dial.address).is_some_and(|kept| Arc::ptr_eq(kept, dial));
        if is_kept { self.dials.remove(&dial.address) } else { None }
    }
}

/// What the task of a connection that we made minds.
struct Dialled<'a> {
    inner: &'a Arc<Inner>,
    dial: &'a Arc<Dial>,
    /// Whether it was in use when last looked at, so that no silence was passed over.
    watched: bool,
    peer: Peer,
}

impl Owner for Dialled<'_> {
    fn message(&mut self, frames: &[&[u8]]) {
        let wire = &self.dial.wire;
        self.inner.take(frames, || reply::Route::Same(Arc::clone(wire)), None, &self.peer);
    }

    fn word(&mut self, word: Word<'_>) {
        match word {
            Word::Leave => self.inner.leave(self.dial),
            Word::Refused(id) => {
                let ended = Ended::NotConnected(Arc::new(LinkError::Leaving));
                self.inner.answered(&String::from_utf8_lossy(id), Err(ended));
            }
            Word::Cancel(_) | Word::Left => {} // it has asked us nothing
        }
    }

    fn tick(&mut self) -> Result<(), LinkError> {
        let (wire, config) = (&self.dial.wire, &self.inner.config);
        if wire.is_closed() {
            return Err(LinkError::Idle);
        }
        let late = wire.tick() > 2 * self.inner.tick();
        if late {
            wire.forgive();
        }
        let busy = wire.open.load(Ordering::Relaxed) > 0;
        if !busy && wire.idle() > config.idle_disconnect {
            return Err(LinkError::Idle);
        }
        let silent = wire.silent();
        if silent >= config.unresponsive_disconnect {
            return Err(LinkError::Silent(silent));
        }
        let in_use = busy || wire.idle() < config.idle_timeout || !silent.is_zero();
        let interval = config.heartbeat_interval;
        let watched = std::mem::replace(&mut self.watched, in_use) && !late;
        if in_use && !interval.is_zero() && wire.silence() >= interval {
            wire.asked(if watched { Since::LastSign } else { Since::Now });
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
