//! Services with interfaces, called from a test through the node that runs them.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::TcpListener;

use hilum_tests::{LIMIT, demo, hilum, with_text};
use hilum_worker::args;
use hilum_worker::testing::{NodeFixture, RealNode, RealNodeError};

/// The demo's echo at a port of its own.
async fn echo() -> (RealNode, String) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let command = format!("{} instance --interface Echo --port {port}", demo());
    let yaml = format!(
        "registry: {{class: static, hosts: {{echo: 'tcp://127.0.0.1:{port}'}}}}
instances:
  echo: {{command: {command}, ready: heartbeat}}
"
    );
    let node = NodeFixture::new(yaml).binary(hilum()).start().await.unwrap();
    (node, format!("--port\0{port}"))
}

#[tokio::test]
async fn a_real_node_around_a_test_runs_services_that_the_test_calls() {
    let (node, mark) = echo().await;
    let shout: String = node.proxy("echo").call("upper", args! { text: "foo" }).await.unwrap();
    assert_eq!(shout, "FOO");
    // Its record is on its way when the answer is there.
    let begun = std::time::Instant::now();
    while !node.logs().await.unwrap().contains("said `foo` in upper case") {
        assert!(begun.elapsed() < LIMIT, "the call is not in the log");
    }
    let refused = node.hilum(&["stop", "nobody"]).await.unwrap_err();
    assert!(matches!(&refused, RealNodeError::Command { output, .. } if output.contains("nobody")));
    let (dir, pids) = (node.dir().to_owned(), with_text(&mark).len());
    assert!(pids > 0);
    drop(node);
    assert_eq!((dir.exists(), with_text(&mark)), (false, Vec::new()));
}

#[tokio::test]
async fn a_node_that_cannot_start_its_services_says_why_and_leaves_nothing() {
    let yaml = "instances: {web: {command: 'sh -c \"echo no such luck; exit 3\"', restart: never, ready: {log: never said}}}";
    let failed = NodeFixture::new(yaml).binary(hilum()).start().await.err().unwrap();
    assert!(failed.to_string().contains("no such luck"), "{failed}");
    let wrong = NodeFixture::new("instances: 3").binary(hilum()).start().await.err().unwrap();
    assert!(wrong.to_string().contains("hilum.yml:1"), "{wrong}");
    let nobody = NodeFixture::new(yaml).binary("/nowhere/hilum").start().await.err().unwrap();
    assert!(matches!(nobody, RealNodeError::Binary { .. }), "{nobody}");
}

#[tokio::test]
async fn calls_that_run_when_a_service_is_stopped_are_answered() {
    let (node, _) = echo().await;
    let echo = node.proxy("echo");
    let calls: Vec<_> = (0..50)
        .map(|n| echo.defer::<String>("upper", args! { text: format!("call {n}") }))
        .collect();
    // Answered at once, on the same connection: the others have arrived, and take a fifth of a second.
    let first: String = echo.call("echo", args! { text: "x" }).await.unwrap();
    assert_eq!(first, "x");
    node.hilum(&["stop", "echo"]).await.unwrap();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), format!("CALL {n}"));
    }
    let late = echo.call::<String>("echo", args! { text: "x" }).await.unwrap_err();
    assert!(
        late.to_string().contains("the one instance of service `echo` does not answer"),
        "{late}"
    );
    node.stop().await.unwrap();
}
