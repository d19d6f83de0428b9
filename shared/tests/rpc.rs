//! Calls between endpoints: over the system's sockets, and over a network in the process.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use std::time::Duration;

use hilum_shared::registry::{Instance, Memory, Registry, VersionRequest};
use hilum_shared::rpc::blocking;
use hilum_shared::rpc::{
    Balance, CallOptions, Client, Config, Endpoint, Error, Failure, Incoming, Interface, Liveness,
    MemoryNetwork, Method, Network, Request, Server, Sockets, trace,
};
use hilum_shared::wire::Value;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Notify;

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

#[tokio::test]
async fn a_client_of_libzmq_is_answered_and_a_router_of_libzmq_asked() {
    let world = World::ipc();
    let server = world.serve(echo()).await;
    let address = server.address().to_owned();
    let shout = tokio::task::spawn_blocking(move || {
        let mut client = blocking::Client::connect(&address).unwrap();
        client.call::<_, String>("echo.upper", &json!({"text": "foo"}), LIMIT).unwrap()
    });
    assert_eq!(shout.await.unwrap(), "FOO");

    let folder = tempfile::Builder::new().prefix("h").tempdir_in("/tmp").unwrap();
    let address = format!("ipc://{}/r", folder.path().display());
    let hub = hilum_shared::transport::Hub::start("zmq-test").unwrap();
    let spec = hilum_shared::transport::SocketSpec::new(hilum_shared::transport::Kind::Router);
    let answer = |frames, port: &mut hilum_shared::transport::Port<'_>| {
        let incoming = hilum_shared::rpc::router::Incoming::decode(frames).unwrap();
        port.send(incoming.caller.reply("from libzmq").unwrap()).unwrap();
        hilum_shared::transport::Flow::Taken
    };
    let _socket = hub.open(spec.bind(&address), answer).unwrap();
    let options = CallOptions { target: Some(address), ..quick() };
    let text: String = world.client().await.call("a.b", &json!({}), &options).await.unwrap();
    assert_eq!(text, "from libzmq");
}

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_answered_ends_and_so_does_the_work_on_it() {
    let world = World::memory();
    let ended = Arc::new(Notify::new());
    let tell = Arc::clone(&ended);
    let hang = Method::raw("hang", move |_, channel| {
        struct Tell(Arc<Notify>);
        impl Drop for Tell {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        let tell = Tell(Arc::clone(&tell));
        async move {
            let _held = (tell, channel);
            std::future::pending::<()>().await;
        }
    });
    let server = world.serve(Interface::new("slow").method(hang)).await;
    let client = world.client().await;
    let options = CallOptions { timeout: Duration::from_secs(2), ..quick() };
    let begun = tokio::time::Instant::now();
    let error = client.call::<_, ()>("slow.hang", &json!({}), &options).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert_eq!(begun.elapsed().as_secs(), 2);
    tokio::time::timeout(LIMIT, ended.notified()).await.unwrap();
    while server.serving() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_handed_on_to_the_calls_of_a_call() {
    let world = World::memory();
    let _never = world.serve(echo()).await;
    let inner = world.client().await;
    let relay = Method::rpc("relay", move |_: Value, _| {
        let inner = inner.clone();
        async move {
            // Patient, but nobody waits for it as long.
            let options = CallOptions { timeout: Duration::from_secs(1000), ..quick() };
            let begun = tokio::time::Instant::now();
            let error =
                inner.call::<_, Value>("echo.never", &json!({}), &options).await.unwrap_err();
            assert!(matches!(error, Error::Timeout { .. }), "{error}");
            SECONDS.store(begun.elapsed().as_secs() as usize, Ordering::SeqCst);
            Ok(())
        }
    })
    .uncancelled();
    static SECONDS: AtomicUsize = AtomicUsize::new(0);
    let _server = world.serve(Interface::new("relay").method(relay)).await;
    let options = CallOptions { timeout: Duration::from_secs(5), ..quick() };
    let client = world.client().await;
    client.call::<_, Value>("relay.relay", &json!({}), &options).await.unwrap_err();
    while SECONDS.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(SECONDS.load(Ordering::SeqCst) <= 5);
}

#[tokio::test]
async fn errors_say_what_is_missing() {
    let world = World::memory();
    let client = world.client().await;
    let options = quick();
    let call = |options: CallOptions| {
        let client = client.clone();
        async move { client.call::<_, Value>("echo.upper", &json!({"text": "x"}), &options).await }
    };
    let error = call(options.clone()).await.unwrap_err();
    assert_eq!(error.to_string(), "no instance of service `echo` is registered");
    let gone = Instance::new("echo", "mock://gone", Some("1.5"));
    world.registry.register("echo", gone).await.unwrap();
    world.registry.register("echo", Instance::new("echo", "mock://none", None)).await.unwrap();
    let asked =
        CallOptions { version: Some(VersionRequest::parse("2").unwrap()), ..options.clone() };
    let error = call(asked).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "service `echo` has no version that is compatible with 2.0.0: there is none, 1.5.0"
    );
    let error = call(options.clone()).await.unwrap_err();
    assert_eq!(error.to_string(), "none of the 2 instances of service `echo` answers");
    let direct = CallOptions { target: Some("mock://gone".into()), ..options.clone() };
    let error = call(direct).await.unwrap_err();
    assert!(
        matches!(&error, Error::NotConnected { address, .. } if address == "mock://gone"),
        "{error}"
    );
    let error = client.call::<_, Value>("nodot", &json!({}), &options).await.unwrap_err();
    assert!(matches!(error, Error::Subject { .. }), "{error}");
}

#[tokio::test]
async fn a_version_selects_the_instance_and_the_interface_in_it() {
    let world = World::memory();
    let version = |text: &'static str| {
        let which = Method::rpc("which", move |_: Value, _| async move { Ok(text) });
        Interface::new("v").version(text).unwrap().method(which)
    };
    // Two versions in one container, a third one elsewhere.
    let both = Arc::new(Server::new("me").interface(version("1.2")).interface(version("1.5.1")));
    let network = Arc::clone(&world.network);
    let one = Endpoint::open(network, &["mock://*"], both, Config::default()).await.unwrap();
    for text in ["1.2.0", "1.5.1"] {
        world.registry.register("v", Instance::new("v", one.address(), Some(text))).await.unwrap();
    }
    let _other = world.serve(version("2.0.0")).await;
    let client = world.client().await;
    let which = async |asked: Option<&str>| {
        let version = asked.map(|text| VersionRequest::parse(text).unwrap());
        let options = CallOptions { version, ..quick() };
        client.call::<_, String>("v.which", &json!({}), &options).await
    };
    for _ in 0..10 {
        assert_eq!(which(Some("1.3")).await.unwrap(), "1.5.1");
        assert_eq!(which(Some("2")).await.unwrap(), "2.0.0");
        assert_ne!(which(Some("1")).await.unwrap(), "2.0.0");
    }
    assert!(matches!(which(Some("1.6")).await, Err(Error::NoneCompatible { .. })));
    let direct = CallOptions { target: Some(one.address().to_owned()), ..quick() };
    let highest: String = client.call("v.which", &json!({}), &direct).await.unwrap();
    assert_eq!(highest, "1.5.1", "without a version the highest");
    // The built-in interface does not mind which version an instance was chosen by.
    let options = CallOptions { target: Some("v".into()), ..quick() };
    client.call::<_, Value>("lymph.inspect", &json!({}), &options).await.unwrap();
}

