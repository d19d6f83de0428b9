//! Levels of text lines: what stands before the message (times, names in brackets, the logger) is walked through, and a
//! level's word is taken for one where loggers put it: first of all, in brackets, after a time, before a colon.

use hilum_shared::protocol::Level;

use super::fields::{is_logfmt, logfmt_pairs};
use super::word;
use crate::log::line::color;

/// So far into a line its level is looked for.
const REACH: usize = 128;
/// The same for logfmt, where anything may come first.
const LOGFMT_REACH: usize = 512;
/// The name of a logger, a thread or a host is shorter.
const LONGEST_WORD: usize = 48;
/// Names before the level that make the rest prose.
const NAMES: u32 = 3;

/// The level of a line of text.
#[inline]
pub(super) fn of_line(line: &[u8]) -> Option<Level> {
    let first = line.first()?;
    let head = &line[..line.len().min(REACH)];
    if !first.is_ascii_alphabetic() && !has_letter(head) {
        return None;
    }
    match first {
        first @ (b'D' | b'I' | b'W' | b'E' | b'F' | b'A') => {
            if let Some(level) = of_letter(*first, line) {
                return Some(level);
            }
        }
        b'0'..=b'9' => {
            if let Some(level) = of_redis(line) {
                return Some(level);
            }
        }
        b'P' if line.starts_with(b"PHP ") => return of_php(&line[4..]),
        b'n' if line.starts_with(b"npm ") => return of_npm(&line[4..]),
        b'e' if line.starts_with(b"error[E") && is_coded(head) => return Some(Level::Error),
        b'w' if line.starts_with(b"warning[") && is_coded(head) => return Some(Level::Warning),
        _ => {}
    }
    walk(head, line)
}

/// Without a letter there is no word: figures and rulers are told at once, sixteen bytes at a time.
#[inline]
fn has_letter(head: &[u8]) -> bool {
    head.iter().fold(false, |found, byte| found | byte.is_ascii_alphabetic())
}

/// What was seen on the way to a word.
#[derive(Default)]
struct Seen {
    /// A time or date.
    stamp: bool,
    /// Words that may be names, outside of brackets.
    names: u32,
    /// Anything at all.
    any: bool,
    /// Open brackets.
    depth: u32,
    /// The last delimiter that is no space.
    mark: u8,
}

fn walk(head: &[u8], line: &[u8]) -> Option<Level> {
    let mut seen = Seen::default();
    let mut at = 0;
    while let Some(byte) = head.get(at) {
        match byte {
            b'\x1b' => {
                let length = color(&head[at..]);
                if length == 0 {
                    return None;
                }
                at += length;
            }
            b'[' | b'(' | b'<' => {
                seen.depth += 1;
                seen.mark = *byte;
                at += 1;
            }
            b']' | b')' | b'>' => {
                seen.depth = seen.depth.saturating_sub(1);
                seen.mark = *byte;
                at += 1;
            }
            b' ' => at += run(&head[at..]),
            b'"' | b'\'' | b'`' => return None,
            b'=' => {
                let logfmt = seen.names == 1 && seen.depth == 0 && !seen.stamp;
                return if logfmt { of_logfmt(line) } else { None };
            }
            byte if is_delimiter(*byte) => {
                seen.mark = *byte;
                at += run(&head[at..]);
            }
            _ => {
                let rest = &head[at..head.len().min(at + LONGEST_WORD)];
                let length = rest.iter().take_while(|byte| !is_delimiter(**byte)).count();
                if length == LONGEST_WORD {
                    return None;
                }
                let end = at + length;
                let text = &head[at..end];
                match look(text, head, at, end, &mut seen) {
                    Look::Level(level) => return Some(level),
                    Look::Prose => return of_compiler(head),
                    Look::On => {}
                }
                seen.any = true;
                seen.mark = b' ';
                at = end;
            }
        }
    }
    None
}

