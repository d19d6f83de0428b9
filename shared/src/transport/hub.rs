//! The thread that owns all sockets.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::SigSet;

use super::endpoint::Endpoint;
use super::handler::Handler;
use super::late::Late;
use super::lossless::refuse_when_full;
use super::monitor::watch;
use super::slot::{Place, Slot};
use super::socket::{Frames, Gate, Kind, LINGER_MS, OpenError, Socket, SocketSpec};

pub(super) enum Command {
    Open(Box<Opening>),
    Send(u64, Frames),
    Subscribe(u64, Vec<u8>),
    Resume(u64),
    Mend(Mended),
    Close(u64),
    Stop(Duration),
}

/// Gets what was bound anew.
type Mended = Box<dyn FnOnce(Vec<Result<String, OpenError>>) + Send>;

pub(super) struct Opening {
    id: u64,
    spec: SocketSpec,
    handler: Box<dyn Handler>,
    gate: Arc<Gate>,
    answer: mpsc::SyncSender<Result<String, OpenError>>,
}

/// What other threads and the hub's share: the queue and its bell.
pub(super) struct Shared {
    commands: Mutex<VecDeque<Command>>,
    rung: AtomicBool,
    ended: AtomicBool,
    bell: EventFd,
    ids: AtomicU64,
}

impl Shared {
    pub(super) fn push(&self, command: Command) {
        if self.ended.load(Ordering::SeqCst) {
            return;
        }
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).push_back(command);
        if self.ended.load(Ordering::SeqCst) {
            self.take(); // it ended meanwhile, and nobody will
            return;
        }
        if !self.rung.swap(true, Ordering::SeqCst) {
            // Cannot fail: the counter is reset before it is rung again.
            let _ = self.bell.write(1);
        }
    }

    fn take(&self) -> VecDeque<Command> {
        std::mem::take(&mut *self.commands.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Lets nobody wait for a thread that has ended, were it by a panic.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::SeqCst);
        self.0.take();
    }
}

/// The ZeroMQ thread. Dropping it closes every socket and waits for the thread, a fifth of a second at most for
/// messages that have not left.
pub struct Hub {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<CloseReport>>,
}

/// Looks after the paths of bound sockets.
#[derive(Clone)]
pub struct Mender {
    shared: Arc<Shared>,
}

impl Mender {
    /// Binds every socket anew whose path was removed or leads to somebody else's; connections stay. `done` gets
    /// their addresses, on the ZeroMQ thread, so it must not block. Each time costs a descriptor: libzmq has no way
    /// to give up the old listener that would not remove the new one's path.
    pub fn mend(&self, done: impl FnOnce(Vec<Result<String, OpenError>>) + Send + 'static) {
        self.shared.push(Command::Mend(Box::new(done)));
    }
}

/// What was left when the thread ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloseReport {
    /// Messages that had not reached libzmq.
    pub unsent: usize,
}

impl Hub {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread or descriptor to give.
    pub fn start(name: &str) -> io::Result<Self> {
        room_for_libzmq()?;
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let shared = Arc::new(Shared {
            commands: Mutex::default(),
            rung: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            bell,
            ids: AtomicU64::new(1),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Failure would only mean that a signal handler may run here, too.
            let _ = SigSet::all().thread_block();
            let _ending = Ending(Arc::clone(&theirs));
            Worker { context: zmq::Context::new(), shared: theirs, slots: Vec::new() }.run()
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Opens a socket. `handler` runs on the ZeroMQ thread and must never block.
    ///
    /// A bound ipc path is taken over from whoever had it, so bind only under the lock that makes you its owner, and
    /// only once in a hub's life: a closed socket removes its file when libzmq gets round to it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        &self,
        spec: SocketSpec,
        handler: impl Handler + 'static,
    ) -> Result<Socket, OpenError> {
        spec.endpoints()?;
        let id = self.shared.ids.fetch_add(1, Ordering::Relaxed);
        let gate = Arc::new(Gate::new());
        let limit = spec.queue.max(1);
        let (answer, answered) = mpsc::sync_channel(1);
        self.shared.push(Command::Open(Box::new(Opening {
            id,
            spec,
            handler: Box::new(handler),
            gate: Arc::clone(&gate),
            answer,
        })));
        let endpoint = answered.recv().map_err(|_| OpenError::Ended)??;
        Ok(Socket::new(id, endpoint, limit, gate, Arc::clone(&self.shared)))
    }

    /// For [`Mender::mend`].
    pub fn mender(&self) -> Mender {
        Mender { shared: Arc::clone(&self.shared) }
    }

    /// Ends the thread, giving messages that have not left this long.
    pub fn close(mut self, within: Duration) -> CloseReport {
        self.end(within)
    }

    fn end(&mut self, within: Duration) -> CloseReport {
        let Some(thread) = self.thread.take() else {
            return CloseReport::default();
        };
        self.shared.push(Command::Stop(within));
        thread.join().unwrap_or_default()
    }
}

/// So many descriptors libzmq gets at least: seven for its threads when the first socket is made, and some for the sockets. It ends the
/// process when its threads get none (measured with libzmq 4.3.5).
const ROOM: u64 = 16;

/// # Errors
/// Where libzmq would end the process.
fn room_for_libzmq() -> io::Result<()> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else {
        return Ok(()); // no /proc here: nobody can tell
    };
    let open = open.count() as u64;
    if soft.saturating_sub(open) >= ROOM {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "ZeroMQ needs {ROOM} open files, and {open} of {soft} are in use: raise the limit (`ulimit -n`, `limits.nofile` of the service)"
    )))
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.end(Duration::from_millis(LINGER_MS as u64));
    }
}

