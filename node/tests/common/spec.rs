//! A service as plain as can be, and the context of a node that is not there.

use std::time::Duration;

use hilum_node::driver::sockets::Sockets;
use hilum_node::launch::context::{Context, Endpoints, Ports};
use hilum_shared::config::spec::ServiceSpec;
use hilum_shared::config::template::Template;

#[path = "../../src/core/fixtures.rs"]
mod fixtures;

const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn service(name: &str, command: &[&str]) -> ServiceSpec {
    let mut spec = fixtures::service(name, 1);
    spec.launch.command = command.iter().map(|text| Template::new(*text)).collect();
    spec
}

pub(crate) fn context() -> Context {
    Context {
        project: "shop".into(),
        project_dir: "/tmp".into(),
        container_ip: "127.0.0.1".parse().unwrap(),
        endpoints: Endpoints {
            node: "ipc:///run/node.sock".into(),
            shutdown: "ipc:///run/shutdown.sock".into(),
            heartbeat: "ipc:///run/heartbeat.sock".into(),
            log: "ipc:///run/log.sock".into(),
            events: "ipc:///run/events.sock".into(),
            log_endpoint: "ipc:///run/pub.sock".into(),
            notify: "/run/notify.sock".into(),
        },
        lock: "/srv/.hilum/hilum.yml/lock".into(),
        config: "/srv/hilum.yml".into(),
        cluster_mark: "0123456789ab.n".into(),
        heartbeat_interval: SECOND,
        heartbeat_timeout: 5 * SECOND,
        inherited: [("PATH", "/usr/bin:/bin"), ("LANG", "C"), ("HOME", "/node")]
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
        sockets: Sockets::default(),
        ports: Ports::new(),
        nofile: None,
    }
}
