//! What leaves by itself: lymph's publication, and a summary in the heartbeats.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hilum_shared::metrics::{Kind, Series};
use hilum_shared::transport::{
    Flow, Frames, Handler, Hub, Kind as SocketKind, OpenError, Port, Socket, SocketSpec,
};
use tokio::time::MissedTickBehavior;

use super::lymph::to_lymph;
use super::registry::Registry;
use crate::heart::unix_now;
use crate::worker::Worker;

/// Between two reports, as in lymph.
pub const PERIOD: Duration = Duration::from_secs(5);
/// The first frame of what is published.
const TOPIC: &[u8] = b"stats";
/// Reports that wait for a subscriber or for the ZeroMQ thread: five minutes of them. Older ones say nothing new.
const REPORTS: u32 = 60;
/// Figures of the summary: a heartbeat has room for 256, and the service's own come first.
const MOST: usize = 64;

/// Where a process publishes its metrics, in lymph's form: `["stats", {time, series}]`. Clones publish at the same
/// place, which is closed with the last of them.
#[derive(Clone)]
pub struct Publisher {
    socket: Socket,
    dropped: Arc<AtomicU64>,
    /// Only where it was started for this alone. After the socket, which must go first.
    own_hub: Option<Arc<Hub>>,
}

impl Publisher {
    /// Publishes at `endpoint` (`tcp://127.0.0.1:*` for a free port) by a thread that is there already.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn open(hub: &Hub, endpoint: &str) -> Result<Self, OpenError> {
        let spec = SocketSpec {
            high_water: REPORTS,
            queue: REPORTS as usize,
            ..SocketSpec::new(SocketKind::Xpub).bind(endpoint)
        };
        let dropped = Arc::new(AtomicU64::new(0));
        let socket = hub.open(spec, Ear { dropped: Arc::clone(&dropped) })?;
        Ok(Self { socket, dropped, own_hub: None })
    }

    /// The same with a ZeroMQ thread of its own.
    ///
    /// # Errors
    /// When the address cannot be bound, or there is no thread to be had.
    pub fn start(endpoint: &str) -> Result<Self, OpenError> {
        // The only error is that the system is out of threads or descriptors.
        let hub = Hub::start("hilum-metrics").map_err(|_| OpenError::Ended)?;
        let mut publisher = Self::open(&hub, endpoint)?;
        publisher.own_hub = Some(Arc::new(hub));
        Ok(publisher)
    }

    /// What subscribers connect to, with a real port: lymph's `monitoring_endpoint`.
    pub fn endpoint(&self) -> &str {
        self.socket.endpoint()
    }

    /// Publishes the figures as they are now. Never waits: see [`Publisher::dropped`].
    pub fn publish(&self, series: &[Series]) {
        let body = to_lymph(unix_now(), series);
        if self.socket.send(vec![TOPIC.to_vec(), body]).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reports that were not handed to ZeroMQ, or that a subscriber had no room for, ever. At least so many: after the
    /// first that a full queue did not take, ZeroMQ passes its subscriber over in silence until there is room again.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

struct Ear {
    dropped: Arc<AtomicU64>,
}

impl Handler for Ear {
    /// Subscriptions: ZeroMQ itself knows who gets what.
    fn message(&mut self, _frames: Frames, _port: &mut Port<'_>) -> Flow {
        Flow::Taken
    }

    fn missed(&mut self, _frames: &Frames) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Every five seconds, from now on: publishes the figures, and puts a [`summary`] into the worker's heartbeats. Never
/// ends; for a task of its own or a `select!`.
pub async fn report(registry: Registry, worker: Worker, publisher: Option<Publisher>) {
    if let Some(publisher) = publisher.clone() {
        let help = "Reports that did not reach a subscriber.";
        registry.callable("metrics.dropped", help, Kind::Counter, move || publisher.dropped());
    }
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let series = registry.series();
        if let Some(publisher) = &publisher {
            publisher.publish(&series);
        }
        for (name, value) in summary(&series) {
            worker.set_metric(name, value);
        }
    }
}

/// The figures that go into heartbeats, 64 at most in the order of the series: counters of one name added up over their tags, and gauges
/// that are alone under their name. Not those of the process (`rusage.*`, `proc.*`), which a node samples itself.
pub fn summary(series: &[Series]) -> Vec<(&str, f64)> {
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    let mut all: Vec<(&Series, f64, usize)> = Vec::new();
    for one in series {
        if one.name.starts_with("rusage.") || one.name.starts_with("proc.") {
            continue;
        }
        if let Some(&at) = known.get(one.name.as_ref()) {
            all[at].1 += one.value.as_f64();
            all[at].2 += 1;
        } else {
            known.insert(&one.name, all.len());
            all.push((one, one.value.as_f64(), 1));
        }
    }
    let told = all.into_iter().filter(|(one, _, count)| one.kind == Kind::Counter || *count == 1);
    told.map(|(one, value, _)| (one.name.as_ref(), value)).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_adds_up_counters_and_leaves_out_what_it_cannot_say() {
        let registry = Registry::default();
        registry.add(super::super::Process);
        let calls = registry.tagged_counter("rpc", "", ["subject"]);
        calls.add(["a"], 2);
        calls.add(["b"], 3);
        registry.gauge("depth", "").set(1.5);
        for pool in ["x", "y"] {
            let pools = Registry::new(super::super::Tags::none().with("pool", Some(pool.into())));
            pools.gauge("free", "");
            registry.add(pools);
        }
        let series = registry.series();
        assert_eq!(summary(&series), [("rpc", 5.0), ("depth", 1.5)]);
        for n in 0..100 {
            registry.counter(format!("c{n}"), "");
        }
        let series = registry.series();
        assert_eq!(summary(&series).len(), MOST);
    }
}
