//! The store's room: what counts in the budget, and what goes when room is needed.
//!
//! Everything in the folder that has a segment's name counts, whoever put it there. What is no segment goes first, then
//! the oldest lines, of each name as many as it has beyond its share ([`super::fold`]).

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::fold::{self, Plan, fold};
use super::gone::Word;
use super::losses::word;
use super::recover::{last_span, set_aside};
use super::scan::SegmentReader;
use super::segment::{Id, Segment, Shares, files, list, path, remove, size};
use super::store::Store;

/// How the files of what is no timeline end.
pub(super) const CORRUPT: &str = ".corrupt";

/// A segment that is written to no more.
pub(super) struct Closed {
    pub(super) id: Id,
    pub(super) size: u64,
    /// The latest wall time in it.
    pub(super) key: u64,
    /// Whether it is to be compressed, should that be asked for.
    pub(super) plain: bool,
    /// How much room each name takes in it, once that is known.
    pub(super) shares: Option<Shares>,
    /// Its first number, and the one after its last; `None` where it could not be read.
    pub(super) range: Option<(u64, u64)>,
}

/// File systems stamp with the kernel's tick, ten milliseconds at most; ten times that for those of others.
const GRAIN: Duration = Duration::from_millis(100);

/// The first number in a segment, and the one after its last.
pub(super) fn held(dir: &Path, id: Id) -> Option<(u64, u64)> {
    SegmentReader::open(dir, id, 1).filter(|segment| !segment.is_rebuilt())?.range()
}

/// When its first record was written.
fn begun(dir: &Path, id: Id) -> Option<u64> {
    let mut segment = SegmentReader::open(dir, id, 1)?;
    (0..segment.len()).find_map(|at| segment.span(at)).map(|span| span.at)
}

/// All that gaps in a segment tell to be lost.
fn words(dir: &Path, id: Id) -> Vec<Word> {
    let Some(mut segment) = SegmentReader::open(dir, id, 1) else {
        return Vec::new();
    };
    let mut words = Vec::new();
    for at in 0..segment.len() {
        if let Some(span) = segment.span(at) {
            words.extend(word(&mut segment, &span));
        }
    }
    words
}

/// All numbers in a segment.
pub(super) fn ranges(dir: &Path, id: Id) -> Vec<(u64, u64)> {
    let Some(mut segment) = SegmentReader::open(dir, id, 1) else {
        return Vec::new();
    };
    let spans = (0..segment.len()).filter_map(|at| segment.span(at));
    spans.map(|span| (span.seq, span.next_seq())).collect()
}

