//! The document model: YAML's three shapes, each value and key with its place in a file.
//!
//! Scalars stay as they were written (`1.10` is not `1.1`); what they mean is decided by the key.

use std::collections::HashMap;

use super::source::Pos;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// Where it was written; of an alias: where its anchor is.
    pub at: Pos,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A text, number, truth value or null.
    Scalar(Scalar),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping.
    Map(Map),
    /// Something that an error was already reported for; all checks pass over it.
    Broken,
}

/// A scalar as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scalar {
    /// Its text after YAML's unescaping.
    pub text: String,
    /// How it was written.
    pub style: Style,
}

/// How a scalar was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Without quotes: may mean null, a truth value or a number.
    Plain,
    /// In quotes or as a block: always a text.
    Quoted,
    /// Holds the value of a variable: may be read as a number or truth value, but is never null.
    Variable,
}

/// A mapping in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Map(pub Vec<Entry>);

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// The key.
    pub key: String,
    /// Where the key was written.
    pub key_at: Pos,
    /// The value.
    pub value: Node,
}

impl Entry {
    /// Stands in a map where a part of it could not be read.
    pub(super) fn hole() -> Self {
        Self { key: String::new(), key_at: Pos::NONE, value: Node::broken(Pos::NONE) }
    }

    /// Whether this is such a place.
    pub(super) fn is_hole(&self) -> bool {
        self.key.is_empty() && !self.key_at.is_some() && matches!(self.value.value, Value::Broken)
    }
}

impl Scalar {
    /// Whether this is YAML's null.
    pub(super) fn is_null(&self) -> bool {
        self.style == Style::Plain
            && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }

    /// The truth value of YAML 1.2's core schema.
    pub(super) fn as_bool(&self) -> Option<bool> {
        match self.text.as_str() {
            _ if self.style == Style::Quoted => None,
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            _ => None,
        }
    }

    /// The whole number of YAML 1.2's core schema: decimal, `0x…`, `0o…`.
    pub(super) fn as_int(&self) -> Option<i64> {
        if self.style == Style::Quoted {
            return None;
        }
        if let Some(hex) = self.text.strip_prefix("0x") {
            return i64::from_str_radix(hex, 16).ok();
        }
        if let Some(octal) = self.text.strip_prefix("0o") {
            return i64::from_str_radix(octal, 8).ok();
        }
        self.text.parse().ok()
    }

    /// The number of YAML 1.2's core schema, when it is finite.
    pub(super) fn as_float(&self) -> Option<f64> {
        if let Some(int) = self.as_int() {
            return Some(int as f64);
        }
        let starts = self.text.trim_start_matches(['+', '-']);
        if self.style == Style::Quoted
            || !starts.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        {
            return None;
        }
        self.text.parse().ok().filter(|f: &f64| f.is_finite())
    }
}

