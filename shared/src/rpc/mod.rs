//! Calls and answers in lymph messages.
//!
//! [`Client`] is what the command line uses: blocking, without a runtime. [`server`] reads requests at a ROUTER and
//! makes the frames of each answer; whoever owns the socket decides when they are sent.

mod client;
pub mod server;

pub use client::{CallError, Client};
