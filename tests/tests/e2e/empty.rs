//! Stopped means empty, whatever the program did to get away; and nothing outlives the node.

use std::time::{Duration, Instant};

use hilum_tests::{Cluster, LIMIT, alive, signal, wait_until, with_text};

#[test]
fn a_grandchild_that_ignores_term_is_gone_after_the_stop() {
    let yaml = "
instances:
  web:
    command: sh -c '(trap \"\" TERM; touch deaf; while :; do sleep 0.1; done) & wait'
    stop: {timeout: 300ms}
";
    let cluster = Cluster::up(yaml);
    wait_until(LIMIT, "the grandchild", || cluster.path("deaf").exists());
    cluster.ok("stop web");
    // The node and its keeper.
    wait_until(LIMIT, "only the node is left", || cluster.processes().len() == 2);
    assert_eq!(cluster.state("web.1"), "stopped");
}

#[test]
fn what_leaves_its_session_is_found() {
    let cluster = Cluster::up(
        "instances: {web: {command: sh -c 'setsid sleep 1000 & touch up; wait', stop: {timeout: 300ms}}}",
    );
    wait_until(LIMIT, "the escapee", || {
        cluster.path("up").exists() && cluster.processes().len() >= 4
    });
    cluster.ok("stop web");
    assert_eq!(cluster.processes().len(), 2, "{:#?}", cluster.processes());
}

/// A daemon by the book: double fork, a session of its own, no environment, no descriptors of ours.
fn daemonizes(cluster: &Cluster) -> String {
    let text = format!("{}-daemon", cluster.token());
    let command = format!(
        "(setsid env -i sh -c 'sleep 1000; : {text}' <&- >/dev/null 2>&1 &) ; sleep 0.2; exec sleep 1000"
    );
    cluster.write("daemonize.sh", &command);
    text
}

#[test]
fn a_daemon_with_an_empty_environment_is_gone_after_the_stop() {
    let cluster =
        Cluster::new("instances: {web: {command: sh daemonize.sh, stop: {timeout: 300ms}}}");
    let text = daemonizes(&cluster);
    cluster.ok("up -d");
    wait_until(LIMIT, "the daemon", || !with_text(&text).is_empty());
    cluster.ok("stop web");
    assert_eq!(with_text(&text), []);
}

#[test]
fn a_killed_node_leaves_nothing_and_the_next_up_starts_clean() {
    let yaml = "
instances:
  web: {command: sh daemonize.sh, numprocesses: 3}
  deaf: {command: sh -c 'trap \"\" TERM HUP INT; while :; do sleep 0.1; done', stop: {timeout: 200ms}}
";
    let cluster = Cluster::new(yaml);
    let text = daemonizes(&cluster);
    cluster.ok("up -d");
    wait_until(LIMIT, "three daemons", || with_text(&text).len() >= 3);
    let node = u32::try_from(cluster.ps()["node"]["pid"].as_u64().unwrap()).unwrap();
    let killed = Instant::now();
    signal("KILL", node);
    cluster.assert_empty_within(Duration::from_secs(2));
    println!("empty {:?} after the kill", killed.elapsed());
    cluster.run("ps").code(3);
    cluster.ok("up -d");
    assert_eq!(cluster.state("web.3"), "running");
    cluster.down();
    assert_eq!(with_text(&text), []);
}

#[test]
fn doctor_sees_and_mends_what_the_next_up_would_end_though_it_hides_its_environment() {
    let cluster = Cluster::new("instances: {web: {command: sh daemonize.sh}}");
    let text = daemonizes(&cluster);
    cluster.ok("up -d");
    wait_until(LIMIT, "the daemon", || !with_text(&text).is_empty());
    let keeper = cluster.processes().into_iter().find(|one| one.command.contains("__keeper"));
    let keeper = keeper.unwrap().pid;
    let node = u32::try_from(cluster.ps()["node"]["pid"].as_u64().unwrap()).unwrap();
    // It would end what the node leaves. (A node that stands still when its keeper dies is woken by the kernel, as an orphan.)
    signal("STOP", keeper);
    signal("KILL", node);
    signal("KILL", keeper);
    wait_until(LIMIT, "the lock is free", || cluster.run("ps").status.code() == Some(3));
    cluster.run("doctor").code(1).says("processes without a node").says(&text);
    cluster.ok("doctor --mend");
    assert_eq!(with_text(&text), []);
    cluster.run("doctor").says("leftovers: none");
}

