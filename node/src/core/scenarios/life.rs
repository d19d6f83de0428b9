//! The life of instances: signs, ends, failures, schedules.

use super::*;

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
fn what_a_start_still_lacks_is_told_with_the_time_it_has() {
    let mut web = service("web", 1);
    let check = ready(ReadyKind::Probe(Probe::Tcp(Template::new("127.0.0.1:1"))));
    web.policy.ready = Some(ReadyCheck { within: 30 * SECOND, failures: 1, ..check });
    let mut world = World::up(cluster(vec![web]));
    let told = |world: &World| {
        let status = world.status("web.1");
        (status.reason.unwrap_or_default(), status.next_at.map(f64::round))
    };
    assert_eq!(told(&world), ("its probe has not answered".to_owned(), Some(30.0)));
    let probe = |ok, detail: &str| Report::Probe {
        purpose: ProbePurpose::Ready,
        ok,
        detail: detail.to_owned(),
    };
    world.tell("web.1", probe(false, "tcp 127.0.0.1:1: connection refused"));
    assert_eq!(told(&world).0, "tcp 127.0.0.1:1: connection refused");
    world.tell("web.1", probe(true, ""));
    assert_eq!(told(&world), (String::new(), None));
    world.tell("web.1", probe(false, "tcp 127.0.0.1:1: no answer within 1s"));
    assert_eq!(told(&world), ("tcp 127.0.0.1:1: no answer within 1s".to_owned(), None));
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
    world.pass(Duration::from_millis(800));
    assert_eq!(up(&world).len(), 1, "it has not held yet");
    world.pass(Duration::from_millis(300));
    assert_eq!(up(&world).len(), 4);
}

/// How often a service went over to trying its instances singly.
fn tried_singly(world: &World) -> usize {
    world.events.iter().filter(|event| event.ends_with("tried-singly")).count()
}

/// Lets an instance run again, where it is in backoff, and crash at once.
fn crashes(world: &mut World, id: &str) {
    for _ in 0..1000 {
        if world.state(id) == "running" {
            break;
        }
        world.pass(Duration::from_millis(10));
    }
    world.ends(id, Exit::Code(1));
    world.pass(Duration::ZERO);
}

/// A service of so many that is started again soon.
fn restless(count: u32) -> ServiceSpec {
    let mut web = service("web", count);
    web.policy.restart.delay = Duration::from_millis(10);
    web.policy.restart.max_delay = Duration::from_millis(50);
    web
}

#[test]
fn the_second_crash_of_all_in_a_row_is_no_coincidence() {
    let mut world = World::up(cluster(vec![restless(2)]));
    for id in ["web.1", "web.2", "web.1"] {
        crashes(&mut world, id);
        assert_eq!(tried_singly(&world), 0, "{id}");
    }
    crashes(&mut world, "web.2");
    assert_eq!(tried_singly(&world), 1);
    // Those that hold are forgiven: an end after that is none of them, and it takes two crashes of each again.
    world.pass(10 * SECOND);
    assert_eq!((world.state("web.1"), world.state("web.2")), ("running", "running"));
    for id in ["web.1", "web.2", "web.1", "web.2", "web.1"] {
        crashes(&mut world, id);
        assert_eq!(tried_singly(&world), 1, "{id}");
    }
    crashes(&mut world, "web.2");
    assert_eq!(tried_singly(&world), 2);
}

#[test]
fn one_that_crashes_alone_is_no_matter_of_all() {
    let mut world = World::up(cluster(vec![restless(1)]));
    for _ in 0..5 {
        crashes(&mut world, "web.1");
    }
    assert_eq!(tried_singly(&world), 0, "there is no other");
    let mut world = World::up(cluster(vec![restless(3)]));
    for _ in 0..5 {
        crashes(&mut world, "web.1");
        crashes(&mut world, "web.2");
    }
    assert_eq!(tried_singly(&world), 0, "the third runs");
    let mut job = restless(2);
    job.policy.kind = Kind::Job;
    job.policy.restart.when = RestartWhen::OnFailure;
    let mut world = World::up(cluster(vec![job]));
    for _ in 0..5 {
        crashes(&mut world, "web.1");
        crashes(&mut world, "web.2");
    }
    assert_eq!(tried_singly(&world), 0, "a job's end is nothing to hold");
}

