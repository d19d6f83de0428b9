//! The store: segments one after another, within a budget. It writes; [`super::query`] reads.
//!
//! The oldest segments go first: when all files together pass `budget`, when less than `keep_free` of the
//! disk is free, when they are older than `max_age`, and when the disk is full.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hilum_shared::config::spec::LogsSpec;
use hilum_shared::units::{Bytes, format_size};

use super::record::{Batch, wall};
use super::recover::{Depth, recover, span_at};
use super::segment::{AppendError, ENDINGS, Segment, numbers, path, size};

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its folder cannot be made or read.
    #[error("log folder `{}`: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

/// A segment that is written to no more.
struct Closed {
    number: u64,
    size: u64,
    /// The latest wall time in it.
    key: u64,
}

/// How much text may be written between two looks at the free space and at the names of the files.
const LOOK_BYTES: u64 = 8 * 1024 * 1024;
/// How long they may be unseen while something is written.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The segments of a folder, the last one open for writing.
pub struct Store {
    dir: PathBuf,
    budget: u64,
    segment: u64,
    keep_free: f64,
    max_age: Option<Duration>,
    closed: VecDeque<Closed>,
    current: Option<Segment>,
    /// The number of the segment to open where none is.
    next_number: u64,
    next_seq: u64,
    key: u64,
    /// The wall time of the first record of the current segment.
    since: u64,
    looked: Option<Instant>,
    unseen: u64,
}

impl Store {
    /// Opens the store in `dir`, mends what a crash left, and says what was mended.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(dir: &Path, spec: &LogsSpec) -> Result<(Self, Vec<String>), StoreError> {
        let failed = |source| StoreError::Folder { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let mut store = Self {
            dir: dir.to_owned(),
            budget: 0,
            segment: 0,
            keep_free: 0.0,
            max_age: None,
            closed: VecDeque::new(),
            current: None,
            next_number: 1,
            next_seq: 1,
            key: 0,
            since: wall(),
            looked: None,
            unseen: 0,
        };
        store.configure(spec);
        let mut notes = Vec::new();
        let found = numbers(dir).map_err(failed)?;
        let newest = found.last().copied();
        // What is left of a segment whose text somebody took away.
        for (number, ending) in super::segment::files(dir).map_err(failed)? {
            store.next_number = store.next_number.max(number + 1);
            if found.binary_search(&number).is_err() && ENDINGS.contains(&ending.as_str()) {
                let _ = fs::remove_file(path(dir, number, &ending)); // it does no harm where it stays
            }
        }
        for number in found {
            let depth = if Some(number) == newest { Depth::Last } else { Depth::Closed };
            match recover(dir, number, store.next_seq, store.key, depth) {
                Ok(recovered) => {
                    store.next_seq = recovered.next_seq;
                    store.key = recovered.key;
                    notes.extend(recovered.notes);
                    if !recovered.aside {
                        store.closed.push_back(Closed {
                            number,
                            size: size(dir, number),
                            key: store.key,
                        });
                    }
                }
                // It stays where it is and is evicted in its turn.
                Err(error) => {
                    notes.push(format!("{number:06}.log cannot be mended: {error}"));
                    store.closed.push_back(Closed {
                        number,
                        size: size(dir, number),
                        key: store.key,
                    });
                }
            }
        }
        // The node's next life goes on in the last segment.
        if let Some(last) = store.closed.back()
            && Some(last.number) == newest
            && last.size < store.segment
        {
            store.next_number = last.number;
            store.since = first_key(dir, last.number).unwrap_or(store.since);
            store.closed.pop_back();
            // Opened now, as it was found sound now; where that fails the first append tries again.
            if let Ok(segment) = Segment::open(dir, store.next_number) {
                store.next_number += 1;
                store.current = Some(segment);
            }
        }
        Ok((store, notes))
    }

    /// Takes new limits.
    pub fn configure(&mut self, spec: &LogsSpec) {
        self.budget = spec.budget.0.max(64 * 1024);
        // Four segments at least: the oldest quarter goes, never everything.
        self.segment = spec.segment.0.clamp(16 * 1024, self.budget / 4);
        self.keep_free = spec.keep_free.clamp(0.0, 1.0);
        self.max_age = spec.max_age;
    }

    /// The sequence number of the next record.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Bytes of all segments.
    pub fn size(&self) -> u64 {
        self.closed.iter().map(|closed| closed.size).sum::<u64>()
            + self.current.as_ref().map_or(0, Segment::size)
    }

