//! The other verbs, as far as a user of the command line sees them.

use hilum_tests::{Cluster, LIMIT, signal, wait_until};
use serde_json::Value;

#[test]
fn a_starter_config_comes_up() {
    let cluster = Cluster::new("");
    std::fs::remove_file(cluster.path("hilum.yml")).unwrap();
    cluster.ok("init");
    cluster.ok("check");
    cluster.run("init").code(1).says("--force");
}

#[test]
fn ls_and_doctor_know_the_node() {
    let cluster = Cluster::up("name: shop\ninstances: {web: {command: sleep 1000}}");
    let config = cluster.path("hilum.yml");
    let listed = cluster.ok("ls");
    let line = listed.lines().find(|line| line.contains(config.to_str().unwrap()));
    assert!(line.is_some_and(|line| line.starts_with("shop")), "{listed}");
    let doctor = cluster.ok("doctor");
    let cgroup = doctor.lines().find(|line| line.contains("cgroup")).unwrap();
    assert!(cgroup.starts_with("ok"), "nobody asks for its limits: {cgroup}");
    cluster.down();
    // others may run one of the same name
    assert!(!cluster.ok("ls").contains(cluster.dir().to_str().unwrap()));
}

#[test]
fn the_schema_and_the_configuration_can_be_read_by_programs() {
    let cluster =
        Cluster::new("env: {SECRET_TOKEN: hush}\ninstances: {web: {command: sleep 1000}}");
    let schema: Value = serde_json::from_str(&cluster.ok("config --schema")).unwrap();
    assert!(schema["properties"]["instances"].is_object());
    assert_eq!(cluster.ok("config instances.web.command").trim(), "sleep 1000");
    let resolved = cluster.ok("config");
    assert!(resolved.contains("numprocesses") && !resolved.contains("hush"), "{resolved}");
    assert!(cluster.ok("config --reveal").contains("hush"));
}

#[test]
fn help_is_there_for_every_command() {
    let cluster = Cluster::new("");
    let list = cluster.ok("list");
    let mut verbs = 0;
    for line in list.lines().skip(1) {
        let Some(verb) = line.split([',', ' ']).next() else { continue };
        cluster.run(&format!("help {verb}")).code(0).says("Usage");
        verbs += 1;
    }
    assert!(verbs > 20, "{list}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(!cluster.ok(&format!("completions {shell}")).is_empty());
    }
    assert!(cluster.ok("man").contains(".TH"));
}

#[test]
fn a_service_manager_can_run_the_node() {
    let cluster = Cluster::new("instances: {web: {command: sleep 1000}}");
    let node = cluster.start(&["node"]);
    wait_until(LIMIT, "the cluster", || cluster.run("ps").status.success());
    cluster.wait_state("web.1", "running");
    signal("TERM", node.pid());
    node.finish(LIMIT).code(0);
    cluster.assert_empty();
}

#[test]
fn term_to_the_node_itself_stops_in_order() {
    let cluster = Cluster::up(
        "instances: {web: {command: \"sh -c 'trap \\\"echo bye; exit 0\\\" TERM; touch up; while :; do sleep 0.02; done'\"}}",
    );
    wait_until(LIMIT, "a start", || cluster.path("up").exists());
    signal("TERM", u32::try_from(cluster.ps()["node"]["pid"].as_u64().unwrap()).unwrap());
    cluster.assert_empty();
    assert!(cluster.logs("web").contains("bye"));
}

#[test]
fn a_file_of_lymph_works_unchanged() {
    let yaml = "
container:
  ip: 127.0.0.1
  registry: {class: 'lymph.discovery.static:StaticServiceRegistryHub'}
instances:
  echo:
    command: sleep 1000
    numprocesses: 2
sockets: []
interfaces: {echo: {class: 'x:Y'}}
logging: {version: 1}
dependencies: {}
plugins: {}
";
    let cluster = Cluster::new(yaml);
    std::fs::rename(cluster.path("hilum.yml"), cluster.path(".lymph.yml")).unwrap();
    cluster.ok("up -d");
    assert_eq!(cluster.state("echo.2"), "running");
    cluster.down();
}

#[test]
fn a_broken_pipe_ends_a_command_silently() {
    let cluster = Cluster::up("instances: {web: {command: sh -c 'seq 1 20000', restart: never}}");
    cluster.wait_state("web.1", "completed");
    let words: Vec<String> =
        std::iter::once(cluster.command(&[]).get_program().display().to_string()).collect();
    let script = format!("{} logs -n all | head -n 1; echo ${{PIPESTATUS[0]}}", words[0]);
    let output = cluster
        .command(&[])
        .get_envs()
        .fold(std::process::Command::new("bash"), |mut shell, (name, value)| {
            if let Some(value) = value {
                shell.env(name, value);
            }
            shell
        })
        .args(["-c", &script])
        .current_dir(cluster.dir())
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn doctor_tells_leftovers_of_this_project_from_those_of_others_and_mends_what_is_dead() {
    let cluster = Cluster::new("instances: {web: {command: sleep 1000}}");
    cluster.write("other.yml", "instances: {web: {command: sleep 1000}}");
    for config in ["hilum.yml", "other.yml"] {
        cluster.ok(&format!("-c {config} up -d"));
        let node = cluster.json(&format!("-c {config} ps --json"))["node"]["pid"].clone();
        let folder = cluster.read(&format!(".hilum/{config}/run"));
        signal("KILL", u32::try_from(node.as_u64().unwrap()).unwrap());
        cluster.assert_empty();
        assert!(std::path::Path::new(folder.trim()).is_dir(), "{folder}");
    }
    // a node that is just starting looks like this
    cluster.write("run/hilum/0123456789ab/x", "");
    let checks = |arguments: &str| -> Vec<(String, String)> {
        let report = cluster.json(arguments);
        let all = report["checks"].as_array().unwrap().iter();
        let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
        all.map(|one| (text(one, "check"), text(one, "detail"))).collect()
    };
    let found = checks("doctor --json");
    let has = |check: &str, text: &str| {
        found.iter().any(|(name, detail)| name == check && detail.contains(text))
    };
    assert!(has("leftovers", "hilum.yml"), "{found:#?}");
    assert!(has("elsewhere", "other.yml"), "{found:#?}");
    assert!(has("elsewhere", "does not say whose"), "{found:#?}");
    checks("doctor --mend --json");
    let left: Vec<_> = std::fs::read_dir(cluster.path("run/hilum")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].file_name(), "0123456789ab");
}

