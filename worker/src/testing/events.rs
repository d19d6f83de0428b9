//! The events of a test network: what was emitted is remembered, and the test can emit itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hilum_shared::events::{
    Emission, EventError, EventSystem, Local, Pattern, Subscriber, Subscription,
};
use hilum_shared::rpc::BoxFuture;
use hilum_shared::wire::event::RETRY_COUNT;
use hilum_shared::wire::{Event, Value, to_value};
use serde::Serialize;

/// The events of a test network. Clones are the same.
///
/// Its assertions panic with all that was emitted. What a handler emits is there when the handler has gone so far: [`EventMock::idle`] waits for that.
#[derive(Clone, Default)]
pub struct EventMock {
    local: Local,
    emitted: Arc<Mutex<Vec<Event>>>,
}

impl EventMock {
    /// Emits an event from the test. It is not among those that were emitted.
    pub async fn emit(&self, kind: &str, body: impl Serialize) {
        let event = Event::new(kind, &body).expect("the body has a MessagePack form");
        self.local.emit(event.into()).await.expect("a broker in memory takes it");
    }

    /// Waits until every event is handled, those that handlers emitted among them. Delayed ones do not count.
    pub async fn idle(&self) {
        self.local.idle().await;
    }

    /// What was emitted so far, in order. Further tries of a handler that failed are not in it.
    pub fn emitted(&self) -> Vec<Event> {
        self.lock().clone()
    }

    /// Forgets what was emitted so far.
    pub fn forget(&self) {
        self.lock().clear();
    }

    /// Asserts that an event of this type was emitted with this body, maybe among others.
    #[track_caller]
    pub fn assert_emitted(&self, kind: &str, body: impl Serialize) {
        let body = to_value(&body).expect("the body has a MessagePack form");
        let found = self.lock().iter().any(|event| event.kind == kind && same(&event.body, &body));
        assert!(found, "`{kind}` {body} was not emitted; {}", self.account());
    }

    /// Asserts how many events of this type, or pattern, were emitted.
    #[track_caller]
    pub fn assert_emitted_times(&self, pattern: &str, times: usize) {
        let wanted = Pattern::new(pattern);
        let count = self.lock().iter().filter(|event| wanted.matches(&event.kind)).count();
        assert!(
            count == times,
            "`{pattern}` was emitted {count} times, not {times}; {}",
            self.account()
        );
    }

    /// Asserts that no event of this type, or pattern, was emitted.
    #[track_caller]
    pub fn assert_not_emitted(&self, pattern: &str) {
        self.assert_emitted_times(pattern, 0);
    }

    fn account(&self) -> String {
        let emitted = self.lock();
        let all: Vec<String> =
            emitted.iter().map(|event| format!("`{}` {}", event.kind, event.body)).collect();
        if all.is_empty() {
            return "nothing was emitted at all".to_owned();
        }
        format!("emitted were: {}", all.join(", "))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.emitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventSystem for EventMock {
    fn emit(&self, emission: Emission) -> BoxFuture<'_, Result<(), EventError>> {
        Box::pin(async move {
            let again = emission.event.header(RETRY_COUNT).is_some();
            let event = emission.event.clone();
            if !again {
                self.lock().push(event); // before it is handled, so that causes come before effects
            }
            self.local.emit(emission).await
        })
    }

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxFuture<'_, Result<Subscriber, EventError>> {
        self.local.subscribe(subscription)
    }
}

/// Whether two bodies say the same: maps in whatever order.
pub(super) fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Map(one), Value::Map(other)) => {
            one.len() == other.len() && one.iter().all(|entry| other.contains(entry))
        }
        _ => one == other,
    }
}
