//! Who holds a port, so that an error can name him.

use std::collections::HashSet;
use std::fmt;
use std::fs;

use super::procfs;

/// A process that listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Its command line, shortened.
    pub command: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} (`{}`)", self.pid, self.command)
    }
}

/// The process that listens on this TCP port, if it may be known: another user's may not.
pub fn of_port(port: u16) -> Option<Holder> {
    let mut inodes = HashSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(text.lines().skip(1).filter_map(|line| listener(line, port)));
    }
    if inodes.is_empty() {
        return None;
    }
    let wanted: HashSet<String> =
        inodes.into_iter().map(|inode| format!("socket:[{inode}]")).collect();
    let holds = |pid: &u32| {
        let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            return false;
        };
        fds.flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|link| link.to_str().is_some_and(|link| wanted.contains(link)))
    };
    let pid = procfs::all().into_iter().find(holds)?;
    Some(Holder { pid, command: procfs::command_line(pid).unwrap_or_default() })
}

/// The inode in a line of `/proc/net/tcp`, when it listens on the port.
fn listener(line: &str, port: u16) -> Option<u64> {
    /// `TCP_LISTEN` of the kernel's `tcp_states.h`.
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    let number = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
    (number == port && state == LISTEN).then_some(inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_this_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let holder = of_port(port).unwrap();
        assert_eq!(holder.pid, std::process::id());
        assert!(!holder.command.is_empty());
        drop(listener);
        assert_eq!(of_port(port), None);
    }
}
