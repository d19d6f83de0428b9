//! What a reader says of numbers that do not come: who took them, and how many they were.

use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::{Limit, Reader};
use crate::log::gone::{Gone, count};
use crate::log::index::Span;
use crate::log::losses::why;
use crate::log::query::{Entry, QueryError};
use crate::log::record::{Flags, NODE_NAME, wall};
use crate::log::scan::SegmentReader;

impl Reader {
    /// The gap after all that is there: somebody took the newest lines, and no node has told of it yet.
    pub(super) fn misses_the_end(&mut self, entry: &mut Entry) -> Result<bool, QueryError> {
        let Some((from, to)) = self.missing.take() else {
            return Ok(false);
        };
        let from = from.max(self.from);
        let lines = count(&self.lost(from, to));
        // When they were written is not known, but when it was written down that they were.
        let at = modified(&self.dir.join("gone"));
        let filter = &self.filter;
        let told = filter.since.is_none_or(|since| at >= since)
            && filter.until.is_none_or(|until| at <= until)
            && filter.before_seq.is_none_or(|before| from < before)
            && filter.run.is_none();
        // Folded just when the end was looked for is not missing.
        let (last, end) = self.end()?;
        if lines == 0 || !told || end >= to {
            return Ok(false);
        }
        lost(entry, from, lines, at, &why(&self.dir, last, u64::MAX));
        Ok(true)
    }

    /// How many records are missing before a span, and why, where that is a loss that is to be told.
    pub(super) fn missed(
        &mut self,
        segment: &SegmentReader,
        position: u64,
        from: u64,
        span: &Span,
    ) -> Option<(u64, String)> {
        let to = span.seq;
        let filter = &self.filter;
        let told = filter.since.is_none_or(|since| span.at >= since)
            && filter.until.is_none_or(|until| span.at <= until)
            && filter.before_seq.is_none_or(|before| from < before)
            // Of one life it is known how much it wrote, and when it ended.
            && filter.run.is_none();
        if !told || to <= self.from {
            return None;
        }
        let from = from.max(self.from);
        // What was there when a follower began has to come, whoever takes it.
        let fresh = if self.limit == Limit::Never { from.max(self.fresh).min(to) } else { to };
        let mut lines = to - fresh;
        let old = count(&self.lost(from, fresh));
        lines += old;
        if lines == 0 {
            return None;
        }
        let why = if old == 0 {
            "evicted or damaged before they were read".to_owned()
        } else if position > 0 {
            format!("the text of {}.log is gone", segment.id)
        } else {
            why(&self.dir, self.done, segment.id.first())
        };
        Some((lines, why))
    }

    /// What of these numbers is missing and was not taken by right.
    fn lost(&mut self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let lost = self.gone.as_ref().map_or(Vec::new(), |gone| gone.lost(from, to));
        if self.gone.is_some() && lost.is_empty() {
            return lost;
        }
        // It may just have been written: before anything goes.
        self.gone = Gone::read(&self.dir);
        self.gone.as_ref().map_or(Vec::new(), |gone| gone.lost(from, to))
    }

    /// Somebody truncated or removed the text of this span: one gap for it and for all that went with it.
    pub(super) fn gone(&mut self, segment: &mut SegmentReader, span: &Span, entry: &mut Entry) {
        let (mut lines, mut of_one) = (span.lines(), true);
        while let Some(next) = segment.span(self.next) {
            let ends = matches!(self.limit, Limit::Before(_, end) if next.seq >= end);
            if ends || self.expected != Some(next.seq) {
                break; // the walk itself sees to it
            }
            if self.wants_span(segment, &next) {
                let name = self.known(segment, &next).name.clone();
                if segment.lines(&next, &name, &mut self.lines) {
                    break;
                }
                lines += next.lines();
                of_one &= name == self.shared.name;
            }
            self.next += 1;
            self.expected = Some(next.next_seq());
        }
        let why = format!("the text of {}.log is gone", segment.id);
        lost(entry, span.seq, lines, span.at, &why);
        if of_one {
            entry.name = self.shared.name.clone();
            entry.service.clone_from(&self.shared.service);
            entry.instance.clone_from(&self.shared.instance);
        }
    }
}

/// When a file was last written to, in microseconds since 1970; now, where it is not there.
fn modified(path: &Path) -> u64 {
    let since = fs::metadata(path)
        .and_then(|meta| meta.modified())
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    since.map_or_else(wall, |since| since.as_micros() as u64)
}

/// Makes an entry a gap.
pub(super) fn lost(entry: &mut Entry, seq: u64, count: u64, at: u64, why: &str) {
    let lines = if count == 1 { "line" } else { "lines" };
    *entry = Entry {
        seq,
        at,
        name: NODE_NAME.into(),
        text: format!("… {count} {lines} dropped ({why})").into_bytes(),
        flags: Flags::GAP,
        dropped: Some(count),
        ..Entry::default()
    };
}
