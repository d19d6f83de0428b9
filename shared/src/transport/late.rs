//! Messages of a ROUTER for peers whose queues in libzmq are full.
//!
//! A peer may read as fast as it can and still be behind for a moment: the thread that owns the socket writes a burst of answers
//! faster than libzmq's own thread hands on. What does not fit waits here, in order, and is tried again; only who does not
//! read for seconds, or lets too much gather, does not read at all.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::handler::{Attempt, Undelivered, try_send};
use super::socket::{Frame, Frames};

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(5);
/// A peer that takes nothing for so long does not read.
const PATIENCE: Duration = Duration::from_secs(5);

/// What waits, by routing id.
pub(super) struct Late {
    peers: HashMap<Frame, Waiting>,
    /// Bytes that may wait for one peer.
    room: usize,
    /// When they are tried again.
    pub(super) again: Option<Instant>,
}

struct Waiting {
    messages: VecDeque<Frames>,
    bytes: usize,
    /// When it last took one.
    since: Instant,
}

impl Late {
    /// Nothing waits yet; so many bytes may for each peer.
    pub(super) fn new(room: usize) -> Self {
        Self { peers: HashMap::new(), room, again: None }
    }

    /// Sends at once where nothing waits for its peer, else behind that; gives it back when there is no room or nobody.
    pub(super) fn send(
        &mut self,
        socket: &zmq::Socket,
        frames: Frames,
    ) -> Result<(), (Undelivered, Frames)> {
        let waits = !self.peers.is_empty()
            && frames.first().is_some_and(|peer| self.peers.contains_key(peer));
        let frames = if waits {
            frames
        } else {
            match try_send(socket, true, frames) {
                Ok(()) => return Ok(()),
                Err((Attempt::Never(Undelivered::Full), frames)) => frames,
                Err((Attempt::Never(why), frames)) => return Err((why, frames)),
                Err((Attempt::Later, frames)) => frames,
            }
        };
        let bytes = size(&frames);
        let waits = self.peers.get(&frames[0]).map_or(0, |waiting| waiting.bytes);
        if waits + bytes > self.room {
            return Err((Undelivered::Full, frames));
        }
        let now = Instant::now();
        let waiting = || Waiting { messages: VecDeque::new(), bytes: 0, since: now };
        let waiting = self.peers.entry(frames[0].clone()).or_insert_with(waiting);
        waiting.bytes += bytes;
        waiting.messages.push_back(frames);
        self.again.get_or_insert(now + AGAIN);
        Ok(())
    }

    /// Tries again, where it is time; what is given up is handed back.
    pub(super) fn try_again(
        &mut self,
        socket: &zmq::Socket,
        now: Instant,
    ) -> Vec<(Frames, Undelivered)> {
        let mut given_up = Vec::new();
        if self.again.is_none_or(|at| at > now) {
            return given_up;
        }
        self.peers.retain(|_, waiting| {
            let why = loop {
                let Some(frames) = waiting.messages.pop_front() else { return false };
                let bytes = size(&frames);
                match try_send(socket, true, frames) {
                    Ok(()) => {
                        waiting.since = now;
                        waiting.bytes -= bytes;
                    }
                    Err((Attempt::Never(Undelivered::Full) | Attempt::Later, frames)) => {
                        waiting.messages.push_front(frames);
                        if now.duration_since(waiting.since) < PATIENCE {
                            return true;
                        }
                        break Undelivered::Full;
                    }
                    Err((Attempt::Never(why), frames)) => {
                        waiting.messages.push_front(frames);
                        break why;
                    }
                }
            };
            given_up.extend(waiting.messages.drain(..).map(|frames| (frames, why)));
            false
        });
        self.again = (!self.peers.is_empty()).then_some(now + AGAIN);
        given_up
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.peers.values().map(|waiting| waiting.messages.len()).sum()
    }
}

/// What a message costs while it waits, in bytes.
fn size(frames: &Frames) -> usize {
    frames.iter().map(|frame| size_of::<Frame>() + frame.len()).sum()
}
