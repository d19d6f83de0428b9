//! The configuration of an HTTP interface: lymph's keys, and bounds.

use std::time::Duration;

use hilum_shared::units::{Bytes, parse_duration, parse_size};
use serde::{Deserialize, Deserializer};

/// How an HTTP interface is served. Keys that are not known belong to the interface itself and are passed over.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where it listens: a shared socket of this port where the node passes one, else a port of its own; 0 or none for
    /// a free one.
    pub port: Option<u16>,
    /// The shared socket of this name (`sockets: [{name: …}]`), whatever its port.
    pub socket: Option<String>,
    /// The address of a port of its own. By default that of the node's `container.ip` (`LYMPH_NODE_IP`), else
    /// 127.0.0.1.
    pub ip: Option<String>,
    /// Connections at a time; further ones wait in the kernel, or go to another process on a shared socket. By default
    /// there is no limit but that of open files.
    #[serde(alias = "wsgi_pool_size")]
    pub max_connections: Option<usize>,
    /// How long a client may take for the head of a request, and a connection may be idle between two. The default of
    /// 75 s is more than the 60 s that proxies keep idle connections by default, so that they close them and not we.
    #[serde(deserialize_with = "duration")]
    pub header_timeout: Duration,
    /// The largest head of a request, in bytes, 8 KiB at least (64 KiB).
    #[serde(deserialize_with = "size")]
    pub max_head: Bytes,
    /// The largest body, in bytes, that an extractor reads (2 MiB). A route may have its own `DefaultBodyLimit`.
    #[serde(deserialize_with = "size")]
    pub max_body: Bytes,
    /// The health endpoint.
    pub healthcheck: Healthcheck,
    /// Headers that carry the trace.
    pub tracing: Tracing,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            port: None,
            socket: None,
            ip: None,
            max_connections: None,
            header_timeout: Duration::from_secs(75),
            max_head: Bytes(64 << 10),
            max_body: Bytes(2 << 20),
            healthcheck: Healthcheck::default(),
            tracing: Tracing::default(),
        }
    }
}

/// Where it is asked whether the interface is well.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Healthcheck {
    /// Whether there is one.
    pub enabled: bool,
    /// Its path (`/_health/`).
    pub endpoint: String,
}

impl Default for Healthcheck {
    fn default() -> Self {
        Self { enabled: true, endpoint: "/_health/".to_owned() }
    }
}

/// Headers that carry the trace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Tracing {
    /// From which a request's trace is taken. By default none is: whoever can reach a public port could write into the
    /// log under the trace of another.
    pub request_header: Option<String>,
    /// In which every response tells it (`X-Trace-Id`).
    pub response_header: String,
}

impl Default for Tracing {
    fn default() -> Self {
        Self { request_header: None, response_header: "X-Trace-Id".to_owned() }
    }
}

/// `75s`, or a number of seconds.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&Spelling::text(deserializer)?).map_err(serde::de::Error::custom)
}

/// `64KiB`, or a number of bytes.
fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    parse_size(&Spelling::text(deserializer)?).map_err(serde::de::Error::custom)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Spelling {
    Number(f64),
    Text(String),
}

impl Spelling {
    fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        Ok(match Self::deserialize(deserializer)? {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lymphs_keys_are_read_and_the_rest_belongs_to_the_interface() {
        let config: Config = serde_json::from_str(
            r#"{"class": "shop:Web", "port": 4080, "wsgi_pool_size": 50, "healthcheck": {"endpoint": "/up"},
                "tracing": {"request_header": "X-Request-Id"}, "header_timeout": "1m", "max_body": "1KiB", "max_head": 9000}"#,
        )
        .unwrap();
        assert_eq!((config.port, config.max_connections), (Some(4080), Some(50)));
        assert_eq!(config.header_timeout, Duration::from_secs(60));
        assert_eq!((config.max_body, config.max_head), (Bytes(1024), Bytes(9000)));
        assert_eq!(config.healthcheck, Healthcheck { enabled: true, endpoint: "/up".to_owned() });
        assert_eq!(config.tracing.request_header.as_deref(), Some("X-Request-Id"));
        assert_eq!(config.tracing.response_header, "X-Trace-Id");
        assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), Config::default());
        assert!(serde_json::from_str::<Config>(r#"{"header_timeout": -1}"#).is_err());
    }
}
