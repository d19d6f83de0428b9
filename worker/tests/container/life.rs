//! From the start to the stop, and what goes wrong between.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hilum_worker::prelude::*;
use hilum_worker::testing::{FakeNode, TestNetwork};
use hilum_worker::{Builder, Container, FailedCall, Running, WorkerState, rpc};
use tokio::sync::Notify;

/// What happened, in order.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn note(&self, text: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text.into());
    }

    fn read(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Noted {
    diary: Diary,
    name: &'static str,
    gate: Arc<Notify>,
    fails: bool,
}

#[interface(config = NeverRead)]
impl Noted {
    fn from_config(_: NeverRead) -> Result<Self> {
        Err("made by the test".into())
    }

    #[rpc]
    async fn wait(&self) -> &'static str {
        self.diary.note(format!("{} called", self.name));
        self.gate.notified().await;
        self.diary.note(format!("{} answers", self.name));
        "done"
    }

    #[rpc]
    async fn fail(&self) -> Result<()> {
        Err("as it must".into())
    }

    async fn on_start(&self) -> Result<()> {
        self.diary.note(format!("{} starts", self.name));
        if self.fails { Err("it cannot".into()) } else { Ok(()) }
    }

    async fn on_stop(&self, ctx: &Context) {
        self.diary.note(format!("{} stops as {}", self.name, ctx.interface()));
    }
}

#[derive(Deserialize)]
struct NeverRead {}

struct Part {
    diary: Diary,
}

impl Component for Part {
    type Config = NeverRead;
    const TYPE: &'static str = "Part";

    fn create(_: NeverRead) -> Result<Self> {
        Err("made by the test".into())
    }

    async fn start(&self) -> Result<()> {
        self.diary.note("part starts");
        Ok(())
    }

    async fn stop(&self) {
        self.diary.note("part stops");
    }

    fn on_error(&self, failed: &FailedCall<'_>) {
        self.diary.note(format!("{}.{} failed: {}", failed.interface, failed.method, failed.error));
    }
}

fn noted(diary: &Diary, gate: &Arc<Notify>, fails: bool) -> Container {
    let interface =
        |name, fails| Noted { diary: diary.clone(), name, gate: Arc::clone(gate), fails };
    Container::new()
        .component(Part { diary: diary.clone() })
        .interface("one", interface("one", false))
        .interface("two", interface("two", fails))
}

#[tokio::test]
async fn a_stop_leaves_the_registry_first_finishes_what_runs_and_goes_backwards() {
    let (network, diary, gate) = (TestNetwork::new(), Diary::default(), Arc::new(Notify::new()));
    let running = network.start(noted(&diary, &gate, false)).await;
    let one = network.proxy("one").await.timeout(Duration::from_secs(30));
    let waiting = one.defer::<String>("wait", args! {});
    while running.running_calls() == 0 {
        tokio::task::yield_now().await;
    }
    let mut lookup = network.registry().lookup("one").await.unwrap();
    let stopped = Arc::new(AtomicBool::new(false));
    let is_stopped = Arc::clone(&stopped);
    let stop = tokio::spawn(async move {
        running.stop(Duration::from_secs(30)).await;
        is_stopped.store(true, Ordering::SeqCst);
    });
    lookup.wait_for(|instances| instances.is_empty()).await.unwrap();
    assert!(!stopped.load(Ordering::SeqCst), "a call still runs");
    gate.notify_one();
    assert_eq!(waiting.await.unwrap(), "done");
    stop.await.unwrap();
    let expected = [
        "part starts",
        "one starts",
        "two starts",
        "one called",
        "one answers",
        "two stops as two",
        "one stops as one",
        "part stops",
    ];
    assert_eq!(diary.read(), expected);
    assert!(matches!(
        one.timeout(Duration::from_millis(50)).call::<String>("wait", args! {}).await,
        Err(rpc::Error::NoneAlive { count: 0, .. })
    ));
}

