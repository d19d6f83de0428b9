//! Values from JSON, so that nothing of it is lost or guessed: what cannot be sent exactly as it was written is an error.
//!
//! The forms are those of `render`, which writes them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value as Json};

use super::Value;
use super::de::{CONTENT_KEY, TYPE_KEY};
use super::types::{Date, DateTime, Decimal, Time, Undefined, Uuid};

/// What may stand under `__type__`.
const SPECIAL: [&str; 11] = [
    "set",
    DateTime::NAME,
    Date::NAME,
    Time::NAME,
    Decimal::NAME,
    Uuid::NAME,
    Undefined::NAME,
    "bytes",
    "float",
    "map",
    "ext",
];

/// Why JSON is no value that can be sent.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It is no JSON, or a key of an object stands twice.
    #[error("{}", syntax(.0))]
    Syntax(#[from] serde_json::Error),
    /// MessagePack's whole numbers have 64 bits.
    #[error(
        "`{number}` (line {line} column {column}) is beyond 64 bits and would be rounded; send it as `{{\"__type__\": \"Decimal\", \"_\": \"{number}\"}}` or as text"
    )]
    TooLarge {
        /// As it was written.
        number: String,
        /// From 1.
        line: usize,
        /// From 1, in bytes.
        column: usize,
    },
    /// A special value that is none.
    #[error("{place}{}{problem}", if .place.is_empty() { "" } else { ": " })]
    Special {
        /// Where: `items[2].when`; empty at the top.
        place: String,
        /// What is wrong, and what would do.
        problem: String,
    },
}

/// A doubled key is JSON by its grammar.
fn syntax(error: &serde_json::Error) -> String {
    if error.is_data() { error.to_string() } else { format!("not JSON: {error}") }
}

impl JsonError {
    /// A special value that is none, for this reason.
    pub fn special(problem: impl Into<String>) -> Self {
        Self::Special { place: String::new(), problem: problem.into() }
    }

    /// The same, seen from one level further out.
    #[must_use]
    pub fn within(self, step: impl fmt::Display) -> Self {
        match self {
            Self::Special { place, problem } => {
                let dot = if place.is_empty() || place.starts_with('[') { "" } else { "." };
                Self::Special { place: format!("{step}{dot}{place}"), problem }
            }
            other => other,
        }
    }
}

impl Value {
    /// Reads a text of JSON, with lymph's special values and what [`Value::to_json`] adds to them.
    ///
    /// # Errors
    /// Where something could not be sent as it was written: an unknown or broken `__type__`, a whole number beyond 64 bits, a doubled key,
    /// and what [`Value::sendable`] refuses.
    pub fn parse_json(text: &str) -> Result<Self, JsonError> {
        let Exact(json) = serde_json::from_str(text)?;
        match too_large(text) {
            Some(error) => Err(error),
            None => Self::from_json(&json)?.sendable(),
        }
    }

    /// The value, unless a map in it has a key twice.
    ///
    /// # Errors
    /// Where that is.
    pub fn with_each_key_once(self) -> Result<Self, JsonError> {
        doubled(&self).map_or(Ok(self), Err)
    }

    /// The same of JSON that was read already; what came over the wire with a key twice is written and read as it came.
    ///
    /// # Errors
    /// An unknown or broken `__type__`.
    pub fn from_json(json: &Json) -> Result<Self, JsonError> {
        match json {
            Json::Null => Ok(Self::Nil),
            Json::Bool(value) => Ok(Self::Bool(*value)),
            Json::Number(number) => Ok(of_number(number)),
            Json::String(text) => Ok(Self::Str(text.clone())),
            Json::Array(members) => list(members).map(Self::List),
            Json::Object(entries) if entries.contains_key(TYPE_KEY) => special(entries),
            Json::Object(entries) => {
                let entry = |(key, value): (&String, &Json)| {
                    let value = Self::from_json(value).map_err(|error| error.within(key))?;
                    Ok((Self::Str(key.clone()), value))
                };
                entries.iter().map(entry).collect::<Result<_, _>>().map(Self::Map)
            }
        }
    }
}

