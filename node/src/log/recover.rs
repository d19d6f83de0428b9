//! What a crash or a hand left in the files, made good: a torn tail is cut, text without an index is indexed
//! again, a file that is no timeline is set aside.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::index::{FIELDS_HEADER, HEADER, SPAN, Span, header};
use super::pack::{Stored, packed_path, unpack};
use super::record::{Flags, parse_line};
use super::segment::{ENDINGS, Id, path};

/// How closely a segment is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The end of its index: it was closed in order.
    Closed,
    /// The text of its end, too: it was closed so shortly before that a power loss could have torn it.
    Recent,
    /// The same, and what its index lacks is put there: it was being written to.
    Last,
}

/// What a segment holds after its recovery.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The sequence number after its last record.
    pub next_seq: u64,
    /// The latest wall time in it.
    pub key: u64,
    /// What was mended, in words.
    pub notes: Vec<String>,
    /// Whether it was set aside: it is no segment any more.
    pub aside: bool,
}

/// The text that is checked after a node that did not end in order.
const CHECKED: u64 = 1024 * 1024;

/// Looks at a segment and mends it. `next_seq` and `key` are those after the segment before.
///
/// # Errors
/// What the file system says.
pub fn recover(
    dir: &Path,
    id: impl Into<Id>,
    next_seq: u64,
    key: u64,
    depth: Depth,
) -> io::Result<Recovered> {
    let id = id.into();
    let name = format!("{id}.log");
    let mut found = Recovered { next_seq, key, ..Recovered::default() };
    if !path(dir, id, "log").exists() {
        if let Ok(last) = last_packed(dir, id) {
            return Ok(closed(found, last.as_ref()));
        }
        found.notes.push(format!("{name}.zst or its index is damaged: made plain again"));
        if !make_plain(dir, id)? {
            found.notes.push(format!("{name}.zst cannot be read: set aside as {name}.zst.corrupt"));
            found.aside = true;
            return Ok(found);
        }
    }
    let log = OpenOptions::new().read(true).append(true).open(path(dir, id, "log"))?;
    let text = log.metadata()?.len();
    let (mut spans, whole) = intact_spans(dir, id)?;
    if !whole && text > 0 {
        let stored = Stored::Plain(log.try_clone()?);
        let base = FIELDS_HEADER.len() as u64;
        let rebuilt = rebuild(stored.stretch(0, text), 0, next_seq, key, base, Bad::Skip)?;
        if rebuilt.spans.is_empty() {
            set_aside(dir, id)?;
            found.notes.push(format!("{name} is no timeline: set aside as {name}.corrupt"));
            found.aside = true;
            return Ok(found);
        }
        let lines = rebuilt.lines;
        rewrite(dir, id, &rebuilt)?;
        found
            .notes
            .push(format!("the index of {name} was damaged: rebuilt from {lines} lines of text"));
        cut(&log, rebuilt.end, text, depth, &name, &mut found.notes)?;
        return Ok(closed(found, rebuilt.spans.last()));
    }
    let idx = OpenOptions::new().read(true).append(true).create(true).open(path(dir, id, "idx"))?;
    let checked = match depth {
        Depth::Closed => 0,
        Depth::Recent | Depth::Last => CHECKED,
    };
    let good = intact(&idx, &log, spans, text, checked)?;
    // Their numbers stay theirs: that they are missing is how a reader knows of the loss.
    let mut used = 0;
    for position in good..spans {
        used = used.max(span_at(&idx, position)?.map_or(0, |span| span.next_seq()));
    }
    spans = good;
    let sound = SPAN as u64 * (good + 1);
    if idx.metadata()?.len() > sound {
        idx.set_len(sound)?; // a half span would put all that follow out of step
    }
    let last = match spans {
        0 => None,
        count => span_at(&idx, count - 1)?,
    };
    let end = last.map_or(0, |span| span.end());
    found = closed(found, last.as_ref());
    if end < text && depth == Depth::Last {
        // Text whose index was not written any more: a node that was killed between the two writes.
        let fields = open_fields(dir, id)?;
        let base = fields.metadata()?.len();
        let stored = Stored::Plain(log.try_clone()?);
        let rest = stored.stretch(end, text);
        let tail = rebuild(rest, end, found.next_seq, found.key, base, Bad::Stop)?;
        (&fields).write_all(&tail.fields)?;
        let mut bytes = Vec::new();
        if spans == 0 {
            idx.set_len(0)?;
            bytes.extend_from_slice(&header());
        }
        for span in &tail.spans {
            bytes.extend_from_slice(&span.encode());
        }
        (&idx).write_all(&bytes)?;
        cut(&log, tail.end, text, depth, &name, &mut found.notes)?;
        found = closed(found, tail.spans.last());
    } else if end < text && depth == Depth::Recent {
        // Their numbers could be those of lines in the next segment.
        found.notes.push(format!("the last {} bytes of {name} are not in its index", text - end));
    }
    found.next_seq = found.next_seq.max(used);
    Ok(found)
}

