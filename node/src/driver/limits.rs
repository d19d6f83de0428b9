//! The node's own limit of open files. ZeroMQ aborts the process when it cannot get a descriptor, so the
//! limit is raised first thing.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Of one instance: two pipes, a pidfd, a statistics file.
const PER_INSTANCE: u64 = 4;
/// Of the node: sockets, log files, watches, clients.
const OF_NODE: u64 = 72;

/// With fewer than the node itself has open and the reserve, a quarter of all, no instance would get one.
const LEAST: u64 = OF_NODE + OF_NODE / 3;

/// A limit of open files under which no node can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a node needs {LEAST} open files and some for each instance, and may have {hard}\nhelp: raise the hard limit (`ulimit -Hn`, `LimitNOFILE=` of a unit); the soft one is raised by the node itself"
)]
pub struct TooFew {
    hard: u64,
}

/// Whether a node can run in this process' place: to be asked before it is started, since what starts it needs descriptors, too.
///
/// # Errors
/// When it cannot.
pub fn enough_for_a_node() -> Result<(), TooFew> {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard < LEAST => Err(TooFew { hard }),
        _ => Ok(()),
    }
}

/// How many files may be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nofile {
    /// Before the node raised it: what children get.
    pub original: (u64, u64),
    /// Now.
    pub soft: u64,
}

impl Nofile {
    /// Raises the soft limit to the hard one.
    ///
    /// # Errors
    /// Never on a Linux that this node runs on.
    pub fn raise() -> io::Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(Self { original: (soft, hard), soft: hard })
    }

    /// A word of warning when so many instances do not fit.
    pub fn too_few_for(&self, instances: u64) -> Option<String> {
        let need = needed(instances);
        (need > self.soft).then(|| {
            format!(
                "{instances} instances need {need} open files, the node may have {}: raise the hard limit (`ulimit -Hn`, `LimitNOFILE=`)",
                self.soft
            )
        })
    }
}

/// So many descriptors, a quarter of all but between these two, are not for instances: clients, files and what is
/// looked at in `/proc` need them, most of all when they are short.
const RESERVE: (u64, u64) = (16, 64);

/// Whether a descriptor that was got for an instance leaves the reserve alone. The kernel gives the lowest number that is free,
/// so the number says how many there are.
///
/// # Errors
/// `EMFILE` when it does not.
pub fn spares_reserve(descriptor: &impl AsFd) -> io::Result<()> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let most = soft.saturating_sub((soft / 4).clamp(RESERVE.0, RESERVE.1));
    if u64::try_from(descriptor.as_fd().as_raw_fd()).is_ok_and(|number| number < most) {
        Ok(())
    } else {
        Err(Errno::EMFILE.into())
    }
}

/// How many descriptors a node with so many instances needs, with what is kept in reserve.
pub fn needed(instances: u64) -> u64 {
    let used = PER_INSTANCE * instances + OF_NODE;
    used + (used / 3).clamp(RESERVE.0, RESERVE.1) // a third of these is a quarter of all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_instances_are_said_with_both_numbers() {
        let limit = Nofile { original: (1024, 4096), soft: 4096 };
        assert_eq!(limit.too_few_for(990), None);
        let text = limit.too_few_for(2000).unwrap();
        assert!(text.contains("8136") && text.contains("4096"), "{text}");
    }
}