impl Store {
    /// Keeps the floor of free space as far as that can be done fairly: others may have filled the disk, and all that we
    /// have may not be enough. What each name is entitled to stays, until nothing more can be written at all.
    pub(super) fn make_room(&mut self, needed: u64) {
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
            if free >= floor || !(self.remove_aside() || self.evict_fairly()) {
                return;
            }
        }
    }

    /// Makes room: what was set aside goes, then the oldest lines, of each name as many as it has beyond its
    /// share. `false` when only the current segment is left.
    pub(super) fn evict_one(&mut self) -> bool {
        if self.closed.is_empty() {
            return self.remove_aside();
        }
        if self.remove_aside() {
            return true;
        }
        if self.evict_fairly() {
            return true;
        }
        // All that is left may lie in one that was folded: what is written to now is what it can be folded into.
        if self.current.as_ref().is_some_and(|segment| !segment.is_empty()) {
            self.rotate();
            if self.evict_fairly() {
                return true;
            }
        }
        self.remove(0); // where it cannot be done fairly it is done all the same
        true
    }

    /// Makes room by what names have beyond their shares; `false` where nobody has.
    fn evict_fairly(&mut self) -> bool {
        match self.plan() {
            Some(Plan::Fold(first, allowed)) => self.fold(first, &allowed),
            Some(Plan::Remove(at)) => {
                self.remove(at);
                true
            }
            None => false,
        }
    }

    fn plan(&mut self) -> Option<Plan> {
        for closed in &mut self.closed {
            if closed.shares.is_none() {
                closed.shares = Some(fold::shares(&self.dir, closed.id));
            }
        }
        let current = self.current.as_ref().and_then(Segment::shares).unwrap_or_default();
        let closed: Vec<(&Shares, bool)> = self
            .closed
            .iter()
            .filter_map(|closed| Some((closed.shares.as_ref()?, closed.id.from.is_some())))
            .collect();
        fold::plan(&closed, &current, self.budget, self.segment)
    }

    fn fold(&mut self, first: usize, allowed: &[Shares]) -> bool {
        let range = first..first + allowed.len();
        let ids: Vec<Id> = self.closed.range(range.clone()).map(|closed| closed.id).collect();
        for id in &ids {
            self.settle(*id);
        }
        let Self { dir, gone, unwritten, .. } = self;
        let evicted = |ranges: &[(u64, u64)], words: &[Word]| {
            gone.evict(ranges, words);
            *unwritten = gone.write(dir).is_err();
        };
        let Ok(folded) = fold(dir, &ids, allowed, evicted) else {
            return false;
        };
        let key = self.closed.drain(range).map(|closed| closed.key).max().unwrap_or_default();
        if let Some(id) = folded {
            if let Some(closer) = self.closer() {
                closer.sync_now(id);
            }
            let shares = Some(fold::shares(&self.dir, id));
            let (size, held) = (size(&self.dir, id), held(&self.dir, id));
            self.closed.insert(first, Closed { id, size, key, plain: true, shares, range: held });
        }
        self.write_gone();
        true
    }

    pub(super) fn remove(&mut self, at: usize) {
        let Some((id, range)) = self.closed.get(at).map(|closed| (closed.id, closed.range)) else {
            return;
        };
        self.settle(id);
        // What is folded has holes of its own, each of which is known to be one thing or the other.
        let ranges = match (id.from, range) {
            (None, Some(whole)) => vec![whole],
            _ => ranges(&self.dir, id),
        };
        self.gone.evict(&ranges, &words(&self.dir, id));
        // Before it goes, so that no reader takes it for a loss; on a full disk after it, too.
        self.unwritten = self.gone.write(&self.dir).is_err();
        remove(&self.dir, id);
        self.closed.remove(at);
        self.write_gone();
    }

    /// Writes down what was evicted, where that has not been done.
    fn write_gone(&mut self) {
        if let Some((oldest, _)) = self.closed.front().and_then(|closed| closed.range) {
            self.gone.forget_before(oldest);
        }
        if self.unwritten {
            self.unwritten = self.gone.write(&self.dir).is_err();
        }
    }

    /// Waits until the other thread leaves the files of this segment alone.
    pub(super) fn settle(&mut self, id: Id) {
        if let Some(packed) = self.closer.as_mut().and_then(|closer| closer.wait_for(id)) {
            self.packed(packed);
        }
    }

    /// Removes what is no segment: files whose text somebody took away, and what was set aside when nothing is older.
    fn remove_aside(&mut self) -> bool {
        // What was folded is what is kept of those that are older than all that are whole.
        let oldest = self.closed.iter().find(|closed| closed.id.from.is_none());
        let oldest = oldest.map_or(self.next_number, |closed| closed.id.number);
        let segments = list(&self.dir).unwrap_or_default();
        let mut aside = self.aside(&segments);
        aside.retain(|(id, ending)| !ending.ends_with(CORRUPT) || id.number <= oldest);
        let Some(first) = aside.iter().map(|(id, _)| id.number).min() else {
            return false;
        };
        let mut removed = false;
        for (id, ending) in aside.iter().filter(|(id, _)| id.number == first) {
            let path = path(&self.dir, *id, ending);
            let length = fs::metadata(&path).map_or(0, |meta| meta.len());
            if fs::remove_file(&path).is_ok() {
                removed = true;
                self.aside = self.aside.saturating_sub(length);
            }
        }
        removed
    }

    /// The files that belong to none of these segments, by the segment's number that they have.
    fn aside(&self, segments: &[Id]) -> Vec<(Id, String)> {
        let mut files = files(&self.dir).unwrap_or_default();
        files.retain(|(id, ending)| ending.ends_with(CORRUPT) || !segments.contains(id));
        files
    }

    /// Sets a segment aside that somebody copied from another one that is still there: its lines would be read twice.
    pub(super) fn set_copy_aside(&mut self, id: Id, range: Option<(u64, u64)>) -> bool {
        let Some((first, _)) = range else { return false };
        let current = self.current.as_ref().map(|segment| (segment.id, self.first_seq));
        let others = self.closed.iter().filter_map(|closed| Some((closed.id, closed.range?.0)));
        let original = others
            .chain(current)
            .find(|(other, from)| {
                *from == first && begun(&self.dir, *other) == begun(&self.dir, id)
            })
            .map(|(other, _)| other);
        let Some(original) = original.filter(|_| set_aside(&self.dir, id).is_ok()) else {
            return false;
        };
        self.say(format!("{id}.log is a copy of {original}.log: set aside as {id}.log{CORRUPT}"));
        true
    }

    /// What somebody else did to the files of closed segments: what is gone counts no more, what came counts.
    pub(super) fn take_stock(&mut self) {
        let changed = fs::metadata(&self.dir).and_then(|meta| meta.modified()).ok();
        if changed.is_some() && changed == self.stock {
            return;
        }
        // What follows within the clock's grain would have the same time.
        self.stock = changed.filter(|at| at.elapsed().is_ok_and(|age| age > GRAIN));
        let Ok(segments) = list(&self.dir) else { return };
        let (stay, gone): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.closed)
            .into_iter()
            .partition(|closed| segments.contains(&closed.id));
        self.closed = stay;
        let gone: Vec<_> = gone.into_iter().map(|closed| (closed.id, closed.range)).collect();
        self.miss(&gone);
        if !self.dir.join("gone").exists() {
            self.save_gone(); // the folder may be another one
        }
        let current = self.current.as_ref().map(|segment| segment.id);
        for id in &segments {
            if Some(*id) == current || self.closed.iter().any(|closed| closed.id == *id) {
                continue;
            }
            let at = self.closed.partition_point(|closed| closed.id.number < id.number);
            let key = last_span(&self.dir, *id).ok().flatten().map_or(self.key, |span| span.key);
            let plain = path(&self.dir, *id, "log").exists();
            let (size, range) = (size(&self.dir, *id), held(&self.dir, *id));
            if self.set_copy_aside(*id, range) {
                continue;
            }
            self.closed.insert(at, Closed { id: *id, size, key, plain, shares: None, range });
            self.say(format!("{id}.log was put there by somebody else: it counts in the budget"));
        }
        let newest = segments.last().map_or(0, |id| id.number);
        self.next_number = self.next_number.max(newest + 1);
        let aside = self.aside(&segments).into_iter();
        let lengths = aside.filter_map(|(id, ending)| {
            Some(fs::metadata(path(&self.dir, id, &ending)).ok()?.len())
        });
        self.aside = lengths.sum();
    }
}
