//! Where connections come from: the system's sockets, or a network inside the process.
//!
//! The seam lies at the bytes, so that a test without sockets runs everything above them, ZMTP included.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::ipc;
use crate::transport::endpoint::Endpoint as Address;
use crate::transport::reach;

/// A future behind a pointer, for traits that are used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Both directions of a connection.
pub struct Stream {
    /// What the other side sends.
    pub read: Box<dyn AsyncRead + Send + Unpin>,
    /// What we send.
    pub write: Box<dyn AsyncWrite + Send + Unpin>,
    /// Who is there, for people: `host:port`, or a process of this machine.
    pub peer: String,
}

/// Makes connections.
pub trait Network: Send + Sync + 'static {
    /// Connects to an address.
    ///
    /// # Errors
    /// When nobody is there.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Stream>>;

    /// Listens at an address. `*` in place of a port asks for a free one.
    ///
    /// # Errors
    /// When it cannot be had.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
}

/// Takes connections, until it is dropped.
pub trait Listener: Send + 'static {
    /// The address as others write it, with the real port; see [`reach::told`] of one that listens on all addresses.
    fn address(&self) -> &str;

    /// The next connection. Cancelling it loses none.
    ///
    /// # Errors
    /// When the system has no descriptor to give; it is asked again.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Stream>>;
}

/// `tcp://host:port` and `ipc:///path`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sockets;

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

impl Network for Sockets {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async move {
            match Address::parse(address).map_err(invalid)? {
                Address::Tcp(host) => {
                    let stream = TcpStream::connect(&host).await?;
                    Ok(tcp(stream)?)
                }
                Address::Ipc(path) => ipc::split(UnixStream::connect(&path).await?),
            }
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            match Address::parse(address).map_err(invalid)? {
                Address::Tcp(text) => {
                    let (host, port) = text.rsplit_once(':').unwrap_or((&text, "*"));
                    let host = if host == "*" { "0.0.0.0" } else { host };
                    let port = if port == "*" { "0" } else { port };
                    let listener = TcpListener::bind(format!("{host}:{port}")).await?;
                    let port = listener.local_addr()?.port();
                    let address = reach::told(&format!("tcp://{host}:{port}"));
                    Ok(Box::new(TcpDoor { listener, address }) as Box<dyn Listener>)
                }
                Address::Ipc(path) => {
                    let listener = listen_at(&path)?;
                    let address = address.to_owned();
                    Ok(Box::new(UnixDoor { listener, path, address }) as Box<dyn Listener>)
                }
            }
        })
    }
}

fn tcp(stream: TcpStream) -> io::Result<Stream> {
    stream.set_nodelay(true)?; // messages are written whole: waiting for more only delays them
    // One that is gone by now has none, which its first read tells.
    let peer = stream
        .peer_addr()
        .map_or_else(|_| "a peer that is gone".to_owned(), |peer| peer.to_string());
    let (read, write) = stream.into_split();
    Ok(Stream { read: Box::new(read), write: Box::new(write), peer })
}

/// Binds a path, taking it over from an owner that has gone, never from one that listens.
fn listen_at(path: &PathBuf) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            match std::os::unix::net::UnixStream::connect(path) {
                Err(gone) if gone.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                    UnixListener::bind(path)?
                }
                _ => return Err(error),
            }
        }
        other => other?,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

struct TcpDoor {
    listener: TcpListener,
    address: String,
}

impl Listener for TcpDoor {
    fn address(&self) -> &str {
        &self.address
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async { tcp(self.listener.accept().await?.0) })
    }
}

struct UnixDoor {
    listener: UnixListener,
    path: PathBuf,
    address: String,
}

impl Listener for UnixDoor {
    fn address(&self) -> &str {
        &self.address
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async { ipc::split(self.listener.accept().await?.0) })
    }
}

impl Drop for UnixDoor {
    fn drop(&mut self) {
        // Left behind it would only be in the way of nobody: the next owner takes it over.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A network inside the process: any text is an address, `*` in it is replaced by a number. Clones are the same network.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    state: Arc<Mutex<Memory>>,
}

#[derive(Default)]
struct Memory {
    listeners: HashMap<String, mpsc::Sender<Stream>>,
    next: u32,
}

/// Bytes that wait in one direction of a connection.
const MEMORY_BUFFER: usize = 256 * 1024;
/// Connections that wait to be accepted.
const MEMORY_BACKLOG: usize = 128;

impl MemoryNetwork {
    /// A network with nobody in it.
    pub fn new() -> Self {
        Self::default()
    }

    fn with<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Network for MemoryNetwork {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async move {
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            let listener = self.with(|memory| memory.listeners.get(address).cloned());
            let listener = listener.ok_or_else(refused)?;
            let (ours, theirs) = tokio::io::duplex(MEMORY_BUFFER);
            let halves = |stream| {
                let (read, write) = tokio::io::split(stream);
                Stream { read: Box::new(read), write: Box::new(write), peer: "this process".into() }
            };
            listener.send(halves(theirs)).await.map_err(|_| refused())?;
            Ok(halves(ours))
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let (sender, connections) = mpsc::channel(MEMORY_BACKLOG);
            let address = self.with(|memory| {
                memory.next += 1;
                let address = address.replace('*', &memory.next.to_string());
                if memory.listeners.get(&address).is_some_and(|other| !other.is_closed()) {
                    return Err(io::Error::from(io::ErrorKind::AddrInUse));
                }
                memory.listeners.insert(address.clone(), sender);
                Ok(address)
            })?;
            Ok(Box::new(MemoryDoor { connections, address }) as Box<dyn Listener>)
        })
    }
}

struct MemoryDoor {
    connections: mpsc::Receiver<Stream>,
    address: String,
}

impl Listener for MemoryDoor {
    fn address(&self) -> &str {
        &self.address
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async {
            match self.connections.recv().await {
                Some(stream) => Ok(stream),
                None => std::future::pending().await, // its network is gone: nobody will come
            }
        })
    }
}
