//! Every line of every instance for whoever wants to listen, in lymph's frames `[LEVEL, endpoint, text]`.
//!
//! Nobody waits for a slow subscriber: what does not fit into its queue is counted. Whoever publishes is told
//! ([`Publish::lost`]), and so is the subscriber, in the place of what it missed. The files on disk never lose a line by it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use hilum_shared::protocol::Level;
use hilum_shared::rpc::publish::{Mender, Publisher};

/// The endpoint. Dropping it closes the socket.
pub struct Publish {
    publisher: Publisher,
    /// Lines that somebody did not get, since the last [`Publish::lost`].
    lost: AtomicU64,
}

impl Publish {
    /// Binds `endpoint`: `container.log_endpoint` where configured, else `pub.sock` in the run folder.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn open(endpoint: &str, mode: u32) -> io::Result<Self> {
        let publisher = Publisher::open(endpoint, mode, notice)?;
        Ok(Self { publisher, lost: AtomicU64::new(0) })
    }

    /// The address that others connect to, with a real port.
    pub fn endpoint(&self) -> &str {
        self.publisher.endpoint()
    }

    /// Whether anybody listens: where not, a caller need not even make the text.
    pub fn is_listened_to(&self) -> bool {
        self.publisher.is_listened_to()
    }

    /// What binds it anew when somebody took its path.
    pub fn mender(&self) -> Mender {
        self.publisher.mender()
    }

    /// Publishes one line. Never blocks.
    pub fn publish(&self, level: Level, text: &str) {
        let endpoint = self.publisher.endpoint().as_bytes();
        if !self.publisher.publish(&[level.as_str().as_bytes(), endpoint, text.as_bytes()]) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines that a subscriber did not get since the last call.
    pub fn lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

/// A subscriber hears it under the topic that it missed lines of.
fn notice(topic: &[u8], endpoint: &str, lines: u64) -> Vec<Vec<u8>> {
    let word = if lines == 1 { "line" } else { "lines" };
    let why = "a subscriber of the log endpoint was too slow";
    let text = format!("* node | … {lines} {word} dropped ({why})");
    vec![topic.to_vec(), endpoint.as_bytes().to_vec(), text.into_bytes()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::testing::{World, wait_until};

    #[test]
    fn lines_go_out_everywhere_and_by_either_family() {
        let world = World::new();
        let mut ways = vec![("tcp://*:*", "127.0.0.1")];
        // Not every machine has it.
        if std::net::TcpListener::bind("[::1]:0").is_ok() {
            ways.push(("tcp://[::1]:*", "[::1]"));
        }
        for (bound, called) in ways {
            let publish = Publish::open(bound, 0o600).unwrap();
            let (_, port) = publish.endpoint().rsplit_once(':').unwrap();
            let tail = world.subscriber_at(&format!("tcp://{called}:{port}"), "");
            wait_until(|| publish.is_listened_to());
            publish.publish(Level::Info, "line");
            assert_eq!(tail.next()[2], b"line", "{bound}");
        }
    }

    #[test]
    fn lines_go_out_in_lymphs_frames_while_somebody_listens() {
        let world = World::new();
        let publish = Publish::open("tcp://127.0.0.1:*", 0o600).unwrap();
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
    fn a_subscriber_that_does_not_read_blocks_nobody_and_what_it_misses_is_counted() {
        let world = World::new();
        let publish = Publish::open(&world.address("p"), 0o600).unwrap();
        let deaf = world.deaf_subscriber("p");
        wait_until(|| publish.is_listened_to());
        const SENT: usize = 50_000;
        for at in 0..SENT {
            publish.publish(Level::Info, &format!("{at} {}", "x".repeat(100)));
        }
        let lost = publish.lost();
        assert!(lost > 0);
        let tail = world.subscriber("p", "");
        wait_until(|| {
            publish.publish(Level::Info, "last");
            std::iter::from_fn(|| tail.try_next()).any(|frames| frames[2] == b"last")
        });
        let mut got = 0;
        let missed = loop {
            let frames = deaf.next();
            let text = String::from_utf8(frames[2].clone()).unwrap();
            assert_eq!(frames[..2], [b"INFO".to_vec(), publish.endpoint().as_bytes().to_vec()]);
            match text.strip_prefix("* node | … ").and_then(|rest| rest.split(' ').next()) {
                Some(missed) => break missed.parse::<usize>().unwrap(),
                None => got += 1,
            }
        };
        let meanwhile = publish.lost() as usize;
        assert_eq!(got + missed, SENT + meanwhile, "each line came or is counted");
        assert_eq!(missed, lost as usize + meanwhile);
    }

    #[test]
    fn one_whose_path_was_taken_is_bound_anew_and_what_waits_is_sent_at_the_end() {
        let world = World::new();
        let publish = Publish::open(&world.address("p"), 0o600).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mend = || runtime.block_on(publish.mender().mend()).map(Result::unwrap);
        assert_eq!(mend(), None);
        std::fs::remove_file(world.address("p").trim_start_matches("ipc://")).unwrap();
        assert_eq!(mend(), Some(world.address("p")));
        let tail = world.subscriber("p", "");
        wait_until(|| publish.is_listened_to());
        publish.publish(Level::Info, "bye");
        drop(publish);
        assert_eq!(tail.next()[2], b"bye");
    }
}
