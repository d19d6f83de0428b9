//! Structured records on their way to a fake node.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hilum_worker::log::Overflow;
use hilum_worker::testing::{FakeNode, LogRecord};
use hilum_worker::{Builder, ServiceResult};
use serde_json::json;
use tracing_subscriber::layer::SubscriberExt;

const LIMIT: Duration = Duration::from_secs(30);

/// Runs `service` in a thread of its own, with the record layer as that thread's subscriber.
fn logged<F>(
    node: &FakeNode,
    overflow: Overflow,
    service: impl FnOnce() -> F + Send + 'static,
) -> std::thread::JoinHandle<u64>
where
    F: Future<Output = ServiceResult>,
{
    let contract = node.contract();
    std::thread::spawn(move || {
        let mut builder = Builder::with_contract(contract).without_signals().overflow(overflow);
        let layer = builder.log_layer();
        let subscriber = tracing_subscriber::registry().with(layer.clone());
        tracing::subscriber::with_default(subscriber, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(builder.try_run(|_| service())).unwrap();
        });
        layer.dropped()
    })
}

fn ours(node: &FakeNode) -> Vec<LogRecord> {
    node.records().into_iter().filter(|record| record.logger == "test").collect()
}

#[test]
fn events_become_records_with_fields_spans_and_trace() {
    let node = FakeNode::start().unwrap();
    let service = || async {
        tracing::info!(target: "test", n = 3, ratio = 0.5, ok = true, text = "a b", "hello {}", "you");
        let outer = tracing::info_span!("outer", trace_id = "t-1", user = "anna", depth = 1);
        let inner = tracing::info_span!(parent: &outer, "inner", depth = 2);
        inner.in_scope(|| {
            tracing::warn!(target: "test", "in spans");
            tracing::error!(target: "test", trace_id = 77, depth = 3, "own values win");
        });
        tracing::debug!(target: "test", bad = f64::NAN, long = "ä".repeat(5000), "bounds");
        Ok(())
    };
    logged(&node, Overflow::Wait, service).join().unwrap();
    node.wait_for_record(|record| record.message == "bounds");
    let records = ours(&node);
    let said: Vec<_> = records
        .iter()
        .map(|record| (record.level.as_str(), record.message.as_str(), record.trace_id.as_deref()))
        .collect();
    assert_eq!(
        said,
        [
            ("INFO", "hello you", None),
            ("WARNING", "in spans", Some("t-1")),
            ("ERROR", "own values win", Some("77")),
            ("DEBUG", "bounds", None),
        ]
    );
    assert_eq!(json!(records[0].fields), json!({"n": 3, "ratio": 0.5, "ok": true, "text": "a b"}));
    assert_eq!(json!(records[1].fields), json!({"depth": 2, "user": "anna"}));
    assert_eq!(json!(records[2].fields), json!({"depth": 3, "user": "anna"}));
    assert_eq!(records[3].fields["bad"], "NaN");
    assert!(records[3].fields["long"].as_str().unwrap().len() < 4200);
    let all: Vec<_> = node.records().iter().map(|record| record.seq.unwrap()).collect();
    assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>());
    assert!(records[0].at > 1.7e9);
    assert_eq!(node.ignored(), 0);
}

/// Records of a kilobyte: more than waits in all queues between a worker and its node.
const FLOOD: u64 = 8_000;

fn flood(written: &AtomicU64) {
    for n in 0..FLOOD {
        tracing::info!(target: "test", n, "{:1000}", "x");
        written.store(n + 1, Ordering::SeqCst);
    }
}

/// Waits until a flood has begun and stands still: so many looks in a row see no progress. Where the machine only was slow, a test asks
/// less than it could, and does not fail.
fn wait_for_standstill(written: &AtomicU64) {
    let (begun, mut before, mut same) = (Instant::now(), 0, 0);
    while same < 20 {
        assert!(begun.elapsed() < LIMIT, "{before} written, and it goes on");
        std::thread::sleep(Duration::from_millis(10));
        let now = written.load(Ordering::SeqCst);
        same = if now > 0 && now == before { same + 1 } else { 0 };
        before = now;
    }
}

