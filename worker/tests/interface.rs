//! Interfaces as their authors write them and their callers see them, in a network without sockets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hilum_worker::prelude::*;
use hilum_worker::testing::TestNetwork;
use hilum_worker::{CallError, Fault, Interface, Value, proxy, rpc};
use tokio::sync::Notify;
use tracing_subscriber::layer::SubscriberExt;

#[derive(Debug, PartialEq, thiserror::Error, Declared)]
enum StoreError {
    #[error("`{name}` is not there")]
    Missing { name: String },
    #[error("{0} are too many, {1} fit")]
    Full(u32, u32),
    #[error("closed")]
    Closed,
}

#[derive(Debug, PartialEq, thiserror::Error, Declared)]
#[error("{message}")]
struct Forbidden {
    message: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Item {
    name: String,
    #[serde(default)]
    size: Option<u32>,
}

/// A value that cannot be packed.
#[derive(Debug, Deserialize)]
struct Unsendable;

impl Serialize for Unsendable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("no"))
    }
}

#[derive(Debug, Default)]
struct Store {
    calls: AtomicUsize,
    gate: Arc<Notify>,
}

#[interface]
impl Store {
    /// Returns an item.
    ///
    ///   Indented, as an example is.
    #[rpc(raises(StoreError))]
    async fn get(&self, name: String) -> Result<Item, StoreError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match name.as_str() {
            "missing" => Err(StoreError::Missing { name }),
            "full" => Err(StoreError::Full(3, 2)),
            "closed" => Err(StoreError::Closed),
            _ => Ok(Item { name, size: None }),
        }
    }

    #[rpc(raises(StoreError, Forbidden), name = "put!")]
    async fn put(&self, ctx: &Context, item: Item, times: Option<u32>) -> Result<String> {
        match item.name.as_str() {
            "missing" => Err(StoreError::Missing { name: item.name }.into()),
            "mine" => Err(Forbidden { message: "not yours".into() }.into()),
            "odd" => Err("something else".into()),
            _ => Ok(format!("{} {times:?} {}", item.name, ctx.trace_id())),
        }
    }

    /// Needs no waiting.
    #[rpc]
    fn size(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    #[rpc]
    async fn crash(&self) {
        let nothing: Vec<u8> = Vec::new();
        let _ = nothing[self.size() + 1];
    }

    #[rpc]
    async fn unsendable(&self) -> Unsendable {
        Unsendable
    }

    #[rpc]
    async fn blob(&self, size: usize) -> String {
        "x".repeat(size)
    }

    #[rpc]
    async fn wait(&self) -> &'static str {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.gate.notified().await;
        "waited"
    }

    #[raw_rpc]
    async fn raw(&self, channel: ReplyChannel, how: String) {
        match how.as_str() {
            "ack" => channel.ack().await,
            "nack" => channel.nack().await,
            "reply" => channel.reply(&3).await,
            "error" => channel.error("Odd", "as it is").await,
            "raise" => channel.raise(&StoreError::Closed).await,
            "later" => {
                tokio::spawn(async move {
                    tokio::task::yield_now().await;
                    channel.reply("later").await;
                    channel.ack().await; // one too many is only logged
                });
            }
            _ => {}
        }
    }
}

async fn store() -> (TestNetwork, hilum_worker::Proxy, StoreProxy) {
    let network = TestNetwork::new();
    network.serve("store", Store::default()).await;
    let plain = network.proxy("store").await;
    let typed = StoreProxy::from(plain.clone());
    (network, plain, typed)
}

fn is_nack<T: std::fmt::Debug>(result: Result<T, rpc::Error>) -> bool {
    matches!(result, Err(rpc::Error::Nack { .. }))
}

