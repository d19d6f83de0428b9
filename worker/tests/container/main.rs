//! A process that serves what its configuration names: built, started, drained.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod life;

use std::collections::BTreeMap;
use std::time::Duration;

use hilum_worker::prelude::*;
use hilum_worker::testing::TestNetwork;
use hilum_worker::{Binary, Container, Overrides, Section, ServiceOptions, load_config, rpc};

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
