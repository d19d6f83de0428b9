//! The keeper: the node's parent, and the reason why a killed node leaves nothing running.
//!
//! It starts the node, hands signals on to it, and hands its exit status on. When the node is gone,
//! all that the node had started, adopted or lost has become the keeper's child; it gets KILL, until nothing is
//! left or five seconds are over. No runtime, no sockets, no threads: a loop around `poll`.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hilum_shared::protocol::env;
use hilum_shared::signal::{Exit, Signal};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::dye::Colour;
use super::memory;
use super::procfs::{self, Stat};
use super::request::{Session, SpawnRequest};
use super::signals;
use super::spawn::Spawner;
use super::sweep::kill_new;
use super::sys::{self, Look};

/// So long the keeper tries to end what a dead node left.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at what is dying.
const PAUSE: Duration = Duration::from_millis(20);

/// Handed on to the node. The node has a process group of its own, so that a terminal's ^C and a `kill` to the group
/// reach it once, through the keeper: a second INT would mean "now".
pub(super) const FORWARDED: [Number; 6] = [
    Number::SIGTERM,
    Number::SIGINT,
    Number::SIGHUP,
    Number::SIGQUIT,
    Number::SIGUSR1,
    Number::SIGUSR2,
];

/// What marks a cluster's processes.
#[derive(Clone, Debug)]
pub struct Mark {
    /// `HILUM_CLUSTER` begins with this: `<id>.<nonce>`, or `<id>.` for all lives of the cluster.
    pub cluster: String,
    /// The cluster's colour: found where the environment is gone. It is that of all lives, so only who
    /// holds the cluster's lock may go by it: a keeper whose node lost the race for the lock must not
    /// touch what the winner started.
    pub colour: Option<Colour>,
}

impl Mark {
    /// The mark of one life of a node.
    pub fn of_life(cluster_mark: &str) -> Self {
        Self { cluster: cluster_mark.to_owned(), colour: None }
    }

    /// The mark of all lives of the cluster with this id.
    pub fn of_cluster(id: &str) -> Self {
        Self { cluster: format!("{id}."), colour: Some(Colour::of(id)) }
    }

    fn covers(&self, pid: u32) -> bool {
        self.colour.is_some_and(|colour| procfs::dye(pid).is_some_and(|dye| colour.covers(dye)))
            || procfs::variable(pid, env::CLUSTER)
                .is_some_and(|value| value.starts_with(&self.cluster))
    }
}

/// Runs the node and waits for its end; then ends whatever it left. The node gets a process group of
/// its own (so it has to ignore TTOU and TTIN) and TERM when the keeper dies.
///
/// # Errors
/// When the node cannot be started, or the kernel lacks what the keeper lives on.
pub fn run(mut node: SpawnRequest, mark: &Mark) -> io::Result<ExitCode> {
    sys::become_subreaper()?;
    sys::set_name(c"hilum-keeper");
    let mut watched: SigSet = FORWARDED.into_iter().collect();
    if signals::hangup_is_ignored() {
        watched.remove(Number::SIGHUP);
    }
    watched.add(Number::SIGCHLD);
    // Before the node exists, so that no signal is lost. The spawner gives the node an empty mask.
    watched.thread_block()?;
    let mut arrivals =
        SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    node.session = Session::Group;
    node.death_signal = Some(Signal::TERM);
    let child = Spawner::new()?
        .spawn(&mut node, None)
        .map_err(|error| io::Error::other(error.to_string()))?;
    drop(node);
    memory::give_back();
    let exit = watch(&child.pidfd, child.pid, &mut arrivals, mark)?;
    end_all(mark, PATIENCE);
    Ok(ExitCode::from(exit.shell_code().clamp(0, 255) as u8))
}

