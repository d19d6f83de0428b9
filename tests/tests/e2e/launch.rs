//! What a program is started with.

use std::os::unix::fs::MetadataExt;

use hilum_tests::{Cluster, LIMIT, wait_until};

/// Runs a script once, with these keys, and gives what it wrote.
fn seen(script: &str, keys: &str) -> (Cluster, String) {
    let cluster = Cluster::new("");
    let script_path = cluster.path("probe.sh");
    cluster.write("probe.sh", script);
    cluster.write("sub/x", "");
    let common = format!("command: [sh, {}], restart: never", script_path.display());
    cluster.configure(&format!("instances: {{web: {{{common}, {}}}", keys.trim_start_matches('{')));
    cluster.run("up -d");
    cluster.wait("web.1", "its end", |web| web["state"] == "completed" || web["state"] == "failed");
    let text = cluster.logs("web --stream out,err --no-prefix");
    (cluster, text)
}

#[test]
fn variables_have_their_order_and_the_contract() {
    let yaml = "
env: {TOP: top, BOTH: top, TAKEN: top}
env_file: [top.env]
instances:
  web:
    command: sh -c 'env | sort > env.$HILUM_INDEX; exec sleep 1000'
    numprocesses: 2
    env: {BOTH: own, TAKEN: null, ID: \"$(instance.id) of $(service.name)\", FROM: \"$(env.HOME)\"}
    env_file: own.env
";
    let cluster = Cluster::new(yaml);
    cluster.write("top.env", "TOP_FILE=1\nTOP=overridden\n");
    cluster.write("own.env", "OWN_FILE='two words'\nBOTH=overridden\n");
    cluster.ok("up -d");
    wait_until(LIMIT, "its environment", || cluster.read("env.2").contains("TOP_FILE"));
    let env = cluster.read("env.2");
    let home = format!("FROM={}", std::env::var("HOME").unwrap_or_default());
    for line in [
        "TOP=top",
        "TOP_FILE=1",
        "BOTH=own",
        "OWN_FILE=two words",
        "ID=web.2 of web",
        &home,
        "HILUM_INSTANCE=web.2",
        "HILUM_INDEX=2",
        "HILUM_SERVICE=web",
        "LYMPH_SERVICE_NAME=web",
        "HILUM_RUN=1",
    ] {
        assert!(env.lines().any(|other| other == line), "{line} is missing: {env}");
    }
    assert!(!env.contains("TAKEN="), "{env}");
    for name in [
        "HILUM_NODE",
        "HILUM_TOKEN",
        "HILUM_CLUSTER",
        "HILUM_SHUTDOWN",
        "HILUM_HEARTBEAT",
        "HILUM_LOG",
        "HILUM_EVENTS",
        "NOTIFY_SOCKET",
        "HILUM_LOCK",
        "LYMPH_NODE_CONFIG",
        "LYMPH_MONITOR",
    ] {
        assert!(env.contains(&format!("\n{name}=")), "{name} is missing: {env}");
    }
    let shown = cluster.ok("env web.1");
    assert!(
        shown.contains("BOTH") && shown.contains("own") && shown.contains("hilum.yml"),
        "{shown}"
    );
}

#[test]
fn folder_umask_niceness_and_limits_are_as_written() {
    let script = "pwd; umask; nice; ulimit -n; grep Cpus_allowed_list /proc/self/status; grep NoNewPrivs /proc/self/status; \
                  readlink /proc/self/fd/0; ps -o sid= -p $$ | tr -d ' '; echo $$";
    let keys = "{directory: sub, umask: '027', nice: 5, cpus: [0], no_new_privs: true, limits: {nofile: 123}}";
    let (cluster, text) = seen(script, keys);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], cluster.path("sub").display().to_string());
    assert_eq!(lines[1..4], ["0027", "5", "123"]);
    assert_eq!(lines[4].split_whitespace().last(), Some("0"));
    assert_eq!(lines[5].split_whitespace().last(), Some("1"));
    assert_eq!(lines[6], "/dev/null");
    assert_eq!(lines[7], lines[8], "it leads its own session");
}

#[test]
fn another_user_is_taken_or_refused() {
    let cluster = Cluster::new(
        "instances: {web: {command: sh -c 'id -un; id -gn; touch x || echo refused', restart: never, user: nobody}}",
    );
    // Others may read a temporary folder only when told so.
    let open = std::process::Command::new("chmod").arg("755").arg(cluster.dir()).status();
    assert!(open.is_ok_and(|status| status.success()));
    cluster.run("up -d");
    let web = cluster
        .wait("web.1", "its end", |web| web["state"] == "completed" || web["state"] == "failed");
    let text = cluster.logs("web --stream out --no-prefix");
    if cluster.dir().metadata().unwrap().uid() == 0 {
        assert_eq!(text, "nobody\nnogroup\nrefused\n", "{web}");
    } else {
        assert_eq!((&web["state"], text.as_str()), (&"failed".into(), ""), "only root may do this");
    }
}

