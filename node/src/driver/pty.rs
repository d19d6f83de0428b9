//! A pseudo-terminal for an instance's output (`tty: true`). Only its output passes: what the program
//! writes arrives as written.

use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, OutputFlags, SetArg, tcgetattr, tcsetattr};

/// The size that programs are told: wide, since lines that they wrap would be lines of the log.
const SIZE: Winsize = Winsize { ws_row: 50, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 };

/// A terminal: our end, which never blocks, and the child's for
/// [`Stdio::OutputTerminal`](super::request::Stdio::OutputTerminal). Reading ours answers EIO when all of the
/// child's copies are closed: that is its end of file.
///
/// # Errors
/// When descriptors or terminals are short.
pub fn output() -> io::Result<(OwnedFd, OwnedFd)> {
    let pair = openpty(&SIZE, None)?;
    for fd in [&pair.master, &pair.slave] {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    let mut modes = tcgetattr(&pair.slave)?;
    // No "\r\n" for "\n", no echo.
    modes.output_flags.remove(OutputFlags::ONLCR);
    modes.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&pair.slave, SetArg::TCSANOW, &modes)?;
    fcntl(&pair.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_RDWR))?;
    Ok((pair.master, pair.slave))
}
