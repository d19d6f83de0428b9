//! Every line of every instance, in one timeline on disk.
//!
//! ```text
//!  pipes ──► capture (thread `log`) ──► line ──► record ──batch──► disk (thread `log-disk`) ──► store ──► segments
//!  records, events ──┘      └──► Subscriber (publishing)                                          │
//!                                                      query · follow ◄── files only ─────────────┘
//! ```
//! The node speaks to it by [`handle::LogHandle`] and hears of it by [`handle::LogReport`]; who reads the past needs
//! the files and nothing else.

pub mod account;
pub mod by_time;
pub mod console;
pub mod context;
pub mod crashes;
pub mod expr;
pub mod fields;
pub mod follow;
pub mod gaps;
pub mod handle;
pub mod index;
pub mod join;
pub mod json;
pub mod level;
pub mod line;
pub mod query;
pub mod record;
pub mod recover;
pub mod segment;
pub mod stats;
pub mod store;

mod capture;
mod closer;
mod copies;
mod disk;
mod fold;
mod gone;
mod intake;
mod losses;
mod pack;
mod pipes;
mod post;
mod reader;
mod room;
mod scan;
mod sources;

pub use handle::{
    LogConfig, LogError, LogHandle, LogReport, LogStats, NodeRecord, Source, Started, Subscriber,
    start,
};
