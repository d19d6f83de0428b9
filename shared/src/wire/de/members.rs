//! What serde is handed for the inside of a value: members of arrays and maps, the content of a variant, extensions.

use serde::de::value::BytesDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::{Decoder, ShapeError};

/// The members of an array or a map.
pub(super) struct Members<'a, 'de> {
    pub(super) decoder: &'a mut Decoder<'de>,
    count: usize,
    left: usize,
    /// Where the key of the value that comes next begins.
    key: usize,
}

impl<'a, 'de> Members<'a, 'de> {
    pub(super) fn new(decoder: &'a mut Decoder<'de>, count: usize) -> Self {
        Self { decoder, count, left: count, key: 0 }
    }

    /// The key of the value that did not fit, as far as it can be shown.
    fn key(&self) -> String {
        let mut decoder = Decoder { bytes: self.decoder.bytes, at: self.key, room: 1 };
        let text = decoder.text().ok().flatten().unwrap_or("?");
        text.chars().take(80).collect()
    }

    pub(super) fn visit_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, ShapeError> {
        let value = visitor.visit_seq(&mut self)?;
        match self.left {
            0 => Ok(value),
            left => Err(de::Error::custom(format_args!("{left} more members than expected"))),
        }
    }

    pub(super) fn visit_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, ShapeError> {
        let value = visitor.visit_map(&mut self)?;
        match self.left {
            0 => Ok(value),
            left => Err(de::Error::custom(format_args!("{left} more entries than expected"))),
        }
    }

    /// No more is reserved than the bytes that are there could hold.
    fn hint(&self) -> usize {
        self.left.min(self.decoder.bytes.len() - self.decoder.at)
    }
}

impl<'de> de::SeqAccess<'de> for &mut Members<'_, 'de> {
    type Error = ShapeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ShapeError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let value = seed.deserialize(&mut *self.decoder);
        value
            .map(Some)
            .map_err(|error| error.within(format_args!("[{}]", self.count - self.left - 1)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.hint())
    }
}

impl<'de> de::MapAccess<'de> for &mut Members<'_, 'de> {
    type Error = ShapeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ShapeError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.key = self.decoder.at;
        seed.deserialize(&mut *self.decoder).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, ShapeError> {
        seed.deserialize(&mut *self.decoder).map_err(|error| error.within(self.key()))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.hint())
    }
}

/// The one entry of a variant with content.
pub(super) struct Variant<'a, 'de> {
    pub(super) decoder: &'a mut Decoder<'de>,
}

impl<'de> de::EnumAccess<'de> for Variant<'_, 'de> {
    type Error = ShapeError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self), ShapeError> {
        Ok((seed.deserialize(&mut *self.decoder)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, 'de> {
    type Error = ShapeError;

    fn unit_variant(self) -> Result<(), ShapeError> {
        de::Deserialize::deserialize(self.decoder)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, ShapeError> {
        seed.deserialize(self.decoder)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ShapeError> {
        self.decoder.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        self.decoder.deserialize_map(visitor)
    }
}

/// An extension of an unknown type, as a pair for [`crate::wire::Value`].
pub(super) struct Extension<'de> {
    pub(super) kind: i8,
    pub(super) bytes: &'de [u8],
}

impl<'de> Deserializer<'de> for Extension<'de> {
    type Error = ShapeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        visitor.visit_seq(Parts { kind: Some(self.kind), bytes: Some(self.bytes) })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Parts<'de> {
    kind: Option<i8>,
    bytes: Option<&'de [u8]>,
}

impl<'de> de::SeqAccess<'de> for Parts<'de> {
    type Error = ShapeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ShapeError> {
        if let Some(kind) = self.kind.take() {
            return seed.deserialize(kind.into_deserializer()).map(Some);
        }
        let Some(bytes) = self.bytes.take() else { return Ok(None) };
        seed.deserialize(BytesDeserializer::new(bytes)).map(Some)
    }
}