#[tokio::test]
async fn a_typed_call_brings_what_the_method_returns() {
    let (_network, plain, typed) = store().await;
    assert_eq!(typed.get("a".into()).await.unwrap(), Item { name: "a".into(), size: None });
    assert_eq!(typed.size().await.unwrap(), 1);
    let traced = StoreProxy::from(plain.trace_id("t-1"));
    let item = || Item { name: "b".into(), size: Some(1) };
    assert_eq!(traced.put(item(), Some(2)).await.unwrap(), "b Some(2) t-1");
    assert_eq!(traced.put(item(), None).await.unwrap(), "b None t-1");
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_refused() {
    let (_network, plain, _) = store().await;
    let get = async |args: hilum_worker::Args| plain.call::<Value>("get", args).await;
    assert!(get(args! { name: "a" }).await.is_ok());
    assert!(is_nack(get(args! {}).await), "missing");
    assert!(is_nack(get(args! { name: "a", more: 1 }).await), "unknown");
    assert!(is_nack(get(args! { name: 3 }).await), "of another type");
    assert!(is_nack(plain.call::<Value>("get", [1]).await), "not a map");
    assert!(is_nack(plain.call::<Value>("got", args! {}).await), "no such method");
    // A parameter that is an `Option` may be left out.
    let item = Item { name: "c".into(), size: None };
    assert!(plain.call::<String>("put!", args! { item }).await.unwrap().starts_with("c None"));
}

#[tokio::test]
async fn declared_errors_come_back_as_what_they_were() {
    let (_network, plain, typed) = store().await;
    for (name, expected) in [
        ("missing", StoreError::Missing { name: "missing".into() }),
        ("full", StoreError::Full(3, 2)),
        ("closed", StoreError::Closed),
    ] {
        match typed.get(name.into()).await {
            Err(CallError::Declared(error)) => assert_eq!(error, expected),
            other => panic!("{other:?}"),
        }
    }
    // To those who do not know the type it is its name and its text, as in lymph.
    let error = plain.call::<Value>("get", args! { name: "full" }).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (Some("Full"), "Full: 3 are too many, 2 fit")
    );
}

#[tokio::test]
async fn of_several_error_types_each_is_told_apart() {
    let (_network, _, typed) = store().await;
    let put = async |name: &str| {
        typed.put(Item { name: name.into(), size: None }, None).await.unwrap_err()
    };
    match put("missing").await {
        CallError::Declared(StorePutError::StoreError(StoreError::Missing { name })) => {
            assert_eq!(name, "missing");
        }
        other => panic!("{other:?}"),
    }
    match put("mine").await {
        CallError::Declared(StorePutError::Forbidden(error)) => {
            assert_eq!(error.message, "not yours");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(put("odd").await, CallError::Failed(rpc::Error::Nack { .. })));
}

#[tokio::test]
async fn a_method_that_fails_undeclared_refuses_and_the_service_lives_on() {
    let (_network, plain, typed) = store().await;
    assert!(is_nack(plain.call::<Value>("crash", args! {}).await));
    assert!(is_nack(plain.call::<Value>("unsendable", args! {}).await));
    assert_eq!(typed.size().await.unwrap(), 0);
}

/// What errors were logged, their fields as texts.
#[derive(Clone, Default)]
struct Errors(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Errors {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if *event.metadata().level() == tracing::Level::ERROR {
            let mut text = String::new();
            event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
                let _ = write!(text, "{field}={value:?} "); // a String takes all
            });
            self.0.lock().expect("no test panics with it").push(text);
        }
    }
}

#[tokio::test]
async fn a_result_that_is_too_large_is_refused_and_the_service_says_why() {
    let errors = Errors::default();
    let subscriber = tracing_subscriber::registry().with(errors.clone());
    let _logged = tracing::subscriber::set_default(subscriber);
    let (_network, plain, typed) = store().await;
    assert!(is_nack(plain.call::<Value>("blob", args! { size: 70_000_000 }).await));
    let said = std::mem::take(&mut *errors.0.lock().unwrap());
    let [line] = said.as_slice() else { panic!("{said:?}") };
    assert!(line.contains("the result cannot be sent: refused"), "{line}");
    assert!(line.contains("it has 70000005 bytes") && line.contains("store.blob"), "{line}");
    assert_eq!(typed.size().await.unwrap(), 0);
}

#[tokio::test]
async fn raw_methods_answer_as_they_like() {
    let (_network, plain, typed) = store().await;
    let raw = async |how: &str| plain.call::<Value>("raw", args! { how }).await;
    assert_eq!(
        plain.request("raw", args! { how: "ack" }).await.unwrap().message.kind.as_str(),
        "ACK"
    );
    assert!(is_nack(raw("nack").await));
    assert_eq!(raw("reply").await.unwrap(), Value::Int(3));
    assert_eq!(raw("later").await.unwrap(), Value::Str("later".into()));
    assert_eq!(raw("error").await.unwrap_err().to_string(), "Odd: as it is");
    assert_eq!(raw("raise").await.unwrap_err().kind(), Some("Closed"));
    assert!(is_nack(raw("not at all").await), "nobody waits for what never comes");
    assert_eq!(typed.raw("ack".into()).await.unwrap(), Value::Nil);
}

