//! What a user sees on a terminal, and what is left when it goes away.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use hilum_tests::{Cluster, LIMIT, alive, demo, signal, wait_until};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};

/// A command on a terminal of its own.
struct Terminal {
    /// Closed: the terminal is gone.
    screen: Option<File>,
    /// What it has shown and nobody has waited for yet.
    unseen: String,
    child: Child,
}

impl Terminal {
    fn start(cluster: &Cluster, arguments: &[&str]) -> Self {
        let pair = nix::pty::openpty(None, None).expect("a terminal");
        // else the command would hold its own terminal open
        for end in [&pair.master, &pair.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("an open descriptor");
        }
        let mut command = cluster.command_by(&["setsid", "--ctty"], arguments);
        command.env("TERM", "xterm").env_remove("CI");
        command.env("XDG_STATE_HOME", cluster.path("state"));
        let end = |slave: &OwnedFd| Stdio::from(slave.try_clone().expect("a descriptor"));
        command.stdin(end(&pair.slave)).stdout(end(&pair.slave)).stderr(end(&pair.slave));
        let child = command.spawn().expect("util-linux has setsid");
        Self { screen: Some(File::from(pair.master)), unseen: String::new(), child }
    }

    /// Presses keys.
    fn press(&mut self, keys: &str) {
        self.screen.as_mut().expect("open").write_all(keys.as_bytes()).expect("typed");
    }

    /// Reads until the screen has shown this, after what was waited for before.
    fn wait_for(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        let deadline = Instant::now() + LIMIT;
        let end = loop {
            if let Some(at) = self.unseen.find(text) {
                break at + text.len();
            }
            let screen = self.screen.as_ref().expect("open").as_fd();
            let shown = poll(&mut [PollFd::new(screen, PollFlags::POLLIN)], 100_u16);
            assert!(Instant::now() < deadline, "{text:?} is not in {:?}", self.unseen);
            if shown != Ok(1) {
                continue;
            }
            let count = self.screen.as_mut().expect("open").read(&mut buffer).expect("its text");
            self.unseen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        };
        self.unseen.drain(..end);
    }

