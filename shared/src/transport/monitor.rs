//! Reading from a socket without waiting, and libzmq's news of its connections.

use super::handler::SocketEvent;
use super::socket::{FRAME_LIMIT, Frames};

/// Receives one whole message without waiting; `None` when it had too many frames.
pub(crate) fn receive(socket: &zmq::Socket) -> zmq::Result<Option<Frames>> {
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

const WATCHED: [zmq::SocketEvent; 4] = [
    zmq::SocketEvent::ACCEPTED,
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
    let events = WATCHED.iter().fold(0, |all, event| all | i32::from(event.to_raw()));
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
    if raw == zmq::SocketEvent::ACCEPTED.to_raw() {
        Some(SocketEvent::Accepted)
    } else if raw == zmq::SocketEvent::HANDSHAKE_SUCCEEDED.to_raw() {
        Some(SocketEvent::Connected)
    } else if raw == zmq::SocketEvent::DISCONNECTED.to_raw() {
        Some(SocketEvent::Disconnected)
    } else if raw == zmq::SocketEvent::CONNECT_RETRIED.to_raw() {
        Some(SocketEvent::Refused)
    } else {
        None
    }
}
