//! Who calls services from the command line: finds out what an ADDRESS means, calls it, and explains what went wrong.
//!
//! An ADDRESS is, in this order: an endpoint (`tcp://…`, `ipc://…`); a service of the registry; an instance of it as
//! `echo:ID`, by the first digits of its id or identity; `node`, the running node; a service or instance of the running node.
//! Nothing is asked before a name has to be found: calls of endpoints need neither a node nor a configuration.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hilum_shared::registry::{Instance, Instances, Memory, Registry, RegistryError};
use hilum_shared::rpc::{CallOptions, Client, Config, Endpoint, Error, Incoming, Reply, Sockets};
use hilum_shared::status::Snapshot;
use hilum_shared::transport::endpoint::Endpoint as Parsed;
use hilum_shared::transport::reach;
use hilum_shared::wire::Value;
use serde::Deserialize;
use tokio::sync::OnceCell;

use self::failure::unreachable;
pub(crate) use self::failure::{CallFailed, unknown_service};
use super::exit::CliError;
use super::link::Node;
use super::session::Session;

mod failure;

/// How long a question of our own may take, beside the call that the user wanted.
const ASIDE: Duration = Duration::from_secs(1);
/// How long the registry may take; one that is away would be waited for without end.
const REGISTRY: Duration = Duration::from_secs(5);
/// The name under which a node is called.
pub(crate) const NODE: &str = "node";

/// The words about our own side of calls.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct CallerArgs {
    /// Take the answers of lymph's services at this address of ours [default: one that leads to them]
    #[arg(long, value_name = "IP")]
    ip: Option<IpAddr>,
    /// Take them at the address that leads outside
    #[arg(short, long, conflicts_with = "ip")]
    guess_external_ip: bool,
}

impl CallerArgs {
    /// In a shell all calls have one address of ours.
    ///
    /// # Errors
    /// When a line of it names another.
    pub(crate) fn of_the_shell(&self) -> Result<(), CliError> {
        if self.ip.is_none() && !self.guess_external_ip {
            return Ok(());
        }
        Err(CliError::usage(
            "answers to all lines of a shell are taken at one address",
            "`hilum shell --ip IP`, or `-g`, says which",
        ))
    }
}

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
    fn target(&self) -> String {
        if self.by_name {
            return self.address.clone();
        }
        let any = random() % self.instances.len().max(1);
        self.instances.get(any).map(|one| one.dial().to_owned()).unwrap_or_default()
    }
}

/// A method, as `lymph.inspect` tells it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Method {
    /// `interface.method`.
    pub(crate) name: String,
    /// Of the interface; lymph writes `None` where it has none.
    #[serde(default)]
    version: Option<String>,
    /// The names of its parameters.
    #[serde(default)]
    pub(crate) params: Vec<String>,
    /// The errors that it answers as such; only services of ours say it.
    #[serde(default)]
    pub(crate) raises: Vec<String>,
    /// What it does.
    #[serde(default)]
    pub(crate) help: String,
}

impl Method {
    /// The version of its interface.
    pub(crate) fn version(&self) -> Option<&str> {
        self.version.as_deref().filter(|version| *version != "None")
    }

    /// `upper(text)`.
    pub(crate) fn signature(&self) -> String {
        format!("{}({})", self.name, self.params.join(", "))
    }
}

#[derive(Deserialize)]
struct Methods {
    methods: Vec<Method>,
}

/// Calls services. It lives in a runtime: see [`run`].
pub(crate) struct Caller<'a> {
    pub(crate) session: &'a Session,
    args: CallerArgs,
    registry: OnceCell<Arc<dyn Registry>>,
    /// By the address of ours that answers come to.
    clients: RefCell<HashMap<IpAddr, Client>>,
}

/// Runs a command that calls services.
pub(crate) fn run<'a, T>(
    session: &'a Session,
    args: &CallerArgs,
    work: impl AsyncFnOnce(&Caller<'a>) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::failed(format!("no event loop: {error}")))?;
    let caller = Caller {
        session,
        args: args.clone(),
        registry: OnceCell::new(),
        clients: RefCell::default(),
    };
    let outcome = runtime.block_on(work(&caller));
    drop(caller);
    // A thread that waits for stdin is not waited for.
    runtime.shutdown_background();
    outcome
}

