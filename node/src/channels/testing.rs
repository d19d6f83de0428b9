//! Peers with real sockets in a short temporary folder.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use hilum_shared::transport::{Flow, Frames, Hub, Kind, Port, Socket, SocketSpec};

/// Far more than anything takes.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn wait_until(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "waited in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What an inbox gets next.
pub(super) fn next<T>(inbox: &mut tokio::sync::mpsc::Receiver<T>) -> T {
    let mut next = None;
    wait_until(|| {
        next = inbox.try_recv().ok();
        next.is_some()
    });
    next.unwrap()
}

/// The node's hub, another for its peers, and a folder.
pub(super) struct World {
    pub(super) hub: Hub,
    peers: Hub,
    folder: tempfile::TempDir,
}

/// A socket of a worker or client.
pub(super) struct Peer {
    socket: Socket,
    received: Receiver<Frames>,
}

/// A subscriber that reads only when it is asked to.
pub(super) struct Deaf {
    socket: zmq::Socket,
}

impl Deaf {
    pub(super) fn next(&self) -> Vec<Vec<u8>> {
        self.socket.recv_multipart(0).unwrap()
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            hub: Hub::start("zmq").unwrap(),
            peers: Hub::start("zmq-peers").unwrap(),
            folder: tempfile::Builder::new().prefix("h").tempdir_in("/tmp").unwrap(),
        }
    }

    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn address(&self, name: &str) -> String {
        format!("ipc://{}", self.path(name).display())
    }

    pub(super) fn dealer(&self, name: &str, id: &[u8]) -> Peer {
        let mut spec = SocketSpec::new(Kind::Dealer).connect(self.address(name));
        spec.routing_id = Some(id.to_vec());
        self.peer(spec)
    }

    pub(super) fn pusher(&self, name: &str) -> Peer {
        self.peer(SocketSpec::new(Kind::Push).connect(self.address(name)))
    }

    pub(super) fn subscriber(&self, name: &str, topic: &str) -> Peer {
        self.subscriber_at(&self.address(name), topic)
    }

    pub(super) fn subscriber_at(&self, endpoint: &str, topic: &str) -> Peer {
        let mut spec = SocketSpec::new(Kind::Sub).connect(endpoint);
        spec.subscribe = vec![topic.as_bytes().to_vec()];
        self.peer(spec)
    }

    pub(super) fn deaf_subscriber(&self, name: &str) -> Deaf {
        let socket = zmq::Context::new().socket(zmq::SUB).unwrap();
        socket.set_linger(0).unwrap();
        socket.set_rcvhwm(1).unwrap();
        socket.set_rcvtimeo(30_000).unwrap();
        socket.set_subscribe(b"").unwrap();
        socket.connect(&self.address(name)).unwrap();
        Deaf { socket }
    }

    fn peer(&self, spec: SocketSpec) -> Peer {
        let (sender, received): (SyncSender<Frames>, _) = sync_channel(10_000);
        let handler = move |frames: Frames, _: &mut Port<'_>| match sender.try_send(frames) {
            Err(TrySendError::Full(frames)) => Flow::Full(frames),
            _ => Flow::Taken,
        };
        Peer { socket: self.peers.open(spec, handler).unwrap(), received }
    }
}

impl Peer {
    pub(super) fn send(&self, frames: Frames) {
        self.socket.send(frames).unwrap();
    }

    pub(super) fn next(&self) -> Frames {
        self.received.recv_timeout(LIMIT).unwrap()
    }

    pub(super) fn try_next(&self) -> Option<Frames> {
        self.received.recv_timeout(Duration::from_millis(5)).ok()
    }
}
