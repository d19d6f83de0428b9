//! Accepting connections, and letting go of them without losing a request.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::answer::{One, Site};
use super::config::Config;
use super::listen::Ear;
use crate::worker::{Drain, Worker};

/// From the order to leave on, a connection without a request stays open so long: what its client has sent meanwhile is
/// answered, with the news that the connection closes. At most a quarter of the time that is left.
const PATIENCE: Duration = Duration::from_millis(500);
/// After a failure to accept (no descriptors are left): others may close some.
const PAUSE: Duration = Duration::from_millis(500);
/// The part of the grace that is kept for what the service does after the last connection, at most [`KEPT_MOST`].
const KEPT: u32 = 20;
const KEPT_MOST: Duration = Duration::from_millis(250);

/// When it is time to go: the worker was told to leave, or somebody wants only this interface to end.
#[derive(Clone)]
pub(super) struct Leaving {
    worker: Worker,
    /// When what still runs is cut off; nothing as long as nobody wants it to end.
    stop: watch::Receiver<Option<Instant>>,
}

impl Leaving {
    pub(super) fn new(worker: &Worker) -> (Self, watch::Sender<Option<Instant>>) {
        let (sender, stop) = watch::channel(None);
        (Self { worker: worker.clone(), stop }, sender)
    }

    /// When what still runs is cut off, once it is known that there is an end.
    pub(super) fn end(&self) -> Option<Instant> {
        let end = |drain: Drain| drain.deadline - (drain.grace / KEPT).min(KEPT_MOST);
        self.worker.drain().map(end).or_else(|| *self.stop.borrow())
    }

    /// Waits until it is time to go.
    async fn begun(&self) {
        let mut stop = self.stop.clone();
        let stopped = async {
            if stop.wait_for(Option::is_some).await.is_err() {
                // Nobody can stop it alone any more.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            _ = self.worker.draining() => {}
            () = stopped => {}
        }
    }

    /// The time that is left.
    fn left(&self) -> Duration {
        self.end().map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()))
    }
}

/// Serves until it is time to go and the last connection is closed or cut off.
pub(super) async fn serve(
    ear: Ear,
    site: Site,
    config: &Config,
    leaving: Leaving,
) -> io::Result<()> {
    let Ear { listener, shared, .. } = ear;
    // The flag belongs to the socket, not to our descriptor: all who share it must be able to wait for connections.
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_buf_size(super::max_head(config));
    let place = Arc::new(Place { site, server, leaving: leaving.clone() });
    let most = config.max_connections.unwrap_or(usize::MAX).max(1);
    let mut connections = JoinSet::new();
    let mut begun = pin!(leaving.begun());
    loop {
        tokio::select! {
            biased;
            () = &mut begun => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < most => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(Arc::clone(&place).connection(stream, peer));
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections");
                    tokio::select! {
                        () = &mut begun => break,
                        () = sleep(PAUSE) => {}
                    }
                }
            },
        }
    }
    if shared {
        drop(listener); // what waits there is for others
    } else {
        let listener = listener.into_std()?;
        while let Ok((stream, peer)) = listener.accept() {
            let ready = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            match ready {
                Ok(stream) => {
                    connections.spawn(Arc::clone(&place).connection(stream, peer));
                }
                Err(error) => tracing::error!(%peer, %error, "cannot serve a connection"),
            }
        }
    }
    while !connections.is_empty() {
        tokio::select! {
            _ = connections.join_next() => {}
            () = sleep(leaving.left()) => {
                // A later order may have given more time.
                if leaving.left().is_zero() {
                    break;
                }
            }
        }
    }
    if !connections.is_empty() {
        tracing::warn!(connections = connections.len(), "cut off: the time to leave is over");
        connections.shutdown().await;
    }
    Ok(())
}

/// A client that left before it was accepted, and the like; `man 2 accept`.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

struct Place {
    site: Site,
    server: http1::Builder,
    leaving: Leaving,
}

impl Place {
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let _open = One::of(&self.site.figures.connections);
        // It only saves time; the connection works without.
        let _ = stream.set_nodelay(true);
        let service = service_fn(|request| self.site.answer(&self.leaving, peer, request));
        let connection = self.server.serve_connection(TokioIo::new(stream), service);
        let connection = connection.with_upgrades();
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = self.leaving.begun() => {
                tokio::select! {
                    biased;
                    ended = connection.as_mut() => Some(ended),
                    () = sleep(PATIENCE.min(self.leaving.left() / 4)) => None,
                }
            }
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                // Ends at once, or after the request that runs.
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            // The client's doing, most of the time: it went away, or does not speak HTTP.
            tracing::debug!(%peer, %error, "a connection ended early");
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::contract::Contract;
    use crate::http::Server;

    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(b"GET /_health/ HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nOK") && !answer.ends_with(b"UNHEALTHY") {
            answer.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(answer).unwrap()
    }

    /// What the health page says to who was connected before the order to leave.
    async fn asked_while_leaving(shared: bool) -> String {
        let mut bound = Server::new(Router::new()).bind().unwrap();
        (bound.ear.shared, bound.site.shared) = (shared, shared);
        let serving = bound.start(&Worker::new(Contract::none()));
        let mut client = TcpStream::connect(serving.address()).await.unwrap();
        assert!(ask(&mut client).await.starts_with("HTTP/1.1 200"));
        let leaving = serving.stop(Duration::from_secs(20));
        let asking = async {
            while serving.stop.borrow().is_none() {
                tokio::task::yield_now().await;
            }
            ask(&mut client).await
        };
        tokio::join!(leaving, asking).1
    }

    #[tokio::test]
    async fn who_leaves_is_unhealthy_unless_others_serve_its_address() {
        let alone = asked_while_leaving(false).await;
        assert!(alone.starts_with("HTTP/1.1 503"), "{alone}");
        let shared = asked_while_leaving(true).await;
        assert!(shared.starts_with("HTTP/1.1 200"), "{shared}");
        assert!(shared.contains("connection: close"), "{shared}");
    }
}
