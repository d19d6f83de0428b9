//! System calls about processes that no crate of ours wraps.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use hilum_shared::signal::{Exit, Signal};
use hilum_shared::units::Bytes;
use libc::c_int;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Whether a look at an ended child leaves it there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// It stays a zombie and keeps its number.
    Peek,
    /// It is gone, its number is free.
    Reap,
}

/// How the child ended, or `None` while it runs.
pub(super) fn wait(pidfd: BorrowedFd<'_>, look: Look) -> io::Result<Option<Exit>> {
    let info = wait_id(libc::P_PIDFD, pidfd.as_raw_fd() as u32, look, ptr::null_mut())?;
    Ok(info.map(|info| exit_of(&info)))
}

/// What a run has used in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Processor time, in user mode and in the kernel, of the leader and of the children that it waited for.
    pub cpu: Duration,
    /// The most resident memory that one of these had at any time. `None` where it is no more than
    /// ours: a child shares our memory until it is executed, and the kernel counts that, too.
    pub peak_rss: Option<Bytes>,
    /// It is less than this where it is not known: our own most.
    pub peak_below: Bytes,
}

/// The same with what it has used.
pub(super) fn wait_usage(pidfd: BorrowedFd<'_>, look: Look) -> io::Result<Option<(Exit, Usage)>> {
    // SAFETY: all zeros is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let fd = pidfd.as_raw_fd() as u32;
    let Some(info) = wait_id(libc::P_PIDFD, fd, look, &raw mut usage)? else {
        return Ok(None);
    };
    let time = |value: libc::timeval| {
        Duration::from_secs(value.tv_sec.unsigned_abs())
            + Duration::from_micros(value.tv_usec.unsigned_abs())
    };
    let own = own_peak();
    let usage = Usage {
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        // KiB on Linux (`man 2 getrusage`).
        peak_rss: (usage.ru_maxrss > own).then(|| Bytes(usage.ru_maxrss.unsigned_abs() * 1024)),
        peak_below: Bytes(own.unsigned_abs() * 1024),
    };
    Ok(Some((exit_of(&info), usage)))
}

/// Our own most resident memory, in KiB.
fn own_peak() -> i64 {
    use nix::sys::resource::{UsageWho, getrusage};
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.max_rss())
}

/// Reaps the child with this number when it has ended.
pub(super) fn reap_pid(pid: u32) -> io::Result<Option<Exit>> {
    let info = wait_id(libc::P_PID, pid, Look::Reap, ptr::null_mut())?;
    Ok(info.map(|info| exit_of(&info)))
}

/// Any ended child of this thread, left as it is.
pub(super) fn peek_any() -> io::Result<Option<u32>> {
    let info = wait_id(libc::P_ALL, 0, Look::Peek, ptr::null_mut())?;
    // SAFETY: waitid filled the SIGCHLD fields in.
    Ok(info.map(|info| unsafe { info.si_pid() } as u32))
}

/// The system call itself, since libc's leaves the last argument out.
fn wait_id(
    kind: libc::idtype_t,
    id: u32,
    look: Look,
    usage: *mut libc::rusage,
) -> io::Result<Option<libc::siginfo_t>> {
    // __WALL: also what was cloned with another exit signal.
    let mut flags = libc::WEXITED | libc::WNOHANG | libc::__WALL;
    if look == Look::Peek {
        flags |= libc::WNOWAIT;
    }
    if kind == libc::P_ALL {
        // Only this thread's children: another's are not ours to see.
        flags |= libc::__WNOTHREAD;
    }
    loop {
        // SAFETY: all zeros is a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` and `usage`, where it is not null, outlive the call.
        let done =
            unsafe { libc::syscall(libc::SYS_waitid, kind, id, &raw mut info, flags, usage) };
        if done == 0 {
            // SAFETY: zeroed before; waitid leaves the pid 0 when nobody has ended.
            return Ok((unsafe { info.si_pid() } != 0).then_some(info));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ECHILD) if kind == libc::P_ALL => return Ok(None),
            _ => return Err(error),
        }
    }
}

fn exit_of(info: &libc::siginfo_t) -> Exit {
    // SAFETY: waitid filled the SIGCHLD fields in.
    let status = unsafe { info.si_status() };
    match info.si_code {
        libc::CLD_EXITED => Exit::Code(status),
        code => Exit::Signal {
            signal: Signal::from_number(status).unwrap_or(Signal::KILL),
            core: code == libc::CLD_DUMPED,
        },
    }
}

/// A descriptor that names this process.
pub(super) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain system call; it sets close-on-exec itself.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as c_int, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fresh and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// Sends a signal to exactly this process. That it is gone is success.
pub(super) fn send(pidfd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    // SAFETY: plain system call, no siginfo.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal.number(),
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    unless_gone(done as c_int)
}

/// Sends a signal to a whole group, whose leader's number the caller holds. That it is gone is success.
pub(super) fn send_group(leader: u32, signal: Signal) -> io::Result<()> {
    // 0 and 1 would mean our own group and everybody.
    if leader < 2 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: plain system call.
    unless_gone(unsafe { libc::kill(-(leader as c_int), signal.number()) })
}

fn unless_gone(result: c_int) -> io::Result<()> {
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ESRCH) {
        return Ok(());
    }
    Err(error)
}

/// Makes orphans among our descendants our children.
///
/// # Errors
/// Never on a Linux that this node runs on.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: plain prctl.
    if unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sets this thread's name, for a single-threaded process that of the process; at most 15 bytes.
pub fn set_name(name: &std::ffi::CStr) {
    // SAFETY: a NUL-terminated string. It cannot fail.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// Whether orphans among our descendants become our children.
pub fn is_subreaper() -> bool {
    if std::process::id() == 1 {
        return true;
    }
    let mut value: c_int = 0;
    // SAFETY: `value` outlives the call.
    let done = unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut value, 0, 0, 0) };
    done == 0 && value != 0
}

/// How often a set tells of a descriptor that is readable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// As long as it is.
    Always,
    /// Once.
    Once,
}

/// A set of descriptors, itself a descriptor that is readable when one of them is.
#[derive(Debug)]
pub(super) struct Epoll(OwnedFd);

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> c_int {
        self.0.as_raw_fd()
    }
}

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: plain system call.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fresh and ours.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Registers the set with the runtime.
    pub(super) fn into_async(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor stays open and the same for as long as `self` lives.
        let registered = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) };
        registered.map_err(io::Error::from)
    }

    /// Watches a descriptor, until it is closed: nobody else holds what it leads to.
    pub(super) fn add(&self, fd: BorrowedFd<'_>, key: u64, told: Told) -> io::Result<()> {
        let events = match told {
            Told::Always => libc::EPOLLIN,
            Told::Once => libc::EPOLLIN | libc::EPOLLONESHOT,
        };
        let mut event = libc::epoll_event { events: events as u32, u64: key };
        let (set, fd) = (self.0.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: `event` outlives the call; both descriptors are open.
        let done = unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Keys of readable descriptors, at most 256, without waiting.
    pub(super) fn ready(&self) -> Vec<u64> {
        const BATCH: usize = 256;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
        // SAFETY: room for BATCH events.
        let count = unsafe {
            libc::epoll_wait(self.0.as_fd().as_raw_fd(), events.as_mut_ptr(), BATCH as c_int, 0)
        };
        let count = usize::try_from(count).unwrap_or(0);
        events[..count].iter().map(|event| event.u64).collect()
    }
}
