//! What may be sent to anybody: a service of ours reads it, and a container of lymph lives on.
//!
//! lymph's containers end for good at a value that Python cannot make: a `__type__` that they do not know, content that is none of its
//! type, a set's member or a map's key that has no hash.

use super::de::{EMBEDDED, TYPE_KEY};
use super::json::{self, JsonError};
use super::limits::MAX_DEPTH;
use super::types::Decimal;
use super::{Value, pack, unpack};

/// Digits of an exponent that Python's `Decimal` takes in any case: it ends at 10^18.
const EXPONENT: usize = 17;
/// Python's years.
const YEARS: std::ops::RangeInclusive<i16> = 1..=9999;

impl Value {
    /// The value, if it arrives as it is, whoever reads it.
    ///
    /// # Errors
    /// What would not, and where it is: a key that stands twice, a map with a key `__type__`, what Python has no hash of in a set or as a
    /// key, an extension 101 that holds no packed value, more than [`MAX_DEPTH`] levels, [`MAX_ITEMS`](super::limits::MAX_ITEMS) values or
    /// [`MAX_BODY`](super::limits::MAX_BODY) bytes.
    pub fn sendable(self) -> Result<Self, JsonError> {
        walk(&self, MAX_DEPTH, None)?;
        pack(&self).map_err(|error| JsonError::special(error.to_string()))?;
        self.with_each_key_once()
    }
}

/// Looks through a value that may open `room` levels; `hashed` says where it stands if it needs a hash there.
fn walk(value: &Value, room: usize, hashed: Option<&'static str>) -> Result<(), JsonError> {
    let inside = |levels| {
        room.checked_sub(levels).ok_or_else(|| {
            JsonError::special(format!(
                "it is nested deeper than {MAX_DEPTH} levels, which nobody reads"
            ))
        })
    };
    let member = |at: usize, value, room, hashed| {
        walk(value, room, hashed).map_err(|error| error.within(format_args!("[{at}]")))
    };
    match value {
        Value::Nil
        | Value::Bool(_)
        | Value::Int(_)
        | Value::UInt(_)
        | Value::Float(_)
        | Value::Str(_)
        | Value::Bytes(_) => Ok(()),
        Value::List(members) => {
            has_hash(false, "a list", hashed)?;
            let room = inside(1)?;
            members.iter().enumerate().try_for_each(|(at, one)| member(at, one, room, None))
        }
        Value::Set(members) => {
            has_hash(false, "a set", hashed)?;
            let (room, hashed) = (inside(2)?, Some("a member of a set"));
            members.iter().enumerate().try_for_each(|(at, one)| member(at, one, room, hashed))
        }
        Value::Map(entries) => {
            has_hash(false, "a map", hashed)?;
            map(entries, inside(1)?)
        }
        Value::Ext(EMBEDDED, bytes) => {
            let room = inside(1)?;
            let embedded: Value = unpack(bytes, "ext 101").map_err(|error| {
                JsonError::special(format!(
                    "`ext` 101 holds a packed value, and these bytes are none: {error}"
                ))
            })?;
            walk(&embedded, room, hashed)
        }
        Value::Ext(..) => Ok(()),
        Value::Date(date) => inside(1).and_then(|_| year(date.0.year())),
        Value::DateTime(moment) => inside(1).and_then(|_| year(moment.civil.year())),
        Value::Decimal(number) => {
            inside(1)?;
            decimal(number)?;
            let signals = number.as_str().to_ascii_lowercase().contains("snan");
            has_hash(!signals, "a `sNaN`", hashed)
        }
        Value::Time(_) | Value::Uuid(_) | Value::Undefined => inside(1).map(drop),
    }
}

fn map(entries: &[(Value, Value)], room: usize) -> Result<(), JsonError> {
    for (key, value) in entries {
        if key.as_str() == Some(TYPE_KEY) {
            return Err(JsonError::special(
                "a map with the key `__type__` is read as a special value, and this is none: a container of lymph would end at it; give the key another name",
            ));
        }
        let step = json::name_of(key);
        walk(key, room, Some("a key")).map_err(|error| error.within(&step))?;
        walk(value, room, None).map_err(|error| error.within(&step))?;
    }
    Ok(())
}

fn has_hash(has: bool, what: &str, hashed: Option<&str>) -> Result<(), JsonError> {
    match hashed {
        Some(place) if !has => Err(JsonError::special(format!(
            "{what} cannot be {place}: Python has no hash of it, and a container of lymph would end at it"
        ))),
        _ => Ok(()),
    }
}

fn year(year: i16) -> Result<(), JsonError> {
    if YEARS.contains(&year) {
        return Ok(());
    }
    Err(JsonError::special(format!(
        "Python has no year {year}, only {} to {}",
        YEARS.start(),
        YEARS.end()
    )))
}

fn decimal(number: &Decimal) -> Result<(), JsonError> {
    let exponent = number.as_str().rsplit_once(['e', 'E']).map_or("", |(_, exponent)| exponent);
    let digits = exponent.trim_start_matches(['+', '-', '0']).len();
    if digits <= EXPONENT {
        return Ok(());
    }
    Err(JsonError::special(format!(
        "the exponent of `{number}` has more than {EXPONENT} digits, which Python does not take"
    )))
}
