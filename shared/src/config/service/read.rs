//! From a [`Node`] to any `Deserialize` type. A scalar is what the type asks for: `version: 1.10` is the text `1.10` to
//! a `String`.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};

use crate::config::diagnostic::{list, nearest, quote};
use crate::config::source::Pos;
use crate::config::tree::{Entry, Node, Scalar, Value};

/// What does not fit, and where.
#[derive(Debug)]
pub(super) struct Misfit {
    pub(super) at: Pos,
    pub(super) message: String,
    pub(super) help: Option<String>,
    /// The keys below what was read, the innermost first; each with its dot or brackets.
    path: Vec<String>,
}

impl Misfit {
    pub(super) fn path(&self) -> String {
        self.path.iter().rev().map(String::as_str).collect()
    }

    fn new(message: String) -> Self {
        Self { at: Pos::NONE, message, help: None, path: Vec::new() }
    }

    fn at(mut self, at: Pos) -> Self {
        if !self.at.is_some() {
            self.at = at;
        }
        self
    }

    fn below(mut self, at: Pos, part: String) -> Self {
        self.path.push(part);
        self.at(at)
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Misfit {}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {}, found {}", wanted(expected), describe(found)))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {}, found {}", wanted(expected), describe(found)))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::unknown("key", field, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::unknown("value", variant, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("the key `{field}` is missing"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("`{field}` is given twice, under two of its names"))
    }
}

impl Misfit {
    fn unknown(what: &str, found: &str, expected: &'static [&'static str]) -> Self {
        let help = match nearest(found, expected.iter().copied()) {
            Some(near) => Some(format!("did you mean `{near}`?")),
            None if expected.is_empty() => Some("nothing can be set here".to_owned()),
            None => Some(format!("known: {}", list(expected))),
        };
        Self { help, ..Self::new(format!("unknown {what} {}", quote(found))) }
    }
}

/// serde's word for a type in ours.
fn wanted(expected: &dyn de::Expected) -> String {
    let word = expected.to_string();
    match word.as_str() {
        "u8" => format!("a whole number from 0 to {}", u8::MAX),
        "u16" => format!("a whole number from 0 to {}", u16::MAX),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" | "u128" | "usize" => "a whole number, not below 0".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "`true` or `false`".to_owned(),
        "a string" => "a text".to_owned(),
        "a sequence" => "a list".to_owned(),
        word if word.starts_with("struct ") => "a map".to_owned(),
        word => word.to_owned(),
    }
}

fn describe(found: de::Unexpected<'_>) -> String {
    match found {
        de::Unexpected::Unit | de::Unexpected::Option => "nothing".to_owned(),
        de::Unexpected::Bool(truth) => format!("`{truth}`"),
        de::Unexpected::Signed(number) => format!("`{number}`"),
        de::Unexpected::Unsigned(number) => format!("`{number}`"),
        de::Unexpected::Float(number) => format!("`{number}`"),
        de::Unexpected::Str(text) => quote(text),
        de::Unexpected::Map => "a map".to_owned(),
        de::Unexpected::Seq => "a list".to_owned(),
        other => other.to_string(),
    }
}

/// Reads a node whose key stands at `key_at`.
pub(super) fn read<T: DeserializeOwned>(node: &Node, key_at: Pos) -> Result<T, Misfit> {
    T::deserialize(Reader(node))
        .map_err(|misfit| misfit.at(if node.at.is_some() { node.at } else { key_at }))
}

struct Reader<'a>(&'a Node);

impl<'a> Reader<'a> {
    fn scalar(&self) -> Option<&'a Scalar> {
        self.0.as_scalar()
    }

    fn placed<T>(&self, result: Result<T, Misfit>) -> Result<T, Misfit> {
        result.map_err(|misfit| misfit.at(self.0.at))
    }
}

