//! Every line of every instance for whoever wants to listen, in lymph's frames `[LEVEL, endpoint, text]`.
//!
//! Nobody waits for a slow subscriber: libzmq drops what does not fit into that subscriber's queue. What does not even
//! reach libzmq is counted, and a line says how many were lost. The files on disk never lose one.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hilum_shared::protocol::Level;
use hilum_shared::transport::{
    Flow, Frames, Handler, Hub, Kind, OpenError, Port, Socket, SocketSpec,
};

/// Topics that are told apart; past that somebody is taken to listen for ever.
const MAX_TOPICS: usize = 1024;

/// The endpoint. Dropping it closes the socket. Clones publish to the same.
#[derive(Clone)]
pub struct Publish {
    socket: Socket,
    listened: Arc<AtomicBool>,
    dropped: Arc<AtomicU64>,
}

impl Publish {
    /// Binds `endpoint`: `container.log_endpoint` where configured, else `pub.sock` in the run folder.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn open(hub: &Hub, endpoint: &str, mode: u32) -> Result<Self, OpenError> {
        let listened = Arc::new(AtomicBool::new(false));
        let ear = Ear { topics: HashSet::new(), listened: Arc::clone(&listened) };
        // An XPUB is a PUB that hears its subscribers: where nobody listens nothing is queued.
        let spec = SocketSpec {
            mode,
            high_water: 10_000,
            queue: 10_000,
            ..SocketSpec::new(Kind::Xpub).bind(endpoint)
        };
        Ok(Self { socket: hub.open(spec, ear)?, listened, dropped: Arc::default() })
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
    pub fn publish(&self, level: Level, text: &str) {
        if !self.is_listened_to() {
            return;
        }
        let lost = self.dropped.swap(0, Ordering::Relaxed);
        if lost > 0
            && !self.send(
                Level::Warning,
                &format!("{lost} lines dropped: the node had no time to publish them"),
            )
        {
            self.dropped.fetch_add(lost, Ordering::Relaxed);
        }
        if !self.send(level, text) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn send(&self, level: Level, text: &str) -> bool {
        let endpoint = self.socket.endpoint().as_bytes().to_vec();
        self.socket
            .send(vec![level.as_str().as_bytes().to_vec(), endpoint, text.as_bytes().to_vec()])
            .is_ok()
    }
}

struct Ear {
    topics: HashSet<Vec<u8>>,
    listened: Arc<AtomicBool>,
}

impl Handler for Ear {
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
        let publish = Publish::open(&world.hub, "tcp://127.0.0.1:*", 0o600).unwrap();
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
        let publish = Publish::open(&world.hub, &world.address("p"), 0o600).unwrap();
        let _silent = world.deaf_subscriber("p");
        wait_until(|| publish.is_listened_to());
        for _ in 0..50_000 {
            publish.publish(Level::Info, &"x".repeat(100));
        }
        let tail = world.subscriber("p", "");
        wait_until(|| {
            publish.publish(Level::Info, "last");
            std::iter::from_fn(|| tail.try_next()).any(|frames| frames[2] == b"last")
        });
    }
}
