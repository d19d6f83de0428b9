//! All nodes of a registry, each asked what it runs.

use std::time::Duration;

use hilum_shared::registry::{Instance, NODE, hostname};
use hilum_shared::rpc::{CallOptions, Client, Error};
use hilum_shared::status::Snapshot;
use hilum_shared::wire::Value;
use tokio::task::JoinSet;

use super::caller::{Caller, Place};
use super::exit::CliError;
use super::session::Session;

/// How long each node may take; they are asked at once.
const PATIENCE: Duration = Duration::from_secs(3);

/// A node as it is registered.
pub(crate) struct Registered {
    /// `host:port`, for people.
    pub(crate) name: String,
    /// The entry; none of the node here where the registry is away.
    pub(crate) instance: Option<Instance>,
    /// What it says of itself.
    pub(crate) answer: Answer,
}

/// What a node says when it is asked what it runs.
pub(crate) enum Answer {
    /// What it runs.
    Runs(Box<Snapshot>),
    /// That it does not tell: a node of lymph, whose `node` has no methods.
    Other(String),
    /// Nothing.
    Silent(String),
}

/// Asks all of them.
///
/// # Errors
/// When the registry cannot be asked.
pub(crate) async fn ask(caller: &Caller<'_>) -> Result<Vec<Registered>, CliError> {
    let all = caller.discover().await?;
    let mut asked = JoinSet::new();
    for instance in all.get(NODE).iter().flat_map(|nodes| nodes.iter().cloned()) {
        let place = Place::at(NODE, [instance.dial().to_owned()]);
        let options = CallOptions { timeout: PATIENCE, ..CallOptions::default() };
        match caller.prepared(&place, options).await {
            Ok((client, options)) => {
                asked.spawn(async move {
                    let answer = status(&client, &options).await;
                    Registered { name: name(&instance), instance: Some(instance), answer }
                });
            }
            Err(error) => {
                let answer = Answer::Silent(error.to_string());
                let name = name(&instance);
                asked.spawn(async move { Registered { name, instance: Some(instance), answer } });
            }
        }
    }
    let mut nodes = asked.join_all().await;
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(nodes)
}

/// The node here, where one runs: all that can be shown without the registry.
pub(crate) fn here(session: &Session) -> Vec<Registered> {
    let snapshot = session.node().and_then(|node| session.status(&node));
    let here = snapshot.ok().map(|snapshot| Registered {
        name: hostname().to_owned(),
        instance: None,
        answer: Answer::Runs(Box::new(snapshot)),
    });
    here.into_iter().collect()
}

async fn status(client: &Client, options: &CallOptions) -> Answer {
    match client.request("node.status", &Value::Map(Vec::new()), options).await {
        Ok(reply) => match reply.message.unpack() {
            Ok(snapshot) => Answer::Runs(Box::new(snapshot)),
            Err(error) => Answer::Other(format!("says what we do not understand: {error}")),
        },
        Err(Error::Nack { .. }) => {
            Answer::Other("a node of lymph: it does not say what it runs".to_owned())
        }
        Err(error @ Error::Remote { .. }) => {
            Answer::Other(format!("does not say what it runs: {error}"))
        }
        Err(error) => Answer::Silent(format!("does not answer: {error}")),
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
