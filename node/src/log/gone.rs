//! What is no longer in the store, by sequence number: `gone` beside the segments.
//!
//! What the budget took is written down before it goes, so any other number that is missing is a loss: a reader says so in its
//! place, with the node down, too. The writer adds which losses it has told of, and what comes next, so that
//! the end is missed as well.
//!
//! ```text
//! hilum gone 1
//! next 5120
//! evicted 1 2048
//! lost 3001 3310
//! dropped 13896 web.1 over `rate: 100`
//! ```
//! Ranges end before their second number; `dropped` is what evicted gaps told of: how many lines, whose, why. Without the file
//! nothing is known, and nothing is called lost.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use super::record::NODE_NAME;

/// The first line: a name and the version of its form.
const HEADER: &str = "hilum gone 1";
/// So many names with so many reasons are told apart; reasons may hold a path or a system's message.
const TOLD_APART: usize = 1000;
/// The reason of what is not told apart.
const SEVERAL: &str = "several reasons";
/// The reason of what was missing in the files.
const TAKEN: &str = "files were moved, removed or damaged";

/// What a gap says: how many lines are lost, whose, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// The gap's own number.
    pub(super) seq: u64,
    pub(super) name: String,
    pub(super) why: String,
    pub(super) lines: u64,
}

/// Sorted ranges that neither touch nor overlap; each ends before its second number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds the numbers from `from` up to before `to`.
    pub(super) fn add(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let first = self.0.partition_point(|range| range.1 < from);
        let last = self.0.partition_point(|range| range.0 <= to);
        let touched = &self.0[first..last];
        let from = touched.first().map_or(from, |range| range.0.min(from));
        let to = touched.last().map_or(to, |range| range.1.max(to));
        self.0.splice(first..last, [(from, to)]);
    }

    /// What of `from..to` is not in it.
    pub(super) fn missing(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut at = from;
        let first = self.0.partition_point(|range| range.1 <= from);
        for range in self.0[first..].iter().take_while(|range| range.0 < to) {
            if range.0 > at {
                missing.push((at, range.0));
            }
            at = at.max(range.1);
        }
        if at < to {
            missing.push((at, to));
        }
        missing
    }

    /// Takes out what lies before `limit`.
    fn take_before(&mut self, limit: u64) -> Vec<(u64, u64)> {
        let end = self.0.partition_point(|range| range.1 <= limit);
        self.0.drain(..end).collect()
    }
}

/// How many numbers are in these.
pub(super) fn count(ranges: &[(u64, u64)]) -> u64 {
    ranges.iter().map(|(from, to)| to - from).sum()
}

/// What is known to be gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gone {
    /// What the budget, `keep_free` or `max_age` took.
    pub(super) evicted: Ranges,
    /// What somebody else took, as far as it was told.
    pub(super) told: Ranges,
    /// How many lines evicted gaps told to be lost, by name and reason.
    pub(super) dropped: BTreeMap<(String, String), u64>,
    /// At least so many were used: the number after the last one at the time of writing.
    pub(super) next: u64,
}

