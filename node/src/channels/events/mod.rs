//! `events.sock`: the cluster's event broker. What it decides stands in `hilum_shared::events::broker`; here are its mail and its clock.
//!
//! ```text
//!  peers ─► ZeroMQ thread: inlet ─► mail ─► thread `events`: desk, with the broker ─► socket ─► peers
//!                     runtime: a run has ended ─┘
//! ```
//! A thread of its own, so that a flood of events delays neither supervision nor heartbeats. When more than [`MAX_MAIL`] waits for it, the
//! socket is not read, and emitters wait; what the broker itself has no room for is refused. A subscriber ends when its run has ended, its
//! connection is gone, or it does not read: what it had not answered goes to others.

mod desk;
mod inlet;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use hilum_shared::events::Answer;
use hilum_shared::rpc::router::{Incoming, PeerId};
use hilum_shared::transport::{Hub, Kind, Socket, SocketSpec};

use self::desk::Desk;
use self::inlet::Inlet;
use super::counters::Counters;
use super::roster::Roster;

/// Bytes that may wait between the socket and the broker.
const MAX_MAIL: usize = 8 << 20;

/// Messages that may be on their way to one peer: a thousand events for each of 64 handlers. One that has no room counts as gone, and
/// what it costs in memory is bounded by what the broker holds.
const IN_FLIGHT: u32 = 64_000;

/// What the broker's thread hears.
enum Note {
    /// A call.
    Call(Incoming, usize),
    /// How an event ended at a subscriber.
    Answer { peer: PeerId, number: u64, answer: Answer },
    /// A peer is gone or does not read.
    Gone(PeerId),
    /// The run of this token has ended.
    Ended(String),
    /// The node ends.
    Stop,
}

/// The way to the broker's thread. Strangers are held to [`MAX_MAIL`]; the rest is as many as there are runs and peers.
#[derive(Clone)]
struct Mail {
    notes: Sender<Note>,
    bytes: Arc<AtomicUsize>,
    /// Whether anybody has ever called: before that no run has anything that ends with it.
    called: Arc<AtomicBool>,
}

impl Mail {
    fn new() -> (Self, Receiver<Note>) {
        let (notes, received) = channel();
        (Self { notes, bytes: Arc::default(), called: Arc::default() }, received)
    }

    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::SeqCst) > MAX_MAIL
    }

    fn put(&self, note: Note) {
        if let Note::Call(_, size) = note {
            self.bytes.fetch_add(size, Ordering::SeqCst);
            self.called.store(true, Ordering::SeqCst);
        }
        let _ = self.notes.send(note); // the thread ends with the node
    }
}

/// The endpoint. Dropping it ends the broker.
pub struct Events {
    socket: Socket,
    mail: Mail,
    thread: Option<JoinHandle<()>>,
}

impl Events {
    /// Binds `endpoint` with this file mode. Where that lets other users in, only runs that `roster` knows may speak.
    ///
    /// # Errors
    /// When it cannot be bound, or there is no thread to be had.
    pub fn open(
        hub: &Hub,
        endpoint: &str,
        mode: u32,
        roster: Roster,
        counters: Counters,
    ) -> io::Result<Self> {
        let (mail, notes) = Mail::new();
        let inlet = Inlet::new(mail.clone(), counters.clone());
        let mut spec = SocketSpec::new(Kind::Router).bind(endpoint);
        (spec.mode, spec.monitor, spec.high_water, spec.queue) =
            (mode, true, IN_FLIGHT, IN_FLIGHT as usize);
        let socket = hub.open(spec, inlet).map_err(io::Error::other)?;
        let guarded = mode != 0o600;
        let desk = Desk::new(socket.clone(), mail.clone(), guarded.then_some(roster), counters);
        let thread = std::thread::Builder::new().name("events".to_owned());
        let thread = thread.spawn(move || desk.run(&notes))?;
        Ok(Self { socket, mail, thread: Some(thread) })
    }

    /// The run with this token has ended, and with it its subscriptions.
    pub fn ended(&self, token: &str) {
        if self.mail.called.load(Ordering::SeqCst) {
            self.mail.put(Note::Ended(token.to_owned()));
        }
    }

    /// The address.
    pub fn endpoint(&self) -> &str {
        self.socket.endpoint()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.mail.put(Note::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the event broker panicked");
        }
    }
}
