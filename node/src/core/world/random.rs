//! Thousands of random runs: operators that change their minds, processes that misbehave, time that jumps.

use proptest::prelude::*;

use super::super::input::Reread;
use super::*;

fn test_cluster() -> Arc<Cluster> {
    let mut db = service("db", 2);
    db.policy.ready = Some(ready(ReadyKind::Notify));
    let mut web = service("web", 3);
    web.policy.depends_on = vec![needs("db", Condition::Ready)];
    web.policy.ready = Some(ready(ReadyKind::Heartbeat));
    web.policy.restart.limit = Some(5);
    web.policy.rolling = Some(Rolling {
        max_unavailable: 1,
        max_surge: 1,
        min_ready: Duration::from_secs(1),
        deadline: Duration::from_secs(120),
        on_failure: RollingFailure::Pause,
    });
    let mut migrate = service("migrate", 1);
    migrate.policy.kind = Kind::Job;
    migrate.policy.restart.when = RestartWhen::OnFailure;
    migrate.policy.depends_on = vec![needs("db", Condition::Started)];
    let mut edge = service("edge", 1);
    edge.policy.depends_on = vec![
        Dependency {
            quorum: Quorum::Any,
            on_restart: OnDependencyRestart::Restart,
            ..needs("web", Condition::Ready)
        },
        needs("migrate", Condition::Completed),
    ];
    cluster(vec![db, web, migrate, edge])
}

#[derive(Clone, Debug)]
enum Op {
    Pass(u16),
    Stall(u16),
    Ready(usize),
    Crash(usize, i32),
    Subscribe(usize),
    Pause(usize),
    Ghost(usize),
    Register(usize, u8, bool),
    Unregister(usize, u8),
    Watch(u8, u64),
    Depart(u8),
    Start(usize, bool),
    Stop(usize, bool),
    Restart(usize, bool),
    Scale(usize, i64),
    Wait(u64),
    Reload(bool),
    Nature(bool, u8, u8, u8),
}

const TARGETS: [&str; 6] = ["db", "web", "web.2", "migrate", "edge", "*"];

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u16..2000).prop_map(Op::Pass),
        1 => (0u16..60_000).prop_map(Op::Pass),
        1 => (0u16..30_000).prop_map(Op::Stall),
        6 => any::<usize>().prop_map(Op::Ready),
        4 => (any::<usize>(), 0i32..3).prop_map(|(n, code)| Op::Crash(n, code)),
        3 => any::<usize>().prop_map(Op::Subscribe),
        1 => any::<usize>().prop_map(Op::Pause),
        1 => any::<usize>().prop_map(Op::Ghost),
        3 => (any::<usize>(), 0u8..3, any::<bool>()).prop_map(|(n, s, old)| Op::Register(n, s, old)),
        1 => (any::<usize>(), 0u8..3).prop_map(|(n, s)| Op::Unregister(n, s)),
        1 => (0u8..3, 0u64..3).prop_map(|(s, seen)| Op::Watch(s, seen)),
        1 => (0u8..3).prop_map(Op::Depart),
        2 => (0usize..6, any::<bool>()).prop_map(|(n, deps)| Op::Start(n, deps)),
        2 => (0usize..6, any::<bool>()).prop_map(|(n, now)| Op::Stop(n, now)),
        2 => (0usize..6, any::<bool>()).prop_map(|(n, rolling)| Op::Restart(n, rolling)),
        2 => (0usize..2, 0i64..6).prop_map(|(n, count)| Op::Scale(n, count)),
        1 => (1u64..9).prop_map(Op::Wait),
        1 => any::<bool>().prop_map(Op::Reload),
        2 => (any::<bool>(), 0u8..8, 0u8..3, 0u8..5).prop_map(|(s, d, l, f)| Op::Nature(s, d, l, f)),
    ]
}

fn targets(n: usize, deps: bool, rolling: bool, grace: Option<f64>) -> Targets {
    Targets { targets: vec![TARGETS[n].into()], deps, rolling, grace }
}

