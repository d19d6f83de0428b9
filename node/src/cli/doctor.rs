//! `doctor`: what is wrong with this machine or project, how to mend it, and mending what is provably dead.

mod leftovers;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use hilum_shared::run_dir::MAX_SOCKET_PATH;
use nix::sys::resource::{Resource, getrlimit};
use serde::Serialize;

use super::exit::{ExitStatus, Outcome};
use super::output::Style;
use super::session::Session;
use super::{ls, process};

/// The words of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum doctor           what is wrong, and how to mend it\n  \
    hilum doctor --mend    clear what is provably dead: run folders and processes of killed nodes\n\n\
    1 when something is wrong.")]
pub(crate) struct DoctorArgs {
    /// Clear what is provably dead
    #[arg(long)]
    mend: bool,
}

/// A disk with less than so many % free is told, whatever `logs.keep_free` is.
const NEARLY_FULL: f64 = 1.0;

/// How good a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Ok,
    Warn,
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    grade: Grade,
    detail: String,
    mend: Option<String>,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, check: &'static str, detail: impl Into<String>) {
        self.add(check, Grade::Ok, detail, None);
    }

    fn warn(&mut self, check: &'static str, detail: impl Into<String>, mend: &str) {
        self.add(check, Grade::Warn, detail, Some(mend));
    }

    fn bad(&mut self, check: &'static str, detail: impl Into<String>, mend: &str) {
        self.add(check, Grade::Bad, detail, Some(mend));
    }

    fn add(
        &mut self,
        check: &'static str,
        grade: Grade,
        detail: impl Into<String>,
        mend: Option<&str>,
    ) {
        self.0.push(Finding { check, grade, detail: detail.into(), mend: mend.map(str::to_owned) });
    }
}

/// Runs `doctor`.
pub(crate) fn run(session: &Session, args: &DoctorArgs) -> Outcome {
    let mut findings = Findings::default();
    kernel(&mut findings);
    config(session, &mut findings);
    limits(session, &mut findings);
    cgroup(session, &mut findings);
    run_folders(&mut findings);
    if session.project().is_ok() {
        state_folder(session, &mut findings);
        disk(session, &mut findings);
        node(session, &mut findings);
    }
    leftovers::leftovers(session, args.mend, &mut findings);
    let out = session.out;
    if out.json {
        out.json(&serde_json::json!({ "checks": findings.0 }))?;
    } else {
        for one in &findings.0 {
            if out.quiet && one.grade == Grade::Ok {
                continue;
            }
            let (word, style) = match one.grade {
                Grade::Ok => ("ok  ", Style::Good),
                Grade::Warn => ("warn", Style::Warn),
                Grade::Bad => ("bad ", Style::Bad),
            };
            out.line(&format!("{}  {}: {}", out.paint.paint(style, word), one.check, one.detail))?;
            if let Some(mend) = &one.mend {
                out.line(&format!("      {} {mend}", out.paint.paint(Style::Help, "mend:")))?;
            }
        }
    }
    let bad = findings.0.iter().any(|one| one.grade == Grade::Bad);
    Ok(if bad { ExitStatus::Failed } else { ExitStatus::Done })
}

/// What the kernel must have: pidfds (5.3, `man 2 pidfd_open`), and what is better with (5.14, `cgroup.kill`).
fn kernel(findings: &mut Findings) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match version(release) {
        Some(at) if at >= (5, 14) => findings.ok("kernel", format!("Linux {release}")),
        Some(at) if at >= (5, 4) => findings.warn(
            "kernel",
            format!("Linux {release} has no `cgroup.kill`"),
            "nothing breaks; 5.14 or later ends the processes of an instance faster",
        ),
        Some(_) => findings.bad(
            "kernel",
            format!("Linux {release} has no pidfds"),
            "use Linux 5.4 or later",
        ),
        None => findings.warn("kernel", "its version cannot be read", "mount /proc"),
    }
    if !Path::new("/proc/self/stat").exists() {
        findings.bad("/proc", "is not mounted", "mount -t proc proc /proc");
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn config(session: &Session, findings: &mut Findings) {
    match session.project() {
        Err(error) => {
            let help = error.help().unwrap_or_default();
            findings.warn("config", error.to_string(), &help);
        }
        Ok(project) => match session.config() {
            Ok(_) => findings.ok("config", format!("{} is valid", project.config().display())),
            Err(_) => findings.bad(
                "config",
                format!("{} is not valid", project.config().display()),
                "`hilum check` says what is wrong",
            ),
        },
    }
}

fn limits(session: &Session, findings: &mut Findings) {
    let instances = session.config().map_or(0, |loaded| {
        loaded.cluster.services.values().map(|service| u64::from(service.numprocesses)).sum()
    });
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let need = crate::driver::limits::needed(instances);
        let detail = format!(
            "open files: {need} needed for {instances} instances, soft limit {soft}, hard {hard}"
        );
        if hard < need {
            findings.bad(
                "limits",
                detail,
                &format!(
                    "raise the hard limit: `ulimit -Hn {need}` as root, or LimitNOFILE= in the unit"
                ),
            );
        } else {
            findings.ok("limits", detail);
        }
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NPROC) {
        let need = instances + 16;
        let detail = format!("processes: at least {need} needed, soft limit {}", unlimited(soft));
        if soft < need {
            findings.bad("limits", detail, &format!("`ulimit -u {need}` or more"));
        } else {
            findings.ok("limits", detail);
        }
    }
    if let Some(watches) = number("/proc/sys/fs/inotify/max_user_watches") {
        let detail = format!("file watches: {watches}");
        if watches < 8192 {
            findings.warn(
                "limits",
                detail,
                "sysctl fs.inotify.max_user_watches=65536 (for `watch:` on large trees)",
            );
        } else {
            findings.ok("limits", detail);
        }
    }
}

