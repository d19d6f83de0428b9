//! `notify.sock`: systemd's notify protocol (`man 3 sd_notify`), from any process of an instance.
//!
//! The kernel tells who sent a datagram (`SO_PASSCRED`), nothing in it is believed about that. Descriptors that come
//! along are closed at once: that is all that `BARRIER=1` waits for, and `FDSTORE=1` has no store here. When the loop's
//! inbox is full no datagram is read, and senders wait in the kernel.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hilum_shared::name::{InstanceId, Run};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt,
};
use tokio::io::Interest;
use tokio::sync::mpsc;

use super::counters::Counters;
use crate::core::input::{Input, NotifyMessage, Report};

/// The longest datagram that is read, as systemd's own `NOTIFY_BUFFER_MAX`.
const MAX_DATAGRAM: usize = 4096;

/// The most descriptors that the kernel lets a datagram carry (`SCM_MAX_FD`): with room for all of them the control
/// data is never cut off, which would hide who sent it.
const MAX_DESCRIPTORS: usize = 253;

/// Who sent a datagram, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The process; it may have ended since.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
}

/// The bound socket. Dropping it removes the file.
pub struct Notify {
    socket: tokio::net::UnixDatagram,
    path: PathBuf,
}

/// One datagram.
#[derive(Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it.
    pub sender: Sender,
    /// Its text; `None` when it is not one, or too long.
    pub text: Option<String>,
}

impl Notify {
    /// Binds `path` with this file mode, in place of what a killed node left there: only under the node's lock. To be
    /// called inside a tokio runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixDatagram::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        let socket = tokio::net::UnixDatagram::from_std(socket)?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// Its path, the value of `NOTIFY_SOCKET`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the next datagram. Cancel-safe.
    ///
    /// # Errors
    /// What the system says.
    pub async fn receive(&self, counters: &Counters) -> io::Result<Datagram> {
        loop {
            let read = || read_datagram(self.socket.as_raw_fd());
            if let Some(datagram) = self.socket.async_io(Interest::READABLE, read).await? {
                return Ok(datagram);
            }
            counters.count("notify: without a sender");
        }
    }

    /// Hands every message of an instance's process to the loop, for ever. `resolve` says whose process a sender is.
    ///
    /// # Errors
    /// When the socket fails; it ends without one when the inbox is closed.
    pub async fn run(
        self,
        mut resolve: impl FnMut(Sender) -> Option<(InstanceId, Run)>,
        inbox: mpsc::Sender<Input>,
        counters: Counters,
    ) -> io::Result<()> {
        loop {
            let datagram = self.receive(&counters).await?;
            let Some(message) = datagram.text.as_deref().and_then(|text| parse(text, &counters))
            else {
                counters.count("notify: malformed");
                continue;
            };
            if message == NotifyMessage::default() {
                continue; // a barrier, or keys that are not for us
            }
            let Some((instance, run)) = resolve(datagram.sender) else {
                counters.count("notify: not an instance's process");
                continue;
            };
            if inbox
                .send(Input::Report { instance, run, report: Report::Notify(message) })
                .await
                .is_err()
            {
                return Ok(());
            }
        }
    }
}

impl Drop for Notify {
    fn drop(&mut self) {
        // Already gone when the run folder was removed first.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Reads one datagram and closes what came with it; `None` when the kernel did not say who sent it.
fn read_datagram(fd: RawFd) -> io::Result<Option<Datagram>> {
    let mut buffer = [0; MAX_DATAGRAM];
    let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS], UnixCredentials);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let (length, cut, sender) = {
        let message = recvmsg::<()>(fd, &mut parts, Some(&mut control), flags)?;
        let mut sender = None;
        // Refused only when our descriptors ran out half way through those that came.
        for part in message.cmsgs().into_iter().flatten() {
            match part {
                ControlMessageOwned::ScmCredentials(from) => {
                    sender = Some(Sender { pid: from.pid().cast_unsigned(), uid: from.uid() });
                }
                ControlMessageOwned::ScmRights(descriptors) => {
                    for descriptor in descriptors {
                        let _ = nix::unistd::close(descriptor); // ours alone, and gone in any case
                    }
                }
                _ => {}
            }
        }
        (message.bytes, message.flags.contains(MsgFlags::MSG_TRUNC), sender)
    };
    let text = std::str::from_utf8(&buffer[..length]).ok().filter(|_| !cut).map(str::to_owned);
    Ok(sender.map(|sender| Datagram { sender, text }))
}

/// Reads `KEY=VALUE` lines; unknown keys are for others. `None` where there is no such line at all.
fn parse(text: &str, counters: &Counters) -> Option<NotifyMessage> {
    let mut message = NotifyMessage::default();
    let mut any = false;
    for line in text.lines().filter(|line| !line.is_empty()) {
        let Some((key, value)) = line.split_once('=') else {
            counters.count("notify: line without `=`");
            continue;
        };
        any = true;
        match (key, value) {
            ("READY", "1") => message.ready = true,
            ("STOPPING", "1") => message.stopping = true,
            ("RELOADING", "1") => message.reloading = true,
            ("WATCHDOG", "1") => message.watchdog = true,
            ("WATCHDOG", "trigger") => message.trigger = true,
            ("STATUS", status) => message.status = Some(status.to_owned()),
            ("WATCHDOG_USEC", value) => message.watchdog_interval = micros(value, counters),
            ("EXTEND_TIMEOUT_USEC", value) => message.extend_timeout = micros(value, counters),
            ("FDSTORE", "1") => counters.count("notify: descriptors are not kept (FDSTORE)"),
            _ => {}
        }
    }
    any.then_some(message)
}

