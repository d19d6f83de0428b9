//! What a process is started with.

use std::collections::BTreeMap;

use super::super::template::Template;
use super::SocketSpec;
use crate::units::Bytes;

/// What a process is started with. When any of it differs, a reload restarts the instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Program and arguments, already split; under `shell: true` this is `/bin/sh -c TEXT`.
    pub command: Vec<Template>,
    /// Working folder; a relative one is relative to the project folder.
    pub directory: Option<Template>,
    /// Whether the node's own environment is the base.
    pub inherit_env: bool,
    /// Variables of the file in their final order of precedence: top `env_file`, top `env`,
    /// `env_file`, `env`. `None` removes an inherited one.
    pub env: BTreeMap<String, EnvValue>,
    /// Ports by name, in the order of the file (the first is also `PORT`).
    pub ports: Vec<PortSpec>,
    /// The shared sockets to pass, of those in [`Cluster::sockets`](super::Cluster::sockets).
    pub sockets: Vec<SocketSpec>,
    /// Whether its output is a pseudo-terminal.
    pub tty: bool,
    /// Resource limits.
    pub limits: Limits,
    /// The user to run as: a name or a number.
    pub user: Option<String>,
    /// The group to run as; the user's own where absent.
    pub group: Option<String>,
    /// File mode creation mask, 0 to 0o777.
    pub umask: Option<u32>,
    /// Scheduling priority, -20 to 19.
    pub nice: Option<i32>,
    /// Processors it may run on.
    pub cpus: Option<Vec<usize>>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
}

/// A variable and where it was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvValue {
    /// The value; `None` removes the variable.
    pub value: Option<Template>,
    /// Where it comes from, for people: `hilum.yml:12`, `.env:3`.
    pub origin: String,
}

/// A port of a service, one number for each instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// Its name, as in `$(port.NAME)` and `PORT_NAME`.
    pub name: String,
    /// How the number is found.
    pub choice: PortChoice,
    /// What happens when somebody else holds it.
    pub conflict: PortConflict,
}

/// How a port's number is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortChoice {
    /// A free one, chosen once.
    Auto,
    /// This one for every instance.
    Fixed(u16),
    /// `base + index - 1`.
    PerInstance(u16),
}

/// What happens when a port is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortConflict {
    /// Take the next free one.
    Next,
    /// Fail, naming the holder.
    Fail,
}

/// Limits of one process (rlimits) and of the instance as a whole (cgroup, or the node's watch).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Open files.
    pub nofile: Option<u64>,
    /// Processes of the user.
    pub nproc: Option<u64>,
    /// Core file size in bytes; `u64::MAX` is unlimited.
    pub core: Option<u64>,
    /// Address space in bytes.
    pub address_space: Option<u64>,
    /// CPU time in whole seconds.
    pub cpu: Option<u64>,
    /// Stack in bytes.
    pub stack: Option<u64>,
    /// cgroup `memory.max`.
    pub memory_max: Option<Bytes>,
    /// cgroup `cpu.max`, in processors (0.5 = half of one).
    pub cpu_max: Option<f64>,
    /// cgroup `pids.max`.
    pub pids_max: Option<u64>,
}

impl Limits {
    /// Whether any of them needs a control group.
    pub fn need_cgroup(&self) -> bool {
        self.memory_max.is_some() || self.cpu_max.is_some() || self.pids_max.is_some()
    }
}
