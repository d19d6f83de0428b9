//! `docs/protocol.md` is kept true: its Python worker runs against these channels, its tables name every method.
//!
//! The worker needs a Python with `pyzmq` and `msgpack`: `$HILUM_TEST_PYTHON`, else `python3`. Where there is none the
//! test says so and skips.

use std::ffi::OsString;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use hilum_shared::name::{InstanceId, Run};
use hilum_shared::protocol::{WorkerState, env};
use tokio::sync::mpsc;

use super::control::method_names;
use super::counters::Counters;
use super::heartbeat::Heartbeat;
use super::records::Records;
use super::roster::{Rhythm, Roster};
use super::shutdown::{Heard, Shutdown};
use super::testing::{LIMIT, World, wait_until};
use crate::core::action::OrderKind;
use crate::core::input::{Input, Report};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md");

fn python() -> Option<OsString> {
    let python = std::env::var_os("HILUM_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let found =
        Command::new(&python).args(["-c", "import zmq, msgpack"]).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    eprintln!("skipped: no Python with pyzmq and msgpack; name one by $HILUM_TEST_PYTHON");
    None
}

/// A process that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it has ended where all went well
        let _ = self.0.wait();
    }
}

#[test]
fn every_method_is_described() {
    let text = std::fs::read_to_string(DOCUMENT).unwrap();
    for name in method_names() {
        let (_, method) = name.rsplit_once('.').unwrap();
        assert!(text.contains(&format!("\n| `{method}` |")), "{name} is not in docs/protocol.md");
    }
}

#[test]
fn the_python_worker_beats_logs_and_drains() {
    let Some(python) = python() else { return };
    let text = std::fs::read_to_string(DOCUMENT).unwrap();
    let (_, rest) = text.split_once("```python\n").unwrap();
    let (script, _) = rest.split_once("```").unwrap();

    let (world, roster, counters) = (World::new(), Roster::default(), Counters::default());
    let (sender, mut inbox) = mpsc::channel(1000);
    let (sink, batches) = sync_channel(1000);
    let [h, s, l] = ["h", "s", "l"].map(|name| world.address(name));
    let _heartbeat =
        Heartbeat::open(&world.hub, &h, 0o600, roster.clone(), sender, counters.clone()).unwrap();
    let shutdown = Shutdown::open(&world.hub, &s, 0o600, counters.clone()).unwrap();
    let sink = Box::new(move |batch| sink.send(batch).map_err(|error| error.0));
    let _records =
        Records::open(&world.hub, &l, 0o600, roster.clone(), sink, counters.clone()).unwrap();
    let instance = InstanceId::parse("echo.3").unwrap();
    let rhythm = Rhythm { interval: Duration::from_millis(100), timeout: Duration::from_secs(5) };
    roster.expect(instance.clone(), Run(7), "secret".into(), rhythm);

    let child = Command::new(python)
        .args(["-c", script])
        .env(env::INSTANCE, "echo.3")
        .env(env::SERVICE, "echo")
        .env(env::RUN, "7")
        .env(env::TOKEN, "secret")
        .env(env::HEARTBEAT_INTERVAL, "0.1")
        .env(env::HEARTBEAT, &h)
        .env(env::SHUTDOWN, &s)
        .env(env::LOG, &l)
        .spawn()
        .unwrap();
    let mut child = Ended(child);

    let mut beats = 0;
    wait_until(|| {
        while let Ok(Input::Report { report: Report::Beat { state, .. }, .. }) = inbox.try_recv() {
            assert_eq!(state, WorkerState::Ready);
            beats += 1;
        }
        beats >= 3 && shutdown.listens(&instance)
    });
    let grace = OrderKind::Shutdown { grace: Duration::from_secs(5) };
    // An order for another run is not its own.
    assert_eq!(shutdown.order(&instance, Run(6), grace, "not you"), Heard::Sent);
    assert_eq!(shutdown.order(&instance, Run(7), grace, "down"), Heard::Sent);
    let mut last = None;
    wait_until(|| {
        while let Ok(Input::Report { report: Report::Beat { state, .. }, .. }) = inbox.try_recv() {
            last = Some(state);
        }
        last == Some(WorkerState::Draining)
    });
    assert!(child.0.wait().unwrap().success());

    let mut messages = Vec::new();
    let mut reason = None;
    while messages.last().map(String::as_str) != Some("drained") {
        for record in batches.recv_timeout(LIMIT).unwrap().records {
            assert_eq!(record.seq, Some(messages.len() as u64 + 1));
            messages.push(record.message);
            reason = record.fields.get("reason").cloned();
        }
    }
    assert_eq!(messages, ["ready", "finished", "finished", "finished", "drained"]);
    assert_eq!(reason, Some("down".into()));
    assert!(counters.snapshot().is_empty(), "{:?}", counters.snapshot());
}
