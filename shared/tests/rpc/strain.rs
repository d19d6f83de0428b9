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
