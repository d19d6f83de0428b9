//! What is asked of a broker, and what it says.

use std::time::Duration;

#[cfg(doc)]
use super::{Broker, MAX_DELIVERIES};
use crate::events::pattern::Pattern;

/// How much a broker holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all queues.
    pub total: usize,
    /// Bytes of one queue, so that one that nobody works off leaves room for the others.
    pub queue: usize,
    /// Queues.
    pub queues: usize,
}

impl Default for Limits {
    /// 64 MiB, a quarter of it for one queue, 4096 queues.
    fn default() -> Self {
        Self { total: 64 << 20, queue: 16 << 20, queues: 4096 }
    }
}

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Subscribers of one queue share its events.
    pub queue: String,
    /// Which events go there. Those of the latest subscribers hold.
    pub patterns: Vec<Pattern>,
    /// How many events it works on at once.
    pub prefetch: u32,
    /// A queue of its own, which ends with it.
    pub own: bool,
}

/// An event on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery<P, E> {
    /// To answer with.
    pub number: u64,
    /// To whom.
    pub peer: P,
    /// From which queue.
    pub queue: String,
    /// What.
    pub event: E,
    /// Whether somebody had it before.
    pub redelivered: bool,
}

/// What a broker wants done, or told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<P, E> {
    /// Send it.
    Deliver(Delivery<P, E>),
    /// There was no room, and nobody had worked this queue off for long.
    Forgotten {
        /// Its name.
        queue: String,
        /// Events that are lost with it.
        events: usize,
    },
    /// It was lost with its subscriber [`MAX_DELIVERIES`] times.
    GivenUp {
        /// The queue that it was in.
        queue: String,
        /// What.
        event: E,
    },
}

/// How an event ended at its subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was handled.
    Done,
    /// It was not, and nobody else is to try.
    Failed,
    /// It was not: somebody else is to have it.
    Returned,
}

/// Why an event is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// One of its queues is full.
    #[error("queue `{queue}` is full: {bytes} bytes wait in it")]
    QueueFull {
        /// Which.
        queue: String,
        /// What waits.
        bytes: usize,
    },
    /// There is no room at all.
    #[error("the event broker is full: {bytes} bytes wait in it")]
    Full {
        /// What waits.
        bytes: usize,
    },
    /// There are too many queues.
    #[error("the event broker has {queues} queues, and takes no more")]
    Queues {
        /// How many.
        queues: usize,
    },
}

/// An event to take.
#[derive(Clone, Debug)]
pub struct Emit<E> {
    /// Its type.
    pub kind: String,
    /// The event.
    pub event: E,
    /// Its bytes.
    pub size: usize,
    /// How long it is held back.
    pub delay: Duration,
    /// Only for this queue, whatever its patterns.
    pub queue: Option<String>,
}

/// What a broker holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Queues.
    pub queues: usize,
    /// Subscribers of all queues.
    pub subscribers: usize,
    /// Events that wait in queues.
    pub waiting: usize,
    /// Events that are being worked on.
    pub running: usize,
    /// Events that are held back.
    pub delayed: usize,
    /// Bytes of all these.
    pub bytes: usize,
}
