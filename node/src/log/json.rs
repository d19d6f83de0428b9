//! Records as programs see them: the objects of `logs --json`.

use hilum_shared::name::Run;
use hilum_shared::protocol::Level;
use serde_json::{Map, Value, json};

use super::account::Why;
use super::fields;
use super::line::uncolored;
use super::query::Entry;
use super::record::{Flags, NODE_NAME, Stream};

/// A record as `logs --json` prints it.
pub fn to_json(entry: &Entry) -> Map<String, Value> {
    let mut map = Map::new();
    let line = String::from_utf8_lossy(&entry.text);
    map.insert("seq".into(), json!(entry.seq));
    map.insert("at".into(), json!(entry.at as f64 / 1e6));
    map.insert("service".into(), json!(entry.service.as_deref()));
    map.insert("instance".into(), json!(entry.instance.as_deref()));
    map.insert("run".into(), json!(entry.run));
    map.insert("pid".into(), json!(entry.pid));
    map.insert("stream".into(), json!(entry.stream.map(Stream::as_str)));
    map.insert("level".into(), json!(entry.level));
    map.insert("line".into(), json!(line));
    map.insert("partial".into(), json!(entry.is_partial()));
    if std::str::from_utf8(&entry.text).is_err() {
        map.insert("raw_base64".into(), json!(base64(&entry.text)));
    }
    // Those that `--where` knows.
    let plain = matches!(entry.stream, Some(Stream::Out | Stream::Err));
    let own = (plain && entry.dropped.is_none())
        .then(|| fields::all_in_line(&uncolored(&entry.text)))
        .flatten();
    map.insert("fields".into(), json!(entry.fields.as_ref().or(own.as_ref())));
    if let Some(dropped) = entry.dropped {
        map.insert("dropped".into(), json!(dropped));
        map.insert("why".into(), json!(Why::of_gap(&entry.text).word()));
    }
    if entry.flags.has(Flags::LATE) {
        map.insert("late".into(), json!(true));
    }
    map
}

/// A record from what [`to_json`] made of it, as far as it can be shown.
pub fn from_json(map: &Map<String, Value>) -> Entry {
    let text = |key: &str| map.get(key).and_then(Value::as_str);
    let number = |key: &str| map.get(key).and_then(Value::as_u64);
    let name = text("instance").or_else(|| text("service")).unwrap_or(NODE_NAME);
    let partial = map.get("partial").and_then(Value::as_bool).unwrap_or(false);
    Entry {
        seq: number("seq").unwrap_or_default(),
        at: (map.get("at").and_then(Value::as_f64).unwrap_or_default() * 1e6) as u64,
        name: name.into(),
        service: text("service").map(Into::into),
        instance: text("instance").map(Into::into),
        run: number("run").and_then(|run| run.try_into().ok()).map(Run),
        pid: number("pid").and_then(|pid| pid.try_into().ok()),
        stream: text("stream").and_then(Stream::parse),
        level: text("level").and_then(Level::parse),
        text: text("line").unwrap_or_default().into(),
        flags: if partial { Flags::PARTIAL } else { Flags::NONE },
        dropped: number("dropped"),
        fields: map.get("fields").and_then(Value::as_object).cloned(),
    }
}

/// RFC 4648 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            if place <= group.len() {
                out.push(char::from(DIGITS[(bits >> (18 - 6 * place) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A line of a service, for tests of what shows it.
    pub(in crate::log) fn entry(text: &[u8]) -> Entry {
        Entry {
            seq: 7,
            at: 1_795_232_531_123_456,
            name: "echo.3".into(),
            service: Some("echo".into()),
            instance: Some("echo.3".into()),
            run: Some(Run(2)),
            pid: Some(9),
            stream: Some(Stream::Out),
            text: text.to_vec(),
            ..Entry::default()
        }
    }

    #[test]
    fn json_has_the_keys_of_the_contract() {
        let map = to_json(&entry(b"hi"));
        assert_eq!(
            Value::Object(map).to_string(),
            r#"{"seq":7,"at":1795232531.123456,"service":"echo","instance":"echo.3","run":2,"pid":9,"stream":"out","level":null,"line":"hi","partial":false,"fields":null}"#
        );
        let broken = to_json(&entry(b"\xffab"));
        assert_eq!(broken["raw_base64"], "/2Fi");
        assert_eq!(broken["line"], "\u{fffd}ab");
        assert_eq!(to_json(&entry(br#"{"status":500,"a":{"b":1}}"#))["fields"]["a"]["b"], 1);
        assert_eq!(to_json(&entry(b"status=500 ok=true"))["fields"]["status"], 500);
        let mut gap = entry("… 12 lines dropped (rate limit)".as_bytes());
        gap.dropped = Some(12);
        let gap = to_json(&gap);
        assert_eq!((&gap["dropped"], &gap["why"]), (&json!(12), &json!("rate")));
        assert_eq!(base64(b"a"), "YQ==");
        assert_eq!(base64(b"ab"), "YWI=");
    }
}
