//! What a configuration means: files in, a cluster out.

#![allow(clippy::unwrap_used, reason = "this is test code")]

#[path = "config_support/mod.rs"]
mod config_support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use config_support::Project;
use hilum_shared::config::spec::{AliveKind, Condition, Kind, Probe, ReadyKind, RestartWhen};
use hilum_shared::config::{LoadOptions, Loaded, find_in, load, lookup, render, schema, starter};
use hilum_shared::registry::Choice;
use proptest::prelude::*;

fn loaded(project: &Project) -> Loaded {
    project.load().unwrap_or_else(|wrong| panic!("{wrong}"))
}

fn words(loaded: &Loaded, service: &str) -> Vec<String> {
    let service = loaded.cluster.service(service).unwrap();
    service.launch.command.iter().map(|word| word.source().to_owned()).collect()
}

fn env(loaded: &Loaded, service: &str, name: &str) -> Option<String> {
    let value = loaded.cluster.service(service).unwrap().launch.env.get(name)?;
    Some(value.value.as_ref()?.source().to_owned())
}

#[test]
fn the_example_of_the_reference_loads() {
    let project = Project::new(
        "name: shop\nenv: {RUST_LOG: info}\ninstances:\n  echo:\n    command: ./echo --config='conf/my echo.yml'\n    numprocesses: 10\n  demo:\n    command: [python3, demo.py]\n    depends_on: [echo]\nsockets: [{host: 127.0.0.1, port: 4080}]\n",
    );
    let loaded = loaded(&project);
    let cluster = &loaded.cluster;
    assert_eq!(cluster.name, "shop");
    let echo = cluster.service("echo").unwrap();
    assert_eq!(words(&loaded, "echo"), ["./echo", "--config=conf/my echo.yml"]);
    assert_eq!(echo.numprocesses, 10);
    assert_eq!(echo.policy.kind, Kind::Service);
    assert_eq!(echo.policy.restart.when, RestartWhen::Always);
    assert_eq!(echo.launch.env["RUST_LOG"].origin, "hilum.yml:2");
    assert_eq!(echo.launch.sockets, cluster.sockets[..1]);
    let demo = cluster.service("demo").unwrap();
    assert_eq!(demo.policy.depends_on[0].condition, Condition::Started);
    assert_eq!(demo.policy.ready, None);
    assert_eq!(loaded.notes.0.len(), 1, "{}", loaded.notes);
}

#[test]
fn includes_come_first_overrides_last_and_maps_merge_deeply() {
    let project = Project::new("include: [sub/base.yml]\ninstances: {web: {numprocesses: 2, env: {B: two}}}\n")
        .file("sub/base.yml", "include: deeper.yml\ninstances: {web: {command: base, numprocesses: 1, env: {A: one, B: one}, env_file: base.env}}\n")
        .file("sub/base.env", "C=from file\n")
        .file("sub/deeper.yml", "instances: {deep: {command: d}}\n")
        .file("hilum.override.yml", "instances: {web: {env: {A: null, D: 4}}, deep: {command: over}}\n");
    let loaded = loaded(&project);
    let web = loaded.cluster.service("web").unwrap();
    assert_eq!((words(&loaded, "web"), web.numprocesses), (vec!["base".to_owned()], 2));
    assert!(web.launch.env["A"].value.is_none());
    assert_eq!(env(&loaded, "web", "B").unwrap(), "two");
    assert_eq!(env(&loaded, "web", "C").unwrap(), "from file");
    assert_eq!(env(&loaded, "web", "D").unwrap(), "4");
    assert_eq!(words(&loaded, "deep"), ["over"]);
    let names: Vec<_> =
        loaded.cluster.files.iter().map(|f| f.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["hilum.yml", "base.yml", "deeper.yml", "hilum.override.yml"]);
}

