//! The registry of a process: the one that its configuration means, or one that is there already.

use std::path::Path;
use std::sync::Arc;

use hilum_shared::registry::{Choice, Registry};
use hilum_shared::rpc;
use hilum_shared::transport::endpoint::Endpoint;

use crate::contract::Contract;

/// Where others are found.
pub(super) enum Wanted {
    /// What the configuration says.
    Configured(Choice),
    /// One that is there already.
    This(Arc<dyn Registry>),
}

impl Wanted {
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
        choice.open(endpoint, node).await
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
