//! Many at once.

use std::time::{Duration, Instant};

use hilum_tests::{Cluster, LIMIT, signal, wait_until};

#[test]
fn three_hundred_come_and_go() {
    let cluster = Cluster::new("instances: {web: {command: sleep 1000, numprocesses: 300}}");
    cluster.ok("up -d --wait");
    let ps = cluster.ps();
    let running = ps["instances"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|instance| instance["state"] == "running");
    assert_eq!(running.count(), 300);
    let began = Instant::now();
    cluster.down();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[test]
fn no_restart_is_lost_when_all_are_killed_at_once() {
    let cluster = Cluster::up(
        "instances: {web: {command: sleep 1000, numprocesses: 40, restart: {min_uptime: 0s}}}",
    );
    let pids = |cluster: &Cluster| -> Vec<u32> {
        let ps = cluster.ps();
        let pids = ps["instances"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|instance| instance["pid"].as_u64());
        pids.map(|pid| u32::try_from(pid).unwrap()).collect()
    };
    for round in 1..=3 {
        for pid in pids(&cluster) {
            signal("KILL", pid);
        }
        wait_until(LIMIT, "all run again", || {
            let ps = cluster.ps();
            let mut all = ps["instances"].as_array().unwrap().iter();
            all.all(|instance| instance["restarts"] == round && instance["state"] == "running")
        });
    }
}

#[test]
fn crashing_neighbours_do_not_slow_the_node() {
    let yaml = "
instances:
  bad: {command: 'false', numprocesses: 30, restart: {delay: 10ms, max_delay: 50ms}}
  good: {command: sleep 1000, numprocesses: 3}
";
    let cluster = Cluster::new(yaml);
    cluster.run("up -d");
    cluster.wait("bad.30", "crashes", |bad| bad["restarts"].as_u64() > Some(3));
    let began = Instant::now();
    cluster.ok("restart good");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(cluster.instance("good.1")["restarts"], 0);
    cluster.down();
}

#[test]
fn commands_at_once_are_all_answered() {
    let cluster = Cluster::up(
        "instances: {web: {command: sleep 1000, numprocesses: 4}, db: {command: sleep 1000}}",
    );
    let words = [
        vec!["restart", "web.1"],
        vec!["restart", "web.1"],
        vec!["stop", "web.2"],
        vec!["start", "web.2"],
        vec!["scale", "web=6"],
        vec!["scale", "web=5"],
        vec!["reload"],
        vec!["ps"],
        vec!["restart", "db"],
    ];
    let all: Vec<_> = words.iter().map(|words| cluster.start(words)).collect();
    for one in all {
        let outcome = one.finish(LIMIT);
        // A later order may have taken an earlier one's place; that is said, and is no success.
        assert!(matches!(outcome.status.code(), Some(0 | 1)), "{outcome}");
    }
    cluster.down();
}
