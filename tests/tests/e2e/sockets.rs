//! Shared sockets that change while the cluster runs.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};

use hilum_tests::{Cluster, LIMIT, wait_until};

/// Answers with its own `WHO`; ends at once where that is `nobody`, and waits where it has no socket.
const SERVE: &str = r#"
import os, socket, sys, time
if os.environ["WHO"] == "nobody":
    sys.exit(3)
print("serves", flush=True)
if "LISTEN_FDS" not in os.environ:
    time.sleep(1000)
listener = socket.socket(fileno=3)
while True:
    client, _ = listener.accept()
    client.sendall(os.environ["WHO"].encode()); client.close()
"#;

fn free() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn yaml(port: u16, who: &str, more: &str) -> String {
    format!(
        "
node: {{watch_config: false}}
sockets: {{http: {{host: 127.0.0.1, port: {port}}}}}
instances:
  web: {{command: python3 serve.py, env: {{WHO: {who}}}, ready: {{log: serves}}, {more}}}
  probed: {{command: sleep 1000, sockets: [], alive: {{exec: 'true', interval: 100ms}}}}
"
    )
}

fn cluster(yaml: &str) -> Cluster {
    let cluster = Cluster::new(yaml);
    cluster.write("serve.py", SERVE);
    cluster.ok("up -d --wait");
    cluster
}

/// Who answers at this port; `None` where nobody listens.
fn asked(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn a_socket_that_moves_is_served_there_closed_here_and_comes_back() {
    let [here, there] = [free(), free()];
    let cluster = cluster(&yaml(here, "one", ""));
    for (from, to) in [(here, there), (there, here)] {
        cluster.configure(&yaml(to, "one", ""));
        let plan = cluster.ok("reload --dry-run");
        let line = format!("~ sockets: binds 127.0.0.1:{to}; closes 127.0.0.1:{from}");
        assert!(plan.contains(&line) && plan.contains("~ web.1 sockets: restart"), "{plan}");
        assert!(!plan.contains("probed"), "{plan}");
        assert_eq!(asked(to), None, "a dry run binds nothing");
        cluster.ok("reload");
        assert_eq!(asked(to).as_deref(), Some("one"));
        wait_until(LIMIT, "the end of the old one", || asked(from).is_none());
    }
    // and one that is taken out and put in again
    cluster.configure(&yaml(here, "one", "").replace("sockets: {http", "#"));
    cluster.ok("reload");
    wait_until(LIMIT, "no socket", || asked(here).is_none());
    cluster.configure(&yaml(here, "one", ""));
    cluster.ok("reload");
    wait_until(LIMIT, "it again", || asked(here).as_deref() == Some("one"));
}

#[test]
fn a_socket_that_cannot_be_bound_is_refused_before_and_by_the_reload_and_told_as_an_event() {
    let here = free();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let cluster = cluster(&yaml(here, "one", ""));
    cluster.configure(&yaml(port, "two", ""));
    for words in ["reload --dry-run", "reload"] {
        let refused =
            cluster.run(words).code(1).says(&format!("held by pid {}", std::process::id()));
        assert!(!refused.err.contains("hilum check"), "{}", refused.err);
    }
    assert_eq!(asked(here).as_deref(), Some("one"));
    let pid = cluster.ps()["node"]["pid"].to_string();
    cluster.run_words(&["exec", "probed", "--", "kill", "-HUP", &pid]).code(0);
    wait_until(LIMIT, "an event", || cluster.ok("events").contains("reload-refused"));
    let said = cluster.ok("events");
    assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
    drop(taken);
    cluster.ok("reload");
    assert_eq!(asked(port).as_deref(), Some("two"));
}

#[test]
fn a_rolling_restart_that_goes_back_goes_back_to_the_old_socket() {
    let [here, there] = [free(), free()];
    let rolling = "numprocesses: 2, rolling: {min_ready: 0s, on_failure: rollback}";
    let cluster = cluster(&yaml(here, "one", rolling));
    cluster.configure(&yaml(there, "nobody", rolling));
    cluster.run("reload").code(1);
    cluster.wait("web.1", "ready again", |one| one["ready"] == true && one["run"] == 3);
    wait_until(LIMIT, "the new one is let go", || TcpListener::bind(("127.0.0.1", there)).is_ok());
    cluster.ok("stop web.2");
    assert_eq!(asked(here).as_deref(), Some("one"));
    cluster.ok("start web.2");
    // as soon as the file is right, the old one is not needed any more
    cluster.configure(&yaml(there, "two", rolling));
    cluster.ok("reload");
    assert_eq!(asked(there).as_deref(), Some("two"));
    wait_until(LIMIT, "the end of the old one", || asked(here).is_none());
}

#[test]
fn all_shared_sockets_that_cannot_be_bound_are_named() {
    let taken = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = taken.each_ref().map(|listener| listener.local_addr().unwrap().port());
    let sockets = ports.map(|port| format!("{{host: 127.0.0.1, port: {port}}}")).join(", ");
    let own = "instances: {web: {command: sleep 1000}}";
    let cluster = Cluster::new(&format!("sockets: [{sockets}]\n{own}"));
    let refused = cluster.run("up -d").code(1);
    assert!(ports.iter().all(|port| refused.err.contains(&port.to_string())), "{refused:?}");
    cluster.configure(own);
    cluster.ok("up -d");
    cluster.configure(&format!("sockets: [{sockets}]\n{own}"));
    let refused = cluster.run("reload --dry-run").code(1);
    assert!(ports.iter().all(|port| refused.err.contains(&port.to_string())), "{refused:?}");
}
