//! Records as people see them. Nothing that a program wrote reaches a terminal unescaped but, where
//! wanted, its colours, and those end with their line.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

use hilum_shared::protocol::Level;
use regex::bytes::Regex;
use serde_json::{Map, Value};

use super::line::color;
use super::query::Entry;
use super::record::{NODE_NAME, Stream, parse_line};

/// How records are shown to people.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Whether colours may be used: it is a terminal that wants them.
    pub color: bool,
    /// Whether each line begins with whose it is.
    pub prefix: bool,
    /// Whether each line begins with the local time.
    pub times: bool,
    /// The width that names are padded to at least.
    pub width: usize,
}

/// Colours that are read on dark and on light ground (`man 4 console_codes`).
const COLORS: [u8; 8] = [36, 33, 32, 35, 34, 96, 93, 95];
/// Names are padded to at most this; longer ones stick out.
const WIDEST: usize = 24;

/// Shows records to people; remembers colours and the width of names.
pub struct Console {
    look: Look,
    width: usize,
    colors: HashMap<Arc<str>, u8>,
    zone: jiff::tz::TimeZone,
    marked: Option<Regex>,
}

impl Console {
    /// A console of this look, with times in the machine's zone.
    pub fn new(look: Look) -> Self {
        let width = look.width;
        let zone = jiff::tz::TimeZone::system();
        Self { look, width, colors: HashMap::new(), zone, marked: None }
    }

    /// Shows in reverse, where colours may be used, what matches.
    #[must_use]
    pub fn marking(self, marked: Option<Regex>) -> Self {
        Self { marked: marked.filter(|_| self.look.color), ..self }
    }

    /// Appends a record to `out`, as one line for each of its lines.
    pub fn render(&mut self, entry: &Entry, out: &mut Vec<u8>) {
        let name = shown(&entry.name);
        if self.look.prefix {
            self.width = self.width.max(name.len().min(WIDEST));
        }
        let node = entry.stream.is_none_or(|stream| stream == Stream::Node);
        let mut lines = entry.text.split(|byte| *byte == b'\n').peekable();
        while let Some(line) = lines.next() {
            if self.look.times {
                self.time(entry.at, out);
            }
            if self.look.prefix {
                self.prefix(entry, name, out);
            }
            if node && self.look.color {
                out.extend_from_slice(b"\x1b[2m");
            }
            if node {
                out.extend_from_slice(b"* ");
            }
            if entry.stream == Some(Stream::Log) {
                structured_head(entry, out);
            }
            let mut colored = self.text(line, out);
            if entry.stream == Some(Stream::Log) && lines.peek().is_none() {
                if self.look.color {
                    out.extend_from_slice(b"\x1b[0;2m");
                    colored = true;
                }
                if let Some(fields) = &entry.fields {
                    structured_tail(fields, out);
                }
            }
            if entry.is_partial() && lines.peek().is_none() {
                // The line goes on, or was never ended.
                out.extend_from_slice(" ⏎̸".as_bytes());
            }
            if colored || (node && self.look.color) {
                out.extend_from_slice(b"\x1b[0m");
            }
            out.push(b'\n');
        }
    }

    /// The text of a line; whether a colour may still be on.
    fn text(&self, line: &[u8], out: &mut Vec<u8>) -> bool {
        let mut colored = false;
        let mut shown = 0;
        let found = self.marked.iter().flat_map(|marked| marked.find_iter(line));
        for found in found.filter(|found| !found.is_empty()) {
            escape(&line[shown..found.start()], self.look.color, out);
            out.extend_from_slice(b"\x1b[7m");
            escape(found.as_bytes(), false, out); // its own colours could end the mark
            out.extend_from_slice(b"\x1b[27m");
            colored = true;
            shown = found.end();
        }
        escape(&line[shown..], self.look.color, out) || colored
    }

    fn time(&self, at: u64, out: &mut Vec<u8>) {
        let time = i64::try_from(at)
            .ok()
            .and_then(|at| jiff::Timestamp::from_microsecond(at).ok())
            .unwrap_or_default()
            .to_zoned(self.zone.clone());
        let _ = write!(out, "{} ", time.strftime("%Y-%m-%d %H:%M:%S.%3f")); // a Vec takes all
    }

