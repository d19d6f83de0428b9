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
//! ```
//! Ranges end before their second number. Without the file nothing is known, and nothing is called lost.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

/// The first line: a name and the version of its form.
const HEADER: &str = "hilum gone 1";

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
        let new = dir.join("gone.new");
        fs::write(&new, text)?;
        fs::rename(new, dir.join("gone"))
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

    /// Losses before the oldest line that is left are of no account any more.
    pub(super) fn forget_before(&mut self, oldest: u64) {
        for (from, to) in self.told.take_before(oldest) {
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
        for text in ["", "hilum gone 2\n", "hilum gone 1\nnext x\n", "hilum gone 1\nnext 3"] {
            fs::write(dir.path().join("gone"), text).unwrap();
            assert_eq!(Gone::read(dir.path()), None, "{text:?}");
        }
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
