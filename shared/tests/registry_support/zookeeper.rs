//! A real ZooKeeper for tests.
#![allow(clippy::print_stderr, reason = "a test says that it skips")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "each test uses a part")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// It is Java, and a machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);

/// A ZooKeeper of its own, by `scripts/services`. It ends with its test.
pub(crate) struct Server {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Server {
    /// Starts one; `None`, with a word, where that cannot be had.
    pub(crate) async fn start() -> Option<Self> {
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

    /// Waits until it takes connections.
    pub(crate) async fn is_up(&self) {
        let begun = tokio::time::Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(begun.elapsed() < LIMIT, "ZooKeeper does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends it.
    pub(crate) fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Where it is.
    pub(crate) fn hosts(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Removes all that an ended one knew.
    pub(crate) fn forget_everything(&self) {
        std::fs::remove_dir_all(self.folder.path()).unwrap();
    }

    /// Starts an ended one again.
    pub(crate) fn again(&mut self) {
        self.child = Self::run(self.port, self.folder.path());
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

/// What a [`Proxy`] does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Lets everything through.
    Up,
    /// Cuts what there is, and takes nothing new.
    Down,
    /// Lets this many answers of the next connection through, holds the others back for this long, and is up for those after it.
    Stall(usize, Duration),
}

/// Between a ZooKeeper and who uses it. Its threads end with the test's process.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    port: u16,
}

struct Shared {
    mode: Mutex<Mode>,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// One before a server.
    pub(crate) fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { mode: Mutex::new(Mode::Up), open: Mutex::default() });
        let (server, ours) = (server.port, Arc::clone(&shared));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                ours.connect(client, server);
            }
        });
        Self { shared, port }
    }

    /// Where it is.
    pub(crate) fn hosts(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it does from now on.
    pub(crate) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
        if mode == Mode::Down {
            for stream in self.shared.open.lock().unwrap().drain(..) {
                let _ = stream.shutdown(Shutdown::Both); // closed already
            }
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        *self.shared.mode.lock().unwrap()
    }
}

impl Shared {
    fn connect(&self, client: TcpStream, port: u16) {
        let mut mode = self.mode.lock().unwrap();
        let held = match *mode {
            Mode::Down => return,
            Mode::Up => None,
            Mode::Stall(answers, time) => Some((answers, time)),
        };
        let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
        if held.is_some() {
            *mode = Mode::Up;
        }
        let both = |one: &TcpStream| one.try_clone().unwrap();
        self.open.lock().unwrap().extend([both(&client), both(&server)]);
        let (to, from) = (both(&server), both(&client));
        std::thread::spawn(move || pump(from, to, None));
        std::thread::spawn(move || pump(server, client, held));
    }
}

/// Moves bytes until one side ends, and ends the other.
fn pump(mut from: TcpStream, mut to: TcpStream, mut held: Option<(usize, Duration)>) {
    let mut buffer = vec![0; 1 << 16];
    let mut answers = 0;
    while let Ok(length) = from.read(&mut buffer)
        && length > 0
    {
        answers += 1;
        if let Some((_, time)) = held.take_if(|(first, _)| answers > *first) {
            std::thread::sleep(time);
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both); // closed already
    }
}
