//! How the rest of the node speaks to the log thread: [`LogHandle`] never blocks, [`LogReport`]s come back.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use hilum_shared::config::spec::{LogPolicy, LogsSpec};
use hilum_shared::name::{InstanceId, Run, ServiceName};
use hilum_shared::protocol::{Level, LogRecord};

use super::account::{Account, Untold};
use super::capture::Capture;
use super::crashes;
use super::disk::Disk;
pub use super::post::Quiet;
use super::post::{Command, Post, Reports, Shared};
use super::record::Stream;
use super::store::{Store, StoreError};

/// What is called when something is done; on the disk thread, so it must only pass the word on.
pub type Done = Box<dyn FnOnce() + Send>;

/// Bytes of records that may wait for the log thread: then `structured` is refused and `node` counts.
const QUEUE: usize = 8 * 1024 * 1024;
/// Reports on their way to the node.
const REPORTS: usize = 4096;

/// What the log thread is started with.
pub struct LogConfig {
    /// The store's folder; made where it is not.
    pub dir: PathBuf,
    /// What relative paths of `log.file` are relative to.
    pub base: PathBuf,
    /// Budget and the like; its `dir` is not looked at.
    pub spec: LogsSpec,
    /// Gets every finished record.
    pub subscriber: Option<Box<dyn Subscriber>>,
    /// What [`LogHandle::untold`] said of the log before this one: gaps are written for it.
    pub untold: Vec<Untold>,
}

/// Sees every finished record, on the log thread: it must never block.
pub trait Subscriber: Send {
    /// Whether anybody listens: asked once a read.
    fn wanted(&self) -> bool;
    /// One record.
    fn record(&mut self, record: &Finished<'_>);
    /// How many records did not reach everybody who listens, since the last call: a gap will say so, in the timeline and here.
    fn lost(&mut self) -> u64 {
        0
    }
}

/// A record as a subscriber sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished<'a> {
    /// `echo.3`, `echo`, or [`super::record::NODE_NAME`].
    pub name: &'a str,
    /// Where from.
    pub stream: Stream,
    /// How grave, where it is known.
    pub level: Option<Level>,
    /// The text, without a line end; may hold any bytes.
    pub text: &'a [u8],
}

/// One run whose output is to be captured.
pub struct Source {
    /// Whose.
    pub instance: InstanceId,
    /// Which life.
    pub run: Run,
    /// The leader.
    pub pid: u32,
    /// How its output is read.
    pub policy: Arc<LogPolicy>,
    /// The first line that matches is reported, once.
    pub ready_pattern: Option<regex::bytes::Regex>,
}

/// A record of the node's own: an event, mostly.
#[derive(Debug, Default)]
pub struct NodeRecord {
    /// When it happened, in Unix seconds; what is not credible stands for now.
    pub at: f64,
    /// The service, where it concerns one.
    pub service: Option<ServiceName>,
    /// The instance, where it concerns one.
    pub instance: Option<InstanceId>,
    /// Which of its lives.
    pub run: Option<Run>,
    /// The leader.
    pub pid: Option<u32>,
    /// How grave.
    pub level: Option<Level>,
    /// For people.
    pub text: String,
    /// For programs: what `events --json` prints, a JSON object; empty = none.
    pub fields: String,
}

impl NodeRecord {
    /// About so many bytes of the queue.
    fn size(&self) -> usize {
        size_of::<Self>() + self.text.len() + self.fields.len()
    }
}

/// What the log threads report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogReport {
    /// A line matched the ready pattern.
    Matched {
        /// Whose.
        instance: InstanceId,
        /// Which life.
        run: Run,
    },
    /// Its output waits for us, or does no more.
    Held {
        /// Whose.
        instance: InstanceId,
        /// Which life.
        run: Run,
        /// Whether it waits.
        held: bool,
    },
    /// The disk fails; nobody waits for it.
    Degraded(String),
    /// The disk works again; what was lost is in the timeline.
    Recovered,
    /// Lines are missing, and the timeline says so.
    Dropped {
        /// `echo.3`, or another name of the timeline.
        name: Arc<str>,
        /// How many.
        lines: u64,
        /// Why.
        why: String,
    },
}

/// The state of the log, at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Records taken since the start.
    pub records: u64,
    /// Bytes read from pipes since the start.
    pub bytes: u64,
    /// Lines that the timeline misses, since the start; whose and why: [`LogHandle::account`].
    pub dropped: u64,
    /// Open pipes.
    pub sources: u64,
    /// Bytes of the store.
    pub store_bytes: u64,
    /// The next sequence number.
    pub next_seq: u64,
    /// Whether the disk fails.
    pub degraded: bool,
    /// For how long the write at hand has been going on.
    pub stalled: Option<Duration>,
}

