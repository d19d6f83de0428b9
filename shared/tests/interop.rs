//! A container in Python and one of ours call each other, over lymph's pair of sockets and over one connection.
//!
//! Needs a Python with pyzmq and msgpack, which `scripts/python-env` makes; without one the tests say so and skip.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic, and says that it skips"
)]

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hilum_shared::registry::{Instance, Memory, Registry};
use hilum_shared::rpc::{
    CallOptions, Client, Config, Endpoint, Error, Failure, Interface, Liveness, Method, Request,
    Server, Sockets,
};
use hilum_shared::wire::Value;
use serde::Deserialize;
use serde_json::json;

struct Python {
    child: Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    endpoint: String,
}

/// `$HILUM_TEST_PYTHON`, else the one that `scripts/python-env` made, else `python3`.
fn python(root: &Path) -> Option<OsString> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let made = target.join("python/bin/python");
    let python = match std::env::var_os("HILUM_TEST_PYTHON") {
        Some(python) => python,
        None if made.exists() => made.into_os_string(),
        None => "python3".into(),
    };
    let tried = Command::new(&python).args(["-c", "import zmq, msgpack"]).output();
    if !tried.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: {} with pyzmq and msgpack is needed", python.to_string_lossy());
        return None;
    }
    Some(python)
}

impl Python {
    fn start() -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut child = Command::new(python(root)?)
            .arg(root.join("shared/tests/interop/peer.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let endpoint = lines.next().unwrap().unwrap();
        Some(Self { child, orders, lines, endpoint })
    }

    fn order(
        &mut self,
        how: &str,
        endpoint: &str,
        subject: &str,
        body: &serde_json::Value,
    ) -> serde_json::Value {
        writeln!(self.orders, "{}", json!([how, endpoint, subject, body])).unwrap();
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

async fn container(addresses: &[&str]) -> (Endpoint, Client, Memory) {
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
    let endpoint =
        Endpoint::open(Arc::new(Sockets), addresses, server, Config::default()).await.unwrap();
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
        for (subject, kind) in [("echo.ack", "ACK"), ("echo.upper", "NACK"), ("nodot", "NACK")] {
            assert_eq!(order(how, to, subject, json!({})).await, json!([kind, null, headers]));
        }
        let answer = order(how, to, "lymph.ping", json!({"payload": "x"})).await;
        assert_eq!(answer[1], "x");
    }
}
