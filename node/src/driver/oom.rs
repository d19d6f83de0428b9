//! Whether the kernel killed a process for want of memory. A cgroup of its own knows for sure (see `cgroup`); elsewhere the
//! machine's counter says whether it can be, and the kernel's log, where it may be read, whom it was.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// What is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel's log names the process.
    Named,
    /// The kernel killed so many processes of this machine since the last look, and does not say which.
    Likely {
        /// How many.
        kills: u64,
    },
}

/// So many messages of the kernel's log are read at most; it holds a few thousand.
const MESSAGES: usize = 20_000;

/// The counters of `/proc/vmstat` are some 5 KiB of text.
const VMSTAT: usize = 16 * 1024;

/// Remembers how many processes the kernel has killed.
#[derive(Debug)]
pub struct Watch {
    /// Kept open: it is looked at between a crash and the next start.
    vmstat: Option<File>,
    seen: Option<u64>,
}

impl Watch {
    /// Counts from now on.
    pub fn start() -> Self {
        let mut watch = Self { vmstat: File::open("/proc/vmstat").ok(), seen: None };
        watch.seen = watch.count();
        watch
    }

    /// Looks who killed this process; `None`: nothing says that it was the kernel.
    pub fn look(&mut self, pid: u32) -> Option<Verdict> {
        let now = self.count()?;
        let kills = now.checked_sub(self.seen.replace(now)?).filter(|kills| *kills > 0)?;
        Some(if is_named(pid) { Verdict::Named } else { Verdict::Likely { kills } })
    }

    /// `oom_kill` of `/proc/vmstat` (since Linux 4.13).
    fn count(&self) -> Option<u64> {
        let mut text = [0; VMSTAT];
        let mut length = 0;
        loop {
            let read = self.vmstat.as_ref()?.read_at(&mut text[length..], length as u64).ok()?;
            length += read;
            if read == 0 {
                return parse_count(str::from_utf8(&text[..length]).ok()?);
            }
        }
    }
}

fn parse_count(vmstat: &str) -> Option<u64> {
    vmstat.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// Whether the kernel's log says that it killed this process. Each read of `/dev/kmsg` brings one message (`man 4 kmsg`,
/// Documentation/ABI/testing/dev-kmsg); without the right to read it nothing is said.
fn is_named(pid: u32) -> bool {
    let options = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg");
    let Ok(mut log) = options else {
        return false;
    };
    let mut message = [0; 8192];
    for _ in 0..MESSAGES {
        match log.read(&mut message) {
            Ok(0) => return false,
            Ok(length) if names(&message[..length], pid) => return true,
            Ok(_) => {}
            // EPIPE: messages were overwritten while we read; the next read goes on behind them.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(_) => return false,
        }
    }
    false
}

/// `Out of memory: Killed process 123 (web) …`, `Memory cgroup out of memory: Killed process 123 (web), …`
fn names(message: &[u8], pid: u32) -> bool {
    let text = String::from_utf8_lossy(message);
    let lower = text.to_ascii_lowercase();
    lower.contains("out of memory") && lower.contains(&format!("killed process {pid} "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        assert_eq!(parse_count("nr_free 3\noom_kill 12\noom_killer 1\n"), Some(12));
        assert_eq!(parse_count("nr_free 3\n"), None);
        let line = b"3,1,2,-;Out of memory: Killed process 4711 (web) total-vm:1kB, anon-rss:1kB";
        assert!(names(line, 4711) && !names(line, 471) && !names(line, 47110));
        assert!(names(b"3,1,2,-;Memory cgroup out of memory: Killed process 7 (x)", 7));
        assert!(!names(b"6,1,2,-;web said: killed process 4711 (web)", 4711));
    }

    #[test]
    fn where_nothing_was_killed_nothing_is_said() {
        let mut watch = Watch::start();
        assert!(watch.seen.is_some(), "the machine's counter is read");
        assert!(matches!(watch.look(u32::MAX), None | Some(Verdict::Likely { .. })));
        assert_eq!(Watch { vmstat: None, seen: None }.look(1), None);
    }
}