#[test]
fn doctor_ends_what_another_projects_dead_node_left_before_it_removes_its_folder() {
    let cluster = Cluster::new("instances: {web: {command: sleep 1000}}");
    cluster.write("other.yml", "instances: {web: {command: sh daemonize.sh}}");
    let text = daemonizes(&cluster);
    cluster.ok("-c other.yml up -d");
    wait_until(LIMIT, "the daemon", || !with_text(&text).is_empty());
    let keeper = cluster.processes().into_iter().find(|one| one.command.contains("__keeper"));
    let keeper = keeper.unwrap().pid;
    let node = cluster.json("-c other.yml ps --json")["node"]["pid"].as_u64().unwrap();
    signal("STOP", keeper);
    signal("KILL", u32::try_from(node).unwrap());
    signal("KILL", keeper);
    let gone = || cluster.run("-c other.yml ps").status.code() == Some(3);
    wait_until(LIMIT, "the lock is free", gone);
    cluster.run("doctor").code(1).says("processes without a node").says(&text);
    cluster.ok("doctor --mend");
    assert_eq!(with_text(&text), []);
    assert_eq!(std::fs::read_dir(cluster.path("run/hilum")).unwrap().count(), 0);
}

#[test]
fn a_killed_keeper_takes_the_cluster_with_it_in_order() {
    let cluster = Cluster::up("instances: {web: {command: sleep 1000}}");
    let node = u32::try_from(cluster.ps()["node"]["pid"].as_u64().unwrap()).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{node}/stat")).unwrap();
    let keeper = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
    signal("KILL", keeper);
    cluster.assert_empty();
    let told = cluster.ok("events");
    assert!(told.contains(&format!("its keeper, pid {keeper}, was killed")), "{told}");
}

#[test]
fn a_program_that_stops_itself_is_shown_as_paused_and_can_be_stopped() {
    let cluster = Cluster::up("instances: {web: {command: sleep 1000}}");
    let pid = cluster.pid("web.1");
    signal("STOP", pid);
    cluster.wait("web.1", "paused", |web| web["flags"] == serde_json::json!(["paused"]));
    signal("CONT", pid);
    cluster.wait("web.1", "not paused", |web| web["flags"] == serde_json::json!([]));
    assert_eq!(cluster.pid("web.1"), pid);
    signal("STOP", pid);
    cluster.ok("stop web");
    assert!(!alive(pid));
}

#[test]
fn a_leader_that_exits_leaves_no_child_behind_when_it_is_restarted() {
    let cluster = Cluster::up(
        "instances: {web: {command: sh -c 'sleep 1000 & test -e second && exec sleep 1000; touch second; sleep 0.2; exit 1', restart: {delay: 10ms}}}",
    );
    cluster.wait("web.1", "second run", |web| web["run"] == 2 && web["state"] == "running");
    // The node, its keeper, the leader and its child.
    wait_until(LIMIT, "the first run is gone", || cluster.processes().len() == 4);
}

#[test]
fn a_second_interrupt_kills() {
    let cluster = Cluster::new(
        "instances: {deaf: {command: sh -c 'trap \"\" TERM; touch up; while :; do sleep 0.1; done', stop: {timeout: 60s}}}",
    );
    let up = cluster.start(&["up"]);
    wait_until(LIMIT, "a start", || cluster.path("up").exists());
    signal("INT", up.pid());
    up.wait_out("waiting for");
    signal("INT", up.pid());
    up.finish(LIMIT);
    cluster.assert_empty();
}

#[test]
fn a_node_whose_state_folder_was_removed_is_found_and_gets_it_back() {
    let cluster = Cluster::up(
        "instances: {web: {command: [sh, -c, 'while :; do echo here; sleep 0.05; done']}}",
    );
    let (node, web) = (cluster.ps()["node"]["pid"].clone(), cluster.pid("web.1"));
    std::fs::remove_dir_all(cluster.path(".hilum")).unwrap();
    assert_eq!(cluster.ps()["node"]["pid"], node);
    cluster.run("doctor --mend").says(&format!("pid {node} answers"));
    cluster.ok("up -d");
    assert_eq!(cluster.ps()["node"]["pid"], node);
    assert_eq!(cluster.pid("web.1"), web);
    cluster.wait_log("somebody removed");
    cluster.wait_log("web.1 | here");
    let folder = cluster.path(".hilum/hilum.yml");
    assert_eq!(
        hilum_shared::lock::holder(&folder.join("lock")).unwrap(),
        node.as_u64().map(|pid| pid as u32)
    );
    std::fs::remove_dir_all(&folder).unwrap();
    cluster.down().code(0);
    cluster.assert_empty();
}

