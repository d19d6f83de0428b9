//! Metrics against what lymph published, and on a real socket.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::time::Duration;

use hilum_shared::transport::{Flow, Frames, Hub, Kind as SocketKind, Port, SocketSpec};
use hilum_worker::Builder;
use hilum_worker::metrics::{
    PERIOD, Process, Publisher, Registry, Tags, Value, from_lymph, report, to_lymph,
};
use hilum_worker::testing::FakeNode;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

const LIMIT: Duration = Duration::from_secs(30);

/// The second frame of what lymph published, where the vectors are.
fn vector() -> Option<Vec<u8>> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/lymph/metrics_pub.json");
    let text = std::fs::read_to_string(path).ok()?;
    let vector: serde_json::Value = serde_json::from_str(&text).unwrap();
    let hex = vector["frames_hex"][1].as_str().unwrap();
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    Some((0..hex.len()).step_by(2).map(byte).collect())
}

#[test]
fn what_lymph_published_is_read_and_written_byte_for_byte() {
    let Some(bytes) = vector() else {
        println!("skipped: no vectors beside the repository");
        return;
    };
    let report = from_lymph(&bytes).unwrap();
    assert!((report.time - 1_795_234_842.957_013).abs() < 1e-6);
    assert_eq!(report.series.len(), 61);
    let rss = report.series.iter().find(|series| series.name == "proc.mem.rss").unwrap();
    assert_eq!(rss.value, Value::Int(56_496_128));
    assert_eq!(rss.tags.get("host"), Some("localhost"));
    assert_eq!(rss.tags.get("service"), None);
    let upper =
        report.series.iter().find(|series| series.tags.get("subject") == Some("echo.upper"));
    assert_eq!(upper.unwrap().value, Value::Int(4));
    assert_eq!(to_lymph(report.time, &report.series), bytes);
    // What lymph has from its operating system, we have, too, under the same names and tags.
    let registry = Registry::new(Tags::none().with("service", None));
    registry.add(Process);
    let ours = registry.series();
    for theirs in report.series {
        if theirs.name.starts_with("rusage.") || theirs.name.starts_with("proc.") {
            assert!(ours.iter().any(|one| one.name == theirs.name), "{} is missing", theirs.name);
        }
    }
}

/// A subscriber to everything at `endpoint`.
fn listen(
    hub: &Hub,
    endpoint: &str,
) -> (hilum_shared::transport::Socket, mpsc::UnboundedReceiver<Frames>) {
    let (sender, messages) = mpsc::unbounded_channel();
    let spec = SocketSpec {
        subscribe: vec![b"stats".to_vec()],
        ..SocketSpec::new(SocketKind::Sub).connect(endpoint)
    };
    let ear = move |frames, _: &mut Port<'_>| {
        let _ = sender.send(frames); // the test is over
        Flow::Taken
    };
    (hub.open(spec, ear).unwrap(), messages)
}

#[tokio::test]
async fn a_worker_publishes_its_metrics_and_its_heartbeats_carry_a_summary() {
    let node = FakeNode::start_for("shop.2", 1).unwrap();
    node.set_rhythm(Duration::from_millis(20), Duration::from_secs(30));
    let builder = Builder::with_contract(node.contract()).without_logging().without_signals();
    let publisher = Publisher::start("tcp://127.0.0.1:*").unwrap();
    let hub = Hub::start("test").unwrap();
    let (_socket, mut messages) = listen(&hub, publisher.endpoint());
    let service = builder.try_run(|worker| async move {
        let registry = Registry::new(worker.contract().tags());
        registry.counter("orders", "Orders.").add(41);
        worker.ready();
        tokio::select! {
            () = report(registry, worker.clone(), Some(publisher)) => {}
            _ = worker.draining() => {}
        }
        Ok(())
    });
    let test = async {
        node.beat(|beat| beat.metrics.get("orders") == Some(&41.0)).await;
        // The first may have been published before the subscription was there, not the second.
        let frames = timeout(2 * PERIOD + LIMIT, messages.recv()).await.unwrap().unwrap();
        let [topic, body] = frames.as_slice() else { panic!("{frames:?}") };
        assert_eq!(topic, b"stats");
        let report = from_lymph(body).unwrap();
        let names: Vec<_> = report.series.iter().map(|series| series.name.as_ref()).collect();
        assert_eq!(names, ["orders", "metrics.dropped"]);
        let tags = &report.series[0].tags;
        assert_eq!((tags.get("service"), tags.get("identity")), (Some("shop"), Some("shop.2")));
        assert!(tags.get("host").is_some_and(|host| !host.is_empty()));
        node.shutdown("done", Duration::from_secs(5));
    };
    let (result, ()) = timeout(2 * LIMIT, async { tokio::join!(service, test) }).await.unwrap();
    result.unwrap();
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_holds_up_nobody_and_its_losses_are_counted() {
    let hub = Hub::start("test").unwrap();
    let publisher = Publisher::open(&hub, "tcp://127.0.0.1:*").unwrap();
    let (_socket, mut messages) = listen(&hub, publisher.endpoint());
    let registry = Registry::default();
    let count = registry.counter("n".repeat(10_000), "");
    let publish = || {
        count.increment();
        publisher.publish(&registry.series());
    };
    let heard = async {
        loop {
            publish();
            if let Ok(Some(_)) = timeout(Duration::from_millis(10), messages.recv()).await {
                return;
            }
        }
    };
    timeout(LIMIT, heard).await.unwrap();
    assert_eq!(publisher.dropped(), 0);
    // This one never reads: what the kernel and ZeroMQ hold for it is bounded.
    let deaf_hub = Hub::start("deaf").unwrap();
    let spec = SocketSpec {
        subscribe: vec![Vec::new()],
        high_water: 1,
        ..SocketSpec::new(SocketKind::Sub).connect(publisher.endpoint())
    };
    let _deaf = deaf_hub.open(spec, |frames, _: &mut Port<'_>| Flow::Full(frames)).unwrap();
    let begun = Instant::now();
    while publisher.dropped() == 0 {
        assert!(begun.elapsed() < LIMIT, "nothing was counted");
        publish();
        // Whoever reads still gets everything.
        timeout(LIMIT, messages.recv()).await.unwrap().unwrap();
    }
    hub.close(Duration::ZERO);
    let before = publisher.dropped();
    publish();
    assert_eq!(publisher.dropped(), before + 1, "what is not handed to ZeroMQ is counted, too");
}
