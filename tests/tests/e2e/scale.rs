//! Scaling, rolling restarts, ports, shared sockets.

use std::io::{Read, Write};
use std::net::TcpStream;

use hilum_tests::{Cluster, LIMIT, wait_until};

#[test]
fn scaling_touches_only_the_difference_and_survives_a_reload() {
    let cluster = Cluster::up("instances: {web: {command: sleep 1000, numprocesses: 3}}");
    let pids = [cluster.pid("web.1"), cluster.pid("web.2")];
    cluster.ok("scale web=5");
    assert_eq!(cluster.state("web.5"), "running");
    assert!(cluster.ok("ps").contains("5 (config 3)"), "{}", cluster.ok("ps"));
    cluster.ok("scale web=-3");
    assert_eq!(cluster.ps()["instances"].as_array().unwrap().len(), 2);
    cluster.ok("reload");
    assert_eq!([cluster.pid("web.1"), cluster.pid("web.2")], pids);
    assert_eq!(cluster.ps()["services"][0]["count"], 2);
    for words in ["scale web=2", "scale web=+1 web=-1"] {
        cluster.run(words).code(0).says("nothing to scale");
    }
    cluster.run("scale web=-9").code(2);
    cluster.run("scale nobody=2").code(2);
}

#[test]
fn scale_save_keeps_the_comments() {
    let cluster = Cluster::up(
        "# mine\ninstances:\n  web:\n    command: sleep 1000 # long\n    numprocesses: 1 # few\n",
    );
    cluster.ok("scale web=2 --save");
    assert_eq!(
        cluster.read("hilum.yml"),
        "# mine\ninstances:\n  web:\n    command: sleep 1000 # long\n    numprocesses: 2 # few\n"
    );
    assert_eq!(cluster.state("web.2"), "running");
    let alias = "x-b: &b {command: sleep 1000}\ninstances: {web: *b}\n";
    cluster.configure(alias);
    let refused = cluster.run("scale web=3 --save").code(1);
    let refused = refused.says("the alias `*b`").says("`web: {<<: *b, numprocesses: 3}`");
    assert!(!refused.err.contains("by hand"), "{}", refused.err);
    assert_eq!(cluster.read("hilum.yml"), alias);
}

#[test]
fn a_rolling_restart_keeps_all_but_one_ready() {
    let yaml = "
instances:
  web:
    command: sh -c 'sleep 0.1; touch ready.$HILUM_INDEX.$HILUM_RUN; exec sleep 1000'
    numprocesses: 3
    ready: {exec: sh -c 'test -e ready.$HILUM_INDEX.$HILUM_RUN', interval: 20ms}
    rolling: {min_ready: 50ms}
";
    let cluster = Cluster::new(yaml);
    cluster.ok("up -d --wait");
    let rolling = cluster.start(&["restart", "--rolling", "web"]);
    let mut fewest = 3;
    loop {
        let ps = cluster.ps();
        let instances = ps["instances"].as_array().unwrap();
        fewest = fewest.min(instances.iter().filter(|instance| instance["ready"] == true).count());
        if instances.iter().all(|instance| instance["run"] == 2 && instance["ready"] == true) {
            break;
        }
    }
    rolling.finish(LIMIT).code(0);
    assert_eq!(fewest, 2);
}

#[test]
fn ports_stay_through_restarts_and_are_told() {
    let yaml = "
instances:
  web:
    command: sh -c 'echo port $PORT $PORT_HTTP; exec sleep 1000'
    numprocesses: 2
    ports: {http: auto}
";
    let cluster = Cluster::up(yaml);
    let port = |id| cluster.instance(id)["ports"]["http"].as_u64().unwrap();
    let before = [port("web.1"), port("web.2")];
    assert_ne!(before[0], before[1]);
    cluster.ok("restart web");
    assert_eq!([port("web.1"), port("web.2")], before);
    cluster.wait_log(&format!("port {0} {0}", before[1]));
    cluster.down();
    cluster.ok("up -d");
    assert_eq!([port("web.1"), port("web.2")], before, "also in the next life of the node");
}

#[test]
fn a_taken_port_names_its_holder() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let yaml = format!(
        "instances: {{web: {{command: sleep 1000, ports: {{http: {{base: {port}, conflict: fail}}}}}}}}"
    );
    let cluster = Cluster::new(&yaml);
    cluster.run("up -d").code(1).says(&port.to_string()).says(&std::process::id().to_string());
}

