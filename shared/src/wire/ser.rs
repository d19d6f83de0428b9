//! Writing any `Serialize` type as MessagePack, so that whoever reads it, in Python too, finds what was meant.
//!
//! - A type has one form, whatever it holds: a sequence is an array, of `u8` as of others; bytes are what `serde_bytes` says.
//! - A struct is a map by its fields' names, so that fields may come and go; a variant is its name, or a map of its name to its content.
//! - What has a text form (an address, a `uuid::Uuid`) is text.
//! - A whole number is as short as it can be. Beyond 64 bits there is none: it is refused, and not sent as something else.
//! - What [`limits`](super::limits) would not let in does not go out: too deep, too many values, too many bytes.

use std::fmt;

use serde::ser::{self, Serialize, Serializer};

use super::limits::{LimitError, MAX_DEPTH, MAX_ITEMS};

/// The name under which [`super::Value`] writes an extension: as bytes, the first of which is its type.
pub(super) const EXTENSION: &str = "hilum::Extension";

/// Why a value cannot be packed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot be packed as MessagePack: {0}")]
pub struct EncodeError(Box<str>);

impl From<LimitError> for EncodeError {
    fn from(error: LimitError) -> Self {
        ser::Error::custom(error)
    }
}

impl ser::Error for EncodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string().into())
    }
}

/// Appends values to bytes.
pub(super) struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    /// Arrays and maps that are open.
    depth: usize,
    /// Values so far, those of arrays and maps whose length is known included.
    items: usize,
    /// The bytes that come next are an extension.
    extension: bool,
}

/// Heads of a kind with a length: the short one for less than `small`, then those with one, two and four bytes for it.
struct Heads {
    small: Option<(u8, usize)>,
    one: Option<u8>,
    two: u8,
    four: u8,
    /// How many values a member is.
    values: usize,
}

const STR: Heads =
    Heads { small: Some((0xa0, 32)), one: Some(0xd9), two: 0xda, four: 0xdb, values: 0 };
const BIN: Heads = Heads { small: None, one: Some(0xc4), two: 0xc5, four: 0xc6, values: 0 };
const EXT: Heads = Heads { small: None, one: Some(0xc7), two: 0xc8, four: 0xc9, values: 0 };
const ARRAY: Heads = Heads { small: Some((0x90, 16)), one: None, two: 0xdc, four: 0xdd, values: 1 };
const MAP: Heads = Heads { small: Some((0x80, 16)), one: None, two: 0xde, four: 0xdf, values: 2 };

impl Heads {
    fn write(&self, out: &mut Vec<u8>, length: usize) -> Result<(), EncodeError> {
        match (self.small, self.one) {
            (Some((marker, below)), _) if length < below => out.push(marker | length as u8),
            (_, Some(marker)) if length <= 0xff => out.extend([marker, length as u8]),
            _ if length <= 0xffff => {
                out.push(self.two);
                out.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                let length = u32::try_from(length).map_err(|_| {
                    <EncodeError as ser::Error>::custom("it is longer than MessagePack can say")
                })?;
                out.push(self.four);
                out.extend_from_slice(&length.to_be_bytes());
            }
        }
        Ok(())
    }
}

impl<'a> Encoder<'a> {
    /// For one value inside of so many arrays and maps.
    pub(super) fn new(out: &'a mut Vec<u8>, depth: usize) -> Self {
        Self { out, depth, items: 1, extension: false }
    }