#[test]
fn a_scheduled_job_says_when_it_runs_next_also_when_it_failed() {
    let cluster = Cluster::new(
        "instances: {good: {command: 'true', kind: job, schedule: {every: 1h}}, bad: {command: 'false', kind: job, restart: never, schedule: {every: 1h}}}",
    );
    cluster.run("up -d");
    cluster.wait_state("good.1", "completed");
    cluster.wait_state("bad.1", "failed");
    for job in ["good", "bad"] {
        let why = cluster.ok(&format!("why {job}"));
        assert!(why.contains("runs next in 59m") || why.contains("runs next in 1h"), "{why}");
        assert!(!why.contains("nothing more happens"), "{why}");
    }
    cluster.ok("stop good");
    let why = cluster.ok("why good");
    assert!(!why.contains("runs next"), "{why}");
}

#[test]
fn a_mistyped_key_is_one_error() {
    let cluster = Cluster::new("instances:\n  web: {comand: sleep 1000}\n");
    cluster.run("check").code(2).says("did you mean `command`?").says("1 error in");
    cluster.configure("instances:\n  web: {command: 'true', kind: job, schedule: 1h}\n");
    cluster.run("check").code(2).says("expected a map").says("1 error in");
    cluster.configure("instances:\n  web: {command: 'true', kind: job, schedule: {}}\n");
    cluster.run("check").code(2).says("the schedule has no times");
}

#[test]
fn what_is_odd_in_the_file_is_said_where_the_file_is_read_and_not_at_each_command() {
    let yaml = "
container: {events: {class: 'lymph.events.kombu:EventSystem'}}
instances: {web: {command: sleep 1000}}
";
    let cluster = Cluster::new(yaml);
    let odd = "kombu";
    let says = |words: &str| cluster.run(words).code(0).err.contains(odd);
    assert!(says("check") && says("up -d"));
    assert!(says("reload"));
    for words in ["ps", "why web", "restart web", "logs", "events", "doctor", "discover"] {
        assert!(!says(words), "{words}");
    }
    assert_eq!(cluster.ps()["node"]["warnings"], serde_json::json!([]));
}

#[test]
fn an_instance_that_a_service_does_not_have_is_an_unknown_target_for_programs_too() {
    let cluster = Cluster::up("instances: {web: {command: sleep 1000}}");
    for words in ["restart nobody --json", "restart web.9 --json", "logs web.9 --json"] {
        let told = cluster.run(words).code(2);
        let error: Value = serde_json::from_str(told.err.trim()).unwrap();
        assert_eq!(error["error"]["code"], "unknown-target", "{words}");
    }
}

#[test]
fn why_without_a_target_names_only_what_is_not_as_it_should_be() {
    let cluster = Cluster::up("instances: {good: {command: sleep 1000}}");
    assert!(cluster.ok("why").contains("every instance is as it should be"));
    cluster.write(
        "hilum.yml",
        "instances: {good: {command: sleep 1000}, bad: {command: sleep 1000, ready: {file: never, within: 100s}}}",
    );
    cluster.ok("up -d");
    let why = cluster.ok("why");
    assert!(why.contains("bad.1") && !why.contains("good.1"), "{why}");
}

#[test]
fn an_index_that_is_not_there_has_no_environment_and_a_stopped_one_gets_no_signal() {
    let cluster = Cluster::new("instances: {web: {command: sleep 1000, numprocesses: 2}}");
    for words in ["env web.99", "run web.99", "exec web.99 -- true"] {
        let told = cluster.run(words).code(2);
        assert!(told.err.contains("web.99") && told.err.contains("web.2"), "{words}: {}", told.err);
    }
    cluster.ok("up -d");
    cluster.ok("scale web=3");
    cluster.run("env web.99").code(2);
    cluster.ok("env web.3");
    cluster.ok("stop web.1");
    let told = cluster.run("signal HUP web.1").code(1);
    assert!(told.out.contains("web.1  not sent: it does not run"), "{}", told.out);
    cluster.ok("signal WINCH web");
}

#[test]
fn a_service_without_processes_is_said_to_have_none() {
    let cluster = Cluster::up(
        "instances: {web: {command: sleep 1000, numprocesses: 0}, db: {command: sleep 1000}}",
    );
    for (verb, code) in
        [("start", 0), ("restart", 0), ("restart --rolling", 0), ("stop", 0), ("signal HUP", 1)]
    {
        let told = cluster.run(&format!("{verb} web")).code(code);
        assert!(told.err.contains("`web` has no processes"), "{verb}: {told:?}");
    }
    let told = cluster.run("restart db").code(0);
    assert!(!told.err.contains("has no processes"), "{told:?}");
    // none are asked for, not none there
    assert_eq!(cluster.run("logs -n 0").code(0).err, "");
    // who was told to run does so when there is somebody
    cluster.ok("restart web");
    cluster.ok("scale web=1");
    cluster.wait_state("web.1", "running");
}
