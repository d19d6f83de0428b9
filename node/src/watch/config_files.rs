//! The files of the configuration. A change counts when it is over and the content is another one.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::content::{Content, Stamp};
use super::directories::Directories;
use super::places::Way;

/// A file that kept its size and time for so long is written completely.
const SETTLED: Duration = Duration::from_millis(100);

/// The files of the configuration.
#[derive(Debug, Default)]
pub(super) struct ConfigFiles {
    /// Each with what it held when it was last reported; `None`: there was none.
    files: BTreeMap<PathBuf, Option<Content>>,
    /// Links, files, and first missing directories: whatever happens to these matters.
    places: HashSet<PathBuf>,
    /// The directories that hold them.
    pub(super) dirs: HashSet<PathBuf>,
    stamps: Vec<Option<Stamp>>,
    pub(super) due: Option<Instant>,
}

impl ConfigFiles {
    /// Takes a new list. What was there at the time of `since` was read already.
    pub(super) fn set(
        &mut self,
        files: &[PathBuf],
        since: SystemTime,
        directories: &mut Directories,
    ) {
        let mut before = std::mem::take(&mut self.files);
        self.files = files.iter().map(|file| (file.clone(), None)).collect();
        self.find(directories);
        for (file, content) in &mut self.files {
            *content = match before.remove(file) {
                Some(content) => content,
                None => match Content::of(file) {
                    Some(content) if content.stamp.after(since) => {
                        self.due = Some(Instant::now() + SETTLED);
                        None
                    }
                    content => content,
                },
            };
        }
        if self.files.is_empty() {
            self.due = None;
        }
    }

    /// Hears that something happened to a path.
    pub(super) fn touch(&mut self, path: &Path, now: Instant) {
        if self.places.contains(path) || self.dirs.contains(path) {
            self.suspect(now);
        }
    }

    /// Something may have happened.
    pub(super) fn suspect(&mut self, now: Instant) {
        if !self.files.is_empty() {
            self.due = Some(now + SETTLED);
        }
    }

    /// Whether, now that it is due, a change is over and real.
    pub(super) fn settle(&mut self, now: Instant, directories: &mut Directories) -> bool {
        if self.due.is_none_or(|due| due > now) {
            return false;
        }
        self.find(directories);
        let stamps: Vec<_> = self.files.keys().map(|file| Stamp::of(file)).collect();
        if stamps != self.stamps {
            self.stamps = stamps;
            self.due = Some(now + SETTLED);
            return false;
        }
        self.due = None;
        let mut changed = false;
        for (file, known) in &mut self.files {
            let content = Content::of(file);
            let same = match (&content, &known) {
                (Some(content), Some(known)) => content.same_as(known),
                (content, known) => content.is_none() == known.is_none(),
            };
            changed |= !same;
            *known = content;
        }
        changed
    }

    /// Watches every place that matters as things are now.
    fn find(&mut self, directories: &mut Directories) {
        self.places.clear();
        self.dirs.clear();
        for file in self.files.keys() {
            for place in Way::to(file).places() {
                if let Some(dir) = place.parent()
                    && self.dirs.insert(dir.to_owned())
                {
                    directories.want(dir);
                }
                self.places.insert(place.clone());
            }
        }
    }
}
