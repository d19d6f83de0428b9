//! The ZeroMQ thread with real sockets in a temporary folder.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use hilum_shared::transport::{
    Flow, Frames, Handler, Hub, Kind, OpenError, Port, SendError, Socket, SocketEvent, SocketSpec,
    Undelivered,
};
use hilum_shared::wire::zmtp::{self, Hello};

const LIMIT: Duration = Duration::from_secs(30);

struct World {
    hub: Hub,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self {
            hub: Hub::start("zmq-test").unwrap(),
            folder: tempfile::Builder::new().prefix("h").tempdir_in("/tmp").unwrap(),
        }
    }

    fn address(&self, name: &str) -> String {
        format!("ipc://{}/{name}", self.folder.path().display())
    }
}

#[derive(Debug, PartialEq)]
enum Seen {
    Message(Frames),
    Undelivered(Undelivered),
    Event(SocketEvent),
    Timer,
}

/// Hands everything on; messages only while there is room.
struct Spy(SyncSender<Seen>);

impl Handler for Spy {
    fn message(&mut self, frames: Frames, _port: &mut Port<'_>) -> Flow {
        match self.0.try_send(Seen::Message(frames)) {
            Err(TrySendError::Full(Seen::Message(frames))) => Flow::Full(frames),
            _ => Flow::Taken,
        }
    }
    fn undelivered(&mut self, _frames: Frames, why: Undelivered) {
        self.0.send(Seen::Undelivered(why)).unwrap();
    }
    fn event(&mut self, event: SocketEvent, port: &mut Port<'_>) {
        let _ = self.0.try_send(Seen::Event(event));
        port.wake_in(Duration::from_millis(1));
    }
    fn timer(&mut self, _port: &mut Port<'_>) {
        let _ = self.0.try_send(Seen::Timer);
    }
}

fn spied(world: &World, spec: SocketSpec, room: usize) -> (Socket, Receiver<Seen>) {
    let (sender, receiver) = mpsc::sync_channel(room);
    (world.hub.open(spec, Spy(sender)).unwrap(), receiver)
}

fn quiet(_: Frames, _: &mut Port<'_>) -> Flow {
    Flow::Taken
}

fn message(seen: &Receiver<Seen>) -> Frames {
    match seen.recv_timeout(LIMIT).unwrap() {
        Seen::Message(frames) => frames,
        other => panic!("{other:?}"),
    }
}

fn frame(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

#[test]
fn a_dealer_is_answered_on_the_thread_itself() {
    let world = World::new();
    let echo = |frames: Frames, port: &mut Port<'_>| {
        port.send(frames).unwrap();
        Flow::Taken
    };
    let address = world.address("a");
    let _router = world.hub.open(SocketSpec::new(Kind::Router).bind(&address), echo).unwrap();
    let (dealer, seen) = spied(&world, SocketSpec::new(Kind::Dealer).connect(&address), 10);
    dealer.send(vec![frame("one"), frame("two")]).unwrap();
    assert_eq!(message(&seen), vec![frame("one"), frame("two")]);
}

#[test]
fn a_router_says_that_nobody_is_there() {
    let world = World::new();
    let spec = SocketSpec::new(Kind::Router).bind(world.address("a"));
    let (router, seen) = spied(&world, spec, 10);
    router.send(vec![frame("nobody"), frame("x")]).unwrap();
    assert_eq!(seen.recv_timeout(LIMIT).unwrap(), Seen::Undelivered(Undelivered::Gone));
    assert_eq!(router.undelivered(), 1);
}

#[test]
fn a_full_consumer_holds_its_peers_back_and_loses_nothing() {
    const COUNT: usize = 5000;
    let world = World::new();
    let address = world.address("a");
    let mut spec = SocketSpec::new(Kind::Pull).bind(&address);
    spec.high_water = 10;
    let (pull, seen) = spied(&world, spec, 5);
    let mut spec = SocketSpec::new(Kind::Push).connect(&address);
    (spec.high_water, spec.queue) = (10, 20);
    let push = world.hub.open(spec, quiet).unwrap();
    let sender = std::thread::spawn(move || {
        let mut refused = 0;
        for number in 0..COUNT {
            let frames = || vec![number.to_string().into_bytes()];
            if let Err(error) = push.send(frames()) {
                assert!(matches!(error, SendError::Full { .. }));
                refused += 1;
                push.send_within(frames(), LIMIT).unwrap();
            }
        }
        (push, refused)
    });
    for number in 0..COUNT {
        assert_eq!(message(&seen), vec![number.to_string().into_bytes()]);
        pull.resume();
    }
    let (push, refused) = sender.join().unwrap();
    assert!(refused > 0, "the sender was never held back");
    assert_eq!(push.undelivered(), 0);
}

