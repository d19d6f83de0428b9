//! Who is found, and for how long.

use hilum_shared::registry::directory::{View, WATCH_HOLD, Watch};

use super::*;
use crate::core::input::{Entry, Owner};

fn peer(name: &str) -> Owner {
    Owner::Peer(name.to_owned())
}

#[test]
fn who_ends_is_not_found_any_more_at_once() {
    let mut world = World::up(cluster(vec![service("echo", 3)]));
    for id in ["echo.1", "echo.2", "echo.3"] {
        world.registers(id, "echo");
    }
    assert_eq!(world.found("echo").len(), 3);
    world.ends("echo.1", Exit::Code(1));
    assert_eq!(world.found("echo"), ["mock://echo.2", "mock://echo.3"]);

    world.stubborn(true);
    world.ask(Request::Stop(named("echo.2")));
    assert_eq!(world.found("echo"), ["mock://echo.3"], "told to stop: no new calls");
    let late = world.registers("echo.2", "echo");
    assert!(matches!(&world.replies[&late.0], Reply::Fault(fault) if fault.code == "refused"));

    world.says_ready("echo.3");
    world.pass(7 * SECOND);
    assert!(world.events.contains(&"echo.3 heartbeat-lost".to_owned()));
    assert!(world.found("echo").is_empty(), "fell silent");
}

#[test]
fn who_is_paused_is_not_found_until_it_goes_on() {
    let mut world = World::up(cluster(vec![service("echo", 2)]));
    for id in ["echo.1", "echo.2"] {
        world.registers(id, "echo");
        world.says_ready(id);
    }
    world.pause("echo.1", true);
    for _ in 0..8 {
        world.pass(SECOND);
        world.says_ready("echo.2");
    }
    assert_eq!(world.found("echo"), ["mock://echo.2"]);
    world.pause("echo.1", false);
    world.says_ready("echo.1");
    assert_eq!(world.found("echo"), ["mock://echo.1", "mock://echo.2"]);
    assert_eq!(world.run_of("echo.1"), 1);
}

#[test]
fn a_run_does_not_speak_for_the_next() {
    let mut world = World::up(cluster(vec![service("echo", 1)]));
    world.ends("echo.1", Exit::Code(1));
    world.pass(SECOND);
    assert_eq!(world.run_of("echo.1"), 2);
    let old = Owner::Run(world.instance("echo.1").unwrap().id.clone(), hilum_shared::name::Run(1));
    world.entry(old, World::entry_of("echo", "echo.1"));
    assert!(world.found("echo").is_empty());
    world.registers("echo.1", "echo");
    assert_eq!(world.found("echo"), ["mock://echo.1"]);
}

#[test]
fn what_a_stranger_registers_ends_with_its_connection() {
    let mut world = World::up(cluster(vec![service("echo", 1)]));
    world.entry(peer("a"), World::entry_of("other", "x"));
    world.ends("echo.1", Exit::Code(0));
    assert_eq!(world.found("other"), ["mock://x"]);
    world.feed(Input::Departed(peer("a")));
    assert!(world.found("other").is_empty());
}

#[test]
fn a_watch_is_held_until_there_is_news_or_its_time_is_over() {
    let mut world = World::up(cluster(vec![service("echo", 1)]));
    let watch = |seen: u64| Entry::Watch(Watch { services: [("echo".to_owned(), seen)].into() });
    let first = world.entry(peer("a"), watch(0));
    assert!(!world.replies.contains_key(&first.0));
    world.registers("echo.1", "echo");
    let Reply::Views(views) = &world.replies[&first.0] else { panic!("no views") };
    let seen = views.services["echo"].version;

    let second = world.entry(peer("a"), watch(seen));
    world.pass(Duration::from_secs(WATCH_HOLD - 1));
    assert!(!world.replies.contains_key(&second.0));
    world.pass(2 * SECOND);
    assert!(matches!(&world.replies[&second.0], Reply::Views(none) if none.services.is_empty()));

    let third = world.entry(peer("a"), watch(seen));
    world.ends("echo.1", Exit::Code(1));
    let Reply::Views(views) = &world.replies[&third.0] else { panic!("no views") };
    assert_eq!(views.services["echo"], View::default(), "its end is news");
}

#[test]
fn ready_by_what_it_has_registered() {
    let mut web = service("web", 1);
    web.policy.ready = Some(ready(ReadyKind::Registered(Some("web".into()))));
    let mut any = service("any", 1);
    any.policy.ready = Some(ready(ReadyKind::Registered(None)));
    let mut world = World::up(cluster(vec![web, any]));
    world.pass(SECOND);
    assert!(!world.instance("web.1").unwrap().ready());
    world.registers("web.1", "lymph");
    world.registers("any.1", "lymph");
    assert!(!world.instance("web.1").unwrap().ready(), "another name");
    assert!(world.instance("any.1").unwrap().ready());
    world.registers("web.1", "web");
    assert!(world.instance("web.1").unwrap().ready());

    let id = hilum_shared::registry::Instance::new("web", "mock://web.1", None).id;
    world.entry(peer("x"), Entry::Unregister { service: "web".into(), id });
    assert!(!world.instance("web.1").unwrap().ready());
    world.registers("web.1", "web");
    assert!(world.instance("web.1").unwrap().ready());
}