#[test]
fn what_was_stopped_while_it_was_tried_singly_starts_as_a_whole() {
    let mut world = World::up(cluster(vec![restless(4)]));
    let names: Vec<String> = (1..=4).map(|index| format!("web.{index}")).collect();
    for _ in 0..2 {
        for name in &names {
            crashes(&mut world, name);
        }
    }
    assert_eq!(tried_singly(&world), 1);
    world.ask(Request::Stop(named("web")));
    world.pass(SECOND);
    let all = |world: &World, state| names.iter().filter(|name| world.state(name) == state).count();
    assert_eq!(all(&world, "stopped"), 4);
    world.ask(Request::Start(named("web")));
    world.pass(Duration::from_millis(100));
    assert_eq!(all(&world, "running"), 4);
}

#[test]
fn each_of_those_that_all_crash_has_its_turn() {
    let mut web = service("web", 20);
    web.policy.restart.delay = Duration::from_millis(10);
    web.policy.restart.max_delay = Duration::from_millis(50);
    let mut world = World::up(cluster(vec![web]));
    let names: Vec<String> = (1..=20).map(|index| format!("web.{index}")).collect();
    for _ in 0..1000 {
        let running: Vec<&String> =
            names.iter().filter(|name| world.state(name) == "running").collect();
        for name in running {
            world.ends(name, Exit::Code(1));
        }
        world.pass(Duration::from_millis(10));
    }
    let runs: Vec<u32> = names.iter().map(|name| world.run_of(name)).collect();
    let (least, most) = (runs.iter().min().unwrap(), runs.iter().max().unwrap());
    assert!(*least > 20 && most - least <= 2, "{runs:?}");
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
    let told = |world: &World, id: &str| world.events.contains(&format!("{id} recycled"));
    assert_eq!((told(&world, "web.1"), told(&world, "web.2")), (true, false));
    world.all_say_ready();
    world.pass(SECOND);
    assert_eq!((world.run_of("web.1"), world.run_of("web.2")), (2, 2));
    assert!(told(&world, "web.2"));
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

#[test]
fn nobody_waits_for_the_time_of_a_scheduled_job_that_is_new() {
    let mut job = service("job", 1);
    job.policy.kind = Kind::Job;
    job.policy.restart.when = RestartWhen::OnFailure;
    let yearly = ScheduleWhen::Cron("0 3 1 1 *".into());
    job.policy.schedule = Some(Schedule { when: yearly, overlap: Overlap::Skip });
    let web = service("web", 1);
    let mut world = World::up(cluster(vec![web.clone()]));
    let request = RequestId(999);
    let new = cluster(vec![web, job]);
    world.open(request.0);
    world.feed(Input::Reconfigure { reason: Reread::Asked(request), cluster: new, dry_run: false });
    let Some(Reply::Reloaded(reloaded)) = world.replies.get(&request.0) else { panic!() };
    let wait = world.ask(Request::Wait(Wait { operation: reloaded.operation }));
    assert_eq!(outcome(&world, wait), [pair("job.1", "scheduled")]);
    let scaled = scale(&mut world, "job", 2);
    let Reply::Accepted(scaled) = &world.replies[&scaled.0] else { panic!() };
    assert_eq!(scaled.changed[0].result.as_deref(), Some("scheduled"));
}

#[test]
fn a_scheduled_job_that_fails_keeps_to_its_schedule() {
    let mut job = service("job", 1);
    job.policy.kind = Kind::Job;
    job.policy.restart.when = RestartWhen::OnFailure;
    job.policy.restart.min_uptime = Duration::from_secs(3600);
    job.policy.restart.delay = Duration::from_secs(3600);
    job.policy.restart.max_delay = Duration::from_secs(3600);
    let every = ScheduleWhen::Every(60 * SECOND);
    job.policy.schedule = Some(Schedule { when: every, overlap: Overlap::Skip });
    let mut world = World::up(cluster(vec![job]));
    world.pass(SECOND);
    for run in 1..=5 {
        assert_eq!((world.state("job.1"), world.run_of("job.1")), ("running", run));
        world.ends("job.1", Exit::Code(1));
        let by_schedule = ["restarting in 59s: exit 1", "restarting in 1m: exit 1"];
        assert!(by_schedule.contains(&world.said.as_str()), "{}", world.said);
        world.pass(5 * SECOND);
        assert_eq!(world.state("job.1"), "backoff");
        world.pass(55 * SECOND);
    }
    assert_eq!(world.instance("job.1").unwrap().restarts, 0, "they were due");
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
    use crate::core::supervisor::Options;
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
