//! What a method, a hook or a task of a service knows: its trace, its process, and how to call others.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use hilum_shared::events::EventSystem;
use hilum_shared::registry::{InvalidVersion, VersionRequest};
use hilum_shared::rpc::{Balance, CallOptions, Client, Error as CallFailed, Reply, trace};
use hilum_shared::wire::message::new_id;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use crate::container::Figures;
use crate::fault::{CallError, Fault, Raised};
use crate::metrics::Registry;
use crate::worker::Worker;

/// Who is being served, and whom it may ask. Clones are the same context; keep one for work that outlives the call.
#[derive(Clone)]
pub struct Context {
    pub(crate) process: Arc<Process>,
    pub(crate) interface: Arc<str>,
    pub(crate) trace_id: Arc<str>,
}

/// What all contexts of a process share.
pub(crate) struct Process {
    pub(crate) client: Client,
    pub(crate) worker: Worker,
    pub(crate) events: Arc<dyn EventSystem>,
    /// Who emits.
    pub(crate) identity: String,
    pub(crate) figures: Figures,
}

impl Context {
    /// A context that nobody called for: of a hook, or of a test.
    pub(crate) fn new(process: Arc<Process>, interface: &str) -> Self {
        Self { process, interface: interface.into(), trace_id: new_id().into() }
    }

    /// The trace of the request that is being served. Calls made by this context carry it on, and so do log records.
    pub fn trace_id(&self) -> &str {
        &self.trace_id
    }

    /// The name under which the interface is registered.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The process as its node sees it: readiness, business, status, metrics.
    pub fn worker(&self) -> &Worker {
        &self.process.worker
    }

    /// A service to call, by the name under which it is registered, or by its address (`tcp://…`, `ipc://…`).
    pub fn proxy(&self, service: impl Into<String>) -> Proxy {
        let options =
            CallOptions { trace_id: Some(self.trace_id.to_string()), ..CallOptions::default() };
        Proxy {
            process: Arc::clone(&self.process),
            service: service.into(),
            options,
            version: None,
        }
    }

    /// The client below the proxies, with the process' endpoint and registry.
    pub fn client(&self) -> &Client {
        &self.process.client
    }

    /// The process' metrics: add your own here. They are in `lymph.get_metrics` and in the heartbeats.
    pub fn metrics(&self) -> &Registry {
        &self.process.figures.registry
    }

    /// Runs a future in this context's trace: for tasks that are spawned.
    pub async fn trace<F: Future>(&self, future: F) -> F::Output {
        trace::with_trace(&*self.trace_id, future).await
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("interface", &self.interface)
            .field("trace_id", &self.trace_id)
            .finish_non_exhaustive()
    }
}

/// A service to call, and how: three seconds, any instance, any version, unless it is said otherwise.
#[derive(Clone)]
pub struct Proxy {
    process: Arc<Process>,
    service: String,
    options: CallOptions,
    /// A version that was asked for and is none; the call says so.
    version: Option<InvalidVersion>,
}

impl Proxy {
    /// Only instances that are compatible with this version: the same major one, and not older. A text that is no version makes
    /// each call fail.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        match VersionRequest::parse(version) {
            Ok(version) => (self.options.version, self.version) = (Some(version), None),
            Err(invalid) => self.version = Some(invalid),
        }
        self
    }

    /// Waits this long for an answer, all tries together.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// Which of several instances is called.
    #[must_use]
    pub fn balance(mut self, balance: Balance) -> Self {
        self.options.balance = balance;
        self
    }

    /// Tries again up to this often after a lost connection, and with [`Self::try_timeout`] after a try that took too long. For
    /// methods that may run twice. Tries that took too long have a budget, as they may be worked on still: ten at once, then one for
    /// each ten answers of the process. Lost ones cost nothing of it, nor does what leaves an instance that gave no sign at all for one
    /// that is well.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// Gives up a try after this while there is another, so that one silent instance does not use up the time of the call. One for
    /// which the budget has no other is waited for further.
    #[must_use]
    pub fn try_timeout(mut self, timeout: Duration) -> Self {
        self.options.try_timeout = Some(timeout);
        self
    }

    /// Calls this service or address, under the interface's name.
    #[must_use]
    pub fn at(mut self, target: impl Into<String>) -> Self {
        self.options.target = Some(target.into());
        self
    }

    /// Calls under this trace.
    #[must_use]
    pub fn trace_id(mut self, trace_id: impl Into<String>) -> Self {
        self.options.trace_id = Some(trace_id.into());
        self
    }

    /// The same, under a trace that begins here.
    #[must_use]
    pub fn new_trace(&self) -> Self {
        self.clone().trace_id(new_id())
    }

    /// Calls a method and waits for its result. The arguments are [`args!`](crate::args!) or any type that is a map.
    ///
    /// # Errors
    /// See [`rpc::Error`](crate::rpc::Error); an error that the method declares is `Remote` with its name.
    pub async fn call<R: DeserializeOwned>(
        &self,
        method: &str,
        args: impl Serialize + Send + Sync,
    ) -> Result<R, CallFailed> {
        let subject = self.subject(method)?;
        self.counted(self.process.client.call(&subject, &args, &self.options).await)
    }

    /// Calls a method and waits for its answer as it came: an ACK among them.
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub async fn request(
        &self,
        method: &str,
        args: impl Serialize + Send + Sync,
    ) -> Result<Reply, CallFailed> {
        let subject = self.subject(method)?;
        self.counted(self.process.client.request(&subject, &args, &self.options).await)
    }

    /// Calls a method now; the future is its result, for later. Dropping it gives the call up.
    pub fn defer<R: DeserializeOwned + Send + 'static>(
        &self,
        method: &str,
        args: impl Serialize + Send + Sync + 'static,
    ) -> Deferred<R> {
        let (proxy, method) = (self.clone(), method.to_owned());
        // The task is another one: it is told what this one knows.
        let scope = trace::current();
        let call = async move { proxy.call(&method, args).await };
        let task = tokio::spawn(async move {
            match scope {
                Some(scope) => trace::scope(scope, call).await,
                None => call.await,
            }
        });
        Deferred { task }
    }

    /// As [`Proxy::call`], with the errors that the method declares as a type. Typed proxies are made of it.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call_typed<R: DeserializeOwned, E: Raised>(
        &self,
        method: &str,
        args: impl Serialize + Send + Sync,
    ) -> Result<R, CallError<E>> {
        match self.call(method, args).await {
            Ok(result) => Ok(result),
            Err(error) => {
                let declared = Fault::of(&error).and_then(|fault| E::from_fault(&fault));
                Err(declared.map_or(CallError::Failed(error), CallError::Declared))
            }
        }
    }

    fn counted<T>(&self, result: Result<T, CallFailed>) -> Result<T, CallFailed> {
        result.inspect_err(|error| self.process.figures.failed(&self.service, error))
    }

    fn subject(&self, method: &str) -> Result<String, CallFailed> {
        match &self.version {
            None => Ok(format!("{}.{method}", self.service)),
            Some(invalid) => Err(CallFailed::Version(invalid.clone())),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("service", &self.service)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The result of a call that is on its way.
#[derive(Debug)]
#[must_use = "dropping it gives the call up"]
pub struct Deferred<R> {
    task: JoinHandle<Result<R, CallFailed>>,
}

impl<R> Future for Deferred<R> {
    type Output = Result<R, CallFailed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        match ready!(Pin::new(&mut self.task).poll(context)) {
            Ok(result) => Poll::Ready(result),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Poll::Ready(Err(CallFailed::Closed)), // the runtime ends
            },
        }
    }
}

impl<R> Drop for Deferred<R> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