#[tokio::test]
async fn who_leaves_begins_nothing_more_while_a_call_still_runs() {
    let (network, diary, gate) = (TestNetwork::new(), Diary::default(), Arc::new(Notify::new()));
    let running = network.start(noted(&diary, &gate, false)).await;
    let one = network.proxy("one").await.timeout(Duration::from_secs(30));
    let by_address = network.proxy("two").await.at(running.address());
    let waiting = one.defer::<String>("wait", args! {});
    while running.running_calls() == 0 {
        tokio::task::yield_now().await;
    }
    let stop = tokio::spawn(running.stop(Duration::from_secs(30)));
    let error = loop {
        match by_address.call::<()>("fail", args! {}).await.unwrap_err() {
            rpc::Error::Nack { .. } => tokio::task::yield_now().await,
            error => break error,
        }
    };
    assert!(matches!(error, rpc::Error::NotConnected { .. }), "{error}");
    assert!(!stop.is_finished(), "a call still runs");
    gate.notify_one();
    assert_eq!(waiting.await.unwrap(), "done");
    stop.await.unwrap();
}

#[tokio::test]
async fn a_stop_does_not_wait_longer_than_it_may() {
    let (network, diary, gate) = (TestNetwork::new(), Diary::default(), Arc::new(Notify::new()));
    let running = network.start(noted(&diary, &gate, false)).await;
    let waiting = network.proxy("one").await.defer::<String>("wait", args! {});
    while running.running_calls() == 0 {
        tokio::task::yield_now().await;
    }
    running.stop(Duration::from_millis(100)).await;
    assert!(waiting.await.is_err());
    assert_eq!(diary.read().last().unwrap(), "part stops");
}

#[tokio::test]
async fn what_cannot_start_takes_back_what_has_started() {
    let (diary, gate) = (Diary::default(), Arc::new(Notify::new()));
    let node = FakeNode::start().unwrap();
    let container = noted(&diary, &gate, true);
    let result = Builder::with_contract(node.contract()).without_logging().without_signals();
    let error = result.try_run(|worker| container.run(worker)).await.unwrap_err();
    assert_eq!(error.to_string(), "interface `two` did not start: it cannot");
    assert_eq!(
        diary.read(),
        ["part starts", "one starts", "two starts", "one stops as one", "part stops"]
    );
    assert!(
        node.beats().iter().all(|beat| beat.state == WorkerState::Starting),
        "it was never ready"
    );
}

#[tokio::test]
async fn components_hear_of_calls_that_failed() {
    let (network, diary, gate) = (TestNetwork::new(), Diary::default(), Arc::new(Notify::new()));
    let _running: Running = network.start(noted(&diary, &gate, false)).await;
    let failed = network.proxy("two").await.call::<()>("fail", args! {}).await;
    assert!(matches!(failed, Err(rpc::Error::Nack { .. })));
    assert_eq!(diary.read().last().unwrap(), "two.fail failed: as it must");
}

#[tokio::test]
async fn under_a_node_it_is_ready_when_it_serves_and_drains_when_it_is_told_to() {
    let (diary, gate) = (Diary::default(), Arc::new(Notify::new()));
    let node = FakeNode::start().unwrap();
    let container = noted(&diary, &gate, false);
    let service = Builder::with_contract(node.contract())
        .without_logging()
        .without_signals()
        .try_run(|worker| container.run(worker));
    let test = async {
        node.beat(|beat| beat.state == WorkerState::Ready).await;
        assert_eq!(diary.read(), ["part starts", "one starts", "two starts"]);
        node.shutdown("test", Duration::from_secs(10));
        node.beat(|beat| beat.state == WorkerState::Draining).await;
    };
    let (result, ()) = tokio::join!(service, test);
    result.unwrap();
    assert_eq!(diary.read().last().unwrap(), "part stops");
}

#[derive(Default)]
struct Clumsy;

