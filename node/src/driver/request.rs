//! What one spawn needs, prepared beforehand so that the child has nothing left to compute.
//!
//! A request is filled by `launch`, given its descriptors by the caller, and used once or many times.

use std::ffi::CString;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;

use hilum_shared::signal::Signal;

/// A list of NUL-terminated strings in one allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strings {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

/// A text that no C string can hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` holds a NUL byte, which no argument or variable may")]
pub struct NulByte {
    /// The text, lossy.
    pub text: String,
}

impl Strings {
    /// None yet, with room for `count` of `bytes` in all, their NULs not counted.
    pub fn with_room(count: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes + count), starts: Vec::with_capacity(count) }
    }

    /// Adds one string and says at which byte of the block it begins.
    ///
    /// # Errors
    /// When it holds a NUL.
    pub fn push(&mut self, text: &[u8]) -> Result<usize, NulByte> {
        self.push_parts(&[text])
    }

    /// Adds one string made of these parts.
    ///
    /// # Errors
    /// When it holds a NUL.
    pub fn push_parts(&mut self, parts: &[&[u8]]) -> Result<usize, NulByte> {
        if parts.iter().any(|part| memchr::memchr(0, part).is_some()) {
            let text = String::from_utf8_lossy(&parts.concat()).replace('\0', "\\0");
            return Err(NulByte { text });
        }
        let start = self.bytes.len();
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.push(0);
        self.starts.push(start);
        Ok(start)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Takes all out; the memory stays for the next use.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }

    /// The strings without their NUL.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.starts.iter().enumerate().map(|(at, &start)| {
            let end = self.starts.get(at + 1).copied();
            &self.bytes[start..end.unwrap_or(self.bytes.len()) - 1]
        })
    }

    /// The address of the byte at `offset`, for the child to write to.
    pub(super) fn address(&mut self, offset: usize) -> *mut u8 {
        self.bytes[offset..].as_mut_ptr()
    }

    /// Fills `into` with the address of each string and a null at the end.
    pub(super) fn pointers(&self, into: &mut Vec<*const libc::c_char>) {
        into.clear();
        into.extend(self.starts.iter().map(|&start| self.bytes[start..].as_ptr().cast()));
        into.push(std::ptr::null());
    }
}

/// Where the standard descriptors lead.
#[derive(Debug, Default)]
pub enum Stdio {
    /// All three to `/dev/null`.
    #[default]
    Null,
    /// stdin `/dev/null`, the others the write ends of these pipes (they may be the same one).
    Pipes {
        /// For descriptor 1.
        stdout: Arc<OwnedFd>,
        /// For descriptor 2.
        stderr: Arc<OwnedFd>,
    },
    /// Descriptors 0, 1 and 2 are this terminal (a pty slave), which becomes the controlling one.
    Terminal(OwnedFd),
    /// stdin `/dev/null`, output to this terminal, which becomes the controlling one.
    OutputTerminal(OwnedFd),
    /// All three are the spawner's own.
    Inherit,
}

impl Stdio {
    /// What was made for the child's output.
    pub fn outputs(&self) -> impl Iterator<Item = &OwnedFd> {
        let (one, other) = match self {
            Self::Pipes { stdout, stderr } => (Some(&**stdout), Some(&**stderr)),
            Self::Terminal(slave) | Self::OutputTerminal(slave) => (Some(slave), None),
            Self::Null | Self::Inherit => (None, None),
        };
        one.into_iter().chain(other)
    }
}

/// To which session and group the child belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Session {
    /// Its own: it leads a new session and group.
    #[default]
    New,
    /// The spawner's session with its terminal, but its own group.
    Group,
    /// The spawner's, group and terminal included.
    Inherited,
}

/// A resource limit of the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// Its name in the configuration, for messages.
    pub name: &'static str,
    /// `RLIMIT_…`
    pub resource: i32,
    /// In force.
    pub soft: u64,
    /// How far the child may raise it.
    pub hard: u64,
}

/// The user that the child becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// As written in the configuration, for messages.
    pub name: String,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups; `None` leaves them alone.
    pub groups: Option<Vec<u32>>,
}

/// Everything about one spawn.
#[derive(Debug, Default)]
pub struct SpawnRequest {
    /// The program as written, for messages.
    pub program: String,
    /// The paths to try in turn, as `execvp` does; relative ones are relative to `directory`.
    pub candidates: Strings,
    /// Arguments, the program's own name first.
    pub argv: Strings,
    /// `NAME=value`.
    pub env: Strings,
    /// Where in `env` the child writes its pid: the begin of [`PID_WIDTH`] bytes of `LISTEN_PID=`'s value.
    pub listen_pid: Option<usize>,
    /// Working folder; the spawner's own where absent.
    pub directory: Option<CString>,
    /// Standard descriptors.
    pub stdio: Stdio,
    /// Further descriptors and the numbers they get (from 3 on, each once). All others are closed.
    pub descriptors: Vec<(Arc<OwnedFd>, RawFd)>,
    /// Session and group.
    pub session: Session,
    /// What it gets when the spawner's thread ends; KILL where absent.
    pub death_signal: Option<Signal>,
    /// Resource limits.
    pub limits: Vec<Rlimit>,
    /// User and groups.
    pub identity: Option<Identity>,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// Scheduling priority.
    pub nice: Option<i32>,
    /// Processors it may run on.
    pub cpus: Option<Vec<usize>>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// An open `cgroup.procs` that the child enters by.
    pub cgroup: Option<Arc<OwnedFd>>,
}

/// Room for any pid in decimal.
pub const PID_WIDTH: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_as_pushed_and_nul_is_refused() {
        let mut strings = Strings::default();
        assert_eq!(strings.push(b"one"), Ok(0));
        assert_eq!(strings.push_parts(&[b"A", b"=", b""]), Ok(4));
        assert_eq!(strings.push(b""), Ok(7));
        let all: Vec<&[u8]> = strings.iter().collect();
        assert_eq!(all, [b"one".as_slice(), b"A=", b""]);
        let refused = strings.push(b"a\0b").unwrap_err();
        assert_eq!(refused.text, "a\\0b");
        assert_eq!(strings.len(), 3);
    }
}