#[test]
fn a_removed_run_folder_and_stolen_sockets_are_made_anew() {
    let yaml = format!(
        "node: {{heartbeat: {{interval: 100ms, timeout: 1s}}}}\ninstances:\n  web: {{command: [{}, hello], ready: heartbeat}}\n",
        hilum_tests::worker()
    );
    let cluster = Cluster::up(&yaml);
    cluster.wait("web.1", "readiness", |web| web["ready"] == true);
    let folder = std::path::PathBuf::from(cluster.read(".hilum/hilum.yml/run").trim());
    std::fs::remove_dir_all(&folder).unwrap();
    let begun = Instant::now();
    let pid = cluster.pid("web.1");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    // Old connections stay, new ones are taken.
    cluster.ok("restart web");
    let new = cluster.wait("web.1", "readiness", |web| web["ready"] == true);
    assert_ne!(new["pid"], pid);
    cluster.wait_log("it is made anew");

    let path = folder.join("node.sock");
    std::fs::remove_file(&path).unwrap();
    let _thief = std::os::unix::net::UnixListener::bind(&path).unwrap();
    wait_until(LIMIT, "the node's own socket", || {
        cluster.run("ps --quiet").status.code() == Some(0)
    });
    cluster.wait_log("somebody removed or took over");
    std::fs::remove_file(folder.join("notify.sock")).unwrap();
    wait_until(LIMIT, "the notify socket", || folder.join("notify.sock").exists());
    assert_eq!(cluster.instance("web.1")["run"], 2);
    cluster.down().code(0);
    cluster.assert_empty();
    assert!(!folder.exists());
}

#[test]
fn a_moved_project_folder_is_said_once_and_nothing_is_written_at_the_old_place() {
    let cluster = Cluster::new("instances: {}");
    let (old, new) = (cluster.path("old"), cluster.path("new"));
    cluster.write("old/hilum.yml", "logs: {segment: 64KiB}\ninstances: {web: {command: [sh, -c, 'while :; do seq 2000; sleep 0.02; done']}}\n");
    let hilum = |folder: &std::path::Path, words: &[&str]| {
        cluster.command(words).current_dir(folder).env_remove("HILUM_CONFIG").output().unwrap()
    };
    assert!(hilum(&old, &["up", "-d"]).status.success());
    std::fs::rename(&old, &new).unwrap();
    let logs = new.join(".hilum/hilum.yml/logs");
    let said = || {
        let files = std::fs::read_dir(&logs).unwrap().flatten();
        let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
        texts.map(|text| text.matches("was moved: ").count()).sum::<usize>()
    };
    wait_until(LIMIT, "a word about it", || {
        said() > 0 || {
            // The log has lost its folder, too, where a new file was due before that.
            let diagnostics = std::fs::read_dir(new.join(".hilum/hilum.yml")).unwrap().flatten();
            diagnostics
                .filter(|file| file.file_name().to_string_lossy().starts_with("node.log"))
                .filter_map(|file| std::fs::read_to_string(file.path()).ok())
                .any(|text| text.contains("was moved: "))
        }
    });
    assert!(!old.exists(), "made anew");
    // The same node, found by its lock where that is now.
    assert!(hilum(&new, &["down"]).status.success());
    assert!(!old.exists(), "made anew");
}

#[test]
fn a_stopped_keeper_is_named_and_ended() {
    for words in ["down", "down --now"] {
        let cluster = Cluster::up("instances: {web: {command: sleep 1000}}");
        let node = u32::try_from(cluster.ps()["node"]["pid"].as_u64().unwrap()).unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{node}/stat")).unwrap();
        let keeper = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
        signal("STOP", keeper);
        let begun = Instant::now();
        let down = cluster.run(words).code(0);
        assert!(down.err.contains(&format!("keeper (pid {keeper})")), "{words}: {}", down.err);
        assert!(down.err.contains("stopped"), "{words}: {}", down.err);
        cluster.assert_empty();
        println!("{words}: {:?}", begun.elapsed());
    }
}