#[interface]
impl Clumsy {
    async fn on_stop(&self) {
        panic!("it fell");
    }
}

impl Component for Clumsy {
    type Config = NeverRead;
    const TYPE: &'static str = "Clumsy";

    fn create(_: NeverRead) -> Result<Self> {
        Ok(Self)
    }

    async fn stop(&self) {
        panic!("it fell, too");
    }
}

#[tokio::test]
async fn who_panics_while_it_stops_keeps_nobody_from_stopping_and_the_end_is_no_good_one() {
    let diary = Diary::default();
    let node = FakeNode::start().unwrap();
    let container =
        noted(&diary, &Arc::default(), false).component(Clumsy).interface("last", Clumsy);
    let service = Builder::with_contract(node.contract())
        .without_logging()
        .without_signals()
        .try_run(|worker| container.run(worker));
    let test = async {
        node.beat(|beat| beat.state == WorkerState::Ready).await;
        node.shutdown("test", Duration::from_secs(10));
    };
    let (result, ()) = tokio::join!(service, test);
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "interface `last` panicked while it stopped: it fell");
    assert_eq!(error.exit_code(), std::process::ExitCode::FAILURE);
    let stops = diary.read().into_iter().filter(|text| text.contains("stop")).collect::<Vec<_>>();
    assert_eq!(stops, ["two stops as two", "one stops as one", "part stops"]);
}

#[derive(Default)]
struct Stumbling;

#[interface]
impl Stumbling {
    async fn on_start(&self) -> Result<()> {
        panic!("it tripped")
    }

    async fn on_stop(&self) {
        panic!("it never ran");
    }
}

impl Component for Stumbling {
    type Config = NeverRead;
    const TYPE: &'static str = "Stumbling";

    fn create(_: NeverRead) -> Result<Self> {
        Ok(Self)
    }

    async fn start(&self) -> Result<()> {
        panic!("it tripped, too")
    }
}

#[tokio::test]
async fn who_panics_while_it_starts_is_named_and_what_had_started_stops() {
    for (is_component, told, diary_has) in [
        (
            false,
            "interface `last` did not start: panicked: it tripped",
            &[
                "part starts",
                "one starts",
                "two starts",
                "two stops as two",
                "one stops as one",
                "part stops",
            ][..],
        ),
        (
            true,
            "`Stumbling` did not start: panicked: it tripped, too",
            &["part starts", "part stops"],
        ),
    ] {
        let diary = Diary::default();
        let node = FakeNode::start().unwrap();
        let container = noted(&diary, &Arc::default(), false);
        let container = if is_component {
            container.component(Stumbling)
        } else {
            container.interface("last", Stumbling)
        };
        let service = Builder::with_contract(node.contract()).without_logging().without_signals();
        let error = service.try_run(|worker| container.run(worker)).await.unwrap_err();
        assert_eq!(error.to_string(), told);
        assert_eq!(error.exit_code(), std::process::ExitCode::FAILURE);
        assert_eq!(diary.read(), diary_has);
    }
}

#[tokio::test]
async fn a_test_is_told_why_a_call_was_refused() {
    let network = TestNetwork::new();
    let diary = Diary::default();
    let noted = Noted { diary, name: "one", gate: Arc::default(), fails: false };
    network.serve("one", noted).await;
    let one = network.proxy("one").await;
    for (method, args) in [("fail", args! {}), ("fail", args! { more: 1 }), ("nothing", args! {})] {
        let error = one.call::<()>(method, args).await.unwrap_err();
        assert!(matches!(error, rpc::Error::Nack { .. }), "{error}");
    }
    let refusals = network.refusals();
    assert_eq!(refusals[0], "one.fail: as it must");
    assert!(refusals[1].starts_with("one.fail: ") && refusals[1].contains("more"), "{refusals:?}");
    assert_eq!(refusals[2], "one.nothing: there is no such interface, version or method");
}
