//! Memory for messages that have not come whole, bounded over all connections that others made to us.
//!
//! One message may be large, and so may be one from each of thousands of strangers, who need not end any. Where there is no room left, who
//! has come no further for the longest loses what it holds: what stands still makes room for what comes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What a connection may hold in any case, in bytes: with the most connections that are accepted it is as much again as the bound.
const FREE: usize = 128 * 1024;

/// What all connections of an endpoint hold together.
#[derive(Debug)]
pub(super) struct Held {
    limit: usize,
    next: AtomicU64,
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    size: usize,
    holders: HashMap<u64, Holder>,
}

#[derive(Debug)]
struct Holder {
    size: usize,
    /// When it last took more. A buffer is doubled as it fills: drop by drop nobody comes further.
    grown: Instant,
    put_out: Arc<Notify>,
}

/// One connection's part of it, given back with its end.
#[derive(Debug)]
pub(super) struct Room {
    held: Arc<Held>,
    me: u64,
    mine: usize,
    put_out: Arc<Notify>,
}

impl Held {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, next: AtomicU64::default(), all: Mutex::default() })
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn set(&mut self, of: u64, size: usize, put_out: &Arc<Notify>) {
        if size == 0 {
            self.forget(of);
            return;
        }
        let new = || Holder { size: 0, grown: Instant::now(), put_out: Arc::clone(put_out) };
        let holder = self.holders.entry(of).or_insert_with(new);
        if size > holder.size {
            holder.grown = Instant::now();
        }
        self.size = self.size - holder.size + size;
        holder.size = size;
    }

    fn forget(&mut self, of: u64) -> Option<Holder> {
        let holder = self.holders.remove(&of)?;
        self.size -= holder.size;
        Some(holder)
    }

    /// Who has come no further for the longest, among those that hold half of an even share or more: who holds little is not in
    /// anybody's way.
    fn loser(&self) -> Option<u64> {
        let counts = |holder: &Holder| holder.size * 2 * self.holders.len() >= self.size;
        let those = self.holders.iter().filter(|(_, holder)| counts(holder));
        those.min_by_key(|(_, holder)| holder.grown).map(|(of, _)| *of)
    }
}

impl Room {
    pub(super) fn new(held: &Arc<Held>) -> Self {
        let me = held.next.fetch_add(1, Ordering::Relaxed);
        Self { held: Arc::clone(held), me, mine: 0, put_out: Arc::default() }
    }

    /// What all may hold.
    pub(super) fn limit(&self) -> usize {
        self.held.limit
    }

    /// Its buffer has this size now; `false` where there is no room for it.
    pub(super) fn holds(&mut self, size: usize) -> bool {
        let size = size.saturating_sub(FREE);
        if size == self.mine {
            return true;
        }
        if size > self.held.limit {
            return false; // nobody is to lose anything for it
        }
        let mut all = self.held.all();
        if self.mine > 0 && !all.holders.contains_key(&self.me) {
            return false; // put out, and about to hear of it
        }
        self.mine = size;
        all.set(self.me, size, &self.put_out);
        while all.size > self.held.limit
            && let Some(loser) = all.loser()
        {
            let holder = all.forget(loser);
            if loser == self.me {
                return false;
            }
            if let Some(holder) = holder {
                holder.put_out.notify_one();
            }
        }
        true
    }

    /// Whether it has any.
    pub(super) fn is_taken(&self) -> bool {
        self.mine > 0
    }

    /// Waits until others have taken its room.
    pub(super) async fn put_out(&self) {
        self.put_out.notified().await;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.held.all().forget(self.me);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Whether others have taken its room.
    async fn is_out(room: &Room) -> bool {
        tokio::time::timeout(Duration::ZERO, room.put_out()).await.is_ok()
    }

    async fn later() {
        tokio::time::advance(Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_all_hold_is_bounded_and_given_back() {
        let held = Held::new(1000);
        let (mut one, mut other) = (Room::new(&held), Room::new(&held));
        assert!(one.holds(FREE) && one.holds(FREE + 600) && other.holds(FREE + 400));
        assert_eq!(held.all().size, 1000);
        assert!(one.holds(FREE + 500), "less is always taken");
        drop(other);
        assert!(one.holds(FREE + 1000) && !one.holds(FREE + 1001));
        assert!(one.holds(0));
        assert!(held.all().holders.is_empty());
        assert_eq!(held.all().size, 0);
        let mut third = Room::new(&held);
        assert!(third.holds(FREE + 1000), "all of it is free again");
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_on_takes_the_room_of_those_that_stand_still() {
        let held = Held::new(1000);
        let mut rooms: Vec<Room> = (0..4).map(|_| Room::new(&held)).collect();
        for room in &mut rooms[..3] {
            assert!(room.holds(FREE + 300));
            later().await;
        }
        // It came first, and has come further since.
        assert!(rooms[0].holds(FREE + 310));
        later().await;
        assert!(rooms[3].holds(FREE + 300), "the second makes room");
        let mut out = Vec::new();
        for room in &rooms {
            out.push(is_out(room).await);
        }
        assert_eq!(out, [false, true, false, false]);
        assert_eq!(held.all().size, 910);
        assert!(!rooms[1].holds(FREE + 400), "it has not heard of it yet");
        drop(rooms.remove(1));
        assert_eq!(held.all().size, 910, "what it lost is not given back twice");
        later().await;
        assert!(rooms[2].holds(FREE + 900), "for much, several make room");
        assert!(is_out(&rooms[0]).await && is_out(&rooms[1]).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_little_keeps_it() {
        let held = Held::new(1000);
        let (mut little, mut much, mut new) =
            (Room::new(&held), Room::new(&held), Room::new(&held));
        assert!(little.holds(FREE + 10));
        later().await;
        assert!(much.holds(FREE + 900));
        later().await;
        assert!(new.holds(FREE + 500));
        assert!(!is_out(&little).await && is_out(&much).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gathers_much_in_small_parts_cannot_put_out_one_large_message() {
        let held = Held::new(1000);
        let mut crowd: Vec<Room> = (0..60).map(|_| Room::new(&held)).collect();
        for room in &mut crowd {
            assert!(room.holds(FREE + 15));
        }
        later().await;
        let mut large = Room::new(&held);
        for size in [100, 200, 400] {
            assert!(large.holds(FREE + size), "{size}");
        }
        assert!(!is_out(&large).await && held.all().size <= 1000);
    }
}
