//! Stories of the broker, and random programs beside a small model of it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

mod edges;

type Desk = Broker<u8, u32>;

const ROOMY: Limits = Limits { total: 1 << 20, queue: 1 << 20, queues: 100 };

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn wants(queue: &str, pattern: &str) -> Subscribe {
    Subscribe {
        queue: queue.into(),
        patterns: vec![Pattern::new(pattern)],
        prefetch: 10,
        own: false,
    }
}

fn event(kind: &str, event: u32) -> Emit<u32> {
    Emit { kind: kind.into(), event, size: 100, delay: Duration::ZERO, queue: None }
}

/// A broker and what it has sent.
struct Scene {
    broker: Desk,
    out: Vec<Effect<u8, u32>>,
}

impl Scene {
    fn new(limits: Limits) -> Self {
        Self { broker: Desk::new(limits), out: Vec::new() }
    }

    fn subscribe(&mut self, peer: u8, subscribe: Subscribe) {
        self.broker.subscribe(peer, subscribe, &mut self.out).unwrap();
    }

    fn emit(&mut self, kind: &str, number: u32) -> usize {
        self.broker.emit(at(0), event(kind, number), &mut self.out).unwrap()
    }

    /// Who was sent what since the last look, and the numbers to answer with.
    fn sent(&mut self) -> Vec<(u8, u32, u64)> {
        let sent = std::mem::take(&mut self.out).into_iter().filter_map(|effect| match effect {
            Effect::Deliver(delivery) => Some((delivery.peer, delivery.event, delivery.number)),
            _ => None,
        });
        sent.collect()
    }

    fn pairs(&mut self) -> Vec<(u8, u32)> {
        self.sent().into_iter().map(|(peer, event, _)| (peer, event)).collect()
    }

    fn answer(&mut self, peer: u8, number: u64, answer: Answer) {
        self.broker.answer(at(0), &peer, number, answer, &mut self.out);
    }
}

#[test]
fn an_event_goes_to_one_subscriber_of_each_queue_that_wants_it() {
    let mut scene = Scene::new(ROOMY);
    scene.subscribe(1, wants("mail-on_paid", "order.*"));
    scene.subscribe(2, wants("mail-on_paid", "order.*"));
    scene.subscribe(3, wants("stock-on_paid", "order.paid"));
    scene.subscribe(4, wants("other", "user.#"));
    assert_eq!(scene.emit("order.paid", 1), 2);
    assert_eq!(scene.emit("order.paid", 2), 2);
    assert_eq!(scene.pairs(), [(1, 1), (3, 1), (2, 2), (3, 2)]);
    assert_eq!(scene.emit("nobody.cares", 3), 0);
    assert_eq!(scene.broker.holdings().running, 4);
}

#[test]
fn a_queue_of_ones_own_ends_with_its_owner() {
    let mut scene = Scene::new(ROOMY);
    for peer in [1, 2] {
        scene.subscribe(peer, Subscribe { own: true, ..wants("cache-clear", "clear") });
    }
    assert_eq!(scene.emit("clear", 1), 2);
    assert_eq!(scene.pairs(), [(1, 1), (2, 1)]);
    scene.broker.leave(at(0), &1, &mut scene.out);
    assert_eq!((scene.emit("clear", 2), scene.broker.holdings().queues), (1, 1));
}

#[test]
fn what_a_lost_subscriber_had_goes_to_another_in_its_old_order() {
    let mut scene = Scene::new(ROOMY);
    scene.subscribe(1, Subscribe { prefetch: 2, ..wants("q", "#") });
    for number in 1..=3 {
        scene.emit("x", number);
    }
    assert_eq!(scene.pairs(), [(1, 1), (1, 2)]);
    scene.broker.leave(at(0), &1, &mut scene.out);
    scene.emit("x", 4); // the queue outlives its subscribers
    scene.subscribe(2, wants("q", "#"));
    assert_eq!(scene.pairs(), [(2, 1), (2, 2), (2, 3), (2, 4)]);
}

#[test]
fn one_at_a_time_means_that_the_next_waits_for_the_answer() {
    let mut scene = Scene::new(ROOMY);
    scene.subscribe(1, Subscribe { prefetch: 1, ..wants("q", "#") });
    scene.emit("x", 1);
    scene.emit("x", 2);
    let sent = scene.sent();
    assert_eq!(sent.len(), 1);
    scene.answer(2, sent[0].2, Answer::Done); // somebody else's answer counts for nothing
    assert_eq!(scene.pairs(), []);
    scene.answer(1, sent[0].2, Answer::Failed);
    assert_eq!(scene.pairs(), [(1, 2)], "what failed does not come again");
}

