//! Too much at once, ends, silence and garbage.

use super::*;

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
    assert!(matches!(refused[0], Error::Overloaded { .. }), "{}", refused[0]);
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

/// A peer that shakes hands and then says nothing.
async fn mute(network: &dyn Network, address: &str) -> tokio::task::JoinHandle<usize> {
    use hilum_shared::wire::zmtp::{Hello, greeting, write_ready};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut listener = network.listen(address).await.unwrap();
    tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap();
        let mut bytes = greeting().to_vec();
        write_ready(&mut bytes, &Hello { socket_type: "ROUTER".into(), ..Hello::default() });
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
    assert_eq!(begun.elapsed().as_secs(), 3, "{:?}", begun.elapsed());
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
async fn an_instance_that_falls_silent_is_left_for_one_that_is_well() {
    let world = World::memory();
    let _pings = mute(&*world.network, "mock://mute").await;
    let _server = world.serve(echo()).await;
    let instance = Instance::new("echo", "mock://mute", None);
    world.registry.register("echo", instance).await.unwrap();
    let client = world.client().await;
    let options = CallOptions {
        balance: Balance::RoundRobin,
        timeout: Duration::from_secs(4),
        retries: 3,
        try_timeout: Some(Duration::from_secs(1)),
        ..CallOptions::default()
    };
    let text = json!({"text": "x"});
    let calls: Vec<_> = (0..600)
        .map(|_| {
            let (client, options, text) = (client.clone(), options.clone(), text.clone());
            tokio::spawn(async move {
                client.call::<_, String>("echo.upper", &text, &options).await.map(drop)
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    // What it did not answer is known to all who call it, long before it counts as unresponsive.
    assert_eq!(client.endpoint().liveness("mock://mute"), Liveness::Doubtful);
    let options = CallOptions { timeout: Duration::from_millis(500), retries: 0, ..options };
    for _ in 0..10 {
        client.call::<_, String>("echo.upper", &text, &options).await.unwrap();
    }
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

/// A registry that counts how often it is asked, and answers when it is let.
struct Slow {
    of: Memory,
    asked: AtomicUsize,
    gate: tokio::sync::Semaphore,
}

impl Registry for Slow {
    fn register<'a>(
        &'a self,
        service: &'a str,
        instance: Instance,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        self.of.register(service, instance)
    }

    fn unregister<'a>(
        &'a self,
        service: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        self.of.unregister(service, id)
    }

    fn lookup<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Lookup, RegistryError>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.gate.acquire().await.unwrap().forget();
            if service == "down" {
                return Err(RegistryError::Refused { reason: "it is down".to_owned() });
            }
            self.of.lookup(service).await
        })
    }

    fn discover(&self) -> BoxFuture<'_, Result<BTreeMap<String, Instances>, RegistryError>> {
        self.of.discover()
    }
}

#[tokio::test]
async fn the_first_calls_of_a_service_ask_the_registry_once_between_them() {
    let world = World::memory();
    let _server = world.serve(echo()).await;
    let registry = Arc::new(Slow {
        of: world.registry.clone(),
        asked: AtomicUsize::new(0),
        gate: tokio::sync::Semaphore::new(0),
    });
    let client = Client::new(world.client().await.endpoint().clone(), registry.clone());
    let burst = async |subject: &'static str, asked: usize| {
        let calling = || {
            let client = client.clone();
            tokio::spawn(async move {
                client.call::<_, String>(subject, &json!({"text": "x"}), &quick()).await
            })
        };
        let first = calling();
        while registry.asked.load(Ordering::SeqCst) < asked {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (0..200).map(|_| calling()).collect();
        tokio::task::yield_now().await;
        // Whose call it was that asked does not matter.
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        registry.gate.add_permits(1);
        let mut results = Vec::new();
        for call in others {
            results.push(call.await.unwrap());
        }
        assert_eq!(registry.asked.load(Ordering::SeqCst), asked, "{subject}");
        results
    };
    for result in burst("echo.upper", 1).await {
        assert_eq!(result.unwrap(), "X");
    }
    // What was answered to those who waited is not kept for those who come later.
    for asked in 2..4 {
        for result in burst("nobody.there", asked).await {
            assert!(matches!(result, Err(Error::NoSuchService { .. })), "{result:?}");
        }
    }
    for asked in 4..6 {
        for result in burst("down.there", asked).await {
            assert!(matches!(result, Err(Error::Registry(_))), "{result:?}");
        }
    }
}
