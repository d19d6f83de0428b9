//! Values that MessagePack has no word for, as lymph sends them: a map `{"__type__": T, "_": S}`.
//!
//! Each type here serialises to that map in every format (so JSON of it is lymph's JSON) and reads the map as well as
//! the plain content: [`Decimal`] takes a text, [`Set`] an array.

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::str::FromStr;

use jiff::civil;
use jiff::tz::Offset;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::de::{CONTENT_KEY, TYPE_KEY};

/// Writes the map of a special value.
fn special<S: Serializer, T: Serialize + ?Sized>(
    serializer: S,
    name: &str,
    content: &T,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(2))?;
    map.serialize_entry(TYPE_KEY, name)?;
    map.serialize_entry(CONTENT_KEY, content)?;
    map.end()
}

/// Reads a text, or the map with a text.
struct Text<T>(&'static str, fn(&str) -> Result<T, InvalidText>);

impl<'de, T> Visitor<'de> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a `{}`", self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut content = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                TYPE_KEY if map.next_value::<String>()? == self.0 => {}
                CONTENT_KEY => content = Some(map.next_value::<String>()?),
                _ => return Err(de::Error::custom(format_args!("not a `{}`", self.0))),
            }
        }
        let content = content.ok_or_else(|| de::Error::missing_field(CONTENT_KEY))?;
        self.visit_str(&content)
    }
}

/// A text that is not what its type says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what}")]
pub struct InvalidText {
    what: &'static str,
    text: String,
}

impl InvalidText {
    fn new(what: &'static str, text: &str) -> Self {
        Self { what, text: text.chars().take(80).collect() }
    }
}

macro_rules! text_type {
    ($type:ident, $name:literal) => {
        impl $type {
            /// Its name under `__type__`.
            pub const NAME: &'static str = $name;
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                special(serializer, Self::NAME, &self.to_string())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Text(Self::NAME, Self::parse))
            }
        }

        impl FromStr for $type {
            type Err = InvalidText;

            fn from_str(text: &str) -> Result<Self, InvalidText> {
                Self::parse(text)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($name, "({})"), self)
            }
        }
    };
}

/// A decimal number with its exponent and trailing zeros as they were written: `1.50`, `1E+3`, `NaN`, `-0`.
///
/// It is kept as text: nothing is rounded, and arithmetic belongs to a library of your choice.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Decimal(Box<str>);

text_type!(Decimal, "Decimal");

impl Decimal {
    /// Reads Python's notation: digits with an optional point and exponent, `Infinity`, `NaN`, `sNaN`.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn parse(text: &str) -> Result<Self, InvalidText> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        if is_decimal(unsigned) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidText::new("decimal number", text))
        }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Digits, point, exponent; or one of the words.
