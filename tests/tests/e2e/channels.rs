//! What a program tells the node, and what the node does about it.

use std::time::{Duration, Instant};

use hilum_tests::{Cluster, LIMIT, suspend, wait_until};

const NOTIFY: &str = r#"
import os, socket, time
address, sock = os.environ["NOTIFY_SOCKET"], socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def tell(text): sock.sendto(text.encode(), address)
"#;

/// A program with a watchdog of 200 ms that may miss so many beats.
fn watchdog(failures: u32, beats: &str) -> Cluster {
    let cluster = Cluster::new(&format!(
        "
instances:
  web:
    command: python3 web.py
    ready: notify
    alive: {{notify: true, interval: 200ms, failures: {failures}}}
    restart: {{delay: 10ms}}
"
    ));
    cluster.write("web.py", &format!("{NOTIFY}{beats}"));
    cluster.ok("up -d --wait");
    cluster
}

#[test]
fn a_watchdog_that_falls_silent_is_restarted() {
    let beats = r#"
assert os.environ["WATCHDOG_USEC"] == "200000", os.environ["WATCHDOG_USEC"]
tell("READY=1\nSTATUS=beating")
for _ in range(1000):
    if os.environ["HILUM_RUN"] == "1" and os.path.exists("silent"): time.sleep(1000)
    tell("WATCHDOG=1"); time.sleep(0.05)
"#;
    let cluster = watchdog(2, beats);
    assert_eq!(cluster.instance("web.1")["info"], "beating");
    cluster.write("silent", "");
    cluster.wait("web.1", "a second run that beats", |web| web["run"] == 2 && web["ready"] == true);
    assert_eq!(cluster.instance("web.1")["exit"]["signal"], "KILL");
}

#[test]
fn a_lost_probe_restarts() {
    let yaml = "
instances:
  web:
    command: sh -c 'touch fine; exec sleep 1000'
    alive: {exec: test -e fine, interval: 50ms, failures: 2}
";
    let cluster = Cluster::up(yaml);
    wait_until(LIMIT, "a start", || cluster.path("fine").exists());
    std::fs::remove_file(cluster.path("fine")).unwrap();
    cluster.wait("web.1", "restarted", |web| web["run"] == 2 && web["state"] == "running");
    assert!(
        cluster.events("web").contains(&"probe-lost".to_owned()),
        "{:?}",
        cluster.events("web")
    );
}

#[test]
fn hooks_run_at_their_points_and_know_why() {
    let yaml = "
instances:
  web:
    command: sh -c 'echo run >> said; echo $HILUM_TOKEN > token.run; sleep 0.3; test -e stay && exec sleep 1000; touch stay; exit 3'
    restart: {delay: 10ms}
    hooks:
      before_start: sh -c 'echo before_start $HILUM_INSTANCE >> said; echo $HILUM_TOKEN > token.hook'
      after_ready: sh -c 'echo after_ready >> said'
      before_stop: sh -c 'echo before_stop >> said'
      after_stop: sh -c 'echo after_stop >> said'
      on_crash: sh -c 'env > crash.env; echo on_crash >> said'
";
    let cluster = Cluster::up(yaml);
    cluster.wait("web.1", "second run", |web| web["run"] == 2 && web["state"] == "running");
    wait_until(LIMIT, "the second run", || cluster.read("said").matches("run\n").count() == 2);
    cluster.down();
    let [hook, run] = ["token.hook", "token.run"].map(|file| cluster.read(file));
    assert!(hook.trim().len() > 8 && hook == run, "{hook} {run}");
    let said = cluster.read("said");
    assert!(said.starts_with("before_start web.1\n"), "{said}");
    for (hook, times) in
        [("before_start", 2), ("after_ready", 2), ("before_stop", 1), ("on_crash", 1)]
    {
        assert_eq!(said.matches(hook).count(), times, "{hook}: {said}");
    }
    assert!(said.ends_with("before_stop\nafter_stop\n"), "{said}");
    assert!(
        cluster
            .read("crash.env")
            .lines()
            .any(|line| line.starts_with("HILUM_") && line.ends_with("=3")),
        "{}",
        cluster.read("crash.env")
    );
}

#[test]
fn a_hook_that_fails_before_the_start_is_a_failed_start() {
    let yaml = "instances: {web: {command: sleep 1000, hooks: {before_start: sh -c 'echo no luck >&2; exit 4'}, restart: {limit: 1, delay: 10ms}}}";
    let cluster = Cluster::new(yaml);
    cluster.run("up -d");
    let web = cluster.wait_state("web.1", "failed");
    assert!(web["reason"].as_str().unwrap().contains("before_start"), "{web}");
}

