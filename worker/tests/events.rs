//! Events, tasks and their handlers, in a network without sockets.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hilum_worker::prelude::*;
use hilum_worker::testing::TestNetwork;
use hilum_worker::{Container, Value, events};
use tokio::sync::{Semaphore, mpsc};

/// What handlers have seen, in order.
type Seen = Arc<Mutex<Vec<String>>>;

/// Emits.
#[derive(Default)]
struct Shop;

#[interface]
impl Shop {
    #[rpc]
    async fn buy(&self, ctx: &Context, item: String) -> Result<()> {
        ctx.emit("order.paid", args! { item: &item, price: 5 }).header("shop", "a").await?;
        Ok(())
    }
}

/// Hears.
#[derive(Default)]
struct Stock {
    seen: Seen,
    tries: AtomicU32,
}

impl Stock {
    fn note(&self, text: String) {
        self.seen.lock().unwrap().push(text);
    }
}

#[interface]
impl Stock {
    #[event("order.paid")]
    async fn on_paid(&self, ctx: &Context, item: String, note: Option<String>) {
        assert_eq!(ctx.interface(), "stock");
        self.note(format!("{item} {note:?} {}", ctx.trace_id()));
    }

    #[event("order.*", "user.#", queue = "all", sequential)]
    async fn on_any(&self, event: &Event) -> Result<()> {
        self.note(format!("any {}", event.kind));
        Ok(())
    }

    #[event("shaky", retry = 2)]
    async fn on_shaky(&self, event: Event) -> Result<()> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        let left = event.header("retry_count").cloned();
        self.note(format!("shaky {left:?}"));
        if event.body == Value::Str("panic".into()) { panic!("as asked") } else { Err("no")? }
    }

    #[event("cache.clear", broadcast)]
    async fn on_clear(&self) {
        self.note("cleared".into());
    }

    #[event("first", once)]
    fn on_first(&self) {
        self.note("first".into());
    }
}

fn stock(seen: &Seen) -> Stock {
    Stock { seen: Arc::clone(seen), ..Stock::default() }
}

fn sorted(seen: &Seen) -> Vec<String> {
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    seen.sort();
    seen
}

#[tokio::test]
async fn a_handler_gets_what_it_takes_of_the_body_under_the_emitters_trace() {
    let (network, seen) = (TestNetwork::new(), Seen::default());
    network.serve("shop", Shop).await;
    network.serve("stock", stock(&seen)).await;
    let shop = network.proxy("shop").await.trace_id("t-1");
    shop.call::<()>("buy", args! { item: "tea" }).await.unwrap();
    let events = network.events();
    events.idle().await;
    assert_eq!(sorted(&seen), ["any order.paid", "tea None t-1"]);
    events.assert_emitted("order.paid", args! { price: 5, item: "tea" });
    events.assert_not_emitted("user.#");
    let emitted = events.emitted();
    assert_eq!(emitted[0].header("shop").and_then(Value::as_str), Some("a"));
    assert!(emitted[0].source.is_some());
}

#[tokio::test]
#[should_panic(
    expected = "`order.paid` {\"item\": \"milk\"} was not emitted; emitted were: `order.paid` {\"item\": \"tea\""
)]
async fn a_failed_assertion_says_what_was_emitted() {
    let network = TestNetwork::new();
    let context = network.context().await;
    context.emit("order.paid", args! { item: "tea" }).await.unwrap();
    network.events().assert_emitted("order.paid", args! { item: "milk" });
}

#[tokio::test]
async fn each_event_goes_to_one_instance_and_a_broadcast_to_all() {
    let (network, seen) = (TestNetwork::new(), Seen::default());
    for _ in 0..3 {
        network.serve("stock", stock(&seen)).await;
    }
    let events = network.events();
    events.emit("order.paid", args! { item: "tea" }).await;
    events.emit("cache.clear", ()).await;
    for _ in 0..2 {
        events.emit("first", ()).await;
    }
    events.idle().await;
    let seen = sorted(&seen);
    let count = |text: &str| seen.iter().filter(|line| line.starts_with(text)).count();
    assert_eq!(
        (count("tea"), count("any"), count("cleared"), count("first")),
        (1, 1, 3, 3),
        "{seen:?}"
    );
}

#[tokio::test]
async fn a_failure_is_tried_again_as_often_as_it_asks_for_and_a_panic_is_one() {
    for body in ["fail", "panic"] {
        let (network, seen) = (TestNetwork::new(), Seen::default());
        network.serve("stock", stock(&seen)).await;
        let events = network.events();
        events.emit("shaky", body).await;
        events.idle().await;
        assert_eq!(sorted(&seen), ["shaky None", "shaky Some(Int(0))", "shaky Some(Int(1))"]);
        events.emit("order.paid", args! { item: "after it" }).await;
        events.idle().await;
        assert!(sorted(&seen).iter().any(|line| line.starts_with("after it")), "it works on");
        events.assert_not_emitted("shaky");
    }
}

/// Works slowly.
struct Slow {
    begun: mpsc::UnboundedSender<u32>,
    leave: Arc<Semaphore>,
}

