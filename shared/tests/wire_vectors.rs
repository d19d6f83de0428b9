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

use hilum_shared::registry::{Instance, VersionRequest};
use hilum_shared::wire::message::{Kind, Message};
use hilum_shared::wire::types::{Decimal, Set, Time, Uuid};
use hilum_shared::wire::{self, pack, unpack};
use serde::Deserialize;
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

fn capture(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap()
}

/// What a capture's reader wrote down, as a value of ours.
fn expected(json: &Value) -> wire::Value {
    if let Some(hex) = json.get("$bytes") {
        return wire::Value::Bytes(bytes(hex.as_str().unwrap()));
    }
    if let Some(kind) = json.get("$ext") {
        let data = bytes(json["data"].as_str().unwrap());
        return wire::Value::Ext(kind.as_i64().unwrap() as i8, data);
    }
    // Through JSON, which knows the special values.
    wire::Value::from_json(json).unwrap()
}

#[test]
fn bodies_are_the_values_that_python_saw() {
    let Some(folder) = vectors() else { return };
    let mut compared = 0;
    for (name, capture) in captures(&folder) {
        let all = frames(&capture["frames_hex"]);
        let value: wire::Value = unpack(all.last().unwrap(), "body").unwrap();
        let body = &capture["decoded"]["body"];
        // Where bytes or odd keys are deep inside, the capture's JSON is not ours.
        let odd = body.to_string().contains("$bytes") && body.get("$bytes").is_none();
        if odd || name.contains("int_keys") {
            continue;
        }
        // As JSON, where the order of a map does not count: the capture has sorted it.
        assert_eq!(value.to_json(), expected(body).to_json(), "{name}");
        compared += 1;
    }
    assert!(compared > 40, "{compared}");
}

#[test]
fn what_python_read_and_wrote_again_we_read_and_write_alike() {
    let Some(folder) = vectors() else { return };
    let mut compared = 0;
    for (name, capture) in captures(&folder) {
        if !name.starts_with("roundtrip_") {
            continue;
        }
        let sent = frames(&capture["request_frames_hex"]);
        let theirs = frames(&capture["frames_hex"]).pop().unwrap();
        let args: wire::Value = unpack(&sent[4], "body").unwrap();
        let ours = pack(args.get("value").unwrap()).unwrap();
        if name.contains("datetime_micro") {
            // Python drops parts of a second; we keep what it reads.
            assert!(String::from_utf8_lossy(&ours).ends_with("26:53.123456"));
            continue;
        }
        assert_eq!(ours, theirs, "{name}");
        compared += 1;
    }
    assert!(compared > 20, "{compared}");
    let table = capture(&folder, "derived_serializer.json");
    for row in table["decoded"].as_array().unwrap() {
        let python = row["python"].as_str().unwrap();
        let theirs = bytes(row["hex"].as_str().unwrap());
        let value: wire::Value = unpack(&theirs, "body").unwrap();
        match python {
            // Four digits are meant: Python does not read its own, we keep the map as it is.
            _ if python.contains("datetime(985") => assert!(matches!(value, wire::Value::Map(_))),
            _ if python.contains("code=101") => assert_eq!(value.to_string(), r#"{"k": 1}"#),
            _ => assert_eq!(pack(&value).unwrap(), theirs, "{python}"),
        }
    }
}

#[test]
fn special_values_are_read_into_plain_types() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Types {
        set: std::collections::BTreeSet<u8>,
        datetime: jiff::civil::DateTime,
        date: jiff::civil::Date,
        #[serde(rename = "Decimal")]
        decimal: String,
        #[serde(rename = "UUID")]
        uuid: uuid::Uuid,
        bytes: serde_bytes::ByteBuf,
        none: Option<u8>,
        float: f64,
        int: i8,
        list: (u8, char),
    }
    #[derive(Deserialize)]
    struct Special {
        set: Set<u8>,
        time: Time,
        #[serde(rename = "Decimal")]
        decimal: Decimal,
        #[serde(rename = "UUID")]
        uuid: Uuid,
    }
    let Some(folder) = vectors() else { return };
    for folder in [folder.clone(), folder.join("py27")] {
        let body = frames(&capture(&folder, "rep_types.json")["frames_hex"]).pop().unwrap();
        let types: Types = unpack(&body, "body").unwrap();
        let uuid: uuid::Uuid = "12345678-1234-5678-1234-567812345678".parse().unwrap();
        let wanted = Types {
            set: [1].into(),
            datetime: jiff::civil::datetime(2015, 3, 14, 9, 26, 53, 0),
            date: jiff::civil::date(2015, 3, 14),
            decimal: "1.50".into(),
            uuid,
            bytes: serde_bytes::ByteBuf::from([0, 255]),
            none: None,
            float: 1.5,
            int: -1,
            list: (1, 'a'),
        };
        assert_eq!(types, wanted);
        let special: Special = unpack(&body, "body").unwrap();
        assert_eq!((special.set, special.uuid), ([1].into(), Uuid(uuid)));
        assert_eq!(special.decimal.as_str(), "1.50");
        assert_eq!(special.time.to_string(), "09:26:53Z");
        let value: wire::Value = unpack(&body, "body").unwrap();
        assert_eq!(value.get("time").unwrap().to_string(), "time(09:26:53Z)");
        assert_eq!(value.get("set").unwrap().to_string(), "set(1)");
    }
}

