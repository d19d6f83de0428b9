//! A fixed list of services and addresses.

use std::collections::BTreeMap;

use super::{Instance, Instances, Lookup, Memory, Registry, RegistryError};
use crate::rpc::BoxFuture;

/// Services at addresses that were written down beforehand. What registers itself is known inside the process only.
#[derive(Clone, Default)]
pub struct StaticHosts {
    known: Memory,
}

impl StaticHosts {
    /// The list: service, its addresses, each with a version where it has one.
    pub async fn new(services: &BTreeMap<String, Vec<(String, Option<String>)>>) -> Self {
        let known = Memory::new();
        for (service, hosts) in services {
            for (endpoint, version) in hosts {
                let instance = Instance::new(service, endpoint, version.as_deref());
                // A registry in memory takes everything.
                let _ = known.register(service, instance).await;
            }
        }
        Self { known }
    }
}

impl Registry for StaticHosts {
    fn register<'a>(
        &'a self,
        service: &'a str,
        instance: Instance,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        self.known.register(service, instance)
    }

    fn unregister<'a>(
        &'a self,
        service: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        self.known.unregister(service, id)
    }

    fn lookup<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Lookup, RegistryError>> {
        self.known.lookup(service)
    }

    fn discover(&self) -> BoxFuture<'_, Result<BTreeMap<String, Instances>, RegistryError>> {
        self.known.discover()
    }
}
