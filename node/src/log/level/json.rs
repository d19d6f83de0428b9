//! Levels of JSON lines: the keys of the common loggers, and one that the configuration names.

use hilum_shared::protocol::Level;

use super::fields::json_members;
use super::{number, of_severity, word};

/// So far into a line its level is looked for.
const REACH: usize = 4096;

/// The level of a JSON line, under any of the common keys.
pub(super) fn of_line(line: &[u8]) -> Option<Level> {
    json_members(&line[..line.len().min(REACH)], |key, value| match key {
        b"level" | b"lvl" | b"severity" | b"levelname" | b"log.level" | b"loglevel" | b"Level"
        | b"LogLevel" | b"Severity" | b"logLevel" | b"level_name" | b"severity_text"
        | b"severityText" | b"@l" => of_value(value, line),
        b"levelno" => number(value).and_then(of_python),
        // MongoDB
        b"s" => match value {
            br#""D1""# | br#""D2""# | br#""D3""# | br#""D4""# | br#""D5""# => Some(Level::Debug),
            br#""I""# => Some(Level::Info),
            br#""W""# => Some(Level::Warning),
            br#""E""# => Some(Level::Error),
            br#""F""# => Some(Level::Critical),
            _ => None,
        },
        // ECS where it is not flat
        b"log" => json_members(
            value,
            |key, value| if key == b"level" { of_value(value, line) } else { None },
        ),
        _ => None,
    })
}

/// The level under `key`, which may name a member of a member.
pub(super) fn under(line: &[u8], key: &str) -> Option<Level> {
    json_members(line, |name, value| {
        if name == key.as_bytes() {
            return of_value(value, line);
        }
        let rest = key.strip_prefix(std::str::from_utf8(name).ok()?)?.strip_prefix('.')?;
        under(value, rest)
    })
}

fn of_value(value: &[u8], line: &[u8]) -> Option<Level> {
    if let Some(text) = value.strip_prefix(b"\"") {
        return word(text.strip_suffix(b"\"")?);
    }
    match number(value)? {
        // GELF counts as syslog does; others that count from 0 count something else.
        severity @ 0..=7 if memchr::memmem::find(line, b"short_message").is_some() => {
            of_severity(severity)
        }
        number => of_bunyan(number),
    }
}

/// The numbers of bunyan and pino.
fn of_bunyan(number: u32) -> Option<Level> {
    Some(match number {
        10 | 20 => Level::Debug,
        30 => Level::Info,
        40 => Level::Warning,
        50 => Level::Error,
        60 => Level::Critical,
        _ => return None,
    })
}

/// The numbers of Python's `logging`.
fn of_python(number: u32) -> Option<Level> {
    Some(match number {
        10 => Level::Debug,
        20 => Level::Info,
        30 => Level::Warning,
        40 => Level::Error,
        50 => Level::Critical,
        _ => return None,
    })
}