#[test]
fn events_metrics_and_json_are_read() {
    let Some(folder) = vectors() else { return };
    let metrics = frames(&capture(&folder, "metrics_pub.json")["frames_hex"]);
    let value: wire::Value = unpack(&metrics[1], "metrics").unwrap();
    assert!(matches!(value.get("series"), Some(wire::Value::List(series)) if series.len() == 61));
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.starts_with("event_") || name == "event_emit_json.json" {
            continue;
        }
        let capture = capture(&folder, &name);
        let packed = &frames(&capture["frames_hex"])[0];
        let event = wire::Event::decode(packed).unwrap();
        assert_eq!(capture["decoded"]["type"], event.kind, "{name}");
        assert_eq!(capture["decoded"]["source"].as_str(), event.source.as_deref(), "{name}");
        let trace_id = &capture["decoded"]["headers"]["trace_id"];
        assert_eq!(trace_id.as_str(), event.trace_id(), "{name}");
        assert_eq!(event.encode().unwrap(), *packed, "{name}: ours are the same bytes");
    }
    let old = capture(&folder.join("py27"), "event_emit_cli.json");
    let old = wire::Event::decode(&frames(&old["frames_hex"])[0]).unwrap();
    assert_eq!(old.body.get("text").and_then(wire::Value::as_str), Some("foo"));
    let table = capture(&folder, "derived_json_serializer.json");
    for row in table["decoded"].as_array().unwrap() {
        let json: Value = serde_json::from_str(row["json"].as_str().unwrap()).unwrap();
        let value = wire::Value::from_json(&json).unwrap();
        assert_eq!(value.to_json(), json);
        let special = !row["python"].as_str().unwrap().starts_with(['[', '{']);
        assert!(!special || !matches!(value, wire::Value::Map(_)), "{value:?}");
    }
}

#[test]
fn versions_fit_as_in_lymph() {
    let Some(folder) = vectors() else { return };
    let table = capture(&folder, "derived_versions.json");
    let what = table["what"].as_str().unwrap();
    let listed = &what[what.find('[').unwrap()..=what.find(']').unwrap()];
    let registered: Vec<String> = serde_json::from_str(&listed.replace('\'', "\"")).unwrap();
    for row in table["decoded"].as_array().unwrap() {
        let asked = row["asked"].as_str().unwrap();
        let request = VersionRequest::parse(asked);
        if row.get("error").is_some() {
            assert!(request.is_err(), "{asked}");
            continue;
        }
        let request = request.unwrap();
        let mut found: Vec<&str> =
            registered.iter().filter(|one| request.admits(Some(one))).map(String::as_str).collect();
        let mut theirs: Vec<&str> =
            row["matches"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
        if asked == "2.0.0-alpha" {
            // lymph finds nothing for a pre-release, not even itself.
            theirs = vec!["2.0.0-alpha", "2.0.0", "2.1.0"];
        }
        found.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(found, theirs, "{asked}");
    }
}

#[test]
fn instances_are_written_down_as_in_lymph() {
    let Some(folder) = vectors() else { return };
    let table = capture(&folder, "derived_identity.json");
    let rows = table["decoded"].as_array().unwrap();
    let endpoints: Vec<(&str, &str)> = rows
        .iter()
        .filter_map(|row| Some((row["identity"].as_str()?, row["endpoint"].as_str()?)))
        .collect();
    let mut compared = 0;
    for row in rows {
        let identity = row["identity"].as_str().unwrap();
        let (_, endpoint) = *endpoints.iter().find(|(known, _)| *known == identity).unwrap();
        assert_eq!(identity, Instance::identity_of(endpoint));
        if let Some(name) = row["name"].as_str() {
            let ours = Instance::new(name, endpoint, row["version"].as_str());
            assert_eq!(row["id"], ours.id, "{name}");
            compared += 1;
        }
    }
    assert!(compared > 5);
    for name in ["zk_node_echo", "zk_node_job_worker", "zk_node_vecho"] {
        let data = frames(&capture(&folder, &format!("{name}.json"))["frames_hex"]).remove(0);
        let instance = Instance::from_json(&data).unwrap();
        let theirs: Value = serde_json::from_slice(&data).unwrap();
        let ours: Value = serde_json::from_slice(&instance.to_json()).unwrap();
        assert_eq!(ours, theirs, "{name}");
    }
}
