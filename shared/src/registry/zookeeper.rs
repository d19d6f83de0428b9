//! ZooKeeper as a registry, in lymph's layout: `/lymph/services/<service>/<id>`, each an ephemeral node with the instance as JSON.
//!
//! One task keeps a session and enters everything anew in each new one, again and again until it stands; within a session it watches
//! what is entered, and enters it again when somebody deletes it. Each view has a task of its own that reads the nodes again whenever a
//! watch fires. While ZooKeeper is away what was known stays known.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use zookeeper_client::{Acls, Client, CreateMode, Error, OneshotWatcher};

use self::knock::knock;
use super::{Instance, Instances, Lookup, Patience, Registry, RegistryError};
use crate::rpc::BoxFuture;
use crate::rpc::held::Task;

mod knock;

/// The session's length, as lymph asks for it: how long the entries of a killed process linger.
const SESSION: Duration = Duration::from_secs(10);
/// How long it may take to enter one.
const ENTER: Duration = Duration::from_secs(10);
/// Between the first two tries to connect or to enter.
const PAUSE: Duration = Duration::from_millis(500);
/// Between later ones.
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// How often an entry that somebody else puts in our way is taken out before it is an error.
const TRIES: usize = 5;
/// Where lymph keeps its things, unless the hosts name another place.
const ROOT: &str = "/lymph";

/// A registry in ZooKeeper. Clones are the same; its session ends with the last of them and of their views.
#[derive(Clone)]
pub struct ZooKeeper {
    shared: Arc<Shared>,
    task: Arc<Task>,
}

/// A service's name and an instance's id.
type Key = (String, String);

struct Shared {
    hosts: String,
    root: String,
    patience: Patience,
    entries: Mutex<BTreeMap<Key, Instance>>,
    /// Told when there is another entry.
    entered: Notify,
    client: watch::Sender<Option<Client>>,
    /// Who enters or takes out: one at a time, so that none of them undoes what another has just done.
    desk: tokio::sync::Mutex<()>,
}

impl ZooKeeper {
    /// The registry at `hosts`, `host:port,host:port`, with `/path` at the end where it is not below `/lymph`. It connects by itself,
    /// now and after every loss; while there is no session, what is asked waits as long as `patience` says.
    ///
    /// To be called in a tokio runtime.
    pub fn new(hosts: &str, patience: Patience) -> Self {
        let (hosts, root) = match hosts.find('/') {
            Some(at) => (&hosts[..at], hosts[at..].trim_end_matches('/')),
            None => (hosts, ROOT),
        };
        let shared = Arc::new(Shared {
            hosts: hosts.to_owned(),
            root: root.to_owned(),
            patience,
            entries: Mutex::default(),
            entered: Notify::new(),
            client: watch::Sender::new(None),
            desk: tokio::sync::Mutex::default(),
        });
        let task = Task::spawn(keep(Arc::clone(&shared)));
        Self { shared, task }
    }

    /// Waits until there is a session.
    pub async fn connected(&self) {
        self.session(true).await;
    }

    /// Waits until there is no session.
    pub async fn disconnected(&self) {
        self.session(false).await;
    }

    /// Why there is no session, as far as it can be seen from here.
    pub async fn trouble(&self) -> RegistryError {
        self.shared.unreachable(knock(&self.shared.hosts).await.text)
    }

    async fn session(&self, wanted: bool) {
        let mut client = self.shared.client.subscribe();
        // Our own task holds the sender as long as we live.
        let _ = client.wait_for(|client| client.is_some() == wanted).await;
    }
}