impl Node {
    /// A scalar that stands in no file.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::scalar(text, Style::Plain, Pos::NONE)
    }

    /// A scalar.
    pub(super) fn scalar(text: impl Into<String>, style: Style, at: Pos) -> Self {
        let text = text.into();
        let value = Value::Scalar(Scalar { text, style });
        Self { at, value }
    }

    /// An empty mapping.
    pub(super) fn map(at: Pos) -> Self {
        let value = Value::Map(Map::default());
        Self { at, value }
    }

    /// Something that was reported.
    pub(super) fn broken(at: Pos) -> Self {
        Self { at, value: Value::Broken }
    }

    /// Notes that a part of it could not be read; `false` when it is no map, and all of it is lost.
    pub(super) fn leave_hole(&mut self) -> bool {
        match &mut self.value {
            Value::Map(map) => {
                map.0.push(Entry::hole());
                true
            }
            _ => {
                self.value = Value::Broken;
                false
            }
        }
    }

    /// Whether this is YAML's null.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.is_null())
    }

    /// The mapping, if it is one.
    pub(super) fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The sequence, if it is one.
    pub(super) fn as_list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The scalar, if it is one and not null.
    pub(super) fn as_scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) if !scalar.is_null() => Some(scalar),
            _ => None,
        }
    }

    /// The text of a scalar that is not null.
    pub(super) fn as_scalar_text(&self) -> Option<&str> {
        self.as_scalar().map(|scalar| scalar.text.as_str())
    }

    /// What it is, for people.
    pub(super) fn describe(&self) -> &'static str {
        match &self.value {
            Value::Scalar(scalar) if scalar.is_null() => "nothing",
            Value::Scalar(scalar) if scalar.as_bool().is_some() => "a truth value",
            Value::Scalar(scalar) if scalar.as_float().is_some() => "a number",
            Value::Scalar(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
            Value::Broken => "something broken",
        }
    }

    /// Nodes and bytes of text in it, and how deep it is.
    pub(super) fn size(&self) -> Size {
        let mut size = Size { nodes: 1, bytes: 0, depth: 1 };
        match &self.value {
            Value::Scalar(scalar) => size.bytes = scalar.text.len(),
            Value::List(items) => items.iter().for_each(|item| size.add(item.size())),
            Value::Map(map) => {
                for entry in &map.0 {
                    size.bytes += entry.key.len();
                    size.add(entry.value.size());
                }
            }
            Value::Broken => {}
        }
        size
    }

    /// The same as serde_yaml's value, for showing and writing.
    pub(super) fn to_yaml(&self) -> serde_yaml::Value {
        match &self.value {
            Value::Scalar(scalar) => scalar.to_yaml(),
            Value::List(items) => items.iter().map(Self::to_yaml).collect(),
            Value::Map(map) => {
                let entries = map.0.iter();
                let entries = entries.map(|e| (e.key.clone().into(), e.value.to_yaml()));
                serde_yaml::Value::Mapping(entries.collect())
            }
            Value::Broken => serde_yaml::Value::Null,
        }
    }
}

impl Scalar {
    fn to_yaml(&self) -> serde_yaml::Value {
        if self.is_null() {
            return serde_yaml::Value::Null;
        }
        if let Some(truth) = self.as_bool() {
            return truth.into();
        }
        if let Some(int) = self.as_int() {
            // `007` and `+1` stay what was written; only what reads back the same becomes a number.
            if int.to_string() == self.text {
                return int.into();
            }
        } else if let Some(float) = self.as_float()
            && format!("{float:?}") == self.text
        {
            return float.into();
        }
        self.text.clone().into()
    }
}

/// How much a node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    /// Nodes in all.
    pub nodes: usize,
    /// Bytes of text in all.
    pub bytes: usize,
    /// Levels.
    pub depth: usize,
}

impl Size {
    fn add(&mut self, other: Self) {
        self.nodes += other.nodes;
        self.bytes += other.bytes;
        self.depth = self.depth.max(other.depth + 1);
    }
}

impl Map {
    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry of a key.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.key == key)
    }

    /// The value of a key, to change.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        let entry = self.0.iter_mut().find(|entry| entry.key == key)?;
        Some(&mut entry.value)
    }

    /// Takes a key out.
    pub(super) fn remove(&mut self, key: &str) -> Option<Entry> {
        let at = self.0.iter().position(|entry| entry.key == key)?;
        Some(self.0.remove(at))
    }

    /// Puts a key in at the end.
    pub(super) fn push(&mut self, key: impl Into<String>, value: Node) {
        self.0.push(Entry { key: key.into(), key_at: value.at, value });
    }
}

/// Keys of which only one may be given: a later file's choice takes the place of an earlier one's.
type Exclusive = fn(&str) -> &'static [&'static str];

/// Lays `over` on top of `base`: maps merge key by key and deeply, everything else is replaced.
pub(super) fn merge(base: &mut Node, over: Node, exclusive: Exclusive) {
    let (Value::Map(under), true) = (&mut base.value, over.as_map().is_some()) else {
        *base = over;
        return;
    };
    let Value::Map(over_map) = over.value else {
        return;
    };
    // The later file is where this map is configured now: messages about the whole point there.
    base.at = over.at;
    merge_maps(under, over_map, exclusive);
}

