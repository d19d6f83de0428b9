//! Events inside one process: what the node's broker does, without a node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::broker::{Answer, Broker, Effect, Emit, Limits, Refusal, Subscribe};
use super::messages::deliverable;
use super::{
    Delivery, Emission, EventError, EventSystem, Keeper, Pattern, Subscriber, Subscription,
    check_kind,
};
use crate::rpc::BoxFuture;
use crate::wire::Event;

/// Queues in this process. Clones are the same; what waits ends with the process.
#[derive(Clone)]
pub struct Local {
    shared: Arc<Shared>,
}

struct Shared {
    begun: Instant,
    state: Mutex<State>,
    /// Counts what has changed.
    changes: watch::Sender<u64>,
}

struct State {
    broker: Broker<u64, Arc<Event>>,
    subscribers: HashMap<u64, mpsc::UnboundedSender<Delivery>>,
    next: u64,
}

impl Default for Local {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Local {
    /// Empty queues that hold so much.
    pub fn new(limits: Limits) -> Self {
        let state = State { broker: Broker::new(limits), subscribers: HashMap::new(), next: 0 };
        let changes = watch::Sender::new(0);
        Self {
            shared: Arc::new(Shared { begun: Instant::now(), state: Mutex::new(state), changes }),
        }
    }

    /// Waits until no handler works and nothing waits for one. Events that are held back do not count.
    pub async fn idle(&self) {
        let mut changes = self.shared.changes.subscribe();
        while !self.shared.state().broker.is_idle() {
            // The sender lives in this very value.
            let _ = changes.changed().await;
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the broker decide, and gives out what it says.
    fn with<T>(
        self: &Arc<Self>,
        decide: impl FnOnce(
            &mut Broker<u64, Arc<Event>>,
            Duration,
            &mut Vec<Effect<u64, Arc<Event>>>,
        ) -> T,
    ) -> T {
        let mut effects = Vec::new();
        let mut nobody = Vec::new();
        let mut state = self.state();
        let result = decide(&mut state.broker, self.begun.elapsed(), &mut effects);
        for effect in effects {
            match effect {
                Effect::Deliver(delivery) => {
                    let (shared, peer, number) =
                        (Arc::downgrade(self), delivery.peer, delivery.number);
                    let respond = Box::new(move |answer| answered(&shared, peer, number, answer));
                    let super::broker::Delivery { event, queue, redelivered, .. } = delivery;
                    let delivery = Delivery::new(event, queue, redelivered, respond);
                    match state.subscribers.get(&peer) {
                        Some(subscriber) => {
                            nobody.extend(subscriber.send(delivery).err().map(|error| error.0));
                        }
                        None => nobody.push(delivery),
                    }
                }
                Effect::Forgotten { queue, events } => {
                    tracing::warn!(queue, events, "events dropped: nobody works them off");
                }
                Effect::GivenUp { queue, event } => {
                    tracing::error!(
                        queue,
                        event = event.kind,
                        "an event was returned too often: dropped"
                    );
                }
            }
        }
        drop(state);
        self.changes.send_modify(|count| *count += 1);
        drop(nobody); // each says that it is returned, and that asks for the state
        result
    }
}

fn answered(shared: &Weak<Shared>, peer: u64, number: u64, answer: Answer) {
    if let Some(shared) = shared.upgrade() {
        shared.with(|broker, now, out| broker.answer(now, &peer, number, answer, out));
    }
}

impl From<Refusal> for EventError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { reason: refusal.to_string() }
    }
}

impl EventSystem for Local {
    fn emit(&self, emission: Emission) -> BoxFuture<'_, Result<(), EventError>> {
        Box::pin(async move {
            let Emission { event, delay, queue } = emission;
            check_kind("the type of an event", &event.kind)?;
            let packed = deliverable(&event)?;
            let (kind, size) = (event.kind.clone(), packed.len());
            let emit = Emit { kind, event: Arc::new(event), size, delay, queue };
            self.shared.with(|broker, now, out| broker.emit(now, emit, out))?;
            if delay > Duration::ZERO {
                let shared = Arc::downgrade(&self.shared);
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    if let Some(shared) = shared.upgrade() {
                        shared.with(Broker::tick);
                    }
                });
            }
            Ok(())
        })
    }

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxFuture<'_, Result<Subscriber, EventError>> {
        Box::pin(async move {
            subscription.check()?;
            let (sender, events) = mpsc::unbounded_channel();
            let peer = {
                let mut state = self.shared.state();
                state.next += 1;
                let peer = state.next;
                state.subscribers.insert(peer, sender);
                peer
            };
            let once = subscription.once;
            let keeper = Seat {
                shared: Arc::downgrade(&self.shared),
                peer,
                queue: subscription.queue.clone(),
            };
            let subscribe = Subscribe {
                patterns: subscription.patterns.iter().map(|text| Pattern::new(text)).collect(),
                prefetch: subscription.width(),
                own: subscription.is_own(),
                queue: subscription.queue,
            };
            self.shared.with(|broker, _, out| broker.subscribe(peer, subscribe, out))?;
            Ok(Subscriber::new(events, Some(Box::new(keeper)), once))
        })
    }
}

