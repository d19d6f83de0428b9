//! Events from a service's side: emitting them, and what the container knows of a handler.

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use hilum_shared::events::{Emission, EventError};
use hilum_shared::rpc::BoxFuture;
use hilum_shared::wire::event::TRACE_ID;
use hilum_shared::wire::{Event, Value, to_value};
use serde::Serialize;

use crate::Context;
use crate::context::Process;
use crate::interface::Parameter;

/// What an interface that is registered for tasks only adds to its name.
pub(crate) const TASKS_SUFFIX: &str = ".worker";
/// What the types of tasks begin with.
const TASKS: &str = "lymph.tasks";

/// An event handler or a task, as the container sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventHandler {
    /// The method's name.
    pub name: &'static str,
    /// Which events it handles; a task's are its own.
    pub patterns: &'static [&'static str],
    /// In place of the method's name in the queue's.
    pub queue: Option<&'static str>,
    /// One event at a time in each process.
    pub sequential: bool,
    /// Every process is told.
    pub broadcast: bool,
    /// Only the first event.
    pub once: bool,
    /// How often a failure is tried again.
    pub retry: u32,
    /// How many events at once.
    pub prefetch: Option<u32>,
    /// Whether it is a task, which only the command `worker` works on.
    pub task: bool,
    /// What it takes of the event's body.
    pub parameters: &'static [Parameter],
    /// Its documentation.
    pub help: &'static str,
}

impl EventHandler {
    /// Its events, for an interface of this name.
    pub(crate) fn patterns_of(&self, interface: &str) -> Vec<String> {
        if self.task {
            return vec![task_type(interface, self.name)];
        }
        self.patterns.iter().map(|pattern| (*pattern).to_owned()).collect()
    }
}

/// The type of a task's event: `lymph.tasks.<interface>.<method>`.
fn task_type(interface: &str, method: &str) -> String {
    format!("{TASKS}.{}.{method}", interface.strip_suffix(TASKS_SUFFIX).unwrap_or(interface))
}

/// An event for one handler.
#[derive(Debug)]
pub struct EventCall {
    pub(crate) index: usize,
    pub(crate) context: Context,
    pub(crate) event: Arc<Event>,
}

impl EventCall {
    /// Which of the interface's handlers is meant.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its parts.
    pub fn open(self) -> (Context, Arc<Event>) {
        (self.context, self.event)
    }
}

/// An event that is emitted when this is awaited: then it is safe with the broker.
#[must_use = "nothing is emitted until it is awaited"]
pub struct Emit {
    process: Arc<Process>,
    event: Result<Event, EventError>,
    delay: Duration,
}

impl Emit {
    /// Holds it back this long.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// With a header of yours.
    pub fn header(mut self, name: &str, value: impl Serialize) -> Self {
        match (&mut self.event, to_value(&value)) {
            (Ok(event), Ok(value)) => event.set_header(name, value),
            (Ok(_), Err(error)) => {
                self.event = Err(EventError::Body { reason: format!("header `{name}`: {error}") });
            }
            (Err(_), _) => {}
        }
        self
    }
}

impl IntoFuture for Emit {
    type Output = Result<(), EventError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let emission = Emission { delay: self.delay, ..self.event?.into() };
            self.process.events.emit(emission).await
        })
    }
}

impl fmt::Debug for Emit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emit")
            .field("event", &self.event)
            .field("delay", &self.delay)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Tells whoever wants to know that something happened. The event carries this context's trace on. It is emitted when the result is
    /// awaited, by `ctx.emit("order.paid", args! { id: 7 }).await?`, or held back by `.delay(…)` before that.
    pub fn emit(&self, kind: impl Into<String>, body: impl Serialize) -> Emit {
        let event = Event::new(kind, &body).map(|mut event| {
            event.set_header(TRACE_ID, Value::Str(self.trace_id().to_owned()));
            event.source = Some(self.process.identity.clone());
            event
        });
        let event = event.map_err(|error| EventError::Body { reason: error.to_string() });
        Emit { process: Arc::clone(&self.process), event, delay: Duration::ZERO }
    }

    /// Puts a task of this interface into its queue, or by `interface.method` one of another. Processes of the command `worker` take it
    /// from there.
    pub fn task(&self, method: &str, args: impl Serialize) -> Emit {
        let (interface, method) = method.rsplit_once('.').unwrap_or((self.interface(), method));
        self.emit(task_type(interface, method), args)
    }
}
