//! Human durations and sizes, as the configuration and the command line write them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number of bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// A text that is no duration or size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error("`{text}` is no duration: write `250ms`, `10s`, `2m`, `1h30m` or a number of seconds")]
    Duration {
        /// What was given.
        text: String,
    },
    /// Not a size.
    #[error("`{text}` is no size: write `64KiB`, `10MB`, `1GiB` or a number of bytes")]
    Size {
        /// What was given.
        text: String,
    },
}

/// Units of time, longest spelling first where one is the prefix of another; factors in seconds.
pub(crate) const TIME_UNITS: &[(&str, f64)] = &[
    ("ms", 1e-3),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("ns", 1e-9),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
    ("d", 86400.0),
];

/// A hundred years: more is a slip of the pen, and `Duration` arithmetic stays far from overflow.
const LONGEST_SECONDS: f64 = 100.0 * 366.0 * 86400.0;

/// Parses `250ms`, `10s`, `2h30m` or a bare number of seconds, from 0 to a hundred years.
///
/// # Errors
/// When the text is empty, negative, without a known unit or too long.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let error = || UnitError::Duration { text: text.to_owned() };
    let mut rest = text.trim();
    let mut seconds = 0.0;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| error())?;
        rest = &rest[digits..];
        let letters =
            rest.find(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').unwrap_or(rest.len());
        let factor = match &rest[..letters] {
            "" if parts == 0 && rest.is_empty() => 1.0,
            unit => TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?.1,
        };
        rest = rest[letters..].trim_start();
        seconds += number * factor;
        parts += 1;
    }
    if parts == 0 || seconds > LONGEST_SECONDS {
        return Err(error());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| error())
}

/// Writes a duration as people read it: `250ms`, `6.2s`, `3m12s`, `2h05m`, `4d3h`.
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..=9 => {
            let text = format!("{:.1}s", duration.as_secs_f64());
            text.replace(".0s", "s")
        }
        10..=59 => format!("{seconds}s"),
        60..=3599 if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        60..=3599 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..=86399 if seconds % 3600 < 60 => format!("{}h", seconds / 3600),
        3600..=86399 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

/// Units of size with their factors in bytes; a unit is matched without regard to case.
pub(crate) const SIZE_UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("k", 1000),
    ("kb", 1000),
    ("m", 1_000_000),
    ("mb", 1_000_000),
    ("g", 1_000_000_000),
    ("gb", 1_000_000_000),
    ("t", 1_000_000_000_000),
    ("tb", 1_000_000_000_000),
    ("ki", 1 << 10),
    ("kib", 1 << 10),
    ("mi", 1 << 20),
    ("mib", 1 << 20),
    ("gi", 1 << 30),
    ("gib", 1 << 30),
    ("ti", 1 << 40),
    ("tib", 1 << 40),
];

/// Parses `64KiB`, `10MB`, `1.5GiB` or a bare number of bytes.
///
/// # Errors
/// When the text is empty, negative, has an unknown unit or exceeds 2^63 bytes.
pub fn parse_size(text: &str) -> Result<Bytes, UnitError> {
    let error = || UnitError::Size { text: text.to_owned() };
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
    let unit = trimmed[digits..].trim().to_ascii_lowercase();
    let factor = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?.1;
    if let Ok(whole) = trimmed[..digits].parse::<u64>() {
        return whole
            .checked_mul(factor)
            .filter(|bytes| i64::try_from(*bytes).is_ok())
            .map(Bytes)
            .ok_or_else(error);
    }
    let bytes = trimmed[..digits].parse::<f64>().map_err(|_| error())? * factor as f64;
    if bytes.is_finite() && bytes < i64::MAX as f64 {
        Ok(Bytes(bytes as u64))
    } else {
        Err(error())
    }
}

/// Writes a size as people read it: `512 B`, `3.2 MiB`.
pub fn format_size(bytes: Bytes) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes.0 < 1024 {
        return format!("{} B", bytes.0);
    }
    let mut value = bytes.0 as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Serde for a [`Duration`] as a float of seconds, the form of every `--json` output and message.
pub mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes seconds.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(value.as_secs_f64())
    }

    /// Reads seconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("250ms", 250),
            ("10s", 10_000),
            ("2m", 120_000),
            ("2h30m", 9_000_000),
            ("1.5", 1500),
            ("0", 0),
            ("1m 30s", 90_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for text in ["", "-1", "10x", "s", "10 20", "1e3", "10s5", "999999999999d", "..", "1.2.3s"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("64KiB", 65536),
            ("10MB", 10_000_000),
            ("1GiB", 1 << 30),
            ("512", 512),
            ("1.5k", 1500),
            ("2 MiB", 2 << 20),
        ] {
            assert_eq!(parse_size(text).unwrap(), Bytes(bytes), "{text}");
        }
        for text in ["", "x", "-5", "5 XB", "99999999999999999999", "9999999999TiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_and_sizes_are_short_to_read() {
        assert_eq!(format_duration(Duration::from_millis(250)), "250ms");
        assert_eq!(format_duration(Duration::from_millis(6200)), "6.2s");
        assert_eq!(format_duration(Duration::from_secs(6)), "6s");
        assert_eq!(format_duration(Duration::from_secs(192)), "3m12s");
        assert_eq!(format_size(Bytes(3 << 20)), "3.0 MiB");
        assert_eq!(format_size(Bytes(12)), "12 B");
    }
}
