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

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use hilum_shared::signal::Signal;

use super::request::{SpawnRequest, Stdio};
use super::spawn_error::{SpawnError, Stage};
use super::spawned::{Move, Plan, child};

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
