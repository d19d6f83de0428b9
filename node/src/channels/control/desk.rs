//! The control socket's part on the ZeroMQ thread: admits calls, refuses the rest, notices clients that are gone.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hilum_shared::protocol::control;
use hilum_shared::registry::{Instance, directory};
use hilum_shared::rpc::router::{Caller, Incoming, NotARequest, PeerId};
use hilum_shared::transport::{Flow, Frames, Handler, Port, SocketEvent, Undelivered};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::calls::{Call, arguments, decode, decode_registry, methods};
use super::{Client, ControlCall, Open, lock};
use crate::channels::counters::Counters;
use crate::core::input::RequestId;

/// How long after a connection ended libzmq surely knows that its routing id is free.
const SETTLE: Duration = Duration::from_millis(20);

/// The part on the ZeroMQ thread.
pub(super) struct Desk {
    pub(super) open: Arc<Mutex<Open>>,
    pub(super) calls: mpsc::Sender<ControlCall>,
    pub(super) counters: Counters,
    pub(super) endpoint: String,
    /// A connection ended since the clients were looked for.
    pub(super) unsettled: bool,
    /// News of clients that are gone, for which the runtime had no room yet.
    pub(super) gone: Vec<ControlCall>,
}

impl Handler for Desk {
    fn message(&mut self, frames: Frames, port: &mut Port<'_>) -> Flow {
        let answer = match Incoming::decode(frames) {
            Ok(incoming) => self.serve(incoming),
            Err(NotARequest::Answer { .. }) => None, // to a ping
            Err(NotARequest::Broken { nack, .. }) => {
                self.counters.count("control: malformed message");
                nack
            }
        };
        if let Some(frames) = answer {
            self.send(frames, port);
        }
        Flow::Taken
    }

    fn undelivered(&mut self, frames: Frames, why: Undelivered) {
        self.drop_peer(frames, why);
    }

    fn rejected(&mut self) {
        self.counters.count("control: malformed message");
    }

    fn event(&mut self, event: SocketEvent, port: &mut Port<'_>) {
        if event == SocketEvent::Disconnected && !lock(&self.open).nobody() {
            self.unsettled = true;
            port.wake_in(SETTLE);
        }
    }

    /// Looks which of the clients that matter are still there: a ROUTER tells it only when it sends.
    fn timer(&mut self, port: &mut Port<'_>) {
        let peers = lock(&self.open).peers();
        if std::mem::take(&mut self.unsettled) {
            port.wake_in(SETTLE); // it may have ended just now: one more look
        }
        for caller in peers.values() {
            self.send(caller.ping(), port);
        }
        for call in std::mem::take(&mut self.gone) {
            self.tell(call);
        }
        if !self.gone.is_empty() {
            port.wake_in(SETTLE);
        }
    }
}

impl Desk {
    fn send(&mut self, frames: Frames, port: &mut Port<'_>) {
        let peer = frames[0].clone();
        if let Err(why) = port.send(frames) {
            self.drop_peer(vec![peer], why);
            if !self.gone.is_empty() {
                port.wake_in(SETTLE);
            }
        }
    }

    /// The peer is gone or does not read: forget its calls.
    fn drop_peer(&mut self, mut frames: Frames, why: Undelivered) {
        let peer = PeerId(frames.swap_remove(0));
        match why {
            // Who leaves wants nothing any more: a command that is done watches the registry until its end.
            Undelivered::Gone => {}
            Undelivered::Full => self.counters.count("control: client does not read its answers"),
            Undelivered::Invalid => self.counters.count("control: answer not sent"),
        }
        let (void, kept) = {
            let mut open = lock(&self.open);
            (open.close_all(&peer), open.kept.remove(&peer).is_some())
        };
        for id in void {
            self.tell(ControlCall { id, peer: peer.clone(), call: Call::Cancel });
        }
        if kept {
            self.tell(ControlCall { id: RequestId(0), peer, call: Call::Departed });
        }
    }

    fn tell(&mut self, call: ControlCall) {
        if let Err(TrySendError::Full(call)) = self.calls.try_send(call) {
            self.gone.push(call); // bounded by MAX_OPEN and MAX_KEPT
        }
    }

    /// Answers at once, or hands the call on and answers nothing yet.
    fn serve(&mut self, incoming: Incoming) -> Option<Frames> {
        if incoming.message.subject == "lymph.ping" {
            return Some(incoming.pong());
        }
        let Incoming { caller, message } = incoming;
        let call = match message.interface_and_method() {
            Some((control::INTERFACE, method)) => decode(method, &message),
            Some((directory::INTERFACE, method)) => decode_registry(method, &message),
            Some(("lymph", "change_loglevel")) => {
                Some(arguments(&message).map(Call::ChangeLoglevel))
            }
            Some(("lymph", "get_metrics")) => Some(Ok(Call::Metrics)),
            Some(("lymph", method)) => return Some(self.builtin(method, &caller)),
            _ => None,
        };
        let call = match call {
            Some(Ok(call)) => call,
            Some(Err(fault)) => {
                self.counters.count("control: wrong arguments");
                return Some(caller.fault(&fault));
            }
            None => {
                self.counters.count("control: unknown method");
                return Some(caller.nack());
            }
        };
        let lasting = matches!(&call, Call::Register(register) if register.token.is_none());
        let admitted = lock(&self.open).admit(Client::Here(caller.clone()), lasting);
        let id = match admitted {
            Ok(id) => id,
            Err(fault) => {
                self.counters.count("control: too many open calls");
                return Some(caller.fault(&fault));
            }
        };
        let sent = self.calls.try_send(ControlCall { id, peer: caller.peer.clone(), call });
        if sent.is_ok() {
            return None;
        }
        lock(&self.open).close(id);
        self.counters.count("control: node too busy");
        Some(caller.fault(&super::busy()))
    }

    /// What every container answers.
    fn builtin(&self, method: &str, caller: &Caller) -> Frames {
        let value = match method {
            "status" => {
                json!({"endpoint": self.endpoint, "identity": Instance::identity_of(&self.endpoint)})
            }
            "inspect" => json!({"methods": methods()}),
            _ => {
                self.counters.count("control: unknown method");
                return caller.nack();
            }
        };
        caller.reply(&value).unwrap_or_else(|_| caller.nack())
    }
}
