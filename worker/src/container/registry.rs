//! Which registry a configuration means.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use hilum_shared::config::Diagnostics;
use hilum_shared::config::service::Section;
use hilum_shared::registry::{Embedded, Memory, Registry, StaticHosts};
use hilum_shared::rpc;
use hilum_shared::transport::endpoint::Endpoint;
use serde::Deserialize;

use crate::contract::Contract;

/// What `container.registry` says.
pub(super) enum Wanted {
    /// Nothing, or the node's: without a node only this process knows of itself.
    Default,
    /// A fixed list.
    Static(Hosts),
    /// ZooKeeper at these hosts.
    #[cfg(feature = "zookeeper")]
    ZooKeeper(String),
    /// One that is there already.
    This(Arc<dyn Registry>),
}

/// Services and their addresses.
type Hosts = BTreeMap<String, Vec<(String, Option<String>)>>;

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

impl Wanted {
    /// Reads `container.registry`, or lymph's older `registry`.
    pub(super) fn read(config: &Section) -> Result<Self, Diagnostics> {
        let section = match config.get("container").get("registry") {
            section if section.is_given() => section,
            _ => config.get("registry"),
        };
        let class = section.get("class");
        let name = class.text()?;
        let rest = section.without(&["class"]);
        match name.as_deref() {
            None | Some("embedded") => {
                let _: crate::NoConfig = rest.read()?;
                Ok(Self::Default)
            }
            Some(name) if name == "static" || name.starts_with("lymph.discovery.static:") => {
                let config: StaticConfig = rest.read()?;
                let hosts = config.hosts.into_iter().map(|(key, addresses)| {
                    let (service, version) = match key.split_once('@') {
                        Some((service, version)) => (service.to_owned(), Some(version.to_owned())),
                        None => (key, None),
                    };
                    let addresses = match addresses {
                        OneOrMore::One(address) => vec![address],
                        OneOrMore::More(addresses) => addresses,
                    };
                    (service, addresses, version)
                });
                let mut all = Hosts::new();
                for (service, addresses, version) in hosts {
                    // A variable that is not set leaves an empty text.
                    for address in addresses.into_iter().filter(|address| !address.is_empty()) {
                        if let Err(error) = Endpoint::parse(&address) {
                            return Err(section.get("hosts").error(error.to_string(), None));
                        }
                        all.entry(service.clone()).or_default().push((address, version.clone()));
                    }
                }
                Ok(Self::Static(all))
            }
            Some(name) if name == "zookeeper" || name.starts_with("lymph.discovery.zookeeper:") => {
                zookeeper(&class, zookeeper_hosts(config, &rest)?)
            }
            Some(other) => {
                let help = "known are `embedded` (the node's), `static` and `zookeeper`".to_owned();
                Err(class.error(format!("there is no registry `{other}`"), Some(help)))
            }
        }
    }

    /// The registry, reached by our own endpoint.
    pub(super) async fn open(
        self,
        contract: &Contract,
        endpoint: &rpc::Endpoint,
    ) -> Arc<dyn Registry> {
        match (self, &contract.node) {
            (Self::This(registry), _) => registry,
            (Self::Static(hosts), _) => Arc::new(StaticHosts::new(&hosts).await),
            #[cfg(feature = "zookeeper")]
            (Self::ZooKeeper(hosts), _) => Arc::new(hilum_shared::registry::ZooKeeper::new(&hosts)),
            (Self::Default, Some(node)) => {
                Arc::new(Embedded::new(endpoint.clone(), node.as_str(), contract.token.clone()))
            }
            (Self::Default, None) => Arc::new(Memory::new()),
        }
    }
}

/// `{class: zookeeper, hosts: …}`, or lymph's `zkclient`, which is a map with `hosts` or the name of one in `dependencies`.
fn zookeeper_hosts(config: &Section, registry: &Section) -> Result<String, Diagnostics> {
    let client = registry.get("zkclient");
    let hosts = if client.is_given() {
        match client.text() {
            Ok(Some(name)) => match name.strip_prefix("dep:") {
                Some(name) => config.get("dependencies").get(name).get("hosts"),
                None => {
                    return Err(client.error("expected a map with `hosts`, or `dep:NAME`", None));
                }
            },
            _ => client.get("hosts"),
        }
    } else {
        registry.get("hosts")
    };
    let help = "write `hosts: 'host:2181,host:2181/path'`".to_owned();
    hosts.text()?.ok_or_else(|| registry.error("`hosts` is missing", Some(help)))
}

#[cfg(feature = "zookeeper")]
#[expect(clippy::unnecessary_wraps, reason = "without the feature it fails")]
fn zookeeper(_: &Section, hosts: String) -> Result<Wanted, Diagnostics> {
    Ok(Wanted::ZooKeeper(hosts))
}

#[cfg(not(feature = "zookeeper"))]
fn zookeeper(class: &Section, _: String) -> Result<Wanted, Diagnostics> {
    let help = "add `features = [\"zookeeper\"]` to `hilum-worker` in its Cargo.toml".to_owned();
    Err(class.error("this binary was built without ZooKeeper", Some(help)))
}

/// Where a process under a node is reached from the same machine: beside the node's sockets, under the instance's name.
pub(super) fn local_address(contract: &Contract) -> Option<String> {
    let node = contract.node.as_deref()?.strip_prefix("ipc://")?;
    let path = Path::new(node).with_file_name(format!("{}.sock", contract.instance.as_ref()?));
    let address = format!("ipc://{}", path.display());
    // A path that is too long for a socket is none; the port is there.
    Endpoint::parse(&address).ok().map(|_| address)
}
