//! Running a service: everything around the author's future, from the first beat to the last flush.

use std::error::Error;
use std::fs::File;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::absence;
use crate::contract::{Contract, ContractError};
use crate::heart::{Cut, Heart, Signals};
use crate::links::{LinkError, Links};
use crate::log::{self, LogLayer, Overflow, Queue, Shipping};
use crate::worker::{Cause, Worker};

/// What a service ends with: `?` takes any error.
pub type ServiceResult = Result<(), Box<dyn Error + Send + Sync>>;

/// The time that a signal gives, which names none: the default of `stop.timeout`.
const GRACE: Duration = Duration::from_secs(10);
/// The least that a flush gets, when the grace is over or nobody listens any more; and what remains of a grace after it, to tell what
/// was lost.
const LEAST_FLUSH: Duration = Duration::from_millis(200);

/// Why a service did not run, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The environment means nothing.
    #[error(transparent)]
    Contract(#[from] ContractError),
    /// The node's channels cannot be used.
    #[error(transparent)]
    Links(#[from] LinkError),
    /// Signals cannot be taken, or no thread can be had.
    #[error("setting up: {0}")]
    System(#[from] std::io::Error),
    /// The service ended with an error.
    #[error("{0}")]
    Service(Box<dyn Error + Send + Sync>),
    /// The service was not done when the time of its drain was over.
    #[error("not done {0:?} after the order to leave")]
    GraceOver(Duration),
    /// A second SIGINT.
    #[error("interrupted")]
    Interrupted,
}

impl RunError {
    /// The exit code: 2 for a contract that means nothing, 130 for an interrupt, 1 for the rest.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Contract(_) => ExitCode::from(2),
            Self::Interrupted => ExitCode::from(130),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Runs a service with the contract of this process' environment and all defaults; see [`Builder`].
pub async fn run<S, F>(service: S) -> ExitCode
where
    S: FnOnce(Worker) -> F,
    F: Future<Output = ServiceResult>,
{
    Builder::new().run(service).await
}

/// How a service is run.
#[derive(Debug)]
pub struct Builder {
    contract: Result<Contract, ContractError>,
    overflow: Overflow,
    grace: Duration,
    signals: bool,
    logging: bool,
    start: log::Start,
    log_file: Option<File>,
    queue: Option<Arc<Queue>>,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// A service with the contract of this process' environment.
    pub fn new() -> Self {
        Self::from(Contract::from_process())
    }

    /// A service with this contract, for tests and for those who have it from elsewhere.
    pub fn with_contract(contract: Contract) -> Self {
        Self::from(Ok(contract))
    }

    fn from(contract: Result<Contract, ContractError>) -> Self {
        Self {
            contract,
            overflow: Overflow::default(),
            grace: GRACE,
            signals: true,
            logging: true,
            start: log::Start::default(),
            log_file: None,
            queue: None,
        }
    }

    /// What a logging call does when the node does not take records fast enough. Before [`Builder::log_layer`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// The time to drain after a signal or the node's loss, which name none (10 s), and that the last records of a service have that ends
    /// by itself or panics. An order names its own.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Leaves SIGTERM and SIGINT alone.
    pub fn without_signals(mut self) -> Self {
        self.signals = false;
        self
    }

    /// Sets up no `tracing` subscriber and no panic hook.
    pub fn without_logging(mut self) -> Self {
        self.logging = false;
        self
    }

    /// What is logged from the start on: as the configuration says, in the form of `RUST_LOG`, which stands above it; `level` stands
    /// above both.
    pub(crate) fn levels(mut self, configured: String, level: Option<String>) -> Self {
        self.start = log::Start { configured, level };
        self
    }

    /// A file in place of stderr.
    pub(crate) fn log_file(mut self, file: File) -> Self {
        self.log_file = Some(file);
        self
    }

    /// A layer for the author's own `tracing` subscriber; `run` then sets up none.
    pub fn log_layer(&mut self) -> LogLayer {
        self.logging = false;
        LogLayer::new(self.queue())
    }

    fn queue(&mut self) -> Option<Arc<Queue>> {
        if self.queue.is_none() {
            self.queue = Queue::of(self.contract.as_ref().ok()?, self.overflow);
        }
        self.queue.clone()
    }

    /// Runs the service and flushes its log. An error is logged.
    ///
    /// Code 0 when the service ended well, by itself or drained in time; else [`RunError::exit_code`].
    pub async fn run<S, F>(self, service: S) -> ExitCode
    where
        S: FnOnce(Worker) -> F,
        F: Future<Output = ServiceResult>,
    {
        match self.try_run(service).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => error.exit_code(),
        }
    }

    /// As [`Builder::run`], with the error in the caller's hand; it is logged all the same.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn try_run<S, F>(mut self, service: S) -> Result<(), RunError>
    where
        S: FnOnce(Worker) -> F,
        F: Future<Output = ServiceResult>,
    {
        let queue = self.queue();
        if self.logging {
            let start = std::mem::take(&mut self.start);
            log::install(LogLayer::new(queue.clone()), start, self.log_file.take());
        }
        let grace = self.grace;
        // When the service panics `shipping` is dropped first: the log is flushed before the sockets go.
        let (mut heart, shipping) = match self.prepare(queue) {
            Ok(prepared) => prepared,
            Err(error) => {
                tracing::error!("cannot run: {error}");
                return Err(error);
            }
        };
        let worker = heart.worker();
        for gap in worker.contract().gaps() {
            tracing::warn!("{gap}");
        }
        let result = {
            let mut service = pin!(service(worker.clone()));
            tokio::select! {
                biased;
                cut = heart.live() => Err(match cut {
                    Cut::Interrupted => RunError::Interrupted,
                    Cut::GraceOver => {
                        RunError::GraceOver(worker.drain().map_or(Duration::ZERO, |drain| drain.grace))
                    }
                }),
                result = &mut service => result.map_err(RunError::Service),
            }
        };
        if let Err(error) = &result {
            tracing::error!("ended: {error}");
        }
        let within = match (&result, worker.drain()) {
            (Err(RunError::Interrupted), _) => LEAST_FLUSH,
            (_, None) => grace,
            (_, Some(drain)) if drain.cause == Cause::NodeGone => LEAST_FLUSH,
            (_, Some(drain)) => drain.left().saturating_sub(LEAST_FLUSH).max(LEAST_FLUSH),
        };
        // Blocks; nothing else is to be done any more.
        if let Some(shipping) = shipping {
            shipping.finish(within);
        }
        if let Some(hub) = heart.into_links().hub.take() {
            hub.close(LEAST_FLUSH);
        }
        result
    }

    fn prepare(self, queue: Option<Arc<Queue>>) -> Result<(Heart, Option<Shipping>), RunError> {
        let contract = self.contract?;
        let signals = if self.signals { Signals::take()? } else { Signals::leave() };
        let mut links = Links::open(&contract)?;
        let shipping = match (queue, links.log.take()) {
            (Some(queue), Some(push)) => {
                let (lock, timeout) = (contract.lock.clone(), contract.timeout);
                let connection = links.connection.clone();
                let is_gone = move |silence| {
                    let lock = || absence::ask(lock.as_deref());
                    silence >= timeout
                        && absence::is_gone(silence, timeout, lock(), connection.closed_for())
                };
                Some(Shipping::start(queue, push, self.grace, is_gone)?)
            }
            _ => None,
        };
        Ok((Heart::new(Worker::new(contract), links, signals, self.grace), shipping))
    }
}
