//! The JSON Schema of the file, for editors, made of the table of keys.
//!
//! It describes what is written, so every value may also be a text with `$(…)`.

use serde_json::{Map, Value, json};

use super::keys::top::TOP;
use super::keys::{Key, Type};
use crate::units;

/// The schema (draft 7, which editors understand best).
pub fn schema() -> Value {
    let mut definitions = Map::new();
    definitions.insert("service".to_owned(), object(super::keys::service::SERVICE));
    let mut root = object(TOP);
    if let Value::Object(root) = &mut root {
        root.remove("pattern");
        root.insert("type".to_owned(), json!("object"));
        root.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
        root.insert("title".to_owned(), json!("hilum configuration"));
        root.insert("definitions".to_owned(), Value::Object(definitions));
    }
    root
}

/// A reference that is replaced when the file is read, or filled in at each start.
const REFERENCE: &str = r"\$\(";

/// What [`units::parse_duration`] takes, or a reference.
fn duration() -> String {
    let names: Vec<&str> = units::TIME_UNITS.iter().map(|(name, _)| *name).collect();
    format!(r"^\s*([0-9.]+|([0-9.]+({})\s*)+)\s*$|{REFERENCE}", names.join("|"))
}

/// What [`units::parse_size`] takes, or a reference.
fn size() -> String {
    let names: Vec<String> = units::SIZE_UNITS.iter().map(|(name, _)| either_case(name)).collect();
    format!(r"^\s*[0-9.]+\s*({})\s*$|{REFERENCE}", names.join("|"))
}

/// The names of [`Signal`](crate::signal::Signal) in either case, with or without `SIG`, or a number; or a reference.
fn signal() -> String {
    let names: Vec<String> = crate::signal::names().map(either_case).collect();
    let number = "0*([1-9]|[1-5][0-9]|6[0-4])";
    let real_time = format!("{}([+]0*([0-9]|[12][0-9]|30))?", either_case("RTMIN"));
    let sig = either_case("SIG");
    format!(r"^\s*({sig})?({}|{real_time}|[+]?{number})\s*$|{REFERENCE}", names.join("|"))
}

/// A share as a text, from 0% to 100%, or a reference.
fn share() -> String {
    let percent = r"0*100([.]0*)?|0*[0-9]{1,2}([.][0-9]*)?|[.][0-9]+|[0-9.]+[eE][+-]?[0-9]+";
    format!(r"^\s*[+]?({percent})\s*%\s*$|{REFERENCE}")
}

/// A name of a service, or a key of the user's own.
fn name() -> String {
    format!("^(x-.*|[A-Za-z0-9_-]{{1,{}}})$", crate::name::MAX_NAME)
}

/// Patterns of a schema know no "either case".
fn either_case(text: &str) -> String {
    let either = |c: char| {
        let (upper, lower) = (c.to_ascii_uppercase(), c.to_ascii_lowercase());
        if upper == lower { c.to_string() } else { format!("[{upper}{lower}]") }
    };
    text.chars().map(either).collect()
}

/// A map with these keys. None of them is required: a file may lie over another, or over `defaults`.
fn object(keys: &'static [Key]) -> Value {
    let mut properties = Map::new();
    for key in keys.iter().filter(|key| !key.refused) {
        let mut value = match key.name {
            // Both hold the same keys; `defaults` may lack the required ones, so may an instance that has defaults.
            "defaults" => json!({"$ref": "#/definitions/service"}),
            "instances" => named(json!({"$ref": "#/definitions/service"})),
            _ => or_nothing(of(&key.ty)),
        };
        if let Value::Object(value) = &mut value {
            if value.contains_key("$ref") {
                *value = Map::from_iter([("allOf".to_owned(), json!([value.clone()]))]);
            }
            value.insert("description".to_owned(), json!(key.doc));
            if let Some(default) = key.default.and_then(default) {
                value.insert("default".to_owned(), default);
            }
        }
        properties.insert(key.name.to_owned(), value);
    }
    let mut out = json!({
        "type": ["object", "null"],
        "properties": properties,
        "patternProperties": {"^x-": {}},
        "additionalProperties": false,
    });
    let kinds = super::keys::service::SCHEDULE_KINDS;
    if kinds.iter().all(|kind| super::keys::find(keys, kind).is_some()) {
        out["oneOf"] = at_most_one(kinds);
    }
    or_reference(out)
}

