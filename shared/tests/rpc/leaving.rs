//! A service that ends: what its callers are told, and what still comes to it.

use hilum_shared::rpc::Outgoing;
use hilum_shared::wire::message::{Kind, Message, pack};
use hilum_shared::wire::words::Word;
use hilum_shared::wire::zmtp::Hello;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::giving_up::Peer;
use super::restart::at;
use super::*;

/// A service that is seen to the byte, under the name `echo`, and a call of each text that waits there.
async fn raw_service(world: &World, client: &Client, texts: &[&str]) -> (Peer, Vec<Waiting>) {
    let mut listener = world.network.listen("mock://raw").await.unwrap();
    world.registry.register("echo", Instance::new("echo", "mock://raw", None)).await.unwrap();
    let calls = texts.iter().map(|text| same(client, text)).collect();
    let hello = Hello { socket_type: "ROUTER".into(), ..Hello::default() };
    (Peer::shake(listener.accept().await.unwrap(), hello).await, calls)
}

type Waiting = tokio::task::JoinHandle<Result<Value, Error>>;

fn same(client: &Client, text: &str) -> Waiting {
    let (client, args) = (client.clone(), Value::from(text));
    tokio::spawn(async move { client.call("echo.same", &args, &quick()).await })
}

async fn send(peer: &mut Peer, message: &Message) {
    let mut bytes = Vec::new();
    message.write_to(&mut bytes, &mut Vec::new());
    peer.stream.write.write_all(&bytes).await.unwrap();
}

