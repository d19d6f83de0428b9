//! A real ZooKeeper for tests.
#![allow(clippy::print_stderr, reason = "a test says that it skips")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "each test uses a part")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
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