impl Caller<'_> {
    /// The registry that the configuration names.
    pub(crate) async fn registry(&self) -> Result<&Arc<dyn Registry>, CliError> {
        self.registry.get_or_try_init(async || super::registry::open(self.session).await).await
    }

    /// What an ADDRESS means.
    ///
    /// # Errors
    /// A usage error that names what is near, or what there is.
    pub(crate) async fn place(&self, address: &str) -> Result<Place, CliError> {
        if address.contains("://") {
            Parsed::parse(address).map_err(|error| {
                CliError::usage(error.to_string(), "an endpoint looks like `tcp://127.0.0.1:5600`")
            })?;
            return Ok(Place::at(address, [address.to_owned()]));
        }
        // The node and what it runs can be called without a registry.
        let registered = self.registered(address).await;
        if let Ok(Some(place)) = registered {
            return Ok(place);
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
        Err(self.unknown(address, local.into_keys()).await?)
    }

    /// What the registry knows of a name, or of `name:id`.
    async fn registered(&self, address: &str) -> Result<Option<Place>, CliError> {
        let registry = self.registry().await?;
        let found = asked(registry.lookup(address)).await?.instances();
        if !found.is_empty() {
            return Ok(Some(Place::of(address, found)));
        }
        let Some((service, id)) = address.rsplit_once(':') else { return Ok(None) };
        let all = asked(registry.lookup(service)).await?.instances();
        let is_meant = |one: &&Instance| one.id.starts_with(id) || one.identity.starts_with(id);
        Ok(all.iter().find(is_meant).map(|one| Place::of(address, Arc::clone(&all)).only(one)))
    }

    /// What the node says of itself, where one runs.
    fn node_status(&self) -> Result<Option<(Node, Snapshot)>, CliError> {
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

    /// All that begins with `typed` and may be called: services with a dot behind, or the methods of the one that is named.
    pub(crate) async fn subjects(&self, typed: &str) -> Vec<String> {
        let Some((interface, _)) = typed.rsplit_once('.') else {
            return self.addresses().await.into_iter().map(|name| format!("{name}.")).collect();
        };
        let methods = async {
            let place = self.place(interface).await.ok()?;
            self.methods(&place, ASIDE).await.ok()
        };
        let methods = methods.await.unwrap_or_default();
        methods.into_iter().map(|method| method.name).collect()
    }

    /// Why an ADDRESS means nothing.
    async fn unknown(
        &self,
        address: &str,
        local: impl Iterator<Item = String>,
    ) -> Result<CliError, CliError> {
        let registered = self.discover().await?;
        let mut known: BTreeSet<String> = local.collect();
        known.extend(registered.into_keys());
        let known: Vec<String> = known.into_iter().collect();
        Ok(unknown_service(address, known, self.session))
    }

    /// Every service and its instances.
    pub(crate) async fn discover(&self) -> Result<BTreeMap<String, Instances>, CliError> {
        asked(self.registry().await?.discover()).await
    }

    /// A call of `subject` at a place.
    ///
    /// # Errors
    /// As it went wrong; [`Caller::explain`] says more.
    pub(crate) async fn call(
        &self,
        place: &Place,
        subject: &str,
        body: &Value,
        options: CallOptions,
    ) -> Result<Reply, CallFailed> {
        let (client, options) = self.prepared(place, options).await?;
        Ok(client.request(subject, body, &options).await?)
    }

    /// A client that reaches a place, and the options that name it.
    pub(crate) async fn prepared(
        &self,
        place: &Place,
        options: CallOptions,
    ) -> Result<(Client, CallOptions), CliError> {
        let client = self.client(place).await?;
        Ok((client, CallOptions { target: Some(place.target()), ..options }))
    }

    /// Takes the address of ours that the user named, if he named one, before anything is called.
    ///
    /// # Errors
    /// When it is not ours.
    pub(crate) async fn listen(&self) -> Result<(), CliError> {
        if self.args.ip.is_some() || self.args.guess_external_ip {
            self.client(&Place::at("", [])).await?;
        }
        Ok(())
    }

    /// lymph's services answer by connecting to us, so we must listen where they can.
    async fn client(&self, place: &Place) -> Result<Client, CliError> {
        let ip = self.own_ip(place);
        if let Some(client) = self.clients.borrow().get(&ip) {
            return Ok(client.clone());
        }
        let registry = match self.registry.get() {
            Some(registry) => Arc::clone(registry),
            None => Arc::new(Memory::new()), // nothing but endpoints was asked for so far
        };
        let ours = SocketAddr::new(ip, 0).to_string();
        let ours = format!("tcp://{}*", ours.trim_end_matches('0'));
        let nobody = Arc::new(|_: Incoming| {});
        let config = Config::default();
        let endpoint = Endpoint::open(Arc::new(Sockets), &[&ours], nobody, config).await;
        let endpoint = endpoint.map_err(|error| {
            CliError::usage(
                format!("cannot take answers at `{ip}`: {error}"),
                "`--ip` must be an address of this machine",
            )
        })?;
        let client = Client::new(endpoint, registry);
        // One that was made before a name was asked for knows no names.
        if self.registry.get().is_some() {
            self.clients.borrow_mut().insert(ip, client.clone());
        }
        Ok(client)
    }

    fn own_ip(&self, place: &Place) -> IpAddr {
        const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
        if let Some(ip) = self.args.ip {
            return ip;
        }
        if self.args.guess_external_ip {
            return reach::outside().unwrap_or(HERE);
        }
        let instances = place.instances.iter();
        let ways = instances.filter_map(|one| reach::way_to(one.endpoint.strip_prefix("tcp://")?));
        // One that leads to other hosts leads here, too, and not the other way round.
        ways.min_by_key(IpAddr::is_loopback).unwrap_or(HERE)
    }

    /// The methods at a place, one instance of each version asked.
    ///
    /// # Errors
    /// As a call of `lymph.inspect` fails.
    pub(crate) async fn methods(
        &self,
        place: &Place,
        timeout: Duration,
    ) -> Result<Vec<Method>, CliError> {
        let mut seen: BTreeMap<(String, Option<String>), Method> = BTreeMap::new();
        let mut versions = BTreeSet::new();
        for instance in place.instances.iter() {
            if !versions.insert(instance.version.clone()) {
                continue;
            }
            let subject = "lymph.inspect";
            let reply = self.first(place, instance.version.as_deref(), subject, timeout).await?;
            let methods: Methods = reply.message.unpack().map_err(|error| {
                CliError::failed(format!(
                    "`{}` answered `{subject}` with something else: {error}",
                    place.address
                ))
            })?;
            for method in methods.methods {
                seen.entry((method.name.clone(), method.version.clone())).or_insert(method);
            }
        }
        Ok(seen.into_values().collect())
    }

    /// The answer of the first instance of a version that has one: a dead one does not matter while another lives.
    async fn first(
        &self,
        place: &Place,
        version: Option<&str>,
        subject: &str,
        timeout: Duration,
    ) -> Result<Reply, CliError> {
        let mut failed = None;
        for instance in place.instances.iter().filter(|one| one.version.as_deref() == version) {
            let options = CallOptions { timeout, ..CallOptions::default() };
            let one = place.only(instance);
            match self.call(&one, subject, &Value::Map(Vec::new()), options).await {
                Ok(reply) => return Ok(reply),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.expect("the version is that of an instance").plain(self.session))
    }

    /// What to tell the user of a call that failed.
    pub(crate) async fn explain(
        &self,
        place: &Place,
        subject: &str,
        body: &Value,
        failed: CallFailed,
    ) -> CliError {
        let CallFailed::Rpc(error @ Error::Nack { .. }) = failed else {
            return failed.plain(self.session);
        };
        let Ok(methods) = self.methods(place, ASIDE).await else {
            return CallFailed::Rpc(error).plain(self.session);
        };
        let help = failure::why_refused(subject, body, &methods);
        CliError::Call { error: Box::new(error), help: Some(help) }
    }
}

/// What of a node can be called: itself, and instances that listen beside its own sockets.
fn callable((node, snapshot): &(Node, Snapshot)) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    found.insert(NODE.to_owned(), vec![node.run_dir.endpoint("node.sock")]);
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
    found
}

/// The registry's answer.
async fn asked<T>(answer: impl Future<Output = Result<T, RegistryError>>) -> Result<T, CliError> {
    match tokio::time::timeout(REGISTRY, answer).await {
        Ok(answer) => answer.map_err(unreachable),
        Err(_) => Err(CliError::TimedOut {
            what: "the registry".to_owned(),
            after: super::time::seconds(REGISTRY.as_secs_f64()),
        }),
    }
}

/// A number that nobody foresees.
fn random() -> usize {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0_u8) as usize
}
