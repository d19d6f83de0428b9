//! The registry of a process: the one that its configuration means, or one that is there already.

use std::path::Path;
use std::sync::Arc;

use hilum_shared::registry::{Choice, Patience, Registry};
use hilum_shared::rpc;
use hilum_shared::transport::endpoint::Endpoint;

use super::Running;
use crate::contract::Contract;

/// Where others are found.
pub(super) enum Wanted {
    /// What the configuration says.
    Configured(Choice),
    /// One that is there already.
    This(Arc<dyn Registry>),
}

/// Where a process is registered, for people.
pub(super) enum Told {
    /// Nowhere, as it was told.
    Isolated,
    /// Nowhere: the registry would be a node's, and none is known.
    NoNode,
    /// It cannot enter itself: the registry is a fixed list.
    Static,
    /// There.
    At(String),
}

impl Told {
    /// Where it is, after a verb.
    pub(super) fn place(&self) -> &str {
        match self {
            Self::At(place) => place,
            Self::Static => "in a fixed list",
            Self::Isolated | Self::NoNode => "anywhere",
        }
    }

    /// Says it once at the start, with the address; what a node has started is found by the node's own words.
    pub(super) fn log(&self, running: &Running) {
        let address = running.address();
        match self {
            Self::At(place) if running.is_kept() => {
                tracing::debug!("registered {place}, called at {address}");
            }
            Self::At(place) => {
                let names = running.names().join(", ");
                tracing::info!("registered {place} as {names}, called at {address}");
            }
            Self::Isolated => {
                tracing::info!(
                    "isolated, and registered nowhere: it is called at {address} by who knows that address"
                );
            }
            Self::NoNode => tracing::info!(
                "no node is above this process, so that it is registered nowhere: it is called at {address} by who knows that address. \
                 With the node's `HILUM_NODE` in its environment it is registered there; `hilum env SERVICE` shows that"
            ),
            Self::Static => tracing::info!(
                "called at {address}; its registry is a fixed list, so that others find it by `container.registry.hosts`"
            ),
        }
    }
}

impl Wanted {
    /// Where a process will be registered.
    pub(super) fn told(&self, contract: &Contract) -> Told {
        match (self, &contract.node) {
            (Self::This(_), _) => Told::At("at the program's own registry".to_owned()),
            (Self::Configured(Choice::Static(_)), _) => Told::Static,
            (Self::Configured(Choice::ZooKeeper(hosts)), _) => {
                Told::At(format!("in zookeeper at {hosts}"))
            }
            (Self::Configured(Choice::Embedded), Some(node)) => {
                Told::At(format!("at the node, {node},"))
            }
            (Self::Configured(Choice::Embedded), None) => Told::NoNode,
        }
    }

    /// Whether it is the node's: only who is on this machine finds what is there.
    pub(super) fn is_the_nodes(&self) -> bool {
        matches!(self, Self::Configured(Choice::Embedded))
    }

    /// The registry, reached by our own endpoint; `None` where it is the node's and there is no node.
    pub(super) async fn open(
        self,
        contract: &Contract,
        endpoint: &rpc::Endpoint,
    ) -> Option<Arc<dyn Registry>> {
        let choice = match self {
            Self::This(registry) => return Some(registry),
            Self::Configured(choice) => choice,
        };
        let node = contract.node.as_deref().map(|node| (node, contract.token.clone()));
        choice.open(endpoint, node, Patience::Service).await
    }
}

/// Where a process under a node is reached from the same machine: beside the node's sockets, under the instance's name.
pub(super) fn local_address(contract: &Contract) -> Option<String> {
    let node = contract.node.as_deref()?.strip_prefix("ipc://")?;
    let path = Path::new(node).with_file_name(format!("{}.sock", contract.instance.as_ref()?));
    let address = format!("ipc://{}", path.display());
    // A path that is too long for a socket is none; the port is there.
    Endpoint::parse(&address).ok().map(|_| address)
}
