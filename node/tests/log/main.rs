//! The log as the node uses it: real pipes in, files out, questions answered from the files.
#![allow(clippy::unwrap_used, reason = "a test fails where it is disappointed, helpers included")]

mod capture;
mod disk;
mod follow;
mod joined;
#[path = "../common/logs.rs"]
mod logs;
mod records;

use std::collections::BTreeMap;
use std::io::{PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hilum_node::log::account::{Untold, Why};
use hilum_node::log::expr::Expr;
use hilum_node::log::follow::{Followed, Follower};
use hilum_node::log::query::{Entry, Filter, Reader, Start};
use hilum_node::log::record::{Flags, Stream};
use hilum_node::log::{LogConfig, LogHandle, LogReport, NodeRecord, Source, Started, crashes};
use hilum_shared::config::spec::{Color, LogPolicy, LogsSpec, Multiline};
use hilum_shared::name::{InstanceId, Run};
use hilum_shared::protocol::{Level, LogRecord};
use hilum_shared::units::Bytes;

use logs::policy;

const LONG: Duration = Duration::from_secs(30);

fn spec() -> LogsSpec {
    logs::spec(1 << 30, 64 << 20)
}

fn id(text: &str) -> InstanceId {
    InstanceId::parse(text).unwrap()
}

struct Log {
    handle: LogHandle,
    reports: tokio::sync::mpsc::Receiver<LogReport>,
    thread: std::thread::JoinHandle<()>,
}

impl Log {
    fn start(dir: &Path, spec: LogsSpec) -> Self {
        Self::start_after(dir, spec, Vec::new())
    }

    /// The same after one that could not write all.
    fn start_after(dir: &Path, spec: LogsSpec, untold: Vec<Untold>) -> Self {
        let Started { handle, reports, thread } = hilum_node::log::start(LogConfig {
            dir: dir.to_owned(),
            base: dir.to_owned(),
            spec,
            subscriber: None,
            untold,
        })
        .unwrap();
        Self { handle, reports, thread }
    }

    fn attach(&self, name: &str, run: u32, policy: LogPolicy) -> (PipeWriter, PipeWriter) {
        self.attach_ready(name, run, policy, None)
    }

    fn attach_ready(
        &self,
        name: &str,
        run: u32,
        policy: LogPolicy,
        ready: Option<&str>,
    ) -> (PipeWriter, PipeWriter) {
        let (out, out_end) = std::io::pipe().unwrap();
        let (err, err_end) = std::io::pipe().unwrap();
        self.handle.attach(
            Source {
                instance: id(name),
                run: Run(run),
                pid: 100 + run,
                policy: Arc::new(policy),
                ready_pattern: ready.map(|text| regex::bytes::Regex::new(text).unwrap()),
            },
            OwnedFd::from(out),
            Some(OwnedFd::from(err)),
        );
        (out_end, err_end)
    }

    fn ended(&self, name: &str, run: u32) -> mpsc::Receiver<()> {
        let (tell, told) = mpsc::channel();
        self.handle.ended(id(name), Run(run), move || {
            let _ = tell.send(());
        });
        told
    }

    fn flush(&self) {
        let (tell, told) = mpsc::channel();
        self.handle.flush(move || {
            let _ = tell.send(());
        });
        told.recv_timeout(LONG).unwrap();
    }

    fn stop(self) {
        self.handle.stop();
        self.thread.join().unwrap();
    }
}

fn all(dir: &Path) -> Vec<Entry> {
    read(dir, Filter::default(), Start::All)
}

fn read(dir: &Path, filter: Filter, start: Start) -> Vec<Entry> {
    Reader::open(dir, filter, start).unwrap().collect::<Result<_, _>>().unwrap()
}

fn texts(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| String::from_utf8_lossy(&entry.text).into_owned()).collect()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < limit, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
