//! Builds libzmq 4.3.5 for `zmq-sys`, with the platform defines that its CMake-free build leaves out.
//!
//! Without them libzmq uses `socketpair` instead of `eventfd` and sets close-on-exec in a second
//! call, so that a process spawned in between inherits ZeroMQ's descriptors. And it takes connections by way of `accept.c`,
//! because it would abort the process that has no descriptor left for one, and waits for them by way of `epoll.c`, because it
//! would drop what a peer sent before it went.
#![allow(clippy::new_without_default)]

pub use upstream::LibLocation;

/// What the Linux build of libzmq detects under CMake and is not told otherwise.
const LINUX_DEFINES: [&str; 14] = [
    "ZMQ_HAVE_EVENTFD",
    "ZMQ_HAVE_EVENTFD_CLOEXEC",
    "ZMQ_HAVE_SOCK_CLOEXEC",
    "HAVE_ACCEPT4",
    "ZMQ_HAVE_O_CLOEXEC",
    "ZMQ_HAVE_SO_KEEPALIVE",
    "ZMQ_HAVE_TCP_KEEPCNT",
    "ZMQ_HAVE_TCP_KEEPIDLE",
    "ZMQ_HAVE_TCP_KEEPINTVL",
    "ZMQ_HAVE_SO_PEERCRED",
    "ZMQ_HAVE_PTHREAD_SETNAME_2",
    "HAVE_CLOCK_GETTIME",
    "HAVE_MKDTEMP",
    "HAVE_FORK",
];

/// What libzmq calls in place of the system's functions: the flags say so, and these files beside `Cargo.toml` have them.
const SHIMS: [(&str, &[&str]); 2] =
    [("accept", &["accept4"]), ("epoll", &["epoll_ctl", "epoll_wait"])];

/// The builder that `zmq-sys` calls.
pub struct Build(upstream::Build);

impl Build {
    /// A builder with upstream's settings.
    pub fn new() -> Self {
        Self(upstream::Build::new())
    }

    /// Links CURVE against an external libsodium; `None` leaves CURVE out.
    pub fn with_libsodium(&mut self, location: Option<LibLocation>) -> &mut Self {
        self.0.with_libsodium(location);
        self
    }

    /// Compiles and links libzmq.
    pub fn build(&mut self) {
        if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
            let mut flags = std::env::var("CXXFLAGS").unwrap_or_default();
            for define in LINUX_DEFINES {
                flags.push_str(&format!(" -D{define}=1"));
            }
            for function in SHIMS.iter().flat_map(|(_, functions)| *functions) {
                flags.push_str(&format!(" -D{function}=hilum_{function}"));
            }
            // SAFETY: a build script that calls this has no other thread yet.
            unsafe { std::env::set_var("CXXFLAGS", flags) };
            link_cxx_statically();
        }
        self.0.build();
        if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
            for (name, _) in SHIMS {
                let file = format!("{}/{name}.c", env!("CARGO_MANIFEST_DIR"));
                println!("cargo:rerun-if-changed={file}");
                cc::Build::new().file(file).compile(&format!("hilum_{name}"));
            }
        }
    }
}

/// Only the few parts of libstdc++ that libzmq uses: as a shared library it costs each process of ours
/// half a megabyte of relocated pages. Where the archive is not installed it stays shared.
fn link_cxx_statically() {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let asked = std::process::Command::new(compiler).arg("-print-file-name=libstdc++.a").output();
    let Ok(output) = asked else { return };
    let answer = String::from_utf8_lossy(&output.stdout);
    let archive = std::path::Path::new(answer.trim());
    // A compiler that does not know the file repeats its name.
    let Some(folder) = archive.parent().filter(|_| archive.is_absolute() && archive.is_file())
    else {
        return;
    };
    println!("cargo:rustc-link-search=native={}", folder.display());
    // SAFETY: as above.
    unsafe { std::env::set_var("CXXSTDLIB_STATIC", "1") };
}
