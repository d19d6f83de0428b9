//! From a request to the method that answers it.
//!
//! A [`Server`] holds [`Interface`]s, each with [`Method`]s, and answers what every container answers (`lymph.ping`, `status`, `inspect`,
//! `get_metrics`, `change_loglevel`), whatever version the request names for those. Each request is a task of its own, in
//! the trace of its caller, and ends when the caller has stopped waiting. A handler that panics has refused its request.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::endpoint::Handler;
use super::error::{Error, OVERLOADED};
use super::loglevel::ChangeLoglevel;
use super::network::BoxFuture;
use super::reply::{Incoming, ReplyChannel};
use super::trace::{self, Scope};
use crate::registry::{Instance, InvalidVersion, Version};
use crate::wire::Value;
use crate::wire::message::{DecodeError, Message};

/// A request at its method.
#[derive(Clone, Debug)]
pub struct Request {
    message: Arc<Message>,
    trace_id: Arc<str>,
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
    /// A fault with a name.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        let fields = [("type", kind.into()), ("message", message.into())];
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
    name: String,
    params: Vec<String>,
    optional: Vec<String>,
    raises: Vec<String>,
    help: String,
    uncancelled: bool,
    run: Run,
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
    name: String,
    version: Option<Version>,
    methods: BTreeMap<String, Method>,
    limit: Option<Limit>,
}

struct Limit {
    at_once: usize,
    permits: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    queue: usize,
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

/// Why a request came to no method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// There is no such interface, version or method.
    Unknown,
    /// Its interface has too many already.
    Overloaded,
}

type Metrics = Box<dyn Fn() -> Value + Send + Sync>;
type Loglevel = Box<dyn Fn(&str, &str, Duration) -> Result<(), Failure> + Send + Sync>;

/// Hears the subject of a request that no method answers, and why.
type OnTurnedAway = Box<dyn Fn(&str, TurnedAway) + Send + Sync>;

/// All interfaces of a container; the [`Handler`] of its endpoint.
#[derive(Default)]
pub struct Server {
    /// By name, the highest version last and one without a version first.
    interfaces: BTreeMap<String, Vec<Interface>>,
    identity: String,
    endpoint: OnceLock<String>,
    metrics: Option<Metrics>,
    loglevel: Option<Loglevel>,
    turned_away: Option<OnTurnedAway>,
}

impl Server {
    /// A server that answers only what every container answers; `identity` is what `lymph.status` says (by default
    /// that of its endpoint).
    pub fn new(identity: impl Into<String>) -> Self {
        Self { identity: identity.into(), ..Self::default() }
    }

    /// Adds an interface; a second one of the same name and version takes the first's place.
    #[must_use]
    pub fn interface(mut self, interface: Interface) -> Self {
        let versions = self.interfaces.entry(interface.name.clone()).or_default();
        versions.retain(|other| other.version != interface.version);
        versions.push(interface);
        versions.sort_by(|one, other| one.version.cmp(&other.version));
        self
    }

    /// What `lymph.get_metrics` answers: an array of `[name, value, tags]`.
    #[must_use]
    pub fn metrics(mut self, read: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        self.metrics = Some(Box::new(read));
        self
    }

    /// What `lymph.change_loglevel` does: logger, level and how long.
    #[must_use]
    pub fn change_loglevel(
        mut self,
        change: impl Fn(&str, &str, Duration) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Self {
        self.loglevel = Some(Box::new(change));
        self
    }

    /// Who is told the subjects of requests that come to no method.
    #[must_use]
    pub fn turned_away(mut self, tell: impl Fn(&str, TurnedAway) + Send + Sync + 'static) -> Self {
        self.turned_away = Some(Box::new(tell));
        self
    }

    /// Says where it is reached, once that is known. The first word counts.
    pub fn set_endpoint(&self, address: &str) {
        let _ = self.endpoint.set(address.to_owned()); // documented
    }

    /// The interfaces, as they are registered.
    pub fn interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.interfaces.values().flatten()
    }

