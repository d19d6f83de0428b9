//! Crashes, backoff, limits, `on_failure`.

use hilum_tests::{Cluster, LIMIT, signal, wait_until};

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
fn a_cpu_limit_that_is_used_up_warns_first_and_is_named_in_the_crash() {
    let spin = "sh -c 'while :; do :; done'";
    let yaml =
        format!("instances: {{web: {{command: {spin}, restart: never, limits: {{cpu: 1s}}}}}}");
    let cluster = Cluster::up(&yaml);
    cluster.wait_state("web.1", "failed");
    let told = "killed by XCPU (its CPU time came to `limits.cpu`, 1s)";
    wait_until(LIMIT, told, || cluster.run("crash show web").out.contains(told));
}

/// Waits for its end and for what is written of it a moment later.
fn crashed(cluster: &Cluster, id: &str) {
    cluster.wait_state(id, "backoff");
    wait_until(LIMIT, "its dossier", || cluster.run("crash").out.contains(id));
}

#[test]
fn a_dossier_of_the_crash_is_kept() {
    let cluster = Cluster::up(
        "instances: {bad: {command: sh -c 'echo about to die; exit 3', restart: {delay: 60s, max_delay: 60s}}}",
    );
    crashed(&cluster, "bad.1");
    let shown = cluster.ok("crash show bad");
    assert!(shown.contains("about to die") && shown.contains('3'), "{shown}");
}

#[test]
fn a_dossier_says_why_and_can_be_handed_on() {
    let yaml = "
x-once: &once {delay: 60s, max_delay: 60s, min_uptime: 60s}
instances:
  db: {command: sleep 1000}
  late: {command: sleep 1000, ready: {tcp: '127.0.0.1:1', within: 200ms}, restart: *once}
  hand: {command: sleep 1000, restart: *once, depends_on: [db], env: {MODE: test, API_KEY: hush}}
  other: {command: sleep 1000, restart: *once}
  calm: {command: \"sh -c 'trap \\\"exit 0\\\" TERM; while :; do sleep 0.02; done'\", alive: {exec: 'false', interval: 50ms, failures: 1, diagnose: {signal: TERM, pause: 20s}}, restart: *once}
";
    let cluster = Cluster::new(yaml);
    cluster.run("up -d");
    cluster.wait_state("hand.1", "running");
    cluster.ok("signal KILL hand");
    signal("KILL", cluster.pid("other.1"));
    for id in ["late.1", "hand.1", "other.1", "calm.1"] {
        crashed(&cluster, id);
    }
    let title =
        |of: &str| cluster.ok(&format!("crash show {of}")).lines().next().unwrap().to_owned();
    assert!(title("late").contains("(not ready within "), "{}", title("late"));
    assert!(title("hand").ends_with("killed by KILL (the signal was sent by hand)"));
    assert!(title("other").contains("not by the node"), "{}", title("other"));
    let calm = title("calm");
    assert!(calm.contains("exit 0 (does not answer"), "a polite end is a crash, too: {calm}");
    let shown = cluster.ok("crash show hand");
    assert!(shown.contains("API_KEY=********") && shown.contains("MODE=test"), "{shown}");
    assert!(shown.contains("db.1 running") && !shown.contains("hush"), "{shown}");
    cluster.ok("crash export hand -o out.json");
    let dossier = cluster.json("crash show ./out.json --json");
    assert_eq!(dossier["instance"], "hand.1");
    assert!(dossier["timeline"].as_array().unwrap().len() > 5, "all services around it");
    // Elsewhere, without a project.
    cluster.ok("down");
    std::fs::remove_file(cluster.path("hilum.yml")).unwrap();
    assert_eq!(cluster.ok("crash show ./out.json").lines().next(), shown.lines().next());
    cluster.write("no.json", "{}");
    cluster.run("crash show ./no.json").code(2);
    cluster.configure(yaml);
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