#[tokio::test]
async fn the_built_in_interface_is_asked_without_the_version_of_the_service() {
    let world = World::memory();
    // As a container of lymph's does, which knows its built-in interface in no version of a service.
    let strict = Arc::new(|incoming: Incoming| match &incoming.message.headers.version {
        None => incoming.channel.reply("fine").unwrap(),
        Some(_) => incoming.channel.nack().unwrap(),
    });
    let network = Arc::clone(&world.network);
    let there = Endpoint::open(network, &["mock://*"], strict, Config::default()).await.unwrap();
    let instance = Instance::new("v", there.address(), Some("1.2.0"));
    world.registry.register("v", instance).await.unwrap();
    let client = world.client().await;
    let options = CallOptions { target: Some("v".into()), ..quick() };
    let said: String = client.call("lymph.status", &json!({}), &options).await.unwrap();
    assert_eq!(said, "fine");
    let versioned = client.call::<_, String>("v.x", &json!({}), &options).await;
    assert!(matches!(versioned, Err(Error::Nack { .. })), "{versioned:?}");
}

#[tokio::test]
async fn calls_are_shared_and_go_round_an_instance_that_is_gone() {
    let world = World::memory();
    let named = |name: &'static str| {
        Interface::new("n").method(Method::rpc("name", move |_: Value, _| async move { Ok(name) }))
    };
    let _one = world.serve(named("one")).await;
    let two = world.serve(named("two")).await;
    world.registry.register("n", Instance::new("n", "mock://gone", None)).await.unwrap();
    let client = world.client().await;
    for balance in [Balance::Random, Balance::RoundRobin, Balance::LeastPending] {
        let options = CallOptions { balance, ..quick() };
        let mut counts = [0; 2];
        for _ in 0..60 {
            let name: String = client.call("n.name", &json!({}), &options).await.unwrap();
            counts[usize::from(name == "two")] += 1;
        }
        assert!(counts.iter().all(|count| *count > 5), "{balance:?}: {counts:?}");
    }
    two.close(LIMIT).await;
    for _ in 0..20 {
        let name: String = client.call("n.name", &json!({}), &quick()).await.unwrap();
        assert_eq!(name, "one");
    }
}