/// What comes before a PUSH's first message.
fn opening() -> Vec<u8> {
    let mut bytes = zmtp::greeting().to_vec();
    zmtp::write_ready(&mut bytes, &Hello { socket_type: "PUSH".into(), ..Hello::default() });
    bytes
}

/// A PUSH that is not libzmq's: writes numbered messages of this size until the kernel takes no more, and goes. How many left whole.
fn push_and_go(path: &std::path::Path, size: usize) -> usize {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(&opening()).unwrap();
    // Both the greeting and READY have to be read: who closes with something unread resets the connection.
    let mut theirs = [0; zmtp::GREETING + 2];
    stream.read_exact(&mut theirs).unwrap();
    stream.read_exact(&mut vec![0; usize::from(theirs[zmtp::GREETING + 1])]).unwrap();
    stream.set_nonblocking(true).unwrap();
    for number in 0.. {
        let mut bytes = Vec::new();
        zmtp::write_message(&mut bytes, &[format!("{number:size$}").into_bytes()]);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return number,
                Err(error) => panic!("{error}"),
            }
        }
    }
    unreachable!("a socket's buffer has an end")
}

#[test]
fn what_a_peer_sent_before_it_went_is_read_however_far_behind_the_reader_is() {
    for size in [10, 1000, 20_000] {
        let world = World::new();
        let mut spec = SocketSpec::new(Kind::Pull).bind(world.address("a"));
        spec.high_water = 4;
        let (pull, seen) = spied(&world, spec, 1);
        let peers: Vec<_> = (0..4)
            .map(|_| {
                let path = world.folder.path().join("a");
                std::thread::spawn(move || push_and_go(&path, size))
            })
            .collect();
        let sent: usize = peers.into_iter().map(|peer| peer.join().unwrap()).sum();
        assert!(sent > 20, "{sent} messages of {size} bytes");
        for came in 0..sent {
            let Ok(Seen::Message(_)) = seen.recv_timeout(LIMIT / 3) else {
                panic!("{came} of {sent} messages of {size} bytes came");
            };
            pull.resume();
        }
    }
}

#[test]
fn waiting_for_room_has_an_end() {
    let world = World::new();
    let mut spec = SocketSpec::new(Kind::Push).connect(world.address("nobody"));
    (spec.queue, spec.immediate) = (3, true);
    let push = world.hub.open(spec, quiet).unwrap();
    while push.send(vec![frame("x")]).is_ok() {}
    let late = push.send_within(vec![frame("x")], Duration::from_millis(20));
    assert_eq!(late, Err(SendError::Full { waiting: 3 }));
    assert_eq!(push.waiting(), 3);
}

#[test]
fn every_subscription_is_seen_and_the_last_unsubscription() {
    let world = World::new();
    let address = world.address("a");
    let (publisher, seen) = spied(&world, SocketSpec::new(Kind::Xpub).bind(&address), 10);
    let subscriber = |room| {
        let mut spec = SocketSpec::new(Kind::Sub).connect(&address);
        spec.subscribe = vec![frame("instance/a.1/")];
        spied(&world, spec, room)
    };
    let (one, heard) = subscriber(10);
    assert_eq!(message(&seen), vec![frame("\x01instance/a.1/")]);
    let (two, _) = subscriber(10);
    assert_eq!(message(&seen), vec![frame("\x01instance/a.1/")]);
    publisher.send(vec![frame("instance/a.1/"), frame("order")]).unwrap();
    assert_eq!(message(&heard), vec![frame("instance/a.1/"), frame("order")]);
    drop((one, two));
    assert_eq!(message(&seen), vec![frame("\x00instance/a.1/")]);
}

