//! What operators and changed files bring about: reloads, scales, rolling restarts.

use super::*;

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
fn an_order_that_another_overtook_was_not_done_and_the_later_one_is_the_reason() {
    let mut world = World::up(cluster(vec![service("web", 1)]));
    world.stubborn(true);
    world.deaf(5);
    let restart = |world: &mut World| {
        world.ask(Request::Restart { targets: named("web"), fresh: None, note: None })
    };
    restart(&mut world); // from here on it heeds no signal
    let asked = restart(&mut world);
    let Reply::Accepted(accepted) = world.replies[&asked.0].clone() else { panic!("refused") };
    let waited = world.ask(Request::Wait(Wait { operation: accepted.operation }));
    assert_eq!(world.status("web.1").reason.as_deref(), Some("restarted by hand"));
    world.ask(Request::Stop(named("web")));
    assert_eq!(world.status("web.1").reason.as_deref(), Some("stopped by hand"));

    world.pass(11 * SECOND); // KILL, which it outlives twice
    assert_eq!(world.state("web.1"), "stopping");
    restart(&mut world);
    assert_eq!(world.status("web.1").reason.as_deref(), Some("restarted by hand"));
    world.ask(Request::Stop(named("web")));
    world.pass(SECOND);
    assert_eq!((world.state("web.1"), world.run_of("web.1")), ("stopped", 2));
    assert_eq!(world.status("web.1").reason.as_deref(), Some("stopped by hand"));
    assert_eq!(outcome(&world, waited), [pair("web.1", "superseded")]);
    let Reply::Outcome(told) = &world.replies[&waited.0] else { panic!("no outcome") };
    assert!(!told.ok, "it was not restarted");
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
    let reason = Reread::Asked(RequestId(999));
    world.open(999);
    world.feed(Input::Reconfigure { reason, cluster: new.clone(), dry_run: false });
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

fn with_min_uptime(cluster: &Arc<Cluster>, min_uptime: Duration) -> Arc<Cluster> {
    let mut cluster = (**cluster).clone();
    for spec in cluster.services.values_mut() {
        Arc::make_mut(spec).policy.restart.min_uptime = min_uptime;
    }
    Arc::new(cluster)
}

#[test]
fn a_failed_rolling_restart_pauses_or_rolls_back() {
    for (on_failure, second) in [(RollingFailure::Pause, 2), (RollingFailure::Rollback, 3)] {
        let config = cluster(vec![rolling(2, on_failure)]);
        let mut world = World::up(config.clone());
        world.all_say_ready();
        let worse = with_min_uptime(&changed(&config), 77 * SECOND);
        reload(&mut world, worse.clone(), false);
        for _ in 0..31 {
            world.pass(SECOND);
            world.says_ready("web.2");
        }
        assert!(world.events.contains(&"* rolling-stopped".to_owned()));
        assert_eq!((world.run_of("web.1"), world.run_of("web.2")), (second, 1), "{on_failure:?}");
        let nice = world.instance("web.1").unwrap().spec.launch.nice;
        assert_eq!(nice, if second == 3 { None } else { Some(3) });
        let policy = &world.instance("web.1").unwrap().spec.policy;
        let kept = policy.restart.min_uptime == 77 * SECOND;
        assert_eq!(kept, second != 3, "the policy goes back with the rest");
        let plan = |world: &mut World, config: Arc<Cluster>| {
            let reason = Reread::Asked(RequestId(999));
            world.open(999);
            world.feed(Input::Reconfigure { reason, cluster: config, dry_run: true });
            let Reply::Reloaded(reloaded) = &world.replies[&999] else { panic!("refused") };
            reloaded.plan.clone()
        };
        let rolled_back = on_failure == RollingFailure::Rollback;
        let again = plan(&mut world, worse.clone());
        let both = ["~ web.1 nice: restart", "~ web.2 nice: restart"];
        let rest = if rolled_back { &both[..] } else { &both[1..] };
        assert_eq!(again, rest, "the file still wants the other one");
        let back = plan(&mut world, config.clone());
        let rest = if rolled_back { vec![] } else { vec![both[0], "~ web.2 restart: live"] };
        assert_eq!(back, rest, "back to what it was");
        if rolled_back {
            continue;
        }
        let outdated = |world: &World, wanted: &Arc<Cluster>| {
            ["web.1", "web.2"].map(|id| {
                let keys = world.instance(id).unwrap().outdated(&wanted.services["web"]);
                !keys.is_empty()
            })
        };
        assert_eq!(outdated(&world, &worse), [false, true]);
        // once more: the one that does not hold is waited for before another is touched
        reload(&mut world, worse, false);
        assert_eq!((world.run_of("web.1"), world.run_of("web.2")), (2, 1));
        for _ in 0..20 {
            world.pass(SECOND);
            world.says_ready("web.2");
        }
        assert_eq!((world.run_of("web.1"), world.run_of("web.2")), (2, 1));
        reload(&mut world, config.clone(), false);
        for _ in 0..5 {
            world.all_say_ready();
            world.pass(SECOND);
        }
        assert_eq!((world.run_of("web.1"), world.run_of("web.2")), (3, 1), "web.2 runs it already");
        assert_eq!(outdated(&world, &config), [false, false]);
    }
}

#[test]
fn what_was_put_back_is_not_told_as_replaced() {
    let config = cluster(vec![rolling(2, RollingFailure::Rollback)]);
    let mut world = World::up(config.clone());
    world.all_say_ready();
    world.open(998);
    let reason = Reread::Asked(RequestId(998));
    world.feed(Input::Reconfigure { reason, cluster: changed(&config), dry_run: false });
    let Reply::Reloaded(reloaded) = world.replies[&998].clone() else { panic!("refused") };
    let waited = world.ask(Request::Wait(Wait { operation: reloaded.operation }));
    world.all_say_ready();
    for _ in 0..33 {
        world.pass(SECOND);
        world.says_ready("web.1");
    }
    assert_eq!(outcome(&world, waited), [pair("web.1", "kept"), pair("web.2", "failed")]);
}

#[test]
fn a_rollback_goes_back_to_the_sockets_and_ports_and_lets_the_new_ones_go() {
    let socket = |port| SocketSpec { name: "http".into(), host: "127.0.0.1".into(), port };
    let with = |port| {
        let mut web = rolling(2, RollingFailure::Rollback);
        web.launch.sockets = vec![socket(port)];
        let mut cluster = (*cluster(vec![web])).clone();
        cluster.sockets = vec![socket(port), socket(9)];
        Arc::new(cluster)
    };
    let mut world = World::up(with(1));
    world.all_say_ready();
    reload(&mut world, with(2), false);
    for _ in 0..40 {
        world.pass(SECOND);
        world.says_ready("web.2");
    }
    assert!(world.events.contains(&"* rolling-stopped".to_owned()));
    world.all_say_ready();
    assert_eq!(world.sockets(), [1, 9]);
    reload(&mut world, with(2), false);
    assert_eq!(world.sockets(), [1, 2, 9], "the file still wants the other one");
}

#[test]
fn a_file_that_is_mended_during_a_rolling_restart_is_applied_at_once() {
    let config = cluster(vec![rolling(3, RollingFailure::Pause)]);
    let mut world = World::up(config.clone());
    world.all_say_ready();
    world.pass(2 * SECOND);
    world.open(998);
    let reason = Reread::Asked(RequestId(998));
    world.feed(Input::Reconfigure { reason, cluster: changed(&config), dry_run: false });
    let Reply::Reloaded(reloaded) = world.replies[&998].clone() else { panic!("refused") };
    let waited = world.ask(Request::Wait(Wait { operation: reloaded.operation }));
    world.pass(SECOND);
    let runs = |world: &World| [1, 2, 3].map(|n| world.run_of(&format!("web.{n}")));
    assert_eq!(runs(&world), [2, 1, 1], "and it does not become ready");
    reload(&mut world, config, false);
    world.pass(SECOND);
    assert_eq!(runs(&world), [3, 1, 1], "the others run what is wanted");
    world.says_ready("web.1");
    world.pass(2 * SECOND);
    let results = outcome(&world, waited);
    assert_eq!(
        results,
        [pair("web.1", "ready"), pair("web.2", "unchanged"), pair("web.3", "unchanged")]
    );
}

#[test]
fn a_reload_without_a_change_waits_for_the_one_that_is_under_way() {
    let config = cluster(vec![rolling(2, RollingFailure::Pause)]);
    let mut world = World::up(config.clone());
    world.all_say_ready();
    let new = changed(&config);
    reload(&mut world, new.clone(), false);
    world.open(998);
    let reason = Reread::Asked(RequestId(998));
    world.feed(Input::Reconfigure { reason, cluster: new, dry_run: false });
    let Reply::Reloaded(reloaded) = world.replies[&998].clone() else { panic!("refused") };
    assert!(reloaded.plan.is_empty(), "{:?}", reloaded.plan);
    let waited = world.ask(Request::Wait(Wait { operation: reloaded.operation }));
    world.pass(SECOND);
    assert!(!world.replies.contains_key(&waited.0));
    for _ in 0..6 {
        world.all_say_ready();
        world.pass(SECOND);
    }
    assert_eq!(outcome(&world, waited), [pair("web.1", "ready"), pair("web.2", "ready")]);
    assert_eq!((world.run_of("web.1"), world.run_of("web.2")), (2, 2));
}

#[test]
fn who_did_not_hold_is_told_from_who_was_not_replaced() {
    let mut web = rolling(2, RollingFailure::Pause);
    web.policy.ready.as_mut().unwrap().within = 2 * SECOND;
    let config = cluster(vec![web]);
    let mut world = World::up(config.clone());
    world.all_say_ready();
    world.pass(2 * SECOND);
    world.open(998);
    let reason = Reread::Asked(RequestId(998));
    world.feed(Input::Reconfigure { reason, cluster: changed(&config), dry_run: false });
    let Reply::Reloaded(reloaded) = world.replies[&998].clone() else { panic!("refused") };
    let waited = world.ask(Request::Wait(Wait { operation: reloaded.operation }));
    for _ in 0..6 {
        world.pass(SECOND);
    }
    let Reply::Outcome(outcome) = &world.replies[&waited.0] else { panic!("not done") };
    let told: Vec<(&str, &str)> = outcome
        .changed
        .iter()
        .map(|change| (change.result.as_deref().unwrap(), change.reason.as_deref().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("failed", "the new one did not hold: not ready within 2s"),
            ("kept", "not replaced, because web.1 did not hold")
        ]
    );
    assert!(!outcome.ok);
}

#[test]
fn a_rolling_restart_is_done_when_the_last_has_held_and_a_restart_by_hand_does_not_spoil_it() {
    let mut world = World::up(cluster(vec![rolling(2, RollingFailure::Pause)]));
    world.all_say_ready();
    let restart = |world: &mut World, rolling| {
        let targets = Targets { rolling, ..named("web") };
        let id = world.ask(Request::Restart { targets, fresh: None, note: None });
        let Reply::Accepted(accepted) = world.replies[&id.0].clone() else { panic!("refused") };
        world.ask(Request::Wait(Wait { operation: accepted.operation }))
    };
    let rolled = restart(&mut world, true);
    world.all_say_ready();
    world.pass(2 * SECOND);
    world.all_say_ready();
    assert_eq!([world.run_of("web.1"), world.run_of("web.2")], [2, 2]);
    assert!(!world.replies.contains_key(&rolled.0), "ready, but not for min_ready yet");
    let restarted = restart(&mut world, false);
    world.all_say_ready();
    for request in [rolled, restarted] {
        assert_eq!(outcome(&world, request), [pair("web.1", "ready"), pair("web.2", "ready")]);
    }
    world.pass(3 * SECOND);
    assert!(!world.events.contains(&"* rolling-stopped".to_owned()));
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
fn that_nothing_changed_is_told_where_somebody_waits_to_hear_it() {
    let config = cluster(vec![service("web", 1)]);
    let mut world = World::up(config.clone());
    let told = |world: &World| world.events.iter().filter(|event| *event == "* reloaded").count();
    let read = |world: &mut World, reason| {
        world.feed(Input::Reconfigure { reason, cluster: config.clone(), dry_run: false });
        told(world)
    };
    assert_eq!(read(&mut world, Reread::Saved), 0, "only a comment");
    assert_eq!(read(&mut world, Reread::Ordered), 1);
    world.feed(Input::ReloadRefused("it is broken".into()));
    assert_eq!(read(&mut world, Reread::Saved), 2, "it is mended");
    assert_eq!(read(&mut world, Reread::Saved), 2, "which is told once");
}
