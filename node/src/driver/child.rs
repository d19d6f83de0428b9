//! The table of what the node has started and not yet seen the end of.
//!
//! ```text
//!  spawn ──► running ──leader exits──► ended (a zombie that holds its number) ──sweep: nothing left──► reaped, forgotten
//!                                        └── sweep: something left ──► kill ──► sweep …
//! ```
//! The leader is *peeked* when it ends and *reaped* only when nothing of the run is left: until
//! then its number names its session and group and nobody else's. All pidfds sit in one epoll set, with
//! a descriptor for SIGCHLD, since orphans have no pidfd: one registration with the runtime, and an end wakes it once.
//!
//! The node is a child subreaper: what a run loses becomes our child and is found in `sweep`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use hilum_shared::name::{InstanceId, Run};
use hilum_shared::signal::{Exit, Signal};
use nix::sys::signal::{SigSet, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::dye::Colour;
use super::procfs::{self, OrphansFile, Stat, Thread};
use super::request::{SpawnRequest, Stdio};
use super::spawn::Spawner;
use super::spawn_error::{SpawnError, Stage};
use super::sys::{self, Epoll, Look, Told, Usage};
use crate::core::action::Scope;
use crate::core::input::Pulse;

/// A thread that wants to run and gets less than the fourth part of a processor is starved.
const STARVED_SHARE: u32 = 4;

/// The key of SIGCHLD in the epoll set; no process has this number.
const SIGNAL: u64 = u64::MAX;

/// What a run's leader was doing at one moment.
pub struct Glance {
    at: Instant,
    threads: Vec<Thread>,
}

/// A handle to the table; clones share it. One thread only.
#[derive(Clone)]
pub struct Processes {
    table: Rc<RefCell<Table>>,
    ready: Rc<AsyncFd<Epoll>>,
}

/// For whom a process was started.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    Run(InstanceId, Run),
    /// A hook, a probe: numbered.
    Command(u64),
}

/// One leader.
pub(super) struct Entry {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) token: String,
    pub(super) dye: u64,
    /// Inodes of its output pipes.
    pub(super) pipes: [u64; 2],
    pub(super) exit: Option<Exit>,
    pub(super) usage: Option<Usage>,
    /// KILL was sent to all of it.
    pub(super) killed: bool,
    /// Told of the exit of a command.
    pub(super) done: Option<oneshot::Sender<Exit>>,
}

/// A child that we did not start: a run lost it.
#[derive(Clone, Debug)]
pub(super) struct Adopted {
    pub(super) owner: Option<Owner>,
    pub(super) name: String,
}

/// All of it.
pub(super) struct Table {
    spawner: Spawner,
    ready: Rc<AsyncFd<Epoll>>,
    signals: SignalFd,
    colour: Colour,
    next_number: u64,
    pub(super) entries: HashMap<Owner, Entry>,
    pub(super) leaders: HashMap<u32, Owner>,
    pub(super) dyes: HashMap<u64, Owner>,
    pub(super) adopted: HashMap<u32, Adopted>,
    /// Owners of which an adopted process was reaped since they were last asked for.
    pub(super) lost: Vec<Owner>,
    pub(super) orphans: Option<OrphansFile>,
    /// Leaders that are nobody's any more, while they die.
    pub(super) abandoned: Vec<u32>,
    /// Leaders that have ended and cannot be waited for: a debugger holds them. SIGCHLD comes when it lets them go.
    traced: Vec<u32>,
    pub(super) listed: Vec<u32>,
}

/// A process that no run can be named for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// The process.
    pub pid: u32,
    /// Its name when it was found.
    pub name: String,
}

