//! HTTP interfaces as a client sees them.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hilum_worker::http::axum::Router;
use hilum_worker::http::axum::body::Bytes;
use hilum_worker::http::axum::extract::{ConnectInfo, Request};
use hilum_worker::http::axum::http::StatusCode;
use hilum_worker::http::axum::routing::{get, post};
use hilum_worker::http::{Config, Server, Tracing, metrics_route};
use hilum_worker::log::hook_panics;
use hilum_worker::metrics::Registry;
use hilum_worker::testing::FakeNode;
use hilum_worker::trace::trace_id;
use hilum_worker::{Builder, RunError, WorkerState};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

const GRACE: Duration = Duration::from_secs(20);
/// Far more than anything takes.
const LIMIT: Duration = Duration::from_secs(30);

/// A client's side of one connection.
struct Client(TcpStream);

struct Answer {
    status: u16,
    /// In small letters.
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(there, _)| there == name);
        found.next().map(|(_, value)| value.as_str())
    }
}

impl Client {
    async fn connect(port: u16) -> Self {
        Self(TcpStream::connect(("127.0.0.1", port)).await.unwrap())
    }

    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads one answer with a `content-length`.
    async fn answer(&mut self) -> Answer {
        let work = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(self.0.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let mut lines = head.lines();
            let status = lines.next().unwrap()[9..12].parse().unwrap();
            let headers: Vec<_> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            let mut answer = Answer { status, headers, body: String::new() };
            let mut body =
                vec![0; answer.header("content-length").map_or(0, |text| text.parse().unwrap())];
            self.0.read_exact(&mut body).await.unwrap();
            answer.body = String::from_utf8(body).unwrap();
            answer
        };
        timeout(LIMIT, work).await.unwrap()
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        self.answer().await
    }

    /// Whether the server has closed it, after everything was read.
    async fn is_closed(&mut self) -> bool {
        timeout(LIMIT, self.0.read_u8()).await.unwrap().is_err()
    }
}

fn quiet(node: &FakeNode) -> Builder {
    Builder::with_contract(node.contract()).without_logging().without_signals()
}

/// Runs a server in a worker of `node` until `test` is done with its port.
async fn serving<T: Future>(
    node: &FakeNode,
    server: Server,
    test: impl FnOnce(u16) -> T,
) -> Result<(), RunError> {
    serving_with(quiet(node), node, server, test).await
}

async fn serving_with<T: Future>(
    builder: Builder,
    node: &FakeNode,
    server: Server,
    test: impl FnOnce(u16) -> T,
) -> Result<(), RunError> {
    let (sender, port) = oneshot::channel();
    let service = builder.try_run(|worker| async move {
        let bound = server.bind()?;
        let serving = bound.start(&worker);
        sender.send(serving.address().port()).unwrap();
        worker.ready();
        serving.ended().await;
        assert!(worker.drain().is_some());
        Ok(())
    });
    let test = async {
        test(port.await.unwrap()).await;
        node.shutdown("done", GRACE);
    };
    let (result, ()) = timeout(2 * LIMIT, async { tokio::join!(service, test) }).await.unwrap();
    result
}

