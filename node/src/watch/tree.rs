//! What one service watches: the files that match now, and what they held when it was last told.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use hilum_shared::config::spec::Watch;

use super::content::{Content, Stamp};
use super::directories::Directories;
use super::globs::Glob;
use super::places::Way;
use super::rules::Rules;

/// Most files of which the content is remembered; of others a change is only noticed from the kernel's word.
const MAX_FILES: usize = 50_000;
/// Most changed files that are remembered by name; past them everything is looked at.
const MAX_TOUCHED: usize = 4096;

/// What one service watches.
#[derive(Debug)]
pub(super) struct Tree {
    folder: PathBuf,
    spec: Watch,
    globs: Vec<Glob>,
    rules: Rules,
    files: HashMap<PathBuf, Content>,
    /// The real place of each glob's base; those that exist.
    bases: Vec<(PathBuf, usize)>,
    /// Directories of which every entry matters.
    dirs: HashSet<PathBuf>,
    /// Directories in which only `places` matter.
    above: HashSet<PathBuf>,
    /// Links, missing bases, files of rules: when one of these changes, everything is looked at anew.
    places: HashSet<PathBuf>,
    /// Links to files outside, by the place that they lead to.
    linked: HashMap<PathBuf, PathBuf>,
    /// In the order in which they were heard of.
    touched: Vec<PathBuf>,
    look: bool,
    pub(super) due: Option<Instant>,
}

impl Tree {
    /// Finds and remembers what is there. What was written after `since` counts as changed.
    pub(super) fn new(
        folder: &Path,
        spec: Watch,
        since: SystemTime,
        directories: &mut Directories,
    ) -> Self {
        let mut tree = Self {
            folder: folder.to_owned(),
            globs: spec.paths.iter().filter_map(|pattern| Glob::new(folder, pattern)).collect(),
            rules: Rules::new(folder, &spec.ignore),
            files: HashMap::new(),
            bases: Vec::new(),
            dirs: HashSet::new(),
            above: HashSet::new(),
            places: HashSet::new(),
            linked: HashMap::new(),
            touched: Vec::new(),
            look: false,
            due: None,
            spec,
        };
        let now = Instant::now();
        for file in tree.find(directories) {
            let Some(content) = Content::of(&file) else { continue };
            if content.stamp.after(since) {
                tree.note(file, now);
            } else {
                tree.remember(file, content);
            }
        }
        tree
    }

    /// Whether it can go on as it is under another specification.
    pub(super) fn adopt(&mut self, folder: &Path, spec: &Watch) -> bool {
        let same = self.folder == folder
            && self.spec.paths == spec.paths
            && self.spec.ignore == spec.ignore;
        if same {
            self.spec = spec.clone();
        }
        same
    }