/// Structured records that cannot be taken: how many, by what is wrong with them (on one line).
pub type Refused = BTreeMap<String, u64>;

/// Records that found no room; try again when a [`LogReport`] or a moment has passed.
#[derive(Debug, thiserror::Error)]
#[error("the log's queue is full")]
pub struct QueueFull(pub Vec<LogRecord>, pub Refused);

/// Why the log cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No descriptor or thread.
    #[error("cannot start the log thread: {0}")]
    System(#[from] std::io::Error),
}

/// The way to the log thread. Cheap to clone; no call blocks. When the last one is dropped the log stops.
#[derive(Clone)]
pub struct LogHandle(Arc<Post>);

/// A running log.
pub struct Started {
    /// The way to it.
    pub handle: LogHandle,
    /// What it reports; bounded, and what does not fit waits on the log's side.
    pub reports: tokio::sync::mpsc::Receiver<LogReport>,
    /// Ends after [`LogHandle::stop`], when everything is written.
    pub thread: JoinHandle<()>,
}

/// Opens the store and starts the two log threads, `log` and `log-disk`.
///
/// # Errors
/// See [`LogError`].
pub fn start(mut config: LogConfig) -> Result<Started, LogError> {
    let (store, notes) = Store::open(&config.dir, &config.spec)?;
    let shared = Arc::new(Shared::new()?);
    shared.store_bytes.store(store.size(), Ordering::Relaxed);
    shared.next_seq.store(store.next_seq(), Ordering::Relaxed);
    let (report, reports) = tokio::sync::mpsc::channel(REPORTS);
    let (commands, inbox) = mpsc::channel();
    let (work, works) = mpsc::channel();
    let (returned, spare) = mpsc::channel();
    let writer = crashes::Writer::open(&config.dir);
    let untold = std::mem::take(&mut config.untold);
    let reports_of_disk = Reports::new(report.clone());
    let disk = Disk::new(store, writer, shared.clone(), reports_of_disk, returned);
    let disk = disk.beginning_with(untold, &notes);
    let capture = Capture::new(config, shared.clone(), Reports::new(report), inbox, work, spare)?;
    let writer = std::thread::Builder::new().name("log-disk".into()).spawn(move || {
        block_signals();
        disk.run(&works);
    })?;
    let thread = std::thread::Builder::new().name("log".into()).spawn(move || {
        block_signals();
        capture.run();
        let _ = writer.join(); // a panic there has been printed already
    })?;
    let handle = LogHandle(Arc::new(Post { commands, shared }));
    Ok(Started { handle, reports, thread })
}

pub(super) fn block_signals() {
    let _ = nix::sys::signal::SigSet::all().thread_block(); // cannot fail with a valid set
}

impl LogHandle {
    /// The log thread is woken once for all that is sent until the answer is dropped: for one turn of the
    /// loop, some milliseconds at most. Only one at a time.
    pub fn quietly(&self) -> Quiet {
        self.0.shared.quiet.store(true, Ordering::SeqCst);
        Quiet(Arc::clone(&self.0))
    }

    /// Captures the output of a run. `stderr` is `None` where both come by one pseudo-terminal.
    pub fn attach(&self, source: Source, stdout: OwnedFd, stderr: Option<OwnedFd>) {
        self.0.send(Command::Attach(Box::new(source), stdout, stderr));
    }

    /// The same, after `record`, which tells of the start: it comes before every line of the run.
    pub fn attach_after(
        &self,
        record: NodeRecord,
        source: Source,
        stdout: OwnedFd,
        stderr: Option<OwnedFd>,
    ) {
        let size = record.size();
        self.0.shared.queued.fetch_add(size, Ordering::Relaxed);
        let source = Box::new(source);
        self.0.send(Command::AttachAfter(Box::new(record), size, source, stdout, stderr));
    }

    /// Captures the output of a command beside a run (a hook): its lines carry the run's name and
    /// number, and it is over when its pipes are.
    pub fn attach_aside(&self, source: Source, stdout: OwnedFd, stderr: OwnedFd) {
        self.0.send(Command::AttachAside(Box::new(source), stdout, stderr));
    }

    /// Takes a changed policy for what runs of this service.
    pub fn policy(&self, service: ServiceName, policy: Arc<LogPolicy>) {
        self.0.send(Command::Policy(service, policy));
    }