#[tokio::test(start_paused = true)]
async fn a_try_again_is_for_calls_that_may_be_made_twice() {
    let world = World::memory();
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    // Every first try is never answered.
    let flaky = Method::raw("flaky", move |_, channel| {
        let silent = seen.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
        async move {
            if silent {
                std::future::pending::<()>().await;
            }
            channel.reply("at last").unwrap();
        }
    });
    let _server = world.serve(Interface::new("f").method(flaky)).await;
    let proxy = world.client().await.proxy("f").timeout(Duration::from_secs(6));
    let error = proxy.call::<_, String>("flaky", &json!({})).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert_eq!(count.swap(0, Ordering::SeqCst), 1);
    let proxy = proxy.retries(1);
    assert_eq!(proxy.call::<_, String>("flaky", &json!({})).await.unwrap(), "at last");
    // The budget ends what would bury a service that is down.
    let never = world.client().await;
    let options = CallOptions { timeout: Duration::from_secs(2), retries: 5, ..quick() };
    let _echo = world.serve(echo()).await;
    let mut sent = 0;
    for _ in 0..10 {
        let before = tokio::time::Instant::now();
        never.call::<_, Value>("echo.never", &json!({}), &options).await.unwrap_err();
        sent = before.elapsed().as_millis();
    }
    assert!(sent < 1000, "the last call was tried once, not six times: {sent} ms");
}

#[tokio::test]
async fn no_more_requests_are_worked_on_than_allowed() {
    let world = World::memory();
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let gate = Arc::new(Notify::new());
    let work = {
        let (running, most, gate) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&gate));
        Method::rpc("work", move |_: Value, _| {
            let (running, most, gate) =
                (Arc::clone(&running), Arc::clone(&most), Arc::clone(&gate));
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                gate.notified().await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        })
    };
    let server = world.serve(Interface::new("w").concurrency(2, 3).method(work)).await;
    let client = world.client().await;
    let calls: Vec<_> = (0..6)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call::<_, ()>("w.work", &json!({}), &quick()).await })
        })
        .collect();
    let mut results = Vec::new();
    let finished = tokio::spawn(async move {
        for call in calls {
            results.push(call.await.unwrap());
        }
        results
    });
    while server.serving() < 5 {
        tokio::task::yield_now().await;
    }
    while !finished.is_finished() {
        gate.notify_one();
        tokio::task::yield_now().await;
    }
    let results = finished.await.unwrap();
    let refused: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert_eq!(refused.len(), 1, "{results:?}");
    assert_eq!(refused[0].kind(), Some("Overloaded"));
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_server_that_ends_ends_the_calls_and_is_found_again() {
    let world = World::tcp();
    let server = world.serve(echo()).await;
    let address = server.address().to_owned();
    let client = world.client().await;
    let options = CallOptions { target: Some(address.clone()), ..quick() };
    let waiting = {
        let (client, options) = (client.clone(), options.clone());
        tokio::spawn(
            async move { client.call::<_, Value>("echo.never", &json!({}), &options).await },
        )
    };
    while server.serving() == 0 {
        tokio::task::yield_now().await;
    }
    server.close(Duration::ZERO).await;
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Lost { .. } | Error::Nack { .. }), "{error}");
    let error = client.call::<_, Value>("echo.ack", &json!({}), &options).await.unwrap_err();
    assert!(matches!(error, Error::NotConnected { .. }), "{error}");
    let server = Arc::new(Server::new("me").interface(echo()));
    let network = Arc::clone(&world.network);
    let _again = Endpoint::open(network, &[&address], server, Config::default()).await.unwrap();
    client.call::<_, Value>("echo.ack", &json!({}), &options).await.unwrap();
}