fn unlimited(value: u64) -> String {
    if value == u64::MAX { "unlimited".into() } else { value.to_string() }
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Whether `memory_max`, `cpu_max` and `pids_max` can be in force.
fn cgroup(session: &Session, findings: &mut Findings) {
    let asked = session.config().is_ok_and(|loaded| loaded.cluster.needs_cgroups());
    let mut missing = |why: String, mend: &str| {
        if asked {
            findings.warn("cgroup", why, mend);
        } else {
            findings.ok("cgroup", format!("{why}; no service asks for its limits"));
        }
    };
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(own) = text.lines().find_map(|line| line.strip_prefix("0::")) else {
        missing(
            "no cgroup v2 here".to_owned(),
            "nothing breaks; `memory_max`, `cpu_max` and `pids_max` are not in force",
        );
        return;
    };
    let root = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .map(|root| Path::new(root).join(own.trim_start_matches('/')))
        .find(|path| path.join("cgroup.controllers").exists());
    let Some(folder) = root else {
        missing(
            "the cgroup v2 tree is not mounted".to_owned(),
            "mount -t cgroup2 none /sys/fs/cgroup",
        );
        return;
    };
    let controllers = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    let absent: Vec<&str> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|wanted| !controllers.split_whitespace().any(|one| one == *wanted))
        .collect();
    let writable = nix::unistd::access(&folder, nix::unistd::AccessFlags::W_OK).is_ok();
    if absent.is_empty() && writable {
        findings.ok("cgroup", format!("v2 at {}, with cpu, memory, pids", folder.display()));
    } else {
        let why = if writable {
            format!("v2 without {}", absent.join(", "))
        } else {
            format!("{} is not delegated to this user", folder.display())
        };
        missing(
            why,
            "`memory_max`, `cpu_max`, `pids_max` need it: `systemd-run --user --scope -p Delegate=yes hilum up`",
        );
    }
}

fn run_folders(findings: &mut Findings) {
    let me = nix::unistd::geteuid().as_raw();
    for root in ls::roots() {
        let shown = root.display();
        match fs::symlink_metadata(&root) {
            Err(_) => {
                let parent = root.parent().unwrap_or(Path::new("/"));
                if nix::unistd::access(parent, nix::unistd::AccessFlags::W_OK).is_ok() {
                    findings.ok("run folder", format!("{shown} will be made"));
                } else {
                    findings.bad(
                        "run folder",
                        format!("{} cannot be written", parent.display()),
                        "unset XDG_RUNTIME_DIR or set it to a folder of yours",
                    );
                }
            }
            Ok(meta) if meta.is_symlink() || meta.uid() != me => {
                findings.bad(
                    "run folder",
                    format!("{shown} is a link or belongs to another user"),
                    &format!("remove {shown}, or set `node.run_dir`"),
                );
            }
            Ok(meta) if meta.permissions().mode() & 0o066 != 0 => {
                let mode = meta.permissions().mode() & 0o777;
                findings.bad(
                    "run folder",
                    format!("{shown} has mode {mode:o}: others may read it"),
                    &format!("chmod 700 {shown}"),
                );
            }
            Ok(_) => findings.ok("run folder", format!("{shown}")),
        }
    }
}

