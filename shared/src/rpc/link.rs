//! One connection: its handshake, and the task that reads and writes it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::network::Stream;
use crate::wire::message::Message;
use crate::wire::zmtp::{self, GREETING, Hello, Item, Reader, ZmtpError};

/// Why a connection ended, or never began.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The system's word.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other side does not speak our language.
    #[error("{0}")]
    Zmtp(#[from] ZmtpError),
    /// It did not shake hands in time.
    #[error("no handshake within {0:?}")]
    Handshake(Duration),
    /// It closed the connection.
    #[error("the other side closed it")]
    Closed,
    /// It said nothing for this long.
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    /// We have no more use for it.
    #[error("it was not used any more")]
    Idle,
}

/// Whether a connection is good for calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Not heard from yet, or not connected.
    Unknown,
    /// Heard from of late.
    Responsive,
    /// Silent for too long.
    Unresponsive,
    /// Refused a connection, or broke one off, a moment ago.
    Refused,
}

/// So many messages are handed on before others may run and what they answered is written: the other side works on the
/// first answers while we work on the last requests.
const SOME: usize = 16;

/// What others hold of a connection: where to put messages, and how it is.
pub(super) struct Wire {
    out: Mutex<Out>,
    /// Something waits in `out`, or the connection is to be closed.
    wake: Notify,
    limit: usize,
    /// Milliseconds after `born` at which something was heard; 0 = never.
    heard: AtomicU64,
    born: Instant,
    unresponsive: AtomicBool,
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
            out: Mutex::new(Out { bytes: Vec::new(), headers: Vec::new(), closed: false }),
            wake: Notify::new(),
            limit,
            heard: AtomicU64::new(0),
            born: Instant::now(),
            unresponsive: AtomicBool::new(false),
            open: AtomicU32::new(0),
            used: AtomicU64::new(0),
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Out) -> T) -> T {
        work(&mut self.out.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Queues a message. Never waits.
    pub(super) fn send(&self, message: &Message) -> Result<(), NotTaken> {
        self.queue(|out| message.write_to(&mut out.bytes, &mut out.headers))
    }

    /// Queues a message of these frames. Never waits.
    pub(super) fn send_frames<F: AsRef<[u8]>>(&self, frames: &[F]) -> Result<(), NotTaken> {
        self.queue(|out| zmtp::write_message(&mut out.bytes, frames))
    }

    fn queue(&self, write: impl FnOnce(&mut Out)) -> Result<(), NotTaken> {
        let first = self.with(|out| {
            if out.closed {
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

    fn elapsed(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// The other side gave a sign of life, here or on a connection of its own.
    pub(super) fn hear(&self) {
        self.heard.store(self.elapsed(), Ordering::Relaxed);
        self.unresponsive.store(false, Ordering::Relaxed);
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

    pub(super) fn set_unresponsive(&self) {
        self.unresponsive.store(true, Ordering::Relaxed);
    }

    pub(super) fn liveness(&self) -> Liveness {
        if self.unresponsive.load(Ordering::Relaxed) {
            Liveness::Unresponsive
        } else if self.heard.load(Ordering::Relaxed) == 0 {
            Liveness::Unknown
        } else {
            Liveness::Responsive
        }
    }
}

/// A connection after its handshake.
pub(super) struct Link {
    stream: Stream,
    reader: Reader,
    /// Who is there.
    pub(super) peer: Hello,
}

/// What a connection's task asks its owner.
pub(super) trait Owner {
    /// A message came.
    fn message(&mut self, frames: &[&[u8]]);

    /// Called in every interval: whether the connection is to go on.
    fn tick(&mut self) -> Result<(), LinkError>;
}

impl Link {
    /// Shakes hands. Both sides speak at once, so it takes half a round trip.
    pub(super) async fn open(
        mut stream: Stream,
        hello: &Hello,
        max_message: usize,
        within: Duration,
    ) -> Result<Self, LinkError> {
        let mut opening = zmtp::greeting().to_vec();
        zmtp::write_ready(&mut opening, hello);
        let shake = async {
            stream.write_all(&opening).await?;
            let mut greeting = [0; GREETING];
            stream.read.read_exact(&mut greeting).await.map_err(end_is_closed)?;
            zmtp::check_greeting(&greeting)?;
            let mut reader = Reader::new(max_message);
            loop {
                match reader.next_item()? {
                    Some(Item::Command(body)) => {
                        let peer = zmtp::read_ready(body)?;
                        return Ok((reader, peer));
                    }
                    Some(Item::Message(_)) => {
                        return Err(ZmtpError::Malformed { what: "handshake" }.into());
                    }
                    None => {}
                }
                match stream.read.read(reader.space()).await? {
                    0 => return Err(LinkError::Closed),
                    count => reader.filled(count),
                }
            }
        };
        let (reader, peer) = tokio::time::timeout(within, shake)
            .await
            .map_err(|_| LinkError::Handshake(within))??;
        Ok(Self { stream, reader, peer })
    }

    /// Reads and writes until the connection ends, or its owner ends it; an orderly end writes first what waits.
    pub(super) async fn run(
        mut self,
        wire: &Wire,
        owner: &mut (impl Owner + Send),
        interval: Duration,
    ) -> LinkError {
        let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sending = Vec::new();
        let mut sent = 0;
        // Something may have come together with the handshake.
        let mut more = true;
        loop {
            if sent == sending.len() {
                sending.clear();
                sent = 0;
                let closed = wire.with(|out| {
                    std::mem::swap(&mut out.bytes, &mut sending);
                    out.closed
                });
                if out_of_proportion(&sending) {
                    sending = Vec::new();
                }
                if closed && sending.is_empty() {
                    return LinkError::Idle;
                }
            }
            let writing = sent < sending.len();
            tokio::select! {
                read = self.stream.read.read(self.reader.space()), if !more => match read {
                    Ok(0) => return LinkError::Closed,
                    Ok(count) => {
                        self.reader.filled(count);
                        match self.deliver(wire, owner) {
                            Ok(rest) => more = rest,
                            Err(error) => return error,
                        }
                    }
                    Err(error) => return error.into(),
                },
                () = tokio::task::yield_now(), if more => match self.deliver(wire, owner) {
                    Ok(rest) => more = rest,
                    Err(error) => return error,
                },
                written = self.stream.write.write(&sending[sent..]), if writing => match written {
                    Ok(0) => return LinkError::Closed,
                    Ok(count) => sent += count,
                    Err(error) => return error.into(),
                },
                () = wire.wake.notified(), if !writing => {}
                _ = ticks.tick() => if let Err(error) = owner.tick() {
                    return error;
                },
            }
        }
    }

    /// Hands on some of the messages that have come whole; the answer is whether there may be more.
    fn deliver(&mut self, wire: &Wire, owner: &mut impl Owner) -> Result<bool, LinkError> {
        wire.hear();
        let mut messages = 0;
        while messages < SOME {
            let Some(item) = self.reader.next_item()? else {
                return Ok(false);
            };
            match item {
                Item::Message(frames) => {
                    owner.message(&frames);
                    messages += 1;
                }
                Item::Command(body) => {
                    if let Some(pong) = zmtp::pong(body) {
                        wire.with(|out| out.bytes.extend_from_slice(&pong));
                    }
                }
            }
        }
        Ok(true)
    }
}

/// An empty buffer that one large message has blown up is not kept.
fn out_of_proportion(buffer: &Vec<u8>) -> bool {
    buffer.is_empty() && buffer.capacity() > 1 << 20
}

fn end_is_closed(error: io::Error) -> LinkError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => LinkError::Closed,
        _ => error.into(),
    }
}

impl Stream {
    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write.write_all(bytes).await
    }
}
