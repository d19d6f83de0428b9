//! Exit codes and JSON, as promised.

use std::os::unix::process::ExitStatusExt;

use hilum_tests::Cluster;
use serde_json::Value;

const WEB: &str =
    "instances: {web: {command: sleep 1000}, bad: {command: ./missing, autostart: false}}";

#[test]
fn exit_codes_say_what_went_wrong() {
    let cluster = Cluster::new(WEB);
    for verb in
        ["ps", "stop web", "restart web", "scale web=2", "signal TERM web", "reload", "why web"]
    {
        cluster.run(verb).code(3);
    }
    cluster.run("logs").code(0);
    cluster.run("down").code(0);
    cluster.run("nonsense").code(2);
    cluster.run("up --nonsense").code(2);
    cluster.run("up -d wbe").code(2).says("web");
    cluster.ok("up -d");
    for verb in ["stop", "restart", "start", "signal TERM", "why", "wait"] {
        cluster.run(&format!("{verb} wbe")).code(2).says("web");
    }
    cluster.run("stop web.9").code(2);
    cluster.run("wait web --for stopped --timeout 100ms").code(4);
    cluster.run("start bad").code(1);
    cluster.run("-c nowhere.yml ps").code(2);
    cluster.run("--help").code(0);
    cluster.run("--version").code(0);
    let elsewhere = cluster.command(&["ps"]).current_dir("/").output().unwrap();
    assert_eq!(elsewhere.status.code(), Some(2), "{elsewhere:?}");
}

#[test]
fn a_wrong_config_is_a_list_of_places_for_programs() {
    let wrong = "node: {watch_config: false}\ninstances: {a: {comand: x}, b: {command: y, depends_on: [c]}}";
    let check = |outcome: hilum_tests::Outcome| {
        let error: Value = serde_json::from_str(&outcome.err)
            .unwrap_or_else(|error| panic!("{error}: {}", outcome.err));
        let error = &error["error"];
        assert_eq!(error["code"], "invalid-config");
        let all = error["errors"].as_array().unwrap();
        assert_eq!((&error["message"], &error["where"]), (&all[0]["message"], &all[0]["where"]));
        let typo = all.iter().find(|one| one["message"] == "unknown key `comand`").unwrap();
        assert_eq!(
            typo["where"],
            serde_json::json!({"file": "hilum.yml", "line": 2, "column": 17})
        );
        assert!(all.iter().all(|one| one["where"]["line"] == 2), "{all:#?}");
        has(typo, &["message", "help", "key", "where"]);
    };
    check(Cluster::new(wrong).run("up -d --json").code(2));
    let cluster = Cluster::up("node: {watch_config: false}\ninstances: {a: {command: sleep 1000}}");
    cluster.configure(wrong);
    check(cluster.run("reload --json").code(2));
    assert_eq!(cluster.state("a.1"), "running");
}

#[test]
fn what_is_no_target_says_where_to_look() {
    let cluster = Cluster::up("instances: {bad: {command: ./missing, autostart: false}}");
    cluster.run("logs hilum").code(2).says("--stream node");
    cluster.run("logs -n -1").code(2).says("`-1` is no count");
    cluster.run("check -c .").code(2).says("is a folder");
    let down = cluster.run("up -d bad").code(1).says("hilum why");
    assert!(!down.err.contains("the others run"), "{down}");
}

#[test]
fn wait_ends_when_it_is_so() {
    let cluster = Cluster::up(WEB);
    cluster.ok("wait web --for running");
    let wait = cluster.start(&["wait", "web", "--for", "stopped"]);
    cluster.ok("stop web");
    wait.finish(hilum_tests::LIMIT).code(0);
}

#[test]
fn run_and_exec_give_the_childs_code() {
    let cluster =
        Cluster::new("instances: {web: {command: sh -c, env: {X: from config}, autostart: false}}");
    cluster
        .run_words(&["exec", "web", "--", "sh", "-c", "echo $X; exit 7"])
        .code(7)
        .says("from config");
    let none = cluster.run_words(&["exec", "web", "--", "no-such-program"]);
    assert_eq!(none.status.code(), Some(127), "as shells say it");
    assert!(none.err.contains("`no-such-program` not found"), "{}", none.err);
    let folder = cluster.run_words(&["exec", "web", "--", "/etc"]);
    assert_eq!(folder.status.code(), Some(126));
    let killed = cluster.run_words(&["exec", "web", "--", "sh", "-c", "kill -TERM $$"]).status;
    // A shell shows both as 143.
    assert!(killed.code() == Some(128 + 15) || killed.signal() == Some(15), "{killed}");
    cluster.run_words(&["run", "web", "--", "exit 3"]).code(3);
}

fn has(value: &Value, keys: &[&str]) {
    for key in keys {
        assert!(value.get(key).is_some(), "`{key}` is missing: {value:#}");
    }
}

#[test]
fn json_has_every_promised_field() {
    let cluster = Cluster::up(WEB);
    let ps = cluster.ps();
    has(&ps, &["project", "config", "node", "instances"]);
    has(&ps["node"], &["pid", "uptime"]);
    has(
        &ps["instances"][0],
        &[
            "service",
            "instance",
            "index",
            "pid",
            "state",
            "ready",
            "flags",
            "run",
            "restarts",
            "uptime",
            "exit",
            "reason",
            "next_at",
            "info",
            "cpu_percent",
            "rss_bytes",
            "heartbeat_age",
            "ports",
            "labels",
        ],
    );
    for (verb, action) in [
        ("stop web", "stop"),
        ("start web", "start"),
        ("restart web", "restart"),
        ("scale web=2", "start"),
    ] {
        let done = cluster.json(&format!("{verb} --json"));
        has(&done, &["changed", "survivors"]);
        let change = &done["changed"][0];
        has(change, &["instance", "action", "result", "reason"]);
        assert!(change["action"].as_str().unwrap().starts_with(action), "{verb}: {done}");
    }
    let wrong = cluster.run("stop wbe --json").code(2);
    let error: Value =
        serde_json::from_str(&wrong.err).unwrap_or_else(|error| panic!("{error}: {}", wrong.err));
    has(&error["error"], &["code", "message", "help", "where"]);
    let events = cluster.ok("events --json");
    for event in events.lines() {
        has(
            &serde_json::from_str(event).unwrap(),
            &["seq", "at", "event", "service", "instance", "run", "pid"],
        );
    }
    has(&cluster.json("down --json"), &["changed", "survivors"]);
}
