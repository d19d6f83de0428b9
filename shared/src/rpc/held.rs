//! A place that a service keeps a connection to: the node's registry, its event broker.
//!
//! One call is always held there, so that the end of the connection is known at once; then the place is entered anew, with
//! growing pauses until it is there again. While there is nothing to keep there is no connection.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::{Endpoint, Outgoing};
use crate::wire::Value;
use crate::wire::message::{EncodeError, Kind, Message, pack_for_node};

/// How long a place may take to answer; a held call takes longer by what the place says.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);
/// Between the first tries to reach a place that is gone.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Between later ones.
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// A task that ends with its last handle.
pub(crate) struct Task(AbortHandle);

impl Task {
    /// Starts it; to be called in a tokio runtime.
    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Arc<Self> {
        Arc::new(Self(tokio::spawn(task).abort_handle()))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a call at a place brought nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// The arguments cannot be written.
    #[error("{0}")]
    Unwritable(String),
    /// Nobody answers there.
    #[error("`{place}`: {reason}")]
    Unreachable { place: String, reason: String },
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

/// One interface at one address.
pub(crate) struct Place {
    /// Where the connection is.
    pub(crate) endpoint: Endpoint,
    /// The address.
    pub(crate) address: String,
    /// The interface's name.
    pub(crate) interface: &'static str,
}

impl Place {
    /// Calls a method and gives its reply.
    pub(crate) async fn call(
        &self,
        method: &str,
        args: &impl Serialize,
        timeout: Duration,
    ) -> Result<Message, PlaceError> {
        self.call_with(method, args, 0, timeout).await
    }

    /// [`Self::call`] with arguments that are put into so many levels further on.
    pub(crate) async fn call_with(
        &self,
        method: &str,
        args: &impl Serialize,
        around: usize,
        timeout: Duration,
    ) -> Result<Message, PlaceError> {
        let Self { endpoint, address, interface } = self;
        let unwritable = |error: EncodeError| PlaceError::Unwritable(error.to_string());
        let body = pack_for_node(args, around).map_err(unwritable)?;
        let outgoing = Outgoing { timeout, ..Outgoing::new(format!("{interface}.{method}"), body) };
        let answer = endpoint.request(address, outgoing).await.map_err(|error| {
            PlaceError::Unreachable { place: address.clone(), reason: error.to_string() }
        })?;
        match answer.kind {
            Kind::Nack => {
                let why =
                    format!("it does not know `{interface}.{method}`: it is of another version");
                Err(PlaceError::Refused(why))
            }
            Kind::Error => {
                let body: Value = answer.unpack().unwrap_or_default();
                let text = body.get("message").and_then(Value::as_str);
                Err(PlaceError::Refused(text.unwrap_or("no reason given").to_owned()))
            }
            _ => Ok(answer),
        }
    }
}

/// What is kept at a place.
pub(crate) trait Kept: Send + Sync + 'static {
    /// Why the place was not reached, or said no.
    type Error: std::fmt::Display + Send;

    /// What is kept, for diagnostics: `the registry`.
    const NAME: &str;

    /// Whether there is nothing to keep now.
    fn is_idle(&self) -> bool;

    /// Told when [`Self::is_idle`] may have changed.
    fn changed(&self) -> &Notify;

    /// Holds one call until it is answered or there is something else to hold. An error is the end of the connection.
    fn hold(&self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Says everything anew to a place that may know nothing of us.
    fn enter(&self) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Keeps it for ever: the body of a [`Task`].
pub(crate) async fn keep<K: Kept>(kept: Arc<K>) {
    let mut pause = FIRST_PAUSE;
    loop {
        if kept.is_idle() {
            kept.changed().notified().await;
            continue;
        }
        let Err(error) = kept.hold().await else {
            pause = FIRST_PAUSE;
            continue;
        };
        tracing::debug!(%error, "the connection to {} ended", K::NAME);
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
            match kept.enter().await {
                Ok(()) => break,
                Err(error) => tracing::debug!(%error, "{} is not there yet", K::NAME),
            }
        }
    }
}