#[interface]
impl Slow {
    fn from_config(_: hilum_worker::NoConfig) -> Result<Self> {
        Err("made by hand")?
    }

    #[event("work", prefetch = 2)]
    async fn on_work(&self, number: u32) {
        self.begun.send(number).unwrap();
        self.leave.acquire().await.unwrap().forget();
    }
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_others_get_the_rest() {
    let network = TestNetwork::new();
    let slow = || {
        let (begun, log) = mpsc::unbounded_channel();
        let leave = Arc::new(Semaphore::new(0));
        (Slow { begun, leave: Arc::clone(&leave) }, log, leave)
    };
    let (first, mut first_log, first_leave) = slow();
    let first = network.start(Container::new().interface("slow", first)).await;
    for number in 1..=3_u32 {
        network.events().emit("work", args! { number }).await;
    }
    assert_eq!((first_log.recv().await, first_log.recv().await), (Some(1), Some(2)));
    let (second, mut second_log, second_leave) = slow();
    let _second = network.start(Container::new().interface("slow", second)).await;
    assert_eq!(second_log.recv().await, Some(3), "the third waits for nobody");
    let stopping = tokio::spawn(first.stop(Duration::from_secs(30)));
    network.events().emit("work", args! { number: 4 }).await;
    assert_eq!(second_log.recv().await, Some(4), "nothing new for one that leaves");
    first_leave.add_permits(1);
    network.events().emit("work", args! { number: 5 }).await;
    assert!(!stopping.is_finished(), "one handler still runs");
    first_leave.add_permits(1);
    stopping.await.unwrap();
    second_leave.add_permits(3);
    network.events().idle().await;
    assert_eq!(second_log.recv().await, Some(5));
    assert!(first_log.recv().await.is_none(), "and none was begun twice");
}

#[tokio::test]
async fn what_is_not_done_at_the_end_of_a_drain_goes_to_another() {
    let network = TestNetwork::new();
    let (begun, mut log) = mpsc::unbounded_channel();
    let leave = Arc::new(Semaphore::new(0));
    let slow = || Slow { begun: begun.clone(), leave: Arc::clone(&leave) };
    let first = network.start(Container::new().interface("slow", slow())).await;
    network.events().emit("work", args! { number: 1 }).await;
    assert_eq!(log.recv().await, Some(1));
    first.stop(Duration::ZERO).await;
    network.serve("slow", slow()).await;
    assert_eq!(log.recv().await, Some(1), "again, by another");
}

/// Has tasks.
#[derive(Default)]
struct Job {
    seen: Seen,
}

#[interface]
impl Job {
    /// Queues.
    #[rpc]
    async fn begin(&self, ctx: &Context, n: u32) -> Result<()> {
        JobTasks::from(ctx).work(n, None).await?;
        Ok(())
    }

    /// Works.
    #[task(retry = 1)]
    async fn work(&self, ctx: &Context, n: u32, text: Option<String>) {
        self.seen.lock().unwrap().push(format!("{} {n} {text:?}", ctx.interface()));
    }

    #[event("x")]
    async fn on_x(&self) {
        self.seen.lock().unwrap().push("x".to_owned());
    }
}

#[tokio::test]
async fn tasks_are_done_by_workers_only_and_workers_do_nothing_else() {
    let (network, seen) = (TestNetwork::new(), Seen::default());
    let job = || Job { seen: Arc::clone(&seen) };
    network.serve("job", job()).await;
    network.work("job", job()).await;
    network.proxy("job").await.call::<()>("begin", args! { n: 7 }).await.unwrap();
    let context = network.context().await;
    context.task("job.work", args! { n: 8, text: "by hand" }).await.unwrap();
    let events = network.events();
    events.emit("x", ()).await;
    events.idle().await;
    assert_eq!(sorted(&seen), ["job.worker 7 None", "job.worker 8 Some(\"by hand\")", "x"]);
    events.assert_emitted("lymph.tasks.job.work", args! { n: 7 });
    let registered = network.registry().discover().await.unwrap();
    assert!(registered.contains_key("job.worker"), "{:?}", registered.keys());
}

#[tokio::test]
async fn an_event_that_cannot_be_packed_is_an_error_when_it_is_awaited() {
    let network = TestNetwork::new();
    let context = network.context().await;
    let error = context.emit("", 7).await.unwrap_err();
    assert!(matches!(error, events::EventError::Kind { .. }), "{error}");
    let delayed = context.emit("later", 7).delay(Duration::from_millis(1));
    assert!(format!("{delayed:?}").contains("later"));
    delayed.await.unwrap();
    let nested = |levels: usize| (0..levels).fold(Value::Nil, |inner, _| Value::List(vec![inner]));
    context.emit("deep", nested(62)).await.unwrap();
    for levels in [63, 64, 65, 100] {
        let error = context.emit("deep", nested(levels)).await.unwrap_err();
        assert!(matches!(error, events::EventError::Body { .. }), "{error}");
        assert!(error.to_string().contains("deeper than 64 levels"), "{error}");
    }
}
