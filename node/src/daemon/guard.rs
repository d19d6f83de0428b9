//! Keeps the node to be found: its run folder, its sockets and its state folder are made anew when somebody removes or
//! takes them. A state folder that was moved with its project is left where it is, and that is said.
//!
//! Whoever is connected stays so. What instances were told in their environment goes on to be true.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use std::{fs, io};

use hilum_shared::lock::LockError;
use hilum_shared::protocol::Level;
use hilum_shared::rpc::publish;
use hilum_shared::transport::Mender;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::channels::counters::Counters;
use crate::channels::notify::{Notify, Sender};
use crate::core::input::Input;
use crate::driver::child::Processes;
use crate::driver::folder::Folder;
use crate::log::handle::{LogHandle, NodeRecord};

use super::places::{PlaceError, Places, Standing};

/// So long after a change whoever makes it may be at it still.
const SETTLES: Duration = Duration::from_millis(20);
/// Between two repairs: two who want the same path are not to keep each other busy.
const PAUSE: Duration = Duration::from_secs(1);
/// So long after the state folder was removed whoever removes more than that may be at it still.
const REMOVED: Duration = Duration::from_millis(500);
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

/// A folder that is watched for as long as it is the same one to the kernel.
#[derive(Default)]
struct Watched(Option<(u64, u64)>);

impl Watched {
    /// Watches the folder at this path, where it is another one than before; whether it was.
    fn renew(&mut self, watch: &Folder, path: &Path) -> bool {
        let now = identity(path);
        let renewed = now.is_some() && now != self.0 && watch.add(path).is_ok();
        if renewed {
            self.0 = now;
        }
        renewed
    }
}

/// What is kept.
pub(super) struct Guard {
    pub(super) places: Rc<Places>,
    /// `project.json` and what it says.
    pub(super) project: (PathBuf, String),
    pub(super) sockets: Mender,
    pub(super) publish: publish::Mender,
    pub(super) notify: NotifySocket,
    /// `None` while it cannot be bound.
    pub(super) serving: Option<JoinHandle<()>>,
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
        let mut notify = Seat::of(self.notify.path.clone());
        let mut repairs = 0;
        let mut told = None;
        let (mut run, mut state) = (Watched::default(), Watched::default());
        loop {
            // It may have gone again before it was watched.
            if run.renew(&watch, self.places.run.path()) | self.watch_state(&mut state, &watch) {
                continue;
            }
            let mut repaired = self.repair(&mut notify).await;
            match self.places.standing() {
                Standing::InPlace => {}
                Standing::Removed => {
                    tokio::time::sleep(REMOVED).await;
                    repaired |= self.restore(&mut told);
                }
                Standing::Moved => self.say_once(&mut told, self.unfound("moved")),
            }
            if repaired {
                repairs += 1;
                if repairs == MOST {
                    self.say(
                        Level::Error,
                        "the node's folders were taken away too often: they are kept no more",
                    );
                    return;
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            watch.changed().await;
            tokio::time::sleep(SETTLES).await;
        }
    }

    /// Watches the state folder's entries, and where it lies for being moved or removed.
    fn watch_state(&self, watched: &mut Watched, watch: &Folder) -> bool {
        let lock = self.places.lock_path();
        let Some(folder) = lock.parent() else {
            return false;
        };
        let renewed = watched.renew(watch, folder);
        if renewed {
            for ancestor in folder.ancestors().skip(1) {
                if let Err(error) = watch.add_place(ancestor) {
                    let path = ancestor.display();
                    tracing::debug!(%path, %error, "not watched: when it is moved, nobody will say so");
                }
            }
        }
        renewed
    }

    /// Makes the state folder anew; whether to look again soon.
    fn restore(&self, told: &mut Option<String>) -> bool {
        let folder = self.places.state.path().display();
        match self.places.restore() {
            Ok(true) => {
                *told = None;
                let text =
                    format!("somebody removed `{folder}`: it is made anew, what was in it is lost");
                self.say(Level::Warning, &text);
                true
            }
            Ok(false) => {
                self.say_once(told, self.unfound("removed with its project"));
                false
            }
            // A second `up` holds it for a moment, until it finds this node.
            Err(PlaceError::Lock(LockError::Held { .. })) => true,
            Err(error) => {
                let why = format!("cannot be made anew ({error})");
                self.say_once(told, self.unfound(&format!("removed and {why}")));
                true
            }
        }
    }

    fn unfound(&self, what: &str) -> String {
        format!(
            "`{}` was {what}: commands find this node only where its state folder is now; `kill {}` stops it",
            self.places.state.path().display(),
            std::process::id()
        )
    }

    /// Makes anew what is gone or another's; whether there was anything.
    async fn repair(&mut self, notify: &mut Seat) -> bool {
        let folder = self.places.run.path().to_owned();
        if !folder.is_dir() {
            if let Err(error) = self.places.run.create(self.places.access) {
                tracing::error!(%error, "the run folder is gone and cannot be made anew");
                return true;
            }
            self.say(
                Level::Warning,
                &format!("somebody removed the run folder `{}`: it is made anew", folder.display()),
            );
        }
        if let Err(error) = self.places.hold_again() {
            tracing::error!(%error, "the run folder is not held any more");
        }
        let mut taken = Vec::new();
        let mut repaired = false;
        let (answer, answered) = oneshot::channel();
        self.sockets.mend(move |mended| {
            let _ = answer.send(mended); // the node is on its way out
        });
        let mended = answered.await.unwrap_or_default().into_iter();
        let mended = mended.map(|mended| mended.map_err(|error| error.to_string()));
        let published = self.publish.mend().await;
        let published = published.map(|mended| mended.map_err(|error| error.to_string()));
        for result in mended.chain(published) {
            repaired = true;
            match result {
                Ok(endpoint) => taken.push(endpoint),
                Err(error) => tracing::error!(%error, "a socket is gone and cannot be bound anew"),
            }
        }
        if !notify.is_kept() {
            repaired = true;
            if let Some(serving) = self.serving.take() {
                serving.abort();
                let _ = serving.await; // dropped before the path is bound again, since that removes it
            }
            match self.notify.serve() {
                Ok(serving) => {
                    self.serving = Some(serving);
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

    fn say_once(&self, told: &mut Option<String>, text: String) {
        if told.as_ref() != Some(&text) {
            self.say(Level::Warning, &text);
            *told = Some(text);
        }
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
