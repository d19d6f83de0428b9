//! The shared listening sockets: bound once by the node, kept through every restart and reload, handed
//! to instances in blocking mode. One that left the configuration is kept until the last run that has it is over, so that
//! it can come back: nobody could bind it beside that run.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use hilum_shared::config::spec::SocketSpec;
use nix::sys::socket::{Backlog, listen};

use super::holder::{self, Holder};

/// So many connections may wait while all instances restart; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 2048;

/// The sockets that are bound now. All copies are one table: whoever keeps one keeps no socket open.
#[derive(Clone, Debug, Default)]
pub struct Sockets(Rc<RefCell<BTreeMap<Address, Arc<OwnedFd>>>>);

/// Host and port, as configured.
type Address = (String, u16);

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
    /// The host at which this node has the same port.
    pub ours: Option<String>,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl SocketError {
    fn reason(&self) -> String {
        let in_use = self.source.kind() == io::ErrorKind::AddrInUse;
        if let (Some(host), true) = (&self.ours, in_use) {
            return format!(
                "this node has the port at `{host}`, and a port moves to another host only by `hilum down` and `hilum up`"
            );
        }
        match (&self.holder, in_use) {
            (Some(holder), _) => format!("held by {holder}"),
            (None, true) => "in use, perhaps by another user's process".to_owned(),
            (None, false) => self.source.to_string(),
        }
    }
}

/// All that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Unbound(pub Vec<SocketError>);

impl Sockets {
    /// Binds what is not bound yet. When one cannot be bound, nothing has changed.
    ///
    /// # Errors
    /// All that cannot be bound, with their holders.
    pub fn bind(&self, specs: &[SocketSpec]) -> Result<(), Unbound> {
        let fresh = self.fresh(specs)?;
        self.0.borrow_mut().extend(fresh);
        Ok(())
    }

    /// Whether [`Self::bind`] would do: what is not bound yet is bound for a moment.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn check(&self, specs: &[SocketSpec]) -> Result<(), Unbound> {
        self.fresh(specs).map(drop)
    }

    fn fresh(&self, specs: &[SocketSpec]) -> Result<BTreeMap<Address, Arc<OwnedFd>>, Unbound> {
        let bound = self.0.borrow();
        let mut fresh = BTreeMap::new();
        let mut errors = Vec::new();
        for SocketSpec { host, port, .. } in specs {
            let address = (host.clone(), *port);
            if bound.contains_key(&address) || fresh.contains_key(&address) {
                continue;
            }
            match listener(host, *port) {
                Ok((listener, _)) => {
                    fresh.insert(address, Arc::new(OwnedFd::from(listener)));
                }
                Err(mut error) => {
                    let ours = |(other, bound): &&Address| bound == port && other != host;
                    error.ours = bound.keys().find(ours).map(|(other, _)| other.clone());
                    errors.push(error);
                }
            }
        }
        if errors.is_empty() { Ok(fresh) } else { Err(Unbound(errors)) }
    }

    /// The listening socket, where it is bound.
    pub fn get(&self, spec: &SocketSpec) -> Option<Arc<OwnedFd>> {
        let bound = self.0.borrow();
        bound.iter().find(|((host, port), _)| is(spec, host, *port)).map(|(_, fd)| Arc::clone(fd))
    }

    /// Whether more are bound than these.
    pub fn exceed(&self, specs: &[SocketSpec]) -> bool {
        let bound = self.0.borrow();
        bound.keys().any(|(host, port)| !specs.iter().any(|spec| is(spec, host, *port)))
    }

    /// Closes all but these.
    pub fn retain<'a>(&self, specs: impl Iterator<Item = &'a SocketSpec>) {
        let kept: BTreeSet<_> = specs.map(|spec| (spec.host.as_str(), spec.port)).collect();
        self.0.borrow_mut().retain(|(host, port), _| kept.contains(&(host.as_str(), *port)));
    }
}

fn is(spec: &SocketSpec, host: &str, port: u16) -> bool {
    spec.host == host && spec.port == port
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
        ours: None,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn spec(host: &str, port: u16) -> SocketSpec {
        SocketSpec { name: "web".into(), host: host.into(), port }
    }

    fn free() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn a_socket_takes_connections_until_it_is_not_kept_whoever_has_a_copy_of_the_table() {
        let one = spec("127.0.0.1", free());
        let two = std::iter::repeat_with(free).find(|port| *port != one.port).unwrap();
        let two = spec("127.0.0.1", two);
        let sockets = Sockets::default();
        let copy = sockets.clone();
        sockets.bind(std::slice::from_ref(&one)).unwrap();
        sockets.bind(&[one.clone(), two.clone()]).unwrap();
        assert!(copy.get(&one).is_some() && copy.exceed(std::slice::from_ref(&two)));
        TcpStream::connect((one.host.as_str(), one.port)).unwrap();
        sockets.retain([&two].into_iter());
        assert!(TcpStream::connect((one.host.as_str(), one.port)).is_err());
        TcpStream::connect((two.host.as_str(), two.port)).unwrap();
        assert!(copy.get(&one).is_none() && !copy.exceed(&[two]));
    }

    #[test]
    fn a_taken_port_names_its_holder_and_changes_nothing() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap().port();
        let (kept, new) = (spec("127.0.0.1", free()), spec("127.0.0.1", free()));
        let sockets = Sockets::default();
        sockets.bind(std::slice::from_ref(&kept)).unwrap();
        let all = [kept.clone(), new.clone(), spec("127.0.0.1", taken)];
        let text = sockets.check(&all).unwrap_err().to_string();
        assert_eq!(sockets.bind(&all).unwrap_err().to_string(), text);
        assert!(text.contains(&format!("127.0.0.1:{taken}")), "{text}");
        assert!(text.contains(&format!("held by pid {}", std::process::id())), "{text}");
        assert!(sockets.get(&kept).is_some() && sockets.get(&new).is_none());
        assert!(sockets.check(&[kept, new.clone()]).is_ok());
        assert!(sockets.get(&new).is_none(), "a check binds nothing");
    }

    #[test]
    fn a_port_that_is_ours_at_another_host_says_what_moves_it() {
        let here = spec("127.0.0.1", free());
        let sockets = Sockets::default();
        sockets.bind(std::slice::from_ref(&here)).unwrap();
        let text = sockets.bind(&[spec("0.0.0.0", here.port)]).unwrap_err().to_string();
        assert!(text.contains("this node has the port at `127.0.0.1`"), "{text}");
    }
}
