//! Where one node's things are, and the lock that makes them its own.

use std::cell::RefCell;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use hilum_shared::config::spec::Cluster;
use hilum_shared::lock::{Lock, LockError};
use hilum_shared::run_dir::{Access, Anothers, RunDir, RunDirError, StateDir};
use serde_json::{Value, json};

use super::held;
use super::launch::{self, NodeOptions};
use crate::log::account::Untold;
use crate::log::record::NODE_NAME;

/// The file `exit` has this size from the start on, so that there is room for the last word on a full disk.
const ROOM: usize = 4096;
/// Bytes of what the last word says besides losses, at most.
const REASON: usize = 1024;

/// The folders of a node that holds its lock.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) state: StateDir,
    /// Whether the state folder can be written.
    pub(super) writable: bool,
    /// Held as long as the node lives.
    lock: RefCell<Lock>,
    pub(super) run: RunDir,
    /// Held as long as the run folder is ours; where the state folder cannot be written `lock` is that.
    run_lock: RefCell<Option<Lock>>,
    /// Where others look for run folders, if the config has set another one: `project.json` there leads to it.
    sign: Option<RunDir>,
    pub(super) access: Access,
    /// The node before did not take its leave.
    pub(super) bereaved: bool,
    /// Lost lines without a gap in the log: of the node before until the log has them, of this one in the end.
    pub(super) untold: RefCell<Vec<Untold>>,
}

/// Where the lock of a living node may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Under its name.
    InPlace,
    /// Under another one, with its folder.
    Moved,
    /// Nowhere: commands that ask the lock would take the node for gone.
    Removed,
}