/// Hands signals on until the node has ended; reaps orphans that reach the keeper meanwhile.
fn watch(node: &OwnedFd, pid: u32, arrivals: &mut SignalFd, mark: &Mark) -> io::Result<Exit> {
    let mut held = false;
    loop {
        let ended = {
            let mut fds = [
                PollFd::new(arrivals.as_fd(), PollFlags::POLLIN),
                PollFd::new(node.as_fd(), PollFlags::POLLIN),
            ];
            let watched = if held { &mut fds[..1] } else { &mut fds[..] };
            match poll(watched, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            fds[1].any() == Some(true)
        };
        while let Ok(Some(arrival)) = arrivals.read_signal() {
            match Signal::from_number(arrival.ssi_signo as i32) {
                Some(Signal::CHLD) | None => reap_orphans(pid),
                Some(signal) => {
                    let _ = sys::send(node.as_fd(), signal); // it is our child: only "gone" is possible
                }
            }
        }
        match sys::wait(node.as_fd(), Look::Reap) {
            Ok(Some(exit)) => return Ok(exit),
            Ok(None) => {}
            // `end_all` reaped it when it was let go. How it ended is lost, that it ended is not.
            Err(error) if held && error.raw_os_error() == Some(libc::ECHILD) => {
                return Ok(Exit::Code(255));
            }
            Err(error) => return Err(error),
        }
        if ended && !held {
            // In the hands of a debugger, who keeps its status, not what it started. CHLD comes when it lets go.
            held = true;
            end_all(mark, PATIENCE);
        }
    }
}

/// As PID 1, or for what the node gave away: everything but the node.
fn reap_orphans(node: u32) {
    while let Ok(Some(pid)) = sys::peek_any() {
        if pid == node || sys::reap_pid(pid).is_err() {
            return;
        }
    }
}

/// Sends KILL to every descendant of this process and to every marked process, again and again. The answer is what
/// survived.
pub fn end_all(mark: &Mark, patience: Duration) -> Vec<u32> {
    let own = std::process::id();
    end(patience, || {
        let mut left = procfs::descendants(&[own]);
        left.extend(marked(mark));
        left
    })
}

/// Sends KILL to every descendant of this process, again and again. The answer is what survived.
pub(super) fn end_descendants(patience: Duration) -> Vec<u32> {
    let own = std::process::id();
    end(patience, || procfs::descendants(&[own]))
}

/// Ends everything that an earlier, dead node of this cluster left; only for the holder of the
/// cluster's lock. The answer is what survived.
pub fn sweep_marked(id: &str, patience: Duration) -> Vec<u32> {
    end(patience, || all_marked(id))
}

/// The living processes of the cluster with this id, by number, this one and its ancestors left out.
pub fn all_marked(id: &str) -> Vec<u32> {
    let mut found = marked(&Mark::of_cluster(id));
    found.retain(|&pid| Stat::read(pid).is_some_and(|stat| !stat.is_zombie()));
    found.sort_unstable();
    found
}

/// The processes that carry the mark, without this one and its ancestors: the command that
/// starts a node may itself run inside one.
fn marked(mark: &Mark) -> Vec<u32> {
    let mut spared = HashSet::new();
    let mut pid = std::process::id();
    while pid > 0 && spared.insert(pid) {
        pid = Stat::read(pid).map_or(0, |stat| stat.parent);
    }
    procfs::all().into_iter().filter(|pid| !spared.contains(pid) && mark.covers(*pid)).collect()
}

fn end(patience: Duration, mut find: impl FnMut() -> Vec<u32>) -> Vec<u32> {
    let deadline = Instant::now() + patience;
    let mut seen = HashSet::new();
    loop {
        while let Ok(Some(pid)) = sys::peek_any() {
            let _ = sys::reap_pid(pid); // gone already
        }
        let mut left = find();
        left.retain(|&pid| Stat::read(pid).is_some_and(|stat| !stat.is_zombie()));
        left.sort_unstable();
        left.dedup();
        kill_new(&left, &mut seen);
        if left.is_empty() || Instant::now() >= deadline {
            return left;
        }
        let timeout = PollTimeout::try_from(PAUSE).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut [], timeout); // a pause; shorter when a signal comes
    }
}