/// How many bytes at the start are the same: indentation and rulers are passed at once.
#[inline]
fn run(bytes: &[u8]) -> usize {
    const STEP: usize = 16;
    let first = bytes[0];
    let mut length = 1;
    while bytes[length..].first_chunk() == Some(&[first; STEP]) {
        length += STEP;
    }
    length + bytes[length..].iter().take_while(|byte| **byte == first).count()
}

enum Look {
    Level(Level),
    On,
    Prose,
}

fn look(text: &[u8], head: &[u8], at: usize, end: usize, seen: &mut Seen) -> Look {
    let next = head.get(end).copied().unwrap_or(b' ');
    if text[0].is_ascii_digit() {
        seen.stamp |= seen.depth > 0
            || matches!(next, b':' | b'-' | b'/' | b'\t')
            || (text.len() > 3 && text.iter().any(|byte| !byte.is_ascii_digit()));
        return Look::On;
    }
    if let Some(level) = word(text)
        && is_said(text, head, at, end, next, seen)
    {
        return Look::Level(level);
    }
    if seen.depth > 0 || is_calendar(text, seen) {
        seen.stamp |= seen.depth == 0;
        return Look::On;
    }
    seen.names += 1;
    // A key of logfmt may come first; a program's name only after a time.
    if (!seen.stamp && next != b'=' && (seen.any || seen.depth == 0) && !seen.bracketed_first(head))
        || seen.names > NAMES
    {
        return Look::Prose;
    }
    Look::On
}

impl Seen {
    /// Whether the line began with something in brackets, as `[main] INFO …`.
    fn bracketed_first(&self, head: &[u8]) -> bool {
        self.any && self.names == 0 && head.first() == Some(&b'[')
    }
}

/// Whether a word that may be a level stands where loggers put it.
fn is_said(text: &[u8], head: &[u8], at: usize, end: usize, next: u8, seen: &Seen) -> bool {
    let upper = text.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    let after = head[end..].iter().copied().find(|byte| *byte != b' ').unwrap_or(b' ');
    let closed = matches!(after, b']' | b'>' | b')' | b'|');
    if !seen.any {
        // The first of all: `ERROR:root:…`, `error: …`, `INFO  [main] …`, `[info] …`
        return (next == b':' && !matches!(text, b"log" | b"note" | b"config"))
            || (closed && seen.mark != 0)
            || (upper && is_plain(text) && is_space(next));
    }
    if seen.depth > 0 {
        return closed || (upper && seen.stamp);
    }
    if !seen.stamp {
        return upper && seen.names == 0 && seen.mark == b']'
            || seen.bracketed_first(head) && upper;
    }
    let tabbed = next == b'\t' && at > 0 && head[at - 1] == b'\t';
    let lone = (closed && seen.mark == b'|') || tabbed;
    if !upper {
        return lone || (next == b':' && (seen.names == 0 || seen.mark == b':'));
    }
    lone || seen.names <= 1 || matches!(seen.mark, b'-' | b'|' | b']') || next == b':'
}

/// Words that alone, in capitals and first on a line, are a level and no heading.
fn is_plain(text: &[u8]) -> bool {
    matches!(
        text,
        b"TRACE"
            | b"DEBUG"
            | b"INFO"
            | b"NOTICE"
            | b"WARN"
            | b"WARNING"
            | b"ERROR"
            | b"SEVERE"
            | b"FATAL"
            | b"CRITICAL"
            | b"DBG"
            | b"INF"
            | b"WRN"
            | b"ERR"
            | b"FTL"
            | b"TRC"
    )
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\x1b')
}

/// What ends a word. Dots are part of a logger's name. A table, since every byte of a head is asked for.
static DELIMITERS: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0;
    while at <= b' ' as usize {
        table[at] = true;
        at += 1;
    }
    let marks = b"[]()<>{}|:;,=\"'`-+/*#";
    at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

#[inline]
fn is_delimiter(byte: u8) -> bool {
    DELIMITERS[usize::from(byte)]
}