/// Why the folders are not ours.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Run(#[from] RunDirError),
    #[error("the run folder `{}` belongs to the node of `{config}`, pid {pid}\nhelp: set another `node.run_dir`, or stop that node", path.display())]
    Taken { path: PathBuf, config: String, pid: u32 },
    #[error("`{}` cannot be written ({source}): set `logs.dir`, then the run folder holds the rest", path.display())]
    NoState { path: PathBuf, source: io::Error },
    #[error("{}\nhelp: {}", .0.message(), .0.help())]
    Anothers(Anothers),
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
        let lock_path = if writable { state.lock() } else { run.lock() };
        let lock = Lock::take(&lock_path).map_err(|error| match (error, state.anothers()) {
            (LockError::Io { .. }, Some(anothers)) => PlaceError::Anothers(anothers),
            (error, _) => error.into(),
        })?;
        if let Some(pid) = launch::bereft(&run, &state) {
            return Err(LockError::Held { pid }.into());
        }
        // What another node has there is not touched before the folder is ours.
        run.is_ours()?;
        if !run.path().is_dir() {
            run.create(access)?;
        }
        let run_lock = if writable { Some(hold(&run)?) } else { None };
        run.create(access)?;
        let run = run.real();
        let usual = RunDir::of(&state, access);
        let sign = (usual != run).then_some(usual);
        let bereaved = writable && state.run_pointer().exists();
        let places = Self {
            state,
            writable,
            lock: RefCell::new(lock),
            run,
            run_lock: RefCell::new(run_lock),
            sign,
            access,
            bereaved,
            untold: RefCell::default(),
        };
        if let Some(untold) = read_untold(&places.exit_file()) {
            places.untold.replace(untold);
        }
        Ok(places)
    }

    /// Says where the run folder is, and in the run folder whose it is.
    pub(super) fn announce(
        &self,
        options: &NodeOptions,
        cluster: &Cluster,
    ) -> Result<(), PlaceError> {
        if self.writable {
            self.point()?;
            // That of an earlier life; what the log could not take of it is still to be told.
            let untold = self.untold.borrow();
            let kept = (!untold.is_empty()).then(|| json!({ "lost": *untold }).to_string());
            let _ = overwrite(&self.exit_file(), &kept.unwrap_or_default()); // an old word is told by its time
        }
        let (path, text) = self.project(options, cluster);
        write(&path, &text)?;
        if let Some(sign) = &self.sign {
            let set = sign.create(self.access).map_err(PlaceError::from);
            if let Err(error) = set.and_then(|()| write(&sign.socket("project.json"), &text)) {
                tracing::warn!(%error, "`hilum ls` will not show this node");
            }
        }
        Ok(())
    }

    /// Takes the lock in a run folder that was made anew.
    pub(super) fn hold_again(&self) -> Result<(), PlaceError> {
        match &mut *self.run_lock.borrow_mut() {
            Some(lock) if !lock.is_in_place() => Ok(lock.take_again()?),
            _ => Ok(()),
        }
    }

    /// The lock's path.
    pub(super) fn lock_path(&self) -> PathBuf {
        self.lock.borrow().path().to_owned()
    }

    /// Where the lock is now.
    pub(super) fn standing(&self) -> Standing {
        let lock = self.lock.borrow();
        match (lock.is_in_place(), lock.is_removed()) {
            (true, _) => Standing::InPlace,
            (false, true) => Standing::Removed,
            (false, false) => Standing::Moved,
        }
    }

    /// Makes the state folder anew and takes the lock in it. False where its project is gone, too: that is not made.
    pub(super) fn restore(&self) -> Result<bool, PlaceError> {
        if self.writable {
            let project = self.state.path().ancestors().nth(2);
            if !project.is_some_and(Path::is_dir) {
                return Ok(false);
            }
            let path = self.state.path();
            self.state
                .create()
                .map_err(|source| PlaceError::Io { path: path.to_owned(), source })?;
        }
        self.lock.borrow_mut().take_again()?;
        if self.writable {
            self.point()?;
        }
        Ok(true)
    }

    fn point(&self) -> Result<(), PlaceError> {
        write(&self.state.run_pointer(), &format!("{}\n", self.run.path().display()))
    }

    /// The file in the run folder that says whose it is.
    pub(super) fn project(&self, options: &NodeOptions, cluster: &Cluster) -> (PathBuf, String) {
        let project = json!({
            "project": cluster.name,
            "config": options.configs.first(),
            "pid": std::process::id(),
            "state": self.state.path(),
            "run_dir": self.run.path(),
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
    pub(super) fn leave(&self, last: &LastWord<'_>) {
        if let Err(error) = overwrite(&self.exit_file(), &last.text(self.untold.take())) {
            tracing::warn!(%error, "no word left of the end");
        }
        if self.writable {
            let _ = fs::remove_file(self.state.run_pointer()); // a stale one is told by the free lock
            if let Err(error) = self.run.remove() {
                tracing::warn!(%error, "run folder not removed");
            }
            if let Some(sign) = &self.sign {
                let _ = sign.remove(); // where it could not be made
            }
        }
    }
}

/// Takes a run folder for this node: `node.run_dir` may be written in two configurations.
fn hold(run: &RunDir) -> Result<Lock, PlaceError> {
    held::take(&run.lock(), "").map_err(|error| {
        let LockError::Held { pid } = error else { return error.into() };
        let text = fs::read_to_string(run.socket("project.json")).unwrap_or_default();
        let project: Option<Value> = serde_json::from_str(&text).ok();
        let config = project.and_then(|project| Some(project["config"].as_str()?.to_owned()));
        let config = config.unwrap_or_else(|| "another project".into());
        PlaceError::Taken { path: run.path().to_owned(), config, pid }
    })
}

/// What the file `exit` says of a node's end.
#[derive(Debug)]
pub(super) struct LastWord<'a> {
    /// Its exit code.
    pub(super) code: i32,
    /// Why, in words.
    pub(super) reason: &'a str,
    /// Whether it was told to end, and did not end of its own accord.
    pub(super) ordered: bool,
}

impl LastWord<'_> {
    /// As JSON, within the room that is kept for it: those who lost least are told as one.
    fn text(&self, mut lost: Vec<Untold>) -> String {
        lost.sort_by_key(|one| std::cmp::Reverse(one.lines));
        let mut reason = &self.reason[..self.reason.floor_char_boundary(REASON)];
        while json!(reason).to_string().len() > REASON {
            reason = &reason[..reason.floor_char_boundary(reason.len() * 9 / 10)];
        }
        for one in &mut lost {
            one.why.truncate(one.why.floor_char_boundary(REASON / 4));
        }
        let mut size: usize = lost.iter().map(size).sum();
        while size > ROOM - 2 * REASON && lost.len() > 1 {
            let (Some(least), Some(next)) = (lost.pop(), lost.last_mut()) else { break };
            size -= self::size(&least) + self::size(next);
            next.name = NODE_NAME.into();
            next.lines = next.lines.saturating_add(least.lines);
            size += self::size(next);
        }
        json!({"code": self.code, "reason": reason, "ordered": self.ordered, "lost": lost})
            .to_string()
    }
}

/// Bytes of one of them as JSON, about.
fn size(one: &Untold) -> usize {
    json!(one).to_string().len() + 1
}

/// What the node before could not write down.
fn read_untold(exit: &Path) -> Option<Vec<Untold>> {
    let word: Value = serde_json::from_slice(&fs::read(exit).ok()?).ok()?;
    serde_json::from_value(word.get("lost")?.clone()).ok()
}

/// Writes over what is there, which needs no room on a full disk.
fn overwrite(path: &Path, text: &str) -> Result<(), PlaceError> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(bytes.len().max(ROOM), b' ');
    let write = || {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let mut file = file?;
        file.write_all(&bytes)?;
        file.set_len(bytes.len() as u64)
    };
    write().map_err(|source| PlaceError::Io { path: path.to_owned(), source })
}

fn write(path: &Path, text: &str) -> Result<(), PlaceError> {
    fs::write(path, text).map_err(|source| PlaceError::Io { path: path.to_owned(), source })
}
