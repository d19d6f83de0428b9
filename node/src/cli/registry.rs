//! Which registry the configuration means, opened for asking.

use std::sync::Arc;

use hilum_shared::registry::{Embedded, Registry};
use hilum_shared::rpc::Endpoint;

use super::exit::CliError;
use super::session::Session;

/// Opens it. In a runtime.
///
/// # Errors
/// When the configuration cannot be read, or the node is asked and does not run.
pub(crate) async fn open(session: &Session) -> Result<Arc<dyn Registry>, CliError> {
    let node = session.node()?;
    let endpoint = Endpoint::caller()
        .await
        .map_err(|error| CliError::failed(format!("cannot call: {error}")))?;
    Ok(Arc::new(Embedded::new(endpoint, node.run_dir.endpoint("node.sock"), None)))
}
