//! Why a call brought no result.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::link::LinkError;
use crate::registry::{InvalidVersion, RegistryError};
use crate::wire::message::{DecodeError, EncodeError};
use crate::wire::{Value, from_value};

/// The type of the ERROR that says that too many requests wait.
pub(super) const OVERLOADED: &str = "Overloaded";

/// The name of an error that came without one, and under which one without a name is sent.
pub const NAMELESS: &str = "RemoteError";

/// Why a call brought no result.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody is registered under the name.
    #[error("no instance of service `{service}` is registered")]
    NoSuchService {
        /// The name.
        service: String,
    },
    /// All that are registered (in the version asked for) are silent or refuse connections, or the last one left a moment ago and none
    /// came back in time.
    #[error("{}", none_alive(service, *count))]
    NoneAlive {
        /// The name.
        service: String,
        /// How many are registered.
        count: usize,
    },
    /// None that is registered has a version that fits, and where one was there a moment ago, none came back in time.
    #[error(
        "service `{service}` has no version that is compatible with {asked}: {}",
        list(available)
    )]
    NoneCompatible {
        /// The name.
        service: String,
        /// The version asked for.
        asked: String,
        /// The versions that exist; `none` stands for instances without one.
        available: Vec<String>,
    },
    /// No connection, or it ended before all of the request was written, or the service was ending already: it was not worked on.
    #[error("no connection to `{address}`: {source}")]
    NotConnected {
        /// Where to.
        address: String,
        /// Why not.
        source: Arc<LinkError>,
    },
    /// The connection ended after the request left and before its answer came: it may have been worked on.
    #[error("the connection to `{address}` ended before `{subject}` was answered: {source}")]
    Lost {
        /// Where to.
        address: String,
        /// What was called.
        subject: String,
        /// How it ended.
        source: Arc<LinkError>,
    },
    /// No answer in time; the other side is told, and stops working on it.
    #[error("`{subject}` was not answered within {after:?}")]
    Timeout {
        /// What was called.
        subject: String,
        /// How long we waited.
        after: Duration,
    },
    /// Refused without a reason: unknown interface or method, wrong arguments, or a fault that has no name.
    #[error("`{subject}` was refused")]
    Nack {
        /// What was called.
        subject: String,
    },
    /// A fault that has a name.
    #[error("{kind}: {message}")]
    Remote {
        /// Its type's name.
        kind: String,
        /// What it says.
        message: String,
        /// All of it, where it says more.
        body: Box<Value>,
    },
    /// More requests wait there than it takes; nothing was done. On the wire it is an ERROR of the type `Overloaded`.
    #[error("`{subject}` was not taken: {message}")]
    Overloaded {
        /// What was called.
        subject: String,
        /// What it says.
        message: String,
    },
    /// So much waits to be sent there that the other side does not seem to read; the request was not sent.
    #[error("too much waits to be sent to `{address}` already")]
    Congested {
        /// Where to.
        address: String,
    },
    /// The subject is not `service.method`.
    #[error("`{subject}` is no subject: write `service.method`")]
    Subject {
        /// What was given.
        subject: String,
    },
    /// The version asked for is none.
    #[error(transparent)]
    Version(#[from] InvalidVersion),
    /// The arguments cannot be sent.
    #[error("arguments of `{subject}`: {source}")]
    Arguments {
        /// What was called.
        subject: String,
        /// What is wrong.
        source: Arc<EncodeError>,
    },
    /// The answer has another shape.
    #[error("answer to `{subject}`: {source}")]
    Answer {
        /// What was called.
        subject: String,
        /// What is wrong.
        source: Arc<DecodeError>,
    },
    /// Where instances are cannot be found out.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Our own side is closed.
    #[error("this endpoint is closed")]
    Closed,
}

fn none_alive(service: &str, count: usize) -> String {
    match count {
        0 => format!("no instance of service `{service}` is left, and none came back in time"),
        1 => format!("the one instance of service `{service}` does not answer"),
        _ => format!("none of the {count} instances of service `{service}` answers"),
    }
}

fn list(versions: &[String]) -> String {
    let named: Vec<&str> =
        versions.iter().map(String::as_str).filter(|version| *version != "none").collect();
    match (named.is_empty(), named.len() < versions.len()) {
        (true, _) => "its instances have no version".to_owned(),
        (false, false) => format!("there is {}", named.join(", ")),
        (false, true) => format!("there is {}, and instances without a version", named.join(", ")),
    }
}

impl Error {
    /// Whether the request surely was not worked on, so that it may be sent to another instance whatever it does.
    pub fn not_sent(&self) -> bool {
        matches!(self, Self::NotConnected { .. } | Self::Congested { .. })
    }

    /// Whether another try may help, where working on the request twice does no harm.
    pub fn is_transient(&self) -> bool {
        self.not_sent() || matches!(self, Self::Lost { .. } | Self::Timeout { .. })
    }

    /// Whether who worked on the request stopped doing so: the connection is gone, and not only given up for its silence.
    pub(super) fn ended_its_work(&self) -> bool {
        matches!(self, Self::Lost { source, .. } if !matches!(**source, LinkError::Silent(_)))
    }

    /// The name of a remote fault.
    pub fn kind(&self) -> Option<&str> {
        match self {
            Self::Remote { kind, .. } => Some(kind),
            Self::Overloaded { .. } => Some(OVERLOADED),
            _ => None,
        }
    }

    /// A remote fault of this name as a type of yours, with all the fields that were sent.
    pub fn downcast<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        match self {
            Self::Remote { kind, body, .. } if kind == name => from_value(body).ok(),
            Self::Overloaded { message, .. } if name == OVERLOADED => {
                let fields = [("type", OVERLOADED), ("message", message)];
                from_value(&Value::map(fields.map(|(key, text)| (key, Value::from(text))))).ok()
            }
            _ => None,
        }
    }
}