/// Of these keys one or none: the kind may come from another file.
fn at_most_one(kinds: &[&str]) -> Value {
    let given = kinds.iter().map(|kind| json!({"type": "object", "required": [kind]}));
    let mut ways: Vec<Value> = given.collect();
    ways.push(json!({"not": {"anyOf": ways.clone()}}));
    json!(ways)
}

/// A map from names to these.
fn named(value: Value) -> Value {
    or_reference(or_nothing(json!({
        "type": "object",
        "propertyNames": {"pattern": name()},
        "patternProperties": {"^x-": {}},
        "additionalProperties": value,
    })))
}

/// A default of the table as JSON.
fn default(text: &str) -> Option<Value> {
    serde_yaml::from_str::<serde_yaml::Value>(text)
        .ok()
        .and_then(|value| serde_json::to_value(value).ok())
}

fn any_of(types: Vec<Value>) -> Value {
    json!({"anyOf": types})
}

/// Whatever it is, a variable may stand for it.
fn or_reference(value: Value) -> Value {
    or(value, "string", Some(REFERENCE))
}

/// A key without a value is one that is not given.
fn or_nothing(value: Value) -> Value {
    or(value, "null", None)
}

/// One more type that fits. What else a schema says of numbers or maps does not concern a text.
fn or(mut value: Value, ty: &str, pattern: Option<&str>) -> Value {
    let more = || match pattern {
        Some(pattern) => json!({"type": ty, "pattern": pattern}),
        None => json!({"type": ty}),
    };
    if let Some(types) = value.get_mut("anyOf").and_then(Value::as_array_mut) {
        if !types.contains(&more()) {
            types.push(more());
        }
        return value;
    }
    let Some(types) = value.get_mut("type") else {
        // without one it is anything already, or one of some words
        return if value.get("enum").is_some() { any_of(vec![value, more()]) } else { value };
    };
    if let Value::String(only) = &*types {
        *types = json!([only]);
    }
    let known = types.as_array().is_some_and(|types| types.contains(&json!(ty)));
    if let (Value::Array(types), false) = (types, known) {
        types.push(json!(ty));
        if let Some(pattern) = pattern {
            value["pattern"] = json!(pattern);
        }
    }
    value
}

fn of(ty: &'static Type) -> Value {
    let text = |min: u32| json!({"type": ["string", "number", "boolean"], "minLength": min});
    or_reference(match ty {
        Type::Bool => json!({"type": "boolean"}),
        Type::Int(min, max) => {
            let mut value = json!({"type": "integer", "minimum": min});
            if *max != i64::MAX {
                value["maximum"] = json!(max);
            }
            value
        }
        Type::Number(min, max) => json!({"type": "number", "minimum": min, "maximum": max}),
        Type::Share => {
            json!({"type": ["number", "string"], "minimum": 0, "maximum": 1, "pattern": share()})
        }
        Type::Duration => {
            json!({"type": ["number", "string"], "minimum": 0, "pattern": duration()})
        }
        Type::Positive => {
            json!({"type": ["number", "string"], "exclusiveMinimum": 0, "pattern": duration()})
        }
        Type::Size => json!({"type": ["number", "string"], "minimum": 0, "pattern": size()}),
        Type::Signal => {
            json!({"type": ["string", "integer"], "minimum": 1, "maximum": 64, "pattern": signal()})
        }
        Type::Mode => json!({"type": ["string", "integer"]}),
        Type::Word(words) => json!({"enum": words}),
        Type::Command => {
            any_of(vec![text(1), json!({"type": "array", "items": text(0), "minItems": 1})])
        }
        Type::Text | Type::Path => text(1),
        Type::Template | Type::Regex | Type::Glob => text(0),
        Type::Cron | Type::Ip | Type::Address => json!({"type": "string"}),
        Type::LevelFrom => {
            json!({"type": "string", "pattern": format!("^(auto|json:.+|regex:.+)$|{REFERENCE}")})
        }
        Type::Variable => json!({"type": ["string", "number", "boolean", "null"]}),
        Type::Any => json!({}),
        Type::List(item) => json!({"type": "array", "items": of(item)}),
        Type::OneOrMore(item) => {
            any_of(vec![of(item), json!({"type": "array", "items": of(item)})])
        }
        Type::Or(types) => any_of(types.iter().map(of).collect()),
        Type::Map(keys) => object(keys),
        Type::Short(short, keys) => {
            let long = object(keys);
            match super::keys::find(keys, short) {
                Some(key) => any_of(vec![of(&key.ty), long]),
                None => long,
            }
        }
        Type::Kinds(kinds) => {
            let mut map = object(kinds.keys);
            map["oneOf"] = at_most_one(kinds.kinds);
            any_of(vec![json!({"enum": kinds.words}), map])
        }
        Type::Named(keys) => named(object(keys)),
        Type::NamedOrList(keys) => {
            any_of(vec![text(1), json!({"type": "array", "items": text(1)}), named(object(keys))])
        }
        Type::ListOrNamed(keys) => any_of(vec![
            json!({"type": "array", "items": whole(keys)}),
            json!({
                "type": "object",
                "patternProperties": {"^x-": {}},
                "additionalProperties": object(keys),
            }),
        ]),
        Type::Table(item) => json!({"type": "object", "additionalProperties": of(item)}),
    })
}