fn of_number(number: &Number) -> Value {
    match (number.as_i64(), number.as_u64()) {
        (Some(value), _) => Value::Int(value),
        (None, Some(value)) => Value::UInt(value),
        (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
    }
}

fn list(members: &[Json]) -> Result<Vec<Value>, JsonError> {
    let member = |(at, member)| {
        Value::from_json(member).map_err(|error| error.within(format_args!("[{at}]")))
    };
    members.iter().enumerate().map(member).collect()
}

/// `{"__type__": NAME, "_": CONTENT}`.
fn special(entries: &Map<String, Json>) -> Result<Value, JsonError> {
    let (name, content) = match (entries.get(TYPE_KEY), entries.get(CONTENT_KEY)) {
        (Some(Json::String(name)), Some(content)) if entries.len() == 2 => (name, content),
        _ => {
            return Err(JsonError::special(
                "an object with `__type__` has its name there, its content in `_`, and nothing else",
            ));
        }
    };
    if !SPECIAL.contains(&name.as_str()) {
        let known = SPECIAL.join("`, `");
        return Err(JsonError::special(format!(
            "`__type__` is `{name}`, which nobody knows; there is `{known}`"
        )));
    }
    let value = match (name.as_str(), content) {
        ("set", Json::Array(members)) => Some(Value::Set(list(members)?)),
        ("map", Json::Array(pairs)) => map(pairs)?,
        ("ext", Json::Array(parts)) => ext(parts),
        ("bytes", Json::String(text)) => unhex(text).map(Value::Bytes),
        ("float", Json::String(text)) => text.parse().ok().map(Value::Float),
        (_, Json::String(text)) => Value::special(name, text),
        _ => None,
    };
    value.ok_or_else(|| JsonError::special(format!("`{content}` is no `{name}`: {}", form(name))))
}

/// How the content of a special value is written.
fn form(name: &str) -> &'static str {
    match name {
        "set" => "write its members, `[1, 2]`",
        "map" => "write its entries, `[[KEY, VALUE], …]`",
        "ext" => "write its number and its bytes, `[7, \"00ff\"]`",
        "bytes" => "write hexadecimal digits, `\"00ff\"`",
        "float" => "write `\"NaN\"`, `\"inf\"` or `\"-inf\"`",
        DateTime::NAME => {
            "write `\"2015-03-14T09:26:53\"`, with an offset in whole minutes (`+0530`, `Z`) where there is one"
        }
        Date::NAME => "write `\"2015-03-14\"`",
        Time::NAME => {
            "write `\"09:26:53Z\"`; it has no parts of a second, which no other service could read"
        }
        Decimal::NAME => "write `\"1.50\"`",
        Uuid::NAME => "write its 36 characters, `\"8d5b7bbe-9bd8-4c4b-a2e3-6a7c8d1f0e55\"`",
        _ => "write `\"\"`",
    }
}

fn map(pairs: &[Json]) -> Result<Option<Value>, JsonError> {
    let mut entries = Vec::with_capacity(pairs.len());
    for (at, pair) in pairs.iter().enumerate() {
        let Some([key, value]) = pair.as_array().map(Vec::as_slice) else { return Ok(None) };
        let part =
            |part| Value::from_json(part).map_err(|error| error.within(format_args!("_[{at}]")));
        entries.push((part(key)?, part(value)?));
    }
    Ok(Some(Value::Map(entries)))
}

/// The first key in a value that stands twice.
fn doubled(value: &Value) -> Option<JsonError> {
    match value {
        Value::List(members) | Value::Set(members) => {
            let mut all = members.iter().enumerate();
            all.find_map(|(at, one)| Some(doubled(one)?.within(format_args!("[{at}]"))))
        }
        Value::Map(entries) => {
            let mut keys = HashSet::with_capacity(entries.len());
            entries.iter().find_map(|(key, value)| {
                let name = name_of(key);
                let text = match key {
                    Value::Str(text) => Cow::Borrowed(text.as_str()),
                    // Values have no hash, and none of these is written as a text is.
                    other => Cow::Owned(other.to_json().to_string()),
                };
                if !keys.insert((key.as_str().is_some(), text)) {
                    return Some(JsonError::special(format!("the key `{name}` stands twice")));
                }
                doubled(value).or_else(|| doubled(key)).map(|error| error.within(name))
            })
        }
        _ => None,
    }
}

/// A key as it is shown in a place.
pub(super) fn name_of(key: &Value) -> String {
    match key {
        Value::Str(text) => text.clone(),
        other => other.to_string(),
    }
}

fn ext(parts: &[Json]) -> Option<Value> {
    let [kind, bytes] = parts else { return None };
    Some(Value::Ext(i8::try_from(kind.as_i64()?).ok()?, unhex(bytes.as_str()?)?))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// The first whole number in well-formed JSON that has no 64 bits; `serde_json` would make a float of it.
fn too_large(text: &str) -> Option<JsonError> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while bytes.get(at).is_some_and(|byte| *byte != b'"') {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let begun = at;
                let of_number = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                at += bytes[at..].iter().take_while(|byte| of_number(byte)).count();
                let number = &text[begun..at];
                let is_whole = !number.contains(['.', 'e', 'E']);
                if is_whole && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    let before = &text[..begun];
                    return Some(JsonError::TooLarge {
                        number: number.to_owned(),
                        line: before.matches('\n').count() + 1,
                        column: begun - before.rfind('\n').map_or(0, |end| end + 1) + 1,
                    });
                }
            }
            _ => at += 1,
        }
    }
    None
}

/// JSON in which no key of an object stands twice; `serde_json` alone keeps the last.
struct Exact(Json);

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyJson).map(Self)
    }
}

struct AnyJson;

impl<'de> Visitor<'de> for AnyJson {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(Exact(member)) = seq.next_element()? {
            members.push(member);
        }
        Ok(Json::Array(members))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut entries = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if entries.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key `{key}` stands twice")));
            }
            let Exact(value) = map.next_value()?;
            entries.insert(key, value);
        }
        Ok(Json::Object(entries))
    }
}
