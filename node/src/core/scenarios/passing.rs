//! What passes, and must not be taken for the end: limits that a run was not told of, ports that somebody else has for a
//! moment, clocks that are set, new definitions that do not hold.

use hilum_shared::name::ServiceName;

use super::*;

/// Puts a configuration in force: the plan, and the operation.
fn reloaded(world: &mut World, cluster: Arc<Cluster>) -> (Vec<String>, u64) {
    world.open(999);
    world.feed(Input::Reconfigure {
        reason: Reread::Asked(RequestId(999)),
        cluster,
        dry_run: false,
    });
    let Reply::Reloaded(reloaded) = &world.replies[&999] else { panic!("refused") };
    (reloaded.plan.clone(), reloaded.operation)
}

/// The same cluster with another `web`.
fn with_web(config: &Arc<Cluster>, change: impl FnOnce(&mut ServiceSpec)) -> Arc<Cluster> {
    let mut new = (**config).clone();
    let mut web = (*new.services["web"]).clone();
    change(&mut web);
    new.services.insert(web.name.clone(), Arc::new(web));
    Arc::new(new)
}

fn has(world: &World, event: &str) -> bool {
    world.events.iter().any(|other| other == event)
}

#[test]
fn a_shorter_silence_ends_nobody_who_was_not_told_of_it() {
    let config = cluster(vec![service("web", 1)]);
    let mut world = World::up(config.clone());
    let long = config.node.heartbeat_timeout;
    world.beats("web.1", long);
    let mut quick = (*config).clone();
    (quick.node.heartbeat_interval, quick.node.heartbeat_timeout) = (SECOND / 10, SECOND / 2);
    let (plan, _) = reloaded(&mut world, Arc::new(quick));
    assert_eq!(plan, ["~ node.heartbeat: live"]);
    let lost = "web.1 heartbeat-lost";
    // Nothing told yet; an echo that was on its way; the first that names the new silence.
    for told in [long, long, SECOND / 2] {
        world.pass(2 * SECOND);
        assert!(!has(&world, lost), "it keeps to what it was told");
        world.beats("web.1", told);
    }
    world.pass(2 * SECOND);
    assert!(!has(&world, lost), "nobody knows yet whether it heard the echo");
    world.beats("web.1", SECOND / 2);
    world.pass(SECOND);
    assert!(has(&world, lost));
}

#[test]
fn a_longer_silence_is_granted_at_once() {
    let config = cluster(vec![service("web", 1)]);
    let mut world = World::up(config.clone());
    world.beats("web.1", config.node.heartbeat_timeout);
    let mut patient = (*config).clone();
    patient.node.heartbeat_timeout = 60 * SECOND;
    reload(&mut world, Arc::new(patient), false);
    world.pass(50 * SECOND);
    assert!(!has(&world, "web.1 heartbeat-lost"));
}

#[test]
fn a_watchdog_is_what_its_process_was_told_at_its_start() {
    let watched = |interval| {
        let kind = AliveKind::Notify;
        Some(AliveCheck { kind, interval, timeout: SECOND, failures: 1, diagnose: None })
    };
    let config = cluster(vec![service("web", 1)]);
    let mut world = World::up(config.clone());
    let slow = with_web(&config, |web| web.policy.alive = watched(10 * SECOND));
    let (plan, _) = reloaded(&mut world, slow.clone());
    assert_eq!(plan, ["~ web.1 alive: at its next start"]);
    world.pass(60 * SECOND);
    assert_eq!(world.run_of("web.1"), 1, "it knows of no watchdog");
    world.ask(Request::Restart { targets: named("web"), fresh: None, note: None });
    let quick = with_web(&slow, |web| {
        web.policy.alive = watched(SECOND / 3);
        web.policy.stop.timeout = SECOND;
    });
    world.pass(8 * SECOND);
    let (plan, _) = reloaded(&mut world, quick);
    assert_eq!(plan, ["~ web.1 alive: at its next start; stop: live"]);
    world.pass(8 * SECOND);
    assert_eq!(world.run_of("web.1"), 2, "it was told ten seconds");
    world.pass(60 * SECOND);
    assert!(world.run_of("web.1") > 2);
}

