//! What users rely on, one sentence a test, told in the simulated world.

use std::sync::Arc;
use std::time::Duration;

use hilum_shared::config::spec::*;
use hilum_shared::protocol::control::{Await, AwaitState, Scale, ScaleTo, Targets, Wait};
use hilum_shared::signal::{Exit, Signal};
use hilum_shared::units::Bytes;

use super::action::Reply;
use super::fixtures::{cluster, needs, ready, service};
use super::input::{Input, Report, Request, RequestId};
use super::world::World;

const SECOND: Duration = Duration::from_secs(1);

fn named(target: &str) -> Targets {
    Targets { targets: vec![target.into()], deps: true, ..Targets::default() }
}

fn scale(world: &mut World, name: &str, count: i64) -> RequestId {
    let changes = vec![ScaleTo { service: name.into(), count, relative: false }];
    world.ask(Request::Scale(Scale { changes }))
}

fn reload(world: &mut World, cluster: Arc<Cluster>, dry_run: bool) {
    world.feed(Input::Reconfigure { request: None, cluster, dry_run });
}

fn outcome(world: &World, id: RequestId) -> Vec<(String, String)> {
    match &world.replies[&id.0] {
        Reply::Outcome(outcome) => outcome
            .changed
            .iter()
            .map(|c| {
                (c.instance.clone().unwrap().to_string(), c.result.clone().unwrap_or_default())
            })
            .collect(),
        other => panic!("no outcome: {other:?}"),
    }
}

fn pair(a: &str, b: &str) -> (String, String) {
    (a.into(), b.into())
}

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
fn what_the_user_stopped_stays_stopped_through_reloads() {
    let config = cluster(vec![service("db", 1), service("web", 2)]);
    let mut world = World::up(config.clone());
    world.ask(Request::Stop(named("web.2")));
    assert_eq!(world.state("web.2"), "stopped");
    let mut changed = (*config).clone();
    let mut web = (*changed.services["web"]).clone();
    web.launch.nice = Some(1);
    changed.services.insert(web.name.clone(), Arc::new(web));
    reload(&mut world, Arc::new(changed), false);
    assert_eq!((world.state("web.1"), world.state("web.2")), ("running", "stopped"));
    assert_eq!((world.run_of("web.1"), world.run_of("web.2")), (2, 1));
}

#[test]
fn a_reload_touches_only_the_difference() {
    let before = cluster(vec![service("db", 1), service("web", 2), service("old", 1)]);
    let mut world = World::up(before.clone());
    let mut after = (*before).clone();
    after.services.remove("old");
    let mut web = (*after.services["web"]).clone();
    web.numprocesses = 3;
    web.policy.stop.timeout = SECOND;
    after.services.insert(web.name.clone(), Arc::new(web));
    let mut db = (*after.services["db"]).clone();
    db.launch.umask = Some(0o77);
    after.services.insert(db.name.clone(), Arc::new(db));
    let new = service("new", 1);
    after.services.insert(new.name.clone(), Arc::new(new));
    let after = Arc::new(after);
    reload(&mut world, after.clone(), true);
    assert_eq!(
        (world.state("old.1"), world.state("new.1")),
        ("running", "gone"),
        "a dry run changes nothing"
    );
    reload(&mut world, after, false);
    assert_eq!(
        (world.state("old.1"), world.state("new.1"), world.state("web.3")),
        ("gone", "running", "running")
    );
    assert_eq!((world.run_of("db.1"), world.run_of("web.1"), world.run_of("web.2")), (2, 1, 1));
}

