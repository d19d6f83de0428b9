//! Starts a process, as fast as `posix_spawn` and with everything that an instance needs.
//!
//! `clone(CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_FILES)`: the child runs on a private stack in our memory while
//! this thread waits, makes raw system calls only, allocates nothing, and reports `(stage, errno)` by writing
//! them where we read them.
//!
//! **Descriptors.** A copied table costs time for each descriptor of ours, twice (copy, and close at
//! exec), and a node of 1000 instances has thousands. So the table is shared at first, the wanted
//! descriptors are put into low slots that are reserved for this, and the child's first call,
//! `close_range(above the slots, CLOSE_RANGE_UNSHARE)`, copies only the part below.
//!
//! **Only on the main thread**: `PR_SET_PDEATHSIG` fires when the spawning *thread* ends.

use std::ffi::{c_int, c_long, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use hilum_shared::signal::Signal;

use super::request::{PID_WIDTH, Session, SpawnRequest, Stdio};
use super::spawn_error::{SpawnError, Stage};

/// A started process.
#[derive(Debug)]
pub struct Child {
    /// Its id; valid until it is reaped.
    pub pid: u32,
    /// Names exactly this process for ever; close-on-exec.
    pub pidfd: OwnedFd,
}

/// The child's stack: it calls a dozen shallow functions.
const STACK_SIZE: usize = 64 * 1024;

/// Slots that are reserved at first: cgroup, stdin, stdout, stderr and a few sockets.
const SLOTS: usize = 12;

/// Spawns processes, one after the other.
pub struct Spawner {
    stack: Stack,
    null: OwnedFd,
    slots: Vec<OwnedFd>,
    /// Whether `close_range` works here; where it does not, the table is copied.
    share_table: bool,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    candidates: Vec<*const libc::c_char>,
    moves: Vec<Move>,
    closes: Vec<(u32, u32)>,
}

/// One descriptor on its way into the child.
#[derive(Clone, Copy)]
struct Move {
    source: RawFd,
    target: RawFd,
}

/// What the child reads, and the two fields that it writes.
struct Plan {
    stage: Stage,
    errno: c_int,
    parent: c_int,
    share_table: bool,
    first_unused: u32,
    max_target: RawFd,
    moves: *mut Move,
    moves_len: usize,
    closes: *const (u32, u32),
    closes_len: usize,
    session: Session,
    death_signal: c_int,
    terminal: bool,
    cgroup: RawFd,
    limits: *const (c_int, libc::rlimit64),
    limits_len: usize,
    nice: Option<c_int>,
    cpus: *const u8,
    cpus_len: usize,
    umask: Option<u32>,
    groups: *const u32,
    groups_len: Option<usize>,
    ids: Option<(u32, u32)>,
    directory: *const libc::c_char,
    no_new_privs: bool,
    listen_pid: *mut u8,
    candidates: *const *const libc::c_char,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
}

impl Spawner {
    /// Makes a spawner. Do it early: its reserved descriptors should have low numbers.
    ///
    /// # Errors
    /// When memory or descriptors are short, or `/dev/null` cannot be opened.
    pub fn new() -> io::Result<Self> {
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        // Never 0, 1 or 2, which may be closed in us: the child's targets would overwrite it.
        let null = duplicate(null.as_fd())?;
        let slots = (0..SLOTS).map(|_| duplicate(null.as_fd())).collect::<io::Result<_>>()?;
        Ok(Self {
            stack: Stack::new()?,
            null,
            slots,
            share_table: true,
            argv: Vec::new(),
            envp: Vec::new(),
            candidates: Vec::new(),
            moves: Vec::new(),
            closes: Vec::new(),
        })
    }

    /// Whether descriptors that others opened without close-on-exec are kept from children.
    pub fn closes_foreign_descriptors(&self) -> bool {
        self.share_table
    }

    /// Starts a process. `dye` is set as the child's `RLIMIT_RTTIME` (see `dye`).
    ///
    /// # Errors
    /// What failed, with errno and path. Nothing is left of the child then.
    pub fn spawn(
        &mut self,
        request: &mut SpawnRequest,
        dye: Option<u64>,
    ) -> Result<Child, SpawnError> {
        match self.try_spawn(request, dye) {
            Err((Stage::Table, libc::ENOSYS | libc::EPERM | libc::EINVAL)) if self.share_table => {
                self.share_table = false;
                self.try_spawn(request, dye)
            }
            result => result,
        }
        .map_err(|(stage, errno)| SpawnError::new(stage, errno, request))
    }

    fn try_spawn(
        &mut self,
        request: &mut SpawnRequest,
        dye: Option<u64>,
    ) -> Result<Child, (Stage, c_int)> {
        let table = |error: io::Error| (Stage::Descriptors, error.raw_os_error().unwrap_or(0));
        self.plan_descriptors(request).map_err(table)?;
        let layout = self.fill_slots(request).map_err(table)?;
        let result = self.clone_child(request, dye, layout);
        for slot in &self.slots[..layout.slots] {
            // Frees the pipe's other end. It cannot fail: both descriptors are ours and open.
            let _ = replace(self.null.as_fd(), slot.as_fd());
        }
        result
    }

    /// Which source goes to which number, and what is closed between.
    fn plan_descriptors(&mut self, request: &SpawnRequest) -> io::Result<()> {
        let null = self.null.as_raw_fd();
        self.moves.clear();
        let mut put = |source: RawFd, target: RawFd| self.moves.push(Move { source, target });
        match &request.stdio {
            Stdio::Null => (0..3).for_each(|target| put(null, target)),
            Stdio::Pipes { stdout, stderr } => {
                put(null, 0);
                put(stdout.as_raw_fd(), 1);
                put(stderr.as_raw_fd(), 2);
            }
            Stdio::Terminal(slave) => (0..3).for_each(|target| put(slave.as_raw_fd(), target)),
            Stdio::OutputTerminal(slave) => {
                put(null, 0);
                put(slave.as_raw_fd(), 1);
                put(slave.as_raw_fd(), 2);
            }
            Stdio::Inherit => {}
        }
        for (fd, target) in &request.descriptors {
            if *target < 3 {
                return Err(io::Error::from_raw_os_error(libc::EBADF));
            }
            put(fd.as_raw_fd(), *target);
        }
        let needed = self.moves.len() + 1;
        while self.slots.len() < needed {
            self.slots.push(duplicate(self.null.as_fd())?);
        }
        Ok(())
    }

    /// Puts the sources into the slots, low in the table.
    fn fill_slots(&mut self, request: &SpawnRequest) -> io::Result<Layout> {
        let mut slots = self.slots.iter();
        let mut used = 0;
        let null = self.null.as_raw_fd();
        let mut fill = |source: BorrowedFd<'_>| -> io::Result<RawFd> {
            let slot =
                slots.next().expect("plan_descriptors made a slot for each move and one more");
            used += 1;
            replace(source, slot.as_fd())?;
            Ok(slot.as_raw_fd())
        };
        for entry in &mut self.moves {
            if entry.source != null {
                // SAFETY: the descriptor is owned by the request, which outlives this call.
                let source = unsafe { BorrowedFd::borrow_raw(entry.source) };
                entry.source = fill(source)?;
            }
        }
        let cgroup = match &request.cgroup {
            Some(procs) => fill(procs.as_fd())?,
            None => -1,
        };
        let highest_slot = self.slots.iter().map(AsRawFd::as_raw_fd).max().unwrap_or(0);
        let max_target = self.moves.iter().map(|m| m.target).max().unwrap_or(2).max(2);
        let first_unused = highest_slot.max(max_target).max(null) as u32 + 1;
        let mut targets: Vec<u32> = self.moves.iter().map(|m| m.target as u32).collect();
        targets.extend([0, 1, 2, first_unused]);
        targets.sort_unstable();
        self.closes.clear();
        self.closes.extend(
            targets
                .windows(2)
                .filter(|pair| pair[1] > pair[0] + 1)
                .map(|pair| (pair[0] + 1, pair[1] - 1)),
        );
        Ok(Layout { slots: used, cgroup, max_target, first_unused })
    }

    fn clone_child(
        &mut self,
        request: &mut SpawnRequest,
        dye: Option<u64>,
        layout: Layout,
    ) -> Result<Child, (Stage, c_int)> {
        request.argv.pointers(&mut self.argv);
        request.env.pointers(&mut self.envp);
        request.candidates.pointers(&mut self.candidates);
        let mut limits: Vec<(c_int, libc::rlimit64)> = Vec::with_capacity(request.limits.len() + 1);
        limits.extend(request.limits.iter().map(|limit| {
            let value = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
            (limit.resource as c_int, value)
        }));
        limits.extend(dye.map(|dye| {
            let value = libc::rlimit64 { rlim_cur: dye, rlim_max: libc::RLIM64_INFINITY };
            (libc::RLIMIT_RTTIME as c_int, value)
        }));
        let cpus = request.cpus.as_deref().map(cpu_mask).unwrap_or_default();
        let groups = request.identity.as_ref().and_then(|id| id.groups.as_deref());
        let mut plan = Plan {
            stage: Stage::Done,
            errno: 0,
            parent: std::process::id() as c_int,
            share_table: self.share_table,
            first_unused: layout.first_unused,
            max_target: layout.max_target,
            moves: self.moves.as_mut_ptr(),
            moves_len: self.moves.len(),
            closes: self.closes.as_ptr(),
            closes_len: self.closes.len(),
            session: request.session,
            death_signal: request.death_signal.unwrap_or(Signal::KILL).number(),
            terminal: matches!(request.stdio, Stdio::Terminal(_) | Stdio::OutputTerminal(_)),
            cgroup: layout.cgroup,
            limits: limits.as_ptr(),
            limits_len: limits.len(),
            nice: request.nice,
            cpus: cpus.as_ptr(),
            cpus_len: cpus.len(),
            umask: request.umask,
            groups: groups.map_or(ptr::null(), <[u32]>::as_ptr),
            groups_len: groups.map(<[u32]>::len),
            ids: request.identity.as_ref().map(|id| (id.uid, id.gid)),
            directory: request.directory.as_ref().map_or(ptr::null(), |dir| dir.as_ptr()),
            no_new_privs: request.no_new_privs,
            listen_pid: request.listen_pid.map_or(ptr::null_mut(), |at| request.env.address(at)),
            candidates: self.candidates.as_ptr(),
            argv: self.argv.as_ptr(),
            envp: self.envp.as_ptr(),
        };
        let (pid, pidfd) = clone_with(&self.stack, &raw mut plan).map_err(|e| (Stage::Clone, e))?;
        if plan.ids.is_some() {
            // The child's setuid marked our shared memory as not dumpable, which hides our own
            // /proc from us. Cannot fail for the value 1.
            // SAFETY: plain prctl, no pointers.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
        }
        // SAFETY: the field is initialised; volatile because the child wrote it behind the
        // compiler's back.
        let stage = unsafe { ptr::read_volatile(&raw const plan.stage) };
        if stage == Stage::Done {
            return Ok(Child { pid, pidfd });
        }
        // SAFETY: as above.
        let errno = unsafe { ptr::read_volatile(&raw const plan.errno) };
        let mut status = 0;
        // It has exited already: CLONE_VFORK let us go on only then.
        // SAFETY: `status` outlives the call; the pid is our unreaped child.
        while unsafe { libc::waitpid(pid as c_int, &raw mut status, libc::__WALL) } < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
        Err((stage, errno))
    }
}