#[test]
fn variables_keep_their_type_and_are_never_read_twice() {
    let mut project = Project::new("instances:\n  web:\n    command: [run, $(env.TRICKY), 'a $(var.words.one) b', \"$$(x)\"]\n    numprocesses: $(env.COUNT)\n    restart: $(var.restart)\n    env: {EMPTY: $(env.EMPTY), HOME2: $(env.HOME)/x, D: '$(env.EMPTY:-dflt)', V: 1.10}\n    labels: {a: $$(b)}\n")
        .file("vars.yml", "words: {one: $(env.COUNT)}\nrestart: {policy: never}\n")
        .file(".env", "COUNT=9\nHOME=/wrong\n")
        .file("more.env", "COUNT=3\n")
        .env("TRICKY", "$(instance.id)")
        .env("EMPTY", "");
    project.options.vars = Some(project.path("vars.yml"));
    project.options.env_files = vec![project.path("more.env")];
    let loaded = loaded(&project);
    let web = loaded.cluster.service("web").unwrap();
    assert_eq!(words(&loaded, "web"), ["run", "$$(instance.id)", "a 3 b", "$$(x)"]);
    assert_eq!(web.numprocesses, 3);
    assert_eq!(web.policy.restart.when, RestartWhen::Never);
    assert_eq!(env(&loaded, "web", "EMPTY").unwrap(), "");
    assert_eq!(env(&loaded, "web", "HOME2").unwrap(), "/home/u/x");
    assert_eq!(env(&loaded, "web", "D").unwrap(), "dflt");
    assert_eq!(env(&loaded, "web", "V").unwrap(), "1.10");
    assert_eq!(web.policy.labels["a"], "$(b)");
}

#[test]
fn lymph_vars_names_the_variables_file() {
    let project = Project::new("instances: {web: {command: $(var.run)}}\n")
        .file("v.yml", "run: [a, b]\n")
        .env("LYMPH_VARS", "v.yml");
    assert_eq!(words(&loaded(&project), "web"), ["a", "b"]);
}

#[test]
fn defaults_lie_under_each_instance_and_a_kind_takes_the_place_of_another() {
    let project = Project::new(
        "defaults: {command: base, ready: {http: 'http://x/', within: 5s}, stop: {timeout: 3s}}\ninstances:\n  a:\n  b: {ready: {tcp: 'h:80'}, stop: {signal: INT}}\n  c: {ready: null}\n",
    );
    let loaded = loaded(&project);
    let ready = |name: &str| loaded.cluster.service(name).unwrap().policy.ready.clone();
    assert!(matches!(ready("a").unwrap().kind, ReadyKind::Probe(Probe::Http(_))));
    let b = ready("b").unwrap();
    assert!(matches!(b.kind, ReadyKind::Probe(Probe::Tcp(_))));
    assert_eq!(b.within, Duration::from_secs(5));
    assert_eq!(loaded.cluster.service("b").unwrap().policy.stop.timeout, Duration::from_secs(3));
    assert_eq!(ready("c"), None);
}

#[test]
fn anchors_merge_keys_and_free_keys_work() {
    let project = Project::new(
        "\u{feff}x-a: &a {numprocesses: 2, tty: true}\nx-b: &b {tty: false, nice: 3}\ninstances:\n  x-free: &c {command: c}\n  web: {<<: [*a, *b, *c], nice: 5, x-note: mine}\n",
    );
    let loaded = loaded(&project);
    assert_eq!(loaded.cluster.services.len(), 1);
    let web = loaded.cluster.service("web").unwrap();
    assert_eq!((web.numprocesses, web.launch.tty, web.launch.nice), (2, true, Some(5)));
}

#[test]
fn heartbeats_take_the_nodes_times_and_probes_their_own() {
    let project = Project::new(
        "node: {heartbeat: {interval: 2s, timeout: 9s}}\ninstances:\n  a: {command: x, alive: heartbeat}\n  b: {command: x, alive: {exec: 'check it'}}\n",
    );
    let loaded = loaded(&project);
    let alive = |name: &str| loaded.cluster.service(name).unwrap().policy.alive.clone().unwrap();
    assert_eq!(alive("a").kind, AliveKind::Heartbeat);
    assert_eq!(
        (alive("a").interval, alive("a").timeout),
        (Duration::from_secs(2), Duration::from_secs(9))
    );
    assert_eq!(
        (alive("b").interval, alive("b").timeout),
        (Duration::from_secs(1), Duration::from_secs(1))
    );
}

#[test]
fn what_is_shown_has_the_restart_policy_that_the_kind_brings() {
    let loaded = loaded(&Project::new(
        "instances:\n  a: {command: x}\n  b: {command: x, kind: job}\n  c: {command: x, restart: never}\n",
    ));
    let policies = ["a", "b", "c"].map(|name| {
        loaded.resolved["instances"][name]["restart"]["policy"].as_str().unwrap().to_owned()
    });
    assert_eq!(policies, ["always", "on-failure", "never"]);
}

