//! A connection to a running node, and how long one that does not answer is waited for.
//!
//! A stopped node is given up after a moment: no waiting helps. A busy one is waited for, and the user is told.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use hilum_shared::rpc::blocking::{CallError, Client};
use hilum_shared::run_dir::{RunDir, StateDir};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::exit::{CliError, Silence};
use super::output::Output;
use super::process;
use crate::daemon::launch;

/// A call that does no work is answered at once; longer than this and the node is not well.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);
/// A node that shakes hands no sooner is stuck.
const CONNECT: Duration = Duration::from_secs(5);
/// A node that is stopped for so long is not waited for; a debugger may hold it for a moment.
const STOPPED: Duration = Duration::from_secs(1);
/// After so long without an answer the user is told what is waited for.
const SLOW: Duration = Duration::from_secs(2);

/// The arguments of a call that takes none.
#[derive(Debug, Serialize)]
pub(crate) struct Nothing {}

/// A connection to a running node.
pub(crate) struct Node {
    client: RefCell<Client>,
    /// Its process.
    pub(crate) pid: u32,
    /// Its sockets' folder.
    pub(crate) run_dir: RunDir,
    /// Where it is said that it is slow; nowhere for one that only looks beside another.
    out: Option<Output>,
}

impl Node {
    /// Connects to the node with this state folder.
    pub(crate) fn connect(
        state: &StateDir,
        pid: u32,
        out: Option<Output>,
    ) -> Result<Self, CallError> {
        Self::open(launch::run_dir(state), pid, out)
    }

    /// Connects to the node with this run folder.
    pub(crate) fn at(run_dir: RunDir, pid: u32) -> Result<Self, CliError> {
        Self::open(run_dir, pid, None)
            .map_err(|error| CliError::Silent { pid, silence: silent(pid, &error) })
    }

    fn open(run_dir: RunDir, pid: u32, out: Option<Output>) -> Result<Self, CallError> {
        let patience = Patience::new(pid, out);
        let lost = || patience.lost();
        let client = Client::connect_with(&run_dir.endpoint("node.sock"), CONNECT, &lost)?;
        Ok(Self { client: RefCell::new(client), pid, run_dir, out })
    }

    /// Calls `node.METHOD`, which answers at once.
    pub(crate) fn call<A: Serialize, R: DeserializeOwned>(
        &self,
        method: &str,
        arguments: &A,
        timeout: Duration,
    ) -> Result<R, CliError> {
        let patience = Patience::new(self.pid, self.out);
        let lost = || patience.lost();
        self.client
            .borrow_mut()
            .call_with(&format!("node.{method}"), arguments, timeout, &lost)
            .map_err(|error| self.explain(method, error))
    }

    /// Calls `node.METHOD`, which answers when the work is done; `cancelled` is asked many times a second.
    /// A call that was cancelled, or not answered in time, is `None`.
    pub(crate) fn call_long<A: Serialize, R: DeserializeOwned>(
        &self,
        method: &str,
        arguments: &A,
        timeout: Option<Duration>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<R>, CliError> {
        let limit = timeout.unwrap_or(Duration::MAX);
        let patience = Patience::new(self.pid, None);
        let ended = || patience.lost() || cancelled();
        let answer =
            self.client.borrow_mut().call_with(&format!("node.{method}"), arguments, limit, &ended);
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(CallError::Cancelled) if patience.lost() => {
                Err(self.explain(method, CallError::Cancelled))
            }
            Err(CallError::Timeout { .. } | CallError::Cancelled) => Ok(None),
            Err(error) => Err(self.explain(method, error)),
        }
    }

    fn explain(&self, method: &str, error: CallError) -> CliError {
        let pid = self.pid;
        match error {
            CallError::Fault(fault) => CliError::Fault(fault),
            CallError::Gone { .. } | CallError::Lost { .. } => CliError::Gone { pid },
            CallError::Timeout { .. } | CallError::Denied { .. } | CallError::Cancelled => {
                CliError::Silent { pid, silence: silent(pid, &error) }
            }
            other => CliError::Protocol { call: method.to_owned(), reason: other.to_string() },
        }
    }
}

/// Why the node with this state folder could not be reached.
pub(crate) fn silence(state: &StateDir, pid: u32, error: CallError) -> CliError {
    let folder = launch::run_dir(state);
    let silence = if matches!(error, CallError::Gone { .. }) && !folder.path().is_dir() {
        Silence::NoFolder(folder.path().to_owned())
    } else {
        silent(pid, &error)
    };
    CliError::Silent { pid, silence }
}

fn silent(pid: u32, error: &CallError) -> Silence {
    match (process::halted(pid), error) {
        (Some(why), _) => Silence::Halted(why),
        (None, CallError::Timeout { after, .. }) => Silence::Busy(*after),
        (None, error) => Silence::Transport(error.to_string()),
    }
}

/// Looks at a node's process while its answer is waited for.
struct Patience {
    pid: u32,
    out: Option<Output>,
    begun: Instant,
    halted: Cell<Option<Instant>>,
}

impl Patience {
    fn new(pid: u32, out: Option<Output>) -> Self {
        Self { pid, out, begun: Instant::now(), halted: Cell::new(None) }
    }

    /// Whether waiting has become pointless.
    fn lost(&self) -> bool {
        if process::halted(self.pid).is_some() {
            let since = self.halted.get().unwrap_or_else(Instant::now);
            self.halted.set(Some(since));
            return since.elapsed() >= STOPPED;
        }
        self.halted.set(None);
        if self.begun.elapsed() >= SLOW
            && let Some(out) = self.out
        {
            SAID.with(|said| {
                if !said.replace(true) {
                    out.note(&format!(
                        "the node (pid {}) does not answer yet: it is busy",
                        self.pid
                    ));
                }
            });
        }
        false
    }
}

thread_local! {
    /// One command says it once, however many calls it makes.
    static SAID: Cell<bool> = const { Cell::new(false) };
}
