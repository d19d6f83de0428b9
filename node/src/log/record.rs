//! Records on their way to the store: a [`Batch`] of finished lines as text, and one [`Draft`] for each
//! stretch of lines that have everything but their text in common. No files, no clocks but [`wall`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hilum_shared::protocol::Level;

/// Where a record comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Standard output, or the pseudo-terminal.
    Out,
    /// Standard error.
    Err,
    /// Structured records of a worker.
    Log,
    /// The node's own words: events, gaps.
    Node,
}

impl Stream {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Out, Self::Err, Self::Log, Self::Node];

    /// Its word in the timeline and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Err => "err",
            Self::Log => "log",
            Self::Node => "node",
        }
    }

    /// Reads that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.as_str() == word)
    }

    /// Its number in the index.
    pub(super) fn code(self) -> u8 {
        self as u8
    }

    /// The stream with this number.
    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// What is special about a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub(super) u16);

impl Flags {
    /// An ordinary line.
    pub const NONE: Self = Self(0);
    /// No line end came: the run ended or the line paused for long.
    pub const PARTIAL: Self = Self(1);
    /// Cut at `max_line`: the next record of the stream goes on.
    pub const SPLIT: Self = Self(2);
    /// The line ended in `\r\n`.
    pub const CR: Self = Self(4);
    /// One record of several lines.
    pub const JOINED: Self = Self(8);
    /// Stands for lines that were lost.
    pub const GAP: Self = Self(16);
    /// Written after the leader of its run had ended.
    pub const LATE: Self = Self(32);

    /// Whether all of `other` is set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Without `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Whose records they are, as far as the store must know.
#[derive(Debug, PartialEq, Eq)]
pub struct Who {
    /// `echo.3`, `echo` for a service as a whole, [`NODE_NAME`] for the node.
    pub name: Arc<str>,
    /// A file that gets these lines besides the store.
    pub file: Option<PathBuf>,
}

/// The node's own name in the timeline: no service can be called so.
pub const NODE_NAME: &str = "*";

/// Some records in a row that differ in their text only.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Whose.
    pub who: Arc<Who>,
    /// Which life; 0 = none.
    pub run: u32,
    /// The leader; 0 = none.
    pub pid: u32,
    /// Wall time in microseconds since 1970.
    pub at: u64,
    /// Where from.
    pub stream: Stream,
    /// How grave.
    pub level: Option<Level>,
    /// What is special.
    pub flags: Flags,
    /// How many records; 1 when it has fields, is joined or is a gap.
    pub count: u32,
    /// Bytes of text, prefixes and line ends included.
    pub length: u32,
    /// Where its fields begin in [`Batch::fields`], and their length; length 0 = none.
    pub fields: (u32, u32),
    /// How many lines a gap stands for.
    pub dropped: u64,
}

/// What one write brings to the disk.
#[derive(Default)]
pub struct Batch {
    /// Finished lines, each with its prefix.
    pub text: Vec<u8>,
    /// What they are, in the order of the text.
    pub drafts: Vec<Draft>,
    /// JSON objects of the drafts that have fields.
    pub fields: Vec<u8>,
    prefix: Vec<u8>,
    head: Option<Draft>,
    /// Whether the last draft may still grow.
    open: bool,
}

/// A draft grows no further than this, so that a reader finds a line in it fast.
const LONGEST_DRAFT: u32 = 256 * 1024;