impl Processes {
    /// Makes an empty table for the cluster with this id (the run folder's name). Call it inside the
    /// runtime, on the thread that will spawn, and early: see [`Spawner::new`].
    ///
    /// # Errors
    /// When descriptors or memory are short.
    pub fn new(cluster_id: &str) -> io::Result<Self> {
        let spawner = Spawner::new()?;
        let ready = Rc::new(Epoll::new()?.into_async()?);
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&SigSet::from(Number::SIGCHLD), flags)?;
        ready.get_ref().add(signals.as_fd(), SIGNAL, Told::Always)?;
        // Where orphans do not come to us or are not listed, `sweep` looks at all processes instead.
        let orphans = sys::is_subreaper().then(OrphansFile::open).and_then(Result::ok);
        let table = Table {
            spawner,
            ready: Rc::clone(&ready),
            signals,
            colour: Colour::of(cluster_id),
            next_number: 0,
            entries: HashMap::new(),
            leaders: HashMap::new(),
            dyes: HashMap::new(),
            adopted: HashMap::new(),
            lost: Vec::new(),
            orphans,
            abandoned: Vec::new(),
            traced: Vec::new(),
            listed: Vec::new(),
        };
        Ok(Self { ready, table: Rc::new(RefCell::new(table)) })
    }

    /// Starts a run's leader. `token` is what its environment holds as `HILUM_TOKEN`.
    ///
    /// # Errors
    /// What failed; nothing is left of it then.
    pub fn spawn(
        &self,
        instance: &InstanceId,
        run: Run,
        token: &str,
        request: &mut SpawnRequest,
    ) -> Result<u32, SpawnError> {
        let owner = Owner::Run(instance.clone(), run);
        self.table.borrow_mut().spawn(owner, token, request, None)
    }

    /// Starts a command that is no run: a hook, a probe. Its exit comes by the receiver, through
    /// [`take_exits`](Self::take_exits).
    pub(super) fn spawn_command(
        &self,
        request: &mut SpawnRequest,
    ) -> Result<(u64, oneshot::Receiver<Exit>), SpawnError> {
        let mut table = self.table.borrow_mut();
        let number = table.next_number;
        let (sender, receiver) = oneshot::channel();
        table.spawn(Owner::Command(number), "", request, Some(sender))?;
        Ok((number, receiver))
    }

    /// Waits until a leader has ended, which [`take_exits`](Self::take_exits) then names, or, where SIGCHLD is
    /// [blocked](super::signals::reset_dispositions), an orphan. Cancel-safe.
    ///
    /// # Errors
    /// When the runtime shuts down.
    pub async fn wait(&self) -> io::Result<()> {
        self.ready.readable().await?.clear_ready();
        Ok(())
    }

    /// The leaders that have ended since the last call, all of them. Each stays in the table until
    /// a sweep finds nothing left of its run.
    pub fn take_exits(&self) -> Vec<(InstanceId, Run, Exit)> {
        self.table.borrow_mut().take_exits()
    }

    /// The leader's pid, while it is in the table.
    pub fn pid(&self, instance: &InstanceId, run: Run) -> Option<u32> {
        let owner = Owner::Run(instance.clone(), run);
        self.table.borrow().entries.get(&owner).map(|entry| entry.pid)
    }

    /// What the run has used in all, from its exit until it is found empty.
    pub fn usage(&self, instance: &InstanceId, run: Run) -> Option<Usage> {
        let owner = Owner::Run(instance.clone(), run);
        self.table.borrow().entries.get(&owner)?.usage
    }

    /// Sends a signal to a run; TERM is followed by CONT, so that a stopped process takes it. A run that is gone is
    /// success.
    ///
    /// # Errors
    /// EPERM, when the leader became somebody whom the node may not signal.
    pub fn signal(
        &self,
        instance: &InstanceId,
        run: Run,
        signal: Signal,
        scope: Scope,
    ) -> io::Result<()> {
        let table = self.table.borrow();
        let Some(entry) = table.entries.get(&Owner::Run(instance.clone(), run)) else {
            return Ok(());
        };
        let send = |signal| match scope {
            Scope::Leader => sys::send(entry.pidfd.as_fd(), signal),
            Scope::Group => sys::send_group(entry.pid, signal),
        };
        send(signal)?;
        if signal == Signal::TERM {
            send(Signal::CONT)?;
        }
        Ok(())
    }

    /// A first look at a silent leader; [`Self::inspect`] compares.
    pub fn glance(&self, instance: &InstanceId, run: Run) -> Glance {
        Glance { at: Instant::now(), threads: self.threads(instance, run) }
    }

    /// Whether the leader is stopped, traced, or has waited for a processor since the first look. A run that is gone
    /// counts as alive.
    pub fn inspect(&self, instance: &InstanceId, run: Run, before: &Glance) -> Pulse {
        let state = self.pid(instance, run).and_then(procfs::state_and_tracer);
        match state {
            Some((_, tracer)) if tracer != 0 => return Pulse::Traced,
            Some((b'T', _)) => return Pulse::Stopped,
            _ => {}
        }
        let fair = before.at.elapsed() / STARVED_SHARE;
        let starved = |thread: &Thread| {
            let known = before.threads.iter().find(|known| known.id == thread.id);
            known.is_some_and(|known| {
                (known.state, thread.state) == (b'R', b'R')
                    && thread.used.saturating_sub(known.used) < fair
            })
        };
        if self.threads(instance, run).iter().any(starved) { Pulse::Starved } else { Pulse::Alive }
    }

    fn threads(&self, instance: &InstanceId, run: Run) -> Vec<Thread> {
        self.pid(instance, run).map(procfs::threads).unwrap_or_default()
    }

    /// The run that a process belongs to, for datagrams that name their sender only.
    pub fn owner_of(&self, pid: u32) -> Option<(InstanceId, Run)> {
        match self.table.borrow().attribute(pid)? {
            Owner::Run(instance, run) => Some((instance, run)),
            Owner::Command(_) => None,
        }
    }

    /// What works worse on this machine than it should, one sentence each.
    pub fn degraded(&self) -> Vec<String> {
        let table = self.table.borrow();
        let mut words = Vec::new();
        if !sys::is_subreaper() {
            words.push("orphans do not come to the node (no child subreaper): they are searched for in all of /proc".to_owned());
        } else if table.orphans.is_none() {
            words.push("the kernel does not list children (CONFIG_PROC_CHILDREN): all of /proc is searched at each end of a process".to_owned());
        }
        if !table.spawner.closes_foreign_descriptors() {
            words.push("close_range does not work here: descriptors that others leave open may reach instances".to_owned());
        }
        words
    }

    pub(super) fn table(&self) -> std::cell::RefMut<'_, Table> {
        self.table.borrow_mut()
    }
}

