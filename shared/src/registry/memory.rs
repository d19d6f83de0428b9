//! A registry inside the process: for tests, and as the model of the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::{Instance, Instances, Lookup, Registry, RegistryError};
use crate::rpc::BoxFuture;

/// Keeps instances in memory. Clones are the same registry.
#[derive(Clone, Default)]
pub struct Memory {
    services: Arc<Mutex<BTreeMap<String, watch::Sender<Instances>>>>,
}

impl Memory {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    fn with<T>(&self, service: &str, work: impl FnOnce(&watch::Sender<Instances>) -> T) -> T {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        work(services.entry(service.to_owned()).or_default())
    }

    fn change(&self, service: &str, work: impl FnOnce(&mut Vec<Instance>)) {
        self.with(service, |view| {
            let mut instances = Vec::clone(&view.borrow());
            work(&mut instances);
            view.send_if_modified(|now| {
                let changed = **now != instances;
                if changed {
                    *now = Arc::new(instances);
                }
                changed
            });
        });
    }
}

impl Registry for Memory {
    fn register<'a>(
        &'a self,
        service: &'a str,
        instance: Instance,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        self.change(service, |instances| {
            instances.retain(|other| other.id != instance.id);
            instances.push(instance);
        });
        Box::pin(async { Ok(()) })
    }

    fn unregister<'a>(
        &'a self,
        service: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        self.change(service, |instances| instances.retain(|other| other.id != id));
        Box::pin(async { Ok(()) })
    }

    fn lookup<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Lookup, RegistryError>> {
        let view = self.with(service, watch::Sender::subscribe);
        let keeper = Arc::clone(&self.services);
        Box::pin(async { Ok(Lookup::new(view, keeper)) })
    }

    fn discover(&self) -> BoxFuture<'_, Result<BTreeMap<String, Instances>, RegistryError>> {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let all = services
            .iter()
            .map(|(name, view)| (name.clone(), Arc::clone(&view.borrow())))
            .filter(|(_, instances)| !instances.is_empty())
            .collect();
        Box::pin(async { Ok(all) })
    }
}
