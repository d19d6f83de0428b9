//! Calls and answers in lymph messages.
//!
//! ```text
//!  Client ── which instance? ──► registry            Server ── which method? ──► your handler
//!    │                                                  ▲                              │
//!    ▼                                                  │ Request                      ▼
//!  Endpoint ═══ one connection to each address ═══► Endpoint ◄──────────────── ReplyChannel
//! ```
//!
//! [`Endpoint`] is one container's side of all its connections, over a [`Network`]: the system's sockets, or one inside the
//! process for tests. [`Client`] chooses an instance and calls it, [`Server`] finds the method and calls that.
//!
//! [`blocking`] is what the command line uses, without a runtime; [`router`] reads requests at a ROUTER of the ZeroMQ thread,
//! which is how the node itself is asked.

mod accepted;
pub mod blocking;
mod client;
mod complaints;
mod dialled;
mod endpoint;
mod error;
pub(crate) mod held;
mod interface;
mod ipc;
mod known;
mod link;
mod loglevel;
mod network;
pub mod publish;
mod reply;
mod room;
pub mod router;
mod select;
mod server;
pub mod trace;
mod wire;

pub use client::{CallOptions, Client, Reply};
pub use endpoint::{Config, Endpoint, Handler, Incoming, Outgoing, ReplyChannel, ReplyError};
pub use error::{Error, NAMELESS};
pub use interface::{Failure, Interface, Method, Request};
pub use link::LinkError;
pub use loglevel::ChangeLoglevel;
pub use network::{BoxFuture, Listener, MemoryNetwork, Network, Sockets, Stream};
pub use select::Balance;
pub use server::{Server, TurnedAway};
pub use wire::Liveness;
