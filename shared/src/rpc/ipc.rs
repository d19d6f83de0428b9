//! A connected Unix socket that is woken for what comes only.
//!
//! tokio's own asks epoll for reading and writing at once. The kernel says of a Unix socket that it can be written again
//! whenever the other side has read something, so that each message would wake the process that sent it for nothing:
//! that was a third of the wakes of a service under load. Here writing is asked for only while the socket is full.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream as Socket;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

use super::network::Stream;

/// Both directions of a connection.
///
/// # Errors
/// When the system has no descriptor or memory for it.
pub(super) fn split(stream: UnixStream) -> io::Result<Stream> {
    let pid = stream.peer_cred()?.pid();
    let peer = pid.map_or_else(|| "this machine".to_owned(), |pid| format!("process {pid}"));
    let socket = Arc::new(stream.into_std()?);
    let read = register(Arc::clone(&socket), Interest::READABLE)?;
    let (read, write) = (Box::new(Reading(read)), Box::new(Writing { socket, full: None }));
    Ok(Stream { read, write, peer })
}

#[expect(unsafe_code, reason = "a descriptor is registered at epoll")]
fn register(socket: Arc<Socket>, interest: Interest) -> io::Result<AsyncFd<Arc<Socket>>> {
    // SAFETY: what is registered owns the descriptor, open and the same until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
}

struct Reading(AsyncFd<Arc<Socket>>);

impl AsyncRead for Reading {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context))?;
            let space = buffer.initialize_unfilled();
            match (&**self.0.get_ref()).read(space) {
                Ok(count) => {
                    // Less than there was room for: that was all, and the next byte wakes us again (`man 7 epoll`).
                    if count < space.len() {
                        ready.clear_ready();
                    }
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

struct Writing {
    socket: Arc<Socket>,
    /// A second descriptor of it, while it takes nothing: epoll has one entry for each.
    full: Option<AsyncFd<Arc<Socket>>>,
}

impl AsyncWrite for Writing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(full) = &self.full {
                ready!(full.poll_write_ready(context))?.clear_ready();
            }
            match (&*self.socket).write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.full.is_none() {
                        let again = Arc::new(self.socket.try_clone()?);
                        self.full = Some(register(again, Interest::WRITABLE)?);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => {
                    self.full = None;
                    return Poll::Ready(result);
                }
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_is_more_than_the_socket_takes_waits_for_the_reader() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut one, mut other) = (split(one).unwrap(), split(other).unwrap());
        let sent: Vec<u8> = (0..5_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            one.write.write_all(&sent).await.unwrap();
            one.write.write_all(b"end").await.unwrap();
            one
        });
        let mut read = vec![0; expected.len()];
        other.read.read_exact(&mut read).await.unwrap();
        assert!(read == expected);
        let one = writer.await.unwrap();
        drop(one);
        let mut rest = String::new();
        other.read.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "end");
        assert!(other.write.write_all(b"x").await.is_err(), "nobody is there any more");
    }
}
