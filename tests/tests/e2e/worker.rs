//! Workers on our library, over the real channels.

use std::io::{Read as _, Write as _};

use hilum_tests::{Cluster, LIMIT, alive, demo, signal, suspend, wait_until, worker};
use serde_json::Value;

/// One worker of a kind, with quick heartbeats.
fn cluster(what: &str, more: &str) -> Cluster {
    let worker = worker();
    Cluster::new(&format!(
        "node: {{heartbeat: {{interval: 100ms, timeout: 600ms}}}}
instances:
  web: {{command: {worker} {what}, ready: heartbeat, restart: {{delay: 10ms}}{more}}}
"
    ))
}

#[test]
fn a_worker_is_ready_when_it_says_so_and_beats() {
    let cluster = cluster("plain", "");
    cluster.ok("up -d --wait");
    let web = cluster.wait("web.1", "a beat", |web| web["heartbeat_age"].is_number());
    assert_eq!((&web["state"], &web["info"]), (&"running".into(), &"as plain".into()));
    cluster.down();
}

#[test]
fn a_worker_that_hangs_is_found_out_and_restarted() {
    let cluster = cluster("hang", "");
    cluster.ok("up -d --wait");
    let pid = cluster.pid("web.1");
    cluster.write("hang", "");
    cluster.wait("web.1", "a second run", |web| web["run"] == 2 && web["ready"] == true);
    assert!(!alive(pid));
    assert!(
        cluster.events("web").contains(&"heartbeat-lost".to_owned()),
        "{:?}",
        cluster.events("web")
    );
    assert!(cluster.logs("web").contains("about to hang"));
}

#[test]
fn a_worker_that_is_stopped_by_a_signal_is_paused_and_not_blamed() {
    let cluster = cluster("plain", "");
    cluster.ok("up -d --wait");
    let pid = cluster.pid("web.1");
    signal("STOP", pid);
    cluster.wait("web.1", "paused", |web| web["flags"] == serde_json::json!(["paused"]));
    wait_until(LIMIT, "the event", || cluster.events("web").contains(&"paused".to_owned()));
    signal("CONT", pid);
    wait_until(LIMIT, "it goes on", || cluster.events("web").contains(&"resumed".to_owned()));
    let web = cluster.instance("web.1");
    assert_eq!((&web["pid"], &web["run"]), (&pid.into(), &1.into()));
}

#[test]
fn a_node_that_was_stopped_blames_nobody() {
    let cluster = cluster("plain", "");
    cluster.ok("up -d --wait");
    let pid = cluster.pid("web.1");
    let node = u32::try_from(cluster.ps()["node"]["pid"].as_u64().unwrap()).unwrap();
    suspend(node, 2 * std::time::Duration::from_millis(600)); // twice the heartbeat timeout
    // Two beats after it: the first may have lain in the socket.
    for _ in 0..2 {
        let age = |web: &serde_json::Value| web["heartbeat_age"].as_f64().unwrap_or(f64::MAX);
        let before = age(&cluster.instance("web.1"));
        cluster.wait("web.1", "another beat", |web| age(web) < before);
    }
    let web = cluster.instance("web.1");
    assert_eq!(
        (&web["pid"], &web["run"], &web["state"]),
        (&pid.into(), &1.into(), &"running".into())
    );
}

/// The numbers of the records that it wrote before it left, in the order of the timeline.
fn numbers(cluster: &Cluster, instance: &str) -> Vec<u64> {
    let all = cluster.logs(&format!("{instance} --stream log --json"));
    let lines = all.lines().map(|line| serde_json::from_str::<Value>(line).expect("is JSON"));
    lines.filter_map(|line| line["fields"]["n"].as_u64()).collect()
}

/// Workers that are about to leave with more records than a socket's buffer takes, and their node, which stands still: the pids.
fn leaving(what: &str, count: usize) -> (Cluster, Vec<u32>, u32) {
    let worker = worker();
    let cluster = Cluster::new(&format!(
        "node: {{heartbeat: {{interval: 100ms, timeout: 600ms}}}}
instances: {{web: {{command: {worker} {what}, ready: heartbeat, restart: never, numprocesses: {count}, stop: {{timeout: 60s}}}}}}"
    ));
    cluster.ok("up -d --wait");
    let pids: Vec<u32> = (1..=count).map(|index| cluster.pid(&format!("web.{index}"))).collect();
    let node = cluster.ps()["node"]["pid"].as_u64().expect("a node runs");
    let node = u32::try_from(node).expect("is a pid");
    signal("STOP", node);
    cluster.write("leave", "");
    let written = |pid: &u32| cluster.path(&format!("written.{pid}")).exists();
    wait_until(LIMIT, "all to be written", || pids.iter().all(written));
    // None may take the silence for a reason to give up: who does is not there to say so.
    let patient = |pid: &u32| cluster.path(&format!("patient.{pid}")).exists();
    wait_until(LIMIT, "all to have waited on", || pids.iter().all(patient));
    (cluster, pids, node)
}

#[test]
fn workers_that_leave_while_their_node_stands_still_lose_no_record() {
    let (cluster, pids, node) = leaving("leave", 8);
    // They end as soon as the kernel has the last of them, and the node has nothing else to wait for then.
    signal("TERM", node);
    signal("CONT", node);
    wait_until(LIMIT, "their end", || !pids.iter().any(|pid| alive(*pid)) && !alive(node));
    for index in 1..=8 {
        let numbers = numbers(&cluster, &format!("web.{index}"));
        assert!(numbers.iter().copied().eq(0..5000), "{} of web.{index}", numbers.len());
    }
}