    fn text(&mut self, text: &str) -> Result<(), EncodeError> {
        STR.write(self.out, text.len())?;
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn unsigned(&mut self, number: u64) {
        match number {
            0..=0x7f => self.out.push(number as u8),
            0x80..=0xff => self.out.extend([0xcc, number as u8]),
            0x100..=0xffff => {
                self.out.push(0xcd);
                self.out.extend_from_slice(&(number as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.out.push(0xce);
                self.out.extend_from_slice(&(number as u32).to_be_bytes());
            }
            _ => {
                self.out.push(0xcf);
                self.out.extend_from_slice(&number.to_be_bytes());
            }
        }
    }

    fn signed(&mut self, number: i64) {
        match number {
            0.. => self.unsigned(number as u64),
            -0x20..=-1 => self.out.push(number as u8),
            -0x80..=-0x21 => self.out.extend([0xd0, number as u8]),
            -0x8000..=-0x81 => {
                self.out.push(0xd1);
                self.out.extend_from_slice(&(number as i16).to_be_bytes());
            }
            -0x8000_0000..=-0x8001 => {
                self.out.push(0xd2);
                self.out.extend_from_slice(&(number as i32).to_be_bytes());
            }
            _ => {
                self.out.push(0xd3);
                self.out.extend_from_slice(&number.to_be_bytes());
            }
        }
    }

    fn open(&mut self) -> Result<(), EncodeError> {
        if self.depth == MAX_DEPTH {
            return Err(LimitError::Depth.into());
        }
        self.depth += 1;
        Ok(())
    }

    /// So many members come, or were there.
    fn count(&mut self, heads: &Heads, members: usize) -> Result<(), EncodeError> {
        self.items = self.items.saturating_add(members.saturating_mul(heads.values));
        if self.items > MAX_ITEMS { Err(LimitError::Items.into()) } else { Ok(()) }
    }

    /// An array or a map, whose head is written now where the length is known, else at its end. `around`: the levels that end with it.
    fn members(
        &mut self,
        heads: &'static Heads,
        length: Option<usize>,
        around: usize,
    ) -> Result<Members<'_, 'a>, EncodeError> {
        self.open()?;
        if let Some(length) = length {
            self.count(heads, length)?;
            heads.write(self.out, length)?;
        }
        let start = self.out.len();
        Ok(Members { encoder: self, heads, start, length, count: 0, levels: 1 + around })
    }

    /// A map of a variant's name to what comes.
    fn variant(&mut self, name: &str) -> Result<(), EncodeError> {
        self.open()?;
        self.count(&MAP, 1)?;
        MAP.write(self.out, 1)?;
        self.text(name)
    }
}

/// An array or a map under way.
pub(super) struct Members<'b, 'a> {
    encoder: &'b mut Encoder<'a>,
    heads: &'static Heads,
    /// Where the members begin.
    start: usize,
    length: Option<usize>,
    count: usize,
    /// How many levels end with it.
    levels: usize,
}

impl Members<'_, '_> {
    fn member<T: Serialize + ?Sized>(&mut self, member: &T) -> Result<(), EncodeError> {
        self.count += 1;
        member.serialize(&mut *self.encoder)
    }

    fn field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.encoder.text(key)?;
        self.member(value)
    }

    fn close(self) -> Result<(), EncodeError> {
        self.encoder.depth -= self.levels;
        match self.length {
            Some(length) if length == self.count => Ok(()),
            Some(length) => {
                let count = self.count;
                let message = format_args!(
                    "its type says that there are {length} members, there are {count}"
                );
                Err(ser::Error::custom(message))
            }
            None => {
                self.encoder.count(self.heads, self.count)?;
                let mut head = Vec::with_capacity(5);
                self.heads.write(&mut head, self.count)?;
                self.encoder.out.splice(self.start..self.start, head);
                Ok(())
            }
        }
    }
}

/// Beyond 64 bits.
fn too_large(number: impl fmt::Display) -> EncodeError {
    ser::Error::custom(format_args!("{number} is beyond 64 bits; send it as a `Decimal` or a text"))
}

impl<'b, 'a> Serializer for &'b mut Encoder<'a> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Members<'b, 'a>;
    type SerializeTuple = Members<'b, 'a>;
    type SerializeTupleStruct = Members<'b, 'a>;
    type SerializeTupleVariant = Members<'b, 'a>;
    type SerializeMap = Members<'b, 'a>;
    type SerializeStruct = Members<'b, 'a>;
    type SerializeStructVariant = Members<'b, 'a>;

    fn serialize_bool(self, value: bool) -> Result<(), EncodeError> {
        self.out.push(if value { 0xc3 } else { 0xc2 });
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<(), EncodeError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), EncodeError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), EncodeError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), EncodeError> {
        self.signed(value);
        Ok(())
    }

    fn serialize_i128(self, value: i128) -> Result<(), EncodeError> {
        match (i64::try_from(value), u64::try_from(value)) {
            (Ok(value), _) => self.signed(value),
            (_, Ok(value)) => self.unsigned(value),
            _ => return Err(too_large(value)),
        }
        Ok(())
    }

    fn serialize_u8(self, value: u8) -> Result<(), EncodeError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), EncodeError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), EncodeError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), EncodeError> {
        self.unsigned(value);
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Result<(), EncodeError> {
        self.unsigned(u64::try_from(value).map_err(|_| too_large(value))?);
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), EncodeError> {
        self.out.push(0xca);
        self.out.extend_from_slice(&value.to_bits().to_be_bytes());
        Ok(())
    }

    fn serialize_f64(self, value: f64) -> Result<(), EncodeError> {
        self.out.push(0xcb);
        self.out.extend_from_slice(&value.to_bits().to_be_bytes());
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), EncodeError> {
        self.text(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), EncodeError> {
        self.text(value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), EncodeError> {
        match (std::mem::take(&mut self.extension), value) {
            (true, [kind, content @ ..]) => {
                match content.len() {
                    length @ (1 | 2 | 4 | 8 | 16) => {
                        self.out.push(0xd4 + length.trailing_zeros() as u8);
                    }
                    length => EXT.write(self.out, length)?,
                }
                self.out.push(*kind);
                self.out.extend_from_slice(content);
            }
            _ => {
                BIN.write(self.out, value.len())?;
                self.out.extend_from_slice(value);
            }
        }
        Ok(())
    }

    fn serialize_none(self) -> Result<(), EncodeError> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), EncodeError> {
        self.out.push(0xc0);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), EncodeError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), EncodeError> {
        self.text(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.extension = name == EXTENSION;
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.variant(variant)?;
        value.serialize(&mut *self)?;
        self.depth -= 1;
        Ok(())
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Members<'b, 'a>, EncodeError> {
        self.members(&ARRAY, length, 0)
    }

    fn serialize_tuple(self, length: usize) -> Result<Members<'b, 'a>, EncodeError> {
        self.members(&ARRAY, Some(length), 0)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        length: usize,
    ) -> Result<Members<'b, 'a>, EncodeError> {
        self.members(&ARRAY, Some(length), 0)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Members<'b, 'a>, EncodeError> {
        self.variant(variant)?;
        self.members(&ARRAY, Some(length), 1)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Members<'b, 'a>, EncodeError> {
        self.members(&MAP, length, 0)
    }

    fn serialize_struct(
        self,
        _: &'static str,
        length: usize,
    ) -> Result<Members<'b, 'a>, EncodeError> {
        self.members(&MAP, Some(length), 0)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Members<'b, 'a>, EncodeError> {
        self.variant(variant)?;
        self.members(&MAP, Some(length), 1)
    }
}

/// The traits whose members are values alone.
macro_rules! values {
    ($($name:ident $method:ident),+ $(,)?) => {
        $(impl ser::$name for Members<'_, '_> {
            type Ok = ();
            type Error = EncodeError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
                self.member(value)
            }

            fn end(self) -> Result<(), EncodeError> {
                self.close()
            }
        })+
    };
}

values! {
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field,
}

/// The traits whose members have names.
macro_rules! fields {
    ($($name:ident),+ $(,)?) => {
        $(impl ser::$name for Members<'_, '_> {
            type Ok = ();
            type Error = EncodeError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), EncodeError> {
                self.field(key, value)
            }

            fn end(self) -> Result<(), EncodeError> {
                self.close()
            }
        })+
    };
}

fields!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Members<'_, '_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        key.serialize(&mut *self.encoder)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.member(value)
    }

    fn end(self) -> Result<(), EncodeError> {
        self.close()
    }
}
