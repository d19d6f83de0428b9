//! A process that serves interfaces: made of a configuration, started, found by others, drained.
//!
//! ```text
//! start: components → endpoint (tcp, and ipc under a node) → on_start of each interface → subscribed to events → registered → ready
//! drain: no more events → unregistered → callers told → running calls and handlers finish → on_stop in reverse → components in reverse → connections closed
//! ```
//! It is a service like others ([`crate::run()`]): heartbeats, orders, signals and the log come from there. Without a node and a
//! registry it serves all the same.

mod build;
mod calls;
mod events;
mod figures;
mod registry;
mod running;
mod served;
mod settings;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hilum_shared::config::Diagnostics;
use hilum_shared::config::service::Section;
use hilum_shared::events::{EventError, EventSystem};
use hilum_shared::registry::{
    Choice, Instance, InvalidInterface, InvalidVersion, Memory, Registry, RegistryError, Version,
    check_interface,
};
use hilum_shared::rpc::{BoxFuture, Client, Endpoint, Handler, Network, Sockets};
use hilum_shared::transport::reach;

pub(crate) use build::{Classes, ComponentClass, InterfaceClass, snake};
use build::{Installed, Part};
use calls::{Calls, Panicked, Refused};
use events::Handlers;
pub(crate) use figures::Figures;
use registry::Wanted;
pub use running::Running;
use running::StopPanicked;
pub(crate) use served::{Open, Outcome};
pub use settings::{Connection, Overrides, Settings};

use crate::component::Component;
use crate::context::{Context, Process};
use crate::event::TASKS_SUFFIX;
use crate::interface::{Error, Interface, catch};
use crate::metrics::{Publisher, report};
use crate::run::ServiceResult;
use crate::worker::Worker;

/// Interfaces and components, not yet running.
pub struct Container {
    interfaces: Vec<Installed>,
    components: Vec<Part>,
    settings: Settings,
    network: Arc<dyn Network>,
    /// Where it listens, over the settings.
    addresses: Option<Vec<String>>,
    registry: Wanted,
    events: events::Wanted,
    /// Whether it works on tasks, and on nothing else.
    tasks: bool,
    /// Who hears why calls are refused.
    refused: Option<Refused>,
}

