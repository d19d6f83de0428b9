//! The library that services supervised by hilum are written on. A worker also runs without a node.
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

mod absence;
mod contract;
mod heart;
#[cfg(feature = "http")]
pub mod http;
mod links;
pub mod log;
pub mod metrics;
mod run;
#[cfg(feature = "testing")]
pub mod testing;
pub mod trace;
mod worker;

pub use contract::{Contract, ContractError};
pub use hilum_shared::name::{InstanceId, NameError, Run, ServiceName};
pub use hilum_shared::protocol::WorkerState;
pub use hilum_shared::transport::OpenError;
pub use hilum_shared::transport::endpoint::EndpointError;
pub use links::LinkError;
pub use run::{Builder, RunError, ServiceResult, run};
pub use worker::{Busy, Cause, Drain, Worker};
