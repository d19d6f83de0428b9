//! `up` beside others: what ends its cluster, what runs already, who was a moment faster.

use std::process::Stdio;
use std::time::{Duration, Instant};

use hilum_tests::{Cluster, LIMIT, signal, wait_until};

fn node(cluster: &Cluster) -> u32 {
    cluster.ps()["node"]["pid"].as_u64().expect("a pid") as u32
}

fn parent(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.and_then(|line| line.trim().parse().ok()).expect("its parent")
}

#[test]
fn an_up_that_waits_fails_when_its_cluster_is_ended_meanwhile() {
    type End = fn(&Cluster);
    let yaml = "instances: {slow: {command: sleep 1000, ready: {exec: 'false', within: 10m}}}";
    let ends: [(&str, End); 4] = [
        ("hilum down", |cluster| drop(cluster.run("down").code(0))),
        ("signal TERM", |cluster| signal("TERM", node(cluster))),
        ("keeper", |cluster| signal("KILL", parent(node(cluster)))),
        ("ended", |cluster| signal("KILL", node(cluster))),
    ];
    for (why, end) in ends {
        let cluster = Cluster::new(yaml);
        let up = cluster.start(&["up", "-d", "--wait"]);
        wait_until(LIMIT, "a node", || cluster.run("ps").status.success());
        cluster.wait_state("slow.1", "starting");
        end(&cluster);
        let up = up.finish(LIMIT).code(1).says(why);
        assert!(up.err.contains("error: the node ") && up.err.contains("ended"), "{}", up.err);
        cluster.assert_empty_within(LIMIT);
    }
}

