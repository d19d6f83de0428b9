//! A container in Python and one of ours call each other, over lymph's pair of sockets and over one connection.
//!
//! Needs a Python with pyzmq, msgpack and kazoo, which `scripts/python-env` makes; without one the tests say so and skip.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hilum_shared::registry::{Instance, Memory, Patience, Registry, VersionRequest, ZooKeeper};
use hilum_shared::rpc::{
    CallOptions, Client, Config, Endpoint, Error, Failure, Interface, Liveness, Method, Request,
    Server, Sockets,
};
use hilum_shared::wire::Value;
use python::Python;
use serde::Deserialize;
use serde_json::json;

#[path = "interop/python.rs"]
mod python;

#[derive(Deserialize)]
struct Text {
    text: String,
}

async fn container(addresses: &[&str]) -> (Endpoint, Client, Memory) {
    container_with(addresses, Config::default()).await
}

async fn container_with(addresses: &[&str], config: Config) -> (Endpoint, Client, Memory) {
    let interface = Interface::new("echo")
        .method(Method::rpc("upper", |args: Text, _| async move { Ok(args.text.to_uppercase()) }))
        .method(Method::rpc("trace", |_: Value, request: Request| async move {
            Ok(request.trace_id().to_owned())
        }))
        .method(Method::rpc("fail", |_: Value, _| async move {
            Err::<(), _>(Failure::new("TooLong", "no"))
        }))
        .method(Method::raw("ack", |_, channel| async move { channel.ack().unwrap() }));
    let server = Arc::new(Server::new("me").interface(interface));
    let endpoint = Endpoint::open(Arc::new(Sockets), addresses, server, config).await.unwrap();
    let registry = Memory::new();
    (endpoint.clone(), Client::new(endpoint, Arc::new(registry.clone())), registry)
}

#[tokio::test]
async fn ours_calls_python() {
    let Some(python) = Python::start() else { return };
    let (_endpoint, client, registry) = container(&["tcp://127.0.0.1:*"]).await;
    registry.register("py", Instance::new("py", &python.endpoint, None)).await.unwrap();
    let options = CallOptions {
        timeout: Duration::from_secs(20),
        trace_id: Some("from-rust".into()),
        ..CallOptions::default()
    };
    // The very first message is not lost.
    let text: String = client.call("py.upper", &json!({"text": "foo"}), &options).await.unwrap();
    assert_eq!(text, "FOO");
    let reply = client.request("py.types", &json!({}), &options).await.unwrap();
    assert_eq!(reply.message.headers.trace_id.as_deref(), Some("from-rust"));
    let types: Value = reply.message.unpack().unwrap();
    assert_eq!(
        types.to_string(),
        r#"{"set": set(1, 2), "datetime": datetime(2015-03-14T09:26:53+0000), "date": date(2015-03-14), "#.to_owned()
            + r#""time": time(09:26:53Z), "Decimal": Decimal(1.50), "#
            + r#""UUID": UUID(12345678-1234-5678-1234-567812345678), "bytes": bytes(00ff), "none": null}"#
    );
    let error = client.call::<_, Value>("py.fail", &json!({}), &options).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Some("TooLong"), "TooLong: no"));
    let error = client.call::<_, Value>("py.nothing", &json!({}), &options).await.unwrap_err();
    assert!(matches!(error, Error::Nack { .. }), "{error}");
    let direct = CallOptions { target: Some(python.endpoint.clone()), ..options };
    let text: String = client.call("py.upper", &json!({"text": "bar"}), &direct).await.unwrap();
    assert_eq!(text, "BAR");
    assert_eq!(client.endpoint().liveness(&python.endpoint), Liveness::Responsive);
}