/// A map in a list, which no other file adds to: what is required stands in it.
fn whole(keys: &'static [Key]) -> Value {
    let mut map = object(keys);
    let needed: Vec<&str> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    map["required"] = json!(needed);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_durations_and_sizes_take_what_the_reader_takes() {
        let durations = [
            "10s", "250ms", "2h30m", "1m 30s", "1.5h", ".5s", "7", " 3s ", "1d", "10x", "s", "",
            "-1s", "1h30", "ten",
        ];
        let pattern = regex::Regex::new(&duration()).unwrap();
        for text in durations {
            assert_eq!(pattern.is_match(text), units::parse_duration(text).is_ok(), "{text:?}");
        }
        let sizes = [
            "64KiB", "10MB", "1.5gib", "4096", "1 MiB", "3k", " 5M ", "lots", "5X", "", "-1", "MiB",
        ];
        let pattern = regex::Regex::new(&size()).unwrap();
        for text in sizes {
            assert_eq!(pattern.is_match(text), units::parse_size(text).is_ok(), "{text:?}");
        }
        let pattern = regex::Regex::new(&signal()).unwrap();
        let signals = [
            "TERM", "sigterm", " Hup ", "9", "SIG9", "64", "65", "0", "RTMIN", "rtmin+30",
            "RTMIN+31", "TREM", "", "SIG", "-1", "+9",
        ];
        for text in signals {
            let known = text.parse::<crate::signal::Signal>().is_ok();
            assert_eq!(pattern.is_match(text), known, "{text:?}");
        }
        let pattern = regex::Regex::new(&share()).unwrap();
        for text in ["20%", "100%", "0.5 %", " 7% ", ".5%", "5.%", "101%", "-1%", "x%", "20", "%"] {
            let node = super::super::tree::Scalar {
                text: text.to_owned(),
                style: super::super::tree::Style::Quoted,
            };
            let known = super::super::shape::read_share(&node).is_some();
            assert_eq!(pattern.is_match(text), known, "{text:?}");
        }
        for pattern in [duration(), size(), signal(), share()] {
            assert!(regex::Regex::new(&pattern).unwrap().is_match("$(var.x)"));
        }
    }

    #[test]
    fn the_schema_has_every_key_that_is_read() {
        let schema = schema();
        let service = &schema["definitions"]["service"]["properties"];
        for key in super::super::keys::service::SERVICE.iter().filter(|key| !key.refused) {
            assert_eq!(service[key.name]["description"], json!(key.doc), "{}", key.name);
        }
        for key in TOP {
            assert!(schema["properties"][key.name].is_object(), "{}", key.name);
        }
        assert_eq!(schema["additionalProperties"], json!(false));
        assert_eq!(service["numprocesses"]["default"], json!(1));
        assert!(schema["properties"]["node"]["properties"]["web"].is_null());
    }
}
