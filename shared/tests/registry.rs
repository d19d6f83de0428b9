//! One suite for every registry.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stderr, reason = "a test says that it skips")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hilum_shared::registry::directory::{
    Answer, Directory, LookupService, Register, Unregister, Watch,
};
use hilum_shared::registry::{
    Embedded, Instance, Instances, Lookup, Memory, Registry, RegistryError, StaticHosts,
};
use hilum_shared::rpc::{
    Config, Endpoint, Incoming, Interface, MemoryNetwork, Method, ReplyChannel, Server,
};

const LIMIT: Duration = Duration::from_secs(30);

fn instance(service: &str, port: u16) -> Instance {
    Instance::new(service, &format!("tcp://127.0.0.1:{port}"), None)
}

async fn wait_for(lookup: &mut Lookup, wanted: impl Fn(&[Instance]) -> bool) -> Instances {
    let waited = tokio::time::timeout(LIMIT, lookup.wait_for(|now| wanted(now))).await;
    match waited {
        Ok(found) => found.unwrap(),
        Err(elapsed) => panic!("{elapsed}: still {:?}", lookup.instances()),
    }
}

/// What every registry does, seen by two who share it.
async fn conforms(ours: &dyn Registry, theirs: &dyn Registry) {
    let mut view = theirs.lookup("echo").await.unwrap();
    assert!(view.instances().is_empty(), "nobody there is no error");

    ours.register("echo", instance("echo", 1)).await.unwrap();
    assert_eq!(wait_for(&mut view, |now| now.len() == 1).await[0], instance("echo", 1));

    let mut with_more = instance("echo", 2);
    with_more.version = Some("1.5.0".into());
    with_more.log_endpoint = Some("tcp://127.0.0.1:9".into());
    with_more.more.insert("http_port".into(), 4080.into());
    theirs.register("echo", with_more.clone()).await.unwrap();
    let both = wait_for(&mut view, |now| now.len() == 2).await;
    assert!(both.contains(&with_more), "all keys, unknown ones too: {both:?}");

    let mut moved = instance("echo", 1);
    moved.ip = Some("10.0.0.1".into());
    ours.register("echo", moved.clone()).await.unwrap();
    let both = wait_for(&mut view, |now| now.contains(&moved)).await;
    assert_eq!(both.len(), 2, "the same id takes the other's place: {both:?}");

    ours.register("other", instance("other", 3)).await.unwrap();
    let all = theirs.discover().await.unwrap();
    assert_eq!(all.keys().collect::<Vec<_>>(), ["echo", "other"]);
    assert_eq!(all["other"][..], [instance("other", 3)]);

    ours.unregister("echo", &moved.id).await.unwrap();
    ours.unregister("echo", "nobody").await.unwrap();
    assert_eq!(wait_for(&mut view, |now| now.len() == 1).await[0], with_more);
    let again = theirs.lookup("echo").await.unwrap();
    assert_eq!(again.instances()[..], [with_more.clone()]);

    theirs.unregister("echo", &with_more.id).await.unwrap();
    ours.unregister("other", &instance("other", 3).id).await.unwrap();
    wait_for(&mut view, <[Instance]>::is_empty).await;
    ours.register("echo", instance("echo", 4)).await.unwrap();
    wait_for(&mut view, |now| now.len() == 1).await;
    ours.unregister("echo", &instance("echo", 4).id).await.unwrap();
}

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

/// A ZooKeeper of its own, by `scripts/services`; none where that cannot be had.
#[cfg(feature = "zookeeper")]
mod zookeeper {
    use std::path::Path;
    use std::process::{Child, Command, Stdio};

    use hilum_shared::registry::ZooKeeper;

    use super::*;

    struct Server {
        child: Child,
        port: u16,
        folder: tempfile::TempDir,
    }

    impl Server {
        async fn start() -> Option<Self> {
            let fetched = Command::new(script()).arg("fetch").output().unwrap();
            let java = Command::new("java").arg("-version").output();
            if !fetched.status.success() || java.is_err() {
                let why = String::from_utf8_lossy(&fetched.stderr);
                eprintln!("SKIPPED: ZooKeeper cannot be had (java: {}): {why}", java.is_ok());
                return None;
            }
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let folder = tempfile::tempdir().unwrap();
            let child = Self::run(port, folder.path());
            let server = Self { child, port, folder };
            server.is_up().await;
            Some(server)
        }

        fn run(port: u16, folder: &Path) -> Child {
            let mut command = Command::new(script());
            command.args(["zookeeper", &port.to_string()]).arg(folder);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        }

        async fn is_up(&self) {
            let begun = tokio::time::Instant::now();
            while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                assert!(begun.elapsed() < 2 * LIMIT, "ZooKeeper does not start");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }

        fn end(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }

        fn registry(&self) -> ZooKeeper {
            ZooKeeper::new(&format!("127.0.0.1:{}", self.port))
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.end();
        }
    }

    fn script() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("scripts/services")
    }

    #[tokio::test]
    async fn in_zookeeper() {
        let Some(mut server) = Server::start().await else { return };
        conforms(&server.registry(), &server.registry()).await;

        // What lymph would find there.
        let ours = server.registry();
        ours.register("echo", instance("echo", 1)).await.unwrap();
        let hosts = format!("127.0.0.1:{}", server.port);
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
        let theirs = server.registry();
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
        let rooted = ZooKeeper::new(&format!("{hosts}/other/place"));
        rooted.register("r", instance("r", 1)).await.unwrap();
        let found = client.list_children("/other/place/services/r").await.unwrap();
        assert_eq!(found.len(), 1);

        // A process that ends takes its entries with it.
        let mine = server.registry();
        mine.register("echo", instance("echo", 2)).await.unwrap();
        wait_for(&mut view, |now| now.len() == 2).await;
        drop(mine);
        wait_for(&mut view, |now| now.len() == 1).await;

        // A ZooKeeper that forgets everything: entered anew, and seen again.
        server.end();
        std::fs::remove_dir_all(server.folder.path()).unwrap();
        server.child = Server::run(server.port, server.folder.path());
        server.is_up().await;
        ours.register("echo", instance("echo", 3)).await.unwrap();
        wait_for(&mut view, |now| now.len() == 2).await;
    }
}
