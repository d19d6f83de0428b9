//! The kinds of metrics. Changing one is an atomic operation; they are read when somebody collects.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use hilum_shared::metrics::{Kind, Series, Tags, Value};

/// Something that can be asked for its figures. It is asked every few seconds, from any thread, and must not block.
pub trait Metric: Send + Sync {
    /// Puts what it has to say behind what is there.
    fn collect(&self, into: &mut Vec<Series>);
}

/// Name, help and tags.
#[derive(Clone, Debug)]
struct About {
    name: Cow<'static, str>,
    help: Cow<'static, str>,
    tags: Tags,
}

impl About {
    fn series(&self, kind: Kind, value: Value) -> Series {
        let Self { name, help, tags } = self.clone();
        Series { name, value, tags, kind, help }
    }
}

/// A figure that is set. Clones are the same gauge.
#[derive(Clone, Debug)]
pub struct Gauge {
    inner: Arc<(About, AtomicU64)>,
}

impl Gauge {
    /// A gauge at 0.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
        tags: Tags,
    ) -> Self {
        let about = About { name: name.into(), help: help.into(), tags };
        Self { inner: Arc::new((about, AtomicU64::new(0_f64.to_bits()))) }
    }

    /// Sets it.
    pub fn set(&self, value: f64) {
        self.inner.1.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Adds to it; a negative number takes away.
    pub fn add(&self, change: f64) {
        let changed = |bits| Some((f64::from_bits(bits) + change).to_bits());
        // Never an error: the closure always has an answer.
        let _ = self.inner.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed);
    }

    /// What it is now.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.inner.1.load(Ordering::Relaxed))
    }
}

impl Metric for Gauge {
    fn collect(&self, into: &mut Vec<Series>) {
        into.push(self.inner.0.series(Kind::Gauge, self.get().into()));
    }
}

/// A figure that grows. Clones are the same counter.
#[derive(Clone, Debug)]
pub struct Counter {
    inner: Arc<(About, AtomicU64)>,
}

impl Counter {
    /// A counter at 0.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
        tags: Tags,
    ) -> Self {
        let about = About { name: name.into(), help: help.into(), tags };
        Self { inner: Arc::new((about, AtomicU64::new(0))) }
    }

    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.inner.1.fetch_add(count, Ordering::Relaxed);
    }

    /// How many there have been.
    pub fn get(&self) -> u64 {
        self.inner.1.load(Ordering::Relaxed)
    }
}

impl Metric for Counter {
    fn collect(&self, into: &mut Vec<Series>) {
        into.push(self.inner.0.series(Kind::Counter, self.get().into()));
    }
}

/// Values of tags that one [`TaggedCounter`] tells apart: a name that a stranger chooses must not fill the memory.
pub const MAX_VALUES: usize = 1000;
/// The value of all tags that came when a [`TaggedCounter`] had [`MAX_VALUES`] already.
pub const OTHER: &str = "other";

/// Counters of one name, told apart by the values of `N` tags. Clones are the same counters.
#[derive(Clone, Debug)]
pub struct TaggedCounter<const N: usize> {
    inner: Arc<Tagged<N>>,
}

#[derive(Debug)]
struct Tagged<const N: usize> {
    about: About,
    names: [&'static str; N],
    counters: RwLock<HashMap<String, Counter>>,
}

impl<const N: usize> TaggedCounter<N> {
    /// No counters yet; there is one for each combination of values that is asked for.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
        names: [&'static str; N],
        tags: Tags,
    ) -> Self {
        let about = About { name: name.into(), help: help.into(), tags };
        Self { inner: Arc::new(Tagged { about, names, counters: RwLock::default() }) }
    }

    /// One more of these.
    pub fn increment(&self, values: [&str; N]) {
        self.add(values, 1);
    }

    /// So many more of these.
    pub fn add(&self, values: [&str; N], count: u64) {
        let key = key(&values);
        if let Some(counter) = self.read().get(key.as_ref()) {
            counter.add(count);
            return;
        }
        self.with(values).add(count);
    }

    /// The counter of these values. Where they are known beforehand, keeping it saves the search.
    pub fn with(&self, values: [&str; N]) -> Counter {
        let inner = &self.inner;
        let mut counters = inner.counters.write().unwrap_or_else(PoisonError::into_inner);
        let known = counters.contains_key(key(&values).as_ref());
        let values = if known || counters.len() < MAX_VALUES { values } else { [OTHER; N] };
        let key = key(&values).into_owned();
        let counter = counters.entry(key).or_insert_with(|| {
            let About { name, help, tags } = inner.about.clone();
            let pairs = inner.names.iter().zip(values);
            let own = pairs
                .fold(Tags::none(), |tags, (name, value)| tags.with(*name, Some(value.to_owned())));
            Counter::new(name, help, tags.around(own))
        });
        counter.clone()
    }

