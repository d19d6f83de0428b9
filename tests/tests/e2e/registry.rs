//! Who is found: the node's own registry, and one that several nodes share.

#[path = "../../../shared/tests/registry_support/mod.rs"]
mod registry_support;
#[path = "../../../shared/tests/registry_support/zookeeper.rs"]
mod zookeeper;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use hilum_shared::registry::{Embedded, Instance, Patience, Registry, ZooKeeper};
use hilum_shared::rpc::Endpoint;
use hilum_shared::rpc::blocking::Client;
use hilum_tests::{Cluster, LIMIT, demo, signal, wait_until};
use registry_support::conforms;
use serde_json::{Value, json};
use zookeeper::Server;

use crate::python::Python;

/// Echoes and who calls them, found without a word of where they are.
fn shop(more: &str) -> Cluster {
    let demo = demo();
    Cluster::new(&format!(
        "node: {{heartbeat: {{interval: 100ms, timeout: 600ms}}}}
instances:
  echo:
    command: {demo} instance --interface Echo
    numprocesses: 3
    ready: {{registered: echo}}
    restart: never
{more}"
    ))
}

/// The node's control endpoint.
fn node(cluster: &Cluster) -> String {
    format!("ipc://{}/node.sock", cluster.read(".hilum/hilum.yml/run").trim())
}

fn ask(cluster: &Cluster, subject: &str, args: &Value) -> Value {
    let mut client = Client::connect(&node(cluster)).expect("an address");
    client.call(subject, args, LIMIT).expect("an answer")
}

fn found(cluster: &Cluster, service: &str) -> usize {
    let view = ask(cluster, "registry.lookup", &json!({"service": service}));
    view["instances"].as_array().expect("a list").len()
}

#[test]
fn services_find_each_other_in_the_nodes_registry() {
    let demo = demo();
    let cluster = shop(&format!(
        "  demo: {{command: {demo} instance --interface Demo, ready: registered, depends_on: [echo]}}\n"
    ));
    cluster.ok("up -d --wait");
    cluster.wait("demo.1", "an answer by way of an echo", |demo| {
        demo["info"].as_str().is_some_and(|info| info.starts_with("REQUEST"))
    });
    let all = ask(&cluster, "registry.discover", &json!({}));
    let names: Vec<&String> = all["services"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["demo", "echo", "lymph", "node"]);
    let itself = &all["services"]["node"]["instances"][0];
    assert_eq!(itself["endpoint"], json!(node(&cluster)));
    cluster.down();
}

#[test]
fn an_instance_is_not_found_any_more_when_it_ends_hangs_or_is_told_to_stop() {
    let cluster = shop("");
    cluster.ok("up -d --wait");
    assert_eq!(found(&cluster, "echo"), 3);
    signal("KILL", cluster.pid("echo.1"));
    wait_until(LIMIT, "the killed one is gone", || found(&cluster, "echo") == 2);
    cluster.ok("stop echo.2");
    assert_eq!(found(&cluster, "echo"), 1);
    cluster.ok("start echo.2");
    assert_eq!(found(&cluster, "echo"), 2);
    cluster.down();
}

/// The token of an instance that runs: whoever knows it speaks for the run.
fn token(instance: &Value) -> String {
    let environment = std::fs::read(format!("/proc/{}/environ", instance["pid"])).expect("it runs");
    let environment = String::from_utf8(environment).expect("text");
    let token = environment.split('\0').find_map(|one| one.strip_prefix("HILUM_TOKEN="));
    token.expect("a token").to_owned()
}

#[test]
fn ready_when_it_is_registered_and_lost_when_it_does_not_answer_there() {
    let cluster = Cluster::up(
        "instances:
  mute:
    command: sleep 1000
    restart: {delay: 10ms}
    ready: {registered: mute}
    alive: {rpc: true, interval: 100ms, timeout: 200ms, failures: 2}
",
    );
    let mute = cluster.wait("mute.1", "a process", |mute| mute["pid"].is_number());
    assert_eq!(mute["ready"], false);
    let token = token(&mute);
    let instance = json!({"id": "x", "endpoint": "tcp://127.0.0.1:1"});
    let register = |service: &str| {
        let args = json!({"service": service, "instance": instance, "token": token});
        ask(&cluster, "registry.register", &args)
    };
    register("other");
    assert_eq!(cluster.instance("mute.1")["ready"], false, "another name");
    register("mute");
    cluster.wait("mute.1", "its next run", |mute| mute["run"] == 2);
    let events = cluster.events("mute");
    assert!(events.contains(&"ready".to_owned()), "{events:?}");
    assert_eq!(found(&cluster, "mute"), 0);
    cluster.down();
}