impl Gone {
    /// What the folder's file says; `None` where there is none, or none that can be read.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        let text = fs::read_to_string(dir.join("gone")).ok()?;
        let mut lines = text.strip_suffix('\n')?.lines();
        (lines.next() == Some(HEADER)).then_some(())?;
        let mut gone = Self::default();
        for line in lines {
            if let Some(dropped) = line.strip_prefix("dropped ") {
                let (lines, dropped) = dropped.split_once(' ')?;
                let (name, why) = dropped.split_once(' ')?;
                gone.add_dropped(name, why, lines.parse().ok()?);
                continue;
            }
            let mut words = line.split(' ');
            let word = words.next()?;
            let numbers: Vec<u64> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
            match (word, numbers[..].as_ref()) {
                ("next", [next]) => gone.next = *next,
                ("evicted", [from, to]) => gone.evicted.add(*from, *to),
                ("lost", [from, to]) => gone.told.add(*from, *to),
                _ => return None,
            }
        }
        Some(gone)
    }

    /// Writes it down, whole or not at all.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let mut text = format!("{HEADER}\nnext {}\n", self.next);
        for (word, ranges) in [("evicted", &self.evicted), ("lost", &self.told)] {
            for (from, to) in &ranges.0 {
                let _ = writeln!(text, "{word} {from} {to}"); // a String takes all
            }
        }
        for ((name, why), lines) in &self.dropped {
            let _ = writeln!(text, "dropped {lines} {name} {why}"); // as above
        }
        let new = dir.join("gone.new");
        fs::write(&new, text)?;
        fs::rename(new, dir.join("gone"))
    }

    /// Notes what goes by right; of gaps that go, what they told. What is known to be gone already is not counted again.
    pub(super) fn evict(&mut self, ranges: &[(u64, u64)], words: &[Word]) {
        for Word { seq, name, why, lines } in words {
            if !self.evicted.missing(*seq, seq + 1).is_empty() {
                self.add_dropped(name, why, *lines);
            }
        }
        for (from, to) in ranges {
            self.evicted.add(*from, *to);
        }
    }

    fn add_dropped(&mut self, name: &str, why: &str, lines: u64) {
        let mut key = (name.to_owned(), why.replace(char::is_control, " "));
        let several = (NODE_NAME.to_owned(), SEVERAL.to_owned());
        let apart = self.dropped.len() - usize::from(self.dropped.contains_key(&several));
        if apart >= TOLD_APART && !self.dropped.contains_key(&key) {
            key = several;
        }
        let sum = self.dropped.entry(key).or_default();
        *sum = sum.saturating_add(lines);
    }

    /// What of `from..to` nobody took by right.
    pub(super) fn lost(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        self.evicted.missing(from, to)
    }

    /// The same, as far as it was not told before; from now on it is.
    pub(super) fn tell(&mut self, from: u64, to: u64) -> u64 {
        let mut lines = 0;
        for (from, to) in self.lost(from, to) {
            lines += count(&self.told.missing(from, to));
            self.told.add(from, to);
        }
        lines
    }

    /// Losses before the oldest line that is left have no place any more: their number is kept.
    pub(super) fn forget_before(&mut self, oldest: u64) {
        for (from, to) in self.told.take_before(oldest) {
            let lines = count(&self.lost(from, to));
            if lines > 0 {
                self.add_dropped(NODE_NAME, TAKEN, lines);
            }
            self.evicted.add(from, to);
        }
    }

    /// The first number that was not evicted from the beginning on.
    pub(super) fn first(&self) -> u64 {
        self.evicted.missing(1, u64::MAX).first().map_or(1, |range| range.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn it_is_read_as_it_is_written_and_nonsense_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Gone::read(dir.path()), None);
        let mut gone = Gone { next: 100, ..Gone::default() };
        gone.evicted.add(1, 5);
        gone.evicted.add(5, 9);
        assert_eq!(gone.tell(1, 20), 11);
        assert_eq!(gone.tell(1, 20), 0);
        gone.write(dir.path()).unwrap();
        assert_eq!(Gone::read(dir.path()), Some(gone.clone()));
        assert_eq!(gone.first(), 9);
        gone.forget_before(20);
        assert_eq!((gone.first(), gone.lost(1, 21)), (20, vec![(20, 21)]));
        assert_eq!(gone.dropped.values().sum::<u64>(), 11, "how many they were is known for ever");
        gone.write(dir.path()).unwrap();
        assert_eq!(Gone::read(dir.path()), Some(gone));
        for text in ["", "hilum gone 2\n", "hilum gone 1\nnext x\n", "hilum gone 1\nnext 3"] {
            fs::write(dir.path().join("gone"), text).unwrap();
            assert_eq!(Gone::read(dir.path()), None, "{text:?}");
        }
    }

    #[test]
    fn what_an_evicted_gap_told_is_counted_once_and_however_many_reasons_there_are() {
        let dir = tempfile::tempdir().unwrap();
        let mut gone = Gone::default();
        let word = |seq: u64| Word { seq, name: "a.1".into(), why: format!("no\n{seq}"), lines: 7 };
        for seq in (1..3000).chain(1..3000) {
            gone.evict(&[(seq, seq + 1)], &[word(seq)]);
        }
        assert_eq!(gone.dropped.values().sum::<u64>(), 2999 * 7);
        assert!(gone.dropped.len() <= TOLD_APART + 1);
        gone.write(dir.path()).unwrap();
        assert_eq!(Gone::read(dir.path()), Some(gone));
    }

    proptest! {
        #[test]
        fn ranges_are_sets_of_numbers(added in proptest::collection::vec((0_u64..60, 0_u64..20), 0..20), from in 0_u64..80, length in 0_u64..80) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (from, length) in added {
                ranges.add(from, from + length);
                set.extend(from..from + length);
            }
            prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 < pair[1].0));
            let missing: Vec<u64> = ranges.missing(from, from + length).iter().flat_map(|(a, b)| *a..*b).collect();
            let wanted: Vec<u64> = (from..from + length).filter(|number| !set.contains(number)).collect();
            prop_assert_eq!(missing, wanted);
        }
    }
}
