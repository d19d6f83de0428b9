//! Where one node's things are, and the lock that makes them its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hilum_shared::config::spec::Cluster;
use hilum_shared::lock::{Lock, LockError};
use hilum_shared::run_dir::{Access, RunDir, RunDirError, StateDir};
use serde_json::json;

use super::launch::NodeOptions;

/// The folders of a node that holds its lock.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) state: StateDir,
    /// Whether the state folder can be written.
    pub(super) writable: bool,
    /// Held as long as the node lives.
    _lock: Lock,
    pub(super) lock_path: PathBuf,
    pub(super) run: RunDir,
    pub(super) access: Access,
    /// The node before did not take its leave.
    pub(super) bereaved: bool,
}

/// Why the folders are not ours.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Run(#[from] RunDirError),
    #[error("`{}` cannot be written ({source}): set `logs.dir`, then the run folder holds the rest", path.display())]
    NoState { path: PathBuf, source: io::Error },
    #[error(
        "a node of this project runs, pid {pid}, whose state folder was removed: end it by `kill {pid}`, then start again"
    )]
    Bereft { pid: u32 },
    #[error("`{}`: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl Places {
    /// Takes the lock, then makes the folders: nothing of another node is touched.
    pub(super) fn take(options: &NodeOptions, cluster: &Cluster) -> Result<Self, PlaceError> {
        let state = options.state_dir();
        let access = if cluster.services.values().any(|spec| spec.launch.user.is_some()) {
            Access::Shared
        } else {
            Access::Private
        };
        let run = match &cluster.node.run_dir {
            Some(path) => RunDir::at(path.clone()),
            None => RunDir::of(&state, access),
        };
        let created = state.create();
        let writable = created.is_ok();
        if let Err(source) = created {
            if cluster.logs.dir.is_none() {
                return Err(PlaceError::NoState { path: state.path().to_owned(), source });
            }
            run.create(access)?;
        }
        let lock_path = if writable { state.lock() } else { run.socket("lock") };
        let lock = Lock::take(&lock_path)?;
        if let Some(pid) = bereft(&run, &state) {
            return Err(PlaceError::Bereft { pid });
        }
        run.create(access)?;
        let bereaved = writable && state.run_pointer().exists();
        Ok(Self { state, writable, _lock: lock, lock_path, run, access, bereaved })
    }

    /// Says where the run folder is, and in the run folder whose it is.
    pub(super) fn announce(
        &self,
        options: &NodeOptions,
        cluster: &Cluster,
    ) -> Result<(), PlaceError> {
        if self.writable {
            write(&self.state.run_pointer(), &format!("{}\n", self.run.path().display()))?;
            let _ = fs::remove_file(self.exit_file()); // of an earlier life
        }
        let (path, text) = self.project(options, cluster);
        write(&path, &text)
    }

    /// The file in the run folder that says whose it is.
    pub(super) fn project(&self, options: &NodeOptions, cluster: &Cluster) -> (PathBuf, String) {
        let project = json!({
            "project": cluster.name,
            "config": options.configs.first(),
            "pid": std::process::id(),
            "state": self.state.path(),
        });
        (self.run.socket("project.json"), project.to_string())
    }

    /// Where the node leaves word of its end.
    pub(super) fn exit_file(&self) -> PathBuf {
        let folder = if self.writable { self.state.path() } else { self.run.path() };
        folder.join("exit")
    }

    /// Where the node's own diagnostics go.
    pub(super) fn diagnostics(&self) -> &Path {
        if self.writable { self.state.path() } else { self.run.path() }
    }

    /// Takes the sockets away. The lock goes last, with the value.
    pub(super) fn leave(self, code: i32, reason: &str) {
        let end = json!({ "code": code, "reason": reason });
        if let Err(error) = write(&self.exit_file(), &end.to_string()) {
            tracing::warn!(%error, "no word left of the end");
        }
        if self.writable {
            let _ = fs::remove_file(self.state.run_pointer()); // a stale one is told by the free lock
            if let Err(error) = fs::remove_dir_all(self.run.path()) {
                tracing::warn!(%error, "run folder not removed");
            }
        }
    }
}

/// A living node of this cluster that lost its lock with its state folder. Its instances are not ours
/// to sweep.
fn bereft(run: &RunDir, state: &StateDir) -> Option<u32> {
    let text = fs::read_to_string(run.socket("project.json")).ok()?;
    let project: serde_json::Value = serde_json::from_str(&text).ok()?;
    let pid = u32::try_from(project["pid"].as_u64()?).ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = command.split(|byte| *byte == 0).skip(1);
    let mark = format!("\"mark\":\"{}.", state.id());
    let is_node = words.next() == Some(b"__node")
        && words.next().is_some_and(|startup| String::from_utf8_lossy(startup).contains(&mark));
    is_node.then_some(pid)
}

fn write(path: &Path, text: &str) -> Result<(), PlaceError> {
    fs::write(path, text).map_err(|source| PlaceError::Io { path: path.to_owned(), source })
}
