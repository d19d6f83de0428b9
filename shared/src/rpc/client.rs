//! Calls of services by name.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::HashMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::endpoint::Endpoint;
use super::error::Error;
use super::link::Liveness;
use super::proxy::Proxy;
use super::select::Balance;
use crate::registry::{Instance, Lookup, Registry, Version, VersionRequest};
use crate::wire::Value;
use crate::wire::message::{Headers, Kind, Message, new_id, pack};

/// How a call is made.
#[derive(Clone, Debug)]
pub struct CallOptions {
    /// The service or the address (`tcp://…`, `ipc://…`) that is asked; `None`: the service that the subject names.
    pub target: Option<String>,
    /// Only instances of a compatible version.
    pub version: Option<VersionRequest>,
    /// How long to wait for the answer, all tries together.
    pub timeout: Duration,
    /// Which of several instances.
    pub balance: Balance,
    /// How many times to try again after a lost connection or a try that took too long, where working on it twice does no harm. A
    /// request that did not leave goes to another instance in any case.
    pub retries: u32,
    /// How long a try may take while there is another; `None`: as long as there is time.
    pub try_timeout: Option<Duration>,
    /// The trace; `None`: that of the current task, or a new one.
    pub trace_id: Option<String>,
}

impl Default for CallOptions {
    /// Three seconds, as in lymph; random; no tries again.
    fn default() -> Self {
        Self {
            target: None,
            version: None,
            timeout: Duration::from_secs(3),
            balance: Balance::Random,
            retries: 0,
            try_timeout: None,
            trace_id: None,
        }
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The message: a REP, or an ACK with nil; of [`Client::exchange`] also a NACK or an ERROR.
    pub message: Message,
    /// Who answered.
    pub address: String,
}

impl Reply {
    /// What it says to a call of `subject`.
    ///
    /// # Errors
    /// When it is a NACK or an ERROR.
    pub fn understood(self, subject: &str) -> Result<Self, Error> {
        match self.message.kind {
            Kind::Nack => Err(Error::Nack { subject: subject.to_owned() }),
            Kind::Error => {
                let wrong = |source| Error::Answer {
                    subject: subject.to_owned(),
                    source: Arc::new(source),
                };
                let body: Value = self.message.unpack().map_err(wrong)?;
                let text =
                    |key| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                let kind = Some(text("type")).filter(|kind| !kind.is_empty());
                Err(Error::Remote {
                    kind: kind.unwrap_or_else(|| "RemoteError".to_owned()),
                    message: text("message"),
                    body: Box::new(body),
                })
            }
            Kind::Reply | Kind::Ack | Kind::Request => Ok(self),
        }
    }
}

/// Calls services by name. Clones are the same client.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    registry: Arc<dyn Registry>,
    services: Mutex<HashMap<String, Arc<Known>>>,
    budget: Budget,
}

struct Known {
    lookup: Lookup,
    turn: AtomicUsize,
}

/// Tries again cost what calls that were answered earn: ten at once, one for each ten answers in the long run, so that a service
/// that is down is not buried under them.
struct Budget(AtomicI64);

impl Budget {
    const TRY: i64 = 10;
    const MOST: i64 = 10 * Self::TRY;

    fn earn(&self) {
        let earn = |have: i64| (have < Self::MOST).then_some(have + 1);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earn); // full is full
    }

    fn has(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= Self::TRY
    }

    fn spend(&self) -> bool {
        let spend = |have: i64| (have >= Self::TRY).then_some(have - Self::TRY);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }
}

/// One instance, as a call goes to it.
struct Chosen {
    address: String,
    version: Option<String>,
}

impl Client {
    /// A client that calls through an endpoint whom a registry knows.
    pub fn new(endpoint: Endpoint, registry: Arc<dyn Registry>) -> Self {
        let budget = Budget(AtomicI64::new(Budget::MOST));
        let services = Mutex::default();
        Self { shared: Arc::new(Shared { endpoint, registry, services, budget }) }
    }

