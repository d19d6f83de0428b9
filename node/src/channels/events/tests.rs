//! The broker behind its socket, with peers of every kind.

use hilum_shared::events::{Embedded, EventSystem, Subscription, messages::Deliver};
use hilum_shared::name::{InstanceId, Run};
use hilum_shared::rpc::blocking::{CallError, Client};
use hilum_shared::wire::message::{Message, pack};
use serde_json::{Value, json};

use super::*;
use crate::channels::roster::Rhythm;
use crate::channels::testing::{LIMIT, Peer, World, wait_until};

struct Node {
    events: Events,
    roster: Roster,
    counters: Counters,
    world: World,
}

impl Node {
    fn new(mode: u32) -> Self {
        let (world, roster, counters) = (World::new(), Roster::default(), Counters::default());
        let address = world.address("e");
        let events = Events::open(&world.hub, &address, mode, roster.clone(), counters.clone());
        Self { events: events.unwrap(), roster, counters, world }
    }

    fn call(&self, method: &str, args: &Value) -> Result<Value, CallError> {
        let mut client = Client::connect(&self.world.address("e")).unwrap();
        client.call(&format!("events.{method}"), args, LIMIT)
    }

    fn emit(&self, number: u32) {
        self.call("emit", &json!({"type": "a.b", "body": number})).unwrap();
    }

    /// A peer that speaks for itself.
    fn peer(&self, id: &[u8]) -> Subscriber {
        Subscriber(self.world.dealer("e", id))
    }
}

struct Subscriber(Peer);

impl Subscriber {
    fn request(&self, method: &str, args: &Value) {
        let message = Message::request(&format!("events.{method}"), pack(args).unwrap());
        self.0.send(message.encode());
    }

    fn next(&self) -> Message {
        Message::decode(&self.0.next()).unwrap()
    }

    fn subscribe(&self, args: &Value) {
        self.request("subscribe", args);
        self.replied("a subscription is answered");
    }

    /// The next message that is no ping is the answer to a request.
    fn replied(&self, why: &str) {
        loop {
            let message = self.next();
            if message.kind.as_str() == "REP" {
                return;
            }
            assert_ne!(message.subject, "events.deliver", "{why}");
        }
    }

    /// The next event that is not a ping.
    fn event(&self) -> (Message, Deliver) {
        loop {
            let message = self.next();
            if message.subject == "events.deliver" {
                let deliver = message.unpack().unwrap();
                return (message, deliver);
            }
        }
    }

    fn answer(&self, request: &Message, kind: hilum_shared::wire::message::Kind) {
        self.0.send(Message::answer(kind, &request.id, None, vec![0xc0]).encode());
    }
}

fn queue() -> Value {
    json!({"queue": "q-on_b", "patterns": ["a.*"]})
}

#[test]
fn an_event_is_delivered_in_lymphs_form_and_answered() {
    use hilum_shared::wire::message::Kind;
    let node = Node::new(0o600);
    let peer = node.peer(b"one");
    peer.subscribe(&json!({"queue": "q-on_b", "patterns": ["a.*"], "sequential": true}));
    let args =
        json!({"type": "a.b", "headers": {"trace_id": "t"}, "body": {"n": 1}, "source": "me"});
    assert_eq!(node.call("emit", &args).unwrap(), json!({"queues": 1}));
    node.emit(2);
    assert_eq!(node.call("emit", &json!({"type": "nobody"})).unwrap(), json!({"queues": 0}));
    let (request, first) = peer.event();
    assert_eq!((first.queue.as_str(), first.redelivered), ("q-on_b", false));
    assert_eq!((first.event.trace_id(), first.event.source.as_deref()), (Some("t"), Some("me")));
    assert!(peer.0.try_next().is_none(), "one at a time");
    peer.answer(&request, Kind::Ack);
    let (request, second) = peer.event();
    assert_eq!(second.event.body::<u32>().unwrap(), 2);
    peer.answer(&request, Kind::Error);
    let (request, again) = peer.event();
    assert!(again.redelivered, "an ERROR gives it back");
    peer.answer(&request, Kind::Nack);
    peer.request("unsubscribe", &json!({"queue": "q-on_b"}));
    peer.replied("a NACK ends it");
}

#[test]
fn what_a_peer_that_is_gone_had_goes_to_another() {
    let node = Node::new(0o600);
    let first = node.peer(b"one");
    first.subscribe(&queue());
    node.emit(1);
    assert_eq!(first.event().1.event.body::<u32>().unwrap(), 1);
    let second = node.peer(b"two");
    second.subscribe(&queue());
    drop(first);
    let (_, again) = second.event();
    assert_eq!((again.event.body::<u32>().unwrap(), again.redelivered), (1, true));
}

