//! Calls between endpoints: over the system's sockets, and over a network in the process.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use std::time::Duration;

use hilum_shared::registry::{Instance, Memory, Registry};
use hilum_shared::rpc::{
    CallOptions, Client, Config, Endpoint, Error, Failure, Incoming, Interface, MemoryNetwork,
    Method, Network, Request, Server, Sockets, trace,
};
use hilum_shared::wire::Value;
use serde::{Deserialize, Serialize};
use serde_json::json;

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
        .method(Method::rpc("panic", |_: Value, _| async move {
            if true {
                panic!("on purpose");
            }
            Ok(())
        }))
        .method(Method::raw("ack", |_, channel| async move { channel.ack().unwrap() }))
        .method(Method::raw("silent", |_, _channel| async {}))
        .method(Method::rpc("trace", |_: Value, request: Request| async move {
            assert_eq!(trace::trace_id().as_deref(), Some(request.trace_id()));
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

async fn every_kind_of_answer(world: World) {
    let _server = world.serve(echo()).await;
    let client = world.client().await;
    let options = quick();
    let text: String = client.call("echo.upper", &json!({"text": "foo"}), &options).await.unwrap();
    assert_eq!(text, "FOO");
    let call = |subject: &'static str| {
        let (client, options) = (client.clone(), options.clone());
        async move { client.call::<_, Value>(subject, &json!({}), &options).await }
    };
    assert_eq!(call("echo.ack").await.unwrap(), Value::Nil);
    for refused in
        ["echo.refuse", "echo.panic", "echo.silent", "echo.nothing", "echo.upper", "lymph.nothing"]
    {
        let options = CallOptions { target: Some("echo".into()), ..options.clone() };
        let error = client.call::<_, Value>(refused, &json!({}), &options).await.unwrap_err();
        assert!(matches!(error, Error::Nack { .. }), "{refused}: {error}");
    }
    let error = call("echo.fail").await.unwrap_err();
    assert_eq!(error.kind(), Some("TooLong"));
    assert_eq!(error.to_string(), "TooLong: the text is too long");
    let traced = CallOptions { trace_id: Some("abc".into()), ..options.clone() };
    let seen: String = client.call("echo.trace", &json!({}), &traced).await.unwrap();
    assert_eq!(seen, "abc");
    let seen: String =
        trace::with_trace("def", client.call("echo.trace", &json!({}), &options)).await.unwrap();
    assert_eq!(seen, "def");
    let large = Value::Bytes(vec![7; 3 << 20]);
    let back: Value = client.call("echo.same", &large, &options).await.unwrap();
    assert_eq!(back, large);
    let builtin = CallOptions { target: Some("echo".into()), ..options };
    let status: Value = client.call("lymph.status", &json!({}), &builtin).await.unwrap();
    assert_eq!(status.get("identity").and_then(Value::as_str), Some("me"));
    let pong: Value = client.call("lymph.ping", &json!({"payload": [1]}), &builtin).await.unwrap();
    assert_eq!(pong, Value::List(vec![Value::Int(1)]));
    let methods: Value = client.call("lymph.inspect", &json!({}), &builtin).await.unwrap();
    assert!(methods.to_string().contains(r#""name": "echo.upper""#), "{methods}");
}

#[tokio::test]
async fn every_kind_of_answer_over_tcp() {
    every_kind_of_answer(World::tcp()).await;
}

#[tokio::test]
async fn every_kind_of_answer_over_ipc() {
    every_kind_of_answer(World::ipc()).await;
}

#[tokio::test]
async fn every_kind_of_answer_over_a_network_in_the_process() {
    every_kind_of_answer(World::memory()).await;
}
