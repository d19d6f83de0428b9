//! Services as real processes: the demo's, under a fake node and alone.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hilum_worker::WorkerState;
use hilum_worker::testing::FakeNode;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(30);

/// A process that does not outlive its test.
struct Service(Child);

impl Service {
    fn start(name: &str, node: Option<&FakeNode>, more: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hilum-demo"));
        command.args(name.split(' ')).stderr(Stdio::piped()).env_remove("RUST_LOG");
        if let Some(node) = node {
            command.envs(node.env());
        }
        Self(command.envs(more.iter().copied()).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    fn end(&mut self) -> (ExitStatus, String) {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < LIMIT, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        };
        let mut text = String::new();
        let mut stderr: ChildStderr = self.0.stderr.take().unwrap();
        stderr.read_to_string(&mut text).unwrap();
        (status, text)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it has ended where all went well
        let _ = self.0.wait();
    }
}

#[test]
fn an_ordered_service_drains_flushes_and_exits_0() {
    let node = FakeNode::start_for("echo.2", 4).unwrap();
    let mut service = Service::start("instance --interface Echo", Some(&node), &[]);
    let beat = node.wait_for_beat(|beat| beat.state == WorkerState::Ready);
    assert_eq!(beat.pid, service.0.id());
    node.shutdown("down", Duration::from_secs(5));
    let (status, stderr) = service.end();
    assert!(status.success(), "{status} {stderr}");
    assert_eq!(stderr, "");
    node.wait_for_beat(|beat| beat.state == WorkerState::Draining);
    let last = node.wait_for_record(|record| record.message == "nothing left to do");
    assert_eq!((last.level.as_str(), last.logger.as_str()), ("INFO", "echo"));
    assert_eq!(last.fields["reason"], "down");
}

#[test]
fn a_signal_means_the_same_as_the_order() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let node = FakeNode::start().unwrap();
        let mut service = Service::start("clock", Some(&node), &[]);
        node.wait_for_beat(|beat| beat.state == WorkerState::Ready);
        service.signal(signal);
        let (status, stderr) = service.end();
        assert!(status.success(), "{status} {stderr}");
        node.wait_for_beat(|beat| beat.state == WorkerState::Draining);
        node.wait_for_record(|record| record.message == "the clock stops");
    }
}

#[test]
fn a_panic_is_on_stderr_and_a_critical_record() {
    let node = FakeNode::start().unwrap();
    let mut service = Service::start("flaky", Some(&node), &[("DEMO_PATIENCE", "100")]);
    let (status, stderr) = service.end();
    assert_eq!(status.code(), Some(101), "{status} {stderr}");
    assert_eq!(stderr.matches("the demo's disk has a sector").count(), 1, "{stderr}");
    let record = node.wait_for_record(|record| record.level == "CRITICAL");
    assert_eq!(record.message, "the demo's disk has a sector");
    assert!(record.fields["place"].as_str().unwrap().contains("demo/main.rs"));
    node.wait_for_record(|record| record.level == "WARNING");
}

#[test]
fn an_error_is_on_stderr_and_a_record() {
    let node = FakeNode::start().unwrap();
    let mut service = Service::start("flaky", Some(&node), &[("DEMO_PATIENCE", "soon")]);
    let (status, stderr) = service.end();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("ERROR") && stderr.contains("invalid digit"), "{stderr}");
    node.wait_for_record(|record| {
        record.level == "ERROR" && record.message.contains("invalid digit")
    });
}

#[test]
fn without_a_node_there_are_plain_lines_on_stderr() {
    let mut service = Service::start("flaky", None, &[("DEMO_PATIENCE", "50")]);
    let (status, stderr) = service.end();
    assert_eq!(status.code(), Some(101));
    assert!(stderr.contains("WARN flaky: this does not look good run=1"), "{stderr}");
}

