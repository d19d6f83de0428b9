//! The trace of what a task is at: one id through a request, the calls that it makes, and all their log records.

tokio::task_local! {
    static CURRENT: String;
}

/// Runs a future under a trace id: its log records carry it, and [`trace_id`] answers it.
pub async fn with_trace<F: Future>(trace_id: impl Into<String>, future: F) -> F::Output {
    CURRENT.scope(trace_id.into(), future).await
}

/// The trace of the current task. A task that was spawned from it has none, unless it is given by [`with_trace`].
pub fn trace_id() -> Option<String> {
    CURRENT.try_with(Clone::clone).ok()
}
