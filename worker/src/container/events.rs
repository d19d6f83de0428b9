//! The event handlers of a process: which event system, who is subscribed to what, and what becomes of an event.

use std::sync::Arc;
use std::time::Duration;

use hilum_shared::config::Diagnostics;
use hilum_shared::config::service::Section;
use hilum_shared::events::{
    Answer, Delivery, Embedded, Emission, EventError, EventSystem, Local, Null, Subscriber,
    Subscription,
};
use hilum_shared::wire::event::RETRY_COUNT;
use hilum_shared::wire::message::new_id;
use hilum_shared::wire::{Event, Value};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::StartError;
use super::build::{Installed, Part};
use super::calls::{Panicked, chain};
use crate::component::{AnyComponent, FailedCall};
use crate::context::{Context, Process};
use crate::contract::Contract;
use crate::event::{EventCall, EventHandler};
use crate::interface::{AnyInterface, Failure, handle};
use crate::trace;

/// What `container.events` says.
pub(super) enum Wanted {
    /// Nothing, or the node's: without a node only this process hears its events.
    Default,
    /// lymph's AMQP, in whose place the default stands.
    Kombu,
    /// Only this process.
    Local,
    /// No events.
    Null,
    /// One that is there already.
    This(Arc<dyn EventSystem>),
}

impl Wanted {
    /// Reads `container.events`, or lymph's older `event_system`.
    pub(super) fn read(config: &Section) -> Result<Self, Diagnostics> {
        let section = match config.get("container").get("events") {
            section if section.is_given() => section,
            _ => config.get("event_system"),
        };
        // A bare word says all.
        let (class, rest) = match section.text() {
            Ok(Some(_)) => (section, Section::empty()),
            _ => (section.get("class"), section.without(&["class"])),
        };
        let wanted = match class.text()?.as_deref() {
            // YAML takes the word for nothing.
            None if class.is_word("null") => Self::Null,
            None | Some("embedded") => Self::Default,
            Some("local") => Self::Local,
            Some("null") => Self::Null,
            Some(name) if name.starts_with("lymph.events.local:") => Self::Local,
            Some(name) if name.starts_with("lymph.events.null:") => Self::Null,
            Some(name) if name.starts_with("lymph.events.kombu:") => return Ok(Self::Kombu),
            Some("amqp") => {
                let help = "remove it, or write `{class: embedded}`".to_owned();
                return Err(class.error("`amqp` is not supported yet".to_owned(), Some(help)));
            }
            Some(other) => {
                let help = "known are `embedded` (the node's), `local` and `null`".to_owned();
                return Err(class.error(format!("there is no event system `{other}`"), Some(help)));
            }
        };
        let _: crate::NoConfig = rest.read()?;
        Ok(wanted)
    }

    /// The event system.
    pub(super) async fn open(
        self,
        contract: &Contract,
    ) -> Result<Arc<dyn EventSystem>, StartError> {
        match (self, &contract.events) {
            (Self::This(events), _) => return Ok(events),
            (Self::Null, _) => return Ok(Arc::new(Null)),
            (Self::Local, _) => return Ok(Arc::new(Local::default())),
            (Self::Kombu, _) => {
                tracing::warn!("events by AMQP are not supported yet: the embedded ones are used");
            }
            (Self::Default, _) => {}
        }
        match &contract.events {
            Some(place) => {
                let opened = Embedded::open(place.as_str(), contract.token.clone()).await;
                let address = place.clone();
                Ok(Arc::new(opened.map_err(|source| StartError::Listen { address, source })?))
            }
            None => Ok(Arc::new(Local::default())),
        }
    }
}

/// The subscriptions of a process and the events that it works on.
pub(super) struct Handlers {
    stop: watch::Sender<bool>,
    loops: Vec<JoinHandle<()>>,
    stopped: Vec<watch::Receiver<bool>>,
}

impl Handlers {
    pub(super) fn new() -> Self {
        Self { stop: watch::Sender::new(false), loops: Vec::new(), stopped: Vec::new() }
    }

    /// Subscribes all handlers of an interface: its tasks where `tasks` is set, else everything but those.
    pub(super) async fn subscribe(
        &mut self,
        installed: &Installed,
        several: bool,
        tasks: bool,
        process: &Arc<Process>,
        components: &[Part],
    ) -> Result<(), EventError> {
        for (index, handler) in installed.interface.handlers().iter().enumerate() {
            if handler.task != tasks {
                continue;
            }
            let subscription = subscription(installed, several, handler);
            let work = Arc::new(Work {
                process: Arc::clone(process),
                components: components.iter().map(|part| Arc::clone(&part.component)).collect(),
                interface: Arc::clone(&installed.interface),
                name: installed.name.as_str().into(),
                index,
                handler: *handler,
                queue: subscription.queue.clone(),
            });
            let subscriber = process.events.subscribe(subscription).await?;
            let (told, stopped) = watch::channel(false);
            let consume = consume(subscriber, self.stop.subscribe(), work, told);
            self.loops.push(tokio::spawn(consume));
            self.stopped.push(stopped);
        }
        Ok(())
    }

    /// Takes no more events; what is not begun goes to others.
    pub(super) async fn stop(&mut self) {
        self.stop.send_replace(true);
        for stopped in &mut self.stopped {
            let _ = stopped.wait_for(|stopped| *stopped).await; // a loop that has ended has stopped, too
        }
    }

