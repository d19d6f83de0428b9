//! The reader behind [`super::query`]: it finds where to begin, goes from span to span and from segment to segment.

mod begin;
mod missing;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hilum_shared::name::Run;
use hilum_shared::protocol::Level;

use super::gone::Gone;
use super::index::Span;
use super::query::{Entry, Filter, QueryError, Start};
use super::record::Flags;
use super::scan::{Lines, SegmentReader};
use super::segment::{Id, exists, list};

/// A name of the timeline, resolved once.
#[derive(Clone)]
struct Known {
    name: Arc<str>,
    service: Option<Arc<str>>,
    instance: Option<Arc<str>>,
    wanted: bool,
}

/// How far a reader goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// To what was there when it was opened: the last segment, and the sequence number after it.
    Before(u64, u64),
    /// On and on.
    Never,
}

/// Reads records in the order of their sequence numbers.
pub struct Reader {
    dir: PathBuf,
    filter: Filter,
    limit: Limit,
    segment: Option<SegmentReader>,
    names: HashMap<u32, Known>,
    /// The next span of the segment.
    next: u64,
    /// The lines of the span at hand.
    lines: Lines,
    span: Option<Span>,
    /// What all its records share, and the number of the last one.
    shared: Entry,
    /// Wanted records that are still passed over.
    skip: u64,
    /// Records before this one are passed over.
    from: u64,
    /// The last segment that was read to its end.
    done: u64,
    /// The sequence number that must come next, once one has been seen.
    expected: Option<u64>,
    /// The first one that was not there when it was opened: a hole before it is an old eviction and no loss of ours.
    fresh: u64,
    /// What is known to be gone by right, once that was asked.
    gone: Option<Gone>,
    /// The numbers after the last one that is there which were used when it was opened.
    missing: Option<(u64, u64)>,
}

