//! `shutdown.sock`: orders to drain and stop, or to read the configuration again.
//!
//! An XPUB sees each subscription, so that an order is sent only where it is heard and is repeated to whoever
//! subscribes while it is in force. It is never the only guarantee: a signal stands behind it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hilum_shared::name::{InstanceId, Run};
use hilum_shared::protocol::{Order, OrderKind as Kind, topics};
use hilum_shared::transport::{
    Flow, Frames, Handler, Hub, Kind as SocketKind, OpenError, Port, Socket, SocketSpec,
};
use hilum_shared::wire::message::{new_id, pack};

use super::counters::Counters;
use super::unix_now;
use crate::core::action::OrderKind;

/// Instances whose subscriptions are remembered; a stranger may subscribe to names without end.
const MAX_LISTENING: usize = 65_536;

/// Whether an order was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The instance listens and was told.
    Sent,
    /// Nobody listens under its name (yet): it needs the signal.
    Nobody,
}

/// The endpoint. Dropping it closes the socket.
pub struct Shutdown {
    socket: Socket,
    state: Arc<Mutex<State>>,
    counters: Counters,
}

#[derive(Default)]
struct State {
    listening: HashSet<InstanceId>,
    /// What late subscribers must be told.
    in_force: HashMap<InstanceId, (Run, Frames)>,
}

