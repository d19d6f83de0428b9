//! What waits for what, and in which order all stops.

use super::*;

#[test]
fn dependents_wait_until_what_they_need_is_ready_and_go_on_through_its_restarts() {
    let mut db = service("db", 1);
    db.policy.ready = Some(ready(ReadyKind::Heartbeat));
    let mut web = service("web", 1);
    web.policy.depends_on = vec![needs("db", Condition::Ready)];
    let mut world = World::up(cluster(vec![db, web]));
    assert_eq!((world.state("db.1"), world.state("web.1")), ("starting", "waiting"));
    assert_eq!(world.blocked_by("web.1"), ["db.1 to be ready (it is starting)"]);
    world.ends("db.1", Exit::Code(1));
    world.pass(5 * SECOND);
    assert_eq!((world.state("db.1"), world.state("web.1")), ("starting", "waiting"));
    world.says_ready("db.1");
    assert_eq!(world.state("web.1"), "running");
}

#[test]
fn a_dependency_that_does_not_come_in_time_fails_the_one_that_waits() {
    let mut db = service("db", 1);
    db.policy.ready = Some(ready(ReadyKind::Heartbeat));
    let mut web = service("web", 1);
    web.policy.depends_on =
        vec![Dependency { timeout: Some(3 * SECOND), ..needs("db", Condition::Ready) }];
    let mut world = World::up(cluster(vec![db, web]));
    world.pass(2 * SECOND);
    assert_eq!(world.state("web.1"), "waiting");
    world.pass(2 * SECOND);
    assert_eq!(world.state("web.1"), "failed");
    assert!(world.events.contains(&"web.1 dependency-timeout".to_owned()));
}

#[test]
fn a_quorum_opens_the_gate() {
    for (quorum, enough) in
        [(Quorum::Any, 1), (Quorum::Count(2), 2), (Quorum::Percent(75), 3), (Quorum::All, 4)]
    {
        let mut db = service("db", 4);
        db.policy.ready = Some(ready(ReadyKind::Heartbeat));
        let mut web = service("web", 1);
        web.policy.depends_on = vec![Dependency { quorum, ..needs("db", Condition::Ready) }];
        let mut world = World::new(cluster(vec![db, web]));
        // The world's own check of dependencies knows `all` only.
        world.ask(Request::Start(Targets { deps: true, ..Targets::default() }));
        for index in 1..=4 {
            assert_eq!(
                world.state("web.1"),
                if index > enough { "running" } else { "waiting" },
                "{quorum:?}"
            );
            world.says_ready(&format!("db.{index}"));
        }
        assert_eq!(world.state("web.1"), "running", "{quorum:?}");
    }
}

#[test]
fn a_dependent_restarts_with_its_dependency_when_it_says_so() {
    let db = service("db", 1);
    let mut web = service("web", 1);
    web.policy.depends_on = vec![Dependency {
        on_restart: OnDependencyRestart::Restart,
        ..needs("db", Condition::Started)
    }];
    let mut calm = service("calm", 1);
    calm.policy.depends_on = vec![needs("db", Condition::Started)];
    let mut world = World::up(cluster(vec![db, web, calm]));
    world.pass(2 * SECOND);
    world.ends("db.1", Exit::Code(1));
    world.pass(SECOND);
    assert_eq!((world.run_of("db.1"), world.run_of("web.1"), world.run_of("calm.1")), (2, 2, 1));
}

#[test]
fn everything_stops_in_the_reverse_order() {
    let mut web = service("web", 1);
    web.policy.depends_on = vec![needs("db", Condition::Started)];
    let mut world = World::up(cluster(vec![service("db", 1), web]));
    world.stubborn(true);
    world.ask(Request::Restart { targets: named("web"), fresh: None, note: None });
    world.pass(20 * SECOND);
    world.ask(Request::Shutdown { grace: None, reason: String::new() });
    assert_eq!((world.state("web.1"), world.state("db.1")), ("stopping", "running"));
    world.pass(11 * SECOND);
    assert_eq!((world.state("web.1"), world.state("db.1")), ("stopped", "stopped"));
    assert_eq!(world.exits(), [0]);
}

#[test]
fn a_restart_of_both_takes_the_dependent_down_first_and_up_last() {
    let mut web = service("web", 1);
    web.policy.depends_on = vec![needs("db", Condition::Started)];
    let mut world = World::up(cluster(vec![service("db", 1), web]));
    world.events.clear();
    world.ask(Request::Restart { targets: Targets::default(), fresh: None, note: None });
    let order: Vec<&str> = world
        .events
        .iter()
        .map(String::as_str)
        .filter(|e| e.ends_with("stopped") || e.ends_with("started"))
        .collect();
    assert_eq!(order, ["web.1 stopped", "db.1 stopped", "db.1 started", "web.1 started"]);
}

