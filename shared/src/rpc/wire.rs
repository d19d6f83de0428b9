//! What others hold of a connection while its task ([`link`](super::link)) reads and writes it: where to put messages, and how it is.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::endpoint::{CallId, call_id};
use super::reply::Begun;
use crate::wire::message::Message;
use crate::wire::words::Word;
use crate::wire::zmtp::{self, Hello};

/// Whether a connection is good for calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Not heard from yet, or not connected.
    Unknown,
    /// Heard from of late.
    Responsive,
    /// A call was given up, and nothing was heard since it was made.
    Doubtful,
    /// Silent for too long.
    Unresponsive,
    /// Refused a connection, or broke one off, a moment ago.
    Refused,
}

/// What others hold of a connection: where to put messages, and how it is.
pub(super) struct Wire {
    out: Mutex<Out>,
    /// Something waits in `out`, or the connection is to be closed.
    wake: Notify,
    limit: usize,
    /// Milliseconds after `born` at which something was heard; 0 = never.
    heard: AtomicU64,
    born: Instant,
    /// Milliseconds after `born` at which hands were shaken.
    shaken: AtomicU64,
    /// Milliseconds after `born` of the last sign, while a ping is not answered; 0 = all are.
    unanswered: AtomicU64,
    /// Milliseconds after `born` at which we last looked after it ourselves.
    ticked: AtomicU64,
    doubtful: AtomicBool,
    /// Of a server: nothing more is begun.
    leaving: AtomicBool,
    /// Of a server that leaves: requests may still be on their way.
    is_awaited: AtomicBool,
    /// Of a server: requests that can be ended.
    pub(super) begun: Mutex<Begun>,
    /// Calls that wait for an answer over it (a client's), or that are being worked on (a server's).
    pub(super) open: AtomicU32,
    /// Milliseconds after `born` at which it was last used for a call.
    used: AtomicU64,
}

struct Out {
    bytes: Vec<u8>,
    /// For [`Message::write_to`].
    headers: Vec<u8>,
    closed: bool,
    /// Before hands are shaken: which messages wait in `bytes`, and how long each is.
    early: Option<Vec<(CallId, usize)>>,
    /// Whether the other side understands cancels.
    cancels: bool,
    /// Whether it understands that we end.
    leaves: bool,
    /// It was told that no request follows.
    left: bool,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// So many bytes wait that the other side does not seem to read.
    Full,
    /// The connection has ended.
    Closed,
}