/// Why a container does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address cannot be listened at.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// Which.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The registry does not take it.
    #[error("not registered: {0}")]
    Registry(#[from] RegistryError),
    /// An event handler cannot be told of its events.
    #[error("not subscribed to events: {0}")]
    Events(#[from] EventError),
    /// A component did not start.
    #[error("`{key}` did not start: {source}")]
    Component {
        /// Its key in the configuration.
        key: String,
        /// Why.
        source: Error,
    },
    /// An interface has a name that it cannot have.
    #[error(transparent)]
    Name(#[from] InvalidInterface),
    /// An interface did not start.
    #[error("interface `{name}` did not start: {source}")]
    Interface {
        /// Its name.
        name: String,
        /// Why.
        source: Error,
    },
}

impl Default for Container {
    fn default() -> Self {
        Self::new()
    }
}

impl Container {
    /// An empty one with lymph's defaults, for programs that do without a configuration.
    pub fn new() -> Self {
        Self {
            interfaces: Vec::new(),
            components: Vec::new(),
            settings: Settings::default(),
            network: Arc::new(Sockets),
            addresses: None,
            registry: Wanted::Configured(Choice::default()),
            events: events::Wanted::Default,
            tasks: false,
            refused: None,
        }
    }

    /// What a configuration makes of the classes of a binary.
    pub(crate) fn from_config(
        classes: &Classes,
        config: &Section,
        overrides: &Overrides,
        env: &BTreeMap<String, String>,
        only: &[String],
    ) -> Result<Self, Diagnostics> {
        let settings = Settings::read(config, overrides, env);
        let registry = Choice::read(config);
        let events = events::Wanted::read(config);
        let parts = classes.build(config, only);
        let (settings, registry, events, parts) = match (settings, registry, events, parts) {
            (Ok(settings), Ok(registry), Ok(events), Ok(parts)) => {
                (settings, registry, events, parts)
            }
            (settings, registry, events, parts) => {
                let problems = [settings.err(), registry.err(), events.err(), parts.err()];
                return Err(Diagnostics(
                    problems.into_iter().flatten().flat_map(|it| it.0).collect(),
                ));
            }
        };
        Ok(Self {
            interfaces: parts.interfaces,
            components: parts.components,
            settings,
            network: Arc::new(Sockets),
            addresses: None,
            registry: Wanted::Configured(registry),
            events,
            tasks: false,
            refused: None,
        })
    }

    /// With an interface under a name.
    #[must_use]
    pub fn interface<T: Interface>(mut self, name: impl Into<String>, interface: T) -> Self {
        self.interfaces.push(Installed {
            name: name.into(),
            version: None,
            interface: Arc::new(interface),
        });
        self
    }

    /// With an interface under a name and a version, beside other versions of it.
    ///
    /// # Errors
    /// When the text is no version.
    pub fn versioned<T: Interface>(
        mut self,
        name: impl Into<String>,
        version: &str,
        interface: T,
    ) -> Result<Self, InvalidVersion> {
        let version = Some(Version::parse(version)?);
        self.interfaces.push(Installed {
            name: name.into(),
            version,
            interface: Arc::new(interface),
        });
        Ok(self)
    }

    /// With a component, which starts before the interfaces.
    #[must_use]
    pub fn component<T: Component>(mut self, component: T) -> Self {
        self.components.push(Part { key: T::TYPE.to_owned(), component: Arc::new(component) });
        self
    }

    /// With settings in place of the defaults.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// On another network than the system's, at these addresses.
    #[must_use]
    pub fn network(
        mut self,
        network: Arc<dyn Network>,
        addresses: impl IntoIterator<Item = String>,
    ) -> Self {
        (self.network, self.addresses) = (network, Some(addresses.into_iter().collect()));
        self
    }

    /// Found by and finding others in this registry.
    #[must_use]
    pub fn registry(mut self, registry: Arc<dyn Registry>) -> Self {
        self.registry = Wanted::This(registry);
        self
    }

    /// In the registry and at the event system that a configuration names.
    #[cfg(feature = "testing")]
    pub(crate) fn shared_by(mut self, config: &Section) -> Result<Self, Diagnostics> {
        self.registry = Wanted::Configured(Choice::read(config)?);
        self.events = events::Wanted::read(config)?;
        Ok(self)
    }

    /// Emitting to and hearing of this event system.
    #[must_use]
    pub fn events(mut self, events: Arc<dyn EventSystem>) -> Self {
        self.events = events::Wanted::This(events);
        self
    }

    /// Telling why calls are refused.
    #[cfg(feature = "testing")]
    pub(crate) fn refused(mut self, tell: Refused) -> Self {
        self.refused = Some(tell);
        self
    }

    /// Works on tasks only, as the command `worker` does: of the interfaces those that have any, each registered as `<name>.worker`.
    #[must_use]
    pub fn tasks(mut self) -> Self {
        self.tasks = true;
        self.interfaces.retain(|it| it.interface.handlers().iter().any(|handler| handler.task));
        for installed in &mut self.interfaces {
            installed.name.push_str(TASKS_SUFFIX);
        }
        self
    }

    /// Whether it has no interface at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.interfaces.is_empty()
    }

    /// Runs it as a service: for [`crate::Builder::run`].
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn run(self, worker: Worker) -> ServiceResult {
        let running = tokio::select! {
            running = self.start(worker.clone()) => running?,
            drain = worker.draining() => {
                tracing::info!(reason = drain.reason, "told to leave before it was ready");
                return Ok(());
            }
        };
        worker.ready();
        let drain = worker.draining().await;
        tracing::debug!(reason = drain.reason, "draining");
        Ok(running.stop_by(drain.deadline).await?)
    }

    /// Starts everything and registers it.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(self, worker: Worker) -> Result<Running, StartError> {
        for installed in &self.interfaces {
            check_interface(&installed.name)?;
        }
        let mut started = Vec::new();
        for part in self.components {
            let start = Box::pin(async { part.component.start().await });
            if let Err(source) = started_well(start).await {
                stop_components(started).await;
                return Err(StartError::Component { key: part.key, source });
            }
            started.push(part);
        }
        let calls = Arc::new(Calls::new(&self.interfaces, &started, &self.settings, self.refused));
        let opened = open(&self.network, self.addresses, &self.settings, &worker, &calls).await;
        let endpoint = match opened {
            Ok(endpoint) => endpoint,
            Err(error) => {
                stop_components(started).await;
                return Err(error);
            }
        };
        let place = if self.settings.isolated {
            registry::Told::Isolated
        } else {
            self.registry.told(worker.contract())
        };
        let registry_is_the_nodes = self.registry.is_the_nodes();
        let found = self.registry.open(worker.contract(), &endpoint).await;
        // Without a registry it knows of itself only.
        let registry = found.unwrap_or_else(|| Arc::new(Memory::new()));
        let client = Client::new(endpoint.clone(), Arc::clone(&registry));
        let events = match self.events.open(worker.contract()).await {
            Ok(events) => events,
            Err(error) => {
                stop_components(started).await;
                return Err(error);
            }
        };
        let identity = Instance::identity_of(endpoint.address());
        let figures = Figures::new(worker.contract(), &self.settings, &endpoint);
        let publisher = publisher(&self.settings);
        let monitoring = publisher.as_ref().map(|publisher| reach::told(publisher.endpoint()));
        let report = tokio::spawn(report(figures.registry.clone(), worker.clone(), publisher));
        let process = Arc::new(Process { client, worker, events, identity, figures });
        calls.open(&process, endpoint.address());
        let mut running = Running {
            endpoint,
            registry,
            registry_is_the_nodes,
            calls,
            process,
            interfaces: Vec::new(),
            components: started,
            registered: Vec::new(),
            registering: None,
            monitoring,
            handlers: Handlers::new(),
            report: report.abort_handle(),
        };
        for installed in self.interfaces {
            let context = Context::new(Arc::clone(&running.process), &installed.name);
            let start = Box::pin(async { installed.interface.start(&context).await });
            if let Err(source) = context.trace(started_well(start)).await {
                running.stop(Duration::ZERO).await;
                return Err(StartError::Interface { name: installed.name, source });
            }
            running.interfaces.push(installed);
        }
        if let Err(error) = running.subscribe(self.tasks).await {
            running.stop(Duration::ZERO).await;
            return Err(error.into());
        }
        let stands = match place {
            registry::Told::Isolated => Ok(true),
            _ => running.register(&place).await,
        };
        match stands {
            Ok(true) => place.log(&running),
            Ok(false) => {} // said there
            // A node without a registry is no reason not to serve those who know the address.
            Err(RegistryError::Refused { reason }) => {
                tracing::error!("not registered, so that nobody finds this process: {reason}");
            }
            Err(error) => {
                running.stop(Duration::ZERO).await;
                return Err(error.into());
            }
        }
        Ok(running)
    }
}