#[test]
fn who_leaves_in_order_finishes_what_it_has_and_returns_the_rest() {
    let mut scene = Scene::new(ROOMY);
    scene.subscribe(1, wants("q", "#"));
    scene.emit("x", 1);
    scene.emit("x", 2);
    let sent = scene.sent();
    scene.subscribe(2, wants("q", "#"));
    scene.broker.unsubscribe(at(0), &1, "q", &mut scene.out);
    scene.emit("x", 3);
    assert_eq!(scene.pairs(), [(2, 3)], "nothing more for one that leaves");
    scene.answer(1, sent[0].2, Answer::Done);
    scene.answer(1, sent[1].2, Answer::Returned);
    assert_eq!(scene.pairs(), [(2, 2)]);
    assert_eq!(scene.broker.holdings().subscribers, 1);
}

#[test]
fn a_delayed_event_goes_to_those_who_want_it_when_it_is_due() {
    let mut scene = Scene::new(ROOMY);
    let held = Emit { delay: at(5), ..event("x", 1) };
    assert_eq!(scene.broker.emit(at(10), held, &mut scene.out), Ok(0));
    assert_eq!(scene.broker.deadline(), Some(at(15)));
    scene.subscribe(1, wants("q", "x"));
    scene.broker.tick(at(14), &mut scene.out);
    assert_eq!(scene.pairs(), []);
    scene.broker.tick(at(15), &mut scene.out);
    assert_eq!((scene.pairs(), scene.broker.deadline()), (vec![(1, 1)], None));
}

#[test]
fn a_retry_goes_to_its_queue_alone() {
    let mut scene = Scene::new(ROOMY);
    scene.subscribe(1, wants("a", "x"));
    scene.subscribe(2, wants("b", "x"));
    let again = Emit { queue: Some("b".into()), ..event("x", 1) };
    assert_eq!(scene.broker.emit(at(0), again, &mut scene.out), Ok(1));
    assert_eq!(scene.pairs(), [(2, 1)]);
}

#[test]
fn a_full_queue_refuses_and_leaves_the_others_untouched() {
    let mut scene = Scene::new(Limits { total: 4000, queue: 700, queues: 3 });
    scene.subscribe(1, wants("a-slow", "x"));
    scene.broker.leave(at(0), &1, &mut scene.out);
    scene.subscribe(2, wants("b", "x"));
    for number in 1..=2 {
        scene.emit("x", number);
    }
    scene.out.clear();
    let refused = scene.broker.emit(at(0), event("x", 3), &mut scene.out).unwrap_err();
    assert_eq!(refused.to_string(), "queue `a-slow` is full: 600 bytes wait in it");
    assert!(scene.out.is_empty(), "no queue has it");
    let third = scene.broker.subscribe(3, wants("c", "y"), &mut scene.out);
    assert!(third.is_ok());
    let fourth = scene.broker.subscribe(3, wants("d", "y"), &mut scene.out);
    assert_eq!(fourth, Err(Refusal::Queues { queues: 3 }));
}

#[test]
fn a_full_broker_forgets_what_nobody_works_off_and_else_refuses() {
    let mut scene = Scene::new(Limits { total: 900, queue: 900, queues: 10 });
    scene.subscribe(1, wants("gone", "x"));
    scene.broker.leave(at(0), &1, &mut scene.out);
    for number in 1..=3 {
        scene.emit("x", number);
    }
    scene.subscribe(2, wants("here", "y"));
    let before = ABANDONED.saturating_sub(at(1));
    let refused = scene.broker.emit(before, event("y", 4), &mut scene.out);
    assert_eq!(refused, Err(Refusal::Full { bytes: 900 }));
    assert_eq!(scene.broker.emit(ABANDONED, event("y", 4), &mut scene.out), Ok(1));
    assert_eq!(scene.out[0], Effect::Forgotten { queue: "gone".into(), events: 3 });
    assert_eq!(scene.broker.holdings().bytes, 300);
}

#[test]
fn an_event_that_kills_its_subscribers_is_given_up() {
    let mut scene = Scene::new(ROOMY);
    scene.subscribe(0, wants("q", "#"));
    scene.emit("poison", 7);
    for _ in 0..MAX_DELIVERIES {
        assert_eq!(scene.pairs(), [(0, 7)]);
        scene.broker.leave(at(0), &0, &mut scene.out);
        scene.subscribe(0, wants("q", "#"));
    }
    assert!(scene.pairs().is_empty());
    assert_eq!(scene.broker.holdings().bytes, 0);
}

