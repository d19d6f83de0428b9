//! What a socket's owner implements, on the ZeroMQ thread, and what it holds of its socket meanwhile.

use std::collections::VecDeque;
use std::time::Duration;

use super::late::Late;
use super::socket::Frames;

/// What a handler did with a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Flow {
    /// Taken, or thrown away.
    Taken,
    /// There is no room: the socket is not read until [`Socket::resume`](super::Socket::resume), then these come again first.
    Full(Frames),
}

/// Why a message of ours did not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// A ROUTER knows nobody by that routing id (any more).
    Gone,
    /// A ROUTER's peer does not read.
    Full,
    /// libzmq does not take it: too many frames, or the socket's kind does not send.
    Invalid,
}

/// What a monitored socket saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketEvent {
    /// Somebody came to a bound socket; each such connection ends with [`SocketEvent::Disconnected`], whether or not it shakes hands.
    Accepted,
    /// A peer is there and has shaken hands.
    Connected,
    /// A connection ended.
    Disconnected,
    /// Nobody listened; another try follows.
    Refused,
}

/// What a socket's owner does, on the ZeroMQ thread: it must never block.
///
/// A closure `FnMut(Frames, &mut Port) -> Flow` is a handler that minds only messages.
pub trait Handler: Send {
    /// A message came.
    fn message(&mut self, frames: Frames, port: &mut Port<'_>) -> Flow;

    /// A message did not leave.
    fn undelivered(&mut self, _frames: Frames, _why: Undelivered) {}

    /// A message of an XPUB leaves now, but a subscriber's queue is full and it will not get it.
    fn missed(&mut self, _frames: &Frames) {}

    /// A message had more than [`MAX_FRAMES`](crate::wire::limits::MAX_FRAMES) frames and was dropped.
    fn rejected(&mut self) {}

    /// A connection came or went; only where [`SocketSpec::monitor`](super::SocketSpec::monitor) is set.
    fn event(&mut self, _event: SocketEvent, _port: &mut Port<'_>) {}

    /// The time asked for by [`Port::wake_in`] has passed.
    fn timer(&mut self, _port: &mut Port<'_>) {}
}

impl<F: FnMut(Frames, &mut Port<'_>) -> Flow + Send> Handler for F {
    fn message(&mut self, frames: Frames, port: &mut Port<'_>) -> Flow {
        self(frames, port)
    }
}

/// A handler's own socket, while it runs.
pub struct Port<'a> {
    pub(super) socket: &'a zmq::Socket,
    pub(super) router: bool,
    pub(super) outbox: &'a mut VecDeque<Frames>,
    pub(super) late: &'a mut Late,
    pub(super) room: usize,
    pub(super) wake: &'a mut Option<Duration>,
}

impl Port<'_> {
    /// Sends at once, or puts it behind what waits already.
    ///
    /// # Errors
    /// When it did not leave and will not.
    pub fn send(&mut self, frames: Frames) -> Result<(), Undelivered> {
        if self.router {
            return self.late.send(self.socket, frames).map_err(|(why, _)| why);
        }
        if self.outbox.is_empty() {
            match try_send(self.socket, false, frames) {
                Ok(()) => return Ok(()),
                Err((Attempt::Later, frames)) if self.room > 0 => self.outbox.push_back(frames),
                Err((Attempt::Later, _)) => return Err(Undelivered::Full),
                Err((Attempt::Never(why), _)) => return Err(why),
            }
        } else if self.outbox.len() < self.room {
            self.outbox.push_back(frames);
        } else {
            return Err(Undelivered::Full);
        }
        Ok(())
    }

    /// Whether a message can be read now.
    pub fn is_readable(&self) -> bool {
        // Only a socket that is closed has no answer.
        self.socket.get_events().is_ok_and(|events| events.contains(zmq::POLLIN))
    }

    /// Asks for one call of [`Handler::timer`] after this time; where one is due sooner, that stands.
    pub fn wake_in(&mut self, delay: Duration) {
        *self.wake = Some(delay);
    }
}

pub(super) enum Attempt {
    Later,
    Never(Undelivered),
}

/// Sends without blocking; gives the message back when it did not leave.
pub(super) fn try_send(
    socket: &zmq::Socket,
    router: bool,
    frames: Frames,
) -> Result<(), (Attempt, Frames)> {
    let last = match frames.len() {
        0 => return Err((Attempt::Never(Undelivered::Invalid), frames)),
        count => count - 1,
    };
    for (at, frame) in frames.iter().enumerate() {
        let more = if at < last { zmq::SNDMORE } else { 0 };
        let mut asked = false;
        let attempt = loop {
            match socket.send(frame.as_slice(), zmq::DONTWAIT | more) {
                Err(zmq::Error::EINTR) => {}
                // A send looks only now and then at what peers have read since; asking for events always does.
                Err(zmq::Error::EAGAIN) if !asked => {
                    asked = true;
                    let _ = socket.get_events();
                }
                other => break other,
            }
        };
        // Only the first frame can be refused for lack of room: libzmq takes the rest of a message with it.
        match attempt {
            Ok(()) => {}
            Err(zmq::Error::EAGAIN) if router => {
                return Err((Attempt::Never(Undelivered::Full), frames));
            }
            Err(zmq::Error::EAGAIN) => return Err((Attempt::Later, frames)),
            Err(zmq::Error::EHOSTUNREACH) => {
                return Err((Attempt::Never(Undelivered::Gone), frames));
            }
            Err(_) => return Err((Attempt::Never(Undelivered::Invalid), frames)),
        }
    }
    Ok(())
}
