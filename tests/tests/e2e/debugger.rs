//! Processes that die in the hands of a debugger. Needs root, and a test without it says so and passes.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use hilum_tests::{Cluster, LIMIT, signal, wait_until, with_text};
use nix::sys::ptrace;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::machine::is_root;

/// What a debugger holds has ended and cannot be waited for: nobody is told how, until it is let go.
fn dies_in_the_hands_of_a_debugger(pid: u32) -> Pid {
    let debugged = Pid::from_raw(pid.try_into().unwrap());
    ptrace::attach(debugged).unwrap();
    waitpid(debugged, None).unwrap();
    signal("KILL", pid);
    let status = || std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    wait_until(LIMIT, "its end", || status().contains("State:\tZ"));
    debugged
}

#[test]
fn a_service_that_dies_in_the_hands_of_a_debugger_holds_up_nobody_else() {
    if !is_root() {
        return;
    }
    let yaml = "instances: {held: {command: sleep 1000}, other: {command: sleep 1000}}";
    let cluster = Cluster::up(yaml);
    let held = dies_in_the_hands_of_a_debugger(cluster.pid("held.1"));
    signal("KILL", cluster.pid("other.1"));
    let again = |one: &serde_json::Value| one["run"] == 2 && one["state"] == "running";
    cluster.wait("other.1", "started again", again);
    assert_eq!(cluster.instance("held.1")["run"], 1);
    waitpid(held, None).unwrap();
    assert_eq!(cluster.wait("held.1", "let go", again)["restarts"], 1);
    cluster.ok("down");
    cluster.assert_empty();
}

#[test]
fn a_one_off_that_dies_in_the_hands_of_a_debugger_is_waited_for_at_rest() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::new("instances: {web: {command: sleep}}");
    let time = format!("1000.{}", std::process::id());
    let run = cluster.start(&["run", "web", "--", &time]);
    let program = || with_text(&time).into_iter().find(|one| one.command.starts_with("sleep"));
    wait_until(LIMIT, "the program", || program().is_some());
    let program = program().unwrap().pid;
    let stat = std::fs::read_to_string(format!("/proc/{program}/stat")).unwrap();
    let guard = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().to_owned();
    let program = dies_in_the_hands_of_a_debugger(program);
    // who asks again and again is seldom seen asleep
    let asleep =
        || std::fs::read_to_string(format!("/proc/{guard}/status")).unwrap().contains("State:\tS");
    wait_until(LIMIT, "a guard that sleeps", || (0..50).all(|_| asleep()));
    waitpid(program, None).unwrap();
    run.finish(LIMIT).code(137);
    cluster.assert_empty();
}

#[test]
fn a_node_that_dies_in_the_hands_of_a_debugger_leaves_nothing_running() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::new("");
    let time = format!("1000.{}", std::process::id());
    let command = format!("[sh, -c, '(setsid sleep {time} &); exec sleep {time}']");
    cluster.configure(&format!("instances: {{web: {{command: {command}}}}}"));
    cluster.ok("up -d --wait");
    wait_until(LIMIT, "both", || with_text(&time).len() == 2);
    let node = u32::try_from(cluster.ps()["node"]["pid"].as_u64().unwrap()).unwrap();
    let node = dies_in_the_hands_of_a_debugger(node);
    wait_until(LIMIT, "their end", || with_text(&time).is_empty());
    waitpid(node, None).unwrap();
    cluster.assert_empty();
}
