//! The keys of the file itself, and of its sections beside `instances`.

use super::Key;
use super::Type::{
    Address, Any, Bool, Int, Ip, ListOrNamed, Map, Named, OneOrMore, Path, Positive, Share, Size,
    Table, Text, Variable, Word,
};
use super::service::SERVICE;

/// Sections that belong to services: accepted, and passed over by the node.
pub(crate) const SERVICES_OWN: &[&str] = &[
    "registry",
    "event_system",
    "interfaces",
    "components",
    "dependencies",
    "plugins",
    "logging",
    "debug",
];

/// The keys of the file.
pub static TOP: &[Key] = &[
    Key::new("name", Text, "The project's name, as it is shown.")
        .or_as("the project folder's name"),
    Key::new("include", OneOrMore(&Path), "Files that are merged before this one, relative to it.")
        .or("[]"),
    Key::new(
        "env",
        Table(&Variable),
        "Environment variables of every instance; `null` removes one.",
    )
    .or("{}"),
    Key::new("env_file", OneOrMore(&Path), "Files of variables for every instance.").or("[]"),
    Key::new(
        "defaults",
        Map(SERVICE),
        "Merged under each of `instances`; the keys of `instances.<name>`.",
    )
    .or_as("none"),
    Key::new("instances", Named(SERVICE), "The services by name.").or("{}"),
    Key::new(
        "sockets",
        ListOrNamed(SOCKET),
        "Sockets that the node binds once and its instances share; a list, or a map of names.",
    )
    .or("[]"),
    Key::new("container", Map(CONTAINER), "How services find each other.").or("{}"),
    Key::new("logs", Map(LOGS), "The log store.").or("{}"),
    Key::new("node", Map(NODE), "The node itself.").or("{}"),
    Key::new("registry", Any, "lymph's older place of `container.registry`."),
    Key::new("event_system", Any, "Read by services, passed over by the node."),
    Key::new("interfaces", Any, "Read by services, passed over by the node."),
    Key::new("components", Any, "Read by services, passed over by the node."),
    Key::new("dependencies", Any, "Read by services, passed over by the node."),
    Key::new("plugins", Any, "Read by services, passed over by the node."),
    Key::new("logging", Any, "Read by services, passed over by the node."),
    Key::new("debug", Any, "Read by services, passed over by the node."),
];

/// One of `sockets`.
pub static SOCKET: &[Key] = &[
    Key::new("name", Text, "Its name in `LISTEN_FDNAMES`.")
        .or_as("its name in the map, else its port"),
    Key::new("host", Text, "The address.").or_as("`container.ip`"),
    Key::new("port", Int(1, 65535), "The port.").required(),
];

/// `container`.
pub static CONTAINER: &[Key] = &[
    Key::new("ip", Ip, "Where services listen. `0.0.0.0` is everywhere; others are then told the address that leads outside.").or("127.0.0.1"),
    Key::new("log_endpoint", Text, "Where all logs are published, such as `tcp://127.0.0.1:5600`.")
        .or_as("`pub.sock` in the run folder"),
    Key::new("registry", Any, "Who offers what: see below.").or_as("`{class: embedded}`"),
    Key::new("events", Any, "`{class: embedded}` (the node's broker), `{class: local}` (each process hears its own) or `{class: null}` (no events).")
        .or_as("`{class: embedded}`"),
    Key::new("class", Any, "Read by services, passed over by the node."),
    Key::new(
        "port",
        Int(0, 65535),
        "Where the node itself is called from other hosts, with `registry: {class: zookeeper}`; services do not take it from this file.",
    )
    .or_as("a free one"),
    Key::new("service_name", Any, "Read by services, passed over by the node."),
    Key::new("pool", Any, "Read by services, passed over by the node."),
    Key::new("pool_size", Any, "Read by services, passed over by the node."),
    Key::new("rpc", Any, "Read by services, passed over by the node."),
    Key::new("metrics", Any, "Read by services, passed over by the node."),
];

/// `logs`.
pub static LOGS: &[Key] = &[
    Key::new("dir", Path, "Its folder; a relative one is relative to the project folder.").or_as("`logs/` in the state folder"),
    Key::new("budget", Size, "How much all segments may take; at least two segments.").or("1GiB"),
    Key::new("keep_free", Share, "Share of the disk that stays free.").or("5%"),
    Key::new("segment", Size, "Size of a segment, from 64KiB to 1GiB; the default is at most an eighth of the budget. A segment ends after the write that passes it, which may bring 1 MiB.").or("64MiB"),
    Key::new("max_age", Positive, "Segments whose newest line is older go.").or_as("none"),
    Key::new("compress", Bool, "Compresses closed segments, as `zstd` does: about a tenth of the room; `logs` reads them as before, and so does `zstdgrep`.").or("false"),
    Key::new("overflow", Word(&["block", "drop"]), "What happens to a worker that outruns the disk: it waits, or its lines are dropped and counted.").or("block"),
];

/// `node`.
pub static NODE: &[Key] = &[
    Key::new("run_dir", Path, "The run folder.").or_as("computed from the config's path"),
    Key::new("heartbeat", Map(HEARTBEAT), "Heartbeats between the node and its workers.").or("{}"),
    Key::new(
        "start_parallel",
        Int(1, 10_000),
        "So many instances may be between start and ready at once.",
    )
    .or("64"),
    Key::new("stop_timeout", Positive, "For the stop of the whole cluster.").or("30s"),
    Key::new(
        "on_all_exited",
        Word(&["exit", "keep"]),
        "What the node does when everything has ended.",
    )
    .or_as("`exit` in the foreground, `keep` when detached"),
    Key::new("watch_config", Bool, "Whether a saved change of the configuration is applied.")
        .or("true"),
    Key::new(
        "stats_interval",
        Positive,
        "Time between two samples of statistics; taken only while somebody looks.",
    )
    .or("2s"),
    Key::new("web", Any, "The web interface.").refused(),
    Key::new(
        "metrics",
        Map(METRICS),
        "Figures of the node and of all its workers, as Prometheus reads them.",
    )
    .or_as("none"),
];

/// `node.metrics`.
pub static METRICS: &[Key] = &[Key::new(
    "listen",
    Address,
    "Where `GET /metrics` is answered, such as `127.0.0.1:9464`; whoever reaches it may read.",
)
.required()];

/// `node.heartbeat`.
pub static HEARTBEAT: &[Key] = &[
    Key::new("interval", Positive, "Time between two heartbeats.").or("1s"),
    Key::new("timeout", Positive, "The silence that is too long; more than `interval`.").or("5s"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_services_is_in_the_table() {
        for name in SERVICES_OWN {
            assert!(super::super::find(TOP, name).is_some(), "{name}");
        }
    }
}
