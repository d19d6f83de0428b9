//! HTTP services on a socket that the node shares.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hilum_tests::{Cluster, LIMIT, signal, wait_until, worker};

/// Between two requests on one connection.
const THOUGHT: Duration = Duration::from_millis(5);

/// What became of the requests of all clients.
#[derive(Debug, Default)]
struct Tally {
    over: AtomicBool,
    answered: AtomicU64,
    /// Connections that were not even accepted.
    refused: AtomicU64,
    /// Requests without an answer, with why.
    lost: Mutex<Vec<String>>,
    /// Who answered: instance and run.
    answerers: Mutex<BTreeSet<String>>,
}

impl Tally {
    fn count(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// Waits until so many more requests, which were sent from now on, are answered.
    fn wait_for_more(&self, count: u64) {
        let before = self.count();
        wait_until(LIMIT, "more answers", || self.count() >= before + count);
    }

    fn answerers(&self, run: &str) -> usize {
        let all = self.answerers.lock().unwrap();
        all.iter().filter(|who| who.ends_with(&format!(" {run}"))).count()
    }

    fn forget(&self) {
        self.answerers.lock().unwrap().clear();
        self.lost.lock().unwrap().clear();
    }
}

/// Asks again and again, on one connection for as long as the server keeps it where `keep` is set.
fn ask(tally: &Tally, port: u16, path: &str, keep: bool) {
    let mut kept = None;
    while !tally.over.load(Ordering::SeqCst) {
        let connection = match kept.take() {
            Some(connection) => {
                std::thread::sleep(THOUGHT); // so that the server finds it idle
                connection
            }
            None => match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => BufReader::new(stream),
                Err(_) => {
                    tally.refused.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
            },
        };
        match request(connection, path, keep) {
            Ok((answer, connection)) => {
                tally.answered.fetch_add(1, Ordering::SeqCst);
                tally.answerers.lock().unwrap().insert(answer);
                kept = connection;
            }
            Err(error) => tally.lost.lock().unwrap().push(format!("{path} {keep}: {error}")),
        }
    }
}

type Connection = BufReader<TcpStream>;

fn request(
    mut connection: Connection,
    path: &str,
    keep: bool,
) -> io::Result<(String, Option<Connection>)> {
    connection.get_ref().set_read_timeout(Some(LIMIT))?;
    let wish = if keep { "keep-alive" } else { "close" };
    let text = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: {wish}\r\n\r\n");
    connection.get_mut().write_all(text.as_bytes())?;
    let (mut length, mut keeps, mut line) = (0, keep, String::new());
    connection.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200") {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("answered {line:?}")));
    }
    while line != "\r\n" {
        line.clear();
        connection.read_line(&mut line)?;
        let header = line.to_lowercase();
        if let Some(value) = header.strip_prefix("content-length: ") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        keeps &= !header.starts_with("connection: close");
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    Ok((String::from_utf8_lossy(&body).into_owned(), keeps.then_some(connection)))
}

fn cluster(port: u16, before: &str, how: &str) -> Cluster {
    let yaml = format!(
        "
sockets: [{{name: front, host: 127.0.0.1, port: {port}}}]
instances:
  web:
    command: {before} {} web
    numprocesses: 3
    ready: heartbeat
    rolling: {{min_ready: 0s}}
    env: {{{how}}}
",
        worker()
    );
    let cluster = Cluster::new(&yaml);
    cluster.ok("up -d --wait");
    cluster
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn no_connection_is_refused_while_processes_restart_or_die() {
    let port = free_port();
    let cluster = cluster(port, "", &format!("WEB_PORT: '{port}'"));
    let tally = Tally::default();
    std::thread::scope(|scope| {
        for (path, keep) in
            [("/", false), ("/", false), ("/slow", false), ("/", true), ("/slow", true)]
        {
            let tally = &tally;
            scope.spawn(move || ask(tally, port, path, keep));
        }
        let over = Over(&tally);
        wait_until(LIMIT, "an answer of each", || tally.answerers("1") == 3);

        cluster.ok("restart --rolling web");
        wait_until(LIMIT, "an answer of each new one", || tally.answerers("2") == 3);
        assert!(tally.lost.lock().unwrap().is_empty(), "a rolling restart lost {tally:?}");

        // All at once: nobody is there for a moment, and connections wait.
        cluster.ok("restart web");
        wait_until(LIMIT, "an answer of each newest one", || tally.answerers("3") == 3);
        assert!(tally.lost.lock().unwrap().is_empty(), "a restart of all lost {tally:?}");

        tally.forget();
        let victim = cluster.pid("web.2");
        signal("KILL", victim);
        cluster.wait("web.2", "another process", |it| it["run"] == 4 && it["ready"] == true);
        wait_until(LIMIT, "an answer of the one after it", || tally.answerers("4") == 1);
        tally.wait_for_more(100);
        // What it was at, one request a client at most, and perhaps one on a connection that was kept.
        let lost = tally.lost.lock().unwrap().len();
        assert!(lost <= 5, "a killed process lost {tally:?}");
        println!("{} answered, {lost} in flight were lost with the killed process", tally.count());
        drop(over);
    });
    assert_eq!(tally.refused.load(Ordering::SeqCst), 0, "{tally:?}");
    cluster.down();
}

/// Ends the clients, also when the test fails.
struct Over<'a>(&'a Tally);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_shared_socket_is_found_by_its_name_and_by_systemds_protocol_alone() {
    let port = free_port();
    for how in ["WEB_SOCKET: front".to_owned(), format!("WEB_PORT: '{port}'")] {
        let cluster = cluster(port, "env -u LYMPH_SHARED_SOCKET_FDS", &how);
        let connection = BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
        let (answer, _) = request(connection, "/", false).unwrap();
        assert!(answer.starts_with("web."), "{answer}");
        cluster.down();
    }
}
