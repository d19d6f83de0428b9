//! A container that serves: what it has registered, and how it leaves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hilum_shared::events::EventError;
use hilum_shared::registry::{BUILTIN, Instance, Registry, RegistryError, Version};
use hilum_shared::rpc::Endpoint;
use hilum_shared::transport::reach;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::build::{Installed, Part};
use super::calls::Calls;
use super::events::Handlers;
use super::registry::Told;
use crate::context::{Context, Process};
use crate::interface::catch;

/// How long callers get to hear that we are no longer registered, before we look whether calls are still running.
const FAREWELL: Duration = Duration::from_millis(100);
/// How long a start waits for the registry, and each later try; what takes longer goes on beside the service.
const REGISTER: Duration = Duration::from_secs(5);
/// Between the first two tries to register after that.
const PAUSE: Duration = Duration::from_millis(500);
/// Between later ones.
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// How long an end waits until it is taken out: a registry that is away finds out by itself.
const UNREGISTER: Duration = Duration::from_secs(1);
/// For what is left when the time of a drain is over: hooks and connections.
const LEAST: Duration = Duration::from_millis(50);

/// What an interface or a component does at the end panicked; the others did theirs.
#[derive(Debug, thiserror::Error)]
#[error("{kind} `{name}` panicked while it stopped: {text}")]
pub(super) struct StopPanicked {
    kind: &'static str,
    name: String,
    text: String,
}

impl StopPanicked {
    /// Says so in the log, too.
    pub(super) fn told(kind: &'static str, name: &str, text: String) -> Self {
        let panicked = Self { kind, name: name.to_owned(), text };
        tracing::error!("{panicked}");
        panicked
    }
}

/// A container that serves, until it is stopped; dropping it ends it at once.
pub struct Running {
    pub(super) endpoint: Endpoint,
    pub(super) registry: Arc<dyn Registry>,
    /// Whether only who is on this machine finds what is registered.
    pub(super) registry_is_the_nodes: bool,
    pub(super) calls: Arc<Calls>,
    pub(super) process: Arc<Process>,
    pub(super) interfaces: Vec<Installed>,
    pub(super) components: Vec<Part>,
    /// Names and ids under which it is registered, or is to be.
    pub(super) registered: Vec<(String, String)>,
    /// Who registers what could not be at the start.
    pub(super) registering: Option<AbortHandle>,
    /// Where the metrics are published.
    pub(super) monitoring: Option<String>,
    pub(super) handlers: Handlers,
    pub(super) report: AbortHandle,
}

impl Running {
    /// The address at which it is called, `tcp://…`.
    pub fn address(&self) -> &str {
        self.endpoint.address()
    }

    /// A context of the process itself, to call others.
    pub fn context(&self) -> Context {
        Context::new(Arc::clone(&self.process), "")
    }

    /// Whether every interface says that it can do its work (`fn is_healthy`).
    pub fn is_healthy(&self) -> bool {
        self.interfaces.iter().all(|installed| installed.interface.healthy())
    }

    /// Calls that are being worked on.
    pub fn running_calls(&self) -> usize {
        self.calls.running()
    }

    /// Whether a node has started it, and not somebody by hand.
    pub(super) fn is_kept(&self) -> bool {
        self.process.worker.contract().instance.is_some()
    }

