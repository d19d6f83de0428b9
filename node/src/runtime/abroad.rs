//! The node in a registry that other hosts know: it listens there, is found as `node`, and says when the registry is away.
//!
//! The cluster never waits for it. With the node's own registry nothing of this runs, and no port is open.

use std::net::IpAddr;
use std::time::Duration;

use hilum_shared::registry::{BUILTIN, Choice, Instance, NODE, hostname};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::{Aside, Runtime};
use crate::channels::control::Door;
use crate::core::input::Input;

/// A session usually begins within this; then the registry is said to be away.
const SOON: Duration = Duration::from_secs(2);
/// Between two tries to listen or to register.
const AGAIN: Duration = Duration::from_secs(1);
/// To leave the registry at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// The node's part in such a registry.
pub(super) struct Abroad {
    leave: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// What it needs to know.
struct Place {
    hosts: String,
    ip: IpAddr,
    port: Option<u16>,
    log_endpoint: Option<String>,
    door: Door,
    news: mpsc::UnboundedSender<Aside>,
}

impl Runtime {
    /// Goes there, where the configuration names one.
    pub(super) fn go_abroad(&mut self) {
        let container = &self.parts.cluster.container;
        let Choice::ZooKeeper(hosts) = &container.registry else { return };
        let published = Some(self.context.endpoints.log_endpoint.clone());
        let place = Place {
            hosts: hosts.clone(),
            ip: container.ip,
            port: container.port,
            // What is on this machine only is no address for others.
            log_endpoint: published.filter(|address| address.starts_with("tcp://")),
            door: self.parts.control.door(),
            news: self.aside.0.clone(),
        };
        let (leave, left) = oneshot::channel();
        let task = tokio::task::spawn_local(place.stay(left));
        self.abroad = Some(Abroad { leave, task });
    }

    /// The registry is away for a reason, or there again.
    pub(super) fn registry_news(&mut self, away: Option<String>) {
        if self.away != away {
            self.away.clone_from(&away);
            self.queue.push_back(Input::RegistryAway(away));
        }
    }

    /// Leaves it, so that nobody looks for a node that has ended.
    pub async fn leave(&mut self) {
        let Some(abroad) = self.abroad.take() else { return };
        let _ = abroad.leave.send(()); // it may have ended
        if tokio::time::timeout(FAREWELL, abroad.task).await.is_err() {
            tracing::warn!(
                "the registry did not answer at the end: the node's entry ends with its session"
            );
        }
    }
}

impl Place {
    fn tell(&self, away: Option<String>) {
        let _ = self.news.send(Aside::Registry(away)); // the loop may be gone already
    }

    #[cfg(not(feature = "zookeeper"))]
    #[expect(clippy::unused_async, reason = "with the feature it waits")]
    async fn stay(self, _left: oneshot::Receiver<()>) {
        // Refused when the configuration was read.
        self.tell(Some("this binary was built without ZooKeeper".to_owned()));
    }

    #[cfg(feature = "zookeeper")]
    async fn stay(self, mut left: oneshot::Receiver<()>) {
        use hilum_shared::registry::{Patience, Registry, ZooKeeper};
        use hilum_shared::transport::reach;
        let endpoint = tokio::select! {
            endpoint = self.listen() => endpoint,
            _ = &mut left => return,
        };
        self.door.opened_at(endpoint.address());
        let registry = ZooKeeper::new(&self.hosts, Patience::Service);
        let ip = reach::host(endpoint.address()).map(str::to_owned);
        let entries = entries(endpoint.address(), ip, self.log_endpoint.clone());
        let staying = async {
            loop {
                if tokio::time::timeout(SOON, registry.connected()).await.is_err() {
                    self.tell(Some(registry.trouble().await.to_string()));
                    registry.connected().await;
                }
                // In each new session: what was registered once is also entered anew by itself.
                let mut wrong = None;
                for (name, instance) in &entries {
                    wrong = registry.register(name, instance.clone()).await.err().or(wrong);
                }
                match wrong {
                    None => {
                        self.tell(None);
                        registry.disconnected().await;
                    }
                    Some(error) => {
                        self.tell(Some(error.to_string()));
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        };
        tokio::select! {
            () = staying => {}
            _ = left => {}
        }
        for (name, instance) in &entries {
            // A registry that is away forgets us by itself.
            if registry.unregister(name, &instance.id).await.is_err() {
                break;
            }
        }
    }

    /// Listens, sooner or later.
    #[cfg(feature = "zookeeper")]
    async fn listen(&self) -> hilum_shared::rpc::Endpoint {
        use std::sync::Arc;

        use hilum_shared::rpc::{Config, Endpoint, Sockets};
        let ip = match self.ip {
            IpAddr::V6(ip) => format!("[{ip}]"),
            IpAddr::V4(ip) => ip.to_string(),
        };
        let port = self.port.map_or_else(|| "*".to_owned(), |port| port.to_string());
        let address = format!("tcp://{ip}:{port}");
        loop {
            let handler = Arc::new(self.door.clone());
            match Endpoint::open(Arc::new(Sockets), &[&address], handler, Config::default()).await {
                Ok(endpoint) => return endpoint,
                Err(error) => {
                    self.tell(Some(format!("the node cannot listen at {address}: {error}")));
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

/// What a node is found as, wherever it is registered.
pub(super) fn entries(
    address: &str,
    ip: Option<String>,
    log_endpoint: Option<String>,
) -> [(&'static str, Instance); 2] {
    let described = |instance| Instance {
        log_endpoint: log_endpoint.clone(),
        hostname: Some(hostname().to_owned()),
        fqdn: Some(hostname().to_owned()),
        ip: ip.clone(),
        ..instance
    };
    [(NODE, Instance::new(NODE, address, None)), (BUILTIN, Instance::builtin(address))]
        .map(|(name, instance)| (name, described(instance)))
}