#[test]
fn services_that_answer_are_left_alone() {
    let alive = "alive: {rpc: true, interval: 50ms, failures: 2}";
    let cluster = shop(&format!(
        "    {alive}
  mute: {{command: sleep 1000, restart: {{delay: 10ms, factor: 1}}, ready: {{registered: mute}}, {alive}}}
"
    ));
    cluster.ok("up -d");
    for id in ["echo.1", "echo.2", "echo.3"] {
        cluster.wait(id, "readiness", |echo| echo["ready"] == true);
    }
    // One that does not answer is the clock: it is asked twice before it is given up, and the others meanwhile as often.
    let instance = json!({"id": "x", "endpoint": "tcp://127.0.0.1:1"});
    for run in 1..=5 {
        let mute =
            cluster.wait("mute.1", "its run", |mute| mute["run"] == run && mute["pid"].is_number());
        let args = json!({"service": "mute", "instance": instance, "token": token(&mute)});
        ask(&cluster, "registry.register", &args);
        cluster.wait("mute.1", "its end", |mute| mute["run"].as_u64() > Some(run));
    }
    for id in ["echo.1", "echo.2", "echo.3"] {
        let echo = cluster.instance(id);
        assert_eq!((&echo["run"], &echo["state"]), (&1.into(), &"running".into()), "{id}");
    }
    cluster.down();
}

#[test]
fn what_a_stranger_registers_ends_with_its_connection() {
    let cluster = shop("");
    cluster.ok("up -d --wait");
    let mut client = Client::connect(&node(&cluster)).unwrap();
    let instance = json!({"id": "x", "endpoint": "tcp://127.0.0.1:1"});
    let args = json!({"service": "other", "instance": instance});
    let () = client.call("registry.register", &args, LIMIT).unwrap();
    assert_eq!(found(&cluster, "other"), 1);
    drop(client);
    wait_until(LIMIT, "it is gone", || found(&cluster, "other") == 0);
    let mut client = Client::connect(&node(&cluster)).unwrap();
    let args = json!({"service": "other", "instance": {"id": "x", "endpoint": "tcp://a:1"}, "token": "guessed"});
    let refused = client.call::<_, Value>("registry.register", &args, LIMIT).unwrap_err();
    assert!(refused.to_string().contains("token"), "{refused}");
    cluster.down();
}

#[tokio::test]
async fn the_nodes_registry_does_what_every_registry_does() {
    let cluster = Cluster::new("node: {on_all_exited: keep}\n");
    cluster.ok("up -d");
    let registry = async || Embedded::new(Endpoint::caller().await.unwrap(), node(&cluster), None);
    let (ours, theirs) = (registry().await, registry().await);
    conforms(&ours as &dyn Registry, &theirs).await;
    cluster.down();
}

/// One of several nodes with ZooKeeper between them.
fn with_zookeeper(hosts: &str, instances: &str) -> Cluster {
    Cluster::new(&format!(
        "container: {{registry: {{class: zookeeper, hosts: '{hosts}'}}}}
node: {{on_all_exited: keep}}
instances:
{instances}"
    ))
}

