//! A process that serves what its configuration names: built, started, drained.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hilum_worker::prelude::*;
use hilum_worker::testing::{FakeNode, TestNetwork};
use hilum_worker::{
    Binary, Builder, Container, FailedCall, Overrides, Running, Section, ServiceOptions,
    WorkerState, load_config, rpc,
};
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

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PoolConfig {
    url: String,
    behind: Option<Dep<Pool>>,
}

struct Pool(PoolConfig);

impl Component for Pool {
    type Config = PoolConfig;
    const TYPE: &'static str = "Pool";

    fn create(config: PoolConfig) -> Result<Self> {
        if config.url.is_empty() { Err("a pool needs a `url`".into()) } else { Ok(Self(config)) }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ShopConfig {
    pool: Option<Dep<Pool>>,
    port: Option<u16>,
}

#[derive(Default)]
struct Shop {
    config: ShopConfig,
}

#[interface(config = ShopConfig)]
impl Shop {
    /// The urls of its pool and of the one behind it.
    #[rpc]
    async fn urls(&self) -> Vec<String> {
        let mut urls = Vec::new();
        let mut next = self.config.pool.as_deref();
        while let Some(pool) = next {
            urls.push(pool.0.url.clone());
            next = pool.0.behind.as_deref();
        }
        urls
    }

    #[rpc]
    async fn port(&self) -> Option<u16> {
        self.config.port
    }

    fn is_healthy(&self) -> bool {
        self.config.port.is_none()
    }
}

#[derive(Default)]
struct HttpThing;

#[interface]
impl HttpThing {}

fn binary() -> Binary {
    Binary::new("shops", "1.0.0").interface::<Shop>().interface::<HttpThing>().component::<Pool>()
}

fn config(text: &str) -> Section {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(".lymph.yml"), text).unwrap();
    load_config(&ServiceOptions { folder: folder.path().to_owned(), ..Default::default() }).unwrap()
}

fn build(text: &str) -> Result<Container, String> {
    let container = binary().container(&config(text), &Overrides::default(), &BTreeMap::new(), &[]);
    container.map_err(|problems| problems.to_string())
}

fn refused(text: &str) -> String {
    match build(text) {
        Ok(_) => panic!("taken: {text}"),
        Err(problems) => problems,
    }
}

#[tokio::test]
async fn a_configuration_names_interfaces_versions_and_what_they_share() {
    let text = "
dependencies:
  first: {class: Pool, url: one, behind: dep:second}
  second: {class: shops:Pool, url: two}
interfaces:
  shop@1.0: {class: shops:Shop, pool: dep:first}
  shop@2.0: {class: Shop, port: 80}
  http_thing:
";
    let network = TestNetwork::new();
    let running = network.start(build(text).unwrap()).await;
    assert!(!running.is_healthy(), "one of its interfaces is not");
    let shop = network.proxy("shop").await;
    let one = shop.clone().version("1");
    assert_eq!(one.call::<Vec<String>>("urls", args! {}).await.unwrap(), ["one", "two"]);
    let there = shop.clone().at(running.address());
    for (shop, asked) in [(&shop, "by name"), (&there, "by address")] {
        for (version, port) in [("1", None), ("2", Some(80))] {
            let found = shop.clone().version(version).call::<Option<u16>>("port", args! {}).await;
            assert_eq!(found.unwrap(), port, "{version} {asked}");
        }
        shop.clone().version("3").call::<Option<u16>>("port", args! {}).await.unwrap_err();
    }
    let found = network.registry().discover().await.unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["http_thing", "lymph", "shop"]);
    assert_eq!(found["shop"].len(), 2);
    // lymph's `discover --versions` cannot sort a service of which some instances have a version and some have none.
    assert_eq!(found["lymph"][0].version.as_deref(), Some("0.15.0"));
}

#[tokio::test]
async fn without_interfaces_it_serves_all_that_the_binary_has() {
    let network = TestNetwork::new();
    let _running = network.start(build("name: x").unwrap()).await;
    let found = network.registry().discover().await.unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["http_thing", "lymph", "shop"]);
}

