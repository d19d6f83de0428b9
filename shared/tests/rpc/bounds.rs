//! What nobody would take is not sent, and fails alone.

use hilum_shared::events::{Embedded, EventError, EventSystem, Local, broker};
use hilum_shared::wire::Event;
use hilum_shared::wire::message::{Message, pack};
use hilum_shared::wire::zmtp::Hello;
use serde_bytes::ByteBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// More than a message may have.
const TOO_LARGE: usize = 70_000_000;

fn blob(size: usize) -> ByteBuf {
    ByteBuf::from(vec![0; size])
}

/// A list inside of lists: so many levels.
fn nested(levels: usize) -> Value {
    (1..levels).fold(Value::List(Vec::new()), |inner, _| Value::List(vec![inner]))
}

/// Gives results of any size and depth; `wait` waits for the gate.
fn giver(gate: &Arc<tokio::sync::Semaphore>, begun: &Arc<AtomicUsize>) -> Interface {
    let (gate, begun) = (Arc::clone(gate), Arc::clone(begun));
    let counted = Arc::clone(&begun);
    Interface::new("give")
        .method(Method::rpc("bytes", |size: usize, _| async move { Ok(blob(size)) }))
        .method(Method::rpc("list", |length: usize, _| async move { Ok(vec![0_u8; length]) }))
        .method(Method::rpc("deep", |levels: usize, _| async move { Ok(nested(levels)) }))
        .method(Method::rpc("take", move |_: ByteBuf, _| {
            begun.fetch_add(1, Ordering::SeqCst);
            async { Ok(()) }
        }))
        .method(Method::rpc("wait", move |_: Value, _| {
            let gate = Arc::clone(&gate);
            counted.fetch_add(1, Ordering::SeqCst);
            async move {
                gate.acquire().await.unwrap().forget();
                Ok("waited")
            }
        }))
}