#[tokio::test]
async fn nodes_and_their_services_meet_in_zookeeper() {
    let Some(mut server) = Server::start().await else { return };
    let (demo, hosts) = (demo(), server.hosts());
    let echoes = with_zookeeper(
        &hosts,
        &format!(
            "  echo: {{command: {demo} instance --interface Echo, numprocesses: 2, ready: heartbeat}}\n"
        ),
    );
    let callers = with_zookeeper(
        &hosts,
        &format!("  demo: {{command: {demo} instance --interface Demo, ready: heartbeat}}\n"),
    );
    echoes.ok("up -d --wait");
    callers.ok("up -d --wait");
    callers.wait("demo.1", "an answer from the other node's services", |demo| {
        demo["info"].as_str().is_some_and(|info| info.starts_with("REQUEST"))
    });

    // Every node of the registry, from any of them.
    let all = || callers.json("ps --all-nodes --json");
    wait_until(LIMIT, "both nodes", || all()["nodes"].as_array().unwrap().len() == 2);
    let table = callers.ok("ps --all-nodes");
    for word in ["NODE", "echo.2", "demo.1"] {
        assert!(table.contains(word), "{table}");
    }

    // Who calls the node from a project means its own; with an address another.
    let status = |cluster: &Cluster, more: &str| {
        cluster.json(&format!("request node.status --json{more}"))["project"].clone()
    };
    for cluster in [&echoes, &callers] {
        let own = cluster.ps()["project"].clone();
        for more in ["", "", "", "", " --address node", " --address node"] {
            assert_eq!(status(cluster, more), own);
        }
    }

    // The same over the wire, as a lymph client would ask.
    let found = all();
    let echo_node = found["nodes"].as_array().unwrap().iter().find(|node| {
        node["services"].as_array().unwrap().iter().any(|service| service["name"] == "echo")
    });
    let address = echo_node.unwrap()["registered"]["endpoint"].as_str().unwrap().to_owned();
    assert!(address.starts_with("tcp://127.0.0.1:"), "{address}");
    let other = status(&callers, &format!(" --address {address}"));
    assert_eq!(other, echoes.ps()["project"]);
    let asked = tokio::task::spawn_blocking(move || {
        let mut client = Client::connect(&address).unwrap();
        let one = json!({"service_type": "echo"});
        let processes: Value = client.call("node.get_processes", &one, LIMIT).unwrap();
        assert_eq!(processes.as_array().unwrap().len(), 2);
        let status: Value = client.call("lymph.status", &json!({}), LIMIT).unwrap();
        assert_eq!(status["endpoint"], json!(address));
        let scaled = json!({"changes": [{"service": "echo", "count": 3}]});
        let accepted: Value = client.call("node.scale", &scaled, LIMIT).unwrap();
        let done = json!({"operation": accepted["operation"]});
        let outcome: Value = client.call("node.wait", &done, LIMIT).unwrap();
        assert_eq!(outcome["ok"], true);
        // What would take the node from its owner is not served here.
        for method in ["node.shutdown", "node.signal", "node.reload", "node.await"] {
            let args = json!({"targets": ["echo"], "signal": "KILL", "state": "ready"});
            let refused = client.call::<_, Value>(method, &args, LIMIT).unwrap_err();
            assert!(refused.to_string().contains("not served to other hosts"), "{refused}");
        }
        assert!(client.call::<_, Value>("registry.discover", &json!({}), LIMIT).is_err());
    });
    asked.await.unwrap();
    assert_eq!(echoes.ps()["instances"].as_array().unwrap().len(), 3);

    // A node that leaves is gone at once.
    echoes.down();
    assert_eq!(all()["nodes"].as_array().unwrap().len(), 1);
    server.end();
    callers.down();
}

