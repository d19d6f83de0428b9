//! The worker's sockets: what comes in on them, in words of this crate. Decides nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hilum_shared::protocol::{Beat, Echo, HEARTBEAT_FRAME, Order, topics};
use hilum_shared::rpc::blocking::Push;
use hilum_shared::transport::{
    Flow, Frames, Handler, Hub, Kind, OpenError, Port, SendError, Socket, SocketEvent, SocketSpec,
};
use hilum_shared::wire::message::{EncodeError, pack, unpack};
use tokio::sync::mpsc;

use crate::contract::Contract;

/// Name of the ZeroMQ thread. Whatever it logs must not wait for it.
pub(crate) const HUB_THREAD: &str = "hilum-zmq";
/// News that wait for the main task; orders beyond that wait in their socket.
const NEWS: usize = 64;
/// Beats that wait for a node that does not read. Old ones say nothing.
const BEATS: u32 = 4;

/// What came in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum News {
    Echo(Echo),
    Order(Order),
}

/// Why a worker has no channels.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No thread or descriptor for the sockets.
    #[error("starting the ZeroMQ thread: {0}")]
    Thread(#[from] std::io::Error),
    /// A socket that the contract names.
    #[error("channel of `{variable}`: {source}")]
    Open {
        /// The variable that holds its address.
        variable: &'static str,
        /// What went wrong.
        source: OpenError,
    },
}

/// Since when the heartbeat's connection is closed.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    closed_since: Arc<Mutex<Option<Instant>>>,
}

impl Connection {
    fn closed() -> Self {
        Self { closed_since: Arc::new(Mutex::new(Some(Instant::now()))) }
    }

    fn set(&self, open: bool) {
        let mut since = self.closed_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = if open { None } else { since.or_else(|| Some(Instant::now())) };
    }

    /// For how long it has been closed.
    pub(crate) fn closed_for(&self) -> Option<Duration> {
        let since = *self.closed_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map(|at| at.elapsed())
    }
}

/// All channels that the contract offers.
pub(crate) struct Links {
    pub(crate) hub: Option<Hub>,
    pub(crate) heart: Option<Socket>,
    pub(crate) log: Option<Push>,
    pub(crate) connection: Connection,
    orders: Option<Socket>,
    news: mpsc::Receiver<News>,
}

impl Links {
    /// Opens what the contract names; no thread where it names nothing.
    pub(crate) fn open(contract: &Contract) -> Result<Self, LinkError> {
        let (sender, news) = mpsc::channel(NEWS);
        let connection = Connection::closed();
        let identity = contract.identity();
        let heart = contract.heartbeat.as_ref().zip(identity);
        let orders = contract.shutdown.as_ref().zip(contract.instance.as_ref());
        let known = contract.instance.is_some() && contract.token.is_some();
        let log = contract.log.as_ref().filter(|_| known);
        let mut links = Self { hub: None, heart: None, log: None, connection, orders: None, news };
        if let Some(endpoint) = log {
            let push = Push::new(endpoint).map_err(|source| LinkError::Open {
                variable: hilum_shared::protocol::env::LOG,
                source: source.into(),
            })?;
            links.log = Some(push);
        }
        if heart.is_none() && orders.is_none() {
            return Ok(links);
        }
        let hub = Hub::start(HUB_THREAD)?;
        if let Some((endpoint, identity)) = heart {
            let spec = SocketSpec {
                routing_id: Some(format!("{}#{}", identity.instance, identity.run).into_bytes()),
                high_water: BEATS,
                queue: BEATS as usize,
                monitor: true,
                ..SocketSpec::new(Kind::Dealer).connect(endpoint)
            };
            let ear = EchoEar { news: sender.clone(), connection: links.connection.clone() };
            links.heart = Some(hub.open(spec, ear).map_err(|source| LinkError::Open {
                variable: hilum_shared::protocol::env::HEARTBEAT,
                source,
            })?);
        }
        if let Some((endpoint, instance)) = orders {
            let spec = SocketSpec {
                subscribe: topics(instance).map(String::into_bytes).to_vec(),
                high_water: NEWS as u32,
                ..SocketSpec::new(Kind::Sub).connect(endpoint)
            };
            let ear = OrderEar { news: sender };
            links.orders = Some(hub.open(spec, ear).map_err(|source| LinkError::Open {
                variable: hilum_shared::protocol::env::SHUTDOWN,
                source,
            })?);
        }
        links.hub = Some(hub);
        Ok(links)
    }

    /// The next news. Cancelling it loses nothing; without channels it never ends.
    pub(crate) async fn next(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => {
                if let Some(orders) = &self.orders {
                    orders.resume();
                }
                news
            }
            None => std::future::pending().await,
        }
    }
}

/// Why a beat was not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BeatError {
    #[error(transparent)]
    Pack(#[from] EncodeError),
    #[error(transparent)]
    Send(#[from] SendError),
}

/// Sends a beat without waiting.
pub(crate) fn send_beat(heart: &Socket, beat: &Beat) -> Result<(), BeatError> {
    Ok(heart.send(vec![HEARTBEAT_FRAME.to_vec(), pack(beat)?])?)
}

struct EchoEar {
    news: mpsc::Sender<News>,
    connection: Connection,
}

impl Handler for EchoEar {
    fn message(&mut self, frames: Frames, _port: &mut Port<'_>) -> Flow {
        if let [kind, body] = frames.as_slice()
            && kind == HEARTBEAT_FRAME
            && let Ok(echo) = unpack::<Echo>(body, "echo")
        {
            // Full: the main task is behind, and the next echo says the same.
            let _ = self.news.try_send(News::Echo(echo));
        }
        Flow::Taken
    }

    fn event(&mut self, event: SocketEvent, _port: &mut Port<'_>) {
        self.connection.set(event == SocketEvent::Connected);
    }
}

struct OrderEar {
    news: mpsc::Sender<News>,
}

impl Handler for OrderEar {
    fn message(&mut self, frames: Frames, _port: &mut Port<'_>) -> Flow {
        let order = match frames.as_slice() {
            [_, body] => unpack::<Order>(body, "order").ok(),
            _ => None,
        };
        let Some(order) = order else { return Flow::Taken };
        match self.news.try_send(News::Order(order)) {
            Err(mpsc::error::TrySendError::Full(_)) => Flow::Full(frames),
            _ => Flow::Taken,
        }
    }
}