#[test]
fn connections_are_seen_to_come_and_go() {
    let world = World::new();
    let address = world.address("a");
    let mut spec = SocketSpec::new(Kind::Router).bind(&address);
    spec.monitor = true;
    let (_router, seen) = spied(&world, spec, 100);
    let dealer = world.hub.open(SocketSpec::new(Kind::Dealer).connect(&address), quiet).unwrap();
    let next = |wanted: Seen| while seen.recv_timeout(LIMIT).unwrap() != wanted {};
    next(Seen::Event(SocketEvent::Connected));
    next(Seen::Timer);
    drop(dealer);
    next(Seen::Event(SocketEvent::Disconnected));
}

#[test]
fn nobody_listening_is_seen_at_once() {
    let world = World::new();
    let mut spec = SocketSpec::new(Kind::Dealer).connect(world.address("nobody"));
    spec.monitor = true;
    let (_dealer, seen) = spied(&world, spec, 100);
    assert_eq!(seen.recv_timeout(LIMIT).unwrap(), Seen::Event(SocketEvent::Refused));
}

#[test]
fn another_user_is_refused_by_the_kernel_unless_the_socket_is_for_all() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: only root can be somebody else");
    }
    let world = World::new();
    let folder = world.folder.path().to_owned();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut sockets = Vec::new();
    for (name, mode) in [("private", 0o600), ("shared", 0o666)] {
        let mut spec = SocketSpec::new(Kind::Pull).bind(world.address(name));
        spec.mode = mode;
        sockets.push(world.hub.open(spec, quiet).unwrap());
    }
    // The kernel asks the thread's user at `connect`, so nobody of another user ever gets as far as a message.
    let stranger = std::thread::spawn(move || {
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(61_234));
        ["private", "shared"].map(|name| {
            std::os::unix::net::UnixStream::connect(folder.join(name)).map_err(|e| e.kind()).is_ok()
        })
    });
    assert_eq!(stranger.join().unwrap(), [false, true]);
}

#[test]
fn a_bound_path_has_the_mode_that_was_asked_for_whatever_lay_there() {
    let world = World::new();
    for (name, mode) in [("private", 0o600), ("shared", 0o666)] {
        let path = world.folder.path().join(name);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // a killed node's
        let mut spec = SocketSpec::new(Kind::Pull).bind(world.address(name));
        spec.mode = mode;
        let socket = world.hub.open(spec, quiet).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        assert_eq!(socket.endpoint(), world.address(name));
    }
}

#[test]
fn a_wrong_address_is_an_error_that_names_it() {
    let world = World::new();
    let open = |spec| world.hub.open(spec, quiet).err().unwrap();
    let long = format!("ipc:///tmp/{}", "x".repeat(120));
    let error = open(SocketSpec::new(Kind::Pull).bind(&long));
    assert!(error.to_string().contains("107 is the most"), "{error}");
    let missing = world.address("no/such/folder");
    let error = open(SocketSpec::new(Kind::Pull).bind(&missing));
    assert!(
        matches!(&error, OpenError::Address { endpoint, .. } if *endpoint == missing),
        "{error}"
    );
    let taken =
        world.hub.open(SocketSpec::new(Kind::Pull).bind("tcp://127.0.0.1:*"), quiet).unwrap();
    let error = open(SocketSpec::new(Kind::Pull).bind(taken.endpoint()));
    assert!(error.to_string().contains(taken.endpoint()), "{error}");
}

#[test]
fn a_message_of_too_many_frames_is_dropped_and_the_next_one_read() {
    let world = World::new();
    let address = world.address("a");
    let (_pull, seen) = spied(&world, SocketSpec::new(Kind::Pull).bind(&address), 10);
    let push = world.hub.open(SocketSpec::new(Kind::Push).connect(&address), quiet).unwrap();
    push.send(vec![frame("x"); 257]).unwrap();
    push.send(vec![frame("x"); 256]).unwrap();
    assert_eq!(message(&seen).len(), 256);
}

