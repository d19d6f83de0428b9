//! The part on the ZeroMQ thread: reads messages, answers pings, notices peers that are gone.

use std::collections::HashMap;
use std::time::Duration;

use hilum_shared::events::{Answer, messages};
use hilum_shared::rpc::router::{Caller, Incoming, NotARequest, PeerId};
use hilum_shared::transport::{Flow, Frames, Handler, Port, SocketEvent, Undelivered};
use hilum_shared::wire::message::Kind;

use super::{Mail, Note};
use crate::channels::counters::Counters;

/// How long after a connection ended libzmq surely knows that its routing id is free.
const SETTLE: Duration = Duration::from_millis(20);
/// What a call costs beside its frames.
const OVERHEAD: usize = 200;

pub(super) struct Inlet {
    mail: Mail,
    counters: Counters,
    /// Who has subscribed, to be pinged when a connection ends: a ROUTER tells only when it sends.
    subscribers: HashMap<PeerId, Caller>,
    /// A connection ended since they were looked for.
    unsettled: bool,
}

impl Inlet {
    pub(super) fn new(mail: Mail, counters: Counters) -> Self {
        Self { mail, counters, subscribers: HashMap::new(), unsettled: false }
    }

    fn gone(&mut self, peer: PeerId) {
        self.subscribers.remove(&peer);
        self.mail.put(Note::Gone(peer));
    }

    fn send(&mut self, frames: Frames, port: &mut Port<'_>) {
        let peer = PeerId(frames[0].clone());
        if port.send(frames).is_err() {
            self.gone(peer);
        }
    }

    fn request(&mut self, incoming: Incoming, size: usize, port: &mut Port<'_>) {
        if incoming.message.subject == "lymph.ping" {
            return self.send(incoming.pong(), port);
        }
        match incoming.message.interface_and_method() {
            Some((messages::INTERFACE, "subscribe" | "hold")) => {
                let caller = incoming.caller.clone();
                self.subscribers.insert(caller.peer.clone(), caller);
            }
            Some((messages::INTERFACE, _)) => {}
            _ => {
                self.counters.count("events: unknown method");
                return self.send(incoming.caller.nack(), port);
            }
        }
        self.mail.put(Note::Call(incoming, size + OVERHEAD));
    }
}

impl Handler for Inlet {
    fn message(&mut self, frames: Frames, port: &mut Port<'_>) -> Flow {
        if self.mail.is_full() {
            return Flow::Full(frames);
        }
        let size = frames.iter().map(Vec::len).sum();
        match Incoming::decode(frames) {
            Ok(incoming) => self.request(incoming, size, port),
            Err(NotARequest::Answer { peer, message }) => {
                // An answer to a ping has another id.
                let Ok(number) = message.subject.parse() else { return Flow::Taken };
                let answer = match message.kind {
                    Kind::Error => Answer::Returned,
                    Kind::Nack => Answer::Failed,
                    _ => Answer::Done,
                };
                self.mail.put(Note::Answer { peer, number, answer });
            }
            Err(NotARequest::Broken { nack, .. }) => {
                self.counters.count("events: malformed message");
                if let Some(nack) = nack {
                    self.send(nack, port);
                }
            }
        }
        Flow::Taken
    }

    fn undelivered(&mut self, mut frames: Frames, _why: Undelivered) {
        self.gone(PeerId(frames.swap_remove(0)));
    }

    fn rejected(&mut self) {
        self.counters.count("events: malformed message");
    }

    fn event(&mut self, event: SocketEvent, port: &mut Port<'_>) {
        if event == SocketEvent::Disconnected && !self.subscribers.is_empty() {
            self.unsettled = true;
            port.wake_in(SETTLE);
        }
    }

    fn timer(&mut self, port: &mut Port<'_>) {
        if std::mem::take(&mut self.unsettled) {
            port.wake_in(SETTLE); // it may have ended just now: one more look
        }
        let pings: Vec<Frames> = self.subscribers.values().map(Caller::ping).collect();
        for ping in pings {
            self.send(ping, port);
        }
    }
}