    /// The names under which it is registered, each once.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.registered.iter().map(|(name, _)| name.as_str()).collect();
        names.retain(|name| *name != BUILTIN);
        names.dedup();
        names
    }

    /// Leaves the registry, lets what runs finish within this time, and stops everything.
    pub async fn stop(self, within: Duration) {
        // What panicked meanwhile is in the log.
        let _ = self.stop_by(Instant::now() + within).await;
    }

    /// Stops everything, whatever panics meanwhile.
    ///
    /// # Errors
    /// The first panic of a hook.
    pub(super) async fn stop_by(mut self, deadline: Instant) -> Result<(), StopPanicked> {
        let left = || deadline.saturating_duration_since(Instant::now());
        if timeout(left().max(LEAST), self.handlers.stop()).await.is_err() {
            tracing::warn!("the event broker did not answer: what is not begun comes again");
        }
        if let Some(registering) = self.registering.take() {
            registering.abort();
        }
        if !self.registered.is_empty() {
            let within = left().clamp(LEAST, UNREGISTER);
            if timeout(within, self.unregister()).await.is_err() {
                tracing::warn!(
                    "the registry did not answer: callers will learn by our end that we are gone"
                );
            }
            tokio::time::sleep(FAREWELL.min(left() / 4)).await;
        }
        self.endpoint.leave();
        if timeout(left(), self.calls.idle()).await.is_err() {
            tracing::warn!(calls = self.calls.running(), "calls were not done in time");
        }
        let cut = self.handlers.finish(deadline).await;
        if cut > 0 {
            tracing::warn!(
                handlers = cut,
                "event handlers were not done in time: others get their events"
            );
        }
        let mut result = Ok(());
        for installed in self.interfaces.iter().rev() {
            let context = Context::new(Arc::clone(&self.process), &installed.name);
            let stop = catch(Box::pin(async { installed.interface.stop(&context).await }));
            match timeout(left().max(LEAST), context.trace(stop)).await {
                Ok(Ok(())) => {}
                Ok(Err(text)) => {
                    result =
                        result.and(Err(StopPanicked::told("interface", &installed.name, text)));
                }
                Err(_) => {
                    tracing::warn!(interface = installed.name, "`on_stop` was not done in time");
                }
            }
        }
        for part in self.components.iter().rev() {
            match timeout(left().max(LEAST), catch(Box::pin(async { part.component.stop().await })))
                .await
            {
                Ok(Ok(())) => {}
                Ok(Err(text)) => {
                    result = result.and(Err(StopPanicked::told("component", &part.key, text)));
                }
                Err(_) => tracing::warn!(component = part.key, "did not stop in time"),
            }
        }
        self.endpoint.clone().close(left().max(LEAST)).await;
        result
    }

    pub(super) async fn subscribe(&mut self, tasks: bool) -> Result<(), EventError> {
        for installed in &self.interfaces {
            let same = self.interfaces.iter().filter(|other| other.name == installed.name);
            let (several, process) = (same.count() > 1, &self.process);
            self.handlers.subscribe(installed, several, tasks, process, &self.components).await?;
        }
        Ok(())
    }

    /// Enters everything in the registry; whether it stands. Where the registry is away it does not yet: it is tried again beside the
    /// service until it does.
    ///
    /// # Errors
    /// When the registry says no.
    pub(super) async fn register(&mut self, place: &Told) -> Result<bool, RegistryError> {
        let endpoint = self.endpoint.address();
        let interfaces = self.interfaces.iter().map(|it| {
            let version = it.version.as_ref().map(Version::as_str);
            (it.name.clone(), Instance::new(&it.name, endpoint, version))
        });
        let builtin = (BUILTIN.to_owned(), Instance::builtin(endpoint));
        let mut entries: VecDeque<_> = interfaces
            .chain([builtin])
            .map(|(name, instance)| (name, self.described(instance)))
            .collect();
        let ids = entries.iter().map(|(name, instance)| (name.clone(), instance.id.clone()));
        self.registered = ids.collect();
        let reason = match timeout(REGISTER, enter(&*self.registry, &mut entries)).await {
            Ok(Ok(())) => return Ok(true),
            Ok(Err(error @ RegistryError::Unreachable { .. })) => error.to_string(),
            Ok(Err(error)) => return Err(error),
            Err(_) => "no answer".to_owned(),
        };
        let place = place.place();
        tracing::warn!(
            "not registered yet {place}: {reason}. It serves all the same, and is registered as soon as it can be"
        );
        let trying = enter_in_the_end(Arc::clone(&self.registry), entries);
        self.registering = Some(tokio::spawn(trying).abort_handle());
        Ok(false)
    }

    /// With what is written down of us.
    fn described(&self, mut instance: Instance) -> Instance {
        let hostname = hilum_shared::registry::hostname().to_owned();
        instance.fqdn = Some(hostname.clone());
        instance.hostname = Some(hostname);
        instance.ip = reach::host(self.endpoint.address()).map(str::to_owned);
        // What is on this machine only is no address for others.
        let published = self.process.worker.contract().log_endpoint.as_ref();
        let is_heard = |at: &&String| self.registry_is_the_nodes || at.starts_with("tcp://");
        instance.log_endpoint = published.filter(is_heard).cloned();
        instance.monitoring_endpoint.clone_from(&self.monitoring);
        instance.local_endpoint = self.endpoint.addresses().get(1).cloned();
        instance
    }

    /// Takes out all that was entered; what fails is said once.
    async fn unregister(&mut self) {
        let mut failed = None;
        for (name, id) in std::mem::take(&mut self.registered) {
            if let Err(error) = self.registry.unregister(&name, &id).await {
                failed = Some(error);
            }
        }
        if let Some(error) = failed {
            tracing::warn!("not taken out of the registry: {error}");
        }
    }
}

/// Enters what is left, and leaves what could not be.
async fn enter(
    registry: &dyn Registry,
    entries: &mut VecDeque<(String, Instance)>,
) -> Result<(), RegistryError> {
    while let Some((name, instance)) = entries.front() {
        registry.register(name, instance.clone()).await?;
        entries.pop_front();
    }
    Ok(())
}

/// Enters what is left, sooner or later.
async fn enter_in_the_end(registry: Arc<dyn Registry>, mut entries: VecDeque<(String, Instance)>) {
    let mut pause = PAUSE;
    loop {
        match timeout(REGISTER, enter(&*registry, &mut entries)).await {
            Ok(Ok(())) => return tracing::warn!("registered now"),
            Err(_) => tracing::debug!("not registered yet: no answer"),
            Ok(Err(error @ RegistryError::Unreachable { .. })) => {
                tracing::debug!("not registered yet: {error}");
            }
            Ok(Err(error)) => {
                return tracing::error!(
                    "not registered, so that nobody finds this process: {error}"
                );
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The calls lead to the endpoint, and the endpoint to the calls.
        self.calls.close();
        self.report.abort();
        if let Some(registering) = &self.registering {
            registering.abort();
        }
    }
}
