//! Reading one segment: spans by position, the text of a span line by line, names and fields by offset.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use super::index::{FIELDS_HEADER, HEADER, LONG_FIELDS, SPAN, Span};
use super::pack::Stored;
use super::record::{Flags, NODE_NAME, Stamps, Stream, parse_line, put_prefix};
use super::recover::{Bad, Rebuilt, rebuild};
use super::segment::{Id, path};

/// Spans that are read at once.
const BLOCK: u64 = 1024;
/// Text that is read at once when spans follow each other.
const AHEAD: usize = 256 * 1024;
/// So long after the last write a writer is no longer between two of them.
const SETTLED: Duration = Duration::from_secs(5);
/// No name is longer.
const NAME: usize = 128;

enum Index {
    File {
        idx: Stored,
        fld: Stored,
        /// The position of the first span in `block`.
        first: u64,
        block: Vec<u8>,
        /// Its spans from this position on, where some were damaged or its end lacks some: those are made from the text, with their names
        /// from this offset on.
        tail: Option<(u64, u64, Rebuilt)>,
    },
    /// The index was missing or damaged: made again in memory.
    Memory(Rebuilt),
}

/// A segment open for reading.
pub(super) struct SegmentReader {
    pub(super) id: Id,
    log: Option<Stored>,
    index: Index,
    window: Vec<u8>,
    window_at: u64,
    stamps: Stamps,
    /// How many bytes the text is shorter than its index says, once that was asked: somebody took them out of the middle.
    shift: Option<i64>,
}

impl SegmentReader {
    /// Opens it; `None` when there is nothing to read (yet). Where it has no index, its records count from `seq`.
    pub(super) fn open(dir: &Path, id: Id, seq: u64) -> Option<Self> {
        let log = Stored::open(&path(dir, id, "log")).ok();
        // Looked at before the index is: where there is text, an index that is only being made is there by now.
        let text = log.as_ref().and_then(|log| log.len().ok()).unwrap_or(0);
        let index = match Self::open_index(dir, id) {
            Some(index) => index,
            None => {
                let log = log.as_ref()?;
                if text == 0 {
                    return None; // it is being made
                }
                let base = FIELDS_HEADER.len() as u64;
                let rebuilt = rebuild(log.stretch(0, text), 0, seq, 0, base, Bad::Skip).ok()?;
                Index::Memory(rebuilt)
            }
        };
        Some(Self {
            id,
            log,
            index,
            window: Vec::new(),
            window_at: 0,
            stamps: Stamps::default(),
            shift: None,
        })
    }

    /// Makes in memory what the end of its index lacks or has damaged: as the next life of the node will do it in the file. Its
    /// writer may just be between text and index, so text without an index must have been there for a while.
    pub(super) fn mend(&mut self, seq: u64) {
        let spans = self.len();
        let sound = (0..spans).rev().find(|at| self.span(*at).is_some()).map_or(0, |at| at + 1);
        let last = sound.checked_sub(1).and_then(|at| self.span(at));
        let (Some(log), Index::File { .. }) = (&self.log, &self.index) else {
            return;
        };
        let Ok(text) = log.len() else {
            return;
        };
        let Some(last) = last else {
            // No sound span at all: it is no index. Its records count from `seq`.
            if text > 0 && spans > 0 {
                let base = FIELDS_HEADER.len() as u64;
                if let Ok(rebuilt) = rebuild(log.stretch(0, text), 0, seq, 0, base, Bad::Skip) {
                    self.index = Index::Memory(rebuilt);
                }
            }
            return;
        };
        if last.end() < text && (sound < spans || log.is_older_than(SETTLED)) {
            self.remake(sound, true);
        }
    }

