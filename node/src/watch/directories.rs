//! The watched directories, and what happens when the kernel has no watches left.

use std::collections::{BTreeSet, HashSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{EventKind, Flag};
use notify::{ErrorKind, Event, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::Shared;

/// The watched directories. Empty, for good, once watching has failed: then everything is polled.
pub(super) struct Directories {
    kernel: Option<RecommendedWatcher>,
    /// In the order of their components: what lies below one follows it.
    watched: BTreeSet<PathBuf>,
    shared: Arc<Shared>,
}

impl Directories {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let post = Arc::clone(&shared);
        // Its thread must never wait for ours, which waits for it in `watch`: it only leaves a note.
        let kernel = notify::recommended_watcher(move |event| hear(&post, event));
        let mut directories = Self { kernel: None, watched: BTreeSet::new(), shared };
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
        if self.watched.contains(dir) {
            return;
        }
        let Some(kernel) = &mut self.kernel else { return };
        match kernel.watch(dir, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.watched.insert(dir.to_owned());
            }
            Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => self.exhausted(),
            // It is gone, or we may not read it: the directory above tells when that changes.
            Err(error) => tracing::debug!(dir = %dir.display(), %error, "not watched"),
        }
    }

    /// Watches what has this name now; the directory before may have been another.
    pub(super) fn renew(&mut self, dir: &Path) {
        self.drop_watch(dir);
        if dir.is_dir() {
            // After a rename nothing is heard from below, either, until it is wanted again.
            let after = self.watched.range::<Path, _>((Bound::Excluded(dir), Bound::Unbounded));
            let below: Vec<_> = after.take_while(|other| other.starts_with(dir)).cloned().collect();
            for other in &below {
                self.drop_watch(other);
            }
            self.want(dir);
        }
    }

    /// Ends all watches that are not `wanted`.
    pub(super) fn keep_only(&mut self, wanted: &HashSet<&Path>) {
        let old: Vec<_> =
            self.watched.iter().filter(|dir| !wanted.contains(dir.as_path())).cloned().collect();
        for dir in &old {
            self.drop_watch(dir);
        }
    }

    /// The kernel has no watches left.
    pub(super) fn exhausted(&mut self) {
        self.give_up("no watches left, see the sysctl fs.inotify.max_user_watches");
    }

    fn give_up(&mut self, why: &str) {
        self.kernel = None;
        self.watched.clear();
        self.shared.warn(format!(
            "saved files are noticed late: directories cannot be watched ({why}), so they are looked at every few seconds"
        ));
    }

    fn drop_watch(&mut self, dir: &Path) {
        if self.watched.remove(dir)
            && let Some(kernel) = &mut self.kernel
        {
            let _ = kernel.unwatch(dir); // it may be gone, and its watch with it
        }
    }
}

fn hear(shared: &Shared, event: notify::Result<Event>) {
    match event {
        Ok(event) if event.flag() == Some(Flag::Rescan) => shared.post(|mail| mail.overflow = true),
        // Reading is no change; we read ourselves.
        Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
        Ok(event) => event.paths.into_iter().for_each(|path| shared.touched(path)),
        Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => {
            shared.post(|mail| mail.exhausted = true);
        }
        Err(_) => shared.post(|mail| mail.overflow = true),
    }
}
