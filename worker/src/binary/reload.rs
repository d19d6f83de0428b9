//! `--reload`: another program in the file of this one takes its place.
//!
//! The path is found out once, at the start: after the file was replaced the system knows it as deleted only. What is put there is
//! started only where it is a program that this library is in: anything else that can be executed is somebody's slip, or worse.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use memchr::memmem;

use crate::worker::{Cause, Drain, Worker};

/// Between two looks at the file.
const LOOK: Duration = Duration::from_secs(1);
/// The time to drain.
const GRACE: Duration = Duration::from_secs(10);

/// Part of every program that this library is in, so that its file can be told from others.
static MARK: [u8; 37] = *b"\x01hilum-worker: a service's program\x02\n\0";
/// So many bytes of a file are looked through at a time.
const PIECE: usize = 1 << 20;

/// The program of this process, and who leaves when another is to take its place.
#[derive(Clone, Debug)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    /// What the file was when this process began.
    begun: Option<State>,
    worker: Arc<OnceLock<Worker>>,
}

/// By what one sees that a file is another, or is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    file: (u64, u64),
    changed: (i64, i64),
    size: u64,
}

impl Program {
    /// As this process was started.
    pub(super) fn of_this_process() -> Self {
        let mut arguments: Vec<OsString> = std::env::args_os().collect();
        let name = if arguments.is_empty() { OsString::new() } else { arguments.remove(0) };
        let path = path_of(Path::new(&name));
        let begun = look(&path);
        Self { path, arguments, begun, worker: Arc::default() }
    }

    /// Lets the worker leave when there is another program. Under a node that starts it; by hand it is for [`Self::run`].
    pub(super) fn watch(self, worker: Worker) {
        let Some(begun) = self.begun else {
            let path = self.path.display();
            tracing::warn!("{path}, the program's file, cannot be looked at: it is not watched");
            return;
        };
        let worker = self.worker.get_or_init(|| worker).clone();
        tokio::spawn(async move {
            let (mut before, mut refused) = (Some(begun), None);
            loop {
                tokio::time::sleep(LOOK).await;
                // A file that is not there, or changes still, is just being written.
                let now = look(&self.path);
                let is_another = now.is_some() && now != Some(begun) && now == before;
                if is_another && now != refused {
                    let path = self.path.clone();
                    // Where it cannot be read, or the runtime ends: not started.
                    let is_ours = tokio::task::spawn_blocking(move || has_mark(&path)).await;
                    if matches!(is_ours, Ok(Ok(true))) {
                        break;
                    }
                    refused = now;
                    tracing::warn!(
                        "{} is another file now, and not one that is known to be a program of a service (it cannot be read, or this version of hilum-worker is not in it): not started",
                        self.path.display()
                    );
                }
                before = now;
            }
            let reason = "the program's file is another one".to_owned();
            if worker.drain().is_none() {
                tracing::info!("{} is another program now: starting anew", self.path.display());
                worker.begin_drain(Drain::now(Cause::NewProgram, reason, GRACE));
            }
        });
    }

    /// Whether this process is to become the other program: nobody else starts it, and nobody meanwhile wanted the end.
    pub(super) fn is_to_run(&self) -> bool {
        let is_to_run = |worker: &Worker| {
            let leaves = worker.drain().is_some_and(|drain| drain.cause == Cause::NewProgram);
            leaves && worker.contract().instance.is_none()
        };
        self.worker.get().is_some_and(is_to_run)
    }

    /// Becomes it, with the same arguments; returns only when it cannot.
    pub(super) fn run(&self) -> io::Error {
        Command::new(&self.path).args(&self.arguments).exec()
    }
}

/// A program that can be run.
fn look(path: &Path) -> Option<State> {
    let is_program = |found: &Metadata| found.is_file() && found.mode() & 0o111 != 0;
    let found = std::fs::metadata(path).ok().filter(is_program)?;
    Some(State {
        file: (found.dev(), found.ino()),
        changed: (found.mtime(), found.mtime_nsec()),
        size: found.size(),
    })
}

/// Whether a file has [`MARK`] in it.
fn has_mark(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mark = memmem::Finder::new(&MARK);
    let (mut piece, mut kept) = (vec![0; PIECE], 0);
    loop {
        let count = file.read(&mut piece[kept..])?;
        let end = kept + count;
        if mark.find(&piece[..end]).is_some() {
            return Ok(true);
        }
        if count == 0 {
            return Ok(false);
        }
        kept = end.min(MARK.len() - 1); // it may lie across two pieces
        piece.copy_within(end - kept..end, 0);
    }
}

/// The path by which a program was started: as it was named, since a link may be set to another program; else the system's word.
fn path_of(name: &Path) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let named = if name.components().count() > 1 { std::path::absolute(name).ok() } else { None };
    match (named, look(&own)) {
        (Some(named), Some(this)) if look(&named) == Some(this) => named,
        _ => own,
    }
}
