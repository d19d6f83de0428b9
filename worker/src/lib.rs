//! The library that services supervised by hilum are written on. A worker also runs without a node.
//!
//! # Interfaces
//!
//! ```no_run
//! use hilum_worker::prelude::*;
//!
//! #[derive(Debug, thiserror::Error, Declared)]
//! #[error("{length} characters are too many")]
//! struct TextTooLong { length: usize }
//!
//! /// Says things back.
//! #[derive(Default)]
//! struct Echo;
//!
//! #[interface]
//! impl Echo {
//!     /// Returns the text in upper case.
//!     #[rpc(raises(TextTooLong))]
//!     async fn upper(&self, text: String) -> Result<String, TextTooLong> {
//!         if text.len() > 100 { Err(TextTooLong { length: text.len() }) } else { Ok(text.to_uppercase()) }
//!     }
//! }
//!
//! hilum_worker::main!(Echo); // a program with the commands `instance` and `inspect`
//! ```
//!
//! Others call it by name: `ctx.proxy("echo").call("upper", args! { text: "foo" })`, or by the typed `EchoProxy`. The guide is
//! `docs/services.md`.
//!
//! # Services without interfaces
//!
//! ```no_run
//! use std::process::ExitCode;
//! use std::time::Duration;
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> ExitCode {
//!     hilum_worker::run(|worker| async move {
//!         worker.ready();
//!         let mut ticks = tokio::time::interval(Duration::from_secs(1));
//!         loop {
//!             tokio::select! {
//!                 _ = ticks.tick() => {
//!                     let _busy = worker.busy();
//!                     tracing::info!(answer = 42, "worked");
//!                 }
//!                 () = worker.reload() => tracing::info!("would read its configuration again"),
//!                 drain = worker.draining() => {
//!                     tracing::info!(reason = drain.reason, "leaving");
//!                     return Ok(());
//!                 }
//!             }
//!         }
//!     })
//!     .await
//! }
//! ```
//!
//! [`run()`] reads the [contract](Contract) from the environment and does, around the service's future: heartbeats, in the
//! same task, so that a service that blocks its task falls silent; states (`starting`, `ready`, `busy`, `draining`);
//! orders to drain or to reload, and SIGTERM and SIGINT as the same order; the [log]; and, when the node is gone for good,
//! drain and exit. Long computations belong on `tokio::task::spawn_blocking` or in a task of their own. What a
//! worker and its node say to each other is in `docs/protocol.md`.
//!
//! With feature `testing`, `testing::FakeNode` is a node in the same process for tests of services.

// The attributes write `::hilum_worker`, also in this crate's own tests.
extern crate self as hilum_worker;

mod absence;
mod args;
mod binary;
mod channel;
mod component;
mod container;
mod context;
mod contract;
mod event;
mod fault;
mod heart;
#[cfg(feature = "http")]
pub mod http;
mod interface;
mod links;
pub mod log;
pub mod metrics;
pub mod prelude;
mod run;
#[cfg(feature = "testing")]
pub mod testing;
pub mod trace;
mod worker;

pub use args::Args;
pub use binary::Binary;
pub use channel::ReplyChannel;
pub use component::{Component, Dep, FailedCall};
pub use container::{Connection, Container, Overrides, Running, Settings, StartError};
pub use context::{Context, Deferred, Proxy};
pub use contract::{Contract, ContractError};
pub use event::{Emit, EventCall, EventHandler};
pub use fault::{CallError, Declared, Fault, Raised, Undeclared};
pub use hilum_shared::config::service::{Section, ServiceOptions, load as load_config};
pub use hilum_shared::events;
pub use hilum_shared::events::EventError;
pub use hilum_shared::name::{InstanceId, NameError, Run, ServiceName};
pub use hilum_shared::protocol::WorkerState;
pub use hilum_shared::registry;
pub use hilum_shared::rpc;
pub use hilum_shared::transport::OpenError;
pub use hilum_shared::transport::endpoint::EndpointError;
pub use hilum_shared::wire::{Event, Value, types};
/// Lets a struct or an enum cross the wire as an error; see the trait.
pub use hilum_worker_macros::Declared;
/// Makes an `impl` block an [`Interface`], and a typed proxy beside it (`Echo` → `EchoProxy`).
///
/// Methods with `#[rpc]` or `#[raw_rpc]` can be called, those with `#[event("type", …)]` are told of events, those with `#[task]` are done by
/// the command `worker` and put into their queue by a typed handle (`Echo` → `EchoTasks`); `on_start`, `on_stop`, `from_config` and `is_healthy` are hooks; everything else
/// is the author's own. `config = Type` names the configuration, which goes to `from_config`, or into the field `config` of the type's default;
/// `proxy = pub` makes the proxy public.
pub use hilum_worker_macros::interface;
/// Makes a typed proxy of a trait that describes a service written elsewhere (`Billing` → `BillingProxy`).
///
/// ```
/// # use hilum_worker::prelude::*;
/// #[hilum_worker::proxy]
/// pub trait Billing {
///     /// Takes the money.
///     async fn charge(&self, amount: u32, card: Option<String>) -> Result<String>;
/// }
///
/// async fn pay(ctx: &Context) -> Result<String> {
///     Ok(BillingProxy::from(ctx.proxy("billing")).charge(7, None).await?)
/// }
/// ```
pub use hilum_worker_macros::proxy;
pub use interface::{Error, Interface, Method, NoConfig, Parameter};
pub use links::LinkError;
pub use run::{Builder, RunError, ServiceResult, run};
pub use worker::{Busy, Cause, Drain, Worker};

/// What the attributes write; nothing for people.
#[doc(hidden)]
pub mod __private {
    pub use serde;

    pub use crate::interface::{
        Answer, Call, Failure, arguments, declared, event_arguments, failed, message, reply,
        unknown,
    };
}
