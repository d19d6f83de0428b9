//! A request at its server, and the way back for its answer.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;

use super::endpoint::Inner;
use super::error::NAMELESS;
use super::wire::Wire;
use crate::wire::Value;
use crate::wire::message::{EncodeError, Kind, Message, NIL, new_id, pack};

/// A request that came.
pub struct Incoming {
    /// The request.
    pub message: Arc<Message>,
    /// The way back.
    pub channel: ReplyChannel,
}

/// Where an answer goes.
pub(super) enum Route {
    /// On the connection that the request came on.
    Same(Arc<Wire>),
    /// To a lymph container's address.
    Back(Arc<Inner>, String),
}

impl Route {
    pub(super) fn send(&self, message: &Message) {
        match self {
            Self::Same(wire) => wire.answer(message),
            Self::Back(inner, address) => inner.send_back(address, message),
        }
    }
}

/// Why an answer was not sent.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// The request has its answer: only the first counts.
    #[error("this request is answered already")]
    Answered,
    /// The value cannot be sent; the request is still open.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// The way back for an answer. Clones are the same channel: the first answer counts, and when the last clone is dropped
/// without one (by a panic, too), the request is refused, so that no caller waits in vain.
#[derive(Clone)]
pub struct ReplyChannel {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    route: Mutex<Option<Route>>,
    request: Arc<Message>,
    /// Where the request has none.
    new_trace: Option<String>,
    /// Of the interface that answers, once one was found that has the method.
    served_by: OnceLock<Option<String>>,
    /// Counts what its caller has open.
    open: Option<Arc<Wire>>,
    /// What works on it, where that ends with its caller's wish.
    task: OnceLock<AbortHandle>,
}

/// The requests of one connection that can be ended, each by the beginning of its id. Those that are done are forgotten only when
/// there are many: a request that nobody cancels costs no search.
#[derive(Default)]
pub(super) struct Begun {
    requests: Vec<(Key, Weak<Shared>)>,
    /// From so many on those that are done are forgotten.
    most: usize,
}

/// Sixteen of an id's 32 hex digits are random enough to find it.
type Key = [u8; 16];

fn key(id: &[u8]) -> Key {
    let mut key = Key::default();
    let length = id.len().min(key.len());
    key[..length].copy_from_slice(&id[..length]);
    key
}

impl Begun {
    fn add(&mut self, request: &Arc<Shared>) {
        if self.requests.len() >= self.most {
            self.requests.retain(|(_, request)| request.strong_count() > 0);
            self.most = (2 * self.requests.len()).max(64);
        }
        self.requests.push((key(request.request.id.as_bytes()), Arc::downgrade(request)));
    }

    /// Ends the work on a request, without an answer.
    pub(super) fn cancel(&mut self, id: &[u8]) {
        let sought = key(id);
        let of_key = self.requests.iter().filter(|(key, _)| *key == sought);
        let found = of_key.filter_map(|(_, request)| request.upgrade());
        found.filter(|request| request.request.id.as_bytes() == id).for_each(|one| one.end());
    }

    /// Ends the work on all of them.
    pub(super) fn cancel_all(&mut self) {
        self.requests
            .drain(..)
            .filter_map(|(_, request)| request.upgrade())
            .for_each(|one| one.end());
    }
}