#[test]
fn profiles_say_what_up_starts() {
    let project = Project::new(
        "instances:\n  a: {command: x}\n  b: {command: x, profiles: [dev]}\n  c: {command: x, autostart: false}\n",
    );
    let cluster = loaded(&project).cluster;
    let enabled = |name: &str, chosen: &[&str]| {
        let chosen: Vec<String> = chosen.iter().map(|&c| c.to_owned()).collect();
        cluster.service(name).unwrap().enabled(&chosen)
    };
    assert!(
        enabled("a", &[])
            && !enabled("b", &[])
            && enabled("b", &["dev"])
            && !enabled("c", &["dev"])
    );
}

#[test]
fn a_dependency_waits_for_what_the_other_can_give() {
    let project = Project::new(
        "instances:\n  a: {command: x, depends_on: [job, ready, plain]}\n  job: {command: x, kind: job}\n  ready: {command: x, ready: notify}\n  plain: {command: x}\n",
    );
    let cluster = loaded(&project).cluster;
    let conditions: Vec<_> =
        cluster.service("a").unwrap().policy.depends_on.iter().map(|d| d.condition).collect();
    assert_eq!(conditions, [Condition::Completed, Condition::Ready, Condition::Started]);
}

#[test]
fn what_is_shown_means_the_same_when_it_is_read_again() {
    let project = Project::new(
        "env: {A: 1.10, B: 'true', C: $$(x)}\ninstances:\n  web: {command: 'run \"a b\"', restart: never, watch: ['*.py'], ready: notify, numprocesses: 2, ports: {p: 80, q: auto}, umask: '022', labels: {v: '1e3'}}\n  db: {command: x, shell: true, depends_on: [web]}\n",
    );
    means_the_same(&project);
    let resolved = loaded(&project).resolved;
    assert_eq!(lookup(&resolved, "instances.web.restart.policy").unwrap(), "never");
    assert_eq!(lookup(&resolved, "instances.web.watch.paths.0").unwrap(), "*.py");
    assert_eq!(lookup(&resolved, "instances.nobody"), None);
}

/// What is shown of a configuration, put anywhere, is valid, is not complained of, and means the same.
#[track_caller]
fn means_the_same(project: &Project) {
    let first = loaded(project);
    let shown = render(&first.resolved);
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("shown.yml");
    std::fs::write(&file, &shown).unwrap();
    let options =
        LoadOptions { files: vec![file], env: BTreeMap::new(), ..project.options.clone() };
    let second = match load(&options) {
        Ok(loaded) => loaded,
        Err(errors) => panic!("{}\n{shown}", errors.render(false)),
    };
    let words = |loaded: &Loaded| -> Vec<String> {
        loaded.warnings.0.iter().map(|warning| warning.message.clone()).collect()
    };
    assert_eq!(words(&first), words(&second), "{shown}");
    assert!(second.resolved == first.resolved, "{shown}\n---\n{}", render(&second.resolved));
    let mut pair = [first, second].map(|loaded| (*loaded.cluster).clone());
    for cluster in &mut pair {
        cluster.files.clear();
        cluster.content = 0; // of the texts, which differ
        cluster.warnings.clear(); // they say where
        for service in cluster.services.values_mut() {
            for value in std::sync::Arc::make_mut(service).launch.env.values_mut() {
                value.origin.clear();
            }
        }
    }
    assert_eq!(pair[0], pair[1], "{shown}");
}

