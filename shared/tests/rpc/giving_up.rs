//! Who does not wait any longer says so, and the work on it ends.

use hilum_shared::rpc::Stream;
use hilum_shared::wire::message::{Message, pack};
use hilum_shared::wire::words::Word;
use hilum_shared::wire::zmtp::{self, GREETING, Hello, Item, Reader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A peer whose every byte is ours to write and to see.
pub(super) struct Peer {
    pub(super) stream: Stream,
    reader: Reader,
}

impl Peer {
    pub(super) async fn shake(stream: Stream, hello: Hello) -> Self {
        let mut peer = Self::new(stream);
        peer.say_hello(hello).await;
        peer.hear_hello().await;
        peer
    }

    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, reader: Reader::new(1 << 20) }
    }

    pub(super) async fn say_hello(&mut self, hello: Hello) {
        let mut bytes = zmtp::greeting().to_vec();
        zmtp::write_ready(&mut bytes, &hello);
        self.stream.write.write_all(&bytes).await.unwrap();
    }

    pub(super) async fn hear_hello(&mut self) {
        let mut greeting = [0; GREETING];
        self.stream.read.read_exact(&mut greeting).await.unwrap();
        assert!(self.next().await.contains("READY"));
    }

    /// What comes next, all frames in one text.
    pub(super) async fn next(&mut self) -> String {
        loop {
            match self.reader.next_item().unwrap() {
                Some(Item::Message(frames)) => {
                    let frames = frames.iter().map(|frame| String::from_utf8_lossy(frame));
                    return frames.collect::<Vec<_>>().join(" ");
                }
                Some(Item::Command(body)) => return String::from_utf8_lossy(body).into_owned(),
                None => {}
            }
            let count = self.stream.read.read(self.reader.space()).await.unwrap();
            assert!(count > 0, "the other side closed it");
            self.reader.filled(count);
        }
    }
}

