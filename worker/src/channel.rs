//! The way back for the answer of a raw method.

use std::fmt;
use std::sync::Arc;

use hilum_shared::rpc;
use serde::Serialize;

use crate::container::{Open, Outcome};
use crate::fault::{Declared, Fault};

/// Answers the request of a `#[raw_rpc]` method, when the method likes. Clones are the same channel; the first answer counts, later
/// ones are logged and go nowhere. When the last clone is dropped without an answer the request is refused (NACK).
#[derive(Clone)]
pub struct ReplyChannel {
    pub(crate) inner: rpc::ReplyChannel,
    /// Counts what becomes of it.
    pub(crate) open: Arc<Open>,
}

#[expect(
    clippy::unused_async,
    reason = "sending does not wait today; that it may is part of the interface"
)]
impl ReplyChannel {
    /// The result. One that has no MessagePack form refuses the request.
    pub async fn reply<T: Serialize + ?Sized>(&self, value: &T) {
        self.sent(Outcome::Ok, self.inner.reply(value));
    }

    /// Taken; there is no result.
    pub async fn ack(&self) {
        self.sent(Outcome::Ok, self.inner.ack());
    }

    /// Refused.
    pub async fn nack(&self) {
        self.sent(Outcome::Nack, self.inner.nack());
    }

    /// An error with a name, which the caller sees.
    pub async fn error(&self, kind: &str, message: &str) {
        self.fault(&Fault::new(kind, message));
    }

    /// A declared error.
    pub async fn raise<E: Declared>(&self, error: &E) {
        self.fault(&error.fault());
    }

    /// Whether an answer was given.
    pub fn is_answered(&self) -> bool {
        self.inner.is_answered()
    }

    /// Whether the caller has gone, so that nobody waits for an answer.
    pub fn is_abandoned(&self) -> bool {
        self.inner.is_abandoned()
    }
}

impl ReplyChannel {
    pub(crate) fn fault(&self, fault: &Fault) {
        self.sent(Outcome::Error, self.inner.error_with(&fault.to_body()));
    }

    /// The result of a method.
    pub(crate) fn result<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), rpc::ReplyError> {
        let sent = self.inner.reply(value);
        if sent.is_ok() {
            self.open.told(Outcome::Ok);
        }
        sent
    }

    pub(crate) fn sent(&self, outcome: Outcome, result: Result<(), rpc::ReplyError>) {
        match result {
            Ok(()) => self.open.told(outcome),
            Err(error @ rpc::ReplyError::Answered) => {
                // Where that was no answer of ours, the caller has gone.
                self.open.told(Outcome::Cancelled);
                tracing::warn!(subject = self.inner.subject(), "a second answer: {error}");
            }
            Err(error) => {
                tracing::error!(
                    subject = self.inner.subject(),
                    "the answer cannot be sent, the request is refused: {error}"
                );
                let _ = self.inner.nack(); // it was open a moment ago
            }
        }
    }
}

impl fmt::Debug for ReplyChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyChannel")
            .field("subject", &self.inner.subject())
            .finish_non_exhaustive()
    }
}