#[tokio::test]
async fn a_local_way_is_taken_where_it_is_open_to_us() {
    let folder = tempfile::Builder::new().prefix("h").tempdir_in("/tmp").unwrap();
    let local = format!("ipc://{}/s", folder.path().display());
    let world = World::tcp();
    let server = Arc::new(Server::new("me").interface(echo()));
    let network = Arc::clone(&world.network);
    let addresses = ["tcp://127.0.0.1:*", &local];
    let server = Endpoint::open(network, &addresses, server, Config::default()).await.unwrap();
    let mut instance = Instance::new("echo", server.address(), None);
    instance.hostname = Some(hilum_shared::registry::hostname().to_owned());
    instance.local_endpoint = Some(local.clone());
    world.registry.register("echo", instance.clone()).await.unwrap();
    let client = world.client().await;
    let used = async |client: &Client| {
        client.request("echo.ack", &json!({}), &quick()).await.unwrap().address
    };
    assert_eq!(used(&client).await, local);
    instance.local_endpoint = Some("ipc:///nowhere/s".to_owned());
    world.registry.register("echo", instance.clone()).await.unwrap();
    assert_eq!(used(&client).await, server.address());
    instance.hostname = Some("elsewhere".to_owned());
    world.registry.register("echo", instance).await.unwrap();
    assert_eq!(used(&client).await, server.address());
}

/// A peer that shakes hands and then says nothing.
async fn mute(network: &dyn Network, address: &str) -> tokio::task::JoinHandle<usize> {
    use hilum_shared::wire::zmtp::{Hello, greeting, write_ready};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut listener = network.listen(address).await.unwrap();
    tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap();
        let mut bytes = greeting().to_vec();
        write_ready(&mut bytes, &Hello { socket_type: "ROUTER".into(), identity: Vec::new() });
        stream.write.write_all(&bytes).await.unwrap();
        let mut all = Vec::new();
        // Until the other side closes.
        stream.read.read_to_end(&mut all).await.unwrap();
        all.windows(10).filter(|bytes| bytes == b"lymph.ping").count()
    })
}

#[tokio::test(start_paused = true)]
async fn a_silent_instance_is_passed_over_and_not_pinged_for_ever() {
    let world = World::memory();
    let pings = mute(&*world.network, "mock://mute").await;
    world.registry.register("m", Instance::new("m", "mock://mute", None)).await.unwrap();
    let client = world.client().await;
    let options = CallOptions { timeout: Duration::from_secs(100), ..quick() };
    let call = {
        let (client, options) = (client.clone(), options.clone());
        tokio::spawn(async move { client.call::<_, Value>("m.x", &json!({}), &options).await })
    };
    let begun = tokio::time::Instant::now();
    while client.endpoint().liveness("mock://mute") != Liveness::Unresponsive {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!((3..=6).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let error = client.call::<_, Value>("m.x", &json!({}), &options).await.unwrap_err();
    assert!(matches!(error, Error::NoneAlive { count: 1, .. }), "{error}");
    // The call that was under way ends with the connection, long before its own time.
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Lost { .. }), "{error}");
    assert!((30..=40).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let pings = pings.await.unwrap();
    assert!((25..=35).contains(&pings), "{pings}");
    assert_eq!(client.endpoint().connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_waited_for_while_its_server_lives() {
    let world = World::memory();
    let slow = Method::rpc("slow", |_: Value, _| async move {
        tokio::time::sleep(Duration::from_secs(300)).await;
        Ok("done")
    });
    let server = world.serve(Interface::new("s").method(slow)).await;
    let options = CallOptions { timeout: Duration::from_secs(1000), ..quick() };
    let client = world.client().await;
    let text: String = client.call("s.slow", &json!({}), &options).await.unwrap();
    assert_eq!(text, "done");
    // Then nobody uses the connection, and it goes away by itself.
    assert_eq!(client.endpoint().connections(), 1);
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!((client.endpoint().connections(), server.connections()), (0, 0));
    let options = quick();
    let again = client.call::<_, Value>("s.nothing", &json!({}), &options).await.unwrap_err();
    assert!(matches!(again, Error::Nack { .. }), "{again}");
}

#[tokio::test]
async fn the_first_of_many_at_once_is_not_lost() {
    let world = World::tcp();
    let _server = world.serve(echo()).await;
    for _ in 0..20 {
        let client = world.client().await;
        let calls: Vec<_> = (0..10)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move {
                    client.call::<_, String>("echo.upper", &json!({"text": "x"}), &quick()).await
                })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap(), "X");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_ends_its_own_connection_only() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = World::memory();
    let server = world.serve(echo()).await;
    let client = world.client().await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 200], &[0; 64]] {
        let mut stream = world.network.connect(server.address()).await.unwrap();
        stream.write.write_all(garbage).await.unwrap();
        drop(stream.write);
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(LIMIT, stream.read.read_to_end(&mut rest)).await.unwrap();
    }
    client.call::<_, Value>("echo.ack", &json!({}), &quick()).await.unwrap();
}