impl Table {
    fn spawn(
        &mut self,
        owner: Owner,
        token: &str,
        request: &mut SpawnRequest,
        done: Option<oneshot::Sender<Exit>>,
    ) -> Result<u32, SpawnError> {
        let dye = self.unused_dye();
        let pipes = match &request.stdio {
            Stdio::Pipes { stdout, stderr } => [inode(stdout), inode(stderr)],
            _ => [0; 2],
        };
        let child = self.spawner.spawn(request, Some(dye))?;
        let entry = Entry {
            pid: child.pid,
            pidfd: child.pidfd,
            token: token.to_owned(),
            dye,
            pipes,
            exit: None,
            usage: None,
            killed: false,
            done,
        };
        if let Err(error) =
            self.ready.get_ref().add(entry.pidfd.as_fd(), u64::from(entry.pid), Told::Once)
        {
            // Out of memory or of watches: a child whose end nobody hears of must not live.
            let _ = sys::send_group(entry.pid, Signal::KILL); // it is ours and unreaped
            let _ = sys::send(entry.pidfd.as_fd(), Signal::KILL); // as above
            self.adopted.insert(entry.pid, Adopted { owner: None, name: request.program.clone() });
            let errno = error.raw_os_error().unwrap_or(libc::ENOMEM);
            return Err(SpawnError::new(Stage::Clone, errno, request));
        }
        self.leaders.insert(child.pid, owner.clone());
        self.dyes.insert(dye, owner.clone());
        self.entries.insert(owner, entry);
        Ok(child.pid)
    }

    fn unused_dye(&mut self) -> u64 {
        loop {
            let dye = self.colour.shade(self.next_number);
            self.next_number += 1;
            if !self.dyes.contains_key(&dye) {
                return dye;
            }
        }
    }

