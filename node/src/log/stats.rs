//! How much was written: by instance, by level, over time.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use hilum_shared::protocol::Level;
use serde::Serialize;

use super::account::{Losses, Why};
use super::gone::{Gone, count};
use super::query::{Entry, Filter};
use super::scan::SegmentReader;
use super::segment;

/// The levels in the order of [`Count::levels`].
pub const LEVELS: [Level; 5] =
    [Level::Debug, Level::Info, Level::Warning, Level::Error, Level::Critical];
/// Widths of a bar, in seconds; each is a multiple of the one before.
const WIDTHS: [u64; 12] = [1, 5, 10, 30, 60, 300, 600, 1800, 3600, 21_600, 86_400, 604_800];
/// At most so many bars.
const BARS: u64 = 60;

/// How much of something there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Count {
    /// Records: a joined one counts once.
    pub records: u64,
    /// Lines of text.
    pub lines: u64,
    /// Bytes of text, line ends included.
    pub bytes: u64,
    /// Records by level; what has none counts as INFO.
    pub levels: [u64; 5],
    /// Lines that are missing, by cause.
    pub losses: Losses,
}

/// A stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bar {
    /// Lines.
    pub lines: u64,
    /// Records that are a WARNING or worse.
    pub bad: u64,
}

/// What was counted.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// All together.
    pub total: Count,
    /// By the name in the timeline.
    pub names: BTreeMap<Arc<str>, Count>,
    /// The first and the last time, in microseconds since 1970.
    pub range: Option<(u64, u64)>,
    /// Which of [`WIDTHS`].
    width: usize,
    bars: BTreeMap<u64, Bar>,
}

impl Count {
    fn add(&mut self, lines: u64, bytes: u64, level: Level) {
        self.records += 1;
        self.lines += lines;
        self.bytes += bytes;
        self.levels[level as usize] += 1;
    }
}

impl Stats {
    /// Counts a record.
    pub fn add(&mut self, entry: &Entry) {
        let lines = 1 + memchr::memchr_iter(b'\n', &entry.text).count() as u64;
        let bytes = (entry.text.len() + entry.line_end().len()) as u64;
        let level = entry.level.unwrap_or(Level::Info);
        let name = match self.names.get_mut(&entry.name) {
            Some(name) => name,
            None => self.names.entry(entry.name.clone()).or_default(),
        };
        let (first, last) = self.range.unwrap_or((entry.at, entry.at));
        self.range = Some((first.min(entry.at), last.max(entry.at)));
        if let Some(dropped) = entry.dropped {
            let why = Why::of_gap(&entry.text);
            self.total.losses.add(why, dropped);
            name.losses.add(why, dropped);
            return;
        }
        self.total.add(lines, bytes, level);
        name.add(lines, bytes, level);
        let bar = self.bars.entry(entry.at / 1_000_000 / WIDTHS[self.width]).or_default();
        bar.lines += lines;
        bar.bad += u64::from(level >= Level::Warning);
        while self.span() > BARS && self.width + 1 < WIDTHS.len() {
            self.widen();
        }
    }

    /// Counts what was lost according to gaps that are no longer there.
    pub fn add_removed(&mut self, told: &[Told]) {
        for Told { name, why, lines } in told {
            let why = Why::said(why);
            self.total.losses.add(why, *lines);
            self.names.entry(name.as_str().into()).or_default().losses.add(why, *lines);
        }
    }

    /// How many bars there are from the first to the last.
    fn span(&self) -> u64 {
        match (self.bars.first_key_value(), self.bars.last_key_value()) {
            (Some((first, _)), Some((last, _))) => last - first + 1,
            _ => 0,
        }
    }

    fn widen(&mut self) {
        let factor = WIDTHS[self.width + 1] / WIDTHS[self.width];
        self.width += 1;
        for (at, bar) in std::mem::take(&mut self.bars) {
            let wide = self.bars.entry(at / factor).or_default();
            wide.lines += bar.lines;
            wide.bad += bar.bad;
        }
    }

    /// How long it took, in seconds; never nothing.
    pub fn seconds(&self) -> f64 {
        let (first, last) = self.range.unwrap_or_default();
        ((last - first) as f64 / 1e6).max(1.0)
    }