struct Worker {
    context: zmq::Context,
    shared: Arc<Shared>,
    slots: Vec<Slot>,
}

impl Worker {
    fn run(mut self) -> CloseReport {
        let within = loop {
            if let Some(within) = self.turn() {
                break within;
            }
        };
        self.finish(within)
    }

    /// One wait and all that came of it; the answer ends the thread.
    fn turn(&mut self) -> Option<Duration> {
        let fd = self.shared.bell.as_fd().as_raw_fd();
        let mut items = vec![zmq::PollItem::from_fd(fd, zmq::POLLIN)];
        for slot in &self.slots {
            items.push(slot.socket.as_poll_item(slot.interests()));
            if let Some(monitor) = &slot.monitor {
                items.push(monitor.as_poll_item(zmq::POLLIN));
            }
        }
        if let Err(error) = zmq::poll(&mut items, self.patience())
            && error != zmq::Error::EINTR
        {
            tracing::error!(%error, "polling sockets failed");
            return Some(Duration::ZERO);
        }
        let ready: Vec<(bool, bool)> =
            items.iter().map(|item| (item.is_readable(), item.is_writable())).collect();
        drop(items);
        let mut ready = ready.into_iter();
        let rung = ready.next().is_some_and(|(readable, _)| readable);
        let now = Instant::now();
        for slot in &mut self.slots {
            let (readable, writable) = ready.next().unwrap_or_default();
            let monitored = slot.monitor.is_some() && ready.next().unwrap_or_default().0;
            if writable {
                slot.flush();
            }
            if readable {
                slot.read();
            }
            if monitored {
                slot.read_monitor();
            }
            slot.try_again(now);
            if slot.rest.is_some_and(|at| at <= now) {
                slot.rest = None;
            }
            if slot.wake.is_some_and(|at| at <= now) {
                slot.wake = None;
                slot.with_port(|handler, port| handler.timer(port));
            }
        }
        if rung { self.obey() } else { None }
    }

    /// Milliseconds until the next timer or end of a rest; -1 = none.
    fn patience(&self) -> i64 {
        let times = self.slots.iter().flat_map(|slot| [slot.wake, slot.rest, slot.late.again]);
        let Some(at) = times.flatten().min() else {
            return -1;
        };
        let left = at.saturating_duration_since(Instant::now());
        i64::try_from(left.as_millis()).unwrap_or(i64::MAX - 1) + 1
    }

    fn obey(&mut self) -> Option<Duration> {
        let _ = self.shared.bell.read(); // EAGAIN only when it was read already
        self.shared.rung.store(false, Ordering::SeqCst);
        for command in self.shared.take() {
            match command {
                Command::Open(opening) => self.open(*opening),
                Command::Send(id, frames) => {
                    if let Some(slot) = self.slot(id) {
                        slot.send(frames);
                    }
                }
                Command::Subscribe(id, topic) => {
                    if let Some(slot) = self.slot(id)
                        && let Err(error) = slot.socket.set_subscribe(&topic)
                    {
                        tracing::warn!(%error, "subscribing failed");
                    }
                }
                Command::Resume(id) => {
                    if let Some(slot) = self.slot(id) {
                        slot.resume();
                    }
                }
                Command::Mend(done) => {
                    done(self.slots.iter_mut().filter_map(Slot::mend).collect());
                }
                Command::Close(id) => self.slots.retain(|slot| slot.id != id),
                Command::Stop(within) => return Some(within),
            }
        }
        None
    }