#[test]
fn what_reads_the_changed_files_itself_is_told_and_not_restarted() {
    let own = |name: &str| {
        let mut spec = service(name, 1);
        spec.policy.reload = Some(ReloadVia::Signal(Signal::HUP));
        spec
    };
    let mut listener = service("listener", 1);
    listener.policy.reload = Some(ReloadVia::Message);
    let mut down = own("down");
    down.policy.autostart = false;
    let config = cluster(vec![own("web"), own("moved"), listener, down, service("other", 1)]);
    let mut world = World::up(config.clone());
    let asked = |world: &World| -> Vec<String> {
        world.events.iter().filter(|e| e.ends_with("reload-asked")).cloned().collect()
    };
    reload(&mut world, config.clone(), false);
    assert!(asked(&world).is_empty(), "nothing changed");

    let mut new = (*config).clone();
    new.content = 1;
    let mut moved = (*new.services["moved"]).clone();
    moved.launch.nice = Some(5);
    new.services.insert(moved.name.clone(), Arc::new(moved));
    let new = Arc::new(new);
    reload(&mut world, new.clone(), true);
    assert!(asked(&world).is_empty(), "a dry run");
    let request = Some(RequestId(999));
    world.open(999);
    world.feed(Input::Reconfigure { request, cluster: new.clone(), dry_run: false });
    let Reply::Reloaded(reloaded) = &world.replies[&999] else { panic!() };
    assert_eq!(
        reloaded.plan,
        [
            "~ moved.1 nice: restart",
            "~ listener.1 content: told by message",
            "~ web.1 content: told by signal HUP"
        ]
    );
    assert_eq!(asked(&world), ["listener.1 reload-asked", "web.1 reload-asked"]);
    assert_eq!((world.run_of("web.1"), world.run_of("moved.1")), (1, 2));
    world.events.clear();
    reload(&mut world, new, false);
    assert!(asked(&world).is_empty(), "they were told of this already");
}

#[test]
fn a_scale_by_hand_survives_a_reload_until_the_file_says_another_number() {
    let config = cluster(vec![service("web", 2)]);
    let mut world = World::up(config.clone());
    scale(&mut world, "web", 4);
    reload(&mut world, config.clone(), false);
    assert_eq!(world.state("web.4"), "running");
    let mut file = (*config).clone();
    let mut web = (*file.services["web"]).clone();
    web.numprocesses = 1;
    file.services.insert(web.name.clone(), Arc::new(web));
    reload(&mut world, Arc::new(file), false);
    assert_eq!(
        (world.state("web.1"), world.state("web.2"), world.state("web.4")),
        ("running", "gone", "gone")
    );
}

#[test]
fn a_burst_of_scales_ends_at_the_last_number() {
    let mut world = World::up(cluster(vec![service("web", 1)]));
    scale(&mut world, "web", 100);
    scale(&mut world, "web", 0);
    let last = scale(&mut world, "web", 3);
    world.pass(SECOND);
    assert_eq!((world.state("web.3"), world.state("web.4")), ("running", "gone"));
    let Reply::Accepted(accepted) = world.replies[&last.0].clone() else { panic!("not accepted") };
    let waited = world.ask(Request::Wait(Wait { operation: accepted.operation }));
    assert_eq!(outcome(&world, waited).len(), 3);
}

#[test]
fn scaling_below_zero_or_past_the_most_is_refused() {
    let mut world = World::up(cluster(vec![service("web", 1)]));
    for (count, relative) in [(-1, false), (-2, true), (10_001, false)] {
        let changes = vec![ScaleTo { service: "web".into(), count, relative }];
        let id = world.ask(Request::Scale(Scale { changes }));
        assert!(
            matches!(&world.replies[&id.0], Reply::Fault(fault) if fault.code == "usage"),
            "{count}"
        );
    }
    assert_eq!(world.state("web.1"), "running");
}

#[test]
fn an_unknown_target_names_the_nearest() {
    let mut world = World::up(cluster(vec![service("worker", 1)]));
    let id = world.ask(Request::Stop(named("wroker")));
    let Reply::Fault(fault) = &world.replies[&id.0] else { panic!("not refused") };
    assert_eq!(fault.code, "unknown-target");
    assert!(fault.help.as_ref().unwrap().contains("`worker`"), "{fault:?}");
}