fn state_folder(session: &Session, findings: &mut Findings) {
    let Ok(project) = session.project() else {
        return;
    };
    let path = project.state.path();
    let existing = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    if nix::unistd::access(existing, nix::unistd::AccessFlags::W_OK).is_ok() {
        findings.ok("state folder", format!("{}", path.display()));
    } else {
        findings.bad(
            "state folder",
            format!("{} cannot be written", existing.display()),
            "make it writable, or set `logs.dir`: the lock then lies in the run folder",
        );
    }
    let run_dir = crate::daemon::launch::run_dir(&project.state);
    let longest = run_dir.socket("heartbeat.sock").as_os_str().len();
    let detail = format!("socket paths of {longest} bytes in {}", run_dir.path().display());
    if longest > MAX_SOCKET_PATH {
        findings.bad(
            "endpoints",
            format!("{detail}, {MAX_SOCKET_PATH} is the most"),
            "set a shorter `node.run_dir`",
        );
    } else {
        findings.ok("endpoints", detail);
    }
}

/// Whether the log has the room that it is to leave free.
fn disk(session: &Session, findings: &mut Findings) {
    let (Ok(loaded), Ok(dir)) = (session.config(), super::lines::dir(session)) else {
        return; // told by another check
    };
    let there = dir.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let Ok(disk) = nix::sys::statvfs::statvfs(there) else {
        return;
    };
    let free = disk.blocks_available() as f64 / disk.blocks().max(1) as f64;
    room(free * 100.0, loaded.cluster.logs.keep_free * 100.0, there, findings);
}

/// What `free` % of a disk mean where the log leaves `floor` % alone.
fn room(free: f64, floor: f64, there: &Path, findings: &mut Findings) {
    let shown = there.display();
    if free < floor {
        findings.warn(
            "disk",
            format!("{free:.1} % of {shown} are free, `logs.keep_free` wants {floor:.1} %: old lines go before the budget is used"),
            "make room, or set a smaller `logs.keep_free`",
        );
    } else if free < NEARLY_FULL {
        findings.warn("disk", format!("{free:.1} % of {shown} are free"), "make room");
    } else {
        findings.ok("disk", format!("{free:.1} % of {shown} are free"));
    }
}

fn node(session: &Session, findings: &mut Findings) {
    let pid = match session.node_pid() {
        Ok(None) => return findings.ok("node", "none is running"),
        Ok(Some(pid)) => pid,
        Err(error) => {
            return findings.bad(
                "node",
                error.to_string(),
                "look at the state folder's permissions",
            );
        }
    };
    match session.node().and_then(|node| session.status(&node)) {
        Err(error) => {
            findings.bad("node", error.to_string(), "`hilum down --now` ends it; then `hilum up`");
        }
        Ok(snapshot) => {
            let ours = env!("CARGO_PKG_VERSION");
            let theirs = &snapshot.node.version;
            if theirs == ours {
                findings.ok("node", format!("pid {pid} answers, version {ours}"));
            } else {
                findings.warn(
                    "node",
                    format!("pid {pid} is version {theirs}, this command {ours}"),
                    "`hilum down`, then `hilum up`",
                );
            }
            for warning in &snapshot.node.warnings {
                findings.warn("node", warning.clone(), "see `hilum logs --stream node`");
            }
            for (reason, count) in &snapshot.node.ignored {
                findings.warn(
                    "node",
                    format!("{count} messages ignored: {reason}"),
                    "look for a worker of another version or cluster",
                );
            }
        }
    }
    if fs::read_link(process::file(pid, "exe"))
        .is_ok_and(|exe| exe.to_string_lossy().ends_with(" (deleted)"))
    {
        findings.warn(
            "node",
            "its program file was replaced",
            "`hilum down`, then `hilum up` runs the new one",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_compared_as_numbers() {
        assert_eq!(version("6.18.0-rc1"), Some((6, 18)));
        assert_eq!(version("5.4.0-150-generic"), Some((5, 4)));
        assert!(version("5.14.0") > version("5.4.0"));
        assert_eq!(version("what"), None);
    }

    #[test]
    fn a_full_disk_is_told_whatever_the_log_leaves_free() {
        let grade = |free, floor| {
            let mut findings = Findings::default();
            room(free, floor, Path::new("/"), &mut findings);
            findings.0[0].grade
        };
        assert_eq!(grade(0.0, 0.0), Grade::Warn);
        assert_eq!(grade(3.0, 5.0), Grade::Warn);
        assert_eq!(grade(3.0, 0.0), Grade::Ok);
    }
}
