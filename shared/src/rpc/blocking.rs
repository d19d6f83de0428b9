//! A blocking client: one DEALER in the calling thread.
//!
//! It never waits for a node that is not there: a refused connection is told from a slow one by libzmq's monitor and
//! a look at the socket's file.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::protocol::control::Fault;
use crate::transport::endpoint::{Endpoint, EndpointError};
use crate::transport::monitor::{monitor_event, receive, watch};
use crate::transport::{Frames, Kind as SocketKind, SocketEvent, SocketSpec};
use crate::wire::limits::MAX_ANSWER;
use crate::wire::message::{DecodeError, EncodeError, Kind, Message, pack};

/// How long a node may take to shake hands; a stopped one never does.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How often `cancelled` is asked while nothing comes. A signal is seen at once: it interrupts the wait.
const SLICE: Duration = Duration::from_millis(100);

/// A connection to one node or service.
pub struct Client {
    // In this order: sockets close before their context ends.
    socket: zmq::Socket,
    monitor: zmq::Socket,
    endpoint: Endpoint,
    text: String,
    connected: bool,
    /// How many connections have ended: an answer does not come over the next one.
    losses: u64,
}

/// Why a call brought no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Somebody is there, but said nothing in time.
    #[error("`{subject}` at `{endpoint}` was not answered within {after:?}")]
    Timeout {
        /// Where.
        endpoint: String,
        /// What was called.
        subject: String,
        /// How long we waited.
        after: Duration,
    },
    /// Nobody listens there.
    #[error("nobody listens at `{endpoint}`")]
    Gone {
        /// Where.
        endpoint: String,
    },
    /// Whoever listened there ended, or threw us out, before the answer.
    #[error("the connection to `{endpoint}` ended before `{subject}` was answered")]
    Lost {
        /// Where.
        endpoint: String,
        /// What was called.
        subject: String,
    },
    /// Another user's.
    #[error("no permission to connect to `{endpoint}`: it belongs to another user")]
    Denied {
        /// Where.
        endpoint: String,
    },
    /// The caller did not want to wait any longer.
    #[error("cancelled")]
    Cancelled,
    /// Refused without a reason: the peer knows no such method.
    #[error("`{subject}` was refused: the other side is of a version that does not know it")]
    Nack {
        /// What was called.
        subject: String,
    },
    /// Refused with a reason.
    #[error("{}", .0.message)]
    Fault(Fault),
    /// The answer has another shape.
    #[error("answer to `{subject}`: {source}")]
    Protocol {
        /// What was called.
        subject: String,
        /// What is wrong.
        source: DecodeError,
    },
    /// The address is wrong.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The arguments cannot be sent.
    #[error("arguments of `{subject}`: {source}")]
    Arguments {
        /// What was called.
        subject: String,
        /// Why.
        source: EncodeError,
    },
    /// libzmq failed.
    #[error("ZeroMQ: {0}")]
    Socket(#[from] zmq::Error),
}

impl Client {
    /// Connects and waits until the other side has shaken hands.
    ///
    /// # Errors
    /// [`CallError::Gone`] at once where nobody listens, [`CallError::Timeout`] after 5 s where somebody does but is stuck.
    pub fn connect(endpoint: &str) -> Result<Self, CallError> {
        Self::connect_with(endpoint, CONNECT_LIMIT, &|| false)
    }

    /// [`Client::connect`] with another limit, and a question asked again and again whether to give up.
    ///
    /// # Errors
    /// As [`Client::connect`]; [`CallError::Cancelled`] when `cancelled` says so.
    pub fn connect_with(
        endpoint: &str,
        limit: Duration,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, CallError> {
        let parsed = Endpoint::parse(endpoint)?;
        let context = zmq::Context::new();
        let socket = context.socket(zmq::DEALER)?;
        let spec = SocketSpec {
            max_frame: MAX_ANSWER,
            immediate: true,
            ..SocketSpec::new(SocketKind::Dealer)
        };
        spec.apply(&socket)?;
        let monitor = watch(&context, &socket, 0)?;
        socket.connect(endpoint)?;
        let mut client = Self {
            socket,
            monitor,
            endpoint: parsed,
            text: endpoint.to_owned(),
            connected: false,
            losses: 0,
        };
        client.ready("connect", Wait::new(limit, cancelled))?;
        Ok(client)
    }

    /// Where it is connected to.
    pub fn endpoint(&self) -> &str {
        &self.text
    }

    /// Calls `interface.method` with a map (a struct) of arguments and waits for the result.
    ///
    /// An answer that comes after its call timed out is thrown away.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn call<A, R>(&mut self, subject: &str, args: &A, timeout: Duration) -> Result<R, CallError>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.call_with(subject, args, timeout, &|| false)
    }

