//! The wall around the core.

/// The core, and the event broker, which services without a node share with it, may know types, never the world: what it needs of time comes as an argument.
#[test]
fn the_core_touches_neither_clock_nor_system() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core");
    let forbidden = [
        "tokio::",
        "nix::",
        "libc::",
        "zmq::",
        "std::fs",
        "std::env",
        "std::process",
        "Instant::now",
        "SystemTime",
        "rand::",
        "crate::driver",
        "crate::channels",
        "crate::log",
    ];
    let events = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/src/events");
    let mut open = vec![root, events.join("broker.rs"), events.join("broker/words.rs")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
        } else if !path.ends_with("wall.rs") && !path.ends_with("world/random.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for word in forbidden {
                assert!(!text.contains(word), "{} uses {word}", path.display());
            }
        }
    }
}
