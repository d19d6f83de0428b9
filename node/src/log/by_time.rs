//! Records in the order of their own times. The timeline is in the order in which they were read, and the records of a worker are
//! read some at a time: what a service did for another may be read before that one's call.

use std::collections::BTreeMap;

use super::query::Entry;

/// Records that wait for an earlier one, and bytes of their text, at most.
const MOST: (usize, usize) = (10_000, 16 << 20);

/// Some records, the earliest first; those of one moment in the order in which they were read.
#[derive(Debug, Default)]
pub struct ByTime {
    waiting: BTreeMap<(u64, u64), Entry>,
    bytes: usize,
    added: u64,
}

impl ByTime {
    /// Adds a record; to be followed by [`Self::passed`] until that is `None`.
    pub fn add(&mut self, entry: Entry) {
        self.bytes += entry.text.len();
        self.waiting.insert((entry.at, self.added), entry);
        self.added += 1;
    }

    /// The earliest, where more wait than there is room for.
    pub fn passed(&mut self) -> Option<Entry> {
        (self.waiting.len() > MOST.0 || self.bytes > MOST.1).then(|| self.pop()).flatten()
    }

    /// All that are left.
    pub fn rest(mut self) -> impl Iterator<Item = Entry> {
        std::iter::from_fn(move || self.pop())
    }

    fn pop(&mut self) -> Option<Entry> {
        let (_, entry) = self.waiting.pop_first()?;
        self.bytes -= entry.text.len();
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_what_waits_is_bounded() {
        let (mut by_time, mut shown) = (ByTime::default(), Vec::new());
        for seq in 0..3 * MOST.0 as u64 {
            // Of each two the later one was read first.
            by_time.add(Entry { seq, at: seq ^ 1, text: vec![b'x'; 10], ..Entry::default() });
            shown.extend(std::iter::from_fn(|| by_time.passed()).map(|entry| entry.at));
            assert!(by_time.waiting.len() <= MOST.0);
        }
        shown.extend(by_time.rest().map(|entry| entry.at));
        assert!(shown.into_iter().eq(0..3 * MOST.0 as u64));
        let mut by_time = ByTime::default();
        by_time.add(Entry { text: vec![b'x'; MOST.1 + 1], ..Entry::default() });
        assert!(by_time.passed().is_some() && by_time.passed().is_none());
        for (seq, at) in [(3, 6), (8, 5), (7, 5), (7, 5)] {
            by_time.add(Entry { seq, at, ..Entry::default() });
        }
        assert_eq!(by_time.rest().map(|entry| entry.seq).collect::<Vec<_>>(), [8, 7, 7, 3]);
    }
}