    /// The width of a bar in seconds, and all bars from the first to the last with their Unix seconds.
    pub fn bars(&self) -> (u64, Vec<(u64, Bar)>) {
        let width = WIDTHS[self.width];
        let Some((first, _)) = self.bars.first_key_value() else {
            return (width, Vec::new());
        };
        // A clock that jumped by decades must not make millions of bars.
        let last = first + self.span().min(4 * BARS);
        let bar = |at| (at * width, self.bars.get(&at).copied().unwrap_or_default());
        (width, (*first..last).map(bar).collect())
    }
}

/// How many records `logs.budget`, `keep_free` or `max_age` took.
///
/// # Errors
/// When the folder cannot be read.
pub fn removed(dir: &Path) -> io::Result<u64> {
    let (mut missing, mut lost, mut next) = (0, 0, 1);
    let gone = Gone::read(dir);
    for id in segment::list(dir)? {
        let Some(mut segment) = SegmentReader::open(dir, id, next) else {
            continue; // it went meanwhile
        };
        for position in 0..segment.len() {
            if let Some(span) = segment.span(position) {
                if span.seq > next {
                    missing += span.seq - next;
                    lost += gone.as_ref().map_or(0, |gone| count(&gone.lost(next, span.seq)));
                }
                next = next.max(span.next_seq());
            }
        }
    }
    Ok(missing - lost)
}

/// What gaps told that are evicted themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whose lines were lost; `*` where that is not known.
    pub name: String,
    /// Why.
    pub why: String,
    /// How many.
    pub lines: u64,
}

/// How many lines were lost according to gaps that `logs.budget`, `keep_free` or `max_age` took, of those that the filter asks for.
/// When they were lost is not known any more, so a filter for more than names finds none.
pub fn removed_gaps(dir: &Path, filter: &Filter) -> Vec<Told> {
    let names_only = filter.since.is_none()
        && filter.until.is_none()
        && filter.before_seq.is_none()
        && filter.run.is_none()
        && filter.pid.is_none();
    let Some(gone) = Gone::read(dir).filter(|_| names_only) else {
        return Vec::new();
    };
    let told = gone.dropped.into_iter().map(|((name, why), lines)| Told { name, why, lines });
    told.filter(|told| filter.wants_name(&told.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, at: u64, text: &str, level: Option<Level>) -> Entry {
        Entry { name: name.into(), at, text: text.into(), level, ..Entry::default() }
    }

    #[test]
    fn lines_bytes_and_levels_are_counted_by_name() {
        let mut stats = Stats::default();
        stats.add(&entry("web.1", 1_000_000, "one", None));
        stats.add(&entry("web.1", 3_500_000, "Traceback\n  x\nE: y", Some(Level::Error)));
        stats.add(&entry("db.1", 2_000_000, "", Some(Level::Debug)));
        let mut gap =
            entry("db.1", 2_000_000, "… 7 lines dropped (disk full)", Some(Level::Warning));
        gap.dropped = Some(7);
        stats.add(&gap);
        let web = &stats.names["web.1"];
        assert_eq!((web.records, web.lines, web.bytes), (2, 4, 4 + 19));
        assert_eq!(web.levels, [0, 1, 0, 1, 0]);
        assert_eq!((stats.total.lines, stats.total.losses.dropped()), (5, 7));
        assert_eq!(stats.range, Some((1_000_000, 3_500_000)));
        let (width, bars) = stats.bars();
        let lines: Vec<(u64, u64, u64)> =
            bars.iter().map(|(at, bar)| (*at, bar.lines, bar.bad)).collect();
        assert_eq!((width, lines), (1, vec![(1, 1, 0), (2, 1, 0), (3, 3, 1)]));
    }

    #[test]
    fn however_long_the_time_there_are_few_bars() {
        let mut stats = Stats::default();
        for hour in 0..1000_u64 {
            stats.add(&entry("a.1", hour * 3_600_000_000, "x", None));
        }
        let (width, bars) = stats.bars();
        assert_eq!(width, 86_400);
        assert!(bars.len() <= 60 && bars.iter().map(|(_, bar)| bar.lines).sum::<u64>() == 1000);
    }
}
