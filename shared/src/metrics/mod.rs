//! Figures: what a series is, what Linux knows of this process, and the text that Prometheus reads.
//!
//! Services count by `hilum_worker::metrics`, the node makes its series when somebody asks. Both are told by the same functions.

mod process;
mod prometheus;
mod series;

pub use process::process;
pub use prometheus::{CONTENT_TYPE, to_prometheus};
pub use series::{Kind, Series, Tags, Value};