/// A service on a copy of the demo, by hand, and the lines of its stderr.
fn reloading(program: &std::path::Path, more: &[&str]) -> (Service, mpsc::Receiver<String>) {
    let mut command = Command::new(program);
    command.args(["instance", "--interface", "Echo", "--isolated", "--reload"]).args(more);
    command.current_dir(program.parent().unwrap()).env_remove("RUST_LOG").stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (lines, read) = mpsc::channel();
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            let _ = lines.send(line); // the test may have seen enough
        }
    });
    (Service(child), read)
}

/// The next line that says an address.
fn serves(lines: &mpsc::Receiver<String>) -> String {
    loop {
        let line = lines.recv_timeout(LIMIT).expect("it serves");
        if line.contains("called at") {
            return line;
        }
    }
}

#[test]
fn another_program_in_its_place_is_started_in_the_same_process() {
    let folder = tempfile::tempdir().unwrap();
    let demo = env!("CARGO_BIN_EXE_hilum-demo");
    let (program, next) = (folder.path().join("demo"), folder.path().join("next"));
    std::fs::copy(demo, &program).unwrap();
    let (mut service, lines) = reloading(&program, &[]);
    let first = serves(&lines);
    // Renamed into its place, as cargo and package managers do.
    std::fs::copy(demo, &next).unwrap();
    std::fs::rename(&next, &program).unwrap();
    let second = serves(&lines);
    assert_ne!(first, second);
    // Removed, and written slowly in pieces: it is not begun before it is whole.
    let bytes = std::fs::read(demo).unwrap();
    std::fs::remove_file(&program).unwrap();
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o755)
        .open(&program)
        .unwrap();
    for piece in bytes.chunks(bytes.len() / 4 + 1) {
        file.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(400));
    }
    drop(file);
    serves(&lines);
    assert!(service.0.try_wait().unwrap().is_none(), "it is the same process");
    service.signal(Signal::SIGTERM);
    assert!(service.0.wait().unwrap().success());
}

#[test]
fn what_is_no_service_is_not_started_in_a_programs_place() {
    let folder = tempfile::tempdir().unwrap();
    let demo = env!("CARGO_BIN_EXE_hilum-demo");
    let at = |name: &str| folder.path().join(name);
    std::fs::copy(demo, at("demo")).unwrap();
    let (mut service, lines) = reloading(&at("demo"), &[]);
    serves(&lines);
    let script = format!("#!/bin/sh\ntouch {}\n", at("executed").display());
    let mut file =
        OpenOptions::new().create_new(true).write(true).mode(0o755).open(at("next")).unwrap();
    file.write_all(script.as_bytes()).unwrap();
    drop(file);
    std::fs::rename(at("next"), at("demo")).unwrap();
    loop {
        let line = lines.recv_timeout(LIMIT).expect("it says so");
        if line.contains("not one that is known to be a program of a service") {
            break;
        }
    }
    assert!(service.0.try_wait().unwrap().is_none(), "it goes on");
    std::fs::copy(demo, at("next")).unwrap();
    std::fs::rename(at("next"), at("demo")).unwrap();
    serves(&lines);
    assert!(!at("executed").exists());
    service.signal(Signal::SIGTERM);
    assert!(service.0.wait().unwrap().success());
}

