//! One connection: its handshake, and the task that reads and writes it.

use std::io;
use std::time::Duration;

use foldhash::HashSet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::endpoint::{CallId, call_id};
use super::network::Stream;
use super::room::Room;
use super::wire::Wire;
use crate::wire::words::Word;
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
    /// Messages that have not come whole hold too much memory, over all connections, and this one's came no further for the longest.
    #[error(
        "messages that have not come whole hold more than {limit} bytes over all connections, and here one stood still"
    )]
    Crowded {
        /// What they may hold.
        limit: usize,
    },
    /// The service said that it ends: the request came too late, and nothing of it was begun.
    #[error("the service ends")]
    Leaving,
    /// We have no more use for it.
    #[error("it was not used any more")]
    Idle,
}

/// So many messages are handed on before others may run and what they answered is written: the other side works on the
/// first answers while we work on the last requests.
const SOME: usize = 16;

/// Who has not looked for so long may have been paused: what came meanwhile is looked through for cancels before the first
/// request of it is begun. (While much comes nobody is quiet for so long, so it costs nothing then.)
const PAUSE: Duration = Duration::from_millis(10);
/// So many bytes are looked through, roughly: what the kernel holds of a connection, and a few large requests.
const AHEAD: usize = 1 << 20;

/// A connection after its handshake.
pub(super) struct Link {
    stream: Stream,
    reader: Reader,
    /// Requests that are cancelled further on in what has come.
    cancelled: Vec<Vec<u8>>,
    /// Who is there.
    pub(super) peer: Hello,
    /// What it may hold of messages that have not come whole.
    pub(super) room: Option<Room>,
}

/// What is being written, and how much of it is.
#[derive(Default)]
struct Sending {
    bytes: Vec<u8>,
    sent: usize,
}

/// A connection that has ended.
pub(super) struct Over {
    /// How.
    pub(super) error: LinkError,
    sending: Sending,
}

impl Over {
    /// The requests that did not reach the other side, as not all of them was written. `wire` is closed.
    pub(super) fn unsent(&self, wire: &Wire) -> HashSet<CallId> {
        let mut rest = Vec::new();
        wire.take(&mut rest);
        let begun = zmtp::unwritten(&self.sending.bytes, self.sending.sent);
        let ids = begun.into_iter().chain(zmtp::unwritten(&rest, 0));
        ids.filter_map(|id| call_id(std::str::from_utf8(id).ok()?)).collect()
    }
}

/// What a connection's task asks its owner.
pub(super) trait Owner {
    /// A message came.
    fn message(&mut self, frames: &[&[u8]]);

    /// The other side said something that concerns its requests, or ours.
    fn word(&mut self, _word: Word<'_>) {}

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
        Ok(Self { stream, reader, cancelled: Vec::new(), peer, room: None })
    }

    /// Reads and writes until the connection ends, or its owner ends it; an orderly end writes first what waits.
    pub(super) async fn run(
        mut self,
        wire: &Wire,
        owner: &mut (impl Owner + Send),
        interval: Duration,
    ) -> Over {
        let mut sending = Sending::default();
        let error = self.exchange(wire, owner, interval, &mut sending).await;
        Over { error, sending }
    }

    async fn exchange(
        &mut self,
        wire: &Wire,
        owner: &mut (impl Owner + Send),
        interval: Duration,
        Sending { bytes: sending, sent }: &mut Sending,
    ) -> LinkError {
        let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Something may have come together with the handshake.
        let mut more = true;
        loop {
            if *sent == sending.len() {
                sending.clear();
                *sent = 0;
                let closed = wire.take(sending);
                if out_of_proportion(sending) {
                    *sending = Vec::new();
                }
                if closed && sending.is_empty() {
                    return LinkError::Idle;
                }
            }
            if !more {
                self.reader.space(); // a large buffer that is empty goes here
                if let Some(room) = &mut self.room
                    && !room.holds(self.reader.size())
                {
                    return LinkError::Crowded { limit: room.limit() };
                }
            }
            let writing = *sent < sending.len();
            tokio::select! {
                read = self.stream.read.read(self.reader.space()), if !more => match read {
                    Ok(0) => return LinkError::Closed,
                    Ok(count) => {
                        self.reader.filled(count);
                        if wire.hear() >= PAUSE && self.look_ahead().await && self.is_asked() {
                            return LinkError::Closed; // nobody can be answered any longer
                        }
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
                written = self.stream.write.write(&sending[*sent..]), if writing => match written {
                    Ok(0) => return LinkError::Closed,
                    Ok(count) => *sent += count,
                    Err(error) => return error.into(),
                },
                () = wire.woken(), if !writing => {}
                limit = put_out(self.room.as_ref()) => return LinkError::Crowded { limit },
                _ = ticks.tick() => if let Err(error) = owner.tick() {
                    return error;
                },
            }
        }
    }

    /// Whether who is there asks, and is answered on this connection.
    fn is_asked(&self) -> bool {
        self.peer.socket_type == "DEALER"
    }

    /// Reads what is there already, and notes what of it is cancelled; whether the other side has closed it. An end or an error comes
    /// again with the next read.
    async fn look_ahead(&mut self) -> bool {
        let mut ahead = 0;
        let mut closed = false;
        while ahead < AHEAD {
            let read = tokio::select! {
                biased;
                read = self.stream.read.read(self.reader.space()) => read,
                () = std::future::ready(()) => break,
            };
            match read {
                Ok(count @ 1..) => {
                    self.reader.filled(count);
                    ahead += count;
                }
                Ok(_) => {
                    closed = true;
                    break;
                }
                Err(_) => break,
            }
        }
        self.cancelled = self.reader.cancelled_ahead();
        closed
    }

    /// Hands on some of the messages that have come whole; the answer is whether there may be more.
    fn deliver(&mut self, wire: &Wire, owner: &mut impl Owner) -> Result<bool, LinkError> {
        let mut messages = 0;
        while messages < SOME {
            let Some(item) = self.reader.next_item()? else {
                return Ok(false);
            };
            match item {
                Item::Message(frames) => {
                    messages += 1;
                    if self.cancelled.iter().any(|id| frames.first() == Some(&id.as_slice())) {
                        continue; // nothing of it was begun, and nobody waits
                    }
                    owner.message(&frames);
                }
                Item::Command(body) => {
                    if let Some(word) = Word::read(body) {
                        if let Word::Cancel(id) = word {
                            self.cancelled.retain(|known| known != id);
                        }
                        owner.word(word);
                    } else if let Some(pong) = zmtp::pong(body) {
                        wire.put(&pong);
                    }
                }
            }
        }
        Ok(true)
    }
}

/// Waits until others have taken the room of what has not come whole; what all may hold.
async fn put_out(room: Option<&Room>) -> usize {
    match room.filter(|room| room.is_taken()) {
        Some(room) => {
            room.put_out().await;
            room.limit()
        }
        None => std::future::pending().await,
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