/// Where the descriptors of one spawn are.
#[derive(Clone, Copy)]
struct Layout {
    /// So many slots are in use.
    slots: usize,
    cgroup: RawFd,
    max_target: RawFd,
    /// Nothing from here on is wanted.
    first_unused: u32,
}

/// The child's stack, below it a page that faults.
struct Stack {
    base: *mut c_void,
    size: usize,
}

impl Stack {
    fn new() -> io::Result<Self> {
        // SAFETY: sysconf has no preconditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(4096) as usize;
        let size = STACK_SIZE + page;
        // SAFETY: a fresh anonymous mapping.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base, size };
        // SAFETY: the lowest page of our own mapping.
        if unsafe { libc::mprotect(base, page, libc::PROT_NONE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    /// Page aligned, hence aligned for every call.
    fn top(&self) -> *mut c_void {
        self.base.wrapping_byte_add(self.size)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our own mapping; no child runs on it, since every clone waited for its exec.
        unsafe { libc::munmap(self.base, self.size) };
    }
}

/// Blocks every signal, clones, restores the mask.
fn clone_with(stack: &Stack, plan: *mut Plan) -> Result<(u32, OwnedFd), c_int> {
    // SAFETY: reading one field of the caller's plan.
    let share = unsafe { (*plan).share_table };
    let flags = libc::CLONE_VM
        | libc::CLONE_VFORK
        | libc::CLONE_PIDFD
        | libc::SIGCHLD
        | if share { libc::CLONE_FILES } else { 0 };
    let all = !0u64;
    let mut before = 0u64;
    let mut pidfd: c_int = -1;
    // All 64, also the two that glibc's own call leaves out: a handler must not run in the child.
    // SAFETY: kernel masks are 8 bytes on every 64-bit Linux.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const all,
            &raw mut before,
            8,
        );
    }
    // SAFETY: the stack is ours and unused; `plan` and all that it points to outlive the call,
    // because CLONE_VFORK returns only when the child has executed or exited.
    let pid = unsafe { libc::clone(child, stack.top(), flags, plan.cast(), &raw mut pidfd) };
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    // SAFETY: as above.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const before,
            ptr::null_mut::<u64>(),
            8,
        );
    }
    if pid < 0 {
        return Err(errno);
    }
    // SAFETY: the kernel made this descriptor for us.
    Ok((pid as u32, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

// --- In the child. Raw system calls, no allocation, no panic, no lock. ---

extern "C" fn child(plan: *mut c_void) -> c_int {
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

// --- In the parent again. ---

/// A copy above the standard descriptors, close-on-exec.
fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: plain fcntl on an open descriptor.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fresh and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Lets `slot` lead where `source` leads.
fn replace(source: BorrowedFd<'_>, slot: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both are open; the slot stays owned by its owner.
    let done = unsafe { libc::dup3(source.as_raw_fd(), slot.as_raw_fd(), libc::O_CLOEXEC) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn cpu_mask(cpus: &[usize]) -> Vec<u8> {
    let bytes = cpus.iter().max().map_or(0, |highest| highest / 64 + 1) * 8;
    let mut mask = vec![0; bytes];
    for cpu in cpus {
        mask[cpu / 8] |= 1 << (cpu % 8);
    }
    mask
}
