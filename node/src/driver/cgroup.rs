//! Control groups (v2), where a part of the tree is delegated to the node: a leaf for each instance, with its limits.
//!
//! ```text
//!   the node's group ─┬─ hilum-node   (the node itself: a group with members may not share out controllers)
//!                     ├─ echo.1
//!                     └─ echo.2
//! ```
//! Without delegation nothing here is in force, and [`Cgroups::detect`] says why.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hilum_shared::config::spec::Limits;
use hilum_shared::name::InstanceId;

/// The period of `cpu.max` in microseconds (the kernel's default).
const CPU_PERIOD: u64 = 100_000;
/// The leaf that the node itself lives in.
const OWN_LEAF: &str = "hilum-node";

/// The node's part of the tree.
#[derive(Clone, Debug)]
pub struct Cgroups {
    root: PathBuf,
    controllers: Vec<String>,
}

/// The group of one instance. It is removed when nothing is in it any more.
#[derive(Debug)]
pub struct Leaf {
    path: PathBuf,
    /// To be given to the spawner.
    pub procs: Arc<OwnedFd>,
    /// The limits that are in force, by their names in the configuration.
    pub in_force: Vec<&'static str>,
    /// Those that are configured and not in force.
    pub missing: Vec<&'static str>,
}

impl Cgroups {
    /// Finds the node's group and takes the controllers that it may share out.
    ///
    /// # Errors
    /// Why limits by control group are not in force, in words.
    pub fn detect() -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mount = mount_point(&mounts).ok_or("no cgroup v2 is mounted")?;
        let path = own
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .ok_or("the node is in no cgroup v2")?;
        if path.is_empty() {
            return Err("the node is in the root control group, of which no part is delegated (start it by `systemd-run --scope -p Delegate=yes`)".into());
        }
        Self::take(mount.join(path))
    }

    fn take(root: PathBuf) -> Result<Self, String> {
        let refused = |what: &str, error: io::Error| {
            format!("control group `{}`: {what}: {error}", root.display())
        };
        let available = fs::read_to_string(root.join("cgroup.controllers"))
            .map_err(|error| refused("cannot be read", error))?;
        let own = root.join(OWN_LEAF);
        if !own.is_dir() {
            fs::create_dir(&own).map_err(|error| refused("is not delegated", error))?;
        }
        fs::write(own.join("cgroup.procs"), "0")
            .map_err(|error| refused("is not delegated", error))?;
        let mut controllers = Vec::new();
        for name in ["memory", "cpu", "pids"] {
            let has = available.split_ascii_whitespace().any(|one| one == name);
            if has && fs::write(root.join("cgroup.subtree_control"), format!("+{name}")).is_ok() {
                controllers.push(name.to_owned());
            }
        }
        Ok(Self { root, controllers })
    }

    /// The limits that can be in force here, by their names in the configuration.
    pub fn limits_in_force(&self) -> Vec<&'static str> {
        [("memory", "memory_max"), ("cpu", "cpu_max"), ("pids", "pids_max")]
            .into_iter()
            .filter(|(controller, _)| self.controllers.iter().any(|one| one == controller))
            .map(|(_, limit)| limit)
            .collect()
    }

    /// Makes an instance's group and sets its limits.
    ///
    /// # Errors
    /// When the group cannot be made; a limit that cannot be set is listed in `missing`.
    pub fn leaf(&self, instance: &InstanceId, limits: &Limits) -> io::Result<Leaf> {
        let path = self.root.join(instance.to_string());
        if !path.is_dir() {
            fs::create_dir(&path)?;
        }
        let mut in_force = Vec::new();
        let mut missing = Vec::new();
        let memory = limits.memory_max.map(|bytes| bytes.0.to_string());
        let cpu = limits.cpu_max.map(|processors| {
            let quota = (processors * CPU_PERIOD as f64).round().max(1000.0);
            format!("{} {CPU_PERIOD}", quota as u64)
        });
        let pids = limits.pids_max.map(|count| count.to_string());
        for (file, limit, value, unlimited) in [
            ("memory.max", "memory_max", memory, "max".to_owned()),
            ("cpu.max", "cpu_max", cpu, format!("max {CPU_PERIOD}")),
            ("pids.max", "pids_max", pids, "max".to_owned()),
        ] {
            // Also where none is configured: the group may have had one before a reload.
            let text = value.as_ref().unwrap_or(&unlimited);
            match (fs::write(path.join(file), text), &value) {
                (Ok(()), Some(_)) => in_force.push(limit),
                (Err(_), Some(_)) => missing.push(limit),
                (_, None) => {}
            }
        }
        let procs = OpenOptions::new().write(true).open(path.join("cgroup.procs"))?;
        Ok(Leaf { path, procs: Arc::new(procs.into()), in_force, missing })
    }
}

impl Leaf {
    /// Sends KILL to everything in the group at once (kernel 5.14).
    ///
    /// # Errors
    /// On older kernels.
    pub fn kill(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.kill"), "1")
    }

    /// How often the kernel killed something in it for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        let line = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    /// All that is in it.
    pub fn members(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path); // busy: something is left in it, and it is used again
    }
}

/// Where cgroup v2 is mounted, by `/proc/self/mountinfo`.
fn mount_point(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let kind = after.split(' ').next()?;
        let path = before.split(' ').nth(4)?;
        (kind == "cgroup2").then(|| Path::new(path).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_of_version_two_is_found_beside_version_one() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n31 23 0:27 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(mounts), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_point("30 23 0:26 / / rw - ext4 /dev/x rw"), None);
    }

    #[test]
    fn limits_are_written_and_those_without_a_file_are_said() {
        // A plain folder behaves as a group without controllers once its files are gone.
        let dir = tempfile::tempdir().unwrap();
        let groups = Cgroups { root: dir.path().to_owned(), controllers: vec!["pids".into()] };
        assert_eq!(groups.limits_in_force(), ["pids_max"]);
        let instance = InstanceId::parse("web.1").unwrap();
        let path = dir.path().join("web.1");
        fs::create_dir(&path).unwrap();
        for file in ["cgroup.procs", "cpu.max", "pids.max"] {
            fs::write(path.join(file), "").unwrap();
        }
        fs::create_dir(path.join("memory.max")).unwrap();
        let limits = Limits {
            memory_max: Some(hilum_shared::units::Bytes(1 << 20)),
            cpu_max: Some(0.5),
            ..Limits::default()
        };
        let leaf = groups.leaf(&instance, &limits).unwrap();
        assert_eq!(leaf.in_force, ["cpu_max"]);
        assert_eq!(leaf.missing, ["memory_max"]);
        let read = |file: &str| fs::read_to_string(path.join(file)).unwrap();
        assert_eq!(read("cpu.max"), "50000 100000");
        assert_eq!(read("pids.max"), "max");
        assert_eq!(leaf.oom_kills(), 0);
    }
}