#[test]
fn what_is_wrong_is_told_where_it_stands() {
    for (text, parts) in [
        (
            "interfaces: {a: {class: other:Shop}}",
            ["class of another binary: this is `shops`", "`shops:Shop`", ".lymph.yml:1:25"],
        ),
        ("interfaces: {a: {class: Shup}}", ["no class `Shup`", "`shops:Shop`", ".lymph.yml:1:25"]),
        ("interfaces: {a: {}}", ["`a` has no `class`", "`shops:HttpThing`", "interfaces.a"]),
        ("interfaces: {shop@x: {}}", ["`x` is no version", "name@1.2.0", "interfaces.shop@x"]),
        ("interfaces: {lymph: {class: Shop}}", ["cannot be the name", "", ""]),
        (
            "interfaces: {node@1.0: {class: Shop}}",
            ["`node` cannot be the name", "the node itself", ""],
        ),
        ("interfaces: {'*': {class: Shop}}", ["`*` cannot be the name", "", ""]),
        ("interfaces: {'a/b': {class: HttpThing}}", ["`a/b` cannot be the name", "", ""]),
        (
            "interfaces: {a@1.2: {class: HttpThing}, a@1.2.0: {class: HttpThing}}",
            ["stands twice", "interfaces.a@1.2", ""],
        ),
        (
            "interfaces: {shop: {pool: dep:gone}}",
            ["no `dependencies.gone`", "interfaces.shop.pool", ".lymph.yml:1:27"],
        ),
        ("interfaces: {shop: {pool: gone}}", ["expected `dep:`", "", ".lymph.yml:1:27"]),
        ("interfaces: {shop: {prt: 1}}", ["unknown key `prt`", "did you mean `port`?", ""]),
        (
            "dependencies: {p: {class: Pool}}\ninterfaces: {shop: {pool: dep:p}}",
            ["a pool needs a `url`", ":1)", "interfaces.shop.pool"],
        ),
        (
            "dependencies: {p: {class: Pool, url: u, behind: dep:q}, q: {class: Pool, url: u, behind: dep:p}}\ninterfaces: {shop: {pool: dep:p}}",
            ["need one another", "`p` needs `q` needs `p`", ""],
        ),
        ("components: {p: {class: Pool}}", ["a pool needs a `url`", "components.p", ""]),
        ("plugins: {p: {}}", ["`class` is missing", "`shops:Pool`", "plugins.p"]),
        (
            "components: {p: {class: Pool, url: 'dep:gone'}}",
            ["no `dependencies.gone`", "components.p.url", "dependencies: {gone: {class: "],
        ),
        (
            "container: {pool: {size: 0}}",
            ["never work on any call", "container.pool.size", ".lymph.yml:1:"],
        ),
        (
            "container: {registry: static}",
            ["`hosts` is missing", "container.registry", "hosts: {echo: "],
        ),
        ("container: {ip: here}", ["container.ip", ".lymph.yml:1:17", ""]),
        (
            "container: {rpc: {connection: {timeout: 0.5}}}",
            ["must be below", "container.rpc.connection", ""],
        ),
        (
            "container: {registry: {class: etcd}}",
            ["no registry `etcd`", "`embedded`", "container.registry.class"],
        ),
        (
            "container: {registry: {class: static, hosts: {a: nowhere}}}",
            ["nowhere", "container.registry.hosts", ""],
        ),
        ("container: {prt: 1}", ["unknown key `prt`", "did you mean `port`?", ""]),
    ] {
        let problems = refused(text);
        for part in parts {
            assert!(problems.contains(part), "{text}: no `{part}` in\n{problems}");
        }
    }
    let both = refused("interfaces: {a: {class: X}, b: {class: Y}}");
    assert!(both.contains("`X`") && both.contains("`Y`"), "all is told at once: {both}");
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
async fn a_test_network_names_versions_as_a_configuration_does_and_lets_services_leave() {
    let network = TestNetwork::new();
    let old = network.serve("shop@1.0", Shop::default()).await;
    network.serve("shop@2", Shop { config: ShopConfig { port: Some(2), pool: None } }).await;
    network.mock("prices@1.2").await.returns("of", &3);
    let found = network.registry().discover().await.unwrap();
    let versions = |name: &str| -> Vec<_> {
        found[name].iter().filter_map(|one| one.version.clone()).collect()
    };
    assert_eq!((versions("shop").len(), versions("prices")), (2, vec!["1.2.0".to_owned()]));
    let shop = network.proxy("shop").await;
    let port = async |version: &str| {
        let options = shop.clone().version(version).timeout(Duration::from_millis(500));
        options.call::<Option<u16>>("port", args! {}).await
    };
    assert_eq!((port("1").await.unwrap(), port("2").await.unwrap()), (None, Some(2)));
    assert!(old.is_healthy());
    old.stop().await;
    assert!(!old.is_healthy());
    let error = port("1").await.unwrap_err();
    assert!(matches!(error, rpc::Error::NoneCompatible { .. }), "{error}");
    assert_eq!(port("2").await.unwrap(), Some(2));
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

/// Says its trace in the log.
#[derive(Default)]
struct Traced;

#[interface]
impl Traced {
    #[rpc]
    async fn hello(&self) -> Option<String> {
        hilum_worker::trace::trace_id()
    }
}

#[tokio::test]
async fn the_task_of_a_call_knows_its_trace() {
    let network = TestNetwork::new();
    network.serve("traced", Traced).await;
    let proxy = network.proxy("traced").await.trace_id("abc");
    assert_eq!(
        proxy.call::<Option<String>>("hello", args! {}).await.unwrap().as_deref(),
        Some("abc")
    );
}

#[test]
fn the_configuration_names_the_event_system() {
    for good in [
        "container: {events: {class: embedded}}",
        "container: {events: {class: local}}",
        "container: {events: local}",
        "container: {events: {class: null}}",
        "container: {events: {class: 'lymph.events.null:NullEventSystem'}}",
        "container: {events: {class: 'lymph.events.kombu:KombuEventSystem', transport: amqp}}",
        "event_system: {class: 'lymph.events.local:LocalEventSystem'}",
    ] {
        build(good).unwrap_or_else(|problems| panic!("{good}: {problems}"));
    }
    let amqp = refused("container: {events: {class: amqp}}");
    assert!(amqp.contains("`amqp` is not supported yet"), "{amqp}");
    let other = refused("container: {events: {class: rabbit}}");
    assert!(other.contains("`embedded` (the node's), `local` and `null`"), "{other}");
    let key = refused("container: {events: {class: local, host: here}}");
    assert!(key.contains("host"), "{key}");
}