fn closed(found: Recovered, last: Option<&Span>) -> Recovered {
    match last {
        Some(span) => Recovered {
            next_seq: span.next_seq().max(found.next_seq),
            key: span.key.max(found.key),
            ..found
        },
        None => found,
    }
}

fn cut(
    log: &File,
    end: u64,
    text: u64,
    depth: Depth,
    name: &str,
    notes: &mut Vec<String>,
) -> io::Result<()> {
    if end < text && depth == Depth::Last {
        log.set_len(end)?;
        notes.push(format!("{name} had a torn end: {} bytes cut", text - end));
    }
    Ok(())
}

/// The number of spans in an index, and whether it is one.
fn intact_spans(dir: &Path, id: Id) -> io::Result<(u64, bool)> {
    let idx = match File::open(path(dir, id, "idx")) {
        Ok(idx) => idx,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, false)),
        Err(error) => return Err(error),
    };
    let length = idx.metadata()?.len();
    let mut head = [0; 16];
    if length < SPAN as u64 || idx.read_exact_at(&mut head, 0).is_err() || head != *HEADER {
        return Ok((0, false));
    }
    let spans = length / SPAN as u64 - 1;
    // One damaged span in the middle is passed over by readers; an index without any sound span is none.
    let sound = spans == 0 || span_at(&idx, 0)?.is_some();
    let fields = File::open(path(dir, id, "fld"));
    let mut line = [0; FIELDS_HEADER.len()];
    let named =
        fields.is_ok_and(|file| file.read_exact_at(&mut line, 0).is_ok() && line == *FIELDS_HEADER);
    Ok((spans, sound && (named || spans == 0)))
}

/// The span with this position; `None` when it is damaged.
pub fn span_at(idx: &File, position: u64) -> io::Result<Option<Span>> {
    let mut bytes = [0; SPAN];
    match idx.read_exact_at(&mut bytes, SPAN as u64 * (position + 1)) {
        Ok(()) => Ok(Span::decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// How many of the first `spans` spans are sound: the last `checked` bytes of text are read for it.
fn intact(idx: &File, log: &File, spans: u64, text: u64, checked: u64) -> io::Result<u64> {
    let mut good = spans;
    let mut seen = 0;
    let mut sound_in_a_row = 0;
    for position in (0..spans).rev() {
        let sound = match span_at(idx, position)? {
            Some(span) => {
                seen += u64::from(span.length);
                span.end() <= text && (checked == 0 || reads(log, &span)?)
            }
            None => false,
        };
        if sound {
            sound_in_a_row += 1;
        } else {
            good = position;
            sound_in_a_row = 0;
        }
        if sound_in_a_row > 0 && seen >= checked {
            break;
        }
    }
    Ok(good)
}

/// Whether a span's text is what the span says.
fn reads(log: &File, span: &Span) -> io::Result<bool> {
    let mut text = vec![0; span.length as usize];
    match log.read_exact_at(&mut text, span.offset) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    }
    let Some(text) = text.strip_suffix(b"\n") else {
        return Ok(false);
    };
    let mut lines = 0;
    for line in text.split(|byte| *byte == b'\n') {
        if parse_line(line).is_none() {
            return Ok(false);
        }
        lines += 1;
    }
    Ok(span.flags.has(Flags::JOINED) || lines == span.count)
}

/// What to do with a line that is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Pass over it.
    Skip,
    /// End there.
    Stop,
}

/// An index made from text alone: runs, levels and fields are not in it.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// The spans.
    pub spans: Vec<Span>,
    /// What belongs to the field file from the given offset on.
    pub fields: Vec<u8>,
    /// Where the last sound line ends.
    pub end: u64,
    /// How many sound lines there are.
    pub lines: u64,
}

/// A rebuilt span grows no further than this.
const LONGEST: u32 = 64 * 1024;

