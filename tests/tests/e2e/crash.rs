//! Crashes, backoff, limits, `on_failure`.

use hilum_tests::{Cluster, signal};

#[test]
fn a_crash_is_restarted_and_counted() {
    let cluster = Cluster::up("instances: {web: {command: sleep 1000, restart: {min_uptime: 0s}}}");
    let pid = cluster.pid("web.1");
    signal("KILL", pid);
    let again =
        cluster.wait("web.1", "restarted", |web| web["restarts"] == 1 && web["state"] == "running");
    assert_eq!(again["exit"]["signal"], "KILL");
    assert_eq!(again["run"], 2);
    assert_ne!(again["pid"], pid);
}

#[test]
fn a_crash_loop_backs_off_and_why_tells() {
    let cluster = Cluster::up(
        "instances: {bad: {command: sh -c 'echo last words; exit 7', restart: {delay: 60s, max_delay: 60s}}}",
    );
    let bad = cluster.wait_state("bad.1", "backoff");
    assert_eq!(bad["exit"]["code"], 7);
    assert!(bad["next_at"].as_f64().unwrap() > 10.0, "{bad}");
    let why = cluster.ok("why bad");
    assert!(why.contains("exit 7") || why.contains("code 7"), "{why}");
    assert!(why.contains("last words"), "{why}");
}

#[test]
fn a_limit_ends_in_failed_and_the_others_live() {
    let yaml = "
instances:
  bad: {command: sh -c 'exit 1', restart: {delay: 10ms, limit: 2}}
  good: {command: sleep 1000}
";
    let cluster = Cluster::new(yaml);
    cluster.run("up -d");
    let bad = cluster.wait_state("bad.1", "failed");
    assert_eq!((&bad["restarts"], &bad["run"]), (&2.into(), &3.into()));
    assert_eq!(cluster.state("good.1"), "running");
}

#[test]
fn on_failure_shutdown_ends_the_cluster_and_says_the_code() {
    let yaml = "
instances:
  bad: {command: sh -c 'sleep 0.2; exit 9', restart: never, on_failure: shutdown}
  good: {command: sleep 1000}
";
    let cluster = Cluster::new(yaml);
    cluster.run("up").code(1).says("9");
    cluster.assert_empty();
}

#[test]
fn a_dossier_of_the_crash_is_kept() {
    let cluster = Cluster::up(
        "instances: {bad: {command: sh -c 'echo about to die; exit 3', restart: {delay: 60s, max_delay: 60s}}}",
    );
    cluster.wait_state("bad.1", "backoff");
    let shown = cluster.ok("crash show bad");
    assert!(shown.contains("about to die") && shown.contains('3'), "{shown}");
}

#[test]
fn jobs_complete_and_schedules_repeat() {
    let yaml = "
node: {on_all_exited: keep}
instances:
  once: {kind: job, command: echo done}
  often: {kind: job, command: echo tick, schedule: {every: 300ms}}
  flaky: {kind: job, command: \"sh -c 'test -e ok || { touch ok; exit 1; }'\", restart: {delay: 10ms}}
";
    let cluster = Cluster::up(yaml);
    let once = cluster.wait_state("once.1", "completed");
    assert_eq!(once["exit"]["code"], 0);
    let flaky = cluster.wait_state("flaky.1", "completed");
    assert_eq!(flaky["restarts"], 1);
    cluster.wait("often.1", "several runs", |often| often["run"].as_u64().unwrap_or(0) >= 3);
    assert_eq!(cluster.instance("once.1")["run"], 1);
}
