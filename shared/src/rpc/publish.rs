//! Messages to all who listen: an XPUB on connections of our own, with a thread for them.
//!
//! ```text
//!  publish ──► the queue of each subscriber that asked for the topic ──► its connection
//!                 │ full: counted
//!                 ▼
//!              one notice in its place, as soon as half of the queue is free
//! ```
//!
//! libzmq passes over a subscriber whose queue is full in silence, so that nobody can say how much it missed. Here every
//! message that did not go into a queue is counted, and the subscriber is told how many they were.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc as orders, oneshot};
use tokio::task::JoinSet;

use super::link::{Link, LinkError, Owner};
use super::network::{Listener, Network, Sockets, Stream};
use super::wire::{NotTaken, Wire};
use crate::transport::endpoint::Endpoint as Address;
use crate::wire::zmtp::Hello;

/// How many bytes may wait for one subscriber: about 15 000 lines of 100 bytes. As many again are on their way to the socket.
const MOST: usize = 2 << 20;
/// A subscription is no longer than this; lymph's topics are levels.
const MAX_SUBSCRIPTION: usize = 64 * 1024;
/// Topics of one subscriber; what it asks for beyond is not heard.
const MAX_TOPICS: usize = 1024;
/// So long a stranger may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often a subscriber that reads again and gets nothing new is told what it missed.
const TICK: Duration = Duration::from_millis(250);
/// What waits at the end has so long to leave.
const LINGER: Duration = Duration::from_millis(500);
/// After the system had no descriptor for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What tells a subscriber of a topic that it missed so many messages of this endpoint.
pub type Notice = fn(topic: &[u8], endpoint: &str, missed: u64) -> Vec<Vec<u8>>;

/// The socket. Dropping it sends what waits, for half a second at most, and closes everything.
pub struct Publisher {
    shared: Arc<Shared>,
    orders: orders::UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
}

/// Binds the socket anew; outlives it without harm.
#[derive(Clone)]
pub struct Mender(orders::UnboundedSender<Order>);

enum Order {
    Mend(oneshot::Sender<Option<io::Result<String>>>),
    Close,
}

struct Shared {
    subscribers: Mutex<Vec<Arc<Subscriber>>>,
    listened: AtomicBool,
    notice: Notice,
    /// Known once it is bound.
    endpoint: OnceLock<String>,
}

struct Subscriber {
    wire: Arc<Wire>,
    wishes: Mutex<Wishes>,
}

#[derive(Default)]
struct Wishes {
    topics: Vec<Vec<u8>>,
    missed: u64,
    /// Of the last message that it missed.
    topic: Vec<u8>,
}

impl Publisher {
    /// Binds an address; `mode` is that of a socket in the file system.
    ///
    /// # Errors
    /// When it cannot be had, or the thread not be started.
    pub fn open(address: &str, mode: u32, notice: Notice) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            subscribers: Mutex::default(),
            listened: AtomicBool::new(false),
            notice,
            endpoint: OnceLock::new(),
        });
        let (orders, receiver) = orders::unbounded_channel();
        let (told, bound) = mpsc::channel();
        let (address, of_thread) = (address.to_owned(), Arc::clone(&shared));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("publish".into()).spawn(move || {
            runtime.block_on(async {
                match Door::open(&address, mode).await {
                    Ok(door) => {
                        let _ = of_thread.endpoint.set(door.listener.address().to_owned()); // the first
                        let _ = told.send(Ok(())); // whoever waits for it is there
                        serve(&of_thread, door, receiver).await;
                    }
                    Err(error) => drop(told.send(Err(error))),
                }
            });
        })?;
        bound.recv().map_err(io::Error::other)??;
        Ok(Self { shared, orders, thread: Some(thread) })
    }

    /// The address, with a real port.
    pub fn endpoint(&self) -> &str {
        self.shared.endpoint()
    }

    /// Whether anybody listens.
    pub fn is_listened_to(&self) -> bool {
        self.shared.listened.load(Ordering::Relaxed)
    }

    /// Queues a message for all who asked for its first frame; whether each of them will get it. Never waits.
    pub fn publish(&self, frames: &[&[u8]]) -> bool {
        let topic = frames.first().copied().unwrap_or_default();
        let subscribers = self.shared.subscribers();
        subscribers.iter().fold(true, |all, one| all & one.send(topic, frames, &self.shared))
    }

    /// What binds it anew.
    pub fn mender(&self) -> Mender {
        Mender(self.orders.clone())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Close); // the thread may have ended
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic has been told by the thread itself
        }
    }
}

impl Mender {
    /// Binds a socket in the file system anew if its path is gone or another's: its address, or why not. `None`: it is in its place.
    pub async fn mend(&self) -> Option<io::Result<String>> {
        let (answer, answered) = oneshot::channel();
        let _ = self.0.send(Order::Mend(answer)); // closed: nothing to mend
        answered.await.ok().flatten()
    }
}

impl Shared {
    fn endpoint(&self) -> &str {
        self.endpoint.get().map(String::as_str).unwrap_or_default()
    }

