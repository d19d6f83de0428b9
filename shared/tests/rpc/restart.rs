//! Instances that are away for a moment, and such as have no room.

use hilum_shared::wire::zmtp::Hello;
use tokio::io::AsyncReadExt;

use super::giving_up::Peer;
use super::*;

/// `echo` at a fixed address.
pub(super) async fn at(world: &World, address: &str, interface: Interface) -> Endpoint {
    let server = Arc::new(Server::new("me").interface(interface));
    let network = Arc::clone(&world.network);
    let endpoint = Endpoint::open(network, &[address], server, Config::default()).await.unwrap();
    world.registry.register("echo", Instance::new("echo", address, None)).await.unwrap();
    endpoint
}

async fn leave(world: &World, address: &str) {
    let id = Instance::new("echo", address, None).id;
    world.registry.unregister("echo", &id).await.unwrap();
}

fn within(seconds: u64) -> CallOptions {
    CallOptions { timeout: Duration::from_secs(seconds), ..quick() }
}

async fn ack(client: &Client, options: &CallOptions) -> Result<Value, Error> {
    client.call("echo.ack", &json!({}), options).await
}

#[tokio::test(start_paused = true)]
async fn calls_outlive_a_restart_of_all_instances_of_a_service() {
    for stays_registered in [false, true] {
        let world = World::memory();
        let first = at(&world, "mock://one", echo()).await;
        let client = world.client().await;
        ack(&client, &quick()).await.unwrap();
        if !stays_registered {
            leave(&world, "mock://one").await;
        }
        first.close(Duration::ZERO).await;
        // What is sent to who is just ending is lost: that is another test's.
        while client.endpoint().connections() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { ack(&client, &within(5)).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(4)).await;
        let _again = at(&world, "mock://one", echo()).await;
        for call in calls {
            call.await.unwrap().unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_come_back_is_not_waited_for_for_ever() {
    let world = World::memory();
    let server = at(&world, "mock://one", echo()).await;
    let client = world.client().await;
    ack(&client, &quick()).await.unwrap();
    leave(&world, "mock://one").await;
    server.close(Duration::ZERO).await;
    let begun = tokio::time::Instant::now();
    let error = ack(&client, &within(3)).await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 3);
    assert_eq!(
        error.to_string(),
        "no instance of service `echo` is left, and none came back in time"
    );
    tokio::time::sleep(Duration::from_secs(10)).await;
    let begun = tokio::time::Instant::now();
    let error = ack(&client, &within(3)).await.unwrap_err();
    assert!(matches!(error, Error::NoSuchService { .. }), "{error}");
    assert_eq!(begun.elapsed(), Duration::ZERO, "it is gone, and that is known");
    // Nor is one that was never there.
    for _ in 0..100 {
        let error = client.call::<_, Value>("nobody.x", &json!({}), &within(3)).await.unwrap_err();
        assert!(matches!(error, Error::NoSuchService { .. }), "{error}");
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_sent_is_made_again_after_a_restart_only_where_it_may_be() {
    let world = World::memory();
    let first = at(&world, "mock://one", echo()).await;
    let client = world.client().await;
    let call = |retries| {
        let (client, options) = (client.clone(), CallOptions { retries, ..within(5) });
        let subject = "echo.never";
        tokio::spawn(async move { client.call::<_, Value>(subject, &json!({}), &options).await })
    };
    let (once, again) = (call(0), call(1));
    while first.serving() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    leave(&world, "mock://one").await;
    first.close(Duration::ZERO).await;
    let error = once.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Lost { .. } | Error::Nack { .. }), "{error}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let never = Method::rpc("never", |_: Value, _| async move { Ok("now") });
    let _second = at(&world, "mock://two", Interface::new("echo").method(never)).await;
    assert_eq!(again.await.unwrap().unwrap(), Value::from("now"));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_not_wholly_written_when_its_server_ended_is_made_at_another() {
    let world = World::memory();
    let mut listener = world.network.listen("mock://one").await.unwrap();
    world.registry.register("echo", Instance::new("echo", "mock://one", None)).await.unwrap();
    let client = world.client().await;
    let call = |text: String| {
        let (client, args) = (client.clone(), Value::from(text));
        tokio::spawn(async move { client.call::<_, Value>("echo.same", &args, &quick()).await })
    };
    let read = call("read".into());
    let hello = Hello { socket_type: "ROUTER".into(), ..Hello::default() };
    let mut peer = Peer::shake(listener.accept().await.unwrap(), hello).await;
    assert!(peer.next().await.contains("read"));
    let (begun, waiting) = (call("x".repeat(1 << 20)), call("waits".into()));
    peer.stream.read.read_u8().await.unwrap();
    while client.endpoint().waiting("mock://one") < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let _other = world.serve(echo()).await;
    drop(peer);
    let error = read.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Lost { .. }), "{error}");
    assert_eq!(begun.await.unwrap().unwrap(), Value::from("x".repeat(1 << 20)));
    assert_eq!(waiting.await.unwrap().unwrap(), Value::from("waits"));
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_lost_together_are_all_made_again_where_they_may_be() {
    let world = World::memory();
    let first = at(&world, "mock://one", echo()).await;
    let client = world.client().await;
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let (client, options) = (client.clone(), CallOptions { retries: 1, ..quick() });
            let subject = "echo.never";
            tokio::spawn(
                async move { client.call::<_, Value>(subject, &json!({}), &options).await },
            )
        })
        .collect();
    while first.serving() < 50 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let never = Method::rpc("never", |_: Value, _| async move { Ok("now") });
    let _second = at(&world, "mock://two", Interface::new("echo").method(never)).await;
    leave(&world, "mock://one").await;
    first.close(Duration::ZERO).await;
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), Value::from("now"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_that_restarts_is_waited_for_and_one_that_never_was_is_not() {
    let world = World::memory();
    let version = |text: &str| {
        let ack = Method::raw("ack", |_, channel| async move { channel.ack().unwrap() });
        Interface::new("echo").version(text).unwrap().method(ack)
    };
    let first = world.serve(version("1.0.0")).await;
    let _second = world.serve(version("2.0.0")).await;
    let client = world.client().await;
    let asked = |text: &str, seconds| {
        let version = Some(VersionRequest::parse(text).unwrap());
        CallOptions { version, ..within(seconds) }
    };
    ack(&client, &asked("2", 5)).await.unwrap();
    let one = Instance::new("echo", first.address(), Some("1.0.0"));
    world.registry.unregister("echo", &one.id).await.unwrap();
    first.close(Duration::ZERO).await;
    let begun = tokio::time::Instant::now();
    let error = ack(&client, &asked("3", 5)).await.unwrap_err();
    assert!(matches!(error, Error::NoneCompatible { .. }), "{error}");
    assert_eq!(begun.elapsed(), Duration::ZERO, "nobody had it");
    let call = {
        let (client, options) = (client.clone(), asked("1", 5));
        tokio::spawn(async move { ack(&client, &options).await })
    };
    tokio::time::sleep(Duration::from_secs(3)).await;
    ack(&client, &asked("2", 5)).await.unwrap();
    let again = world.serve(version("1.0.1")).await;
    call.await.unwrap().unwrap();
    // Gone for good, it is waited for once.
    let one = Instance::new("echo", again.address(), Some("1.0.1"));
    world.registry.unregister("echo", &one.id).await.unwrap();
    let begun = tokio::time::Instant::now();
    for waited in [10, 10] {
        let error = ack(&client, &asked("1", 60)).await.unwrap_err();
        assert!(matches!(error, Error::NoneCompatible { .. }), "{error}");
        assert_eq!(begun.elapsed().as_secs(), waited);
    }
}

/// An instance that has no room, in the word of a service or in that of one behind it; and how often it was asked.
async fn full(world: &World, address: &str, relayed: bool) -> (Endpoint, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let handler = Arc::new(move |incoming: Incoming| {
        count.fetch_add(1, Ordering::SeqCst);
        if relayed {
            let error = Error::Overloaded { subject: "b.x".into(), message: "full".into() };
            let Failure::Named(body) = Failure::from(error) else { panic!("it has a name") };
            incoming.channel.error_with(&body).unwrap();
        } else {
            incoming.channel.error("Overloaded", "full").unwrap();
        }
    });
    let network = Arc::clone(&world.network);
    let endpoint = Endpoint::open(network, &[address], handler, Config::default()).await.unwrap();
    world.registry.register("echo", Instance::new("echo", address, None)).await.unwrap();
    (endpoint, asked)
}

#[tokio::test(start_paused = true)]
async fn what_one_instance_has_no_room_for_another_is_asked() {
    let world = World::memory();
    let (_full, asked) = full(&world, "mock://full", false).await;
    let _free = at(&world, "mock://free", echo()).await;
    let client = world.client().await;
    let options = CallOptions { balance: Balance::RoundRobin, ..within(3) };
    for _ in 0..100 {
        ack(&client, &options).await.unwrap();
    }
    assert!(asked.load(Ordering::SeqCst) > 0, "its turn came, too");
}

#[tokio::test(start_paused = true)]
async fn a_service_without_room_is_not_buried_under_tries_and_says_so() {
    let world = World::memory();
    let mut all = Vec::new();
    for number in 0..5 {
        all.push(full(&world, &format!("mock://{number}"), false).await);
    }
    let client = world.client().await;
    for _ in 0..100 {
        let error = ack(&client, &within(3)).await.unwrap_err();
        assert!(matches!(error, Error::Overloaded { .. }), "{error}");
    }
    let asked: usize = all.iter().map(|(_, asked)| asked.load(Ordering::SeqCst)).sum();
    assert_eq!(asked, 100 + 100 + 10, "each at one more, and what the budget has");
}

#[tokio::test(start_paused = true)]
async fn what_a_service_further_on_had_no_room_for_is_not_done_twice() {
    let world = World::memory();
    let (_one, asked) = full(&world, "mock://one", true).await;
    let (_two, also) = full(&world, "mock://two", true).await;
    let error = ack(&world.client().await, &within(3)).await.unwrap_err();
    assert!(matches!(&error, Error::Remote { kind, .. } if kind == "Overloaded"), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst) + also.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn no_call_is_lost_while_instances_come_and_go() {
    let world = World::ipc();
    let address = |number| format!("{}.{number}", world.address);
    let stays = at(&world, &address(0), echo()).await;
    let client = world.client().await;
    let is_over = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (client, is_over) = (client.clone(), Arc::clone(&is_over));
            let options = CallOptions { balance: Balance::RoundRobin, ..quick() };
            tokio::spawn(async move {
                let mut made = 0;
                while is_over.load(Ordering::SeqCst) == 0 {
                    ack(&client, &options).await.unwrap();
                    made += 1;
                }
                made
            })
        })
        .collect();
    for number in 1..=30 {
        let address = address(number);
        let comes = at(&world, &address, echo()).await;
        while client.endpoint().liveness(&address) != Liveness::Responsive {
            assert!(callers.iter().all(|caller| !caller.is_finished()), "a call failed");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        leave(&world, &address).await;
        comes.close(LIMIT).await;
    }
    is_over.store(1, Ordering::SeqCst);
    for caller in callers {
        assert!(caller.await.unwrap() > 0);
    }
    drop(stays);
}
