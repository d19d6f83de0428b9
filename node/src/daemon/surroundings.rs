//! Those around the node: signals, whoever launched it, a service manager above.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hilum_shared::signal::Signal;
use nix::unistd::getppid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::launch::{Startup, Status};
use crate::driver::signals;
use crate::runtime::{LoopPulse, Order};

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

/// What a service manager above us with `WatchdogSec=` wants to hear: at half the time after which it takes us for hung (`man 3
/// sd_watchdog_enabled`). The process that it knows is the keeper.
pub(super) fn watchdog_of_manager() -> Option<LoopPulse> {
    std::env::var_os("NOTIFY_SOCKET")?;
    let said = |name: &str| std::env::var(name).ok();
    let every = watchdog_interval(said("WATCHDOG_USEC"), said("WATCHDOG_PID"), getppid().as_raw())?;
    Some(LoopPulse { every, send: || tell_manager("WATCHDOG=1\n") })
}

/// Half of `WATCHDOG_USEC`, where `WATCHDOG_PID` means this node or nobody in particular.
fn watchdog_interval(usec: Option<String>, pid: Option<String>, keeper: i32) -> Option<Duration> {
    let ours = [keeper.to_string(), std::process::id().to_string()];
    if pid.is_some_and(|pid| !ours.contains(&pid)) {
        return None;
    }
    let micros = usec?.parse().ok().filter(|micros| *micros >= 2)?;
    Some(Duration::from_micros(micros) / 2)
}

/// A service manager above us (`Type=notify`) is told by its own socket.
pub(super) fn tell_manager(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").map(PathBuf::from) else { return };
    let Ok(socket) = std::os::unix::net::UnixDatagram::unbound() else { return };
    // Who does not read its messages misses them: nobody here waits for that.
    if socket.set_nonblocking(true).is_err() {
        return;
    }
    let sent = match path.to_str().and_then(|path| path.strip_prefix('@')) {
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            std::os::unix::net::SocketAddr::from_abstract_name(name)
                .and_then(|address| socket.send_to_addr(state.as_bytes(), &address))
        }
        None => socket.send_to(state.as_bytes(), &path),
    };
    static TOLD: AtomicBool = AtomicBool::new(false);
    if let Err(error) = sent
        && !TOLD.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(%error, "NOTIFY_SOCKET is set and does not take what it is told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_fed_at_half_its_time_when_it_watches_this_node() {
        let interval = |usec: &str, pid: Option<&str>| {
            watchdog_interval(Some(usec.into()), pid.map(str::to_owned), 77)
        };
        assert_eq!(interval("30000000", None), Some(Duration::from_secs(15)));
        assert_eq!(interval("30000000", Some("77")), Some(Duration::from_secs(15)));
        assert!(interval("3000000", Some(&std::process::id().to_string())).is_some());
        assert_eq!(interval("30000000", Some("78")), None);
        for wrong in ["", "0", "1", "-5", "soon"] {
            assert_eq!(interval(wrong, None), None, "{wrong}");
        }
        assert_eq!(watchdog_interval(None, None, 77), None);
    }
}
