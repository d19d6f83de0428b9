//! The end of a node: order it, show what it waits for, and believe it only when node, keeper and all that they
//! started are gone.

use std::cell::Cell;
use std::time::{Duration, Instant};

use hilum_shared::protocol::control;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::exit::CliError;
use super::link::{self, Node};
use super::operation::{self, Display};
use super::process::Process;
use super::session::Session;
use super::target::Selection;
use crate::driver::keeper;

/// A node that has not answered a shutdown order within this gets it as a signal.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between the end of a node's connections and its own.
const MOMENT: Duration = Duration::from_millis(500);
/// What the keeper kills may take so long to vanish from `/proc`.
const SETTLE: Duration = Duration::from_secs(2);

/// How a node was told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ordered {
    /// By a call.
    Told,
    /// By a signal: it did not answer.
    Signalled(Signal),
}

/// A node on its way down.
pub(crate) struct Farewell<'a> {
    session: &'a Session,
    display: Display,
    /// Its connection, or why there is none.
    node: Result<Node, String>,
    process: Process,
    keeper: Option<Process>,
    /// Since when the keeper, which has nothing more to do, is stopped, and how far it was told.
    halted: Cell<Option<(Instant, Told)>>,
}

/// How far a stopped keeper was told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    GoOn,
    Kill,
}

impl<'a> Farewell<'a> {
    /// The farewell of the node with this pid, which may have ended already.
    pub(crate) fn of(session: &'a Session, pid: u32) -> Option<Self> {
        let process = Process::find(pid)?;
        let state = &session.project().ok()?.state;
        let node = Node::connect(state, pid, Some(session.out))
            .map_err(|error| link::silence(state, pid, error).to_string());
        Some(Self {
            session,
            display: Display::new(session.out),
            node,
            process,
            keeper: process.keeper(),
            halted: Cell::new(None),
        })
    }

    /// Whether it can be talked to.
    pub(crate) fn answers(&self) -> bool {
        self.node.is_ok()
    }

    /// Tells the node to end; by signal where it does not answer. `grace` 0 is KILL now.
    pub(crate) fn order(&self, grace: Option<f64>, reason: &str) -> Result<Ordered, CliError> {
        let order = control::Shutdown { grace, reason: reason.to_owned() };
        let why = match &self.node {
            Err(why) => why.clone(),
            Ok(node) => match node.call::<_, control::Accepted>("shutdown", &order, PATIENCE) {
                Ok(accepted) => {
                    operation::accepted(self.session.out, &accepted);
                    return Ok(Ordered::Told);
                }
                Err(CliError::Fault(fault)) => return Err(CliError::Fault(fault)),
                Err(_) if self.ends_soon() => return Ok(Ordered::Told),
                Err(error) => error.to_string(),
            },
        };
        // the keeper ends all that a killed node leaves
        let now = grace == Some(0.0);
        self.force(if now { Signal::SIGKILL } else { Signal::SIGTERM }, &why)
    }

    /// Sends the node a signal, and lets it and its keeper go on where they are stopped.
    pub(crate) fn force(&self, signal: Signal, why: &str) -> Result<Ordered, CliError> {
        let out = self.session.out;
        out.warn(&format!("{why}; sending it {signal}"));
        let send = |process: Process, signal| match kill(Pid::from_raw(process.pid as i32), signal)
        {
            Err(nix::errno::Errno::ESRCH) => Ok(()),
            other => other,
        };
        send(self.process, signal)
            .and_then(|()| send(self.process, Signal::SIGCONT))
            .and_then(|()| self.keeper.map_or(Ok(()), |keeper| send(keeper, Signal::SIGCONT)))
            .map_err(|errno| CliError::Failed {
                message: format!(
                    "cannot send {signal} to the node (pid {}): {errno}",
                    self.process.pid
                ),
                help: Some("it belongs to another user: stop it as that user".into()),
            })?;
        Ok(Ordered::Signalled(signal))
    }

    /// Whether a node that broke off is just ending: a cluster that stops at once may take its answer along.
    fn ends_soon(&self) -> bool {
        let begun = Instant::now();
        while self.process.lives() {
            if begun.elapsed() > MOMENT {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Ends a keeper that outlives its node because somebody has stopped it. It is given a moment, unless it is to be
    /// `now`, and then `PATIENCE`.
    pub(crate) fn mind_keeper(&self, now: bool) {
        let Some(keeper) = self.keeper.filter(|_| !self.process.lives()) else { return };
        let (since, told) = match self.halted.get() {
            Some(known) => known,
            None if keeper.is_halted() => (Instant::now(), Told::Nothing),
            None => return,
        };
        let send = |signal| {
            let _ = kill(Pid::from_raw(keeper.pid as i32), signal); // it may have ended just now
        };
        let waited = since.elapsed();
        let told = match told {
            Told::Nothing if now || waited >= MOMENT => {
                self.clear();
                self.session.out.warn(&format!(
                    "the node is gone, but its keeper (pid {}) is stopped: sending it SIGCONT",
                    keeper.pid
                ));
                send(Signal::SIGCONT);
                Told::GoOn
            }
            Told::GoOn if keeper.lives() && (waited >= PATIENCE || (now && waited >= MOMENT)) => {
                self.clear();
                self.session.out.warn(&format!(
                    "the keeper (pid {}) does not end: sending it SIGKILL",
                    keeper.pid
                ));
                send(Signal::SIGKILL);
                Told::Kill
            }
            told => told,
        };
        self.halted.set(Some((since, told)));
    }

    /// Whether node and keeper are gone.
    pub(crate) fn over(&self) -> bool {
        !self.process.lives() && !self.keeper.is_some_and(Process::lives)
    }

    /// Shows what is waited for: over and over on a terminal, a line a change elsewhere.
    pub(crate) fn look(&self) {
        if !self.display.due() || !self.process.lives() {
            return;
        }
        if let Ok(node) = &self.node
            && let Ok(snapshot) = self.session.status(node)
        {
            self.display.show(&snapshot, &Selection::default());
        }
    }

    /// Takes the display away, before other text is written.
    pub(crate) fn clear(&self) {
        self.display.clear();
    }

    /// What outlived node and keeper. To be asked when they are over.
    pub(crate) fn survivors(&self) -> Vec<u32> {
        let Ok(project) = self.session.project() else {
            return Vec::new();
        };
        let id = project.state.id();
        let begun = Instant::now();
        loop {
            let left = keeper::all_marked(&id);
            if left.is_empty() || begun.elapsed() > SETTLE {
                return left;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
