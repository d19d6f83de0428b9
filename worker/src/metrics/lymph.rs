//! lymph's form of what is published: MessagePack as it was before it knew text from bytes.
//!
//! Only the old "raw" strings are written (there is no 8-bit length, so 32 bytes and more take a 16-bit one), as lymph
//! does. Both forms are read.

use hilum_shared::metrics::{Kind, Series, Tags, Value};
use hilum_shared::wire::limits;
use rmpv::ValueRef;

/// What one message says.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// When it was said, in seconds of the Unix time.
    pub time: f64,
    /// What was said. Kinds and help are not on the wire.
    pub series: Vec<Series>,
}

/// Why a message is no report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Too deep, too many values, cut off, or followed by something.
    #[error(transparent)]
    Limit(#[from] limits::LimitError),
    /// Not `{time, series: [[name, value, tags], …]}`.
    #[error("no report: {expected} is expected")]
    Shape {
        /// What is not there.
        expected: &'static str,
    },
}

/// The body of lymph's `stats` message: `{"time": …, "series": [[name, value, tags], …]}`, byte for byte as lymph packs
/// it. `time` is in seconds of the Unix time.
pub fn to_lymph(time: f64, series: &[Series]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 * series.len() + 32);
    head(&mut out, 0x80, 0xde, 2);
    raw(&mut out, "time");
    float(&mut out, time);
    raw(&mut out, "series");
    head(&mut out, 0x90, 0xdc, series.len());
    for Series { name, value, tags, .. } in series {
        head(&mut out, 0x90, 0xdc, 3);
        raw(&mut out, name);
        match value {
            Value::Int(value) => int(&mut out, *value),
            Value::Float(value) => float(&mut out, *value),
        }
        let tags = tags.iter();
        head(&mut out, 0x80, 0xde, tags.len());
        for (name, value) in tags {
            raw(&mut out, name);
            match value {
                Some(value) => raw(&mut out, value),
                None => out.push(0xc0),
            }
        }
    }
    out
}

/// The head of an array or a map; `wide` is the marker of 16 bits, and that of 32 bits follows it.
fn head(out: &mut Vec<u8>, fix: u8, wide: u8, len: usize) {
    match (len, u16::try_from(len)) {
        (0..=15, _) => out.push(fix | len as u8),
        (_, Ok(len)) => {
            out.push(wide);
            out.extend(len.to_be_bytes());
        }
        _ => {
            out.push(wide + 1);
            out.extend((len as u32).to_be_bytes());
        }
    }
}

fn raw(out: &mut Vec<u8>, text: &str) {
    match (text.len(), u16::try_from(text.len())) {
        (0..=31, _) => out.push(0xa0 | text.len() as u8),
        (_, Ok(len)) => {
            out.push(0xda);
            out.extend(len.to_be_bytes());
        }
        _ => {
            out.push(0xdb);
            out.extend((text.len() as u32).to_be_bytes());
        }
    }
    out.extend(text.as_bytes());
}

fn float(out: &mut Vec<u8>, value: f64) {
    out.push(0xcb);
    out.extend(value.to_be_bytes());
}