#[tokio::test]
async fn python_calls_ours() {
    let folder = tempfile::Builder::new().prefix("h").tempdir_in("/tmp").unwrap();
    let local = format!("ipc://{}/s", folder.path().display());
    let Some(python) = Python::start() else { return };
    let python = Arc::new(Mutex::new(python));
    let (endpoint, ..) = container(&["tcp://127.0.0.1:*", &local]).await;
    let order =
        async |how: &'static str, to: &str, subject: &'static str, body: serde_json::Value| {
            let (python, to) = (Arc::clone(&python), to.to_owned());
            let ordered = tokio::task::spawn_blocking(move || {
                python.lock().unwrap().order(how, &to, subject, &body)
            });
            ordered.await.unwrap()
        };
    for (how, to) in
        [("call", endpoint.address()), ("dealer", endpoint.address()), ("dealer", &local)]
    {
        let headers = json!({"version": null, "trace_id": "py-trace"});
        let answer = order(how, to, "echo.upper", json!({"text": "foo"})).await;
        assert_eq!(answer, json!(["REP", "FOO", headers]), "{how} {to}");
        let answer = order(how, to, "echo.trace", json!({})).await;
        assert_eq!(answer[1], "py-trace");
        let answer = order(how, to, "echo.fail", json!({})).await;
        assert_eq!(answer, json!(["ERROR", {"type": "TooLong", "message": "no"}, headers]));
        // Who was not found has no version, as in lymph's own answers.
        let none = json!({"trace_id": "py-trace"});
        for (subject, kind, headers) in [
            ("echo.ack", "ACK", &headers),
            ("echo.upper", "NACK", &headers),
            ("nodot", "NACK", &none),
        ] {
            assert_eq!(order(how, to, subject, json!({})).await, json!([kind, null, headers]));
        }
        let answer = order(how, to, "lymph.ping", json!({"payload": "x"})).await;
        assert_eq!(answer[1], "x");
    }
}

#[tokio::test]
async fn python_calls_ours_that_listens_everywhere_by_the_address_it_is_told() {
    let Some(python) = Python::start() else { return };
    let (endpoint, ..) = container(&["tcp://0.0.0.0:*"]).await;
    assert!(!endpoint.address().contains("0.0.0.0"), "{}", endpoint.address());
    // libzmq drops what is for an address that the other side does not call itself by.
    let order = json!(["call", endpoint.address(), "echo.upper", {"text": "foo"}]);
    let (_python, answer) = python.ask(order).await;
    assert_eq!(answer[1], "FOO");
}

fn patient() -> CallOptions {
    CallOptions { timeout: Duration::from_secs(20), ..CallOptions::default() }
}

#[tokio::test]
async fn the_chosen_instance_is_told_its_version_and_the_trace() {
    let Some(python) = Python::start() else { return };
    let (_endpoint, client, registry) = container(&["tcp://127.0.0.1:*"]).await;
    let versioned = Instance::new("py", &python.endpoint, Some("1.5.0"));
    registry.register("py", versioned).await.unwrap();
    let options = CallOptions {
        version: Some(VersionRequest::parse("1.2").unwrap()),
        trace_id: Some("of-ours".into()),
        ..patient()
    };
    let headers: serde_json::Value = client.call("py.headers", &json!({}), &options).await.unwrap();
    assert_eq!((&headers["version"], &headers["trace_id"]), (&"1.5.0".into(), &"of-ours".into()));
    let direct = CallOptions { target: Some(python.endpoint.clone()), ..patient() };
    let headers: serde_json::Value = client.call("py.headers", &json!({}), &direct).await.unwrap();
    assert_eq!(headers["version"], serde_json::Value::Null);
    let ack = client.request("py.ack", &json!({}), &direct).await.unwrap();
    assert_eq!(ack.message.kind, hilum_shared::wire::message::Kind::Ack);
    let plain = client.call::<_, Value>("py.plain", &json!({}), &direct).await.unwrap_err();
    assert_eq!(plain.kind(), Some("RemoteError"), "{plain}");
}

#[tokio::test]
async fn what_python_2_packs_as_bytes_is_understood_both_ways() {
    let Some(python) = Python::start_with(&["--python2"]) else { return };
    let (endpoint, client, registry) = container(&["tcp://127.0.0.1:*"]).await;
    registry.register("py", Instance::new("py", &python.endpoint, None)).await.unwrap();
    let types: Value = client.call("py.types", &json!({}), &patient()).await.unwrap();
    let text = types.to_string();
    assert!(text.contains("set(1, 2)") && text.contains("Decimal(1.50)"), "{text}");
    let error = client.call::<_, Value>("py.fail", &json!({}), &patient()).await.unwrap_err();
    assert_eq!(error.to_string(), "TooLong: no");
    let upper: String = client.call("py.upper", &json!({"text": "foo"}), &patient()).await.unwrap();
    assert_eq!(upper, "FOO");

    let order = json!(["call", endpoint.address(), "echo.upper", {"text": "foo"}]);
    let (python, answer) = python.ask(order).await;
    assert_eq!(answer, json!(["REP", "FOO", {"version": null, "trace_id": "py-trace"}]));
    let (_python, answer) = python.ask(json!(["call", endpoint.address(), "echo.trace", {}])).await;
    assert_eq!(answer[1], "py-trace");
}

