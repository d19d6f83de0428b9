//! What the command line asks `/proc` of: whether a process still lives, whose child it is, who bears a cluster's mark.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use hilum_shared::protocol::env;

use super::output::printable;

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its pid.
    pub(crate) pid: u32,
    /// Clock ticks between the machine's start and its own.
    started: u64,
}

/// What `/proc/PID/stat` tells (`man 5 proc_pid_stat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: u32,
    started: u64,
}

/// Reads the text of a stat file; the name may hold spaces and brackets.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // the start time is field 22; the two above are fields 3 and 4
    let started = fields.nth(17)?.parse().ok()?;
    Some(Stat { state, parent, started })
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

impl Process {
    /// The living process with this pid.
    pub(crate) fn find(pid: u32) -> Option<Self> {
        let stat = stat(pid)?;
        (!ended(stat.state)).then_some(Self { pid, started: stat.started })
    }

    /// Whether it still lives; a zombie does not.
    pub(crate) fn lives(self) -> bool {
        stat(self.pid).is_some_and(|now| now.started == self.started && !ended(now.state))
    }

    /// How long it lives, by the machine's own clock; nothing where that cannot be read.
    pub(crate) fn age(self) -> Duration {
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let uptime = uptime.split(' ').next().and_then(|text| text.parse::<f64>().ok());
        // 100 on every Linux that we know of (`man 5 proc_pid_stat`, field 22)
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
        let ticks = ticks.ok().flatten().unwrap_or(100) as f64;
        let age = uptime.unwrap_or(0.0) - self.started as f64 / ticks;
        Duration::try_from_secs_f64(age).unwrap_or_default()
    }

    /// The keeper of the node that is this process: its parent, when that is the same program.
    pub(crate) fn keeper(self) -> Option<Self> {
        let parent = stat(self.pid)?.parent;
        let program = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
        let same = program(self.pid).is_some() && program(self.pid) == program(parent);
        let keeper = fs::read(format!("/proc/{parent}/cmdline")).is_ok_and(|line| {
            let mut words = line.split(|byte| *byte == 0).skip(1);
            words.any(|word| word == b"__keeper" || word == b"node")
        });
        (same && keeper).then(|| Self::find(parent)).flatten()
    }
}

impl Process {
    /// Whether it is stopped, or held by a debugger.
    pub(crate) fn is_halted(self) -> bool {
        self.lives() && halted(self.pid).is_some()
    }
}

/// Why a process does not run though it lives.
pub(crate) fn halted(pid: u32) -> Option<&'static str> {
    match stat(pid)?.state {
        'T' => Some("it is stopped (SIGSTOP)"),
        't' => Some("it is held by a debugger"),
        _ => None,
    }
}

/// The environment that a process was started with; nothing where it may not be read.
pub(crate) fn environment(pid: u32) -> Option<Vec<(OsString, OsString)>> {
    let block = fs::read(file(pid, "environ")).ok()?;
    let variables = block.split(|byte| *byte == 0).filter_map(|variable| {
        let at = variable.iter().position(|byte| *byte == b'=')?;
        let text = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
        Some((text(&variable[..at]), text(&variable[at + 1..])))
    });
    Some(variables.collect())
}

/// Whether it is a process that we may send no signal to.
pub(crate) fn is_anothers(pid: u32) -> bool {
    let me = nix::unistd::geteuid().as_raw();
    me != 0 && fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() != me)
}

fn ended(state: char) -> bool {
    matches!(state, 'Z' | 'X')
}

/// The command line of a process, short enough to be shown.
pub(crate) fn command_of(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let text = String::from_utf8_lossy(&line).replace('\0', " ");
    let text = printable(text.trim()).into_owned();
    (!text.is_empty()).then(|| super::table::cut(&text, 60))
}

/// The processes of this user that bear the mark of the cluster with this id, ourselves and those above us left out.
pub(crate) fn marked(id: &str) -> Vec<u32> {
    let mark = format!("{}={id}.", env::CLUSTER);
    let mut above = vec![std::process::id()];
    while let Some(parent) = above.last().and_then(|pid| stat(*pid)).map(|stat| stat.parent) {
        if parent == 0 || above.contains(&parent) {
            break;
        }
        above.push(parent);
    }
    let mut found: Vec<u32> = pids()
        .filter(|pid| !above.contains(pid))
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
                environment
                    .split(|byte| *byte == 0)
                    .any(|variable| variable.starts_with(mark.as_bytes()))
            })
        })
        .filter(|pid| Process::find(*pid).is_some())
        .collect();
    found.sort_unstable();
    found
}

/// All pids of this user.
fn pids() -> impl Iterator<Item = u32> {
    let me = nix::unistd::geteuid().as_raw();
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(move |entry| me == 0 || entry.metadata().is_ok_and(|meta| meta.uid() == me))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Where a process reads from its files, for `doctor`.
pub(crate) fn file(pid: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_confuse() {
        let text = "17 (a) b (c) S 9 17 17 0 -1 4194560 1 0 0 0 3 1 0 0 20 0 1 0 4242 1 2 3";
        assert_eq!(parse_stat(text), Some(Stat { state: 'S', parent: 9, started: 4242 }));
        assert_eq!(parse_stat("17 (x"), None);
    }

    /// A child that is gone when the test is.
    struct Sleeper(std::process::Child);

    impl Sleeper {
        fn start(mark: &str) -> Self {
            let mut command = std::process::Command::new("sleep");
            Self(command.arg("1000").env(env::CLUSTER, mark).spawn().unwrap())
        }

        fn end(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            self.end();
        }
    }

    /// A spawn returns a moment before the new program's arguments can be read.
    fn wait_until(condition: impl Fn() -> bool) {
        let begun = std::time::Instant::now();
        while !condition() {
            assert!(begun.elapsed().as_secs() < 30, "waited in vain");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_process_lives_until_it_has_ended() {
        let me = Process::find(std::process::id()).unwrap();
        assert!(me.lives());
        assert!(!Process { started: 1, ..me }.lives(), "another start is another process");
        let mut child = Sleeper::start("x.x");
        let process = Process::find(child.0.id()).unwrap();
        assert!(process.lives());
        wait_until(|| command_of(process.pid).is_some_and(|line| line == "sleep 1000"));
        child.end();
        assert!(!process.lives());
    }

    #[test]
    fn the_marked_are_found_by_their_environment() {
        let id = format!("test{}", std::process::id());
        let mut child = Sleeper::start(&format!("{id}.x"));
        let pid = child.0.id();
        wait_until(|| marked(&id) == [pid]);
        assert_eq!(marked("test-of-nobody"), [] as [u32; 0]);
        child.end();
        assert_eq!(marked(&id), [] as [u32; 0]);
    }
}
