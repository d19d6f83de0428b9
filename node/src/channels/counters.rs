//! Messages that were ignored, by reason: what `status` shows of garbage and strangers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts by reason. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    // Reasons are literals of this program, so the map is bounded.
    counts: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl Counters {
    /// One more for this reason.
    pub fn count(&self, reason: &'static str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(reason).or_default();
        *count += 1;
        if *count == 1 {
            tracing::warn!(reason, "ignored a message; more of the kind are only counted");
        }
    }

    /// How many for this reason.
    pub fn get(&self, reason: &str) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(reason).copied().unwrap_or_default()
    }

    /// All of them, as `Snapshot::node.ignored` wants them.
    pub fn snapshot(&self) -> BTreeMap<String, u64> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_count_together() {
        let counters = Counters::default();
        counters.clone().count("a");
        counters.count("a");
        assert_eq!(counters.snapshot(), BTreeMap::from([("a".to_owned(), 2)]));
        assert_eq!(counters.get("b"), 0);
    }
}
