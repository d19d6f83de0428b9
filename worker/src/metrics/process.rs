//! This process among a service's metrics.

use hilum_shared::metrics::{Series, process};

use super::metric::Metric;

/// The figures `rusage.*` and `proc.*` of this process, under lymph's names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process;

impl Metric for Process {
    fn collect(&self, into: &mut Vec<Series>) {
        process(into);
    }
}
