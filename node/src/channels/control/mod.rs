//! `node.sock`: the node as a service. Requests of the interfaces `node` and `registry` become [`ControlCall`]s, answers go back by
//! [`Control::reply`]; what every container answers (`lymph.ping`, …) is answered here.
//!
//! Every call is answered once: by the runtime, by a refusal here, or not at all when its client is gone. Then the
//! runtime is told by [`Call::Cancel`], so that a call that is held open never outlives its client for long.

mod calls;
mod desk;
mod door;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hilum_shared::protocol::control::Fault;
use hilum_shared::rpc::ReplyChannel;
use hilum_shared::rpc::router::{Caller, PeerId};
use hilum_shared::transport::{Frames, Hub, Kind, OpenError, Socket, SocketSpec};
use serde::Serialize;
use tokio::sync::mpsc;

#[cfg(test)]
pub(super) use calls::method_names;
pub use calls::{Call, Events, GetProcesses};
use desk::Desk;
pub use door::Door;

use super::counters::Counters;
use crate::core::input::RequestId;

/// Calls that may be open at once.
const MAX_OPEN: usize = 4096;

/// Calls that one client may have open at once.
const MAX_OPEN_OF_PEER: usize = 64;

/// Bytes of answers that wait for a client which is behind with reading them.
const LATE: usize = 8 << 20;

/// Calls from other hosts that may be open at once.
const MAX_OPEN_AFAR: usize = 256;

/// Clients whose connection means something beyond their calls: with it ends what they have registered.
const MAX_KEPT: usize = 1024;

/// One call to answer.
#[derive(Clone, Debug)]
pub struct ControlCall {
    /// To answer with; for [`Call::Cancel`] the call that is void.
    pub id: RequestId,
    /// Who asks, for the log.
    pub peer: PeerId,
    /// What.
    pub call: Call,
}

/// The endpoint. Dropping it closes the socket.
pub struct Control {
    socket: Socket,
    open: Arc<Mutex<Open>>,
    counters: Counters,
    door: Door,
}

/// Who waits for an answer.
enum Client {
    /// At `node.sock`.
    Here(Caller),
    /// At the [`Door`].
    Afar(ReplyChannel),
}

#[derive(Default)]
struct Open {
    next: u64,
    clients: HashMap<RequestId, Client>,
    /// How many of them are on other hosts.
    afar: usize,
    of_peer: HashMap<PeerId, usize>,
    /// Clients whose end the runtime is told though they have no open call.
    kept: HashMap<PeerId, Caller>,
    answered: u64,
}

impl Open {
    /// Takes a call; `lasting`: it makes something that ends with its client's connection.
    fn admit(&mut self, client: Client, lasting: bool) -> Result<RequestId, Fault> {
        let full = self.clients.len() >= MAX_OPEN;
        match &client {
            Client::Here(caller) => {
                let of_peer = self.of_peer.get(&caller.peer).copied().unwrap_or_default();
                if full || of_peer >= MAX_OPEN_OF_PEER {
                    return Err(too_many(of_peer, "of this client"));
                }
                if lasting && !self.kept.contains_key(&caller.peer) {
                    if self.kept.len() >= MAX_KEPT {
                        let message = format!("{MAX_KEPT} clients have registered without a token");
                        let help = "use the token of a run (`HILUM_TOKEN`)";
                        return Err(fault("refused", message, help));
                    }
                    self.kept.insert(caller.peer.clone(), caller.clone());
                }
                *self.of_peer.entry(caller.peer.clone()).or_default() += 1;
            }
            Client::Afar(_) => {
                if full || self.afar >= MAX_OPEN_AFAR {
                    return Err(too_many(self.afar, "of other hosts"));
                }
                self.afar += 1;
            }
        }
        self.next += 1;
        self.clients.insert(RequestId(self.next), client);
        Ok(RequestId(self.next))
    }

    fn close(&mut self, id: RequestId) -> Option<Client> {
        let client = self.clients.remove(&id)?;
        match &client {
            Client::Here(caller) => {
                if let Some(count) = self.of_peer.get_mut(&caller.peer) {
                    *count -= 1;
                    if *count == 0 {
                        self.of_peer.remove(&caller.peer);
                    }
                }
            }
            Client::Afar(_) => self.afar -= 1,
        }
        Some(client)
    }

    /// Those at `node.sock`.
    fn callers(&self) -> impl Iterator<Item = (RequestId, &Caller)> {
        self.clients.iter().filter_map(|(id, client)| match client {
            Client::Here(caller) => Some((*id, caller)),
            Client::Afar(_) => None,
        })
    }

    /// Whether no client's end would matter.
    fn nobody(&self) -> bool {
        self.of_peer.is_empty() && self.kept.is_empty()
    }

