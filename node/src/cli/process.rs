//! What the command line asks `/proc` of: whether a process still lives, and whose child it is.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

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
        fn start() -> Self {
            Self(std::process::Command::new("sleep").arg("1000").spawn().unwrap())
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
        let mut child = Sleeper::start();
        let process = Process::find(child.0.id()).unwrap();
        assert!(process.lives());
        wait_until(|| command_of(process.pid).is_some_and(|line| line == "sleep 1000"));
        child.end();
        assert!(!process.lives());
    }
}
