//! One socket on the ZeroMQ thread: reading for its handler, writing from its queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::socket::{
    Attempt, FRAME_LIMIT, Flow, Frames, Gate, Handler, Port, SocketEvent, Undelivered, try_send,
};

/// Messages of one socket before the others get their turn.
const BATCH: usize = 256;

/// One socket on the thread.
pub(super) struct Slot {
    pub(super) id: u64,
    pub(super) socket: zmq::Socket,
    pub(super) monitor: Option<zmq::Socket>,
    pub(super) router: bool,
    pub(super) receives: bool,
    pub(super) handler: Box<dyn Handler>,
    pub(super) gate: Arc<Gate>,
    /// Messages that wait for libzmq to have room; all of them are counted in the gate.
    pub(super) outbox: VecDeque<Frames>,
    /// How many the outbox may hold before a handler's reply is refused.
    pub(super) queue: usize,
    pub(super) parked: Option<Frames>,
    pub(super) wake: Option<Instant>,
}

impl Slot {
    /// Lets the handler work with its socket.
    pub(super) fn with_port<T>(
        &mut self,
        work: impl FnOnce(&mut dyn Handler, &mut Port<'_>) -> T,
    ) -> T {
        let mut wake = None;
        let before = self.outbox.len();
        let mut port = Port {
            socket: &self.socket,
            router: self.router,
            outbox: &mut self.outbox,
            room: self.queue,
            wake: &mut wake,
        };
        let result = work(&mut *self.handler, &mut port);
        for _ in before..self.outbox.len() {
            self.gate.queued.fetch_add(1, Ordering::SeqCst);
        }
        if let Some(delay) = wake {
            self.wake = Some(Instant::now() + delay);
        }
        result
    }

    pub(super) fn deliver(&mut self, frames: Frames) {
        let Flow::Full(frames) = self.with_port(|handler, port| handler.message(frames, port))
        else {
            return;
        };
        // The consumer may have made room before it could see that we pause: say it, then try once more.
        self.gate.paused.store(true, Ordering::SeqCst);
        match self.with_port(|handler, port| handler.message(frames, port)) {
            Flow::Taken => self.gate.paused.store(false, Ordering::SeqCst),
            Flow::Full(frames) => self.parked = Some(frames),
        }
    }

    pub(super) fn resume(&mut self) {
        if let Some(frames) = self.parked.take() {
            self.deliver(frames);
        }
    }

    /// Reads what is there, a batch at most.
    pub(super) fn read(&mut self) {
        for _ in 0..BATCH {
            if self.parked.is_some() {
                return;
            }
            match receive(&self.socket) {
                Ok(Some(frames)) => self.deliver(frames),
                Ok(None) => self.handler.rejected(),
                Err(_) => return,
            }
        }
    }

    pub(super) fn read_monitor(&mut self) {
        loop {
            let Some(Ok(Some(frames))) = self.monitor.as_ref().map(receive) else {
                return;
            };
            if let Some(event) = monitor_event(&frames) {
                self.with_port(|handler, port| handler.event(event, port));
            }
        }
    }

    pub(super) fn send(&mut self, frames: Frames) {
        if !self.outbox.is_empty() {
            self.outbox.push_back(frames);
            return;
        }
        match try_send(&self.socket, self.router, frames) {
            Ok(()) => self.gate.release(),
            Err((Attempt::Later, frames)) => self.outbox.push_back(frames),
            Err((Attempt::Never(why), frames)) => self.give_up(frames, why),
        }
    }

    pub(super) fn give_up(&mut self, frames: Frames, why: Undelivered) {
        self.gate.release();
        self.gate.undelivered.fetch_add(1, Ordering::Relaxed);
        self.handler.undelivered(frames, why);
    }

    pub(super) fn flush(&mut self) {
        while let Some(frames) = self.outbox.pop_front() {
            match try_send(&self.socket, self.router, frames) {
                Ok(()) => self.gate.release(),
                Err((Attempt::Later, frames)) => {
                    self.outbox.push_front(frames);
                    return;
                }
                Err((Attempt::Never(why), frames)) => self.give_up(frames, why),
            }
        }
    }

    pub(super) fn interests(&self) -> zmq::PollEvents {
        let mut events = zmq::PollEvents::empty();
        if self.receives && self.parked.is_none() {
            events |= zmq::POLLIN;
        }
        if !self.outbox.is_empty() {
            events |= zmq::POLLOUT;
        }
        events
    }
}

/// Receives one whole message without waiting; `None` when it had too many frames.
fn receive(socket: &zmq::Socket) -> zmq::Result<Option<Frames>> {
    let mut frames = Frames::new();
    let mut count = 0;
    loop {
        let part = match socket.recv_bytes(zmq::DONTWAIT) {
            Err(zmq::Error::EINTR) => continue,
            other => other?,
        };
        count += 1;
        if count <= FRAME_LIMIT {
            frames.push(part);
        }
        if !socket.get_rcvmore()? {
            return Ok((count <= FRAME_LIMIT).then_some(frames));
        }
    }
}

const WATCHED: [zmq::SocketEvent; 3] = [
    zmq::SocketEvent::HANDSHAKE_SUCCEEDED,
    zmq::SocketEvent::DISCONNECTED,
    zmq::SocketEvent::CONNECT_RETRIED,
];

/// Lets libzmq tell of `socket`'s connections on a second socket.
pub(crate) fn watch(
    context: &zmq::Context,
    socket: &zmq::Socket,
    id: u64,
) -> zmq::Result<zmq::Socket> {
    let address = format!("inproc://watch-{id}");
    let events = WATCHED
        .iter()
        .fold(0, |all, event| all | i32::from(event.to_raw()));
    socket.monitor(&address, events)?;
    let monitor = context.socket(zmq::PAIR)?;
    monitor.set_linger(0)?;
    monitor.connect(&address)?;
    Ok(monitor)
}

/// Reads a message of [`watch`]'s socket: 16 bits of event, 32 bits of value, in the machine's own order.
pub(crate) fn monitor_event(frames: &[Vec<u8>]) -> Option<SocketEvent> {
    let head = frames.first()?.get(..2)?;
    let raw = u16::from_ne_bytes([head[0], head[1]]);
    if raw == zmq::SocketEvent::HANDSHAKE_SUCCEEDED.to_raw() {
        Some(SocketEvent::Connected)
    } else if raw == zmq::SocketEvent::DISCONNECTED.to_raw() {
        Some(SocketEvent::Disconnected)
    } else if raw == zmq::SocketEvent::CONNECT_RETRIED.to_raw() {
        Some(SocketEvent::Refused)
    } else {
        None
    }
}