    fn prefix(&mut self, entry: &Entry, name: &str, out: &mut Vec<u8>) {
        let pad = self.width.saturating_sub(name.len());
        let mark = if entry.stream == Some(Stream::Err) { '!' } else { ' ' };
        if self.look.color {
            let next = COLORS[self.colors.len() % COLORS.len()];
            let color = *self.colors.entry(entry.name.clone()).or_insert(next);
            let bar = match entry.level {
                Some(Level::Error | Level::Critical) => "1;31",
                Some(Level::Warning) => "33",
                _ if mark == '!' => "31",
                _ => "2",
            };
            let _ = write!(out, "\x1b[{color}m{name}\x1b[0m{:pad$}{mark}\x1b[{bar}m|\x1b[0m ", "");
        } else {
            let _ = write!(out, "{name}{:pad$}{mark}| ", "");
        }
    }
}

fn shown(name: &str) -> &str {
    if name == NODE_NAME { "hilum" } else { name }
}

/// Appends the lines of a structured record, each with its prefix, as [`Console::render`] shows them.
pub(super) fn structured_text(
    text: &[u8],
    level: Option<Level>,
    fields: Option<Map<String, Value>>,
    out: &mut Vec<u8>,
) {
    let entry = Entry { level, fields, ..Entry::default() };
    let mut lines =
        text.strip_suffix(b"\n").unwrap_or(text).split(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let prefix = parse_line(line).map_or(0, |parsed| parsed.prefix);
        out.extend_from_slice(&line[..prefix]);
        structured_head(&entry, out);
        out.extend_from_slice(&line[prefix..]);
        if lines.peek().is_none()
            && let Some(fields) = &entry.fields
        {
            structured_tail(fields, out);
        }
        out.push(b'\n');
    }
}

/// `WARNING shop.cart: ` before a structured record's message.
fn structured_head(entry: &Entry, out: &mut Vec<u8>) {
    if let Some(level) = entry.level {
        let _ = write!(out, "{} ", level.as_str());
    }
    let logger = entry.fields.as_ref().and_then(|fields| fields.get("logger")?.as_str());
    if let Some(logger) = logger {
        escape(logger.as_bytes(), false, out);
        out.extend_from_slice(b": ");
    }
}

/// ` status=500 path="/a b"` after its message.
pub(super) fn structured_tail(fields: &Map<String, Value>, out: &mut Vec<u8>) {
    let is_odd =
        |char: char| char.is_whitespace() || char.is_control() || matches!(char, '"' | '=');
    let own = fields.iter().filter(|(key, _)| !matches!(key.as_str(), "logger" | "trace_id"));
    for (key, value) in own.chain(fields.get_key_value("trace_id")) {
        out.push(b' ');
        escape(key.as_bytes(), false, out);
        out.push(b'=');
        match value.as_str() {
            Some(text) if !text.is_empty() && !text.contains(is_odd) => {
                escape(text.as_bytes(), false, out)
            }
            _ => escape(value.to_string().as_bytes(), false, out),
        };
    }
}

/// Appends a line with everything escaped that a terminal would obey; colours are kept where wanted and taken
/// out elsewhere. Returns whether a colour may still be on.
pub fn escape(line: &[u8], keep_colors: bool, out: &mut Vec<u8>) -> bool {
    let mut colored = false;
    let mut rest = line;
    while !rest.is_empty() {
        let (valid, broken) = match std::str::from_utf8(rest) {
            Ok(text) => (text, 0),
            Err(error) => {
                let (valid, broken) = rest.split_at(error.valid_up_to());
                let text = std::str::from_utf8(valid).unwrap_or_default();
                (text, error.error_len().unwrap_or(broken.len()))
            }
        };
        let mut text = valid;
        while let Some(at) = text.find(is_obeyed) {
            out.extend_from_slice(&text.as_bytes()[..at]);
            let control = text[at..].chars().next().unwrap_or_default();
            let length = color(&text.as_bytes()[at..]);
            if control == '\x1b' && length > 0 {
                if keep_colors {
                    out.extend_from_slice(&text.as_bytes()[at..at + length]);
                    colored = true;
                }
                text = &text[at + length..];
                continue;
            }
            // Compilers end their colours with it; where no cursor moves it does nothing.
            if let Some(rest) = text[at..].strip_prefix("\x1b[K") {
                text = rest;
                continue;
            }
            escape_char(control, out);
            text = &text[at + control.len_utf8()..];
        }
        out.extend_from_slice(text.as_bytes());
        for byte in &rest[valid.len()..valid.len() + broken] {
            let _ = write!(out, "\\x{byte:02x}");
        }
        rest = &rest[valid.len() + broken..];
    }
    colored
}