#[tokio::test]
async fn what_nobody_would_take_fails_its_own_call_and_no_other_on_the_connection() {
    let world = World::ipc();
    let (gate, begun) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let _server = world.serve(giver(&gate, &begun)).await;
    let client = world.client().await;
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                client.call::<_, String>("give.wait", &json!({}), &quick()).await
            })
        })
        .collect();
    while begun.load(Ordering::SeqCst) < waiting.len() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // An answer is refused at its service.
    for (method, size) in [("bytes", TOO_LARGE), ("list", 1_000_000), ("deep", 65)] {
        let subject = format!("give.{method}");
        let answer = client.call::<_, Value>(&subject, &size, &quick()).await;
        assert!(matches!(answer, Err(Error::Nack { .. })), "{method}: {answer:?}");
    }
    // A request is refused here, and not tried again.
    let options = CallOptions { retries: 3, ..quick() };
    let error = client.call::<_, ()>("give.take", &blob(TOO_LARGE), &options).await.unwrap_err();
    assert!(matches!(error, Error::Arguments { .. }), "{error}");
    assert!(!error.is_transient());
    let text = error.to_string();
    assert!(text.contains("it has 70000005 bytes") && text.contains("67088384"), "{text}");
    for (args, why) in [
        (nested(65), "deeper than 64 levels"),
        (Value::List(vec![Value::Nil; 1_000_000]), "more than 1000000 values"),
    ] {
        let error = client.call::<_, ()>("give.take", &args, &options).await.unwrap_err();
        assert!(matches!(error, Error::Arguments { .. }), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
    assert_eq!(begun.load(Ordering::SeqCst), waiting.len(), "nothing of it arrived");
    // The largest body that is packed fits into a message, whatever its envelope says.
    let most = pack(&blob(67_088_384 - 5)).unwrap();
    let mut bytes = Vec::new();
    Message::request(&"s".repeat(4096), most).write_to(&mut bytes, &mut Vec::new());
    assert!(bytes.len() < 64 << 20, "{}", bytes.len());
    assert_eq!(client.call::<_, Value>("give.deep", &64, &quick()).await.unwrap(), nested(64));
    let list: Vec<u8> = client.call("give.list", &999_999, &quick()).await.unwrap();
    assert_eq!(list.len(), 999_999);
    gate.add_permits(waiting.len());
    for call in waiting {
        assert_eq!(call.await.unwrap().unwrap(), "waited", "on the same connection");
    }
    assert_eq!(client.endpoint().connections(), 1);
}

#[tokio::test]
async fn an_event_that_could_not_be_delivered_is_an_error_to_who_emits_it() {
    let local = Local::new(broker::Limits::default());
    // Nobody is there, and nobody is asked.
    let nowhere = Embedded::open("ipc:///tmp/hilum-nowhere/events.sock", None).await.unwrap();
    local.emit(Event::new("a.b", &nested(62)).unwrap().into()).await.unwrap();
    for (body, why) in [
        (nested(63), "deeper than 64 levels"),
        (Value::List(vec![Value::Nil; 999_999]), "more than 1000000 values"),
    ] {
        for system in [&local as &dyn EventSystem, &nowhere] {
            let event = Event { body: body.clone(), ..Event::new("a.b", &()).unwrap() };
            let error = system.emit(event.into()).await.unwrap_err();
            assert!(matches!(&error, EventError::Body { .. }), "{error}");
            assert!(error.to_string().contains(why), "{error}");
        }
    }
    let event = Event::new("a.b", &blob(1 << 20)).unwrap();
    let error = nowhere.emit(event.into()).await.unwrap_err();
    assert!(matches!(&error, EventError::Body { .. }), "{error}");
    assert!(error.to_string().contains("1048576 is the most"), "{error}");
    assert!(Event::new("a.b", &nested(65)).is_err(), "never nothing in its place");
}

/// Somebody who sends a message in parts.
struct Slow(super::giving_up::Peer);

impl Slow {
    async fn connect(world: &World, server: &Endpoint) -> Self {
        let stream = world.network.connect(server.address()).await.unwrap();
        let hello = Hello { socket_type: "DEALER".into(), ..Hello::default() };
        Self(super::giving_up::Peer::shake(stream, hello).await)
    }

    /// Begins a frame of 32 MiB, of which this much comes for now.
    async fn begin(&mut self, bytes: usize) {
        let mut begun = vec![2];
        begun.extend_from_slice(&(32_u64 << 20).to_be_bytes());
        begun.resize(bytes, 0);
        // Who is put out meanwhile cannot write the rest.
        let _ = self.0.stream.write.write_all(&begun).await;
    }

    async fn is_put_out(&mut self) -> bool {
        let end = tokio::time::timeout(Duration::from_millis(50), self.0.stream.read.read_u8());
        matches!(end.await, Ok(Err(_)))
    }
}

#[tokio::test]
async fn what_many_do_not_send_whole_is_bounded_over_all_and_nobody_else_suffers() {
    let world = World::memory();
    let (gate, begun) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let config = Config { max_partial: 4 << 20, ..Config::default() };
    let server = world.serve_with(giver(&gate, &begun), config).await;
    let client = world.client().await;
    let waiting = {
        let client = client.clone();
        tokio::spawn(
            async move { client.call::<_, String>("give.wait", &json!({}), &quick()).await },
        )
    };
    while begun.load(Ordering::SeqCst) < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut small = Slow::connect(&world, &server).await;
    small.begin(200_000).await;
    let mut peers = Vec::new();
    for _ in 0..10 {
        let mut peer = Slow::connect(&world, &server).await;
        peer.begin(1_200_000).await;
        peers.push(peer);
        // Each took 2 MiB, and the room is for two: those that hold it while somebody else comes on are put out, and nobody else.
        client.call::<_, ()>("give.take", &blob(1_500_000), &quick()).await.unwrap();
    }
    while server.connections() > 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut put_out = 0;
    for peer in &mut peers {
        put_out += usize::from(peer.is_put_out().await);
    }
    assert!((8..=10).contains(&put_out), "{put_out}");
    assert!(!small.is_put_out().await, "it holds next to nothing");
    gate.add_permits(1);
    assert_eq!(waiting.await.unwrap().unwrap(), "waited", "on the same connection");
    assert_eq!(begun.load(Ordering::SeqCst), 11);
}

#[tokio::test]
async fn a_message_for_which_there_is_no_room_at_all_puts_nobody_else_out() {
    let world = World::memory();
    let config = Config { max_partial: 3 << 20, ..Config::default() };
    let server = world.serve_with(echo(), config).await;
    let mut other = Slow::connect(&world, &server).await;
    other.begin(400_000).await;
    let mut large = Slow::connect(&world, &server).await;
    large.begin(5 << 20).await;
    while server.connections() > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(large.is_put_out().await && !other.is_put_out().await);
}
