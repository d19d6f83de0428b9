//! One instance of a service, as lymph writes it down.

use std::collections::BTreeMap;
use std::fmt::Write;

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

/// The interface that every container has.
pub const BUILTIN: &str = "lymph";
/// Its version: the lymph whose methods these are.
const BUILTIN_VERSION: &str = "0.15.0";

/// One instance of a service: lymph's keys, all of them written, unknown ones kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Unique among the instances of all services.
    #[serde(default)]
    pub id: String,
    /// Of the container; the same for all its services.
    #[serde(default)]
    pub identity: String,
    /// The version of the interface; `None` = it has none.
    #[serde(default)]
    pub version: Option<String>,
    /// Where requests go.
    pub endpoint: String,
    /// Where its log is published.
    #[serde(default)]
    pub log_endpoint: Option<String>,
    /// Where its metrics are published.
    #[serde(default)]
    pub monitoring_endpoint: Option<String>,
    /// `ip:port` of lymph's debugging shell.
    #[serde(default)]
    pub backdoor_endpoint: Option<String>,
    /// The host's full name.
    #[serde(default)]
    pub fqdn: Option<String>,
    /// The host's name.
    #[serde(default)]
    pub hostname: Option<String>,
    /// The host's address.
    #[serde(default)]
    pub ip: Option<String>,
    /// Whether it is a worker, in lymph's sense.
    #[serde(default, rename = "type")]
    pub worker: Option<bool>,
    /// A faster way to it for whoever is on the same host: `ipc://…`. Only ours have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_endpoint: Option<String>,
    /// Keys that nobody here knows, `http_port` among them.
    #[serde(flatten)]
    pub more: BTreeMap<String, serde_json::Value>,
}

impl Instance {
    /// An instance of `service` at an endpoint, with the identity and id that lymph would compute.
    pub fn new(service: &str, endpoint: &str, version: Option<&str>) -> Self {
        let identity = Self::identity_of(endpoint);
        let version = version.map(str::to_owned);
        // lymph keeps the version of its own interface as a text, all others as an object.
        let text = match &version {
            Some(text) if service == BUILTIN => repr(text),
            Some(text) => format!("Version({})", repr(text)),
            None => "None".to_owned(),
        };
        let id = md5(&format!("({}, {}, {text})", repr(&identity), repr(service)));
        let endpoint = endpoint.to_owned();
        Self { id, identity, version, endpoint, worker: Some(false), ..Self::default() }
    }

    /// What every container is registered as, beside its interfaces: [`BUILTIN`]. It has a version, as in lymph, whose `discover --versions`
    /// cannot show a service of which one instance has a version and another has none.
    pub fn builtin(endpoint: &str) -> Self {
        Self::new(BUILTIN, endpoint, Some(BUILTIN_VERSION))
    }

    /// The identity of the container at an endpoint, as lymph computes it.
    pub fn identity_of(endpoint: &str) -> String {
        md5(&format!("({},)", repr(endpoint)))
    }

    /// Where to connect to: the faster way where the instance is on this host.
    pub fn dial(&self) -> &str {
        match &self.local_endpoint {
            Some(local) if self.is_here() => local,
            _ => &self.endpoint,
        }
    }

    /// Whether it is on this host.
    pub fn is_here(&self) -> bool {
        self.hostname.as_deref().is_some_and(|name| name == hostname())
    }

    /// Reads what lymph writes. An absent identity is computed.
    ///
    /// # Errors
    /// When it is no JSON map with an `endpoint`.
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let mut instance: Self = serde_json::from_slice(bytes)?;
        if instance.identity.is_empty() {
            instance.identity = Self::identity_of(&instance.endpoint);
        }
        Ok(instance)
    }

    /// Writes what lymph reads.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and JSON values always have a JSON form")
    }
}

/// This host's name; empty where it has none.
pub fn hostname() -> &'static str {
    static NAME: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
    });
    &NAME
}

fn md5(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}"); // a String takes anything
        hex
    })
}

/// Python's way to write a text: in single quotes, or in double ones where it holds only single ones.
fn repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        if c == quote || c == '\\' {
            out.push('\\');
        }
        out.push(c);
    }
    out.push(quote);
    out
}
