//! The tools with which services are found and called: `discover`, `inspect`, `request`, `shell`, `change-loglevel`, `instance`.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside of test functions")]

use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;

use hilum_tests::{Cluster, LIMIT, Outcome, demo, signal, wait_until};
use serde_json::{Value, json};

use crate::python::Python;

/// Two processes that say things back.
fn echoes() -> Cluster {
    let demo = demo();
    let yaml = format!(
        "instances: {{echo: {{command: '{demo} instance --interface Echo', numprocesses: 2, ready: heartbeat}}}}"
    );
    let cluster = Cluster::new(&yaml);
    cluster.ok("up -d --wait");
    cluster
}

/// Runs a command that reads these lines from stdin.
fn piped(cluster: &Cluster, words: &[&str], text: &str) -> (Option<i32>, String, String) {
    let mut command = cluster.command(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn error(outcome: &Outcome) -> Value {
    serde_json::from_str::<Value>(&outcome.err).unwrap()["error"].clone()
}

#[test]
fn what_runs_is_called_by_its_name() {
    let cluster = echoes();
    let methods = cluster.ok("inspect echo.1");
    assert!(
        methods.contains("rpc echo.upper(text)\n    Returns the text in upper case."),
        "{methods}"
    );
    let request =
        |more: &[&str]| cluster.run_words(&[&["request", "--timeout", "20s"], more].concat());
    let text = "{\"text\": \"foo\"}";
    assert_eq!(request(&["echo.upper", text]).code(0).out, "\"FOO\"\n");
    let (code, out, _) = piped(&cluster, &["request", "echo.echo", "-", "--json"], text);
    assert_eq!((code, &*out), (Some(0), "\"foo\"\n"));
    // One of the two, by its name under the node, and by its address.
    let status = |words: &[&str]| -> Value {
        serde_json::from_str(&request(&[words, &["--json"]].concat()).code(0).out).unwrap()
    };
    let second = status(&["lymph.status", "--address", "echo.2"]);
    let endpoint = second["endpoint"].as_str().unwrap();
    assert_eq!(status(&["lymph.status", "--address", endpoint]), second);
    assert_ne!(status(&["lymph.status", "--address", "echo.1"]), second);
    let node = status(&["node.status"]);
    assert_eq!(node["instances"].as_array().unwrap().len(), 2);
    // Headers, and the trace that was asked for.
    let dumped = request(&["echo.echo", text, "-D", "--trace-id", "my-trace"]).code(0).out;
    assert!(
        dumped.contains("trace_id: my-trace\n") && dumped.ends_with("\n\n\"foo\"\n"),
        "{dumped}"
    );
    // Each of these commands left when it had its answer, which is no fault.
    cluster.ok("discover");
    assert_eq!(status(&["node.status"])["node"]["ignored"], json!({}));
    cluster.down();
}

#[test]
fn a_version_that_is_not_served_at_an_address_is_told_with_those_that_are() {
    let cluster = echoes();
    let body = "{\"text\": \"x\"}";
    for subject in ["echo.upper@9.9", "echo@9.9.upper"] {
        cluster
            .run_words(&["request", subject, body, "--address", "echo.1"])
            .code(1)
            .says("it serves `echo` in no version, which is not compatible with 9.9.0");
    }
    cluster.down();
}

#[test]
fn what_can_be_called_is_asked_by_version_too() {
    let demo = demo();
    let cluster = Cluster::new(&format!(
        "instances: {{vs: {{command: '{demo} instance -c vs.yml', ready: heartbeat}}}}"
    ));
    let class = "{class: Echo}";
    cluster.write("vs.yml", &format!("interfaces: {{vs@1.2: {class}, vs@2.0: {class}}}\n"));
    cluster.ok("up -d --wait");
    let shown = cluster.ok("inspect vs@2.0");
    assert!(shown.contains("vs.upper") && shown.contains("@2.0.0"), "{shown}");
    assert!(!shown.contains("@1.2.0"), "{shown}");
    cluster.run("inspect vs@3").code(2).says("there is 1.2.0, 2.0.0");
    cluster.run("inspect vs@x").code(2).says("`x` is no version");
    cluster.down();
}

#[test]
fn headers_are_shown_of_a_refusal_and_an_error_too() {
    let cluster = echoes();
    let dumped = |more: &[&str]| {
        cluster.run_words(&[&["request", "-D", "--trace-id", "my-trace"], more].concat()).code(1)
    };
    let refused = dumped(&["echo.uper", "{}"]).says("did you mean `echo.upper`?");
    assert!(refused.out.starts_with("type: NACK\ntrace_id: my-trace\n"), "{refused}");
    let long = json!({"text": "x".repeat(2000)}).to_string();
    let raised = dumped(&["echo.upper", &long]).says("TextTooLong: 2000 characters");
    assert!(raised.out.starts_with("type: ERROR\ntrace_id: my-trace\n"), "{raised}");
    let raised = dumped(&["echo.upper", &long, "--json"]);
    let shown: Value = serde_json::from_str(&raised.out).unwrap();
    assert_eq!(
        (&shown["headers"]["type"], &shown["body"]["length"]),
        (&json!("ERROR"), &json!(2000))
    );
    assert_eq!(error(&raised)["type"], "TextTooLong");
    cluster.down();
}

#[test]
fn a_benchmark_goes_on_while_nobody_answers_and_counts_what_failed() {
    let cluster = Cluster::new("instances: {}");
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bench = |at: &str, more: &[&str]| {
        cluster.run_words(&[&["request", "a.b", "--json", "--address", at], more].concat())
    };
    let at = format!("tcp://{}", mute.local_addr().unwrap());
    let silent = bench(&at, &["-N", "3", "-C", "3", "--timeout", "300ms"]).code(4);
    let shown: Value = serde_json::from_str(&silent.out).unwrap();
    assert_eq!((&shown["answered"], &shown["timeouts"]), (&json!(0), &json!(3)), "{silent}");
    assert!(silent.err.contains("the first request failed"), "{silent}");

    // Refused at once: it takes its time all the same.
    let refused = bench(&format!("tcp://{nobody}"), &["-N", "5"]).code(1);
    let shown: Value = serde_json::from_str(&refused.out).unwrap();
    assert_eq!(shown["errors"], json!({"not-connected": 5}), "{refused}");
    assert!(shown["elapsed"].as_f64().unwrap() > 0.15, "{refused}");

    // Wrong words do not become right by being sent often.
    let echoes = echoes();
    echoes.run("request echo.nothing -N 5").code(1).says("there is no `echo.nothing`");
    echoes.run_words(&["request", "echo.upper", "{}", "-N", "5"]).code(1).says("`text` not given");
    // A service that refuses all is counted.
    let wrong =
        echoes.run_words(&["request", "echo.upper", "{\"text\": [1]}", "-N", "5", "--json"]);
    let shown: Value = serde_json::from_str(&wrong.code(1).out).unwrap();
    assert_eq!(shown["errors"], json!({"refused": 5}));
    echoes.down();
}

#[test]
fn an_address_that_is_none_and_a_body_that_is_no_text_are_wrong_words() {
    let cluster = echoes();
    for address in ["echo:", ":1", ""] {
        cluster
            .run_words(&["request", "echo.upper", "{}", "--address", address])
            .code(2)
            .says("is no address");
    }
    for verb in [&["request", "echo.upper", "-"] as &[&str], &["emit", "a.b", "-"]] {
        let mut command = cluster.command(verb);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"{\"text\": \"\xff\"}").unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("byte 11 is not UTF-8"), "{said}");
    }
    cluster.down();
}