#[test]
fn a_cluster_that_ends_of_its_own_accord_while_it_is_waited_for_is_done() {
    let yaml = "
node: {on_all_exited: exit}
instances:
  job: {kind: job, command: \"sh -c 'while [ ! -e go ]; do sleep 0.05; done'\"}
";
    let cluster = Cluster::new(yaml);
    let up = cluster.start(&["up", "-d", "--wait"]);
    wait_until(LIMIT, "a node", || cluster.run("ps").status.success());
    cluster.write("go", "");
    up.finish(LIMIT).code(0);
}

#[test]
fn up_in_the_foreground_fails_when_its_keeper_is_killed() {
    let cluster = Cluster::new("instances: {web: {command: sleep 1000}}");
    let up = cluster.start(&["up"]);
    up.wait_out("started");
    signal("KILL", parent(node(&cluster)));
    up.finish(LIMIT).code(1).says("its keeper").says("was killed");
    cluster.assert_empty_within(LIMIT);
}

#[test]
fn up_waits_for_a_node_that_has_the_lock_and_not_written_who_it_is() {
    let cluster = Cluster::up("instances: {web: {command: sleep 1000}}");
    let lock = ".hilum/hilum.yml/lock";
    let pid = cluster.read(lock);
    // as the lock of a killed node leaves it, and as a new node has it for a moment
    for text in [&format!("{}\n", i32::MAX), ""] {
        cluster.write(lock, text);
        let up = cluster.start(&["up"]);
        let begun = Instant::now();
        wait_until(LIMIT, "looks at the lock", || begun.elapsed() > Duration::from_millis(300));
        cluster.write(lock, &pid);
        up.wait_out("following its logs");
        signal("INT", up.pid());
        let up = up.finish(LIMIT).code(0);
        assert!(
            up.err.contains(&format!("a node (pid {}) runs already", pid.trim())),
            "{}",
            up.err
        );
    }
}

#[test]
fn up_without_targets_brings_up_all_that_an_earlier_one_left_out_and_what_was_stopped() {
    let yaml = "
instances:
  a: {command: sleep 1000}
  b: {command: sleep 1000}
  c: {command: sleep 1000, depends_on: [b]}
  by_hand: {command: sleep 1000, autostart: false}
  job: {kind: job, command: sh -c 'echo x >> job'}
";
    let cluster = Cluster::new(yaml);
    cluster.ok("up -d --wait a");
    assert_eq!(cluster.state("b.1"), "stopped");
    let run =
        cluster.run("up -d --wait").code(0).says("starting what did not run: b.1, c.1, job.1");
    assert!(!run.err.contains("a.1") && !run.err.contains("by_hand"), "{}", run.err);
    let pids = [cluster.pid("a.1"), cluster.pid("b.1")];
    cluster.ok("stop c");
    cluster.run("up -d --wait").code(0).says("starting what did not run: c.1");
    cluster.wait_state("c.1", "running");
    assert_eq!([cluster.pid("a.1"), cluster.pid("b.1")], pids, "what runs is left alone");
    assert_eq!(cluster.state("by_hand.1"), "stopped");
    assert_eq!(cluster.read("job"), "x\n", "a job that is done is not done again");
}

#[test]
fn up_restarts_what_changed_also_where_dependents_end_first() {
    let yaml = |number: u32| {
        format!(
            "
node: {{watch_config: false}}
instances:
  db: {{command: sleep 100{number}}}
  web: {{command: sleep 100{number}, depends_on: [db]}}
"
        )
    };
    let cluster = Cluster::up(&yaml(0));
    cluster.configure(&yaml(1));
    cluster.ok("up -d --wait");
    for id in ["db.1", "web.1"] {
        cluster.wait(id, "the new command", |one| one["run"] == 2 && one["ready"] == true);
    }
}

#[test]
fn with_json_stderr_has_nothing_but_objects() {
    let cluster = Cluster::new("instances: {web: {command: sleep 1000}}");
    for words in ["up -d --json", "up -d --json", "--profile nosuch up -d --json", "down --json"] {
        let done = cluster.run(words).code(0);
        for line in done.err.lines() {
            serde_json::from_str::<serde_json::Value>(line)
                .unwrap_or_else(|_| panic!("{}", done.err));
        }
        assert_eq!(done.err.contains("nosuch"), words.contains("nosuch"), "{}", done.err);
    }
}

#[test]
fn a_run_folder_that_is_too_long_is_found_by_check() {
    let long = "x".repeat(100);
    let yaml = format!("node: {{run_dir: {long}}}\ninstances: {{web: {{command: sleep 1000}}}}");
    Cluster::new(&yaml).run("check").code(2).says("node.run_dir").says("107 is the most");
}

#[test]
fn whoever_is_not_read_ends_when_it_is_told_to_and_its_node_with_it() {
    let cluster = Cluster::new(
        "instances: {web: {command: sh -c 'yes no line of interest | head -c 1000000; echo the last; exec sleep 1000'}}",
    );
    let mut up = cluster.command(&["up"]);
    let mut up = up.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // By then it has more to write than a pipe holds.
    wait_until(LIMIT, "the log", || cluster.run("logs web -n 1").out.contains("the last"));
    signal("TERM", up.id());
    wait_until(LIMIT, "its end", || up.try_wait().unwrap().is_some());
    cluster.assert_empty();
}

#[test]
fn whoever_is_not_read_from_its_end_on_ends_all_the_same() {
    let talk = "trap 'yes no line of interest | head -c 1000000; exit' TERM; echo here; while :; do sleep 0.1; done";
    let cluster = Cluster::new(&format!("instances: {{web: {{command: [sh, -c, {talk:?}]}}}}"));
    let mut up = cluster.command(&["up"]);
    let mut up = up.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until(LIMIT, "its trap", || cluster.run("logs web").out.contains("here"));
    // It takes the signal, and then it has more to write than a pipe holds.
    signal("TERM", up.id());
    wait_until(2 * LIMIT, "its end", || up.try_wait().unwrap().is_some());
    cluster.assert_empty();
}

#[test]
fn a_change_that_was_rolled_back_is_no_success() {
    let yaml = |command: &str| {
        let rolling = "rolling: {min_ready: 300ms, on_failure: rollback}";
        format!("instances: {{web: {{command: {command}, numprocesses: 2, {rolling}}}}}")
    };
    let cluster = Cluster::up(&yaml("sleep 1000"));
    cluster.ok("up -d --wait");
    cluster.configure(&format!("{}\nnode: {{watch_config: false}}\n", yaml("sleep 0.01")));
    cluster.run("up -d --wait").code(1).says("`web.1` failed").says("`web.2` kept");
    cluster.wait_state("web.1", "running");
    cluster.down();
}