/// Makes the index of a stretch of text that begins at `from`; names get offsets from `fields_base` on.
///
/// # Errors
/// What the file system says.
pub fn rebuild(
    text: impl Read,
    from: u64,
    mut seq: u64,
    mut key: u64,
    fields_base: u64,
    bad: Bad,
) -> io::Result<Rebuilt> {
    let mut reader = BufReader::with_capacity(256 * 1024, text);
    let mut rebuilt = Rebuilt { end: from, ..Rebuilt::default() };
    let mut names: HashMap<String, u32> = HashMap::new();
    let mut offset = from;
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)?;
        if length == 0 {
            break;
        }
        let parsed = line.ends_with(b"\n").then(|| parse_line(&line)).flatten();
        let Some(parsed) = parsed else {
            if bad == Bad::Stop {
                break;
            }
            offset += length as u64;
            continue;
        };
        key = key.max(parsed.at);
        let name = match names.get(parsed.name) {
            Some(name) => *name,
            None => {
                let name = (fields_base + rebuilt.fields.len() as u64) as u32;
                rebuilt.fields.extend_from_slice(parsed.name.as_bytes());
                rebuilt.fields.push(b'\n');
                names.insert(parsed.name.to_owned(), name);
                name
            }
        };
        let length = length as u32;
        match rebuilt.spans.last_mut() {
            Some(last)
                if (last.at, last.name, last.stream, last.end())
                    == (parsed.at, name, parsed.stream, offset)
                    && last.length < LONGEST =>
            {
                last.count += 1;
                last.length += length;
            }
            _ => rebuilt.spans.push(Span {
                seq,
                offset,
                at: parsed.at,
                key,
                length,
                count: 1,
                name,
                run: 0,
                pid: 0,
                fields: 0,
                fields_length: 0,
                stream: parsed.stream,
                level: None,
                flags: Flags::NONE,
            }),
        }
        seq += 1;
        offset += u64::from(length);
        rebuilt.end = offset;
        rebuilt.lines += 1;
    }
    Ok(rebuilt)
}

fn open_fields(dir: &Path, id: Id) -> io::Result<File> {
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).open(path(dir, id, "fld"))?;
    if file.metadata()?.len() < FIELDS_HEADER.len() as u64 {
        file.set_len(0)?;
        file.write_all(FIELDS_HEADER)?;
    }
    Ok(file)
}

fn rewrite(dir: &Path, id: Id, rebuilt: &Rebuilt) -> io::Result<()> {
    let mut fields = FIELDS_HEADER.to_vec();
    fields.extend_from_slice(&rebuilt.fields);
    let mut index = header().to_vec();
    for span in &rebuilt.spans {
        index.extend_from_slice(&span.encode());
    }
    for (ending, bytes) in [("fld", fields), ("idx", index)] {
        let new = dir.join(format!("{id}.{ending}.new"));
        fs::write(&new, bytes)?;
        fs::rename(&new, path(dir, id, ending))?;
    }
    Ok(())
}

/// Renames all files of a segment so that nobody reads them for a segment.
pub(super) fn set_aside(dir: &Path, id: Id) -> io::Result<()> {
    for ending in ENDINGS {
        let plain = path(dir, id, ending);
        for from in [packed_path(&plain), plain] {
            if from.exists() {
                let mut to = from.clone().into_os_string();
                to.push(".corrupt");
                fs::rename(&from, to)?;
            }
        }
    }
    Ok(())
}

/// The last sound span of a segment as it is.
///
/// # Errors
/// What the file system says.
pub(super) fn last_span(dir: &Path, id: Id) -> io::Result<Option<Span>> {
    match File::open(path(dir, id, "idx")) {
        Ok(idx) => {
            let spans = (idx.metadata()?.len() / SPAN as u64).saturating_sub(1);
            Ok((0..spans).rev().find_map(|at| span_at(&idx, at).ok().flatten()))
        }
        Err(_) => last_packed(dir, id),
    }
}

/// The last sound span of a compressed segment; an error where one of its files is damaged.
fn last_packed(dir: &Path, id: Id) -> io::Result<Option<Span>> {
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    Stored::open(&path(dir, id, "log"))?;
    let (idx, fld) = (Stored::open(&path(dir, id, "idx"))?, Stored::open(&path(dir, id, "fld"))?);
    let (mut head, mut line) = ([0; HEADER.len()], [0; FIELDS_HEADER.len()]);
    idx.read_at(&mut head, 0)?;
    fld.read_at(&mut line, 0)?;
    if head != *HEADER || line != *FIELDS_HEADER {
        return Err(broken());
    }
    let spans = idx.len()? / SPAN as u64;
    let mut bytes = [0; SPAN];
    for position in (1..spans).rev() {
        idx.read_at(&mut bytes, SPAN as u64 * position)?;
        if let Some(span) = Span::decode(&bytes) {
            return Ok(Some(span));
        }
    }
    if spans > 1 { Err(broken()) } else { Ok(None) }
}

/// Decompresses what can be of a segment; `false` when that is not its text, and it was set aside.
fn make_plain(dir: &Path, id: Id) -> io::Result<bool> {
    let text = packed_path(&path(dir, id, "log"));
    let new = dir.join(format!("{id}.log.new"));
    if unpack(&text, &new).is_err() {
        let _ = fs::remove_file(&new); // may never have been made
        set_aside(dir, id)?;
        return Ok(false);
    }
    for ending in ["fld", "idx"] {
        let plain = path(dir, id, ending);
        if unpack(&packed_path(&plain), &plain).is_err() {
            let _ = fs::remove_file(&plain); // an index that is missing is made again
        }
    }
    fs::rename(&new, path(dir, id, "log"))?;
    for ending in ENDINGS {
        let _ = fs::remove_file(packed_path(&path(dir, id, ending))); // one of them may be what was missing
    }
    Ok(true)
}