#[test]
fn what_is_wrong_with_an_argument_of_the_node_is_told_with_its_name() {
    let cluster = Cluster::up("instances: {web: {command: sleep 1000}}\n");
    let scale = |changes: &str| {
        let body = format!("{{\"changes\": {changes}}}");
        cluster.run_words(&["request", "node.scale", &body]).err
    };
    let wrong = scale("[{\"service\": \"web\", \"count\": \"x\"}]");
    assert!(wrong.contains("changes[0].count") && wrong.contains("string \"x\""), "{wrong}");
    let wrong = scale("[{\"service\": \"web\"}]");
    assert!(wrong.contains("changes[0]") && wrong.contains("`count`"), "{wrong}");
    let wrong = scale("7");
    assert!(wrong.contains("changes: ") && wrong.contains("sequence"), "{wrong}");
    let long = "x".repeat(5000);
    for id in [long.as_str(), "", "a\nb"] {
        let outcome = cluster.run_words(&["request", "node.status", "--trace-id", id]).code(2);
        assert!(outcome.err.contains("1 to 4096 bytes"), "{outcome}");
    }
    cluster.down();
}

#[test]
fn a_period_that_is_none_is_refused_by_services_and_node() {
    let cluster = echoes();
    cluster.run("change-loglevel echo -p -2").code(2).says("-2");
    for address in ["echo.1", "node"] {
        for period in ["-2", "{\"__type__\": \"float\", \"_\": \"NaN\"}"] {
            let body =
                format!("{{\"qualname\": \"\", \"loglevel\": \"DEBUG\", \"period\": {period}}}");
            cluster
                .run_words(&["request", "lymph.change_loglevel", &body, "--address", address])
                .code(1)
                .says("has to be a number of seconds from 0 on");
        }
    }
    cluster.down();
}