fn merge_maps(under: &mut Map, over: Map, exclusive: Exclusive) {
    let index: HashMap<String, usize> =
        under.0.iter().enumerate().map(|(at, entry)| (entry.key.clone(), at)).collect();
    for entry in over.0 {
        let Some(at) = index.get(&entry.key) else {
            under.0.push(entry);
            continue;
        };
        let old = &mut under.0[*at];
        let one_of = exclusive(&entry.key);
        if let (Value::Map(old), Some(new)) = (&mut old.value.value, entry.value.as_map())
            && new.0.iter().any(|e| one_of.contains(&e.key.as_str()))
        {
            old.0.retain(|e| !one_of.contains(&e.key.as_str()));
        }
        old.key_at = entry.key_at;
        merge(&mut old.value, entry.value, exclusive);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(text: &str) -> Scalar {
        let style = Style::Plain;
        let text = text.to_owned();
        Scalar { text, style }
    }

    #[test]
    fn scalars_mean_what_yaml_1_2_says() {
        assert!(scalar("~").is_null() && scalar("").is_null() && !scalar("nil").is_null());
        assert_eq!(scalar("True").as_bool(), Some(true));
        assert_eq!(scalar("yes").as_bool(), None);
        assert_eq!(scalar("0o22").as_int(), Some(18));
        assert_eq!(scalar("0x10").as_int(), Some(16));
        assert_eq!(scalar("022").as_int(), Some(22));
        assert_eq!(scalar("1e3").as_float(), Some(1000.0));
        assert_eq!(scalar(".inf").as_float(), None);
        assert_eq!(scalar("inf").as_float(), None);
        assert_eq!(scalar("nan").as_float(), None);
    }

    #[test]
    fn what_is_shown_reads_back_as_what_was_written() {
        for text in ["1.10", "007", "+1", "1e3", "0x10"] {
            assert_eq!(scalar(text).to_yaml(), serde_yaml::Value::from(text), "{text}");
        }
        assert_eq!(scalar("3").to_yaml(), serde_yaml::Value::from(3));
        assert_eq!(scalar("0.5").to_yaml(), serde_yaml::Value::from(0.5));
    }

    fn node(pairs: &[(&str, Node)]) -> Node {
        let mut map = Map::default();
        for (key, value) in pairs {
            map.push(*key, value.clone());
        }
        Node { at: Pos::NONE, value: Value::Map(map) }
    }

    #[test]
    fn maps_merge_deeply_and_everything_else_is_replaced() {
        let list = |text: &str| Node { at: Pos::NONE, value: Value::List(vec![Node::plain(text)]) };
        let mut base = node(&[
            ("a", node(&[("x", Node::plain("1")), ("y", Node::plain("2"))])),
            ("l", list("1")),
        ]);
        let over = node(&[
            ("a", node(&[("y", Node::plain("3")), ("z", Node::plain("4"))])),
            ("l", list("2")),
        ]);
        merge(&mut base, over, |_| &[]);
        let expected = node(&[
            (
                "a",
                node(&[("x", Node::plain("1")), ("y", Node::plain("3")), ("z", Node::plain("4"))]),
            ),
            ("l", list("2")),
        ]);
        assert_eq!(base, expected);
    }

    #[test]
    fn of_exclusive_keys_the_later_one_stays() {
        let mut base =
            node(&[("ready", node(&[("tcp", Node::plain("1")), ("interval", Node::plain("2"))]))]);
        let over = node(&[("ready", node(&[("http", Node::plain("3"))]))]);
        merge(&mut base, over, |key| if key == "ready" { &["tcp", "http"] } else { &[] });
        let ready = base.as_map().unwrap().get("ready").unwrap();
        let keys: Vec<_> = ready.as_map().unwrap().0.iter().map(|e| e.key.as_str()).collect();
        assert_eq!(keys, ["interval", "http"]);
    }
}
