//! The connection below a blocking client or PUSH: made, shaken hands over, written and read without ever waiting longer than asked.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket,
};

use crate::transport::Frames;
use crate::transport::endpoint::Endpoint;
use crate::wire::limits::MAX_ANSWER;
use crate::wire::message::{DecodeError, Kind, Message};
use crate::wire::words::Word;
use crate::wire::zmtp::{self, GREETING, Hello, Item, Reader, ZmtpError};

/// How often `cancelled` is asked while nothing comes. A signal is seen at once: it interrupts the wait.
const SLICE: Duration = Duration::from_millis(100);

/// Between two tries at a path whose backlog is full.
const BACKLOG_PAUSE: Duration = Duration::from_millis(10);

/// How long one call may take.
#[derive(Clone, Copy)]
pub(super) struct Wait<'a> {
    begun: Instant,
    pub(super) limit: Duration,
    cancelled: &'a dyn Fn() -> bool,
}

impl<'a> Wait<'a> {
    pub(super) fn new(limit: Duration, cancelled: &'a dyn Fn() -> bool) -> Self {
        Self { begun: Instant::now(), limit, cancelled }
    }

    /// How long the next sleep may be.
    fn slice(self) -> Result<Duration, Failure> {
        if (self.cancelled)() {
            return Err(Failure::Cancelled);
        }
        let left = self.limit.saturating_sub(self.begun.elapsed());
        if left.is_zero() { Err(Failure::Late) } else { Ok(left.min(SLICE)) }
    }

    /// Sleeps until the socket is ready, a slice at most.
    fn until(self, socket: &impl AsFd, ready: PollFlags) -> Result<(), Failure> {
        let slice = self.slice()?.as_millis().max(1);
        let timeout = PollTimeout::try_from(slice).expect("a slice is short");
        match poll(&mut [PollFd::new(socket.as_fd(), ready)], timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(Failure::Io(error.into())),
        }
    }
}

/// Why a connection was not made, or brought no answer.
pub(super) enum Failure {
    Late,
    Cancelled,
    Absent,
    Denied,
    Ended,
    Answer(DecodeError),
    Stranger(ZmtpError),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof => {
                Self::Ended
            }
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => Self::Absent,
            ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Io(error),
        }
    }
}

impl From<ZmtpError> for Failure {
    fn from(error: ZmtpError) -> Self {
        Self::Stranger(error)
    }
}

/// A connection after its handshake.
pub(super) struct Connection {
    stream: Stream,
    reader: Reader,
    /// A message was left half written: nothing that follows would be understood.
    torn: bool,
    /// Whether the other side understands cancels.
    cancels: bool,
}

