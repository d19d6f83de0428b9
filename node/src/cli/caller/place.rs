//! What an ADDRESS means: see [`super`].

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hilum_shared::name::InstanceId;
use hilum_shared::registry::{Instance, Instances, NODE, RegistryError};
use hilum_shared::status::Snapshot;
use hilum_shared::transport::endpoint::Endpoint as Parsed;
use tokio::time::{Instant, timeout_at};

use super::super::exit::CliError;
use super::super::link::Node;
use super::super::time;
use super::Caller;
use super::failure::{self, unknown_service, unreachable};

/// How long the registry may take where nobody says: longer than it waits itself for one that is away, whose error says more.
pub(crate) const REGISTRY: Duration = Duration::from_secs(5);

/// What an ADDRESS means.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// As it was given.
    pub(crate) address: String,
    /// The instances that it may be.
    pub(crate) instances: Instances,
    /// Called by name, so that the choice among several follows their coming and going.
    by_name: bool,
}

impl Place {
    /// Endpoints.
    pub(crate) fn at(address: &str, endpoints: impl IntoIterator<Item = String>) -> Self {
        let instance = |endpoint: String| Instance { endpoint, ..Instance::default() };
        let instances = Arc::new(endpoints.into_iter().map(instance).collect());
        Self { address: address.to_owned(), instances, by_name: false }
    }

    /// The instances of a name.
    pub(crate) fn of(address: &str, instances: Instances) -> Self {
        Self { address: address.to_owned(), instances, by_name: true }
    }

    /// One of its instances alone.
    pub(crate) fn only(&self, instance: &Instance) -> Self {
        let instances = Arc::new(vec![instance.clone()]);
        Self { address: self.address.clone(), instances, by_name: false }
    }

    /// What the client is to be given: the name, or one of the endpoints.
    pub(super) fn target(&self) -> String {
        if self.by_name {
            return self.address.clone();
        }
        let any = random() % self.instances.len().max(1);
        self.instances.get(any).map(|one| one.dial().to_owned()).unwrap_or_default()
    }
}