    /// The directories that it needs watched.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &Path> {
        self.dirs.iter().chain(&self.above).map(PathBuf::as_path)
    }

    /// Whether more files match than are remembered.
    pub(super) fn crowded(&self) -> bool {
        self.files.len() >= MAX_FILES
    }

    /// Hears that something happened to a path.
    pub(super) fn touch(&mut self, path: &Path, now: Instant, directories: &mut Directories) {
        if self.dirs.contains(path) {
            // It may be another directory by now.
            directories.renew(path);
            self.suspect(now);
        } else if self.places.contains(path) {
            self.suspect(now);
        } else if let Some(link) = self.linked.get(path) {
            self.note(link.clone(), now);
        } else if path.parent().is_some_and(|dir| self.dirs.contains(dir)) {
            self.entry(path, now, directories);
        }
    }

    /// An entry of a directory of ours.
    fn entry(&mut self, path: &Path, now: Instant, directories: &mut Directories) {
        if path.file_name().is_some_and(|name| name == ".gitignore") {
            self.suspect(now);
        }
        let kind = path.symlink_metadata().ok();
        if kind.as_ref().is_some_and(fs::Metadata::is_dir) {
            // Files in it may have come before its watch.
            if self.enters(path) && !self.rules.ignore(path, true) {
                let mut found = Vec::new();
                self.walk(path.to_owned(), directories, &mut found);
                for file in found {
                    self.note(file, now);
                }
            }
            return;
        }
        if self.matches(path) && !self.rules.ignore(path, false) {
            if kind.is_some_and(|kind| kind.is_symlink()) {
                self.follow(path, directories);
            }
            self.note(path.to_owned(), now);
        }
    }

    /// Anything may have happened.
    pub(super) fn suspect(&mut self, now: Instant) {
        self.look = true;
        self.due = Some(now + self.spec.debounce);
    }

    /// The first changed path, now that it has been quiet for long enough.
    pub(super) fn settle(&mut self, now: Instant, directories: &mut Directories) -> Option<String> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        self.due = None;
        let mut suspects = std::mem::take(&mut self.touched);
        if std::mem::take(&mut self.look) {
            let found = self.find(directories);
            let present: HashSet<&PathBuf> = found.iter().collect();
            let missing: Vec<_> =
                self.files.keys().filter(|file| !present.contains(file)).cloned().collect();
            let crowded = self.crowded();
            suspects.extend(found.into_iter().filter(|file| match self.files.get(file) {
                Some(known) => Stamp::of(file) != Some(known.stamp),
                None => !crowded,
            }));
            suspects.extend(missing);
        }
        let mut first = None;
        for file in suspects {
            // It may have become ignored or unreachable meanwhile.
            let content = Content::of(&file).filter(|_| self.wants(&file));
            let changed = match (&content, self.files.get(&file)) {
                (Some(content), Some(known)) => !content.same_as(known),
                (content, known) => {
                    content.is_some() != known.is_some() || (known.is_none() && self.crowded())
                }
            };
            match content {
                Some(content) => self.remember(file.clone(), content),
                None => drop(self.files.remove(&file)),
            }
            if changed && first.is_none() {
                first = Some(self.show(&file));
            }
        }
        first
    }

    fn note(&mut self, file: PathBuf, now: Instant) {
        self.due = Some(now + self.spec.debounce);
        if self.touched.len() >= MAX_TOUCHED {
            self.look = true;
        } else if self.touched.last() != Some(&file) {
            self.touched.push(file);
        }
    }

    fn remember(&mut self, file: PathBuf, content: Content) {
        if !self.crowded() || self.files.contains_key(&file) {
            self.files.insert(file, content);
        }
    }

    /// Everything that matches now. Each directory is watched before it is read, so that nothing falls between.
    fn find(&mut self, directories: &mut Directories) -> Vec<PathBuf> {
        self.bases.clear();
        self.dirs.clear();
        self.above.clear();
        self.places.clear();
        self.linked.clear();
        self.rules.forget();
        let ways: Vec<_> = self.globs.iter().map(|glob| Way::to(&glob.base)).collect();
        let mut starts = Vec::new();
        for (number, way) in ways.iter().enumerate() {
            if self.globs[number].base != self.folder {
                self.place(way, directories);
            }
            if !way.exists {
                continue;
            }
            for dir in self.rules.begin(&way.end) {
                self.places.insert(dir.join(".gitignore"));
                directories.want(&dir);
                self.above.insert(dir);
            }
            self.bases.push((way.end.clone(), number));
            starts.push(way.end.clone());
        }
        let mut found = Vec::new();
        for start in starts {
            if start.is_dir() {
                self.walk(start, directories, &mut found);
            } else {
                // One file, named in full: its directory is watched, and no rule hides it.
                self.linked.insert(start.clone(), start.clone());
                found.push(start);
            }
        }
        found
    }

    fn place(&mut self, way: &Way, directories: &mut Directories) {
        for place in way.places() {
            if let Some(dir) = place.parent()
                && self.above.insert(dir.to_owned())
            {
                directories.want(dir);
            }
            if way.links.contains(place) || !way.exists || place.is_dir() {
                self.places.insert(place.clone());
            }
        }
    }

    fn walk(&mut self, start: PathBuf, directories: &mut Directories, found: &mut Vec<PathBuf>) {
        let mut left = vec![start];
        while let Some(dir) = left.pop() {
            if !self.dirs.insert(dir.clone()) {
                continue; // by another glob
            }
            directories.want(&dir);
            let Ok(entries) = fs::read_dir(&dir) else { continue };
            for entry in entries.flatten() {
                let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
                if kind.is_dir() {
                    if self.enters(&path) && !self.rules.ignore(&path, true) {
                        left.push(path);
                    }
                } else if self.matches(&path) && !self.rules.ignore(&path, false) {
                    if kind.is_symlink() {
                        self.follow(&path, directories);
                    }
                    found.push(path);
                }
            }
        }
    }

    /// Watches the place that a link leads to. Links to directories are not entered: they may lead anywhere.
    fn follow(&mut self, link: &Path, directories: &mut Directories) {
        for place in Way::to(link).places() {
            if let Some(dir) = place.parent() {
                directories.want(dir);
                self.above.insert(dir.to_owned());
            }
            if place != link {
                self.linked.insert(place.clone(), link.to_owned());
            }
        }
    }

    fn wants(&mut self, file: &Path) -> bool {
        self.linked.contains_key(file) || (self.matches(file) && !self.rules.ignore(file, false))
    }

    fn matches(&self, file: &Path) -> bool {
        self.below(file).any(|(glob, below)| glob.matches(below))
    }

    fn enters(&self, dir: &Path) -> bool {
        self.below(dir).any(|(glob, below)| glob.enters(below))
    }

    /// The globs that may know a path, each with the path below its base.
    fn below<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = (&'a Glob, &'a Path)> {
        self.bases.iter().filter_map(move |(base, number)| {
            Some((&self.globs[*number], path.strip_prefix(base).ok()?))
        })
    }

    fn show(&self, file: &Path) -> String {
        let known = self.below(file).find(|(glob, below)| glob.matches(below));
        match known {
            Some((glob, below)) => glob.show(below),
            None => file.strip_prefix(&self.folder).unwrap_or(file).display().to_string(),
        }
    }
}
