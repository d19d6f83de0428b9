//! The pipes that carry an instance's output: close-on-exec from birth. Who reads our end makes it non-blocking; the child's blocks.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, fcntl};

/// A pipe: our end for reading, and the child's for writing. Each is an open file description of its own: whether one blocks says
/// nothing of the other.
///
/// # Errors
/// When descriptors are short.
pub fn output() -> io::Result<(OwnedFd, Arc<OwnedFd>)> {
    let (reader, writer) = io::pipe()?;
    Ok((reader.into(), Arc::new(writer.into())))
}

/// Asks for a larger pipe. What a user's pipes may hold in all is bounded (`/proc/sys/fs/pipe-user-pages-soft`): a no is
/// no error, the pipe works as it is.
pub fn enlarge(pipe: &impl AsFd, bytes: i32) {
    let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(bytes)); // see above
}