impl Shutdown {
    /// Binds `endpoint` with this file mode.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn open(
        hub: &Hub,
        endpoint: &str,
        mode: u32,
        counters: Counters,
    ) -> Result<Self, OpenError> {
        let state = Arc::new(Mutex::new(State::default()));
        let ear = Ear { state: Arc::clone(&state), counters: counters.clone() };
        let mut spec = SocketSpec::new(SocketKind::Xpub).bind(endpoint);
        (spec.mode, spec.queue) = (mode, MAX_LISTENING);
        Ok(Self { socket: hub.open(spec, ear)?, state, counters })
    }

    /// Sends an order to one run. A shutdown stays in force for late subscribers until [`Shutdown::retract`]; a reload
    /// is for those that listen now: whoever comes later reads the new configuration anyway.
    pub fn order(&self, instance: &InstanceId, run: Run, kind: OrderKind, reason: &str) -> Heard {
        let (kind, grace) = match kind {
            OrderKind::Shutdown { grace } => (Kind::Shutdown, grace.as_secs_f64()),
            OrderKind::Reload => (Kind::Reload, 0.0),
        };
        let order = Order {
            id: new_id(),
            kind,
            run: Some(run),
            reason: reason.to_owned(),
            grace,
            at: unix_now(),
        };
        let [_, _, topic] = topics(instance);
        let body = pack(&order).expect("a map of texts and numbers always packs");
        let frames = vec![topic.into_bytes(), body];
        // Under the lock: a subscription that comes now sees the order in force, or is seen here.
        let mut state = self.lock();
        if kind == Kind::Shutdown {
            state.in_force.insert(instance.clone(), (run, frames.clone()));
        }
        if !state.listening.contains(instance) {
            return Heard::Nobody;
        }
        match self.socket.send(frames) {
            Ok(()) => Heard::Sent,
            Err(_) => {
                self.counters.count("shutdown: order not sent, queue full");
                Heard::Nobody
            }
        }
    }

    /// The run has ended: its order is repeated no more.
    pub fn retract(&self, instance: &InstanceId, run: Run) {
        let mut state = self.lock();
        if state.in_force.get(instance).is_some_and(|(of, _)| *of == run) {
            state.in_force.remove(instance);
        }
    }

    /// Whether somebody listens under the instance's name.
    pub fn listens(&self, instance: &InstanceId) -> bool {
        self.lock().listening.contains(instance)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hears subscriptions, on the ZeroMQ thread.
struct Ear {
    state: Arc<Mutex<State>>,
    counters: Counters,
}

impl Handler for Ear {
    fn message(&mut self, frames: Frames, port: &mut Port<'_>) -> Flow {
        let [frame] = frames.as_slice() else {
            self.counters.count("shutdown: not a subscription");
            return Flow::Taken;
        };
        let Some((&first, topic)) = frame.split_first() else {
            self.counters.count("shutdown: not a subscription");
            return Flow::Taken;
        };
        if first > 1 {
            self.counters.count("shutdown: not a subscription");
            return Flow::Taken;
        }
        let Some(instance) = instance_of(topic) else {
            return Flow::Taken;
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if first == 0 {
            state.listening.remove(&instance);
            return Flow::Taken;
        }
        if state.listening.len() >= MAX_LISTENING && !state.listening.contains(&instance) {
            self.counters.count("shutdown: too many subscriptions");
            return Flow::Taken;
        }
        let order = state.in_force.get(&instance).map(|(_, frames)| frames.clone());
        state.listening.insert(instance);
        if let Some(frames) = order
            && port.send(frames).is_err()
        {
            self.counters.count("shutdown: order not sent, queue full");
        }
        Flow::Taken
    }

    fn rejected(&mut self) {
        self.counters.count("shutdown: not a subscription");
    }
}

/// `instance/echo.3/`; other topics are allowed and of no interest.
fn instance_of(topic: &[u8]) -> Option<InstanceId> {
    let text = std::str::from_utf8(topic).ok()?;
    InstanceId::parse(text.strip_prefix("instance/")?.strip_suffix('/')?).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hilum_shared::protocol;

    use super::*;
    use crate::channels::testing::{World, wait_until};

    const STOP: OrderKind = OrderKind::Shutdown { grace: Duration::from_secs(3) };

    fn id(text: &str) -> InstanceId {
        InstanceId::parse(text).unwrap()
    }

    fn order(frames: &Frames) -> protocol::Order {
        assert_eq!(frames[0], b"instance/a.1/");
        rmp_serde::from_slice(&frames[1]).unwrap()
    }

    #[test]
    fn an_order_reaches_who_listens_and_late_comers_until_it_is_retracted() {
        let world = World::new();
        let shutdown =
            Shutdown::open(&world.hub, &world.address("s"), 0o600, Counters::default()).unwrap();
        assert_eq!(shutdown.order(&id("a.1"), Run(1), STOP, "down"), Heard::Nobody);

        let late = world.subscriber("s", "instance/a.1/");
        let first = order(&late.next());
        assert_eq!(
            (first.kind, first.run, first.grace),
            (protocol::OrderKind::Shutdown, Some(Run(1)), 3.0)
        );
        wait_until(|| shutdown.listens(&id("a.1")));
        assert_eq!(shutdown.order(&id("a.1"), Run(1), STOP, "again"), Heard::Sent);
        let second = order(&late.next());
        assert_ne!(first.id, second.id);

        shutdown.retract(&id("a.1"), Run(2)); // of another run: nothing
        let later = world.subscriber("s", "instance/a.1/");
        assert_eq!(order(&later.next()).id, second.id);

        shutdown.retract(&id("a.1"), Run(1));
        let after = world.subscriber("s", "instance/a.1/");
        shutdown.order(&id("a.1"), Run(2), OrderKind::Reload, "reload");
        drop((late, later));
        // The first thing that the last one hears is not the old order.
        let heard = loop {
            if let Some(frames) = after.try_next() {
                break order(&frames);
            }
            shutdown.order(&id("a.1"), Run(2), OrderKind::Reload, "reload");
        };
        assert_eq!(heard.kind, protocol::OrderKind::Reload);
        drop(after);
        wait_until(|| !shutdown.listens(&id("a.1")));
    }

    #[test]
    fn other_topics_are_nobodys() {
        assert_eq!(instance_of(b"instance/a.1/"), Some(id("a.1")));
        for topic in
            [&b"instance/a.1"[..], b"", b"all/", b"service/a/", b"instance/\xff/", b"instance/a/"]
        {
            assert_eq!(instance_of(topic), None);
        }
    }
}
