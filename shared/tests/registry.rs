//! One suite for every registry; a real node's is asked in the end-to-end tests.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "registry_support/mod.rs"]
mod registry_support;
#[cfg(feature = "zookeeper")]
#[path = "registry_support/zookeeper.rs"]
mod zookeeper_server;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hilum_shared::registry::directory::{
    Answer, Directory, LookupService, Register, Unregister, Watch,
};
use hilum_shared::registry::{Embedded, Instance, Memory, Registry, RegistryError, StaticHosts};
use hilum_shared::rpc::{
    Config, Endpoint, Incoming, Interface, MemoryNetwork, Method, ReplyChannel, Server,
};
use registry_support::{conforms, instance, wait_for};

#[tokio::test]
async fn in_memory() {
    let memory = Memory::new();
    conforms(&memory, &memory.clone()).await;
}

#[tokio::test]
async fn a_fixed_list() {
    let empty = StaticHosts::new(&BTreeMap::new()).await;
    conforms(&empty, &empty.clone()).await;
    let hosts = vec![("tcp://10.0.0.1:1".to_owned(), Some("1.2".to_owned()))];
    let known = StaticHosts::new(&[("echo".to_owned(), hosts)].into()).await;
    let found = known.lookup("echo").await.unwrap().instances();
    assert_eq!(found[0].version.as_deref(), Some("1.2"));
}

/// A node's side of the protocol, as small as it can be: the token stands for the owner.
#[derive(Clone)]
struct Node {
    network: MemoryNetwork,
    endpoint: Option<Endpoint>,
    desk: Arc<Mutex<Desk>>,
}

struct Desk {
    directory: Directory,
    waiting: BTreeMap<u64, ReplyChannel>,
    next: u64,
}

impl Desk {
    fn answer(&mut self, answers: Vec<Answer>) {
        for answer in answers {
            if let Some(channel) = self.waiting.remove(&answer.ticket) {
                let _ = channel.reply(&answer.views);
            }
        }
    }
}

const NODE: &str = "mock://node";

impl Node {
    async fn start(network: &MemoryNetwork, epoch: u64) -> Self {
        let desk = Desk { directory: Directory::new(epoch), waiting: BTreeMap::new(), next: 0 };
        let desk = Arc::new(Mutex::new(desk));
        let method =
            |name: &str, work: fn(&mut Desk, &hilum_shared::rpc::Request, ReplyChannel)| {
                let desk = Arc::clone(&desk);
                Method::raw(name, move |request, channel| {
                    work(&mut desk.lock().unwrap(), &request, channel);
                    async {}
                })
            };
        let interface = Interface::new("registry")
            .method(method("register", |desk, request, channel| {
                let args: Register = request.args().unwrap();
                let owner = args.token.unwrap();
                match desk.directory.register(&owner, &args.service, args.instance) {
                    Ok(answers) => {
                        desk.answer(answers);
                        channel.reply(&()).unwrap();
                    }
                    Err(refusal) => channel.error("refused", &refusal.to_string()).unwrap(),
                }
            }))
            .method(method("unregister", |desk, request, channel| {
                let args: Unregister = request.args().unwrap();
                let answers = desk.directory.unregister(&args.service, &args.id);
                desk.answer(answers);
                channel.reply(&()).unwrap();
            }))
            .method(method("lookup", |desk, request, channel| {
                let args: LookupService = request.args().unwrap();
                channel.reply(&desk.directory.lookup(&args.service)).unwrap();
            }))
            .method(method("discover", |desk, _, channel| {
                channel.reply(&desk.directory.discover()).unwrap();
            }))
            .method(method("watch", |desk, request, channel| {
                let args: Watch = request.args().unwrap();
                desk.next += 1;
                let ticket = desk.next;
                desk.waiting.insert(ticket, channel);
                let answers = desk.directory.watch(ticket, &format!("w{ticket}"), args);
                desk.answer(answers);
            }));
        let server = Arc::new(Server::new("node").interface(interface));
        let endpoint =
            Endpoint::open(Arc::new(network.clone()), &[NODE], server, Config::default()).await;
        Self { network: network.clone(), endpoint: Some(endpoint.unwrap()), desk }
    }

    async fn registry(&self, token: &str) -> Embedded {
        let ignore = Arc::new(|_: Incoming| {});
        let network = Arc::new(self.network.clone());
        let endpoint = Endpoint::open(network, &[], ignore, Config::default()).await.unwrap();
        Embedded::new(endpoint, NODE, Some(token.to_owned()))
    }

    /// The node sees a process end.
    fn ends(&self, token: &str) {
        let mut desk = self.desk.lock().unwrap();
        let answers = desk.directory.gone(token);
        desk.answer(answers);
    }

    async fn stop(mut self) {
        self.desk.lock().unwrap().waiting.clear();
        self.endpoint.take().unwrap().close(Duration::ZERO).await;
    }
}

