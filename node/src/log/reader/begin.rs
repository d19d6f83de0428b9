//! Where a reader begins: found by bisection, or by counting back from the end.

use super::{Limit, Reader};
use crate::log::gone::Gone;
use crate::log::index::Span;
use crate::log::query::{QueryError, Start};
use crate::log::record::Flags;
use crate::log::scan::{Lines, SegmentReader};
use crate::log::segment::Id;

impl Reader {
    pub(super) fn begin(&mut self, start: Start) -> Result<(), QueryError> {
        let found = self.list()?;
        if found.is_empty() {
            self.expected = Some(1); // whatever is missed from now on is a hole
        }
        match start {
            Start::All => {
                if self.filter.since.is_none() {
                    self.expected = Some(Gone::read(&self.dir).map_or(1, |gone| gone.first()));
                }
                if let Some(since) = self.filter.since {
                    self.begin_at(&found, |span| span.key >= since);
                }
            }
            Start::From(seq) => {
                self.from = seq;
                self.begin_at(&found, |span| span.next_seq() > seq);
            }
            Start::End => {
                if let Some(last) = found.len().checked_sub(1)
                    && let Some(mut segment) = self.numbered(&found, last)
                {
                    self.next = segment.len();
                    self.expected = self
                        .next
                        .checked_sub(1)
                        .and_then(|last| segment.span(last))
                        .map(|span| span.next_seq());
                    self.segment = Some(segment);
                }
            }
            Start::Tail(count) => self.begin_at_tail(&found, count),
        }
        Ok(())
    }

    /// Goes to the first span that may be late enough.
    fn begin_at(&mut self, found: &[Id], is_late: impl Fn(&Span) -> bool) {
        for (at, id) in found.iter().enumerate() {
            let Some(mut segment) = self.numbered(found, at) else {
                continue;
            };
            let spans = segment.len();
            let late = |segment: &mut SegmentReader, at: u64| {
                // A damaged span is taken for late: nothing is passed over for it.
                segment.span(at).is_none_or(|span| is_late(&span))
            };
            if spans > 0 && late(&mut segment, spans - 1) {
                let (mut low, mut high) = (0, spans);
                while low < high {
                    let middle = low.midpoint(high);
                    if late(&mut segment, middle) {
                        high = middle;
                    } else {
                        low = middle + 1;
                    }
                }
                // What is missing just before is told, too.
                let before = low.checked_sub(1).and_then(|at| segment.span(at));
                if let Some(before) = before {
                    self.expected = Some(before.next_seq());
                }
                self.next = low;
                self.segment = Some(segment);
                return;
            }
            if found.last() == Some(id) {
                // It is being written, or is just being made: what comes next comes here.
                self.next = spans;
                self.segment = Some(segment);
                return;
            }
            self.done = id.number;
            self.expected = segment.range().map(|(_, next)| next).or(self.expected);
        }
    }

    /// Goes back until enough wanted records lie ahead.
    fn begin_at_tail(&mut self, found: &[Id], count: u64) {
        let mut left = count;
        for at in (0..found.len()).rev() {
            let Some(mut segment) = self.numbered(found, at) else {
                continue;
            };
            self.names.clear();
            let spans = segment.len();
            if left == 0 {
                self.next = spans;
                self.segment = Some(segment);
                return;
            }
            let mut at = spans;
            let wanted = left;
            while at > 0 {
                at -= 1;
                let Some(span) = segment.span(at) else {
                    let first = (0..at).rev().find(|at| segment.span(*at).is_some());
                    if self.limit != Limit::Never
                        && segment.remake(first.map_or(0, |at| at + 1), false)
                    {
                        self.names.clear();
                        (at, left) = (segment.len(), wanted);
                    }
                    continue;
                };
                if self.is_beyond(&segment, &span) {
                    continue;
                }
                let too_early = self.filter.since.is_some_and(|since| span.key < since);
                if too_early {
                    self.next = at + 1;
                    self.segment = Some(segment);
                    return;
                }
                let hits = self.hits(&mut segment, &span);
                if hits >= left {
                    self.skip = hits - left;
                    self.next = at;
                    self.segment = Some(segment);
                    return;
                }
                left -= hits;
            }
            self.segment = Some(segment);
            self.next = 0;
        }
    }

    /// How many records of a span are wanted; a gap does not count.
    fn hits(&mut self, segment: &mut SegmentReader, span: &Span) -> u64 {
        if span.flags.has(Flags::GAP) || !self.wants_span(segment, span) {
            return 0;
        }
        if !self.looks_at_text(span) {
            return match self.filter.before_seq {
                Some(before) if before < span.next_seq() => before.saturating_sub(span.seq),
                _ => u64::from(span.count),
            };
        }
        let shared = self.shared_by(segment, span);
        let mut lines = Lines::default();
        if !segment.lines(span, &shared.name, &mut lines) {
            return 0;
        }
        let mut hits = 0;
        let mut seq = span.seq;
        while let Some(text) = lines.next() {
            let before = self.filter.before_seq.is_none_or(|before| seq < before);
            hits += u64::from(before && self.filter.wants_text(&shared, text));
            seq += 1;
        }
        hits
    }
}