#[tokio::test]
async fn a_deferred_call_is_under_way_at_once() {
    let network = TestNetwork::new();
    let gate = Arc::new(Notify::new());
    network.serve("store", Store { gate: Arc::clone(&gate), ..Store::default() }).await;
    let proxy = network.proxy("store").await;
    let waiting = proxy.defer::<String>("wait", args! {});
    let given_up = proxy.defer::<String>("wait", args! {});
    while proxy.call::<usize>("size", args! {}).await.unwrap() < 2 {}
    drop(given_up);
    gate.notify_waiters();
    assert_eq!(waiting.await.unwrap(), "waited");
}

/// Of a service that is written elsewhere.
#[proxy]
trait Billing {
    /// Takes the money.
    #[rpc(raises(Forbidden))]
    async fn charge(&self, amount: u32, card: Option<String>) -> Result<u32, Forbidden>;
    async fn refund(&self, amount: u32);
}

#[tokio::test]
async fn a_mock_answers_as_the_test_says_and_remembers() {
    let network = TestNetwork::new();
    let mock = network.mock("billing").await;
    let billing = BillingProxy::from(network.proxy("billing").await);
    mock.returns("charge", &7);
    assert_eq!(billing.charge(7, None).await.unwrap(), 7);
    mock.assert_called_once_with("charge", args! { amount: 7 });
    mock.raises("charge", &Forbidden { message: "no".into() });
    match billing.charge(8, Some("x".into())).await {
        Err(CallError::Declared(error)) => assert_eq!(error.message, "no"),
        other => panic!("{other:?}"),
    }
    mock.assert_called_with("charge", args! { card: "x", amount: 8 });
    mock.answers("charge", |args| match args.get("amount") {
        Some(Value::Int(amount)) => Ok(Value::Int(amount + 1)),
        _ => Err(Fault::new("Odd", "what?")),
    });
    assert_eq!(billing.charge(1, None).await.unwrap(), 2);
    let unprepared = billing.refund(1).await.unwrap_err().to_string();
    assert!(unprepared.contains("has not said what `billing.refund` answers"), "{unprepared}");
    mock.refuses("refund");
    assert!(matches!(billing.refund(1).await, Err(CallError::Failed(rpc::Error::Nack { .. }))));
    mock.assert_called_times("charge", 3);
    mock.forget();
    mock.assert_not_called("charge");
    let wrong = mock.clone();
    let panicked =
        std::panic::catch_unwind(move || wrong.assert_called_with("charge", args! { amount: 1 }));
    let text = panicked.unwrap_err().downcast_ref::<String>().unwrap().clone();
    assert!(text.contains("charge") && text.contains("was not called at all"), "{text}");
}

#[tokio::test]
async fn a_version_is_asked_for_and_said_when_there_is_none() {
    let network = TestNetwork::new();
    let both = hilum_worker::Container::new()
        .versioned("store", "1.2", Store { calls: AtomicUsize::new(12), ..Store::default() })
        .unwrap()
        .versioned("store", "2.0", Store { calls: AtomicUsize::new(20), ..Store::default() })
        .unwrap();
    let _running = network.start(both).await;
    let proxy = network.proxy("store").await;
    let size =
        async |version: &str| proxy.clone().version(version).call::<usize>("size", args! {}).await;
    assert_eq!(size("1.1").await.unwrap(), 12);
    assert_eq!(size("2").await.unwrap(), 20);
    let error = size("3.0").await.unwrap_err().to_string();
    assert!(error.contains("1.2.0, 2.0.0"), "{error}");
    assert!(size("one").await.unwrap_err().to_string().contains("`one` is no version"));
}

#[tokio::test]
async fn what_every_container_answers() {
    let (network, _, store) = store().await;
    let context = network.context().await;
    let address = network.registry().lookup("store").await.unwrap().instances()[0].endpoint.clone();
    let lymph = context.proxy("lymph").at(address.clone());
    let status: BTreeMap<String, String> = lymph.call("status", args! {}).await.unwrap();
    assert_eq!(status["endpoint"], address);
    let methods: BTreeMap<String, Vec<BTreeMap<String, Value>>> =
        lymph.call("inspect", args! {}).await.unwrap();
    let get = methods["methods"]
        .iter()
        .find(|method| method["name"].as_str() == Some("store.get"))
        .unwrap();
    assert_eq!(get["params"], Value::List(vec![Value::Str("name".into())]));
    assert_eq!(get["help"].as_str(), Some("Returns an item.\n\n  Indented, as an example is."));
    assert_eq!(lymph.call::<i32>("ping", args! { payload: 5 }).await.unwrap(), 5);
    store.get("full".into()).await.unwrap_err();
    let metrics: Vec<(String, f64, BTreeMap<String, Option<String>>)> =
        lymph.call("get_metrics", args! {}).await.unwrap();
    let calls = metrics
        .iter()
        .find(|(name, _, tags)| name == "rpc" && tags["subject"].as_deref() == Some("store.get"));
    let (_, count, tags) = calls.unwrap();
    assert_eq!((*count, tags["identity"].as_ref()), (1.0, Some(&status["identity"])));
    let level = args! { qualname: "", loglevel: "loud" };
    assert_eq!(
        lymph.call::<Value>("change_loglevel", level).await.unwrap_err().kind(),
        Some("LevelError")
    );
}

