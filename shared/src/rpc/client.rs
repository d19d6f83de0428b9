//! Calls of services by name.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::endpoint::Endpoint;
use super::error::{Error, NAMELESS, OVERLOADED};
use super::known::{Chosen, Services};
use super::select::Balance;
use crate::registry::{Registry, VersionRequest};
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
    /// request that did not leave goes to another instance in any case, and so does one that was refused as `Overloaded`; where no
    /// instance is left of a service that was there a moment ago, it waits for one. Tries that are given up for another by their time
    /// have a budget, ten at once and one for each ten answers, for what they leave may be worked on still; it is the same for all of a
    /// client, and no setting: who needs more has a service that is too slow. Lost ones cost nothing of it, nor do those that leave an
    /// instance which gave no sign since it was asked for one that is well. An overloaded one is left once for nothing.
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
                Err(match kind.as_str() {
                    OVERLOADED if is_bare(&body) => {
                        Error::Overloaded { subject: subject.to_owned(), message }
                    }
                    "" => {
                        Error::Remote { kind: NAMELESS.to_owned(), message, body: Box::new(body) }
                    }
                    _ => Error::Remote { kind, message, body: Box::new(body) },
                })
            }
            Kind::Reply | Kind::Ack | Kind::Request => Ok(self),
        }
    }
}

/// With more fields it is an error of the service's own that has this name.
fn is_bare(body: &Value) -> bool {
    matches!(body, Value::Map(entries) if entries.len() == 2)
}

/// Whether an answer says that too much waits there, and that nothing was done.
fn is_overload(answer: &Message) -> bool {
    let says = |body: &Value| body.get("type").and_then(Value::as_str) == Some(OVERLOADED);
    answer.kind == Kind::Error
        && answer.unpack().is_ok_and(|body: Value| is_bare(&body) && says(&body))
}

/// Calls services by name. Clones are the same client.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    services: Arc<Services>,
    budget: Budget,
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

impl Client {
    /// A client that calls through an endpoint whom a registry knows.
    pub fn new(endpoint: Endpoint, registry: Arc<dyn Registry>) -> Self {
        let budget = Budget(AtomicI64::new(Budget::MOST));
        let services = Arc::new(Services::new(registry));
        Self { shared: Arc::new(Shared { endpoint, services, budget }) }
    }

    /// The endpoint that it calls through.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// The registry that it asks.
    pub fn registry(&self) -> &Arc<dyn Registry> {
        self.shared.services.registry()
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
        let mut diverted = false;
        loop {
            let (known, chosen) = if direct {
                let version = options.version.as_ref().map(ToString::to_string);
                (None, Chosen { address: target.to_owned(), version })
            } else {
                let services = &self.shared.services;
                let known = match services.known(target) {
                    Some(known) => known,
                    None => tokio::time::timeout_at(deadline, services.look_up(target))
                        .await
                        .map_err(|_| timeout())??,
                };
                match known.choose(&self.shared.endpoint, target, options, &tried) {
                    Ok(chosen) => (Some(known), chosen),
                    Err(error) => {
                        if !known
                            .may_be_back(&error, options.version.as_ref(), &tried, deadline)
                            .await
                        {
                            return Err(error);
                        }
                        tried.clear();
                        continue;
                    }
                }
            };
            let Chosen { address, version } = chosen;
            // Every container has this one, whatever version it was chosen by; lymph refuses that version here.
            request.headers.version = version.filter(|_| !subject.starts_with("lymph."));
            let another_is_well = |tried: &[String], this: &str| {
                let endpoint = &self.shared.endpoint;
                known
                    .as_ref()
                    .is_some_and(|known| known.is_another_well(endpoint, options, tried, this))
            };
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
                            let shift = asked.is_silent() && another_is_well(&tried, &address);
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
                        Some(Ok(message)) if is_overload(&message) => {
                            let reply = Reply { message, address: address.clone() };
                            let elsewhere = another_is_well(&tried, &address)
                                && (!std::mem::replace(&mut diverted, true)
                                    || self.shared.budget.spend());
                            match reply.clone().understood(subject) {
                                Err(error) if elsewhere => error,
                                _ => return Ok(reply),
                            }
                        }
                        Some(Ok(message)) => {
                            self.shared.budget.earn();
                            if let Some(known) = &known {
                                known.answered(request.headers.version.as_deref());
                            }
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
            if (error.not_sent() || matches!(error, Error::Overloaded { .. })) && !direct {
                tried.push(address);
            } else if again
                || retries > 0
                    && error.is_transient()
                    // What is lost with its connection nobody works on any more: making it again puts no more on anybody than there was.
                    && (error.ended_its_work() || self.shared.budget.spend())
            {
                retries -= 1;
                tried.push(address);
            } else {
                return Err(error);
            }
            tracing::debug!(subject, %error, "trying again");
            request.id = new_id(); // a late answer is not taken for that of the next try
        }
    }
}