async fn say(peer: &mut Peer, word: Word<'_>) {
    let mut bytes = Vec::new();
    word.write(&mut bytes);
    peer.stream.write.write_all(&bytes).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_is_told_of_an_end_says_what_is_its_last_request_and_goes_elsewhere_with_what_came_too_late()
 {
    let world = World::memory();
    let client = world.client().await;
    let (mut peer, mut calls) = raw_service(&world, &client, &["begun", "late"]).await;
    let mut requests = [peer.next().await, peer.next().await];
    requests.sort_by_key(|request| request.contains("late"));
    let ids = requests.map(|request| request[..32].to_owned());
    say(&mut peer, Word::Leave).await;
    assert_eq!(peer.next().await, "\u{4}LEFT");
    let _other = world.serve(echo()).await;
    // A new call is not made here, whatever the registry still says.
    assert_eq!(same(&client, "new").await.unwrap().unwrap(), Value::from("new"));
    say(&mut peer, Word::Refused(ids[1].as_bytes())).await;
    assert_eq!(calls.pop().unwrap().await.unwrap().unwrap(), Value::from("late"), "made elsewhere");
    // What was begun may still be answered.
    let answer = Message::answer(Kind::Reply, &ids[0], None, pack("done").unwrap());
    send(&mut peer, &answer).await;
    assert_eq!(calls.pop().unwrap().await.unwrap().unwrap(), Value::from("done"));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_ends_refuses_what_its_callers_wrote_before_they_heard_of_it() {
    let world = World::memory();
    let server = at(&world, "mock://one", echo()).await;
    let mut peers = Vec::new();
    for leaves in [true, false] {
        let stream = world.network.connect("mock://one").await.unwrap();
        let hello = Hello { socket_type: "DEALER".into(), leaves, ..Hello::default() };
        peers.push(Peer::shake(stream, hello).await);
    }
    while server.connections() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.leave();
    let [told, other] = &mut peers[..] else { unreachable!() };
    assert_eq!(told.next().await, "\u{5}LEAVE");
    let request = |subject| {
        let request = Message::request(subject, pack(&json!({})).unwrap());
        let mut bytes = Vec::new();
        request.write_to(&mut bytes, &mut Vec::new());
        (request.id, bytes)
    };
    let closing = tokio::spawn(server.close(Duration::from_secs(10)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    for subject in ["echo.ack", "lymph.status"] {
        let (id, bytes) = request(subject);
        told.stream.write.write_all(&bytes).await.unwrap();
        assert_eq!(told.next().await, format!("\u{7}REFUSED{id}"));
    }
    let (id, bytes) = request("lymph.ping");
    told.stream.write.write_all(&bytes).await.unwrap();
    assert!(told.next().await.contains(&id), "that it lives may be asked");
    let (id, bytes) = request("echo.ack");
    other.stream.write.write_all(&bytes).await.unwrap();
    assert!(other.next().await.contains(&id), "who does not know the word is served to the end");
    assert!(!closing.is_finished(), "a request may still be on its way");
    let begun = tokio::time::Instant::now();
    say(told, Word::Left).await;
    closing.await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(50), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_does_not_read_holds_up_no_end() {
    let world = World::memory();
    let server = at(&world, "mock://one", echo()).await;
    let stream = world.network.connect("mock://one").await.unwrap();
    let hello = Hello { socket_type: "DEALER".into(), leaves: true, ..Hello::default() };
    let _peer = Peer::shake(stream, hello).await;
    while server.connections() < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let begun = tokio::time::Instant::now();
    server.close(Duration::from_secs(10)).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_leaves_still_hears_answers_that_come_on_a_connection_of_their_own() {
    let world = World::memory();
    let server = at(&world, "mock://one", echo()).await;
    let mut listener = world.network.listen("mock://lymph").await.unwrap();
    server.leave();
    let asking = server.clone();
    let call = tokio::spawn(async move {
        asking.request("mock://lymph", Outgoing::new("other.last", pack(&json!({})).unwrap())).await
    });
    let hello = || Hello {
        socket_type: "ROUTER".into(),
        identity: b"mock://lymph".to_vec(),
        ..Hello::default()
    };
    let mut asked = Peer::shake(listener.accept().await.unwrap(), hello()).await;
    let id = asked.next().await[..32].to_owned();
    let back = world.network.connect("mock://one").await.expect("it still listens");
    let mut back = Peer::shake(back, hello()).await;
    let answer = Message::answer(Kind::Reply, &id, None, pack("done").unwrap());
    send(&mut back, &answer).await;
    assert_eq!(call.await.unwrap().unwrap().unpack::<String>().unwrap(), "done");
}

/// A caller whose handshake is half done when the service ends: it is connected as far as it knows, and its first request is on its way.
async fn half_shaken(end: impl FnOnce(Endpoint)) {
    let world = World::memory();
    let server = at(&world, "mock://one", echo()).await;
    let mut peer = Peer::new(world.network.connect("mock://one").await.unwrap());
    peer.hear_hello().await;
    end(server.clone());
    tokio::time::sleep(Duration::from_millis(100)).await;
    peer.say_hello(Hello { socket_type: "DEALER".into(), leaves: true, ..Hello::default() }).await;
    let request = Message::request("echo.ack", pack(&json!({})).unwrap());
    send(&mut peer, &request).await;
    assert_eq!(peer.next().await, "\u{5}LEAVE");
    assert_eq!(peer.next().await, format!("\u{7}REFUSED{}", request.id));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_shakes_hands_with_who_leaves_is_refused_and_not_lost() {
    half_shaken(|server| server.leave()).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_shakes_hands_with_who_closes_is_refused_and_not_lost() {
    half_shaken(|server| drop(tokio::spawn(server.close(LIMIT)))).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_to_who_leaves_counts_until_it_ends_and_ends_with_ours() {
    let world = World::memory();
    let client = world.client().await;
    let (mut peer, calls) = raw_service(&world, &client, &["begun"]).await;
    peer.next().await;
    say(&mut peer, Word::Leave).await;
    assert_eq!(peer.next().await, "\u{4}LEFT");
    assert_eq!(client.endpoint().connections(), 1);
    let begun = tokio::time::Instant::now();
    client.endpoint().clone().close(LIMIT).await;
    let mut rest = Vec::new();
    peer.stream.read.read_to_end(&mut rest).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    for call in calls {
        assert!(matches!(call.await.unwrap(), Err(Error::Closed)));
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_that_it_is_refused_is_closed() {
    let world = World::memory();
    let config = Config { max_waiting: 1000, ..Config::default() };
    let server = world.serve_with(echo(), config).await;
    let stream = world.network.connect(server.address()).await.unwrap();
    let hello = Hello { socket_type: "DEALER".into(), leaves: true, ..Hello::default() };
    let mut peer = Peer::shake(stream, hello).await;
    while server.connections() < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.leave();
    let request = Message::request("echo.ack", pack(&json!({})).unwrap());
    let mut bytes = Vec::new();
    request.write_to(&mut bytes, &mut Vec::new());
    // What it is told of them is more than the network holds.
    for _ in 0..20_000 {
        peer.stream.write.write_all(&bytes).await.unwrap();
    }
    let closed = async {
        while server.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.expect("it is closed");
}
