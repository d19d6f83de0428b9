//! The figures of the node and of everything that runs on it, made when somebody asks.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Runtime;

/// One figure, as every container answers them: `[name, value, tags]`.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Figure(String, f64, BTreeMap<&'static str, String>);

fn figure<const N: usize>(name: &str, value: f64, tags: [(&'static str, String); N]) -> Figure {
    Figure(name.to_owned(), value, tags.into())
}

impl Runtime {
    /// Counts of the node itself, what each instance costs (under the names of lymph's node), and what workers told with their
    /// heartbeats, tagged with who told it.
    pub(super) fn figures(&mut self) -> Vec<Figure> {
        let snapshot = self.snapshot();
        let control = &self.parts.control;
        let mut all = vec![
            figure("node.uptime", snapshot.node.uptime, []),
            figure("control.calls.open", control.open_calls() as f64, []),
            figure("control.calls.answered", control.answered_calls() as f64, []),
        ];
        for (reason, count) in snapshot.node.ignored {
            all.push(figure("messages.ignored", count as f64, [("reason", reason)]));
        }
        for instance in snapshot.instances {
            let id = &instance.instance;
            let tags = |kind| [(kind, id.service.to_string()), ("instance", id.to_string())];
            let costs = [
                ("node.process.memory.rss", instance.rss_bytes.map(|bytes| bytes as f64)),
                ("node.process.cpu", instance.cpu_percent),
                ("node.process.uptime", instance.uptime),
                ("node.process.restarts", Some(f64::from(instance.restarts))),
            ];
            for (name, value) in costs {
                all.extend(value.map(|value| figure(name, value, tags("service_type"))));
            }
            for (name, value) in self.parts.roster.metrics(id) {
                all.push(figure(&name, value, tags("service")));
            }
        }
        all
    }
}
