//! Calls of services by name.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use foldhash::HashMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;

use super::endpoint::Endpoint;
use super::error::{Error, OVERLOADED};
use super::link::Liveness;
use super::proxy::Proxy;
use super::select::Balance;
use crate::registry::{Instance, Lookup, Registry, RegistryError, Version, VersionRequest};
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
    /// request that did not leave goes to another instance in any case. Tries again have a budget, ten at once and one for each ten
    /// answers, but for those that leave an instance which gave no sign since it was asked for one that is well.
    pub retries: u32,
    /// After how long a try is given up for another one; `None`: it may take all the time. While there is no budget for another, it is
    /// waited for.
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
                let (kind, message) = (text("type"), text("message"));
                // With more fields it is an error of the service's own that has this name.
                let bare = matches!(&body, Value::Map(entries) if entries.len() == 2);
                Err(match kind.as_str() {
                    OVERLOADED if bare => {
                        Error::Overloaded { subject: subject.to_owned(), message }
                    }
                    "" => Error::Remote {
                        kind: "RemoteError".to_owned(),
                        message,
                        body: Box::new(body),
                    },
                    _ => Error::Remote { kind, message, body: Box::new(body) },
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
    services: Mutex<Services>,
    budget: Budget,
}

#[derive(Default)]
struct Services {
    /// Those that have an instance, or had one.
    known: HashMap<String, Arc<Known>>,
    /// Those that the registry is being asked for: one question each, however many wait for its answer.
    asked: HashMap<String, Weak<Asked>>,
}

/// Where the answer of the registry will come.
type Asked = watch::Sender<Option<Result<Arc<Known>, RegistryError>>>;

struct Known {
    lookup: Lookup,
    turn: AtomicUsize,
}

/// Tries again cost what calls that were answered earn: ten at once, one for each ten answers in the long run, so that a service
/// that is slow or down is not buried under them.
struct Budget(AtomicI64);

impl Budget {
    const TRY: i64 = 10;
    const MOST: i64 = 10 * Self::TRY;

    fn earn(&self) {
        let earn = |have: i64| (have < Self::MOST).then_some(have + 1);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earn); // full is full
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
        let begun = Instant::now();
        let limit = super::trace::time_left(begun, options.timeout);
        let deadline = begun + limit;
        let timeout = || Error::Timeout { subject: subject.to_owned(), after: limit };
        let trace_id = options.trace_id.clone().unwrap_or_else(super::trace::trace_id_or_new);
        let headers = Headers { trace_id: Some(trace_id), ..Headers::default() };
        let (id, kind) = (new_id(), Kind::Request);
        let mut request = Message { id, kind, subject: subject.to_owned(), headers, body };
        let direct = target.contains("://");
        loop {
            let (known, chosen) = if direct {
                let version = options.version.as_ref().map(ToString::to_string);
                (None, Chosen { address: target.to_owned(), version })
            } else {
                let known = match self.known(target) {
                    Some(known) => known,
                    None => tokio::time::timeout_at(deadline, self.look_up(target))
                        .await
                        .map_err(|_| timeout())??,
                };
                let chosen = self.choose(&known, target, options, &tried)?;
                (Some(known), chosen)
            };
            let Chosen { address, version } = chosen;
            // Every container has this one, whatever version it was chosen by; lymph refuses that version here.
            request.headers.version = version.filter(|_| !subject.starts_with("lymph."));
            let now = Instant::now();
            let left = deadline.saturating_duration_since(now);
            let mut again = false; // the try is given up for another, which is paid
            let error = match self.shared.endpoint.ask(&address, &mut request, now, left) {
                Err(error) => error,
                Ok(mut asked) => {
                    let mut answer = None;
                    if let Some(limit) = options.try_timeout.filter(|_| retries > 0)
                        && limit < left
                    {
                        answer = asked.answer(now + limit, &address, &request).await;
                        if answer.is_none() {
                            let shift = asked.is_silent()
                                && known.as_ref().is_some_and(|known| {
                                    self.is_another_well(known, options, &tried, &address)
                                });
                            if shift || self.shared.budget.spend() {
                                again = true;
                            }
                        }
                    }
                    let answer = match (answer, again) {
                        (None, false) => asked.answer(deadline, &address, &request).await,
                        (answer, _) => answer,
                    };
                    match answer {
                        Some(Ok(message)) => {
                            self.shared.budget.earn();
                            return Ok(Reply { message, address });
                        }
                        Some(Err(error)) => error,
                        None if again => timeout(),
                        None => {
                            asked.is_silent(); // which is noted
                            return Err(timeout());
                        }
                    }
                }
            };
            if error.not_sent() && !direct {
                tried.push(address);
            } else if again || retries > 0 && error.is_transient() && self.shared.budget.spend() {
                retries -= 1;
                tried.push(address);
            } else {
                return Err(error);
            }
            tracing::debug!(subject, %error, "trying again");
            request.id = new_id(); // a late answer is not taken for that of the next try
        }
    }

    /// Whether an instance that was not tried yet is well, beside this one.
    fn is_another_well(
        &self,
        known: &Known,
        options: &CallOptions,
        tried: &[String],
        this: &str,
    ) -> bool {
        let asked = options.version.as_ref();
        known.lookup.instances().iter().any(|instance| {
            let (address, liveness) = self.address(instance);
            asked.is_none_or(|asked| asked.admits(instance.version.as_deref()))
                && address != this
                && !tried.iter().any(|other| other == address)
                && matches!(liveness, Liveness::Responsive | Liveness::Unknown)
        })
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
        self.shared.services().known.get(service).cloned()
    }

    /// Asks the registry for it, or waits with those who asked already.
    async fn look_up(&self, service: &str) -> Result<Arc<Known>, Error> {
        let mut answer = {
            let mut services = self.shared.services();
            if let Some(known) = services.known.get(service) {
                return Ok(Arc::clone(known));
            }
            match services.asked.get(service).and_then(Weak::upgrade) {
                Some(asked) => asked.subscribe(),
                None => {
                    let asked = Arc::new(Asked::new(None));
                    services.asked.insert(service.to_owned(), Arc::downgrade(&asked));
                    let answer = asked.subscribe();
                    // A task of its own: who stops waiting does not end it for the others.
                    tokio::spawn(Arc::clone(&self.shared).ask_registry(service.to_owned(), asked));
                    answer
                }
            }
        };
        let answer = answer.wait_for(Option::is_some).await.map_err(|_| Error::Closed)?;
        answer.clone().expect("it was waited for").map_err(Error::from)
    }
}

impl Shared {
    fn services(&self) -> MutexGuard<'_, Services> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a service, and tells all that wait for it.
    async fn ask_registry(self: Arc<Self>, service: String, asked: Arc<Asked>) {
        let found = self.registry.lookup(&service).await;
        let found = found.map(|lookup| Arc::new(Known { lookup, turn: AtomicUsize::new(0) }));
        {
            let mut services = self.services();
            // Whoever comes from now on asks anew.
            services.asked.remove(&service);
            // Names come from the program, so they are few; names that nobody has are not kept.
            if let Ok(known) = &found
                && !known.lookup.instances().is_empty()
            {
                services.known.insert(service, Arc::clone(known));
            }
        }
        asked.send_replace(Some(found));
    }
}

/// How well an instance can be called, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Alive,
    /// One that gave no sign when it was called last.
    Doubtful,
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
            (Liveness::Doubtful, false) => Some(Self::Doubtful),
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
