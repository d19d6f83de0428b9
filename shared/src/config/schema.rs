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

/// What [`units::parse_size`] takes, or a reference. Patterns of a schema know no "either case".
fn size() -> String {
    let either = |c: char| format!("[{}{c}]", c.to_ascii_uppercase());
    let names = units::SIZE_UNITS.iter().map(|(name, _)| name.chars().map(either).collect());
    let names: Vec<String> = names.collect();
    format!(r"^\s*[0-9.]+\s*({})\s*$|{REFERENCE}", names.join("|"))
}

fn object(keys: &'static [Key]) -> Value {
    let mut properties = Map::new();
    let mut needed = Vec::new();
    for key in keys.iter().filter(|key| !key.refused) {
        let mut value = match key.name {
            // Both hold the same keys; `defaults` may lack the required ones, so may an instance that has defaults.
            "defaults" => json!({"$ref": "#/definitions/service"}),
            "instances" => {
                json!({"type": "object", "additionalProperties": {"$ref": "#/definitions/service"}})
            }
            _ => of(&key.ty),
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
        if key.required && key.name != "command" {
            needed.push(key.name);
        }
    }
    let mut out = json!({
        "type": ["object", "null"],
        "properties": properties,
        "patternProperties": {"^x-": {}},
        "additionalProperties": false,
    });
    if !needed.is_empty() {
        out["required"] = json!(needed);
    }
    out
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

fn text_or_reference(value: Value) -> Value {
    any_of(vec![value, json!({"type": "string", "pattern": REFERENCE})])
}

fn of(ty: &'static Type) -> Value {
    let text = || json!({"type": ["string", "number", "boolean"]});
    match ty {
        Type::Bool => text_or_reference(json!({"type": "boolean"})),
        Type::Int(min, max) => {
            let mut value = json!({"type": "integer", "minimum": min});
            if *max != i64::MAX {
                value["maximum"] = json!(max);
            }
            text_or_reference(value)
        }
        Type::Number(min, max) => {
            text_or_reference(json!({"type": "number", "minimum": min, "maximum": max}))
        }
        Type::Share => any_of(vec![
            json!({"type": "number", "minimum": 0, "maximum": 1}),
            json!({"type": "string", "pattern": r"%$|\$\("}),
        ]),
        Type::Duration => any_of(vec![
            json!({"type": "number", "minimum": 0}),
            json!({"type": "string", "pattern": duration()}),
        ]),
        Type::Positive => any_of(vec![
            json!({"type": "number", "exclusiveMinimum": 0}),
            json!({"type": "string", "pattern": duration()}),
        ]),
        Type::Size => any_of(vec![
            json!({"type": "integer", "minimum": 0}),
            json!({"type": "string", "pattern": size()}),
        ]),
        Type::Mode | Type::Signal => json!({"type": ["string", "integer"]}),
        Type::Word(words) => {
            any_of(vec![json!({"enum": words}), json!({"type": "string", "pattern": REFERENCE})])
        }
        Type::Command => any_of(vec![
            json!({"type": "string", "minLength": 1}),
            json!({"type": "array", "items": text(), "minItems": 1}),
        ]),
        Type::Text | Type::Template => text(),
        Type::Path | Type::Regex | Type::Cron | Type::Glob | Type::Ip | Type::Address => {
            json!({"type": "string"})
        }
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
        Type::Kinds(kinds) => any_of(vec![json!({"enum": kinds.words}), object(kinds.keys)]),
        Type::Named(keys) => json!({"type": "object", "additionalProperties": object(keys)}),
        Type::NamedOrList(keys) => any_of(vec![
            json!({"type": "array", "items": {"type": "string"}}),
            json!({"type": "object", "additionalProperties": object(keys)}),
        ]),
        Type::ListOrNamed(keys) => any_of(vec![
            json!({"type": "array", "items": object(keys)}),
            json!({"type": "object", "additionalProperties": object(keys)}),
        ]),
        Type::Table(item) => json!({"type": "object", "additionalProperties": of(item)}),
    }
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
        for pattern in [duration(), size()] {
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
