//! What a process counts of its calls, under lymph's names.

use hilum_shared::registry::Instance;
use hilum_shared::rpc::{Endpoint, Error};

use super::settings::Settings;
use crate::contract::Contract;
use crate::metrics::{Kind, Process, Registry, TaggedCounter};

/// The metrics of a process, and those of its calls.
#[derive(Clone)]
pub(crate) struct Figures {
    pub(crate) registry: Registry,
    timeouts: TaggedCounter<1>,
    exceptions: TaggedCounter<2>,
}

impl Figures {
    pub(crate) fn new(contract: &Contract, settings: &Settings, endpoint: &Endpoint) -> Self {
        let identity = Instance::identity_of(endpoint.address());
        let mut tags = contract.tags().with("identity", Some(identity));
        if let Some(name) = &settings.service_name {
            tags = tags.with("service", Some(name.clone()));
        }
        for (name, value) in &settings.tags {
            tags = tags.with(name.clone(), Some(value.clone()));
        }
        let registry = Registry::new(tags);
        let help = "Calls of others that were not answered in time.";
        let timeouts = registry.tagged_counter("rpc.timeout_count", help, ["address"]);
        let help = "Calls of others that were refused or raised an error.";
        let exceptions = registry.tagged_counter("rpc.exception_count", help, ["address", "name"]);
        let connections = endpoint.clone();
        let help = "Open connections, in both directions.";
        registry
            .callable("rpc.connection_count", help, Kind::Gauge, move || connections.connections());
        registry.add(Process);
        Self { registry, timeouts, exceptions }
    }

    /// A call of somebody else failed.
    pub(crate) fn failed(&self, address: &str, error: &Error) {
        match error {
            Error::Timeout { .. } => self.timeouts.increment([address]),
            Error::Nack { .. } => self.exceptions.increment([address, "nack"]),
            Error::Remote { kind, .. } => self.exceptions.increment([address, kind]),
            Error::Overloaded { .. } => self.exceptions.increment([address, "Overloaded"]),
            _ => {}
        }
    }
}
