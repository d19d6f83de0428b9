//! Which of several instances is called.

use std::hash::{BuildHasher, RandomState};

/// How one of several instances is chosen. Silent ones are passed over in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Any, as lymph does.
    #[default]
    Random,
    /// One after another.
    RoundRobin,
    /// The one with the fewest calls of ours that wait for their answer.
    LeastPending,
}

impl Balance {
    /// The place of the chosen one among `count` (at least one). `turn` counts the calls of this service.
    pub(super) fn pick(self, count: usize, turn: usize, pending: impl Fn(usize) -> u32) -> usize {
        match self {
            Self::Random => random() % count,
            Self::RoundRobin => turn % count,
            Self::LeastPending => {
                // From a different one each time, so that equals share.
                let from = turn % count;
                let around = (from..count).chain(0..from);
                around.min_by_key(|at| pending(*at)).unwrap_or(from)
            }
        }
    }
}

/// A number that nobody foresees, from the standard library's own random keys.
fn random() -> usize {
    thread_local!(static KEYS: RandomState = RandomState::new());
    thread_local!(static NEXT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) });
    let next = NEXT.with(|next| next.replace(next.get().wrapping_add(1)));
    KEYS.with(|keys| keys.hash_one(next)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_shares_as_it_says() {
        let mut counts = [0; 3];
        for turn in 0..3000 {
            counts[Balance::Random.pick(3, turn, |_| 0)] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        let turns: Vec<usize> =
            (0..5).map(|turn| Balance::RoundRobin.pick(3, turn, |_| 0)).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1]);
        assert_eq!(Balance::LeastPending.pick(3, 0, |at| [4, 1, 2][at]), 1);
        let shared: Vec<usize> =
            (0..3).map(|turn| Balance::LeastPending.pick(3, turn, |_| 7)).collect();
        assert_eq!(shared, [0, 1, 2]);
    }
}