    /// The interface that a request means: exactly the version that it names, else the one without a version, else the highest.
    fn find(&self, name: &str, version: Option<&str>) -> Option<&Interface> {
        let versions = self.interfaces.get(name)?;
        match version {
            Some(text) => {
                let version = Some(Version::parse(text).ok()?);
                versions.iter().find(|interface| interface.version == version)
            }
            None => versions
                .iter()
                .find(|interface| interface.version.is_none())
                .or_else(|| versions.last()),
        }
    }

    fn run(&self, incoming: Incoming) {
        let Incoming { message, channel } = incoming;
        let trace_id = message.headers.trace_id.as_deref();
        let turned_away = |why| {
            if let Some(tell) = &self.turned_away {
                tell(&message.subject, why);
            }
        };
        let unknown = |what: &str| {
            turned_away(TurnedAway::Unknown);
            tracing::warn!(subject = message.subject, trace_id, what, "refused");
        };
        let Some((interface, method)) = message.interface_and_method() else {
            return unknown("no interface named");
        };
        if interface == "lymph" {
            return self.builtin(method, &message, &channel);
        }
        let Some(interface) = self.find(interface, message.headers.version.as_deref()) else {
            return unknown("unknown interface or version");
        };
        let Some(method) = interface.methods.get(method) else {
            return unknown("unknown method");
        };
        channel.served_by(interface.version.as_ref().map(Version::as_str));
        let permit = match &interface.limit {
            None => None,
            Some(limit) => match Arc::clone(&limit.permits).try_acquire_owned() {
                Ok(permit) => Some(Permit::Have(permit)),
                Err(_) => match limit.queue() {
                    Some(turn) => Some(Permit::Wait(Arc::clone(&limit.permits), turn)),
                    None => {
                        turned_away(TurnedAway::Overloaded);
                        // The caller hears why; a failure to say it only means that it is gone.
                        let at_once = limit.at_once;
                        let queue = limit.queue;
                        let why =
                            format!("{at_once} requests are worked on and {queue} wait already");
                        let _ = channel.error(OVERLOADED, &why);
                        return;
                    }
                },
            },
        };
        // A request that came from far away may name any number.
        let wait = message.headers.timeout.and_then(|wait| Duration::try_from_secs_f64(wait).ok());
        let deadline = wait.and_then(|wait| Instant::now().checked_add(wait));
        let trace_id: Arc<str> = channel.trace_id().into();
        let current = Scope { trace_id: Arc::clone(&trace_id), deadline };
        let watch = PanicWatch(Arc::clone(&message));
        let run = Arc::clone(&method.run);
        let cancelled_at = deadline.filter(|_| !method.uncancelled);
        let its = channel.clone();
        // The method's own future lies elsewhere: this task is small.
        let task = tokio::spawn(trace::scope(current, async move {
            let _watch = watch;
            let back = channel.clone();
            let _permit = match permit {
                Some(Permit::Wait(permits, turn)) => {
                    let permit = until(cancelled_at, permits.acquire_owned()).await;
                    drop(turn);
                    match permit {
                        Some(permit) => permit.ok(),
                        None => return back.abandon(),
                    }
                }
                Some(Permit::Have(permit)) => Some(permit),
                None => None,
            };
            if cancelled_at.is_some_and(|at| at <= Instant::now()) {
                return back.abandon(); // its turn came too late
            }
            // Nobody waits any longer: what it would answer is of no use, and a refusal would be taken for its answer.
            if until(cancelled_at, run(Request { message, trace_id }, channel)).await.is_none() {
                back.abandon();
            }
        }));
        if !method.uncancelled {
            its.ended_by(task.abort_handle());
        }
    }

