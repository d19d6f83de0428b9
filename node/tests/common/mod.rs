//! What all process tests need: the fixture, requests for it, waiting for conditions, and a look at
//! `/proc` that nothing was left.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod spec;

use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hilum_node::driver::procfs;
use hilum_node::driver::request::{SpawnRequest, Stdio};

/// The fixture's path.
pub(crate) const FIXTURE: &str = env!("CARGO_BIN_EXE_hilum-fixture");

/// A mark that no other test has.
pub(crate) fn unique_token() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("test-{}-{number}", std::process::id())
}

/// A request for the fixture with these arguments and an almost empty environment.
pub(crate) fn fixture(token: &str, args: &[&str]) -> SpawnRequest {
    let mut request = SpawnRequest { program: FIXTURE.into(), ..SpawnRequest::default() };
    request.candidates.push(FIXTURE.as_bytes()).unwrap();
    request.argv.push(FIXTURE.as_bytes()).unwrap();
    for argument in args {
        request.argv.push(argument.as_bytes()).unwrap();
    }
    request.env.push_parts(&[b"HILUM_TOKEN=", token.as_bytes()]).unwrap();
    request
}

/// Gives the request a pipe for both outputs; the answer is its end for reading.
pub(crate) fn capture(request: &mut SpawnRequest) -> std::io::PipeReader {
    let (reader, writer) = std::io::pipe().unwrap();
    let writer = Arc::new(OwnedFd::from(writer));
    request.stdio = Stdio::Pipes { stdout: Arc::clone(&writer), stderr: writer };
    reader
}

/// All of a pipe, after the request that holds its other end is dropped.
pub(crate) fn read_all(mut reader: impl Read, request: SpawnRequest) -> String {
    drop(request);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}

/// Waits for a condition, up to 30 s.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The processes whose environment holds this token.
pub(crate) fn marked(token: &str) -> Vec<u32> {
    let own = std::process::id();
    procfs::all()
        .into_iter()
        .filter(|&pid| pid != own)
        .filter(|&pid| procfs::variable(pid, "HILUM_TOKEN").as_deref() == Some(token))
        .filter(|&pid| procfs::Stat::read(pid).is_some_and(|stat| !stat.is_zombie()))
        .collect()
}

/// Ends whatever a failed test left; a passed one left nothing.
pub(crate) struct NothingLeft(pub(crate) String);

impl Drop for NothingLeft {
    fn drop(&mut self) {
        let left = marked(&self.0);
        for &pid in &left {
            let pid = nix::unistd::Pid::from_raw(pid as i32);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL); // just gone
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind: {left:?}");
        }
    }
}
