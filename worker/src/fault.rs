//! Errors that cross the wire: what a service declares, and what its caller gets back.

use std::error::Error as StdError;
use std::fmt;

use hilum_shared::rpc;
use hilum_shared::wire::{Value, from_value, to_value};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The keys of an ERROR's body that every peer knows.
const KIND: &str = "type";
const MESSAGE: &str = "message";

/// An error as it is on the wire: a map with `type` and `message`, and the fields of the error.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    kind: String,
    message: String,
    fields: Vec<(String, Value)>,
}

impl Fault {
    /// An error of this name with a text for people. Without a name it is a [`rpc::NAMELESS`], as callers would read it.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        let kind = kind.into();
        let kind = if kind.is_empty() { rpc::NAMELESS.to_owned() } else { kind };
        Self { kind, message: message.into(), fields: Vec::new() }
    }

    /// With a field. One that has no MessagePack form is left out: the error itself matters more.
    pub fn with<T: Serialize + ?Sized>(mut self, name: &str, value: &T) -> Self {
        if let Ok(value) = to_value(value) {
            self.fields.push((name.to_owned(), value));
        }
        self
    }

    /// Its name: what a Python peer sees as the exception's class.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Its text for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// A field as a type, `message` among them; `None` where it is absent (and the type is not an `Option`) or something else.
    pub fn field<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        if name == MESSAGE {
            return from_value(&Value::Str(self.message.clone())).ok();
        }
        let value =
            self.fields.iter().find(|(key, _)| key == name).map_or(&Value::Nil, |(_, value)| value);
        from_value(value).ok()
    }

    /// The fault that a call failed with; `None` where it failed for another reason.
    pub fn of(error: &rpc::Error) -> Option<Self> {
        let (kind, message, body) = match error {
            rpc::Error::Remote { kind, message, body } => (kind, message, body),
            rpc::Error::Overloaded { message, .. } => {
                return Some(Self::new(error.kind().unwrap_or_default(), message));
            }
            _ => return None,
        };
        let fields = match &**body {
            Value::Map(entries) => {
                let entries = entries
                    .iter()
                    .filter_map(|(key, value)| Some((key.as_str()?.to_owned(), value.clone())));
                entries.filter(|(key, _)| key != KIND && key != MESSAGE).collect()
            }
            _ => Vec::new(),
        };
        Some(Self { kind: kind.clone(), message: message.clone(), fields })
    }

    /// The body of an ERROR.
    pub(crate) fn to_body(&self) -> Value {
        let own = [(KIND, &self.kind), (MESSAGE, &self.message)];
        let own = own.map(|(key, text)| (key.to_owned(), Value::Str(text.clone())));
        Value::map(own.into_iter().chain(self.fields.iter().cloned()))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

/// An error that a method may raise: named in `#[rpc(raises(…))]` it is sent as an ERROR, with its fields.
///
/// ```
/// use hilum_worker::prelude::*;
///
/// #[derive(Debug, thiserror::Error, Declared)]
/// enum EchoError {
///     #[error("{length} bytes are too many, {limit} are allowed")]
///     TextTooLong { length: usize, limit: usize },
///     #[error("nothing to say")]
///     Nothing,
/// }
/// ```
///
/// The derive takes the name of the struct, or of the enum's variant, as the error's `type`, its `Display` as `message`, and each
/// field under its name (a tuple's under `0`, `1`, …). A field named `message` is the message.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no declared error: it cannot cross the wire",
    label = "not declared",
    note = "write `#[derive(Debug, thiserror::Error, Declared)]` above the type; for an error of somebody else's, make one of your own of it"
)]
pub trait Declared: Raised + Send + Sync {
    /// All names that it may have on the wire.
    const KINDS: &'static [&'static str];

    /// Itself for the wire.
    fn fault(&self) -> Fault;
}

/// An error that can be made of what came over the wire.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no declared error: it cannot cross the wire",
    label = "not declared",
    note = "write `#[derive(Debug, thiserror::Error, Declared)]` above the type; for an error of somebody else's, make one of your own of it"
)]
pub trait Raised: StdError + Sized + 'static {
    /// Itself, when the fault is one of its kinds and has its fields.
    fn from_fault(fault: &Fault) -> Option<Self>;
}

/// Of methods that declare no error: there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undeclared {}

impl fmt::Display for Undeclared {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl StdError for Undeclared {}

impl Raised for Undeclared {
    fn from_fault(_: &Fault) -> Option<Self> {
        None
    }
}

/// Why a typed call has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError<E: StdError + 'static = Undeclared> {
    /// The method raised one of its declared errors.
    #[error(transparent)]
    Declared(E),
    /// Nobody answered, or what was answered is no result: see [`rpc::Error`].
    #[error(transparent)]
    Failed(#[from] rpc::Error),
}
