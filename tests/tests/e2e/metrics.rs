//! Figures of the node and of all its workers, as Prometheus reads them.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside of test functions")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use hilum_tests::{Cluster, LIMIT, demo, wait_until};

/// The response to a request, head and body.
fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nhost: {address}\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn one_address_has_the_figures_of_the_node_and_of_all_its_workers() {
    let demo = demo();
    let cluster = Cluster::new(&format!(
        "node: {{metrics: {{listen: '127.0.0.1:0'}}, heartbeat: {{interval: 100ms}}}}
instances:
  echo: {{command: {demo} instance --interface Echo, numprocesses: 2, ready: heartbeat}}
  plain: {{command: sleep 1000}}
"
    ));
    cluster.ok("up -d --wait");
    let url = cluster.ps()["node"]["metrics"].as_str().unwrap().to_owned();
    let address = url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();
    // Whoever connects and says nothing is in nobody's way.
    let silent: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
    let figures = || ask(address, "GET /metrics");
    wait_until(LIMIT, "what both workers told", || {
        let text = figures();
        ["echo.1", "echo.2"].iter().all(|id| {
            text.contains(&format!("rpc_connection_count{{instance=\"{id}\",service=\"echo\"}}"))
        })
    });
    let text = figures();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{text}");
    for line in [
        "# TYPE node_process_restarts_total counter\n",
        "node_process_restarts_total{instance=\"plain.1\",service_type=\"plain\"} 0\n",
        "node_process_running{instance=\"echo.2\",service_type=\"echo\"} 1\n",
        "node_process_memory_rss{instance=\"plain.1\",service_type=\"plain\"} ",
        "node_service_wanted{service_type=\"echo\"} 2\n",
        "\nprocess_resident_memory_bytes ",
        "\nnode_uptime ",
    ] {
        assert!(text.contains(line), "{line:?} is not in {text}");
    }
    assert!(ask(address, "POST /metrics").starts_with("HTTP/1.1 405 "));
    assert!(ask(address, "GET /").starts_with("HTTP/1.1 404 "));
    let head = ask(address, "HEAD /metrics");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    drop(silent);
    cluster.down();
}

#[test]
fn an_address_that_somebody_has_is_refused_with_his_name_and_a_new_one_waits_for_a_start() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let config = |at: &str| format!("node: {{metrics: {{listen: '{at}'}}, on_all_exited: keep}}\n");
    let cluster = Cluster::new(&config(&taken.to_string()));
    let refused = cluster.run("up -d").code(1);
    refused
        .says(&format!("`{taken}`: held by pid {}", std::process::id()))
        .says("`node.metrics.listen` says where");
    cluster.configure(&config("127.0.0.1:0"));
    cluster.ok("up -d");
    cluster.configure("node: {on_all_exited: keep}\n");
    let plan = cluster.ok("reload --dry-run");
    assert!(plan.contains("~ node.metrics: at the next start of the node"), "{plan}");
    cluster.down();
}
