//! The language that the hilum node and its workers both speak: names, configuration, wire formats,
//! the ZeroMQ transport, and the messages of the node's channels. Codecs and types; no supervision.

#[cfg(feature = "config")]
pub mod config;
pub mod events;
pub mod lock;
pub mod metrics;
pub mod name;
pub mod protocol;
pub mod registry;
pub mod rpc;
pub mod run_dir;
pub mod secret;
pub mod signal;
pub mod status;
pub mod transport;
pub mod units;
pub mod wire;