/// Opens what others call: a port for all, and under a node a local socket, which is faster.
async fn open(
    network: &Arc<dyn Network>,
    addresses: Option<Vec<String>>,
    settings: &Settings,
    worker: &Worker,
    calls: &Arc<Calls>,
) -> Result<Endpoint, StartError> {
    let port = settings.port.map_or_else(|| "*".to_owned(), |port| port.to_string());
    let ip = host(settings.ip);
    let mut addresses = addresses.unwrap_or_else(|| {
        let local = registry::local_address(worker.contract());
        std::iter::once(format!("tcp://{ip}:{port}")).chain(local).collect()
    });
    let config = settings.connection.config();
    loop {
        let texts: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let handler: Arc<dyn Handler> = Arc::clone(calls) as _;
        match Endpoint::open(Arc::clone(network), &texts, handler, config.clone()).await {
            Ok(endpoint) => return Ok(endpoint),
            // The local way is only the faster one: another user's folder, or a path that is too long.
            Err(error) if addresses.len() > 1 && error.kind() != io::ErrorKind::AddrInUse => {
                tracing::debug!(address = addresses[1], %error, "no local socket");
                addresses.truncate(1);
            }
            Err(source) => {
                return Err(StartError::Listen { address: addresses.join(" and "), source });
            }
        }
    }
}

/// Where the metrics are published, if they are to be. A process that cannot publish serves all the same.
fn publisher(settings: &Settings) -> Option<Publisher> {
    if !settings.publish_metrics {
        return None;
    }
    let published = Publisher::start(&format!("tcp://{}:*", host(settings.ip)));
    published.inspect_err(|error| tracing::warn!(%error, "metrics are not published")).ok()
}

/// An address as it stands in an endpoint.
fn host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V6(ip) => format!("[{ip}]"),
        IpAddr::V4(ip) => ip.to_string(),
    }
}

/// What a start came to; a panic is an error like others.
async fn started_well(start: BoxFuture<'_, Result<(), Error>>) -> Result<(), Error> {
    catch(start).await.unwrap_or_else(|text| Err(Panicked(text).into()))
}

async fn stop_components(started: Vec<Part>) {
    for part in started.iter().rev() {
        if let Err(text) = catch(Box::pin(async { part.component.stop().await })).await {
            let _ = StopPanicked::told("component", &part.key, text); // why there is no start is told instead
        }
    }
}