    fn take_exits(&mut self) -> Vec<(InstanceId, Run, Exit)> {
        let mut exits = Vec::new();
        loop {
            let ready = self.ready.get_ref().ready();
            if ready.is_empty() {
                return exits;
            }
            for key in ready {
                if key == SIGNAL {
                    let _ = self.signals.read_signal(); // says nothing that is not asked for below
                    for pid in std::mem::take(&mut self.traced) {
                        exits.extend(self.ended(pid));
                    }
                } else {
                    exits.extend(self.ended(key as u32));
                }
            }
        }
    }

    /// Notes how a leader ended, and whose it was where that was a run.
    fn ended(&mut self, pid: u32) -> Option<(InstanceId, Run, Exit)> {
        let owner = self.leaders.get(&pid)?;
        let entry = self.entries.get_mut(owner)?;
        let exit = match sys::wait_usage(entry.pidfd.as_fd(), Look::Peek) {
            Ok(Some((exit, usage))) => {
                entry.usage = Some(usage);
                exit
            }
            Ok(None) => {
                self.traced.push(pid);
                return None;
            }
            // Somebody else reaped it. How it ended is lost, that it ended is not.
            Err(_) => Exit::Code(255),
        };
        entry.exit = Some(exit);
        match owner {
            Owner::Run(instance, run) => Some((instance.clone(), *run, exit)),
            Owner::Command(_) => {
                if let Some(done) = entry.done.take() {
                    let _ = done.send(exit); // nobody waits any more: the probe was dropped
                }
                None
            }
        }
    }

    /// Whose process this is, by any of the marks; none of them alone suffices.
    pub(super) fn attribute(&self, pid: u32) -> Option<Owner> {
        let stat = Stat::read(pid)?;
        self.by_ancestry(&stat)
            .or_else(|| self.by_session(&stat))
            .or_else(|| self.dyes.get(&procfs::dye(pid)?).cloned())
            .or_else(|| self.by_token(pid))
            .or_else(|| self.by_pipe(pid))
    }

    fn by_session(&self, stat: &Stat) -> Option<Owner> {
        let leader = |pid| self.leaders.get(&pid).cloned();
        leader(stat.session).or_else(|| leader(stat.group))
    }

    fn by_ancestry(&self, stat: &Stat) -> Option<Owner> {
        let own = std::process::id();
        let mut pid = stat.pid;
        let mut parent = stat.parent;
        // Deeper trees than this exist only as attacks.
        for _ in 0..64 {
            if let Some(owner) = self.leaders.get(&pid) {
                return Some(owner.clone());
            }
            if let Some(adopted) = self.adopted.get(&pid) {
                return adopted.owner.clone();
            }
            if parent <= 1 || parent == own {
                return None;
            }
            pid = parent;
            parent = Stat::read(pid)?.parent;
        }
        None
    }

    fn by_token(&self, pid: u32) -> Option<Owner> {
        let token = procfs::variable(pid, hilum_shared::protocol::env::TOKEN)?;
        let mut entries = self.entries.iter();
        let found = entries.find(|(_, entry)| !entry.token.is_empty() && entry.token == token);
        found.map(|(owner, _)| owner.clone())
    }

    fn by_pipe(&self, pid: u32) -> Option<Owner> {
        let pipes = procfs::output_pipes(pid);
        let mut entries = self.entries.iter();
        let found = entries.find(|(_, entry)| pipes.iter().any(|pipe| entry.pipes.contains(pipe)));
        found.map(|(owner, _)| owner.clone())
    }

    /// Reaps the leader of an empty run and forgets it.
    pub(super) fn finish(&mut self, owner: &Owner) {
        let Some(entry) = self.entries.remove(owner) else {
            return;
        };
        self.leaders.remove(&entry.pid);
        self.dyes.remove(&entry.dye);
        let _ = sys::wait(entry.pidfd.as_fd(), Look::Reap); // ECHILD: somebody else did
    }
}

fn inode(fd: &OwnedFd) -> u64 {
    nix::sys::stat::fstat(fd).map_or(0, |stat| stat.st_ino)
}
