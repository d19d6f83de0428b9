//! Which instance is called, and which next.

use super::*;

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
    let client = world.client().await;
    let flaky = async |options: &CallOptions| {
        client.call::<_, String>("f.flaky", &json!({}), options).await
    };
    let options = CallOptions { timeout: Duration::from_secs(6), ..quick() };
    let error = flaky(&options).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert_eq!(count.swap(0, Ordering::SeqCst), 1);
    count.store(0, Ordering::SeqCst);
    let options = CallOptions { retries: 1, ..options };
    let error = flaky(&options).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "it had all the time: {error}");
    assert_eq!(count.swap(0, Ordering::SeqCst), 1);
    let options = CallOptions { try_timeout: Some(Duration::from_secs(2)), ..options };
    assert_eq!(flaky(&options).await.unwrap(), "at last");
    // The budget ends what would bury a service that is down.
    let never = world.client().await;
    let (timeout, try_timeout) = (Duration::from_secs(3), Some(Duration::from_millis(300)));
    let options = CallOptions { timeout, try_timeout, retries: 5, ..quick() };
    let silent = Arc::clone(&count);
    let silent = Method::raw("silent", move |_, _channel| {
        silent.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<()>()
    });
    let _never = world.serve(Interface::new("n").method(silent)).await;
    count.store(0, Ordering::SeqCst);
    for _ in 0..10 {
        let before = tokio::time::Instant::now();
        let error = never.call::<_, Value>("n.silent", &json!({}), &options).await.unwrap_err();
        assert!(matches!(error, Error::Timeout { after, .. } if after == timeout), "{error}");
        assert!(before.elapsed() >= timeout, "no try is given up for one that does not come");
    }
    assert_eq!(count.load(Ordering::SeqCst), 10 + 10, "ten calls, and what the budget has");
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
