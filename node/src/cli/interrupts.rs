//! Ctrl-C, SIGTERM and a closed terminal, taken as words to the command and not as its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::exit::CliError;
use crate::driver::signals::hangup_is_ignored;

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// Ctrl-C.
    Int,
    /// `kill`.
    Term,
    /// The terminal was closed.
    Hup,
}

impl Interrupt {
    /// The exit code of whom it ended (`128 + N`).
    fn code(self) -> i32 {
        match self {
            Self::Hup => 129,
            Self::Int => 130,
            Self::Term => 143,
        }
    }
}

/// So long an interrupt may wait to be taken. Whoever is stuck by then, in an output that nobody reads, say, is ended, and a
/// node that is its own stops in order with it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The interrupts of this process from now on.
pub(crate) struct Interrupts {
    received: Receiver<Interrupt>,
    /// How many of them were taken.
    taken: Arc<AtomicUsize>,
}

impl Interrupts {
    /// Takes them over, for the rest of the process's life. Where HUP was ignored (`nohup`) it stays so.
    pub(crate) fn listen() -> Result<Self, CliError> {
        Self::begin(true)
    }

    /// Takes them over for whoever means them for another program and takes none.
    pub(crate) fn pass_over() -> Result<Self, CliError> {
        Self::begin(false)
    }

    fn begin(are_taken: bool) -> Result<Self, CliError> {
        let failed = |source| CliError::File {
            doing: "cannot listen to signals of",
            path: super::process::file(std::process::id(), "status"),
            source,
        };
        let (sender, received) = channel();
        let taken = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&taken);
        let (ready, begun) = channel();
        // Asked before it is listened to.
        let ignored = hangup_is_ignored();
        let listen = move || {
            use tokio::signal::unix::{SignalKind, signal};
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            runtime.block_on(async {
                let all = (
                    signal(SignalKind::interrupt()),
                    signal(SignalKind::terminate()),
                    signal(SignalKind::hangup()),
                );
                let (mut int, mut term, mut hup) = match all {
                    (Ok(int), Ok(term), Ok(hup)) => (int, term, hup),
                    (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
                        return drop(ready.send(Err(error)));
                    }
                };
                drop(ready.send(Ok(())));
                let (mut sent, mut last) = (0, Interrupt::Term);
                loop {
                    let waits = are_taken && sent > seen.load(Ordering::Relaxed);
                    let one = tokio::select! {
                        () = tokio::time::sleep(PATIENCE), if waits => {
                            if sent > seen.load(Ordering::Relaxed) {
                                #[expect(
                                    clippy::disallowed_methods,
                                    reason = "whoever would return the code is stuck"
                                )]
                                std::process::exit(last.code());
                            }
                            continue;
                        }
                        _ = int.recv() => Interrupt::Int,
                        _ = term.recv() => Interrupt::Term,
                        _ = hup.recv(), if !ignored => Interrupt::Hup,
                    };
                    if sender.send(one).is_err() {
                        return;
                    }
                    (sent, last) = (sent + 1, one);
                }
            });
        };
        std::thread::Builder::new().name("signals".into()).spawn(listen).map_err(failed)?;
        match begun.recv() {
            Ok(Ok(())) => Ok(Self { received, taken }),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(failed(std::io::Error::other("the listening thread ended"))),
        }
    }

    /// The next one, waited for no longer than this.
    pub(crate) fn wait(&self, limit: Duration) -> Option<Interrupt> {
        match self.received.recv_timeout(limit) {
            Ok(one) => {
                self.taken.fetch_add(1, Ordering::Relaxed);
                Some(one)
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(limit);
                None
            }
        }
    }
}
