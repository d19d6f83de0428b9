//! The fields of a line that has some: a JSON object, or logfmt (`key=value key="two words"`).
//!
//! The walkers allocate nothing and stop where the line stops making sense; what was seen until then counts.

use memchr::{memchr2, memchr3};
use serde_json::{Map, Value};

/// Calls `see` with each key (as written between its quotes) and value (as written) of a JSON object, until it returns
/// something. A line that ends in the middle ends the walk.
pub fn json_members<'a, T>(
    line: &'a [u8],
    mut see: impl FnMut(&'a [u8], &'a [u8]) -> Option<T>,
) -> Option<T> {
    let mut at = space(line, 0);
    if line.get(at) != Some(&b'{') {
        return None;
    }
    at += 1;
    loop {
        at = space(line, at);
        if line.get(at) != Some(&b'"') {
            return None;
        }
        let key_end = string(line, at)?;
        let key = &line[at + 1..key_end - 1];
        at = space(line, key_end);
        if line.get(at) != Some(&b':') {
            return None;
        }
        at = space(line, at + 1);
        let end = value(line, at)?;
        if let Some(found) = see(key, &line[at..end]) {
            return Some(found);
        }
        at = space(line, end);
        if line.get(at) != Some(&b',') {
            return None;
        }
        at += 1;
    }
}

fn space(line: &[u8], at: usize) -> usize {
    at + line[at.min(line.len())..].iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// The end of the string that begins at `at` with its quote.
fn string(line: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        at += memchr2(b'"', b'\\', line.get(at..)?)?;
        if line[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The end of the value that begins at `at`.
fn value(line: &[u8], at: usize) -> Option<usize> {
    match line.get(at)? {
        b'"' => string(line, at),
        b'{' | b'[' => {
            let mut depth = 0_usize;
            let mut at = at;
            loop {
                match line.get(at)? {
                    b'"' => {
                        at = string(line, at)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return Some(at + 1);
                        }
                    }
                    _ => {}
                }
                at += 1;
            }
        }
        _ => {
            let end = memchr3(b',', b'}', b']', &line[at..])?;
            Some(at + line[at..at + end].trim_ascii_end().len())
        }
    }
}

/// Calls `see` with each key and value (in its quotes, where it has some) of a logfmt line, until it returns something.
/// What is no pair ends the walk; see [`is_logfmt`].
pub fn logfmt_pairs<'a, T>(
    line: &'a [u8],
    mut see: impl FnMut(&'a [u8], &'a [u8]) -> Option<T>,
) -> Option<T> {
    let mut at = space(line, 0);
    while let Some((key, value, end)) = logfmt_pair(line, at) {
        if let Some(found) = see(key, value) {
            return Some(found);
        }
        at = space(line, end);
    }
    None
}

/// The pair that begins at `at`, and where it ends.
fn logfmt_pair(line: &[u8], at: usize) -> Option<(&[u8], &[u8], usize)> {
    let equals = at + memchr3(b'=', b' ', b'"', line.get(at..)?)?;
    let key = &line[at..equals];
    if line[equals] != b'=' || !is_key(key) {
        return None;
    }
    let begin = equals + 1;
    let end = if line.get(begin) == Some(&b'"') {
        string(line, begin)?
    } else {
        let end = begin + memchr2(b' ', b'\t', &line[begin..]).unwrap_or(line.len() - begin);
        let value = &line[begin..end];
        // `==` and the like are no assignment, other bytes no text.
        if value.first() == Some(&b'=') || value.iter().any(u8::is_ascii_control) {
            return None;
        }
        end
    };
    // After a quote comes the next pair or nothing.
    line.get(end).is_none_or(|byte| matches!(byte, b' ' | b'\t')).then_some((
        key,
        &line[begin..end],
        end,
    ))
}

/// Whether a key may be one: a word that begins with a letter, as programs name things (`http.status`, `@t`, `trace-id`).
fn is_key(key: &[u8]) -> bool {
    let [first, rest @ ..] = key else { return false };
    (first.is_ascii_alphabetic() || matches!(first, b'_' | b'@'))
        && rest.iter().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'_' | b'.' | b'-' | b'/' | b'@' | b':' | b'[' | b']')
        })
}

