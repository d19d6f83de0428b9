//! Any bytes have a level or none. Where a line is JSON, the level under a key is what a real parser finds there; a question
//! is read or refused, and one that is read can be asked of any line.
#![no_main]

use hilum_node::log::expr::Expr;
use hilum_node::log::level::{Levels, auto, word};
use hilum_node::log::query::Entry;
use hilum_shared::config::spec::LevelFrom;
use serde_json::{Map, Value};

libfuzzer_sys::fuzz_target!(|line: &[u8]| {
    let found = auto(line);
    assert_eq!(word(line), word(&line.to_ascii_uppercase()), "case says nothing");
    let under = Levels::new(&LevelFrom::Json("kind".into())).of_line(line);
    if let Ok(map) = serde_json::from_slice::<Map<String, Value>>(line)
        && line.iter().filter(|byte| **byte == b'\\').count() == 0
        && memchr::memmem::find_iter(line, "\"kind\"").count() == 1
        && let Some(Value::String(text)) = map.get("kind")
    {
        assert_eq!(under, word(text.as_bytes()), "{found:?}");
    }
    let Ok(text) = std::str::from_utf8(line) else { return };
    let Ok(question) = Expr::parse(text) else { return };
    let entry = Entry { text: line.to_vec(), ..Entry::default() };
    let _ = question.matches(&entry, line);
    assert_eq!(question.matches(&entry, b"{\"status\":500}"), question.matches(&entry, b"{ \"status\" : 500 }"));
});