impl ReplyChannel {
    pub(super) fn new(route: Route, request: &Arc<Message>, open: Option<&Arc<Wire>>) -> Self {
        if let Some(wire) = open {
            wire.open.fetch_add(1, Ordering::Relaxed);
        }
        let shared = Shared {
            route: Mutex::new(Some(route)),
            request: Arc::clone(request),
            new_trace: request.headers.trace_id.is_none().then(new_id),
            served_by: OnceLock::new(),
            open: open.cloned(),
            task: OnceLock::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The trace of the request; a new one where it came without.
    pub fn trace_id(&self) -> &str {
        self.shared.trace_id()
    }

    /// What was called.
    pub fn subject(&self) -> &str {
        &self.shared.request.subject
    }

    /// Says that an interface has what is asked for, and its version. The first word counts.
    pub(super) fn served_by(&self, version: Option<&str>) {
        let _ = self.shared.served_by.set(version.map(str::to_owned)); // it is said once, by the server
    }

    /// Whether an answer was given.
    pub fn is_answered(&self) -> bool {
        self.shared.route.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Whether the caller's connection has ended, so that nobody waits for an answer.
    pub fn is_abandoned(&self) -> bool {
        let route = self.shared.route.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(&*route, Some(Route::Same(wire)) if wire.is_closed())
    }

    /// The result.
    ///
    /// # Errors
    /// When it is answered already, or the value has no MessagePack form.
    pub fn reply<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), ReplyError> {
        self.shared.send(Kind::Reply, pack(value)?)
    }

    /// Taken, without a result.
    ///
    /// # Errors
    /// When it is answered already.
    pub fn ack(&self) -> Result<(), ReplyError> {
        self.shared.send(Kind::Ack, NIL.to_vec())
    }

    /// Refused, without a reason.
    ///
    /// # Errors
    /// When it is answered already.
    pub fn nack(&self) -> Result<(), ReplyError> {
        self.shared.send(Kind::Nack, NIL.to_vec())
    }

    /// A fault with a name; without one its name is [`NAMELESS`].
    ///
    /// # Errors
    /// When it is answered already.
    pub fn error(&self, kind: &str, message: &str) -> Result<(), ReplyError> {
        #[derive(Serialize)]
        struct Fault<'a> {
            #[serde(rename = "type")]
            kind: &'a str,
            message: &'a str,
        }
        let kind = if kind.is_empty() { NAMELESS } else { kind };
        self.shared.send(Kind::Error, pack(&Fault { kind, message })?)
    }

    /// A fault as a map of yours; lymph looks for `type` and `message` in it.
    ///
    /// # Errors
    /// As [`ReplyChannel::reply`].
    pub fn error_with<T: Serialize + ?Sized>(&self, body: &T) -> Result<(), ReplyError> {
        self.shared.send(Kind::Error, pack(body)?)
    }

    /// Nobody waits for an answer any longer: none is sent, no refusal either.
    pub(super) fn abandon(&self) {
        self.shared.abandon();
    }

    /// This task ends when the caller says that it does not wait any longer.
    pub(super) fn ended_by(&self, task: AbortHandle) {
        if let Some(wire) = &self.shared.open {
            let _ = self.shared.task.set(task); // it is said once, by the server
            wire.begun.lock().unwrap_or_else(PoisonError::into_inner).add(&self.shared);
        }
    }

    /// The answer to `lymph.ping`: its payload, whatever it is.
    pub(super) fn pong(&self, request: &Message) {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Ping {
            payload: Value,
        }
        // Dropped without an answer it is refused.
        if let Ok(ping) = request.unpack::<Option<Ping>>() {
            let _ = self.reply(&ping.unwrap_or_default().payload);
        }
    }
}

impl Shared {
    fn trace_id(&self) -> &str {
        let trace = self.request.headers.trace_id.as_ref().or(self.new_trace.as_ref());
        trace.map(String::as_str).unwrap_or_default()
    }

    /// Nobody waits: no answer is sent, and what works on it ends.
    fn end(&self) {
        self.abandon();
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    fn abandon(&self) {
        self.route.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn send(&self, kind: Kind, body: Vec<u8>) -> Result<(), ReplyError> {
        let route = self.route.lock().unwrap_or_else(PoisonError::into_inner).take();
        let route = route.ok_or(ReplyError::Answered)?;
        let trace_id = Some(self.trace_id().to_owned());
        let mut message = Message::answer(kind, &self.request.id, trace_id, body);
        message.headers.unserved = kind == Kind::Nack && self.served_by.get().is_none();
        message.headers.version = self.served_by.get().cloned().flatten();
        route.send(&message);
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = self.send(Kind::Nack, NIL.to_vec()); // answered already: as it should be
        if let Some(wire) = &self.open {
            let open: &AtomicU32 = &wire.open;
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