#[tokio::test]
async fn nodes_that_are_dead_silent_or_of_lymph_are_shown_as_what_they_are() {
    let Some(server) = Server::start().await else { return };
    let Some(python) = Python::start() else { return };
    let hosts = server.hosts();
    let cluster = with_zookeeper(&hosts, "  web: {command: sleep 1000}\n");
    // One that has just died: its entry lives as long as its session. And one that takes connections and says nothing.
    let registry = ZooKeeper::new(&hosts, Patience::Service);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let [dead, mute] = [dead, silent.local_addr().unwrap()].map(|at| format!("tcp://{at}"));
    for endpoint in [&dead, &mute] {
        registry.register("node", Instance::new("node", endpoint, None)).await.unwrap();
    }
    // A node of lymph answers over a connection of its own, and has no methods.
    let theirs = python.endpoint.clone();
    let (python, _) = python.ask(json!(["register", hosts, "node"])).await;
    let (python, _) = python.ask(json!(["register", hosts, "lymph", "0.15.0"])).await;
    let (python, _) = python.ask(json!(["register", hosts, "theirs"])).await;

    let shown = tokio::task::spawn_blocking(move || {
        cluster.ok("up -d --wait");
        let all = || cluster.json("ps --all-nodes --json");
        wait_until(LIMIT, "our node", || all()["nodes"].as_array().unwrap().len() == 1);
        let all = all();
        assert_eq!(all["nodes"][0]["services"][0]["name"], "web");
        let others = all["others"].as_array().unwrap();
        assert_eq!((others.len(), &others[0]["registered"]["endpoint"]), (1, &json!(theirs)));
        let unreachable = all["unreachable"].as_array().unwrap();
        let why = |endpoint: &str| {
            let mut found =
                unreachable.iter().filter(|one| one["registered"]["endpoint"] == endpoint);
            found.next().unwrap()["reason"].as_str().unwrap().to_owned()
        };
        assert_eq!(unreachable.len(), 2, "{unreachable:?}");
        assert!(why(&dead).contains("refused"), "{}", why(&dead));
        assert!(why(&mute).contains("not answered within 3s"), "{}", why(&mute));
        let ours = all["nodes"][0]["registered"]["endpoint"].as_str().unwrap().to_owned();
        let table = cluster.ok("ps --all-nodes");
        for words in ["web.1", "does not answer", "a node of lymph"] {
            assert!(table.contains(words), "{words}: {table}");
        }
        // The log of a service that no node of ours runs is where its entry says.
        let tail = cluster.start(&["tail", "theirs"]);
        (cluster, ours, tail)
    });
    let (cluster, ours, tail) = shown.await.unwrap();
    let mut python = python;
    while !tail.out().contains("[WARNING] from python") {
        (python, _) = python.ask(json!(["log", "WARNING", "from python"])).await;
    }
    drop(tail);
    // The node is called as one container of lymph calls another, and answers on a connection of its own.
    let (python, status) = python.ask(json!(["call", ours, "lymph.status", {}])).await;
    assert_eq!((&status[0], &status[1]["endpoint"]), (&json!("REP"), &json!(ours)));
    let which = json!({"service_type": "web"});
    let (python, answer) = python.ask(json!(["call", ours, "node.get_processes", which])).await;
    assert_eq!((&answer[0], &answer[1][0]["instance"]), (&json!("REP"), &json!("web.1")));
    assert_eq!(answer[2], json!({"version": null, "trace_id": "py-trace"}));
    let (python, refused) = python.ask(json!(["call", ours, "node.shutdown", {}])).await;
    assert_eq!(refused[0], "ERROR", "{refused}");
    let (python, unknown) = python.ask(json!(["call", ours, "node.nothing", {}])).await;
    assert_eq!(unknown[0], "NACK", "{unknown}");
    // lymph's `discover --versions` sorts them: a version beside none ends it.
    let (_python, versions) = python.ask(json!(["versions", hosts])).await;
    assert_eq!((&versions["lymph"], &versions["node"]), (&json!(["0.15.0"]), &json!([null])));
    cluster.down();
}

#[test]
fn who_needs_a_registry_that_is_away_is_told_which_and_why() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let cluster = with_zookeeper(&free, "  web: {command: sleep 1000}\n");
    cluster.ok("up -d --wait");
    let says = format!("the registry, zookeeper at {free}, cannot be reached: connection refused");
    for command in [
        &["discover"] as &[&str],
        &["request", "echo.upper", "{}"],
        &["inspect", "echo"],
        &["change-loglevel", "echo"],
        &["tail", "echo"],
        &["discover", "--json"],
    ] {
        let outcome = cluster.run_words(command).code(1).says(&says).says("`container.registry`");
        assert!(outcome.out.is_empty(), "{outcome}");
    }
    // What runs here can be seen, and called, all the same.
    let shown = cluster.run("ps --all-nodes").code(1).says(&says);
    assert!(shown.out.contains("web.1"), "{shown}");
    let shown = cluster.run("ps --all-nodes --json").code(1);
    let all: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(all["nodes"][0]["instances"][0]["instance"], "web.1", "{shown}");
    assert_eq!(all["nodes"][0]["registered"], Value::Null);
    let error: Value = serde_json::from_str(&shown.err).unwrap();
    assert_eq!(error["error"]["code"], "registry");
    cluster.ok("request node.status");
    // Who asks why something is not as it should be hears of it, too.
    wait_until(LIMIT, "a warning", || cluster.run("why").err.contains(&says));
    cluster.down();
}

#[tokio::test]
async fn a_registry_that_is_away_holds_nobody_up() {
    let Some(mut server) = Server::start().await else { return };
    server.end();
    let cluster = with_zookeeper(&server.hosts(), "  web: {command: sleep 1000}\n");
    cluster.ok("up -d --wait");
    let warned = || {
        let warnings = cluster.ps()["node"]["warnings"].to_string();
        warnings.contains("zookeeper at")
    };
    wait_until(LIMIT, "a warning", warned);
    assert!(cluster.ok("events --json").contains("registry-away"));

    server.again();
    server.is_up().await;
    wait_until(2 * LIMIT, "the warning goes", || !warned());
    let registered = || {
        let all = cluster.run("ps --all-nodes --json");
        all.status.success() && all.out.contains("\"registered\"")
    };
    wait_until(LIMIT, "it is registered", registered);

    // A ZooKeeper that lost all it knew.
    server.end();
    wait_until(2 * LIMIT, "a warning again", warned);
    server.forget_everything();
    server.again();
    server.is_up().await;
    wait_until(2 * LIMIT, "it is registered anew", registered);
    cluster.down();
}

