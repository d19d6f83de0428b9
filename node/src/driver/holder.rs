//! Who holds a port, so that an error can name him: another node and its instances by their cluster, everybody else by
//! the command.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::procfs;

/// A process that listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Its command line, shortened.
    pub command: String,
    /// Where it is a node, or an instance of one.
    pub cluster: Option<Box<Cluster>>,
}

/// The cluster that a holder belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The first config.
    pub config: PathBuf,
    /// What `-p` was given.
    pub project: Option<String>,
    /// The instance; `None` = the node itself.
    pub instance: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Cluster { config, project, instance }) = self.cluster.as_deref() else {
            return write!(f, "pid {} (`{}`)", self.pid, self.command);
        };
        let config = config.display();
        match instance {
            Some(instance) => write!(f, "`{instance}` (pid {}) of", self.pid)?,
            None => write!(f, "pid {},", self.pid)?,
        }
        let project = project.as_ref().map_or(String::new(), |name| format!(" -p {name}"));
        write!(f, " the hilum node of `{config}`; `hilum -c {config}{project} down` stops that one")
    }
}

impl Cluster {
    /// A node has its lock open; its instances have the lock's path in their environment.
    fn of(pid: u32) -> Option<Self> {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let mut locks = open.filter_map(|fd| fs::read_link(fd.path()).ok());
        match locks.find_map(|path| Self::with_lock(&path, None)) {
            Some(node) => Some(node),
            None => {
                let lock = procfs::variable(pid, "HILUM_LOCK")?;
                Self::with_lock(Path::new(&lock), procfs::variable(pid, "HILUM_INSTANCE"))
            }
        }
    }

    /// `lock` lies in a state folder, which leads to the run folder, or in the run folder itself.
    fn with_lock(lock: &Path, instance: Option<String>) -> Option<Self> {
        let folder = lock.parent().filter(|_| lock.ends_with("lock"))?;
        let run = match fs::read_to_string(folder.join("run")) {
            Ok(path) => PathBuf::from(path.trim_end()),
            Err(_) => folder.to_owned(),
        };
        let project: Value =
            serde_json::from_slice(&fs::read(run.join("project.json")).ok()?).ok()?;
        let config = PathBuf::from(project["config"].as_str()?);
        let name = Path::new(project["state"].as_str()?).file_name()?.to_str()?;
        let suffix = name.strip_prefix(config.file_name()?.to_str()?)?;
        let project = suffix.strip_prefix('@').map(str::to_owned);
        Some(Self { config, project, instance })
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
    let command = procfs::command_line(pid).unwrap_or_default();
    Some(Holder { pid, command, cluster: Cluster::of(pid).map(Box::new) })
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
