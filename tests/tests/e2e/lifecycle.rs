//! Start, restart, stop, down.

use hilum_tests::{Cluster, LIMIT, alive, signal, wait_until};

const TWO: &str = "
instances:
  web: {command: sleep 1000, numprocesses: 2}
  db: {command: sleep 1000}
";

#[test]
fn a_cluster_comes_up_is_shown_and_goes_down() {
    let cluster = Cluster::new(TWO);
    cluster.run("up -d").code(0);
    let ps = cluster.ps();
    let names: Vec<_> = ps["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["instance"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["db.1", "web.1", "web.2"]);
    for instance in ps["instances"].as_array().unwrap() {
        assert_eq!(
            (&instance["state"], &instance["ready"], &instance["run"]),
            (&"running".into(), &true.into(), &1.into())
        );
        assert!(alive(u32::try_from(instance["pid"].as_u64().unwrap()).unwrap()));
    }
    assert!(cluster.ok("ps web").lines().count() == 3);
    cluster.down().says("nothing is left");
    cluster.run("ps").code(3);
    cluster.run("down").code(0);
}

#[test]
fn what_is_waited_for_is_told_in_plain_lines_where_there_is_no_terminal() {
    let cluster = Cluster::new(
        "
instances:
  api: {command: sleep 1000, depends_on: [db]}
  db: {command: sleep 1000, ready: {file: db-is-up, interval: 100ms}}
",
    );
    let up = cluster.start(&["up", "-d", "--wait"]);
    let file = cluster.path("db-is-up");
    let lacks = format!(
        "waiting for: db.1 (starting: file {}: not there), api.1 (waiting)\n",
        file.display()
    );
    up.wait_out(&lacks);
    cluster.write("db-is-up", "");
    up.finish(LIMIT).code(0);
    cluster.run("-q restart db").code(0);
}

#[test]
fn stop_start_and_restart_touch_only_what_was_named() {
    let cluster = Cluster::up(TWO);
    let (one, two, db) = (cluster.pid("web.1"), cluster.pid("web.2"), cluster.pid("db.1"));
    cluster.ok("stop web.2");
    assert!(!alive(two));
    assert_eq!(cluster.state("web.2"), "stopped");
    cluster.ok("start web");
    assert_eq!(cluster.pid("web.1"), one);
    assert_eq!(cluster.instance("web.2")["run"], 2);
    cluster.ok("restart web.1");
    assert!(!alive(one));
    let restarted = cluster.instance("web.1");
    assert_eq!(
        (&restarted["state"], &restarted["restarts"]),
        (&"running".into(), &0.into()),
        "a restart by hand is none of ours"
    );
    cluster.ok("stop web.1");
    cluster.ok("restart web.1");
    assert_eq!(cluster.state("web.1"), "running", "restart starts what was stopped");
    assert_eq!(cluster.pid("db.1"), db);
}

#[test]
fn what_was_stopped_by_hand_stays_stopped_through_a_reload_and_another_up() {
    let cluster = Cluster::up(TWO);
    cluster.ok("stop db");
    cluster.ok("reload");
    assert_eq!(cluster.state("db.1"), "stopped");
}

#[test]
fn up_in_the_foreground_streams_and_ends_by_ctrl_c() {
    let cluster =
        Cluster::new("instances: {web: {command: sh -c 'echo here I am; exec sleep 1000'}}");
    let up = cluster.start(&["up"]);
    up.wait_out("web.1 | here I am");
    signal("INT", up.pid());
    up.finish(LIMIT).code(0);
    cluster.assert_empty();
}

#[test]
fn a_closed_terminal_is_a_stop() {
    let cluster = Cluster::new("instances: {web: {command: sleep 1000}}");
    let up = cluster.start(&["up"]);
    up.wait_out("started");
    signal("HUP", up.pid());
    up.finish(LIMIT);
    cluster.assert_empty();
}

#[test]
fn up_again_applies_the_difference() {
    let cluster =
        Cluster::up("node: {watch_config: false}\ninstances: {web: {command: sleep 1000}}");
    let pid = cluster.pid("web.1");
    cluster.configure("node: {watch_config: false}\ninstances: {web: {command: sleep 1000, numprocesses: 2}, new: {command: sleep 1000}}");
    cluster.ok("up -d");
    assert_eq!(cluster.pid("web.1"), pid);
    assert_eq!(
        (cluster.state("web.2"), cluster.state("new.1")),
        ("running".into(), "running".into())
    );
}

#[test]
fn up_beside_a_node_that_stops_starts_a_new_one() {
    let cluster = Cluster::up(
        "instances: {slow: {command: \"sh -c 'trap \\\"sleep 1; exit 0\\\" TERM; touch up; while :; do sleep 0.02; done'\"}}",
    );
    hilum_tests::wait_until(LIMIT, "a start", || cluster.path("up").exists());
    let before = cluster.ps()["node"]["pid"].clone();
    let down = cluster.start(&["down"]);
    hilum_tests::wait_until(LIMIT, "a stop", || cluster.state("slow.1") == "stopping");
    cluster.ok("up -d");
    down.finish(LIMIT).code(0);
    assert_eq!(cluster.state("slow.1"), "running");
    assert_ne!(cluster.ps()["node"]["pid"], before);
}

#[test]
fn two_ups_at_once_make_one_node() {
    let cluster = Cluster::new(TWO);
    let both = [cluster.start(&["up", "-d"]), cluster.start(&["up", "-d"])];
    for up in both {
        up.finish(LIMIT).code(0);
    }
    // The node, its keeper, three instances.
    assert_eq!(cluster.processes().len(), 5, "{:#?}", cluster.processes());
}

#[test]
fn a_program_that_cannot_be_executed_says_why() {
    let cluster = Cluster::new(
        "instances:\n  bad: {command: ./no-such-program}\n  good: {command: sleep 1000}\n",
    );
    cluster.run("up -d").code(1).says("no-such-program").says("not found (ENOENT)");
    assert_eq!(cluster.state("good.1"), "running");
    let bad = cluster.instance("bad.1");
    assert_eq!(bad["state"], "failed");
    assert!(bad["reason"].as_str().unwrap().contains("ENOENT"), "{bad}");
}

#[test]
fn a_service_that_ends_at_once_with_success_is_waited_for_in_vain() {
    let cluster = Cluster::new("instances: {web: {command: 'true', restart: {delay: 50ms}}}");
    let up = cluster.run("up -d --wait --timeout 30s");
    // Without a probe it is ready while it runs: who looks in that moment has waited enough.
    if !up.status.success() {
        let up = up.code(1);
        assert!(up.err.contains("too soon") && up.err.contains("exit 0"), "{}", up.err);
    }
}

#[test]
fn a_job_is_ready_when_it_is_completed() {
    let yaml = "
instances:
  migrate:
    kind: job
    command: sh -c 'while [ ! -e go ]; do sleep 0.05; done; touch done'
  nightly: {kind: job, command: 'true', schedule: {every: 1h}}
  web: {command: sleep 1000}
";
    let cluster = Cluster::new(yaml);
    let up = cluster.start(&["up", "-d", "--wait"]);
    wait_until(LIMIT, "a node", || cluster.run("ps").status.success());
    cluster.wait_state("migrate.1", "running");
    cluster.run("wait migrate --for ready --timeout 300ms").code(4);
    cluster.ok("wait migrate --for running --timeout 10s");
    cluster.write("go", "");
    let up = up.finish(LIMIT).code(0);
    assert!(cluster.path("done").exists(), "{}", up.err);
    assert!(up.err.contains("completed"), "{}", up.err);
    cluster.ok("wait migrate --for ready --timeout 10s");
}

#[test]
fn a_job_that_failed_for_good_fails_who_waits_for_it() {
    let yaml = "instances: {job: {kind: job, command: sh -c 'sleep 0.3; exit 3', restart: never}}";
    let cluster = Cluster::new(yaml);
    let up = cluster.run("up -d --wait --timeout 30s").code(1);
    assert!(up.err.contains("exit 3"), "{}", up.err);
    cluster.run("wait job --for ready --timeout 30s").code(1);
}

#[test]
fn abort_on_failure_holds_for_a_node_that_runs_already() {
    let yaml = "
instances:
  web: {command: sleep 1000}
  test:
    command: sh -c 'while [ ! -e go ]; do sleep 0.05; done; exit 3'
    kind: job
    restart: never
    autostart: false
";
    let cluster = Cluster::up(yaml);
    let up = cluster.start(&["up", "--abort-on-failure", "test", "web"]);
    cluster.wait_state("test.1", "running");
    up.wait_out("following its logs");
    cluster.write("go", "");
    let up = up.finish(LIMIT).code(1);
    assert!(up.err.contains("test.1 failed") && up.err.contains("code 3"), "{}", up.err);
    cluster.assert_empty();
}

#[test]
fn abort_on_failure_ends_a_cluster_in_which_something_has_failed_already() {
    let yaml = "instances: {web: {command: sleep 1000}, bad: {command: 'false', restart: never}}";
    let cluster = Cluster::new(yaml);
    cluster.run("up -d");
    cluster.wait_state("bad.1", "failed");
    let up = cluster.run("up --abort-on-failure").code(1);
    assert!(up.err.contains("bad.1 failed"), "{}", up.err);
    cluster.assert_empty();
}

#[test]
fn down_says_whom_only_kill_ended() {
    let cluster = Cluster::new(
        "
instances:
  deaf: {command: [sh, -c, 'trap \"\" TERM; echo here; while :; do sleep 0.02; done'], stop: {timeout: 100ms}}
  good: {command: sleep 1000}
",
    );
    cluster.ok("up -d");
    cluster.wait_log("deaf.1 | here");
    cluster.run("down").code(0).says("stopped 2 instances, deaf.1 by KILL and the node");
    cluster.ok("up -d");
    wait_until(LIMIT, "its trap", || cluster.logs("deaf.1").matches("here").count() == 2);
    let down = cluster.json("down --json");
    let results: Vec<_> =
        down["changed"].as_array().unwrap().iter().map(|one| &one["result"]).collect();
    assert_eq!(results, ["killed", "stopped"], "{down}");
    cluster.assert_empty();
}
