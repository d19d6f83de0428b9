//! Between the log's threads and the rest of the node: commands, the bell, figures that all see, reports.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hilum_shared::config::spec::{LogPolicy, LogsSpec};
use hilum_shared::name::{InstanceId, Run, ServiceName};
use hilum_shared::protocol::LogRecord;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::account::{Account, Untold, Why};
use super::handle::{Done, LogReport, NodeRecord, Refused, Source};

/// What all threads see.
pub(super) struct Shared {
    pub(super) began: Instant,
    bell: EventFd,
    /// Whether the bell was rung and not heard yet.
    rung: AtomicBool,
    /// Whether the node is about to send more, and whether something waits for its last word.
    pub(super) quiet: AtomicBool,
    unrung: AtomicBool,
    /// Whether the log thread waits for a batch.
    pub(super) waiting: AtomicBool,
    /// Whether structured records have to wait.
    pub(super) holding: AtomicBool,
    pub(super) queued: AtomicUsize,
    pub(super) unqueued: AtomicU64,
    pub(super) records: AtomicU64,
    pub(super) bytes: AtomicU64,
    account: Mutex<Account>,
    untold: Mutex<Vec<Untold>>,
    pub(super) sources: AtomicU64,
    pub(super) store_bytes: AtomicU64,
    pub(super) next_seq: AtomicU64,
    pub(super) degraded: AtomicBool,
    /// Microseconds since `began`, plus one; 0 = no write at hand.
    pub(super) writing: AtomicU64,
}

impl Shared {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            began: Instant::now(),
            bell: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            rung: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            unrung: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            holding: AtomicBool::new(false),
            queued: AtomicUsize::new(0),
            unqueued: AtomicU64::new(0),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            account: Mutex::default(),
            untold: Mutex::default(),
            sources: AtomicU64::new(0),
            store_bytes: AtomicU64::new(0),
            next_seq: AtomicU64::new(0),
            degraded: AtomicBool::new(false),
            writing: AtomicU64::new(0),
        })
    }

    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            let _ = self.bell.write(1); // only a counter at its end could refuse, and that rings, too
        }
    }

    /// Stops the ringing: called by the log thread before it looks at what there is.
    pub(super) fn heard(&self) {
        let _ = self.bell.read(); // EAGAIN: it was not rung
        self.rung.store(false, Ordering::SeqCst);
    }

    pub(super) fn bell(&self) -> &EventFd {
        &self.bell
    }

    pub(super) fn batch_is_back(&self) {
        if self.waiting.swap(false, Ordering::SeqCst) {
            self.ring();
        }
    }

    /// Adds to the account of losses.
    pub(super) fn lose(&self, name: &Arc<str>, run: Run, why: Why, lines: u64) {
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        account.add(name, run, why, lines);
    }

    /// The account of losses.
    pub(super) fn account(&self) -> Account {
        self.account.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what the end left without a gap.
    pub(super) fn leave_untold(&self, untold: Vec<Untold>) {
        *self.untold.lock().unwrap_or_else(PoisonError::into_inner) = untold;
    }

    /// What the end left without a gap.
    pub(super) fn untold(&self) -> Vec<Untold> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn taken(&self, bytes: usize) {
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn writing(&self) {
        let now = self.began.elapsed().as_micros() as u64 + 1;
        self.writing.store(now, Ordering::Relaxed);
    }

    pub(super) fn written(&self) {
        self.writing.store(0, Ordering::Relaxed);
    }
}

/// What the log thread is asked for.
pub(super) enum Command {
    Attach(Box<Source>, OwnedFd, Option<OwnedFd>),
    AttachAfter(Box<NodeRecord>, usize, Box<Source>, OwnedFd, Option<OwnedFd>),
    AttachAside(Box<Source>, OwnedFd, OwnedFd),
    Policy(ServiceName, Arc<LogPolicy>),
    Structured(InstanceId, Run, u32, Vec<LogRecord>, Refused, usize),
    Node(Box<NodeRecord>, usize),
    Ended(InstanceId, Run, Done),
    Close(InstanceId, Run),
    Crash(InstanceId, Run, String),
    Flush(Done),
    Configure(Box<LogsSpec>),
    Reopen,
    Stop,
}

pub(super) struct Post {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) shared: Arc<Shared>,
}

impl Post {
    pub(super) fn send(&self, command: Command) {
        if self.commands.send(command).is_err() {
            return;
        }
        if self.shared.quiet.load(Ordering::SeqCst) {
            self.shared.unrung.store(true, Ordering::SeqCst);
            // Whoever ended the quiet meanwhile may not have seen that.
            if self.shared.quiet.load(Ordering::SeqCst) {
                return;
            }
        }
        self.shared.ring();
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.send(Command::Stop);
    }
}

/// While it lives the log thread is not woken; see [`super::handle::LogHandle::quietly`].
pub struct Quiet(pub(super) Arc<Post>);

impl Drop for Quiet {
    fn drop(&mut self) {
        let shared = &self.0.shared;
        shared.quiet.store(false, Ordering::SeqCst);
        if shared.unrung.swap(false, Ordering::SeqCst) {
            shared.ring();
        }
    }
}

/// Reports on their way out. What the reader has no room for waits here.
pub(super) struct Reports {
    sender: tokio::sync::mpsc::Sender<LogReport>,
    waiting: VecDeque<LogReport>,
}

/// More than this and a report is given up: the reader has long been gone or stuck.
const MOST_WAITING: usize = 65_536;

impl Reports {
    pub(super) fn new(sender: tokio::sync::mpsc::Sender<LogReport>) -> Self {
        Self { sender, waiting: VecDeque::new() }
    }

    pub(super) fn send(&mut self, report: LogReport) {
        if self.waiting.len() < MOST_WAITING {
            self.waiting.push_back(report);
        }
        self.flush();
    }

    pub(super) fn waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn flush(&mut self) {
        use tokio::sync::mpsc::error::TrySendError;
        while let Some(report) = self.waiting.pop_front() {
            match self.sender.try_send(report) {
                Ok(()) => {}
                Err(TrySendError::Full(report)) => {
                    self.waiting.push_front(report);
                    return;
                }
                Err(TrySendError::Closed(_)) => self.waiting.clear(),
            }
        }
    }
}
