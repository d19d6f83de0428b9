//! One socket on the ZeroMQ thread: reading for its handler, writing from its queue.

use std::collections::VecDeque;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::handler::{Attempt, Flow, Handler, Port, Undelivered, try_send};
use super::late::Late;
use super::lossless::refuse_when_full;
use super::monitor::{monitor_event, receive};
use super::socket::{Frames, Gate, OpenError};

/// Messages of one socket before the others get their turn.
const BATCH: usize = 256;

/// One socket on the thread.
pub(super) struct Slot {
    pub(super) id: u64,
    pub(super) socket: zmq::Socket,
    pub(super) monitor: Option<zmq::Socket>,
    pub(super) place: Option<Place>,
    pub(super) router: bool,
    /// Whether it sends to subscribers: one that does not read loses messages and holds up nobody.
    pub(super) xpub: bool,
    pub(super) receives: bool,
    pub(super) handler: Box<dyn Handler>,
    pub(super) gate: Arc<Gate>,
    /// Messages that wait for libzmq to have room; all of them are counted in the gate.
    pub(super) outbox: VecDeque<Frames>,
    /// How many the outbox may hold before a handler's reply is refused.
    pub(super) queue: usize,
    /// Of a ROUTER: what waits for one peer each. It is not counted in the gate.
    pub(super) late: Late,
    pub(super) parked: Option<Frames>,
    pub(super) wake: Option<Instant>,
    pub(super) pace: Duration,
    /// Until then it is not read.
    pub(super) rest: Option<Instant>,
}

/// The path that a socket is bound to, and the file that libzmq made there.
pub(super) struct Place {
    endpoint: String,
    path: PathBuf,
    mode: u32,
    file: Option<(u64, u64)>,
}

impl Place {
    /// Notes what has just been bound, and gives it its mode.
    pub(super) fn take(endpoint: &str, path: PathBuf, mode: u32) -> Result<Self, OpenError> {
        std::fs::set_permissions(&path, Permissions::from_mode(mode))
            .map_err(|source| OpenError::Mode { path: path.display().to_string(), source })?;
        let file = identity(&path);
        Ok(Self { endpoint: endpoint.to_owned(), path, mode, file })
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

impl Slot {
    /// Binds its path anew where that leads elsewhere; `None` where all is well.
    pub(super) fn mend(&mut self) -> Option<Result<String, OpenError>> {
        let place = self.place.as_mut()?;
        if place.file.is_some() && identity(&place.path) == place.file {
            return None;
        }
        let bound = self.socket.bind(&place.endpoint).map_err(|source| OpenError::Address {
            action: "bind",
            endpoint: place.endpoint.clone(),
            source,
        });
        let taken =
            bound.and_then(|()| Place::take(&place.endpoint, place.path.clone(), place.mode));
        Some(taken.map(|new| {
            *place = new;
            place.endpoint.clone()
        }))
    }

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
            late: &mut self.late,
            room: self.queue,
            wake: &mut wake,
        };
        let result = work(&mut *self.handler, &mut port);
        for _ in before..self.outbox.len() {
            self.gate.queued.fetch_add(1, Ordering::SeqCst);
        }
        if let Some(delay) = wake {
            let at = Instant::now() + delay;
            // Who is called again and again may not put it off for ever.
            self.wake = Some(self.wake.map_or(at, |known| known.min(at)));
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
        if !self.pace.is_zero() {
            self.rest = Some(Instant::now() + self.pace);
        }
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
        if self.xpub {
            return self.publish(frames);
        }
        if self.router {
            return match self.late.send(&self.socket, frames) {
                Ok(()) => self.gate.release(),
                Err((why, frames)) => self.give_up(frames, why),
            };
        }
        if !self.outbox.is_empty() {
            self.outbox.push_back(frames);
            return;
        }
        match try_send(&self.socket, false, frames) {
            Ok(()) => self.gate.release(),
            Err((Attempt::Later, frames)) => self.outbox.push_back(frames),
            Err((Attempt::Never(why), frames)) => self.give_up(frames, why),
        }
    }

    /// Sends to every subscriber that has room, and tells when one had none.
    fn publish(&mut self, frames: Frames) {
        match try_send(&self.socket, false, frames) {
            Ok(()) => self.gate.release(),
            Err((Attempt::Never(why), frames)) => self.give_up(frames, why),
            Err((Attempt::Later, frames)) => {
                self.handler.missed(&frames);
                // Refused for one, it is still for the others. Neither option nor send can fail on an open socket.
                let _ = refuse_when_full(&mut self.socket, false);
                let _ = try_send(&self.socket, false, frames);
                let _ = refuse_when_full(&mut self.socket, true);
                self.gate.release();
            }
        }
    }

    /// Tries what waits for single peers, where it is time.
    pub(super) fn try_again(&mut self, now: Instant) {
        for (frames, why) in self.late.try_again(&self.socket, now) {
            self.gate.undelivered.fetch_add(1, Ordering::Relaxed);
            self.handler.undelivered(frames, why);
        }
    }

    fn give_up(&mut self, frames: Frames, why: Undelivered) {
        self.gate.release();
        self.gate.undelivered.fetch_add(1, Ordering::Relaxed);
        self.handler.undelivered(frames, why);
    }

    pub(super) fn flush(&mut self) {
        while let Some(frames) = self.outbox.pop_front() {
            match try_send(&self.socket, false, frames) {
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
        if self.receives && self.parked.is_none() && self.rest.is_none() {
            events |= zmq::POLLIN;
        }
        if !self.outbox.is_empty() {
            events |= zmq::POLLOUT;
        }
        events
    }
}