/// An instance that counts what it has begun, and never ends it by itself; and how it is told that something ended.
fn hanging() -> (Interface, Arc<AtomicUsize>, Arc<Notify>) {
    struct Tell(Arc<Notify>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (count, tell) = (Arc::clone(&begun), Arc::clone(&ended));
    let hang = Method::raw("hang", move |_, channel| {
        count.fetch_add(1, Ordering::SeqCst);
        let held = (Tell(Arc::clone(&tell)), channel);
        async move {
            let _held = held;
            std::future::pending::<()>().await;
        }
    });
    (Interface::new("slow").method(hang), begun, ended)
}

async fn work_ends_with_its_call(world: World) {
    let (interface, begun, ended) = hanging();
    let server = world.serve(interface).await;
    let client = world.client().await;
    let options = CallOptions { timeout: Duration::from_secs(100_000), ..quick() };
    for round in 1..=100 {
        let (caller, options) = (client.clone(), options.clone());
        let call = tokio::spawn(async move {
            caller.call::<_, ()>("slow.hang", &json!({}), &options).await.unwrap();
        });
        while begun.load(Ordering::SeqCst) < round {
            tokio::task::yield_now().await;
        }
        call.abort();
        tokio::time::timeout(LIMIT, ended.notified()).await.unwrap();
    }
    while server.serving() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_ends_the_work_on_it_over_ipc() {
    work_ends_with_its_call(World::ipc()).await;
}

#[tokio::test]
async fn a_call_that_is_dropped_ends_the_work_on_it_in_the_process() {
    work_ends_with_its_call(World::memory()).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_paused_does_not_begin_what_was_given_up_meanwhile() {
    let world = World::memory();
    let (interface, begun, _ended) = hanging();
    let server = world.serve(interface).await;
    let stream = world.network.connect(server.address()).await.unwrap();
    let hello = Hello { socket_type: "DEALER".into(), ..Hello::default() };
    let mut peer = Peer::shake(stream, hello).await;
    for round in 0..3 {
        // It has not looked for a while; what it finds then is what came meanwhile.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut bytes = Vec::new();
        let mut ids = Vec::new();
        for size in [1, 1, 10_000, 1] {
            let body = pack(&json!({"text": "x".repeat(size)})).unwrap();
            let request = Message::request("slow.hang", body);
            ids.push(request.id.clone());
            bytes.extend(frames(request));
        }
        // The last of them is still waited for.
        for id in &ids[..3] {
            Word::Cancel(id.as_bytes()).write(&mut bytes);
        }
        peer.stream.write.write_all(&bytes).await.unwrap();
        while begun.load(Ordering::SeqCst) <= round {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Whatever was to be begun is by now.
        let ping = Message::request("lymph.ping", pack(&json!({"payload": "p"})).unwrap());
        let id = ping.id.clone();
        peer.stream.write.write_all(&frames(ping)).await.unwrap();
        assert!(peer.next().await.contains(&id), "who waits no longer is not answered");
        assert_eq!(begun.load(Ordering::SeqCst), round + 1);
    }
    assert_eq!(server.serving(), 3);
}

fn frames(message: Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    zmtp::write_message(&mut bytes, &message.encode());
    bytes
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_before_hands_are_shaken_does_not_leave() {
    let world = World::memory();
    let mut listener = world.network.listen("mock://late").await.unwrap();
    let client = world.client().await;
    let call = |method: &str, seconds| {
        let (client, subject) = (client.clone(), format!("late.{method}"));
        let target = Some("mock://late".to_owned());
        let options =
            CallOptions { target, timeout: Duration::from_secs(seconds), ..CallOptions::default() };
        tokio::spawn(async move { client.call::<_, ()>(&subject, &json!({}), &options).await })
    };
    let others = [call("one", 1), call("two", 1)];
    let kept = call("three", 100);
    for other in others {
        let error = other.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
    }
    let stream = listener.accept().await.unwrap();
    let hello = Hello { socket_type: "ROUTER".into(), ..Hello::default() };
    let mut peer = Peer::shake(stream, hello).await;
    assert!(peer.next().await.contains("late.three"));
    kept.abort();
}

#[tokio::test(start_paused = true)]
async fn only_who_understands_it_is_told_that_a_call_was_given_up() {
    for cancels in [false, true] {
        let world = World::memory();
        let mut listener = world.network.listen("mock://peer").await.unwrap();
        let client =
            world.client_with(Config { heartbeat_interval: Duration::ZERO, ..Config::default() });
        let client = client.await;
        let options = CallOptions {
            target: Some("mock://peer".to_owned()),
            timeout: Duration::from_secs(1),
            ..CallOptions::default()
        };
        let peer = async {
            let stream = listener.accept().await.unwrap();
            let hello = Hello {
                socket_type: "ROUTER".into(),
                identity: b"tcp://127.0.0.1:1".to_vec(),
                cancels,
                leaves: false,
            };
            let mut peer = Peer::shake(stream, hello).await;
            let mut came = Vec::new();
            while !came.iter().any(|one: &String| one.contains("p.second")) {
                came.push(peer.next().await);
            }
            (came, peer)
        };
        let calls = async {
            for subject in ["p.first", "p.second"] {
                client.call::<_, ()>(subject, &json!({}), &options).await.unwrap_err();
            }
        };
        let ((came, _peer), ()) = tokio::join!(peer, calls);
        let id = came[0].split(' ').next().unwrap();
        let told = came.iter().filter(|one| one.contains("CANCEL") && one.contains(id)).count();
        assert_eq!(told, usize::from(cancels), "{came:?}");
    }
}

#[tokio::test]
async fn a_blocking_client_that_gives_up_says_so() {
    let world = World::ipc();
    let (interface, begun, ended) = hanging();
    let server = world.serve(interface).await;
    let address = server.address().to_owned();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let calls = tokio::task::spawn_blocking(move || {
        let mut client = blocking::Client::connect(&address).unwrap();
        let late = client.call::<_, ()>("slow.hang", &json!({}), Duration::from_millis(300));
        assert!(matches!(late, Err(blocking::CallError::Timeout { .. })), "{late:?}");
        let enough = || begun.load(Ordering::SeqCst) == 2;
        let cancelled = client.call_with::<_, ()>("slow.hang", &json!({}), Duration::MAX, &enough);
        assert!(matches!(cancelled, Err(blocking::CallError::Cancelled)), "{cancelled:?}");
        wait.recv().unwrap(); // the connection is kept
    });
    for _ in 0..2 {
        tokio::time::timeout(LIMIT, ended.notified()).await.unwrap();
    }
    while server.serving() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    done.send(()).unwrap();
    calls.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_ends_has_given_up_all_that_was_asked() {
    let world = World::memory();
    let (interface, begun, ended) = hanging();
    let server = world.serve(interface).await;
    for _ in 0..2 {
        let stream = world.network.connect(server.address()).await.unwrap();
        let hello = Hello { socket_type: "DEALER".into(), ..Hello::default() };
        let mut peer = Peer::shake(stream, hello).await;
        let before = begun.load(Ordering::SeqCst);
        for _ in 0..3 {
            let request = Message::request("slow.hang", pack(&json!({})).unwrap());
            peer.stream.write.write_all(&frames(request)).await.unwrap();
        }
        while begun.load(Ordering::SeqCst) < before + 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(peer);
        tokio::time::timeout(LIMIT, ended.notified()).await.unwrap();
        while server.serving() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    // What is found together with the end is not begun at all.
    let stream = world.network.connect(server.address()).await.unwrap();
    let hello = Hello { socket_type: "DEALER".into(), ..Hello::default() };
    let mut peer = Peer::shake(stream, hello).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let request = Message::request("slow.hang", pack(&json!({})).unwrap());
    peer.stream.write.write_all(&frames(request)).await.unwrap();
    drop(peer);
    while server.connections() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(begun.load(Ordering::SeqCst), 6);
}
