//! What the child of a spawn does between `clone` and `exec`: raw system calls on the parent's memory. No
//! allocation, no panic, no lock, no libc function that does more than its system call.

use std::ffi::{c_int, c_long, c_void};
use std::os::fd::RawFd;
use std::ptr;

use super::request::{PID_WIDTH, Session};
use super::spawn_error::Stage;

/// One descriptor on its way into the child.
#[derive(Clone, Copy)]
pub(super) struct Move {
    pub(super) source: RawFd,
    pub(super) target: RawFd,
}

/// What the child reads, and the two fields that it writes.
pub(super) struct Plan {
    pub(super) stage: Stage,
    pub(super) errno: c_int,
    pub(super) parent: c_int,
    pub(super) share_table: bool,
    pub(super) first_unused: u32,
    pub(super) max_target: RawFd,
    pub(super) moves: *mut Move,
    pub(super) moves_len: usize,
    pub(super) closes: *const (u32, u32),
    pub(super) closes_len: usize,
    pub(super) session: Session,
    pub(super) death_signal: c_int,
    pub(super) terminal: bool,
    pub(super) cgroup: RawFd,
    pub(super) limits: *const (c_int, libc::rlimit64),
    pub(super) limits_len: usize,
    pub(super) nice: Option<c_int>,
    pub(super) cpus: *const u8,
    pub(super) cpus_len: usize,
    pub(super) umask: Option<u32>,
    pub(super) groups: *const u32,
    pub(super) groups_len: Option<usize>,
    pub(super) ids: Option<(u32, u32)>,
    pub(super) directory: *const libc::c_char,
    pub(super) no_new_privs: bool,
    pub(super) listen_pid: *mut u8,
    pub(super) candidates: *const *const libc::c_char,
    pub(super) argv: *const *const libc::c_char,
    pub(super) envp: *const *const libc::c_char,
}

/// The function that `clone` calls.
pub(super) extern "C" fn child(plan: *mut c_void) -> c_int {
    let plan: *mut Plan = plan.cast();
    // SAFETY: the parent's plan, which nobody else touches until we exec or exit.
    let (stage, errno) = unsafe { become_program(&*plan) };
    // SAFETY: as above; then the end.
    unsafe {
        ptr::write_volatile(&raw mut (*plan).errno, errno);
        ptr::write_volatile(&raw mut (*plan).stage, stage);
        libc::syscall(libc::SYS_exit_group, 127);
    }
    127
}

/// A raw system call: its result, or errno.
///
/// # Safety
/// That of the call.
unsafe fn call(number: c_long, arguments: &[c_long]) -> Result<c_long, c_int> {
    let at = |index| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: the caller's.
    let result = unsafe { libc::syscall(number, at(0), at(1), at(2), at(3), at(4)) };
    if result < 0 {
        // SAFETY: the waiting parent's errno, which is ours to use while it waits.
        return Err(unsafe { *libc::__errno_location() });
    }
    Ok(result)
}

