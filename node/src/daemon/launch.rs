//! Starting a node, in the background or in this process' place, and asking whether one runs.
//!
//! ```text
//!  hilum up ── stdin: owner pipe, stdout: status pipe ──► hilum __keeper ──► hilum __node
//! ```
//! The status pipe brings one line of JSON back: it runs, another one runs, or why it cannot. The
//! owner pipe tells the node when whoever started it in the foreground is gone.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hilum_shared::lock;
use hilum_shared::run_dir::{Access, RunDir, StateDir};
use serde::{Deserialize, Serialize};

pub use super::options::NodeOptions;
use crate::driver::limits::{self, TooFew};
use crate::driver::request::{NulByte, SpawnRequest, Stdio as Descriptors};

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
    /// There are too few descriptors for one.
    #[error(transparent)]
    TooFew(#[from] TooFew),
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

/// What keeper and node are told: the argument of the internal verbs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Startup {
    pub(super) options: NodeOptions,
    /// stdin and stdout are the owner pipe (unless detached) and the status pipe.
    pub(super) launched: bool,
    /// `<id>.<nonce>`
    pub(super) mark: String,
}

/// The one line on the status pipe.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Started { pid: u32, run_dir: PathBuf },
    Running { pid: u32 },
    Failed { message: String, code: u8 },
}

/// Starts keeper and node in the background; returns when the control socket answers and everything
/// that is to run has been ordered to start.
///
/// # Errors
/// See [`LaunchError`].
pub fn launch(options: &NodeOptions) -> Result<Launched, LaunchError> {
    limits::enough_for_a_node()?;
    let log = last_words(options);
    let (owner_read, owner_write) = io::pipe().map_err(LaunchError::Spawn)?;
    let (status_read, status_write) = io::pipe().map_err(LaunchError::Spawn)?;
    let stdin = if options.detached { Stdio::null() } else { Stdio::from(owner_read) };
    let stderr = open_log(&log).map_or_else(|_| Stdio::null(), Stdio::from);
    let mut command = Command::new("/proc/self/exe");
    command.arg("__keeper").arg(startup(options, true, String::new()));
    command.stdin(stdin).stdout(status_write).stderr(stderr);
    let mut keeper = command.spawn().map_err(LaunchError::Spawn)?;
    drop(command); // and with it our copies of the pipes' other ends
    let mut line = String::new();
    BufReader::new(status_read).read_line(&mut line).map_err(LaunchError::Spawn)?;
    match serde_json::from_str(&line) {
        Ok(Status::Started { pid, run_dir }) => Ok(Launched::Started {
            pid,
            owner: (!options.detached).then(|| OwnedFd::from(owner_write)),
            run_dir: RunDir::at(run_dir),
        }),
        Ok(Status::Running { pid }) => {
            let _ = keeper.wait(); // it ends at once
            Ok(Launched::AlreadyRunning { pid })
        }
        Ok(Status::Failed { message, code }) => {
            let _ = keeper.wait();
            Err(LaunchError::Refused { message, code })
        }
        Err(_) => {
            let _ = keeper.wait();
            Err(LaunchError::Died { log })
        }
    }
}

/// The node of the cluster with this state folder, or nothing. Its lock decides; one whose lock was removed under it
/// is known by the run folder.
///
/// # Errors
/// What the file system says.
pub fn node_pid(state: &StateDir) -> io::Result<Option<u32>> {
    if let Some(pid) = lock::holder(&state.lock())? {
        return Ok(Some(pid));
    }
    for access in [Access::Private, Access::Shared] {
        let run = RunDir::of(state, access);
        // Where the state folder cannot be made, the run folder holds the lock.
        let held = lock::holder(&run.lock())?;
        if let Some(pid) = held.or_else(|| bereft(&run, state)) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// Where the node of the cluster with this state folder has its sockets, as far as that can be known.
pub fn run_dir(state: &StateDir) -> RunDir {
    RunDir::find(state).unwrap_or_else(|_| {
        let private = RunDir::of(state, Access::Private);
        let shared = RunDir::of(state, Access::Shared);
        if !private.path().is_dir() && shared.path().is_dir() { shared } else { private }
    })
}

/// A living node of this cluster that lost its lock with its state folder.
pub(super) fn bereft(run: &RunDir, state: &StateDir) -> Option<u32> {
    let text = std::fs::read_to_string(run.socket("project.json")).ok()?;
    let project: serde_json::Value = serde_json::from_str(&text).ok()?;
    let pid = u32::try_from(project["pid"].as_u64()?).ok()?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = command.split(|byte| *byte == 0).skip(1);
    let mark = format!("\"mark\":\"{}.", state.id());
    let is_node = words.next() == Some(b"__node")
        && words.next().is_some_and(|startup| String::from_utf8_lossy(startup).contains(&mark));
    is_node.then_some(pid)
}

/// This program once more with these words, its environment and its descriptors.
///
/// # Errors
/// When a word or a variable holds a NUL.
pub fn again(words: &[OsString]) -> Result<SpawnRequest, NulByte> {
    let mut request =
        SpawnRequest { program: "hilum".into(), stdio: Descriptors::Inherit, ..Default::default() };
    request.candidates.push(b"/proc/self/exe")?;
    for word in words {
        request.argv.push(word.as_bytes())?;
    }
    for (name, value) in std::env::vars_os() {
        request.env.push_parts(&[name.as_bytes(), b"=", value.as_bytes()])?;
    }
    Ok(request)
}

pub(super) fn startup(options: &NodeOptions, launched: bool, mark: String) -> OsString {
    let startup = Startup { options: options.clone(), launched, mark };
    serde_json::to_string(&startup).expect("paths came from arguments and are plain data").into()
}

/// Where a node's stderr goes when it runs in the background: what libzmq or the allocator cry out.
fn last_words(options: &NodeOptions) -> PathBuf {
    options.state_dir().path().join("node.stderr")
}

fn open_log(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().append(true).create(true).open(path)
}
