//! Several metrics under common tags.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use hilum_shared::metrics::{Kind, Series, Tags, Value};

use super::metric::{Callable, Counter, Gauge, Metric, TaggedCounter};

/// Metrics that are collected together, with tags for all of them. Clones are the same registry; a registry is itself a
/// metric, so one may hold others (what lymph calls an aggregate).
#[doc(alias = "Aggregate")]
#[doc(alias = "Collector")]
#[derive(Clone, Default)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    tags: Tags,
    metrics: RwLock<Vec<Arc<dyn Metric>>>,
}

impl Registry {
    /// An empty one; everything in it carries `tags`.
    pub fn new(tags: Tags) -> Self {
        Self { inner: Arc::new(Inner { tags, metrics: RwLock::default() }) }
    }

    /// Adds a metric, or another registry with tags of its own.
    pub fn add(&self, metric: impl Metric + 'static) {
        self.inner.metrics.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(metric));
    }

    /// A new gauge.
    pub fn gauge(
        &self,
        name: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
    ) -> Gauge {
        let gauge = Gauge::new(name, help, Tags::none());
        self.add(gauge.clone());
        gauge
    }

    /// A new counter.
    pub fn counter(
        &self,
        name: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
    ) -> Counter {
        let counter = Counter::new(name, help, Tags::none());
        self.add(counter.clone());
        counter
    }

    /// New counters that are told apart by these tags.
    pub fn tagged_counter<const N: usize>(
        &self,
        name: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
        names: [&'static str; N],
    ) -> TaggedCounter<N> {
        let counter = TaggedCounter::new(name, help, names, Tags::none());
        self.add(counter.clone());
        counter
    }

    /// A function that is asked whenever somebody collects; it must not block.
    pub fn callable<F, V>(
        &self,
        name: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
        kind: Kind,
        ask: F,
    ) where
        F: Fn() -> V + Send + Sync + 'static,
        V: Into<Value> + 'static,
    {
        self.add(Callable::new(name, help, kind, Tags::none(), ask));
    }

    /// All figures as they are now, in the order in which their metrics were added.
    pub fn series(&self) -> Vec<Series> {
        let mut series = Vec::new();
        self.collect(&mut series);
        series
    }
}

impl Metric for Registry {
    fn collect(&self, into: &mut Vec<Series>) {
        let metrics = self.inner.metrics.read().unwrap_or_else(PoisonError::into_inner).clone();
        let begin = into.len();
        for metric in &metrics {
            metric.collect(into);
        }
        for series in &mut into[begin..] {
            series.tags = self.inner.tags.around(std::mem::take(&mut series.tags));
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("tags", &self.inner.tags).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_in_a_registry_adds_its_tags() {
        let outer = Registry::new(Tags::none().with("host", Some("h".into())));
        let inner = Registry::new(Tags::none().with("pool", Some("a".into())));
        outer.counter("first", "").add(2);
        outer.add(inner.clone());
        inner.gauge("free", "").set(0.5); // also what comes later
        outer.callable("last", "", Kind::Gauge, || 7_u64);
        let found: Vec<String> =
            outer.series().iter().map(|series| serde_json::to_string(series).unwrap()).collect();
        assert_eq!(
            found,
            [
                r#"["first",2,{"host":"h"}]"#,
                r#"["free",0.5,{"host":"h","pool":"a"}]"#,
                r#"["last",7,{"host":"h"}]"#,
            ]
        );
    }

    #[test]
    fn a_metric_may_add_to_its_own_registry_while_it_is_asked() {
        let registry = Registry::default();
        let again = registry.clone();
        registry.callable("n", "", Kind::Gauge, move || {
            again.gauge("late", "");
            1_u64
        });
        assert_eq!(registry.series().len(), 1);
        assert_eq!(registry.series().len(), 2);
    }
}
