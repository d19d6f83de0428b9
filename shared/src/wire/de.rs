//! Reading MessagePack into any `Deserialize` type, by lymph's rules.
//!
//! - `bin` is taken where text is meant (Python 2 packs its `str` so), `str` where bytes are meant.
//! - A [special value](super::types) gives its content to whoever asks for a plain type: a `set` is a sequence, a
//!   `Decimal`, `UUID`, `date` … is a text, `UndefinedType` is nothing. So `HashSet<u32>`, `uuid::Uuid` or
//!   `jiff::civil::Date` in a user's struct are read from what a Python service sends; a `String` only from a `Decimal` or `UUID`.
//! - Extension type 101 holds packed MessagePack, which stands in its place; other types are kept by [`super::Value`].
//! - A struct is a map, never an array: nothing is told apart by its place.

mod members;

use std::fmt;

use serde::de::value::SeqDeserializer;
use serde::de::{self, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use self::members::{Extension, Members, Variant};
use super::limits::{self, LimitError, MAX_DEPTH};

/// The extension type of packed MessagePack inside MessagePack.
pub const EMBEDDED: i8 = 101;
/// The first key of a special value.
pub const TYPE_KEY: &str = "__type__";
/// The second key of a special value.
pub const CONTENT_KEY: &str = "_";

/// Names that have a meaning under [`TYPE_KEY`].
const SPECIAL: [&str; 7] = ["set", "datetime", "date", "time", "Decimal", "UUID", "UndefinedType"];

/// Those whose content is the value as people write it, so that a `String` may hold it.
const PLAIN: [&str; 2] = ["Decimal", "UUID"];

/// Why bytes are not the value that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{}{}", if .0.place.is_empty() { "" } else { "`" }, .0.place, if .0.place.is_empty() { "" } else { "`: " }, .0.message)]
pub struct ShapeError(Box<Misfit>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Misfit {
    /// Where: `items[2].when`; empty at the top.
    place: String,
    message: String,
}

impl de::Error for ShapeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(Box::new(Misfit { place: String::new(), message: message.to_string() }))
    }
}

impl ShapeError {
    /// The same, seen from one level further out.
    fn within(mut self, step: impl fmt::Display) -> Self {
        let place = &self.0.place;
        let dot = if place.is_empty() || place.starts_with('[') { "" } else { "." };
        self.0.place = format!("{step}{dot}{place}");
        self
    }
}

/// One value, read from where it begins.
pub(super) struct Decoder<'de> {
    bytes: &'de [u8],
    at: usize,
    /// Arrays, maps and embedded values that may still be opened.
    room: usize,
}

