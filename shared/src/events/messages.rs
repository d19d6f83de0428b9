//! What the node's broker and its clients say to each other: interface `events` (`docs/protocol.md`).

use serde::{Deserialize, Serialize};

use super::{EventError, PREFETCH, Subscription};
use crate::wire::message::{EncodeError, pack};
use crate::wire::{Event, Value};

/// The interface.
pub const INTERFACE: &str = "events";
/// How long the broker holds `events.hold`, in seconds.
pub const HOLD: u64 = 30;

/// `events.subscribe`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subscribe {
    /// Which queue.
    pub queue: String,
    /// Which events.
    pub patterns: Vec<String>,
    /// One at a time.
    #[serde(default)]
    pub sequential: bool,
    /// A queue of its own.
    #[serde(default)]
    pub broadcast: bool,
    /// How many at once.
    #[serde(default = "prefetch")]
    pub prefetch: u32,
    /// The run's, so that its end is the subscription's.
    #[serde(default)]
    pub token: Option<String>,
}

fn prefetch() -> u32 {
    PREFETCH
}

impl Subscribe {
    /// What a subscription asks for.
    pub fn new(subscription: &Subscription, token: Option<String>) -> Self {
        Self {
            queue: subscription.queue.clone(),
            patterns: subscription.patterns.clone(),
            sequential: subscription.sequential || subscription.once,
            broadcast: subscription.is_own(),
            prefetch: subscription.width(),
            token,
        }
    }

    /// The subscription that is asked for.
    pub fn subscription(&self) -> Subscription {
        Subscription {
            queue: self.queue.clone(),
            patterns: self.patterns.clone(),
            sequential: self.sequential,
            broadcast: self.broadcast,
            once: false,
            prefetch: Some(self.prefetch),
        }
    }
}

/// `events.unsubscribe`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unsubscribe {
    /// Which queue.
    pub queue: String,
}

/// `events.emit`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Emit {
    /// The event's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its headers.
    #[serde(default)]
    pub headers: Value,
    /// Its body.
    #[serde(default)]
    pub body: Value,
    /// Who emits it.
    #[serde(default)]
    pub source: Option<String>,
    /// Seconds that it is held back.
    #[serde(default)]
    pub delay: f64,
    /// Only for this queue.
    #[serde(default)]
    pub queue: Option<String>,
    /// The run's, where the sockets are open to other users.
    #[serde(default)]
    pub token: Option<String>,
}

/// The answer to `events.emit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emitted {
    /// To how many queues it went; 0 also for one that is held back.
    #[serde(default)]
    pub queues: usize,
}

/// `events.deliver`
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Deliver {
    /// From which queue.
    pub queue: String,
    /// Whether somebody had it before.
    #[serde(default)]
    pub redelivered: bool,
    /// What.
    pub event: Event,
}

/// Packs an event, if those who have subscribed can read it: it is delivered inside of a message.
///
/// # Errors
/// When it has no MessagePack form, or is nested too deep or too large for that.
pub fn deliverable(event: &Event) -> Result<Vec<u8>, EventError> {
    event.encode().map_err(|error| EventError::Body { reason: error.to_string() })
}

/// The body of `events.deliver`, around an event that is packed already.
///
/// # Errors
/// When the name is too long for MessagePack.
pub fn deliver(queue: &str, redelivered: bool, event: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let mut body = vec![0x83]; // a map of three
    for part in [pack("queue")?, pack(queue)?, pack("redelivered")?, pack(&redelivered)?] {
        body.extend(part);
    }
    body.extend(pack("event")?);
    body.extend(event);
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::unpack;

    #[test]
    fn a_packed_event_is_delivered_as_it_is() {
        let event = Event::new("a.b", "text").unwrap();
        let body = deliver("q-x", true, &event.encode().unwrap()).unwrap();
        let read: Deliver = unpack(&body, "body").unwrap();
        assert_eq!(read, Deliver { queue: "q-x".into(), redelivered: true, event });
    }

    #[test]
    fn what_could_be_emitted_and_not_delivered_is_refused() {
        let event = |levels: usize| {
            let body = (0..levels).fold(Value::Nil, |inner, _| Value::List(vec![inner]));
            Event { kind: "a.b".into(), headers: Value::Nil, body, source: None }
        };
        let packed = deliverable(&event(62)).unwrap();
        unpack::<Deliver>(&deliver("q-x", false, &packed).unwrap(), "body").unwrap();
        let error = deliverable(&event(63)).unwrap_err();
        assert!(error.to_string().contains("deeper than 64 levels"), "{error}");
    }
}
