//! Calls between endpoints: over the system's sockets, and over a network in the process.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod answers;
mod bounds;
mod choice;
mod giving_up;
mod leaving;
mod restart;
mod strain;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use std::time::Duration;

use hilum_shared::registry::{
    Instance, Instances, Lookup, Memory, Registry, RegistryError, VersionRequest,
};
use hilum_shared::rpc::blocking;
use hilum_shared::rpc::{
    Balance, BoxFuture, CallOptions, Client, Config, Endpoint, Error, Failure, Incoming, Interface,
    Liveness, MemoryNetwork, Method, Network, Request, Server, Sockets, trace,
};
use hilum_shared::wire::Value;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Notify;

const LIMIT: Duration = Duration::from_secs(30);

#[derive(Serialize, Deserialize)]
struct Text {
    text: String,
}

fn echo() -> Interface {
    Interface::new("echo")
        .method(
            Method::rpc("upper", |args: Text, _| async move { Ok(args.text.to_uppercase()) })
                .params(["text"])
                .help("Shouts."),
        )
        .method(Method::rpc("same", |args: Value, _| async move { Ok(args) }))
        .method(Method::rpc("fail", |_: Value, _| async move {
            Err::<(), _>(Failure::new("TooLong", "the text is too long"))
        }))
        .method(Method::rpc("refuse", |_: Value, _| async move { Err::<(), _>(Failure::Refused) }))
        .method(Method::rpc("panic", |args: Value, _| async move {
            assert!(!matches!(args, Value::Map(_)), "on purpose");
            Ok(())
        }))
        .method(Method::raw("ack", |_, channel| async move { channel.ack().unwrap() }))
        .method(Method::raw("silent", |_, _channel| async {}))
        .method(Method::rpc("trace", |_: Value, request: Request| async move {
            assert_eq!(trace::trace_id().as_deref(), Some(&**request.trace_id()));
            Ok(request.trace_id().to_owned())
        }))
        .method(Method::raw("never", |_, channel| async move {
            std::future::pending::<()>().await;
            drop(channel);
        }))
}

struct World {
    network: Arc<dyn Network>,
    registry: Memory,
    address: String,
    _folder: Option<tempfile::TempDir>,
}

impl World {
    fn memory() -> Self {
        let address = "mock://*".to_owned();
        Self {
            network: Arc::new(MemoryNetwork::new()),
            registry: Memory::new(),
            address,
            _folder: None,
        }
    }

    fn tcp() -> Self {
        let address = "tcp://127.0.0.1:*".to_owned();
        Self { network: Arc::new(Sockets), registry: Memory::new(), address, _folder: None }
    }

    fn ipc() -> Self {
        let folder = tempfile::Builder::new().prefix("h").tempdir_in("/tmp").unwrap();
        let address = format!("ipc://{}/s", folder.path().display());
        Self { network: Arc::new(Sockets), registry: Memory::new(), address, _folder: Some(folder) }
    }

    async fn serve(&self, interface: Interface) -> Endpoint {
        self.serve_with(interface, Config::default()).await
    }

    async fn serve_with(&self, interface: Interface, config: Config) -> Endpoint {
        let (name, version) = interface.id();
        let (name, version) = (name.to_owned(), version.map(ToString::to_string));
        let server = Arc::new(Server::new("me").interface(interface));
        let endpoint =
            Endpoint::open(Arc::clone(&self.network), &[&self.address], server.clone(), config)
                .await
                .unwrap();
        server.set_endpoint(endpoint.address());
        let instance = Instance::new(&name, endpoint.address(), version.as_deref());
        self.registry.register(&name, instance).await.unwrap();
        endpoint
    }

    async fn client(&self) -> Client {
        self.client_with(Config::default()).await
    }

    async fn client_with(&self, config: Config) -> Client {
        let handler = Arc::new(|_: Incoming| {});
        let endpoint =
            Endpoint::open(Arc::clone(&self.network), &[], handler, config).await.unwrap();
        Client::new(endpoint, Arc::new(self.registry.clone()))
    }
}

fn quick() -> CallOptions {
    CallOptions { timeout: Duration::from_secs(30), ..CallOptions::default() }
}
