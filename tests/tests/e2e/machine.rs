//! What the machine may do to a node: no more processes, a namespace of its own. Both need root, and a test without it
//! says so and passes.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hilum_tests::{Cluster, LIMIT, alive, signal, wait_until};

fn count(ps: &serde_json::Value, what: &dyn Fn(&serde_json::Value) -> bool) -> usize {
    ps["instances"].as_array().into_iter().flatten().filter(|one| what(one)).count()
}

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: this test needs root");
    }
    root
}

#[test]
fn a_user_without_room_for_more_processes_gets_what_fits_and_the_rest_later() {
    // A user of its own: the limit counts all that one has.
    let uid = 40_000 + std::process::id() % 20_000;
    if !is_root() {
        return;
    }
    let cluster = Cluster::new("instances: {web: {command: sleep 1000, numprocesses: 40}}");
    for folder in [cluster.dir(), &cluster.path("run")] {
        std::fs::create_dir_all(folder).unwrap();
        std::os::unix::fs::chown(folder, Some(uid), Some(uid)).unwrap();
    }
    std::fs::set_permissions(cluster.dir(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let user = uid.to_string();
    let hilum = |words: &str| {
        let wrap = [
            "prlimit",
            "--nproc=30",
            "setpriv",
            "--reuid",
            &user,
            "--regid",
            &user,
            "--clear-groups",
        ];
        let words: Vec<&str> = words.split(' ').collect();
        cluster.command_by(&wrap, &words).output().unwrap()
    };
    let up = hilum("up -d");
    let said = String::from_utf8_lossy(&up.stderr);
    assert!(said.contains("waiting: cannot make a process (EAGAIN)"), "{said}");
    // Others have no such limit, and root may ask.
    let ps = || cluster.json("ps --json");
    let running = |one: &serde_json::Value| one["state"] == "running";
    let starved = |one: &serde_json::Value| {
        one["flags"].as_array().unwrap().contains(&"starved".into())
            && one["reason"].as_str().is_some_and(|why| why.contains("EAGAIN"))
    };
    wait_until(LIMIT, "some run and the others are starved", || {
        let ps = ps();
        count(&ps, &running) > 5 && count(&ps, &starved) > 0
    });
    let all = ps();
    assert!(count(&all, &running) < 30, "{all}");
    assert_eq!(count(&all, &|one| one["restarts"] != 0), 0, "a shortage is no restart");
    // Room again: those that fit are all that is wanted.
    cluster.ok("scale web=5");
    wait_until(LIMIT, "five", || count(&ps(), &running) == 5);
    cluster.ok("down");
    cluster.assert_empty();
}

#[test]
fn a_node_without_descriptors_starts_what_fits_and_refuses_clients() {
    let yaml = "instances: {web: {command: sleep 1000, numprocesses: 60}}";
    let cluster = Cluster::new(yaml);
    let few = ["sh", "-c", "ulimit -n 100; exec \"$@\"", "few"];
    let up = cluster.command_by(&few, &["up", "-d"]).output().unwrap();
    let ps = cluster.ps();
    let node = u32::try_from(ps["node"]["pid"].as_u64().unwrap()).unwrap();
    assert!(count(&ps, &|one| one["state"] == "running") > 0, "{up:?}");
    // As many clients as like to come, and none of them reads.
    let socket = format!("{}/node.sock", cluster.read(".hilum/hilum.yml/run").trim());
    let clients: Vec<_> = (0..300).filter_map(|_| UnixStream::connect(&socket).ok()).collect();
    let mut refused = 0;
    for client in &clients {
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut greeting = [0; 10];
        let read = (&*client).read(&mut greeting);
        refused += usize::from(matches!(read, Ok(0)));
        if refused > 0 {
            break;
        }
    }
    assert!(refused > 0, "of {} clients nobody was refused", clients.len());
    assert!(alive(node));
    drop(clients);
    wait_until(LIMIT, "an answer", || cluster.run("ps").status.success());
    assert_eq!(cluster.ps()["node"]["pid"], node);
    cluster.ok("down");
    cluster.assert_empty();
}

#[test]
fn a_node_that_is_process_one_reaps_and_ends_with_its_code() {
    if !is_root() {
        return;
    }
    let yaml =
        "instances: {web: {command: [sh, -c, '(setsid sh -c \"sleep 0.1\" &) ; exec sleep 1000']}}";
    let cluster = Cluster::new(yaml);
    let wrap = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let mut unshare = cluster.command_by(&wrap, &["node"]).spawn().unwrap();
    let own = unshare.id();
    let keeper = || children(own).first().copied();
    let events = cluster.path(".hilum/hilum.yml/logs");
    let logged = |what: &str| {
        let files = std::fs::read_dir(&events).into_iter().flatten().flatten();
        let mut texts = files.filter_map(|file| std::fs::read(file.path()).ok());
        texts.any(|text| String::from_utf8_lossy(&text).contains(what))
    };
    wait_until(LIMIT, "the start", || {
        if let Some(status) = unshare.try_wait().unwrap() {
            panic!("{status}");
        }
        logged("started")
    });
    let keeper = keeper().unwrap();
    // The orphan is adopted, ends, and is reaped: web's shell and its sleep are all that is left.
    let node = children(keeper)[0];
    wait_until(LIMIT, "the orphan's end", || {
        let web = children(node);
        children(keeper) == [node] && web.len() == 1 && children(web[0]).is_empty()
    });
    signal("TERM", keeper);
    assert_eq!(unshare.wait().unwrap().code(), Some(0));
    wait_until(LIMIT, "the end", || !alive(keeper));
    cluster.assert_empty();
}

#[test]
fn a_cluster_that_root_has_started_once_says_whose_it_is() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::up("instances: {web: {command: sleep 1000}}");
    cluster.ok("down");
    std::fs::set_permissions(cluster.dir(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    // as others may read it, and as only root may
    for (folders, lock) in [(0o755, 0o644), (0o755, 0o600), (0o700, 0o600)] {
        for (path, mode) in
            [(".hilum", folders), (".hilum/hilum.yml", folders), (".hilum/hilum.yml/lock", lock)]
        {
            std::fs::set_permissions(cluster.path(path), std::fs::Permissions::from_mode(mode))
                .unwrap();
        }
        let up = cluster.command_by(&user, &["up", "-d"]).output().unwrap();
        let said = String::from_utf8_lossy(&up.stderr);
        for word in ["belongs to root", "sudo chown -R nobody", "/.hilum` makes it yours"] {
            assert!(said.contains(word), "{folders:o} {lock:o}, {word}: {said}");
        }
        assert_eq!(up.status.code(), Some(1));
    }
}

#[test]
fn a_service_of_another_user_can_open_its_output_by_name() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::new(
        "instances: {web: {command: sh say.sh, user: '12345', directory: /}, tty: {command: sh say.sh, user: '12345', directory: /, tty: true}}",
    );
    let script = cluster.path("say.sh");
    let yaml = cluster.read("hilum.yml").replace("say.sh", script.to_str().unwrap());
    cluster.write("hilum.yml", &yaml);
    cluster.write("say.sh", "echo opened by $USER of $HOME > /dev/stdout; exec sleep 1000");
    std::fs::set_permissions(cluster.dir(), std::fs::Permissions::from_mode(0o755)).unwrap();
    cluster.ok("up -d");
    for name in ["web", "tty"] {
        wait_until(LIMIT, "the line", || {
            cluster.logs(&format!("{name} --no-prefix")).contains("opened by 12345 of /")
        });
    }
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    texts
        .flat_map(|text| {
            text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn two_clusters_do_not_write_into_one_log_folder() {
    let cluster = Cluster::new("instances: {}");
    let logs = cluster.path("shared logs");
    for name in ["one", "two"] {
        let yaml = format!(
            "logs: {{dir: '{}'}}\ninstances: {{{name}: {{command: [sh, -c, 'echo here; exec sleep 1000']}}}}\n",
            logs.display()
        );
        cluster.write(&format!("{name}/hilum.yml"), &yaml);
    }
    let hilum = |name: &str, words: &str| cluster.run(&format!("-c {name}/hilum.yml {words}"));
    hilum("one", "up -d").code(0);
    let node = || {
        let ps: serde_json::Value =
            serde_json::from_str(&hilum("one", "ps --json").code(0).out).unwrap();
        u32::try_from(ps["node"]["pid"].as_u64().unwrap()).unwrap()
    };
    let first = node();
    let refused = hilum("two", "up -d").code(1);
    for word in ["shared logs", "one/hilum.yml", &format!("pid {first}"), "logs.dir"] {
        assert!(refused.err.contains(word), "{word}: {}", refused.err);
    }
    wait_until(LIMIT, "its line", || hilum("one", "logs").code(0).out.contains("here"));
    hilum("two", "logs").code(0);
    // Nothing of a killed node keeps the next one away.
    signal("KILL", first);
    wait_until(LIMIT, "its end", || !alive(first));
    hilum("two", "up -d").code(0);
    hilum("two", "down").code(0);
    hilum("one", "up -d").code(0);
    hilum("one", "down").code(0);
}

#[test]
fn too_few_descriptors_for_any_node_are_said_before_one_is_started() {
    let cluster = Cluster::new("instances: {web: {command: sleep 1000, numprocesses: 3}}");
    for few in [12, 20, 30, 40, 50, 64, 80, 95] {
        for verb in ["up -d", "node"] {
            let limit = format!("ulimit -n {few}; exec \"$@\"");
            let words: Vec<&str> = verb.split(' ').collect();
            let up = cluster.command_by(&["sh", "-c", &limit, "few"], &words).output().unwrap();
            let said = String::from_utf8_lossy(&up.stderr);
            assert_eq!(up.status.code(), Some(1), "{few}, {verb}: {said}");
            for part in ["needs 96 open files", &format!("may have {few}"), "ulimit -Hn"] {
                assert!(said.contains(part), "{few}, {verb}: {said}");
            }
        }
    }
    assert!(!cluster.path(".hilum").exists(), "nothing was begun");
}

#[test]
fn a_worker_with_too_few_descriptors_says_so() {
    let yaml = format!(
        "instances: {{web: {{command: [{}, plain], limits: {{nofile: 20}}, restart: never}}}}",
        hilum_tests::worker()
    );
    let cluster = Cluster::new(&yaml);
    cluster.run("up -d");
    cluster.wait("web.1", "its end", |one| one["state"] == "failed");
    cluster.wait_log("ZeroMQ needs 16 open files");
    cluster.ok("down");
}

#[test]
fn a_service_manager_is_told_that_the_loop_goes_round() {
    let cluster = Cluster::new("instances: {web: {command: sleep 1000}}");
    let path = cluster.path("manager");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let mut command = cluster.command(&["node"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let mut keeper = command.spawn().unwrap();
    let next = || {
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(next(), "READY=1\n");
    for _ in 0..3 {
        assert_eq!(next(), "WATCHDOG=1\n");
    }
    signal("TERM", keeper.id());
    assert!(keeper.wait().unwrap().success());
    let mut last = next();
    while last == "WATCHDOG=1\n" {
        last = next();
    }
    assert_eq!(last, "STOPPING=1\n");
}

#[test]
fn a_service_manager_that_does_not_read_holds_nobody_up() {
    let cluster = Cluster::new("instances: {web: {command: sleep 1000}}");
    let path = cluster.path("manager");
    let _manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let mut command = cluster.command(&["node"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "20000");
    let mut keeper = command.spawn().unwrap();
    let more = std::os::unix::net::UnixDatagram::unbound().unwrap();
    more.set_nonblocking(true).unwrap();
    let is_full = || {
        let sent = more.send_to(b"", &path);
        sent.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    wait_until(LIMIT, "a full queue", is_full);
    signal("KILL", cluster.pid("web.1"));
    cluster.wait("web.1", "started again", |one| one["run"] == 2 && one["state"] == "running");
    signal("TERM", keeper.id());
    assert!(keeper.wait().unwrap().success());
    cluster.assert_empty();
}

#[test]
fn signals_of_timers_that_nobody_set_do_nothing_to_a_node() {
    let cluster = Cluster::up("instances: {web: {command: sleep 1000}}");
    let node = cluster.ps()["node"]["pid"].clone();
    let pid = u32::try_from(node.as_u64().unwrap()).unwrap();
    for name in ["ALRM", "VTALRM", "PROF", "IO"] {
        signal(name, pid);
    }
    signal("KILL", cluster.pid("web.1"));
    cluster.wait("web.1", "started again", |one| one["run"] == 2 && one["state"] == "running");
    assert_eq!(cluster.ps()["node"]["pid"], node);
    cluster.ok("down");
    cluster.assert_empty();
}