#[test]
fn a_reload_names_each_key_of_the_node_that_it_changes() {
    let config = cluster(vec![service("web", 1)]);
    let mut world = World::up(config.clone());
    let mut new = (*config).clone();
    new.node.start_parallel = 3;
    new.node.stop_timeout = 77 * SECOND;
    new.node.watch_config = false;
    new.node.stats_interval = 7 * SECOND;
    new.node.on_all_exited = Some(OnAllExited::Exit);
    let (plan, _) = reloaded(&mut world, Arc::new(new));
    let expected = [
        "~ node.start_parallel: live",
        "~ node.stop_timeout: live",
        "~ node.watch_config: live",
        "~ node.stats_interval: live",
        "~ node.on_all_exited: at the next start of the node",
    ];
    assert_eq!(plan, expected);
}

#[test]
fn a_port_that_somebody_else_has_for_a_while_is_a_failed_start_like_others() {
    let mut once = service("once", 1);
    once.policy.restart.when = RestartWhen::Never;
    let mut hasty = service("hasty", 1);
    hasty.policy.restart.delay = Duration::ZERO;
    let mut world = World::new(cluster(vec![hasty, once, service("web", 1)]));
    world.ports_are_held(true);
    world.ask(Request::Start(Targets { deps: true, ..Targets::default() }));
    let waiting = world.ask(Request::Wait(Wait { operation: 1 }));
    assert_eq!((world.state("web.1"), world.state("once.1")), ("backoff", "failed"));
    assert_eq!(world.status("web.1").reason.as_deref(), Some("port 80 is held"));
    let Some(Reply::Outcome(told)) = world.replies.get(&waiting.0) else { panic!("no answer") };
    let reason = told.changed[2].reason.clone().unwrap();
    assert_eq!(reason, "port 80 is held", "told at once, though it is tried again");
    world.ports_are_held(false);
    world.pass(30 * SECOND);
    assert_eq!((world.state("web.1"), world.state("hasty.1")), ("running", "running"));
}

#[test]
fn a_clock_that_is_set_neither_skips_nor_repeats_a_job() {
    let mut job = service("job", 1);
    job.policy.kind = Kind::Job;
    job.policy.restart.when = RestartWhen::OnFailure;
    let hourly = ScheduleWhen::Cron("0 * * * *".into());
    job.policy.schedule = Some(Schedule { when: hourly, overlap: Overlap::Skip });
    let mut world = World::up(cluster(vec![job]));
    let mut runs_after = |by: f64, time: Duration| {
        world.set_clock(by);
        world.feed(Input::Tick);
        world.pass(time);
        if world.state("job.1") == "running" {
            world.ends("job.1", Exit::Code(0));
        }
        world.run_of("job.1")
    };
    // 1.7e9 is 13 minutes and 20 seconds past an hour, in every zone of whole hours.
    assert_eq!(
        runs_after(2790.0, 15 * SECOND),
        1,
        "ten seconds before the hour, then five after it"
    );
    assert_eq!(runs_after(-10.0, 20 * SECOND), 1, "the same hour once more");
    assert_eq!(runs_after(3600.0, Duration::ZERO), 2, "the next hour was jumped over");
    assert_eq!(runs_after(864_000.0, SECOND), 2, "a wrong clock was corrected");
    assert_eq!(runs_after(0.0, 3600 * SECOND), 3);
    assert_eq!(runs_after(-864_000.0, SECOND), 3);
    assert_eq!(runs_after(0.0, 3600 * SECOND), 4, "not in ten days");
}

fn rolling(count: u32) -> ServiceSpec {
    let mut web = service("web", count);
    web.policy.rolling = Some(Rolling {
        max_unavailable: 1,
        max_surge: 0,
        min_ready: SECOND,
        deadline: 30 * SECOND,
        on_failure: RollingFailure::Pause,
    });
    web
}