    /// Makes the spans from this position on in memory: those that are damaged from the text between their sound neighbours, and with
    /// `to_end` from what lies behind all of them. Whether that could be done; positions before it stay.
    pub(super) fn remake(&mut self, from: u64, to_end: bool) -> bool {
        let spans = self.len();
        let before = from.checked_sub(1).and_then(|at| self.span(at));
        let sound: Vec<Option<Span>> = (from..spans).map(|at| self.span(at)).collect();
        let (Some(log), Index::File { fld, tail: None, .. }) = (&self.log, &self.index) else {
            return false;
        };
        let (Ok(text), Ok(base)) = (log.len(), fld.len()) else {
            return false;
        };
        let mut made = Rebuilt::default();
        let mut damaged = false;
        let mut last = before;
        for span in sound.into_iter().map(Some).chain([None]) {
            let span = match span {
                Some(None) => {
                    damaged = true;
                    continue;
                }
                Some(Some(span)) => Some(span),
                None => None,
            };
            if damaged || span.is_none() && to_end {
                let start = last.map_or(0, |last| last.end());
                let end = span.map_or(text, |span| span.offset).min(text);
                let (seq, key) = last.map_or((1, 0), |last| (last.next_seq(), last.key));
                let names = base + made.fields.len() as u64;
                let stretch = log.stretch(start, end.max(start));
                let bad = if span.is_some() { Bad::Skip } else { Bad::Stop };
                if let Ok(mut lines) = rebuild(stretch, start, seq, key, names, bad) {
                    renumber(&mut lines, last.is_some(), span.map(|span| span.seq));
                    made.spans.append(&mut lines.spans);
                    made.fields.append(&mut lines.fields);
                }
                damaged = false;
            }
            made.spans.extend(span);
            last = span.or(last);
        }
        if let Index::File { tail, .. } = &mut self.index {
            *tail = Some((from, base, made));
        }
        true
    }

    /// Whether its index was made from its text, in which no numbers are.
    pub(super) fn is_rebuilt(&self) -> bool {
        matches!(self.index, Index::Memory(_))
    }

    /// Counts the records of a rebuilt one from `seq` instead of from 1.
    pub(super) fn count_from(&mut self, seq: u64) {
        if let Index::Memory(rebuilt) = &mut self.index {
            for span in &mut rebuilt.spans {
                span.seq += seq - 1;
            }
        }
    }

    /// The first number in it, and the one after its last; `None` where it holds nothing that could be read.
    pub(super) fn range(&mut self) -> Option<(u64, u64)> {
        let spans = self.len();
        let first = (0..spans).find_map(|at| self.span(at))?.seq;
        let last = (0..spans).rev().find_map(|at| self.span(at))?;
        Some((first, last.next_seq()))
    }

    fn open_index(dir: &Path, id: Id) -> Option<Index> {
        let idx = Stored::open(&path(dir, id, "idx")).ok()?;
        let fld = Stored::open(&path(dir, id, "fld")).ok()?;
        let (mut head, mut line) = ([0; HEADER.len()], [0; FIELDS_HEADER.len()]);
        idx.read_at(&mut head, 0).ok()?;
        fld.read_at(&mut line, 0).ok()?;
        let known = head == *HEADER && line == *FIELDS_HEADER;
        known.then_some(Index::File { idx, fld, first: 0, block: Vec::new(), tail: None })
    }

    /// How many spans there are now.
    pub(super) fn len(&mut self) -> u64 {
        match &self.index {
            Index::File { tail: Some((from, _, tail)), .. } => from + tail.spans.len() as u64,
            Index::File { idx, .. } => {
                idx.len().map_or(0, |bytes| (bytes / SPAN as u64).saturating_sub(1))
            }
            Index::Memory(rebuilt) => rebuilt.spans.len() as u64,
        }
    }

    /// The span with this position; `None` when it is damaged or not there.
    pub(super) fn span(&mut self, position: u64) -> Option<Span> {
        match &mut self.index {
            Index::Memory(rebuilt) => rebuilt.spans.get(position as usize).copied(),
            Index::File { tail: Some((from, _, tail)), .. } if position >= *from => {
                tail.spans.get((position - *from) as usize).copied()
            }
            Index::File { idx, first, block, .. } => {
                let held = (block.len() / SPAN) as u64;
                if position < *first || position >= *first + held {
                    *first = position / BLOCK * BLOCK;
                    block.resize(BLOCK as usize * SPAN, 0);
                    let length = read_at(idx, block, (*first + 1) * SPAN as u64);
                    block.truncate(length / SPAN * SPAN);
                }
                let at = (position - *first) as usize * SPAN;
                Span::decode(block.get(at..)?)
            }
        }
    }