    fn builtin(&self, method: &str, message: &Message, channel: &ReplyChannel) {
        let answered = match method {
            "status" => {
                let endpoint = self.endpoint.get().map(String::as_str).unwrap_or_default();
                let identity = match self.identity.as_str() {
                    "" => Instance::identity_of(endpoint),
                    given => given.to_owned(),
                };
                let fields = [("endpoint", endpoint), ("identity", &identity)];
                channel.reply(&Value::map(fields.map(|(key, text)| (key, Value::from(text)))))
            }
            "inspect" => channel.reply(&Methods { methods: self.inspect() }),
            "get_metrics" => {
                let none = || Value::List(Vec::new());
                channel.reply(&self.metrics.as_ref().map_or_else(none, |read| read()))
            }
            "change_loglevel" => match (message.unpack::<ChangeLoglevel>(), &self.loglevel) {
                (Ok(args), Some(change)) => {
                    let lasts = args.lasts();
                    let lasts =
                        lasts.map_err(|wrong| Failure::new("LevelError", wrong.to_string()));
                    match lasts.and_then(|lasts| change(&args.qualname, &args.loglevel, lasts)) {
                        Ok(()) => channel.reply(&()),
                        Err(Failure::Named(body)) => channel.error_with(&body),
                        Err(Failure::Refused) => channel.nack(),
                    }
                }
                _ => channel.nack(),
            },
            _ => channel.nack(),
        };
        if let Err(error) = answered {
            tracing::error!(subject = message.subject, %error, "the answer could not be sent");
        }
    }

    fn inspect(&self) -> Vec<MethodInfo> {
        let theirs = self.interfaces.values().flatten().flat_map(|interface| {
            let version = interface.version.as_ref().map_or("None", |version| version.as_str());
            interface.methods.values().map(move |method| MethodInfo {
                name: format!("{}.{}", interface.name, method.name),
                version: version.to_owned(),
                params: method.params.clone(),
                optional: method.optional.clone(),
                raises: method.raises.clone(),
                help: method.help.clone(),
            })
        });
        let ours = BUILTIN.iter().map(|(name, params, optional, help)| MethodInfo {
            name: format!("lymph.{name}"),
            version: "None".to_owned(),
            params: params.iter().map(|name| (*name).to_owned()).collect(),
            optional: optional.iter().map(|name| (*name).to_owned()).collect(),
            raises: Vec::new(),
            help: (*help).to_owned(),
        });
        theirs.chain(ours).collect()
    }
}

/// What comes of it before that time.
async fn until<F: Future>(at: Option<Instant>, future: F) -> Option<F::Output> {
    match at {
        Some(at) => tokio::time::timeout_at(at, future).await.ok(),
        None => Some(future.await),
    }
}

impl Handler for Server {
    fn request(&self, incoming: Incoming) {
        self.run(incoming);
    }
}

impl Limit {
    /// A place among those who wait.
    fn queue(&self) -> Option<Turn> {
        let turn = Turn(Arc::clone(&self.waiting));
        (turn.0.fetch_add(1, Ordering::Relaxed) < self.queue).then_some(turn)
    }
}

/// One who waits for a permit.
struct Turn(Arc<AtomicUsize>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Permit {
    Have(tokio::sync::OwnedSemaphorePermit),
    Wait(Arc<Semaphore>, Turn),
}

/// Says whose handler panicked; the request is refused by the end of its channel.
struct PanicWatch(Arc<Message>);

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (subject, trace_id) = (&self.0.subject, &self.0.headers.trace_id);
            tracing::error!(subject, trace_id, "the handler panicked: refused");
        }
    }
}

#[derive(Serialize)]
struct Methods {
    methods: Vec<MethodInfo>,
}

#[derive(Serialize)]
struct MethodInfo {
    name: String,
    version: String,
    params: Vec<String>,
    /// Those of them that may be left out. lymph has neither this key nor the next, and passes over both.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    optional: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    raises: Vec<String>,
    help: String,
}

const BUILTIN: [(&str, &[&str], &[&str], &str); 5] = [
    (
        "change_loglevel",
        &["qualname", "loglevel", "period"],
        &["period"],
        "Changes the level of a logger for some seconds.",
    ),
    ("get_metrics", &[], &[], "Returns the present metrics."),
    ("inspect", &[], &[], "Returns all methods."),
    ("ping", &["payload"], &["payload"], "Returns the payload."),
    ("status", &[], &[], "Returns where the container is reached, and its identity."),
];