fn is_decimal(unsigned: &str) -> bool {
    let lower = unsigned.to_ascii_lowercase();
    if matches!(lower.as_str(), "inf" | "infinity") {
        return true;
    }
    let nan = lower.strip_prefix("nan").or_else(|| lower.strip_prefix("snan"));
    if let Some(payload) = nan {
        return payload.bytes().all(|byte| byte.is_ascii_digit());
    }
    let (number, exponent) = lower.split_once('e').map_or((&*lower, None), |(n, e)| (n, Some(e)));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let exponent_is_number = exponent.is_none_or(|text| {
        let text = text.strip_prefix(['+', '-']).unwrap_or(text);
        !text.is_empty() && digits(text)
    });
    digits(whole) && digits(fraction) && whole.len() + fraction.len() > 0 && exponent_is_number
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<i64> for Decimal {
    fn from(number: i64) -> Self {
        Self(number.to_string().into())
    }
}

/// A UUID that Python is to see as one. A plain [`uuid::Uuid`] reads it, and is sent as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(pub uuid::Uuid);

text_type!(Uuid, "UUID");

impl Uuid {
    fn parse(text: &str) -> Result<Self, InvalidText> {
        text.parse().map(Self).map_err(|_| InvalidText::new("UUID", text))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<uuid::Uuid> for Uuid {
    fn from(uuid: uuid::Uuid) -> Self {
        Self(uuid)
    }
}

/// A day.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Date(pub civil::Date);

text_type!(Date, "date");

impl Date {
    fn parse(text: &str) -> Result<Self, InvalidText> {
        text.parse().map(Self).map_err(|_| InvalidText::new("date", text))
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<civil::Date> for Date {
    fn from(date: civil::Date) -> Self {
        Self(date)
    }
}

/// A time of day in whole seconds: lymph reads `HH:MM:SSZ` and nothing else, so parts of a second are not sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time(pub civil::Time);

text_type!(Time, "time");

impl Time {
    fn parse(text: &str) -> Result<Self, InvalidText> {
        let bare = text.strip_suffix('Z').unwrap_or(text);
        bare.parse().map(Self).map_err(|_| InvalidText::new("time", text))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}:{:02}Z", self.0.hour(), self.0.minute(), self.0.second())
    }
}

impl From<civil::Time> for Time {
    fn from(time: civil::Time) -> Self {
        Self(time)
    }
}

/// A moment as a calendar and a clock show it, with or without an offset from UTC.
///
/// Parts of a second are sent: lymph reads them, though it never writes them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DateTime {
    /// Calendar and clock.
    pub civil: civil::DateTime,
    /// How far ahead of UTC the clock is; `None` = nobody said (Python's "naive").
    pub offset: Option<Offset>,
}

text_type!(DateTime, "datetime");

impl DateTime {
    /// Reads ISO 8601: `2015-03-14T09:26:53`, with `Z`, `+05:30`, `+0530` and fractions.
    fn parse(text: &str) -> Result<Self, InvalidText> {
        let invalid = || InvalidText::new("date and time", text);
        if let Ok(pieces) = jiff::fmt::temporal::DateTimeParser::new().parse_timestamp(text) {
            let offset = offset_of(text).ok_or_else(invalid)?;
            return Ok(Self { civil: offset.to_datetime(pieces), offset: Some(offset) });
        }
        text.parse().map(|civil| Self { civil, offset: None }).map_err(|_| invalid())
    }

    /// The moment, where the offset is known.
    pub fn timestamp(&self) -> Option<jiff::Timestamp> {
        self.offset?.to_timestamp(self.civil).ok()
    }
}

/// The offset at the end of a timestamp.
fn offset_of(text: &str) -> Option<Offset> {
    if text.ends_with(['Z', 'z']) {
        return Some(Offset::UTC);
    }
    let at = text.rfind(['+', '-'])?;
    let digits: String = text[at + 1..].chars().filter(char::is_ascii_digit).collect();
    let part = |range| digits.get(range).map_or(Some(0), |part: &str| part.parse::<i32>().ok());
    let seconds = part(0..2)? * 3600 + part(2..4)? * 60 + part(4..6)?;
    Offset::from_seconds(if text[at..].starts_with('-') { -seconds } else { seconds }).ok()
}

impl fmt::Display for DateTime {
    /// lymph's form: an offset has no colon, UTC is `+0000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.civil.fmt(f)?;
        let Some(offset) = self.offset else { return Ok(()) };
        let seconds = offset.seconds();
        let sign = if seconds < 0 { '-' } else { '+' };
        let minutes = seconds.abs() / 60;
        write!(f, "{sign}{:02}{:02}", minutes / 60, minutes % 60)
    }
}

impl From<civil::DateTime> for DateTime {
    fn from(civil: civil::DateTime) -> Self {
        Self { civil, offset: None }
    }
}

impl From<jiff::Timestamp> for DateTime {
    fn from(moment: jiff::Timestamp) -> Self {
        Self { civil: Offset::UTC.to_datetime(moment), offset: Some(Offset::UTC) }
    }
}

impl From<&jiff::Zoned> for DateTime {
    fn from(zoned: &jiff::Zoned) -> Self {
        Self { civil: zoned.datetime(), offset: Some(zoned.offset()) }
    }
}

/// lymph's marker for "no value was given", other than nil.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Undefined;

impl Undefined {
    /// Its name under `__type__`.
    pub const NAME: &'static str = "UndefinedType";
}

impl Serialize for Undefined {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        special(serializer, Self::NAME, "")
    }
}

impl<'de> Deserialize<'de> for Undefined {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text(Self::NAME, |_| Ok(Self)))
    }
}

/// A set of Python: `Set<i32>` is a set of numbers. A plain `HashSet` or `Vec` reads it, and is sent as an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set<T: Eq + Hash>(pub HashSet<T>);

impl<T: Eq + Hash> Default for Set<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T: Eq + Hash> FromIterator<T> for Set<T> {
    fn from_iter<I: IntoIterator<Item = T>>(members: I) -> Self {
        Self(members.into_iter().collect())
    }
}

impl<T: Eq + Hash, const N: usize> From<[T; N]> for Set<T> {
    fn from(members: [T; N]) -> Self {
        members.into_iter().collect()
    }
}

/// Members as a set, in the order in which they are given.
pub(super) struct InOrder<'a, T>(pub(super) &'a [T]);

/// Its name under `__type__`.
const SET: &str = "set";

impl<T: Serialize> Serialize for InOrder<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        special(serializer, SET, self.0)
    }
}

impl<T: Eq + Hash + Serialize> Serialize for Set<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        special(serializer, SET, &self.0)
    }
}

impl<'de, T: Eq + Hash + Deserialize<'de>> Deserialize<'de> for Set<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(std::marker::PhantomData<T>);

        impl<'de, T: Eq + Hash + Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Set<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a set")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Set<T>, A::Error> {
                HashSet::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(Set)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Set<T>, A::Error> {
                let mut content = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key == CONTENT_KEY {
                        content = Some(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                content.map(Set).ok_or_else(|| de::Error::missing_field(CONTENT_KEY))
            }
        }
        deserializer.deserialize_any(Members(std::marker::PhantomData))
    }
}