#[test]
fn one_that_is_down_starts_only_once_in_a_restart_of_all() {
    let mut web = service("web", 1);
    web.policy.depends_on = vec![needs("db", Condition::Started)];
    let mut edge = service("edge", 1);
    edge.policy.depends_on = vec![needs("web", Condition::Started)];
    let mut world = World::up(cluster(vec![service("db", 1), web, edge]));
    world.ask(Request::Stop(named("web")));
    world.stubborn(true);
    world.ask(Request::Restart { targets: named("edge"), fresh: None, note: None });
    world.pass(20 * SECOND);
    world.ask(Request::Restart { targets: Targets::default(), fresh: None, note: None });
    world.pass(60 * SECOND);
    assert_eq!((world.state("web.1"), world.run_of("web.1")), ("running", 2));
}

#[test]
fn a_failure_may_stop_what_depends_on_it() {
    let mut db = service("db", 1);
    db.policy.restart.when = RestartWhen::Never;
    db.policy.on_failure = OnFailure::StopDependents;
    let mut web = service("web", 1);
    web.policy.depends_on = vec![needs("db", Condition::Started)];
    let mut edge = service("edge", 1);
    edge.policy.depends_on = vec![needs("web", Condition::Started)];
    let mut world = World::up(cluster(vec![db, web, edge, service("other", 1)]));
    world.ends("db.1", Exit::Code(1));
    let states = ["db.1", "web.1", "edge.1", "other.1"].map(|id| world.state(id));
    assert_eq!(states, ["failed", "stopped", "stopped", "running"]);
    let vain = world.status("web.1").in_vain;
    assert_eq!(vain.as_deref(), Some("it was stopped because `db` failed"));
    // those that the failure stopped come back with it; what was then stopped by hand does not
    world.ask(Request::Stop(named("edge")));
    world.ask(Request::Start(named("db")));
    world.pass(SECOND);
    let states = ["db.1", "web.1", "edge.1", "other.1"].map(|id| world.state(id));
    assert_eq!(states, ["running", "running", "stopped", "running"]);
    assert_eq!(world.status("web.1").in_vain, None);
}

#[test]
fn who_waits_for_one_that_waits_in_vain_is_answered_at_once() {
    let mut db = service("db", 1);
    db.policy.ready = Some(ready(ReadyKind::Heartbeat));
    let mut web = service("web", 1);
    web.policy.depends_on =
        vec![Dependency { timeout: Some(3 * SECOND), ..needs("db", Condition::Ready) }];
    let mut world = World::up(cluster(vec![db, web]));
    let targets = vec!["web".into()];
    let waiting = world.ask(Request::Await(Await { targets, state: AwaitState::Ready }));
    world.pass(3 * SECOND);
    assert_eq!(outcome(&world, waiting), [pair("web.1", "failed")]);
}

#[test]
fn whoever_waits_for_one_that_ends_again_and_again_is_told_and_the_node_goes_on_trying() {
    let mut db = service("db", 1);
    db.policy.ready = Some(ready(ReadyKind::Heartbeat));
    let mut web = service("web", 1);
    web.policy.depends_on = vec![needs("db", Condition::Ready)];
    web.policy.ready = Some(ready(ReadyKind::Heartbeat));
    let mut far = service("far", 1);
    far.policy.depends_on = vec![needs("web", Condition::Ready)];
    let mut world = World::new(cluster(vec![db, web, far]));
    world.ask(Request::Start(Targets { deps: true, ..Targets::default() }));
    let waiting = world.ask(Request::Wait(Wait { operation: 1 }));
    for crash in 1..=3 {
        assert!(!world.replies.contains_key(&waiting.0), "told after {crash} ends");
        assert_eq!(world.run_of("db.1"), crash);
        world.ends("db.1", Exit::Code(7));
        if crash < 3 {
            world.pass(5 * SECOND);
        }
    }
    assert_eq!(
        outcome(&world, waiting),
        [pair("db.1", "failed"), pair("far.1", "failed"), pair("web.1", "failed")]
    );
    let Reply::Outcome(told) = &world.replies[&waiting.0] else { panic!() };
    let reason = |at: usize| told.changed[at].reason.clone().unwrap();
    assert_eq!(
        reason(0),
        "it ended too soon 3 times in a row, each within 1s of its start or before it was ready, last: exit 7"
    );
    assert!(reason(1).contains("web.1 to be ready") && reason(2).contains("db.1 to be ready"));
    world.pass(60 * SECOND);
    assert_eq!(world.run_of("db.1"), 4);
    world.says_ready("db.1");
    assert_eq!(world.state("web.1"), "starting", "it came after all");
}

