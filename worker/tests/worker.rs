//! A service in this process, against a fake node with real sockets.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use hilum_worker::testing::{FakeNode, Order, OrderKind};
use hilum_worker::{Builder, Cause, Contract, Run, RunError, ServiceResult, Worker, WorkerState};
use tokio::time::{Instant, sleep, timeout};

const GRACE: Duration = Duration::from_secs(5);
/// Far more than anything takes.
const LIMIT: Duration = Duration::from_secs(30);

fn quiet(node: &FakeNode) -> Builder {
    Builder::with_contract(node.contract()).without_logging().without_signals()
}

async fn patient(worker: Worker) -> ServiceResult {
    worker.ready();
    worker.draining().await;
    Ok(())
}

#[tokio::test]
async fn states_are_told_at_once_and_the_order_to_leave_is_obeyed() {
    let node = FakeNode::start_for("echo.3", 7).unwrap();
    // So slow a rhythm that only changes of state beat.
    node.set_rhythm(Duration::from_secs(600), Duration::from_secs(3000));
    let service = quiet(&node).try_run(|worker| async move {
        worker.set_status("loading");
        worker.set_metric("queue", 3.0);
        sleep(Duration::from_millis(20)).await;
        worker.ready();
        sleep(Duration::from_millis(20)).await;
        let busy = worker.busy();
        sleep(Duration::from_millis(100)).await;
        drop(busy);
        let drain = worker.draining().await;
        assert_eq!(drain.cause, Cause::Order);
        assert_eq!((drain.reason.as_str(), drain.grace), ("down", GRACE));
        assert!(drain.left() > Duration::from_secs(3));
        Ok(())
    });
    let test = async {
        node.beat(|beat| beat.state == WorkerState::Busy).await;
        node.beat(|beat| beat.state == WorkerState::Ready && beat.seq > 3).await;
        node.shutdown("down", GRACE);
    };
    let (result, ()) = tokio::join!(service, test);
    result.unwrap();
    node.beat(|beat| beat.state == WorkerState::Draining).await;
    let beats = node.beats();
    let states: Vec<WorkerState> = beats.iter().map(|beat| beat.state).collect();
    use WorkerState::{Busy, Draining, Ready, Starting};
    assert_eq!(states, [Starting, Ready, Busy, Ready, Draining]);
    for (beat, seq) in beats.iter().zip(1..) {
        assert_eq!((beat.seq, beat.run, beat.pid), (seq, Run(7), std::process::id()));
    }
    assert_eq!(beats[1].status.as_deref(), Some("loading"));
    assert_eq!(beats[1].metrics, BTreeMap::from([("queue".to_owned(), 3.0)]));
    assert_eq!(node.ignored(), 0);
}

#[tokio::test]
async fn a_worker_follows_the_rhythm_of_the_echoes() {
    let node = FakeNode::start().unwrap();
    node.set_rhythm(Duration::from_secs(1), Duration::from_secs(5));
    let builder = quiet(&node);
    node.set_rhythm(Duration::from_millis(10), Duration::from_secs(5));
    let test = async {
        let begun = Instant::now();
        node.beat(|beat| beat.seq >= 20).await;
        assert!(begun.elapsed() < Duration::from_secs(10)); // at the first rhythm it is 18 s
        node.shutdown("done", GRACE);
    };
    let (result, ()) = tokio::join!(builder.try_run(patient), test);
    result.unwrap();
}

#[test]
fn a_worker_whose_main_task_is_blocked_falls_silent() {
    let node = FakeNode::start().unwrap();
    node.set_rhythm(Duration::from_millis(10), Duration::from_secs(5));
    let builder = quiet(&node);
    let (block, blocked) = std::sync::mpsc::channel::<()>();
    let (tell, about_to) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(builder.try_run(|worker| async move {
            worker.ready();
            // Other tasks live on, and so does the ZeroMQ thread.
            tokio::spawn(async {
                loop {
                    sleep(Duration::from_millis(1)).await;
                }
            });
            sleep(Duration::from_millis(100)).await;
            tell.send(()).unwrap();
            blocked.recv().unwrap();
            worker.draining().await;
            Ok(())
        }))
    });
    node.wait_for_beat(|beat| beat.state == WorkerState::Ready);
    about_to.recv_timeout(LIMIT).unwrap();
    std::thread::sleep(Duration::from_millis(200)); // what was under way has come by then
    let last = || node.beats().last().unwrap().seq;
    let silent_at = last();
    std::thread::sleep(Duration::from_millis(500)); // fifty intervals
    assert_eq!(last(), silent_at, "it beats while its main task is blocked");
    block.send(()).unwrap();
    node.wait_for_beat(|beat| beat.seq > silent_at + 3);
    node.shutdown("done", GRACE);
    thread.join().unwrap().unwrap();
}