    fn slot(&mut self, id: u64) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.id == id)
    }

    fn open(&mut self, opening: Opening) {
        let Opening { id, spec, handler, gate, answer } = opening;
        let result = self.make(id, &spec).map(|(socket, monitor, endpoint, place)| {
            self.slots.push(Slot {
                id,
                socket,
                monitor,
                place,
                router: spec.kind == Kind::Router,
                xpub: spec.kind == Kind::Xpub,
                receives: !matches!(spec.kind, Kind::Push | Kind::Pub),
                handler,
                gate,
                outbox: VecDeque::new(),
                queue: spec.queue.max(1),
                late: Late::new(spec.late),
                parked: None,
                wake: None,
                pace: spec.pace,
                rest: None,
            });
            endpoint
        });
        if answer.send(result).is_err() {
            self.slots.retain(|slot| slot.id != id);
        }
    }

    fn make(
        &self,
        id: u64,
        spec: &SocketSpec,
    ) -> Result<(zmq::Socket, Option<zmq::Socket>, String, Option<Place>), OpenError> {
        let kind = match spec.kind {
            Kind::Router => zmq::ROUTER,
            Kind::Dealer => zmq::DEALER,
            Kind::Xpub => zmq::XPUB,
            Kind::Sub => zmq::SUB,
            Kind::Pull => zmq::PULL,
            Kind::Push => zmq::PUSH,
            Kind::Pub => zmq::PUB,
        };
        let mut socket = self.context.socket(kind).map_err(OpenError::Socket)?;
        spec.apply(&socket).map_err(OpenError::Socket)?;
        if spec.kind == Kind::Xpub {
            refuse_when_full(&mut socket, true).map_err(OpenError::Socket)?;
        }
        let monitor = if spec.monitor {
            Some(watch(&self.context, &socket, id).map_err(OpenError::Socket)?)
        } else {
            None
        };
        let mut shown = String::new();
        let mut place = None;
        for (at, (parsed, text)) in spec.endpoints()?.into_iter().enumerate() {
            let binding = at < spec.bind.len();
            let (action, done) = if binding {
                ("bind", socket.bind(text))
            } else {
                ("connect", socket.connect(text))
            };
            done.map_err(|source| OpenError::Address {
                action,
                endpoint: text.to_owned(),
                source,
            })?;
            if let (true, Endpoint::Ipc(path)) = (binding, parsed) {
                place = Some(Place::take(text, path, spec.mode)?);
            }
            if shown.is_empty() {
                shown = match (binding, socket.get_last_endpoint()) {
                    (true, Ok(Ok(bound))) if !bound.is_empty() => bound,
                    _ => text.to_owned(),
                };
            }
        }
        Ok((socket, monitor, shown, place))
    }

    /// Sends what waits, within bounds, and closes everything.
    fn finish(mut self, within: Duration) -> CloseReport {
        self.shared.ended.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + within;
        for command in self.shared.take() {
            if let Command::Send(id, frames) = command
                && let Some(slot) = self.slot(id)
            {
                slot.send(frames);
            }
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut items: Vec<zmq::PollItem<'_>> = self
                .slots
                .iter()
                .filter(|slot| !slot.outbox.is_empty())
                .map(|slot| slot.socket.as_poll_item(zmq::POLLOUT))
                .collect();
            // What waits for a single peer is not seen by polling.
            let again = self.slots.iter().filter_map(|slot| slot.late.again).min();
            if items.is_empty() && again.is_none() || left.is_zero() {
                break;
            }
            let wait = again.map_or(left, |at| left.min(at.duration_since(Instant::now())));
            let waited =
                zmq::poll(&mut items, i64::try_from(wait.as_millis()).unwrap_or(i64::MAX - 1) + 1);
            drop(items);
            if waited.is_err_and(|error| error != zmq::Error::EINTR) {
                break;
            }
            let now = Instant::now();
            for slot in &mut self.slots {
                slot.flush();
                slot.try_again(now);
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let linger = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        let mut unsent = 0;
        for slot in self.slots.drain(..) {
            unsent += slot.outbox.len() + slot.late.len();
            // Refused only by a socket that is gone already.
            let _ = slot.socket.set_linger(linger);
            slot.gate.close();
        }
        CloseReport { unsent }
    }
}
