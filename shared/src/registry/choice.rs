//! Which registry a configuration means: `container.registry`, or lymph's older `registry`.
//!
//! The node, its services and the command line read the same section, so that they meet in the same place.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::{Embedded, Patience, Registry, StaticHosts};
use crate::config::Diagnostics;
use crate::config::service::Section;
use crate::rpc;
use crate::transport::endpoint::Endpoint;

/// What `container.registry` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Nothing, or `embedded`: the node's own.
    #[default]
    Embedded,
    /// A fixed list.
    Static(Hosts),
    /// ZooKeeper at these hosts: `host:port,host:port`, with `/path` where it is not below `/lymph`.
    ZooKeeper(String),
}

/// Services, and their addresses with the version where one is given.
pub type Hosts = BTreeMap<String, Vec<(String, Option<String>)>>;

/// `{class: static, hosts: {echo: [tcp://…]}}`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct StaticConfig {
    hosts: BTreeMap<String, OneOrMore>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// `embedded` has no keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoKeys {}

/// How the paths of lymph's classes begin that mean the same as ours.
const LYMPHS_STATIC: &str = "lymph.discovery.static:";
const LYMPHS_ZOOKEEPER: &str = "lymph.discovery.zookeeper:";

/// ZooKeeper's own port, where none is given.
const ZOOKEEPER_PORT: u16 = 2181;

impl Choice {
    /// Reads the section from a whole configuration.
    ///
    /// # Errors
    /// With what is wrong in it.
    pub fn read(config: &Section) -> Result<Self, Diagnostics> {
        let section = Self::section(config);
        let class = Self::class(&section);
        let name = class.text()?;
        let rest = section.without(&["class"]);
        match name.as_deref() {
            None | Some("embedded") => {
                // A bare word says all.
                if section.get("class").is_given() || name.is_none() {
                    let NoKeys {} = rest.read()?;
                }
                Ok(Self::Embedded)
            }
            Some(name) if name == "static" || name.starts_with(LYMPHS_STATIC) => {
                let is_lymphs = name != "static";
                static_hosts(&section, &rest, is_lymphs).map(Self::Static)
            }
            Some(name) if name == "zookeeper" || name.starts_with(LYMPHS_ZOOKEEPER) => {
                if !cfg!(feature = "zookeeper") {
                    let help = "build it with the cargo feature `zookeeper` (of `hilum-worker` in a service's Cargo.toml)";
                    let message = "this binary was built without ZooKeeper";
                    return Err(class.error(message, Some(help.to_owned())));
                }
                zookeeper_hosts(config, &rest).map(Self::ZooKeeper)
            }
            Some(other) => {
                let help = "known are `embedded` (the node's), `static` and `zookeeper`".to_owned();
                Err(class.error(format!("there is no registry `{other}`"), Some(help)))
            }
        }
    }

    /// Whether this is the path of a class that only Python has: lymph's coordinator, or somebody's own.
    pub(crate) fn is_foreign(class: &str) -> bool {
        class.contains(':')
            && ![LYMPHS_STATIC, LYMPHS_ZOOKEEPER].iter().any(|ours| class.starts_with(ours))
    }

    /// Where it is read from: `container.registry`, else `registry`.
    pub(crate) fn section(config: &Section) -> Section {
        match config.get("container").get("registry") {
            section if section.is_given() => section,
            _ => config.get("registry"),
        }
    }

    /// `{class: NAME}`, or NAME alone.
    pub(crate) fn class(section: &Section) -> Section {
        if section.is_given() && !section.is_map() { section.clone() } else { section.get("class") }
    }

    /// The registry, reached by our own endpoint. `node` is the control endpoint of a node and the token of our run where we have one;
    /// `None` when it is the node's and there is no node.
    ///
    /// To be called in a tokio runtime.
    pub async fn open(
        &self,
        endpoint: &rpc::Endpoint,
        node: Option<(&str, Option<String>)>,
        patience: Patience,
    ) -> Option<Arc<dyn Registry>> {
        Some(match self {
            Self::Embedded => {
                let (node, token) = node?;
                Arc::new(Embedded::new(endpoint.clone(), node, token))
            }
            Self::Static(hosts) => Arc::new(StaticHosts::new(hosts).await),
            #[cfg(feature = "zookeeper")]
            Self::ZooKeeper(hosts) => Arc::new(super::ZooKeeper::new(hosts, patience)),
            #[cfg(not(feature = "zookeeper"))]
            Self::ZooKeeper(_) => {
                let _ = patience; // refused when the configuration was read
                return None;
            }
        })
    }
}

