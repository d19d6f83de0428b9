//! Stopped means empty: a node process (the fixture) supervises a run that leaves something behind.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use common::{FIXTURE, NothingLeft, marked, unique_token, wait_until};
use hilum_node::driver::procfs;
use serde_json::Value;

/// Runs the fixture as a node and reads what it says until it ends.
fn node(token: &str, command: &[&str]) -> Vec<Value> {
    let output = Command::new(FIXTURE)
        .args(["node", "fixture-node", token])
        .args(command)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn left(said: &[Value]) -> Vec<u64> {
    let pids = said.iter().filter_map(|line| line["left"].as_array());
    pids.flatten().filter_map(Value::as_u64).collect()
}

fn assert_empty(said: &[Value]) {
    let last = said.last().unwrap();
    assert_eq!(last["empty"], true, "{said:?}");
    assert_eq!(last["strays"], 0, "{said:?}");
    for pid in left(said) {
        let gone = procfs::Stat::read(pid as u32).is_none();
        assert!(gone, "{pid} is still there: {said:?}");
    }
}

#[test]
fn a_run_that_leaves_nothing_is_empty_at_once() {
    let token = unique_token();
    let _guard = NothingLeft(token.clone());
    let said = node(&token, &["exit", "3"]);
    assert_eq!(said[1]["exit"], "exit 3");
    assert_eq!(said.len(), 3, "{said:?}");
    assert_empty(&said);
}

#[test]
fn death_by_a_signal_is_told_from_an_exit() {
    let token = unique_token();
    let said = node(&token, &["raise", "15"]);
    assert_eq!(said[1]["exit"], "killed by TERM");
    let said = node(&token, &["exit", "143"]);
    assert_eq!(said[1]["exit"], "exit 143");
}

#[test]
fn a_child_in_the_group_is_found_and_ended() {
    let token = unique_token();
    let _guard = NothingLeft(token.clone());
    let said = node(&token, &["leave-child"]);
    assert!(!left(&said).is_empty(), "{said:?}");
    assert_empty(&said);
}

#[test]
fn a_child_with_its_own_session_is_found_and_ended() {
    let token = unique_token();
    let _guard = NothingLeft(token.clone());
    let said = node(&token, &["leave-session"]);
    assert!(!left(&said).is_empty(), "{said:?}");
    assert_empty(&said);
}

#[test]
fn a_double_forked_daemon_without_environment_or_descriptors_is_found_and_ended() {
    let token = unique_token();
    let _guard = NothingLeft(token.clone());
    let said = node(&token, &["escape"]);
    assert!(!left(&said).is_empty(), "{said:?}");
    assert_empty(&said);
}

#[test]
fn nothing_works_worse_than_it_should_here() {
    let said = node(&unique_token(), &["exit", "0"]);
    assert_eq!(said[0]["degraded"], serde_json::json!([]));
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it has ended
        let _ = self.0.wait(); // as above
    }
}

#[test]
fn a_leader_dies_with_a_killed_node() {
    let token = unique_token();
    let _guard = NothingLeft(token.clone());
    let child = Command::new(FIXTURE)
        .args(["node", "stay", "fixture-node", &token, "sleep"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Running(child);
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    // The kernel lets the spawner go on shortly before the environment can be read.
    wait_until("the leader is there", || marked(&token).len() == 1);
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    wait_until("the leader is gone", || marked(&token).is_empty());
}