#[test]
fn what_is_shown_of_files_that_include_one_another_means_the_same_anywhere() {
    let project = Project::new(
        "include: [common/base.yml, common/more/db.yml]\nenv_file: top.env\ndefaults: {env_file: [every.env]}\ninstances:\n  web: {command: './web $(env.HOME)', env: {RAW: '$(env.RAW)', HOME: null}}\n  api: {env_file: [own.env]}\n",
    )
    .file("top.env", "TOP=top")
    .file("every.env", "EVERY=every")
    .file("own.env", "OWN='$(port.x) $$(y)'")
    .file("common/base.env", "BASE=base\nOWN=base")
    .file("common/more/db.env", "DB=db")
    .file("common/base.yml", "env_file: base.env\ninstances: {api: {command: ./api, env_file: base.env}}\n")
    .file("common/more/db.yml", "instances: {db: {command: ./db, env_file: [db.env, ../base.env], restart: {delay: 1s}, ready: {log: 'a\\$\\(b\\)'}}}\n")
    .env("RAW", "$(env.HOME) $$(x) $(port.http)");
    let first = loaded(&project).cluster;
    let value = |service: &str, name: &str| {
        let value = first.service(service).unwrap().launch.env.get(name).cloned().unwrap().value;
        format!("{:?}", value.unwrap())
    };
    assert!(value("db", "DB").contains("db") && value("db", "BASE").contains("base"));
    means_the_same(&project);
}

#[test]
fn what_is_shown_of_the_samples_means_the_same() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf");
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let file = entry.unwrap().path();
        // A demo that ran leaves its state folder there.
        if file.extension().is_none_or(|end| end != "yml")
            || !std::fs::read_to_string(&file).unwrap().contains("instances:")
        {
            continue;
        }
        let mut project = Project::new("");
        project.options.files = vec![file];
        project.options.project_dir.clone_from(&folder);
        means_the_same(&project);
        seen += 1;
    }
    assert!(seen >= 2, "{seen}");
}

#[test]
fn a_file_of_lymph_works_unchanged() {
    let project = Project::new(
        "container: {ip: 127.0.0.1, pool: {size: 5}, pool_size: 5, rpc: {port: 3000}, registry: {class: 'lymph.discovery.zookeeper:ZookeeperServiceRegistry', zkclient: {hosts: '$(env.ZK:-zk:2181)'}}}\nregistry: {class: 'lymph.discovery.static:StaticServiceRegistryHub'}\nevent_system: {class: old}\ninterfaces: {echo: {class: 'a:B', x: $(var.nothing)}}\nplugins: {a: b}\nlogging: {version: 1}\ndebug: {backdoor_ip: 127.0.0.1}\ninstances:\n  echo:\n    command: lymph instance --config=conf/echo.yml\n    numprocesses: 10\nsockets:\n  web: {port: 4080}\n",
    )
    .rename("hilum.yml", ".lymph.yml");
    let loaded = loaded(&project);
    assert_eq!(words(&loaded, "echo"), ["lymph", "instance", "--config=conf/echo.yml"]);
    let socket = &loaded.cluster.sockets[0];
    assert_eq!(
        (socket.name.as_str(), socket.host.as_str(), socket.port),
        ("web", "127.0.0.1", 4080)
    );
    assert!(loaded.warnings.0.is_empty(), "{}", loaded.warnings);
    assert_eq!(loaded.cluster.container.registry, Choice::ZooKeeper("zk:2181".to_owned()));
    // What belongs to services is shown as it was written.
    let shown = lookup(&loaded.resolved, "interfaces.echo.x").unwrap();
    assert_eq!(shown, "$(var.nothing)");
}

/// Node, services and command line meet in the registry that the file names, by our words or lymph's.
#[cfg(feature = "zookeeper")]
#[test]
fn the_registry_is_read_in_every_spelling() {
    let registry = |yaml: &str| loaded(&Project::new(yaml)).cluster.container.registry.clone();
    let zookeeper = |hosts: &str| Choice::ZooKeeper(hosts.to_owned());
    assert_eq!(registry("instances: {}"), Choice::Embedded);
    assert_eq!(registry("container: {registry: embedded}"), Choice::Embedded);
    assert_eq!(
        registry("container: {registry: {class: zookeeper, hosts: 'a:1,b/x'}}"),
        zookeeper("a:1,b:2181/x")
    );
    assert_eq!(
        registry(
            "registry: {class: 'lymph.discovery.zookeeper:ZookeeperServiceRegistry', zkclient: 'dep:kz'}\ndependencies: {kz: {class: 'kazoo.client:KazooClient', hosts: '$(env.HOSTS:-c:3)'}, other: {x: $(env.NOT_SET)}}"
        ),
        zookeeper("c:3")
    );
    // What only a service's environment has is the service's to say.
    let Choice::Static(hosts) = registry(
        "container: {registry: {class: static, hosts: {echo@1.2: ['tcp://127.0.0.1:1', 'tcp://127.0.0.1:$(port.rpc)'], b: $(env.NOT_SET)}}}",
    ) else {
        panic!("a fixed list")
    };
    assert_eq!(hosts["echo"], [("tcp://127.0.0.1:1".to_owned(), Some("1.2".to_owned()))]);
    assert_eq!(hosts.len(), 1);
}