#[test]
fn a_restart_by_hand_gives_one_that_crashed_as_many_tries_again() {
    let mut web = service("web", 1);
    web.policy.ready = Some(ready(ReadyKind::Heartbeat));
    let mut world = World::up(cluster(vec![web]));
    for _ in 0..5 {
        world.ends("web.1", Exit::Code(1));
        world.pass(31 * SECOND);
    }
    world.ends("web.1", Exit::Code(1));
    world.ask(Request::Restart { targets: named("web"), fresh: None, note: None });
    let waiting = world.ask(Request::Wait(Wait { operation: 2 }));
    for _ in 0..2 {
        world.ends("web.1", Exit::Code(1));
        world.pass(5 * SECOND);
    }
    assert!(!world.replies.contains_key(&waiting.0));
    world.says_ready("web.1");
    assert_eq!(outcome(&world, waiting), [pair("web.1", "ready")]);
}

#[test]
fn what_waits_for_one_of_several_is_not_in_vain_while_another_may_come() {
    let mut db = service("db", 2);
    db.policy.ready = Some(ready(ReadyKind::Heartbeat));
    db.policy.restart.when = RestartWhen::Never;
    let mut web = service("web", 1);
    web.policy.depends_on =
        vec![Dependency { quorum: Quorum::Any, ..needs("db", Condition::Ready) }];
    let mut world = World::new(cluster(vec![db, web]));
    world.ask(Request::Start(named("web")));
    let waiting = world.ask(Request::Wait(Wait { operation: 1 }));
    world.ends("db.1", Exit::Code(1));
    assert!(!world.replies.contains_key(&waiting.0), "db.2 may still come");
    world.ends("db.2", Exit::Code(1));
    assert_eq!(
        outcome(&world, waiting),
        [pair("db.1", "failed"), pair("db.2", "failed"), pair("web.1", "failed")]
    );
}

#[test]
fn a_restart_counts_when_it_is_made_and_not_when_it_is_decided() {
    let mut world = World::up(cluster(vec![service("web", 1)]));
    let restarts = |world: &World| world.instance("web.1").unwrap().restarts;
    world.ends("web.1", Exit::Code(1));
    assert_eq!((world.state("web.1"), restarts(&world)), ("backoff", 0));
    world.pass(2 * SECOND);
    assert_eq!((world.state("web.1"), restarts(&world)), ("running", 1));
    world.ends("web.1", Exit::Code(1));
    world.ask(Request::Start(named("web")));
    assert_eq!((world.state("web.1"), restarts(&world)), ("running", 1), "that was by hand");
}

#[test]
fn a_rolling_restart_of_what_waits_for_a_failed_one_ends_with_the_reason() {
    let mut db = service("db", 1);
    db.policy.restart.when = RestartWhen::Never;
    let mut web = service("web", 2);
    web.policy.depends_on = vec![needs("db", Condition::Started)];
    let mut world = World::up(cluster(vec![db, web]));
    let restart = |world: &mut World| {
        let targets = Targets { rolling: true, ..named("web") };
        let accepted = world.ask(Request::Restart { targets, fresh: None, note: None });
        let Reply::Accepted(accepted) = &world.replies[&accepted.0] else { panic!("refused") };
        let wait = Wait { operation: accepted.operation };
        world.ask(Request::Wait(wait))
    };
    world.ends("db.1", Exit::Code(1));
    // the first time it runs and has to wait, the second time it waits already
    for expected in ["kept", "kept"] {
        let waiting = restart(&mut world);
        world.pass(SECOND);
        let reply = world.replies.get(&waiting.0);
        let Some(Reply::Outcome(outcome)) = reply else { panic!("no answer: {reply:?}") };
        let first = &outcome.changed[0];
        assert_eq!(first.result.as_deref(), Some("failed"), "{outcome:?}");
        let why = first.reason.as_deref().unwrap_or_default();
        assert!(why.contains("waits for db.1"), "{why}");
        assert_eq!(outcome.changed[1].result.as_deref(), Some(expected), "{outcome:?}");
    }
    assert_eq!((world.state("web.1"), world.run_of("web.2")), ("waiting", 1));
}

#[test]
fn a_job_that_is_done_stays_so_while_the_cluster_goes_down() {
    let mut job = service("job", 1);
    job.policy.kind = Kind::Job;
    job.policy.restart.when = RestartWhen::OnFailure;
    let mut world = World::up(cluster(vec![job, service("web", 1)]));
    world.ends("job.1", Exit::Code(0));
    world.stubborn(true);
    world.ask(Request::Restart { targets: named("web"), fresh: None, note: None });
    world.pass(20 * SECOND);
    world.ask(Request::Shutdown { grace: None, reason: String::new() });
    assert_eq!((world.state("job.1"), world.state("web.1")), ("completed", "stopping"));
    world.pass(60 * SECOND);
    assert_eq!(world.exits(), [0]);
}