#[test]
fn a_silent_worker_is_restarted_and_a_paused_or_excused_one_is_not() {
    let mut world = World::up(cluster(vec![service("web", 1)]));
    world.pass(20 * SECOND);
    assert_eq!(world.run_of("web.1"), 1, "who never sent a heartbeat owes none");
    world.says_ready("web.1");
    world.pass(4 * SECOND);
    world.stall(60 * SECOND);
    world.pass(Duration::from_millis(900));
    assert_eq!(world.run_of("web.1"), 1, "the node did not run: that is nobody's silence");
    world.says_ready("web.1");
    world.pause("web.1", true);
    world.pass(60 * SECOND);
    assert_eq!((world.run_of("web.1"), world.state("web.1")), (1, "running"));
    assert!(world.events.contains(&"web.1 paused".to_owned()));
    world.pause("web.1", false);
    world.pass(2 * SECOND);
    world.says_ready("web.1");
    world.starve("web.1", true);
    world.pass(60 * SECOND);
    assert_eq!(world.run_of("web.1"), 1, "the machine gives it no processor");
    assert!(world.events.contains(&"web.1 starved".to_owned()));
    world.starve("web.1", false);
    world.says_ready("web.1");
    world.tell("web.1", Report::Held(true));
    world.pass(60 * SECOND);
    assert_eq!(world.run_of("web.1"), 1, "its output is held back by us");
    world.tell("web.1", Report::Held(false));
    world.pass(4 * SECOND);
    assert_eq!(world.run_of("web.1"), 1);
    world.pass(2 * SECOND);
    assert_eq!(world.run_of("web.1"), 2);
    assert!(world.events.contains(&"web.1 heartbeat-lost".to_owned()));
}

#[test]
fn whatever_the_wall_clock_says_the_same_happens() {
    let story = |jumps: [f64; 4]| {
        let mut db = service("db", 1);
        db.policy.ready = Some(ready(ReadyKind::Heartbeat));
        let mut web = service("web", 2);
        web.policy.depends_on =
            vec![Dependency { timeout: Some(30 * SECOND), ..needs("db", Condition::Ready) }];
        web.policy.max_age = Some(MaxAge { age: 40 * SECOND, variance: Duration::ZERO });
        let mut tidy = service("tidy", 1);
        tidy.policy.kind = Kind::Job;
        tidy.policy.schedule =
            Some(Schedule { when: ScheduleWhen::Every(20 * SECOND), overlap: Overlap::Skip });
        let mut world = World::up(cluster(vec![db, web, tidy]));
        for (at, jump) in jumps.into_iter().enumerate() {
            world.set_clock(jump);
            world.pass(2 * SECOND);
            world.says_ready("db.1");
            if at % 2 == 1 {
                world.ends("web.1", Exit::Code(1));
            }
            world.set_clock(-jump / 2.0);
            world.pass(9 * SECOND);
        }
        world.events
    };
    let steady = story([0.0; 4]);
    assert!(steady.len() > 20, "{steady:?}");
    assert_eq!(story([-86_400.0, 3600.0, -1.0, 1e6]), steady);
}

#[test]
fn one_that_is_not_ready_in_time_is_a_failed_start() {
    let mut web = service("web", 1);
    web.policy.ready = Some(ReadyCheck { within: 3 * SECOND, ..ready(ReadyKind::Notify) });
    web.policy.restart.limit = Some(1);
    let mut world = World::up(cluster(vec![web]));
    world.pass(4 * SECOND);
    assert_eq!(world.run_of("web.1"), 2);
    world.pass(60 * SECOND);
    assert_eq!(world.state("web.1"), "failed");
    assert!(
        world.instance("web.1").unwrap().reason.as_ref().unwrap().contains("not ready within 3s")
    );
}

#[test]
fn a_stop_is_told_then_signalled_then_killed() {
    let mut world = World::up(cluster(vec![service("web", 1)]));
    world.stubborn(true);
    world.ask(Request::Restart { targets: named("web"), fresh: None, note: None });
    let stop = world.ask(Request::Stop(named("web")));
    world.pass(9 * SECOND);
    assert_eq!(world.state("web.1"), "stopping");
    world.pass(2 * SECOND);
    assert_eq!(world.state("web.1"), "stopped");
    let Reply::Accepted(accepted) = world.replies[&stop.0].clone() else { panic!("not accepted") };
    let waited = world.ask(Request::Wait(Wait { operation: accepted.operation }));
    assert_eq!(outcome(&world, waited), [pair("web.1", "killed")]);
}