/// A marker and what belongs to it.
enum Head<'de> {
    Nil,
    Bool(bool),
    Int(i64),
    UInt(u64),
    F32(f32),
    F64(f64),
    Str(&'de [u8]),
    Bin(&'de [u8]),
    Array(usize),
    Map(usize),
    Ext(i8, &'de [u8]),
}

impl<'de> Decoder<'de> {
    pub(super) fn new(bytes: &'de [u8]) -> Self {
        Self { bytes, at: 0, room: MAX_DEPTH }
    }

    /// Makes sure that nothing is left.
    pub(super) fn finish(&self) -> Result<(), ShapeError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            extra => Err(limit(LimitError::Trailing { extra })),
        }
    }

    fn head(&mut self) -> Result<Head<'de>, ShapeError> {
        let at = self.at;
        let marker = self.take(1)?[0];
        Ok(match marker {
            0x00..=0x7f => Head::Int(i64::from(marker)),
            0x80..=0x8f => Head::Map(usize::from(marker & 0x0f)),
            0x90..=0x9f => Head::Array(usize::from(marker & 0x0f)),
            0xa0..=0xbf => Head::Str(self.take(usize::from(marker & 0x1f))?),
            0xc0 => Head::Nil,
            0xc2 => Head::Bool(false),
            0xc3 => Head::Bool(true),
            0xc4..=0xc6 => {
                let length = self.number(1 << (marker - 0xc4))?;
                Head::Bin(self.take(length as usize)?)
            }
            0xc7..=0xc9 => {
                let length = self.number(1 << (marker - 0xc7))?;
                self.extension(length as usize)?
            }
            0xca => Head::F32(f32::from_bits(self.number(4)? as u32)),
            0xcb => Head::F64(f64::from_bits(self.number(8)?)),
            0xcc..=0xcf => {
                let number = self.number(1 << (marker - 0xcc))?;
                i64::try_from(number).map_or(Head::UInt(number), Head::Int)
            }
            0xd0 => Head::Int(i64::from(self.number(1)? as u8 as i8)),
            0xd1 => Head::Int(i64::from(self.number(2)? as u16 as i16)),
            0xd2 => Head::Int(i64::from(self.number(4)? as u32 as i32)),
            0xd3 => Head::Int(self.number(8)? as i64),
            0xd4..=0xd8 => self.extension(1 << (marker - 0xd4))?,
            0xd9..=0xdb => {
                let length = self.number(1 << (marker - 0xd9))?;
                Head::Str(self.take(length as usize)?)
            }
            0xdc => Head::Array(self.number(2)? as usize),
            0xdd => Head::Array(self.number(4)? as usize),
            0xde => Head::Map(self.number(2)? as usize),
            0xdf => Head::Map(self.number(4)? as usize),
            0xe0..=0xff => Head::Int(i64::from(marker as i8)),
            0xc1 => return Err(limit(LimitError::Marker { at })),
        })
    }

    fn extension(&mut self, length: usize) -> Result<Head<'de>, ShapeError> {
        let kind = self.take(1)?[0] as i8;
        Ok(Head::Ext(kind, self.take(length)?))
    }

    fn number(&mut self, width: usize) -> Result<u64, ShapeError> {
        Ok(self.take(width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn take(&mut self, length: usize) -> Result<&'de [u8], ShapeError> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| limit(LimitError::Truncated))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// Reads what is inside an array, a map or an embedded value.
    fn inside<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, ShapeError>,
    ) -> Result<T, ShapeError> {
        self.room = self.room.checked_sub(1).ok_or_else(|| limit(LimitError::Depth))?;
        let result = read(self);
        self.room += 1;
        result
    }

    /// Reads a value that lies packed inside this one.
    fn embedded<T>(
        &mut self,
        bytes: &'de [u8],
        read: impl FnOnce(&mut Decoder<'de>) -> Result<T, ShapeError>,
    ) -> Result<T, ShapeError> {
        limits::check(bytes).map_err(limit)?;
        let room = self.room.checked_sub(1).ok_or_else(|| limit(LimitError::Depth))?;
        let mut inner = Decoder { bytes, at: 0, room };
        let result = read(&mut inner)?;
        inner.finish()?;
        Ok(result)
    }

    fn skip(&mut self) -> Result<(), ShapeError> {
        match self.head()? {
            Head::Array(count) => self.inside(|inner| (0..count).try_for_each(|_| inner.skip())),
            Head::Map(count) => self.inside(|inner| {
                (0..count).try_for_each(|_| inner.skip().and_then(|()| inner.skip()))
            }),
            _ => Ok(()),
        }
    }

    fn text(&mut self) -> Result<Option<&'de str>, ShapeError> {
        Ok(match self.head()? {
            Head::Str(bytes) | Head::Bin(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        })
    }

    /// Where the value at hand is a special one: its type's name and where its content begins and all of it ends.
    fn special(&mut self) -> Result<Option<Special>, ShapeError> {
        // Most values are no map of two: nothing is read twice for them.
        if self.bytes.get(self.at) != Some(&0x82) {
            return Ok(None);
        }
        let start = self.at;
        let found = self.look_for_special();
        self.at = start;
        found
    }

    fn look_for_special(&mut self) -> Result<Option<Special>, ShapeError> {
        self.at += 1;
        let mut name = None;
        let mut content = None;
        for _ in 0..2 {
            match self.text()? {
                Some(TYPE_KEY) => name = self.text()?,
                Some(CONTENT_KEY) => {
                    content = Some(self.at);
                    self.inside(Self::skip)?;
                }
                _ => return Ok(None),
            }
        }
        let name = name.and_then(|name| SPECIAL.iter().find(|known| **known == name));
        let (Some(name), Some(content)) = (name, content) else { return Ok(None) };
        Ok(Some(Special { name, content, end: self.at }))
    }

    /// Reads the content of a special value in place of the value.
    fn content<T>(
        &mut self,
        special: &Special,
        read: impl FnOnce(&mut Self) -> Result<T, ShapeError>,
    ) -> Result<T, ShapeError> {
        self.at = special.content;
        let result = self.inside(read)?;
        self.at = special.end;
        Ok(result)
    }

    /// Reads a text, or the text inside a special value.
    fn visit_text<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, ShapeError> {
        match self.special()? {
            Some(special) if special.name != "set" => {
                return self.content(&special, |inner| inner.visit_text(visitor));
            }
            _ => {}
        }
        let start = self.at;
        match self.head()? {
            Head::Str(bytes) | Head::Bin(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => visitor.visit_borrowed_str(text),
                Err(_) => visitor.visit_borrowed_bytes(bytes),
            },
            Head::Ext(EMBEDDED, bytes) => self.embedded(bytes, |inner| inner.visit_text(visitor)),
            _ => {
                self.at = start;
                self.visit_any(visitor)
            }
        }
    }

    fn visit_any<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, ShapeError> {
        match self.head()? {
            Head::Nil => visitor.visit_unit(),
            Head::Bool(value) => visitor.visit_bool(value),
            Head::Int(value) => visitor.visit_i64(value),
            Head::UInt(value) => visitor.visit_u64(value),
            Head::F32(value) => visitor.visit_f32(value),
            Head::F64(value) => visitor.visit_f64(value),
            Head::Str(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => visitor.visit_borrowed_str(text),
                Err(_) => visitor.visit_borrowed_bytes(bytes),
            },
            Head::Bin(bytes) => visitor.visit_borrowed_bytes(bytes),
            Head::Array(count) => {
                self.inside(|inner| Members::new(inner, count).visit_seq(visitor))
            }
            Head::Map(count) => self.inside(|inner| Members::new(inner, count).visit_map(visitor)),
            Head::Ext(EMBEDDED, bytes) => self.embedded(bytes, |inner| inner.visit_any(visitor)),
            Head::Ext(kind, bytes) => visitor.visit_newtype_struct(Extension { kind, bytes }),
        }
    }
}

/// A special value at hand.
struct Special {
    name: &'static str,
    content: usize,
    end: usize,
}

fn limit(error: LimitError) -> ShapeError {
    de::Error::custom(error)
}

impl<'de> Deserializer<'de> for &mut Decoder<'de> {
    type Error = ShapeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        self.visit_any(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        self.visit_text(visitor)
    }

    /// A `String` is text: a date that turned into one would lose what it is. Types with a text form ask for a `str`.
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        match self.special()? {
            Some(Special { name, .. }) if !PLAIN.contains(&name) => {
                Err(de::Error::custom(format_args!("a `{name}` where a text is meant")))
            }
            _ => self.visit_text(visitor),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        self.visit_text(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        self.visit_text(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        let start = self.at;
        match self.head()? {
            Head::Str(bytes) | Head::Bin(bytes) => visitor.visit_borrowed_bytes(bytes),
            _ => {
                self.at = start;
                self.visit_any(visitor)
            }
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        match self.special()? {
            Some(special) if special.name == "set" => {
                return self.content(&special, |inner| inner.deserialize_seq(visitor));
            }
            _ => {}
        }
        let start = self.at;
        match self.head()? {
            Head::Bin(bytes) => visitor.visit_seq(SeqDeserializer::new(bytes.iter().copied())),
            Head::Ext(EMBEDDED, bytes) => {
                self.embedded(bytes, |inner| inner.deserialize_seq(visitor))
            }
            _ => {
                self.at = start;
                self.visit_any(visitor)
            }
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        // A derived struct would take an array, too, and shift its fields when one is added.
        if let Some(0x90..=0x9f | 0xdc | 0xdd) = self.bytes.get(self.at) {
            return Err(de::Error::custom(format_args!(
                "an array where the map `{name}` is meant"
            )));
        }
        self.visit_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        if self.bytes.get(self.at) == Some(&0xc0) {
            self.at += 1;
            return visitor.visit_none();
        }
        match self.special()? {
            Some(special) if special.name == "UndefinedType" => {
                self.at = special.end;
                visitor.visit_none()
            }
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        match self.special()? {
            Some(special) if special.name == "UndefinedType" => {
                self.at = special.end;
                visitor.visit_unit()
            }
            _ => self.visit_any(visitor),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        visitor.visit_newtype_struct(self)
    }

    /// A variant is its name, or a map of its name to its content.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        match self.head()? {
            Head::Str(bytes) | Head::Bin(bytes) => {
                let text =
                    std::str::from_utf8(bytes).map_err(|_| de::Error::custom("not UTF-8"))?;
                visitor.visit_enum(text.into_deserializer())
            }
            Head::Map(1) => self.inside(|inner| visitor.visit_enum(Variant { decoder: inner })),
            Head::Ext(EMBEDDED, bytes) => {
                self.embedded(bytes, |inner| inner.deserialize_enum(name, variants, visitor))
            }
            _ => Err(de::Error::custom(format_args!(
                "neither a text nor a map of one, for `{name}`"
            ))),
        }
    }

    /// A number that an `f32` would make infinite does not fit, like one that is too large for an `i32`.
    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        let start = self.at;
        match self.head()? {
            Head::F64(value) if value.is_finite() && !(value as f32).is_finite() => {
                Err(de::Error::invalid_value(de::Unexpected::Float(value), &"f32"))
            }
            Head::Ext(EMBEDDED, bytes) => {
                self.embedded(bytes, |inner| inner.deserialize_f32(visitor))
            }
            _ => {
                self.at = start;
                self.visit_any(visitor)
            }
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        self.skip()?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f64 map
    }
}
