//! A node that is killed leaves nothing running, and a keeper is only a shadow of its node.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};

use common::{FIXTURE, NothingLeft, marked, unique_token, wait_until};
use hilum_node::driver::keeper::{Mark, sweep_marked};
use hilum_node::driver::procfs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A keeper with a node that runs `command`, and the first line of the node.
struct Kept {
    keeper: Child,
    first: String,
}

impl Kept {
    fn start(mark: &str, command: &[&str]) -> Self {
        let mut keeper = Command::new(FIXTURE)
            .args(["keeper", mark])
            .args(command)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut first).unwrap();
        Self { keeper, first }
    }

    fn node(&self) -> u32 {
        let children = procfs::children(self.keeper.id());
        assert_eq!(children.len(), 1, "{}", self.first);
        children[0]
    }

    fn wait(&mut self) -> ExitStatus {
        self.keeper.wait().unwrap()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.keeper.id() as i32), Signal::SIGTERM); // it has ended
        let _ = self.keeper.wait(); // as above
    }
}

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

/// The living processes of one mark, found by environment or dye.
fn of_mark(id: &str) -> Vec<u32> {
    let colour = Mark::of_cluster(id).colour.expect("the mark of all lives has a colour");
    procfs::all()
        .into_iter()
        .filter(|&pid| procfs::dye(pid).is_some_and(|dye| colour.covers(dye)))
        .filter(|&pid| procfs::Stat::read(pid).is_some_and(|stat| !stat.is_zombie()))
        .collect()
}

#[test]
fn what_a_killed_node_leaves_is_ended_escapees_included() {
    let token = unique_token();
    let _guard = NothingLeft(token.clone());
    let mut kept = Kept::start(
        &format!("{token}.1"),
        &["node", "stay", "fixture-node", &token, "escape-and-stay"],
    );
    let node = kept.node();
    // The leader, and the escapee without environment, below the node.
    wait_until("the escapee is away", || {
        let below = procfs::children(node);
        below.iter().any(|&pid| procfs::command_line(pid).as_deref() == Some("/bin/sleep 3600"))
    });
    let all = procfs::descendants(&[node]);
    assert!(all.len() >= 2, "{all:?}");
    send(node, Signal::SIGKILL);
    assert_eq!(kept.wait().code(), Some(137));
    for pid in all {
        let gone = procfs::Stat::read(pid).is_none();
        assert!(gone, "{pid}: {:?}", procfs::command_line(pid));
    }
}

#[test]
fn the_nodes_exit_code_is_the_keepers() {
    let mut kept = Kept::start(&unique_token(), &["exit", "7"]);
    assert_eq!(kept.wait().code(), Some(7));
}

#[test]
fn signals_are_handed_on_to_the_node() {
    let token = unique_token();
    let _guard = NothingLeft(token.clone());
    let mut kept =
        Kept::start(&format!("{token}.1"), &["node", "stay", "fixture-node", &token, "sleep"]);
    let node = kept.node();
    assert_ne!(
        nix::unistd::getpgid(Some(Pid::from_raw(node as i32))).unwrap(),
        nix::unistd::getpgid(Some(Pid::from_raw(kept.keeper.id() as i32))).unwrap(),
        "a group of its own: a signal to the group must not come twice"
    );
    send(kept.keeper.id(), Signal::SIGTERM);
    assert_eq!(kept.wait().code(), Some(128 + 15));
    assert_eq!(marked(&token), Vec::<u32>::new());
}

#[test]
fn a_node_whose_keeper_is_killed_is_told() {
    let token = unique_token();
    let _guard = NothingLeft(token.clone());
    let mut kept =
        Kept::start(&format!("{token}.1"), &["node", "stay", "fixture-node", &token, "sleep"]);
    let node = kept.node();
    kept.keeper.kill().unwrap();
    kept.wait();
    wait_until("the node is gone", || procfs::Stat::read(node).is_none_or(|stat| stat.is_zombie()));
    wait_until("its leader, too", || marked(&token).is_empty());
}

#[test]
fn the_next_start_ends_what_both_left_and_nobody_elses() {
    let token = unique_token();
    let id = format!("id-{token}");
    let other = format!("other-{token}");
    let _guard = NothingLeft(token.clone());
    let start = |id: &str| {
        Kept::start(&format!("{id}.1"), &["node", "stay", id, &token, "escape-and-stay"])
    };
    let (mut ours, theirs) = (start(&id), start(&other));
    for id in [&id, &other] {
        wait_until("the escapees are away", || {
            let marked = of_mark(id);
            let titles = marked.iter().copied().filter_map(procfs::command_line);
            // The leader and the escapee; the one between them has ended.
            titles.filter(|title| title == "/bin/sleep 3600").count() == 1 && marked.len() == 2
        });
    }
    // Keeper and node die at once: the leader dies of its own accord, the escapee does not.
    let node = ours.node();
    send(ours.keeper.id(), Signal::SIGSTOP);
    send(node, Signal::SIGKILL);
    ours.keeper.kill().unwrap();
    ours.wait();
    assert!(!of_mark(&id).is_empty());
    let before = of_mark(&other);
    assert_eq!(sweep_marked(&id, std::time::Duration::from_secs(5)), Vec::<u32>::new());
    assert_eq!(of_mark(&id), Vec::<u32>::new());
    assert_eq!(of_mark(&other), before);
    drop(theirs);
}