impl Reader {
    /// Opens the store in `dir`, as it is now; where there is none, there are no records.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn open(dir: &Path, filter: Filter, start: Start) -> Result<Self, QueryError> {
        let mut reader = Self::new(dir, filter);
        reader.limit = Limit::Before(0, 0);
        // What it says to be used has been written by then, so that the end that is found next is not before it.
        let known = Gone::read(dir);
        // The end before the beginning: what is written meanwhile belongs to no tail.
        let (number, seq) = reader.end()?;
        reader.limit = Limit::Before(number, seq);
        reader.missing = known.map(|gone| (seq.max(gone.first()), gone.next));
        reader.begin(start)?;
        Ok(reader)
    }

    /// Opens the store for reading on and on: [`Self::read`] says `false` when nothing is there yet.
    pub(super) fn follow(dir: &Path, filter: Filter, start: Start) -> Result<Self, QueryError> {
        let mut reader = Self::new(dir, filter);
        reader.fresh = reader.end()?.1;
        reader.begin(start)?;
        Ok(reader)
    }

    /// Takes over from a reader of the folder that was here before: where its numbers go on, what it has read is not missing.
    pub(super) fn go_on_from(&mut self, before: &Self) {
        let first = self.list().ok().and_then(|found| self.numbered(&found, 0)?.range());
        if let (Some((first, _)), Some(expected)) = (first, before.expected)
            && first >= expected
        {
            self.expected = before.expected;
        }
    }

    fn new(dir: &Path, filter: Filter) -> Self {
        Self {
            dir: dir.to_owned(),
            filter,
            limit: Limit::Never,
            segment: None,
            names: HashMap::new(),
            next: 0,
            lines: Lines::default(),
            span: None,
            shared: Entry::default(),
            skip: 0,
            from: 0,
            done: 0,
            expected: None,
            fresh: 0,
            gone: None,
            missing: None,
        }
    }

    /// Opens a segment, as [`SegmentReader::open`] does. A follower waits for what its index lacks, all others look for it in the text.
    fn opened(&self, id: Id, seq: u64) -> Option<SegmentReader> {
        let mut segment = SegmentReader::open(&self.dir, id, seq)?;
        if self.limit != Limit::Never {
            segment.mend(seq);
        }
        Some(segment)
    }

    fn list(&self) -> Result<Vec<Id>, QueryError> {
        list(&self.dir).map_err(|source| QueryError::Read { path: self.dir.clone(), source })
    }

    /// The last segment with something in it, and the sequence number after that.
    fn end(&self) -> Result<(u64, u64), QueryError> {
        let found = self.list()?;
        for (at, id) in found.iter().enumerate().rev() {
            let Some(mut segment) = self.numbered(&found, at) else {
                continue;
            };
            let last = (0..segment.len()).rev().find_map(|at| segment.span(at));
            if let Some(span) = last {
                return Ok((id.number, span.next_seq()));
            }
        }
        Ok((0, 0))
    }

    /// Opens one of these segments; where its index has to be made from its text, its numbers go on from those of the one before.
    fn numbered(&self, found: &[Id], at: usize) -> Option<SegmentReader> {
        let mut segment = self.opened(*found.get(at)?, 1)?;
        if segment.is_rebuilt() {
            let before = (0..at).rev().find_map(|at| self.numbered(found, at)?.range());
            segment.count_from(match before {
                Some((_, next)) => next,
                None => Gone::read(&self.dir).map_or(1, |gone| gone.first()),
            });
        }
        Some(segment)
    }

    fn looks_at_text(&self, span: &Span) -> bool {
        (self.filter.grep.is_some() || self.filter.expr.is_some()) && !span.flags.has(Flags::GAP)
    }

    /// What all records of a span share; `seq` is the number before the first one's.
    fn shared_by(&mut self, segment: &mut SegmentReader, span: &Span) -> Entry {
        let known = self.known(segment, span).clone();
        let gap = span.flags.has(Flags::GAP);
        Entry {
            seq: span.seq.wrapping_sub(1),
            at: span.at,
            name: known.name,
            service: known.service,
            instance: known.instance,
            run: (span.run > 0).then_some(Run(span.run)),
            pid: (span.pid > 0).then_some(span.pid),
            stream: Some(span.stream),
            level: span.level,
            text: Vec::new(),
            flags: span.flags,
            dropped: gap.then_some(u64::from(span.fields)),
            fields: if gap { None } else { segment.fields(span) },
        }
    }

    fn known(&mut self, segment: &mut SegmentReader, span: &Span) -> &Known {
        let filter = &self.filter;
        self.names.entry(span.name).or_insert_with(|| {
            let name: Arc<str> = segment.name_of(span).unwrap_or_else(|| "?".to_owned()).into();
            let (service, instance) = match name.rsplit_once('.') {
                Some((service, _)) => (Some(Arc::from(service)), Some(name.clone())),
                None if &*name == super::record::NODE_NAME => (None, None),
                None => (Some(name.clone()), None),
            };
            let wanted = filter.wants_name(&name);
            Known { name, service, instance, wanted }
        })
    }

    /// Whether a span may hold wanted records: what all its records share is looked at.
    fn wants_span(&mut self, segment: &mut SegmentReader, span: &Span) -> bool {
        let filter = &self.filter;
        let gap = span.flags.has(Flags::GAP);
        let fits = filter.since.is_none_or(|since| span.at >= since)
            && filter.until.is_none_or(|until| span.at <= until)
            && filter.before_seq.is_none_or(|before| span.seq < before)
            && filter.run.is_none_or(|run| span.run == run.0)
            && filter.pid.is_none_or(|pid| span.pid == pid)
            && (gap || filter.streams.is_empty() || filter.streams.contains(&span.stream))
            && (gap || filter.level.is_none_or(|least| span.level.unwrap_or(Level::Info) >= least));
        fits && self.known(segment, span).wanted
    }

    /// Reads the next wanted record into `entry`; `false` when there is none (now).
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn read(&mut self, entry: &mut Entry) -> Result<bool, QueryError> {
        Ok(self.read_on(entry)? || self.misses_the_end(entry)?)
    }

    fn read_on(&mut self, entry: &mut Entry) -> Result<bool, QueryError> {
        loop {
            if let Some(span) = self.span {
                if self.next_line(&span, entry) {
                    return Ok(true);
                }
                self.span = None;
            }
            if self.segment.is_none() && (self.at_limit(self.done) || !self.open_next()?) {
                return Ok(false);
            }
            let Some(mut segment) = self.segment.take() else {
                return Ok(false);
            };
            let found = self.next_span(&mut segment, entry);
            let more = matches!(found, Next::End) && !self.at_limit(segment.id.number);
            self.segment = Some(segment);
            match found {
                Next::Span | Next::Passed => {}
                Next::Gap => return Ok(true),
                Next::End => {
                    if !more || !self.leave_segment()? {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Whether nothing after this segment is read.
    fn at_limit(&self, number: u64) -> bool {
        matches!(self.limit, Limit::Before(last, _) if number >= last)
    }

    /// Whether a span was not there when the reader was opened. Only of the last segment do the numbers say so: an index that was
    /// made again may count further than the segment after it begins.
    fn is_beyond(&self, segment: &SegmentReader, span: &Span) -> bool {
        matches!(self.limit, Limit::Before(last, end) if segment.id.number >= last && span.seq >= end)
    }

    /// Opens the segment after the last one.
    fn open_next(&mut self) -> Result<bool, QueryError> {
        // What was listed may be gone when it is opened: evicted, or folded into another one.
        for _ in 0..3 {
            let found = self.list()?;
            let mut later = found.into_iter().filter(|id| id.number > self.done).peekable();
            if later.peek().is_none() {
                return Ok(false);
            }
            for id in later {
                let next = self.expected.unwrap_or(1);
                let Some(mut segment) = self.opened(id, next) else {
                    if exists(&self.dir, id) {
                        continue; // its index is made just now; one that stays without is passed over
                    }
                    break;
                };
                // Others that we have read are folded into it: their lines come first.
                self.next =
                    if id.first() <= self.done { first_from(&mut segment, next) } else { 0 };
                self.names.clear();
                self.segment = Some(segment);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Goes to the next segment if this one is complete; `false` = wait here.
    fn leave_segment(&mut self) -> Result<bool, QueryError> {
        let found = self.list()?;
        let Some(segment) = &mut self.segment else {
            return Ok(true);
        };
        if !found.iter().any(|other| other.number > segment.id.number) {
            return Ok(false);
        }
        // The next one exists: no more comes to this one, but some may have come since we looked.
        if self.next < segment.len() {
            return Ok(true);
        }
        self.done = segment.id.number;
        self.segment = None;
        self.open_next()
    }

    fn next_span(&mut self, segment: &mut SegmentReader, entry: &mut Entry) -> Next {
        if self.next >= segment.len() {
            return Next::End;
        }
        let position = self.next;
        self.next += 1;
        let Some(span) = segment.span(position) else {
            if self.limit != Limit::Never && segment.remake(position, false) {
                self.next = position;
            }
            return Next::Passed; // without text the hole shows in the sequence numbers
        };
        if self.is_beyond(segment, &span) {
            self.next = position;
            return Next::End;
        }
        let expected = self.expected.replace(span.next_seq());
        if let Some(expected) = expected
            && span.seq > expected
            && let Some((count, why)) = self.missed(segment, position, expected, &span)
        {
            self.expected = Some(span.seq);
            self.next = position;
            missing::lost(entry, expected, count, span.at, &why);
            return Next::Gap;
        }
        if !self.wants_span(segment, &span) {
            return Next::Passed;
        }
        let counts = !span.flags.has(Flags::GAP) && !self.looks_at_text(&span);
        if counts && self.skip > 0 && self.skip >= u64::from(span.count) {
            self.skip -= u64::from(span.count);
            return Next::Passed;
        }
        self.shared = self.shared_by(segment, &span);
        if !segment.lines(&span, &self.shared.name, &mut self.lines) {
            self.gone(segment, &span, entry);
            return Next::Gap;
        }
        self.span = Some(span);
        Next::Span
    }

    fn next_line(&mut self, span: &Span, entry: &mut Entry) -> bool {
        let gap = span.flags.has(Flags::GAP);
        while let Some(text) = self.lines.next() {
            self.shared.seq = self.shared.seq.wrapping_add(1);
            let seq = self.shared.seq;
            let before = self.filter.before_seq.is_none_or(|before| seq < before);
            let matches = if gap {
                self.filter.wants_gap(&self.shared)
            } else {
                self.filter.wants_text(&self.shared, text)
            };
            if seq < self.from || !(before && matches) {
                continue;
            }
            if self.skip > 0 && !gap {
                self.skip -= 1;
                continue;
            }
            let mut kept = std::mem::take(&mut entry.text);
            kept.clear();
            kept.extend_from_slice(text);
            *entry = self.shared.clone();
            entry.text = kept;
            return true;
        }
        false
    }
}

/// The position of the first span with this sequence number or a later one.
fn first_from(segment: &mut SegmentReader, seq: u64) -> u64 {
    let (mut low, mut high) = (0, segment.len());
    while low < high {
        let middle = low.midpoint(high);
        // A damaged span is taken for a later one: nothing is passed over for it.
        if segment.span(middle).is_none_or(|span| span.seq >= seq) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

enum Next {
    /// A span with wanted records is at hand.
    Span,
    /// A span without.
    Passed,
    /// The entry is a gap.
    Gap,
    /// Nothing more here.
    End,
}

impl Iterator for Reader {
    type Item = Result<Entry, QueryError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut entry = Entry::default();
        match self.read(&mut entry) {
            Ok(true) => Some(Ok(entry)),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}
