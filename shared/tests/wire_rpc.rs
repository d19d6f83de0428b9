//! The blocking client against a ROUTER of ours, and against nobody.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::Cell;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use hilum_shared::protocol::control::Fault;
use hilum_shared::rpc::blocking::{CallError, Client};
use hilum_shared::rpc::router::Incoming;
use hilum_shared::transport::{Flow, Frames, Hub, Kind, Port, Socket, SocketSpec};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

struct World {
    hub: Hub,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("h").tempdir_in("/tmp").unwrap();
        Self { hub: Hub::start("zmq-test").unwrap(), folder }
    }

    fn address(&self) -> String {
        format!("ipc://{}/s", self.folder.path().display())
    }

    fn serve(&self) -> Socket {
        self.hub.open(SocketSpec::new(Kind::Router).bind(self.address()), serve()).unwrap()
    }
}

/// A service with one method for each kind of answer.
fn serve() -> impl FnMut(Frames, &mut Port<'_>) -> Flow + Send {
    let mut late: Option<Frames> = None;
    move |frames, port| {
        let Ok(Incoming { caller, message }) = Incoming::decode(frames) else {
            return Flow::Taken;
        };
        let answer = match message.subject.as_str() {
            "t.echo" => caller.reply(&message.unpack::<Value>().unwrap()).unwrap(),
            "t.nack" => caller.nack(),
            "t.fault" => {
                caller.fault(&Fault { code: "usage".into(), message: "no".into(), help: None })
            }
            "t.late" => {
                late = Some(caller.reply("late").unwrap());
                return Flow::Taken;
            }
            "t.flush" => {
                port.send(late.take().unwrap()).unwrap();
                port.send(caller.ping()).unwrap();
                caller.reply("flushed").unwrap()
            }
            "t.broken" => {
                let mut frames = caller.reply("x").unwrap();
                frames[5] = vec![0xc1];
                frames
            }
            _ => return Flow::Taken,
        };
        port.send(answer).unwrap();
        Flow::Taken
    }
}

#[test]
fn each_kind_of_answer_is_told_apart() {
    let world = World::new();
    let _server = world.serve();
    let mut client = Client::connect(&world.address()).unwrap();
    let args = json!({"text": "x", "n": [1, 2.5]});
    assert_eq!(client.call::<_, Value>("t.echo", &args, LIMIT).unwrap(), args);
    let nack = client.call::<_, Value>("t.nack", &args, LIMIT).unwrap_err();
    assert!(matches!(nack, CallError::Nack { .. }), "{nack}");
    let fault = client.call::<_, Value>("t.fault", &args, LIMIT).unwrap_err();
    assert!(matches!(&fault, CallError::Fault(fault) if fault.code == "usage"), "{fault}");
    for shape in [
        client.call::<_, u8>("t.echo", &args, LIMIT).unwrap_err(),
        client.call::<_, u8>("t.broken", &args, LIMIT).unwrap_err(),
    ] {
        assert!(matches!(shape, CallError::Protocol { .. }), "{shape}");
    }
}

#[test]
fn a_late_answer_is_not_taken_for_the_next_calls() {
    let world = World::new();
    let _server = world.serve();
    let mut client = Client::connect(&world.address()).unwrap();
    let late = client.call::<_, String>("t.late", &json!({}), Duration::from_millis(30));
    assert!(matches!(late, Err(CallError::Timeout { .. })), "{late:?}");
    assert_eq!(client.call::<_, String>("t.flush", &json!({}), LIMIT).unwrap(), "flushed");
}