    /// Those whose end matters.
    fn peers(&self) -> HashMap<PeerId, Caller> {
        let all = self.callers().map(|(_, caller)| caller).chain(self.kept.values());
        all.map(|caller| (caller.peer.clone(), caller.clone())).collect()
    }

    /// Closes every call of a peer that is gone.
    fn close_all(&mut self, peer: &PeerId) -> Vec<RequestId> {
        let ids: Vec<RequestId> =
            self.callers().filter(|(_, caller)| caller.peer == *peer).map(|(id, _)| id).collect();
        for id in &ids {
            self.close(*id);
        }
        ids
    }
}

impl Control {
    /// Binds `endpoint`, for the node's own user only. Calls go into `calls`; where that is full they are refused.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn open(
        hub: &Hub,
        endpoint: &str,
        calls: mpsc::Sender<ControlCall>,
        counters: Counters,
    ) -> Result<Self, OpenError> {
        let open = Arc::new(Mutex::new(Open::default()));
        let door = Door {
            open: Arc::clone(&open),
            calls: calls.clone(),
            counters: counters.clone(),
            address: Arc::default(),
        };
        let desk = Desk {
            open: Arc::clone(&open),
            calls,
            counters: counters.clone(),
            endpoint: endpoint.to_owned(),
            unsettled: false,
            gone: Vec::new(),
        };
        let spec = SocketSpec {
            monitor: true,
            high_water: 100,
            late: LATE,
            ..SocketSpec::new(Kind::Router).bind(endpoint)
        };
        let socket = hub.open(spec, desk)?;
        Ok(Self { socket, open, counters, door })
    }

    /// The way in for other hosts; nobody comes by it before it is given to an endpoint.
    pub fn door(&self) -> Door {
        self.door.clone()
    }

    /// Answers a call with anything that MessagePack can hold. An answer to a call that is not open is dropped.
    pub fn reply<T: Serialize + ?Sized>(&self, id: RequestId, value: &T) {
        let bug = |error: String| fault("internal", error, "this is a bug: please report it");
        match self.close(id) {
            None => {} // its client is gone
            Some(Client::Here(caller)) => {
                let frames = caller.reply(value);
                self.send(frames.unwrap_or_else(|error| caller.fault(&bug(error.to_string()))));
            }
            Some(Client::Afar(channel)) => {
                if let Err(error) = channel.reply(value) {
                    let _ = channel.error_with(&bug(error.to_string())); // a map of texts always packs
                }
            }
        }
    }

    /// Answers a call with a fault.
    pub fn fault(&self, id: RequestId, fault: &Fault) {
        match self.close(id) {
            None => {}
            Some(Client::Here(caller)) => self.send(caller.fault(fault)),
            Some(Client::Afar(channel)) => {
                let _ = channel.error_with(fault); // a map of texts always packs
            }
        }
    }

    /// How many calls were answered ever.
    pub fn answered_calls(&self) -> u64 {
        lock(&self.open).answered
    }

    /// How many calls wait for their answer.
    pub fn open_calls(&self) -> usize {
        lock(&self.open).clients.len()
    }

    /// The address.
    pub fn endpoint(&self) -> &str {
        self.socket.endpoint()
    }

    fn close(&self, id: RequestId) -> Option<Client> {
        let mut open = lock(&self.open);
        open.answered += 1;
        open.close(id)
    }

    fn send(&self, frames: Frames) {
        if self.socket.send(frames).is_err() {
            self.counters.count("control: answer not sent, queue full");
        }
    }
}

fn too_many(open: usize, whose: &str) -> Fault {
    fault("refused", format!("{open} calls {whose} are open already"), "wait for their answers")
}

