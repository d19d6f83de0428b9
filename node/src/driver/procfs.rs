//! What `/proc` says of other processes. Every answer may be out of date when it arrives: whoever acts
//! on one opens a pidfd first and compares the start time.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

/// A line of `/proc/PID/stat`, the parts that are needed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The process.
    pub pid: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// `R S D T t Z X I`
    pub state: u8,
    /// Its parent.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// Its session.
    pub session: u32,
    /// Processor time in user mode, in clock ticks.
    pub user_ticks: u64,
    /// Processor time in the kernel, in clock ticks.
    pub system_ticks: u64,
    /// When it began, in clock ticks since boot: with the pid it names one process for ever.
    pub start: u64,
    /// Resident memory in pages.
    pub resident_pages: u64,
}

impl Stat {
    /// Reads one process's; `None` when it is gone.
    pub fn read(pid: u32) -> Option<Self> {
        let mut buffer = [0; 1024];
        let length = File::open(format!("/proc/{pid}/stat"))
            .and_then(|mut file| file.read(&mut buffer))
            .ok()?;
        Self::parse(&buffer[..length])
    }

    /// Reads the line. The name may hold spaces and parentheses; the last `)` ends it.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let open = memchr::memchr(b'(', line)?;
        let close = memchr::memrchr(b')', line)?;
        let number = |text: &[u8]| -> Option<u64> { std::str::from_utf8(text).ok()?.parse().ok() };
        let fields: Vec<&[u8]> = line.get(close + 2..)?.split(|&byte| byte == b' ').collect();
        // `man 5 proc_pid_stat` counts from 1; field 3, the state, is the first here.
        let field = |at: usize| fields.get(at - 3).copied().and_then(number);
        Some(Self {
            pid: number(line[..open].trim_ascii())? as u32,
            name: String::from_utf8_lossy(line.get(open + 1..close)?).into_owned(),
            state: *fields.first()?.first()?,
            parent: field(4)? as u32,
            group: field(5)? as u32,
            session: field(6)? as u32,
            user_ticks: field(14)?,
            system_ticks: field(15)?,
            start: field(22)?,
            resident_pages: field(24)?,
        })
    }

    /// Whether it has ended and only waits to be reaped.
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// All processes of this machine.
pub fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The children of one process, zombies included; empty where the kernel does not say.
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|text| {
            text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u32>>()
        })
        .collect()
}

/// All that descends from these, without them. A process that forks meanwhile may be missed.
pub fn descendants(roots: &[u32]) -> Vec<u32> {
    let mut seen: HashSet<u32> = roots.iter().copied().collect();
    let mut found = Vec::new();
    let mut next: Vec<u32> = roots.iter().flat_map(|&root| children(root)).collect();
    while let Some(pid) = next.pop() {
        if seen.insert(pid) {
            found.push(pid);
            next.extend(children(pid));
        }
    }
    found
}

/// The list of the main thread's children, kept open: orphans come to that thread (`find_new_reaper` of the kernel's
/// `kernel/exit.c` takes a subreaper's first living thread). What another thread has started is not in it.
#[derive(Debug)]
pub struct OrphansFile {
    file: File,
    buffer: Vec<u8>,
}

/// No entry of a list of children is longer: a pid has at most seven digits (`PID_MAX_LIMIT`), and a space.
const NUMBER: usize = 8;

impl OrphansFile {
    /// Opens the list.
    ///
    /// # Errors
    /// Where the kernel lacks it (`CONFIG_PROC_CHILDREN`).
    pub fn open() -> io::Result<Self> {
        let main = nix::unistd::getpid();
        let file = File::open(format!("/proc/self/task/{main}/children"))?;
        Ok(Self { file, buffer: vec![0; 4096] })
    }

    /// Reads it, zombies included. It is done at each end of a process.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(&mut self, into: &mut Vec<u32>) -> io::Result<()> {
        into.clear();
        let mut at = 0;
        let mut pid = 0;
        loop {
            let length = self.file.read_at(&mut self.buffer, at)?;
            at += length as u64;
            for byte in &self.buffer[..length] {
                if byte.is_ascii_digit() {
                    pid = pid * 10 + u32::from(byte - b'0');
                } else if pid > 0 {
                    into.push(std::mem::take(&mut pid));
                }
            }
            // The kernel fills a page (`seq_read_iter`) as long as there is more: with room for a number left, this is the end.
            if length + NUMBER <= self.buffer.len() {
                return Ok(());
            }
        }
    }
}

/// Whether a process is stopped, and who traces it.
pub fn state_and_tracer(pid: u32) -> Option<(u8, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value =
        |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim_ascii);
    let state = *value("State:")?.as_bytes().first()?;
    let tracer = value("TracerPid:")?.parse().ok()?;
    Some((state, tracer))
}

/// One thread, and what it has used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its number.
    pub id: u32,
    /// `R S D T …`: `R` also while it waits for a processor.
    pub state: u8,
    /// Processor time since its start.
    pub used: Duration,
}

/// All threads of a process; those of which the kernel does not say how long they ran (`CONFIG_SCHED_INFO`) are missing.
pub fn threads(pid: u32) -> Vec<Thread> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let read = |task: fs::DirEntry| {
        let stat = Stat::parse(&fs::read(task.path().join("stat")).ok()?)?;
        let times = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let used = Duration::from_nanos(times.split_ascii_whitespace().next()?.parse().ok()?);
        Some(Thread { id: stat.pid, state: stat.state, used })
    };
    tasks.filter_map(|task| read(task.ok()?)).collect()
}

/// The process's dye, see [`super::dye`].
pub fn dye(pid: u32) -> Option<u64> {
    super::dye::parse(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

/// The signals that a process ignores: bit 0 is signal 1.
pub fn ignored_signals(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(ignored.trim(), 16).ok()
}

/// The value of a variable in the environment it was started with; `None` where that is gone or not ours to see.
pub fn variable(pid: u32, name: &str) -> Option<String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environ.split(|&byte| byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

/// The pipes that its standard output and error lead to, by inode.
pub fn output_pipes(pid: u32) -> Vec<u64> {
    [1, 2]
        .iter()
        .filter_map(|fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok())
        .filter_map(|path: PathBuf| {
            let name = path.to_str()?;
            name.strip_prefix("pipe:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// Its command line, for people; its name in brackets where it has none.
pub fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    let text = text.trim();
    if text.is_empty() {
        return Stat::read(pid).map(|stat| format!("[{}]", stat.name));
    }
    Some(text.chars().take(120).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let line =
            b"42 (a) b (c) S 1 40 39 0 -1 4194560 1 0 0 0 7 8 0 0 20 0 1 0 12345 1000 99 184467 1";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.pid, stat.name.as_str(), stat.state), (42, "a) b (c", b'S'));
        assert_eq!((stat.parent, stat.group, stat.session), (1, 40, 39));
        assert_eq!((stat.user_ticks, stat.system_ticks), (7, 8));
        assert_eq!((stat.start, stat.resident_pages), (12345, 99));
        assert_eq!(Stat::parse(b"42 (x"), None);
        assert_eq!(Stat::parse(b""), None);
    }

    #[test]
    fn this_very_process_is_found() {
        let own = std::process::id();
        let stat = Stat::read(own).unwrap();
        assert_eq!(stat.pid, own);
        assert!(!stat.is_zombie());
        assert!(all().contains(&own));
        assert!(matches!(state_and_tracer(own), Some((_, _))));
        assert_eq!(Stat::read(u32::MAX), None);
    }
}