fn is_trace(text: Option<&str>) -> bool {
    text.is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[tokio::test]
async fn every_answer_tells_its_trace_and_a_panic_is_a_500() {
    let routes = Router::new()
        .route(
            "/",
            get(|ConnectInfo(peer): ConnectInfo<std::net::SocketAddr>| async move {
                format!("{} {}", trace_id().unwrap(), peer.ip())
            }),
        )
        .route(
            "/panic",
            get(|| async {
                assert!(trace_id().is_none(), "planned");
            }),
        )
        .route("/post", post(|body: Bytes| async move { body.len().to_string() }));
    let config = Config { max_body: hilum_shared::units::Bytes(1000), ..Config::default() };
    let node = FakeNode::start().unwrap();
    let registry = Registry::default();
    let server = Server::new(routes.merge(metrics_route("/metrics", &registry)))
        .config(config)
        .metrics(&registry);
    let result = serving(&node, server, |port| async move {
        let mut client = Client::connect(port).await;
        let first = client.get("/").await;
        assert_eq!(first.status, 200);
        let trace = first.header("x-trace-id").unwrap();
        assert_eq!(first.body, format!("{trace} 127.0.0.1"));
        client.send("GET / HTTP/1.1\r\nhost: x\r\nx-trace-id: mine\r\n\r\n").await;
        let second = client.answer().await;
        assert!(
            is_trace(second.header("x-trace-id")) && second.header("x-trace-id") != Some(trace)
        );
        for (path, status) in [("/nowhere", 404), ("/post", 405), ("/panic", 500), ("/", 200)] {
            let answer = client.get(path).await;
            assert_eq!(answer.status, status, "{path}");
            assert!(is_trace(answer.header("x-trace-id")), "{path}");
            assert!(status == 200 || answer.body.is_empty(), "{path}: {}", answer.body);
        }
        for (length, status) in [(1000, 200), (1001, 413)] {
            client
                .send(&format!(
                    "POST /post HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"
                ))
                .await;
            client.send(&"x".repeat(length)).await;
            let answer = client.answer().await;
            assert_eq!(answer.status, status);
            assert!(is_trace(answer.header("x-trace-id")));
            if status == 413 {
                break;
            }
        }
        let figures = Client::connect(port).await.get("/metrics").await;
        assert_eq!(
            figures.header("content-type"),
            Some("text/plain; version=0.0.4; charset=utf-8")
        );
        for line in [
            "# TYPE http_requests_total counter",
            "http_requests_total{status=\"200\"} 4",
            "http_requests_total{status=\"413\"} 1",
            "http_requests_total{status=\"500\"} 1",
            "http_active 1",
        ] {
            assert!(
                figures.body.lines().any(|there| there == line),
                "{line} is not in {}",
                figures.body
            );
        }
    });
    result.await.unwrap();
}

#[tokio::test]
async fn a_trace_is_taken_only_from_the_header_that_was_chosen() {
    let tracing =
        Tracing { request_header: Some("X-Request-Id".into()), response_header: "X-Told".into() };
    let server = Server::new(Router::new().route("/", get(|| async { trace_id().unwrap() })))
        .config(Config { tracing, ..Config::default() });
    let node = FakeNode::start().unwrap();
    let result = serving(&node, server, |port| async move {
        let mut client = Client::connect(port).await;
        client.send("GET / HTTP/1.1\r\nhost: x\r\nx-request-id: abc\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.header("x-told"), answer.body.as_str()), (Some("abc"), "abc"));
        for bad in ["\u{e4}".to_owned(), String::new(), "x".repeat(257)] {
            client.send(&format!("GET / HTTP/1.1\r\nhost: x\r\nx-request-id: {bad}\r\n\r\n")).await;
            assert!(is_trace(client.answer().await.header("x-told")), "{bad}");
        }
    });
    result.await.unwrap();
}

#[tokio::test]
async fn a_head_may_have_64_kib_and_not_one_byte_more() {
    let server = Server::new(Router::new().route("/", get(|| async { "taken" })));
    let node = FakeNode::start().unwrap();
    let result = serving(&node, server, |port| async move {
        let head = |length: usize| {
            let rest = "GET / HTTP/1.1\r\nhost: x\r\nfill: \r\n\r\n".len();
            format!("GET / HTTP/1.1\r\nhost: x\r\nfill: {}\r\n\r\n", "x".repeat(length - rest))
        };
        for (length, status) in [(64 << 10, 200), ((64 << 10) + 1, 431), (100 << 10, 431)] {
            let mut client = Client::connect(port).await;
            client.send(&head(length)).await;
            assert_eq!(client.answer().await.status, status, "{length}");
        }
        // However it comes.
        let mut client = Client::connect(port).await;
        let head = head((64 << 10) + 1);
        let (first, last) = head.split_at(60 << 10);
        client.send(first).await;
        sleep(Duration::from_millis(50)).await;
        client.send(last).await;
        assert_eq!(client.answer().await.status, 431);
    });
    result.await.unwrap();
}

#[tokio::test]
async fn the_health_endpoint_says_what_the_author_says() {
    let well = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&well);
    // A route of the author's at the same place would never be asked, and is no conflict.
    let server = Server::new(Router::new().route("/_health/", get(|| async { "mine" })))
        .healthy(move || std::future::ready(asked.load(Ordering::Relaxed)));
    let node = FakeNode::start().unwrap();
    let result = serving(&node, server, |port| async move {
        let mut client = Client::connect(port).await;
        for (path, is_well) in [("/_health/", true), ("/_health", true), ("/_health/", false)] {
            well.store(is_well, Ordering::Relaxed);
            let answer = client.get(path).await;
            assert_eq!(
                (answer.status, answer.body == "OK"),
                (if is_well { 200 } else { 503 }, is_well)
            );
            assert!(is_trace(answer.header("x-trace-id")));
        }
        assert_eq!(client.get("/_health/more").await.status, 404);
        client.send("POST /_health/ HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 405);
    });
    result.await.unwrap();
}

#[tokio::test]
async fn leaving_finishes_what_runs_and_what_was_just_sent() {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (beginning, going) = (Arc::clone(&begun), Arc::clone(&go));
    let slow = move || {
        let (begun, go) = (Arc::clone(&beginning), Arc::clone(&going));
        async move {
            begun.notify_one();
            go.notified().await;
            "done"
        }
    };
    let routes = Router::new().route("/slow", get(slow)).route("/", get(|| async { "quick" }));
    let node = FakeNode::start().unwrap();
    let told = &node;
    let result = serving(&node, Server::new(routes), |port| async move {
        let mut running = Client::connect(port).await;
        running.send("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
        begun.notified().await;
        let mut kept = Client::connect(port).await;
        assert_eq!(kept.get("/").await.header("connection"), None);
        let mut idle = Client::connect(port).await;
        assert_eq!(idle.get("/").await.status, 200);
        let mut fresh = Client::connect(port).await;
        let mut half = Client::connect(port).await;
        half.send("GET / HTT").await;
        told.shutdown("down", GRACE);
        told.beat(|beat| beat.state == WorkerState::Draining).await;
        // They were connected before the order, and ask before they could have seen that anything closes.
        sleep(Duration::from_millis(50)).await;
        for client in [&mut kept, &mut fresh] {
            let answer = client.get("/").await;
            assert_eq!(
                (answer.body.as_str(), answer.header("connection")),
                ("quick", Some("close"))
            );
            assert!(client.is_closed().await);
        }
        assert!(idle.is_closed().await);
        assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err(), "it still accepts");
        half.send("P/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(half.answer().await.body, "quick");
        go.notify_one();
        let answer = running.answer().await;
        assert_eq!((answer.body.as_str(), answer.header("connection")), ("done", Some("close")));
    });
    result.await.unwrap();
}

#[tokio::test]
async fn a_request_that_takes_longer_than_the_grace_is_cut_off_and_the_worker_ends_well() {
    let begun = Arc::new(Notify::new());
    let seen = Arc::clone(&begun);
    let slow = move || {
        seen.notify_one();
        std::future::pending::<()>()
    };
    let node = FakeNode::start().unwrap();
    let told = &node;
    let at = Instant::now();
    let result =
        serving(&node, Server::new(Router::new().route("/", get(slow))), |port| async move {
            let mut client = Client::connect(port).await;
            client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
            begun.notified().await;
            told.shutdown("down", Duration::from_millis(400));
            assert!(client.is_closed().await);
        });
    result.await.unwrap();
    assert!(at.elapsed() < LIMIT);
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_head_is_let_go() {
    let config = Config {
        header_timeout: Duration::from_millis(200),
        max_head: hilum_shared::units::Bytes(0),
        ..Config::default()
    };
    let server = Server::new(Router::new().route("/", get(|| async { "x" }))).config(config);
    let node = FakeNode::start().unwrap();
    let result = serving(&node, server, |port| async move {
        let mut slow = Client::connect(port).await;
        slow.send("GET / HTTP/1.1\r\nho").await;
        let mut idle = Client::connect(port).await;
        assert_eq!(idle.get("/").await.status, 200);
        assert!(idle.is_closed().await);
        let mut rest = String::new();
        slow.0.read_to_string(&mut rest).await.unwrap();
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{rest}");
        let mut large = Client::connect(port).await;
        large.send(&format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(20_000))).await;
        assert_eq!(large.answer().await.status, 431);
    });
    result.await.unwrap();
}

#[tokio::test]
async fn an_interface_can_end_before_its_worker() {
    let node = FakeNode::start().unwrap();
    let service = quiet(&node).try_run(|worker| async move {
        let routes = Router::new().route("/", get(|| async { "x" }));
        let serving = Server::new(routes).bind()?.start(&worker);
        let mut client = Client::connect(serving.address().port()).await;
        assert_eq!(client.get("/").await.header("connection"), None);
        let stop = serving.stop(GRACE);
        let last = async {
            let answer = client.get("/").await;
            assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
            assert!(client.is_closed().await);
        };
        tokio::join!(stop, last);
        assert!(TcpStream::connect(serving.address()).await.is_err());
        assert!(worker.drain().is_none());
        Ok(())
    });
    timeout(LIMIT, service).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_can_be_upgraded() {
    let echo = get(|request: Request| async {
        tokio::spawn(async {
            let upgraded = hyper::upgrade::on(request).await.unwrap();
            let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
            tokio::io::copy(&mut from, &mut to).await.unwrap();
        });
        (StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "echo")])
    });
    let server = Server::new(Router::new().route("/", echo));
    let node = FakeNode::start().unwrap();
    let result = serving(&node, server, |port| async move {
        let mut client = Client::connect(port).await;
        client
            .send("GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("upgrade")), (101, Some("echo")));
        assert!(is_trace(answer.header("x-trace-id")));
        client.send("hello").await;
        let mut back = [0; 5];
        timeout(LIMIT, client.0.read_exact(&mut back)).await.unwrap().unwrap();
        assert_eq!(&back, b"hello");
    });
    result.await.unwrap();
}

#[tokio::test]
async fn connections_above_the_limit_wait_for_their_turn() {
    let config = Config { max_connections: Some(1), ..Config::default() };
    let server = Server::new(Router::new().route("/", get(|| async { "x" }))).config(config);
    let node = FakeNode::start().unwrap();
    let told = &node;
    let result = serving(&node, server, |port| async move {
        let mut first = Client::connect(port).await;
        assert_eq!(first.get("/").await.status, 200);
        let mut second = Client::connect(port).await;
        second.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut byte = [0];
        assert!(timeout(Duration::from_millis(200), second.0.peek(&mut byte)).await.is_err());
        drop(first);
        assert_eq!(second.answer().await.status, 200);
        // Who still waits when the order to leave comes was promised an answer: nobody else listens here.
        let mut third = Client::connect(port).await;
        told.shutdown("down", GRACE);
        assert_eq!(third.get("/").await.status, 200);
    });
    result.await.unwrap();
}

#[tokio::test]
async fn records_carry_the_trace_of_their_request() {
    hook_panics();
    let node = FakeNode::start().unwrap();
    let mut builder = Builder::with_contract(node.contract()).without_signals();
    // Spans are filtered out, so it is the task that knows the trace.
    let subscriber =
        tracing_subscriber::registry().with(LevelFilter::WARN).with(builder.log_layer());
    let _guard = tracing::subscriber::set_default(subscriber);
    let fails = get(|| async {
        tracing::warn!("about to fail");
        assert!(trace_id().is_none(), "planned");
    });
    let told = &node;
    let server = Server::new(Router::new().route("/", fails));
    let result = serving_with(builder, &node, server, |port| async move {
        let answer = Client::connect(port).await.get("/").await;
        let trace = answer.header("x-trace-id").unwrap();
        for message in ["about to fail", "planned", "a handler panicked"] {
            let record = told.record(|record| record.message == message).await;
            assert_eq!(record.trace_id.as_deref(), Some(trace), "{message}");
        }
    });
    result.await.unwrap();
}
