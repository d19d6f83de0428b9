//! The registry of the node, from a service's side.
//!
//! One task keeps one `registry.watch` open for all services that are looked at. While it is open the connection lives, and so do
//! the entries that were made over it; when it breaks, everything is entered anew ([`crate::rpc::held`]). Meanwhile what was known last stays
//! known: a node that restarts does not make its services forget each other.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};

use super::directory::{LookupService, Register, Unregister, View, Views, WATCH_HOLD, Watch};
use super::{Instance, Instances, Lookup, Registry, RegistryError};
use crate::rpc::held::{Kept, LIMIT, Place, PlaceError, Task, keep};
use crate::rpc::{BoxFuture, Endpoint};

/// No version of a service: asks for an answer at once.
const UNSEEN: u64 = u64::MAX;

/// A node's registry, by its control endpoint. Clones are the same; its task ends with the last of them and of their views.
#[derive(Clone)]
pub struct Embedded {
    shared: Arc<Shared>,
    task: Arc<Task>,
}

struct Shared {
    place: Place,
    token: Option<String>,
    state: Mutex<State>,
    /// What is looked at has changed, or something is to be entered for the first time.
    changed: Notify,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<(String, String), Instance>,
    interests: HashMap<String, Weak<Interest>>,
}

/// A service that somebody looks at.
struct Interest {
    view: watch::Sender<Instances>,
    version: AtomicU64,
}

impl Interest {
    fn take(&self, view: View) {
        self.version.store(view.version, Ordering::Relaxed);
        self.view.send_replace(Arc::new(view.instances));
    }
}

impl Embedded {
    /// The registry of the node at `node` (`HILUM_NODE`). `token` (`HILUM_TOKEN`) ties entries to this run: they end the moment the
    /// node sees it end or fall silent. Without one they end with the connection.
    ///
    /// To be called in a tokio runtime.
    pub fn new(endpoint: Endpoint, node: impl Into<String>, token: Option<String>) -> Self {
        let shared = Arc::new(Shared {
            place: Place { endpoint, address: node.into(), interface: "registry" },
            token,
            state: Mutex::default(),
            changed: Notify::new(),
        });
        let task = Task::spawn(keep(Arc::clone(&shared)));
        Self { shared, task }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call<R: DeserializeOwned>(
        &self,
        method: &str,
        args: &impl Serialize,
        timeout: Duration,
    ) -> Result<R, RegistryError> {
        let answer = self.place.call(method, args, timeout).await?;
        answer.unpack().map_err(|error| RegistryError::Refused { reason: error.to_string() })
    }

    async fn enter_one(&self, service: &str, instance: Instance) -> Result<(), RegistryError> {
        let args = Register { service: service.to_owned(), instance, token: self.token.clone() };
        self.call::<()>("register", &args, LIMIT).await
    }

    /// What is looked at, without what nobody looks at any longer.
    fn interests(&self) -> HashMap<String, Arc<Interest>> {
        let mut state = self.state();
        state.interests.retain(|_, interest| interest.strong_count() > 0);
        let alive = |(name, interest): (&String, &Weak<Interest>)| {
            Some((name.clone(), interest.upgrade()?))
        };
        state.interests.iter().filter_map(alive).collect()
    }

    /// Holds one watch until it is answered, and takes note of what it says.
    async fn watch(&self) -> Result<(), RegistryError> {
        let interests = self.interests();
        let seen = |(name, interest): (&String, &Arc<Interest>)| {
            (name.clone(), interest.version.load(Ordering::Relaxed))
        };
        let watch = Watch { services: interests.iter().map(seen).collect() };
        let limit = Duration::from_secs(WATCH_HOLD) + LIMIT;
        let views: Views = self.call("watch", &watch, limit).await?;
        for (name, view) in views.services {
            if let Some(interest) = interests.get(&name) {
                interest.take(view);
            }
        }
        Ok(())
    }
}

impl From<PlaceError> for RegistryError {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::Unreachable { place, reason } => {
                Self::Unreachable { place: format!("the node at {place}"), reason }
            }
            PlaceError::Unwritable(reason) | PlaceError::Refused(reason) => {
                Self::Refused { reason }
            }
        }
    }
}

impl Kept for Shared {
    type Error = RegistryError;
    const NAME: &str = "the registry";

    fn is_idle(&self) -> bool {
        let state = self.state();
        state.entries.is_empty() && state.interests.is_empty()
    }

    fn changed(&self) -> &Notify {
        &self.changed
    }

    async fn hold(&self) -> Result<(), RegistryError> {
        tokio::select! {
            answered = self.watch() => answered,
            () = self.changed.notified() => Ok(()),
        }
    }

    async fn enter(&self) -> Result<(), RegistryError> {
        let entries = self.state().entries.clone();
        for ((service, _), instance) in entries {
            self.enter_one(&service, instance).await?;
        }
        // Whoever is there now may know neither us nor the versions that we have seen.
        for interest in self.interests().into_values() {
            interest.version.store(UNSEEN, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Registry for Embedded {
    fn register<'a>(
        &'a self,
        service: &'a str,
        instance: Instance,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(async move {
            let key = (service.to_owned(), instance.id.clone());
            self.shared.enter_one(service, instance.clone()).await?;
            self.shared.state().entries.insert(key, instance);
            self.shared.changed.notify_one();
            Ok(())
        })
    }

    fn unregister<'a>(
        &'a self,
        service: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(async move {
            self.shared.state().entries.remove(&(service.to_owned(), id.to_owned()));
            let args = Unregister { service: service.to_owned(), id: id.to_owned() };
            self.shared.call("unregister", &args, LIMIT).await
        })
    }

    fn lookup<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Lookup, RegistryError>> {
        Box::pin(async move {
            let known = |state: &State| state.interests.get(service).and_then(Weak::upgrade);
            let lookup = |interest: Arc<Interest>| {
                let view = interest.view.subscribe();
                Lookup::new(view, Arc::new((interest, Arc::clone(&self.task))))
            };
            if let Some(interest) = known(&self.shared.state()) {
                return Ok(lookup(interest));
            }
            let args = LookupService { service: service.to_owned() };
            let view: View = self.shared.call("lookup", &args, LIMIT).await?;
            let mut state = self.shared.state();
            if let Some(interest) = known(&state) {
                return Ok(lookup(interest)); // looked up twice at once
            }
            let version = AtomicU64::new(view.version);
            let view = watch::Sender::new(Arc::new(view.instances));
            let interest = Arc::new(Interest { view, version });
            state.interests.insert(service.to_owned(), Arc::downgrade(&interest));
            drop(state);
            self.shared.changed.notify_one();
            Ok(lookup(interest))
        })
    }

    fn discover(&self) -> BoxFuture<'_, Result<BTreeMap<String, Instances>, RegistryError>> {
        Box::pin(async move {
            let body: Views = self.shared.call("discover", &NilArgs {}, LIMIT).await?;
            let named = |(name, view): (String, View)| (name, Arc::new(view.instances));
            Ok(body.services.into_iter().map(named).collect())
        })
    }
}

/// No arguments.
#[derive(Serialize)]
struct NilArgs {}