fn micros(value: &str, counters: &Counters) -> Option<Duration> {
    match value.parse::<u64>() {
        Ok(micros) if micros > 0 => Some(Duration::from_micros(micros)),
        _ => {
            counters.count("notify: not a number of microseconds");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Read};

    use nix::sys::socket::{ControlMessage, UnixAddr, sendmsg};
    use proptest::prelude::*;

    use super::*;
    use crate::channels::testing::LIMIT;

    fn id(text: &str) -> InstanceId {
        InstanceId::parse(text).unwrap()
    }

    /// Runs a socket whose every sender of this process is `a.1`, run 4.
    async fn with_notify(test: impl AsyncFnOnce(&Path, &mut mpsc::Receiver<Input>, &Counters)) {
        let folder = tempfile::Builder::new().prefix("h").tempdir_in("/tmp").unwrap();
        let path = folder.path().join("notify.sock");
        drop(UnixDatagram::bind(&path).unwrap()); // a killed node's
        let notify = Notify::bind(&path, 0o600).unwrap();
        let (sender, mut inbox) = mpsc::channel(2);
        let counters = Counters::default();
        let me = std::process::id();
        let resolve = move |sender: Sender| (sender.pid == me).then(|| (id("a.1"), Run(4)));
        let running = tokio::spawn(notify.run(resolve, sender, counters.clone()));
        let testing = test(&path, &mut inbox, &counters);
        tokio::time::timeout(LIMIT, testing).await.expect("took too long");
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        assert!(!path.exists(), "the socket's file is left");
    }

    fn send(path: &Path, datagram: &[u8]) {
        UnixDatagram::unbound().unwrap().send_to(datagram, path).unwrap();
    }

    async fn next(inbox: &mut mpsc::Receiver<Input>) -> NotifyMessage {
        match inbox.recv().await {
            Some(Input::Report { instance, run: Run(4), report: Report::Notify(message) })
                if instance == id("a.1") =>
            {
                message
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_message_arrives_as_what_it_says() {
        with_notify(async |path, inbox, _| {
            send(path, b"READY=1\nSTATUS=all set\nWATCHDOG_USEC=2000000\nX_OTHER=1\nMAINPID=1\n");
            let expected = NotifyMessage {
                ready: true,
                status: Some("all set".into()),
                watchdog_interval: Some(Duration::from_secs(2)),
                ..Default::default()
            };
            assert_eq!(next(inbox).await, expected);
            send(path, b"STOPPING=1\nEXTEND_TIMEOUT_USEC=5");
            let message = next(inbox).await;
            assert!(message.stopping && message.extend_timeout == Some(Duration::from_micros(5)));
            send(path, b"WATCHDOG=trigger");
            assert!(next(inbox).await.trigger);
        })
        .await;
    }

    #[tokio::test]
    async fn garbage_is_counted_and_the_next_message_read() {
        with_notify(async |path, inbox, counters| {
            send(path, b"");
            send(path, &[0xff; 100]);
            send(path, &[b'A'; 5000]);
            send(path, b"no equals sign");
            send(path, b"WATCHDOG_USEC=soon\nWATCHDOG=1");
            let message = next(inbox).await;
            assert!(message.watchdog && message.watchdog_interval.is_none());
            assert_eq!(counters.get("notify: malformed"), 4);
        })
        .await;
    }

    #[tokio::test]
    async fn a_strangers_message_is_counted() {
        with_notify(async |path, inbox, counters| {
            let script = "import socket,sys; socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM).sendto(b'READY=1',sys.argv[1])";
            let mut child =
                std::process::Command::new("python3").args(["-c", script]).arg(path).spawn().unwrap();
            assert!(child.wait().unwrap().success());
            send(path, b"STATUS=mine");
            assert!(!next(inbox).await.ready);
            assert_eq!(counters.get("notify: not an instance's process"), 1);
        })
        .await;
    }

    #[tokio::test]
    async fn a_barrier_and_stored_descriptors_are_closed() {
        with_notify(async |path, inbox, _| {
            for text in [&b"BARRIER=1"[..], b"FDSTORE=1\nSTATUS=x"] {
                let (mut reader, writer) = std::io::pipe().unwrap();
                let socket = UnixDatagram::unbound().unwrap();
                let descriptors = vec![writer.as_raw_fd(); 253];
                let control = [ControlMessage::ScmRights(&descriptors)];
                let address = UnixAddr::new(path).unwrap();
                sendmsg(
                    socket.as_raw_fd(),
                    &[IoSlice::new(text)],
                    &control,
                    MsgFlags::empty(),
                    Some(&address),
                )
                .unwrap();
                drop(writer);
                let closed = tokio::task::spawn_blocking(move || reader.read(&mut [0]).unwrap());
                assert_eq!(closed.await.unwrap(), 0);
            }
            assert_eq!(next(inbox).await.status.as_deref(), Some("x"));
        })
        .await;
    }

    proptest! {
        #[test]
        fn any_text_gets_an_answer(text in "[A-Z_]{0,12}[=\n]{0,2}\\PC{0,30}") {
            let _ = parse(&text, &Counters::default());
        }
    }
}
