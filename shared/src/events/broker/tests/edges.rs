//! What happens at the bounds, and to those who leave and come back.

use super::*;

#[test]
fn an_event_for_several_queues_needs_room_for_all_its_copies() {
    let mut scene = Scene::new(Limits { total: 500, queue: 500, queues: 10 });
    scene.subscribe(1, wants("a", "x"));
    scene.subscribe(2, wants("b", "x"));
    let refused = scene.broker.emit(at(0), event("x", 1), &mut scene.out);
    assert_eq!(refused, Err(Refusal::Full { bytes: 0 }));
    assert!(scene.out.is_empty(), "no queue has it");
}

#[test]
fn what_is_held_back_takes_room_until_it_is_due() {
    let mut scene = Scene::new(Limits { total: 500, queue: 500, queues: 10 });
    let held = |number| Emit { delay: at(5), ..event("x", number) };
    assert_eq!(scene.broker.emit(at(0), held(1), &mut scene.out), Ok(0));
    let refused = scene.broker.emit(at(0), held(2), &mut scene.out);
    assert_eq!(refused, Err(Refusal::Full { bytes: 300 }));
    scene.broker.tick(at(5), &mut scene.out);
    assert_eq!(scene.broker.holdings(), Holdings::default(), "nobody wanted it");
}

#[test]
fn who_leaves_gets_nothing_though_it_has_room_and_what_waits_when_it_comes_back() {
    let mut scene = Scene::new(ROOMY);
    scene.subscribe(1, wants("q", "x"));
    scene.emit("x", 1);
    scene.broker.unsubscribe(at(0), &1, "q", &mut scene.out);
    assert_eq!((scene.emit("x", 2), scene.pairs()), (1, vec![(1, 1)]));
    scene.subscribe(1, wants("q", "y"));
    assert_eq!(scene.pairs(), [(1, 2)]);
    assert_eq!((scene.emit("x", 3), scene.emit("y", 4)), (0, 1), "it wants something else now");
    assert_eq!(scene.pairs(), [(1, 4)]);
}

#[test]
fn whether_somebody_had_it_before_is_told() {
    let mut scene = Scene::new(ROOMY);
    scene.subscribe(1, wants("q", "x"));
    scene.emit("x", 1);
    scene.broker.leave(at(0), &1, &mut scene.out);
    scene.subscribe(2, wants("q", "x"));
    let told = scene.out.iter().filter_map(|effect| match effect {
        Effect::Deliver(delivery) => Some((delivery.peer, delivery.redelivered)),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [(1, false), (2, true)]);
}

#[test]
fn what_is_given_back_by_those_who_leave_is_not_given_up_however_often() {
    let mut scene = Scene::new(ROOMY);
    scene.subscribe(1, wants("q", "x"));
    scene.emit("x", 1);
    for _ in 0..=MAX_DELIVERIES {
        let sent = scene.sent();
        assert_eq!(sent.len(), 1);
        scene.broker.unsubscribe(at(0), &1, "q", &mut scene.out);
        scene.answer(1, sent[0].2, Answer::Returned);
        scene.subscribe(1, wants("q", "x"));
    }
    assert_eq!(scene.broker.holdings().running, 1);
}

#[test]
fn a_queue_of_ones_own_takes_along_what_waits_in_it() {
    let mut scene = Scene::new(ROOMY);
    scene.subscribe(1, Subscribe { own: true, prefetch: 1, ..wants("q", "x") });
    assert_eq!((scene.emit("x", 1), scene.emit("x", 2)), (1, 1));
    scene.broker.leave(at(0), &1, &mut scene.out);
    assert_eq!(scene.broker.holdings(), Holdings::default());
}

#[test]
fn of_two_queues_of_one_name_ones_own_is_left() {
    let mut scene = Scene::new(ROOMY);
    scene.subscribe(1, Subscribe { own: true, ..wants("q", "x") });
    scene.subscribe(2, wants("q", "x"));
    scene.broker.unsubscribe(at(0), &1, "q", &mut scene.out);
    assert_eq!((scene.emit("x", 1), scene.pairs()), (1, vec![(2, 1)]));
}

#[test]
fn what_only_one_that_leaves_in_order_wanted_is_not_wanted_any_more() {
    let mut scene = Scene::new(ROOMY);
    scene.subscribe(1, wants("q", "old"));
    scene.subscribe(2, wants("q", "new"));
    scene.broker.unsubscribe(at(0), &1, "q", &mut scene.out);
    assert_eq!((scene.emit("old", 1), scene.emit("new", 2)), (0, 1));
}

#[test]
fn the_queue_that_was_alone_longest_makes_room_first_and_one_that_is_used_again_never() {
    let mut scene = Scene::new(Limits { total: 900, queue: 900, queues: 10 });
    for (peer, queue, since) in [(1, "b", 0), (2, "a", 1), (3, "used", 0)] {
        scene.subscribe(peer, wants(queue, queue));
        scene.broker.leave(at(since), &peer, &mut scene.out);
        scene.emit(queue, u32::from(peer));
    }
    scene.subscribe(4, wants("used", "used"));
    scene.out.clear();
    let late = ABANDONED + at(1);
    for queue in ["b", "a"] {
        assert_eq!(scene.broker.emit(late, event("used", 5), &mut scene.out), Ok(1));
        assert_eq!(scene.out[0], Effect::Forgotten { queue: queue.into(), events: 1 });
        scene.out.clear();
    }
    let refused = scene.broker.emit(late, event("used", 6), &mut scene.out);
    assert_eq!(refused, Err(Refusal::Full { bytes: 900 }));
}

#[test]
fn a_queue_that_makes_room_does_not_get_what_needed_it() {
    let mut scene = Scene::new(Limits { total: 700, queue: 700, queues: 10 });
    scene.subscribe(1, wants("gone", "x"));
    scene.broker.leave(at(0), &1, &mut scene.out);
    scene.emit("x", 1);
    scene.subscribe(2, wants("here", "x"));
    assert_eq!(scene.broker.emit(ABANDONED, event("x", 2), &mut scene.out), Ok(1));
    assert_eq!(scene.pairs(), [(2, 2)]);
}

#[test]
fn whatever_it_says_a_subscriber_works_on_one_to_a_thousand_at_once() {
    for (said, gets) in [(0, 1), (u32::MAX, MAX_PREFETCH as usize)] {
        let mut scene = Scene::new(ROOMY);
        scene.subscribe(1, Subscribe { prefetch: said, ..wants("q", "x") });
        (0..=MAX_PREFETCH).for_each(|number| assert_eq!(scene.emit("x", number), 1));
        assert_eq!(scene.sent().len(), gets, "{said}");
    }
}

#[test]
fn it_is_idle_while_nobody_works_and_nothing_waits_for_anybody() {
    let mut scene = Scene::new(ROOMY);
    scene.subscribe(1, wants("q", "x"));
    assert!(scene.broker.is_idle());
    scene.emit("x", 1);
    assert!(!scene.broker.is_idle(), "somebody works");
    let number = scene.sent()[0].2;
    scene.answer(1, number, Answer::Done);
    assert!(scene.broker.is_idle());
    scene.broker.leave(at(0), &1, &mut scene.out);
    assert_eq!(scene.emit("x", 2), 1);
    assert!(scene.broker.is_idle(), "it waits for nobody");
}