#[test]
fn a_slow_node_makes_the_logging_call_wait_and_nothing_is_lost() {
    let node = FakeNode::start().unwrap();
    node.hold_records(true);
    let written = Arc::new(AtomicU64::new(0));
    let flooding = Arc::clone(&written);
    let worker = logged(&node, Overflow::Wait, move || async move {
        flood(&flooding);
        Ok(())
    });
    // It cannot end while the node takes nothing.
    wait_for_standstill(&written);
    assert!(written.load(Ordering::SeqCst) < FLOOD && !worker.is_finished());
    assert!(node.records().is_empty());
    node.hold_records(false);
    assert_eq!(worker.join().unwrap(), 0);
    // It has left, and the node is still behind.
    let last = node.wait_for_record(|record| {
        record.fields.get("n").is_some_and(|n| n.as_u64() == Some(FLOOD - 1))
    });
    assert!(last.seq.unwrap() >= FLOOD);
    let kept: Vec<_> = node.records().iter().map(|record| record.seq.unwrap()).collect();
    assert!(kept.windows(2).all(|pair| pair[1] == pair[0] + 1));
}

#[test]
fn what_the_node_never_takes_holds_nobody_up_for_ever_and_is_counted() {
    let node = FakeNode::start().unwrap();
    node.hold_records(true);
    let contract = node.contract();
    let worker = std::thread::spawn(move || {
        let mut builder = Builder::with_contract(contract)
            .without_signals()
            .overflow(Overflow::Drop)
            .grace(Duration::from_millis(300));
        let layer = builder.log_layer();
        let subscriber = tracing_subscriber::registry().with(layer.clone());
        tracing::subscriber::with_default(subscriber, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let service = |_| async {
                flood(&AtomicU64::new(0));
                Ok(())
            };
            runtime.unwrap().block_on(builder.try_run(service)).unwrap();
        });
        layer.dropped()
    });
    let begun = Instant::now();
    while !worker.is_finished() {
        assert!(begun.elapsed() < LIMIT, "it waits for a node that takes nothing");
        std::thread::sleep(Duration::from_millis(2));
    }
    let dropped = worker.join().unwrap();
    assert!(dropped > 0);
    node.hold_records(false);
    // What it does not count as lost is with the kernel, and comes.
    let begun = Instant::now();
    while ours(&node).len() as u64 + dropped < FLOOD {
        assert!(begun.elapsed() < LIMIT, "{} came, {dropped} lost", ours(&node).len());
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(ours(&node).len() as u64 + dropped, FLOOD);
}

#[test]
fn who_asked_to_drop_does_not_wait_and_the_gap_is_seen() {
    let node = FakeNode::start().unwrap();
    node.hold_records(true);
    let (sender, flooded) = std::sync::mpsc::channel::<()>();
    let (go, mut gone) = tokio::sync::oneshot::channel::<()>();
    let worker = logged(&node, Overflow::Drop, move || async move {
        flood(&AtomicU64::new(0));
        sender.send(()).unwrap();
        // There is room again when what waited has come.
        while gone.try_recv().is_err() {
            tracing::info!(target: "test", "last");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    });
    flooded.recv_timeout(LIMIT).unwrap();
    node.hold_records(false);
    let last = node.wait_for_record(|record| record.message == "last");
    go.send(()).unwrap();
    let dropped = worker.join().unwrap();
    assert!(dropped > 0);
    let taken = ours(&node).len() as u64;
    assert!(last.seq.unwrap() > dropped, "{taken} taken, {dropped} dropped");
}

#[test]
fn a_node_that_is_gone_holds_nobody_back() {
    let mut node = FakeNode::start().unwrap();
    node.set_rhythm(Duration::from_millis(10), Duration::from_millis(100));
    node.hold_records(true);
    let written = Arc::new(AtomicU64::new(0));
    let flooding = Arc::clone(&written);
    let worker = logged(&node, Overflow::Wait, move || async move {
        flood(&flooding);
        Ok(())
    });
    wait_for_standstill(&written);
    assert!(!worker.is_finished());
    node.free_lock();
    let begun = Instant::now();
    while !worker.is_finished() {
        assert!(begun.elapsed() < LIMIT, "it waits for a node that is gone");
        std::thread::sleep(Duration::from_millis(2));
    }
    worker.join().unwrap();
}
