//! Why a process could not be started, in a sentence with errno and path.

use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::request::SpawnRequest;
use crate::core::input::{FailureClass, SpawnFailure};

/// How far a spawn came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// To the end.
    Done,
    /// `clone`.
    Clone,
    /// `close_range`.
    Table,
    /// Moving descriptors to their numbers.
    Descriptors,
    /// `setsid`.
    Session,
    /// Entering the control group.
    Cgroup,
    /// Taking the terminal.
    Terminal,
    /// Setting this `RLIMIT_…`.
    Limit(i32),
    /// `setpriority`.
    Nice,
    /// `sched_setaffinity`.
    Cpus,
    /// `umask`.
    Umask,
    /// `setgroups`.
    Groups,
    /// `setresgid`.
    Group,
    /// `setresuid`.
    User,
    /// `chdir`.
    Directory,
    /// `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivs,
    /// `PR_SET_PDEATHSIG`.
    ParentDeath,
    /// Signal dispositions and mask.
    Signals,
    /// `execve`.
    Exec,
}

/// A spawn that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpawnError {
    /// Where.
    pub stage: Stage,
    /// Why.
    pub errno: i32,
    /// On which path, where it was one.
    pub path: Option<PathBuf>,
    what: String,
}

impl SpawnError {
    pub(super) fn new(stage: Stage, errno: i32, request: &SpawnRequest) -> Self {
        let user = || request.identity.as_ref().map_or("?", |id| &id.name);
        let (path, what) = match stage {
            Stage::Exec => return Self::exec(errno, request),
            Stage::Directory => {
                let path = request
                    .directory
                    .as_ref()
                    .map(|dir| PathBuf::from(OsStr::from_bytes(dir.as_bytes())));
                let shown = path.as_deref().unwrap_or(Path::new("?")).display();
                let what = match Errno::from_raw(errno) {
                    Errno::ENOENT => format!("directory `{shown}` not found"),
                    Errno::ENOTDIR => format!("directory `{shown}` is not a directory"),
                    Errno::EACCES => format!("directory `{shown}` may not be entered"),
                    _ => format!("cannot enter directory `{shown}`"),
                };
                (path, what)
            }
            Stage::User | Stage::Group | Stage::Groups if errno == libc::EPERM => (
                None,
                format!(
                    "may not become user `{}`: the node must run as root for `user` and `group`",
                    user()
                ),
            ),
            Stage::User | Stage::Group | Stage::Groups => {
                (None, format!("cannot become user `{}`", user()))
            }
            Stage::Limit(resource) => {
                let limit = request.limits.iter().find(|l| l.resource == resource);
                let name = limit.map_or("?", |limit| limit.name);
                let value = limit.map_or(0, |limit| limit.soft);
                let what = if errno == libc::EPERM {
                    format!("may not raise `limits.{name}` to {value}, above the node's hard limit")
                } else {
                    format!("cannot set `limits.{name}` to {value}")
                };
                (None, what)
            }
            Stage::Nice => {
                let nice = request.nice.unwrap_or(0);
                (None, format!("may not set `nice` to {nice}"))
            }
            Stage::Cpus => (
                None,
                format!(
                    "cannot run on `cpus` {:?}: none of them is one of this machine's that the node may use",
                    request.cpus.as_deref().unwrap_or_default()
                ),
            ),
            Stage::Clone => (None, "cannot make a process".to_owned()),
            Stage::Table | Stage::Descriptors => (None, "cannot pass its descriptors".to_owned()),
            Stage::Session => (None, "cannot make a session".to_owned()),
            Stage::Cgroup => (None, "cannot enter its control group".to_owned()),
            Stage::Terminal => (None, "cannot take its terminal".to_owned()),
            Stage::Umask => (None, "cannot set `umask`".to_owned()),
            Stage::NoNewPrivs => (None, "cannot set `no_new_privs`".to_owned()),
            Stage::ParentDeath => (None, "cannot tie it to the node's life".to_owned()),
            Stage::Signals | Stage::Done => (None, "cannot reset its signals".to_owned()),
        };
        Self { stage, errno, path, what }
    }

    fn exec(errno: i32, request: &SpawnRequest) -> Self {
        let program = &request.program;
        let base = request
            .directory
            .as_ref()
            .map_or(Path::new("."), |dir| Path::new(OsStr::from_bytes(dir.as_bytes())));
        let paths = || request.candidates.iter().map(|path| base.join(OsStr::from_bytes(path)));
        let there = paths().find(|path| path.exists());
        let searched = !program.contains('/');
        let what = match Errno::from_raw(errno) {
            Errno::ENOENT if there.is_none() && searched => {
                format!("program `{program}` not found in its PATH, which `hilum env` shows")
            }
            Errno::ENOENT if there.is_none() => {
                format!("program `{}` not found", shown(program, base))
            }
            Errno::ENOENT => {
                let path = there.clone().unwrap_or_default();
                match interpreter(&path) {
                    Some(name) => {
                        format!("interpreter `{name}` of program `{}` not found", path.display())
                    }
                    None => format!(
                        "program `{}` needs a loader or library that is not there",
                        path.display()
                    ),
                }
            }
            Errno::EACCES => match &there {
                Some(path) if path.is_dir() => {
                    format!("program `{}` is a directory", path.display())
                }
                Some(path) if !executable(path) => {
                    format!("program `{}` is not executable", path.display())
                }
                _ => format!("program `{program}` may not be executed"),
            },
            Errno::ENOEXEC => format!(
                "program `{program}` has no format that this machine executes, and no `#!` line"
            ),
            Errno::E2BIG => {
                format!("arguments and environment of program `{program}` are too long")
            }
            Errno::ETXTBSY => format!("program `{program}` is being written"),
            _ => format!("cannot execute program `{program}`"),
        };
        Self { stage: Stage::Exec, errno, path: there.or_else(|| paths().next()), what }
    }

    /// Whether no such file is there.
    pub fn is_missing(&self) -> bool {
        Errno::from_raw(self.errno) == Errno::ENOENT
    }

    /// What it means for the next try.
    pub fn class(&self) -> FailureClass {
        match Errno::from_raw(self.errno) {
            // ETXTBSY: a compiler or a copy is still at it; a second later it is done.
            Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE | Errno::ETXTBSY => {
                FailureClass::Shortage
            }
            _ => FailureClass::Permanent,
        }
    }
}

fn shown(program: &str, base: &Path) -> String {
    if program.starts_with('/') {
        return program.to_owned();
    }
    let relative = Path::new(program);
    base.join(relative.strip_prefix(".").unwrap_or(relative)).display().to_string()
}

fn executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0)
}

/// The program named in a `#!` line.
fn interpreter(path: &Path) -> Option<String> {
    let mut head = [0; 256];
    let length = std::fs::File::open(path).ok()?.read(&mut head).ok()?;
    let line = head[..length].split(|&byte| byte == b'\n').next()?;
    let name = line.strip_prefix(b"#!")?.trim_ascii();
    let name = name.split(u8::is_ascii_whitespace).next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.what, Errno::from_raw(self.errno))
    }
}

impl std::error::Error for SpawnError {}

impl From<SpawnError> for SpawnFailure {
    fn from(error: SpawnError) -> Self {
        Self { message: error.to_string(), class: error.class() }
    }
}