/// Keeps a session, and in it what is entered. What does not stand is said once, and once more when it stands again.
async fn keep(shared: Arc<Shared>) {
    let mut away = false;
    loop {
        let mut pause = PAUSE;
        let client = loop {
            match Client::connector().with_session_timeout(SESSION).connect(&shared.hosts).await {
                Ok(client) => break client,
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        let reason = knock(&shared.hosts).await.text;
                        tracing::info!(
                            hosts = shared.hosts,
                            %error,
                            reason,
                            "zookeeper cannot be reached: tried again until it can"
                        );
                    }
                    rest(&mut pause).await;
                }
            }
        };
        let mut states = client.state_watcher();
        shared.client.send_replace(Some(client.clone()));
        let mut pause = PAUSE;
        while !states.state().is_terminated() {
            match shared.enter_all(&client).await {
                Ok(()) => break,
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        let hosts = &shared.hosts;
                        tracing::warn!(hosts, %error, "not registered in zookeeper: tried again until it is");
                    }
                    rest(&mut pause).await;
                }
            }
        }
        let mut state = states.state();
        if !state.is_terminated() && std::mem::take(&mut away) {
            tracing::warn!(
                hosts = shared.hosts,
                "zookeeper is there again; what is registered there stands"
            );
        }
        let ended = async {
            while !state.is_terminated() {
                state = states.changed().await;
            }
        };
        tokio::select! {
            () = ended => {}
            never = shared.guard(&client) => match never {},
        }
        drop(client); // a session that nobody holds can end
        shared.client.send_replace(None);
        if !std::mem::replace(&mut away, true) {
            let hosts = &shared.hosts;
            tracing::warn!(
                hosts,
                ?state,
                "the session with zookeeper has ended: nobody is found there until there is another"
            );
        }
    }
}

/// Waits a pause, and doubles it.
async fn rest(pause: &mut Duration) {
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(LAST_PAUSE);
}

impl Shared {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<(String, String), Instance>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn services(&self) -> String {
        format!("{}/services", self.root)
    }

    fn path(&self, service: &str) -> Result<String, RegistryError> {
        if service.is_empty() || service.contains(['/', '\0']) || matches!(service, "." | "..") {
            let reason = format!("`{service}` cannot be the name of a service");
            return Err(RegistryError::Refused { reason });
        }
        Ok(format!("{}/{service}", self.services()))
    }

    /// The session, once there is one.
    async fn client(&self) -> Client {
        let mut client = self.client.subscribe();
        let alive = |client: &Option<Client>| {
            client.as_ref().is_some_and(|one| !one.state().is_terminated())
        };
        match client.wait_for(alive).await.ok().and_then(|client| client.clone()) {
            Some(client) => client,
            // The sender is ours: there is always another.
            None => std::future::pending().await,
        }
    }

