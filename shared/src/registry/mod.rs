//! Who offers which service, and where.
//!
//! A [`Registry`] takes [`Instance`]s under service names and gives live views of them. [`Memory`] keeps them in the process,
//! [`StaticHosts`] knows a fixed list; [`Directory`](directory::Directory) is what a node keeps, and [`Embedded`] speaks to it.
//! `ZooKeeper` (a cargo feature) is where lymph's services meet. [`Choice`] is which of them a configuration means.

#[cfg(feature = "config")]
mod choice;
pub mod directory;
mod embedded;
mod instance;
mod memory;
mod name;
mod static_hosts;
mod version;
#[cfg(feature = "zookeeper")]
mod zookeeper;

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

#[cfg(feature = "config")]
pub use choice::{Choice, Hosts};
pub use embedded::Embedded;
pub use instance::{BUILTIN, Instance, hostname};
pub use memory::Memory;
pub use name::{InvalidInterface, NODE, check_interface};
pub use static_hosts::StaticHosts;
pub use version::{InvalidVersion, Version, VersionRequest};
#[cfg(feature = "zookeeper")]
pub use zookeeper::ZooKeeper;

use crate::rpc::BoxFuture;

/// All instances of a service at one moment.
pub type Instances = Arc<Vec<Instance>>;

/// Why a registry cannot say or do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// It cannot be reached now.
    #[error("the registry, {place}, cannot be reached: {reason}")]
    Unreachable {
        /// Which it is, and where it should be: `zookeeper at 10.0.0.1:2181`.
        place: String,
        /// Why.
        reason: String,
    },
    /// It said no.
    #[error("the registry refused: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// It cannot do that at all.
    #[error("{what} is not possible with this registry")]
    Unsupported {
        /// What was asked.
        what: &'static str,
    },
}

/// How long a registry that is away is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Ten seconds, in which it may be started again: a service has time.
    Service,
    /// Three seconds, and no longer than it takes to see that nobody listens: a person waits.
    Command,
}

/// Knows who offers which service.
pub trait Registry: Send + Sync + 'static {
    /// Enters an instance under a service's name, in place of one with the same id. It stays entered, over every loss of the
    /// registry's connection, until it is taken out or this process ends.
    fn register<'a>(
        &'a self,
        service: &'a str,
        instance: Instance,
    ) -> BoxFuture<'a, Result<(), RegistryError>>;

    /// Takes an instance out. One that is not there is no error.
    fn unregister<'a>(
        &'a self,
        service: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<(), RegistryError>>;

    /// A live view of a service's instances; empty where nobody has it.
    fn lookup<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Lookup, RegistryError>>;

    /// Every service and its instances, now. A service without instances may be missing.
    fn discover(&self) -> BoxFuture<'_, Result<BTreeMap<String, Instances>, RegistryError>>;
}

/// A live view of a service's instances, kept up to date as long as it lives.
#[derive(Clone)]
pub struct Lookup {
    view: watch::Receiver<Instances>,
    /// What keeps the view up to date; ends with the last clone.
    _keeper: Arc<dyn Any + Send + Sync>,
}

impl Lookup {
    /// A view of a channel; `keeper` is dropped with it.
    pub fn new(view: watch::Receiver<Instances>, keeper: Arc<dyn Any + Send + Sync>) -> Self {
        Self { view, _keeper: keeper }
    }

    /// The instances now.
    pub fn instances(&self) -> Instances {
        Arc::clone(&self.view.borrow())
    }

    /// Waits for the next change, and says whether there can be another.
    pub async fn changed(&mut self) -> bool {
        self.view.changed().await.is_ok()
    }

    /// Waits until the instances are as wanted, and returns them; `None` when that can never be.
    pub async fn wait_for(&mut self, wanted: impl FnMut(&Instances) -> bool) -> Option<Instances> {
        self.view.wait_for(wanted).await.ok().map(|instances| Arc::clone(&instances))
    }
}
