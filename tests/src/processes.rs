//! What runs on this machine, as far as it belongs to a test.

use std::fs;
use std::process::Command;
use std::time::Duration;

/// A process that belongs to a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its pid.
    pub pid: u32,
    /// Its command line.
    pub command: String,
}

impl Process {
    /// Ends it.
    pub(crate) fn kill(&self) {
        send("KILL", self.pid);
    }
}

/// Sends a signal by name.
///
/// # Panics
/// When there is no such process.
#[track_caller]
pub fn signal(name: &str, pid: u32) {
    assert!(send(name, pid), "no process {pid}");
}

/// Stops a process for a time, counted from when it stands still indeed: for what is about such a time itself.
///
/// # Panics
/// When there is no such process, or it does not stop.
#[track_caller]
pub fn suspend(pid: u32, time: Duration) {
    signal("STOP", pid);
    crate::wait_until(crate::LIMIT, "it stands still", || state(pid) == Some('T'));
    std::thread::sleep(time);
    signal("CONT", pid);
}

/// The letter of its state in `/proc`.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
}

fn send(name: &str, pid: u32) -> bool {
    let sent = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
    sent.is_ok_and(|status| status.success())
}

/// Whether a process runs; one that has ended and is not reaped does not.
pub fn alive(pid: u32) -> bool {
    let state = state(pid);
    state.is_some_and(|state| !"ZXx".contains(state))
}

/// All processes with a variable of this value in their environment, or the value in their arguments.
pub(crate) fn with_token(name: &str, token: &str) -> Vec<Process> {
    let variable = format!("{name}={token}");
    find(|environ, command| has(environ, variable.as_bytes()) || has(command, token.as_bytes()))
}

/// All processes with this text in their arguments.
pub fn with_text(text: &str) -> Vec<Process> {
    find(|_, command| has(command, text.as_bytes()))
}

fn find(belongs: impl Fn(&[u8], &[u8]) -> bool) -> Vec<Process> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if pid != std::process::id() && belongs(&environ, &command) && alive(pid) {
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            found.push(Process { pid, command });
        }
    }
    found
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
