//! All nodes of a registry, each asked what it runs.

use std::time::Duration;

use hilum_shared::registry::{Choice, Instance};
use hilum_shared::rpc::{Endpoint, Outgoing};
use hilum_shared::status::Snapshot;
use hilum_shared::wire::message::{Kind, NIL};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::exit::CliError;

/// How long the registry may take.
const REGISTRY: Duration = Duration::from_secs(5);
/// How long each node may take; they are asked at once.
const NODE: Duration = Duration::from_secs(3);

/// A node as it is registered.
pub(crate) struct Registered {
    /// `host:port`, for people.
    pub(crate) name: String,
    /// The entry.
    pub(crate) instance: Instance,
    /// What it says, or why it says nothing.
    pub(crate) status: Result<Snapshot, String>,
}

/// Asks all of them.
///
/// # Errors
/// When the registry cannot be asked.
pub(crate) fn ask(choice: &Choice) -> Result<Vec<Registered>, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(error.to_string()))?;
    runtime.block_on(async {
        let caller = Endpoint::caller().await.map_err(|error| failed(error.to_string()))?;
        let registry = choice.open(&caller, None).await;
        let registry = registry.ok_or_else(|| failed("it is the node's own".to_owned()))?;
        let all = match timeout(REGISTRY, registry.discover()).await {
            Ok(found) => found.map_err(|error| failed(error.to_string()))?,
            Err(_) => return Err(failed(place(choice))),
        };
        let mut asked = JoinSet::new();
        for instance in all.get("node").iter().flat_map(|nodes| nodes.iter()) {
            let (caller, instance) = (caller.clone(), instance.clone());
            asked.spawn(async move {
                let status = status(&caller, &instance).await;
                Registered { name: name(&instance), instance, status }
            });
        }
        let mut nodes = asked.join_all().await;
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(nodes)
    })
}

async fn status(caller: &Endpoint, instance: &Instance) -> Result<Snapshot, String> {
    let outgoing = Outgoing { timeout: NODE, ..Outgoing::new("node.status", NIL.to_vec()) };
    let answer = caller.request(instance.dial(), outgoing).await;
    let answer = answer.map_err(|error| format!("does not answer: {error}"))?;
    match answer.kind {
        Kind::Reply => answer.unpack().map_err(|error| format!("cannot be understood: {error}")),
        _ => Err("does not say what it runs: it is no node of hilum".to_owned()),
    }
}

/// `host:port`: several nodes may be on one host.
fn name(instance: &Instance) -> String {
    let address = instance.endpoint.strip_prefix("tcp://").unwrap_or(&instance.endpoint);
    match (&instance.hostname, address.rsplit_once(':')) {
        (Some(host), Some((_, port))) if !host.is_empty() => format!("{host}:{port}"),
        _ => address.to_owned(),
    }
}

fn place(choice: &Choice) -> String {
    match choice {
        Choice::ZooKeeper(hosts) => format!("zookeeper at {hosts} does not answer"),
        Choice::Embedded | Choice::Static(_) => "it does not answer".to_owned(),
    }
}

fn failed(reason: String) -> CliError {
    CliError::Failed { message: format!("the registry cannot be asked: {reason}"), help: None }
}