#[test]
fn a_port_that_another_node_holds_names_that_node_and_how_to_stop_it() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let yaml = format!(
        "
sockets: [{{host: 127.0.0.1, port: {free}}}]
instances: {{web: {{command: sleep 1000}}}}
"
    );
    let first = Cluster::up(&yaml);
    let config = first.path("hilum.yml").canonicalize().unwrap();
    let pid = first.ps()["node"]["pid"].to_string();
    let second = Cluster::new(&yaml);
    let told = second.run("up -d").code(1).says(&format!("pid {pid}, the hilum node of"));
    told.says(&format!("`hilum -c {} down` stops that one", config.display()));
    // One of its programs, for a port of ours.
    let listen = "import socket,time; s=socket.socket(); s.setsockopt(1,2,1); s.bind(('127.0.0.1',%PORT)); s.listen(); open('up','w'); time.sleep(1000)";
    let yaml = format!("instances: {{web: {{command: [python3, -c, \"{listen}\"]}}}}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let third = Cluster::up(&yaml.replace("%PORT", &free.to_string()));
    hilum_tests::wait_until(hilum_tests::LIMIT, "a listener", || third.path("up").exists());
    let yaml = format!(
        "instances: {{web: {{command: sleep 1000, ports: {{http: {{base: {free}, conflict: fail}}}}}}}}"
    );
    let fourth = Cluster::new(&yaml);
    let web = third.pid("web.1");
    fourth.run("up -d").code(1).says(&format!("`web.1` (pid {web}) of the hilum node of"));
}

#[test]
fn a_shared_socket_is_served_by_all_and_stays_open_between() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let yaml = format!(
        "
sockets: [{{host: 127.0.0.1, port: {free}}}]
instances:
  web: {{command: python3 serve.py, numprocesses: 2}}
"
    );
    let cluster = Cluster::new(&yaml);
    cluster.write(
        "serve.py",
        r#"
import os, socket
from http.server import BaseHTTPRequestHandler, HTTPServer
assert os.environ["LISTEN_FDS"] == "1" and int(os.environ["LISTEN_PID"]) == os.getpid()
class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(os.environ["HILUM_INSTANCE"].encode())
server = HTTPServer(("", 0), Hello, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
server.server_address = server.socket.getsockname()
server.serve_forever()
"#,
    );
    cluster.ok("up -d");
    let get = || {
        let mut stream = TcpStream::connect(("127.0.0.1", free)).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(get().contains("web."));
    cluster.ok("stop web.1");
    assert!(get().ends_with("web.2"));
    // While nobody serves, a connection waits instead of being refused.
    cluster.ok("stop web");
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(get);
        wait_until(LIMIT, "a start", || cluster.run("start web.1").status.success());
        waiting.join().unwrap()
    });
    assert!(waiting.ends_with("web.1"));
}

#[test]
fn the_ports_of_others_are_known_before_anybody_starts() {
    let base = 32100 + std::process::id() % 500;
    let yaml = format!(
        "
instances:
  a: {{command: 'sh -c \"echo a $(port.b.1.http) $(port.later.2.p) $(port.z.1.any); exec sleep 1000\"', depends_on: [z]}}
  b: {{command: 'sh -c \"echo b $HILUM_INSTANCE of $(port.b.1.http) $(port.b.2.http); exec sleep 1000\"', numprocesses: 2, ports: {{http: auto}}}}
  later: {{command: sleep 1000, autostart: false, numprocesses: 2, ports: {{p: {{base: {base}, per_instance: true, conflict: fail}}}}}}
  z: {{command: sleep 1000, ports: {{any: auto}}}}
"
    );
    let cluster = Cluster::new(&yaml);
    cluster.ok("up -d --wait --timeout 20s");
    let number = |id: &str, name: &str| cluster.instance(id)["ports"][name].clone();
    let told = format!("a {} {} {}", number("b.1", "http"), base + 1, number("z.1", "any"));
    cluster.wait_log(&told);
    cluster.wait_log(&format!("b b.1 of {} {}", number("b.1", "http"), number("b.2", "http")));
    // what comes by a reload, and by scaling, is known, too
    let more = yaml.replace("  z: {", "  c: {command: 'sh -c \"echo c $(port.d.1.new) $(port.z.1.more); exec sleep 1000\"'}\n  d: {command: sleep 1000, ports: {new: auto}}\n  z: {")
        .replace("{any: auto}", "{any: auto, more: auto}");
    cluster.configure(&more);
    cluster.ok("reload");
    cluster.wait_log(&format!("c {} {}", number("d.1", "new"), number("z.1", "more")));
    cluster.ok("scale later=3");
    assert_eq!(number("later.3", "p"), base + 2);
}
