//! A network inside a test: no sockets, no node, no configuration.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hilum_shared::registry::{Instance, Memory, Registry, Version, check_interface};
use hilum_shared::rpc::{Config, Endpoint, Handler, MemoryNetwork, Network};

use super::events::EventMock;
use super::mock::RpcMock;
use crate::container::{Container, Running};
use crate::context::{Context, Proxy};
use crate::contract::Contract;
use crate::interface::Interface;
use crate::worker::Worker;

/// An address in such a network; the network puts a number for the star.
const ANYWHERE: &str = "tcp://test:*";
/// The time that a service has to end: far more than anything takes.
const LIMIT: Duration = Duration::from_secs(30);

/// Services that find and call one another inside the test. What it serves lives as long as it does, or as a [`Served`] that is kept.
///
/// Names are those of a configuration: `shop`, or `shop@1.2` for a version of it, several of which stand side by side.
///
/// Why a call was refused (a NACK) its caller is not told, here as in earnest. What a service writes into its log of that is in
/// [`TestNetwork::refusals`], and on stderr, where the test harness shows it with the test that fails.
///
/// Its methods panic where something cannot be: they are for tests.
#[derive(Default)]
pub struct TestNetwork {
    network: MemoryNetwork,
    registry: Memory,
    events: EventMock,
    served: Mutex<Vec<Served>>,
    refusals: Arc<Mutex<Vec<String>>>,
}

/// What a [`TestNetwork`] serves. Clones are the same; dropping them ends nothing.
#[derive(Clone)]
pub struct Served {
    address: String,
    running: Arc<Mutex<Option<Running>>>,
}

impl Served {
    /// The address at which it is called, for [`Proxy::at`].
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether it says that it can do its work (`fn is_healthy`); not once it was stopped.
    pub fn is_healthy(&self) -> bool {
        lock(&self.running).as_ref().is_some_and(Running::is_healthy)
    }

    /// Lets it end as an order of the node does: it leaves the registry, finishes its calls and handlers, and stops. Nothing where it
    /// was stopped before.
    pub async fn stop(&self) {
        let running = lock(&self.running).take();
        if let Some(running) = running {
            running.stop(LIMIT).await;
        }
    }
}

impl TestNetwork {
    /// An empty network.
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves an interface under a name.
    pub async fn serve<T: Interface>(&self, name: &str, interface: T) -> Served {
        self.keep(self.start(installed(name, interface)).await)
    }

    /// Works on the tasks of an interface, as the command `worker` does.
    pub async fn work<T: Interface>(&self, name: &str, interface: T) -> Served {
        self.keep(self.start(installed(name, interface).tasks()).await)
    }

    fn keep(&self, running: Running) -> Served {
        let address = running.address().to_owned();
        let served = Served { address, running: Arc::new(Mutex::new(Some(running))) };
        lock(&self.served).push(served.clone());
        served
    }

    /// Starts a container in this network; it ends when it is stopped or dropped.
    pub async fn start(&self, container: Container) -> Running {
        let network: Arc<dyn Network> = Arc::new(self.network.clone());
        let refusals = Arc::clone(&self.refusals);
        let container = container
            .network(network, [ANYWHERE.to_owned()])
            .registry(Arc::new(self.registry.clone()))
            .events(Arc::new(self.events.clone()))
            .refused(Arc::new(move |subject, reason| refused(&refusals, subject, reason)));
        match container.start(Worker::new(Contract::none())).await {
            Ok(running) => running,
            Err(error) => panic!("the container did not start: {error}"),
        }
    }

    /// A service of this name that answers as the test says.
    pub async fn mock(&self, name: &str) -> RpcMock {
        let (service, version) = parts(name);
        if let Err(invalid) = check_interface(service) {
            panic!("there is no mock: {invalid}");
        }
        let (mock, handler) = RpcMock::new(name);
        let endpoint = self.endpoint(handler).await;
        let version = version.as_ref().map(Version::as_str);
        let instance = Instance::new(service, endpoint.address(), version);
        let registered = self.registry.register(service, instance).await;
        registered.expect("a registry in memory takes everything");
        mock.keep(endpoint);
        mock
    }

    /// A context from which the test calls.
    pub async fn context(&self) -> Context {
        self.start(Container::new()).await.context()
    }

    /// The events of all that it serves: what was emitted, and the way to emit some.
    pub fn events(&self) -> EventMock {
        self.events.clone()
    }

    /// The calls that were answered with a NACK so far, each with the reason: ``shop.buy: no tea is left``. Those that a mock refuses
    /// are not among them.
    pub fn refusals(&self) -> Vec<String> {
        lock(&self.refusals).clone()
    }

    /// A service to call from the test; [`Proxy::version`] asks for one of its versions.
    pub async fn proxy(&self, service: &str) -> Proxy {
        self.context().await.proxy(service)
    }

    /// Who is registered.
    pub fn registry(&self) -> Arc<dyn Registry> {
        Arc::new(self.registry.clone())
    }

    async fn endpoint(&self, handler: Arc<dyn Handler>) -> Endpoint {
        let network: Arc<dyn Network> = Arc::new(self.network.clone());
        let endpoint = Endpoint::open(network, &[ANYWHERE], handler, Config::default()).await;
        endpoint.expect("each address in memory is a new one")
    }
}

/// A name and the version behind its `@`.
fn parts(name: &str) -> (&str, Option<Version>) {
    let Some((service, version)) = name.split_once('@') else { return (name, None) };
    match Version::parse(version) {
        Ok(version) => (service, Some(version)),
        Err(invalid) => panic!("`{name}`: {invalid}"),
    }
}

fn installed<T: Interface>(name: &str, interface: T) -> Container {
    match parts(name) {
        (name, None) => Container::new().interface(name, interface),
        (name, Some(version)) => Container::new()
            .versioned(name, version.as_str(), interface)
            .expect("a version that was read is one"),
    }
}

#[expect(clippy::print_stderr, reason = "the test harness shows it with the test that fails")]
fn refused(refusals: &Mutex<Vec<String>>, subject: &str, reason: &str) {
    eprintln!("`{subject}` was refused: {reason}");
    lock(refusals).push(format!("{subject}: {reason}"));
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
