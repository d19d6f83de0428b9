//! Metrics: figures that a service counts, and who may read them.
//!
//! ```
//! use hilum_worker::metrics::{Process, Registry, Tags, to_prometheus};
//!
//! let registry = Registry::new(Tags::none().with("service", Some("shop".into())));
//! registry.add(Process); // memory, CPU time, descriptors
//! let orders = registry.tagged_counter("orders", "Orders that came in.", ["country"]);
//! let waiting = registry.gauge("orders.waiting", "Orders that wait.");
//!
//! orders.increment(["de"]);
//! waiting.set(3.0);
//! let text = to_prometheus(&registry.series());
//! assert!(text.contains(r#"orders_total{country="de",service="shop"} 1"#));
//! ```
//!
//! | who reads | how |
//! |---|---|
//! | a caller of `lymph.get_metrics` | a [`Series`] is serialised as `[name, value, tags]` |
//! | a subscriber, in lymph's form, every five seconds | [`Publisher`], [`report()`]; [`from_lymph`] reads it |
//! | the node, with the heartbeats | [`report()`] sets a [`summary`] by [`crate::Worker::set_metric`] |
//! | Prometheus | [`to_prometheus`]; with feature `http` the route `http::metrics_route` |
//!
//! Counting is one atomic operation ([`Counter`], [`Gauge`]), and for a [`TaggedCounter`] a look under a shared lock
//! before it. Everything else happens when somebody collects.

mod lymph;
mod metric;
mod process;
mod registry;
mod report;

pub use hilum_shared::metrics::{CONTENT_TYPE, Kind, Series, Tags, Value, to_prometheus};
pub use lymph::{Report, ReportError, from_lymph, to_lymph};
pub use metric::{Callable, Counter, Gauge, MAX_VALUES, Metric, OTHER, TaggedCounter};
pub use process::Process;
pub use registry::Registry;
pub use report::{PERIOD, Publisher, report, summary};
