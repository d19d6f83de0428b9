//! Addresses of sockets, checked before libzmq sees them: it says only `EINVAL` or `ENAMETOOLONG`.

use std::path::{Path, PathBuf};

use crate::run_dir::MAX_SOCKET_PATH;

/// Where a socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A path in the file system.
    Ipc(PathBuf),
    /// `host:port`.
    Tcp(String),
}

/// Why an address cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Longer than the kernel takes.
    #[error(
        "socket path `{path}` has {length} bytes, {MAX_SOCKET_PATH} is the most: use a shorter folder"
    )]
    TooLong {
        /// The path.
        path: String,
        /// Its length.
        length: usize,
    },
    /// A relative path means another file in another folder.
    #[error("socket path `{path}` is not absolute: write `ipc:///…`")]
    Relative {
        /// The path.
        path: String,
    },
    /// Neither `ipc://` nor `tcp://`.
    #[error("`{text}` is no address: write `ipc:///path` or `tcp://host:port`")]
    Scheme {
        /// What was given.
        text: String,
    },
    /// Not `host:port`.
    #[error(
        "`{text}` has no port from 1 to 65535 (or `*` for a free one): write `tcp://host:port`"
    )]
    Port {
        /// What was given.
        text: String,
    },
    /// A NUL would end the text for libzmq.
    #[error("an address may not hold a NUL byte")]
    Nul,
}

impl Endpoint {
    /// Reads `ipc:///path` or `tcp://host:port`.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        if text.contains('\0') {
            return Err(EndpointError::Nul);
        }
        if let Some(path) = text.strip_prefix("ipc://") {
            if !path.starts_with('/') {
                return Err(EndpointError::Relative { path: path.to_owned() });
            }
            if path.len() > MAX_SOCKET_PATH {
                return Err(EndpointError::TooLong { path: path.to_owned(), length: path.len() });
            }
            return Ok(Self::Ipc(PathBuf::from(path)));
        }
        let Some(address) = text.strip_prefix("tcp://") else {
            return Err(EndpointError::Scheme { text: text.to_owned() });
        };
        let valid = |port: &str| port == "*" || port.parse::<u16>().is_ok_and(|port| port > 0);
        match address.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && valid(port) => {
                Ok(Self::Tcp(address.to_owned()))
            }
            _ => Err(EndpointError::Port { text: text.to_owned() }),
        }
    }

    /// The socket's file.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Ipc(path) => Some(path),
            Self::Tcp(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_at_the_border() {
        assert_eq!(Endpoint::parse("ipc:///run/x"), Ok(Endpoint::Ipc("/run/x".into())));
        assert!(Endpoint::parse("tcp://127.0.0.1:*").is_ok());
        assert!(Endpoint::parse("tcp://[::1]:44").is_ok());
        let long = format!("ipc:///{}", "x".repeat(107));
        assert_eq!(
            Endpoint::parse(&long),
            Err(EndpointError::TooLong { path: long[6..].to_owned(), length: 108 })
        );
        assert!(Endpoint::parse(&long[..long.len() - 1]).is_ok());
        for bad in [
            "",
            "x",
            "ipc://x",
            "tcp://h",
            "tcp://h:0",
            "tcp://:1",
            "tcp://h:70000",
            "inproc://a",
            "ipc:///a\0b",
        ] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
