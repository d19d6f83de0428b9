//! The shared listening sockets: bound once by the node, kept through every restart and reload, handed
//! to instances in blocking mode.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use hilum_shared::config::spec::SocketSpec;
use nix::sys::socket::{Backlog, listen};

use super::holder::{self, Holder};
use crate::launch::context::SharedSocket;

/// So many connections may wait while all instances restart; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 2048;

/// The sockets that are bound now.
#[derive(Debug, Default)]
pub struct Sockets {
    bound: BTreeMap<(String, u16), (Arc<OwnedFd>, u16)>,
}

/// A socket that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot bind socket `{host}:{port}`: {}", self.reason())]
pub struct SocketError {
    /// The host as configured.
    pub host: String,
    /// The port as configured.
    pub port: u16,
    /// Who has it, where that is the reason and can be known.
    pub holder: Option<Holder>,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl SocketError {
    fn reason(&self) -> String {
        let in_use = self.source.kind() == io::ErrorKind::AddrInUse;
        match (&self.holder, in_use) {
            (Some(holder), _) => format!("held by {holder}"),
            (None, true) => "in use, perhaps by another user's process".to_owned(),
            (None, false) => self.source.to_string(),
        }
    }
}

impl Sockets {
    /// Binds what is new, keeps what is bound, lets go of what is not named any more. The answer has the order of
    /// `specs`. When one cannot be bound, nothing has changed.
    ///
    /// # Errors
    /// The first that cannot be bound, with its holder.
    pub fn apply(&mut self, specs: &[SocketSpec]) -> Result<Vec<SharedSocket>, SocketError> {
        let mut next = BTreeMap::new();
        let mut shared = Vec::with_capacity(specs.len());
        for spec in specs {
            let key = (spec.host.clone(), spec.port);
            let known = next.get(&key).or_else(|| self.bound.get(&key)).cloned();
            let (fd, port) = match known {
                Some(bound) => bound,
                None => bind(spec)?,
            };
            shared.push(SharedSocket { name: spec.name.clone(), port, fd: Arc::clone(&fd) });
            next.insert(key, (fd, port));
        }
        self.bound = next;
        Ok(shared)
    }
}

fn bind(spec: &SocketSpec) -> Result<(Arc<OwnedFd>, u16), SocketError> {
    let (listener, port) = listener(&spec.host, spec.port)?;
    Ok((Arc::new(OwnedFd::from(listener)), port))
}

/// Listens, and says at which port. `SO_REUSEADDR` and close-on-exec are std's doing.
///
/// # Errors
/// When the address cannot be had, with who has it.
pub fn listener(host: &str, port: u16) -> Result<(TcpListener, u16), SocketError> {
    let bound = || {
        let listener = TcpListener::bind((host, port))?;
        listen(&listener, Backlog::new(BACKLOG)?)?;
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    };
    bound().map_err(|source: io::Error| SocketError {
        host: host.to_owned(),
        port,
        holder: (source.kind() == io::ErrorKind::AddrInUse)
            .then(|| holder::of_port(port))
            .flatten(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn spec(port: u16) -> SocketSpec {
        SocketSpec { name: "web".into(), host: "127.0.0.1".into(), port }
    }

    #[test]
    fn a_socket_takes_connections_and_survives_a_reload() {
        let mut sockets = Sockets::default();
        let first = sockets.apply(&[spec(0)]).unwrap();
        TcpStream::connect(("127.0.0.1", first[0].port)).unwrap();
        let again = sockets.apply(&[spec(0)]).unwrap();
        assert_eq!(again[0].port, first[0].port);
        let port = first[0].port;
        drop((first, again));
        sockets.apply(&[]).unwrap();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    }

    #[test]
    fn a_taken_port_names_its_holder_and_changes_nothing() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap().port();
        let mut sockets = Sockets::default();
        let kept = sockets.apply(&[spec(0)]).unwrap()[0].port;
        let error = sockets.apply(&[spec(0), spec(taken)]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("127.0.0.1:{taken}")), "{text}");
        assert!(text.contains(&format!("held by pid {}", std::process::id())), "{text}");
        TcpStream::connect(("127.0.0.1", kept)).unwrap();
    }
}
