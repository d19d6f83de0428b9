//! The trace of what a task is at: one id through a request, the calls that it makes, and all their log records.

pub use hilum_shared::rpc::trace::{trace_id, with_trace};