#[test]
fn a_job_that_succeeds_is_completed_and_one_that_fails_is_tried_again() {
    let mut job = service("job", 2);
    job.policy.kind = Kind::Job;
    job.policy.restart.when = RestartWhen::OnFailure;
    job.policy.restart.limit = Some(1);
    let mut after = service("after", 1);
    after.policy.depends_on =
        vec![Dependency { quorum: Quorum::Any, ..needs("job", Condition::Completed) }];
    let mut world = World::up(cluster(vec![job, after]));
    world.ends("job.2", Exit::Code(1));
    assert_eq!(world.state("after.1"), "waiting");
    world.ends("job.1", Exit::Code(0));
    assert_eq!((world.state("job.1"), world.state("after.1")), ("completed", "running"));
    world.pass(SECOND);
    assert_eq!(world.run_of("job.2"), 2);
    world.ends("job.2", Exit::Signal { signal: Signal::SEGV, core: true });
    assert_eq!(world.state("job.2"), "failed");
}

#[test]
fn a_failure_may_end_the_cluster_with_its_code() {
    let mut web = service("web", 1);
    web.policy.restart.when = RestartWhen::Never;
    web.policy.on_failure = OnFailure::Shutdown;
    let mut world = World::up(cluster(vec![web, service("db", 1)]));
    world.ends("web.1", Exit::Code(7));
    world.pass(SECOND);
    assert_eq!(world.exits(), [7]);
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
}

#[test]
fn starts_are_staggered() {
    let mut web = service("web", 3);
    web.policy.start_stagger = 10 * SECOND;
    let mut world = World::up(cluster(vec![web]));
    let up =
        |world: &World| (1..=3).filter(|n| world.state(&format!("web.{n}")) == "running").count();
    for expected in [1, 2, 3] {
        assert_eq!(up(&world), expected);
        world.pass(10 * SECOND);
    }
}

#[test]
fn no_more_than_start_parallel_are_between_start_and_ready() {
    let mut web = service("web", 5);
    web.policy.ready = Some(ready(ReadyKind::Heartbeat));
    let mut config = (*cluster(vec![web])).clone();
    config.node.start_parallel = 2;
    let mut world = World::up(Arc::new(config));
    let starting =
        |world: &World| (1..=5).filter(|n| world.state(&format!("web.{n}")) == "starting").count();
    assert_eq!(starting(&world), 2);
    world.says_ready("web.1");
    assert_eq!((starting(&world), world.state("web.3")), (2, "starting"));
}

