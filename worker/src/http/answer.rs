//! One request: its trace, the health endpoint, the author's routes, and a panic in them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::header::{CONNECTION, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use hilum_shared::wire::message::new_id;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tracing::Instrument;

use super::serve::Leaving;
use crate::metrics::{Gauge, Kind, Registry, TaggedCounter};
use crate::trace::with_trace;

/// The longest trace id that is taken from a stranger, in bytes.
const MAX_TRACE: usize = 256;

/// Asks the author whether the interface is well.
pub(super) type Health = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// All that a request needs.
pub(super) struct Site {
    pub(super) routes: TowerToHyperService<Router>,
    /// Whether others accept on the same socket, so that the address is served when this process has left.
    pub(super) shared: bool,
    /// The largest head that is taken, in bytes.
    pub(super) max_head: usize,
    /// Without its last slash.
    pub(super) health_path: Option<String>,
    pub(super) health: Health,
    pub(super) request_header: Option<HeaderName>,
    pub(super) response_header: HeaderName,
    pub(super) figures: Figures,
}

/// What is counted.
#[derive(Clone)]
pub(super) struct Figures {
    requests: TaggedCounter<1>,
    microseconds: Arc<AtomicU64>,
    active: Gauge,
    pub(super) connections: Gauge,
}

impl Figures {
    pub(super) fn new(registry: &Registry) -> Self {
        let microseconds = Arc::new(AtomicU64::new(0));
        let asked = Arc::clone(&microseconds);
        let help = "Seconds from a request's head to its response's, of all requests together.";
        registry.callable("http.seconds", help, Kind::Counter, move || {
            asked.load(Ordering::Relaxed) as f64 / 1e6
        });
        Self {
            requests: registry.tagged_counter(
                "http.requests",
                "Requests that were answered.",
                ["status"],
            ),
            microseconds,
            active: registry.gauge("http.active", "Requests that are being answered."),
            connections: registry.gauge("http.connections", "Open connections."),
        }
    }
}

/// Counts one for as long as it lives.
pub(super) struct One(Gauge);

impl One {
    pub(super) fn of(gauge: &Gauge) -> Self {
        gauge.add(1.0);
        Self(gauge.clone())
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}

impl Site {
    /// Answers a request, whatever happens.
    pub(super) async fn answer(
        &self,
        leaving: &Leaving,
        peer: SocketAddr,
        request: hyper::Request<Incoming>,
    ) -> Result<Response, Infallible> {
        let begun = Instant::now();
        let active = One::of(&self.figures.active);
        let trace_id = self.trace_of(request.headers());
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let span = tracing::info_span!("request", trace_id, %method, path);
        let work = async {
            let response = caught(self.route(leaving, peer, request)).await.unwrap_or_else(|| {
                // What it said is in the panic's own record.
                tracing::error!("a handler panicked");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            });
            let elapsed = begun.elapsed();
            let status = response.status().as_u16();
            tracing::debug!(status, elapsed_ms = elapsed.as_secs_f64() * 1e3, "answered");
            self.figures.requests.increment([response.status().as_str()]);
            let spent = elapsed.as_micros() as u64;
            self.figures.microseconds.fetch_add(spent, Ordering::Relaxed);
            response
        };
        let mut response = with_trace(trace_id.as_str(), work.instrument(span)).await;
        drop(active);
        // An id of our own is hex, and one from outside has been looked at.
        if let Ok(value) = HeaderValue::from_str(&trace_id) {
            response.headers_mut().insert(self.response_header.clone(), value);
        }
        if leaving.end().is_some() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    async fn route(
        &self,
        leaving: &Leaving,
        peer: SocketAddr,
        request: hyper::Request<Incoming>,
    ) -> Response {
        if head_length(&request) > self.max_head {
            let close = [(CONNECTION, HeaderValue::from_static("close"))];
            return (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, close).into_response();
        }
        let path = request.uri().path();
        let path = path.strip_suffix('/').unwrap_or(path);
        if self.health_path.as_deref() == Some(path) {
            return match *request.method() {
                Method::GET | Method::HEAD => {
                    // Whoever is about to leave is to get no more work; of a shared address that is no news, as others serve it.
                    let stays = self.shared || leaving.end().is_none();
                    let well = stays && (self.health)().await;
                    if well {
                        "OK".into_response()
                    } else {
                        (StatusCode::SERVICE_UNAVAILABLE, "UNHEALTHY").into_response()
                    }
                }
                _ => (StatusCode::METHOD_NOT_ALLOWED, [("allow", "GET,HEAD")]).into_response(),
            };
        }
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        match self.routes.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// The trace that the request brings, where that is wanted and it is one; else a new one.
    fn trace_of(&self, headers: &HeaderMap) -> String {
        let given = self.request_header.as_ref().and_then(|name| headers.get(name));
        let given = given.and_then(|value| value.to_str().ok());
        match given.filter(|id| !id.is_empty() && id.len() <= MAX_TRACE) {
            Some(id) => id.to_owned(),
            None => new_id(),
        }
    }
}

/// The bytes of a request's head, as it is usually written. hyper reads up to twice its own limit before it counts.
fn head_length(request: &hyper::Request<Incoming>) -> usize {
    let uri = request.uri();
    let target = match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) => scheme.len() + "://".len() + authority.as_str().len(),
        _ => 0,
    };
    let target = target + uri.path_and_query().map_or(0, |rest| rest.as_str().len());
    let line = request.method().as_str().len() + target + "  HTTP/1.1\r\n".len();
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    line + fields.sum::<usize>() + "\r\n".len()
}

/// What a future answers; nothing where it panicked.
async fn caught<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        // It is not polled again after a panic, so nobody sees what the panic left half done.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll.map(Some),
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}
