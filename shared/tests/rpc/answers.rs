//! What a call brings, over each kind of connection, and what ends it.

use hilum_shared::wire::message::{Message, pack};

use super::*;

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

#[tokio::test]
async fn an_answer_that_nobody_can_read_is_told_as_such() {
    let world = World::ipc();
    let folder = tempfile::Builder::new().prefix("h").tempdir_in("/tmp").unwrap();
    let hub = hilum_shared::transport::Hub::start("zmq-test").unwrap();
    for (name, what) in [("body", "body"), ("kind", "type"), ("frames", "this one has 4")] {
        let address = format!("ipc://{}/{name}", folder.path().display());
        let spec = hilum_shared::transport::SocketSpec::new(hilum_shared::transport::Kind::Router);
        let answer = move |frames, port: &mut hilum_shared::transport::Port<'_>| {
            let incoming = hilum_shared::rpc::router::Incoming::decode(frames).unwrap();
            let mut frames = incoming.caller.reply("never seen").unwrap();
            let last = frames.len() - 1;
            match name {
                "body" => frames[last] = vec![0xc1],
                "kind" => frames[last - 3] = b"HUH".to_vec(),
                _ => drop(frames.pop()),
            }
            port.send(frames).unwrap();
            hilum_shared::transport::Flow::Taken
        };
        let _socket = hub.open(spec.bind(&address), answer).unwrap();
        let options = CallOptions { target: Some(address), ..quick() };
        let client = world.client().await;
        let error = client.call::<_, Value>("a.b", &json!({}), &options).await.unwrap_err();
        assert!(matches!(error, Error::Answer { .. }), "{name}: {error}");
        assert!(error.to_string().contains(what), "{name}: {error}");
    }
}

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

#[tokio::test]
async fn who_stopped_waiting_is_not_refused() {
    let world = World::ipc();
    let server = world.serve(echo()).await;
    let socket = zmq::Context::new().socket(zmq::DEALER).unwrap();
    socket.set_rcvtimeo(30_000).unwrap();
    socket.connect(server.address()).unwrap();
    let request = |subject: &str, timeout| {
        let mut request = Message::request(subject, pack(&json!({"text": "foo"})).unwrap());
        request.headers.timeout = Some(timeout);
        request
    };
    socket.send_multipart(request("echo.never", 0.05).encode(), 0).unwrap();
    for serving in [1, 0] {
        while server.serving() != serving {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let next = request("echo.upper", 30.0);
    let id = next.id.clone();
    socket.send_multipart(next.encode(), 0).unwrap();
    let first = tokio::task::spawn_blocking(move || socket.recv_multipart(0).unwrap()).await;
    let first = first.unwrap();
    let shown: Vec<_> = first.iter().map(|frame| String::from_utf8_lossy(frame)).collect();
    assert_eq!(first[2], id.as_bytes(), "the first answer is that of the next call: {shown:?}");
}

/// As real lymph writes it: `nack_unknown_method`, `nack_unknown_interface` and `nack_bad_params` of its captures.
#[tokio::test]
async fn who_is_refused_before_anybody_was_found_hears_of_no_version() {
    let world = World::ipc();
    let server = world.serve(echo()).await;
    let socket = zmq::Context::new().socket(zmq::DEALER).unwrap();
    socket.set_rcvtimeo(30_000).unwrap();
    socket.connect(server.address()).unwrap();
    let answers = tokio::task::spawn_blocking(move || {
        ["echo.nosuch", "nosuch.echo", "echo.refuse"].map(|subject| {
            let mut request = Message::request(subject, pack(&json!({})).unwrap());
            request.headers.trace_id = Some("c0ffee".into());
            socket.send_multipart(request.encode(), 0).unwrap();
            socket.recv_multipart(0).unwrap()
        })
    });
    let answers = answers.await.unwrap();
    let headers = answers.map(|frames| (frames[1].clone(), frames[3].clone()));
    let unserved = b"\x81\xa8trace_id\xa6c0ffee".to_vec();
    let served = b"\x82\xa7version\xc0\xa8trace_id\xa6c0ffee".to_vec();
    let expected = [unserved.clone(), unserved, served].map(|headers| (b"NACK".to_vec(), headers));
    assert_eq!(headers, expected);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_turn_comes_too_late_is_not_begun() {
    let world = World::memory();
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    let slow = Method::rpc("slow", move |_: Value, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok(())
        }
    });
    let _server = world.serve(Interface::new("one").method(slow).concurrency(1, 100)).await;
    let client = world.client().await;
    let call = |seconds| {
        let client = client.clone();
        let options = CallOptions { timeout: Duration::from_secs(seconds), ..quick() };
        tokio::spawn(async move {
            client.call::<_, Value>("one.slow", &json!({}), &options).await.is_ok()
        })
    };
    // Those that wait come too late in the very moment in which the first one makes room.
    let late: Vec<_> = (0..20).map(|_| call(1)).collect();
    let last = call(10);
    for one in late {
        assert!(!one.await.unwrap());
    }
    assert!(last.await.unwrap());
    assert_eq!(begun.load(Ordering::SeqCst), 2, "the first and the last");
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
        "service `echo` has no version that is compatible with 2.0.0: there is 1.5.0, and instances without a version"
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
async fn an_error_without_a_name_is_sent_under_the_one_that_callers_read_it_by() {
    let world = World::memory();
    let said = Method::raw("said", |_, channel| async move { channel.error("", "oh").unwrap() });
    let failed =
        Method::rpc("failed", |_: Value, _| async { Err::<(), _>(Failure::new("", "oh")) });
    let _server = world.serve(Interface::new("e").method(said).method(failed)).await;
    let client = world.client().await;
    for subject in ["e.said", "e.failed"] {
        let answer = client.exchange(subject, &json!({}), &quick()).await.unwrap();
        let body: Value = answer.message.unpack().unwrap();
        assert_eq!(body.get("type").and_then(Value::as_str), Some("RemoteError"));
    }
}
