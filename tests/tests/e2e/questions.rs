//! Questions to the log: fields, traces, context, what was around a crash, how much there was, the bytes themselves.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;

use hilum_tests::{Cluster, LIMIT, wait_until};

const SHOP: &str = r#"
instances:
  web: {command: python3 web.py, restart: {delay: 60s, max_delay: 60s, min_uptime: 60s}}
  db: {command: sh -c 'echo "level=info trace_id=t2 msg=\"db says so\""; exec sleep 1000'}
"#;

const WEB: &str = r#"
import json, logging, sys, time
logging.basicConfig(level=logging.INFO)
out = sys.stdout
for number in range(6):
    out.write(json.dumps({"level": "warn" if number % 2 else "info", "status": 500 if number == 3 else 200,
                          "http": {"path": "/api/%d" % number}, "trace_id": "t%d" % number}) + "\n")
out.write("carriage\r\nreturn\n")
out.flush()
try:
    1 / 0
except ZeroDivisionError:
    logging.exception("cannot divide")
out.write("unfinished \xff")
out.flush()
sys.exit(3)
"#;

fn shop() -> Cluster {
    let cluster = Cluster::new(SHOP);
    cluster.write("web.py", WEB);
    cluster.run("up -d");
    cluster.wait_state("web.1", "backoff");
    cluster.wait_log("db says so");
    cluster
}

fn lines(cluster: &Cluster, words: &[&str]) -> Vec<String> {
    let all = [&["logs", "--no-prefix"], words].concat();
    cluster.run_words(&all).code(0).out.lines().map(str::to_owned).collect()
}

#[test]
fn fields_levels_and_traces_are_asked_for() {
    let cluster = shop();
    let found = lines(&cluster, &["--where", "level>=warn && status=500 && http.path~\"^/api\""]);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("/api/3"), "{found:?}");
    // Of both services, in JSON and in logfmt.
    let trace = lines(&cluster, &["--trace", "t2"]);
    assert_eq!(trace.len(), 2, "{trace:?}");
    assert!(trace.iter().any(|line| line.contains("/api/2")));
    assert!(trace.iter().any(|line| line.contains("db says so")));
    let last = lines(&cluster, &["--where", "service=web && stream=err", "-n", "1"]);
    assert_eq!(last.first().map(String::as_str), Some("ERROR:root:cannot divide"));
    assert_eq!(last.last().map(String::as_str), Some("ZeroDivisionError: division by zero"));
    let graves = cluster.ok("logs web --level error --stream err --json");
    assert_eq!(graves.lines().count(), 1, "a traceback is one record: {graves}");
    let wrong = cluster.run_words(&["logs", "--where", "status=500 ok"]).code(2);
    assert!(wrong.err.contains("^ column 12"), "{}", wrong.err);
    cluster.run("logs --context 3").code(2);
}

#[test]
fn what_is_around_a_match_and_around_a_crash_is_shown() {
    let cluster = shop();
    let found =
        lines(&cluster, &["web", "--stream", "out", "--where", "status=500", "--context", "1"]);
    let paths: Vec<bool> = found
        .iter()
        .zip(2..)
        .map(|(line, number)| line.contains(&format!("/api/{number}")))
        .collect();
    assert_eq!(paths, [true, true, true], "{found:?}");
    let two = lines(
        &cluster,
        &["web", "--stream", "out", "--grep", "api/[15]", "--context", "1", "-n", "2"],
    );
    assert_eq!(two.iter().filter(|line| *line == "--").count(), 1, "{two:?}");
    assert_eq!(two.len(), 7);
    let around = cluster.run("logs --around-crash web --within 1m --no-prefix").code(0);
    assert!(around.err.contains("crash 1 of web.1: exit 3"), "{}", around.err);
    for text in ["db says so", "ZeroDivisionError", "* ended after"] {
        assert!(around.out.contains(text), "{text} in {}", around.out);
    }
    cluster.run("logs --around-crash db").code(1);
    cluster.run("logs --around-crash 99").code(2);
}

#[test]
fn lines_are_counted() {
    let cluster = shop();
    let stats = cluster.json("logs --stats --json --stream out,err");
    let web = &stats["names"]["web.1"];
    assert_eq!(web["levels"]["WARNING"], 3, "{stats:#}");
    assert_eq!(web["levels"]["ERROR"], 1, "the traceback once: {stats:#}");
    assert_eq!(web["records"], 10);
    assert_eq!(stats["total"]["lines"], web["lines"].as_u64().unwrap() + 1);
    let text = cluster.ok("logs --stats");
    assert!(text.contains("LINES/S") && text.contains("hilum"), "{text}");
}

