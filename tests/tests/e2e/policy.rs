//! How what runs is looked after.

use std::time::{Duration, Instant};

use hilum_tests::{Cluster, LIMIT, wait_until};

#[test]
fn the_stop_is_as_written() {
    let yaml = "
instances:
  int: {command: \"sh -c 'trap \\\"echo got INT; exit 0\\\" INT; touch up.int; while :; do sleep 0.02; done'\", stop: {signal: INT}}
  exec: {command: \"sh -c 'touch up.exec; until test -e bye; do sleep 0.02; done; echo was asked'\", stop: {exec: touch bye}}
  deaf: {command: \"sh -c 'trap : TERM; touch up.deaf; while :; do sleep 0.02; done'\", stop: {timeout: 300ms}}
";
    let cluster = Cluster::up(yaml);
    wait_until(LIMIT, "all", || {
        ["int", "exec", "deaf"].iter().all(|name| cluster.path(&format!("up.{name}")).exists())
    });
    let began = Instant::now();
    cluster.ok("stop int exec deaf");
    assert!(
        began.elapsed() >= Duration::from_millis(300) && began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    assert!(cluster.logs("int").contains("got INT") && cluster.logs("exec").contains("was asked"));
    assert_eq!(cluster.instance("deaf.1")["exit"]["signal"], "KILL");
}

#[test]
fn all_are_stopped_at_once() {
    let cluster = Cluster::up(
        "instances: {web: {command: \"sh -c 'trap \\\"sleep 0.5; exit 0\\\" TERM; touch up.$HILUM_INDEX; while :; do sleep 0.02; done'\", numprocesses: 8}}",
    );
    wait_until(LIMIT, "all", || (1..=8).all(|index| cluster.path(&format!("up.{index}")).exists()));
    let began = Instant::now();
    cluster.down();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn a_restart_of_a_dependency_is_passed_on_where_asked_for() {
    let yaml = "
instances:
  db: {command: sleep 1000, restart: {min_uptime: 0s}}
  follows: {command: sleep 1000, depends_on: {db: {on_restart: restart}}}
  stays: {command: sleep 1000, depends_on: [db]}
";
    let cluster = Cluster::up(yaml);
    let stays = cluster.pid("stays.1");
    cluster.ok("restart db");
    cluster.wait("follows.1", "restarted", |follows| {
        follows["run"] == 2 && follows["state"] == "running"
    });
    assert_eq!(cluster.pid("stays.1"), stays);
}

#[test]
fn a_failure_can_stop_the_dependents() {
    let yaml = "
instances:
  db: {command: sh -c 'sleep 0.3; exit 1', restart: never, on_failure: stop_dependents}
  web: {command: sleep 1000, depends_on: [db]}
  other: {command: sleep 1000}
";
    let cluster = Cluster::up(yaml);
    cluster.wait_state("db.1", "failed");
    cluster.wait("web.1", "stopped", |web| web["pid"].is_null());
    assert_eq!(cluster.state("other.1"), "running");
}

#[test]
fn what_is_too_old_is_recycled() {
    let cluster = Cluster::up("instances: {web: {command: sleep 1000, max_age: 500ms}}");
    cluster.wait("web.1", "a second run", |web| web["run"].as_u64().unwrap() >= 2);
    assert!(cluster.events("web").contains(&"recycled".to_owned()));
    assert_eq!(
        cluster.instance("web.1")["restarts"].as_u64(),
        cluster.instance("web.1")["restarts"].as_u64()
    );
}

#[test]
fn what_takes_too_much_memory_is_restarted() {
    let yaml = "
node: {stats_interval: 200ms}
instances:
  hog: {command: [python3, -c, \"import time,os\\nx = bytearray(80_000_000) if os.environ['HILUM_RUN'] == '1' else 0\\ntime.sleep(1000)\"], limits: {memory: 50MiB}}
";
    let cluster = Cluster::up(yaml);
    cluster.wait("hog.1", "a second run", |hog| hog["run"] == 2 && hog["state"] == "running");
    assert!(
        cluster.events("hog").contains(&"over-memory".to_owned()),
        "{:?}",
        cluster.events("hog")
    );
}

#[test]
fn starts_are_staggered_where_asked_for() {
    let cluster = Cluster::new(
        "instances: {web: {command: sleep 1000, numprocesses: 3, start_stagger: 300ms}}",
    );
    let began = Instant::now();
    cluster.ok("up -d");
    assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
}

#[test]
fn a_node_in_the_foreground_ends_with_its_jobs() {
    let cluster = Cluster::new(
        "instances: {one: {kind: job, command: echo one}, two: {kind: job, command: echo two, depends_on: [one]}}",
    );
    let up = cluster.run("up").code(0);
    assert!(up.out.find("echo") < up.out.find("two") && up.out.contains("two.1 | two"), "{up}");
    cluster.assert_empty();
}

#[test]
fn abort_on_failure_ends_the_cluster() {
    let cluster = Cluster::new(
        "instances: {bad: {command: sh -c 'sleep 0.2; exit 3', restart: never}, good: {command: sleep 1000}}",
    );
    cluster.run("up --abort-on-failure").code(1);
    cluster.assert_empty();
}

#[test]
fn a_colored_line_may_be_the_one_that_says_that_it_is_ready() {
    let cluster =
        Cluster::new("instances: {web: {command: sh say.sh, ready: {log: 'listening on \\d+'}}}");
    cluster.write("say.sh", "printf '\\033[32mlistening\\033[0m on 80\\n'; exec sleep 1000");
    cluster.ok("up -d --wait");
    assert_eq!(cluster.instance("web.1")["ready"], true);
}

#[test]
fn a_crash_hook_that_hangs_does_not_pile_up() {
    let cluster = Cluster::new(
        "instances: {bad: {command: sh -c 'exit 1', hooks: {on_crash: sh hook.sh}, restart: {delay: 10ms, max_delay: 10ms}}}",
    );
    cluster.write("hook.sh", "echo told >> told; exec sleep 1000");
    cluster.run("up -d");
    let left_out = || cluster.logs("bad").matches("on_crash is left out").count();
    wait_until(LIMIT, "crashes whose hook is left out", || left_out() > 3);
    assert_eq!(cluster.read("told"), "told\n");
    cluster.ok("down");
    cluster.assert_empty();
}
