//! The listening socket: one of its own, or one that the node bound for all.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{Backlog, getsockopt, listen, sockopt};

use super::config::Config;

/// The first descriptor of `LISTEN_FDS` (`man 3 sd_listen_fds`).
const FIRST: RawFd = 3;
/// Connections that may wait to be accepted, as on the node's shared sockets; the kernel caps it at
/// `net.core.somaxconn`.
const BACKLOG: i32 = 2048;

/// Why there is nothing to listen on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system refused the address.
    #[error("cannot listen on `{address}`: {source}")]
    Address {
        /// `host:port`.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// No shared socket has this name.
    #[error(
        "no shared socket `{name}` was passed (there are: {known}): add it to the node's `sockets`"
    )]
    Unknown {
        /// As configured.
        name: String,
        /// The names of those that were passed.
        known: String,
    },
    /// A descriptor that the environment names is no listening TCP socket.
    #[error("descriptor {fd} of `{variable}` is not a listening TCP socket: {source}")]
    Descriptor {
        /// Its number.
        fd: RawFd,
        /// Where it is named.
        variable: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A variable that does not mean anything.
    #[error("variable `{variable}` is `{value}`: {expected} is expected")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// A header's name, or a path, in the configuration.
    #[error("`{value}` is not {expected}")]
    Setting {
        /// As configured.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
}

const FDS: &str = "LISTEN_FDS";
const BY_PORT: &str = "LYMPH_SHARED_SOCKET_FDS";

/// A socket to listen on.
#[derive(Debug)]
pub(super) struct Ear {
    pub(super) listener: TcpListener,
    pub(super) address: SocketAddr,
    /// Others accept on it, too.
    pub(super) shared: bool,
}

/// Finds or binds what `config` asks for. `get` answers with a variable of the environment.
pub(super) fn open(
    config: &Config,
    get: &impl Fn(&str) -> Option<String>,
) -> Result<Ear, BindError> {
    if let Some(name) = &config.socket {
        let passed = passed(get)?;
        return match passed.iter().find(|(there, _)| there == name) {
            Some(&(_, fd)) => claim(fd, FDS),
            None => {
                let known: Vec<&str> = passed.iter().map(|(name, _)| name.as_str()).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Err(BindError::Unknown { name: name.clone(), known })
            }
        };
    }
    let port = config.port.unwrap_or(0);
    if port != 0 {
        if let Some(fd) = by_port(get, port)? {
            return claim(fd, BY_PORT);
        }
        for (_, fd) in passed(get)? {
            // Others of them may be anything.
            if look(fd).is_ok_and(|(_, ear)| ear.address.port() == port) {
                return claim(fd, FDS);
            }
        }
    }
    let ip = config.ip.clone().or_else(|| get("LYMPH_NODE_IP").filter(|ip| !ip.is_empty()));
    bind(&ip.unwrap_or_else(|| "127.0.0.1".to_owned()), port)
}

fn bind(host: &str, port: u16) -> Result<Ear, BindError> {
    let bound = || {
        // Close-on-exec and SO_REUSEADDR are std's doing.
        let listener = TcpListener::bind((host, port))?;
        listen(&listener, Backlog::new(BACKLOG)?)?;
        let address = listener.local_addr()?;
        Ok(Ear { listener, address, shared: false })
    };
    bound().map_err(|source| BindError::Address { address: format!("{host}:{port}"), source })
}

/// The descriptors of systemd's protocol with their names; none where they were passed to another process.
fn passed(get: &impl Fn(&str) -> Option<String>) -> Result<Vec<(String, RawFd)>, BindError> {
    let pid = get("LISTEN_PID").and_then(|pid| pid.parse().ok());
    let Some(value) = get(FDS).filter(|_| pid == Some(std::process::id())) else {
        return Ok(Vec::new());
    };
    let Some(count) = value.parse().ok().filter(|count| (0..=1 << 16).contains(count)) else {
        return Err(BindError::Variable { variable: FDS, value, expected: "a small number" });
    };
    let names = get("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    Ok(names.zip(FIRST..FIRST + count).collect())
}

/// lymph's protocol: JSON, `{"4080": 3}`.
fn by_port(get: &impl Fn(&str) -> Option<String>, port: u16) -> Result<Option<RawFd>, BindError> {
    let Some(value) = get(BY_PORT).filter(|value| !value.is_empty()) else { return Ok(None) };
    match serde_json::from_str::<std::collections::HashMap<String, RawFd>>(&value) {
        Ok(fds) => Ok(fds.get(&port.to_string()).copied()),
        Err(_) => {
            let expected = "a JSON map of ports to descriptors";
            Err(BindError::Variable { variable: BY_PORT, value, expected })
        }
    }
}

/// Our own descriptor of a socket that was passed. The passed one stays, so that it can be claimed again, but is not
/// handed on to programs that this process starts.
fn claim(fd: RawFd, variable: &'static str) -> Result<Ear, BindError> {
    let claimed = || {
        let (passed, ear) = look(fd)?;
        fcntl(passed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        Ok(ear)
    };
    claimed().map_err(|source| BindError::Descriptor { fd, variable, source })
}

/// What is behind the number of a descriptor: an error where it is no TCP socket that listens.
#[expect(unsafe_code, reason = "a descriptor that is known by its number")]
fn look(fd: RawFd) -> io::Result<(BorrowedFd<'static>, Ear)> {
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}"))?;
    if !link.to_string_lossy().starts_with("socket:") {
        return Err(io::Error::other(format!("it is {}", link.display())));
    }
    // SAFETY: it is open, as was just seen, and its number was reserved for us before this program began: nothing else
    // in it closes what it did not open.
    let passed = unsafe { BorrowedFd::borrow_raw(fd) };
    let ours: OwnedFd = passed.try_clone_to_owned()?;
    if !getsockopt(&ours, sockopt::AcceptConn)? {
        return Err(io::Error::other("it does not listen"));
    }
    let listener = TcpListener::from(ours);
    let address = listener.local_addr()?;
    Ok((passed, Ear { listener, address, shared: true }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    fn open_with(config: &Config, pairs: &[(&str, String)]) -> Result<Ear, BindError> {
        open(config, &|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
        })
    }

    #[test]
    fn a_port_that_is_shared_is_claimed_and_can_be_claimed_again() {
        let node = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = node.local_addr().unwrap().port();
        let pairs = [(BY_PORT, format!("{{\"{port}\": {}}}", node.as_raw_fd()))];
        let config = Config { port: Some(port), ..Config::default() };
        for _ in 0..2 {
            let ear = open_with(&config, &pairs).unwrap();
            assert!(ear.shared && ear.address.port() == port);
            let client = std::net::TcpStream::connect(ear.address).unwrap();
            assert_eq!(ear.listener.accept().unwrap().1, client.local_addr().unwrap());
        }
        // Another port is no business of the shared one.
        let own = open_with(&Config::default(), &pairs).unwrap();
        assert!(!own.shared && own.address.port() != port && own.address.ip().is_loopback());
    }

    #[test]
    fn a_socket_has_a_name_and_belongs_to_one_process() {
        let pairs = |pid: u32, fds: &str| {
            [
                ("LISTEN_PID", pid.to_string()),
                (FDS, fds.to_owned()),
                ("LISTEN_FDNAMES", "front:back".to_owned()),
            ]
        };
        let me = std::process::id();
        let read = |pairs: &[(&str, String)]| {
            passed(&|name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
            })
        };
        let named = [("front".to_owned(), 3), ("back".to_owned(), 4), (String::new(), 5)];
        assert_eq!(read(&pairs(me, "3")).unwrap(), named);
        assert_eq!(read(&pairs(me + 1, "3")).unwrap(), []);
        assert!(read(&pairs(me, "-1")).is_err());
        let config = Config { socket: Some("side".into()), ..Config::default() };
        let error = open_with(&config, &pairs(me, "2")).unwrap_err().to_string();
        assert!(error.contains("`side`") && error.contains("front, back"), "{error}");
    }

    #[test]
    fn what_does_not_listen_is_an_error_that_says_so() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let config = Config { port: Some(80), ..Config::default() };
        for (value, said) in [
            (format!("{{\"80\": {}}}", file.as_raw_fd()), "/dev/null"),
            (format!("{{\"80\": {}}}", udp.as_raw_fd()), "not a listening TCP socket"),
            ("{\"80\": 1000000}".to_owned(), "1000000"),
            ("{\"80\": -1}".to_owned(), "-1"),
            ("80".to_owned(), "JSON"),
        ] {
            let error = open_with(&config, &[(BY_PORT, value)]).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains(BY_PORT), "{error}");
        }
        let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let _held = TcpListener::bind(taken).unwrap();
        let config = Config { port: Some(taken.port()), ..Config::default() };
        let error = open_with(&config, &[]).unwrap_err().to_string();
        assert!(error.contains(&taken.to_string()), "{error}");
    }
}