/// The shortest form; whole numbers of 0 and more are unsigned.
fn int(out: &mut Vec<u8>, value: i64) {
    match value {
        0..=0x7f => out.push(value as u8),
        -32..=-1 => out.push(value as i8 as u8),
        0x80..=0xff => out.extend([0xcc, value as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend((value as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend((value as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            out.push(0xcf);
            out.extend(value.to_be_bytes());
        }
        -0x80..=-33 => out.extend([0xd0, value as i8 as u8]),
        -0x8000..=-0x81 => {
            out.push(0xd1);
            out.extend((value as i16).to_be_bytes());
        }
        -0x8000_0000..=-0x8001 => {
            out.push(0xd2);
            out.extend((value as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend(value.to_be_bytes());
        }
    }
}

/// Reads the body of a `stats` message, from lymph on Python 2 or 3 or from ours, with old or new strings.
///
/// # Errors
/// See [`ReportError`]. Entries that are not known are passed over.
pub fn from_lymph(bytes: &[u8]) -> Result<Report, ReportError> {
    limits::check(bytes)?;
    let shape = |expected| ReportError::Shape { expected };
    let value = rmpv::decode::read_value_ref(&mut &bytes[..]).map_err(|_| shape("MessagePack"))?;
    let ValueRef::Map(entries) = value else { return Err(shape("a map")) };
    let (mut time, mut all) = (None, None);
    for (key, value) in entries {
        match text(&key) {
            Some("time") => time = number(&value),
            Some("series") => all = Some(value),
            _ => {}
        }
    }
    let time = time.ok_or_else(|| shape("a time"))?.as_f64();
    let Some(ValueRef::Array(all)) = all else { return Err(shape("a list of series")) };
    let series = all.into_iter().map(|one| read(one).ok_or_else(|| shape("[name, value, tags]")));
    Ok(Report { time, series: series.collect::<Result<_, _>>()? })
}

fn read(series: ValueRef<'_>) -> Option<Series> {
    let ValueRef::Array(parts) = series else { return None };
    let [name, value, ValueRef::Map(pairs)] = parts.as_slice() else { return None };
    let mut tags = Tags::none();
    for (name, value) in pairs {
        let value = match value {
            ValueRef::Nil => None,
            other => Some(text(other).map_or_else(|| other.to_string(), str::to_owned)),
        };
        tags = tags.with(text(name)?.to_owned(), value);
    }
    Some(Series {
        name: text(name)?.to_owned().into(),
        value: number(value)?,
        tags,
        kind: Kind::Unknown,
        help: "".into(),
    })
}

/// A text, also where a Python 2 peer sent it as bytes.
fn text<'a>(value: &ValueRef<'a>) -> Option<&'a str> {
    match value {
        ValueRef::String(text) => text.into_str(),
        ValueRef::Binary(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

fn number(value: &ValueRef<'_>) -> Option<Value> {
    match value {
        ValueRef::Integer(value) => Some(match value.as_i64() {
            Some(value) => Value::Int(value),
            None => Value::Float(value.as_f64()?),
        }),
        ValueRef::F32(value) => Some(Value::Float(f64::from(*value))),
        ValueRef::F64(value) => Some(Value::Float(*value)),
        ValueRef::Boolean(value) => Some(Value::Int(i64::from(*value))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, value: Value, tags: Tags) -> Series {
        Series { name: name.to_owned().into(), value, tags, kind: Kind::Unknown, help: "".into() }
    }

    #[test]
    fn old_strings_have_no_eight_bit_length() {
        let long = "x".repeat(32);
        let tags = Tags::none().with("a", None).with("id", Some(long.clone()));
        let bytes = to_lymph(1.5, &[series("n", 300_i64.into(), tags)]);
        let mut wanted =
            b"\x82\xa4time\xcb\x3f\xf8\0\0\0\0\0\0\xa6series\x91\x93\xa1n\xcd\x01\x2c".to_vec();
        wanted.extend(b"\x82\xa1a\xc0\xa2id\xda\0\x20");
        wanted.extend(long.as_bytes());
        assert_eq!(bytes, wanted);
    }

    #[test]
    fn every_number_and_size_is_read_as_it_was_written() {
        let edges = [0, 1, 127, 128, 255, 256, 65_535, 65_536, u32::MAX.into(), 1 << 32, i64::MAX];
        let mut values: Vec<Value> = edges.into_iter().map(Value::Int).collect();
        let below =
            [-1, -32, -33, -128, -129, -32_768, -32_769, -2_147_483_648, -2_147_483_649, i64::MIN];
        values.extend(below.map(Value::Int));
        values.extend([0.0, -1.5, f64::INFINITY].map(Value::Float));
        let sizes = [0, 15, 16, 31, 32, 255, 256, 70_000];
        let tags = |count| {
            (0..count)
                .fold(Tags::none(), |tags: Tags, n| tags.with(format!("t{n}"), Some(String::new())))
        };
        let mut all: Vec<Series> =
            values.into_iter().map(|value| series("n", value, tags(16))).collect();
        all.extend(sizes.map(|size| series(&"n".repeat(size), 1_i64.into(), tags(1))));
        let bytes = to_lymph(2.0, &all);
        assert_eq!(from_lymph(&bytes).unwrap(), Report { time: 2.0, series: all.clone() });
        // What was chosen is what rmpv chooses where both have a choice: numbers.
        for one in &all[..21] {
            let Value::Int(value) = one.value else { continue };
            let mut ours = Vec::new();
            int(&mut ours, value);
            let mut theirs = Vec::new();
            rmpv::encode::write_value(&mut theirs, &value.into()).unwrap();
            assert_eq!(ours, theirs, "{value}");
        }
    }

    #[test]
    fn new_strings_and_bytes_are_read_and_nonsense_is_an_error() {
        let bytes = b"\x83\xc4\x04time\x07\xd9\x06series\x91\x93\xc4\x01n\xcb\x3f\xf8\0\0\0\0\0\0\x81\xa1a\x05\xa1x\x90";
        let report = from_lymph(bytes).unwrap();
        assert!((report.time - 7.0).abs() < f64::EPSILON);
        assert_eq!(
            report.series,
            [series("n", 1.5.into(), Tags::none().with("a", Some("5".into())))]
        );
        for bad in [
            &b""[..],
            b"\xc0",
            b"\x80",
            b"\x82\xa4time\x01\xa6series\xc0",
            b"\x82\xa4time\x01\xa6series\x91\x92\xa1n\x01",
            b"\x82\xa4time\x01\xa6series\x91\x93\xa1n\xa1x\x80",
            b"\x82\xa4time\x01\xa6series\x90\x00",
            b"\x82\xa4time\x01\xa6series\x91\x93\xa1\xff\x01\x80",
        ] {
            assert!(from_lymph(bad).is_err(), "{bad:x?}");
        }
    }
}
