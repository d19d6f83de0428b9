//! Memory for messages that have not come whole, bounded over all connections that others made to us.
//!
//! One message may be large, and so may be one from each of thousands of strangers, who need not end any.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a connection may hold in any case, in bytes: with the most connections that are accepted it is as much again as the bound.
const FREE: usize = 128 * 1024;

/// What all connections of an endpoint hold together.
#[derive(Debug, Default)]
pub(super) struct Held(AtomicUsize);

/// One connection's part of it, given back with its end.
#[derive(Debug)]
pub(super) struct Room {
    held: Arc<Held>,
    limit: usize,
    mine: usize,
}

impl Room {
    pub(super) fn new(held: &Arc<Held>, limit: usize) -> Self {
        Self { held: Arc::clone(held), limit, mine: 0 }
    }

    /// Its buffer has this size now; `false` where that is more than there is room for.
    pub(super) fn holds(&mut self, size: usize) -> bool {
        let size = size.saturating_sub(FREE);
        if size == self.mine {
            return true;
        }
        let all = &self.held.0;
        let grown = size > self.mine;
        let before = if grown {
            all.fetch_add(size - self.mine, Ordering::Relaxed)
        } else {
            all.fetch_sub(self.mine - size, Ordering::Relaxed)
        };
        let fits = !grown || before + (size - self.mine) <= self.limit;
        self.mine = size;
        fits
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.held.0.fetch_sub(self.mine, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_hold_is_bounded_and_given_back() {
        let held = Arc::new(Held::default());
        let (mut one, mut other) = (Room::new(&held, 1000), Room::new(&held, 1000));
        assert!(one.holds(FREE) && one.holds(FREE + 600) && other.holds(FREE + 400));
        assert!(!other.holds(FREE + 401));
        assert!(one.holds(FREE + 500), "less is always taken");
        drop(other);
        assert!(one.holds(FREE + 1000) && !one.holds(FREE + 1001));
        assert!(one.holds(0));
        assert_eq!(held.0.load(Ordering::Relaxed), 0);
    }
}