    /// Whose a span is: as the field file says or, where that is damaged, its text.
    pub(super) fn name_of(&mut self, span: &Span) -> Option<String> {
        let plain = |name: &String| {
            name == NODE_NAME
                || name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        if let Some(name) = self.name(span.name).filter(|name| !name.is_empty() && plain(name)) {
            return Some(name);
        }
        let parsed = parse_line(self.at(span, 0)?)?;
        (parsed.at == span.at && parsed.stream == span.stream).then(|| parsed.name.to_owned())
    }

    /// The name at this offset of the field file.
    fn name(&self, offset: u32) -> Option<String> {
        let mut bytes = [0; NAME];
        let bytes = match &self.index {
            Index::File { tail: Some((_, base, tail)), .. } if u64::from(offset) >= *base => {
                tail.fields.get((u64::from(offset) - base) as usize..)?
            }
            Index::File { fld, .. } => {
                let length = read_at(fld, &mut bytes, u64::from(offset));
                &bytes[..length]
            }
            Index::Memory(rebuilt) => {
                rebuilt.fields.get((offset as usize).checked_sub(FIELDS_HEADER.len())?..)?
            }
        };
        let end = memchr::memchr(b'\n', bytes)?;
        String::from_utf8(bytes[..end].to_vec()).ok()
    }

    /// The fields of a span's record.
    pub(super) fn fields(&self, span: &Span) -> Option<Map<String, Value>> {
        serde_json::from_slice(&self.raw_fields(span)?).ok()
    }

    /// The same, as they were written.
    pub(super) fn raw_fields(&self, span: &Span) -> Option<Vec<u8>> {
        let Index::File { fld, .. } = &self.index else {
            return None;
        };
        if span.fields_length == 0 {
            return None;
        }
        let mut bytes = vec![0; usize::from(span.fields_length)];
        loop {
            let length = read_at(fld, &mut bytes, u64::from(span.fields));
            if span.fields_length != LONG_FIELDS {
                bytes.truncate(length);
                break;
            }
            if let Some(end) = memchr::memchr(b'\n', &bytes[..length]) {
                bytes.truncate(end);
                break;
            }
            if length < bytes.len() {
                return None;
            }
            bytes.resize(bytes.len() * 2, 0);
        }
        Some(bytes)
    }

    /// Loads the text of a span; `false` when it is not all there.
    pub(super) fn lines(&mut self, span: &Span, name: &str, lines: &mut Lines) -> bool {
        lines.begin(self.stamps.write(span.at), name, span.stream);
        let Some(text) = self.place(span, lines).and_then(|shift| self.at(span, shift)) else {
            return false;
        };
        lines.load(text, span.flags.has(Flags::JOINED));
        true
    }

    /// How many bytes before the place that it should have a span's text lies: bytes that somebody took out of the middle have moved
    /// all that follows.
    fn place(&mut self, span: &Span, lines: &Lines) -> Option<i64> {
        let fits = |this: &mut Self, shift| {
            this.at(span, shift).is_some_and(|text| lines.fits(text, span)).then_some(shift)
        };
        fits(self, 0).or_else(|| {
            let shift = self.shift();
            fits(self, shift)
        })
    }

    /// How many bytes the text is shorter than its index says; longer ones have been added to at their end.
    fn shift(&mut self) -> i64 {
        if let Some(shift) = self.shift {
            return shift;
        }
        let spans = self.len();
        let last = (0..spans).rev().find_map(|at| self.span(at));
        let text = self.log.as_ref().and_then(|log| log.len().ok()).unwrap_or(0);
        let shift = last.map_or(0, |last| last.end() as i64 - text as i64);
        *self.shift.insert(shift)
    }

    /// The text of a span; `None` when it is not all there, or is not the span's.
    pub(super) fn text(&mut self, span: &Span, name: &str) -> Option<&[u8]> {
        let mut lines = Lines::default();
        lines.begin(self.stamps.write(span.at), name, span.stream);
        let shift = self.place(span, &lines)?;
        self.at(span, shift)
    }

    /// The text where a span's lies, so many bytes before it; `None` when it is not all there.
    fn at(&mut self, span: &Span, shift: i64) -> Option<&[u8]> {
        let log = self.log.as_ref()?;
        let start = span.offset.checked_add_signed(-shift)?;
        let end = start + u64::from(span.length);
        let held = self.window_at + self.window.len() as u64;
        if start < self.window_at || end > held {
            let near = start >= self.window_at && start <= held + AHEAD as u64;
            let length = span.length as usize;
            let wanted = if near { length.max(AHEAD) } else { length };
            self.window.resize(wanted, 0);
            let mut got = read_at(log, &mut self.window, start);
            if got < length && wanted > length {
                got = read_at(log, &mut self.window[..length], start); // only what lies ahead is damaged
            }
            self.window.truncate(got);
            self.window_at = start;
            if got < length {
                return None;
            }
        }
        let from = (start - self.window_at) as usize;
        self.window.get(from..from + span.length as usize)
    }
}

/// Gives records that were made from text the numbers that are free for them: up to those of the next sound span. What was one record of
/// several lines takes no number that is another's.
fn renumber(made: &mut Rebuilt, counted: bool, next: Option<u64>) {
    let Some(next) = next else {
        return;
    };
    if !counted {
        let first = next.saturating_sub(made.lines).max(1);
        made.spans.iter_mut().for_each(|span| span.seq += first - 1);
    }
    for span in &mut made.spans {
        span.seq = span.seq.min(next.saturating_sub(u64::from(span.count)));
    }
}

/// Reads until the buffer is full, the file ends or is damaged.
fn read_at(file: &Stored, buffer: &mut [u8], offset: u64) -> usize {
    file.read_at(buffer, offset).unwrap_or(0)
}

/// The records of a span, one after another.
#[derive(Default)]
pub(super) struct Lines {
    text: Vec<u8>,
    joined: Vec<u8>,
    begins: Vec<u8>,
    prefix: usize,
    at: usize,
    is_joined: bool,
}

impl Lines {
    /// Says how each line begins.
    fn begin(&mut self, stamp: &[u8], name: &str, stream: Stream) {
        self.begins.clear();
        put_prefix(&mut self.begins, stamp, name, stream);
        self.prefix = self.begins.len();
    }

