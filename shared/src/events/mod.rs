//! Events: something happened, and whoever wants to know is told.
//!
//! ```text
//!  emit ─► EventSystem ─► queue ─► one of its subscribers ─► done · failed · returned
//!                     └─► queue ─► …                    (a queue for each service and handler)
//! ```
//! Delivered at least once: an event stays in its queue until somebody answers, and comes again when that one is lost. [`Local`] keeps the
//! queues in this process, [`Embedded`] asks the node's broker, [`Null`] drops everything. Both brokers decide by [`broker`].

pub mod broker;
mod embedded;
mod local;
pub mod messages;
mod null;
mod pattern;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

pub use broker::{Answer, MAX_PREFETCH, PREFETCH};
pub use embedded::Embedded;
pub use local::Local;
pub use null::Null;
pub use pattern::Pattern;

use crate::rpc::BoxFuture;
use crate::wire::Event;

/// The longest event type, pattern and queue name, in bytes: AMQP's.
pub const MAX_NAME: usize = 255;

/// Why an event was not emitted, or nobody is told of it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// The broker cannot be reached now. An event may have been taken all the same.
    #[error("the event broker at `{place}` cannot be reached: {reason}")]
    Unreachable {
        /// Where it should be.
        place: String,
        /// Why.
        reason: String,
    },
    /// It said no, for example because it is full.
    #[error("the event broker refused: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// Empty, or too long.
    #[error("`{name}` cannot be {what}: it has 1 to {MAX_NAME} bytes")]
    Name {
        /// What it should be.
        what: &'static str,
        /// The text.
        name: String,
    },
    /// Empty, too long, or with an empty word.
    #[error(
        "`{text}` cannot be {what}: it is words with dots between them, none empty, of {MAX_NAME} bytes at most"
    )]
    Kind {
        /// What it should be.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// The body has no MessagePack form.
    #[error("the event's body: {reason}")]
    Body {
        /// What the encoder says.
        reason: String,
    },
    /// Somebody in this process listens to the queue.
    #[error("queue `{queue}` has a subscriber in this process already")]
    Taken {
        /// Which.
        queue: String,
    },
}

/// An event to emit.
#[derive(Clone, Debug, PartialEq)]
pub struct Emission {
    /// What.
    pub event: Event,
    /// How long it is held back.
    pub delay: Duration,
    /// Only for this queue, whatever its patterns: a handler's next try.
    pub queue: Option<String>,
}

impl From<Event> for Emission {
    fn from(event: Event) -> Self {
        Self { event, delay: Duration::ZERO, queue: None }
    }
}

/// What somebody wants to be told, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Subscribers of one queue share its events; usually `<interface>-<method>`.
    pub queue: String,
    /// Types, with `*` for one word and `#` for any number.
    pub patterns: Vec<String>,
    /// One event at a time.
    pub sequential: bool,
    /// A queue of its own, so that each subscriber is told; it ends with the subscriber.
    pub broadcast: bool,
    /// As `broadcast`, and only the first event.
    pub once: bool,
    /// How many events at once; `None`: [`PREFETCH`].
    pub prefetch: Option<u32>,
}

impl Subscription {
    /// How many events are worked on at once.
    pub fn width(&self) -> u32 {
        if self.sequential || self.once {
            return 1;
        }
        self.prefetch.unwrap_or(PREFETCH).clamp(1, MAX_PREFETCH)
    }

    /// Whether the queue belongs to this subscriber alone.
    pub fn is_own(&self) -> bool {
        self.broadcast || self.once
    }

    fn check(&self) -> Result<(), EventError> {
        check("the name of a queue", &self.queue)?;
        self.patterns.iter().try_for_each(|pattern| check_kind("a pattern of events", pattern))
    }
}

fn check(what: &'static str, name: &str) -> Result<(), EventError> {
    if (1..=MAX_NAME).contains(&name.len()) {
        return Ok(());
    }
    Err(EventError::Name { what, name: name.to_owned() })
}

fn check_kind(what: &'static str, text: &str) -> Result<(), EventError> {
    if is_kind(text) {
        return Ok(());
    }
    Err(EventError::Kind { what, text: text.to_owned() })
}

/// Whether a text can be an event's type, or a pattern of types: words with dots between them, of 1 to [`MAX_NAME`] bytes in all.
pub fn is_kind(text: &str) -> bool {
    text.len() <= MAX_NAME && text.split('.').all(|word| !word.is_empty())
}

/// Takes events and tells subscribers.
pub trait EventSystem: Send + Sync + 'static {
    /// Emits an event; it is safe with the broker when this is done.
    fn emit(&self, emission: Emission) -> BoxFuture<'_, Result<(), EventError>>;

    /// Subscribes; events emitted from when this is done are told.
    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxFuture<'_, Result<Subscriber, EventError>>;
}

/// Ends a subscription.
trait Keeper: Send + Sync {
    /// No event comes after this is done.
    fn stop(&self) -> BoxFuture<'_, ()>;
}

/// Events of one subscription. Dropping it ends the subscription; what was not taken goes to others.
pub struct Subscriber {
    keeper: Option<Box<dyn Keeper>>,
    events: mpsc::UnboundedReceiver<Delivery>,
    once: bool,
}

impl Subscriber {
    /// `events` never holds more than the subscription's width: the broker waits for answers.
    fn new(
        events: mpsc::UnboundedReceiver<Delivery>,
        keeper: Option<Box<dyn Keeper>>,
        once: bool,
    ) -> Self {
        Self { keeper, events, once }
    }

    /// The next event; `None` when no more come.
    pub async fn next(&mut self) -> Option<Delivery> {
        let next = self.events.recv().await?;
        if self.once {
            // Before it is answered, so that the broker does not send another.
            self.stop().await;
        }
        Some(next)
    }

    /// Ends the subscription: what is not begun goes to others, what was taken stays to be answered.
    pub async fn stop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.stop().await;
        }
        self.events.close();
        while self.events.try_recv().is_ok() {} // dropped: returned
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let (Some(keeper), Ok(runtime)) = (self.keeper.take(), Handle::try_current()) else {
            return;
        };
        let events = std::mem::replace(&mut self.events, mpsc::unbounded_channel().1);
        runtime.spawn(async move {
            keeper.stop().await;
            drop(keeper);
            drop(events); // only now: what is returned before would come again
        });
    }
}

type Respond = Box<dyn FnOnce(Answer) + Send>;

/// An event to handle. Dropped without an answer it goes to another.
pub struct Delivery {
    /// What happened.
    pub event: Arc<Event>,
    /// From which queue it comes.
    pub queue: String,
    /// Whether somebody had it before and was lost.
    pub redelivered: bool,
    respond: Option<Respond>,
}

impl Delivery {
    fn new(event: Arc<Event>, queue: String, redelivered: bool, respond: Respond) -> Self {
        Self { event, queue, redelivered, respond: Some(respond) }
    }

    /// Says how it ended.
    pub fn answer(mut self, answer: Answer) {
        if let Some(respond) = self.respond.take() {
            respond(answer);
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(respond) = self.respond.take() {
            respond(Answer::Returned);
        }
    }
}
