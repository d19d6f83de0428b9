//! The ZeroMQ thread and its typed sockets.
//!
//! ```text
//!  any thread ── Socket::send ──► bounded queue ──┐ rings the eventfd
//!                                                 ▼
//!  peers ◄─────────────────────────────► thread: zmq_poll over sockets and eventfd
//!                                                 │ Handler::message: decode, try_send, never block
//!  consumer ◄── bounded channel of the handler's ─┘ full: the socket leaves the poll set until `resume`
//! ```
//!
//! One thread owns the context and every socket, since libzmq's sockets belong to one thread and `ZMQ_FD` cannot
//! be awaited safely. Idle, it sleeps in `zmq_poll` without a time limit. All signals are blocked on it.
//!
//! **Descriptors.** libzmq aborts the whole process when it gets no descriptor for its own mailboxes, and drops new
//! connections when `accept` gets none. Whoever starts a [`Hub`] raises the soft `RLIMIT_NOFILE` before, opens all
//! sockets at start, and keeps a reserve: each open socket costs one descriptor plus one for each peer (a monitored
//! one two more), the context four.

pub mod endpoint;
pub mod handler;
pub mod hub;
mod late;
mod lossless;
pub(crate) mod monitor;
pub mod reach;
mod slot;
pub mod socket;

pub use handler::{Flow, Handler, Port, SocketEvent, Undelivered};
pub use hub::{CloseReport, Hub, Mender};
pub use socket::{Frame, Frames, Kind, OpenError, SendError, Socket, SocketSpec};
