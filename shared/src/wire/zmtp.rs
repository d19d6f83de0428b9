//! ZeroMQ's wire, ZMTP 3.0 with the NULL mechanism: bytes in, messages out; no sockets.
//!
//! Spoken on every connection of [`crate::rpc`]: what libzmq says on a DEALER or a ROUTER, without its threads. A greeting of 64
//! bytes and one READY command each way, then frames: a byte of flags, a length of 1 or 8 bytes, the content.
//! Written from the specification, <https://rfc.zeromq.org/spec/23/>.

use std::ops::Range;

use super::limits::MAX_FRAMES;
use super::words::Word;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// The property of a READY by which one of ours says that it understands cancels.
const CANCELS: &str = "X-Cancel";
/// The one by which it says that it wants to hear of a service's end.
const LEAVES: &str = "X-Leave";

/// How many bytes a greeting has.
pub const GREETING: usize = 64;
/// A READY command with the metadata of a stranger may have so many bytes.
const MAX_COMMAND: usize = 64 * 1024;

/// What a peer says of itself in its READY command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// `DEALER`, `ROUTER`, …
    pub socket_type: String,
    /// The routing id that it wants to be known by; may be empty.
    pub identity: Vec<u8>,
    /// Whether it understands [`Word::Cancel`]: one of ours that answers requests.
    pub cancels: bool,
    /// Whether it understands [`Word::Leave`] and [`Word::Refused`]: one of ours that makes them.
    pub leaves: bool,
}

/// Why bytes are not ZMTP, or not what we speak of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZmtpError {
    /// Something else than ZeroMQ, or older than ZeroMQ 4.
    #[error("the other side does not speak ZMTP 3")]
    Greeting,
    /// It wants to be sure who we are.
    #[error("the other side asks for the mechanism `{name}`; only NULL is spoken")]
    Mechanism {
        /// Which.
        name: String,
    },
    /// The handshake failed on its side.
    #[error("the other side refused the connection: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// A command or a frame that the specification does not know.
    #[error("malformed {what}")]
    Malformed {
        /// What.
        what: &'static str,
    },
    /// More frames than are taken.
    #[error("a message of more than {MAX_FRAMES} frames")]
    TooMany,
    /// More bytes than are taken.
    #[error("a message of {size} bytes or more: at most {limit} are taken")]
    TooLarge {
        /// Those that its frames said so far.
        size: u64,
        /// The limit in bytes.
        limit: usize,
    },
}

/// The greeting that opens a connection, the same from both sides.
pub fn greeting() -> [u8; GREETING] {
    let mut bytes = [0; GREETING];
    bytes[0] = 0xff;
    bytes[9] = 0x7f;
    bytes[10] = 3;
    bytes[12..16].copy_from_slice(b"NULL");
    bytes
}

/// Checks the other side's greeting.
///
/// # Errors
/// When it is not ZMTP 3 or not NULL.
pub fn check_greeting(bytes: &[u8; GREETING]) -> Result<(), ZmtpError> {
    if bytes[0] != 0xff || bytes[9] & 1 == 0 || bytes[10] < 3 {
        return Err(ZmtpError::Greeting);
    }
    let name = &bytes[12..32];
    let name = &name[..name.iter().position(|byte| *byte == 0).unwrap_or(name.len())];
    match name {
        b"NULL" => Ok(()),
        other => Err(ZmtpError::Mechanism { name: String::from_utf8_lossy(other).into_owned() }),
    }
}

/// Writes the READY command.
pub fn write_ready(out: &mut Vec<u8>, hello: &Hello) {
    let mut body = b"\x05READY".to_vec();
    let known =
        [("Socket-Type", hello.socket_type.as_bytes()), ("Identity", hello.identity.as_slice())];
    // Names with an X are for applications; libzmq passes over those that it does not know.
    let ours = [(CANCELS, hello.cancels), (LEAVES, hello.leaves)];
    let ours = ours.iter().filter(|(_, is_so)| *is_so).map(|(name, _)| (*name, &b"1"[..]));
    for (name, value) in known.into_iter().chain(ours) {
        body.push(name.len() as u8);
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&(value.len() as u32).to_be_bytes());
        body.extend_from_slice(value);
    }
    write_frame(out, COMMAND, &body);
}

