//! Signals to the node itself: dispositions at its start, and a channel of those that mean something.

use std::io;

use hilum_shared::signal::Signal;
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal as Number, sigaction,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::procfs;

/// So many may wait; more of the same kind add nothing.
const QUEUE: usize = 16;

/// Sets what the node inherits by chance: SIGCHLD to default (ignored, the kernel would reap for us), PIPE
/// ignored (a broken pipe is an error code), TTOU and TTIN ignored (the node is in the background of its keeper's
/// terminal), what timers and descriptors send ignored (the node has asked for none of it), and a mask of SIGCHLD only, which is read from a descriptor (`Processes::wait`) and interrupts nobody. Children
/// get defaults for all of it. Call it first in `main`: threads inherit the mask.
///
/// # Errors
/// Never for these signals.
pub fn reset_dispositions() -> io::Result<()> {
    for (number, handler) in [
        (Number::SIGCHLD, SigHandler::SigDfl),
        (Number::SIGPIPE, SigHandler::SigIgn),
        (Number::SIGTTOU, SigHandler::SigIgn),
        (Number::SIGTTIN, SigHandler::SigIgn),
        (Number::SIGALRM, SigHandler::SigIgn),
        (Number::SIGVTALRM, SigHandler::SigIgn),
        (Number::SIGPROF, SigHandler::SigIgn),
        (Number::SIGIO, SigHandler::SigIgn),
    ] {
        let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
        // SAFETY: no handler of ours, only default and ignore.
        unsafe { sigaction(number, &action) }?;
    }
    SigSet::from(Number::SIGCHLD).thread_set_mask()?;
    Ok(())
}

/// Whether this process was started with HUP ignored, as `nohup` does: then it means nothing to us either.
pub fn hangup_is_ignored() -> bool {
    let bit = 1_u64 << (Number::SIGHUP as i32 - 1);
    procfs::ignored_signals(std::process::id()).is_some_and(|ignored| ignored & bit != 0)
}

/// Does something with all signals blocked, so that a thread which it starts never takes one.
pub fn blocked<T>(work: impl FnOnce() -> T) -> T {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let result = work();
    if let Ok(before) = before {
        let _ = before.thread_set_mask(); // cannot fail with a valid set
    }
    result
}

/// What arrives: TERM, INT, HUP, QUIT, USR1 and USR2. Must be called inside the runtime; it ends when the receiver
/// is dropped.
///
/// # Errors
/// When the runtime cannot watch signals.
pub fn arrivals() -> io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    for number in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2]
    {
        let mut stream = signal(SignalKind::from_raw(number.number()))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() && sender.send(number).await.is_ok() {}
        });
    }
    Ok(receiver)
}
