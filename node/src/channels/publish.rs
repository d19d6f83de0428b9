//! Every line of every instance for whoever wants to listen, in lymph's frames `[LEVEL, endpoint, text]`.
//!
//! Nobody waits for a slow subscriber: what does not fit into its queue, or into ours, is counted. Whoever publishes is told
//! ([`Publish::lost`]), and so are the subscribers, before the next line that they get. The files on disk never lose a
//! line by it. The number is the least that it can be: while a subscriber's queue is full libzmq passes it over in silence, and says so
//! only when the queue has filled anew.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hilum_shared::protocol::Level;
use hilum_shared::transport::{
    Flow, Frames, Handler, Hub, Kind, OpenError, Port, Socket, SocketSpec,
};

/// Topics that are told apart; past that somebody is taken to listen for ever.
const MAX_TOPICS: usize = 1024;

/// The endpoint. Dropping it closes the socket.
pub struct Publish {
    socket: Socket,
    listened: Arc<AtomicBool>,
    losses: Arc<Losses>,
    telling: Option<Telling>,
}

/// Lines that a subscriber certainly did not get.
#[derive(Default)]
struct Losses {
    /// Since the last [`Publish::lost`].
    new: AtomicU64,
    /// In the trouble at hand.
    all: AtomicU64,
}

impl Losses {
    fn add(&self) {
        self.new.fetch_add(1, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
    }
}

/// After the first word of a loss it is said again, each time after twice as long: whoever stands still hears nothing, and
/// when it goes on nobody knows.
const AGAIN: Duration = Duration::from_secs(1);
/// Then it has been said often enough.
const ENOUGH: Duration = Duration::from_secs(60);

/// Telling subscribers of a loss.
struct Telling {
    lines: u64,
    at: Instant,
    pause: Duration,
}

impl Publish {
    /// Binds `endpoint`: `container.log_endpoint` where configured, else `pub.sock` in the run folder.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn open(hub: &Hub, endpoint: &str, mode: u32) -> Result<Self, OpenError> {
        let listened = Arc::new(AtomicBool::new(false));
        let losses: Arc<Losses> = Arc::default();
        let ear = Ear {
            topics: HashSet::new(),
            listened: Arc::clone(&listened),
            losses: Arc::clone(&losses),
        };
        // An XPUB is a PUB that hears its subscribers: where nobody listens nothing is queued.
        let spec = SocketSpec {
            mode,
            high_water: 10_000,
            queue: 10_000,
            ..SocketSpec::new(Kind::Xpub).bind(endpoint)
        };
        Ok(Self { socket: hub.open(spec, ear)?, listened, losses, telling: None })
    }

    /// The address that others connect to, with a real port.
    pub fn endpoint(&self) -> &str {
        self.socket.endpoint()
    }

    /// Whether anybody listens: where not, a caller need not even make the text.
    pub fn is_listened_to(&self) -> bool {
        self.listened.load(Ordering::Relaxed)
    }

    /// Publishes one line. Never blocks.
    pub fn publish(&mut self, level: Level, text: &str) {
        if !self.is_listened_to() {
            return;
        }
        self.tell();
        if !self.send(level, text) {
            self.losses.add();
        }
    }

    /// Tells of losses when it is time to.
    fn tell(&mut self) {
        let lines = self.losses.all.load(Ordering::Relaxed);
        if lines == 0 {
            return;
        }
        let pause = match &self.telling {
            None => AGAIN,
            Some(telling) if telling.at.elapsed() < telling.pause => return,
            Some(telling) if lines > telling.lines => AGAIN,
            Some(telling) => telling.pause * 2,
        };
        self.send(Level::Warning, &notice(lines)); // what is not heard is said again
        if pause > ENOUGH {
            self.telling = None;
            self.losses.all.fetch_sub(lines, Ordering::Relaxed);
        } else {
            self.telling = Some(Telling { lines, at: Instant::now(), pause });
        }
    }

    fn send(&self, level: Level, text: &str) -> bool {
        let endpoint = self.socket.endpoint().as_bytes().to_vec();
        self.socket
            .send(vec![level.as_str().as_bytes().to_vec(), endpoint, text.as_bytes().to_vec()])
            .is_ok()
    }

    /// Lines that a subscriber did not get since the last call.
    pub fn lost(&self) -> u64 {
        self.losses.new.swap(0, Ordering::Relaxed)
    }
}

/// Why subscribers miss lines.
const TOO_SLOW: &str = "at least: a subscriber of the log endpoint was too slow";

const NOTICE: &str = "* node | … ";

fn notice(lines: u64) -> String {
    let word = if lines == 1 { "line" } else { "lines" };
    format!("{NOTICE}{lines} {word} dropped ({TOO_SLOW})")
}

struct Ear {
    topics: HashSet<Vec<u8>>,
    listened: Arc<AtomicBool>,
    losses: Arc<Losses>,
}

impl Handler for Ear {
    fn missed(&mut self, frames: &Frames) {
        let notice = frames.get(2).is_some_and(|text| text.starts_with(NOTICE.as_bytes()));
        if !notice {
            self.losses.add();
        }
    }

    fn message(&mut self, frames: Frames, _port: &mut Port<'_>) -> Flow {
        match frames.first().and_then(|frame| frame.split_first()) {
            Some((1, topic)) if self.topics.len() < MAX_TOPICS => {
                self.topics.insert(topic.to_vec());
            }
            Some((0, topic)) if self.topics.len() < MAX_TOPICS => {
                self.topics.remove(topic);
            }
            _ => {}
        }
        self.listened.store(!self.topics.is_empty(), Ordering::Relaxed);
        Flow::Taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::testing::{World, wait_until};

    #[test]
    fn lines_go_out_in_lymphs_frames_while_somebody_listens() {
        let world = World::new();
        let mut publish = Publish::open(&world.hub, "tcp://127.0.0.1:*", 0o600).unwrap();
        assert!(!publish.endpoint().ends_with('*'));
        publish.publish(Level::Info, "to nobody");
        let tail = world.subscriber_at(publish.endpoint(), "ERROR");
        wait_until(|| publish.is_listened_to());
        publish.publish(Level::Info, "not asked for");
        publish.publish(Level::Error, "echo.3 out | line");
        let frames = tail.next();
        assert_eq!(frames[0], b"ERROR");
        assert_eq!(frames[1], publish.endpoint().as_bytes());
        assert_eq!(frames[2], b"echo.3 out | line");
        drop(tail);
        wait_until(|| !publish.is_listened_to());
    }

    #[test]
    fn a_subscriber_that_does_not_read_blocks_nobody() {
        let world = World::new();
        let mut publish = Publish::open(&world.hub, &world.address("p"), 0o600).unwrap();
        let _silent = world.deaf_subscriber("p");
        wait_until(|| publish.is_listened_to());
        for _ in 0..50_000 {
            publish.publish(Level::Info, &"x".repeat(100));
        }
        wait_until(|| publish.lost() > 0);
        let tail = world.subscriber("p", "");
        wait_until(|| {
            publish.publish(Level::Info, "last");
            std::iter::from_fn(|| tail.try_next()).any(|frames| frames[2] == b"last")
        });
    }
}