fn run(world: &mut World, op: Op) {
    match op {
        Op::Pass(millis) => world.pass(Duration::from_millis(millis.into())),
        Op::Stall(millis) => {
            let by = Duration::from_millis(millis.into());
            world.now = world.now + by;
            world.feed(Input::Stalled(by));
        }
        Op::Ready(n) => {
            if let Some(key) = world.pick(n) {
                let process = world.processes.get_mut(&key).unwrap();
                process.ready = true;
                let report = if key.0.service.as_str() == "db" {
                    Report::Notify(crate::core::input::NotifyMessage {
                        ready: true,
                        ..Default::default()
                    })
                } else {
                    Report::Beat { state: WorkerState::Ready, status: None, told: SILENCE }
                };
                world.feed(Input::Report { instance: key.0, run: key.1, report });
            }
        }
        Op::Crash(n, code) => {
            if let Some(key) = world.pick(n) {
                world.end(&key, Exit::Code(code));
                if let Some(input) = world.pending.pop() {
                    world.feed(input);
                }
            }
        }
        Op::Subscribe(n) => {
            if let Some(key) = world.pick(n) {
                world.processes.get_mut(&key).unwrap().subscribed = true;
            }
        }
        Op::Pause(n) => {
            if let Some(key) = world.pick(n) {
                world.processes.get_mut(&key).unwrap().paused = true;
            }
        }
        Op::Ghost(n) => {
            if let Some((instance, run)) = world.pick(n) {
                let ghost = Run(run.0.saturating_sub(1));
                for report in [Report::Exited(Exit::Code(1)), Report::Empty, Report::Ready] {
                    world.feed(Input::Report { instance: instance.clone(), run: ghost, report });
                }
                // A look at the process table that was taken too early.
                world.feed(Input::Report { instance, run, report: Report::Empty });
            }
        }
        Op::Register(n, service, old) => {
            let Some((instance, run)) = world.pick(n) else { return };
            let entry = World::entry_of(&format!("s{service}"), &instance.to_string());
            let owner = match (service, old) {
                (0, _) => Owner::Peer(format!("{}", n % 3)),
                (_, true) => Owner::Run(instance, Run(run.0.saturating_sub(1))),
                (_, false) => Owner::Run(instance, run),
            };
            world.entry(owner, entry);
        }
        Op::Unregister(n, service) => {
            let Some((instance, _)) = world.pick(n) else { return };
            let service = format!("s{service}");
            let id = Entered::new(&service, &format!("mock://{instance}"), None).id;
            world.entry(Owner::Peer("x".into()), Entry::Unregister { service, id });
        }
        Op::Watch(service, seen) => {
            let services = [(format!("s{service}"), seen)].into();
            let watch = hilum_shared::registry::directory::Watch { services };
            world.entry(Owner::Peer(format!("watcher {service}")), Entry::Watch(watch));
        }
        Op::Depart(n) => world.feed(Input::Departed(Owner::Peer(n.to_string()))),
        Op::Start(n, deps) => drop(world.ask(Request::Start(targets(n, deps, false, None)))),
        Op::Stop(n, now) => {
            world.ask(Request::Stop(targets(n, true, false, now.then_some(0.0))));
        }
        Op::Restart(n, rolling) => {
            let targets = targets(n, true, rolling, None);
            world.ask(Request::Restart { targets, fresh: None, note: None });
        }
        Op::Scale(n, count) => {
            let change = ScaleTo { service: TARGETS[n].into(), count, relative: false };
            world.ask(Request::Scale(Scale { changes: vec![change] }));
        }
        Op::Wait(operation) => drop(world.ask(Request::Wait(Wait { operation }))),
        Op::Reload(removed) => {
            let mut cluster = (*test_cluster()).clone();
            if removed {
                cluster.services.remove("edge");
                let mut web = (*cluster.services["web"]).clone();
                web.launch.nice = Some(5);
                web.numprocesses = 2;
                cluster.services.insert(web.name.clone(), Arc::new(web));
            }
            world.feed(Input::Reconfigure {
                reason: Reread::Saved,
                cluster: Arc::new(cluster),
                dry_run: false,
            });
        }
        Op::Nature(stubborn, deaf, leftovers, spawn) => {
            world.nature = Nature {
                stubborn,
                deaf: if deaf == 7 { 150 } else { deaf.into() },
                leftovers: leftovers.into(),
                spawn,
            };
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_machine_and_the_world_agree_and_down_is_always_reached(ops in prop::collection::vec(op(), 1..60)) {
        let mut world = World::new(test_cluster());
        world.ask(Request::Start(Targets { deps: true, ..Targets::default() }));
        for op in ops {
            run(&mut world, op);
        }
        world.ask(Request::Shutdown { grace: None, reason: String::new() });
        world.pass(Duration::from_secs(600));
        prop_assert_eq!(&world.exits, &vec![0], "the node does not end");
        prop_assert!(world.open.is_empty(), "calls without an answer: {:?}", world.open);
    }

    #[test]
    fn a_cluster_of_good_processes_comes_up_whatever_happened_before(ops in prop::collection::vec(op(), 1..40)) {
        comes_up(ops)?;
    }
}

#[test]
fn a_cluster_comes_up_after_what_once_kept_it_down() {
    comes_up(vec![
        Op::Crash(2_492_576_593_175_751_342, 1),
        Op::Stop(1, false),
        Op::Crash(2_469_476_171_623_673_618, 1),
        Op::Nature(false, 0, 1, 3),
        Op::Pass(558),
        Op::Crash(527_000_598_696_583_737, 1),
        Op::Crash(4_349_490_901_343_844_020, 1),
        Op::Scale(0, 3),
        Op::Crash(630_838_158_608_275_134, 0),
    ])
    .unwrap();
}

#[test]
fn what_a_scale_down_takes_away_does_not_stay_as_failed() {
    comes_up(vec![
        Op::Nature(true, 0, 0, 3),
        Op::Scale(0, 4),
        Op::Scale(0, 0),
        Op::Stall(0),
        Op::Nature(false, 0, 0, 2),
        Op::Restart(0, false),
        Op::Crash(14_194_671_290_377_698_066, 0),
    ])
    .unwrap();
}

fn comes_up(ops: Vec<Op>) -> Result<(), TestCaseError> {
    let mut world = World::new(test_cluster());
    world.ask(Request::Start(Targets { deps: true, ..Targets::default() }));
    for op in ops {
        run(&mut world, op);
    }
    world.nature = Nature::default();
    world.feed(Input::Reconfigure {
        reason: Reread::Saved,
        cluster: test_cluster(),
        dry_run: false,
    });
    for (name, count) in [("db", 2), ("web", 3)] {
        let change = ScaleTo { service: name.into(), count, relative: false };
        world.ask(Request::Scale(Scale { changes: vec![change] }));
    }
    for target in ["db", "web", "migrate", "edge"] {
        world.ask(Request::Start(Targets {
            targets: vec![target.into()],
            deps: true,
            ..Targets::default()
        }));
    }
    for process in world.processes.values_mut() {
        process.deaf = 0;
        process.paused = false;
    }
    for _ in 0..120 {
        world.pass(Duration::from_millis(2500));
        world.all_say_ready();
        for key in world.keys().into_iter().filter(|key| key.0.service.as_str() == "migrate") {
            world.end(&key, Exit::Code(0));
            if let Some(input) = world.pending.pop() {
                world.feed(input);
            }
        }
    }
    for instance in world.core.instances().filter(|instance| instance.want == Want::Up) {
        let good = instance.ready() || instance.state_word() == "completed";
        prop_assert!(good, "{} is {:?}: {:?}", instance.id, instance.phase, instance.reason);
    }
    Ok(())
}

/// `HILUM_CASES` for a long run; a moment's worth by default.
fn cases() -> u32 {
    std::env::var("HILUM_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(1000)
}
