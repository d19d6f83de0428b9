//! Connections that others make to us.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::complaints::Peer;
use super::endpoint::Inner;
use super::link::{Link, LinkError, Owner};
use super::network::{Listener, Stream};
use super::reply;
use super::room::Room;
use super::wire::Wire;
use crate::transport::endpoint::Endpoint as Address;
use crate::wire::words::Word;
use crate::wire::zmtp::Hello;

/// After the system had no descriptor for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes connections for ever.
pub(super) async fn accept(inner: Arc<Inner>, mut listener: Box<dyn Listener>) {
    loop {
        match listener.accept().await {
            Ok(stream) => {
                if !inner.begin_handshake() {
                    return;
                }
                drop(tokio::spawn(Arc::clone(&inner).serve(stream)));
            }
            Err(error) => {
                tracing::warn!(address = listener.address(), %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Inner {
    /// Counts one more whose hands are to be shaken; not where we listen no longer: it is not told that it is connected.
    fn begin_handshake(&self) -> bool {
        let mut state = self.state();
        let listens = !state.listeners.is_empty();
        state.shaking += usize::from(listens);
        listens
    }

    /// The life of a connection that somebody made to us.
    async fn serve(self: Arc<Self>, stream: Stream) {
        let hello = Hello {
            socket_type: "ROUTER".into(),
            identity: self.address.as_bytes().to_vec(),
            cancels: true,
            leaves: false,
        };
        let address = stream.peer.clone();
        let opened =
            Link::open(stream, &hello, self.config.max_message, self.config.handshake).await;
        let mut link = match opened {
            Ok(link) => link,
            Err(error) => {
                self.state().shaking -= 1;
                tracing::debug!(peer = address, %error, "no handshake with a caller");
                return;
            }
        };
        link.room = Some(Room::new(&self.held));
        let wire = Wire::new(self.config.max_waiting);
        let key = Arc::as_ptr(&wire) as usize;
        {
            let mut state = self.state();
            state.shaking -= 1;
            if self.closed.load(Ordering::SeqCst) {
                return;
            }
            if state.accepted.len() >= self.config.max_connections {
                tracing::warn!(limit = self.config.max_connections, "connection refused: too many");
                return;
            }
            wire.shaken(&link.peer);
            if state.leaving {
                wire.say_leave();
            }
            state.accepted.insert(key, Arc::clone(&wire));
        }
        let identity = String::from_utf8(link.peer.identity.clone()).unwrap_or_default();
        let back = link.peer.socket_type == "ROUTER" && Address::parse(&identity).is_ok();
        let peer = Peer { address, name: identity };
        let mut owner = Accepted { inner: &self, wire: &wire, peer, back };
        let error = link.run(&wire, &mut owner, self.tick()).await.error;
        wire.close();
        if !back {
            // Answers would go here: nobody can have one any longer.
            wire.begun.lock().unwrap_or_else(PoisonError::into_inner).cancel_all();
        }
        if let LinkError::Zmtp(_) | LinkError::Crowded { .. } = &error {
            if self.complaints.is_to_be_told(&owner.peer) {
                tracing::warn!(peer = %owner.peer, %error, "a caller's connection is closed");
            }
        } else {
            tracing::trace!(%error, "a caller's connection ended");
        }
        self.state().accepted.remove(&key);
    }
}

/// What the task of a connection that was made to us minds.
struct Accepted<'a> {
    inner: &'a Arc<Inner>,
    wire: &'a Arc<Wire>,
    peer: Peer,
    /// A lymph container: answers go to its address.
    back: bool,
}

impl Owner for Accepted<'_> {
    fn message(&mut self, frames: &[&[u8]]) {
        if self.back
            && let Some(dial) = self.inner.state().dials.get(&self.peer.name)
        {
            dial.wire.hear();
        }
        let route = || {
            if self.back {
                reply::Route::Back(Arc::clone(self.inner), self.peer.name.clone())
            } else {
                reply::Route::Same(Arc::clone(self.wire))
            }
        };
        self.inner.take(frames, route, Some(self.wire), &self.peer);
    }

    fn word(&mut self, word: Word<'_>) {
        match word {
            Word::Cancel(id) => {
                self.wire.begun.lock().unwrap_or_else(PoisonError::into_inner).cancel(id);
            }
            Word::Left => self.wire.nothing_follows(),
            Word::Leave | Word::Refused(_) => {} // we have asked it nothing
        }
    }

    fn tick(&mut self) -> Result<(), LinkError> {
        let unused = self.wire.silence() > self.inner.config.idle_disconnect;
        if self.wire.is_closed() || unused && self.wire.open.load(Ordering::Relaxed) == 0 {
            return Err(LinkError::Idle);
        }
        Ok(())
    }
}