#[test]
fn nobody_there_is_an_error_at_once() {
    let world = World::new();
    let begun = Instant::now();
    let gone = Client::connect(&world.address()).err().unwrap();
    assert!(matches!(gone, CallError::Gone { .. }), "{gone}");
    drop(UnixListener::bind(world.folder.path().join("s")).unwrap()); // what a killed node leaves
    let gone = Client::connect(&world.address()).err().unwrap();
    assert!(matches!(gone, CallError::Gone { .. }), "{gone}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[test]
fn a_server_that_ends_ends_the_call() {
    let mut world = World::new();
    let server = world.serve();
    let mut client = Client::connect(&world.address()).unwrap();
    let waiting =
        std::thread::spawn(move || client.call::<_, Value>("t.late", &json!({}), Duration::MAX));
    drop(server);
    world.hub = Hub::start("zmq-next").unwrap();
    let ended = waiting.join().unwrap();
    assert!(matches!(ended, Err(CallError::Gone { .. } | CallError::Lost { .. })), "{ended:?}");
}

#[test]
fn a_call_does_not_wait_for_an_answer_over_the_next_connection() {
    let world = World::new();
    // It ends the connection of who sends more, and goes on listening.
    let narrow = SocketSpec { max_frame: 1 << 16, ..SocketSpec::new(Kind::Router) };
    let _server = world.hub.open(narrow.bind(world.address()), serve()).unwrap();
    let mut client = Client::connect(&world.address()).unwrap();
    let lost = client.call::<_, Value>("t.echo", &"x".repeat(1 << 17), Duration::MAX);
    assert!(matches!(lost, Err(CallError::Lost { .. })), "{lost:?}");
    let answered: Value = client.call("t.echo", &json!({"n": 1}), LIMIT).unwrap();
    assert_eq!(answered, json!({"n": 1}));
}

#[test]
fn what_no_node_would_take_is_not_sent() {
    let world = World::new();
    let _server = world.serve();
    let mut client = Client::connect(&world.address()).unwrap();
    let most = "x".repeat((1 << 20) - 5);
    assert_eq!(client.call::<_, String>("t.echo", &most, LIMIT).unwrap(), most);
    let error = client.call::<_, Value>("t.echo", &(most + "x"), LIMIT).unwrap_err();
    assert!(matches!(error, CallError::Arguments { .. }), "{error}");
    assert!(error.to_string().contains("it has 1048577 bytes, and 1048576 is the most"), "{error}");
}

#[test]
fn a_stuck_server_is_told_from_an_absent_one() {
    let world = World::new();
    let listener = UnixListener::bind(world.folder.path().join("s")).unwrap();
    let stuck = Client::connect_with(&world.address(), Duration::from_millis(200), &|| false);
    assert!(matches!(stuck.err().unwrap(), CallError::Timeout { .. }));
    drop(listener);
}

#[test]
fn a_server_of_another_protocol_is_no_panic() {
    let world = World::new();
    let listener = UnixListener::bind(world.folder.path().join("s")).unwrap();
    let stranger = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let error = Client::connect_with(&world.address(), Duration::from_millis(500), &|| false);
    let error = error.err().unwrap();
    assert!(matches!(error, CallError::Stranger { .. } | CallError::Lost { .. }), "{error}");
    stranger.join().unwrap();
}

#[test]
fn a_wait_can_be_cancelled() {
    let world = World::new();
    let _server = world.serve();
    let mut client = Client::connect(&world.address()).unwrap();
    let asked = Cell::new(0);
    let cancelled = || {
        asked.set(asked.get() + 1);
        asked.get() > 2
    };
    let ended = client.call_with::<_, Value>("t.late", &json!({}), Duration::MAX, &cancelled);
    assert!(matches!(ended, Err(CallError::Cancelled)), "{ended:?}");
}

#[test]
fn a_large_answer_arrives() {
    let world = World::new();
    let _server = {
        let big = |frames: Frames, port: &mut Port<'_>| {
            let Ok(incoming) = Incoming::decode(frames) else {
                return Flow::Taken;
            };
            port.send(incoming.caller.reply(&"x".repeat(8 << 20)).unwrap()).unwrap();
            Flow::Taken
        };
        world.hub.open(SocketSpec::new(Kind::Router).bind(world.address()), big).unwrap()
    };
    let mut client = Client::connect(&world.address()).unwrap();
    assert_eq!(client.call::<_, String>("t.big", &json!({}), LIMIT).unwrap().len(), 8 << 20);
}