#[test]
fn many_starts_leave_others_their_turn() {
    let mut world = World::new(cluster(vec![service("web", 100)]));
    let started = |world: &World| world.events.iter().filter(|e| e.ends_with(" started")).count();
    world.ask(Request::Start(Targets::default()));
    assert_eq!(started(&world), 16);
    world.ask(Request::Start(Targets::default()));
    assert_eq!(started(&world), 16, "no tick came between");
    world.pass(Duration::ZERO);
    assert_eq!(started(&world), 100);
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
fn when_all_crash_one_is_tried_and_the_others_follow_when_it_holds() {
    let mut world = World::up(cluster(vec![service("web", 4), service("other", 1)]));
    let up = |world: &World| -> Vec<String> {
        let all = (1..=4).map(|index| format!("web.{index}"));
        all.filter(|id| world.state(id) == "running").collect()
    };
    let mut most = 0;
    for _ in 0..40 {
        for id in up(&world) {
            world.ends(&id, Exit::Code(1));
        }
        world.pass(Duration::from_millis(200));
        if world.events.iter().any(|event| event.ends_with("tried-singly")) {
            most = most.max(up(&world).len());
        }
    }
    assert_eq!(most, 1);
    assert_eq!(world.events.iter().filter(|e| e.ends_with("tried-singly")).count(), 1);
    assert_eq!(world.state("other.1"), "running");
    // What they need is back: the next one holds, and nobody waits for its own backoff of many seconds.
    while up(&world).is_empty() {
        world.pass(Duration::from_millis(100));
    }
    assert_eq!(up(&world).len(), 1);
    world.pass(Duration::from_millis(1100));
    assert_eq!(up(&world).len(), 4);
}

#[test]
fn an_old_instance_is_recycled_one_at_a_time() {
    let mut web = service("web", 2);
    web.policy.ready = Some(ready(ReadyKind::Heartbeat));
    web.policy.max_age = Some(MaxAge { age: 100 * SECOND, variance: Duration::ZERO });
    let mut world = World::up(cluster(vec![web]));
    for id in ["web.1", "web.2"] {
        world.says_ready(id);
    }
    // Beats would be owed from the first one on.
    for _ in 0..99 {
        world.pass(SECOND);
        world.all_say_ready();
    }
    assert_eq!((world.run_of("web.1"), world.run_of("web.2")), (1, 1));
    world.pass(SECOND + SECOND / 2);
    assert_eq!(
        (world.run_of("web.1"), world.run_of("web.2")),
        (2, 1),
        "the second waits for the first"
    );
    world.all_say_ready();
    world.pass(SECOND);
    assert_eq!((world.run_of("web.1"), world.run_of("web.2")), (2, 2));
}

#[test]
fn a_scheduled_job_runs_when_its_time_comes_and_skips_or_queues() {
    for (overlap, runs) in [(Overlap::Skip, 1), (Overlap::Queue, 2)] {
        let mut job = service("job", 1);
        job.policy.kind = Kind::Job;
        job.policy.restart.when = RestartWhen::OnFailure;
        job.policy.schedule = Some(Schedule { when: ScheduleWhen::Every(60 * SECOND), overlap });
        let mut world = World::up(cluster(vec![job]));
        world.pass(SECOND);
        assert_eq!((world.state("job.1"), world.run_of("job.1")), ("running", 1));
        world.pass(65 * SECOND);
        world.ends("job.1", Exit::Code(0));
        world.pass(SECOND);
        assert_eq!(world.run_of("job.1"), runs, "{overlap:?}");
        if runs == 1 {
            assert_eq!(world.state("job.1"), "completed");
            world.pass(60 * SECOND);
            assert_eq!((world.state("job.1"), world.run_of("job.1")), ("running", 2));
        }
    }
}

fn rolling(count: u32, on_failure: RollingFailure) -> ServiceSpec {
    let mut web = service("web", count);
    web.policy.ready = Some(ready(ReadyKind::Heartbeat));
    web.policy.rolling = Some(Rolling {
        max_unavailable: 1,
        max_surge: 0,
        min_ready: SECOND,
        deadline: 30 * SECOND,
        on_failure,
    });
    web
}

fn changed(config: &Arc<Cluster>) -> Arc<Cluster> {
    let mut after = (**config).clone();
    let mut web = (*after.services["web"]).clone();
    web.launch.nice = Some(3);
    after.services.insert(web.name.clone(), Arc::new(web));
    Arc::new(after)
}

#[test]
fn a_rolling_restart_goes_on_only_when_the_new_one_is_ready() {
    let config = cluster(vec![rolling(3, RollingFailure::Pause)]);
    let mut world = World::up(config.clone());
    world.all_say_ready();
    reload(&mut world, changed(&config), false);
    let runs = |world: &World| [1, 2, 3].map(|n| world.run_of(&format!("web.{n}")));
    assert_eq!(runs(&world), [2, 1, 1]);
    world.all_say_ready();
    world.pass(SECOND / 2);
    assert_eq!(runs(&world), [2, 1, 1], "ready, but not for min_ready yet");
    world.pass(SECOND);
    assert_eq!(runs(&world), [2, 2, 1]);
    world.all_say_ready();
    world.pass(2 * SECOND);
    assert_eq!(runs(&world), [2, 2, 2]);
}

#[test]
fn a_failed_rolling_restart_pauses_or_rolls_back() {
    for (on_failure, second) in [(RollingFailure::Pause, 2), (RollingFailure::Rollback, 3)] {
        let config = cluster(vec![rolling(2, on_failure)]);
        let mut world = World::up(config.clone());
        world.all_say_ready();
        reload(&mut world, changed(&config), false);
        for _ in 0..31 {
            world.pass(SECOND);
            world.says_ready("web.2");
        }
        assert!(world.events.contains(&"* rolling-stopped".to_owned()));
        assert_eq!((world.run_of("web.1"), world.run_of("web.2")), (second, 1), "{on_failure:?}");
        let nice = world.instance("web.1").unwrap().spec.launch.nice;
        assert_eq!(nice, if second == 3 { None } else { Some(3) });
    }
}

#[test]
fn a_rolling_restart_whose_new_one_crashes_stops_there_and_says_so() {
    let mut world = World::up(cluster(vec![service("web", 3)]));
    world.pass(2 * SECOND);
    let id = world.ask(Request::Restart {
        targets: Targets { rolling: true, ..named("web") },
        fresh: None,
        note: None,
    });
    let Reply::Accepted(accepted) = world.replies[&id.0].clone() else { panic!("not accepted") };
    world.ends("web.1", Exit::Code(1));
    world.pass(SECOND);
    assert_eq!([1, 2, 3].map(|n| world.run_of(&format!("web.{n}")).min(2)), [2, 1, 1]);
    let waited = world.ask(Request::Wait(Wait { operation: accepted.operation }));
    let Reply::Outcome(outcome) = &world.replies[&waited.0] else { panic!("not done") };
    assert!(!outcome.ok, "{outcome:?}");
}

#[test]
fn a_surge_stands_in_while_the_others_are_replaced() {
    let mut web = rolling(2, RollingFailure::Pause);
    web.policy.rolling.as_mut().unwrap().max_surge = 1;
    let config = cluster(vec![web]);
    let mut world = World::up(config.clone());
    world.all_say_ready();
    reload(&mut world, changed(&config), false);
    assert_eq!((world.state("web.3"), world.run_of("web.1")), ("starting", 1));
    for _ in 0..10 {
        world.all_say_ready();
        world.pass(SECOND);
    }
    assert_eq!(
        (world.run_of("web.1"), world.run_of("web.2"), world.state("web.3")),
        (2, 2, "gone")
    );
}

#[test]
fn above_its_memory_limit_an_instance_is_restarted() {
    let mut web = service("web", 1);
    web.policy.memory = Some(Bytes(1000));
    let mut world = World::up(cluster(vec![web]));
    world.tell("web.1", Report::Memory(Bytes(1000)));
    assert_eq!(world.run_of("web.1"), 1);
    world.pass(2 * SECOND);
    world.tell("web.1", Report::Memory(Bytes(1001)));
    world.pass(SECOND);
    assert_eq!(world.run_of("web.1"), 2);
}

#[test]
fn a_changed_file_restarts_the_service_that_watches_it() {
    let mut web = service("web", 1);
    web.policy.watch = Some(Watch {
        paths: vec!["src/**".into()],
        ignore: Vec::new(),
        debounce: Duration::ZERO,
        action: WatchAction::Restart,
    });
    let mut world = World::up(cluster(vec![web, service("db", 1)]));
    let name = hilum_shared::name::ServiceName::parse("web").unwrap();
    world.feed(Input::FilesChanged { service: name, path: "src/a.rs".into() });
    assert_eq!((world.run_of("web.1"), world.run_of("db.1")), (2, 1));
}

#[test]
fn waiting_for_a_state_is_answered_when_it_is_reached() {
    let mut web = service("web", 2);
    web.policy.ready = Some(ready(ReadyKind::Heartbeat));
    let mut world = World::up(cluster(vec![web]));
    let wait = |world: &mut World, state| {
        world.ask(Request::Await(Await { targets: vec!["web".into()], state }))
    };
    let running = wait(&mut world, AwaitState::Running);
    assert!(world.replies.contains_key(&running.0), "they run already");
    let ready = wait(&mut world, AwaitState::Ready);
    let exit = wait(&mut world, AwaitState::Exit);
    world.says_ready("web.1");
    assert!(!world.replies.contains_key(&ready.0));
    world.says_ready("web.2");
    assert!(world.replies.contains_key(&ready.0));
    world.ends("web.1", Exit::Code(0));
    assert!(!world.replies.contains_key(&exit.0));
    world.ends("web.2", Exit::Code(0));
    assert!(world.replies.contains_key(&exit.0));
    let stopped = wait(&mut world, AwaitState::Stopped);
    world.ask(Request::Stop(named("web")));
    assert!(world.replies.contains_key(&stopped.0));
}

#[test]
fn a_node_with_nothing_left_to_do_exits_when_it_may() {
    use super::supervisor::Options;
    let mut job = service("job", 1);
    job.policy.kind = Kind::Job;
    job.policy.restart.when = RestartWhen::Never;
    for (code, expected) in [(0, 0), (3, 1)] {
        let options = Options { exit_when_idle: true, ..Options::default() };
        let mut world = World::with(cluster(vec![job.clone()]), options);
        world.ask(Request::Start(Targets { deps: true, ..Targets::default() }));
        world.ends("job.1", Exit::Code(code));
        assert_eq!(world.exits(), [expected]);
    }
}
