//! Ctrl-C, SIGTERM and a closed terminal, taken as words to the command and not as its end.

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

/// The interrupts of this process from now on.
pub(crate) struct Interrupts {
    received: Receiver<Interrupt>,
}

impl Interrupts {
    /// Takes them over, for the rest of the process's life. Where HUP was ignored (`nohup`) it stays so.
    pub(crate) fn listen() -> Result<Self, CliError> {
        let failed = |source| CliError::File {
            doing: "cannot listen to signals of",
            path: super::process::file(std::process::id(), "status"),
            source,
        };
        let (sender, received) = channel();
        let (ready, begun) = channel();
        // Asked before it is listened to.
        let ignored = hangup_is_ignored();
        let listen = move || {
            use tokio::signal::unix::{SignalKind, signal};
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
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
                loop {
                    let one = tokio::select! {
                        _ = int.recv() => Interrupt::Int,
                        _ = term.recv() => Interrupt::Term,
                        _ = hup.recv(), if !ignored => Interrupt::Hup,
                    };
                    if sender.send(one).is_err() {
                        return;
                    }
                }
            });
        };
        std::thread::Builder::new().name("signals".into()).spawn(listen).map_err(failed)?;
        match begun.recv() {
            Ok(Ok(())) => Ok(Self { received }),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(failed(std::io::Error::other("the listening thread ended"))),
        }
    }

    /// The next one, waited for no longer than this.
    pub(crate) fn wait(&self, limit: Duration) -> Option<Interrupt> {
        match self.received.recv_timeout(limit) {
            Ok(one) => Some(one),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(limit);
                None
            }
        }
    }
}