/// Reads a READY command.
///
/// # Errors
/// When it is another or broken.
pub fn read_ready(body: &[u8]) -> Result<Hello, ZmtpError> {
    let malformed = || ZmtpError::Malformed { what: "READY command" };
    if let Some(reason) = body.strip_prefix(b"\x05ERROR") {
        let reason = String::from_utf8_lossy(reason.get(1..).unwrap_or_default()).into_owned();
        return Err(ZmtpError::Refused { reason });
    }
    let mut rest = body.strip_prefix(b"\x05READY").ok_or_else(malformed)?;
    let mut hello = Hello::default();
    while let Some((length, tail)) = rest.split_first() {
        let (name, tail) = tail.split_at_checked(usize::from(*length)).ok_or_else(malformed)?;
        let (length, tail) = tail.split_first_chunk::<4>().ok_or_else(malformed)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (value, tail) = tail.split_at_checked(length).ok_or_else(malformed)?;
        rest = tail;
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            hello.socket_type = String::from_utf8(value.to_vec()).map_err(|_| malformed())?;
        } else if name.eq_ignore_ascii_case(b"Identity") {
            hello.identity = value.to_vec();
        } else if name.eq_ignore_ascii_case(CANCELS.as_bytes()) {
            hello.cancels = value == b"1";
        } else if name.eq_ignore_ascii_case(LEAVES.as_bytes()) {
            hello.leaves = value == b"1";
        }
    }
    Ok(hello)
}

/// The answer to a PING command, where the command is one.
pub fn pong(body: &[u8]) -> Option<Vec<u8>> {
    let context = body.strip_prefix(b"\x04PING")?.get(2..)?;
    let mut out = Vec::new();
    write_frame(&mut out, COMMAND, &[b"\x04PONG", context].concat());
    Some(out)
}

/// Writes a command: the length of its name, the name, and what belongs to it.
pub(super) fn write_command(out: &mut Vec<u8>, body: &[u8]) {
    write_frame(out, COMMAND, body);
}

/// Writes one message.
pub fn write_message<F: AsRef<[u8]>>(out: &mut Vec<u8>, frames: &[F]) {
    let last = frames.len().saturating_sub(1);
    for (at, frame) in frames.iter().enumerate() {
        write_frame(out, if at < last { MORE } else { 0 }, frame.as_ref());
    }
}