#[tokio::test]
async fn of_the_node() {
    let node = Node::start(&MemoryNetwork::new(), 1).await;
    conforms(&node.registry("a").await, &node.registry("b").await).await;
}

#[tokio::test]
async fn of_the_node_an_instance_vanishes_with_its_process() {
    let node = Node::start(&MemoryNetwork::new(), 1).await;
    let ours = node.registry("a").await;
    let mut view = node.registry("b").await.lookup("echo").await.unwrap();
    ours.register("echo", instance("echo", 1)).await.unwrap();
    wait_for(&mut view, |now| now.len() == 1).await;
    node.ends("a");
    wait_for(&mut view, <[Instance]>::is_empty).await;
}

#[tokio::test(start_paused = true)]
async fn of_the_node_everything_is_entered_anew_at_a_node_that_came_back() {
    let network = MemoryNetwork::new();
    let node = Node::start(&network, 1).await;
    let (ours, theirs) = (node.registry("a").await, node.registry("b").await);
    let mut view = theirs.lookup("echo").await.unwrap();
    ours.register("echo", instance("echo", 1)).await.unwrap();
    wait_for(&mut view, |now| now.len() == 1).await;
    node.stop().await;
    let error = theirs.discover().await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    assert_eq!(view.instances().len(), 1, "what was known stays known");
    let node = Node::start(&network, 1_000_000).await;
    let third = node.registry("c").await;
    let mut fresh = third.lookup("echo").await.unwrap();
    wait_for(&mut fresh, |now| now.len() == 1).await;
    third.register("echo", instance("echo", 2)).await.unwrap();
    wait_for(&mut view, |now| now.len() == 2).await;
}

#[tokio::test]
async fn of_the_node_a_refusal_says_why() {
    let node = Node::start(&MemoryNetwork::new(), 1).await;
    let registry = node.registry("a").await;
    let error = registry.register("", instance("echo", 1)).await.unwrap_err();
    assert!(error.to_string().contains("cannot be the name"), "{error}");
}

#[cfg(feature = "zookeeper")]
mod zookeeper {
    use hilum_shared::registry::{Patience, ZooKeeper};

    use std::net::TcpListener;

    use super::zookeeper_server::{Mode, Proxy, Server};
    use super::*;

    fn registry(server: &Server) -> ZooKeeper {
        ZooKeeper::new(&server.hosts(), Patience::Service)
    }

    #[tokio::test]
    async fn one_that_is_away_is_named_with_what_is_wrong_and_a_command_does_not_wait() {
        let at = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
        let mute = TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = at(&TcpListener::bind("127.0.0.1:0").unwrap());
        let begun = std::time::Instant::now();
        let away = ZooKeeper::new(&nobody, Patience::Command);
        let error = away.lookup("echo").await.map(drop).unwrap_err();
        let says =
            format!("the registry, zookeeper at {nobody}, cannot be reached: connection refused");
        assert_eq!(error.to_string(), says);
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert_eq!(away.trouble().await.to_string(), says);

        let hosts = format!("{nobody},{}", at(&mute));
        let silent = ZooKeeper::new(&hosts, Patience::Command);
        let error = silent.discover().await.map(drop).unwrap_err().to_string();
        let says = format!("{}: it takes connections, and gives no session", at(&mute));
        assert!(error.contains(&says) && error.contains("connection refused"), "{error}");
    }

    #[tokio::test]
    async fn in_zookeeper() {
        let Some(mut server) = Server::start().await else { return };
        conforms(&registry(&server), &registry(&server)).await;

        // What lymph would find there.
        let ours = registry(&server);
        ours.register("echo", instance("echo", 1)).await.unwrap();
        let hosts = server.hosts();
        let client = zookeeper_client::Client::connect(&hosts).await.unwrap();
        let path = format!("/lymph/services/echo/{}", instance("echo", 1).id);
        let (data, stat) = client.get_data(&path).await.unwrap();
        assert_ne!(stat.ephemeral_owner, 0);
        let json: serde_json::Value = serde_json::from_slice(&data).unwrap();
        for key in [
            "id",
            "identity",
            "version",
            "endpoint",
            "log_endpoint",
            "monitoring_endpoint",
            "backdoor_endpoint",
            "fqdn",
            "hostname",
            "ip",
            "type",
        ] {
            assert!(json.get(key).is_some(), "{key}");
        }

        // An entry by somebody else, changed in place; and one that is none.
        let theirs = registry(&server);
        let mut view = theirs.lookup("echo").await.unwrap();
        let persistent = zookeeper_client::CreateMode::Persistent
            .with_acls(zookeeper_client::Acls::anyone_all());
        let entry = br#"{"id": "x", "endpoint": "tcp://10.0.0.1:1"}"#;
        client.create("/lymph/services/echo/x", entry, &persistent).await.unwrap();
        client.create("/lymph/services/echo/y", b"what", &persistent).await.unwrap();
        wait_for(&mut view, |now| now.len() == 2).await;
        let entry = br#"{"id": "x", "endpoint": "tcp://10.0.0.1:2"}"#;
        client.set_data("/lymph/services/echo/x", entry, None).await.unwrap();
        wait_for(&mut view, |now| now.iter().any(|one| one.endpoint == "tcp://10.0.0.1:2")).await;
        client.delete("/lymph/services/echo/x", None).await.unwrap();

        // Another root.
        let rooted = ZooKeeper::new(&format!("{hosts}/other/place"), Patience::Service);
        rooted.register("r", instance("r", 1)).await.unwrap();
        let found = client.list_children("/other/place/services/r").await.unwrap();
        assert_eq!(found.len(), 1);

        // A process that ends takes its entries with it.
        let mine = registry(&server);
        mine.register("echo", instance("echo", 2)).await.unwrap();
        wait_for(&mut view, |now| now.len() == 2).await;
        drop(mine);
        wait_for(&mut view, |now| now.len() == 1).await;

        // A ZooKeeper that forgets everything: entered anew, and seen again.
        server.end();
        server.forget_everything();
        server.again();
        server.is_up().await;
        ours.register("echo", instance("echo", 3)).await.unwrap();
        wait_for(&mut view, |now| now.len() == 2).await;
    }

