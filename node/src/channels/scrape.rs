//! Figures by HTTP, for Prometheus: `node.metrics`.
//!
//! Each scrape is one connection and one question to the loop. Beyond sixteen connections no more are accepted, and each has ten
//! seconds: whoever connects and says nothing, or does not read, keeps nobody from asking.

use std::convert::Infallible;
use std::time::Duration;

use hilum_shared::metrics::CONTENT_TYPE;
use hyper::header::{ALLOW, CONTENT_TYPE as TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Where the figures are.
pub(crate) const PATH: &str = "/metrics";
/// Connections at once.
const MOST: usize = 16;
/// From a connection to its end.
const PATIENCE: Duration = Duration::from_secs(10);
/// After the system had no descriptor for a new connection.
const PAUSE: Duration = Duration::from_millis(100);
/// The largest head of a request, in bytes: hyper's least.
const MAX_HEAD: usize = 8192;

/// Answers until it is dropped. `ask` makes the text, or nothing when the loop is gone. In a `LocalSet`.
pub(crate) async fn serve<F>(listener: TcpListener, ask: impl Fn() -> F + Clone + 'static)
where
    F: Future<Output = Option<String>> + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MOST => match accepted {
                Ok((stream, _)) => {
                    connections.spawn_local(timeout(PATIENCE, connection(stream, ask.clone())));
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept who asks for metrics");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn connection<F>(stream: TcpStream, ask: impl Fn() -> F)
where
    F: Future<Output = Option<String>>,
{
    let service = service_fn(|request| answer(request, &ask));
    let mut server = http1::Builder::new();
    server.keep_alive(false).max_buf_size(MAX_HEAD);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        // The client's doing: it went away, or does not speak HTTP.
        tracing::debug!(%error, "a question for metrics ended early");
    }
}

async fn answer<B, F>(
    request: Request<B>,
    ask: impl Fn() -> F,
) -> Result<Response<String>, Infallible>
where
    F: Future<Output = Option<String>>,
{
    let plain = |status, text: &str| {
        let mut response = Response::new(text.to_owned());
        *response.status_mut() = status;
        response
    };
    let mut response = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, PATH) => match ask().await {
            Some(text) => {
                let mut response = Response::new(text);
                response.headers_mut().insert(TYPE, CONTENT_TYPE.parse().expect("is a header"));
                return Ok(response);
            }
            None => plain(StatusCode::SERVICE_UNAVAILABLE, "the node is on its way down\n"),
        },
        (_, PATH) => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
            response.headers_mut().insert(ALLOW, "GET, HEAD".parse().expect("is a header"));
            response
        }
        _ => plain(StatusCode::NOT_FOUND, "the figures are at /metrics\n"),
    };
    response.headers_mut().insert(TYPE, "text/plain".parse().expect("is a header"));
    Ok(response)
}
