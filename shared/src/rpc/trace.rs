//! What a call hands on to the calls that it makes: its trace and its deadline.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::wire::message::new_id;

tokio::task_local! {
    static CURRENT: Scope;
}

/// Of the call that the current task works for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The id of the trace.
    pub trace_id: Arc<str>,
    /// When nobody waits for the result any longer.
    pub deadline: Option<Instant>,
}

/// Runs a future in a scope: [`trace_id`] is known in it, and calls made in it carry it on.
pub fn scope<F: Future>(scope: Scope, future: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(scope, future)
}

/// Runs a future under a trace id.
pub async fn with_trace<F: Future>(trace_id: impl Into<Arc<str>>, future: F) -> F::Output {
    let deadline = deadline();
    scope(Scope { trace_id: trace_id.into(), deadline }, future).await
}

/// The scope of the current task; a task that was spawned from it starts without one.
pub fn current() -> Option<Scope> {
    CURRENT.try_with(Clone::clone).ok()
}

/// The trace of the current task.
pub fn trace_id() -> Option<String> {
    CURRENT.try_with(|scope| scope.trace_id.as_ref().to_owned()).ok()
}

/// When nobody waits for the current task's result any longer.
pub fn deadline() -> Option<Instant> {
    CURRENT.try_with(|scope| scope.deadline).ok().flatten()
}

/// As good as for ever, and no moment in the future that the clock cannot name.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How long a call may wait that would wait for `timeout`.
pub(super) fn time_left(now: Instant, timeout: Duration) -> Duration {
    let left = deadline().map_or(LONGEST, |at| at.saturating_duration_since(now));
    timeout.min(left)
}

/// The current trace, or a new one.
pub(super) fn trace_id_or_new() -> String {
    trace_id().unwrap_or_else(new_id)
}