/// Does everything up to exec; returns only when something failed.
///
/// # Safety
/// Only in the vforked child, with a plan whose pointers are valid.
#[expect(
    clippy::cast_lossless,
    reason = "system call arguments, all of them widened to a register"
)]
unsafe fn become_program(plan: &Plan) -> (Stage, c_int) {
    macro_rules! step {
        ($stage:expr, $number:expr $(, $arg:expr)*) => {
            // SAFETY: pointers come from the plan, whose owner waits for us.
            match unsafe { call($number, &[$($arg as c_long),*]) } {
                Ok(result) => result,
                Err(errno) => return ($stage, errno),
            }
        };
    }
    if plan.share_table {
        step!(
            Stage::Table,
            libc::SYS_close_range,
            plan.first_unused,
            u32::MAX,
            libc::CLOSE_RANGE_UNSHARE
        );
    }
    match plan.session {
        Session::New => {
            step!(Stage::Session, libc::SYS_setsid);
        }
        Session::Group => {
            step!(Stage::Session, libc::SYS_setpgid, 0, 0);
        }
        Session::Inherited => {}
    }
    if plan.cgroup >= 0 {
        step!(Stage::Cgroup, libc::SYS_write, plan.cgroup, c"0".as_ptr(), 1);
    }
    // SAFETY: the parent's vector of this length.
    let moves = unsafe { std::slice::from_raw_parts_mut(plan.moves, plan.moves_len) };
    for entry in moves.iter_mut() {
        if entry.source <= plan.max_target {
            // Out of the way of the targets, so that no move overwrites a later source.
            entry.source = step!(
                Stage::Descriptors,
                libc::SYS_fcntl,
                entry.source,
                libc::F_DUPFD_CLOEXEC,
                plan.max_target + 1
            ) as RawFd;
        }
    }
    for entry in moves.iter() {
        step!(Stage::Descriptors, libc::SYS_dup3, entry.source, entry.target, 0);
    }
    if plan.share_table {
        // SAFETY: the parent's vector of this length.
        for (first, last) in unsafe { std::slice::from_raw_parts(plan.closes, plan.closes_len) } {
            step!(Stage::Table, libc::SYS_close_range, *first, *last, 0);
        }
    }
    if plan.terminal {
        step!(Stage::Terminal, libc::SYS_ioctl, 1, libc::TIOCSCTTY, 0);
    }
    // SAFETY: the parent's vector of this length.
    let limits = unsafe { std::slice::from_raw_parts(plan.limits, plan.limits_len) };
    for (resource, value) in limits {
        let done = {
            let value: *const libc::rlimit64 = value;
            // SAFETY: `value` is the parent's and outlives the call.
            unsafe { call(libc::SYS_prlimit64, &[0, *resource as c_long, value as c_long]) }
        };
        match done {
            // The dye is a mark among several; where it is refused, the others stand.
            Err(_) if *resource == libc::RLIMIT_RTTIME as c_int => {}
            Err(errno) => return (Stage::Limit(*resource), errno),
            Ok(_) => {}
        }
    }
    if let Some(nice) = plan.nice {
        step!(Stage::Nice, libc::SYS_setpriority, libc::PRIO_PROCESS, 0, nice);
    }
    if plan.cpus_len > 0 {
        step!(Stage::Cpus, libc::SYS_sched_setaffinity, 0, plan.cpus_len, plan.cpus);
    }
    if let Some(umask) = plan.umask {
        step!(Stage::Umask, libc::SYS_umask, umask);
    }
    if let Some(length) = plan.groups_len {
        step!(Stage::Groups, libc::SYS_setgroups, length, plan.groups);
    }
    if let Some((uid, gid)) = plan.ids {
        step!(Stage::Group, libc::SYS_setresgid, gid, gid, gid);
        step!(Stage::User, libc::SYS_setresuid, uid, uid, uid);
    }
    if !plan.directory.is_null() {
        step!(Stage::Directory, libc::SYS_chdir, plan.directory);
    }
    if plan.no_new_privs {
        step!(Stage::NoNewPrivs, libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0);
    }
    // After the change of user, which clears it.
    step!(Stage::ParentDeath, libc::SYS_prctl, libc::PR_SET_PDEATHSIG, plan.death_signal);
    if step!(Stage::ParentDeath, libc::SYS_getppid) != plan.parent as c_long {
        return (Stage::ParentDeath, libc::ESRCH);
    }
    if !plan.listen_pid.is_null() {
        let pid = step!(Stage::Exec, libc::SYS_getpid) as u32;
        // SAFETY: PID_WIDTH bytes and a NUL are there, see `SpawnRequest::listen_pid`.
        unsafe { write_decimal(plan.listen_pid, pid) };
    }
    // Ignored signals survive exec, and a handler of ours must not run when the mask opens.
    let default = [0u64; 4];
    for signal in 1..=64 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            step!(Stage::Signals, libc::SYS_rt_sigaction, signal, default.as_ptr(), 0, 8);
        }
    }
    let none = 0u64;
    step!(Stage::Signals, libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, 0, 8);
    // SAFETY: three null-terminated lists of the plan.
    (Stage::Exec, unsafe { exec(plan) })
}

/// Tries each candidate as `execvp` does.
///
/// # Safety
/// As for [`become_program`].
unsafe fn exec(plan: &Plan) -> c_int {
    let mut worst = libc::ENOENT;
    let mut at = plan.candidates;
    // SAFETY: a null-terminated list.
    while let candidate = unsafe { *at }
        && !candidate.is_null()
    {
        let (path, argv, envp) = (candidate as c_long, plan.argv as c_long, plan.envp as c_long);
        // SAFETY: three null-terminated lists or strings.
        match unsafe { call(libc::SYS_execve, &[path, argv, envp]) } {
            Err(libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT) => {}
            Err(libc::EACCES) => worst = libc::EACCES,
            Err(errno) => return errno,
            Ok(_) => return 0,
        }
        // SAFETY: not yet past the final null.
        at = unsafe { at.add(1) };
    }
    worst
}

/// Writes a number and a NUL.
///
/// # Safety
/// `to` has room for [`PID_WIDTH`] digits and a NUL.
unsafe fn write_decimal(to: *mut u8, number: u32) {
    let mut digits = [0u8; PID_WIDTH];
    let mut rest = number;
    let mut length = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        length += 1;
        if rest == 0 {
            break;
        }
    }
    // SAFETY: the caller's promise; length is at most PID_WIDTH.
    unsafe {
        ptr::copy_nonoverlapping(digits.as_ptr().add(PID_WIDTH - length), to, length);
        *to.add(length) = 0;
    }
}