fn write_frame(out: &mut Vec<u8>, flags: u8, body: &[u8]) {
    match u8::try_from(body.len()) {
        Ok(length) => out.extend_from_slice(&[flags, length]),
        Err(_) => {
            out.push(flags | LONG);
            out.extend_from_slice(&(body.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(body);
}

/// The first frames of all messages in what was to be written, of which not all is among the first `written` bytes.
pub fn unwritten(bytes: &[u8], written: usize) -> Vec<&[u8]> {
    let (mut at, mut first, mut found) = (0, None, Vec::new());
    while let Ok(Some((flags, head, length))) = Reader::head(&bytes[at..])
        && let Some(body) = usize::try_from(length)
            .ok()
            .and_then(|length| bytes.get(at + head..(at + head).checked_add(length)?))
    {
        at += head + body.len();
        if flags & COMMAND != 0 {
            continue;
        }
        let begin = *first.get_or_insert(body);
        if flags & MORE == 0 {
            first = None;
            if at > written {
                found.push(begin);
            }
        }
    }
    found
}

/// Cuts what came from a connection into messages.
pub struct Reader {
    /// What came, then room for more.
    buffer: Vec<u8>,
    /// Where the room begins.
    end: usize,
    /// Where the message at hand begins.
    start: usize,
    /// Up to here it was looked at.
    at: usize,
    /// The frames of it that are complete.
    frames: Vec<Range<usize>>,
    limit: usize,
}

/// What a [`Reader`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A whole message.
    Message(Vec<&'a [u8]>),
    /// A command.
    Command(&'a [u8]),
}

/// There is room for so much at least; beyond [`READ`] it is not doubled any more.
const LEAST: usize = 4 * 1024;
const READ: usize = 64 * 1024;

impl Reader {
    /// A reader that takes messages of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), end: 0, start: 0, at: 0, frames: Vec::new(), limit }
    }

    /// Where to put what comes next, 4 KiB or more; [`Self::filled`] says how much came.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.at -= self.start;
            for frame in &mut self.frames {
                *frame = frame.start - self.start..frame.end - self.start;
            }
            self.start = 0;
        }
        if self.end == 0 && self.buffer.len() > 4 * READ {
            self.buffer = Vec::new(); // after one large message
        }
        // Doubled as bytes come, never by what a stranger announces.
        let size = self.buffer.len();
        let room = size.clamp(LEAST, READ);
        if size - self.end < room {
            self.buffer.resize((2 * size).max(self.end + room), 0);
        }
        &mut self.buffer[self.end..]
    }

    /// Bytes of memory that what came, and the room for more, take.
    pub fn size(&self) -> usize {
        self.buffer.len()
    }

    /// So many bytes came into the space.
    ///
    /// # Panics
    /// When they are more than it had.
    pub fn filled(&mut self, count: usize) {
        assert!(count <= self.buffer.len() - self.end, "no more than there was room for");
        self.end += count;
    }

    /// Appends what came elsewhere.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = self.space();
            let (now, rest) = bytes.split_at(bytes.len().min(space.len()));
            space[..now.len()].copy_from_slice(now);
            self.filled(now.len());
            bytes = rest;
        }
    }

    /// The next message or command, if it has come whole.
    ///
    /// # Errors
    /// When it is malformed or too large; the connection is of no use then.
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, ZmtpError> {
        loop {
            let Some((flags, body)) = self.frame()? else { return Ok(None) };
            if flags & COMMAND != 0 {
                if !self.frames.is_empty() {
                    return Err(ZmtpError::Malformed { what: "command inside a message" });
                }
                self.start = body.end;
                return Ok(Some(Item::Command(&self.buffer[body])));
            }
            if self.frames.len() >= MAX_FRAMES {
                return Err(ZmtpError::TooMany);
            }
            self.frames.push(body);
            if flags & MORE == 0 {
                self.start = self.at;
                let frames = self.frames.drain(..).map(|frame| &self.buffer[frame]).collect();
                return Ok(Some(Item::Message(frames)));
            }
        }
    }

    /// The ids of all cancels that have come and are not read yet, behind whatever else there is.
    pub fn cancelled_ahead(&self) -> Vec<Vec<u8>> {
        let (mut at, mut found) = (self.at, Vec::new());
        while let Ok(Some((flags, head, length))) = Self::head(&self.buffer[at..self.end])
            && let Some(body) = usize::try_from(length).ok().and_then(|length| {
                self.buffer[..self.end].get(at + head..(at + head).checked_add(length)?)
            })
        {
            if flags & COMMAND != 0
                && let Some(Word::Cancel(id)) = Word::read(body)
            {
                found.push(id.to_vec());
            }
            at += head + body.len();
        }
        found
    }

    /// How a frame begins: its flags, how many bytes say so, and how many follow.
    fn head(bytes: &[u8]) -> Result<Option<(u8, usize, u64)>, ZmtpError> {
        let Some((&flags, rest)) = bytes.split_first() else { return Ok(None) };
        if flags & !(MORE | LONG | COMMAND) != 0 || flags & (MORE | COMMAND) == MORE | COMMAND {
            return Err(ZmtpError::Malformed { what: "frame" });
        }
        Ok(if flags & LONG == 0 {
            rest.first().map(|length| (flags, 2, u64::from(*length)))
        } else {
            rest.first_chunk::<8>().map(|length| (flags, 9, u64::from_be_bytes(*length)))
        })
    }

    /// The next frame, if it has come whole: its flags and where it lies.
    fn frame(&mut self) -> Result<Option<(u8, Range<usize>)>, ZmtpError> {
        let Some((flags, head, length)) = Self::head(&self.buffer[self.at..self.end])? else {
            return Ok(None);
        };
        let limit = if flags & COMMAND == 0 { self.limit } else { MAX_COMMAND };
        let taken = (self.at - self.start) as u64;
        let size = length.saturating_add(taken);
        if size > limit as u64 {
            return Err(ZmtpError::TooLarge { size, limit });
        }
        let begin = self.at + head;
        let end = begin + length as usize;
        if end > self.end {
            return Ok(None);
        }
        self.at = end;
        Ok(Some((flags, begin..end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_greeting_is_understood_by_its_kind_only() {
        check_greeting(&greeting()).unwrap();
        let mut libzmq = greeting();
        (libzmq[8], libzmq[11]) = (0x16, 1);
        check_greeting(&libzmq).unwrap();
        let mut plain = greeting();
        plain[12..17].copy_from_slice(b"PLAIN");
        assert_eq!(check_greeting(&plain), Err(ZmtpError::Mechanism { name: "PLAIN".into() }));
        assert_eq!(check_greeting(&[b'G'; GREETING]), Err(ZmtpError::Greeting));
        let mut old = greeting();
        old[10] = 2;
        assert_eq!(check_greeting(&old), Err(ZmtpError::Greeting));
    }

    #[test]
    fn ready_says_who_is_there() {
        let hello = Hello {
            socket_type: "ROUTER".into(),
            identity: b"tcp://127.0.0.1:59446".to_vec(),
            cancels: false,
            leaves: false,
        };
        let mut out = Vec::new();
        write_ready(&mut out, &hello);
        // As libzmq wrote it for a Python service.
        let theirs = "043e0552454144590b536f636b65742d5479706500000006524f55544552084964656e74697479000000157463703a2f2f3132372e302e302e313a3539343436";
        let hex = out.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        assert_eq!(hex, theirs);
        assert_eq!(read_ready(&out[2..]), Ok(hello.clone()));
        let ours = Hello { cancels: true, leaves: true, ..hello };
        out.clear();
        write_ready(&mut out, &ours);
        assert_eq!(read_ready(&out[2..]), Ok(ours));
        assert!(
            matches!(read_ready(b"\x05ERROR\x02no"), Err(ZmtpError::Refused { reason }) if reason == "no")
        );
        assert!(read_ready(b"\x05READY\x0bSock").is_err());
    }

    #[test]
    fn ping_is_answered_with_its_context() {
        assert_eq!(pong(b"\x04PING\x00\x0actx").unwrap(), b"\x04\x08\x04PONGctx");
        assert_eq!(pong(b"\x05READY"), None);
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_comes() {
        let mut reader = Reader::new(100);
        reader.push(&[2, 0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(reader.next_item(), Err(ZmtpError::TooLarge { size: 1 << 32, limit: 100 }));
        let mut reader = Reader::new(100);
        let mut frames = Vec::new();
        for _ in 0..3 {
            write_frame(&mut frames, MORE, &[0; 40]);
        }
        reader.push(&frames);
        assert!(matches!(reader.next_item(), Err(ZmtpError::TooLarge { size: 101.., limit: 100 })));
    }

    #[test]
    fn what_was_not_wholly_written_is_known() {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for id in ["one", "two", "three"] {
            write_message(&mut bytes, &[id.as_bytes(), b"", &[7; 300]]);
            ends.push(bytes.len());
            Word::Cancel(b"another").write(&mut bytes);
        }
        let left = |written| unwritten(&bytes, written).len();
        assert_eq!(unwritten(&bytes, ends[0]), [&b"two"[..], b"three"]);
        assert_eq!((left(0), left(ends[0] - 1), left(ends[1])), (3, 3, 1));
        assert_eq!((left(ends[1] + 1), left(bytes.len())), (1, 0));
    }

    #[test]
    fn cancels_are_seen_before_what_they_follow_is_read() {
        let mut bytes = Vec::new();
        for id in ["one", "two"] {
            write_message(&mut bytes, &[id.as_bytes(), b"REQ", &[7; 300]]);
            Word::Cancel(id.as_bytes()).write(&mut bytes);
        }
        let mut reader = Reader::new(10_000);
        reader.push(&bytes[..bytes.len() - 1]);
        assert_eq!(reader.cancelled_ahead(), [b"one"], "the other one has not come whole");
        reader.push(&bytes[bytes.len() - 1..]);
        assert_eq!(reader.cancelled_ahead(), [b"one", b"two"]);
        assert!(matches!(reader.next_item(), Ok(Some(Item::Message(_)))));
        let Ok(Some(Item::Command(body))) = reader.next_item() else { panic!("no command") };
        assert_eq!(Word::read(body), Some(Word::Cancel(b"one")));
        assert_eq!(reader.cancelled_ahead(), [b"two"]);
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_cut(
            messages in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..6), 1..6),
            cut in 1_usize..400,
        ) {
            let mut bytes = Vec::new();
            for message in &messages {
                write_message(&mut bytes, message);
            }
            let mut reader = Reader::new(10_000);
            let mut found: Vec<Vec<Vec<u8>>> = Vec::new();
            for piece in bytes.chunks(cut) {
                reader.push(piece);
                while let Some(Item::Message(frames)) = reader.next_item().unwrap() {
                    found.push(frames.iter().map(|frame| frame.to_vec()).collect());
                }
            }
            prop_assert_eq!(found, messages);
        }

        #[test]
        fn any_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..500), cut in 1_usize..50) {
            let mut reader = Reader::new(200);
            for piece in bytes.chunks(cut) {
                reader.push(piece);
                let _ = reader.cancelled_ahead();
                while let Ok(Some(_)) = reader.next_item() {}
            }
            let _ = read_ready(&bytes);
        }
    }
}
