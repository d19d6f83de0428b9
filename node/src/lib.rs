//! The hilum node, supervisor and command line. See `docs/architecture.md` for the house.

pub mod channels;
pub mod cli;
pub mod core;
pub mod daemon;
pub mod driver;
pub mod launch;
pub mod log;
pub mod runtime;
pub mod watch;
