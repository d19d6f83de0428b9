//! Is the node gone, or only silent? A worker leaves on its own only in the first case.

use std::path::Path;
use std::time::Duration;

use hilum_shared::lock;

/// What the node's lock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockState {
    /// Somebody is the node.
    Held,
    /// Nobody is.
    Free,
    /// It says nothing: no path was given, or the file is not there or not ours to read.
    Unreadable,
}

/// Asks the lock. A file that is not there proves nothing: a running node's state folder may have been deleted.
pub(crate) fn ask(path: Option<&Path>) -> LockState {
    let Some(path) = path else { return LockState::Unreadable };
    if std::fs::metadata(path).is_err() {
        return LockState::Unreadable;
    }
    match lock::holder(path) {
        Ok(Some(_)) => LockState::Held,
        Ok(None) => LockState::Free,
        Err(_) => LockState::Unreadable,
    }
}

/// Whether the node is gone: `silence` since its last echo, and for how long the connection has been closed.
pub(crate) fn is_gone(
    silence: Duration,
    timeout: Duration,
    lock: LockState,
    closed_for: Option<Duration>,
) -> bool {
    silence >= timeout
        && match lock {
            LockState::Held => false,
            LockState::Free => true,
            LockState::Unreadable => closed_for.is_some_and(|closed| closed >= timeout),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_silent_node_that_holds_its_lock_is_there() {
        assert!(!is_gone(LONG, TIMEOUT, LockState::Held, None));
        assert!(!is_gone(LONG, TIMEOUT, LockState::Held, Some(LONG)));
    }

    #[test]
    fn a_free_lock_needs_silence_too() {
        assert!(!is_gone(Duration::from_secs(4), TIMEOUT, LockState::Free, Some(LONG)));
        assert!(is_gone(TIMEOUT, TIMEOUT, LockState::Free, None));
    }

    #[test]
    fn without_a_lock_the_connection_must_stay_closed() {
        assert!(!is_gone(LONG, TIMEOUT, LockState::Unreadable, None));
        assert!(!is_gone(LONG, TIMEOUT, LockState::Unreadable, Some(Duration::from_secs(1))));
        assert!(is_gone(LONG, TIMEOUT, LockState::Unreadable, Some(TIMEOUT)));
    }

    #[test]
    fn a_lock_that_is_not_there_proves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert_eq!(ask(None), LockState::Unreadable);
        assert_eq!(ask(Some(&path)), LockState::Unreadable);
        let held = lock::Lock::take(&path).unwrap();
        assert_eq!(ask(Some(&path)), LockState::Held);
        drop(held);
        assert_eq!(ask(Some(&path)), LockState::Free);
    }
}