impl Connection {
    /// Connects as a socket of this type.
    pub(super) fn open(
        endpoint: &Endpoint,
        socket_type: &str,
        wait: Wait<'_>,
    ) -> Result<Self, Failure> {
        let stream = match endpoint {
            Endpoint::Ipc(path) => Stream::Unix(connect_unix(path, wait)?),
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?; // messages are written whole: waiting for more only delays them
                Stream::Tcp(stream)
            }
        };
        let reader = Reader::new(MAX_ANSWER);
        let mut connection = Self { stream, reader, torn: false, cancels: false };
        connection.shake_hands(socket_type, wait)?;
        Ok(connection)
    }

    /// Both sides speak at once.
    fn shake_hands(&mut self, socket_type: &str, wait: Wait<'_>) -> Result<(), Failure> {
        let mut opening = zmtp::greeting().to_vec();
        let hello = Hello { socket_type: socket_type.to_owned(), ..Hello::default() };
        zmtp::write_ready(&mut opening, &hello);
        self.write(&opening, wait)?;
        let mut greeting = [0; GREETING];
        let mut filled = 0;
        while filled < GREETING {
            match self.stream.read(&mut greeting[filled..]) {
                Ok(0) => return Err(Failure::Ended),
                Ok(count) => filled += count,
                Err(error) => self.stream.pause(error, PollFlags::POLLIN, wait)?,
            }
        }
        zmtp::check_greeting(&greeting)?;
        loop {
            match self.reader.next_item()? {
                Some(Item::Command(body)) => {
                    self.cancels = zmtp::read_ready(body)?.cancels;
                    return Ok(());
                }
                Some(Item::Message(_)) => {
                    return Err(ZmtpError::Malformed { what: "handshake" }.into());
                }
                None => self.read(wait)?,
            }
        }
    }

    /// Whether it is of no use for another call: the other side may have ended it meanwhile.
    pub(super) fn is_over(&mut self) -> bool {
        while !self.torn {
            match self.stream.read(self.reader.space()) {
                Ok(count @ 1..) => self.reader.filled(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return true,
            }
        }
        true
    }

    /// Sends a request and waits for its answer; who does not wait any longer says so.
    pub(super) fn exchange(
        &mut self,
        request: &Message,
        wait: Wait<'_>,
    ) -> Result<Message, Failure> {
        let answer = self.ask(request, wait);
        if matches!(answer, Err(Failure::Late | Failure::Cancelled)) {
            self.give_up(&request.id);
        }
        answer
    }

    /// Tells the other side that nobody waits for this answer, as far as it takes that at once.
    fn give_up(&mut self, id: &str) {
        if self.torn || !self.cancels {
            return; // it never came whole, or would not be understood
        }
        let mut bytes = Vec::new();
        Word::Cancel(id.as_bytes()).write(&mut bytes);
        // A connection on which it stands half written, or which has ended, is of no more use.
        self.torn = match self.stream.write(&bytes) {
            Ok(count) => count < bytes.len(),
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
    }

    fn ask(&mut self, request: &Message, wait: Wait<'_>) -> Result<Message, Failure> {
        let mut bytes = Vec::new();
        request.write_to(&mut bytes, &mut Vec::new());
        self.write(&bytes, wait)?;
        loop {
            let pong = match self.reader.next_item()? {
                Some(Item::Message(frames)) => match Message::decode(&frames) {
                    Ok(message)
                        if message.kind != Kind::Request && message.subject == request.id =>
                    {
                        return Ok(message);
                    }
                    Err(source) if names(&frames, &request.id) => {
                        return Err(Failure::Answer(source));
                    }
                    Ok(_) | Err(_) => continue, // of an earlier call, or a ping
                },
                Some(Item::Command(body)) => zmtp::pong(body),
                None => {
                    self.read(wait)?;
                    continue;
                }
            };
            if let Some(pong) = pong {
                self.write(&pong, wait)?;
            }
        }
    }

    /// Gives a message to the kernel, whole.
    pub(super) fn send(&mut self, frames: &Frames, wait: Wait<'_>) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        zmtp::write_message(&mut bytes, frames);
        self.write(&bytes, wait)
    }

    /// Waits for more bytes and takes them.
    fn read(&mut self, wait: Wait<'_>) -> Result<(), Failure> {
        loop {
            match self.stream.read(self.reader.space()) {
                Ok(0) => return Err(Failure::Ended),
                Ok(count) => {
                    self.reader.filled(count);
                    return Ok(());
                }
                Err(error) => self.stream.pause(error, PollFlags::POLLIN, wait)?,
            }
        }
    }

    fn write(&mut self, mut bytes: &[u8], wait: Wait<'_>) -> Result<(), Failure> {
        self.torn = true;
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) => self.stream.pause(error, PollFlags::POLLOUT, wait)?,
            }
        }
        self.torn = false;
        Ok(())
    }
}

/// Whether broken frames are meant for the call with this id.
fn names(frames: &[&[u8]], id: &str) -> bool {
    frames.get(2).is_some_and(|subject| *subject == id.as_bytes())
}

/// A socket that never blocks.
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(into),
            Self::Tcp(stream) => stream.read(into),
        }
    }

    /// Without the signal that a connection without a reader brings: whose process it is may not ignore it.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.as_fd().as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?)
    }

    /// After an error: sleeps where it only says that there is nothing to do yet.
    fn pause(&self, error: io::Error, ready: PollFlags, wait: Wait<'_>) -> Result<(), Failure> {
        match error.kind() {
            ErrorKind::Interrupted => Ok(()),
            ErrorKind::WouldBlock => wait.until(self, ready),
            _ => Err(error.into()),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

/// Connects to a path. A full backlog is a busy node, not an absent one.
fn connect_unix(path: &Path, wait: Wait<'_>) -> Result<UnixStream, Failure> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let address = UnixAddr::new(path).map_err(io::Error::from)?;
    loop {
        let socket: OwnedFd =
            socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(io::Error::from)?;
        match connect(socket.as_raw_fd(), &address) {
            Ok(()) => return Ok(socket.into()),
            Err(Errno::EAGAIN | Errno::EINTR) => {
                let pause = wait.slice()?.min(BACKLOG_PAUSE);
                std::thread::sleep(pause);
            }
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
}