    /// The endpoint that it calls through.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// The registry that it asks.
    pub fn registry(&self) -> &Arc<dyn Registry> {
        &self.shared.registry
    }

    /// A service (or an address) to call with the same options again and again.
    pub fn proxy(&self, service: impl Into<String>) -> Proxy {
        Proxy::new(self.clone(), service.into())
    }

    /// Calls `service.method` and waits for its result as a type.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn call<A, R>(
        &self,
        subject: &str,
        args: &A,
        options: &CallOptions,
    ) -> Result<R, Error>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let reply = self.request(subject, args, options).await?;
        let answer =
            |source| Error::Answer { subject: subject.to_owned(), source: Arc::new(source) };
        reply.message.unpack().map_err(answer)
    }

    /// Calls `service.method` and waits for its answer.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn request<A>(
        &self,
        subject: &str,
        args: &A,
        options: &CallOptions,
    ) -> Result<Reply, Error>
    where
        A: Serialize + ?Sized,
    {
        self.exchange(subject, args, options).await?.understood(subject)
    }

    /// Calls `service.method` and waits for its answer, whatever it is.
    ///
    /// # Errors
    /// When there is none.
    pub async fn exchange<A>(
        &self,
        subject: &str,
        args: &A,
        options: &CallOptions,
    ) -> Result<Reply, Error>
    where
        A: Serialize + ?Sized,
    {
        let arguments =
            |source| Error::Arguments { subject: subject.to_owned(), source: Arc::new(source) };
        let body = pack(args).map_err(arguments)?;
        let Some((interface, _)) = subject.rsplit_once('.') else {
            return Err(Error::Subject { subject: subject.to_owned() });
        };
        let target = options.target.as_deref().unwrap_or(interface);
        self.tries(subject, target, body, options).await
    }

    async fn tries(
        &self,
        subject: &str,
        target: &str,
        body: Vec<u8>,
        options: &CallOptions,
    ) -> Result<Reply, Error> {
        let mut retries = options.retries;
        let mut tried = Vec::new();
        let deadline = Instant::now() + options.timeout;
        let timeout = || Error::Timeout { subject: subject.to_owned(), after: options.timeout };
        let trace_id = options.trace_id.clone().unwrap_or_else(super::trace::trace_id_or_new);
        let headers = Headers { trace_id: Some(trace_id), ..Headers::default() };
        let (id, kind) = (new_id(), Kind::Request);
        let mut request = Message { id, kind, subject: subject.to_owned(), headers, body };
        loop {
            let chosen = if target.contains("://") {
                let version = options.version.as_ref().map(ToString::to_string);
                Chosen { address: target.to_owned(), version }
            } else {
                let known = match self.known(target) {
                    Some(known) => known,
                    None => tokio::time::timeout_at(deadline, self.look_up(target))
                        .await
                        .map_err(|_| timeout())??,
                };
                self.choose(&known, target, options, &tried)?
            };
            let left = deadline.saturating_duration_since(Instant::now());
            // Every container has this one, whatever version it was chosen by; lymph refuses that version here.
            request.headers.version = chosen.version.filter(|_| !subject.starts_with("lymph."));
            let more = retries > 0 && self.shared.budget.has();
            let within = options.try_timeout.filter(|_| more).map_or(left, |limit| left.min(limit));
            let error = match self.shared.endpoint.ask(&chosen.address, &mut request, within).await
            {
                Ok(message) => {
                    self.shared.budget.earn();
                    return Ok(Reply { message, address: chosen.address });
                }
                // However much of the time the tries before it took.
                Err(Error::Timeout { .. }) if within == left => return Err(timeout()),
                Err(error) => error,
            };
            let direct = target.contains("://");
            if error.not_sent() && !direct {
                tried.push(chosen.address);
            } else if retries > 0 && error.is_transient() && self.shared.budget.spend() {
                retries -= 1;
                tried.push(chosen.address);
            } else {
                return Err(error);
            }
            tracing::debug!(subject, %error, "trying again");
            request.id = new_id(); // a late answer is not taken for that of the next try
        }
    }

    /// The instance to call: not one that was tried while there are others.
    fn choose(
        &self,
        known: &Known,
        target: &str,
        options: &CallOptions,
        tried: &[String],
    ) -> Result<Chosen, Error> {
        let all = known.lookup.instances();
        if all.is_empty() {
            return Err(Error::NoSuchService { service: target.to_owned() });
        }
        let asked = options.version.as_ref();
        let mut count = 0;
        let mut choice = Vec::with_capacity(all.len());
        for instance in all.iter() {
            if !asked.is_none_or(|asked| asked.admits(instance.version.as_deref())) {
                continue;
            }
            count += 1;
            let (address, liveness) = self.address(instance);
            let was_tried = tried.iter().any(|other| other == address);
            choice.extend(
                Standing::of(liveness, was_tried).map(|standing| (standing, address, instance)),
            );
        }
        if count == 0 {
            return Err(none_compatible(target, asked, &all));
        }
        let best = choice.iter().map(|(standing, ..)| *standing).min();
        let Some(best) = best.filter(|best| *best < Standing::Tried || options.retries > 0) else {
            return Err(Error::NoneAlive { service: target.to_owned(), count });
        };
        choice.retain(|(standing, ..)| *standing == best);
        let turn = known.turn.fetch_add(1, Ordering::Relaxed);
        let pending = |at: usize| self.shared.endpoint.waiting(choice[at].1);
        let (_, address, chosen) = choice[options.balance.pick(choice.len(), turn, pending)];
        Ok(Chosen { address: address.to_owned(), version: chosen.version.clone() })
    }

    /// Where an instance is called, and how that is: the faster way, unless that is closed to us (another user's folder,
    /// another mount).
    fn address<'a>(&self, instance: &'a Instance) -> (&'a str, Liveness) {
        let endpoint = &self.shared.endpoint;
        let local = instance.dial();
        let far = instance.endpoint.as_str();
        match endpoint.liveness(local) {
            Liveness::Refused if local != far => (far, endpoint.liveness(far)),
            liveness => (local, liveness),
        }
    }

    /// The live view of a service's instances, where there is one.
    fn known(&self, service: &str) -> Option<Arc<Known>> {
        self.services().get(service).cloned()
    }

    fn services(&self) -> MutexGuard<'_, HashMap<String, Arc<Known>>> {
        self.shared.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the registry for it.
    async fn look_up(&self, service: &str) -> Result<Arc<Known>, Error> {
        let lookup = self.shared.registry.lookup(service).await?;
        let fresh = Arc::new(Known { lookup, turn: AtomicUsize::new(0) });
        // Names come from the program, so they are few; names that nobody has are not kept.
        if fresh.lookup.instances().is_empty() {
            return Ok(fresh);
        }
        Ok(Arc::clone(self.services().entry(service.to_owned()).or_insert(fresh)))
    }
}

/// How well an instance can be called, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Alive,
    /// One that refused a moment ago may be back: asking costs nothing, where there is no other.
    Refused,
    /// The same again is better than none, for a call that may be tried again.
    Tried,
}

impl Standing {
    /// `None`: not to be called.
    fn of(liveness: Liveness, was_tried: bool) -> Option<Self> {
        match (liveness, was_tried) {
            (Liveness::Unresponsive, _) | (Liveness::Refused, true) => None,
            (Liveness::Refused, false) => Some(Self::Refused),
            (_, true) => Some(Self::Tried),
            (_, false) => Some(Self::Alive),
        }
    }
}

fn none_compatible(service: &str, asked: Option<&VersionRequest>, all: &[Instance]) -> Error {
    let mut versions: Vec<Option<Version>> = all
        .iter()
        .map(|one| one.version.as_deref().and_then(|text| Version::parse(text).ok()))
        .collect();
    versions.sort();
    versions.dedup();
    Error::NoneCompatible {
        service: service.to_owned(),
        asked: asked.map(ToString::to_string).unwrap_or_default(),
        available: versions
            .iter()
            .map(|version| version.as_ref().map_or("none", Version::as_str).to_owned())
            .collect(),
    }
}
