//! What strangers do wrong, told in few words: the first of a peer at once, further ones as sums.
//!
//! Whoever sends rubbish in a loop, on one connection or on many, is to fill neither the log nor memory.

use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use foldhash::HashMap;

/// Between two sums of one peer; who was quiet for so long is told anew.
const QUIET: Duration = Duration::from_secs(10);
/// Peers that are told apart at a time; all further ones are one.
const MOST: usize = 64;
const OTHERS: &str = "others";

/// Who is at the other end of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    /// Where it comes from, or what we dialled.
    pub(super) address: String,
    /// What it calls itself, if anything.
    pub(super) name: String,
}

impl Peer {
    /// The same for all connections of one host or process.
    fn key(&self) -> &str {
        let port = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match self.address.rsplit_once(':') {
            Some((host, number)) if port(number) => host,
            _ => &self.address,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)?;
        if !self.name.is_empty() && self.name != self.address {
            write!(f, " ({})", self.name)?;
        }
        Ok(())
    }
}

/// Who was complained of lately, and how much there is more of that. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Complaints {
    more: Arc<Mutex<HashMap<String, u64>>>,
}

impl Complaints {
    /// Whether this one is to be told; else it is in the next sum.
    pub(super) fn is_to_be_told(&self, peer: &Peer) -> bool {
        let mut more = lock(&self.more);
        let known = more.len() < MOST || more.contains_key(peer.key());
        match more.entry(if known { peer.key() } else { OTHERS }.to_owned()) {
            Entry::Occupied(mut entry) => {
                *entry.get_mut() += 1;
                false
            }
            Entry::Vacant(entry) => {
                tokio::spawn(sum(Arc::downgrade(&self.more), entry.key().clone()));
                entry.insert(0);
                true
            }
        }
    }
}

/// Tells what came of a peer meanwhile, until nothing more comes.
async fn sum(complaints: Weak<Mutex<HashMap<String, u64>>>, peer: String) {
    loop {
        tokio::time::sleep(QUIET).await;
        let Some(complaints) = complaints.upgrade() else { return };
        let mut complaints = lock(&complaints);
        let more = complaints.get_mut(&peer).map_or(0, std::mem::take);
        if more == 0 {
            complaints.remove(&peer);
            return;
        }
        drop(complaints);
        let seconds = QUIET.as_secs();
        tracing::warn!(peer, more, seconds, "more of this peer could not be read");
    }
}

fn lock(of: &Mutex<HashMap<String, u64>>) -> MutexGuard<'_, HashMap<String, u64>> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> Peer {
        Peer { address: address.to_owned(), name: "it".to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_told_once_and_again_when_it_was_quiet() {
        let complaints = Complaints::default();
        assert!(complaints.is_to_be_told(&from("10.0.0.1:1")));
        // Another connection makes it no other peer.
        for port in 2..100 {
            assert!(!complaints.is_to_be_told(&from(&format!("10.0.0.1:{port}"))));
        }
        assert!(complaints.is_to_be_told(&from("10.0.0.2:1")));
        assert_eq!(lock(&complaints.more)["10.0.0.1"], 98);
        tokio::time::sleep(QUIET + Duration::from_secs(1)).await;
        assert_eq!(lock(&complaints.more)["10.0.0.1"], 0, "the sum was told");
        assert!(!complaints.is_to_be_told(&from("10.0.0.1:1")));
        tokio::time::sleep(3 * QUIET).await;
        assert!(lock(&complaints.more).is_empty());
        assert!(complaints.is_to_be_told(&from("10.0.0.1:1")));
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_there_are_they_need_little_room() {
        let complaints = Complaints::default();
        let peers = (0..1000).map(|n| from(&format!("10.0.{}.{}:1", n / 250, n % 250)));
        let told = peers.filter(|peer| complaints.is_to_be_told(peer)).count();
        assert_eq!(told, MOST + 1);
        assert_eq!(lock(&complaints.more)[OTHERS], 1000 - 1 - MOST as u64);
    }

    #[test]
    fn a_peer_is_shown_with_what_it_calls_itself() {
        assert_eq!(from("10.0.0.1:4711").to_string(), "10.0.0.1:4711 (it)");
        let dialled = Peer { address: "tcp://a:1".into(), name: String::new() };
        assert_eq!(dialled.to_string(), "tcp://a:1");
    }
}