    /// Writes a batch whole, or nothing of it.
    ///
    /// # Errors
    /// What the file system says, after the oldest segments made room where it was full.
    pub fn append(&mut self, batch: &Batch) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        self.look(batch);
        let mut tries = 0;
        loop {
            match self.try_append(batch) {
                Ok(()) => return Ok(()),
                Err(AppendError::Changed) if tries < 3 => self.abandon(),
                Err(AppendError::Changed) => {
                    return Err(io::Error::other("the log files change all the time"));
                }
                Err(AppendError::Io(error))
                    if matches!(
                        error.kind(),
                        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                    ) && self.evict_one() => {}
                Err(AppendError::Io(error))
                    if error.kind() == io::ErrorKind::NotFound && tries < 3 =>
                {
                    // Only itself: where what it lies in is gone, too, the project was moved or removed.
                    match fs::create_dir(&self.dir) {
                        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                            return Err(error);
                        }
                        _ => self.current = None,
                    }
                }
                Err(AppendError::Io(error)) => return Err(error),
            }
            tries += 1;
        }
    }

    fn try_append(&mut self, batch: &Batch) -> Result<(), AppendError> {
        let segment = match &mut self.current {
            Some(segment) => segment,
            None => {
                let opened = Segment::open(&self.dir, self.next_number)?;
                if opened.is_empty() {
                    self.since = wall();
                }
                self.next_number = opened.number + 1;
                self.current.insert(opened)
            }
        };
        segment.append(batch, self.next_seq, &mut self.key)?;
        self.next_seq += batch.records();
        self.unseen += batch.text.len() as u64;
        if segment.size() >= self.segment || segment.is_full() {
            self.rotate();
        }
        while self.size() > self.budget && self.evict_one() {}
        Ok(())
    }

    /// Now and then: whether the files have their names, the disk has room, segments are too old.
    fn look(&mut self, batch: &Batch) {
        let fresh = self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY);
        if fresh && self.unseen < LOOK_BYTES {
            return;
        }
        self.looked = Some(Instant::now());
        self.unseen = 0;
        if self.current.as_ref().is_some_and(|segment| !segment.is_in_place()) {
            self.abandon();
        }
        if let Some(age) = self.max_age {
            let oldest = wall().saturating_sub(age.as_micros() as u64);
            while self.closed.front().is_some_and(|closed| closed.key < oldest) && self.evict_one()
            {
            }
            // A part of the age is enough for one segment, so that none lives twice as long.
            let part = wall().saturating_sub(age.as_micros() as u64 / 4);
            if self.since < part && self.current.as_ref().is_some_and(|segment| !segment.is_empty())
            {
                self.rotate();
            }
        }
        self.make_room(batch.size() as u64);
    }

    /// Keeps the floor of free space as far as old segments allow; others may have filled the disk.
    fn make_room(&mut self, needed: u64) {
        if self.keep_free <= 0.0 {
            return;
        }
        for _ in 0..self.closed.len() {
            let Ok(disk) = nix::sys::statvfs::statvfs(&self.dir) else {
                return;
            };
            let free = disk.blocks_available() as f64;
            let floor =
                disk.blocks() as f64 * self.keep_free + needed as f64 / disk.fragment_size() as f64;
            if free >= floor || !self.evict_one() {
                return;
            }
        }
    }

    /// Ends the current segment; the next append opens a new one.
    pub fn rotate(&mut self) {
        if let Some(segment) = self.current.take() {
            let _ = segment.sync(); // the text is written; only a power loss could take it
            self.closed.push_back(Closed {
                number: segment.number,
                size: segment.size(),
                key: self.key,
            });
        }
    }

    /// Looks at the files' names now: for SIGUSR1, after logrotate.
    pub fn reopen(&mut self) {
        self.looked = None;
        self.unseen = LOOK_BYTES;
        if self.current.as_ref().is_some_and(|segment| !segment.is_in_place()) {
            self.abandon();
        }
    }

    /// Leaves a segment that somebody else changed as it is.
    fn abandon(&mut self) {
        if let Some(segment) = self.current.take() {
            self.closed.push_back(Closed {
                number: segment.number,
                size: size(&self.dir, segment.number),
                key: self.key,
            });
        }
        let found = super::segment::files(&self.dir).unwrap_or_default();
        let newest = found.iter().map(|(number, _)| *number).max().unwrap_or(0);
        self.next_number = self.next_number.max(newest + 1);
    }

    /// Removes the oldest segment; `false` when only the current one is left.
    ///
    /// The one place that chooses what goes: a fairer choice among instances belongs here.
    fn evict_one(&mut self) -> bool {
        if let Some(number) = self.oldest_aside() {
            for ending in ENDINGS {
                let _ = fs::remove_file(self.dir.join(format!("{number:06}.{ending}.corrupt"))); // may never have been
            }
            return true;
        }
        let Some(oldest) = self.closed.pop_front() else {
            return false;
        };
        // The index goes last: a reader that still finds it finds the rest missing and passes on.
        for ending in ENDINGS {
            let _ = fs::remove_file(path(&self.dir, oldest.number, ending)); // somebody else may have been first
        }
        true
    }

    /// A segment that was set aside and is older than all others.
    fn oldest_aside(&self) -> Option<u64> {
        let oldest = self.closed.front().map_or(self.next_number, |closed| closed.number);
        super::segment::files(&self.dir)
            .ok()?
            .into_iter()
            .filter(|(number, ending)| ending.ends_with(".corrupt") && *number <= oldest)
            .map(|(number, _)| number)
            .min()
    }

    /// Brings everything to the disk itself.
    ///
    /// # Errors
    /// What the file system says.
    pub fn sync(&self) -> io::Result<()> {
        self.current.as_ref().map_or(Ok(()), Segment::sync)
    }

    /// For people: how full it is.
    pub fn describe(&self) -> String {
        format!(
            "{} of {} in {}",
            format_size(Bytes(self.size())),
            format_size(Bytes(self.budget)),
            self.dir.display()
        )
    }
}

fn first_key(dir: &Path, number: u64) -> Option<u64> {
    let idx = fs::File::open(path(dir, number, "idx")).ok()?;
    Some(span_at(&idx, 0).ok()??.key)
}