impl Batch {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.drafts.is_empty()
    }

    /// How many records it holds.
    pub fn records(&self) -> u64 {
        self.drafts.iter().map(|draft| u64::from(draft.count)).sum()
    }

    /// The JSON of a draft's fields, where it has some.
    pub(super) fn fields_of(&self, draft: &Draft) -> Option<&[u8]> {
        let (start, length) = (draft.fields.0 as usize, draft.fields.1 as usize);
        if length == 0 { None } else { self.fields.get(start..start + length) }
    }

    /// Bytes that it holds.
    pub fn size(&self) -> usize {
        self.text.len() + self.fields.len() + self.drafts.len() * size_of::<Draft>()
    }

    /// Takes everything out and keeps the memory, up to `keep` bytes of it.
    pub fn clear(&mut self, keep: usize) {
        self.text.clear();
        self.drafts.clear();
        self.fields.clear();
        self.text.shrink_to(keep);
        self.drafts.shrink_to(keep / size_of::<Draft>());
        self.fields.shrink_to(keep);
        self.head = None;
        self.open = false;
    }

    /// Says whose lines follow, and when they were read.
    pub fn begin(
        &mut self,
        who: &Arc<Who>,
        run: u32,
        pid: u32,
        stream: Stream,
        at: u64,
        stamp: &[u8],
    ) {
        self.prefix.clear();
        put_prefix(&mut self.prefix, stamp, &who.name, stream);
        self.head = Some(Draft {
            who: who.clone(),
            run,
            pid,
            at,
            stream,
            level: None,
            flags: Flags::NONE,
            count: 0,
            length: 0,
            fields: (0, 0),
            dropped: 0,
        });
        self.open = false;
    }

    /// Adds one line (without its line end) of whom `begin` named.
    #[inline]
    pub fn line(&mut self, text: &[u8], level: Option<Level>, flags: Flags) {
        self.text.reserve(self.prefix.len() + text.len() + 1);
        self.text.extend_from_slice(&self.prefix);
        self.text.extend_from_slice(text);
        self.text.push(b'\n');
        let length = (self.prefix.len() + text.len() + 1) as u32;
        if self.open
            && let Some(last) = self.drafts.last_mut()
            && last.level == level
            && last.flags == flags
            && last.length < LONGEST_DRAFT
        {
            last.count += 1;
            last.length += length;
            return;
        }
        self.push(level, flags, length);
    }

    /// Adds one record, of several lines perhaps, with `fields` as JSON.
    pub fn record(&mut self, text: &[u8], level: Option<Level>, fields: &[u8], dropped: u64) {
        let start = self.text.len();
        let mut lines = 0_u32;
        for line in text.split(|byte| *byte == b'\n') {
            self.text.extend_from_slice(&self.prefix);
            self.text.extend_from_slice(line);
            self.text.push(b'\n');
            lines += 1;
        }
        let mut flags = if lines > 1 { Flags::JOINED } else { Flags::NONE };
        if dropped > 0 {
            flags = flags.with(Flags::GAP);
        }
        self.push(level, flags, (self.text.len() - start) as u32);
        if let Some(last) = self.drafts.last_mut() {
            last.fields = (self.fields.len() as u32, fields.len() as u32);
            last.dropped = dropped;
            self.fields.extend_from_slice(fields);
        }
        self.open = false;
    }

    /// Adds one record of several lines of whom `begin` named.
    pub fn joined(&mut self, text: &[u8], level: Option<Level>, flags: Flags) {
        self.record(text, level, &[], 0);
        if let Some(last) = self.drafts.last_mut() {
            last.flags = last.flags.with(flags);
        }
    }

    /// Adds the mark of `count` lost lines.
    pub fn gap(&mut self, count: u64, why: &str) {
        self.record(gap_text(count, why).as_bytes(), Some(Level::Warning), &[], count);
    }

    fn push(&mut self, level: Option<Level>, flags: Flags, length: u32) {
        if let Some(head) = &self.head {
            self.drafts.push(Draft { level, flags, count: 1, length, ..head.clone() });
            self.open = true;
        }
    }
}

/// How lost lines are told: `… 12 lines dropped (rate limit)`.
pub(super) fn gap_text(count: u64, why: &str) -> String {
    let lines = if count == 1 { "line" } else { "lines" };
    format!("… {count} {lines} dropped ({why})")
}

/// Microseconds since 1970, for people only.
pub fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// The length of a stamp: `2026-11-21T03:42:11.123456Z`.
pub const STAMP: usize = 27;

/// Writes stamps; the part before the fraction is kept from one to the next.
#[derive(Debug, Clone)]
pub struct Stamps {
    second: u64,
    text: [u8; STAMP],
}

impl Default for Stamps {
    fn default() -> Self {
        let mut stamps = Self { second: 0, text: *b"1970-01-01T00:00:00.000000Z" };
        stamps.date(0);
        stamps
    }
}

impl Stamps {
    /// The stamp of this wall time (microseconds since 1970), up to the year 9999.
    pub fn write(&mut self, at: u64) -> &[u8; STAMP] {
        let at = at.min(LAST_STAMP);
        let second = at / 1_000_000;
        if second != self.second {
            self.date(second);
        }
        digits(&mut self.text[20..26], at % 1_000_000);
        &self.text
    }

    fn date(&mut self, second: u64) {
        self.second = second;
        let (year, month, day) = civil(second / 86_400);
        let clock = second % 86_400;
        digits(&mut self.text[0..4], year);
        digits(&mut self.text[5..7], month);
        digits(&mut self.text[8..10], day);
        digits(&mut self.text[11..13], clock / 3600);
        digits(&mut self.text[14..16], clock / 60 % 60);
        digits(&mut self.text[17..19], clock % 60);
    }
}

/// 9999-12-31T23:59:59.999999Z.
const LAST_STAMP: u64 = 253_402_300_799_999_999;