impl Caller<'_> {
    /// What an ADDRESS means, found out within this time.
    ///
    /// # Errors
    /// A usage error that names what is near, or what there is; that the time is over.
    pub(crate) async fn place(&self, address: &str, within: Duration) -> Result<Place, CliError> {
        let until = Until { within, at: Instant::now() + within };
        if address.contains("://") {
            Parsed::parse(address).map_err(|error| {
                CliError::usage(error.to_string(), "an endpoint looks like `tcp://127.0.0.1:5600`")
            })?;
            return Ok(Place::at(address, [address.to_owned()]));
        }
        if address.is_empty() || address.starts_with(':') || address.ends_with(':') {
            return Err(CliError::usage(
                format!("`{address}` is no address"),
                "write a service, `NAME:ID` for one of its instances by the first digits of its id (`hilum discover NAME` shows them), \
                 an instance of the node (`NAME.1`), or an endpoint (`tcp://127.0.0.1:5600`)",
            ));
        }
        // The node and what it runs are called without a registry.
        if (address == NODE || InstanceId::parse(address).is_ok())
            && let Some(place) = self.kept_here(address)?
        {
            return Ok(place);
        }
        let mut asking = pin!(self.registered(address, until));
        let half = until.at - within / 2;
        let registered = match timeout_at(half, &mut asking).await {
            Ok(registered) => registered,
            // One that is silent holds up nobody who is reached without it.
            Err(_) => match self.kept_here(address) {
                Ok(Some(place)) => return Ok(place),
                _ => asking.await,
            },
        };
        match registered {
            Ok(Some(place)) => return Ok(place),
            Err(error @ CliError::Usage { .. }) => return Err(error),
            _ => {}
        }
        let status = self.node_status()?;
        let local = status.as_ref().map(callable).unwrap_or_default();
        if let Some(endpoints) = local.get(address) {
            return Ok(Place::at(address, endpoints.iter().cloned()));
        }
        registered?;
        if let Some((_, snapshot)) = &status
            && let Some(why) = failure::not_callable(address, snapshot)
        {
            return Err(why);
        }
        Err(self.unknown(address, local.into_keys(), until).await?)
    }

    /// What of the running node is called so.
    fn kept_here(&self, address: &str) -> Result<Option<Place>, CliError> {
        let mut local = self.of_the_node()?;
        Ok(local.remove(address).map(|endpoints| Place::at(address, endpoints)))
    }

    /// What the registry knows of a name, or of `name:id`.
    async fn registered(&self, address: &str, until: Until) -> Result<Option<Place>, CliError> {
        let registry = self.registry().await?;
        let found = asked(registry.lookup(address), until).await?.instances();
        if !found.is_empty() {
            return Ok(Some(Place::of(address, found)));
        }
        let Some((service, id)) = address.rsplit_once(':') else { return Ok(None) };
        let all = asked(registry.lookup(service), until).await?.instances();
        let is_meant = |one: &&Instance| one.id.starts_with(id) || one.identity.starts_with(id);
        let meant: Vec<&Instance> = all.iter().filter(is_meant).collect();
        // One process may offer several versions.
        let processes: BTreeSet<&str> = meant.iter().map(|one| one.endpoint.as_str()).collect();
        if processes.len() > 1 {
            let all: Vec<&str> = meant.iter().map(|one| one.identity.as_str()).collect();
            return Err(CliError::usage(
                format!("`{address}` may be each of {} instances", processes.len()),
                format!("write more of its identity: {}", all.join(", ")),
            ));
        }
        Ok(meant.first().map(|one| Place::of(address, Arc::clone(&all)).only(one)))
    }

    /// What the node says of itself, where one runs.
    pub(super) fn node_status(&self) -> Result<Option<(Node, Snapshot)>, CliError> {
        let runs = self.session.project().is_ok() && self.session.node_pid()?.is_some();
        if !runs {
            return Ok(None);
        }
        let node = self.session.node()?;
        let snapshot = self.session.status(&node)?;
        Ok(Some((node, snapshot)))
    }

    /// What a running node has that can be called.
    fn of_the_node(&self) -> Result<BTreeMap<String, Vec<String>>, CliError> {
        Ok(self.node_status()?.as_ref().map(callable).unwrap_or_default())
    }

    /// The services that a running node keeps, whether any instance is up or not; jobs are none.
    pub(crate) fn kept(&self) -> Result<Vec<String>, CliError> {
        let Some((_, snapshot)) = self.node_status()? else { return Ok(Vec::new()) };
        let services = snapshot.services.into_iter().filter(|service| !service.job);
        Ok(services.map(|service| service.name.to_string()).collect())
    }

    /// All that may be an ADDRESS, as far as it can be found out.
    pub(crate) async fn addresses(&self) -> BTreeSet<String> {
        let registered = self.discover().await.unwrap_or_default();
        let local = self.of_the_node().unwrap_or_default();
        registered.into_keys().chain(local.into_keys()).collect()
    }

    /// Why an ADDRESS means nothing.
    async fn unknown(
        &self,
        address: &str,
        local: impl Iterator<Item = String>,
        until: Until,
    ) -> Result<CliError, CliError> {
        let registered = asked(self.registry().await?.discover(), until).await?;
        let mut known: BTreeSet<String> = local.collect();
        known.extend(registered.into_keys());
        let known: Vec<String> = known.into_iter().collect();
        Ok(unknown_service(address, known, self.session))
    }

    /// Every service and its instances.
    pub(crate) async fn discover(&self) -> Result<BTreeMap<String, Instances>, CliError> {
        let until = Until { within: REGISTRY, at: Instant::now() + REGISTRY };
        asked(self.registry().await?.discover(), until).await
    }
}

/// What of a node can be called: itself, and instances that listen beside its own sockets.
fn callable((node, snapshot): &(Node, Snapshot)) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for instance in &snapshot.instances {
        let id = instance.instance.to_string();
        let socket = format!("{id}.sock");
        // One that was killed leaves its socket behind.
        if instance.pid.is_some() && node.run_dir.socket(&socket).exists() {
            let endpoint = node.run_dir.endpoint(&socket);
            found.entry(instance.service.to_string()).or_default().push(endpoint.clone());
            found.insert(id, vec![endpoint]);
        }
    }
    // Also where a service is called so.
    found.insert(NODE.to_owned(), vec![node.run_dir.endpoint("node.sock")]);
    found
}

/// When a question has to be answered, and how long that was from its beginning.
#[derive(Clone, Copy)]
struct Until {
    within: Duration,
    at: Instant,
}

/// The registry's answer.
async fn asked<T>(
    answer: impl Future<Output = Result<T, RegistryError>>,
    until: Until,
) -> Result<T, CliError> {
    match timeout_at(until.at, answer).await {
        Ok(answer) => answer.map_err(unreachable),
        Err(_) => Err(CliError::TimedOut {
            what: "an answer of the registry".to_owned(),
            after: time::seconds(until.within.as_secs_f64()),
        }),
    }
}

/// A number that nobody foresees.
fn random() -> usize {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0_u8) as usize
}