#[test]
fn the_nearest_config_is_found() {
    let project =
        Project::new("").file(".hilum.yml", "").file("a/b/.lymph.yml", "").file("a/c/x", "");
    let find = |start: PathBuf| start.ancestors().find_map(find_in);
    assert_eq!(find(project.path("a/b")), Some(project.path("a/b/.lymph.yml")));
    assert_eq!(find(project.path("a/c")), Some(project.path("hilum.yml")));
}

/// Loads a text as the only file of a project with the variables that examples use.
fn example(text: &str) -> Loaded {
    let project = Project::new(text);
    project.load().unwrap_or_else(|wrong| panic!("{wrong}\nin\n{text}"))
}

#[test]
fn the_starter_and_all_examples_of_the_reference_load() {
    assert!(example(starter()).warnings.0.is_empty());
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/config.md");
    let text = std::fs::read_to_string(docs).unwrap();
    let examples: Vec<&str> =
        text.split("```yaml\n").skip(1).filter_map(|part| part.split("```").next()).collect();
    assert!(examples.len() >= 6);
    for text in examples {
        example(text);
    }
    assert_eq!(schema()["title"], "hilum configuration");
}

#[test]
fn two_thousand_services_load_at_once() {
    let mut text = "defaults: {stop: {timeout: 3s}}\ninstances:\n".to_owned();
    for index in 0..2000 {
        let before = index / 2;
        let _ = write!(
            text,
            "  service-{index}:\n    command: ./run --index {index}\n    numprocesses: 2\n    env: {{A: b}}\n"
        );
        if index > 0 {
            let _ = writeln!(text, "    depends_on: [service-{before}]");
        }
    }
    let project = Project::new(&text);
    let start = Instant::now();
    assert_eq!(loaded(&project).cluster.services.len(), 2000);
    // Well below a second on an idle machine; the limit only catches what is quadratic.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

fn everything() -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../conf/everything.yml");
    std::fs::read(path).unwrap()
}

fn load_bytes(bytes: &[u8]) {
    let project = Project::new("")
        .file("hilum.yml", bytes)
        .file("included.yml", "env: {A: b}\n")
        .file("everything.env", "A=1\n");
    let options = LoadOptions { ..project.options.clone() };
    match load(&options) {
        Ok(loaded) => drop(render(&loaded.resolved)),
        Err(wrong) => drop(wrong.render(true)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        load_bytes(&bytes);
    }

    #[test]
    fn random_yaml_never_panics(text in "([a-z]{1,3}|[:{}\\[\\],&*!|>'\"%@`#~ \n\t-]|: |- |<<: |\\$\\(|\\)|\n  ){0,120}") {
        load_bytes(text.as_bytes());
    }

    #[test]
    fn a_config_with_random_changes_never_panics(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..8)) {
        let mut bytes = everything();
        for (at, byte, what) in changes {
            let at = at.index(bytes.len());
            match what {
                0 => bytes[at] = byte,
                1 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        load_bytes(&bytes);
    }
}

#[test]
fn interfaces_have_no_names_that_others_need() {
    let text = |name: &str, class: &str| {
        format!(
            "instances: {{web: {{command: x}}}}\ninterfaces: {{'{name}': {{class: '{class}'}}}}\n"
        )
    };
    for bad in ["node", "lymph", "node@1.0", "*", "a/b", "a b"] {
        let complaints = Project::new(&text(bad, "shop:Shop")).complaints();
        assert!(complaints.contains("cannot be the name of an interface"), "{bad}: {complaints}");
        assert!(complaints.contains("hilum.yml:2:"), "{bad}: {complaints}");
    }
    for (good, class) in [
        ("shop.worker", "shop:Shop"),
        ("shop@1.2", "shop:Shop"),
        ("nodes", "shop.interface:Shop"),
        ("node", "lymph.services.node:Node"),
    ] {
        Project::new(&text(good, class)).load().unwrap_or_else(|wrong| panic!("{good}: {wrong:?}"));
    }
}
