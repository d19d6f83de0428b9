//! The figures of the node and of everything that runs on it, made when somebody asks: by `lymph.get_metrics`, or by HTTP.

use std::borrow::Cow;

use hilum_shared::metrics::{Kind, Series, Tags, Value, process, to_prometheus};
use hilum_shared::status::{InstanceStatus, State};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::{Aside, Runtime};
use crate::channels::scrape;

/// One figure of the node's own.
fn figure(
    name: impl Into<Cow<'static, str>>,
    value: impl Into<Value>,
    kind: Kind,
    help: &'static str,
    tags: Tags,
) -> Series {
    Series { name: name.into(), value: value.into(), tags, kind, help: help.into() }
}

impl Runtime {
    /// The node's process and its counts, what each instance costs (under the names of lymph's node), and what workers told with
    /// their heartbeats, tagged with who told it.
    pub(super) fn figures(&mut self) -> Vec<Series> {
        use Kind::{Counter, Gauge};
        let snapshot = self.snapshot();
        let (control, log) = (&self.parts.control, self.parts.log.stats());
        let one = |name: &'static str, value: Value, kind, help| {
            figure(name, value, kind, help, Tags::none())
        };
        let mut all = vec![
            one(
                "node.uptime",
                snapshot.node.uptime.into(),
                Gauge,
                "Seconds since the node started.",
            ),
            one(
                "control.calls.open",
                control.open_calls().into(),
                Gauge,
                "Calls not answered yet.",
            ),
            one(
                "control.calls.answered",
                control.answered_calls().into(),
                Counter,
                "Calls answered.",
            ),
            one("log.records", log.records.into(), Counter, "Lines and records taken."),
            one("log.dropped", log.dropped.into(), Counter, "Lines that the timeline misses."),
            one(
                "log.missed",
                snapshot.node.missed_by.values().sum::<u64>().into(),
                Counter,
                "Lines that the timeline has and a copy of it misses.",
            ),
            one("log.store_bytes", log.store_bytes.into(), Gauge, "Bytes of the log store."),
        ];
        process(&mut all);
        for (reason, count) in snapshot.node.ignored {
            let tags = Tags::none().with("reason", Some(reason));
            let help = "Messages on the node's sockets that were not for it.";
            all.push(figure("messages.ignored", count, Counter, help, tags));
        }
        for service in &snapshot.services {
            let tags = Tags::none().with("service_type", Some(service.name.to_string()));
            let count = u64::from(service.count);
            all.push(figure(
                "node.service.wanted",
                count,
                Gauge,
                "Processes that are wanted.",
                tags,
            ));
        }
        for instance in &snapshot.instances {
            costs(instance, &mut all);
            let tags = tags("service", instance);
            for (name, value) in self.parts.roster.metrics(&instance.instance) {
                all.push(figure(name, value, Kind::Unknown, "", tags.clone()));
            }
        }
        all
    }

    /// Answers Prometheus from now on.
    pub(super) fn answer_prometheus(&mut self) {
        let Some(listener) = self.parts.metrics.take() else { return };
        let (listener, at) = match (listener.local_addr(), TcpListener::from_std(listener)) {
            (Ok(at), Ok(listener)) => (listener, at),
            (Err(error), _) | (_, Err(error)) => {
                return tracing::error!(%error, "metrics are not served");
            }
        };
        self.metrics = Some(format!("http://{at}{}", scrape::PATH));
        let aside = self.aside.0.clone();
        let ask = move || {
            let (answer, text) = oneshot::channel();
            let asked = aside.send(Aside::Scrape(answer)); // the loop may be gone
            async move { if asked.is_ok() { text.await.ok() } else { None } }
        };
        tokio::task::spawn_local(scrape::serve(listener, ask));
    }

    /// The text for Prometheus.
    pub(super) fn scraped(&mut self, answer: oneshot::Sender<String>) {
        let _ = answer.send(to_prometheus(&self.figures())); // who asked may have left
    }
}

/// Whose figure it is.
fn tags(kind: &'static str, instance: &InstanceStatus) -> Tags {
    Tags::none()
        .with(kind, Some(instance.service.to_string()))
        .with("instance", Some(instance.instance.to_string()))
}

/// What an instance costs, and how it is.
fn costs(instance: &InstanceStatus, all: &mut Vec<Series>) {
    use Kind::{Counter, Gauge};
    let (restarts, running) = (u64::from(instance.restarts), instance.state == State::Running);
    let costs: [(&'static str, Option<Value>, Kind, &'static str); 6] = [
        (
            "node.process.memory.rss",
            instance.rss_bytes.map(Value::from),
            Gauge,
            "Resident memory, in bytes.",
        ),
        (
            "node.process.cpu",
            instance.cpu_percent.map(Value::from),
            Gauge,
            "Percent of one processor.",
        ),
        (
            "node.process.uptime",
            instance.uptime.map(Value::from),
            Gauge,
            "Seconds since it started.",
        ),
        ("node.process.restarts", Some(restarts.into()), Counter, "Restarts by the node."),
        ("node.process.running", Some(u64::from(running).into()), Gauge, "1 while it runs."),
        (
            "node.process.ready",
            Some(u64::from(instance.ready).into()),
            Gauge,
            "1 while it is ready.",
        ),
    ];
    for (name, value, kind, help) in costs {
        let tags = tags("service_type", instance);
        all.extend(value.map(|value| figure(name, value, kind, help, tags)));
    }
}