#[test]
fn a_program_that_is_named_by_a_link_is_another_when_the_link_is() {
    let folder = tempfile::tempdir().unwrap();
    let demo = env!("CARGO_BIN_EXE_hilum-demo");
    let at = |name: &str| folder.path().join(name);
    for release in ["one", "two"] {
        std::fs::copy(demo, at(release)).unwrap();
    }
    std::os::unix::fs::symlink(at("one"), at("current")).unwrap();
    let (service, lines) = reloading(&at("current"), &["--logfile", "log"]);
    let called = || {
        let text = std::fs::read_to_string(at("log")).unwrap_or_default();
        text.matches("called at").count()
    };
    let wait = |count: usize| {
        let begun = Instant::now();
        while called() < count {
            assert!(begun.elapsed() < LIMIT, "it does not serve");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    wait(1);
    std::os::unix::fs::symlink(at("two"), at("new")).unwrap();
    std::fs::rename(at("new"), at("current")).unwrap();
    wait(2);
    drop(service);
    assert_eq!(lines.iter().collect::<Vec<_>>(), Vec::<String>::new(), "all is in the file");
}

#[test]
fn the_first_level_is_said_on_the_command_line_or_in_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let said = |more: &[&str], logging: &str| {
        let config = folder.path().join("service.yml");
        std::fs::write(
            &config,
            format!("interfaces: {{echo: {{class: 'hilum-demo:Echo'}}}}\n{logging}"),
        )
        .unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let command =
            format!("instance --isolated -p {port} -c {} {}", config.display(), more.join(" "));
        let mut service = Service::start(command.trim(), None, &[]);
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < LIMIT, "it does not serve");
            std::thread::sleep(Duration::from_millis(10));
        }
        service.signal(Signal::SIGTERM);
        let (status, stderr) = service.end();
        assert!(status.success(), "{status} {stderr}");
        (stderr.contains("DEBUG"), stderr.contains("INFO"))
    };
    assert_eq!(said(&[], ""), (false, true));
    assert_eq!(said(&["--debug"], ""), (true, true));
    assert_eq!(said(&["--loglevel", "WARNING"], ""), (false, false));
    assert_eq!(said(&[], "logging: {root: {level: ERROR}}"), (false, false));
    assert_eq!(said(&["--loglevel", "DEBUG"], "logging: {root: {level: ERROR}}"), (true, true));
    let mut wrong = Service::start("instance --loglevel LOUD", None, &[]);
    let (status, stderr) = wrong.end();
    assert!(status.code() == Some(2) && stderr.contains("`LOUD` is no level"), "{stderr}");
}

#[test]
fn a_contract_that_means_nothing_is_explained() {
    let mut service = Service::start("clock", None, &[("HILUM_RUN", "x")]);
    let (status, stderr) = service.end();
    assert_eq!(status.code(), Some(2));
    assert!(stderr.contains("variable `HILUM_RUN` is `x`: a number is expected"), "{stderr}");
    assert_eq!(status.signal(), None);
}

#[test]
fn a_service_that_lost_its_node_leaves() {
    let mut node = FakeNode::start().unwrap();
    node.set_rhythm(Duration::from_millis(20), Duration::from_millis(200));
    let mut service = Service::start("clock", Some(&node), &[]);
    node.wait_for_beat(|beat| beat.state == WorkerState::Ready);
    drop(service.0.stderr.take()); // a dead node reads nothing any more
    node.close();
    node.free_lock();
    let begun = Instant::now();
    while service.0.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < LIMIT, "it does not leave");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(service.0.wait().unwrap().code(), Some(0));
}

#[test]
fn the_command_line_says_what_is_wrong_with_it() {
    for (line, code, expected) in [
        ("instance --port x", 2, "invalid value 'x' for '--port <PORT>'"),
        ("instance --config gone.yml", 2, "cannot read"),
        ("instance --interface Gone", 2, "this binary has no class `Gone`"),
        ("inspect gone", 2, "no interface `gone`; there is echo, demo"),
        ("no-such-thing", 2, "unrecognized subcommand"),
    ] {
        let (status, stderr) = Service::start(line, None, &[]).end();
        assert_eq!(status.code(), Some(code), "{line}: {stderr}");
        assert!(stderr.contains(expected), "{line}: {stderr}");
    }
}

#[test]
fn inspect_shows_a_programs_own_methods() {
    let run = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_hilum-demo"))
            .arg("inspect")
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run(&["echo"]);
    assert!(text.contains("rpc echo.upper(text)\n    Returns the text in upper case.\n"), "{text}");
    assert!(text.contains("raises TextTooLong") && !text.contains("demo.shout"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&run(&["--json"])).unwrap();
    let names: Vec<&str> = json["interfaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["echo", "demo", "board", "front"]);
}
