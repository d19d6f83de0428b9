//! What an interface is to the container: methods with names, and a way to call them. `#[interface]` writes it.

use std::error::Error as StdError;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use hilum_shared::rpc::{BoxFuture, ReplyError, Request};
use hilum_shared::wire::Event;
use hilum_shared::wire::message::DecodeError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::event::{EventCall, EventHandler};
use crate::fault::{Declared, Fault, Raised};
use crate::{Context, ReplyChannel};

/// Any error. `?` makes one of whatever a function fails with.
pub type Error = Box<dyn StdError + Send + Sync + 'static>;

/// The configuration of an interface or component that has none: a key is an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// A method as `inspect` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// Its name, without the interface's.
    pub name: &'static str,
    /// The parameters of a call.
    pub parameters: &'static [Parameter],
    /// Its documentation.
    pub help: &'static str,
    /// The names of the errors it declares, by type.
    pub raises: &'static [&'static [&'static str]],
}

/// A parameter of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Whether a call may leave it out.
    pub optional: bool,
}

/// What a process offers under a name. Written by [`#[interface]`](macro@crate::interface), never by hand.
pub trait Interface: Send + Sync + Sized + 'static {
    /// What stands below its name in the configuration, without `class`.
    type Config: DeserializeOwned;
    /// Its name in `class: "binary:TYPE"`.
    const TYPE: &'static str;
    /// Its methods.
    const METHODS: &'static [Method];

    /// Makes it of its configuration.
    ///
    /// # Errors
    /// When the configuration cannot be.
    fn create(config: Self::Config) -> Result<Self, Error>;

    /// Answers one call.
    fn call(self: Arc<Self>, call: Call) -> Answer;

    /// Its event handlers and tasks.
    const HANDLERS: &'static [EventHandler] = &[];

    /// Handles one event.
    fn handle(self: Arc<Self>, call: EventCall) -> Answer {
        drop(call);
        Box::pin(async { Err(Failure::Unknown) })
    }

    /// Before the first call.
    ///
    /// # Errors
    /// When it cannot be used; the process then ends.
    fn start(&self, context: &Context) -> impl Future<Output = Result<(), Error>> + Send {
        let _ = context;
        async { Ok(()) }
    }

    /// After the last call.
    fn stop(&self, context: &Context) -> impl Future<Output = ()> + Send {
        let _ = context;
        async {}
    }

    /// Whether it can do its work now.
    fn healthy(&self) -> bool {
        true
    }
}

/// One call of one method.
#[derive(Debug)]
pub struct Call {
    pub(crate) index: usize,
    pub(crate) context: Context,
    pub(crate) request: Request,
    pub(crate) channel: ReplyChannel,
}

impl Call {
    /// Which of [`Interface::METHODS`] is meant.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its parts.
    pub fn open(self) -> (Context, Request, ReplyChannel) {
        (self.context, self.request, self.channel)
    }
}

/// A call that is answered when this is done, unless it failed.
pub type Answer = BoxFuture<'static, Result<(), Failure>>;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The arguments do not fit the method.
    #[error("arguments: {0}")]
    Arguments(#[from] DecodeError),
    /// The result cannot be sent.
    #[error("result: {0}")]
    Result(#[from] ReplyError),
    /// An error that the method declares: the caller gets it.
    #[error("{0}")]
    Declared(Fault),
    /// Any other error: the caller gets a NACK.
    #[error("{0}")]
    Error(Error),
    /// The method panicked; the text.
    #[error("panicked: {0}")]
    Panic(String),
    /// There is no such method.
    #[error("unknown method")]
    Unknown,
}

/// Reads the arguments of a call.
///
/// # Errors
/// When one is missing, unknown, or of another type.
pub fn arguments<T: DeserializeOwned>(request: &Request) -> Result<T, Failure> {
    Ok(request.args()?)
}

/// Reads what a handler takes of an event's body.
///
/// # Errors
/// When something is missing, or of another type.
pub fn event_arguments<T: DeserializeOwned>(event: &Event) -> Result<T, Failure> {
    Ok(event.body()?)
}

/// Sends a result.
///
/// # Errors
/// When it has no MessagePack form.
pub fn reply<T: Serialize + ?Sized>(channel: &ReplyChannel, value: &T) -> Result<(), Failure> {
    Ok(channel.result(value)?)
}

/// What a method failed with: declared, if one of the types that it raises.
pub fn failed(error: Error, raised: &[fn(&Error) -> Option<Fault>]) -> Failure {
    match raised.iter().find_map(|fault| fault(&error)) {
        Some(fault) => Failure::Declared(fault),
        None => Failure::Error(error),
    }
}

/// The fault of an error of this type.
pub fn declared<E: Declared>(error: &Error) -> Option<Fault> {
    error.downcast_ref::<E>().map(Declared::fault)
}

/// What an error says. (Asked for here, a type that is no error is one mistake, not two.)
pub fn message<E: Raised>(error: &E) -> String {
    error.to_string()
}

/// The answer to a call of no method.
pub fn unknown(_: Call) -> Answer {
    Box::pin(async { Err(Failure::Unknown) })
}

/// An interface of any type, as the container holds it.
pub(crate) trait AnyInterface: Send + Sync {
    fn methods(&self) -> &'static [Method];
    fn call(self: Arc<Self>, call: Call) -> Answer;
    fn handlers(&self) -> &'static [EventHandler];
    fn handle(self: Arc<Self>, call: EventCall) -> Answer;
    fn start<'a>(&'a self, context: &'a Context) -> BoxFuture<'a, Result<(), Error>>;
    fn stop<'a>(&'a self, context: &'a Context) -> BoxFuture<'a, ()>;
    fn healthy(&self) -> bool;
}

impl<T: Interface> AnyInterface for T {
    fn methods(&self) -> &'static [Method] {
        T::METHODS
    }

    fn call(self: Arc<Self>, call: Call) -> Answer {
        Interface::call(self, call)
    }

    fn handlers(&self) -> &'static [EventHandler] {
        T::HANDLERS
    }

    fn handle(self: Arc<Self>, call: EventCall) -> Answer {
        Interface::handle(self, call)
    }

    fn start<'a>(&'a self, context: &'a Context) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(Interface::start(self, context))
    }

    fn stop<'a>(&'a self, context: &'a Context) -> BoxFuture<'a, ()> {
        Box::pin(Interface::stop(self, context))
    }

    fn healthy(&self) -> bool {
        Interface::healthy(self)
    }
}

/// Answers a call; a panic is a failure like others.
pub(crate) async fn answer(interface: Arc<dyn AnyInterface>, call: Call) -> Result<(), Failure> {
    match catch(interface.call(call)).await {
        Ok(result) => result,
        Err(text) => Err(Failure::Panic(text)),
    }
}

/// Handles an event; a panic is a failure like others.
pub(crate) async fn handle(
    interface: Arc<dyn AnyInterface>,
    call: EventCall,
) -> Result<(), Failure> {
    match catch(interface.handle(call)).await {
        Ok(result) => result,
        Err(text) => Err(Failure::Panic(text)),
    }
}

/// Runs a future to its end or its panic, whose text is told.
pub(crate) async fn catch<T>(mut future: BoxFuture<'_, T>) -> Result<T, String> {
    std::future::poll_fn(move |context| {
        // The future is never polled again after a panic: nothing half done is seen.
        match std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(payload) => std::task::Poll::Ready(Err(panic_text(&*payload))),
        }
    })
    .await
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().map(str::to_owned);
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "without a text".to_owned())
}
