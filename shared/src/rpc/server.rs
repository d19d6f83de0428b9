//! From a request to the method that answers it.
//!
//! A [`Server`] holds [`Interface`]s, each with methods, and answers what every container answers (`lymph.ping`, `status`, `inspect`,
//! `get_metrics`, `change_loglevel`), whatever version the request names for those. Each request is a task of its own, in
//! the trace of its caller, and ends when the caller has stopped waiting. A handler that panics has refused its request.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::endpoint::Handler;
use super::error::OVERLOADED;
use super::interface::{Failure, Interface, Permit, Request};
use super::loglevel::ChangeLoglevel;
use super::reply::{Incoming, ReplyChannel};
use super::trace::{self, Scope};
use crate::registry::{Instance, Version};
use crate::wire::Value;
use crate::wire::message::Message;

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
                Err(_) => match limit.wait() {
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