    /// Does something in a session, within our patience; where that ends meanwhile, once more in the next.
    async fn in_session<'a, T, F>(
        &'a self,
        work: impl Fn(Client) -> F + Send + 'a,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        let done = async {
            match work(self.client().await).await {
                Err(Error::SessionExpired | Error::ConnectionLoss) => {
                    work(self.client().await).await
                }
                other => other,
            }
        };
        tokio::select! {
            biased;
            result = done => result.map_err(|error| self.unreachable(error.to_string())),
            reason = self.patience.is_over(&self.hosts) => Err(self.unreachable(reason)),
        }
    }

    fn unreachable(&self, reason: String) -> RegistryError {
        RegistryError::Unreachable { place: format!("zookeeper at {}", self.hosts), reason }
    }

    /// Enters all that is to stand. It goes on after an entry that fails; the first error is told.
    async fn enter_all(&self, client: &Client) -> Result<(), RegistryError> {
        let mut wrong = None;
        let keys: Vec<_> = self.entries().keys().cloned().collect();
        for key in keys {
            let entering = async {
                let _turn = self.desk.lock().await;
                // Taken out meanwhile.
                let Some(instance) = self.entries().get(&key).cloned() else { return Ok(()) };
                self.enter(client, &key.0, &instance).await
            };
            let entered = match tokio::time::timeout(ENTER, entering).await {
                Ok(entered) => entered.map_err(|error| self.unreachable(error.to_string())),
                Err(_) => Err(self.unreachable("no answer".to_owned())),
            };
            wrong = wrong.or(entered.err());
        }
        wrong.map_or(Ok(()), Err)
    }

    /// Deletes and creates, as lymph does: the node must belong to this session.
    async fn enter(
        &self,
        client: &Client,
        service: &str,
        instance: &Instance,
    ) -> Result<(), Error> {
        let folder = format!("{}/{service}", self.services());
        let path = format!("{folder}/{}", instance.id);
        let acls = Acls::anyone_all();
        let data = instance.to_json();
        client.mkdir(&folder, &CreateMode::Persistent.with_acls(acls)).await?;
        for _ in 0..TRIES {
            forget(client, &path).await?;
            let mode = CreateMode::Ephemeral.with_acls(acls);
            match client.create(&path, &data, &mode).await {
                Ok(_) => return Ok(()),
                // By a session of ours that has ended and does not know it yet, or by somebody who is called the same.
                Err(Error::NodeExists) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::NodeExists)
    }

    /// Enters again what somebody deletes, as long as the session lasts.
    async fn guard(&self, client: &Client) -> Infallible {
        let mut watched: BTreeSet<Key> = BTreeSet::new();
        let mut watches: JoinSet<Key> = JoinSet::new();
        let mut pause = PAUSE;
        loop {
            let keys: Vec<Key> =
                self.entries().keys().filter(|key| !watched.contains(*key)).cloned().collect();
            let mut again = false;
            for key in keys {
                match tokio::time::timeout(ENTER, self.stand(client, &key)).await {
                    Ok(Ok(Some((watcher, entered)))) => {
                        again |= entered;
                        watched.insert(key.clone());
                        watches.spawn(async move {
                            watcher.changed().await;
                            key
                        });
                    }
                    Ok(Ok(None)) => {}
                    // The session has ended, or its connection for a while: then nothing is known.
                    Ok(Err(_)) | Err(_) => again = true,
                }
            }
            if again {
                // Nobody who deletes again and again keeps us, or the ensemble, busy.
                rest(&mut pause).await;
            } else {
                pause = PAUSE;
                tokio::select! {
                    Some(Ok(key)) = watches.join_next() => {
                        watched.remove(&key);
                    }
                    () = self.entered.notified() => {}
                }
            }
            while let Some(Ok(key)) = watches.try_join_next() {
                watched.remove(&key);
            }
        }
    }

    /// Sees to it that an entry stands, and returns what tells of its next change and whether it had to be entered again; `None` where
    /// it is not to stand any more.
    async fn stand(
        &self,
        client: &Client,
        key: &Key,
    ) -> Result<Option<(OneshotWatcher, bool)>, Error> {
        let (service, id) = key;
        let path = format!("{}/{service}/{id}", self.services());
        let _turn = self.desk.lock().await;
        let mut entered = false;
        for _ in 0..TRIES {
            let Some(instance) = self.entries().get(key).cloned() else { return Ok(None) };
            let (found, watcher) = client.check_and_watch_stat(&path).await?;
            if found.is_some() {
                return Ok(Some((watcher, entered)));
            }
            tracing::warn!(
                service,
                id,
                "somebody has deleted our entry in zookeeper: entered again"
            );
            self.enter(client, service, &instance).await?;
            entered = true;
        }
        Err(Error::NoNode)
    }

    async fn read(&self, client: &Client, service: &str) -> Result<Instances, Error> {
        let folder = format!("{}/{service}", self.services());
        let mut instances = Vec::new();
        for id in children(client, &folder).await? {
            match client.get_data(&format!("{folder}/{id}")).await {
                Ok((data, _)) => instances.extend(parse(service, &id, &data)),
                Err(Error::NoNode) => {} // gone meanwhile
                Err(error) => return Err(error),
            }
        }
        Ok(Arc::new(instances))
    }

    /// Reads a service and waits until it may have changed; the view is told in between.
    async fn follow(
        &self,
        client: &Client,
        service: &str,
        view: &watch::Sender<Instances>,
    ) -> Result<(), Error> {
        let folder = format!("{}/{service}", self.services());
        let (ids, children) = match client.list_and_watch_children(&folder).await {
            Ok(found) => found,
            Err(Error::NoNode) => {
                let (found, watcher) = client.check_and_watch_stat(&folder).await?;
                if found.is_none() {
                    view.send_replace(Instances::default());
                    watcher.changed().await;
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut watches = JoinSet::new();
        watches.spawn(children.changed());
        let mut instances = Vec::new();
        for id in ids {
            match client.get_and_watch_data(&format!("{folder}/{id}")).await {
                Ok((data, _, watcher)) => {
                    instances.extend(parse(service, &id, &data));
                    watches.spawn(watcher.changed());
                }
                Err(Error::NoNode) => {} // gone meanwhile: the watch of the children fires, too
                Err(error) => return Err(error),
            }
        }
        view.send_if_modified(|now| {
            let changed = **now != instances;
            *now = Arc::new(instances);
            changed
        });
        watches.join_next().await;
        Ok(())
    }
}

/// Reads what somebody has written; what is no instance is passed over.
fn parse(service: &str, id: &str, data: &[u8]) -> Option<Instance> {
    match Instance::from_json(data) {
        Ok(instance) => Some(instance),
        Err(error) => {
            tracing::warn!(service, id, %error, "an entry in zookeeper is no instance");
            None
        }
    }
}

/// The names in a folder; none where it is not there.
async fn children(client: &Client, folder: &str) -> Result<Vec<String>, Error> {
    match client.list_children(folder).await {
        Err(Error::NoNode) => Ok(Vec::new()),
        found => found,
    }
}

async fn forget(client: &Client, path: &str) -> Result<(), Error> {
    match client.delete(path, None).await {
        Ok(()) | Err(Error::NoNode) => Ok(()),
        Err(error) => Err(error),
    }
}

impl Registry for ZooKeeper {
    fn register<'a>(
        &'a self,
        service: &'a str,
        instance: Instance,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(async move {
            self.shared.path(service)?;
            let (shared, entered) = (&*self.shared, &instance);
            let enter = |client: Client| async move {
                let _turn = shared.desk.lock().await;
                shared.enter(&client, service, entered).await
            };
            shared.in_session(enter).await?;
            let key = (service.to_owned(), instance.id.clone());
            shared.entries().insert(key, instance);
            shared.entered.notify_one();
            Ok(())
        })
    }

    fn unregister<'a>(
        &'a self,
        service: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(async move {
            self.shared.entries().remove(&(service.to_owned(), id.to_owned()));
            let path = format!("{}/{id}", self.shared.path(service)?);
            let (shared, path) = (&*self.shared, path.as_str());
            // With its session an entry has ended, too.
            if self.shared.client.borrow().is_none() {
                return Ok(());
            }
            let forget = |client: Client| async move {
                let _turn = shared.desk.lock().await;
                forget(&client, path).await
            };
            shared.in_session(forget).await
        })
    }

    fn lookup<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Lookup, RegistryError>> {
        Box::pin(async move {
            self.shared.path(service)?;
            let shared = &*self.shared;
            let read = |client: Client| async move { shared.read(&client, service).await };
            let first = shared.in_session(read).await?;
            let (view, seen) = watch::channel(first);
            let (shared, service) = (Arc::clone(&self.shared), service.to_owned());
            let following = Task::spawn(async move {
                loop {
                    let client = shared.client().await;
                    if let Err(error) = shared.follow(&client, &service, &view).await {
                        tracing::debug!(service, %error, "a watch in zookeeper ended");
                        drop(client); // a session that nobody holds can end
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            });
            let keeper = (following, Arc::clone(&self.task));
            Ok(Lookup::new(seen, Arc::new(keeper)))
        })
    }

    fn discover(&self) -> BoxFuture<'_, Result<BTreeMap<String, Instances>, RegistryError>> {
        Box::pin(async move {
            let shared = &*self.shared;
            let list = |client: Client| async move { children(&client, &shared.services()).await };
            let mut all = BTreeMap::new();
            for name in shared.in_session(list).await? {
                let service = name.as_str();
                let read = |client: Client| async move { shared.read(&client, service).await };
                let instances = shared.in_session(read).await?;
                if !instances.is_empty() {
                    all.insert(name, instances);
                }
            }
            Ok(all)
        })
    }
}
