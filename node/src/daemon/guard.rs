//! Keeps the node to be found: its run folder and sockets are made anew when somebody removes or takes them, and it is
//! said once when the state folder is not where it was.
//!
//! Whoever is connected stays so. What instances were told in their environment goes on to be true.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use hilum_shared::protocol::Level;
use hilum_shared::run_dir::{Access, RunDir};
use hilum_shared::transport::Mender;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::channels::counters::Counters;
use crate::channels::notify::{Notify, Sender};
use crate::core::input::Input;
use crate::driver::child::Processes;
use crate::driver::folder::Folder;
use crate::log::handle::{LogHandle, NodeRecord};

/// So long after a change whoever makes it may be at it still.
const SETTLES: Duration = Duration::from_millis(20);
/// Between two repairs: two who want the same path are not to keep each other busy.
const PAUSE: Duration = Duration::from_secs(1);
/// So many repairs in a node's life. Each costs a descriptor, since libzmq keeps the old listener.
const MOST: u32 = 100;

/// The notify socket with what its messages need.
pub(super) struct NotifySocket {
    pub(super) path: PathBuf,
    pub(super) mode: u32,
    pub(super) processes: Processes,
    pub(super) inbox: mpsc::Sender<Input>,
    pub(super) counters: Counters,
}

impl NotifySocket {
    /// Binds it and hands its messages to the loop, until the answer is aborted.
    pub(super) fn serve(&self) -> io::Result<JoinHandle<()>> {
        let notify = Notify::bind(&self.path, self.mode)?;
        let (processes, inbox) = (self.processes.clone(), self.inbox.clone());
        let counters = self.counters.clone();
        Ok(tokio::task::spawn_local(async move {
            let resolve = move |sender: Sender| processes.owner_of(sender.pid);
            if let Err(error) = notify.run(resolve, inbox, counters).await {
                tracing::error!(%error, "the notify socket failed");
            }
        }))
    }
}

/// A path and the file that lay there.
pub(super) struct Seat {
    path: PathBuf,
    file: Option<(u64, u64)>,
}

impl Seat {
    /// The path with the file that is there now.
    pub(super) fn of(path: PathBuf) -> Self {
        let file = identity(&path);
        Self { path, file }
    }

    fn is_kept(&self) -> bool {
        identity(&self.path) == self.file
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let meta = fs::symlink_metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// What is kept.
pub(super) struct Guard {
    pub(super) run: RunDir,
    pub(super) access: Access,
    /// `project.json` and what it says.
    pub(super) project: (PathBuf, String),
    pub(super) lock: Seat,
    pub(super) sockets: Mender,
    pub(super) notify: NotifySocket,
    pub(super) serving: JoinHandle<()>,
    pub(super) log: LogHandle,
}

impl Guard {
    /// Keeps it for ever.
    pub(super) async fn keep(mut self) {
        let watch = match Folder::new() {
            Ok(watch) => watch,
            Err(error) => {
                tracing::warn!(%error, "the run folder is not watched: who removes it cuts off the node");
                return;
            }
        };
        for ancestor in self.lock.path.ancestors().skip(1) {
            if let Err(error) = watch.add_place(ancestor) {
                let path = ancestor.display();
                tracing::debug!(%path, %error, "not watched: when it is moved, nobody will say so");
            }
        }
        let mut notify = Seat::of(self.notify.path.clone());
        let mut repairs = 0;
        let mut moved = false;
        let mut watched = None;
        loop {
            // A folder that was made anew is another one to the kernel.
            let folder = identity(self.run.path());
            if watched != folder && watch.add(self.run.path()).is_ok() {
                watched = folder;
                continue; // it may have gone again before it was watched
            }
            if self.repair(&mut notify).await {
                repairs += 1;
                if repairs == MOST {
                    self.say(
                        Level::Error,
                        "the run folder was taken away too often: it is kept no more",
                    );
                    return;
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            if !moved && !self.lock.is_kept() {
                moved = true;
                self.say(
                    Level::Warning,
                    &format!(
                        "`{}` was moved or removed: commands find this node only where its state folder is now; `kill {}` stops it",
                        self.lock.path.display(),
                        std::process::id()
                    ),
                );
            }
            watch.changed().await;
            tokio::time::sleep(SETTLES).await;
        }
    }

    /// Makes anew what is gone or another's; whether there was anything.
    async fn repair(&mut self, notify: &mut Seat) -> bool {
        let folder = self.run.path().to_owned();
        if !folder.is_dir() {
            if let Err(error) = self.run.create(self.access) {
                tracing::error!(%error, "the run folder is gone and cannot be made anew");
                return true;
            }
            self.say(
                Level::Warning,
                &format!("somebody removed the run folder `{}`: it is made anew", folder.display()),
            );
        }
        let mut taken = Vec::new();
        let mut repaired = false;
        let (answer, answered) = oneshot::channel();
        self.sockets.mend(move |mended| {
            let _ = answer.send(mended); // the node is on its way out
        });
        for result in answered.await.unwrap_or_default() {
            repaired = true;
            match result {
                Ok(endpoint) => taken.push(endpoint),
                Err(error) => tracing::error!(%error, "a socket is gone and cannot be bound anew"),
            }
        }
        if !notify.is_kept() {
            repaired = true;
            self.serving.abort();
            let _ = (&mut self.serving).await; // dropped before the path is bound again, since that removes it
            match self.notify.serve() {
                Ok(serving) => {
                    self.serving = serving;
                    *notify = Seat::of(self.notify.path.clone());
                    taken.push(self.notify.path.display().to_string());
                }
                Err(error) => tracing::error!(%error, "the notify socket cannot be bound anew"),
            }
        }
        let (path, text) = &self.project;
        if !path.exists() && fs::write(path, text).is_err() {
            tracing::warn!(path = %path.display(), "not written anew");
        }
        if !taken.is_empty() {
            let taken = taken.join("`, `");
            self.say(
                Level::Warning,
                &format!("somebody removed or took over `{taken}`: bound anew"),
            );
        }
        repaired
    }

    fn say(&self, level: Level, text: &str) {
        tracing::warn!("{text}");
        self.log.node(NodeRecord {
            level: Some(level),
            text: text.to_owned(),
            ..NodeRecord::default()
        });
    }
}
