//! Locks that a node takes, where another may just be ending.

use std::path::Path;
use std::time::{Duration, Instant};

use hilum_shared::lock::{Lock, LockError};

use crate::driver::procfs::Stat;

/// So long one that was killed may take to let go: its threads end one after the other.
const LETTING_GO: Duration = Duration::from_secs(2);
/// Between two looks at it.
const AGAIN: Duration = Duration::from_millis(5);

/// Takes the lock at `path`, for what `purpose` says; one whose holder has ended is waited for.
///
/// # Errors
/// As [`Lock::take`].
pub(super) fn take(path: &Path, purpose: &str) -> Result<Lock, LockError> {
    let begun = Instant::now();
    loop {
        match Lock::take_for(path, purpose) {
            // Its folder may have been removed meanwhile, and made anew by somebody who has another file.
            Ok(lock) if !lock.is_in_place() && begun.elapsed() < LETTING_GO => {}
            Err(LockError::Held { pid }) if has_ended(pid) && begun.elapsed() < LETTING_GO => {
                std::thread::sleep(AGAIN);
            }
            taken => return taken,
        }
    }
}

fn has_ended(pid: u32) -> bool {
    Stat::read(pid).is_none_or(|stat| stat.is_zombie())
}
