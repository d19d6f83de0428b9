//! Those around the node: signals, whoever launched it, a service manager above.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use hilum_shared::signal::Signal;
use nix::unistd::getppid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::launch::{Startup, Status};
use crate::driver::signals;
use crate::runtime::Order;

/// Signals, and the end of whoever started a foreground node.
pub(super) fn listen(startup: &Startup) -> std::io::Result<mpsc::Receiver<Order>> {
    let (sender, receiver) = mpsc::channel(64);
    let mut arrivals = signals::arrivals()?;
    let detached = startup.options.detached;
    // Of one that `up` started the owner sees to it.
    let terminal = !startup.launched && has_terminal();
    let keeper = getppid();
    let orders = sender.clone();
    tokio::spawn(async move {
        let mut stops = 0;
        while let Some(signal) = arrivals.recv().await {
            let order = match signal {
                Signal::USR1 => Order::ReopenLogs,
                // A closing terminal may say it more than once.
                Signal::HUP if stops > 0 => continue,
                Signal::HUP if !terminal || has_terminal() => Order::Reload,
                Signal::TERM | Signal::INT | Signal::HUP | Signal::QUIT => {
                    stops += 1;
                    // Its death is told by TERM.
                    let reason = if getppid() == keeper {
                        format!("signal {signal}")
                    } else {
                        format!("its keeper, pid {keeper}, was killed")
                    };
                    if stops == 1 { Order::Stop(reason) } else { Order::StopNow(reason) }
                }
                _ => continue,
            };
            if orders.send(order).await.is_err() {
                return;
            }
        }
    });
    if startup.launched && !detached {
        let owner = std::io::stdin().as_fd().try_clone_to_owned()?;
        let mut owner = pipe::Receiver::from_owned_fd(owner)?;
        tokio::spawn(async move {
            let mut buffer = [0; 16];
            while !matches!(owner.read(&mut buffer).await, Ok(0) | Err(_)) {}
            let _ = sender.send(Order::Stop("whoever started it is gone".into())).await; // the loop may be gone already
        });
    }
    Ok(receiver)
}

/// Whether there is a terminal that closes with a HUP; one that has been closed is none.
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// One word to whoever launched the node; in the foreground a failure goes to stderr.
pub(super) fn report(startup: &Startup, status: &Status) -> ExitCode {
    if startup.launched {
        let line = serde_json::to_string(status).unwrap_or_default();
        let mut stdout = std::io::stdout();
        let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush()); // it may have gone away
        return ExitCode::SUCCESS;
    }
    let message = match status {
        Status::Started { .. } => return ExitCode::SUCCESS,
        Status::Running { pid } => format!("a node for this project runs already, pid {pid}"),
        Status::Failed { message, .. } => message.clone(),
    };
    let prefix = if message.starts_with("error") { "" } else { "error: " };
    let _ = writeln!(std::io::stderr(), "{prefix}{message}"); // nowhere else to say it
    ExitCode::FAILURE
}

/// A service manager above us (`Type=notify`) is told by its own socket.
pub(super) fn tell_manager(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").map(PathBuf::from) else { return };
    let Ok(socket) = std::os::unix::net::UnixDatagram::unbound() else { return };
    let sent = match path.to_str().and_then(|path| path.strip_prefix('@')) {
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            std::os::unix::net::SocketAddr::from_abstract_name(name)
                .and_then(|address| socket.send_to_addr(state.as_bytes(), &address))
        }
        None => socket.send_to(state.as_bytes(), &path),
    };
    if let Err(error) = sent {
        tracing::warn!(%error, "NOTIFY_SOCKET is set and does not listen");
    }
}
