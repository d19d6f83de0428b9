//! What all starts of a node's life have in common.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use hilum_shared::config::template::Lookup;
use hilum_shared::name::InstanceId;

use crate::driver::sockets::Sockets;

/// What a node gives to every instance.
#[derive(Clone, Debug)]
pub struct Context {
    /// The project's name.
    pub project: String,
    /// The project folder: where instances run.
    pub project_dir: PathBuf,
    /// `container.ip`.
    pub container_ip: IpAddr,
    /// The node's sockets.
    pub endpoints: Endpoints,
    /// The lock's path.
    pub lock: PathBuf,
    /// The first config, absolute.
    pub config: PathBuf,
    /// `<id>.<nonce>`.
    pub cluster_mark: String,
    /// As in `node.heartbeat`.
    pub heartbeat_interval: Duration,
    /// As in `node.heartbeat`.
    pub heartbeat_timeout: Duration,
    /// The node's own environment without what is meant for the node: see [`inheritable`].
    pub inherited: BTreeMap<OsString, OsString>,
    /// The shared sockets.
    pub sockets: Sockets,
    /// The ports of all instances.
    pub ports: Ports,
    /// The node's original limit of open files (soft, hard), where it has raised its own.
    pub nofile: Option<(u64, u64)>,
}

/// The port numbers of all instances, by port name.
pub type Ports = BTreeMap<InstanceId, BTreeMap<String, u16>>;

/// Where the node listens, as instances are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Control.
    pub node: String,
    /// Orders.
    pub shutdown: String,
    /// Life signs.
    pub heartbeat: String,
    /// Structured records.
    pub log: String,
    /// Where all lines are published.
    pub log_endpoint: String,
    /// The event broker.
    pub events: String,
    /// The path of the notify socket.
    pub notify: PathBuf,
}

/// Takes out of an environment what was meant for the node alone: `NOTIFY_SOCKET`, `WATCHDOG_*`, `LISTEN_*`, `HILUM_*`.
pub fn inheritable(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> BTreeMap<OsString, OsString> {
    let own = |name: &OsStr| {
        let name = name.as_encoded_bytes();
        name == b"NOTIFY_SOCKET"
            || [b"WATCHDOG_".as_slice(), b"LISTEN_", b"HILUM_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
    };
    variables.into_iter().filter(|(name, _)| !own(name)).collect()
}

/// What `$(…)` stands for in one instance.
pub struct References<'a> {
    /// The instance.
    pub instance: &'a InstanceId,
    /// All ports.
    pub ports: &'a Ports,
}

impl Lookup for References<'_> {
    fn lookup(&self, reference: &str) -> Option<Cow<'_, str>> {
        match reference {
            "instance.index" => return Some(self.instance.index.to_string().into()),
            "instance.id" | "instance.name" => return Some(self.instance.to_string().into()),
            "service.name" => return Some(self.instance.service.as_str().into()),
            _ => {}
        }
        let rest = reference.strip_prefix("port.")?;
        let port = match rest.rsplit_once('.') {
            None => self.ports.get(self.instance)?.get(rest)?,
            Some((instance, name)) => {
                let instance = InstanceId::parse(instance).ok()?;
                self.ports.get(&instance)?.get(name)?
            }
        };
        Some(port.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_name_the_instance_and_anybodys_ports() {
        let (one, two) =
            (InstanceId::parse("web.1").unwrap(), InstanceId::parse("db-x.2").unwrap());
        let ports: Ports = [
            (one.clone(), [("http".to_owned(), 8080)].into()),
            (two, [("sql".to_owned(), 5433)].into()),
        ]
        .into();
        let references = References { instance: &one, ports: &ports };
        let lookup = |text| references.lookup(text).map(Cow::into_owned);
        assert_eq!(lookup("instance.index").as_deref(), Some("1"));
        assert_eq!(lookup("instance.id").as_deref(), Some("web.1"));
        assert_eq!(lookup("service.name").as_deref(), Some("web"));
        assert_eq!(lookup("port.http").as_deref(), Some("8080"));
        assert_eq!(lookup("port.db-x.2.sql").as_deref(), Some("5433"));
        assert_eq!(lookup("port.sql"), None);
        assert_eq!(lookup("port.db-x.3.sql"), None);
        assert_eq!(lookup("env.X"), None);
    }

    #[test]
    fn what_is_meant_for_the_node_is_not_handed_on() {
        let names =
            ["PATH", "NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "HILUM_TOKEN", "LISTENER"];
        let kept = inheritable(names.map(|name| (name.into(), "x".into())));
        let kept: Vec<&OsStr> = kept.keys().map(OsString::as_os_str).collect();
        assert_eq!(kept, ["LISTENER", "PATH"]);
    }
}