#[tokio::test]
async fn a_silent_zookeeper_holds_up_no_call_of_what_runs_here_and_none_longer_than_it_may_take() {
    let Some(server) = Server::start().await else { return };
    let demo = demo();
    let echo = format!("  echo: {{command: {demo} instance --interface Echo, ready: heartbeat}}\n");
    let cluster = with_zookeeper(&server.hosts(), &echo);
    cluster.ok("up -d --wait");
    signal("STOP", server.pid());
    // Shorter than a command would wait for the registry alone.
    let soon = |words: &[&str], code: i32| {
        let begun = Instant::now();
        let outcome = cluster.run_words(words).code(code);
        assert!(begun.elapsed() < Duration::from_millis(2900), "{:?} {outcome}", begun.elapsed());
        outcome
    };
    let text = "{\"text\": \"a\"}";
    let here = ["request", "echo.upper", text, "--address", "echo.1", "--timeout", "1"];
    assert_eq!(soon(&here, 0).out.trim(), "\"A\"");
    soon(&["inspect", "echo.1"], 0);
    soon(&["request", "node.status", "--timeout", "1"], 0);
    // A service that is kept here is reached without the registry, when that says nothing.
    let by_name = ["request", "echo.upper", text, "--timeout", "1.5"];
    assert_eq!(soon(&by_name, 0).out.trim(), "\"A\"");
    soon(&["request", "elsewhere.upper", text, "--timeout", "0.5"], 4).says("registry");
    soon(&["inspect", "elsewhere", "--timeout", "0.5"], 4).says("registry");
    signal("CONT", server.pid());
    cluster.down();
}

#[tokio::test]
async fn a_service_whose_zookeeper_is_away_serves_is_registered_later_and_ends_in_time() {
    let Some(mut server) = Server::start().await else { return };
    server.end();
    let (demo, hosts) = (demo(), server.hosts());
    let echo = format!(
        "  echo: {{command: {demo} instance --interface Echo, ready: heartbeat, restart: never}}\n"
    );
    let cluster = with_zookeeper(&hosts, &echo);
    cluster.ok("up -d --wait");
    let shout = ["request", "echo.upper", "{\"text\": \"a\"}", "--address", "echo.1"];
    assert_eq!(cluster.run_words(&shout).code(0).out.trim(), "\"A\"");

    server.again();
    server.is_up().await;
    let found = || {
        let found = cluster.run("discover echo --json");
        let json: Value = serde_json::from_str(&found.out).unwrap_or_default();
        json["services"][0]["instances"][0].clone()
    };
    wait_until(2 * LIMIT, "it is registered", || found()["instance"] == "echo.1");
    assert_eq!(found()["log_endpoint"], Value::Null, "{}", found());
    let project = cluster.ps()["project"].as_str().unwrap().to_owned();
    wait_until(2 * LIMIT, "the node is registered, too", || {
        let table = cluster.run("ps --all-nodes").out;
        table.contains("PROJECT") && table.contains(&project)
    });

    // Gone again, it holds up no end.
    server.end();
    cluster.ok("stop echo");
    let stopped = cluster.instance("echo.1");
    assert_eq!(
        (&stopped["state"], &stopped["exit"]["code"]),
        (&json!("stopped"), &json!(0)),
        "{stopped}"
    );
    cluster.down();
}

#[test]
fn a_registry_that_only_python_has_is_said_where_services_are_looked_for() {
    let class = "lymph.discovery.service:CoordinatorServiceRegistry";
    let cluster = Cluster::up(&format!(
        "container: {{registry: {{class: '{class}', coordinator_endpoint: 'tcp://127.0.0.1:1'}}}}\ninstances: {{web: {{command: sleep 1000}}}}"
    ));
    assert_eq!(cluster.state("web.1"), "running");
    cluster.run("discover").code(0).says(class).says("uses its own");
    let told = cluster.run("ps").code(0);
    assert!(!told.err.contains(class), "{told:?}");
}
