//! The node's broker, from a service's side.
//!
//! One connection carries everything, in both directions. While there are subscriptions, one `events.hold` is open on it; after its loss
//! everything is subscribed anew ([`crate::rpc::held`]). Meanwhile the broker has given what we had not answered to others.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Notify, mpsc};

use super::messages::{Deliver, Emit, Emitted, HOLD, Subscribe, Unsubscribe, deliverable};
use super::{
    Answer, Delivery, Emission, EventError, EventSystem, Keeper, Subscriber, Subscription,
    check_kind,
};
use crate::rpc::held::{Kept, LIMIT, Place, PlaceError, Task, keep};
use crate::rpc::{self, BoxFuture, Endpoint, Incoming, ReplyChannel, Sockets};
use crate::wire::event::DELIVERED;
use crate::wire::message::Message;

/// A node's event broker. Clones are the same; the connection ends with the last of them and of their subscribers.
#[derive(Clone)]
pub struct Embedded {
    shared: Arc<Shared>,
    task: Arc<Task>,
}

struct Shared {
    place: Place,
    token: Option<String>,
    desk: Arc<Desk>,
    /// There is a subscription, and so a connection to watch over.
    changed: Notify,
}

/// Who listens to which queue.
#[derive(Default)]
struct Desk {
    seats: Mutex<BTreeMap<String, Seat>>,
}

struct Seat {
    subscribe: Subscribe,
    events: mpsc::UnboundedSender<Delivery>,
}

impl Desk {
    fn seats(&self) -> MutexGuard<'_, BTreeMap<String, Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event came.
    fn take(&self, incoming: Incoming) {
        let Incoming { message, channel } = incoming;
        if message.subject != "events.deliver" {
            return; // the end of the channel refuses
        }
        let deliver: Deliver = match message.unpack() {
            Ok(deliver) => deliver,
            Err(error) => {
                tracing::warn!(%error, "an event that cannot be read: refused");
                return;
            }
        };
        let Deliver { queue, redelivered, event } = deliver;
        let events = self.seats().get(&queue).map(|seat| seat.events.clone());
        let respond = Box::new(move |answer| respond(&channel, answer));
        let delivery = Delivery::new(Arc::new(event), queue, redelivered, respond);
        // Where nobody listens any longer it is dropped here, and so returned.
        if let Some(events) = events {
            let _ = events.send(delivery);
        }
    }
}

fn respond(channel: &ReplyChannel, answer: Answer) {
    let sent = match answer {
        Answer::Done => channel.ack(),
        Answer::Failed => channel.nack(),
        Answer::Returned => channel.error("Returned", "not begun: another may have it"),
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "an event was not answered");
    }
}

impl Embedded {
    /// The broker at `place` (`HILUM_EVENTS`). `token` (`HILUM_TOKEN`) ties subscriptions to this run: they end the moment the node
    /// sees it end. Without one they end with the connection. Nothing is asked of the broker yet.
    ///
    /// To be called in a tokio runtime.
    ///
    /// # Errors
    /// Never at present; see [`Endpoint::open`].
    pub async fn open(place: impl Into<String>, token: Option<String>) -> io::Result<Self> {
        let desk = Arc::new(Desk::default());
        let handler = Arc::clone(&desk);
        let handler = Arc::new(move |incoming: Incoming| handler.take(incoming));
        // No pings: `hold` is open, and the end of a local connection is seen at once.
        let config = rpc::Config { heartbeat_interval: Duration::ZERO, ..rpc::Config::default() };
        let endpoint = Endpoint::open(Arc::new(Sockets), &[], handler, config).await?;
        let place = Place { endpoint, address: place.into(), interface: "events" };
        let shared = Arc::new(Shared { place, token, desk, changed: Notify::new() });
        let task = Task::spawn(keep(Arc::clone(&shared)));
        Ok(Self { shared, task })
    }

    /// Emits an event, and says to how many queues it went: none, where nobody has ever wanted it, or where it is held back.
    ///
    /// # Errors
    /// See [`EventError`].
    pub async fn emit(&self, emission: Emission) -> Result<usize, EventError> {
        let Emission { event, delay, queue } = emission;
        check_kind("the type of an event", &event.kind)?;
        deliverable(&event)?;
        let emit = Emit {
            kind: event.kind,
            headers: event.headers,
            body: event.body,
            source: event.source,
            delay: delay.as_secs_f64(),
            queue,
            token: self.shared.token.clone(),
        };
        let answer = self.shared.place.call_with("emit", &emit, DELIVERED, LIMIT).await?;
        Ok(answer.unpack::<Option<Emitted>>().ok().flatten().unwrap_or_default().queues)
    }
}

impl Shared {
    async fn call(&self, method: &str, args: &impl Serialize) -> Result<Message, EventError> {
        Ok(self.place.call(method, args, LIMIT).await?)
    }
}

impl From<PlaceError> for EventError {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::Unwritable(reason) => Self::Body { reason },
            PlaceError::Unreachable { place, reason } => Self::Unreachable { place, reason },
            PlaceError::Refused(reason) => Self::Refused { reason },
        }
    }
}

impl Kept for Shared {
    type Error = EventError;
    const NAME: &str = "the event broker";

    fn is_idle(&self) -> bool {
        self.desk.seats().is_empty()
    }

    fn changed(&self) -> &Notify {
        &self.changed
    }

    async fn hold(&self) -> Result<(), EventError> {
        let limit = Duration::from_secs(HOLD) + LIMIT;
        Ok(self.place.call("hold", &Nothing {}, limit).await.map(drop)?)
    }

    async fn enter(&self) -> Result<(), EventError> {
        let all: Vec<Subscribe> =
            self.desk.seats().values().map(|seat| seat.subscribe.clone()).collect();
        for subscribe in all {
            self.call("subscribe", &subscribe).await?;
        }
        Ok(())
    }
}

/// No arguments.
#[derive(Serialize)]
struct Nothing {}

impl EventSystem for Embedded {
    fn emit(&self, emission: Emission) -> BoxFuture<'_, Result<(), EventError>> {
        Box::pin(async move { self.emit(emission).await.map(drop) })
    }

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxFuture<'_, Result<Subscriber, EventError>> {
        Box::pin(async move {
            subscription.check()?;
            let (sender, events) = mpsc::unbounded_channel();
            let queue = subscription.queue.clone();
            let subscribe = Subscribe::new(&subscription, self.shared.token.clone());
            {
                let mut seats = self.shared.desk.seats();
                if seats.contains_key(&queue) {
                    return Err(EventError::Taken { queue });
                }
                seats.insert(queue.clone(), Seat { subscribe: subscribe.clone(), events: sender });
            }
            let seat =
                Seated { shared: Arc::clone(&self.shared), queue, _task: Arc::clone(&self.task) };
            let subscribed = self.shared.call("subscribe", &subscribe).await;
            if let Err(error) = subscribed {
                self.shared.desk.seats().remove(&seat.queue);
                return Err(error);
            }
            self.shared.changed.notify_one();
            Ok(Subscriber::new(events, Some(Box::new(seat)), subscription.once))
        })
    }
}

/// A subscriber's place.
struct Seated {
    shared: Arc<Shared>,
    queue: String,
    _task: Arc<Task>,
}

impl Keeper for Seated {
    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let unsubscribe = Unsubscribe { queue: self.queue.clone() };
            if let Err(error) = self.shared.call("unsubscribe", &unsubscribe).await {
                tracing::debug!(%error, queue = self.queue, "not unsubscribed");
            }
            self.shared.desk.seats().remove(&self.queue);
        })
    }
}
