//! Ctrl-C, SIGTERM and a closed terminal, taken as words to the command and not as its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

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

/// Whoever took one and does not come back for so long is stuck, too: a node that does not answer holds nobody up longer
/// (`CONNECT` and `ANSWER` of the link).
const ABSENCE: Duration = Duration::from_secs(20);

/// The interrupts of this process from now on.
pub(crate) struct Interrupts {
    received: Receiver<Interrupt>,
    care: Arc<Care>,
}

/// What the one who listens knows of the one who is told.
#[derive(Default)]
struct Care {
    /// So many of the interrupts were taken.
    taken: AtomicUsize,
    /// Goes up when somebody begins to wait for one, and when he ceases: odd meanwhile.
    visits: AtomicUsize,
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
        let care = Arc::new(Care::default());
        let seen = Arc::clone(&care);
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
                let mut visit = (0, Instant::now());
                loop {
                    let one = tokio::select! {
                        () = tokio::time::sleep(PATIENCE), if are_taken && sent > 0 => {
                            let visits = seen.visits.load(Ordering::Relaxed);
                            if visits != visit.0 || visits % 2 == 1 {
                                visit = (visits, Instant::now());
                            }
                            let is_untaken = sent > seen.taken.load(Ordering::Relaxed);
                            if is_untaken || visit.1.elapsed() >= ABSENCE {
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
            Ok(Ok(())) => Ok(Self { received, care }),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(failed(std::io::Error::other("the listening thread ended"))),
        }
    }

    /// The next one, waited for no longer than this.
    pub(crate) fn wait(&self, limit: Duration) -> Option<Interrupt> {
        self.care.visits.fetch_add(1, Ordering::Relaxed);
        let one = self.received.recv_timeout(limit);
        if one == Err(RecvTimeoutError::Disconnected) {
            std::thread::sleep(limit);
        }
        let one = one.ok();
        self.care.taken.fetch_add(one.iter().len(), Ordering::Relaxed);
        self.care.visits.fetch_add(1, Ordering::Relaxed);
        one
    }
}
