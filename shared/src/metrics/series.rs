//! What a metric says when it is asked: a name, a value, tags.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap, SerializeTuple, Serializer};

/// A figure: whole where it counts things, else a fraction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Int(i64),
    /// Any other.
    Float(f64),
}

impl Value {
    /// The nearest float.
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Float(value) => value,
        }
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u64> for Value {
    /// Stops at `i64::MAX`.
    fn from(value: u64) -> Self {
        Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::from(value as u64)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
        }
    }
}

/// Whether a figure only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Grows from zero for as long as the process lives.
    Counter,
    /// Not told, as in everything that comes from lymph.
    #[default]
    Unknown,
}

/// Names and values that tell series of one name apart, in the order in which they were given. A name comes once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(Vec<(Cow<'static, str>, Option<String>)>);

impl Tags {
    /// No tags.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// With one more, or with another value for it.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: Option<String>) -> Self {
        self.set(name.into(), value);
        self
    }

    fn set(&mut self, name: Cow<'static, str>, value: Option<String>) {
        match self.0.iter_mut().find(|(there, _)| *there == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// The value of one, where it is there and not nil.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(there, _)| *there == name).and_then(|(_, value)| value)
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Option<&str>)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_deref()))
    }

    /// These first, then what only `inner` has; where both have one, the inner value counts.
    #[must_use]
    pub fn around(&self, inner: Self) -> Self {
        let mut all = self.clone();
        for (name, value) in inner.0 {
            all.set(name, value);
        }
        all
    }
}

impl Serialize for Tags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, &value)?;
        }
        map.end()
    }
}

/// One figure at one moment. Serialised it is `[name, value, tags]`, as `lymph.get_metrics` answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Words with dots between them, as `rpc.timeout_count`.
    pub name: Cow<'static, str>,
    /// How much.
    pub value: Value,
    /// Of what.
    pub tags: Tags,
    /// Whether it only grows.
    pub kind: Kind,
    /// One line for people; empty where it is not known.
    pub help: Cow<'static, str>,
}

impl Serialize for Series {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(3)?;
        tuple.serialize_element(&self.name)?;
        tuple.serialize_element(&self.value)?;
        tuple.serialize_element(&self.tags)?;
        tuple.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_a_triple_and_an_inner_tag_wins() {
        let outer = Tags::none().with("service", None).with("host", Some("h".into()));
        let tags = outer
            .around(Tags::none().with("a", Some("1".into())).with("service", Some("s".into())));
        let series = Series {
            name: "x".into(),
            value: 3_u64.into(),
            tags,
            kind: Kind::Counter,
            help: "".into(),
        };
        assert_eq!(
            serde_json::to_string(&series).unwrap(),
            r#"["x",3,{"service":"s","host":"h","a":"1"}]"#
        );
    }
}