#[test]
fn a_call_that_fails_is_explained_and_ends_with_its_code() {
    let cluster = echoes();
    let request = |more: &[&str]| cluster.run_words(&[&["request"], more].concat());
    let text = "{\"text\": \"foo\"}";
    request(&["echo.uper", text]).code(1).says("did you mean `echo.upper`?");
    request(&["echo.upper", "{\"txt\": 1}"])
        .code(1)
        .says("no parameter `txt`")
        .says("echo.upper(text)");
    let long = format!("{{\"text\": \"{}\"}}", "a".repeat(2000));
    let raised = error(&request(&["echo.echo", &long, "--timeout", "20s", "--json"]).code(1));
    assert_eq!((&raised["type"], &raised["body"]["limit"]), (&json!("TextTooLong"), &json!(1000)));
    request(&["echo.upper", "{\"text\": {\"__type__\": \"sett\", \"_\": [1]}}"])
        .code(2)
        .says("text: ")
        .says("`set`");
    // What would end a container of lymph is sent by none of the three.
    let unknown = r#"{"text": {"__type__": "map", "_": [["__type__", "nope"], ["_", 1]]}}"#;
    request(&["echo.upper", unknown]).code(2).says("text: ").says("`__type__`");
    cluster.run_words(&["emit", "a.b", unknown]).code(2).says("text: ").says("`__type__`");
    let (code, _, err) = piped(&cluster, &["shell"], "proxy.echo.upper(text=set([1], [2]))\n");
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("text[0]: a list cannot be a member of a set"), "{err}");
    request(&["echo.upper", "--timeout", "-5"]).code(2).says("invalid value '-5' for '--timeout");
    request(&["echo.upper", "-N", "-x"]).code(2).says("from 1 to 10000000");
    request(&["echo.upper", "-N", "2", "-D"]).code(2).says("`-D`");
    // It takes a fifth of a second.
    request(&["echo.upper", text, "--timeout", "50ms"]).code(4).says("`--timeout`");
    cluster.down();
    request(&["echo.upper", text]).code(3);
}

