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
        let is_one = lock.ends_with("lock") || lock.ends_with("node.lock");
        let folder = lock.parent().filter(|_| is_one)?;
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

/// Who holds a port that cannot be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// This process.
    By(Holder),
    /// One that may not be known.
    Foreign,
    /// No process any more.
    Lingering,
    /// The kernel tells of no socket there: it does not listen, or is gone by now.
    Unseen,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::By(holder) => return holder.fmt(f),
            Self::Foreign => "another user's process",
            Self::Lingering => {
                "nobody: closed connections linger there (TIME_WAIT) for a minute, because who had them did not set SO_REUSEADDR"
            }
            Self::Unseen => "a socket that does not listen",
        })
    }
}

/// Who has this TCP port.
pub fn look(port: u16) -> Held {
    let sockets = sockets(port);
    let of = |listens| -> HashSet<u64> {
        let open = sockets.iter().filter(|socket| socket.inode != 0 && socket.listens == listens);
        open.map(|socket| socket.inode).collect()
    };
    // Who listens; else whose connection it is.
    match [of(true), of(false)].into_iter().find(|inodes| !inodes.is_empty()) {
        Some(inodes) => owner(&inodes).map_or(Held::Foreign, Held::By),
        None if sockets.is_empty() => Held::Unseen,
        None => Held::Lingering,
    }
}

/// The process that listens on this TCP port, if it may be known: another user's may not.
pub fn of_port(port: u16) -> Option<Holder> {
    let listening = sockets(port).into_iter().filter(|socket| socket.listens);
    owner(&listening.map(|socket| socket.inode).collect())
}

fn sockets(port: u16) -> Vec<Socket> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let texts = tables.map(|table| fs::read_to_string(table).unwrap_or_default());
    let lines = texts.iter().flat_map(|text| text.lines().skip(1));
    lines.filter_map(|line| socket(line, port)).collect()
}

fn owner(inodes: &HashSet<u64>) -> Option<Holder> {
    if inodes.is_empty() {
        return None;
    }
    let wanted: HashSet<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
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

/// A socket as `/proc/net/tcp` has it.
struct Socket {
    listens: bool,
    /// 0: no process has it open.
    inode: u64,
}

/// The socket in a line of `/proc/net/tcp`, when it is on the port.
fn socket(line: &str, port: u16) -> Option<Socket> {
    /// `TCP_LISTEN` of the kernel's `tcp_states.h`.
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    let number = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
    (number == port).then_some(Socket { listens: state == LISTEN, inode })
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
        assert_eq!(look(port), Held::Unseen);
    }
}
