//! Starting a node in the background, and asking whether one runs.
//!
//! Only the signatures that the command line needs; the daemon brings the bodies.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use hilum_shared::run_dir::{RunDir, StateDir};
use serde::{Deserialize, Serialize};

/// What a node is started with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeOptions {
    /// All configs in order, absolute; the first one canonical.
    pub configs: Vec<PathBuf>,
    /// `--vars`.
    pub vars: Option<PathBuf>,
    /// `--env-file`.
    pub env_files: Vec<PathBuf>,
    /// The chosen profiles.
    pub profiles: Vec<String>,
    /// `-p`.
    pub project: Option<String>,
    /// Where instances run.
    pub project_dir: PathBuf,
    /// Level of the node's own diagnostics.
    pub loglevel: Option<String>,
    /// File of the node's own diagnostics.
    pub logfile: Option<PathBuf>,
    /// What to start; none = all.
    pub targets: Vec<String>,
    /// Whether what they depend on is started, too.
    pub deps: bool,
    /// Counts in place of the config's: service, count, whether it is relative.
    pub scale: Vec<(String, i64, bool)>,
    /// Whether it goes on without us.
    pub detached: bool,
    /// Whether the first failed instance ends it.
    pub abort_on_failure: bool,
}

/// What came of it.
#[derive(Debug)]
pub enum Launched {
    /// It runs.
    Started {
        /// Its process.
        pid: u32,
        /// When this closes the node stops in order; `None` where it goes on without us.
        owner: Option<OwnedFd>,
        /// Its sockets' folder.
        run_dir: RunDir,
    },
    /// There was one already.
    AlreadyRunning {
        /// Its process.
        pid: u32,
    },
}

/// Why it could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Its processes could not be made.
    #[error("cannot start the node's process: {0}")]
    Spawn(#[source] io::Error),
    /// It said why.
    #[error("{message}")]
    Refused {
        /// In its own words.
        message: String,
        /// The exit code that fits.
        code: u8,
    },
    /// It ended without a word.
    #[error("the node ended before it was up: see `{}`", log.display())]
    Died {
        /// Where its last words are.
        log: PathBuf,
    },
}

/// Starts keeper and node in the background; returns when the control socket answers.
///
/// # Errors
/// See [`LaunchError`].
pub fn launch(_options: &NodeOptions) -> Result<Launched, LaunchError> {
    Err(LaunchError::Refused {
        message: "this build has no daemon".to_owned(),
        code: 1,
    })
}

/// The process that holds the lock, or nothing.
///
/// # Errors
/// What the file system says.
pub fn node_pid(_state: &StateDir) -> io::Result<Option<u32>> {
    Ok(None)
}
