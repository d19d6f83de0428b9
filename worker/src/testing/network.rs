//! A network inside a test: no sockets, no node, no configuration.

use std::sync::{Arc, Mutex, PoisonError};

use hilum_shared::registry::{Instance, Memory, Registry};
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

/// Services that find and call one another inside the test. What it serves lives as long as it does.
///
/// Its methods panic where something cannot be: they are for tests.
#[derive(Default)]
pub struct TestNetwork {
    network: MemoryNetwork,
    registry: Memory,
    events: EventMock,
    running: Mutex<Vec<Running>>,
}

impl TestNetwork {
    /// An empty network.
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves an interface under a name.
    pub async fn serve<T: Interface>(&self, name: &str, interface: T) {
        let running = self.start(Container::new().interface(name, interface)).await;
        self.running.lock().unwrap_or_else(PoisonError::into_inner).push(running);
    }

    /// Works on the tasks of an interface, as the command `worker` does.
    pub async fn work<T: Interface>(&self, name: &str, interface: T) {
        let running = self.start(Container::new().interface(name, interface).tasks()).await;
        self.running.lock().unwrap_or_else(PoisonError::into_inner).push(running);
    }

    /// Starts a container in this network; it ends when it is stopped or dropped.
    pub async fn start(&self, container: Container) -> Running {
        let network: Arc<dyn Network> = Arc::new(self.network.clone());
        let container = container
            .network(network, [ANYWHERE.to_owned()])
            .registry(Arc::new(self.registry.clone()))
            .events(Arc::new(self.events.clone()));
        match container.start(Worker::new(Contract::none())).await {
            Ok(running) => running,
            Err(error) => panic!("the container did not start: {error}"),
        }
    }

    /// A service of this name that answers as the test says.
    pub async fn mock(&self, name: &str) -> RpcMock {
        let (mock, handler) = RpcMock::new(name);
        let endpoint = self.endpoint(handler).await;
        let instance = Instance::new(name, endpoint.address(), None);
        let registered = self.registry.register(name, instance).await;
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

    /// A service to call from the test.
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
