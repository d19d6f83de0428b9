//! Reload, and what a configuration means.

use std::path::Path;

use hilum_tests::Cluster;
use serde_json::Value;

/// Nothing is applied by itself.
const ASKED: &str = "node: {watch_config: false}\n";

#[test]
fn a_reload_applies_the_difference_and_says_it_before() {
    let cluster = Cluster::up(&format!(
        "{ASKED}
instances:
  same: {{command: sleep 1000}}
  more: {{command: sleep 1000}}
  fewer: {{command: sleep 1000, numprocesses: 2}}
  other: {{command: sleep 1000}}
  gone: {{command: sleep 1000}}
  looked_after: {{command: sleep 1000}}
"
    ));
    let pids = ["same.1", "more.1", "fewer.1", "looked_after.1"].map(|id| (id, cluster.pid(id)));
    let other = cluster.pid("other.1");
    cluster.configure(&format!(
        "{ASKED}
instances:
  same: {{command: sleep 1000}}
  more: {{command: sleep 1000, numprocesses: 2}}
  fewer: {{command: sleep 1000, numprocesses: 1}}
  other: {{command: sleep 1000, env: {{A: b}}}}
  new: {{command: sleep 1000}}
  looked_after: {{command: sleep 1000, stop: {{timeout: 3s}}}}
"
    ));
    let plan = cluster.ok("reload --dry-run");
    for line in ["+ more.2", "- fewer.2", "~ other.1", "- gone.1", "+ new.1"] {
        assert!(plan.contains(line), "{line}: {plan}");
    }
    assert!(plan.contains("env") && !plan.contains("same"), "{plan}");
    assert_eq!(cluster.state("gone.1"), "running", "only said");
    cluster.ok("reload");
    for (id, pid) in pids {
        assert_eq!(cluster.pid(id), pid, "{id}");
    }
    assert_ne!(cluster.pid("other.1"), other);
    assert_eq!(cluster.state("more.2"), "running");
    assert_eq!(cluster.state("new.1"), "running");
    assert!(cluster.instance("fewer.2").is_null() && cluster.instance("gone.1").is_null());
    cluster.run("logs gone").code(0);
}

#[test]
fn an_invalid_configuration_changes_nothing_and_is_explained() {
    let cluster = Cluster::up(&format!("{ASKED}instances: {{web: {{command: sleep 1000}}}}"));
    let pid = cluster.pid("web.1");
    cluster.configure("instances:\n  web:\n    comand: sleep 1000\n    numproceses: 3\n");
    cluster.run("reload").code(2).says("hilum.yml:3").says("command").says("numprocesses");
    cluster.run("check").code(2).says("hilum.yml:4");
    cluster.run("check missing.yml").code(2).says("cannot read config `missing.yml`");
    assert_eq!(cluster.pid("web.1"), pid);
    cluster.down();
    cluster.run("up -d").code(2);
    cluster.run("ps").code(3);
}

#[test]
fn restart_takes_the_file_as_it_is_now() {
    let cluster = Cluster::up(&format!(
        "{ASKED}instances: {{web: {{command: sh -c 'echo $X; exec sleep 1000', env: {{X: one}}}}}}"
    ));
    cluster.wait_log("one");
    cluster.configure(&format!(
        "{ASKED}instances: {{web: {{command: sh -c 'echo $X; exec sleep 1000', env: {{X: two}}}}}}"
    ));
    cluster.ok("restart web");
    cluster.wait_log("two");
}

#[test]
fn a_cluster_is_found_from_below_and_two_configs_do_not_meet() {
    let cluster = Cluster::up("instances: {web: {command: sleep 1000}}");
    cluster.write("other.yml", "instances: {web: {command: sleep 1000}}");
    cluster.write("deep/er/x", "");
    let below =
        cluster.command(&["ps", "--json"]).current_dir(cluster.path("deep/er")).output().unwrap();
    let below: Value = serde_json::from_slice(&below.stdout).unwrap();
    assert_eq!(below["instances"][0]["pid"], cluster.pid("web.1"));
    cluster.run("-c other.yml ps").code(3);
    cluster.ok("-c other.yml up -d");
    let other = cluster.json("-c other.yml ps --json");
    assert_ne!(other["node"]["pid"], cluster.ps()["node"]["pid"]);
    cluster.ok("-c other.yml down");
    assert_eq!(cluster.state("web.1"), "running");
}

#[test]
fn every_sample_configuration_is_valid() {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf");
    let mut checked = 0;
    for entry in std::fs::read_dir(&conf).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yml") {
            let cluster = Cluster::new("instances: {web: {command: 'true'}}");
            // `included.yml` is a part of another file.
            if path.file_name().is_some_and(|name| name == "included.yml") {
                continue;
            }
            let file = path.to_str().unwrap();
            cluster.run_words(&["check", file]).code(0);
            cluster.run_words(&["-c", file, "config"]).code(0);
            checked += 1;
        }
    }
    assert!(checked > 0);
}

#[test]
fn profiles_and_autostart_decide_what_comes_up() {
    let yaml = "
instances:
  web: {command: sleep 1000}
  by_hand: {command: sleep 1000, autostart: false}
  debug: {command: sleep 1000, profiles: [debug]}
  none: {command: sleep 1000, numprocesses: 0}
";
    let cluster = Cluster::up(yaml);
    let running = |cluster: &Cluster| {
        let ps = cluster.ps();
        let running =
            ps["instances"].as_array().unwrap().iter().filter(|i| i["state"] == "running");
        running.map(|i| i["instance"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(running(&cluster), ["web.1"]);
    cluster.ok("start by_hand");
    assert_eq!(running(&cluster), ["by_hand.1", "web.1"]);
    cluster.down();
    cluster.ok("--profile debug up -d");
    assert_eq!(running(&cluster), ["debug.1", "web.1"]);
    cluster.down();
    cluster.ok("up -d");
    assert_eq!(running(&cluster), ["web.1"]);
    cluster.ok("--profile debug up -d --wait");
    assert_eq!(running(&cluster), ["debug.1", "web.1"], "a node that runs learns of it, too");
}