/// A subscriber's place, until it is dropped.
struct Seat {
    shared: Weak<Shared>,
    peer: u64,
    queue: String,
}

impl Keeper for Seat {
    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(())) // its end is when it is dropped, right after
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        shared.with(|broker, now, out| broker.unsubscribe(now, &self.peer, &self.queue, out));
        let gone = shared.state().subscribers.remove(&self.peer);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Null;

    fn to(queue: &str, pattern: &str) -> Subscription {
        Subscription {
            queue: queue.into(),
            patterns: vec![pattern.into()],
            ..Subscription::default()
        }
    }

    async fn emit(local: &Local, kind: &str, body: u32) {
        local.emit(Event::new(kind, &body).unwrap().into()).await.unwrap();
    }

    fn body(delivery: &Delivery) -> u32 {
        delivery.event.body().unwrap()
    }

    #[tokio::test]
    async fn subscribers_of_a_queue_share_and_a_broadcast_reaches_all() {
        let local = Local::default();
        let mut all = Vec::new();
        for broadcast in [false, false, true, true] {
            let queue = if broadcast { "all" } else { "one" };
            all.push(
                local.subscribe(Subscription { broadcast, ..to(queue, "a.*") }).await.unwrap(),
            );
        }
        emit(&local, "a.b", 1).await;
        emit(&local, "a.b", 2).await;
        let mut got = Vec::new();
        for subscriber in &mut all {
            let delivery = subscriber.next().await.unwrap();
            got.push(body(&delivery));
            delivery.answer(Answer::Done);
        }
        assert_eq!(got, [1, 2, 1, 1]);
        assert!(!all[3].events.is_empty(), "the second is there, too");
    }

    #[tokio::test]
    async fn what_a_dropped_subscriber_had_not_answered_goes_to_the_next() {
        let local = Local::default();
        let mut first = local.subscribe(to("q", "x")).await.unwrap();
        for number in 1..=3 {
            emit(&local, "x", number).await;
        }
        let begun = first.next().await.unwrap();
        drop(first);
        let mut second = local.subscribe(to("q", "x")).await.unwrap();
        for expected in [2, 3] {
            let delivery = second.next().await.unwrap();
            assert_eq!(body(&delivery), expected);
            delivery.answer(Answer::Done);
        }
        drop(begun);
        let again = second.next().await.unwrap();
        assert_eq!((body(&again), again.redelivered), (1, true));
    }

    #[tokio::test]
    async fn once_is_once_and_sequential_one_at_a_time() {
        let local = Local::default();
        let mut once = local.subscribe(Subscription { once: true, ..to("o", "x") }).await.unwrap();
        let sequential = Subscription { sequential: true, ..to("s", "x") };
        let mut sequential = local.subscribe(sequential).await.unwrap();
        emit(&local, "x", 1).await;
        emit(&local, "x", 2).await;
        once.next().await.unwrap().answer(Answer::Done);
        assert!(once.next().await.is_none());
        let delivery = sequential.next().await.unwrap();
        assert!(sequential.events.is_empty());
        delivery.answer(Answer::Done);
        assert_eq!(body(&sequential.next().await.unwrap()), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delayed_event_comes_when_its_time_is_over() {
        let local = Local::default();
        let mut subscriber = local.subscribe(to("q", "#")).await.unwrap();
        let event = Event::new("later", &1).unwrap();
        let delay = Duration::from_secs(3600);
        local.emit(Emission { delay, ..event.into() }).await.unwrap();
        let begun = Instant::now();
        subscriber.next().await.unwrap().answer(Answer::Done);
        assert!(begun.elapsed() >= delay);
        local.idle().await;
    }

    #[tokio::test]
    async fn null_tells_nobody_and_names_are_checked() {
        let mut silent = Null.subscribe(to("q", "#")).await.unwrap();
        Null.emit(Event::new("x", &1).unwrap().into()).await.unwrap();
        silent.stop().await;
        assert!(silent.next().await.is_none());
        let nameless = Local::default().subscribe(to("", "#")).await.err().unwrap();
        assert!(nameless.to_string().contains("name of a queue"), "{nameless}");
        let long = Event::new("x".repeat(256), &1).unwrap();
        assert!(Local::default().emit(long.into()).await.is_err());
    }
}