#[test]
fn a_shell_is_used_only_where_asked_for() {
    let yaml = "
instances:
  plain: {command: \"echo a && echo 'b c' $HOME\", restart: never}
  list: {command: [echo, 'x  y', '$HOME'], restart: never}
  shell: {command: 'echo d && echo e | tr e f', shell: true, restart: never}
";
    let cluster = Cluster::up(yaml);
    for id in ["plain.1", "list.1", "shell.1"] {
        cluster.wait_state(id, "completed");
    }
    assert_eq!(cluster.logs("plain --stream out --no-prefix"), "a && echo b c $HOME\n");
    assert_eq!(cluster.logs("list --stream out --no-prefix"), "x  y $HOME\n");
    assert_eq!(cluster.logs("shell --stream out --no-prefix"), "d\nf\n");
}

#[test]
fn what_cannot_be_executed_is_told_apart() {
    let yaml = "
instances:
  missing: {command: no-such-program-anywhere}
  denied: {command: ./data}
  format: {command: ./empty}
  shebang: {command: ./bang}
  folder: {command: sleep 1, directory: nowhere}
";
    let cluster = Cluster::new(yaml);
    cluster.write("data", "x");
    for (name, text) in [("empty", "\u{1}\u{2}"), ("bang", "#!/no/such/interpreter\n")] {
        cluster.write(name, text);
        let path = cluster.path(name);
        assert!(
            std::process::Command::new("chmod").arg("+x").arg(path).status().unwrap().success()
        );
    }
    cluster.run("up -d").code(1);
    for (id, words) in [
        ("missing.1", "ENOENT"),
        ("denied.1", "EACCES"),
        ("format.1", "ENOEXEC"),
        ("shebang.1", "/no/such/interpreter"),
        ("folder.1", "nowhere"),
    ] {
        let instance = cluster.wait_state(id, "failed");
        let reason = instance["reason"].as_str().unwrap();
        assert!(reason.contains(words), "{id}: {reason}");
        assert_eq!(instance["restarts"], 0, "{id}: trying again would not help");
    }
}

#[test]
fn env_run_and_exec_take_the_environment_that_the_node_runs_with() {
    let cluster = Cluster::new("instances: {web: {command: sleep 1000, env: {WHO: '$(env.FOO)'}}}");
    let with = |foo: &str, words: &[&str]| {
        let mut command = cluster.command(words);
        let output = command.env("FOO", foo).env("TERM", "here").output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    };
    let exec = ["exec", "web", "--", "sh", "-c", "echo $WHO $FOO $TERM"];
    assert_eq!(with("mine", &exec).0, "mine mine here\n", "no node runs");
    with("nodes", &["up", "-d"]);
    assert_eq!(with("mine", &exec).0, "nodes nodes here\n");
    let (out, err) = with("mine", &["env", "web"]);
    assert!(out.contains("WHO=nodes") && err.contains("`FOO` has another value"), "{out}{err}");
    let (_, err) = with("nodes", &["env", "web"]);
    assert!(!err.contains("another value"), "{err}");
}

#[test]
fn the_hooks_of_a_new_run_are_not_told_the_end_of_the_last() {
    let yaml = "
instances:
  web:
    command: sleep 1000
    restart: {delay: 10ms}
    hooks:
      after_ready: sh -c 'echo ready $HILUM_RUN ${HILUM_EXIT_SIGNAL:-none} >> told'
      before_stop: sh -c 'echo stop $HILUM_RUN ${HILUM_EXIT_SIGNAL:-none} >> told'
      on_crash: sh -c 'echo crash $HILUM_RUN ${HILUM_EXIT_SIGNAL:-none} >> told'
";
    let cluster = Cluster::up(yaml);
    hilum_tests::wait_until(hilum_tests::LIMIT, "ready", || {
        cluster.read("told").contains("ready 1")
    });
    cluster.ok("kill -9 web.1");
    hilum_tests::wait_until(hilum_tests::LIMIT, "again", || {
        cluster.read("told").contains("ready 2")
    });
    cluster.down();
    let told = cluster.read("told");
    let mut lines: Vec<&str> = told.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["crash 1 KILL", "ready 1 none", "ready 2 none", "stop 2 none"]);
}
