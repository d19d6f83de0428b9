//! What a container can be asked: methods, and the interfaces that hold them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::error::{Error, NAMELESS, OVERLOADED};
use super::network::BoxFuture;
use super::reply::ReplyChannel;
use crate::registry::{InvalidVersion, Version};
use crate::wire::Value;
use crate::wire::message::{DecodeError, Message};

/// A request at its method.
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) message: Arc<Message>,
    pub(super) trace_id: Arc<str>,
}

impl Request {
    /// `interface.method`.
    pub fn subject(&self) -> &str {
        &self.message.subject
    }

    /// The trace that it belongs to.
    pub fn trace_id(&self) -> &Arc<str> {
        &self.trace_id
    }

    /// The arguments as a type: a struct of their names, or [`Value`].
    ///
    /// # Errors
    /// When they have another shape; lymph refuses such a request.
    pub fn args<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        self.message.unpack()
    }
}

/// Why a method has no result.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The caller is told nothing but that it is refused: what lymph does for an exception that was not declared.
    Refused,
    /// The caller is told; `body` is a map with `type` and `message`.
    Named(Box<Value>),
}

impl Failure {
    /// A fault with a name; without one its name is [`NAMELESS`].
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        let kind = kind.into();
        let kind = if kind.is_empty() { NAMELESS.to_owned() } else { kind };
        let fields = [("type", kind), ("message", message.into())];
        Self::Named(Box::new(Value::map(fields.map(|(key, text)| (key, Value::Str(text))))))
    }
}

impl From<Error> for Failure {
    /// A named fault of a service further on is handed on, everything else refuses.
    fn from(error: Error) -> Self {
        match error {
            Error::Remote { body, .. } => Self::Named(body),
            // With a word more than a refusal has: here something was done.
            Error::Overloaded { subject, message } => {
                let fields =
                    [("type", OVERLOADED.into()), ("message", message), ("subject", subject)];
                Self::Named(Box::new(Value::map(fields.map(|(key, text)| (key, Value::Str(text))))))
            }
            other => {
                tracing::error!(error = %other, "a call of this method failed");
                Self::Refused
            }
        }
    }
}

type Run = Arc<dyn Fn(Request, ReplyChannel) -> BoxFuture<'static, ()> + Send + Sync>;

/// What an interface can be asked.
#[derive(Clone)]
pub struct Method {
    pub(super) name: String,
    pub(super) params: Vec<String>,
    pub(super) optional: Vec<String>,
    pub(super) raises: Vec<String>,
    pub(super) help: String,
    pub(super) uncancelled: bool,
    pub(super) run: Run,
}

impl Method {
    /// A method that answers by its channel, how and when it likes.
    pub fn raw<F, Fut>(name: impl Into<String>, run: F) -> Self
    where
        F: Fn(Request, ReplyChannel) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self {
            name: name.into(),
            params: Vec::new(),
            optional: Vec::new(),
            raises: Vec::new(),
            help: String::new(),
            uncancelled: false,
            run: Arc::new(move |request, channel| Box::pin(run(request, channel))),
        }
    }

    /// A method that takes arguments of a type and returns a result. Arguments that do not fit are refused.
    pub fn rpc<A, R, F, Fut>(name: impl Into<String>, run: F) -> Self
    where
        A: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        F: Fn(A, Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Failure>> + Send + 'static,
    {
        let run = Arc::new(run);
        Self::raw(name, move |request, channel| {
            let run = Arc::clone(&run);
            async move {
                let args = match request.args() {
                    Ok(args) => args,
                    Err(error) => {
                        tracing::warn!(subject = request.subject(), %error, "wrong arguments: refused");
                        return; // dropping the channel refuses
                    }
                };
                let message = Arc::clone(&request.message);
                let answered = match run(args, request).await {
                    Ok(result) => channel.reply(&result),
                    Err(Failure::Named(body)) => channel.error_with(&body),
                    Err(Failure::Refused) => channel.nack(),
                };
                if let Err(error) = answered {
                    let subject = &message.subject;
                    tracing::error!(subject, %error, "the result could not be sent: refused");
                }
            }
        })
    }

    /// Names its parameters, for `lymph.inspect`.
    #[must_use]
    pub fn params<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.params = names.into_iter().map(Into::into).collect();
        self
    }

    /// Names those of its parameters that may be left out, for `lymph.inspect`.
    #[must_use]
    pub fn optional<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.optional = names.into_iter().map(Into::into).collect();
        self
    }

    /// Names the errors that its callers get as such, for `lymph.inspect`.
    #[must_use]
    pub fn raises<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.raises = names.into_iter().map(Into::into).collect();
        self
    }

    /// Says what it does, for `lymph.inspect`.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = text.into();
        self
    }

    /// It works on when its caller has stopped waiting.
    #[must_use]
    pub fn uncancelled(mut self) -> Self {
        self.uncancelled = true;
        self
    }
}

/// Methods under a name, in a version.
pub struct Interface {
    pub(super) name: String,
    pub(super) version: Option<Version>,
    pub(super) methods: BTreeMap<String, Method>,
    pub(super) limit: Option<Limit>,
}

/// How many requests of an interface are worked on at once, and how many wait.
pub(super) struct Limit {
    pub(super) at_once: usize,
    pub(super) permits: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    pub(super) queue: usize,
}

impl Interface {
    /// An interface without methods and version.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), version: None, methods: BTreeMap::new(), limit: None }
    }

    /// Gives it a version; `1.2` is `1.2.0`.
    ///
    /// # Errors
    /// When the text is no version.
    pub fn version(self, text: &str) -> Result<Self, InvalidVersion> {
        Ok(self.at_version(Version::parse(text)?))
    }

    /// Gives it a version.
    #[must_use]
    pub fn at_version(mut self, version: Version) -> Self {
        self.version = Some(version);
        self
    }

    /// At most so many requests are worked on at once, and so many more wait; the rest is told `Overloaded`.
    #[must_use]
    pub fn concurrency(mut self, at_once: usize, waiting: usize) -> Self {
        let at_once = at_once.clamp(1, Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(at_once));
        self.limit = Some(Limit { at_once, permits, waiting: Arc::default(), queue: waiting });
        self
    }

    /// Adds a method, in place of one of the same name.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.methods.insert(method.name.clone(), method);
        self
    }

    /// Its name and version, as it is registered.
    pub fn id(&self) -> (&str, Option<&Version>) {
        (&self.name, self.version.as_ref())
    }
}

impl Limit {
    /// A place among those who wait.
    pub(super) fn wait(&self) -> Option<Turn> {
        let turn = Turn(Arc::clone(&self.waiting));
        (turn.0.fetch_add(1, Ordering::Relaxed) < self.queue).then_some(turn)
    }
}

/// One who waits for a permit.
pub(super) struct Turn(Arc<AtomicUsize>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Leave to be worked on, or to wait for it.
pub(super) enum Permit {
    Have(tokio::sync::OwnedSemaphorePermit),
    Wait(Arc<Semaphore>, Turn),
}