    /// Whether that is the text of this span: its first and its last line begin as they must, and there are as many as it says.
    fn fits(&self, text: &[u8], span: &Span) -> bool {
        let Some(body) = text.strip_suffix(b"\n") else {
            return false;
        };
        let last = memchr::memrchr(b'\n', body).map_or(0, |end| end + 1);
        body.starts_with(&self.begins)
            && body[last..].starts_with(&self.begins)
            && (span.flags.has(Flags::JOINED)
                || memchr::memchr_iter(b'\n', body).count() as u64 + 1 == u64::from(span.count))
    }

    fn load(&mut self, text: &[u8], joined: bool) {
        self.text.clear();
        self.text.extend_from_slice(text);
        self.at = 0;
        self.is_joined = joined;
    }

    /// The next record's text.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        if self.at >= self.text.len() {
            return None;
        }
        if self.is_joined {
            self.joined.clear();
            for (number, line) in self.text.split(|byte| *byte == b'\n').enumerate() {
                if let Some(line) = line.get(self.prefix..) {
                    if number > 0 {
                        self.joined.push(b'\n');
                    }
                    self.joined.extend_from_slice(line);
                }
            }
            self.at = self.text.len();
            return Some(&self.joined);
        }
        let rest = &self.text[self.at..];
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        self.at += end + 1;
        Some(rest[..end].get(self.prefix..).unwrap_or_default())
    }
}
