//! The broker's thread: takes calls, answers them, sends events.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use hilum_shared::events::broker::{Broker, Delivery, Effect, Emit, Limits, Refusal, Subscribe};
use hilum_shared::events::{MAX_NAME, Pattern, is_kind, messages};
use hilum_shared::protocol::control::Fault;
use hilum_shared::rpc::router::{Caller, Incoming, PeerId};
use hilum_shared::transport::{Frames, Socket};
use hilum_shared::wire::message::{Headers, Kind, Message};
use hilum_shared::wire::{Event, Value};

use super::{Mail, Note};
use crate::channels::counters::Counters;
use crate::channels::roster::Roster;

/// So long a message waits for room on its way to the ZeroMQ thread, which never takes long.
const PATIENCE: Duration = Duration::from_secs(1);
/// Notes that are taken at once before effects are sent.
const BATCH: usize = 256;
/// The longest that an event may be held back: it is lost with the node in any case.
const MAX_DELAY: Duration = Duration::from_secs(366 * 86_400);

type Packed = Arc<[u8]>;

pub(super) struct Desk {
    broker: Broker<PeerId, Packed>,
    begun: Instant,
    socket: Socket,
    mail: Mail,
    /// Where strangers may connect: who may speak.
    roster: Option<Roster>,
    counters: Counters,
    /// Subscribers by their run's token.
    runs: HashMap<String, BTreeSet<PeerId>>,
    /// Open `events.hold`, one of each peer, and when they are answered.
    holds: HashMap<PeerId, (Instant, Caller)>,
    /// Who has subscribed: a hold of others is refused, so that they subscribe anew.
    known: BTreeSet<PeerId>,
    effects: Vec<Effect<PeerId, Packed>>,
}

impl Desk {
    pub(super) fn new(
        socket: Socket,
        mail: Mail,
        roster: Option<Roster>,
        counters: Counters,
    ) -> Self {
        Self {
            broker: Broker::new(Limits::default()),
            begun: Instant::now(),
            socket,
            mail,
            roster,
            counters,
            runs: HashMap::new(),
            holds: HashMap::new(),
            known: BTreeSet::new(),
            effects: Vec::new(),
        }
    }

    pub(super) fn run(mut self, notes: &Receiver<Note>) {
        loop {
            let first = match self.deadline() {
                Some(at) => notes.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => notes.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match first {
                Ok(Note::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(note) => self.note(note),
                Err(RecvTimeoutError::Timeout) => {}
            }
            for note in notes.try_iter().take(BATCH) {
                if matches!(note, Note::Stop) {
                    return;
                }
                self.note(note);
            }
            self.broker.tick(self.begun.elapsed(), &mut self.effects);
            self.answer_holds();
            self.carry_out();
            self.socket.resume();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let broker = self.broker.deadline().map(|at| self.begun + at);
        self.holds.values().map(|(at, _)| *at).chain(broker).min()
    }

    fn note(&mut self, note: Note) {
        let now = self.begun.elapsed();
        match note {
            Note::Call(incoming, size) => {
                self.mail.bytes.fetch_sub(size, Ordering::SeqCst);
                self.call(&incoming);
            }
            Note::Answer { peer, number, answer } => {
                self.broker.answer(now, &peer, number, answer, &mut self.effects);
            }
            Note::Gone(peer) => self.leave(&peer),
            Note::Ended(token) => {
                for peer in self.runs.remove(&token).unwrap_or_default() {
                    self.leave(&peer);
                }
            }
            Note::Stop => {}
        }
    }

    fn leave(&mut self, peer: &PeerId) {
        self.broker.leave(self.begun.elapsed(), peer, &mut self.effects);
        self.runs.retain(|_, peers| {
            peers.remove(peer);
            !peers.is_empty()
        });
        self.known.remove(peer);
        if let Some((_, caller)) = self.holds.remove(peer) {
            // One that only did not read for a while learns so that it is to subscribe anew.
            self.send(caller.fault(&unknown()));
        }
    }

    fn call(&mut self, incoming: &Incoming) {
        let caller = &incoming.caller;
        let method = incoming.message.interface_and_method().map(|(_, method)| method);
        let answer = match method {
            Some("subscribe") => self.subscribe(incoming),
            Some("unsubscribe") => self.unsubscribe(incoming),
            Some("emit") => self.emit(incoming),
            Some("hold") => {
                let held = self.hold(caller);
                let Err(fault) = held else { return };
                Err(fault)
            }
            _ => {
                self.counters.count("events: unknown method");
                return self.send(caller.nack());
            }
        };
        let frames = match answer {
            Ok(queues) => {
                let reply = caller.reply(&messages::Emitted { queues });
                reply.unwrap_or_else(|_| caller.nack())
            }
            Err(fault) => caller.fault(&fault),
        };
        self.send(frames);
    }

    fn subscribe(&mut self, incoming: &Incoming) -> Result<usize, Fault> {
        let args: messages::Subscribe = arguments(incoming)?;
        self.admit(args.token.as_deref())?;
        checked("a queue's name", &args.queue)?;
        args.patterns.iter().try_for_each(|pattern| kind("a pattern", pattern))?;
        let peer = &incoming.caller.peer;
        let subscribe = Subscribe {
            patterns: args.patterns.iter().map(|text| Pattern::new(text)).collect(),
            prefetch: if args.sequential { 1 } else { args.prefetch },
            own: args.broadcast,
            queue: args.queue,
        };
        self.broker.subscribe(peer.clone(), subscribe, &mut self.effects).map_err(refused)?;
        self.known.insert(peer.clone());
        if let Some(token) = args.token {
            self.runs.entry(token).or_default().insert(peer.clone());
        }
        Ok(0)
    }

    fn unsubscribe(&mut self, incoming: &Incoming) -> Result<usize, Fault> {
        let args: messages::Unsubscribe = arguments(incoming)?;
        let (now, peer) = (self.begun.elapsed(), &incoming.caller.peer);
        self.broker.unsubscribe(now, peer, &args.queue, &mut self.effects);
        Ok(0)
    }

    fn emit(&mut self, incoming: &Incoming) -> Result<usize, Fault> {
        let args: messages::Emit = arguments(incoming)?;
        self.admit(args.token.as_deref())?;
        kind("an event's type", &args.kind)?;
        let delay = Duration::try_from_secs_f64(args.delay.max(0.0)).unwrap_or(Duration::MAX);
        if delay > MAX_DELAY {
            let message = format!("{} seconds are too long a delay", args.delay);
            return Err(fault("usage", message, "a year is the most"));
        }
        let headers = match args.headers {
            Value::Nil => Value::Map(Vec::new()),
            headers => headers,
        };
        let event = Event { kind: args.kind, headers, body: args.body, source: args.source };
        let packed = event.encode().map_err(|error| {
            fault("usage", format!("the event cannot be packed: {error}"), "send less of it")
        })?;
        let emit = Emit {
            kind: event.kind,
            size: packed.len(),
            event: packed.into(),
            delay,
            queue: args.queue,
        };
        self.broker.emit(self.begun.elapsed(), emit, &mut self.effects).map_err(refused)
    }

    /// Keeps the call open: its end tells the peer that the connection, or its subscriptions, are gone.
    fn hold(&mut self, caller: &Caller) -> Result<(), Fault> {
        if !self.known.contains(&caller.peer) {
            return Err(unknown());
        }
        let until = Instant::now() + Duration::from_secs(messages::HOLD);
        if let Some((_, before)) = self.holds.insert(caller.peer.clone(), (until, caller.clone())) {
            self.answer_hold(&before);
        }
        Ok(())
    }

    fn answer_holds(&mut self) {
        let now = Instant::now();
        let due = self.holds.extract_if(|_, (until, _)| *until <= now);
        let due: Vec<Caller> = due.map(|(_, (_, caller))| caller).collect();
        for caller in &due {
            self.answer_hold(caller);
        }
    }

    fn answer_hold(&self, caller: &Caller) {
        self.send(caller.reply(&()).unwrap_or_else(|_| caller.nack()));
    }

    fn admit(&self, token: Option<&str>) -> Result<(), Fault> {
        let Some(roster) = &self.roster else { return Ok(()) };
        if token.is_some_and(|token| roster.owner(token).is_some()) {
            return Ok(());
        }
        self.counters.count("events: wrong token");
        Err(fault(
            "refused",
            "only instances of this cluster may use its events: it has instances of several users"
                .to_owned(),
            "call from an instance, with its HILUM_TOKEN",
        ))
    }

    fn carry_out(&mut self) {
        // A message that finds no room makes its peer gone, and that has effects of its own.
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::Deliver(delivery) => self.deliver(delivery),
                    Effect::Forgotten { queue, events } => {
                        tracing::warn!(
                            queue,
                            events,
                            "events dropped: the broker is full, and nobody works this queue off"
                        );
                    }
                    Effect::GivenUp { queue, event } => {
                        let kind =
                            Event::decode(&event).map(|event| event.kind).unwrap_or_default();
                        tracing::error!(
                            queue,
                            event = kind,
                            "event dropped: it was lost with its subscriber too often"
                        );
                    }
                }
            }
        }
    }

