//! Queues of events and who works them off: the decisions of the embedded broker and of the one inside a process.
//!
//! ```text
//! emit ─► (delayed until …) ─► every queue whose patterns fit ─► one subscriber of each, in turn ─► done, or back to its place
//! ```
//! It is pure: no clock, no sockets; `now` is the time since it began. An event that was taken is in its queues until it is answered, so a
//! subscriber that is lost loses nothing. What it holds is bounded: beyond that, [`Broker::emit`] refuses.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

pub use self::words::{Answer, Delivery, Effect, Emit, Holdings, Limits, Refusal, Subscribe};
use super::pattern::Pattern;

mod words;

/// What an event costs beside its own bytes: places in maps, reference counts.
const OVERHEAD: usize = 200;
/// How many events a subscriber may work on at once, where it does not say.
pub const PREFETCH: u32 = 100;
/// The most it may say, so that its connection has room for all of them.
pub const MAX_PREFETCH: u32 = 1000;
/// A queue that nobody has worked off for so long makes room when there is none.
pub const ABANDONED: Duration = Duration::from_secs(600);
/// An event that was lost with its subscriber so often is given up: it may be what kills them.
pub const MAX_DELIVERIES: u32 = 20;

/// A queue's name, and whose it is where it is one's own.
type Key<P> = (String, Option<P>);

/// The queues.
#[derive(Debug)]
pub struct Broker<P, E> {
    limits: Limits,
    queues: BTreeMap<Key<P>, Queue<P, E>>,
    delayed: BTreeMap<(Duration, u64), Emit<E>>,
    running: HashMap<u64, Key<P>>,
    bytes: usize,
    next: u64,
}

#[derive(Debug)]
struct Queue<P, E> {
    /// By their order of arrival, to which one that comes back returns.
    waiting: BTreeMap<u64, Item<E>>,
    subscribers: Vec<Subscriber<P, E>>,
    /// Whose turn it is.
    turn: usize,
    patterns: Vec<Pattern>,
    bytes: usize,
    /// Since when it has no subscriber.
    alone_since: Option<Duration>,
}

#[derive(Debug)]
struct Subscriber<P, E> {
    peer: P,
    prefetch: usize,
    patterns: Vec<Pattern>,
    /// It takes no more, and ends with its last answer.
    leaving: bool,
    running: BTreeMap<u64, (u64, Item<E>)>,
}

#[derive(Debug)]
struct Item<E> {
    event: E,
    cost: usize,
    deliveries: u32,
    /// Whether anybody ever had it.
    seen: bool,
}

