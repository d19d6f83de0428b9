//! Commands that are no instances: hooks, `stop.exec`, watch commands, `exec` probes. Each has its own session, a time
//! limit, and leaves nothing behind: what it started is ended with it.

use std::time::Duration;

use hilum_shared::signal::Exit;
use hilum_shared::units::format_duration;

use super::child::Processes;
use super::request::SpawnRequest;
use super::spawn_error::SpawnError;

/// Why a command did not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// It ended, and not with 0.
    #[error("{0}")]
    Failed(Exit),
    /// It took too long and was killed.
    #[error("timed out after {}", format_duration(*.0))]
    TimedOut(Duration),
    /// The node is ending.
    #[error("given up: the node is ending")]
    Abandoned,
}

/// Runs a command to its end and says whether it exited 0. The request is used once and dropped, so
/// that its pipes can end. Dropping the future kills the command.
///
/// The exit is seen by [`Processes::take_exits`], which somebody must be calling.
///
/// # Errors
/// See [`CommandError`].
pub async fn run(
    processes: &Processes,
    mut request: SpawnRequest,
    timeout: Duration,
) -> Result<(), CommandError> {
    let (number, exit) = processes.spawn_command(&mut request)?;
    drop(request);
    let _end = EndOnDrop { processes, number };
    match tokio::time::timeout(timeout, exit).await {
        Ok(Ok(Exit::Code(0))) => Ok(()),
        Ok(Ok(exit)) => Err(CommandError::Failed(exit)),
        Ok(Err(_)) => Err(CommandError::Abandoned),
        Err(_) => Err(CommandError::TimedOut(timeout)),
    }
}

struct EndOnDrop<'a> {
    processes: &'a Processes,
    number: u64,
}

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.processes.end_command(self.number);
    }
}