    /// [`Client::call`] that also asks `cancelled`, at least ten times a second and after each signal.
    /// `Duration::MAX` waits as long as the other side lives.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn call_with<A, R>(
        &mut self,
        subject: &str,
        args: &A,
        timeout: Duration,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<R, CallError>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let body = pack(args)
            .map_err(|source| CallError::Arguments { subject: subject.to_owned(), source })?;
        let wait = Wait::new(timeout, cancelled);
        self.ready(subject, wait)?;
        let request = Message::request(subject, body);
        let id = request.id.clone();
        let losses = self.losses;
        self.socket.send_multipart(request.encode(), zmq::DONTWAIT).map_err(
            |error| match error {
                zmq::Error::EAGAIN => self.gone(),
                other => CallError::Socket(other),
            },
        )?;
        let answer = self.answer(subject, &id, losses, wait)?;
        let broken = |source| CallError::Protocol { subject: subject.to_owned(), source };
        match answer.kind {
            Kind::Nack => Err(CallError::Nack { subject: subject.to_owned() }),
            Kind::Error => {
                Err(CallError::Fault(answer.unpack::<AnyFault>().map_err(broken)?.into()))
            }
            Kind::Reply | Kind::Ack | Kind::Request => answer.unpack().map_err(broken),
        }
    }

    /// Waits until there is a connection.
    fn ready(&mut self, subject: &str, wait: Wait<'_>) -> Result<(), CallError> {
        loop {
            self.observe()?;
            if self.connected {
                return Ok(());
            }
            self.pause(subject, wait)?;
        }
    }

    fn answer(
        &mut self,
        subject: &str,
        id: &str,
        losses: u64,
        wait: Wait<'_>,
    ) -> Result<Message, CallError> {
        loop {
            let observed = self.observe();
            // Read after looking at the connection: what came before its end is an answer all the same.
            while let Some(frames) = self.receive()? {
                match Message::decode(&frames) {
                    Ok(message) if message.kind != Kind::Request && message.subject == id => {
                        return Ok(message);
                    }
                    Ok(_) => {} // of an earlier call, or a ping
                    Err(source) if names(&frames, id) => {
                        return Err(CallError::Protocol { subject: subject.to_owned(), source });
                    }
                    Err(_) => {}
                }
            }
            if self.losses > losses {
                return Err(CallError::Lost {
                    endpoint: self.text.clone(),
                    subject: subject.to_owned(),
                });
            }
            observed?;
            self.pause(subject, wait)?;
        }
    }

    /// Takes note of what the connection did.
    fn observe(&mut self) -> Result<(), CallError> {
        loop {
            let frames = match receive(&self.monitor) {
                Ok(frames) => frames.unwrap_or_default(),
                Err(zmq::Error::EAGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            match monitor_event(&frames) {
                Some(SocketEvent::Connected) => self.connected = true,
                Some(SocketEvent::Disconnected) => {
                    self.connected = false;
                    self.losses += 1;
                }
                Some(SocketEvent::Refused) => self.diagnose()?,
                None => {}
            }
        }
    }

    /// A connection was refused: nobody there, or only a full backlog?
    fn diagnose(&self) -> Result<(), CallError> {
        let Endpoint::Ipc(path) = &self.endpoint else {
            return Err(self.gone());
        };
        match knock(path) {
            Ok(()) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(Errno::EACCES | Errno::EPERM) => {
                Err(CallError::Denied { endpoint: self.text.clone() })
            }
            Err(_) => Err(self.gone()),
        }
    }

    fn receive(&self) -> Result<Option<Frames>, CallError> {
        match receive(&self.socket) {
            Ok(frames) => Ok(Some(frames.unwrap_or_default())),
            Err(zmq::Error::EAGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sleeps until something comes, a slice at most.
    fn pause(&self, subject: &str, wait: Wait<'_>) -> Result<(), CallError> {
        if (wait.cancelled)() {
            return Err(CallError::Cancelled);
        }
        let left = wait.limit.saturating_sub(wait.begun.elapsed());
        if left.is_zero() {
            return Err(CallError::Timeout {
                endpoint: self.text.clone(),
                subject: subject.to_owned(),
                after: wait.limit,
            });
        }
        let slice = i64::try_from(left.min(SLICE).as_millis()).unwrap_or(0).max(1);
        let mut items =
            [self.socket.as_poll_item(zmq::POLLIN), self.monitor.as_poll_item(zmq::POLLIN)];
        match zmq::poll(&mut items, slice) {
            Ok(_) | Err(zmq::Error::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn gone(&self) -> CallError {
        CallError::Gone { endpoint: self.text.clone() }
    }
}

#[derive(Clone, Copy)]
struct Wait<'a> {
    begun: Instant,
    limit: Duration,
    cancelled: &'a dyn Fn() -> bool,
}

impl<'a> Wait<'a> {
    fn new(limit: Duration, cancelled: &'a dyn Fn() -> bool) -> Self {
        Self { begun: Instant::now(), limit, cancelled }
    }
}

/// Whether broken frames are meant for the call with this id.
fn names(frames: &[Vec<u8>], id: &str) -> bool {
    frames.get(2).is_some_and(|subject| subject == id.as_bytes())
}

/// Whether somebody listens at a path, without waiting for a place in its backlog.
fn knock(path: &Path) -> Result<(), Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
}

/// An ERROR's body as lymph takes it: both keys may be missing.
#[derive(Deserialize)]
struct AnyFault {
    #[serde(default, rename = "type")]
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    help: Option<String>,
}

impl From<AnyFault> for Fault {
    fn from(fault: AnyFault) -> Self {
        Self { code: fault.code, message: fault.message, help: fault.help }
    }
}