fn digits(out: &mut [u8], mut value: u64) {
    for place in out.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month and day of this day since 1970 (Howard Hinnant's `civil_from_days`, years of 1970 on).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let doe = days % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    (year, month, doy - (153 * mp + 2) / 5 + 1)
}

/// Days since 1970 of this date (the inverse).
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year - u64::from(month <= 2);
    let yoe = year % 400;
    let mp = (month + 9) % 12;
    let doy = (153 * mp + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    (year / 400 * 146_097 + doe).checked_sub(719_468)
}

/// Reads a stamp back.
pub fn parse_stamp(text: &[u8]) -> Option<u64> {
    let text = text.get(..STAMP)?;
    let shape = b"0000-00-00T00:00:00.000000Z";
    let fits = text.iter().zip(shape).all(|(byte, form)| match form {
        b'0' => byte.is_ascii_digit(),
        other => byte == other,
    });
    if !fits {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        text[range].iter().fold(0_u64, |value, digit| value * 10 + u64::from(digit - b'0'))
    };
    let day = days(number(0..4), number(5..7), number(8..10))?;
    let clock = number(11..13) * 3600 + number(14..16) * 60 + number(17..19);
    Some((day * 86_400 + clock) * 1_000_000 + number(20..26))
}

/// A line of the timeline taken apart: `2026-11-21T03:42:11.123456Z echo.3 out | text`.
pub struct Parsed<'a> {
    /// Wall time in microseconds since 1970.
    pub at: u64,
    /// `echo.3`.
    pub name: &'a str,
    /// Where from.
    pub stream: Stream,
    /// The bytes of the prefix.
    pub prefix: usize,
}

/// Takes a line of the timeline apart; `None` when it is none.
pub fn parse_line(line: &[u8]) -> Option<Parsed<'_>> {
    let at = parse_stamp(line)?;
    let rest = line.get(STAMP..)?.strip_prefix(b" ")?;
    // A name has at most 63 bytes, a dot and ten digits.
    let space = memchr::memchr(b' ', &rest[..rest.len().min(80)])?;
    let name = std::str::from_utf8(&rest[..space]).ok()?;
    let rest = &rest[space + 1..];
    let word = memchr::memchr(b' ', &rest[..rest.len().min(8)])?;
    let stream = Stream::parse(std::str::from_utf8(&rest[..word]).ok()?)?;
    rest[word..].starts_with(b" | ").then_some(Parsed {
        at,
        name,
        stream,
        prefix: prefix_length(name, stream),
    })
}

/// Appends what such a line begins with.
#[inline]
pub(super) fn put_prefix(out: &mut Vec<u8>, stamp: &[u8], name: &str, stream: Stream) {
    out.extend_from_slice(stamp);
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.push(b' ');
    out.extend_from_slice(stream.as_str().as_bytes());
    out.extend_from_slice(b" | ");
}

/// How long the prefix of such a line is.
fn prefix_length(name: &str, stream: Stream) -> usize {
    STAMP + 1 + name.len() + 1 + stream.as_str().len() + 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_reads_as_the_contract_shows_it() {
        let mut batch = Batch::default();
        let who = Arc::new(Who { name: "echo.3".into(), file: None });
        let at = 1_795_232_531_123_456;
        let mut stamps = Stamps::default();
        batch.begin(&who, 1, 7, Stream::Out, at, stamps.write(at));
        batch.line(b"text", None, Flags::NONE);
        batch.line(b"more", None, Flags::NONE);
        assert_eq!(
            String::from_utf8_lossy(&batch.text),
            "2026-11-21T03:42:11.123456Z echo.3 out | text\n2026-11-21T03:42:11.123456Z echo.3 out | more\n"
        );
        assert_eq!((batch.drafts.len(), batch.drafts[0].count), (1, 2));
        let parsed = parse_line(&batch.text).unwrap();
        assert_eq!((parsed.at, parsed.name, parsed.stream), (at, "echo.3", Stream::Out));
        assert_eq!(&batch.text[parsed.prefix..parsed.prefix + 4], b"text");
    }

    #[test]
    fn what_differs_begins_a_new_draft() {
        let mut batch = Batch::default();
        let who = Arc::new(Who { name: "a.1".into(), file: None });
        batch.begin(&who, 1, 7, Stream::Err, 0, Stamps::default().write(0));
        batch.line(b"1", None, Flags::NONE);
        batch.line(b"2", None, Flags::PARTIAL);
        batch.line(b"3", Some(Level::Error), Flags::PARTIAL);
        batch.record(b"a\nb", None, b"{}", 0);
        batch.line(b"4", None, Flags::NONE);
        let counts: Vec<u32> = batch.drafts.iter().map(|draft| draft.count).collect();
        assert_eq!(counts, [1, 1, 1, 1, 1]);
        assert!(batch.drafts[3].flags.has(Flags::JOINED));
        assert_eq!(batch.records(), 5);
    }

    proptest! {
        #[test]
        fn stamps_are_read_as_they_are_written(at in 0..LAST_STAMP) {
            let mut stamps = Stamps::default();
            prop_assert_eq!(parse_stamp(stamps.write(at)), Some(at));
            let shown = jiff::Timestamp::from_microsecond(at as i64).unwrap();
            let shown = shown.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
            prop_assert_eq!(shown.as_bytes(), stamps.write(at));
        }

        #[test]
        fn no_bytes_break_the_line_parser(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse_line(&bytes);
        }
    }
}
