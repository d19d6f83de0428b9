//! Saved files: `watch`, and the configuration itself.

use hilum_tests::{Cluster, LIMIT, wait_until};

#[test]
fn a_saved_file_restarts_the_service_that_watches_it_once() {
    let yaml = "
instances:
  web: {command: sleep 1000, watch: {paths: ['src/**/*.py'], debounce: 100ms}}
  db: {command: sleep 1000}
";
    let cluster = Cluster::new(yaml);
    cluster.write("src/a.py", "1");
    cluster.write(".gitignore", "*.gen.py\n");
    cluster.ok("up -d");
    let db = cluster.pid("db.1");
    // The watcher begins beside the first start: a save is repeated until it is seen, with another content each time.
    let mut text = 0;
    wait_until(LIMIT, "a restart", || {
        text += 1;
        cluster.write("src/a.new", &text.to_string());
        std::fs::rename(cluster.path("src/a.new"), cluster.path("src/a.py")).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        cluster.instance("web.1")["run"].as_u64().unwrap() > 1
    });
    let run = cluster.wait_state("web.1", "running")["run"].as_u64().unwrap();
    cluster.write("src/x.gen.py", "ignored");
    cluster.write("src/new/deep/b.py", "1");
    cluster.wait("web.1", "one more restart", |web| {
        web["run"] == run + 1 && web["state"] == "running"
    });
    assert_eq!(cluster.pid("db.1"), db);
    assert!(cluster.events("web").contains(&"files-changed".to_owned()));
}

#[test]
fn a_watch_can_run_a_command_instead() {
    let yaml = "instances: {web: {command: sleep 1000, watch: {paths: [conf], debounce: 50ms, action: {run: touch ran}}}}";
    let cluster = Cluster::new(yaml);
    cluster.write("conf/a", "1");
    cluster.ok("up -d");
    let pid = cluster.pid("web.1");
    let mut text = 0;
    wait_until(LIMIT, "the command", || {
        text += 1;
        cluster.write("conf/a", &format!("new {text}"));
        std::thread::sleep(std::time::Duration::from_millis(100));
        cluster.path("ran").exists()
    });
    assert_eq!(cluster.pid("web.1"), pid);
}

#[test]
fn a_watch_command_that_fails_is_told_in_events_and_log() {
    let yaml = |name: &str, run: &str| {
        format!(
            "  {name}: {{command: sleep 1000, watch: {{paths: [conf], debounce: 50ms, action: {{run: {run}}}}}}}\n"
        )
    };
    let instances = yaml("web", "\"sh -c 'echo tried; exit 3'\"") + &yaml("db", "./nosuch");
    let cluster = Cluster::new(&format!("instances:\n{instances}"));
    cluster.write("conf/a", "1");
    cluster.ok("up -d");
    let mut text = 0;
    let told = |name: &str| cluster.events(name).contains(&"watch-action-failed".to_owned());
    wait_until(LIMIT, "both are told", || {
        text += 1;
        cluster.write("conf/a", &format!("new {text}"));
        std::thread::sleep(std::time::Duration::from_millis(100));
        told("web") && told("db")
    });
    cluster.wait_log("watch.action failed: exit 3");
    cluster.wait_log("nosuch");
    cluster.wait_log("tried");
}

#[test]
fn a_saved_configuration_is_applied_and_a_broken_one_is_not() {
    let yaml =
        |count| format!("instances: {{web: {{command: sleep 1000, numprocesses: {count}}}}}\n");
    let cluster = Cluster::up(&yaml(1));
    let pid = cluster.pid("web.1");
    cluster.configure(&yaml(2));
    cluster.wait_state("web.2", "running");
    cluster.configure("instances: {web: {comand: sleep 1000}}\n");
    cluster.wait_log("not valid");
    assert_eq!(cluster.pid("web.1"), pid);
    let events = cluster.ok("events");
    let refused = events.lines().find(|line| line.contains("reload-refused")).unwrap();
    assert!(refused.contains("unknown key `comand` (hilum.yml:1:"), "{refused}");
    assert!(!events.contains(['│', '╰']) && !cluster.logs("").contains('╰'), "{events}");
    let warnings = |words: &str| cluster.json(words).pointer("/node/warnings").unwrap().to_string();
    let old = "the configuration file is not in force, what runs is an older one; it is not valid: unknown key `comand`";
    assert!(warnings("ps --json").contains(old), "{}", warnings("ps --json"));
    cluster.run("ps").code(0).says(old);
    cluster.run("why").code(0).says(old);
    assert!(cluster.json("why --json")["warnings"].to_string().contains(old));
    cluster.configure(&yaml(2));
    wait_until(LIMIT, "word that it is good again", || {
        cluster.ok("events").contains("configuration unchanged")
    });
    cluster.configure(&yaml(3));
    cluster.wait_state("web.3", "running");
    assert!(!warnings("ps --json").contains("not in force"));
    assert_eq!(cluster.pid("web.1"), pid);
}

#[test]
fn a_service_that_reads_the_configuration_itself_is_told_when_it_changed() {
    let yaml = |count, own| {
        format!(
            "node: {{watch_config: false}}\ncomponents: {{size: {own}}}\ninstances:\n  web: {{command: [sh, -c, 'trap \"echo told\" HUP; echo here; while :; do sleep 0.05; done'], \
             reload: {{signal: HUP}}, ready: {{log: here}}}}\n  db: {{command: sleep 1000, numprocesses: {count}}}\n"
        )
    };
    let cluster = Cluster::new(&yaml(1, 1));
    cluster.ok("up -d --wait");
    let pid = cluster.pid("web.1");
    let asked =
        |cluster: &Cluster| cluster.events("web").iter().filter(|e| *e == "reload-asked").count();
    assert!(!cluster.ok("reload").contains("told"));
    cluster.configure(&yaml(1, 2));
    let plan = cluster.ok("reload --dry-run");
    assert!(plan.contains("web.1 content: told by signal HUP"), "{plan}");
    assert_eq!(asked(&cluster), 0);
    cluster.ok("reload");
    cluster.wait_log("told");
    cluster.configure(&yaml(2, 2));
    cluster.ok("reload");
    assert_eq!((asked(&cluster), cluster.pid("web.1")), (2, pid));
}