fn static_hosts(section: &Section, rest: &Section, is_lymphs: bool) -> Result<Hosts, Diagnostics> {
    // A bare word has no hosts.
    let config: StaticConfig =
        if section.is_map() { rest.read()? } else { StaticConfig::default() };
    // lymph's is filled in the process, by its tests.
    if config.hosts.is_empty() && !is_lymphs {
        let help = "write `{class: static, hosts: {echo: 'tcp://127.0.0.1:5600'}}`: each service and its addresses";
        let message = "the list of a `static` registry is empty: `hosts` is missing";
        let hosts = section.get("hosts");
        let place = if hosts.is_given() { &hosts } else { section };
        return Err(place.error(message, Some(help.to_owned())));
    }
    let mut all = Hosts::new();
    for (key, addresses) in config.hosts {
        let (service, version) = match key.split_once('@') {
            Some((service, version)) => (service.to_owned(), Some(version.to_owned())),
            None => (key, None),
        };
        let addresses = match addresses {
            OneOrMore::One(address) => vec![address],
            OneOrMore::More(addresses) => addresses,
        };
        // A variable that is not set leaves an empty text, one that only services have its name.
        let known = |address: &String| !address.is_empty() && !address.contains("$(");
        for address in addresses.into_iter().filter(known) {
            if let Err(error) = Endpoint::parse(&address) {
                return Err(section.get("hosts").error(error.to_string(), None));
            }
            all.entry(service.clone()).or_default().push((address, version.clone()));
        }
    }
    Ok(all)
}

/// `{class: zookeeper, hosts: …}`, or lymph's `zkclient`, which is a map with `hosts` or the name of one in `dependencies`.
fn zookeeper_hosts(config: &Section, registry: &Section) -> Result<String, Diagnostics> {
    let client = registry.get("zkclient");
    let hosts = if !client.is_given() {
        registry.get("hosts")
    } else if client.is_map() {
        client.get("hosts")
    } else {
        let name = client.text()?.unwrap_or_default();
        let Some(name) = name.strip_prefix("dep:") else {
            return Err(client.error("expected a map with `hosts`, or `dep:NAME`", None));
        };
        let dependency = config.get("dependencies").get(name);
        if !dependency.is_given() {
            return Err(client.error(format!("there is no `dependencies.{name}`"), None));
        }
        dependency.get("hosts")
    };
    let help = || Some("write `hosts: 'host:2181,host:2181/path'`".to_owned());
    let Some(text) = hosts.text()?.filter(|text| !text.is_empty()) else {
        return Err(registry.error("`hosts` is missing", help()));
    };
    complete(&text).ok_or_else(|| {
        hosts.error(format!("`{text}` are no hosts of ZooKeeper, `host:port` each"), help())
    })
}

/// The hosts, each with its port; `None` when they are none.
fn complete(text: &str) -> Option<String> {
    let (hosts, path) = text.find('/').map_or((text, ""), |at| text.split_at(at));
    let mut out = Vec::new();
    for host in hosts.split(',').map(str::trim) {
        // The colons of an IPv6 address are in brackets.
        let colon = host.rfind(':').filter(|at| !host[*at..].contains(']'));
        let (name, port) = match colon {
            Some(at) => (&host[..at], host[at + 1..].parse().ok()?),
            None => (host, ZOOKEEPER_PORT),
        };
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        if name.is_empty()
            || name.contains(char::is_whitespace)
            || (bare.is_none() && name.contains(':'))
        {
            return None;
        }
        out.push(format!("{name}:{port}"));
    }
    Some(format!("{}{path}", out.join(",")))
}

#[cfg(test)]
mod tests {
    use super::complete;

    #[test]
    fn hosts_of_zookeeper_have_ports() {
        assert_eq!(complete("a"), Some("a:2181".to_owned()));
        assert_eq!(complete("a:1,b, c:3/x/y"), Some("a:1,b:2181,c:3/x/y".to_owned()));
        assert_eq!(complete("[::1]:7"), Some("[::1]:7".to_owned()));
        for wrong in ["", ",", "a:", "a:x", "a b", "a:70000", "::1"] {
            assert_eq!(complete(wrong), None, "{wrong}");
        }
    }
}
