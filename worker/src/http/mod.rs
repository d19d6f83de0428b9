//! HTTP interfaces: an [`axum`] router served by a worker.
//!
//! ```no_run
//! use hilum_worker::http::axum::{Router, routing::get};
//! use hilum_worker::http::{Config, Server, metrics_route};
//! use hilum_worker::metrics::{Process, Registry};
//! use hilum_worker::{ServiceResult, Worker};
//!
//! async fn web(worker: Worker) -> ServiceResult {
//!     let registry = Registry::new(worker.contract().tags());
//!     registry.add(Process);
//!     let routes = Router::new()
//!         .route("/", get(|| async { "hello" }))
//!         .merge(metrics_route("/metrics", &registry));
//!     let bound = Server::new(routes)
//!         .config(Config { port: Some(4080), ..Config::default() })
//!         .healthy(|| async { true })
//!         .metrics(&registry)
//!         .bind()?;
//!     worker.ready();
//!     bound.serve(&worker).await?;
//!     Ok(())
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> std::process::ExitCode {
//!     hilum_worker::run(web).await
//! }
//! ```
//!
//! - **Health**: `GET /_health/` answers 200, or 503 where the author's function says so and from the order to leave on.
//! - **Trace**: each request has a trace id, which its log records carry ([`crate::trace`]) and every response tells in
//!   `X-Trace-Id`, also 404, 405 and 500. A request's own is taken only where [`Tracing::request_header`] names the
//!   header that brings it.
//! - **A panic** in a handler is logged and answered by 500 with an empty body. What hyper itself refuses (a head that is
//!   no HTTP or too large) never becomes a request and has no trace.
//! - **One port for many processes**: where the node passes a shared socket for the port (`sockets:` of its
//!   configuration), all accept on it, and while one restarts the others go on; with none left, connections wait.
//! - **Leaving**: when the worker is told to, nothing more is accepted, what runs is finished within the grace, and
//!   connections that are kept alive close after their next answer or half a second.
//!
//! It speaks HTTP/1.1; a proxy in front speaks TLS and HTTP/2 to the world. A connection that was upgraded (a WebSocket)
//! is its handler's own: leaving does not wait for it.

mod answer;
mod config;
mod listen;
mod serve;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use axum;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::routing::get;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tokio::time::Instant;

use self::answer::{Figures, Health, Site};
use self::serve::Leaving;
use crate::metrics::{self, Registry, to_prometheus};
use crate::worker::Worker;

pub use config::{Config, Healthcheck, Tracing};
pub use listen::BindError;

/// An HTTP interface before it listens.
#[must_use = "it listens only when it is bound"]
pub struct Server {
    routes: Router,
    config: Config,
    health: Health,
    figures: Figures,
}

impl Server {
    /// Serves these routes with all defaults: a free port on 127.0.0.1, always healthy.
    pub fn new(routes: Router) -> Self {
        Self {
            routes,
            config: Config::default(),
            health: Arc::new(|| Box::pin(std::future::ready(true))),
            // Counted where nobody reads them, which costs next to nothing.
            figures: Figures::new(&Registry::default()),
        }
    }

    /// Where and how.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// What the health endpoint asks.
    pub fn healthy<F, A>(mut self, is_healthy: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = bool> + Send + 'static,
    {
        self.health = Arc::new(move || Box::pin(is_healthy()));
        self
    }

    /// Counts requests (`http.requests`, tag `status`), the time they took (`http.seconds`), those that run
    /// (`http.active`) and open connections (`http.connections`) in this registry.
    pub fn metrics(mut self, registry: &Registry) -> Self {
        self.figures = Figures::new(registry);
        self
    }

    /// Listens. Connections wait until it is served.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(self) -> Result<Bound, BindError> {
        let Self { routes, config, health, figures } = self;
        let header = |name: &str| {
            HeaderName::try_from(name).map_err(|_| BindError::Setting {
                value: name.to_owned(),
                expected: "the name of a header",
            })
        };
        let endpoint = &config.healthcheck.endpoint;
        if !endpoint.starts_with('/') {
            let expected = "a path for `healthcheck.endpoint`: it begins with `/`";
            return Err(BindError::Setting { value: endpoint.clone(), expected });
        }
        let health_path = endpoint.strip_suffix('/').unwrap_or(endpoint).to_owned();
        let most = usize::try_from(config.max_body.0).unwrap_or(usize::MAX);
        let ear = listen::open(&config, &|name| std::env::var(name).ok())?;
        let site = Site {
            shared: ear.shared,
            max_head: max_head(&config),
            routes: TowerToHyperService::new(routes.layer(DefaultBodyLimit::max(most))),
            health_path: config.healthcheck.enabled.then_some(health_path),
            health,
            request_header: config.tracing.request_header.as_deref().map(header).transpose()?,
            response_header: header(&config.tracing.response_header)?,
            figures,
        };
        Ok(Bound { ear, site, config })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
}

/// An HTTP interface that listens.
#[must_use = "nothing is accepted before it is served"]
pub struct Bound {
    ear: listen::Ear,
    site: Site,
    config: Config,
}

impl Bound {
    /// Where it listens, with a real port.
    pub fn address(&self) -> SocketAddr {
        self.ear.address
    }

    /// Whether the socket is the node's and others may accept on it, too.
    pub fn is_shared(&self) -> bool {
        self.ear.shared
    }

    /// Serves until the worker is told to leave and the last request is answered; what takes longer than the grace is
    /// cut off, and a warning says how many.
    ///
    /// # Errors
    /// When the socket cannot be waited for. What goes wrong with one connection ends only that one.
    pub async fn serve(self, worker: &Worker) -> std::io::Result<()> {
        let (leaving, _) = Leaving::new(worker);
        serve::serve(self.ear, self.site, &self.config, leaving).await
    }

    /// [`serve`](Self::serve) in a task of its own, for services that do something else besides. Wait for
    /// [`Serving::ended`] before the service ends, or call [`Serving::stop`]: what runs then is cut off.
    pub fn start(self, worker: &Worker) -> Serving {
        let (over, ended) = watch::channel(());
        let (leaving, stop) = Leaving::new(worker);
        let serving = Serving { address: self.address(), ended, stop };
        tokio::spawn(async move {
            if let Err(error) = serve::serve(self.ear, self.site, &self.config, leaving).await {
                tracing::error!(%error, "cannot serve HTTP");
            }
            drop(over);
        });
        serving
    }
}

/// An HTTP interface that is served by a task of its own.
#[derive(Debug)]
pub struct Serving {
    address: SocketAddr,
    ended: watch::Receiver<()>,
    stop: watch::Sender<Option<Instant>>,
}

impl Serving {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the worker was told to leave and the last request is answered. Any number of tasks may wait.
    pub async fn ended(&self) {
        // Nothing is ever sent: the error says that the task is over.
        let _ = self.ended.clone().changed().await;
    }

    /// Ends it as if the worker was told to leave, and waits for that. What takes longer than `within` is cut off;
    /// where the worker was told already, what the order gave counts.
    pub async fn stop(&self, within: Duration) {
        self.stop.send_replace(Some(Instant::now() + within));
        self.ended().await;
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("address", &self.ear.address).finish_non_exhaustive()
    }
}

/// The largest head, in bytes. hyper's buffer has no less than the 8 KiB.
fn max_head(config: &Config) -> usize {
    usize::try_from(config.max_head.0).unwrap_or(usize::MAX).max(8 << 10)
}

/// A route at `path` that tells all figures of a registry to Prometheus.
pub fn metrics_route<S>(path: &str, registry: &Registry) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let registry = registry.clone();
    let tell = move || async move {
        ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], to_prometheus(&registry.series()))
    };
    Router::new().route(path, get(tell))
}