/// Whether a line is logfmt: it begins with a key of loggers (then prose may follow), or is nothing but pairs, of which one has a value.
pub fn is_logfmt(line: &[u8]) -> bool {
    let (mut at, mut valued) = (space(line, 0), false);
    let mut first = true;
    while at < line.len() {
        let Some((key, value, end)) = logfmt_pair(line, at) else {
            return false;
        };
        if std::mem::take(&mut first) && is_loggers(key) {
            return true;
        }
        valued |= !value.is_empty();
        at = space(line, end);
    }
    valued
}

/// Keys that loggers put first.
fn is_loggers(key: &[u8]) -> bool {
    matches!(
        key,
        b"level"
            | b"lvl"
            | b"severity"
            | b"loglevel"
            | b"levelname"
            | b"time"
            | b"ts"
            | b"t"
            | b"timestamp"
            | b"datetime"
            | b"msg"
            | b"message"
            | b"caller"
            | b"logger"
    )
}

/// The field of this name in a line that is a JSON object or logfmt, names as [`find`] has them. Nothing else of the line is
/// taken apart, so that a gigabyte can be asked.
pub fn in_line(line: &[u8], name: &str) -> Option<Value> {
    let line = line.trim_ascii();
    if line.first() == Some(&b'{') {
        return in_json(line, name);
    }
    let wanted = |key: &[u8], value: &[u8]| (key == name.as_bytes()).then(|| logfmt_value(value));
    let found = logfmt_pairs(line, wanted).filter(|_| is_logfmt(line));
    found.or_else(|| tracing_pairs(line, wanted))
}

/// All fields of a line that is a JSON object, logfmt or a line of Rust's tracing; `None` where it has none.
pub fn all_in_line(line: &[u8]) -> Option<Map<String, Value>> {
    let line = line.trim_ascii();
    if line.first() == Some(&b'{') {
        return serde_json::from_slice(line).ok().filter(|fields: &Map<_, _>| !fields.is_empty());
    }
    let mut fields = Map::new();
    let mut put = |key: &[u8], value: &[u8]| {
        let key = String::from_utf8_lossy(key).into_owned();
        fields.entry(key).or_insert_with(|| logfmt_value(value));
        None::<()>
    };
    if is_logfmt(line) {
        logfmt_pairs(line, &mut put);
    }
    tracing_pairs(line, &mut put);
    (!fields.is_empty()).then_some(fields)
}

/// The same as [`logfmt_pairs`] for a line as Rust's tracing writes it: `TIME LEVEL span{key=value}: target: message key=value`; the
/// target is a pair, too.
fn tracing_pairs<'a, T>(
    line: &'a [u8],
    mut see: impl FnMut(&'a [u8], &'a [u8]) -> Option<T>,
) -> Option<T> {
    let (stamp, rest) = line.split_at(memchr::memchr(b' ', line)?);
    if !stamp.first()?.is_ascii_digit() || !stamp.ends_with(b"Z") || !stamp.contains(&b'T') {
        return None;
    }
    let rest = rest.trim_ascii_start();
    let (level, rest) = rest.split_at(memchr::memchr(b' ', rest)?);
    if !matches!(level, b"TRACE" | b"DEBUG" | b"INFO" | b"WARN" | b"ERROR") {
        return None;
    }
    let mut at = 0;
    let mut target = false;
    while let Some(byte) = rest.get(at) {
        if matches!(byte, b' ' | b'{' | b'}' | b':') {
            at += 1;
            continue;
        }
        let word = &rest[at..];
        let end = word.iter().position(|byte| matches!(byte, b' ' | b'=' | b'{' | b'}' | b'"'));
        let end = end.unwrap_or(word.len());
        let key = &word[..end];
        if word.get(end) != Some(&b'=') || end == 0 {
            if !target && word.get(end) == Some(&b' ') && key.ends_with(b":") {
                target = true;
                if let Some(found) = see(b"target", &key[..end - 1]) {
                    return Some(found);
                }
            }
            at += end.max(1);
            continue;
        }
        let begins = at + end + 1;
        let ends = if rest.get(begins) == Some(&b'"') {
            string(rest, begins)?
        } else {
            let value = &rest[begins..];
            begins
                + value.iter().position(|byte| matches!(byte, b' ' | b'}')).unwrap_or(value.len())
        };
        if is_key(key)
            && let Some(found) = see(key, &rest[begins..ends])
        {
            return Some(found);
        }
        at = ends;
    }
    None
}

