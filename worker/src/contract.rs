//! What the node tells a worker by its environment (`docs/protocol.md`, "Variables of an instance").
//!
//! Every part is optional: what is absent is not done, and a worker without any of it runs all the same.

use std::path::PathBuf;
use std::time::Duration;

use hilum_shared::metrics::Tags;
use hilum_shared::name::{InstanceId, Run, ServiceName};
use hilum_shared::protocol::env;
use hilum_shared::registry::hostname;
use hilum_shared::transport::endpoint::{Endpoint, EndpointError};

/// The node's own default of `node.heartbeat.interval`.
const INTERVAL: Duration = Duration::from_secs(1);
/// The node's own default of `node.heartbeat.timeout`.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Who this process is for its node, and where the node listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    /// The project's name, for people.
    pub project: Option<String>,
    /// The service's name.
    pub service: Option<ServiceName>,
    /// Which of the service's processes this is.
    pub instance: Option<InstanceId>,
    /// How many times this index has been started.
    pub run: Option<Run>,
    /// Proves to the node that a message is this process' own.
    pub token: Option<String>,
    /// Where heartbeats go.
    pub heartbeat: Option<String>,
    /// Where orders come from.
    pub shutdown: Option<String>,
    /// Where structured log records go.
    pub log: Option<String>,
    /// The node's event broker.
    pub events: Option<String>,
    /// The node as a service.
    pub node: Option<String>,
    /// Where the node publishes all lines of its instances.
    pub log_endpoint: Option<String>,
    /// The node's lock, which tells whether there is a node at all.
    pub lock: Option<PathBuf>,
    /// Between two heartbeats, until an echo says otherwise.
    pub interval: Duration,
    /// Silence of the node that makes the worker look whether it is gone, until an echo says otherwise.
    pub timeout: Duration,
}

/// A variable that does not mean anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    /// Not of the form that the node writes.
    #[error(
        "variable `{variable}` is `{value}`: {expected} is expected; unset it to run without a node"
    )]
    Value {
        /// Its name.
        variable: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// Not an address.
    #[error("variable `{variable}`: {source}")]
    Endpoint {
        /// Its name.
        variable: &'static str,
        /// What is wrong.
        source: EndpointError,
    },
}

/// What a heartbeat is signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) instance: InstanceId,
    pub(crate) run: Run,
    pub(crate) token: String,
}

impl Contract {
    /// The tags that lymph puts on every metric: `service` (nil where it has no name), `host` and `identity`. A container sets its own
    /// identity; until then it is the instance's name.
    pub fn tags(&self) -> Tags {
        Tags::none()
            .with("service", self.service.as_ref().map(ToString::to_string))
            .with("host", Some(hostname().to_owned()))
            .with("identity", self.instance.as_ref().map(ToString::to_string))
    }

    /// A contract with nobody: no heartbeats, no orders, plain log lines on stderr.
    pub fn none() -> Self {
        Self {
            project: None,
            service: None,
            instance: None,
            run: None,
            token: None,
            heartbeat: None,
            shutdown: None,
            log: None,
            events: None,
            node: None,
            log_endpoint: None,
            lock: None,
            interval: INTERVAL,
            timeout: TIMEOUT,
        }
    }

    /// Reads the contract by `get`, which answers with a variable's value. An empty value counts as absent.
    ///
    /// # Errors
    /// When a variable is there and does not mean anything.
    pub fn from_env(get: &impl Fn(&str) -> Option<String>) -> Result<Self, ContractError> {
        let get = |variable: &'static str| get(variable).filter(|value| !value.is_empty());
        let endpoint = |variable| match get(variable) {
            None => Ok(None),
            Some(text) => match Endpoint::parse(&text) {
                Ok(_) => Ok(Some(text)),
                Err(source) => Err(ContractError::Endpoint { variable, source }),
            },
        };
        let instance = parsed(env::INSTANCE, get(env::INSTANCE), "a name like `echo.3`", |text| {
            InstanceId::parse(text).ok()
        })?;
        let service = parsed(env::SERVICE, get(env::SERVICE), "a name like `echo`", |text| {
            ServiceName::parse(text).ok()
        })?;
        let seconds = |variable| {
            parsed(variable, get(variable), "a number of seconds above 0", |text| {
                rhythm(text.parse().ok()?)
            })
        };
        Ok(Self {
            project: get(env::PROJECT),
            service: service.or_else(|| instance.as_ref().map(|id| id.service.clone())),
            run: parsed(env::RUN, get(env::RUN), "a number", |text| text.parse().ok().map(Run))?,
            instance,
            token: get(env::TOKEN),
            heartbeat: endpoint(env::HEARTBEAT)?,
            shutdown: endpoint(env::SHUTDOWN)?,
            log: endpoint(env::LOG)?,
            events: endpoint(env::EVENTS)?,
            node: endpoint(env::NODE)?,
            log_endpoint: endpoint(env::LOG_ENDPOINT)?,
            lock: get(env::LOCK).map(PathBuf::from),
            interval: seconds(env::HEARTBEAT_INTERVAL)?.unwrap_or(INTERVAL),
            timeout: seconds(env::HEARTBEAT_TIMEOUT)?.unwrap_or(TIMEOUT),
        })
    }