    /// Takes structured records of a run.
    ///
    /// # Errors
    /// [`QueueFull`], with the records, when the log is behind: let the worker wait.
    pub fn structured(
        &self,
        instance: InstanceId,
        run: Run,
        pid: u32,
        records: Vec<LogRecord>,
    ) -> Result<(), QueueFull> {
        self.received(instance, run, pid, records, Refused::new())
    }

    /// The same; `refused` are those that came with them and cannot be taken: their gap says why.
    ///
    /// # Errors
    /// [`QueueFull`], with both: let the worker wait.
    pub fn received(
        &self,
        instance: InstanceId,
        run: Run,
        pid: u32,
        records: Vec<LogRecord>,
        refused: Refused,
    ) -> Result<(), QueueFull> {
        let shared = &self.0.shared;
        let size = records
            .iter()
            .map(|record| size_of::<LogRecord>() + record.message.len() + 64 * record.fields.len())
            .sum();
        if shared.holding.load(Ordering::Relaxed) || shared.queued.load(Ordering::Relaxed) > QUEUE {
            return Err(QueueFull(records, refused));
        }
        shared.queued.fetch_add(size, Ordering::Relaxed);
        self.0.send(Command::Structured(instance, run, pid, records, refused, size));
        Ok(())
    }

    /// Writes down what the node has to say. When the log is far behind it is counted, and a gap shows it.
    pub fn node(&self, record: NodeRecord) {
        let shared = &self.0.shared;
        let size = record.size();
        if shared.queued.load(Ordering::Relaxed) > QUEUE {
            shared.unqueued.fetch_add(1, Ordering::Relaxed);
            return;
        }
        shared.queued.fetch_add(size, Ordering::Relaxed);
        self.0.send(Command::Node(Box::new(record), size));
    }

    /// The run's leader is gone: its pipes are read to their end, for 2 s at most when others hold them open, and
    /// `done` is called when all is in the files. What comes later is still taken, until [`Self::close`].
    pub fn ended(&self, instance: InstanceId, run: Run, done: impl FnOnce() + Send + 'static) {
        self.0.send(Command::Ended(instance, run, Box::new(done)));
    }

    /// Nothing of the run is left, or nobody wants its output any more: its pipes are closed.
    pub fn close(&self, instance: InstanceId, run: Run) {
        self.0.send(Command::Close(instance, run));
    }

    /// Notes an abnormal end, as soon as the run's output is complete. `facts` is a JSON object that holds
    /// `instance`, `run`, `pid`, `at`.
    pub fn crash(&self, instance: InstanceId, run: Run, facts: String) {
        self.0.send(Command::Crash(instance, run, facts));
    }

    /// Calls `done` when all that was there at this call is in the files.
    pub fn flush(&self, done: impl FnOnce() + Send + 'static) {
        self.0.send(Command::Flush(Box::new(done)));
    }

    /// Takes a changed `logs` section (all but `dir`).
    pub fn configure(&self, spec: LogsSpec) {
        self.0.send(Command::Configure(Box::new(spec)));
    }

    /// Opens files anew that somebody renamed (SIGUSR1).
    pub fn reopen(&self) {
        self.0.send(Command::Reopen);
    }

    /// Reads what is in the pipes, writes it to the disk and ends; [`Started::thread`] can be joined then.
    pub fn stop(&self) {
        self.0.send(Command::Stop);
    }

    /// What is missing since the start, whose, and why.
    pub fn account(&self) -> Account {
        self.0.shared.account()
    }

    /// What is lost without a gap in the files, once the thread has ended: the disk failed to the end.
    pub fn untold(&self) -> Vec<Untold> {
        self.0.shared.untold()
    }

    /// The state of the log.
    pub fn stats(&self) -> LogStats {
        let shared = &self.0.shared;
        let writing = shared.writing.load(Ordering::Relaxed);
        LogStats {
            records: shared.records.load(Ordering::Relaxed),
            bytes: shared.bytes.load(Ordering::Relaxed),
            dropped: shared.account().total().dropped(),
            sources: shared.sources.load(Ordering::Relaxed),
            store_bytes: shared.store_bytes.load(Ordering::Relaxed),
            next_seq: shared.next_seq.load(Ordering::Relaxed),
            degraded: shared.degraded.load(Ordering::Relaxed),
            stalled: (writing > 0)
                .then(|| shared.began.elapsed().saturating_sub(Duration::from_micros(writing - 1))),
        }
    }
}