#[tokio::test]
async fn what_became_of_calls_is_counted_and_how_long_they_took() {
    let (network, _, store) = store().await;
    let context = network.context().await;
    let proxy = network.proxy("store").await;
    store.get("x".into()).await.unwrap();
    store.get("full".into()).await.unwrap_err();
    proxy.call::<Value>("get", args! { nme: "x" }).await.unwrap_err();
    proxy.call::<Value>("crash", args! {}).await.unwrap_err();
    proxy.call::<Value>("unsendable", args! {}).await.unwrap_err();
    for n in 0..3 {
        proxy.call::<Value>(&format!("nothing{n}"), args! {}).await.unwrap_err();
    }
    for how in ["ack", "error", "nack", "later", "nothing"] {
        let _ = proxy.call::<Value>("raw", args! { how: how }).await;
    }
    let short = proxy.clone().timeout(Duration::from_millis(50));
    short.call::<Value>("wait", args! {}).await.unwrap_err();

    let address = network.registry().lookup("store").await.unwrap().instances()[0].endpoint.clone();
    let lymph = context.proxy("lymph").at(address);
    let answers = async || -> (BTreeMap<String, f64>, BTreeMap<String, f64>) {
        let all: Vec<(String, f64, BTreeMap<String, Option<String>>)> =
            lymph.call("get_metrics", args! {}).await.unwrap();
        let text = |tags: &BTreeMap<String, Option<String>>, name: &str| {
            tags.get(name).cloned().flatten().unwrap_or_default()
        };
        let of = |wanted: &str| {
            let found = all.iter().filter(|(name, ..)| name == wanted);
            let named = found.map(|(_, value, tags)| {
                (format!("{} {}", text(tags, "subject"), text(tags, "outcome")), *value)
            });
            named.collect::<BTreeMap<_, _>>()
        };
        (of("rpc.answers"), of("rpc.seconds"))
    };
    let wanted = [
        ("store.crash nack", 1.0),
        ("store.get error", 1.0),
        ("store.get ok", 1.0),
        ("store.get refused", 1.0),
        ("store.raw error", 1.0),
        ("store.raw nack", 2.0),
        ("store.raw ok", 2.0),
        ("store.unsendable nack", 1.0),
        ("store.wait cancelled", 1.0),
        ("unknown refused", 3.0),
    ];
    let wanted: BTreeMap<String, f64> =
        wanted.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    // The end of a call that nobody waits for is seen a moment later.
    let (mut counts, mut seconds) = answers().await;
    for _ in 0..500 {
        if counts == wanted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        (counts, seconds) = answers().await;
    }
    assert_eq!(counts, wanted);
    assert!(seconds["store.wait "] >= 0.04, "{seconds:?}");
    assert!(seconds["store.get "] < 30.0, "{seconds:?}");
}

#[test]
fn the_table_of_methods_is_what_was_written() {
    let names: Vec<&str> = Store::METHODS.iter().map(|method| method.name).collect();
    assert_eq!(names, ["get", "put!", "size", "crash", "unsendable", "blob", "wait", "raw"]);
    let put = &Store::METHODS[1];
    let parameters: Vec<(&str, bool)> =
        put.parameters.iter().map(|it| (it.name, it.optional)).collect();
    assert_eq!(parameters, [("item", false), ("times", true)]);
    assert_eq!(put.raises.concat(), ["Missing", "Full", "Closed", "Forbidden"]);
    assert_eq!(Store::METHODS[7].parameters.len(), 1);
}

#[tokio::test]
async fn many_calls_run_at_once() {
    let network = TestNetwork::new();
    let gate = Arc::new(Notify::new());
    network.serve("store", Store { gate: Arc::clone(&gate), ..Store::default() }).await;
    let proxy = network.proxy("store").await.timeout(Duration::from_secs(30));
    let calls: Vec<_> = (0..50).map(|_| proxy.defer::<String>("wait", args! {})).collect();
    while proxy.call::<usize>("size", args! {}).await.unwrap() < 50 {}
    gate.notify_waiters();
    for call in calls {
        assert_eq!(call.await.unwrap(), "waited");
    }
}