    fn deliver(&mut self, delivery: Delivery<PeerId, Packed>) {
        let Delivery { number, peer, queue, event, redelivered } = delivery;
        let Ok(body) = messages::deliver(&queue, redelivered, &event) else { return };
        let message = Message {
            id: number.to_string(),
            kind: Kind::Request,
            subject: "events.deliver".to_owned(),
            headers: Headers::default(),
            body,
        };
        let mut frames = message.encode();
        frames.insert(0, peer.0.clone());
        if self.socket.send_within(frames, PATIENCE).is_err() {
            self.leave(&peer);
        }
    }

    fn send(&self, frames: Frames) {
        if self.socket.send_within(frames, PATIENCE).is_err() {
            self.counters.count("events: answer not sent, queue full");
        }
    }
}

fn arguments<T: serde::de::DeserializeOwned>(incoming: &Incoming) -> Result<T, Fault> {
    incoming.message.unpack().map_err(|error| {
        let subject = &incoming.message.subject;
        fault("usage", format!("{subject}: {error}"), "see docs/protocol.md")
    })
}

fn checked(what: &str, text: &str) -> Result<(), Fault> {
    if (1..=MAX_NAME).contains(&text.len()) {
        return Ok(());
    }
    Err(fault("usage", format!("`{text}` cannot be {what}"), "it has 1 to 255 bytes"))
}

fn kind(what: &str, text: &str) -> Result<(), Fault> {
    if is_kind(text) {
        return Ok(());
    }
    let help = "it is words with dots between them, none empty, of 255 bytes at most";
    Err(fault("usage", format!("`{text}` cannot be {what}"), help))
}

fn refused(refusal: Refusal) -> Fault {
    let help = match refusal {
        Refusal::QueueFull { .. } => {
            "start more of the instances that work it off, or look why they are slow"
        }
        Refusal::Full { .. } => "look which services do not work off their events",
        Refusal::Queues { .. } => "subscribe to fewer",
    };
    fault("full", refusal.to_string(), help)
}

fn unknown() -> Fault {
    fault("unknown", "you have no subscription here".to_owned(), "subscribe again")
}

fn fault(code: &str, message: String, help: &str) -> Fault {
    Fault { code: code.to_owned(), message, help: Some(help.to_owned()) }
}
