//! The end of a node: order it, show what it waits for, and believe it only when node, keeper and all that they
//! started are gone.

use std::time::{Duration, Instant};

use hilum_shared::protocol::control;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::exit::CliError;
use super::operation::{self, Display};
use super::process::{self, Process};
use super::session::{Node, Session};
use super::target::Selection;

/// A node that has not answered a shutdown order within this gets it as a signal.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between the end of a node's connections and its own.
const MOMENT: Duration = Duration::from_millis(500);
/// What the keeper kills may take so long to vanish from `/proc`.
const SETTLE: Duration = Duration::from_secs(2);

/// A node on its way down.
pub(crate) struct Farewell<'a> {
    session: &'a Session,
    display: Display,
    node: Option<Node>,
    process: Process,
    keeper: Option<Process>,
    plain: Vec<String>,
    looked: Option<Instant>,
}

impl<'a> Farewell<'a> {
    /// The farewell of the node with this pid, which may have ended already.
    pub(crate) fn of(session: &'a Session, pid: u32) -> Option<Self> {
        let process = Process::find(pid)?;
        let node =
            session.project().ok().and_then(|project| Node::connect(&project.state, pid).ok());
        Some(Self {
            session,
            display: Display::new(session.out),
            node,
            process,
            keeper: process.keeper(),
            plain: Vec::new(),
            looked: None,
        })
    }

    /// Tells the node to end; by signal where it does not answer. `grace` 0 is KILL now.
    pub(crate) fn order(&self, grace: Option<f64>, reason: &str) -> Result<(), CliError> {
        let order = control::Shutdown { grace, reason: reason.to_owned() };
        let answer = match &self.node {
            Some(node) => node.call::<_, control::Accepted>("shutdown", &order, PATIENCE),
            None => Err(CliError::Gone { pid: self.process.pid }),
        };
        let error = match answer {
            Ok(accepted) => {
                operation::accepted(self.session.out, &accepted);
                return Ok(());
            }
            Err(CliError::Fault(fault)) => return Err(CliError::Fault(fault)),
            Err(_) if self.ends_soon() => return Ok(()),
            Err(error) => error,
        };
        // the keeper ends all that a killed node leaves
        let now = grace == Some(0.0);
        let signal = if now { Signal::SIGKILL } else { Signal::SIGTERM };
        self.session.out.warn(&format!("{error}; sending it {signal}"));
        let pid = Pid::from_raw(self.process.pid as i32);
        kill(pid, signal)
            .and_then(|()| kill(pid, Signal::SIGCONT))
            .or_else(|errno| if errno == nix::errno::Errno::ESRCH { Ok(()) } else { Err(errno) })
            .map_err(|errno| CliError::Failed {
                message: format!(
                    "cannot send {signal} to the node (pid {}): {errno}",
                    self.process.pid
                ),
                help: Some("it belongs to another user: stop it as that user".into()),
            })
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

    /// Whether node and keeper are gone.
    pub(crate) fn over(&self) -> bool {
        !self.process.lives() && !self.keeper.is_some_and(Process::lives)
    }

    /// Shows what is waited for: over and over on a terminal, a line a change elsewhere.
    pub(crate) fn look(&mut self) {
        const PLAIN: Duration = Duration::from_secs(1);
        if self.session.out.json || self.session.out.quiet {
            return;
        }
        let due = if self.session.out.live {
            self.display.due()
        } else {
            self.looked.is_none_or(|at| at.elapsed() >= PLAIN)
        };
        if !due || !self.process.lives() {
            return;
        }
        self.looked = Some(Instant::now());
        let Some(node) = &self.node else {
            return;
        };
        let Ok(snapshot) = self.session.status(node) else {
            return;
        };
        if self.session.out.live {
            self.display.show(&snapshot, &Selection::default());
            return;
        }
        let waiting: Vec<String> = snapshot
            .instances
            .iter()
            .filter(|one| one.state == hilum_shared::status::State::Stopping)
            .map(|one| one.instance.to_string())
            .collect();
        if !waiting.is_empty() && waiting != self.plain {
            self.session.out.note(&format!("waiting for: {}", super::ps::list(&waiting)));
            self.plain = waiting;
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
            let left = process::marked(&id);
            if left.is_empty() || begun.elapsed() > SETTLE {
                return left;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