    fn subscribers(&self) -> MutexGuard<'_, Vec<Arc<Subscriber>>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks whether anybody listens.
    fn count(&self) {
        let any = self.subscribers().iter().any(|one| !one.wishes().topics.is_empty());
        self.listened.store(any, Ordering::Relaxed);
    }
}

impl Subscriber {
    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it will get the message, or has not asked for it.
    fn send(&self, topic: &[u8], frames: &[&[u8]], shared: &Shared) -> bool {
        let mut wishes = self.wishes();
        if !wishes.topics.iter().any(|wish| topic.starts_with(wish)) {
            return true;
        }
        self.tell(&mut wishes, shared);
        if wishes.missed == 0 {
            match self.wire.send_frames(frames) {
                Ok(()) | Err(NotTaken::Closed) => return true,
                Err(NotTaken::Full) => topic.clone_into(&mut wishes.topic),
            }
        }
        wishes.missed += 1;
        false
    }

    /// Tells what it missed, once half of its queue is free: not in every gap that a slow reader makes.
    fn tell(&self, wishes: &mut Wishes, shared: &Shared) {
        if wishes.missed > 0 && self.wire.waiting() <= MOST / 2 {
            let notice = (shared.notice)(&wishes.topic, shared.endpoint(), wishes.missed);
            let _ = self.wire.send_frames(&notice); // closed: nobody to be told
            wishes.missed = 0;
        }
    }
}

/// Where connections come in.
struct Door {
    listener: Box<dyn Listener>,
    /// Of a socket in the file system: its path, mode and which file it is.
    file: Option<(PathBuf, u32, (u64, u64))>,
}

impl Door {
    async fn open(address: &str, mode: u32) -> io::Result<Self> {
        let listener = Sockets.listen(address).await?;
        let file = match Address::parse(address) {
            Ok(Address::Ipc(path)) => {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
                let which = which(&path)?;
                Some((path, mode, which))
            }
            _ => None,
        };
        Ok(Self { listener, file })
    }

    async fn mend(&mut self) -> Option<io::Result<String>> {
        let (path, mode, bound) = self.file.as_ref()?;
        if which(path).is_ok_and(|there| there == *bound) {
            return None;
        }
        let _ = fs::remove_file(path); // another's, or gone already
        let address = self.listener.address().to_owned();
        match Self::open(&address, *mode).await {
            Ok(door) => {
                // The old one would remove the new one's file.
                std::mem::forget(std::mem::replace(self, door));
                Some(Ok(address))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

/// Which file it is.
fn which(path: &PathBuf) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

async fn serve(shared: &Arc<Shared>, mut door: Door, mut orders: orders::UnboundedReceiver<Order>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Mend(answer)) => drop(answer.send(door.mend().await)),
                Some(Order::Close) | None => break,
            },
            accepted = door.listener.accept() => match accepted {
                Ok(stream) => drop(connections.spawn(subscribe(Arc::clone(shared), stream))),
                Err(error) => {
                    let address = door.listener.address();
                    tracing::warn!(address, %error, "a subscriber could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(door);
    shared.subscribers().iter().for_each(|one| one.wire.close());
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LINGER, all).await; // who does not read gets no more
}

/// The life of a subscriber's connection.
async fn subscribe(shared: Arc<Shared>, stream: Stream) {
    let hello = Hello { socket_type: "XPUB".into(), ..Hello::default() };
    let link = match Link::open(stream, &hello, MAX_SUBSCRIPTION, HANDSHAKE).await {
        Ok(link) if ["SUB", "XSUB"].contains(&link.peer.socket_type.as_str()) => link,
        Ok(link) => {
            tracing::debug!(kind = link.peer.socket_type, "no subscriber: closed");
            return;
        }
        Err(error) => {
            tracing::debug!(%error, "no handshake with a subscriber");
            return;
        }
    };
    let one = Arc::new(Subscriber { wire: Wire::new(MOST), wishes: Mutex::default() });
    shared.subscribers().push(Arc::clone(&one));
    let error = link.run(&one.wire, &mut Ear { shared: &shared, one: &one }, TICK).await.error;
    tracing::debug!(%error, "a subscriber's connection ended");
    one.wire.close();
    shared.subscribers().retain(|other| !Arc::ptr_eq(other, &one));
    shared.count();
}

/// Hears what a subscriber wants.
struct Ear<'a> {
    shared: &'a Shared,
    one: &'a Subscriber,
}

impl Owner for Ear<'_> {
    fn message(&mut self, frames: &[&[u8]]) {
        let mut wishes = self.one.wishes();
        match frames.first().and_then(|frame| frame.split_first()) {
            Some((1, topic)) if wishes.topics.len() < MAX_TOPICS => {
                wishes.topics.push(topic.to_vec());
            }
            Some((0, topic)) => {
                if let Some(at) = wishes.topics.iter().position(|wish| wish == topic) {
                    wishes.topics.swap_remove(at);
                }
            }
            _ => {}
        }
        drop(wishes);
        self.shared.count();
    }

    fn tick(&mut self) -> Result<(), LinkError> {
        self.one.tell(&mut self.one.wishes(), self.shared);
        Ok(())
    }
}