#[test]
fn nobody_waits_for_ever_for_a_new_definition_that_does_not_hold() {
    let config = cluster(vec![rolling(2)]);
    let mut world = World::up(config.clone());
    world.pass(5 * SECOND);
    let worse = with_web(&config, |web| web.launch.nice = Some(3));
    for reload in 1..=2 {
        let (_, operation) = reloaded(&mut world, worse.clone());
        let waiting = world.ask(Request::Wait(Wait { operation }));
        for _ in 0..3 {
            world.ends("web.1", Exit::Code(1));
            world.pass(SECOND / 10);
        }
        let Some(Reply::Outcome(told)) = world.replies.get(&waiting.0) else {
            panic!("reload {reload} is not answered");
        };
        let results: Vec<&str> = told.changed.iter().filter_map(|c| c.result.as_deref()).collect();
        assert_eq!(results, ["failed", "kept"]);
        assert_eq!(world.run_of("web.2"), 1);
    }
}

#[test]
fn waiting_for_one_that_crashes_again_and_again_ends_with_the_reason() {
    let mut web = service("web", 1);
    web.policy.ready = Some(ready(ReadyKind::Heartbeat));
    let mut far = service("far", 1);
    far.policy.depends_on = vec![needs("web", Condition::Ready)];
    let mut world = World::up(cluster(vec![web, far]));
    let wait = |world: &mut World, target: &str| {
        let (targets, state) = (vec![target.into()], AwaitState::Ready);
        world.ask(Request::Await(Await { targets, state }))
    };
    let waiting = ["web", "far"].map(|name| wait(&mut world, name));
    for _ in 0..3 {
        assert!(!waiting.iter().any(|call| world.replies.contains_key(&call.0)));
        world.ends("web.1", Exit::Code(1));
        world.pass(3 * SECOND);
    }
    let late = wait(&mut world, "web");
    for call in waiting.into_iter().chain([late]) {
        let Some(Reply::Outcome(told)) = world.replies.get(&call.0) else { panic!("no answer") };
        assert!(!told.ok);
        let reason = told.changed[0].reason.clone().unwrap_or_default();
        assert!(reason.contains("ended too soon 3 times") || reason.contains("web.1"), "{reason}");
    }
}

#[test]
fn what_started_anew_by_itself_is_not_replaced_once_more() {
    let config = cluster(vec![rolling(4)]);
    let mut world = World::up(config.clone());
    for crash in 1..=2 {
        for id in ["web.1", "web.2", "web.3", "web.4"] {
            world.ends(id, Exit::Code(1));
        }
        if crash == 1 {
            world.pass(Duration::from_millis(700));
        }
    }
    let runs = |world: &World| [1, 2, 3, 4].map(|n| world.run_of(&format!("web.{n}")));
    let before = runs(&world);
    let better = with_web(&config, |web| web.launch.nice = Some(3));
    let (_, operation) = reloaded(&mut world, better);
    let waiting = world.ask(Request::Wait(Wait { operation }));
    world.pass(120 * SECOND);
    assert_eq!(runs(&world), before.map(|run| run + 1));
    let started = [1, 2, 3, 4].map(|n| pair(&format!("web.{n}"), "started"));
    assert_eq!(outcome(&world, waiting), started);
    for n in 1..=4 {
        let instance = world.instance(&format!("web.{n}")).unwrap();
        assert_eq!((instance.state_word(), instance.spec.launch.nice), ("running", Some(3)));
    }
}

#[test]
fn the_command_that_follows_saved_files_runs_once_at_a_time_and_once_more_after_that() {
    let mut web = service("web", 1);
    let action = WatchAction::Run(vec!["make".into()]);
    let (paths, ignore) = (vec!["src/**".into()], Vec::new());
    web.policy.watch = Some(Watch { paths, ignore, debounce: Duration::ZERO, action });
    let mut world = World::up(cluster(vec![web]));
    let service = ServiceName::parse("web").unwrap();
    let saved = |world: &mut World, times: usize| {
        for _ in 0..times {
            let path = "src/a.rs".into();
            world.feed(Input::FilesChanged { service: service.clone(), path });
        }
        world.watch_commands
    };
    let done = |world: &mut World, result| {
        world.feed(Input::WatchActionDone { service: service.clone(), result });
        world.watch_commands
    };
    assert_eq!(saved(&mut world, 5), 1);
    assert_eq!(done(&mut world, Err("exit 1".into())), 2, "for the four saves since");
    assert!(has(&world, "* watch-action-failed"));
    assert_eq!(done(&mut world, Ok(())), 2);
    assert_eq!(saved(&mut world, 1), 3);
}