#[test]
fn signals_are_sent_by_name_and_number() {
    let yaml = "instances: {web: {command: \"sh -c 'trap \\\"echo got USR1\\\" USR1; trap \\\"echo got HUP\\\" HUP; echo up; while :; do sleep 0.05; done'\"}}";
    let cluster = Cluster::up(yaml);
    cluster.wait_log("up");
    cluster.ok("signal USR1 web");
    cluster.wait_log("got USR1");
    cluster.ok("kill -s 1 web.1");
    cluster.wait_log("got HUP");
    cluster.run("signal NOSUCH web").code(2);
}

#[test]
fn descriptors_and_signals_of_the_node_do_not_reach_a_program() {
    let cluster = Cluster::up(
        "instances: {web: {command: sh -c 'ls -l /proc/self/fd > fds; grep ^Sig /proc/self/status > signals; touch done; exec sleep 1000'}}",
    );
    wait_until(LIMIT, "a look", || cluster.path("done").exists());
    // 0, 1, 2, and the folder that `ls` reads.
    let fds = cluster.read("fds");
    assert_eq!(fds.lines().filter(|line| line.contains("->")).count(), 4, "{fds}");
    let signals = cluster.read("signals");
    let set =
        signals.lines().filter(|line| line.starts_with("SigBlk") || line.starts_with("SigIgn"));
    assert_eq!(set.clone().count(), 2, "{signals}");
    for line in set {
        assert!(line.ends_with("0000000000000000"), "{line}");
    }
}

/// The stops are around the timeout of 600 ms, where a deadline may just have passed when the node goes on.
#[test]
fn a_stopped_node_blames_nobody_for_the_time() {
    let beats = r#"
tell("READY=1")
while True: tell("WATCHDOG=1"); time.sleep(0.05)
"#;
    let cluster = watchdog(3, beats);
    let node = u32::try_from(cluster.ps()["node"]["pid"].as_u64().unwrap()).unwrap();
    for stop in [500, 700, 1000, 1500] {
        suspend(node, Duration::from_millis(stop));
        let passed = Instant::now() + Duration::from_millis(900);
        wait_until(LIMIT, "a timeout without a verdict", || Instant::now() > passed);
        let web = cluster.instance("web.1");
        assert_eq!(web["run"], 1, "after {stop} ms: {:?}", cluster.events("web"));
    }
}

#[test]
fn a_hook_that_is_waited_for_is_named_with_its_time() {
    let wait = |name: &str| format!("sh -c 'until test -e {name}; do sleep 0.02; done'");
    let cluster = Cluster::new(&format!(
        "
instances:
  web:
    command: sleep 1000
    hooks:
      before_start: {}
      before_stop: {}
      after_stop: {}
",
        wait("one"),
        wait("two"),
        wait("three")
    ));
    let up = cluster.start(&["up", "-d"]);
    wait_until(LIMIT, "a node", || cluster.run("ps").status.success());
    let asked = |name: &str| {
        let web = cluster.wait("web.1", name, |web| web["hook"]["name"] == name);
        assert!(web["hook"]["uptime"].as_f64().unwrap() < 60.0, "{web}");
        let said = format!("its hook {name} has run for ");
        for verb in ["ps", "why web"] {
            let out = cluster.ok(verb);
            assert!(out.contains(&said), "{verb}: {out}");
        }
        said
    };
    let said = asked("before_start");
    wait_until(LIMIT, "the word of up", || up.err().contains(&said));
    cluster.write("one", "");
    up.finish(LIMIT).code(0);
    cluster.wait("web.1", "its start", |web| web["state"] == "running" && web["hook"].is_null());
    let down = cluster.start(&["down"]);
    for (name, file) in [("before_stop", "two"), ("after_stop", "three")] {
        let said = asked(name);
        wait_until(LIMIT, "the word of down", || down.err().contains(&said));
        cluster.write(file, "");
    }
    down.finish(LIMIT).code(0);
}

#[test]
fn a_hook_before_the_stop_takes_nothing_from_the_time_that_the_program_has() {
    let cluster = Cluster::up(
        "
instances:
  web:
    command: [sh, -c, 'trap \"echo saved > saved; exit\" TERM; echo here; while :; do sleep 0.02; done']
    stop: {timeout: 2s}
    hooks: {before_stop: {command: sleep 2.2, timeout: 20s}}
",
    );
    cluster.wait_log("here");
    cluster.run("stop web").code(0).says("stopped");
    assert_eq!(cluster.read("saved"), "saved\n");
    cluster.down();
}