fn busy() -> Fault {
    fault("refused", "the node is too busy to take the call".into(), "try again")
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fault(code: &str, message: String, help: &str) -> Fault {
    Fault { code: code.to_owned(), message, help: Some(help.to_owned()) }
}

#[cfg(test)]
mod tests {
    use hilum_shared::protocol::control;
    use hilum_shared::rpc::ChangeLoglevel;
    use hilum_shared::rpc::blocking::{CallError, Client};
    use hilum_shared::wire::message::Message;
    use serde_json::{Value, json};

    use super::calls::{arguments, decode, decode_registry};

    use super::*;
    use crate::channels::testing::{LIMIT, World, next, wait_until};

    struct Node {
        world: World,
        control: Control,
        calls: mpsc::Receiver<ControlCall>,
        counters: Counters,
    }

    impl Node {
        fn new(room: usize) -> Self {
            let (sender, calls) = mpsc::channel(room);
            let (world, counters) = (World::new(), Counters::default());
            let control =
                Control::open(&world.hub, &world.address("n"), sender, counters.clone()).unwrap();
            Self { world, control, calls, counters }
        }

        fn client(&self) -> Client {
            Client::connect(&self.world.address("n")).unwrap()
        }

        /// Makes a call on another thread.
        fn calling(
            &self,
            subject: &'static str,
            args: Value,
        ) -> std::thread::JoinHandle<Result<Value, CallError>> {
            let mut client = self.client();
            std::thread::spawn(move || client.call(subject, &args, LIMIT))
        }
    }

    #[test]
    fn a_call_reaches_the_runtime_and_its_answer_the_client() {
        let mut node = Node::new(8);
        let calling = node.calling("node.stop", json!({"service_type": "web", "grace": 0}));
        let call = next(&mut node.calls);
        let targets = control::Targets {
            targets: vec!["web".into()],
            deps: true,
            rolling: false,
            grace: Some(0.0),
        };
        assert_eq!(call.call, Call::Stop(targets));
        node.control.reply(call.id, &control::Accepted { operation: 7, ..Default::default() });
        assert_eq!(calling.join().unwrap().unwrap()["operation"], 7);
        assert_eq!(node.control.open_calls(), 0);

        let calling = node.calling("node.wait", json!({"operation": 7}));
        let call = next(&mut node.calls);
        assert_eq!(call.call, Call::Wait(control::Wait { operation: 7 }));
        let fault = fault("unknown-target", "x".into(), "y");
        node.control.fault(call.id, &fault);
        let error = calling.join().unwrap().unwrap_err();
        assert!(matches!(&error, CallError::Fault(got) if *got == fault), "{error}");
    }

    #[test]
    fn every_method_of_the_interface_is_listed_and_understood() {
        let node = Node::new(8);
        let args = json!({
            "targets": ["a"], "signal": "HUP", "changes": [], "operation": 1, "state": "ready", "since": 0,
            "qualname": "", "loglevel": "DEBUG", "payload": "p",
            "service": "a", "id": "1", "instance": {"id": "1", "endpoint": "tcp://a:1"}, "services": {"a": 0},
        });
        let listed: Value = node.client().call("lymph.inspect", &json!({}), LIMIT).unwrap();
        for method in listed["methods"].as_array().unwrap() {
            let subject = method["name"].as_str().unwrap();
            let message =
                Message::request(subject, hilum_shared::wire::message::pack(&args).unwrap());
            match subject.rsplit_once('.').unwrap() {
                ("node", name) => drop(decode(name, &message).unwrap().unwrap()),
                ("registry", name) => drop(decode_registry(name, &message).unwrap().unwrap()),
                ("lymph", "get_metrics") => {} // the runtime's
                ("lymph", "change_loglevel") => {
                    drop(arguments::<ChangeLoglevel>(&message).unwrap());
                }
                _ => drop(node.client().call::<_, Value>(subject, &args, LIMIT).unwrap()),
            }
        }
    }

    #[test]
    fn wrong_calls_are_refused_with_a_reason() {
        let node = Node::new(8);
        let mut client = node.client();
        let mut call = |subject: &str, args: Value| {
            client.call::<_, Value>(subject, &args, LIMIT).unwrap_err()
        };
        for (subject, args) in [
            ("node.signal", json!({"targets": ["a"]})),
            ("node.stop", json!(["a"])),
            ("node.await", json!({"state": "happy"})),
        ] {
            let error = call(subject, args);
            assert!(matches!(&error, CallError::Fault(fault) if fault.code == "usage"), "{error}");
            assert!(error.to_string().contains(subject), "{error}");
        }
        for subject in ["node.explode", "lymph.explode", "other.status", "nodot"] {
            assert!(matches!(call(subject, json!({})), CallError::Nack { .. }));
        }
        assert_eq!(node.counters.get("control: wrong arguments"), 3);
        assert_eq!(node.counters.get("control: unknown method"), 4);
    }

    #[test]
    fn garbage_is_counted_and_refused_where_it_has_an_id() {
        let node = Node::new(8);
        let peer = node.world.dealer("n", b"peer");
        peer.send(vec![vec![]]);
        peer.send(vec![vec![0xff; 100], vec![0; 100]]);
        peer.send(vec![vec![1]; 300]);
        peer.send(vec![
            b"77".to_vec(),
            b"REQ".to_vec(),
            b"node.stop".to_vec(),
            vec![0xc0],
            vec![0xc1],
        ]);
        let nack = Message::decode(&peer.next()).unwrap();
        assert_eq!((nack.kind.as_str(), nack.subject.as_str()), ("NACK", "77"));
        assert_eq!(node.counters.get("control: malformed message"), 4);
        let pong: String =
            node.client().call("lymph.ping", &json!({"payload": "p"}), LIMIT).unwrap();
        assert_eq!(pong, "p");
    }

    #[test]
    fn a_call_does_not_outlive_its_client() {
        let mut node = Node::new(8);
        let mut client = node.client();
        let given_up = client.call::<_, Value>(
            "node.wait",
            &json!({"operation": 1}),
            std::time::Duration::ZERO,
        );
        assert!(matches!(given_up, Err(CallError::Timeout { .. })), "{given_up:?}");
        let call = next(&mut node.calls);
        let other = node.calling("node.wait", json!({"operation": 2}));
        let stays = next(&mut node.calls);
        drop(client);
        let void = next(&mut node.calls);
        assert_eq!((void.id, void.call), (call.id, Call::Cancel));
        node.control.reply(void.id, &1); // too late, and harmless
        node.control.reply(stays.id, &2);
        assert_eq!(other.join().unwrap().unwrap(), 2);
        wait_until(|| node.control.open_calls() == 0);
        assert!(node.counters.snapshot().is_empty(), "who leaves is no fault");
    }

    #[test]
    fn the_end_of_a_client_that_registered_something_is_told_though_it_waits_for_nothing() {
        let mut node = Node::new(8);
        let instance = json!({"id": "1", "endpoint": "tcp://127.0.0.1:1"});
        let args = json!({"service": "echo", "instance": instance});
        let mut client = node.client();
        let _ = client.call::<_, Value>("registry.register", &args, std::time::Duration::ZERO);
        let call = next(&mut node.calls);
        assert!(matches!(&call.call, Call::Register(register) if register.token.is_none()));
        node.control.reply(call.id, &());
        wait_until(|| node.control.open_calls() == 0);
        drop(client);
        let gone = next(&mut node.calls);
        assert_eq!((gone.call, gone.peer), (Call::Departed, call.peer));
        assert!(node.counters.snapshot().is_empty(), "who leaves is no fault");
    }

    #[test]
    fn a_client_that_is_behind_with_reading_gets_every_answer() {
        const CALLS: usize = 5000;
        let mut node = Node::new(MAX_OPEN_OF_PEER);
        let socket = zmq::Context::new().socket(zmq::DEALER).unwrap();
        socket.set_linger(0).unwrap();
        socket.set_sndhwm(0).unwrap();
        socket.set_rcvhwm(1).unwrap();
        socket.set_rcvtimeo(30_000).unwrap();
        socket.connect(&node.world.address("n")).unwrap();
        let args = hilum_shared::wire::message::pack(&json!({"operation": 1})).unwrap();
        for _ in 0..CALLS {
            let call = Message::request("node.wait", args.clone());
            socket.send_multipart(call.encode(), 0).unwrap();
        }
        // Far more than libzmq and the kernel take is refused before anything is read, and what is open stays so.
        let refused = CALLS - MAX_OPEN_OF_PEER;
        wait_until(|| {
            node.counters.get("control: too many open calls") == u64::try_from(refused).unwrap()
        });
        assert_eq!(node.control.open_calls(), MAX_OPEN_OF_PEER);
        for _ in 0..MAX_OPEN_OF_PEER {
            let call = next(&mut node.calls);
            assert!(matches!(call.call, Call::Wait(_)), "{call:?}");
            node.control.reply(call.id, &1);
        }
        for _ in 0..CALLS {
            socket.recv_multipart(0).unwrap();
        }
        assert_eq!(node.counters.snapshot().len(), 1, "{:?}", node.counters.snapshot());
    }

    #[test]
    fn open_calls_are_bounded_for_each_client_and_by_the_runtimes_room() {
        let mut node = Node::new(MAX_OPEN_OF_PEER + 1);
        let peer = node.world.dealer("n", b"greedy");
        let wait = || {
            Message::request(
                "node.wait",
                hilum_shared::wire::message::pack(&json!({"operation": 1})).unwrap(),
            )
        };
        for _ in 0..=MAX_OPEN_OF_PEER {
            peer.send(wait().encode());
        }
        let refused = Message::decode(&peer.next()).unwrap();
        assert_eq!(refused.unpack::<Fault>().unwrap().code, "refused");
        assert_eq!(node.control.open_calls(), MAX_OPEN_OF_PEER);

        let modest = node.world.dealer("n", b"modest");
        modest.send(wait().encode());
        modest.send(wait().encode());
        let busy = Message::decode(&modest.next()).unwrap().unpack::<Fault>().unwrap();
        assert!(busy.message.contains("too busy"), "{busy:?}");
        assert_eq!(node.control.open_calls(), MAX_OPEN_OF_PEER + 1);
        assert!(node.calls.try_recv().is_ok());
    }
}