impl<P: Clone + Ord, E: Clone> Broker<P, E> {
    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            queues: BTreeMap::new(),
            delayed: BTreeMap::new(),
            running: HashMap::new(),
            bytes: 0,
            next: 0,
        }
    }

    /// When [`Broker::tick`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        self.delayed.first_key_value().map(|((at, _), _)| *at)
    }

    /// Makes a queue, where there is none, and a subscriber of it, in place of the same peer's.
    ///
    /// # Errors
    /// When there are too many queues.
    pub fn subscribe(
        &mut self,
        peer: P,
        subscribe: Subscribe,
        out: &mut Vec<Effect<P, E>>,
    ) -> Result<(), Refusal> {
        let Subscribe { queue, patterns, prefetch, own } = subscribe;
        let key = (queue, own.then(|| peer.clone()));
        if !self.queues.contains_key(&key) && self.queues.len() >= self.limits.queues {
            return Err(Refusal::Queues { queues: self.queues.len() });
        }
        let queue = self.queues.entry(key.clone()).or_insert_with(Queue::new);
        let prefetch = prefetch.clamp(1, MAX_PREFETCH) as usize;
        match queue.subscribers.iter_mut().find(|subscriber| subscriber.peer == peer) {
            Some(known) => {
                (known.prefetch, known.patterns, known.leaving) = (prefetch, patterns, false);
            }
            None => queue.subscribers.push(Subscriber {
                peer,
                prefetch,
                patterns,
                leaving: false,
                running: BTreeMap::new(),
            }),
        }
        queue.alone_since = None;
        queue.agree();
        self.dispatch(&key, out);
        Ok(())
    }

    /// Gives a peer no more of a queue. What it works on stays its own until it answers; where it is none, nothing happens.
    pub fn unsubscribe(
        &mut self,
        now: Duration,
        peer: &P,
        name: &str,
        out: &mut Vec<Effect<P, E>>,
    ) {
        let own = (name.to_owned(), Some(peer.clone()));
        let key = if self.queues.contains_key(&own) { own } else { (name.to_owned(), None) };
        let Some(queue) = self.queues.get_mut(&key) else { return };
        for subscriber in queue.subscribers.iter_mut().filter(|it| it.peer == *peer) {
            subscriber.leaving = true;
        }
        queue.agree();
        self.settle(now, &key, out);
    }

    /// A peer is gone: what it worked on goes back to its place.
    pub fn leave(&mut self, now: Duration, peer: &P, out: &mut Vec<Effect<P, E>>) {
        let keys: Vec<Key<P>> = self
            .queues
            .iter()
            .filter(|(_, queue)| queue.subscribers.iter().any(|it| it.peer == *peer))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            let Some(queue) = self.queues.get_mut(&key) else { continue };
            let Some(at) = queue.subscribers.iter().position(|it| it.peer == *peer) else {
                continue;
            };
            let lost = std::mem::take(&mut queue.subscribers[at].running);
            queue.subscribers[at].leaving = true;
            queue.agree();
            for (number, (place, item)) in lost {
                self.running.remove(&number);
                self.put_back(&key, place, item, out);
            }
            self.settle(now, &key, out);
        }
    }

    /// Takes an event, and says to how many queues it goes: none, where nobody has ever wanted it. One that is held back
    /// goes to those that want it then.
    ///
    /// # Errors
    /// When there is no room: then no queue has it.
    pub fn emit(
        &mut self,
        now: Duration,
        emit: Emit<E>,
        out: &mut Vec<Effect<P, E>>,
    ) -> Result<usize, Refusal> {
        let cost = emit.cost();
        if emit.delay > Duration::ZERO {
            self.make_room(now, cost, out)?;
            self.next += 1;
            self.bytes += cost;
            self.delayed.insert((now + emit.delay, self.next), emit);
            return Ok(0);
        }
        let mut keys = self.wanted(&emit);
        self.make_room(now, cost * keys.len(), out)?;
        keys.retain(|key| self.queues.contains_key(key)); // one may have made room
        for key in &keys {
            let bytes = self.queues[key].bytes;
            if bytes + cost > self.limits.queue.max(cost) {
                return Err(Refusal::QueueFull { queue: key.0.clone(), bytes });
            }
        }
        self.put(&keys, &emit, out);
        Ok(keys.len())
    }

    /// How an event ended. An answer that is not awaited is passed over.
    pub fn answer(
        &mut self,
        now: Duration,
        peer: &P,
        number: u64,
        answer: Answer,
        out: &mut Vec<Effect<P, E>>,
    ) {
        let Some(key) = self.running.get(&number).cloned() else { return };
        let Some(queue) = self.queues.get_mut(&key) else { return };
        let Some(subscriber) = queue.subscribers.iter_mut().find(|it| it.peer == *peer) else {
            return; // somebody else's
        };
        let Some((place, mut item)) = subscriber.running.remove(&number) else { return };
        let leaving = subscriber.leaving;
        self.running.remove(&number);
        if answer == Answer::Returned {
            if leaving {
                item.deliveries -= 1; // it did no harm
            }
            self.put_back(&key, place, item, out);
        } else {
            queue.bytes -= item.cost;
            self.bytes -= item.cost;
        }
        self.settle(now, &key, out);
    }

    /// Lets go what was held back long enough. It was taken already, so no bound stops it.
    pub fn tick(&mut self, now: Duration, out: &mut Vec<Effect<P, E>>) {
        while let Some(entry) = self.delayed.first_entry().filter(|entry| entry.key().0 <= now) {
            let emit = entry.remove();
            self.bytes -= emit.cost();
            let keys = self.wanted(&emit);
            self.put(&keys, &emit, out);
        }
    }

    /// What it holds.
    pub fn holdings(&self) -> Holdings {
        let mut all = Holdings {
            queues: self.queues.len(),
            running: self.running.len(),
            delayed: self.delayed.len(),
            bytes: self.bytes,
            ..Holdings::default()
        };
        for queue in self.queues.values() {
            all.subscribers += queue.subscribers.len();
            all.waiting += queue.waiting.len();
        }
        all
    }

    /// Whether nobody works on anything, and nothing waits for somebody who could.
    pub fn is_idle(&self) -> bool {
        let idle = |queue: &Queue<P, E>| queue.waiting.is_empty() || queue.subscribers.is_empty();
        self.running.is_empty() && self.queues.values().all(idle)
    }

    /// The queues that an event goes to.
    fn wanted(&self, emit: &Emit<E>) -> Vec<Key<P>> {
        let fits = |key: &Key<P>, queue: &Queue<P, E>| match &emit.queue {
            Some(name) => key.0 == *name,
            None => queue.patterns.iter().any(|pattern| pattern.matches(&emit.kind)),
        };
        let fitting = self.queues.iter().filter(|(key, queue)| fits(key, queue));
        fitting.map(|(key, _)| key.clone()).collect()
    }

    fn put(&mut self, keys: &[Key<P>], emit: &Emit<E>, out: &mut Vec<Effect<P, E>>) {
        for key in keys {
            let Some(queue) = self.queues.get_mut(key) else { continue };
            let cost = emit.cost();
            self.next += 1;
            self.bytes += cost;
            queue.bytes += cost;
            let item = Item { event: emit.event.clone(), cost, deliveries: 0, seen: false };
            queue.waiting.insert(self.next, item);
            self.dispatch(key, out);
        }
    }

    /// Puts an event that was not handled where it came from, unless it was lost too often.
    fn put_back(&mut self, key: &Key<P>, place: u64, item: Item<E>, out: &mut Vec<Effect<P, E>>) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        if item.deliveries < MAX_DELIVERIES {
            queue.waiting.insert(place, item);
            return;
        }
        queue.bytes -= item.cost;
        self.bytes -= item.cost;
        out.push(Effect::GivenUp { queue: key.0.clone(), event: item.event });
    }

    /// After a change: who is done leaving goes, a queue of one's own goes with its owner, and what waits is given out.
    fn settle(&mut self, now: Duration, key: &Key<P>, out: &mut Vec<Effect<P, E>>) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        queue.subscribers.retain(|it| !it.leaving || !it.running.is_empty());
        if queue.subscribers.is_empty() {
            if key.1.is_some() {
                self.bytes -= queue.bytes;
                self.queues.remove(key);
                return;
            }
            queue.alone_since.get_or_insert(now);
        }
        self.dispatch(key, out);
    }

    /// Gives out what waits, in turn, to those who have room.
    fn dispatch(&mut self, key: &Key<P>, out: &mut Vec<Effect<P, E>>) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        while !queue.waiting.is_empty() {
            let count = queue.subscribers.len();
            let has_room = |at: &usize| {
                let subscriber = &queue.subscribers[*at];
                !subscriber.leaving && subscriber.running.len() < subscriber.prefetch
            };
            let turns = (queue.turn..queue.turn + count).map(|turn| turn % count.max(1));
            let Some(at) = turns.into_iter().find(has_room) else { return };
            queue.turn = at + 1;
            let Some((place, mut item)) = queue.waiting.pop_first() else { return };
            self.next += 1;
            let subscriber = &mut queue.subscribers[at];
            out.push(Effect::Deliver(Delivery {
                number: self.next,
                peer: subscriber.peer.clone(),
                queue: key.0.clone(),
                event: item.event.clone(),
                redelivered: item.seen,
            }));
            item.deliveries += 1;
            item.seen = true;
            subscriber.running.insert(self.next, (place, item));
            self.running.insert(self.next, key.clone());
        }
    }

    /// Whether there is room for so much, if need be by forgetting queues that nobody works off.
    fn make_room(
        &mut self,
        now: Duration,
        cost: usize,
        out: &mut Vec<Effect<P, E>>,
    ) -> Result<(), Refusal> {
        while self.bytes + cost > self.limits.total {
            let alone = |(key, queue): (&Key<P>, &Queue<P, E>)| {
                let since = queue.alone_since.filter(|since| now >= *since + ABANDONED)?;
                Some((since, key.clone()))
            };
            let Some((_, key)) = self.queues.iter().filter_map(alone).min() else {
                return Err(Refusal::Full { bytes: self.bytes });
            };
            if let Some(queue) = self.queues.remove(&key) {
                self.bytes -= queue.bytes;
                out.push(Effect::Forgotten { queue: key.0, events: queue.waiting.len() });
            }
        }
        Ok(())
    }
}

impl<E> Emit<E> {
    fn cost(&self) -> usize {
        self.size + OVERHEAD
    }
}

impl<P: Ord, E> Queue<P, E> {
    fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            subscribers: Vec::new(),
            turn: 0,
            patterns: Vec::new(),
            bytes: 0,
            alone_since: None,
        }
    }

    /// What any of its subscribers wants comes in. When the last one leaves, the queue goes on gathering what it wanted.
    fn agree(&mut self) {
        let staying = || self.subscribers.iter().filter(|it| !it.leaving);
        if staying().next().is_none() {
            return;
        }
        let mut patterns: Vec<Pattern> = staying().flat_map(|it| it.patterns.clone()).collect();
        patterns.sort();
        patterns.dedup();
        self.patterns = patterns;
    }
}

#[cfg(test)]
mod tests;
