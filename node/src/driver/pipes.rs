//! The pipes that carry an instance's output: close-on-exec from birth, our end non-blocking, the child's blocking.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// A pipe: our end for reading, which never blocks, and the child's for writing, which does.
///
/// # Errors
/// When descriptors are short.
pub fn output() -> io::Result<(OwnedFd, Arc<OwnedFd>)> {
    let (reader, writer) = io::pipe()?;
    let reader = OwnedFd::from(reader);
    // Each end is an open file description of its own, so this does not reach the child's.
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((reader, Arc::new(writer.into())))
}

/// Asks for a larger pipe. What a user's pipes may hold in all is bounded (`/proc/sys/fs/pipe-user-pages-soft`): a no is
/// no error, the pipe works as it is.
pub fn enlarge(pipe: &impl AsFd, bytes: i32) {
    let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(bytes)); // see above
}
