//! A ZooKeeper of a test's own, by `scripts/services`; none where that cannot be had.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) struct Server {
    child: Child,
    pub hosts: String,
    _folder: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start() -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let script = root.join("scripts/services");
        let fetched = Command::new(&script).arg("fetch").output().unwrap();
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
        let mut command = Command::new(script);
        command.args(["zookeeper", &port.to_string()]).arg(folder.path());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Self { child, hosts: format!("127.0.0.1:{port}"), _folder: folder };
        let begun = tokio::time::Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "ZooKeeper does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
