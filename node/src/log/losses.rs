//! The store's losses: what somebody else took from it is counted by its numbers, and told once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::gone::{Gone, Word};
use super::index::Span;
use super::record::Flags;
use super::recover::{Depth, Recovered, recover};
use super::room::{CORRUPT, held, ranges};
use super::scan::SegmentReader;
use super::segment::{Id, exists, files, list};
use super::store::{Note, Store};

/// How many lines each name has lost.
pub(super) type Names = BTreeMap<Arc<str>, u64>;

/// Why numbers are missing after the segment with the number `last` (0: after none) and before the one that begins with
/// the number `next`.
pub(super) fn why(dir: &Path, last: u64, next: u64) -> String {
    if last + 1 >= next {
        return format!("the text of {last:06}.log is gone");
    }
    let missing = last + 1..next;
    let aside = files(dir).unwrap_or_default().into_iter().find(|(id, ending)| {
        ending.starts_with("log") && ending.ends_with(CORRUPT) && missing.contains(&id.number)
    });
    match aside {
        Some((id, ending)) => format!("{id}.log is damaged: set aside as {id}.{ending}"),
        None if next == u64::MAX => "the last files were moved or removed by somebody else".into(),
        None if last + 2 == next => {
            format!("{:06}.log was moved or removed by somebody else", last + 1)
        }
        None => format!("files before {next:06}.log were moved or removed by somebody else"),
    }
}

/// What a span tells to be lost, where it is a gap.
pub(super) fn word(segment: &mut SegmentReader, span: &Span) -> Option<Word> {
    if !span.flags.has(Flags::GAP) {
        return None;
    }
    let name = segment.name_of(span).unwrap_or_else(|| "?".to_owned());
    let text = segment.text(span, &name).map(String::from_utf8_lossy).unwrap_or_default();
    let why = text.trim_end().split_once(" dropped (").and_then(|(_, why)| why.strip_suffix(')'));
    let why = why.unwrap_or("the reason is damaged").to_owned();
    Some(Word { seq: span.seq, name, why, lines: span.lines() })
}

/// Finds the holes of a folder in order: before each segment, after what is left of the last one up to `mended`, and after that
/// up to `next`.
fn holes(dir: &Path, mended: u64, next: u64, mut see: impl FnMut(u64, u64, &dyn Fn() -> String)) {
    let (mut expected, mut last) = (1, 0);
    for id in list(dir).unwrap_or_default() {
        // An index made from text knows no numbers.
        if let Some((from, to)) = held(dir, id) {
            if from > expected {
                see(expected, from, &|| why(dir, last, id.first()));
            }
            expected = expected.max(to);
        }
        last = id.number;
    }
    if mended > expected {
        see(expected, mended, &|| why(dir, last, last + 1));
        expected = mended;
    }
    if next > expected {
        see(expected, next, &|| why(dir, last, u64::MAX));
    }
}

impl Store {
    /// After everything was mended: tells of what is missing and was not told before. Where nothing is known of what went, all that is
    /// missing was evicted.
    pub(super) fn find_losses(&mut self, known: Option<Gone>) {
        let dir = self.dir.clone();
        let mut gone = known.clone().unwrap_or_default();
        let mut notes = Vec::new();
        holes(&dir, self.next_seq, gone.next, |from, to, why| {
            if known.is_none() {
                return gone.evicted.add(from, to);
            }
            let lines = gone.tell(from, to);
            if lines > 0 {
                notes.push(Note { text: why(), lines, names: Names::new() });
            }
        });
        // Holes inside of what was folded are evictions, unless they were told to be losses.
        if known.is_none() {
            for id in list(&dir).unwrap_or_default().into_iter().filter(|id| id.from.is_some()) {
                for pair in ranges(&dir, id).windows(2) {
                    gone.evicted.add(pair[0].1, pair[1].0);
                }
            }
        }
        self.next_seq = self.next_seq.max(gone.next);
        self.gone = gone;
        self.notes.extend(notes);
        self.save_gone();
    }

    /// Writes down what is gone, and what comes next.
    pub(super) fn save_gone(&mut self) {
        self.gone.next = self.next_seq;
        self.unwritten = self.gone.write(&self.dir).is_err();
    }

    /// Tells of closed segments that somebody took away.
    pub(super) fn miss(&mut self, taken: &[(Id, Option<(u64, u64)>)]) {
        let (Some((first, _)), Some((last, _))) = (taken.first(), taken.last()) else {
            return;
        };
        let (mut lines, mut names) = (0, Names::new());
        for (id, range) in taken {
            self.settle(*id);
            if let Some((from, to)) = range {
                lines += self.gone.tell(*from, *to);
            }
            by_name(&self.dir, *id, &mut names);
        }
        let what = if first == last {
            format!("{first}.log was")
        } else {
            format!("{first}.log to {last}.log were")
        };
        let text = format!("{what} moved or removed by somebody else");
        self.notes.push(Note { text, lines, names });
        self.save_gone();
    }

    /// Leaves a segment that somebody else changed as it is.
    pub(super) fn abandon(&mut self) {
        if let Some(segment) = self.current.take() {
            let (id, next) = (segment.id, self.next_seq);
            let there = exists(&self.dir, id);
            // What is left of it is read; what its index has beyond that is lost.
            let left =
                there.then(|| recover(&self.dir, id, self.first_seq, self.key, Depth::Recent));
            let aside = matches!(left, Some(Ok(Recovered { aside: true, .. })));
            let kept = held(&self.dir, id).filter(|_| there && !aside);
            let from = kept.map_or(self.first_seq, |(_, end)| end);
            let lines = self.gone.tell(from, next);
            let text = if there {
                format!("{id}.log was changed by somebody else: a new segment begins")
            } else {
                format!("{id}.log was moved or removed by somebody else")
            };
            self.notes.push(Note { text, lines, names: segment.by_name(from) });
            if there && !aside {
                self.close(id, None);
            }
            self.save_gone();
        }
        let newest = files(&self.dir).unwrap_or_default().iter().map(|(id, _)| id.number).max();
        self.next_number = self.next_number.max(newest.unwrap_or(0) + 1);
    }
}

/// Adds whose lines were in a segment, where its index is still there.
fn by_name(dir: &Path, id: Id, names: &mut Names) {
    let Some(mut segment) = SegmentReader::open(dir, id, 1) else {
        return;
    };
    for at in 0..segment.len() {
        if let Some(span) = segment.span(at)
            && let Some(name) = segment.name_of(&span)
        {
            *names.entry(name.into()).or_default() += span.lines();
        }
    }
}
