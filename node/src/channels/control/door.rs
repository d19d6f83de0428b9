//! The node as a service for other hosts: the same calls as at `node.sock`, over the connections of services, as far as they may come from
//! afar.
//!
//! Nobody is asked who he is there, as nowhere between services of a registry; so what would take the node away from its
//! owner is done at `node.sock` only, which is his.

use std::sync::{Arc, Mutex, OnceLock};

use hilum_shared::protocol::control::{self, Fault};
use hilum_shared::registry::Instance;
use hilum_shared::rpc::router::PeerId;
use hilum_shared::rpc::{Handler, Incoming, ReplyChannel};
use serde_json::json;
use tokio::sync::mpsc;

use super::calls::{Call, arguments, decode, methods};
use super::{Client, ControlCall, Open, fault, lock, metrics};
use crate::channels::counters::Counters;

/// What may be asked from afar. `wait` ends by itself with its operation.
const METHODS: [&str; 8] =
    ["status", "get_processes", "start", "stop", "restart", "scale", "events", "wait"];

/// Takes calls at an endpoint of services.
#[derive(Clone)]
pub struct Door {
    pub(super) open: Arc<Mutex<Open>>,
    pub(super) calls: mpsc::Sender<ControlCall>,
    pub(super) counters: Counters,
    /// Where it is, once that is known.
    pub(super) address: Arc<OnceLock<String>>,
}

/// Whether a method is served here.
fn is_served(subject: &str) -> bool {
    match subject.rsplit_once('.') {
        Some((control::INTERFACE, method)) => METHODS.contains(&method),
        Some((interface, _)) => interface == "lymph",
        None => false,
    }
}

impl Door {
    /// The call that a request means; `None` = it is answered already, or refused by the end of its channel.
    fn call(&self, incoming: &Incoming) -> Option<Result<Call, Fault>> {
        let Incoming { message, channel } = incoming;
        let (interface, method) = message.interface_and_method()?;
        match (interface, method) {
            (control::INTERFACE, _) if METHODS.contains(&method) => decode(method, message),
            (control::INTERFACE, _) => decode(method, message).map(|_| {
                let help = "use `hilum` on its own machine";
                Err(fault("refused", format!("`node.{method}` is not served to other hosts"), help))
            }),
            ("lymph", "status") => {
                let address = self.address.get().map(String::as_str).unwrap_or_default();
                let identity = Instance::identity_of(address);
                self.answer(channel, &json!({"endpoint": address, "identity": identity}))
            }
            ("lymph", "change_loglevel") => Some(arguments(message).map(Call::ChangeLoglevel)),
            ("lymph", "get_metrics") => self.answer(channel, &metrics(&self.open, &self.counters)),
            ("lymph", "inspect") => {
                let mut all = methods();
                all.retain(|method| method["name"].as_str().is_some_and(is_served));
                self.answer(channel, &json!({ "methods": all }))
            }
            _ => None,
        }
    }

    fn answer(
        &self,
        channel: &ReplyChannel,
        value: &serde_json::Value,
    ) -> Option<Result<Call, Fault>> {
        if channel.reply(value).is_err() {
            self.counters.count("control: answer not sent");
        }
        None
    }

    /// Says where it is; the first word counts.
    pub fn opened_at(&self, address: &str) {
        let _ = self.address.set(address.to_owned()); // documented
    }

    fn refuse(&self, why: &'static str, channel: &ReplyChannel, fault: &Fault) {
        self.counters.count(why);
        // A caller that is gone needs no reason.
        let _ = channel.error_with(fault);
    }
}

impl Handler for Door {
    fn request(&self, incoming: Incoming) {
        let call = match self.call(&incoming) {
            Some(Ok(call)) => call,
            Some(Err(fault)) => {
                return self.refuse("control: wrong arguments", &incoming.channel, &fault);
            }
            None => return, // answered, or refused by the end of its channel
        };
        let channel = incoming.channel;
        let admitted = lock(&self.open).admit(Client::Afar(channel.clone()), false);
        let id = match admitted {
            Ok(id) => id,
            Err(fault) => return self.refuse("control: too many open calls", &channel, &fault),
        };
        let peer = PeerId(b"afar".to_vec());
        if self.calls.try_send(ControlCall { id, peer, call }).is_err() {
            lock(&self.open).close(id);
            self.refuse("control: node too busy", &channel, &super::busy());
        }
    }
}