/// Whether a terminal would act on it: C0 but the tab, DEL, C1, and marks that turn the direction of text.
fn is_obeyed(character: char) -> bool {
    (character.is_control() && character != '\t')
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape_char(character: char, out: &mut Vec<u8>) {
    let mut text = String::new();
    let _ = match character {
        '\r' => write!(text, "\\r"),
        '\n' => write!(text, "\\n"),
        '\0'..='\x7f' => write!(text, "\\x{:02x}", u32::from(character)),
        _ => write!(text, "\\u{{{:x}}}", u32::from(character)),
    };
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::json::tests::entry;
    use crate::log::record::Flags;
    use proptest::prelude::*;
    use serde_json::json;

    fn plain(entry: &Entry) -> String {
        let mut out = Vec::new();
        Console::new(Look { prefix: true, ..Look::default() }).render(entry, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_prefix_says_whose_and_from_where() {
        assert_eq!(plain(&entry(b"hello")), "echo.3 | hello\n");
        let mut err = entry(b"oops");
        err.stream = Some(Stream::Err);
        assert_eq!(plain(&err), "echo.3!| oops\n");
        let mut node = entry(b"started");
        node.stream = Some(Stream::Node);
        assert_eq!(plain(&node), "echo.3 | * started\n");
        assert_eq!(plain(&entry(b"a\nb")), "echo.3 | a\necho.3 | b\n");
    }

    #[test]
    fn a_structured_record_is_shown_with_its_fields() {
        let mut record = entry(b"paid\nin two lines");
        record.stream = Some(Stream::Log);
        record.level = Some(Level::Warning);
        let fields = json!({"logger": "shop.cart", "trace_id": "4bf9", "status": 500, "path": "/a b", "to": "anna",
            "none": null, "": ""});
        record.fields = fields.as_object().cloned();
        assert_eq!(
            plain(&record),
            "echo.3 | WARNING shop.cart: paid\necho.3 | WARNING shop.cart: in two lines status=500 \
             path=\"/a b\" to=anna none=null =\"\" trace_id=4bf9\n"
        );
    }

    #[test]
    fn each_instance_has_a_colour_of_its_own() {
        let mut console = Console::new(Look { color: true, prefix: true, ..Look::default() });
        let mut color_of = |name: &str| {
            let mut out = Vec::new();
            console.render(&Entry { name: name.into(), ..entry(b"x") }, &mut out);
            String::from_utf8(out).unwrap().split(name).next().unwrap().to_owned()
        };
        let (one, two) = (color_of("echo.1"), color_of("echo.2"));
        assert_ne!(one, two);
        assert_eq!(color_of("echo.1"), one);
    }

    #[test]
    fn control_codes_never_reach_the_terminal() {
        let mut out = Vec::new();
        assert!(!escape(b"\x1b[2J\x07\0\xff\r\xc2\x9b1m\ttab", true, &mut out));
        assert_eq!(String::from_utf8(out).unwrap(), "\\x1b[2J\\x07\\x00\\xff\\r\\u{9b}1m\ttab");
    }

    #[test]
    fn colours_are_kept_on_a_terminal_and_end_with_the_line() {
        let mut out = Vec::new();
        let mut console = Console::new(Look { color: true, ..Look::default() });
        console.render(&entry(b"\x1b[31mred"), &mut out);
        assert_eq!(out, b"\x1b[31mred\x1b[0m\n");
        out.clear();
        assert!(!escape(b"\x1b[31mred", false, &mut out));
        assert_eq!(out, b"red");
    }

    #[test]
    fn what_was_looked_for_is_marked_on_a_terminal() {
        let shown = |color: bool| {
            let mut out = Vec::new();
            let look = Look { color, ..Look::default() };
            let marked = Regex::new("time.ut").ok();
            Console::new(look)
                .marking(marked)
                .render(&entry(b"a timeout, \x1b[31mtime\x1b[0mxut"), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown(true), "a \x1b[7mtimeout\x1b[27m, \x1b[31mtime\x1b[0mxut\x1b[0m\n");
        assert_eq!(shown(false), "a timeout, timexut\n");
    }

    proptest! {
        #[test]
        fn no_bytes_leave_a_control_code(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            escape(&bytes, false, &mut out);
            let text = String::from_utf8(out).unwrap();
            prop_assert!(!text.chars().any(is_obeyed));
        }

        /// Whatever is in a record, a terminal sees text and colours, and each line ends without colour.
        #[test]
        fn a_terminal_sees_text_and_colours_only(
            text in hostile(), logger in hostile(), keep: bool, stream in 0_usize..4, partial: bool,
        ) {
            let mut record = entry(&text);
            record.stream = Some(Stream::ALL[stream]);
            record.flags = if partial { Flags::PARTIAL } else { Flags::NONE };
            let said = String::from_utf8_lossy(&logger);
            let fields = json!({"logger": said, &*said: said, "more": [{"in": said}]});
            record.fields = fields.as_object().cloned();
            record.level = Some(Level::Error);
            let mut out = Vec::new();
            let look = Look { color: keep, prefix: true, times: true, width: 9 };
            let marked = Regex::new("t|(?-u:\\xff)|x*").ok();
            Console::new(look).marking(marked).render(&record, &mut out);
            let shown = String::from_utf8(out).unwrap();
            prop_assert!(shown.ends_with('\n'));
            for line in shown.lines() {
                let mut rest = line;
                let mut on = false;
                while let Some(at) = rest.find('\x1b') {
                    let length = color(&rest.as_bytes()[at..]);
                    prop_assert!(keep && length > 0, "{:?}", line);
                    on = &rest[at..at + length] != "\x1b[0m";
                    prop_assert!(!rest[..at].chars().any(is_obeyed), "{:?}", line);
                    rest = &rest[at + length..];
                }
                prop_assert!(!rest.chars().any(is_obeyed), "{:?}", line);
                prop_assert!(!on, "{:?}", line);
            }
        }
    }

    /// Bytes as a hostile program would choose them: titles, clipboard, cursor, screens, paste, C1, broken colours.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let pieces = prop_oneof![
            Just(b"\x1b]0;title\x07".to_vec()),
            Just(b"\x1b]52;c;aGk=\x1b\\".to_vec()),
            Just(b"\x1b[2J\x1b[H\x1b[?1049h".to_vec()),
            Just(b"\x1b[200~".to_vec()),
            Just(b"\xc2\x9b31m\xc2\x9d0;x\xc2\x9c".to_vec()),
            Just(b"\x9b31m".to_vec()),
            Just(b"\x1b[31m".to_vec()),
            Just(b"\x1b[38:2::1:2:3m".to_vec()),
            Just(b"\x1b[31;m\x1b[".to_vec()),
            Just(b"\x1b[0K\x1b[K\x1b[1m\x1b[K".to_vec()),
            Just(b"\x1bP+q\x1b\\\x1b_x\x1bc".to_vec()),
            Just(b"\r\n\x08\x7f\0".to_vec()),
            Just("\u{202e}\u{2066}".as_bytes().to_vec()),
            proptest::collection::vec(any::<u8>(), 0..8),
            "[a-z ]{0,8}".prop_map(String::into_bytes),
        ];
        proptest::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat())
    }
}