#[test]
fn a_queue_wants_what_its_present_subscribers_want_and_the_last_ones_after_them() {
    let mut scene = Scene::new(ROOMY);
    scene.subscribe(1, wants("q", "old"));
    scene.subscribe(2, wants("q", "new"));
    assert_eq!((scene.emit("old", 1), scene.emit("new", 2)), (1, 1));
    scene.broker.leave(at(0), &1, &mut scene.out);
    assert_eq!(scene.emit("old", 3), 0, "nobody wants it any more");
    scene.broker.leave(at(0), &2, &mut scene.out);
    assert_eq!(scene.emit("new", 4), 1, "it waits for the next one");
}

/// What people rely on, without bounds: each event is somewhere until it is answered, in the order of its queue.
#[derive(Default)]
struct Model {
    /// Of each of three queues: subscribers, and whether it exists.
    members: [BTreeMap<u8, u32>; 3],
    known: [bool; 3],
    waiting: [BTreeSet<u32>; 3],
    /// By number: who, which queue, which event.
    running: BTreeMap<u64, (u8, usize, u32)>,
}

impl Model {
    fn take(&mut self, out: &mut Vec<Effect<u8, u32>>) -> Result<(), TestCaseError> {
        for effect in out.drain(..) {
            let delivery = match effect {
                Effect::Deliver(delivery) => delivery,
                Effect::GivenUp { queue, event } => {
                    self.waiting[queue.parse::<usize>().unwrap()].remove(&event);
                    continue;
                }
                Effect::Forgotten { .. } => unreachable!("there is room"),
            };
            let queue = delivery.queue.parse::<usize>().unwrap();
            let first = self.waiting[queue].pop_first();
            prop_assert_eq!(first, Some(delivery.event), "the oldest goes first");
            let old = self.running.insert(delivery.number, (delivery.peer, queue, delivery.event));
            prop_assert!(old.is_none(), "a number is used once");
        }
        for queue in 0..3 {
            for (peer, prefetch) in &self.members[queue] {
                let running = self.running.values().filter(|it| (it.0, it.1) == (*peer, queue));
                let running = running.count();
                prop_assert!(running <= *prefetch as usize, "more than it asked for");
                prop_assert!(
                    running == *prefetch as usize || self.waiting[queue].is_empty(),
                    "somebody has room and something waits"
                );
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn no_event_is_lost_or_doubled(
        steps in proptest::collection::vec((0..8_u8, 0..4_u8, 0..3_usize, 1..4_u32), 1..80),
    ) {
        let mut broker = Desk::new(ROOMY);
        let mut model = Model::default();
        let mut out = Vec::new();
        let mut emitted = 0;
        for (step, peer, queue, prefetch) in steps {
            match step {
                0 | 1 => {
                    let pattern = Pattern::new(&queue.to_string());
                    let subscribe =
                        Subscribe { queue: queue.to_string(), patterns: vec![pattern], prefetch, own: false };
                    let running = model.running.values().filter(|it| (it.0, it.1) == (peer, queue));
                    // One that wants fewer than it has got is no model's business.
                    if model.members[queue].contains_key(&peer) || running.count() > 0 {
                        continue;
                    }
                    model.members[queue].insert(peer, prefetch);
                    model.known[queue] = true;
                    broker.subscribe(peer, subscribe, &mut out).unwrap();
                }
                2..=4 => {
                    emitted += 1;
                    if model.known[queue] {
                        model.waiting[queue].insert(emitted);
                    }
                    let queues = broker.emit(at(0), event(&queue.to_string(), emitted), &mut out).unwrap();
                    prop_assert_eq!(queues, usize::from(model.known[queue]));
                }
                5 => {
                    broker.leave(at(0), &peer, &mut out);
                    let lost: Vec<u64> = model.running.iter().filter(|(_, it)| it.0 == peer).map(|(n, _)| *n).collect();
                    for number in lost {
                        let (_, queue, event) = model.running.remove(&number).unwrap();
                        model.waiting[queue].insert(event);
                    }
                    for members in &mut model.members {
                        members.remove(&peer);
                    }
                }
                _ => {
                    let Some((&number, &(peer, queue, event))) = model.running.iter().nth(queue) else { continue };
                    model.running.remove(&number);
                    let answer = if step == 6 { Answer::Done } else { Answer::Returned };
                    if answer == Answer::Returned {
                        model.waiting[queue].insert(event);
                    }
                    broker.answer(at(0), &peer, number, answer, &mut out);
                }
            }
            model.take(&mut out)?;
            let holdings = broker.holdings();
            prop_assert_eq!(holdings.running, model.running.len());
            let waiting: usize = model.waiting.iter().map(BTreeSet::len).sum();
            prop_assert_eq!(holdings.waiting, waiting);
            prop_assert_eq!(holdings.bytes, (holdings.running + holdings.waiting) * 300);
        }
    }
}
