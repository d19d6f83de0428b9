//! A command of a test: beside it, and how it ended.

use std::io::Read;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::LIMIT;

/// A command that runs beside the test.
#[derive(Debug)]
pub struct Running {
    child: Option<Child>,
    readers: Vec<std::thread::JoinHandle<()>>,
    out: Text,
    err: Text,
    name: String,
}

type Text = Arc<Mutex<Vec<u8>>>;

impl Running {
    pub(crate) fn new(mut child: Child, name: String) -> Self {
        let (out, err) = (Text::default(), Text::default());
        let mut readers = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            readers.push(read(pipe, &out));
        }
        if let Some(pipe) = child.stderr.take() {
            readers.push(read(pipe, &err));
        }
        Self { child: Some(child), readers, out, err, name }
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("runs").id()
    }

    /// What it has printed so far.
    pub fn out(&self) -> String {
        text(&self.out)
    }

    /// What it has printed on stderr so far.
    pub fn err(&self) -> String {
        text(&self.err)
    }

    /// Waits until its output holds a text, on either stream.
    #[track_caller]
    pub fn wait_out(&self, wanted: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.out().contains(wanted) && !self.err().contains(wanted) {
            assert!(
                Instant::now() < deadline,
                "{:?} is not in: {}{}",
                wanted,
                self.out(),
                self.err()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end within `limit`; it is killed then.
    #[track_caller]
    pub fn finish(self, limit: Duration) -> Outcome {
        let name = self.name.clone();
        self.collect(limit).unwrap_or_else(|| panic!("`hilum {name}` did not end within {limit:?}"))
    }

    #[expect(
        clippy::print_stdout,
        reason = "the test runner keeps it, and shows it when the test has failed"
    )]
    pub(crate) fn collect(mut self, limit: Duration) -> Option<Outcome> {
        let deadline = Instant::now() + limit;
        let mut child = self.child.take()?;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                _ if Instant::now() > deadline => {
                    let _ = child.kill(); // it may have ended just now
                    let _ = child.wait();
                    println!("`hilum {}` hangs: {}{}", self.name, self.out(), self.err());
                    return None;
                }
                _ => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        // A descendant that holds the pipes must not hold us: `up -d` has to let go of them.
        let held = Instant::now() + Duration::from_secs(10);
        while self.readers.iter().any(|reader| !reader.is_finished()) {
            assert!(
                Instant::now() < held,
                "`hilum {}` has ended, and its output is held open",
                self.name
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        Some(Outcome {
            name: std::mem::take(&mut self.name),
            status,
            out: self.out(),
            err: self.err(),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill(); // it may have ended just now
            let _ = child.wait();
        }
    }
}

fn read(mut pipe: impl Read + Send + 'static, into: &Text) -> std::thread::JoinHandle<()> {
    let into = Text::clone(into);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            into.lock().expect("no reader panics").extend_from_slice(&buffer[..count]);
        }
    })
}

fn text(bytes: &Text) -> String {
    String::from_utf8_lossy(&bytes.lock().expect("no reader panics")).into_owned()
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    name: String,
    /// Its status.
    pub status: ExitStatus,
    /// What it printed.
    pub out: String,
    /// What it printed on stderr.
    pub err: String,
}

impl Outcome {
    /// It must have exited with this code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self}");
        self
    }

    /// Its output must hold a text, on either stream.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.out.contains(text) || self.err.contains(text), "{text:?} is missing: {self}");
        self
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`hilum {}`: {}\n--- stdout\n{}\n--- stderr\n{}",
            self.name, self.status, self.out, self.err
        )
    }
}