impl Wire {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            out: Mutex::new(Out {
                bytes: Vec::new(),
                headers: Vec::new(),
                closed: false,
                early: None,
                cancels: false,
                leaves: false,
                left: false,
            }),
            leaving: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
            wake: Notify::new(),
            limit,
            heard: AtomicU64::new(0),
            born: Instant::now(),
            shaken: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            ticked: AtomicU64::new(0),
            doubtful: AtomicBool::new(false),
            begun: Mutex::default(),
            open: AtomicU32::new(0),
            used: AtomicU64::new(0),
        })
    }

    /// One whose hands are to be shaken.
    pub(super) fn early(limit: usize) -> Arc<Self> {
        let wire = Self::new(limit);
        wire.with(|out| out.early = Some(Vec::new()));
        wire
    }

    /// Hands are shaken.
    pub(super) fn shaken(&self, peer: &Hello) {
        self.with(|out| {
            (out.early, out.cancels, out.leaves) = (None, peer.cancels, peer.leaves);
        });
        let now = self.elapsed();
        self.shaken.store(now, Ordering::Relaxed);
        self.ticked.store(now, Ordering::Relaxed);
    }

    /// Exchanges what waits for an empty buffer; whether the connection is to be closed.
    pub(super) fn take(&self, empty: &mut Vec<u8>) -> bool {
        self.with(|out| {
            std::mem::swap(&mut out.bytes, empty);
            out.closed
        })
    }

    /// Waits until there is something to [`Wire::take`].
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Adds bytes, whatever waits already; its task looks at them by itself.
    pub(super) fn put(&self, bytes: &[u8]) {
        self.with(|out| out.bytes.extend_from_slice(bytes));
    }

    fn with<T>(&self, work: impl FnOnce(&mut Out) -> T) -> T {
        work(&mut self.out.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Queues a message. Never waits.
    pub(super) fn send(&self, message: &Message) -> Result<(), NotTaken> {
        self.queue(|out| message.write_to(&mut out.bytes, &mut out.headers))
    }

    /// Queues a request of ours. Never waits.
    pub(super) fn request(&self, message: &Message) -> Result<(), NotTaken> {
        self.queue_if(
            |out| !out.left,
            |out| {
                let before = out.bytes.len();
                message.write_to(&mut out.bytes, &mut out.headers);
                if let Some(early) = &mut out.early {
                    let id = call_id(&message.id).unwrap_or_default();
                    early.push((id, out.bytes.len() - before));
                }
            },
        )
    }

    /// Nobody waits for the answer to this request of ours any longer: it is taken back, or the other side told.
    pub(super) fn give_up(&self, id: CallId) {
        let take_back = |out: &mut Out| {
            let Some(early) = &mut out.early else { return false };
            if let Some(at) = early.iter().position(|(one, _)| *one == id) {
                let start: usize = early[..at].iter().map(|(_, length)| length).sum();
                let (_, length) = early.remove(at);
                out.bytes.drain(start..start + length);
            }
            true
        };
        if !self.with(take_back) && self.with(|out| out.cancels) {
            // Where so much waits that it is not taken, the request has its own limit.
            let id = format!("{id:032x}");
            let _ = self.queue(|out| Word::Cancel(id.as_bytes()).write(&mut out.bytes));
        }
    }

    /// Queues a message of these frames. Never waits.
    pub(super) fn send_frames<F: AsRef<[u8]>>(&self, frames: &[F]) -> Result<(), NotTaken> {
        self.queue(|out| zmtp::write_message(&mut out.bytes, frames))
    }

    fn queue(&self, write: impl FnOnce(&mut Out)) -> Result<(), NotTaken> {
        self.queue_if(|_| true, write)
    }

    fn queue_if(
        &self,
        is_open: impl FnOnce(&Out) -> bool,
        write: impl FnOnce(&mut Out),
    ) -> Result<(), NotTaken> {
        let first = self.with(|out| {
            if out.closed || !is_open(out) {
                return Err(NotTaken::Closed);
            }
            // A single large message passes where nothing waits.
            if out.bytes.len() > self.limit {
                return Err(NotTaken::Full);
            }
            let first = out.bytes.is_empty();
            write(out);
            Ok(first)
        })?;
        if first {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// How many bytes wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.with(|out| out.bytes.len())
    }

    /// Lets the connection's task end.
    pub(super) fn close(&self) {
        self.with(|out| out.closed = true);
        self.wake.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.with(|out| out.closed)
    }

    /// Whether a request of ours may be put here.
    pub(super) fn takes_requests(&self) -> bool {
        self.with(|out| !out.closed && !out.left)
    }

    /// We end: a caller of ours is told, and nothing more is begun for it.
    pub(super) fn say_leave(&self) {
        let is_told = self.with(|out| {
            if !out.leaves || out.closed || self.leaving.swap(true, Ordering::SeqCst) {
                return false;
            }
            self.is_awaited.store(true, Ordering::SeqCst);
            Word::Leave.write(&mut out.bytes);
            true
        });
        if is_told {
            self.wake.notify_one();
        }
    }

    /// Whether nothing more is begun.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// The caller says that no request follows.
    pub(super) fn nothing_follows(&self) {
        self.is_awaited.store(false, Ordering::SeqCst);
    }

    /// Whether requests may still be on their way from a caller that was told of the end.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_awaited.load(Ordering::SeqCst)
    }

    /// Says that a request came too late.
    pub(super) fn refuse(&self, id: &str) {
        self.tell(|out| Word::Refused(id.as_bytes()).write(&mut out.bytes));
    }

    /// Queues an answer. Never waits.
    pub(super) fn answer(&self, message: &Message) {
        self.tell(|out| message.write_to(&mut out.bytes, &mut out.headers));
    }

    /// Who does not read what it is told is told by the end of its connection.
    fn tell(&self, write: impl FnOnce(&mut Out)) {
        if self.queue(write) == Err(NotTaken::Full) {
            tracing::warn!("a caller does not read its answers: closed");
            self.close();
        }
    }

    /// The other side ends: it gets no request after this.
    pub(super) fn say_left(&self) {
        self.with(|out| {
            if !std::mem::replace(&mut out.left, true) {
                Word::Left.write(&mut out.bytes);
            }
        });
        self.wake.notify_one();
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// The other side gave a sign of life, here or on a connection of its own; how long there was none before.
    pub(super) fn hear(&self) -> Duration {
        let now = self.elapsed();
        let before = self.heard.load(Ordering::Relaxed);
        self.heard.store(now, Ordering::Relaxed);
        self.unanswered.store(0, Ordering::Relaxed);
        self.doubtful.store(false, Ordering::Relaxed);
        Duration::from_millis(now.saturating_sub(before))
    }

    /// A call is made over it.
    pub(super) fn mark_used(&self) {
        self.used.store(self.elapsed(), Ordering::Relaxed);
    }

    /// How long nothing was heard.
    pub(super) fn silence(&self) -> Duration {
        Duration::from_millis(self.elapsed().saturating_sub(self.heard.load(Ordering::Relaxed)))
    }

    /// How long no call was made.
    pub(super) fn idle(&self) -> Duration {
        Duration::from_millis(self.elapsed().saturating_sub(self.used.load(Ordering::Relaxed)))
    }

    /// A ping was sent. `since`: the last sign counts, or else only this moment.
    pub(super) fn asked(&self, since: Since) {
        let at = match since {
            Since::LastSign => {
                self.heard.load(Ordering::Relaxed).max(self.shaken.load(Ordering::Relaxed)).max(1)
            }
            Since::Now => self.elapsed(),
        };
        let _ = self.unanswered.compare_exchange(0, at, Ordering::Relaxed, Ordering::Relaxed); // the first counts
    }

    /// It was we who did not listen: nothing is held against the other side.
    pub(super) fn forgive(&self) {
        self.unanswered.store(0, Ordering::Relaxed);
    }

    /// How long it has owed us a sign.
    pub(super) fn silent(&self) -> Duration {
        match self.unanswered.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            at => Duration::from_millis(self.elapsed().saturating_sub(at)),
        }
    }

    /// We look after it now; how long we did not.
    pub(super) fn tick(&self) -> Duration {
        let now = self.elapsed();
        Duration::from_millis(now.saturating_sub(self.ticked.swap(now, Ordering::Relaxed)))
    }

    /// A call was given up after so long. Without a sign in this time the other side is doubted; whether that is new.
    pub(super) fn doubt(&self, waited: Duration) -> Option<Doubt> {
        (self.silence() >= waited).then(|| {
            if self.doubtful.swap(true, Ordering::Relaxed) { Doubt::Old } else { Doubt::New }
        })
    }

    /// How it is: silent after `timeout`, where we look after it each `tick`.
    pub(super) fn liveness(&self, timeout: Duration, tick: Duration) -> Liveness {
        let looked = || self.elapsed().saturating_sub(self.ticked.load(Ordering::Relaxed));
        // Who was paused blames nobody before it has looked.
        if self.silent() >= timeout && u128::from(looked()) <= 2 * tick.as_millis() {
            Liveness::Unresponsive
        } else if self.doubtful.load(Ordering::Relaxed) {
            Liveness::Doubtful
        } else if self.heard.load(Ordering::Relaxed) == 0 {
            Liveness::Unknown
        } else {
            Liveness::Responsive
        }
    }
}

/// From when on silence counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Since {
    LastSign,
    Now,
}

/// Whether somebody was doubted before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    New,
    Old,
}