#[test]
fn a_worker_that_panics_while_its_node_stands_still_loses_no_record() {
    let (cluster, pids, node) = leaving("fall", 1);
    signal("CONT", node);
    wait_until(LIMIT, "its end", || !alive(pids[0]));
    wait_until(LIMIT, "the panic", || cluster.logs("web --stream log").contains("planned"));
    let numbers = numbers(&cluster, "web.1");
    assert!(numbers.iter().copied().eq(0..5000), "{} records", numbers.len());
    cluster.down();
}

#[test]
fn a_worker_has_the_time_to_drain() {
    let cluster = cluster("drain", "");
    cluster.ok("up -d --wait");
    cluster.ok("stop web");
    assert!(cluster.path("drained").exists());
    let web = cluster.instance("web.1");
    assert_eq!((&web["state"], &web["exit"]["code"]), (&"stopped".into(), &0.into()));
    assert!(cluster.logs("web").contains("draining:"));
}

#[test]
fn structured_records_carry_level_and_fields() {
    let cluster = cluster("log", "");
    cluster.ok("up -d --wait");
    cluster.wait_log("a fault");
    let text = cluster.logs("web --stream log --json");
    let records: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let fact = records
        .iter()
        .find(|record| record["line"] == "a fact")
        .unwrap_or_else(|| panic!("{text}"));
    assert_eq!((&fact["level"], &fact["fields"]["answer"]), (&"INFO".into(), &42.into()));
    let errors = cluster.logs("web --stream log --level error --no-prefix");
    assert!(errors.contains("a fault") && !errors.contains("a doubt"), "{errors}");
    let warnings = cluster.logs("web --stream log --level warning --no-prefix");
    assert!(
        warnings.contains("a fault")
            && warnings.contains("a doubt")
            && !warnings.contains("a fact"),
        "{warnings}"
    );
}

#[test]
fn a_panic_says_why_it_crashed() {
    let cluster = cluster("panic", "");
    cluster.run("up -d");
    cluster.wait("web.1", "a second run", |web| web["run"] == 2 && web["ready"] == true);
    assert!(cluster.logs("web --stream err").contains("planned"));
    assert!(cluster.ok("crash show web").contains("planned"));
}

#[test]
fn a_reload_by_message_reaches_the_worker() {
    let cluster = cluster(
        "plain",
        ", reload: message, watch: {paths: [conf], debounce: 50ms, action: reload}",
    );
    cluster.write("conf/a", "1");
    cluster.ok("up -d --wait");
    let pid = cluster.pid("web.1");
    let mut text = 1;
    wait_until(LIMIT, "the order", || {
        text += 1;
        cluster.write("conf/a", &text.to_string());
        std::thread::sleep(std::time::Duration::from_millis(100));
        cluster.logs("web").contains("asked to reload")
    });
    assert_eq!(cluster.pid("web.1"), pid);
}

#[test]
fn workers_leave_when_node_and_keeper_are_gone() {
    let cluster = cluster("plain", ", numprocesses: 2");
    cluster.ok("up -d --wait");
    for process in
        cluster.processes().iter().filter(|process| !process.command.contains("worker-under-test"))
    {
        // The second one may have fallen with the first.
        let _ =
            std::process::Command::new("kill").args(["-KILL", &process.pid.to_string()]).output();
    }
    cluster.assert_empty();
}

#[test]
fn the_demo_cluster_comes_up_and_one_request_goes_through_two_services() {
    let conf = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf");
    let read = |name: &str| std::fs::read_to_string(conf.join(name)).unwrap();
    let cluster = Cluster::new(&read("demo.yml"));
    for service in ["board.yml", "front.yml"] {
        cluster.write(&format!("conf/{service}"), &read(service));
    }
    cluster.write(".env", &format!("HILUM_DEMO={}\n", demo()));
    cluster.ok("up -d --wait");
    cluster.assert_all_ready();
    cluster.wait("demo.1", "an answer as its status", |demo| demo["info"] == "REQUEST 1!");
    let trace_of = |service: &str, text: &str| {
        let lines = cluster.logs(&format!("{service} --json --stream log"));
        let records = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let found =
            records.into_iter().find(|record| record["line"].as_str().unwrap().contains(text));
        found.unwrap_or_else(|| panic!("no `{text}` in {lines}"))["fields"]["trace_id"].clone()
    };
    let trace = trace_of("echo", "said `request 1` in upper case");
    assert!(trace.is_string(), "{trace}");
    assert_eq!(trace, trace_of("demo", "shouting"));
    // The event, and the task that comes of it, carry the same trace; the board is found by its version.
    cluster.wait_log("printed `REQUEST 1!`");
    assert_eq!(trace, trace_of("printer", "printed `REQUEST 1!`"));
    cluster.ok("request board.heard@1.2 --timeout 20s");
    cluster.run("request board.heard@2 --timeout 20s").code(1).says("compatible");
    // By HTTP, too: the response tells the trace under which all of them worked.
    let port = cluster.instance("front.1")["ports"]["http"].as_u64().unwrap();
    let mut front = std::net::TcpStream::connect(("127.0.0.1", port as u16)).unwrap();
    write!(front, "GET /shout/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    front.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("HELLO!\n"), "{answer}");
    let trace = trace_of("echo", "said `hello` in upper case");
    assert!(answer.contains(trace.as_str().unwrap()), "{trace}: {answer}");
    cluster.down();
}
