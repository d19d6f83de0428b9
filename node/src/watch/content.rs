//! What a file holds, in a few bytes.

use std::fs::{File, Metadata, OpenOptions};
use std::hash::{DefaultHasher, Hasher};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

/// Larger files are not read: their size and time decide.
const MAX_READ: u64 = 8 << 20;

/// What tells without reading that a file was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    size: u64,
    pub(super) modified: Option<SystemTime>,
}

/// A file's content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content {
    pub(super) stamp: Stamp,
    /// Of all bytes; `None` where it was too large or could not be read.
    hash: Option<u64>,
}

impl Stamp {
    /// Of a regular file, through links; `None` where there is none.
    pub(super) fn of(path: &Path) -> Option<Self> {
        path.metadata().ok().filter(Metadata::is_file).map(|metadata| Self::new(&metadata))
    }

    fn new(metadata: &Metadata) -> Self {
        Self { size: metadata.len(), modified: metadata.modified().ok() }
    }

    /// Whether it was written after `moment`, by a clock that does not run ahead.
    pub(super) fn after(&self, moment: SystemTime) -> bool {
        self.modified.is_some_and(|at| at > moment && at <= SystemTime::now())
    }
}

impl Content {
    /// Of a regular file, through links; `None` where there is none.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let stamp = Stamp::of(path)?;
        // Without waiting, in case that a pipe took the file's place meanwhile.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let hash = if stamp.size <= MAX_READ { file.ok().and_then(hash) } else { None };
        Some(Self { stamp, hash })
    }

    pub(super) fn same_as(&self, other: &Self) -> bool {
        match (self.hash, other.hash) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self.stamp == other.stamp,
        }
    }
}

fn hash(mut file: File) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    let mut buffer = [0; 16 << 10];
    let mut left = MAX_READ;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Some(hasher.finish()),
            Ok(count) => {
                hasher.write(&buffer[..count]);
                left = left.checked_sub(count as u64)?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}