    fn code(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until(LIMIT, "an end", || {
            status = self.child.try_wait().expect("our child");
            status.is_some()
        });
        status.expect("waited for").code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

#[test]
fn a_closed_terminal_is_a_stop_and_no_failure() {
    // it writes all the time, so that somebody writes to the terminal that is gone
    let cluster = Cluster::new(
        "instances: {web: {command: \"sh -c 'while :; do echo tick; sleep 0.02; done'\"}}",
    );
    let mut up = Terminal::start(&cluster, &["up"]);
    up.wait_for("tick");
    drop(up.screen.take());
    assert_eq!(up.code(), Some(0));
    cluster.assert_empty();
}

#[test]
fn top_and_a_one_off_end_with_their_terminal() {
    let cluster = Cluster::up("instances: {web: {command: sleep 1000}}");
    let beside = cluster.processes().len();
    for (words, shown) in [
        (&["top"][..], "running"),
        (&["exec", "web", "--", "sh", "-c", "echo he''re; exec sleep 1000"], "here"),
    ] {
        let mut one = Terminal::start(&cluster, words);
        one.wait_for(shown);
        drop(one.screen.take());
        one.code();
        wait_until(LIMIT, "nothing of it", || cluster.processes().len() == beside);
    }
}

#[test]
fn a_hangup_is_a_reload_for_a_node_in_the_foreground_and_nothing_under_nohup() {
    let yaml = |count: u32| {
        format!(
            "node: {{watch_config: false}}\ninstances: {{web: {{command: sleep 1000, numprocesses: {count}}}}}"
        )
    };
    let cluster = Cluster::new(&yaml(1));
    let node = cluster.start(&["node"]);
    wait_until(LIMIT, "a node", || cluster.run("ps").status.success());
    cluster.wait_state("web.1", "running");
    cluster.configure(&yaml(2));
    signal("HUP", node.pid());
    wait_until(LIMIT, "the second", || cluster.ps()["instances"].as_array().unwrap().len() == 2);
    signal("TERM", node.pid());
    node.finish(LIMIT).code(0);
    cluster.assert_empty();

    let deaf = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"];
    let up = cluster.start_by(&deaf, &["up"]);
    up.wait_out("started");
    cluster.wait_state("web.2", "running");
    signal("HUP", up.pid());
    cluster.ok("restart web");
    signal("TERM", up.pid());
    let up = up.finish(LIMIT).code(0);
    assert!(!up.err.contains("terminal"), "{up}");
    cluster.assert_empty();
}

#[test]
fn a_killed_run_leaves_nothing() {
    let cluster = Cluster::new(
        "instances: {web: {command: \"sh -c 'sleep 1000 & setsid sleep 1000 & touch up; wait'\", autostart: false}}",
    );
    let run = cluster.start(&["run", "web"]);
    wait_until(LIMIT, "a start", || cluster.path("up").exists());
    wait_until(LIMIT, "all of it", || cluster.processes().len() >= 5);
    signal("KILL", run.pid());
    cluster.assert_empty_within(Duration::from_secs(2));
}

#[test]
fn what_a_run_starts_ends_with_it_also_when_its_guard_is_killed() {
    let cluster = Cluster::new(
        "instances: {web: {command: \"sh -c 'sleep 1000 & touch up; wait'\", autostart: false}}",
    );
    let run = cluster.start(&["run", "web"]);
    wait_until(LIMIT, "a start", || cluster.path("up").exists());
    let guard = cluster.processes().into_iter().find(|one| one.command.contains("__oneoff"));
    signal("KILL", guard.expect("a second process").pid);
    run.finish(LIMIT).code(137);
    cluster.assert_empty_within(Duration::from_secs(2));
}

#[test]
fn a_run_hands_signals_on() {
    let cluster = Cluster::new(
        "instances: {web: {command: \"sh -c 'trap \\\"exit 9\\\" TERM; touch up; while :; do sleep 0.02; done'\", autostart: false}}",
    );
    let run = cluster.start(&["run", "web"]);
    wait_until(LIMIT, "a start", || cluster.path("up").exists());
    signal("TERM", run.pid());
    run.finish(LIMIT).code(9);
    cluster.assert_empty();
}

#[test]
fn ctrl_c_on_a_run_reaches_the_program_once() {
    use std::io::Write;
    let cluster = Cluster::new(
        "instances: {web: {command: \"sh -c 'trap \\\"echo int >> ints; exit 5\\\" INT; echo here; while :; do sleep 0.02; done'\", autostart: false}}",
    );
    let mut run = Terminal::start(&cluster, &["run", "web"]);
    run.wait_for("here");
    run.screen.as_mut().unwrap().write_all(b"\x03").unwrap();
    assert_eq!(run.code(), Some(5));
    assert_eq!(cluster.read("ints"), "int\n");
    cluster.assert_empty();
}

#[test]
fn a_stopped_node_is_told_and_ended() {
    let cluster = Cluster::up("instances: {web: {command: sleep 1000}}");
    let node = u32::try_from(cluster.ps()["node"]["pid"].as_u64().unwrap()).unwrap();
    signal("STOP", node);
    for verb in ["ps", "why web", "restart web", "reload", "up -d", "scale web=2"] {
        let begun = Instant::now();
        let told = cluster.run(verb).code(1);
        assert!(begun.elapsed() < Duration::from_secs(4), "{verb} took {:?}", begun.elapsed());
        told.says("does not answer: it is stopped (SIGSTOP)").says("kill -CONT");
    }
    cluster.run("down --now").code(0).says("is stopped (SIGSTOP)").says("killed the node");
    assert!(!alive(node));
    cluster.assert_empty();
}

#[test]
fn a_stopped_node_can_still_be_stopped_in_order() {
    let cluster = Cluster::up(
        "instances: {web: {command: \"sh -c 'trap \\\"touch bye; exit 0\\\" TERM; touch up; while :; do sleep 0.02; done'\"}}",
    );
    wait_until(LIMIT, "a start", || cluster.path("up").exists());
    let node = u32::try_from(cluster.ps()["node"]["pid"].as_u64().unwrap()).unwrap();
    signal("STOP", node);
    cluster.run("down").code(0).says("sending it SIGTERM").says("nothing is left");
    assert!(cluster.path("bye").exists(), "it was stopped, not killed");
    cluster.assert_empty();
}

#[test]
fn a_lost_run_folder_makes_nobody_wait_long() {
    let cluster = Cluster::up("instances: {web: {command: sleep 1000}}");
    std::fs::remove_dir_all(cluster.path("run/hilum")).unwrap();
    // the node makes it anew in its own time; until then a verb may wait for it, or say that it is gone
    let begun = Instant::now();
    cluster.run("ps");
    cluster.run("down").code(0).says("nothing is left");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    cluster.assert_empty();
}

/// Up, as xterm sends it.
const UP: &str = "\x1b[A";

#[test]
fn a_shell_completes_remembers_and_shows_events() {
    let demo = demo();
    let cluster = Cluster::new(&format!(
        "instances: {{echo: {{command: {demo} instance --interface Echo, ready: registered}}}}"
    ));
    cluster.ok("up -d --wait");
    let mut shell = Terminal::start(&cluster, &["shell", "--timeout", "20s"]);
    shell.wait_for("hilum> ");
    // Services and methods are asked of the registry and of the service itself.
    shell.press("proxy.ec\t");
    shell.wait_for("proxy.echo.");
    shell.press("ec\t");
    shell.wait_for("echo(");
    // So are a method's parameters.
    shell.press("te\t");
    shell.wait_for("text=");
    shell.press("\"fo\" )\r");
    shell.wait_for("\r\n\"fo\"");
    shell.wait_for("hilum> ");
    // A bracket that is open goes on in the next line, and Ctrl-C drops what was typed.
    shell.press("x = {\"text\":\r\"ba\"}\r");
    shell.wait_for("\"ba\"}");
    shell.wait_for("hilum> ");
    shell.press("nonsense\x03");
    shell.wait_for("hilum> ");
    // A word that is whole is followed by a blank.
    shell.press("request echo.up\t");
    shell.wait_for("echo.upper ");
    shell.press("x\r");
    shell.wait_for("\r\n\"BA\"");
    shell.wait_for("hilum> ");
    // Ctrl-C ends what shows events, not the shell.
    shell.press("subscribe 'order.*'\r");
    let emitted = || cluster.json("emit order.paid {\"id\":7} --json")["queues"] == 1;
    wait_until(LIMIT, "the subscription", emitted);
    shell.wait_for("order.paid: {\"id\": 7}");
    shell.press("\x03");
    shell.wait_for("hilum> ");
    shell.press("\x04");
    assert_eq!(shell.code(), Some(0));
    // The next one has the lines of the one before.
    let mut shell = Terminal::start(&cluster, &["shell", "--timeout", "20s"]);
    shell.wait_for("hilum> ");
    shell.press(&format!("{UP}{UP}{UP}"));
    shell.wait_for("\"ba\"}");
    shell.press("\r");
    shell.wait_for("hilum> ");
    shell.press("x.text\r");
    shell.wait_for("\r\n\"ba\"");
    shell.wait_for("hilum> ");
    shell.press("exit\r");
    assert_eq!(shell.code(), Some(0));
    cluster.down();
}