/// A number for a type that asks for one; anything else for its visitor to refuse.
macro_rules! number {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
            self.deserialize_any(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let result = match &self.0.value {
            Value::Map(map) => visitor.visit_map(Entries { entries: map.0.iter(), current: None }),
            Value::List(items) => visitor.visit_seq(Items { items: items.iter().enumerate() }),
            Value::Broken => Err(Misfit::new("this could not be read".to_owned())),
            Value::Scalar(scalar) if scalar.is_null() => visitor.visit_unit(),
            Value::Scalar(scalar) => {
                if let Some(truth) = scalar.as_bool() {
                    visitor.visit_bool(truth)
                } else if let Some(int) = scalar.as_int() {
                    visitor.visit_i64(int)
                } else if let Some(float) = scalar.as_float() {
                    visitor.visit_f64(float)
                } else {
                    visitor.visit_str(&scalar.text)
                }
            }
        };
        self.placed(result)
    }

    number! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_unit
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.scalar() {
            Some(scalar) => self.placed(visitor.visit_str(&scalar.text)),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_str(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.scalar() {
            Some(scalar) => self.placed(visitor.visit_bytes(scalar.text.as_bytes())),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        if self.0.is_null() {
            return self.placed(visitor.visit_seq(Items { items: [].iter().enumerate() }));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_any(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.deserialize_any(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        // `echo:` with nothing below it is an echo with all defaults.
        if self.0.is_null() {
            return self.placed(visitor.visit_map(Entries { entries: [].iter(), current: None }));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.deserialize_map(visitor)
    }

    /// `color: red`, or `shape: {circle: 3}`.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let result = match &self.0.value {
            Value::Map(map) => match map.0.as_slice() {
                [entry] => visitor.visit_enum(Choice(entry)),
                _ => Err(Misfit::new(
                    "expected a map with one key, which says what it is".to_owned(),
                )),
            },
            Value::Scalar(scalar) if !scalar.is_null() => {
                visitor
                    .visit_enum(IntoDeserializer::<Misfit>::into_deserializer(scalar.text.as_str()))
            }
            _ => Err(Misfit::new(format!("expected a word, found {}", self.0.describe()))),
        };
        self.placed(result)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_unit()
    }
}

struct Entries<'a> {
    entries: std::slice::Iter<'a, Entry>,
    current: Option<&'a Entry>,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Misfit> {
        self.current = self.entries.next();
        let Some(entry) = self.current else { return Ok(None) };
        let key: StrDeserializer<'_, Misfit> = entry.key.as_str().into_deserializer();
        let result = seed.deserialize(key).map(Some);
        result.map_err(|misfit| {
            let part = format!(".{}", entry.key);
            misfit.below(entry.key_at, part)
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        let Some(entry) = self.current else {
            return Err(Misfit::new("a value without a key".to_owned()));
        };
        seed.deserialize(Reader(&entry.value)).map_err(|misfit| {
            // A value that is not written is shown by its key.
            let at = if entry.value.is_null() { entry.key_at } else { entry.value.at };
            misfit.below(at, format!(".{}", entry.key))
        })
    }
}

struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Misfit> {
        let Some((index, item)) = self.items.next() else { return Ok(None) };
        let result = seed.deserialize(Reader(item)).map(Some);
        result.map_err(|misfit| misfit.below(item.at, format!("[{index}]")))
    }
}

/// The one entry of a map that stands for a variant.
struct Choice<'a>(&'a Entry);

impl<'a, 'de> de::EnumAccess<'de> for Choice<'a> {
    type Error = Misfit;
    type Variant = Content<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Content<'a>), Misfit> {
        let key: StrDeserializer<'_, Misfit> = self.0.key.as_str().into_deserializer();
        let variant = seed.deserialize(key).map_err(|misfit| misfit.at(self.0.key_at))?;
        Ok((variant, Content(self.0)))
    }
}

struct Content<'a>(&'a Entry);

impl Content<'_> {
    fn below<T>(&self, result: Result<T, Misfit>) -> Result<T, Misfit> {
        result.map_err(|misfit| misfit.below(self.0.value.at, format!(".{}", self.0.key)))
    }
}

impl<'de> de::VariantAccess<'de> for Content<'_> {
    type Error = Misfit;

    fn unit_variant(self) -> Result<(), Misfit> {
        if self.0.value.is_null() {
            return Ok(());
        }
        self.below(Err(Misfit::new(format!("{} takes nothing", quote(&self.0.key)))))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Misfit> {
        let result = seed.deserialize(Reader(&self.0.value));
        self.below(result)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Misfit> {
        let result = Reader(&self.0.value).deserialize_any(visitor);
        self.below(result)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let result = Reader(&self.0.value).deserialize_map(visitor);
        self.below(result)
    }
}
