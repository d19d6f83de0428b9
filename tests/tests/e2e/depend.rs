//! Dependencies, and every way to become ready.

use hilum_tests::Cluster;

/// The order in which instances wrote their names.
fn order(cluster: &Cluster) -> Vec<String> {
    cluster.read("order").lines().map(str::to_owned).collect()
}

#[test]
fn a_dependent_starts_when_the_other_is_ready_and_stops_first() {
    let yaml = "
env: {SAY: 'trap \"echo stop-$HILUM_SERVICE >> order; exit 0\" TERM; echo $HILUM_SERVICE >> order'}
instances:
  web: {command: sh -c 'eval \"$SAY\"; while :; do sleep 0.05; done', depends_on: [db]}
  db:
    command: sh -c 'eval \"$SAY\"; sleep 0.3; touch db.ready; while :; do sleep 0.05; done'
    ready: {file: db.ready, interval: 50ms}
    depends_on: [migrate]
  migrate: {kind: job, command: sh -c 'sleep 0.2; echo migrate >> order'}
";
    let cluster = Cluster::new(yaml);
    cluster.ok("up -d");
    assert!(cluster.path("db.ready").exists());
    cluster.ok("wait web --for ready");
    cluster.down();
    assert_eq!(order(&cluster), ["migrate", "db", "web", "stop-web", "stop-db"]);
}

#[test]
fn a_dependent_waits_and_says_for_whom() {
    let yaml = "
instances:
  web: {command: sleep 1000, depends_on: [db]}
  db: {command: sleep 1000, ready: {file: db.ready, interval: 20ms}}
";
    let cluster = Cluster::new(yaml);
    let up = cluster.start(&["up", "-d"]);
    hilum_tests::wait_until(hilum_tests::LIMIT, "a node", || cluster.run("ps").status.success());
    let web = cluster.wait_state("web.1", "waiting");
    assert!(web["blocked_by"][0].as_str().unwrap().contains("db.1"), "{web}");
    assert!(cluster.ok("why web").contains("db"));
    cluster.write("db.ready", "");
    up.finish(hilum_tests::LIMIT).code(0);
    assert_eq!(cluster.state("web.1"), "running");
}

#[test]
fn every_kind_of_readiness() {
    let yaml = r#"
instances:
  tcp: {command: "python3 -m http.server --bind 127.0.0.1 $(port.http)", ports: {http: auto}, ready: {tcp: "127.0.0.1:$(port.http)", interval: 50ms}}
  http: {command: "python3 -m http.server --bind 127.0.0.1 $(port.http)", ports: {http: auto}, ready: {http: "http://127.0.0.1:$(port.http)/", interval: 50ms}}
  exec: {command: sh -c 'sleep 0.1; touch exec.ready; exec sleep 1000', ready: {exec: test -e exec.ready, interval: 50ms}}
  log: {command: sh -c 'echo starting; sleep 0.1; echo listening on 80; exec sleep 1000', ready: {log: 'listening on \d+'}}
  file: {command: sh -c 'sleep 0.1; touch file.ready; exec sleep 1000', ready: {file: file.ready, interval: 50ms}}
  fd: {command: sh -c 'sleep 0.1; echo >&3; exec sleep 1000', ready: {notify_fd: 3}}
  delay: {command: sleep 1000, ready: {delay: 100ms}}
  unix:
    command: ["python3", "-c", "import socket; s=socket.socket(socket.AF_UNIX); s.bind('u.sock'); s.listen()\nwhile True: s.accept()"]
    ready: {unix: u.sock, interval: 50ms}
  notify:
    command: ["python3", "-c", "import socket,os,time; s=socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.sendto(b'READY=1\\nSTATUS=warm', os.environ['NOTIFY_SOCKET']); time.sleep(1000)"]
    ready: notify
"#;
    let cluster = Cluster::new(yaml);
    cluster.ok("up -d --wait --timeout 25s");
    cluster.assert_all_ready();
    assert_eq!(cluster.instance("notify.1")["info"], "warm");
}

#[test]
fn what_is_not_ready_in_time_is_a_failed_start() {
    let yaml = "instances: {web: {command: sleep 1000, ready: {file: never, interval: 50ms, within: 300ms}, restart: {limit: 1, delay: 10ms}}}";
    let cluster = Cluster::new(yaml);
    cluster.run("up -d --wait").code(1);
    let web = cluster.wait_state("web.1", "failed");
    assert!(web["pid"].is_null(), "{web}");
}

#[test]
fn a_quorum_is_enough() {
    let yaml = "
instances:
  web: {command: sleep 1000, depends_on: {db: {condition: ready, quorum: 2}}}
  db: {command: sh -c 'touch up.$HILUM_INDEX; exec sleep 1000', numprocesses: 3, ready: {exec: sh -c 'test $HILUM_INDEX != 2', interval: 50ms}}
";
    let cluster = Cluster::new(yaml);
    cluster.run("up -d");
    cluster.wait_state("web.1", "running");
    assert_eq!(cluster.instance("db.2")["ready"], false);
}

#[test]
fn what_ends_at_once_has_not_come_up_though_it_was_started() {
    let cluster = Cluster::new(
        "
instances:
  web: {command: sleep 0.05; exit 7, shell: true, restart: {delay: 10ms, max_delay: 10ms}}
  other: {command: sleep 1000}
",
    );
    cluster.run("up -d --wait").code(1).says("error: `web.1`").says("last: exit 7");
    assert_eq!(cluster.state("other.1"), "running");
    cluster.run("up -d").code(0);
    cluster.down();
    cluster.assert_empty();
}

#[test]
fn what_has_to_hold_for_long_is_said_to_be_waited_for() {
    let cluster =
        Cluster::new("instances: {web: {command: sleep 1000, restart: {min_uptime: 3s}}}");
    let up = cluster.run("up -d --wait").code(0);
    assert!(up.err.contains("run for `restart.min_uptime`: web.1"), "{}", up.err);
    cluster.down();
}

#[test]
fn waiting_for_one_that_crashes_again_and_again_ends_with_the_reason() {
    let cluster = Cluster::new(
        "
instances:
  web:
    command: sh -c 'echo no luck >&2; exit 7'
    ready: {tcp: '127.0.0.1:1', interval: 10s}
    restart: {delay: 10ms, max_delay: 10ms}
  api: {command: sleep 1000, depends_on: [web]}
  other: {command: sleep 1000}
",
    );
    let up = cluster.run("up -d --wait").code(1).says("error: `web.1`").says("it ended too soon ");
    let up = up
        .says(" times in a row, each within 1s of its start")
        .says("last: exit 7")
        .says("`api.1` waiting: it waits for web.1 to be");
    up.says("hilum crash show");
    assert_eq!(cluster.state("other.1"), "running");
    let restart = cluster
        .run("restart web")
        .code(1)
        .says("web.1  failed: it ended too soon 3 times in a row");
    restart.says("`hilum crash show web.1`");
    assert!(cluster.ok("crash show web").contains("no luck"));
    let tries = cluster.instance("web.1")["run"].as_u64();
    cluster.wait("web.1", "another try", |web| web["run"].as_u64() > tries);
    // It comes after all: whoever waits then is told so.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    let yaml = cluster.read("hilum.yml");
    let yaml = yaml.replace("127.0.0.1:1'", &format!("127.0.0.1:{port}'"));
    cluster.configure(&yaml.replace("echo no luck >&2; exit 7", "exec sleep 1000"));
    cluster.ok("up -d --wait");
    cluster.assert_all_ready();
}
