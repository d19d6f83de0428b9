//! The store: segments one after another, within a budget. It writes; [`super::query`] reads.
//!
//! The oldest lines go first ([`super::room`]): when all files together pass `budget`, when less than `keep_free` of the
//! disk is free, and when the disk is full. Segments older than `max_age` go whole.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use hilum_shared::config::spec::LogsSpec;
use hilum_shared::units::{Bytes, format_size};

use super::closer::{self, Closer};
use super::gone::Gone;
use super::losses::Names;
use super::record::{Batch, wall};
use super::recover::{Depth, recover, span_at};
use super::room::{CORRUPT, Closed, held};
use super::segment::{AppendError, Id, Segment, Shares, files, list, path, remove, size};

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

/// Something that happened to the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What, in words.
    pub text: String,
    /// How many records are lost by it: their numbers are missing, and readers say so in their place.
    pub lines: u64,
    /// Whose they were, as far as that is known.
    pub(super) names: Names,
}

impl Note {
    fn of(text: String) -> Self {
        Self { text, lines: 0, names: Names::new() }
    }
}

/// So many of the newest segments are looked at closely when the store is opened: a power loss takes what was written in the
/// half minute before it.
const NEWEST: usize = 4;

/// How much text may be written between two looks at the free space and at the names of the files.
const LOOK_BYTES: u64 = 8 * 1024 * 1024;
/// How long they may be unseen while something is written.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The segments of a folder, the last one open for writing.
pub struct Store {
    pub(super) dir: PathBuf,
    /// Its permissions, should it have to be made again.
    mode: u32,
    pub(super) budget: u64,
    pub(super) segment: u64,
    pub(super) keep_free: f64,
    max_age: Option<Duration>,
    compress: bool,
    pub(super) closer: Option<Closer>,
    pub(super) notes: Vec<Note>,
    pub(super) closed: VecDeque<Closed>,
    pub(super) current: Option<Segment>,
    /// Bytes of files that belong to no segment.
    pub(super) aside: u64,
    /// The folder's time when what lies in it was counted.
    pub(super) stock: Option<SystemTime>,
    /// The number of the segment to open where none is.
    pub(super) next_number: u64,
    pub(super) next_seq: u64,
    /// The first sequence number of the current segment.
    pub(super) first_seq: u64,
    pub(super) gone: Gone,
    /// Whether `gone` could not be written down.
    pub(super) unwritten: bool,
    pub(super) key: u64,
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
    pub fn open(dir: &Path, spec: &LogsSpec) -> Result<(Self, Vec<Note>), StoreError> {
        let failed = |source| StoreError::Folder { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let mut store = Self {
            dir: dir.to_owned(),
            mode: fs::metadata(dir).map_err(failed)?.permissions().mode() & 0o777,
            budget: 0,
            segment: 0,
            keep_free: 0.0,
            max_age: None,
            compress: false,
            closer: None,
            notes: Vec::new(),
            closed: VecDeque::new(),
            current: None,
            aside: 0,
            stock: None,
            next_number: 1,
            next_seq: 1,
            first_seq: 1,
            gone: Gone::default(),
            unwritten: false,
            key: 0,
            since: wall(),
            looked: None,
            unseen: 0,
        };
        store.configure(spec);
        let mut notes = Vec::new();
        closer::tidy(dir).map_err(failed)?;
        let found = list(dir).map_err(failed)?;
        let known = Gone::read(dir);
        if !found.is_empty() {
            store.next_seq = known.as_ref().map_or(1, Gone::first);
        }
        // What is left of a segment whose text somebody took away, or that was folded into another.
        for (id, ending) in files(dir).map_err(failed)? {
            store.next_number = store.next_number.max(id.number + 1);
            if !found.contains(&id) && !ending.ends_with(CORRUPT) {
                remove(dir, id);
            }
        }
        for (at, id) in found.iter().enumerate() {
            if store.set_copy_aside(*id, held(dir, *id)) {
                continue;
            }
            let depth = match found.len() - at {
                1 => Depth::Last,
                from_the_end if from_the_end <= NEWEST => Depth::Recent,
                _ => Depth::Closed,
            };
            match recover(dir, *id, store.next_seq, store.key, depth) {
                Ok(recovered) => {
                    store.next_seq = recovered.next_seq;
                    store.key = recovered.key;
                    notes.extend(recovered.notes.into_iter().map(Note::of));
                    if !recovered.aside {
                        store.close(*id, None);
                    }
                }
                // It stays where it is and is evicted in its turn.
                Err(error) => {
                    notes.push(Note::of(format!("{id}.log cannot be mended: {error}")));
                    store.close(*id, None);
                }
            }
        }
        // The node's next life goes on in the last segment, unless something was set aside after it.
        if let Some(last) = store.closed.back()
            && Some(&last.id) == found.last()
            && last.id.from.is_none()
            && last.plain
            && last.size < store.segment
        {
            store.next_number = last.id.number;
            store.since = first_key(dir, last.id).unwrap_or(store.since);
            store.closed.pop_back();
            // Opened now, as it was found sound now; where that fails the first append tries again.
            if let Ok(segment) = Segment::open(dir, store.next_number) {
                store.next_number += 1;
                store.first_seq = held(dir, segment.id).map_or(store.next_seq, |range| range.0);
                store.current = Some(segment);
            }
        }
        store.find_losses(known);
        store.take_stock();
        notes.append(&mut store.notes);
        Ok((store, notes))
    }

    /// Takes new limits.
    pub fn configure(&mut self, spec: &LogsSpec) {
        self.budget = spec.budget.0.max(64 * 1024);
        // Four segments at least: the oldest quarter goes, never everything.
        self.segment = spec.segment.0.clamp(16 * 1024, self.budget / 4);
        self.keep_free = spec.keep_free.clamp(0.0, 1.0);
        self.max_age = spec.max_age;
        self.compress = spec.compress;
    }

    /// What happened to segments since the last call, in words.
    pub fn notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    pub(super) fn say(&mut self, text: String) {
        self.notes.push(Note::of(text));
    }

    /// Puts a segment among those that are written to no more.
    pub(super) fn close(&mut self, id: Id, shares: Option<Shares>) {
        self.closed.push_back(Closed {
            id,
            range: held(&self.dir, id),
            size: size(&self.dir, id),
            key: self.key,
            plain: path(&self.dir, id, "log").exists(),
            shares,
        });
    }

    /// The sequence number of the next record.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Bytes of all files that have a segment's name.
    pub fn size(&self) -> u64 {
        self.aside
            + self.closed.iter().map(|closed| closed.size).sum::<u64>()
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
                    match fs::DirBuilder::new().mode(self.mode).create(&self.dir) {
                        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                            return Err(error);
                        }
                        _ => self.abandon(),
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
                    self.first_seq = self.next_seq;
                } else {
                    let range = held(&self.dir, opened.id);
                    self.first_seq = range.map_or(self.next_seq, |range| range.0);
                }
                self.next_number = opened.id.number + 1;
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
        self.take_stock();
        self.age();
        self.make_room(batch.size() as u64);
        self.compress();
    }

