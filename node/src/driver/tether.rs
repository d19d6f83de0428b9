//! A one-off program on a tether: whoever of the chain is killed, nothing of it goes on.
//!
//! ```text
//!  hilum run ──► its guard ──► the program ──► whatever it starts
//! ```
//! The command and its guard are the same loop, each a child subreaper. When the program ends, or the guard is killed, the
//! rest falls to who is above and is ended; when the command is killed, the guard notices and does the same. All share one
//! process group with its terminal, so that ^C, ^Z and job control work as without us.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use hilum_shared::signal::{Exit, Signal};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::unistd::getppid;

use super::keeper::{FORWARDED, end_descendants};
use super::request::{Session, SpawnRequest, Stdio};
use super::spawn::Spawner;
use super::spawn_error::SpawnError;
use super::sys::{self, Look};

/// So long it is tried to end what the program left.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a one-off could not be run.
#[derive(Debug, thiserror::Error)]
pub enum TetherError {
    /// It could not be started.
    #[error(transparent)]
    Spawn(SpawnError),
    /// The system lacks what this lives on.
    #[error("cannot watch over the program: {0}")]
    Watch(#[from] io::Error),
}

/// Which end of the tether this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The command; what it starts is the guard.
    Command,
    /// The guard, child of the command with this pid; what it starts is the program.
    Guard(u32),
}

impl End {
    /// Whether the command above is gone.
    fn cut(self) -> bool {
        matches!(self, Self::Guard(command) if getppid().as_raw() as u32 != command)
    }
}

/// Runs a program in this terminal and process group and waits for its end, then ends whatever is left of it.
///
/// # Errors
/// See [`TetherError`].
pub fn run(mut program: SpawnRequest, end: End) -> Result<Exit, TetherError> {
    sys::become_subreaper()?;
    let mut signals: SigSet = FORWARDED.into_iter().collect();
    signals.add(Number::SIGCHLD);
    if end != End::Command {
        // the command stops by ^Z, as the shell expects; its guard has to see its end even then
        for signal in [Number::SIGCONT, Number::SIGTSTP, Number::SIGTTIN, Number::SIGTTOU] {
            signals.add(signal);
        }
    }
    signals.thread_block().map_err(io::Error::from)?;
    let arrivals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(io::Error::from)?;
    program.stdio = Stdio::Inherit;
    program.session = Session::Inherited;
    if end == End::Command {
        // wakes the guard, and does it no harm
        program.death_signal = Some(Signal::CONT);
    }
    let child = Spawner::new()?.spawn(&mut program, None).map_err(TetherError::Spawn)?;
    let mut held = false;
    let exit = loop {
        let ended = {
            let mut fds = [
                PollFd::new(arrivals.as_fd(), PollFlags::POLLIN),
                PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN),
            ];
            let watched = if held { &mut fds[..1] } else { &mut fds[..] };
            match poll(watched, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
            fds[1].any() == Some(true)
        };
        while let Ok(Some(arrival)) = arrivals.read_signal() {
            if let Some(signal) = handed_on(&arrival) {
                let _ = sys::send(child.pidfd.as_fd(), signal); // our child: only "gone" is possible
            }
        }
        if let Some(exit) = sys::wait(child.pidfd.as_fd(), Look::Reap)? {
            break exit;
        }
        // Ended and not to be had: a debugger has it, and CHLD comes when it lets go.
        held |= ended;
        if end.cut() {
            break Exit::Signal { signal: Signal::KILL, core: false };
        }
    };
    end_descendants(PATIENCE);
    Ok(exit)
}

/// What the child has to be told: a terminal's ^C went to the whole group, and so to it. That the terminal was closed is told to the
/// session's leader alone, which may be the command.
fn handed_on(arrival: &siginfo) -> Option<Signal> {
    let ours = FORWARDED.iter().any(|signal| *signal as u32 == arrival.ssi_signo);
    let closed = arrival.ssi_signo == Number::SIGHUP as u32;
    let by_terminal = arrival.ssi_code == libc::SI_KERNEL && !closed;
    (ours && !by_terminal).then(|| Signal::from_number(arrival.ssi_signo as i32)).flatten()
}
