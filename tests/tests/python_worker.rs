//! The Python worker of `docs/protocol.md`, as it stands there, against the worker library's fake node.
//!
//! It needs a Python with `pyzmq` and `msgpack`: `$HILUM_TEST_PYTHON`, else the one that `scripts/python-env` made
//! in `target/python`, else `python3`. Where there is none the test says SKIPPED and why.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic, and says when it is skipped"
)]

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use hilum_worker::testing::{FakeNode, Order, OrderKind};
use hilum_worker::{Run, WorkerState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(30);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn python() -> Option<OsString> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let made = target.join("python/bin/python");
    let python = match std::env::var_os("HILUM_TEST_PYTHON") {
        Some(python) => python,
        None if made.exists() => made.into_os_string(),
        None => "python3".into(),
    };
    let tried = Command::new(&python).args(["-c", "import zmq, msgpack"]).output();
    let why = match tried {
        Ok(output) if output.status.success() => return Some(python),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    eprintln!("SKIPPED: {} with pyzmq and msgpack is needed: {why}", python.to_string_lossy());
    None
}

fn script() -> String {
    let text = std::fs::read_to_string(root().join("docs/protocol.md")).unwrap();
    let (_, rest) = text.split_once("```python\n").expect("the document ends with a Python worker");
    rest.split_once("```").unwrap().0.to_owned()
}

/// A process that does not outlive its test.
struct Worker(Child);

impl Worker {
    fn start(python: OsString, node: &FakeNode) -> Self {
        let mut command = Command::new(python);
        command.args(["-c", &script()]).stdin(Stdio::null()).envs(node.env());
        Self(command.spawn().unwrap())
    }

    fn end(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < LIMIT, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it has ended where all went well
        let _ = self.0.wait();
    }
}

#[test]
fn it_beats_in_the_rhythm_of_the_echoes_writes_records_and_drains_when_told() {
    let Some(python) = python() else { return };
    let node = FakeNode::start_for("echo.3", 7).unwrap();
    node.set_rhythm(Duration::from_secs(1), Duration::from_secs(5));
    let mut worker = Worker::start(python, &node);
    let beat = node.wait_for_beat(|beat| beat.state == WorkerState::Ready);
    assert_eq!((beat.seq, beat.pid), (1, worker.0.id()));
    let record = node.wait_for_record(|record| record.message == "ready");
    assert_eq!((record.level.as_str(), record.seq), ("INFO", Some(1)));
    assert_eq!(record.fields["pid"], worker.0.id());

    node.set_rhythm(Duration::from_millis(20), Duration::from_secs(5));
    let begun = Instant::now();
    node.wait_for_beat(|beat| beat.seq >= 30);
    assert!(begun.elapsed() < Duration::from_secs(20)); // at the first rhythm it is 29 s

    node.wait_for_subscription();
    // Another run's order is none of its business.
    node.send(&Order {
        id: "other".into(),
        kind: OrderKind::Shutdown,
        run: Some(Run(6)),
        reason: "not you".into(),
        grace: 5.0,
        at: 0.0,
    });
    node.shutdown("down", Duration::from_secs(5));
    let status = worker.end();
    assert_eq!((status.code(), status.signal()), (Some(0), None));
    node.wait_for_beat(|beat| beat.state == WorkerState::Draining);
    let last = node.wait_for_record(|record| record.message == "drained");
    assert_eq!(last.fields["reason"], "down");
    let numbers: Vec<_> = node.records().iter().map(|record| record.seq.unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert_eq!(node.ignored(), 0);
}

#[test]
fn it_takes_the_stop_signal_as_the_same_order() {
    let Some(python) = python() else { return };
    let node = FakeNode::start().unwrap();
    let mut worker = Worker::start(python, &node);
    node.wait_for_record(|record| record.message == "ready");
    kill(Pid::from_raw(worker.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(worker.end().code(), Some(0));
    node.wait_for_beat(|beat| beat.state == WorkerState::Draining);
    node.wait_for_record(|record| record.message == "drained");
}

#[test]
fn without_a_node_it_writes_to_stderr_and_drains_by_signal() {
    let Some(python) = python() else { return };
    // what `hilum run` leaves of the variables of an instance, and what a shell has
    let one_off = [
        ("HILUM_INSTANCE", "echo.3"),
        ("HILUM_SERVICE", "echo"),
        ("HILUM_HEARTBEAT_INTERVAL", "1"),
    ];
    for variables in [&one_off[..], &[]] {
        let mut command = Command::new(&python);
        command.args(["-c", &script()]).stdin(Stdio::null()).stderr(Stdio::piped());
        for name in ["HILUM_RUN", "HILUM_TOKEN", "HILUM_HEARTBEAT", "HILUM_SHUTDOWN", "HILUM_LOG"] {
            command.env_remove(name);
        }
        let mut worker = Worker(command.envs(variables.iter().copied()).spawn().unwrap());
        let mut lines = BufReader::new(worker.0.stderr.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        assert!(first.starts_with("INFO ready"), "{first}");
        kill(Pid::from_raw(worker.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        assert_eq!(worker.end().code(), Some(0));
        let last = lines.map(Result::unwrap).last().unwrap();
        assert!(last.starts_with("INFO drained"), "{last}");
    }
}
