//! The lock that decides who is the node. Everybody else only asks, and never locks.
//!
//! An open-file-description write lock: it goes with the process, whatever happens to the file's name,
//! and is not lost when some library opens and closes the same file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// The lock, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

/// Why the lock is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another node has it.
    #[error("a node runs already, pid {pid}")]
    Held {
        /// Its pid, as it wrote it; 0 while it has not.
        pid: u32,
    },
    /// The file system said no.
    #[error("lock `{}`: {source}", path.display())]
    Io {
        /// The lock's path.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock at `path` and writes this process' pid into it.
    ///
    /// # Errors
    /// When another process holds it, or the file cannot be made.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        Self::take_for(path, "")
    }

    /// The same; below the pid it says for what, in one line, to be read by [`purpose`].
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn take_for(path: &Path, purpose: &str) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { path: path.to_owned(), source };
        let mut open = OpenOptions::new();
        open.read(true).write(true).create(true).truncate(false).mode(0o644);
        let mut file = open.open(path).map_err(failed)?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file())) {
            Ok(_) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => {
                return Err(LockError::Held { pid: written_pid(&mut file).unwrap_or(0) });
            }
            Err(error) => return Err(failed(error.into())),
        }
        // Only now: the former holder's pid is to be read until the lock is ours.
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        let mut text = format!("{}\n", std::process::id());
        if !purpose.is_empty() {
            text = format!("{text}{purpose}\n");
        }
        file.write_all(text.as_bytes()).map_err(failed)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Takes the lock under its name again, where somebody removed the file; the old one is given up for it.
    ///
    /// # Errors
    /// As [`Self::take`]; the old one is kept then.
    pub fn take_again(&mut self) -> Result<(), LockError> {
        *self = Self::take(&self.path)?;
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the locked file has no name any more; one that was moved has another.
    pub fn is_removed(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| meta.nlink() == 0)
    }

    /// Whether the file under the lock's name is still the one that is locked.
    pub fn is_in_place(&self) -> bool {
        match (self.file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(ours), Ok(there)) => ours.ino() == there.ino() && ours.dev() == there.dev(),
            _ => false,
        }
    }
}

/// Who holds the lock at `path`: its pid (0 while it has not written it), or nobody. Locks nothing.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn holder(path: &Path) -> io::Result<Option<u32>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut lock = whole_file();
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    if i32::from(lock.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    Ok(Some(written_pid(&mut file).unwrap_or(0)))
}

/// What the lock at `path` was taken for last, if its holder said so.
pub fn purpose(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().nth(1).map(str::to_owned)
}

fn written_pid(file: &mut File) -> Option<u32> {
    let mut text = Vec::new();
    file.rewind().ok()?;
    file.take(32).read_to_end(&mut text).ok()?;
    let line = text.split(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_everybody_may_ask() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(holder(&path).unwrap(), None);
        let lock = Lock::take(&path).unwrap();
        assert_eq!(holder(&path).unwrap(), Some(std::process::id()));
        assert!(
            matches!(Lock::take(&path), Err(LockError::Held { pid }) if pid == std::process::id())
        );
        // Asking opens and closes the file; that must not lose the lock.
        assert_eq!(holder(&path).unwrap(), Some(std::process::id()));
        assert!(lock.is_in_place());
        std::fs::remove_file(&path).unwrap();
        assert!(!lock.is_in_place() && lock.is_removed());
        drop(lock);
        let lock =
            Lock::take_for(&path, "/srv/größer/hilum.yml and more than the pid's bytes").unwrap();
        assert_eq!(holder(&path).unwrap(), Some(std::process::id()));
        assert!(purpose(&path).is_some_and(|it| it.starts_with("/srv/größer/hilum.yml")));
        drop(lock);
        assert!(Lock::take(&path).is_ok());
        assert_eq!(purpose(&path), None);
    }

    #[test]
    fn a_lock_whose_file_was_removed_is_taken_again_and_one_that_was_moved_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("lock"), dir.path().join("moved"));
        let mut lock = Lock::take(&path).unwrap();
        std::fs::rename(&path, &moved).unwrap();
        assert!(!lock.is_in_place() && !lock.is_removed());
        std::fs::remove_file(&moved).unwrap();
        assert!(lock.is_removed());
        let other = Lock::take(&path).unwrap();
        assert!(lock.take_again().is_err() && lock.is_removed(), "somebody else has it");
        drop(other);
        lock.take_again().unwrap();
        assert!(lock.is_in_place());
        assert_eq!(holder(&path).unwrap(), Some(std::process::id()));
    }
}
