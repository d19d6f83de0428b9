//! Reload, and what a configuration means.

use std::path::Path;

use hilum_tests::{Cluster, LIMIT, wait_until};
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

#[test]
fn a_cluster_whose_configuration_was_deleted_is_still_the_one_that_is_meant_below_it() {
    let cluster = Cluster::up("instances: {web: {command: sleep 1000}}");
    cluster.write("child/hilum.yml", "instances: {web: {command: sleep 1000}}");
    let below = |arguments: &[&str]| {
        let mut command = cluster.command(arguments);
        let output = command.current_dir(cluster.path("child")).output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    assert_eq!(below(&["up", "-d"]).0, Some(0));
    std::fs::remove_file(cluster.path("child/hilum.yml")).unwrap();
    let (code, out, err) = below(&["ps", "--json"]);
    assert_eq!(code, Some(0), "{err}");
    let ps: Value = serde_json::from_str(&out).unwrap();
    let config = ps["config"].as_str().unwrap();
    assert!(config.ends_with("child/hilum.yml"), "{config}");
    for words in [["why", "web"], ["logs", "web"], ["events", "web"], ["stop", "web"]] {
        let (code, _, err) = below(&words);
        assert_eq!(code, Some(0), "{words:?}: {err}");
    }
    for words in [["env", "web"], ["up", "-d"]] {
        let (code, _, err) = below(&words);
        assert_eq!(code, Some(2), "{words:?}: {err}");
        assert!(err.contains("child/hilum.yml") && err.contains("deleted"), "{words:?}: {err}");
    }
    assert_eq!(below(&["down"]).0, Some(0));
    assert_eq!(cluster.state("web.1"), "running", "the parent's was not meant");
}

#[test]
fn a_cluster_whose_configuration_was_renamed_is_found_in_its_folder() {
    let cluster = Cluster::up("instances: {web: {command: sleep 1000}}");
    std::fs::rename(cluster.path("hilum.yml"), cluster.path("hilum.yaml")).unwrap();
    assert_eq!(cluster.state("web.1"), "running");
    cluster.run("up -d").code(2).says("hilum.yml").says("renamed");
    cluster.run("down").code(0).says("stopped 1 instance");
    cluster.ok("up -d");
    assert!(cluster.ps()["config"].as_str().unwrap().ends_with("hilum.yaml"));
    cluster.ok("down");
}

#[test]
fn a_file_that_was_mended_is_not_said_to_be_refused_any_more() {
    let good = "instances: {web: {command: sleep 1000}}";
    let cluster = Cluster::up(good);
    cluster.write("hilum.yml", "instances: {web: {comand: sleep 1000}}");
    cluster.run("reload").code(2);
    cluster.run("ps").code(0).says("not in force");
    cluster.write("hilum.yml", good);
    cluster.ok("restart web");
    let ps = cluster.run("ps");
    assert!(!ps.err.contains("not in force"), "{}", ps.err);
}

#[test]
fn nobody_waits_for_the_time_of_a_schedule_nor_for_what_waits_for_it() {
    let yaml = "
instances:
  job: {command: 'true', kind: job, schedule: {cron: '0 3 1 1 *'}}
  after: {command: sleep 1000, depends_on: {job: {condition: completed}}}
  last: {command: sleep 1000, depends_on: [after]}
";
    let cluster = Cluster::new("instances: {web: {command: sleep 1000}}");
    cluster.ok("up -d");
    cluster.write("hilum.yml", yaml);
    cluster.ok("reload");
    cluster.ok("up -d --wait");
    assert_eq!(cluster.state("last.1"), "waiting");
    cluster.ok("start last");
    cluster.ok("scale job=2");
}

/// Four instances of which those whose file `bad` says so never become ready.
fn rolled(version: &str, more: &str) -> String {
    format!(
        "
instances:
  web:
    command: sh -c 'echo v$VERSION; sleep 0.1; [ $VERSION = {BAD} ] || touch ready.$HILUM_INDEX.$HILUM_RUN; exec sleep 1000'
    numprocesses: 4
    env: {{VERSION: '{version}'}}
    ready: {{exec: sh -c 'test -e ready.$HILUM_INDEX.$HILUM_RUN', interval: 20ms, within: 1500ms}}
    rolling: {{min_ready: 50ms}}
{more}"
    )
}

const BAD: &str = "2";

#[test]
fn a_reload_joins_the_change_that_a_saved_file_began() {
    let cluster = Cluster::new(&rolled("1", ""));
    cluster.ok("up -d --wait");
    cluster.configure(&rolled(BAD, ""));
    cluster.wait("web.1", "the new one", |web| web["run"] == 2);
    let told = cluster.run("reload").code(1);
    assert!(told.out.contains("web.1") && told.out.contains("failed"), "{}", told.out);
    assert!(!told.err.contains("nothing changed"), "{}", told.err);
}

#[test]
fn what_runs_an_older_definition_is_shown_planned_and_left_alone_where_that_is_wanted_again() {
    let cluster = Cluster::new(&rolled("1", ASKED));
    cluster.ok("up -d --wait");
    let pids = ["web.2", "web.3", "web.4"].map(|id| (id, cluster.pid(id)));
    cluster.configure(&rolled(BAD, ASKED));
    let told = cluster.run("reload").code(1).out;
    assert!(
        told.contains("web.1  failed: the new one did not hold: not ready within 1500ms")
            || told.contains("web.1  failed: the new one did not hold: not ready within 1.5s"),
        "{told}"
    );
    assert!(!told.contains("web.2  failed"), "{told}");
    assert!(told.contains("web.2  kept") && told.contains("web.1"), "{told}");
    for (id, pid) in pids {
        let one = cluster.instance(id);
        assert_eq!(one["pid"], pid);
        assert_eq!(one["flags"][0], "outdated", "{one}");
    }
    assert_eq!(cluster.instance("web.1")["flags"].as_array().unwrap().len(), 0);
    assert!(cluster.ok("ps").contains("before the last reload"), "{}", cluster.ok("ps"));
    assert!(cluster.ok("why web.2").contains("runs the definition before the last reload"));
    let plan = cluster.ok("reload --dry-run");
    assert!(plan.contains("~ web.2 env: restart") && !plan.contains("web.1"), "{plan}");
    // the old file again: only the one that runs something else is restarted
    cluster.configure(&rolled("1", ASKED));
    let plan = cluster.ok("reload --dry-run");
    assert!(plan.contains("~ web.1 env: restart") && !plan.contains("web.2"), "{plan}");
    cluster.ok("reload");
    for (id, pid) in pids {
        assert_eq!(cluster.pid(id), pid, "{id}");
        assert_eq!(cluster.instance(id)["flags"].as_array().unwrap().len(), 0);
    }
    wait_until(LIMIT, "web.1 is ready", || cluster.instance("web.1")["ready"] == true);
    assert_eq!(cluster.ok("reload --dry-run"), "");
}
