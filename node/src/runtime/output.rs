//! Whether all that an ended run wrote can be read, and the answers that wait for it.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard, PoisonError};

use hilum_shared::name::{InstanceId, Run};
use hilum_shared::protocol::control::Outcome;

use super::{Aside, Runtime};
use crate::core::input::RequestId;

/// Ended runs whose output is still being read. Who ends one wakes the loop only when somebody waits for that: crashes
/// come by the hundred a second.
#[derive(Default)]
pub(super) struct Draining {
    numbers: BTreeSet<u64>,
    awaited: bool,
}

impl Runtime {
    /// The leader is gone: its output is read to the end, and `late` answers may follow.
    pub(super) fn output_ends(&mut self, instance: &InstanceId, run: Run) {
        let held = self.held.entry((instance.clone(), run)).or_default();
        if std::mem::replace(&mut held.output_ended, true) {
            return;
        }
        self.next_drain += 1;
        let number = self.next_drain;
        self.draining().numbers.insert(number);
        let (draining, sender) = (Arc::clone(&self.draining), self.aside.0.clone());
        self.parts.log.ended(instance.clone(), run, move || {
            let mut draining = draining.lock().unwrap_or_else(PoisonError::into_inner);
            draining.numbers.remove(&number);
            if draining.awaited {
                let _ = sender.send(Aside::OutputDone); // the loop may be gone already
            }
        });
    }

    fn draining(&self) -> MutexGuard<'_, Draining> {
        // Whoever held it did nothing that could be half done.
        self.draining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells a client that its operation is done, once all that the ended runs wrote can be read.
    pub(super) fn answer_when_written(&mut self, id: RequestId, outcome: Outcome) {
        self.write_dossiers();
        self.late.push((self.next_drain, id, outcome));
        self.answer_late();
    }

    pub(super) fn answer_late(&mut self) {
        let oldest = {
            let mut draining = self.draining();
            draining.awaited = !self.late.is_empty();
            draining.numbers.first().copied().unwrap_or(u64::MAX)
        };
        let late = std::mem::take(&mut self.late);
        for (number, id, outcome) in late {
            if number >= oldest {
                self.late.push((number, id, outcome));
                continue;
            }
            let sender = self.aside.0.clone();
            self.parts.log.flush(move || {
                let _ = sender.send(Aside::Tell(id, Box::new(outcome))); // the loop may be gone already
            });
        }
    }
}
