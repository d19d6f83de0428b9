//! The container in Python that tests call and are called by: `peer.py` beside this file.
//!
//! Needs a Python with pyzmq, msgpack and kazoo, which `scripts/python-env` makes; without one the tests say so and skip.
#![allow(clippy::print_stderr, reason = "a test says that it skips")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "each test uses a part")]

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::json;

/// A container in Python; it does not outlive its test.
pub(crate) struct Python {
    child: Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// Where it is called.
    pub(crate) endpoint: String,
}

/// `$HILUM_TEST_PYTHON`, else the one that `scripts/python-env` made, else `python3`.
fn python(root: &Path) -> Option<OsString> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let made = target.join("python/bin/python");
    let python = match std::env::var_os("HILUM_TEST_PYTHON") {
        Some(python) => python,
        None if made.exists() => made.into_os_string(),
        None => "python3".into(),
    };
    let tried = Command::new(&python).args(["-c", "import zmq, msgpack, kazoo"]).output();
    if !tried.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: {} with pyzmq, msgpack and kazoo is needed", python.to_string_lossy());
        return None;
    }
    Some(python)
}

impl Python {
    /// `None`, with a word, where there is no Python for it.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same with arguments of `peer.py`.
    pub(crate) fn start_with(arguments: &[&str]) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut child = Command::new(python(root)?)
            .arg(root.join("shared/tests/interop/peer.py"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let endpoint = lines.next().unwrap().unwrap();
        Some(Self { child, orders, lines, endpoint })
    }

    /// A call by one of its ways.
    pub(crate) fn order(
        &mut self,
        how: &str,
        endpoint: &str,
        subject: &str,
        body: &serde_json::Value,
    ) -> serde_json::Value {
        self.tell(&json!([how, endpoint, subject, body]))
    }

    /// An order, and what came of it.
    pub(crate) fn tell(&mut self, order: &serde_json::Value) -> serde_json::Value {
        writeln!(self.orders, "{order}").unwrap();
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }

    /// The same beside a runtime that has to answer meanwhile.
    pub(crate) async fn ask(mut self, order: serde_json::Value) -> (Self, serde_json::Value) {
        let ordered = tokio::task::spawn_blocking(move || {
            let answer = self.tell(&order);
            (self, answer)
        });
        ordered.await.unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn port(&self) -> &str {
        self.endpoint.rsplit_once(':').unwrap().1
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