    /// Waits for the handlers that run, and says how many loops had to be cut off at the deadline.
    pub(super) async fn finish(&mut self, deadline: Instant) -> usize {
        let mut cut = 0;
        for mut work in std::mem::take(&mut self.loops) {
            if tokio::time::timeout_at(deadline, &mut work).await.is_err() {
                work.abort(); // what it had goes to others
                cut += 1;
            }
        }
        cut
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        self.loops.iter().for_each(JoinHandle::abort);
    }
}

/// What a handler of an installed interface subscribes to. Where `several` versions of the interface are installed, each has its own queue.
fn subscription(installed: &Installed, several: bool, handler: &EventHandler) -> Subscription {
    let method = handler.queue.unwrap_or(handler.name);
    let mut queue = match &installed.version {
        Some(version) if several => format!("{}@{}-{method}", installed.name, version.as_str()),
        _ => format!("{}-{method}", installed.name),
    };
    if handler.broadcast || handler.once {
        queue = format!("{queue}-{}", new_id());
    }
    Subscription {
        queue,
        patterns: handler.patterns_of(&installed.name),
        sequential: handler.sequential,
        broadcast: handler.broadcast,
        once: handler.once,
        prefetch: handler.prefetch,
    }
}

/// The life of one subscription.
async fn consume(
    mut subscriber: Subscriber,
    mut stop: watch::Receiver<bool>,
    work: Arc<Work>,
    told: watch::Sender<bool>,
) {
    let mut running = JoinSet::new();
    loop {
        let delivery = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = running.join_next(), if !running.is_empty() => continue,
            next = subscriber.next(), if running.is_empty() || !work.handler.sequential => next,
        };
        let Some(delivery) = delivery else { break };
        running.spawn(Arc::clone(&work).run(delivery));
    }
    subscriber.stop().await;
    told.send_replace(true);
    while running.join_next().await.is_some() {}
}

/// One handler of one interface.
struct Work {
    process: Arc<Process>,
    components: Vec<Arc<dyn AnyComponent>>,
    interface: Arc<dyn AnyInterface>,
    name: Arc<str>,
    index: usize,
    handler: EventHandler,
    queue: String,
}

impl Work {
    /// One event, from its arguments to its answer.
    async fn run(self: Arc<Self>, delivery: Delivery) {
        let event = Arc::clone(&delivery.event);
        let trace_id: Arc<str> = event.trace_id().map_or_else(|| new_id().into(), Into::into);
        let context = Context {
            process: Arc::clone(&self.process),
            interface: Arc::clone(&self.name),
            trace_id: Arc::clone(&trace_id),
        };
        let call = EventCall { index: self.index, context, event: Arc::clone(&event) };
        let handling = handle(Arc::clone(&self.interface), call);
        let result = trace::with_trace(Arc::clone(&trace_id), async {
            let result = handling.await;
            match result {
                Ok(()) => Answer::Done,
                Err(failure) => {
                    self.tell(&event, &failure, &trace_id);
                    self.again(&event).await
                }
            }
        });
        delivery.answer(result.await);
    }

    fn tell(&self, event: &Event, failure: &Failure, trace_id: &str) {
        let Self { name: interface, handler, queue, .. } = self;
        let (kind, method) = (event.kind.as_str(), handler.name);
        let failed = |error: &(dyn std::error::Error + Send + Sync + 'static)| {
            let failed = FailedCall { interface, method, trace_id, error };
            self.components.iter().for_each(|component| component.on_error(&failed));
        };
        match failure {
            Failure::Arguments(error) => {
                tracing::warn!(event = kind, queue, %error, "the event's body does not fit its handler");
            }
            Failure::Error(error) => {
                tracing::error!(event = kind, queue, error = %chain(&**error), "the event's handler failed");
                failed(&**error);
            }
            Failure::Panic(text) => {
                let error = Panicked(text.clone());
                tracing::error!(event = kind, queue, %error, "the event's handler panicked");
                failed(&error);
            }
            other => {
                tracing::error!(event = kind, queue, error = %other, "the event's handler failed");
            }
        }
    }

    /// Lets a failed handler try again, as often as it asks for: the event says how often that still is. Its last try is the end of it.
    async fn again(&self, event: &Event) -> Answer {
        let left = match event.header(RETRY_COUNT) {
            Some(Value::Int(left)) => *left,
            _ => i64::from(self.handler.retry),
        };
        if self.handler.retry == 0 || left <= 0 {
            let (kind, queue) = (event.kind.as_str(), &self.queue);
            let tries = i64::from(self.handler.retry) + 1;
            tracing::error!(
                event = kind,
                queue,
                tries,
                "the event is dropped: its handler failed at the last try"
            );
            return Answer::Failed;
        }
        let mut event = event.clone();
        event.set_header(RETRY_COUNT, Value::Int(left - 1));
        let again = Emission { event, delay: Duration::ZERO, queue: Some(self.queue.clone()) };
        match self.process.events.emit(again).await {
            Ok(()) => Answer::Failed,
            Err(error) => {
                tracing::warn!(queue = self.queue, %error, "the next try could not be queued: the event comes again as it is");
                Answer::Returned
            }
        }
    }
}