#[test]
fn the_bytes_of_an_instance_come_back_as_they_were() {
    let cluster = shop();
    let output = |stream: &str| {
        let words = ["logs", "-o", "raw", "web", "--stream", stream];
        cluster.command(&words).output().unwrap().stdout
    };
    let out = output("out");
    assert!(out.ends_with("carriage\r\nreturn\nunfinished ÿ".as_bytes()), "{out:?}");
    assert_eq!(out.split(|byte| *byte == b'\n').count(), 9);
    let err = String::from_utf8(output("err")).unwrap();
    assert!(err.starts_with("ERROR:root:cannot divide\nTraceback") && err.ends_with("by zero\n"));
    cluster.run("logs -o raw").code(2).says("web.1");
    cluster.run("logs -o raw web --stream node").code(2);
    cluster.run("logs -o raw web --json").code(2);
}

#[test]
fn a_terminal_gets_a_pager_and_no_raw_bytes() {
    let cluster = shop();
    let on_terminal = |words: &[&str]| {
        let terminal = nix::pty::openpty(None, None).unwrap();
        let mut command = cluster.command(words);
        command.env("TERM", "xterm").env_remove("CI").env("HILUM_PAGER", "cat > paged");
        command.stdout(terminal.slave).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        drop(command); // it holds the terminal's other end
        let mut shown = Vec::new();
        // The end of a pseudo-terminal is an error (EIO).
        let _ = File::from(terminal.master).read_to_end(&mut shown);
        let output = child.wait_with_output().unwrap();
        (String::from_utf8_lossy(&shown).into_owned(), output)
    };
    let (shown, output) = on_terminal(&["logs", "web"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(shown, "");
    wait_until(LIMIT, "the pager's text", || cluster.read("paged").contains("ZeroDivisionError"));
    let (shown, _) = on_terminal(&["logs", "web", "--no-pager"]);
    assert!(shown.contains("ZeroDivisionError"), "{shown}");
    let (shown, output) = on_terminal(&["logs", "-o", "raw", "web"]);
    assert_eq!((shown.as_str(), output.status.code()), ("", Some(2)));
}

#[test]
fn a_log_endpoint_is_followed_through_the_nodes_restart() {
    let cluster = Cluster::up(
        r#"
instances:
  web: {command: "sh -c 'while :; do echo tick; echo ERROR: tock; sleep 0.05; done'"}
  db: {command: "sh -c 'while :; do echo from the db; sleep 0.05; done'"}
"#,
    );
    let tail = cluster.start(&["tail", "web"]);
    tail.wait_out("[INFO] web.1 out | tick");
    let grave = cluster.start(&["tail", "-l", "error", "web.1"]);
    grave.wait_out("[ERROR] web.1 out | ERROR: tock");
    assert!(!grave.out().contains("tick"), "{}", grave.out());
    cluster.ok("down");
    tail.wait_out("web: the connection is lost; trying again");
    cluster.ok("up -d");
    tail.wait_out("web: connected again");
    let seen = tail.out().lines().count();
    wait_until(LIMIT, "more lines", || tail.out().lines().count() > seen);
    assert!(!tail.out().contains("from the db"));
    assert!(tail.out().lines().all(|line| line.starts_with("[web][")), "{}", tail.out());
    cluster.run("tail nobody").code(2);
    cluster.run("tail tcp://nowhere").code(2);
}

#[test]
fn the_log_endpoint_of_a_lymph_container_is_followed() {
    let cluster = Cluster::new("instances: {}");
    let publisher = zmq::Context::new().socket(zmq::PUB).unwrap();
    publisher.bind("tcp://127.0.0.1:*").unwrap();
    let address = publisher.get_last_endpoint().unwrap().unwrap();
    let tail = cluster.start(&["tail", &address]);
    // As lymph 0.16 sends it.
    let text = "2026-11-21 04:20:42,131 [INFO] lymph.core.rpc: echo.nosuch source=tcp://127.0.0.1:45003 \
                version=None - trace_id=\"c0ffee\"";
    wait_until(LIMIT, "the line", || {
        publisher.send_multipart(["INFO", "tcp://127.0.0.1:34433", text], 0).unwrap();
        !tail.out().is_empty()
    });
    assert_eq!(tail.out().lines().next(), Some(&*format!("[{address}][01a0af878a] [INFO] {text}")));
}