fn in_json(line: &[u8], name: &str) -> Option<Value> {
    json_members(line, |key, value| {
        let key = std::str::from_utf8(key).ok()?;
        if key == name {
            return serde_json::from_slice(value).ok();
        }
        in_json(value, name.strip_prefix(key)?.strip_prefix('.')?)
    })
}

/// A value as its type: a number or truth value where it is not quoted and reads as one.
fn logfmt_value(value: &[u8]) -> Value {
    if value.first() == Some(&b'"') {
        return serde_json::from_slice(value).unwrap_or_else(|_| {
            Value::String(String::from_utf8_lossy(&value[1..value.len().max(2) - 1]).into_owned())
        });
    }
    let text = String::from_utf8_lossy(value);
    match serde_json::from_str(&text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
        _ => Value::String(text.into_owned()),
    }
}

/// The field of this name: as a whole, or the dots as a path into objects (`http.status`).
pub fn find<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = fields.get(name) {
        return Some(value);
    }
    name.match_indices('.').find_map(|(dot, _)| {
        let inner = fields.get(&name[..dot])?.as_object()?;
        find(inner, &name[dot + 1..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn json_lines_and_logfmt_have_fields() {
        let json = r#" {"a": 1, "b": {"c": "d", "e.f": 4}, "b.c": 2, "x": null} "#;
        let field = |name| in_line(json.as_bytes(), name);
        assert_eq!(field("a"), Some(json!(1)));
        assert_eq!(field("b.c"), Some(json!("d")), "the first in the line");
        assert_eq!(
            (field("b.e.f"), field("b")),
            (Some(json!(4)), Some(json!({"c": "d", "e.f": 4})))
        );
        assert_eq!(
            (field("x"), field("c"), field(""), field("b.")),
            (Some(Value::Null), None, None, None)
        );
        let logfmt = br#"status=500 path=/api/x msg="two \"words\"" ok=true took=1.5ms none="#;
        let field = |name| in_line(logfmt, name);
        assert_eq!((field("status"), field("ok")), (Some(json!(500)), Some(json!(true))));
        assert_eq!(field("path"), Some(json!("/api/x")));
        assert_eq!(field("msg"), Some(json!("two \"words\"")));
        assert_eq!((field("took"), field("none")), (Some(json!("1.5ms")), Some(json!(""))));
        assert_eq!(in_line(b"a plain line with x=y in it", "x"), None);
        let tracing = br#"2026-11-24T12:00:00.123456Z  INFO request{id=7 path="/a b"}: shop::cart: not paid yet status=501 why="no money" ok=false"#;
        let field = |name| in_line(tracing, name);
        assert_eq!((field("status"), field("id")), (Some(json!(501)), Some(json!(7))));
        assert_eq!((field("path"), field("why")), (Some(json!("/a b")), Some(json!("no money"))));
        assert_eq!((field("ok"), field("target")), (Some(json!(false)), Some(json!("shop::cart"))));
        assert_eq!(field("request"), None);
        assert_eq!(in_line(b"2026-11-24T12:00:00Z paid status=501", "status"), None);
        let all = |line: &str| all_in_line(line.as_bytes()).map(Value::Object);
        assert_eq!(all(r#"{"a": {"b": 1}}"#), Some(json!({"a": {"b": 1}})));
        assert_eq!(all("a=1 b=\"x y\""), Some(json!({"a": 1, "b": "x y"})));
        assert_eq!((all("plain"), all("{}"), all("[1]"), all("")), (None, None, None, None));
        assert_eq!(in_line(b"{not json}", "not"), None);
        assert_eq!(in_line(b"[1, 2]", "1"), None);
    }

    #[test]
    fn prose_and_bytes_have_no_fields() {
        let prose: &[&[u8]] = &[
            b"a=b is the value",
            b"the value a=b is",
            b"x = 3 and y = 4",
            b"PATH=/bin make all",
            b"c29tZSB0ZXh0IQ==",
            b"c29tZSB0ZXh0ISE=",
            b"--port=80 --host=x",
            b"==== begin ====",
            b"a==b",
            b"1=2",
            b"if(a=b) c",
            b"<a href=\"x\">text</a>",
            b"a=\"b\"c",
            b"key=",
            b"\x00\x01k=v\xff",
            b"k\xff=v",
            b"k=v\x07",
            b"\xc3\xa4=1",
        ];
        for line in prose {
            let text = String::from_utf8_lossy(line);
            assert_eq!(all_in_line(line), None, "{text:?}");
            for key in ["a", "k", "b", "x", "href", "PATH", "c29tZSB0ZXh0IQ", "1"] {
                assert_eq!(in_line(line, key), None, "{key} in {text:?}");
            }
        }
        let all = |line: &str| all_in_line(line.as_bytes()).map(Value::Object);
        assert_eq!(
            all("level=info it runs a=b"),
            Some(json!({"level": "info"})),
            "a logger's key is first"
        );
        assert_eq!(all("msg=hello to all"), Some(json!({"msg": "hello"})));
        let pairs = json!({"http.status": 200, "url": "/x?a=b", "trace-id": "t", "who": "Zo\u{eb}", "none": ""});
        assert_eq!(all("http.status=200 url=/x?a=b\ttrace-id=t who=Zo\u{eb} none="), Some(pairs));
    }

    #[test]
    fn a_dotted_name_is_a_path_or_a_key() {
        let fields = json!({"a.b": 1, "a": {"b": 2, "c": {"d": 3}, "e.f": 4}});
        let found = |name| find(fields.as_object().unwrap(), name).cloned();
        assert_eq!(found("a.b"), Some(json!(1)));
        assert_eq!(found("a.c.d"), Some(json!(3)));
        assert_eq!(found("a.e.f"), Some(json!(4)));
        assert_eq!((found("a.x"), found("")), (None, None));
    }

    fn members(line: &str) -> Vec<(String, String)> {
        let mut all = Vec::new();
        json_members(line.as_bytes(), |key, value| {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            all.push((text(key), text(value)));
            None::<()>
        });
        all
    }

    #[test]
    fn the_walker_sees_members_of_the_outermost_object_only() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            members(r#"{"a" : "x\"}" , "b":[{"c":1},"]"],"d":{"e":{}} ,"f":-1.5 }"#),
            [
                pair("a", r#""x\"}""#),
                pair("b", r#"[{"c":1},"]"]"#),
                pair("d", r#"{"e":{}}"#),
                pair("f", "-1.5")
            ]
        );
        assert_eq!(members(r#"{"a":1,"b":"cut of"#), [pair("a", "1")]);
    }

    proptest! {
        #[test]
        fn the_walker_agrees_with_serde(map in proptest::collection::hash_map("[a-z\"\\\\é]{0,4}", any::<(i64, String)>(), 0..6)) {
            let value = json!(map);
            let seen = members(&value.to_string());
            prop_assert_eq!(seen.len(), map.len());
            for (key, text) in seen {
                let key: String = serde_json::from_str(&format!("\"{key}\"")).unwrap();
                prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value[&key].clone());
            }
        }

        #[test]
        fn a_line_of_logfmt_has_all_its_fields_and_with_a_word_behind_it_none(
            map in proptest::collection::btree_map("[a-z][a-z0-9_.]{0,5}x", "[a-zA-Z0-9/\u{e9}]{1,6}", 1..5), word in "[a-z\\x00-\\x1f\u{80}-\u{90}]{1,5}",
        ) {
            let line = map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ");
            let keys = |line: &str| all_in_line(line.as_bytes()).map(|map| map.len());
            prop_assert_eq!(keys(&line), Some(map.len()));
            prop_assert!(map.keys().all(|key| in_line(line.as_bytes(), key).is_some()));
            let prose = format!("{line} .{word}");
            prop_assert_eq!(keys(&prose), None);
            prop_assert!(map.keys().all(|key| in_line(prose.as_bytes(), key).is_none()));
        }

        #[test]
        fn no_bytes_break_the_walkers(bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), Just(b'"'), Just(b'{'), Just(b'\\'), Just(b'='), Just(b':'), Just(b','), Just(b'}')], 0..60))
        {
            in_line(&bytes, "a.b");
            is_logfmt(&bytes);
            all_in_line(&bytes);
            json_members(&bytes, |_, _| None::<()>);
            json_members(&[b"{\"a\":".as_slice(), &bytes].concat(), |_, _| None::<()>);
        }
    }
}
