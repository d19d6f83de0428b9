//! The watched directories, and what happens when the kernel has no watches left.
//!
//! Each is one watch of an inotify that a thread of its own listens to. All that happens to one directory costs the same,
//! however many are watched.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use super::{Shared, lock};

/// What is told of a directory. Reading is no change; we read ourselves.
const NEWS: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_MODIFY)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// The watched directories. Empty, for good, once watching has failed: then everything is polled.
pub(super) struct Directories {
    kernel: Option<Kernel>,
    /// In order of their components, so that what lies below one follows it.
    watched: BTreeMap<PathBuf, WatchDescriptor>,
    shared: Arc<Shared>,
}

/// The inotify, which its thread listens to until the pipe closes.
struct Kernel {
    source: Arc<Source>,
    _ends: io::PipeWriter,
}

struct Source {
    inotify: Inotify,
    /// The names of each watch: the same directory may be wanted by several.
    paths: Mutex<HashMap<WatchDescriptor, Vec<PathBuf>>>,
}

impl Directories {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let kernel = Kernel::start(Arc::clone(&shared));
        let mut directories = Self { kernel: None, watched: BTreeMap::new(), shared };
        match kernel {
            Ok(kernel) => directories.kernel = Some(kernel),
            Err(error) => directories.give_up(&error.to_string()),
        }
        directories
    }

    /// Whether nothing is heard from the kernel.
    pub(super) fn polled(&self) -> bool {
        self.kernel.is_none()
    }

    /// Watches a directory, if it is there.
    pub(super) fn want(&mut self, dir: &Path) {
        if !self.watched.contains_key(dir) {
            self.watch(dir);
        }
    }

    /// Watches what has this name now; the directory before may have been another.
    pub(super) fn renew(&mut self, dir: &Path) {
        let before = self.watched.get(dir).copied();
        self.watch(dir);
        let now = self.watched.get(dir).copied();
        if before == now {
            return;
        }
        if let (Some(before), Some(kernel)) = (before, &self.kernel) {
            kernel.source.forget(before, dir);
        }
        if now.is_some() {
            // After a rename nothing is heard from below, either, until it is wanted again.
            let after = self
                .watched
                .range::<Path, _>((std::ops::Bound::Excluded(dir), std::ops::Bound::Unbounded));
            let below: Vec<PathBuf> = after
                .map(|(other, _)| other)
                .take_while(|other| other.starts_with(dir))
                .cloned()
                .collect();
            for other in &below {
                self.drop_watch(other);
            }
        }
    }

    /// Ends all watches that are not `wanted`.
    pub(super) fn keep_only(&mut self, wanted: &HashSet<&Path>) {
        let old: Vec<_> =
            self.watched.keys().filter(|dir| !wanted.contains(dir.as_path())).cloned().collect();
        for dir in &old {
            self.drop_watch(dir);
        }
    }

    /// Nothing more is heard from the kernel.
    pub(super) fn deaf(&mut self) {
        if self.kernel.is_some() {
            self.give_up("reading from inotify failed");
        }
    }

    fn give_up(&mut self, why: &str) {
        self.kernel = None;
        self.watched.clear();
        self.shared.warn(format!(
            "saved files are noticed late: directories cannot be watched ({why}), so they are looked at every few seconds"
        ));
    }

    /// Watches what has this name now, and keeps that in `watched`; a directory that is watched already has the same watch.
    fn watch(&mut self, dir: &Path) {
        let Some(kernel) = &self.kernel else { return };
        match kernel.source.add(dir) {
            Ok(watch) => {
                self.watched.insert(dir.to_owned(), watch);
            }
            Err(Errno::ENOSPC) => {
                self.give_up("no watches left, see the sysctl fs.inotify.max_user_watches");
            }
            // It is gone, or we may not read it: the directory above tells when that changes.
            Err(error) => {
                self.watched.remove(dir);
                tracing::debug!(dir = %dir.display(), %error, "not watched");
            }
        }
    }

    fn drop_watch(&mut self, dir: &Path) {
        if let (Some(watch), Some(kernel)) = (self.watched.remove(dir), &self.kernel) {
            kernel.source.forget(watch, dir);
        }
    }
}

impl Kernel {
    /// # Errors
    /// Where the user has no more of them (`fs.inotify.max_user_instances`), or there is no descriptor or thread.
    fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let source = Arc::new(Source { inotify, paths: Mutex::default() });
        let (end, ends) = io::pipe()?;
        let listener = Arc::clone(&source);
        // It must never wait for ours: it only leaves notes.
        let listen = move || listener.listen(&end, &shared);
        std::thread::Builder::new().name("watch-ear".into()).spawn(listen)?;
        Ok(Self { source, _ends: ends })
    }
}

impl Source {
    fn add(&self, dir: &Path) -> Result<WatchDescriptor, Errno> {
        // Held meanwhile: news of it may come before it is noted.
        let mut paths = lock(&self.paths);
        let watch = self.inotify.add_watch(dir, NEWS)?;
        let names = paths.entry(watch).or_default();
        if !names.iter().any(|name| name == dir) {
            names.push(dir.to_owned());
        }
        Ok(watch)
    }

    /// This name is not watched any more; the watch ends with its last one.
    fn forget(&self, watch: WatchDescriptor, dir: &Path) {
        let mut paths = lock(&self.paths);
        let Some(names) = paths.get_mut(&watch) else { return };
        names.retain(|name| name != dir);
        if names.is_empty() {
            paths.remove(&watch);
            let _ = self.inotify.rm_watch(watch); // the directory may be gone, and its watch with it
        }
    }

    /// Hands on what happens, until the pipe closes.
    fn listen(&self, end: &io::PipeReader, shared: &Shared) {
        loop {
            let mut sources = [
                PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
                PollFd::new(end.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut sources, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return shared.post(|mail| mail.deaf = true),
            }
            if sources[1].any() == Some(true) {
                return;
            }
            match self.inotify.read_events() {
                Ok(events) => {
                    for event in events {
                        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                            shared.post(|mail| mail.overflow = true);
                        } else if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                            lock(&self.paths).remove(&event.wd); // the directory is gone
                        } else {
                            for path in self.told(event.wd, event.name.as_deref()) {
                                shared.touched(path);
                            }
                        }
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => return shared.post(|mail| mail.deaf = true),
            }
        }
    }

    /// What news of a watch are about: an entry of it, or itself.
    fn told(&self, watch: WatchDescriptor, entry: Option<&std::ffi::OsStr>) -> Vec<PathBuf> {
        let paths = lock(&self.paths);
        let names = paths.get(&watch).into_iter().flatten();
        names.map(|name| entry.map_or_else(|| name.clone(), |entry| name.join(entry))).collect()
    }
}
