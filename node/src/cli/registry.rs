//! Which registry the configuration means, opened for asking.

use std::sync::Arc;

use hilum_shared::registry::{Choice, Patience, Registry};
use hilum_shared::rpc::Endpoint;

use super::exit::CliError;
use super::session::Session;

/// Opens it. In a runtime.
///
/// # Errors
/// When the configuration cannot be read, or the node is asked and does not run.
pub(crate) async fn open(session: &Session) -> Result<Arc<dyn Registry>, CliError> {
    let choice = match session.config() {
        Ok(loaded) => {
            // Whoever looks for services of another registry must not take them for absent.
            let of_it = |path: &str| path.trim_end_matches(".class").ends_with("registry");
            let warnings = loaded.warnings.0.iter();
            for one in warnings.filter(|one| one.path.as_deref().is_some_and(of_it)) {
                session.out.warn(&one.message);
            }
            loaded.cluster.container.registry.clone()
        }
        // What runs can be found while its file is broken.
        Err(CliError::Config(_)) if session.node_pid()?.is_some() => Choice::Embedded,
        Err(error) => return Err(error),
    };
    let node = match choice {
        Choice::Embedded => Some(session.node()?.run_dir.endpoint("node.sock")),
        Choice::Static(_) | Choice::ZooKeeper(_) => None,
    };
    let endpoint = Endpoint::caller()
        .await
        .map_err(|error| CliError::failed(format!("cannot call: {error}")))?;
    let node = node.as_deref().map(|node| (node, None));
    let opened = choice.open(&endpoint, node, Patience::Command).await;
    opened.ok_or_else(|| CliError::failed("this program was built without that registry"))
}
