//! Codecs of the wire formats; no sockets.
//!
//! `message` holds lymph's five frames, `ser` packs any `Serialize` type, `de` reads any `Deserialize` type by lymph's rules, [`Value`]
//! stands for what has no type here, `event` is lymph's event, `types` are the special values (`set`, `Decimal`, …), `render` shows a value to people and as JSON, `json` reads it, `sendable` says what
//! nobody could read, `zmtp` is ZeroMQ's own wire, `limits` what a foreign byte string may be before it is decoded.

pub mod de;
pub mod event;
mod json;
pub mod limits;
pub mod message;
mod render;
mod sendable;
mod ser;
pub mod types;
mod value;
pub mod words;
pub mod zmtp;

pub use event::Event;
pub use json::JsonError;
pub use message::{pack, unpack};
pub use value::{Value, from_value, to_value};
