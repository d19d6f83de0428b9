//! A blocking client of a node, and a blocking PUSH: one connection in the calling thread.
//!
//! It speaks ZMTP itself, so that a command needs no threads of libzmq (which aborts where a user may have no more of them), and
//! it never waits for a node that is not there: a refused connection is told from a slow one.

mod connection;
mod push;

use std::io;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use self::connection::{Connection, Failure, Wait};
pub use self::push::Push;
use crate::protocol::control::Fault;
use crate::transport::endpoint::{Endpoint, EndpointError};
use crate::wire::message::{DecodeError, EncodeError, Kind, Message, pack_for_node};
use crate::wire::zmtp::ZmtpError;

/// How long a node may take to shake hands; a stopped one never does.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A connection to one node, made anew when it is lost.
pub struct Client {
    endpoint: Endpoint,
    text: String,
    connection: Option<Connection>,
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
    /// Whoever listens there speaks another language.
    #[error("`{endpoint}`: {source}")]
    Stranger {
        /// Where.
        endpoint: String,
        /// What is wrong.
        source: ZmtpError,
    },
    /// The system refused.
    #[error("`{endpoint}`: {source}")]
    Socket {
        /// Where.
        endpoint: String,
        /// Why.
        source: io::Error,
    },
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
        let mut client = Self {
            endpoint: Endpoint::parse(endpoint)?,
            text: endpoint.to_owned(),
            connection: None,
        };
        client.connected("connect", Wait::new(limit, cancelled))?;
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
        let body = pack_for_node(args, 0)
            .map_err(|source| CallError::Arguments { subject: subject.to_owned(), source })?;
        let wait = Wait::new(timeout, cancelled);
        let request = Message::request(subject, body);
        let answer = match self.connected(subject, wait)?.exchange(&request, wait) {
            Ok(answer) => answer,
            Err(failure) => return Err(self.failed(subject, failure, wait)),
        };
        let broken = |source| CallError::Protocol { subject: subject.to_owned(), source };
        match answer.kind {
            Kind::Nack => Err(CallError::Nack { subject: subject.to_owned() }),
            Kind::Error => {
                Err(CallError::Fault(answer.unpack::<AnyFault>().map_err(broken)?.into()))
            }
            Kind::Reply | Kind::Ack | Kind::Request => answer.unpack().map_err(broken),
        }
    }

    /// The connection, made where there is none.
    fn connected(&mut self, subject: &str, wait: Wait<'_>) -> Result<&mut Connection, CallError> {
        if self.connection.as_mut().is_some_and(Connection::is_over) {
            self.connection = None;
        }
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.endpoint, "DEALER", wait)
                .map_err(|failure| self.failed(subject, failure, wait))?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Says what went wrong, and lets go of a connection that is of no more use.
    fn failed(&mut self, subject: &str, failure: Failure, wait: Wait<'_>) -> CallError {
        if !matches!(failure, Failure::Cancelled | Failure::Late | Failure::Answer(_)) {
            self.connection = None;
        }
        let (endpoint, subject) = (self.text.clone(), subject.to_owned());
        match failure {
            Failure::Late => CallError::Timeout { endpoint, subject, after: wait.limit },
            Failure::Cancelled => CallError::Cancelled,
            Failure::Absent => CallError::Gone { endpoint },
            Failure::Denied => CallError::Denied { endpoint },
            Failure::Ended => CallError::Lost { endpoint, subject },
            Failure::Answer(source) => CallError::Protocol { subject, source },
            Failure::Stranger(source) => CallError::Stranger { endpoint, source },
            Failure::Io(source) => CallError::Socket { endpoint, source },
        }
    }
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