    /// How long until something may be too old, where `max_age` says so: it goes when nothing more is written, too.
    pub(super) fn ages_in(&self) -> Option<Duration> {
        let holds = !self.closed.is_empty() || self.current.is_some();
        self.max_age.filter(|_| holds).map(|age| (age / 4).max(LOOK_EVERY))
    }

    /// Removes what is too old.
    pub(super) fn age(&mut self) {
        let Some(age) = self.max_age else { return };
        let oldest = wall().saturating_sub(age.as_micros() as u64);
        while self.closed.front().is_some_and(|closed| closed.key < oldest) {
            self.remove(0);
        }
        // A part of the age is enough for one segment, so that none lives twice as long.
        let part = wall().saturating_sub(age.as_micros() as u64 / 4);
        if self.since < part && self.current.as_ref().is_some_and(|segment| !segment.is_empty()) {
            self.rotate();
        }
    }

    /// Ends the current segment; the next append opens a new one.
    pub fn rotate(&mut self) {
        // Nobody looks at its name any more once it is closed.
        if self.current.as_ref().is_some_and(|segment| !segment.is_in_place()) {
            return self.abandon();
        }
        if let Some(segment) = self.current.take() {
            self.close(segment.id, segment.shares());
            self.save_gone();
            if let Some(closer) = self.closer() {
                closer.sync(segment.id);
            }
        }
    }

    pub(super) fn closer(&mut self) -> Option<&mut Closer> {
        if self.closer.is_none() {
            self.closer = Closer::start(&self.dir).ok();
        }
        self.closer.as_mut()
    }

    /// Gives the other thread the next segment to compress, and hears what became of the last one.
    fn compress(&mut self) {
        while let Some(packed) = self.closer.as_mut().and_then(Closer::packed) {
            self.packed(packed);
        }
        if !self.compress {
            return;
        }
        let Some(next) = self.closed.iter().find(|closed| closed.plain).map(|closed| closed.id)
        else {
            return;
        };
        if let Some(closer) = self.closer().filter(|closer| closer.is_idle()) {
            closer.pack(next);
        }
    }

    pub(super) fn packed(&mut self, (id, result): (Id, io::Result<()>)) {
        let Some(closed) = self.closed.iter_mut().find(|closed| closed.id == id) else {
            return;
        };
        closed.plain = false;
        closed.size = size(&self.dir, id);
        if let Err(error) = result {
            self.say(format!("{id}.log cannot be compressed and stays plain: {error}"));
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

    /// Brings everything to the disk itself.
    ///
    /// # Errors
    /// What the file system says.
    pub fn sync(&mut self) -> io::Result<()> {
        self.save_gone();
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

fn first_key(dir: &Path, id: Id) -> Option<u64> {
    let idx = fs::File::open(path(dir, id, "idx")).ok()?;
    Some(span_at(&idx, 0).ok()??.key)
}