#[test]
fn what_the_node_keeps_and_cannot_be_called_is_told_as_such() {
    let demo = demo();
    let cluster = Cluster::new(&format!(
        "instances: {{echo: {{command: '{demo} instance --interface Echo', ready: registered}}, plain: {{command: sleep 1000}}}}"
    ));
    cluster.ok("up -d --wait");
    cluster
        .run("request a.b --address plain.1")
        .code(2)
        .says("`plain.1` runs, but has no RPC endpoint");
    cluster.run("inspect zzz").code(2).says("unknown service `zzz`");
    cluster.ok("stop echo");
    cluster
        .run("request echo.upper")
        .code(1)
        .says("none of `echo` is alive: echo.1 is stopped")
        .says("hilum start echo");
    cluster.run("request lymph.ping --address echo.1").code(1).says("echo.1 is stopped");
    let names = |words: &str| -> Vec<String> {
        let all = cluster.json(words)["services"].as_array().unwrap().clone();
        all.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert!(!names("discover --json").contains(&"echo".to_owned()));
    assert!(names("discover --all --json").contains(&"echo".to_owned()));
    cluster.run("discover echo").code(0).says("no instance of `echo` is registered");
    cluster.ok("start echo");
    assert!(cluster.ok("inspect echo").contains("    raises TextTooLong"));
    cluster.down();
}

#[test]
fn a_paused_instance_gets_no_calls_until_it_goes_on() {
    let demo = demo();
    let cluster = Cluster::new(&format!(
        "node: {{heartbeat: {{interval: 100ms, timeout: 1s}}}}\n\
         instances: {{echo: {{command: '{demo} instance --interface Echo', numprocesses: 2, ready: registered}}}}"
    ));
    cluster.ok("up -d --wait");
    let found = || cluster.json("discover echo --json")["services"][0]["instances"].clone();
    let both = found();
    signal("STOP", cluster.pid("echo.2"));
    wait_until(LIMIT, "the paused one is hidden", || {
        found().as_array().is_some_and(|found| found.len() == 1)
    });
    for _ in 0..8 {
        cluster.ok("request echo.upper {\"text\":\"x\"} --timeout 20s");
    }
    signal("CONT", cluster.pid("echo.2"));
    wait_until(LIMIT, "it is found again", || found() == both);
    cluster.ok("request lymph.ping {\"payload\":1} --address echo.2 --timeout 20s");
}

#[test]
fn many_requests_at_once_are_measured() {
    let cluster = echoes();
    let words = "request echo.echo {\"text\":\"x\"} -N 200 -C 8 --timeout 20s";
    let figures = cluster.json(&format!("{words} --json"));
    assert_eq!((&figures["requests"], &figures["answered"]), (&json!(200), &json!(200)));
    let (percentiles, mean) = (&figures["percentiles"], figures["mean"].as_f64().unwrap());
    let at = |percent: &str| percentiles[percent].as_f64().unwrap();
    assert!(at("0") <= at("50") && at("50") <= at("99.9") && at("99.9") <= at("100"), "{figures}");
    assert!(at("0") <= mean && mean <= at("100"), "{figures}");
    let shown = cluster.ok(words);
    assert!(shown.contains("Requests per second:") && shown.contains("99.9 %"), "{shown}");
    // What fails is counted, and told by the code.
    let late = "request echo.upper {\"text\":\"x\"} -N 5 -C 5 --timeout 20s --json";
    assert_eq!(cluster.json(late)["timeouts"], 0);
    cluster.down();
}

#[test]
fn levels_of_all_instances_are_changed() {
    let cluster = echoes();
    let changed = cluster.json("change-loglevel echo -l debug -p 5m --json");
    let changed = changed["changed"].as_array().unwrap().clone();
    assert_eq!(changed.len(), 2, "{changed:?}");
    assert!(changed.iter().all(|one| one["result"] == "changed"), "{changed:?}");
    cluster.run("change-loglevel echo.1 -n not/a/logger").code(1);
    cluster.down();
}

#[test]
fn a_shell_keeps_what_was_answered_and_may_stay_with_one_instance() {
    let cluster = echoes();
    let lines = "x = proxy.echo.echo(text=\"foo\")\n\
                 request --timeout 20s echo.upper {\"text\": x}\n\
                 proxy.lymph.status().endpoint\n\
                 proxy.echo.uper(text=x)\n\
                 proxy.echo@7.upper(text=x)\n\
                 requets echo.upper {}\n\
                 x\n";
    let (code, out, err) = piped(&cluster, &["shell", "--remote", "echo.2"], lines);
    let status = cluster.json("request lymph.status --address echo.2 --json");
    assert_eq!(out, format!("\"FOO\"\n{}\n\"foo\"\n", status["endpoint"]), "{err}");
    assert_eq!(code, Some(1), "one of them failed");
    assert!(err.contains("did you mean `echo.upper`?"), "{err}");
    assert!(err.contains("`echo.upper` was refused"), "the version is asked for: {err}");
    assert!(err.contains("there is no command `requets`"), "{err}");
    assert!(err.contains("did you mean `request`?"), "{err}");
    cluster.down();
}

#[test]
fn an_instance_is_run_from_its_configuration_alone() {
    let cluster = Cluster::new("instances: {}");
    std::os::unix::fs::symlink(demo(), cluster.path("hilum-demo")).unwrap();
    cluster.write("echo.yml", "interfaces: {say@1.2: {class: 'hilum-demo:Echo'}}");
    let port = free_port();
    let instance = cluster.start(&["instance", "-c", "echo.yml", "-p", &port.to_string(), "-i"]);
    let address = format!("tcp://127.0.0.1:{port}");
    let words = ["request", "say.echo", "{\"text\": \"foo\"}", "--address", &address];
    wait_until(LIMIT, "an answer", || cluster.run_words(&words).status.success());
    let methods = cluster.json(&format!("inspect {address} --json"));
    let versions = methods["methods"].as_array().unwrap().iter().map(|one| &one["version"]);
    assert!(versions.clone().any(|version| version == "1.2.0"), "{methods}");
    signal("TERM", instance.pid());
    drop(instance.finish(LIMIT).code(0).says(&address).says("registered nowhere"));
    // Without a node a name leads nowhere, which is said, too.
    let port = free_port().to_string();
    let instance = cluster.start(&["instance", "-c", "echo.yml", "-p", &port]);
    let address = format!("tcp://127.0.0.1:{port}");
    let words = ["request", "say.echo", "{\"text\": \"foo\"}", "--address", &address];
    wait_until(LIMIT, "an answer", || cluster.run_words(&words).status.success());
    signal("TERM", instance.pid());
    drop(instance.finish(LIMIT).code(0).says(&address).says("no node"));
    cluster.assert_empty();
}

#[test]
fn a_service_in_python_is_found_in_a_list_and_called() {
    let Some(python) = Python::start() else { return };
    let at = &python.endpoint;
    let cluster = Cluster::new(&format!(
        "container: {{registry: {{class: static, hosts: {{py: ['{at}'], 'old@1.2': ['{at}']}}}}}}\ninstances: {{}}"
    ));
    // No node is needed: the list is in the file.
    let found = cluster.json("discover py --json");
    assert_eq!(found["services"][0]["name"], "py");
    assert_eq!(found["services"][0]["instances"][0]["endpoint"], at.as_str());
    let table = cluster.ok("discover --versions");
    assert!(table.contains("old@1.2") && table.contains("py"), "{table}");
    let request =
        |more: &[&str]| cluster.run_words(&[&["request", "--timeout", "20s"], more].concat());
    assert_eq!(request(&["py.upper", "{\"text\": \"foo\"}"]).code(0).out, "\"FOO\"\n");
    let direct = ["py.upper", "{\"text\": \"foo\"}", "--address", at];
    assert_eq!(request(&direct).code(0).out, "\"FOO\"\n");
    let types = request(&["py.types"]).code(0);
    let types = types.says("set(1, 2)").says("Decimal(1.50)").says("date(2015-03-14)");
    drop(types.says("bytes(00ff)"));
    let json: Value = serde_json::from_str(&request(&["py.types", "--json"]).code(0).out).unwrap();
    assert_eq!(json["Decimal"], json!({"__type__": "Decimal", "_": "1.50"}));
    let methods = cluster.ok("inspect py");
    assert!(
        methods.contains("rpc py.upper(text)\n    Returns the text in upper case."),
        "{methods}"
    );
    assert_eq!(
        cluster.ok(&format!("inspect {at}")),
        methods.replace("of py\n", &format!("of {at}\n"))
    );
    request(&["py.fail"]).code(1).says("TooLong: no");
    request(&["py.refuse"]).code(1).says("was refused");
    request(&["pyy.upper"]).code(2).says("did you mean `py`?");
    request(&["py.upper@3"]).code(1).says("compatible");
    cluster.run("discover zzz").code(2).says("`py`");
    // lymph's flags: an address that is not ours is none, as there.
    cluster.run("discover --ip 127.0.0.1 --only-running").code(0).says("`--all`");
    cluster.run("discover --ip 192.0.2.1").code(2).says("an address of this machine");
    let (code, _, err) = piped(&cluster, &["shell"], "discover --ip 127.0.0.1\n");
    assert!(code == Some(1) && err.contains("`hilum shell --ip IP`"), "{err}");
}

#[test]
fn who_listens_everywhere_is_told_to_others_by_an_address_that_they_can_call() {
    let demo = demo();
    let cluster = Cluster::new(&format!(
        "container: {{ip: 0.0.0.0, log_endpoint: 'tcp://0.0.0.0:{}'}}
instances: {{echo: {{command: '{demo} instance --interface Echo', ready: registered}}}}",
        free_port()
    ));
    cluster.ok("up -d --wait");
    let found = &cluster.json("discover echo --json")["services"][0]["instances"][0];
    let text = |key: &str| found[key].as_str().unwrap().to_owned();
    for told in [text("endpoint"), text("log_endpoint"), text("ip")] {
        assert!(!told.contains("0.0.0.0"), "{found}");
    }
    let words = ["request", "echo.echo", "{\"text\": \"foo\"}", "--address", &text("endpoint")];
    assert_eq!(cluster.run_words(&words).code(0).out, "\"foo\"\n");
    // Every other address of the machine leads there, too.
    let port = text("endpoint").rsplit_once(':').unwrap().1.to_owned();
    let loopback = format!("tcp://127.0.0.1:{port}");
    let words = ["request", "echo.echo", "{\"text\": \"foo\"}", "--address", &loopback];
    assert_eq!(cluster.run_words(&words).code(0).out, "\"foo\"\n");
    cluster.down();
}

/// Free now, and a moment later most likely, too.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