/// A month, a weekday, a zone, a half of the day: `Nov 24`, `12:00 UTC`, `03:04 PM`.
fn is_calendar(text: &[u8], seen: &Seen) -> bool {
    if text.len() > 4 {
        return false;
    }
    match text {
        b"Jan" | b"Feb" | b"Mar" | b"Apr" | b"May" | b"Jun" | b"Jul" | b"Aug" | b"Sep" | b"Oct"
        | b"Nov" | b"Dec" | b"Mon" | b"Tue" | b"Wed" | b"Thu" | b"Fri" | b"Sat" | b"Sun" => true,
        // a zone
        _ => seen.stamp && seen.names == 0 && text.iter().all(u8::is_ascii_uppercase),
    }
}

/// `error[E0425]: …`
fn is_coded(head: &[u8]) -> bool {
    let code = head.split(|byte| *byte == b']').next().unwrap_or_default();
    code.len() < 24 && head[code.len()..].starts_with(b"]: ")
}

/// `src/main.c:3:5: error: …`
fn of_compiler(head: &[u8]) -> Option<Level> {
    let (place, text) = head.split_at(memchr::memchr(b' ', head)?);
    let place = place.strip_suffix(b":")?;
    let digits = place.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || !place[..place.len() - digits].ends_with(b":") {
        return None;
    }
    let words = [
        (b" error: ".as_slice(), Level::Error),
        (b" fatal error: ", Level::Error),
        (b" warning: ", Level::Warning),
        (b" note: ", Level::Info),
    ];
    words.iter().find(|(word, _)| text.starts_with(word)).map(|(_, level)| *level)
}

/// `I1124 12:00:00.123456 …` of klog and glog, `E, [2026-…` of Ruby.
fn of_letter(first: u8, line: &[u8]) -> Option<Level> {
    let level = match first {
        b'D' => Level::Debug,
        b'I' => Level::Info,
        b'W' => Level::Warning,
        b'E' => Level::Error,
        _ => Level::Critical,
    };
    if line.starts_with(&[first, b',', b' ', b'[']) {
        return Some(level);
    }
    let klog = line.get(1..14)?;
    let digits = |range: std::ops::Range<usize>| klog[range].iter().all(u8::is_ascii_digit);
    let shape = digits(0..4) && klog[4] == b' ' && digits(5..7) && klog[7] == b':' && digits(8..10);
    (shape && first != b'A').then_some(level)
}

/// `123:M 24 Nov 2026 12:00:00.123 * …`
fn of_redis(line: &[u8]) -> Option<Level> {
    let digits = line.iter().take(8).take_while(|byte| byte.is_ascii_digit()).count();
    let rest = line.get(digits..)?.strip_prefix(b":")?;
    if !matches!(rest, [b'X' | b'C' | b'S' | b'M', b' ', ..]) {
        return None;
    }
    let mark = rest.split(|byte| *byte == b' ').nth(5)?;
    Some(match mark {
        b"." | b"-" => Level::Debug,
        b"*" => Level::Info,
        b"#" => Level::Warning,
        _ => return None,
    })
}

fn of_php(rest: &[u8]) -> Option<Level> {
    let begins = |word: &[u8]| rest.starts_with(word);
    if begins(b"Fatal error:") {
        Some(Level::Critical)
    } else if begins(b"Parse error:") || begins(b"Catchable fatal error:") {
        Some(Level::Error)
    } else if begins(b"Warning:") || begins(b"Deprecated:") {
        Some(Level::Warning)
    } else {
        begins(b"Notice:").then_some(Level::Info)
    }
}

fn of_npm(rest: &[u8]) -> Option<Level> {
    let end = rest.iter().position(|byte| matches!(byte, b' ' | b'!'))?;
    word(&rest[..end]).filter(|level| *level >= Level::Warning)
}

fn of_logfmt(line: &[u8]) -> Option<Level> {
    let line = &line[..line.len().min(LOGFMT_REACH)];
    let level = logfmt_pairs(line, |key, value| match key {
        b"level" | b"lvl" | b"severity" | b"loglevel" | b"levelname" => {
            word(value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value))
        }
        _ => None,
    });
    // Of a longer line the last pair is cut.
    level.filter(|_| line.len() == LOGFMT_REACH || is_logfmt(line))
}