    #[tokio::test]
    async fn in_zookeeper_an_entry_comes_back_whatever_fails_while_it_is_entered_anew() {
        let Some(server) = Server::start().await else { return };
        let theirs = registry(&server);
        let mut view = theirs.lookup("echo").await.unwrap();
        // The answers come late enough that the new session loses its connection while everything is entered in it.
        for answers in [2, 3] {
            let proxy = Proxy::before(&server);
            let ours = ZooKeeper::new(&proxy.hosts(), Patience::Service);
            for port in 1..=3 {
                ours.register("echo", instance("echo", port)).await.unwrap();
            }
            wait_for(&mut view, |now| now.len() == 3).await;
            proxy.set(Mode::Down);
            ours.disconnected().await;
            wait_for(&mut view, <[Instance]>::is_empty).await;
            proxy.set(Mode::Stall(answers, Duration::from_millis(2500)));
            wait_for(&mut view, |now| now.len() == 3).await;
            assert_eq!(proxy.mode(), Mode::Up, "it was held up");
            // It stands, and is no leftover of a session that is about to end.
            for port in 1..=3 {
                ours.unregister("echo", &instance("echo", port).id).await.unwrap();
            }
            wait_for(&mut view, <[Instance]>::is_empty).await;
        }
    }

    #[tokio::test]
    async fn in_zookeeper_an_entry_that_somebody_deletes_is_entered_again() {
        let Some(server) = Server::start().await else { return };
        for (place, root) in [("", "/lymph"), ("/some/where", "/some/where")] {
            let hosts = format!("{}{place}", server.hosts());
            let ours = ZooKeeper::new(&hosts, Patience::Service);
            for port in 1..=3 {
                ours.register("echo", instance("echo", port)).await.unwrap();
            }
            ours.register("other", instance("other", 1)).await.unwrap();
            let theirs = ZooKeeper::new(&hosts, Patience::Service);
            let mut view = theirs.lookup("echo").await.unwrap();
            wait_for(&mut view, |now| now.len() == 3).await;
            let client = zookeeper_client::Client::connect(&server.hosts()).await.unwrap();
            let folder = format!("{root}/services/echo");
            // As often as it happens, one of them or all with their folder.
            for _ in 0..2 {
                let path = format!("{folder}/{}", instance("echo", 1).id);
                let czxid = async || client.check_stat(&path).await.unwrap().map(|one| one.czxid);
                let first = czxid().await.unwrap();
                client.delete(&path, None).await.unwrap();
                while czxid().await.is_none_or(|now| now == first) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                for port in 1..=3 {
                    let path = format!("{folder}/{}", instance("echo", port).id);
                    // Entered again between two of them already.
                    let _ = client.delete(&path, None).await;
                }
                let _ = client.delete(&folder, None).await;
                wait_for(&mut view, |now| now.len() == 3).await;
            }
            // What is taken out stays out.
            for port in 1..=3 {
                ours.unregister("echo", &instance("echo", port).id).await.unwrap();
            }
            wait_for(&mut view, <[Instance]>::is_empty).await;
            tokio::time::sleep(Duration::from_millis(700)).await;
            assert!(view.instances().is_empty());
            assert_eq!(theirs.lookup("other").await.unwrap().instances().len(), 1);
        }
    }

    #[tokio::test]
    async fn in_zookeeper_nobody_waits_to_be_taken_out_where_there_is_no_session() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = ZooKeeper::new(&free.local_addr().unwrap().to_string(), Patience::Service);
        drop(free);
        let taken_out = nobody.unregister("echo", "x");
        tokio::time::timeout(Duration::from_secs(5), taken_out).await.unwrap().unwrap();
    }
}
