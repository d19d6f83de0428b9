//! Lock, detaching, OS signals, the node's own diagnostics.

use std::process::ExitCode;

pub mod launch;

/// The process above the node.
pub fn keeper_main(_options: &str) -> ExitCode {
    ExitCode::FAILURE
}

/// The node's process.
pub fn node_main(_options: &str) -> ExitCode {
    ExitCode::FAILURE
}

/// The node in the foreground.
pub fn foreground(_options: &launch::NodeOptions) -> ExitCode {
    ExitCode::FAILURE
}