    /// How many there have been of these.
    pub fn get(&self, values: [&str; N]) -> u64 {
        self.read().get(key(&values).as_ref()).map_or(0, Counter::get)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, Counter>> {
        self.inner.counters.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One text for several; lengths in front, so that no two combinations have the same.
fn key<'a, const N: usize>(values: &[&'a str; N]) -> Cow<'a, str> {
    match values.as_slice() {
        [value] => Cow::Borrowed(value),
        values => values.iter().map(|value| format!("{}:{value}", value.len())).collect(),
    }
}

impl<const N: usize> Metric for TaggedCounter<N> {
    fn collect(&self, into: &mut Vec<Series>) {
        let begin = into.len();
        self.read().values().for_each(|counter| counter.collect(into));
        // A map has no order, and readers like to compare.
        into[begin..].sort_by(|a, b| {
            let values = |series: &Series| -> Vec<String> {
                self.inner
                    .names
                    .iter()
                    .filter_map(|name| series.tags.get(name).map(str::to_owned))
                    .collect()
            };
            values(a).cmp(&values(b))
        });
    }
}

/// A function that is asked whenever somebody collects.
pub struct Callable<F> {
    about: About,
    kind: Kind,
    ask: F,
}

impl<F, V> Callable<F>
where
    F: Fn() -> V + Send + Sync,
    V: Into<Value>,
{
    /// `ask` is called from any thread and must not block.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
        kind: Kind,
        tags: Tags,
        ask: F,
    ) -> Self {
        Self { about: About { name: name.into(), help: help.into(), tags }, kind, ask }
    }
}

impl<F> fmt::Debug for Callable<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callable").field("about", &self.about).finish_non_exhaustive()
    }
}

impl<F, V> Metric for Callable<F>
where
    F: Fn() -> V + Send + Sync,
    V: Into<Value>,
{
    fn collect(&self, into: &mut Vec<Series>) {
        into.push(self.about.series(self.kind, (self.ask)().into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(metric: &impl Metric) -> Vec<(f64, Vec<String>)> {
        let mut all = Vec::new();
        metric.collect(&mut all);
        let values = |series: &Series| {
            series
                .tags
                .iter()
                .map(|(name, value)| format!("{name}={}", value.unwrap_or("-")))
                .collect()
        };
        all.iter().map(|series| (series.value.as_f64(), values(series))).collect()
    }

    #[test]
    fn gauges_and_counters_are_shared_by_their_clones() {
        let gauge = Gauge::new("depth", "", Tags::none());
        gauge.clone().set(2.5);
        gauge.add(-1.0);
        assert_eq!(collected(&gauge), [(1.5, vec![])]);
        let counter = Counter::new("jobs", "", Tags::none().with("q", Some("a".into())));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| counter.increment()));
            }
        });
        assert_eq!(collected(&counter), [(4000.0, vec!["q=a".to_owned()])]);
    }

    #[test]
    fn a_tagged_counter_tells_values_apart() {
        let errors = TaggedCounter::new("errors", "", ["address", "name"], Tags::none());
        errors.increment(["b", "x"]);
        errors.add(["a", "y"], 5);
        let kept = errors.with(["b", "x"]);
        kept.increment();
        errors.increment(["1:b", ""]); // no combination is taken for another
        errors.increment(["", "1:b"]);
        let found = collected(&errors);
        let tags =
            |address: &str, name: &str| vec![format!("address={address}"), format!("name={name}")];
        assert_eq!(
            found,
            [
                (1.0, tags("", "1:b")),
                (1.0, tags("1:b", "")),
                (5.0, tags("a", "y")),
                (2.0, tags("b", "x"))
            ]
        );
        assert_eq!((errors.get(["a", "y"]), errors.get(["a", "z"])), (5, 0));
    }

    #[test]
    fn a_tagged_counter_does_not_grow_for_ever() {
        let counter = TaggedCounter::new("rpc", "", ["subject"], Tags::none());
        for n in 0..MAX_VALUES + 50 {
            counter.increment([&format!("s{n}")]);
        }
        counter.increment(["s0"]);
        assert_eq!(collected(&counter).len(), MAX_VALUES + 1);
        assert_eq!((counter.get([OTHER]), counter.get(["s0"])), (50, 2));
    }

    #[test]
    fn a_callable_is_asked_at_each_collection() {
        let asked = AtomicU64::new(0);
        let callable = Callable::new("n", "", Kind::Gauge, Tags::none(), || {
            asked.fetch_add(1, Ordering::Relaxed) + 1
        });
        assert_eq!(collected(&callable), [(1.0, vec![])]);
        assert_eq!(collected(&callable), [(2.0, vec![])]);
    }
}
