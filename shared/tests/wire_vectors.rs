//! Messages captured from real lymph services decode, and ours are the same bytes.
//!
//! The captures are a folder `shared/vectors` beside the repository; where it is absent the test says so and skips.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic, and says that it skips"
)]

use std::fs;
use std::path::{Path, PathBuf};

use hilum_shared::wire::message::{Kind, Message};
use serde_json::Value;

fn vectors() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = root
        .ancestors()
        .map(|folder| folder.join("shared/vectors/lymph"))
        .find(|folder| folder.is_dir());
    if found.is_none() {
        eprintln!("skipped: no folder `shared/vectors` beside the repository");
    }
    found
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn frames(value: &Value) -> Vec<Vec<u8>> {
    let list = value.as_array().unwrap();
    list.iter().map(|hex| bytes(hex.as_str().unwrap())).collect()
}

fn captures(folder: &Path) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let wanted = ["req_", "rep_", "ack", "nack", "error_", "roundtrip_"];
        if path.is_file() && wanted.iter().any(|prefix| name.starts_with(prefix)) {
            found.push((name, serde_json::from_slice(&fs::read(&path).unwrap()).unwrap()));
        }
    }
    found
}

#[test]
fn captured_messages_decode() {
    let Some(folder) = vectors() else { return };
    for folder in [folder.clone(), folder.join("py27")] {
        let found = captures(&folder);
        assert!(found.len() > 10, "{} captures in {folder:?}", found.len());
        for (name, capture) in found {
            let mut all = frames(&capture["frames_hex"]);
            if all.len() == 6 {
                all.remove(0); // the routing id
            }
            let message = Message::decode(&all).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(capture["decoded"]["type"], message.kind.as_str(), "{name}");
            assert_eq!(capture["decoded"]["subject"], message.subject, "{name}");
            assert_eq!(capture["decoded"]["id"], message.id, "{name}");
            let trace = &capture["decoded"]["headers"]["trace_id"];
            if trace.is_string() {
                assert_eq!(trace.as_str(), message.headers.trace_id.as_deref(), "{name}");
            }
        }
    }
}

#[test]
fn a_nack_is_told_from_a_reply() {
    let Some(folder) = vectors() else { return };
    let kinds = [
        ("nack.json", Kind::Nack),
        ("ack.json", Kind::Ack),
        ("rep_echo.json", Kind::Reply),
        ("error_declared.json", Kind::Error),
    ];
    for (name, kind) in kinds {
        let capture: Value = serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap();
        let all = frames(&capture["frames_hex"]);
        assert_eq!(Message::decode(&all[1..]).unwrap().kind, kind, "{name}");
    }
}

#[test]
fn ours_are_the_same_bytes() {
    let Some(folder) = vectors() else { return };
    let capture: Value =
        serde_json::from_slice(&fs::read(folder.join("req_echo.json")).unwrap()).unwrap();
    let theirs = &frames(&capture["frames_hex"])[1..];
    assert_eq!(Message::decode(theirs).unwrap().encode(), theirs);
}