#[tokio::test]
async fn an_order_is_obeyed_once_and_only_by_its_run() {
    let node = FakeNode::start_for("echo.1", 2).unwrap();
    let order = |id: &str, kind, run: Option<u32>| Order {
        id: id.to_owned(),
        kind,
        run: run.map(Run),
        reason: String::new(),
        grace: 5.0,
        at: 0.0,
    };
    let (sender, mut reloads) = tokio::sync::mpsc::unbounded_channel();
    let service = quiet(&node).try_run(|worker| async move {
        loop {
            tokio::select! {
                biased;
                () = worker.reload() => sender.send(()).unwrap(),
                _ = worker.draining() => return Ok(()),
            }
        }
    });
    let test = async {
        node.subscription().await;
        node.send(&order("other", OrderKind::Shutdown, Some(1)));
        node.send(&order("a", OrderKind::Reload, Some(2)));
        timeout(LIMIT, reloads.recv()).await.unwrap().unwrap();
        node.send(&order("a", OrderKind::Reload, Some(2)));
        node.send(&order("b", OrderKind::Reload, None));
        timeout(LIMIT, reloads.recv()).await.unwrap().unwrap();
        node.send(&order("c", OrderKind::Shutdown, None));
    };
    let (result, ()) = tokio::join!(service, test);
    result.unwrap();
    assert!(reloads.try_recv().is_err(), "an order was obeyed twice");
}

#[tokio::test]
async fn an_order_that_came_before_the_worker_is_heard() {
    let node = FakeNode::start().unwrap();
    node.shutdown("early", GRACE);
    timeout(LIMIT, quiet(&node).try_run(patient)).await.unwrap().unwrap();
}

#[tokio::test]
async fn run_returns_when_the_grace_is_over() {
    let node = FakeNode::start().unwrap();
    let service = quiet(&node).try_run(|worker| async move {
        worker.ready();
        std::future::pending::<()>().await;
        Ok(())
    });
    let test = async {
        node.beat(|beat| beat.state == WorkerState::Ready).await;
        node.shutdown("down", Duration::from_millis(300));
    };
    let begun = Instant::now();
    let (result, ()) = timeout(LIMIT, async { tokio::join!(service, test) }).await.unwrap();
    assert!(matches!(result, Err(RunError::GraceOver(grace)) if grace.as_millis() == 300));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_node_that_is_only_silent_loses_no_worker() {
    let node = FakeNode::start().unwrap();
    node.set_rhythm(Duration::from_millis(10), Duration::from_millis(50));
    let builder = quiet(&node);
    node.set_echoing(false);
    let test = async {
        // Many times the timeout without an echo.
        node.beat(|beat| beat.seq >= 60).await;
        node.hide_lock();
        let seq = node.beats().last().unwrap().seq;
        node.beat(|beat| beat.seq >= seq + 60).await; // no lock to ask, but the connection stands
        assert!(node.beats().iter().all(|beat| beat.state != WorkerState::Draining));
        node.shutdown("done", GRACE);
    };
    let service = builder.try_run(|worker| async move {
        let drain = worker.draining().await;
        assert_eq!(drain.cause, Cause::Order);
        Ok(())
    });
    let (result, ()) = tokio::join!(service, test);
    result.unwrap();
}

async fn cause_of_leaving(builder: Builder, test: impl Future<Output = ()>) -> Cause {
    let (sender, cause) = tokio::sync::oneshot::channel();
    let service = builder.try_run(|worker| async move {
        sender.send(worker.draining().await.cause).unwrap();
        Ok(())
    });
    let (result, ()) = timeout(LIMIT, async { tokio::join!(service, test) }).await.unwrap();
    result.unwrap();
    cause.await.unwrap()
}

#[tokio::test]
async fn a_worker_leaves_a_node_that_is_gone() {
    let mut node = FakeNode::start().unwrap();
    node.set_rhythm(Duration::from_millis(10), Duration::from_millis(100));
    let builder = quiet(&node);
    let test = async {
        node.beat(|beat| beat.seq >= 5).await;
        node.close();
        node.free_lock();
    };
    assert_eq!(cause_of_leaving(builder, test).await, Cause::NodeGone);
}

#[tokio::test]
async fn a_worker_without_a_lock_leaves_when_the_connection_stays_closed() {
    let mut node = FakeNode::start().unwrap();
    node.set_rhythm(Duration::from_millis(10), Duration::from_millis(100));
    let builder = quiet(&node);
    node.hide_lock();
    let test = async {
        node.beat(|beat| beat.seq >= 5).await;
        node.close();
    };
    assert_eq!(cause_of_leaving(builder, test).await, Cause::NodeGone);
}

#[tokio::test]
async fn a_worker_runs_without_a_node_and_its_error_is_an_exit_code() {
    let alone = || Builder::with_contract(Contract::none()).without_logging().without_signals();
    assert_eq!(
        format!("{:?}", alone().run(|_| async { Ok(()) }).await),
        format!("{:?}", ExitCode::SUCCESS)
    );
    let result = alone().try_run(|_| async { Err("no disk".into()) }).await;
    assert_eq!(result.unwrap_err().to_string(), "no disk");
}

#[tokio::test]
async fn flickering_between_ready_and_busy_does_not_flood_the_node() {
    let node = FakeNode::start().unwrap();
    node.set_rhythm(Duration::from_secs(1), Duration::from_secs(5));
    let begun = Instant::now();
    let service = quiet(&node).try_run(|worker| async move {
        worker.ready();
        for _ in 0..2000 {
            let busy = worker.busy();
            tokio::task::yield_now().await;
            drop(busy);
            tokio::task::yield_now().await;
        }
        Ok(())
    });
    service.await.unwrap();
    let most = 3 + begun.elapsed().as_millis() / 50;
    assert!(node.beats().len() as u128 <= most, "{} beats, {most} at most", node.beats().len());
}