#[tokio::test]
async fn a_call_that_waits_keeps_the_connection_watched_and_its_silence_is_not_taken_for_death() {
    let Some(python) = Python::start() else { return };
    let config = Config {
        heartbeat_interval: Duration::from_millis(50),
        timeout: Duration::from_secs(10),
        ..Config::default()
    };
    let (endpoint, client, _) = container_with(&["tcp://127.0.0.1:*"], config).await;
    let direct = CallOptions { target: Some(python.endpoint.clone()), ..patient() };
    let silent = {
        let (client, direct) = (client.clone(), direct.clone());
        tokio::spawn(async move { client.request("py.silent", &json!({}), &direct).await })
    };
    let begun = tokio::time::Instant::now();
    loop {
        let pings: u32 = client.call("py.pings", &json!({}), &direct).await.unwrap();
        if pings >= 2 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "only {pings} pings");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(endpoint.liveness(&python.endpoint), Liveness::Responsive);
    assert!(!silent.is_finished());
    silent.abort();
}

#[tokio::test]
async fn a_peer_that_dies_ends_its_calls_and_one_that_returns_on_its_port_is_called_again() {
    let Some(python) = Python::start() else { return };
    let (endpoint, client, _) = container(&["tcp://127.0.0.1:*"]).await;
    let direct = CallOptions { target: Some(python.endpoint.clone()), ..patient() };
    let upper = async |text: &str| -> Result<String, Error> {
        client.call("py.upper", &json!({"text": text}), &direct).await
    };
    assert_eq!(upper("a").await.unwrap(), "A");
    let (silent, ()) = tokio::join!(
        async { client.request("py.silent", &json!({}), &direct).await.unwrap_err() },
        async {
            assert_eq!(upper("b").await.unwrap(), "B"); // the silent call is under way
            let pid = nix::unistd::Pid::from_raw(i32::try_from(python.pid()).unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    );
    assert!(matches!(silent, Error::Lost { .. }), "{silent}");
    let port = python.port().to_owned();
    drop(python);
    let gone = upper("c").await.unwrap_err();
    assert!(gone.not_sent(), "{gone}");

    let python = Python::start_with(&[&port]).unwrap();
    assert_eq!(upper("d").await.unwrap(), "D");
    let order = json!(["call", endpoint.address(), "echo.upper", {"text": "e"}]);
    let (_python, answer) = python.ask(order).await;
    assert_eq!(answer[1], "E", "a caller with the identity of the one before: {answer}");
}

#[tokio::test]
async fn python_finds_ours_again_after_a_restart_on_the_same_port() {
    let Some(python) = Python::start() else { return };
    let (endpoint, client, _) = container(&["tcp://127.0.0.1:*"]).await;
    let address = endpoint.address().to_owned();
    let order = json!(["call", address, "echo.upper", {"text": "a"}, null, 2]);
    let (mut python, answer) = python.ask(order.clone()).await;
    assert_eq!(answer[1], "A");
    drop(client);
    endpoint.close(Duration::from_secs(20)).await;

    let (_endpoint, _client, _) = container(&[&address]).await;
    for _ in 0..10 {
        // libzmq connects again by itself, and drops what is sent meanwhile.
        let answer;
        (python, answer) = python.ask(order.clone()).await;
        if answer[1] == "A" {
            return;
        }
    }
    panic!("not answered any more");
}

#[tokio::test]
async fn what_kills_others_is_survived() {
    let Some(mut python) = Python::start() else { return };
    let (endpoint, ..) = container(&["tcp://127.0.0.1:*"]).await;
    let id = b"0123456789abcdef0123456789abcdef".as_slice();
    let (headers, args) = (b"\x80".as_slice(), b"\x81\xa4text\xa1x".as_slice());
    let request = |parts: &[(usize, &[u8])]| {
        let mut frames = [id, b"REQ", b"echo.upper", headers, args];
        for (at, bytes) in parts {
            frames[*at] = bytes;
        }
        frames.map(hex).to_vec()
    };
    let mut unknown = b"\x82\xa8__type__\xa5Wrong\xa1_\xa1x".to_vec();
    unknown.splice(0..0, b"\x81\xa4text".iter().copied());
    let malformed = [
        vec![],
        vec![hex(id)],
        request(&[])[..4].to_vec(),
        [request(&[]), vec![hex(b"more")]].concat(),
        request(&[(0, b"\xff\xfe")]),
        request(&[(1, b"WHAT")]),
        request(&[(1, b"")]),
        request(&[(2, b"\xff.\xfe")]),
        request(&[(2, b"nodot")]),
        request(&[(2, b"")]),
        request(&[(3, b"")]),
        request(&[(3, b"\xc0")]),
        request(&[(3, b"\x93\x01\x02\x03")]),
        request(&[(3, b"\x81\xa7version\xa3x.y")]),
        request(&[(3, b"\x81\xa8trace_id\x07")]),
        request(&[(3, &unknown)]),
        request(&[(4, b"")]),
        request(&[(4, b"\x81\xa4te")]),
        request(&[(4, b"\x80\x80")]),
        request(&[(4, b"\xc1")]),
        request(&[(4, b"\x81\xa4text\xa2\xff\xff")]),
        request(&[(4, &unknown)]),
        request(&[(4, b"\xdd\xff\xff\xff\xff")]),
        request(&[(4, &vec![0x91; 100_000])]),
    ];
    for frames in malformed {
        let sent;
        (python, sent) = python.ask(json!(["raw", endpoint.address(), frames])).await;
        assert_eq!(sent, json!(["sent"]));
        let order = json!(["call", endpoint.address(), "echo.upper", {"text": "still"}]);
        let answer;
        (python, answer) = python.ask(order).await;
        assert_eq!(answer[1], "STILL", "after {frames:?}: {answer}");
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

/// Both find each other in ZooKeeper, as services of lymph do.
#[cfg(feature = "zookeeper")]
#[tokio::test]
async fn python_and_ours_find_each_other_in_zookeeper() {
    let Some(zookeeper) = zookeeper::Server::start().await else { return };
    let Some(python) = Python::start() else { return };
    let (endpoint, ..) = container(&["tcp://127.0.0.1:*"]).await;
    let registry = ZooKeeper::new(&zookeeper.hosts(), Patience::Service);
    let ours = Instance::new("echo", endpoint.address(), Some("1.5.0"));
    registry.register("echo", ours.clone()).await.unwrap();
    let (python, found) = python.ask(json!(["find", zookeeper.hosts(), "echo"])).await;
    assert_eq!(found[&ours.id]["endpoint"], endpoint.address());
    assert_eq!(
        (&found[&ours.id]["id"], &found[&ours.id]["version"]),
        (&ours.id.clone().into(), &"1.5.0".into())
    );
    let (python, answer) =
        python.ask(json!(["call", found[&ours.id]["endpoint"], "echo.upper", {"text": "x"}])).await;
    assert_eq!(answer[1], "X");

    let client = Client::new(endpoint, Arc::new(registry.clone()));
    let (python, _) = python.ask(json!(["register", zookeeper.hosts(), "py", "2.0.0"])).await;
    let mut view = registry.lookup("py").await.unwrap();
    let seen = tokio::time::timeout(Duration::from_secs(30), view.wait_for(|now| now.len() == 1));
    let theirs = seen.await.unwrap().unwrap()[0].clone();
    assert_eq!(theirs.id, Instance::new("py", &python.endpoint, Some("2.0.0")).id, "lymph's hash");
    let options = CallOptions { version: Some(VersionRequest::parse("2.0").unwrap()), ..patient() };
    let text: String = client.call("py.upper", &json!({"text": "y"}), &options).await.unwrap();
    assert_eq!(text, "Y");

    let (_python, _) = python.ask(json!(["leave"])).await;
    let left = tokio::time::timeout(Duration::from_secs(30), view.wait_for(|now| now.is_empty()));
    left.await.unwrap().unwrap();
    let options = CallOptions { timeout: Duration::from_millis(100), ..options };
    let error = client.call::<_, Value>("py.upper", &json!({"text": "y"}), &options).await;
    assert!(matches!(error, Err(Error::NoneAlive { count: 0, .. })), "{error:?}");
}

#[cfg(feature = "zookeeper")]
#[path = "registry_support/zookeeper.rs"]
mod zookeeper;
