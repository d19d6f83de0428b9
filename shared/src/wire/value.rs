//! Any value that a message may carry, when no type of ours says what it is.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::de::{CONTENT_KEY, TYPE_KEY};
use super::message::{DecodeError, EncodeError, pack, unpack};
use super::ser::EXTENSION;
use super::types::{Date, DateTime, Decimal, InOrder, Time, Undefined, Uuid};

/// A value of MessagePack, or one of lymph's special values.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// Nothing.
    #[default]
    Nil,
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number that is too large for [`Value::Int`].
    UInt(u64),
    /// A number; sent with 64 bits.
    Float(f64),
    /// A text.
    Str(String),
    /// Bytes, or a text that is not UTF-8.
    Bytes(Vec<u8>),
    /// An array.
    List(Vec<Value>),
    /// A map in its order, with keys of any kind.
    Map(Vec<(Value, Value)>),
    /// A set in the order in which it came.
    Set(Vec<Value>),
    /// A date and time of day.
    DateTime(DateTime),
    /// A day.
    Date(Date),
    /// A time of day.
    Time(Time),
    /// A decimal number.
    Decimal(Decimal),
    /// A UUID.
    Uuid(Uuid),
    /// lymph's "no value was given".
    Undefined,
    /// An extension that nobody here knows.
    Ext(i8, Vec<u8>),
}

/// Turns any type into a value.
///
/// # Errors
/// As [`pack`].
pub fn to_value<T: Serialize + ?Sized>(value: &T) -> Result<Value, EncodeError> {
    // What was packed can be read, but for an extension 101 that holds no packed value.
    unpack(&pack(value)?, "value").map_err(serde::ser::Error::custom)
}

/// Turns a value into any type.
///
/// # Errors
/// When it has another shape.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, DecodeError> {
    let bytes = pack(value).map_err(|source| DecodeError::Repack { source })?;
    unpack(&bytes, "value")
}

impl Value {
    /// A map with text keys.
    pub fn map<K: Into<String>>(entries: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (Self::Str(key.into()), value)).collect())
    }

    /// The member of a map under a text key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value)
    }

    /// The text, where it is one; bytes that are UTF-8 count as text, since Python 2 sends its texts so.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// Whether it is nothing at all.
    pub fn is_nil(&self) -> bool {
        *self == Self::Nil
    }

    /// What a map means: one of the special values, where its keys say so and its content fits.
    fn from_entries(entries: Vec<(Self, Self)>) -> Self {
        let (name, content) = match entries.as_slice() {
            [(first, name), (second, content)] | [(second, content), (first, name)]
                if first.as_str() == Some(TYPE_KEY) && second.as_str() == Some(CONTENT_KEY) =>
            {
                (name, content)
            }
            _ => return Self::Map(entries),
        };
        let special = match (name.as_str(), content) {
            (Some("set"), Self::List(members)) => Some(Self::Set(members.clone())),
            (Some(name), content) => content.as_str().and_then(|text| Self::special(name, text)),
            (None, _) => None,
        };
        special.unwrap_or(Self::Map(entries))
    }

    /// The special value of this name, where it is known, and writing it would lose nothing of the text's meaning.
    pub(super) fn special(name: &str, text: &str) -> Option<Self> {
        match name {
            DateTime::NAME => exact(text).map(Self::DateTime),
            Date::NAME => exact(text).map(Self::Date),
            Time::NAME => exact(text).map(Self::Time),
            Decimal::NAME => exact(text).map(Self::Decimal),
            Uuid::NAME => exact(text).map(Self::Uuid),
            Undefined::NAME if text.is_empty() => Some(Self::Undefined),
            _ => None,
        }
    }
}

/// A text as its type, where the type's own text means the same: a `time` with parts of a second would be written without them.
fn exact<T: FromStr + ToString + PartialEq>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    let again: Option<T> = value.to_string().parse().ok();
    (again.as_ref() == Some(&value)).then_some(value)
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nil => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::UInt(value) => serializer.serialize_u64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Str(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::List(members) => serializer.collect_seq(members),
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
            Self::Set(members) => InOrder(members).serialize(serializer),
            Self::DateTime(value) => value.serialize(serializer),
            Self::Date(value) => value.serialize(serializer),
            Self::Time(value) => value.serialize(serializer),
            Self::Decimal(value) => value.serialize(serializer),
            Self::Uuid(value) => value.serialize(serializer),
            Self::Undefined => Undefined.serialize(serializer),
            Self::Ext(kind, bytes) => {
                let whole: Vec<u8> = [*kind as u8].iter().chain(bytes).copied().collect();
                serializer.serialize_newtype_struct(EXTENSION, serde_bytes::Bytes::new(&whole))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::UInt(value), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Str(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Str(text))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(bytes.to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = seq.next_element()? {
            members.push(member);
        }
        Ok(Value::List(members))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::from_entries(entries))
    }

    /// An extension, by our own decoder.
    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Value, D::Error> {
        let (kind, bytes) =
            <(i8, serde_bytes::ByteBuf)>::deserialize(deserializer).map_err(de::Error::custom)?;
        Ok(Value::Ext(kind, bytes.into_vec()))
    }
}

macro_rules! from {
    ($($type:ty => $variant:expr),+ $(,)?) => {
        $(impl From<$type> for Value {
            fn from(value: $type) -> Self {
                $variant(value)
            }
        })+
    };
}

from! {
    bool => Value::Bool,
    i64 => Value::Int,
    i32 => |value| Value::Int(i64::from(value)),
    u32 => |value| Value::Int(i64::from(value)),
    u64 => |value| i64::try_from(value).map_or(Value::UInt(value), Value::Int),
    f64 => Value::Float,
    String => Value::Str,
    &str => |text: &str| Value::Str(text.to_owned()),
    Vec<Value> => Value::List,
    DateTime => Value::DateTime,
    Date => Value::Date,
    Time => Value::Time,
    Decimal => Value::Decimal,
    Uuid => Value::Uuid,
}