#[test]
fn the_end_is_bounded_and_sends_what_it_can() {
    let world = World::new();
    let mut spec = SocketSpec::new(Kind::Push).connect(world.address("nobody"));
    spec.immediate = true;
    let stuck = world.hub.open(spec, quiet).unwrap();
    stuck.send(vec![frame("x")]).unwrap();

    let other = Hub::start("zmq-other").unwrap();
    let address = world.address("a");
    let (sender, seen) = mpsc::sync_channel(200);
    let _pull = other.open(SocketSpec::new(Kind::Pull).bind(&address), Spy(sender)).unwrap();
    let push = world.hub.open(SocketSpec::new(Kind::Push).connect(&address), quiet).unwrap();
    for _ in 0..100 {
        push.send(vec![frame("y")]).unwrap();
    }
    let begun = Instant::now();
    let report = world.hub.close(Duration::from_millis(200));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(report.unsent, 1);
    for _ in 0..100 {
        assert_eq!(message(&seen), vec![frame("y")]);
    }
    assert_eq!(push.send(vec![frame("late")]), Err(SendError::Closed));
}

#[test]
fn garbage_from_a_stranger_disturbs_nobody() {
    use std::io::Write;
    let world = World::new();
    let address = world.address("a");
    let (_pull, seen) = spied(&world, SocketSpec::new(Kind::Pull).bind(&address), 10);
    let path = world.folder.path().join("a");
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 200], &[0; 3000]] {
        let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let _ = stream.write_all(garbage);
    }
    let push = world.hub.open(SocketSpec::new(Kind::Push).connect(&address), quiet).unwrap();
    push.send(vec![frame("x")]).unwrap();
    assert_eq!(message(&seen), vec![frame("x")]);
}

#[test]
fn an_idle_thread_uses_no_processor_time() {
    let world = World::new();
    let address = world.address("a");
    let (_pull, seen) = spied(&world, SocketSpec::new(Kind::Pull).bind(&address), 10);
    let push = world.hub.open(SocketSpec::new(Kind::Push).connect(&address), quiet).unwrap();
    push.send(vec![frame("x")]).unwrap();
    message(&seen);
    // Context switches of the thread, by its name, over a while with nothing to do.
    let switches = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let of = |task: std::fs::DirEntry| {
            let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
            let status = std::fs::read_to_string(task.path().join("status")).ok()?;
            let line = status.lines().find(|line| line.starts_with("voluntary"))?;
            let count = line.rsplit('\t').next()?.parse::<u64>().ok()?;
            name.starts_with("zmq-test").then_some(count)
        };
        tasks.filter_map(|task| of(task.unwrap())).sum::<u64>()
    };
    let mut before = switches();
    let settled = (0..100).any(|_| {
        assert!(seen.recv_timeout(Duration::from_millis(100)).is_err());
        let now = switches();
        std::mem::replace(&mut before, now) == now
    });
    assert!(settled, "the thread never sleeps for a tenth of a second");
}

#[test]
fn a_closed_socket_with_unsent_messages_does_not_hold_up_the_end() {
    let world = World::new();
    let spec = SocketSpec::new(Kind::Push).connect(world.address("nobody"));
    let push = world.hub.open(spec, quiet).unwrap();
    push.send(vec![frame("x")]).unwrap();
    while push.waiting() > 0 {
        std::thread::yield_now();
    }
    drop(push);
    let begun = Instant::now();
    drop(world.hub);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_peer_that_reads_is_never_taken_for_a_full_one() {
    let world = World::new();
    let address = world.address("a");
    let mut spec = SocketSpec::new(Kind::Router).bind(&address);
    (spec.high_water, spec.pace) = (2, Duration::from_millis(1));
    let echo = |frames: Frames, port: &mut Port<'_>| {
        port.send(frames).unwrap();
        Flow::Taken
    };
    let _router = world.hub.open(spec, echo).unwrap();
    let other = Hub::start("zmq-other").unwrap();
    let (sender, seen) = mpsc::sync_channel(10);
    let spec = SocketSpec::new(Kind::Dealer).connect(&address);
    let dealer = other.open(spec, Spy(sender)).unwrap();
    for number in 0..300 {
        dealer.send(vec![number.to_string().into_bytes()]).unwrap();
        assert_eq!(message(&seen), vec![number.to_string().into_bytes()]);
    }
}