#[test]
fn the_end_of_a_run_ends_its_subscriptions_though_its_connection_lives() {
    let node = Node::new(0o600);
    let first = node.peer(b"one");
    first.subscribe(&json!({"queue": "q", "patterns": ["#"], "token": "secret"}));
    first.request("hold", &json!({}));
    node.emit(1);
    assert_eq!(first.event().1.event.body::<u32>().unwrap(), 1);
    let second = node.peer(b"two");
    second.subscribe(&json!({"queue": "q", "patterns": ["#"], "token": "other"}));
    node.events.ended("secret");
    assert!(second.event().1.redelivered);
    let told = first.next();
    assert_eq!(told.kind.as_str(), "ERROR", "it is told to subscribe anew");
}

#[test]
fn wrong_calls_are_refused_with_a_reason() {
    let node = Node::new(0o600);
    for (method, args, says) in [
        ("subscribe", json!({"queue": "q"}), "patterns"),
        ("subscribe", json!({"queue": "", "patterns": []}), "queue's name"),
        ("emit", json!({"type": "x".repeat(256)}), "event's type"),
        ("emit", json!({"type": "x", "delay": 1e300}), "delay"),
        ("hold", json!({}), "no subscription"),
    ] {
        let error = node.call(method, &args).unwrap_err();
        assert!(error.to_string().contains(says), "{method}: {error}");
    }
    assert!(matches!(node.call("explode", &json!({})), Err(CallError::Nack { .. })));
    let peer = node.peer(b"rude");
    peer.0.send(vec![vec![0xff; 10]]);
    peer.0.send(vec![b"1".to_vec(), b"ACK".to_vec(), b"77".to_vec(), vec![0xc0], vec![0xc0]]);
    wait_until(|| node.counters.get("events: malformed message") > 0);
    node.emit(1);
}

#[test]
fn where_strangers_may_connect_only_runs_may_speak() {
    let node = Node::new(0o666);
    let error = node.call("emit", &json!({"type": "a"})).unwrap_err();
    assert!(error.to_string().contains("only instances"), "{error}");
    let second = std::time::Duration::from_secs(1);
    let rhythm = Rhythm { interval: second, timeout: second };
    node.roster.expect(InstanceId::parse("a.1").unwrap(), Run(1), "secret".into(), rhythm);
    node.call("emit", &json!({"type": "a", "token": "secret"})).unwrap();
    let args = json!({"queue": "q", "patterns": [], "token": "guess"});
    assert!(node.call("subscribe", &args).is_err());
}

#[test]
fn a_queue_that_is_full_refuses_and_the_others_go_on() {
    let node = Node::new(0o600);
    node.peer(b"one").subscribe(&json!({"queue": "q", "patterns": ["#"], "prefetch": 1}));
    let mut client = Client::connect(&node.world.address("e")).unwrap();
    let big = json!({"type": "a", "body": "x".repeat(900_000)});
    let mut taken = 0;
    let refused = loop {
        match client.call::<_, Value>("events.emit", &big, LIMIT) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(refused.to_string().contains("queue `q` is full"), "{refused}");
    assert!((15..=20).contains(&taken), "{taken} of 0.9 MB in 16 MiB");
    client.call::<_, Value>("events.unsubscribe", &json!({"queue": "q"}), LIMIT).unwrap();
    node.call("emit", &json!({"type": "small"})).unwrap();
}

#[tokio::test]
async fn the_client_of_services_hears_what_the_broker_sends() {
    let node = Node::new(0o600);
    let open = || async { Embedded::open(node.world.address("e"), None).await.unwrap() };
    let (one, two) = (open().await, open().await);
    let wanted =
        Subscription { queue: "q".into(), patterns: vec!["a.#".into()], ..Subscription::default() };
    let mut first = one.subscribe(wanted.clone()).await.unwrap();
    let taken = one.subscribe(wanted.clone()).await.err().unwrap();
    assert!(taken.to_string().contains("already"), "{taken}");
    let event = |n: u32| hilum_shared::wire::Event::new("a.b", &n).unwrap();
    assert_eq!(two.emit(event(1).into()).await.unwrap(), 1);
    let delivery = first.next().await.unwrap();
    assert_eq!(delivery.event.body::<u32>().unwrap(), 1);
    two.emit(event(2).into()).await.unwrap();
    let mut second = two.subscribe(wanted).await.unwrap();
    // The second is begun nowhere: it goes to the other, and the first stays where it is.
    first.stop().await;
    let moved = second.next().await.unwrap();
    assert_eq!(moved.event.body::<u32>().unwrap(), 2);
    moved.answer(Answer::Done);
    drop(delivery); // not handled after all
    let moved = second.next().await.unwrap();
    assert_eq!((moved.event.body::<u32>().unwrap(), moved.redelivered), (1, true));
    moved.answer(Answer::Done);
}
