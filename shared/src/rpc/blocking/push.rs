//! A PUSH in the calling thread. It knows what the kernel has taken, which libzmq does not tell: that is what the other side gets, though
//! this process end in the next moment.

use std::time::Duration;

use super::connection::{Connection, Failure, Wait};
use crate::transport::Frames;
use crate::transport::endpoint::{Endpoint, EndpointError};

/// Between two tries to connect.
const AGAIN: Duration = Duration::from_millis(50);

/// Sends to one PULL; connects with the first message, and again where the connection ends.
pub struct Push {
    endpoint: Endpoint,
    connection: Option<Connection>,
}

impl Push {
    /// A sender to this address.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(endpoint: &str) -> Result<Self, EndpointError> {
        Ok(Self { endpoint: Endpoint::parse(endpoint)?, connection: None })
    }

    /// Sends a message, waiting for the other side as long as it takes: `true` when every byte is with the kernel. `cancelled` is
    /// asked at least ten times a second while it waits.
    pub fn send(&mut self, frames: &Frames, cancelled: &dyn Fn() -> bool) -> bool {
        let wait = Wait::new(Duration::MAX, cancelled);
        while !cancelled() {
            match self.try_send(frames, wait) {
                Ok(()) => return true,
                // A message that was torn is thrown away by who got its first half.
                Err(_) => self.connection = None,
            }
            if !cancelled() {
                std::thread::sleep(AGAIN);
            }
        }
        false
    }

    fn try_send(&mut self, frames: &Frames, wait: Wait<'_>) -> Result<(), Failure> {
        if self.connection.as_mut().is_some_and(Connection::is_over) {
            self.connection = None;
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(&self.endpoint, "PUSH", wait)?),
        };
        connection.send(frames, wait)
    }
}