    /// Reads the contract from the environment of this process.
    ///
    /// # Errors
    /// When a variable is there and does not mean anything.
    pub fn from_process() -> Result<Self, ContractError> {
        Self::from_env(&|name| std::env::var(name).ok())
    }

    /// What a heartbeat must say; without all three the node would not take it.
    pub(crate) fn identity(&self) -> Option<Identity> {
        Some(Identity {
            instance: self.instance.clone()?,
            run: self.run?,
            token: self.token.clone()?,
        })
    }

    /// Channels that the node offers and that cannot be used, each with why.
    pub(crate) fn gaps(&self) -> Vec<String> {
        let mut gaps = Vec::new();
        let mut gap = |what: &str, endpoint: bool, missing: &[(&str, bool)]| {
            let names: Vec<&str> =
                missing.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect();
            if endpoint && !names.is_empty() {
                gaps.push(format!("no {what}: {} is not set", names.join(", ")));
            }
        };
        let instance = (env::INSTANCE, self.instance.is_some());
        let token = (env::TOKEN, self.token.is_some());
        let run = (env::RUN, self.run.is_some());
        gap("heartbeats", self.heartbeat.is_some(), &[instance, run, token]);
        gap("orders", self.shutdown.is_some(), &[instance]);
        gap("log records", self.log.is_some(), &[instance, token]);
        gaps
    }
}

fn parsed<T>(
    variable: &'static str,
    value: Option<String>,
    expected: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, ContractError> {
    let Some(value) = value else { return Ok(None) };
    match parse(&value) {
        Some(parsed) => Ok(Some(parsed)),
        None => Err(ContractError::Value { variable, value, expected }),
    }
}

/// A duration from seconds that a peer or the environment gave: above 0, at least 10 ms (nothing beats faster), at
/// most a day.
pub(crate) fn rhythm(seconds: f64) -> Option<Duration> {
    if !(seconds.is_finite() && seconds > 0.0) {
        return None;
    }
    Some(Duration::from_secs_f64(seconds.clamp(0.01, 86_400.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Contract, ContractError> {
        Contract::from_env(&|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_empty_environment_is_no_node() {
        assert_eq!(read(&[]), Ok(Contract::none()));
        assert_eq!(read(&[(env::HEARTBEAT, ""), (env::RUN, "")]), Ok(Contract::none()));
        assert_eq!(Contract::none().identity(), None);
    }

    #[test]
    fn what_the_node_sets_is_read() {
        let contract = read(&[
            (env::INSTANCE, "echo.3"),
            (env::RUN, "7"),
            (env::TOKEN, "secret"),
            (env::HEARTBEAT, "ipc:///run/h"),
            (env::LOCK, "/state/lock"),
            (env::HEARTBEAT_INTERVAL, "0.25"),
            (env::HEARTBEAT_TIMEOUT, "1e9"),
        ])
        .unwrap();
        let identity = contract.identity().unwrap();
        assert_eq!((identity.instance.to_string().as_str(), identity.run), ("echo.3", Run(7)));
        assert_eq!(contract.service.as_ref().unwrap().as_str(), "echo");
        assert_eq!(contract.interval, Duration::from_millis(250));
        assert_eq!(contract.timeout, Duration::from_secs(86_400));
        assert!(contract.gaps().is_empty());
    }

    #[test]
    fn nonsense_is_named_with_its_variable() {
        for (variable, value) in [
            (env::INSTANCE, "echo"),
            (env::SERVICE, "a b"),
            (env::RUN, "-1"),
            (env::HEARTBEAT_INTERVAL, "0"),
            (env::HEARTBEAT_TIMEOUT, "NaN"),
            (env::LOG, "log.sock"),
        ] {
            let error = read(&[(variable, value)]).unwrap_err().to_string();
            assert!(error.contains(variable) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn an_endpoint_without_what_it_needs_is_told() {
        let contract = read(&[(env::HEARTBEAT, "ipc:///h"), (env::INSTANCE, "a.1")]).unwrap();
        assert_eq!(contract.gaps(), ["no heartbeats: HILUM_RUN, HILUM_TOKEN is not set"]);
    }
}
