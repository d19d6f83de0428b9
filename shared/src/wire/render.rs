//! A value for people, and as JSON without loss.
//!
//! | value | for people | JSON |
//! |---|---|---|
//! | text, number, yes/no, nil | as JSON has it | the same |
//! | `set` | `set(1, 2)` | `{"__type__": "set", "_": [1, 2]}`, as lymph writes it; so the other special values |
//! | bytes | `bytes(00ff)` | `{"__type__": "bytes", "_": "00ff"}` |
//! | a map whose keys are not all text | `{1: "a"}` | `{"__type__": "map", "_": [[1, "a"]]}` |
//! | not a finite number | `NaN`, `inf` | `{"__type__": "float", "_": "NaN"}` |
//! | unknown extension | `ext(7, 00ff)` | `{"__type__": "ext", "_": [7, "00ff"]}` |

use std::fmt::{self, Write};

use serde_json::{Map, Number, json};

use super::Value;
use super::de::{CONTENT_KEY, TYPE_KEY};

/// A value that fits in so many columns stays on one line.
const WIDTH: usize = 80;

impl fmt::Display for Value {
    /// On one line; `{:#}` breaks what is long over several.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        write_value(&mut text, self, f.alternate().then_some(0));
        f.write_str(&text)
    }
}

/// Writes a value; `indent`: the depth at which it stands, where long ones may be broken.
fn write_value(out: &mut String, value: &Value, indent: Option<usize>) {
    if let Some(depth) = indent {
        let mut line = String::new();
        write_value(&mut line, value, None);
        if line.chars().count() + 2 * depth <= WIDTH {
            out.push_str(&line);
            return;
        }
    }
    match value {
        Value::Nil => out.push_str("null"),
        Value::Bool(value) => write(out, value),
        Value::Int(value) => write(out, value),
        Value::UInt(value) => write(out, value),
        Value::Float(value) => {
            let _ = write!(out, "{value:?}"); // a String takes anything
        }
        Value::Str(text) => quote(out, text),
        Value::Bytes(bytes) => {
            out.push_str("bytes(");
            out.push_str(&hex(bytes));
            out.push(')');
        }
        Value::List(members) => group(out, ["[", "]"], members, indent, write_value),
        Value::Set(members) => group(out, ["set(", ")"], members, indent, write_value),
        Value::Map(entries) => {
            group(out, ["{", "}"], entries, indent, |out, (key, value), indent| {
                write_value(out, key, None);
                out.push_str(": ");
                write_value(out, value, indent);
            });
        }
        Value::DateTime(value) => named(out, "datetime", value),
        Value::Date(value) => named(out, "date", value),
        Value::Time(value) => named(out, "time", value),
        Value::Decimal(value) => named(out, "Decimal", value),
        Value::Uuid(value) => named(out, "UUID", value),
        Value::Undefined => out.push_str("Undefined"),
        Value::Ext(kind, bytes) => {
            let _ = write!(out, "ext({kind}, {})", hex(bytes)); // a String takes anything
        }
    }
}

fn write(out: &mut String, value: impl fmt::Display) {
    let _ = write!(out, "{value}"); // a String takes anything
}

fn named(out: &mut String, name: &str, value: impl fmt::Display) {
    let _ = write!(out, "{name}({value})"); // a String takes anything
}

fn quote(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

fn group<T>(
    out: &mut String,
    [open, close]: [&str; 2],
    members: &[T],
    indent: Option<usize>,
    mut each: impl FnMut(&mut String, &T, Option<usize>),
) {
    out.push_str(open);
    let inner = indent.filter(|_| !members.is_empty()).map(|depth| depth + 1);
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    for (at, member) in members.iter().enumerate() {
        match inner {
            Some(depth) => line(out, depth),
            None if at > 0 => out.push(' '),
            None => {}
        }
        each(out, member, inner);
        if at + 1 < members.len() {
            out.push(',');
        }
    }
    if let Some(depth) = inner {
        line(out, depth - 1);
    }
    out.push_str(close);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes anything
        text
    })
}

fn tagged(name: &str, content: serde_json::Value) -> serde_json::Value {
    json!({TYPE_KEY: name, CONTENT_KEY: content})
}

impl Value {
    /// JSON from which [`Value::from_json`] makes the same value again.
    pub fn to_json(&self) -> serde_json::Value {
        let list = |members: &[Self]| members.iter().map(Self::to_json).collect::<Vec<_>>();
        match self {
            Self::Nil => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::UInt(value) => (*value).into(),
            Self::Float(value) => match Number::from_f64(*value) {
                Some(number) => number.into(),
                None => tagged("float", value.to_string().into()),
            },
            Self::Str(text) => text.as_str().into(),
            Self::Bytes(bytes) => tagged("bytes", hex(bytes).into()),
            Self::List(members) => list(members).into(),
            Self::Set(members) => tagged("set", list(members).into()),
            Self::Map(entries) => object(entries).unwrap_or_else(|| {
                let pairs =
                    entries.iter().map(|(key, value)| json!([key.to_json(), value.to_json()]));
                tagged("map", pairs.collect::<Vec<_>>().into())
            }),
            Self::DateTime(value) => tagged("datetime", value.to_string().into()),
            Self::Date(value) => tagged("date", value.to_string().into()),
            Self::Time(value) => tagged("time", value.to_string().into()),
            Self::Decimal(value) => tagged("Decimal", value.to_string().into()),
            Self::Uuid(value) => tagged("UUID", value.to_string().into()),
            Self::Undefined => tagged("UndefinedType", "".into()),
            Self::Ext(kind, bytes) => tagged("ext", json!([kind, hex(bytes)])),
        }
    }
}

/// A map as an object, where that says all: every key a text, none twice, none that means a special value.
fn object(entries: &[(Value, Value)]) -> Option<serde_json::Value> {
    let mut object = Map::new();
    for (key, value) in entries {
        let Value::Str(key) = key else { return None };
        if key == TYPE_KEY || object.insert(key.clone(), value.to_json()).is_some() {
            return None;
        }
    }
    Some(object.into())
}
