//! One segment: three files that grow together. `000001.log` is the timeline that `grep` reads,
//! `000001.idx` and `000001.fld` are the index (see [`super::index`]).
//!
//! The text is written first, the index last: what a reader finds in the index is there. A write that
//! fails is taken back whole. Files that somebody truncated, deleted or renamed are noticed before the next
//! write and never written to again.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::index::{FIELDS_HEADER, LONG_FIELDS, SPAN, Span, header};
use super::losses::Names;
use super::pack::{PACKED, Stored, packed_path};
use super::record::{Batch, Flags};

/// The three files of a segment, by their ending.
pub const ENDINGS: [&str; 3] = ["log", "idx", "fld"];

/// Which segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id {
    /// Its number: they are read in this order.
    pub number: u64,
    /// Where others were folded into it: the first number whose lines it holds (see [`super::fold`]).
    pub from: Option<u64>,
}

impl Id {
    /// The first number whose lines it holds.
    pub fn first(self) -> u64 {
        self.from.unwrap_or(self.number)
    }
}

impl From<u64> for Id {
    fn from(number: u64) -> Self {
        Self { number, from: None }
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.from {
            None => write!(f, "{:06}", self.number),
            Some(from) => write!(f, "{from:06}-{:06}", self.number),
        }
    }
}

/// The path of a segment's file.
pub fn path(dir: &Path, id: impl Into<Id>, ending: &str) -> PathBuf {
    dir.join(format!("{}.{ending}", id.into()))
}

/// Which segment a file belongs to, and its ending: `000012.log`, `000003-000012.idx.zst`.
pub fn parse_name(name: &str) -> Option<(Id, &str)> {
    let (stem, ending) = name.split_once('.')?;
    let number = |text: &str| -> Option<u64> {
        let good = text.len() >= 6 && text.bytes().all(|byte| byte.is_ascii_digit());
        good.then(|| text.parse().ok())?
    };
    let id = match stem.split_once('-') {
        None => Id { number: number(stem)?, from: None },
        Some((from, last)) => Id { number: number(last)?, from: Some(number(from)?) },
    };
    (id.first() <= id.number).then_some((id, ending))
}

/// All segments in a folder, in order; none where there is no folder. Where segments were folded into one, and are
/// still there or not all of it is there yet, each line is in one of those that are listed.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(dir: &Path) -> io::Result<Vec<Id>> {
    let files = files(dir)?;
    let mut found: Vec<Id> = Vec::new();
    let mut indexed: Vec<Id> = Vec::new();
    for (id, ending) in &files {
        match ending.strip_suffix(PACKED).unwrap_or(ending) {
            "log" => found.push(*id),
            "idx" => indexed.push(*id),
            _ => {}
        }
    }
    found.sort_unstable_by_key(|id| (id.number, id.first()));
    found.dedup();
    // One in which others were folded counts from the moment at which it has its index.
    let folded: Vec<Id> = found
        .iter()
        .filter(|id| {
            let others = || found.iter().any(|other| other != *id && id.covers(*other));
            id.from.is_some() && (indexed.contains(id) || !others())
        })
        .copied()
        .collect();
    found.retain(|id| {
        let hidden = folded.iter().any(|other| other != id && other.covers(*id));
        !hidden && (id.from.is_none() || folded.contains(id))
    });
    Ok(found)
}

impl Id {
    /// Whether the other one's lines are in this one.
    fn covers(self, other: Self) -> bool {
        self.from.is_some() && self.first() <= other.first() && other.number <= self.number
    }
}

/// The segment and the ending of every file of one in a folder, those that were set aside included.
///
/// # Errors
/// When the folder cannot be read.
pub fn files(dir: &Path) -> io::Result<Vec<(Id, String)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if let Some((id, ending)) = name.to_str().and_then(parse_name) {
            files.push((id, ending.to_owned()));
        }
    }
    Ok(files)
}

/// Bytes of all files of a segment.
pub fn size(dir: &Path, id: impl Into<Id>) -> u64 {
    let id = id.into();
    paths(dir, id).filter_map(|path| fs::metadata(path).ok()).map(|meta| meta.len()).sum()
}

/// Removes a segment. The index goes after the text: a reader that still finds it finds the rest missing and passes on.
pub(super) fn remove(dir: &Path, id: Id) {
    for path in paths(dir, id) {
        let _ = fs::remove_file(path); // somebody else may have been first
    }
}

/// Whether the text of a segment is there.
pub(super) fn exists(dir: &Path, id: Id) -> bool {
    let plain = path(dir, id, "log");
    plain.exists() || packed_path(&plain).exists()
}

/// Where files of a segment may be, plain and compressed.
fn paths(dir: &Path, id: Id) -> impl Iterator<Item = PathBuf> {
    ENDINGS.into_iter().flat_map(move |ending| {
        let plain = path(dir, id, ending);
        [packed_path(&plain), plain]
    })
}

/// How much room each name takes.
pub(super) type Shares = HashMap<Arc<str>, u64>;

/// Why a batch was not written.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Somebody truncated, deleted or renamed a file of the segment: a new segment is needed.
    #[error("a file of the segment was changed by somebody else")]
    Changed,
    /// The file system said no; nothing of the batch is in the files.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A file that only we should write to.
struct Grown {
    file: File,
    path: PathBuf,
    length: u64,
}

impl Grown {
    fn open(path: PathBuf, header: &[u8]) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        let mut length = file.metadata()?.len();
        if length < header.len() as u64 {
            file.set_len(0)?;
            if let Err(error) = file.write_all(header) {
                let _ = file.set_len(0); // a header that is not whole is written again next time
                return Err(error);
            }
            length = header.len() as u64;
        }
        Ok(Self { file, path, length })
    }

    fn is_ours(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| meta.nlink() > 0 && meta.len() == self.length)
    }

    fn is_in_place(&self) -> bool {
        let (Ok(here), Ok(there)) = (self.file.metadata(), fs::metadata(&self.path)) else {
            return false;
        };
        (here.ino(), here.dev()) == (there.ino(), there.dev())
    }
}

/// The segment that is written to.
pub struct Segment {
    /// Which it is.
    pub id: Id,
    log: Grown,
    idx: Grown,
    fld: Grown,
    /// Where each name is in the field file, and how much room it takes.
    names: HashMap<Arc<str>, (u32, u64)>,
    /// Whether `names` knows of all that is in it.
    counted: bool,
    /// The index entries and names of the batch at hand.
    spans: Vec<u8>,
    extra: Vec<u8>,
}

impl Segment {
    /// Opens this segment for writing at its end; it is made where it is not.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(dir: &Path, id: impl Into<Id>) -> io::Result<Self> {
        let id = id.into();
        let log = Grown::open(path(dir, id, "log"), b"")?;
        if log.length == 0 {
            // The index of a text that somebody took away must not speak for this one.
            for ending in &ENDINGS[1..] {
                match fs::remove_file(path(dir, id, ending)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        let fld = Grown::open(path(dir, id, "fld"), FIELDS_HEADER)?;
        let idx = Grown::open(path(dir, id, "idx"), &header())?;
        let counted = log.length == 0;
        Ok(Self {
            id,
            log,
            idx,
            fld,
            names: HashMap::new(),
            counted,
            spans: Vec::new(),
            extra: Vec::new(),
        })
    }

    /// Bytes of its files.
    pub fn size(&self) -> u64 {
        self.log.length + self.idx.length + self.fld.length
    }

    /// Bytes of its text.
    pub fn text(&self) -> u64 {
        self.log.length
    }

    /// Whose lines are in it from this number on, as far as this life wrote them: from its index, which we still have when its
    /// name is gone.
    pub(super) fn by_name(&self, from: u64) -> Names {
        let mut lines = Names::new();
        let Ok(idx) = self.idx.file.try_clone() else {
            return lines; // no descriptor: nothing can be said
        };
        let whose: HashMap<u32, &Arc<str>> =
            self.names.iter().map(|(name, (offset, _))| (*offset, name)).collect();
        let idx = Stored::Plain(idx);
        let mut reader = BufReader::new(idx.stretch(SPAN as u64, self.idx.length));
        let mut bytes = [0; SPAN];
        while reader.read_exact(&mut bytes).is_ok() {
            if let Some(span) = Span::decode(&bytes).filter(|span| span.seq >= from)
                && let Some(name) = whose.get(&span.name)
            {
                *lines.entry(Arc::clone(name)).or_default() += span.lines();
            }
        }
        lines
    }

    /// Whether it holds nothing yet.
    pub fn is_empty(&self) -> bool {
        self.log.length == 0
    }

    /// Whether it may grow no more, whatever the configuration says: offsets of names have 32 bits.
    pub fn is_full(&self) -> bool {
        self.fld.length > u64::from(u32::MAX) / 2
    }

    /// Whether its files still have their names, and nobody else wrote to them.
    pub fn is_in_place(&self) -> bool {
        [&self.log, &self.idx, &self.fld].iter().all(|grown| grown.is_in_place() && grown.is_ours())
    }

    /// How much room each name takes in it; `None` when an earlier life wrote to it, too.
    pub(super) fn shares(&self) -> Option<Shares> {
        self.counted
            .then(|| self.names.iter().map(|(name, (_, bytes))| (name.clone(), *bytes)).collect())
    }

    /// Writes a batch, whose first record gets `seq`; `key` is the latest wall time so far and is moved on.
    ///
    /// # Errors
    /// See [`AppendError`]; then nothing of the batch is in the files.
    pub fn append(&mut self, batch: &Batch, seq: u64, key: &mut u64) -> Result<(), AppendError> {
        // The index is looked at with the names, now and then: people rotate and truncate what they read.
        if !self.log.is_ours() {
            return Err(AppendError::Changed);
        }
        let latest = self.describe(batch, seq, *key);
        let written = self
            .log
            .file
            .write_all(&batch.text)
            .and_then(|()| self.fld.file.write_all(&self.extra))
            .and_then(|()| self.idx.file.write_all(&self.spans));
        if let Err(error) = written {
            self.take_back()?;
            return Err(error.into());
        }
        self.log.length += batch.text.len() as u64;
        self.fld.length += self.extra.len() as u64;
        self.idx.length += self.spans.len() as u64;
        *key = latest;
        Ok(())
    }

    /// Fills `spans` and `extra`; returns the latest wall time.
    fn describe(&mut self, batch: &Batch, mut seq: u64, mut key: u64) -> u64 {
        self.spans.clear();
        self.extra.clear();
        self.spans.reserve(batch.drafts.len() * SPAN);
        let mut offset = self.log.length;
        for draft in &batch.drafts {
            key = key.max(draft.at);
            let here = |extra: &Vec<u8>| (self.fld.length + extra.len() as u64) as u32;
            let bytes = SPAN as u64 + u64::from(draft.length) + u64::from(draft.fields.1);
            let name = match self.names.get_mut(&draft.who.name) {
                Some((name, share)) => {
                    *share += bytes;
                    *name
                }
                None => {
                    let name = here(&self.extra);
                    self.extra.extend_from_slice(draft.who.name.as_bytes());
                    self.extra.push(b'\n');
                    self.names.insert(draft.who.name.clone(), (name, bytes));
                    name
                }
            };
            let (start, length) = draft.fields;
            let (fields, fields_length) = if draft.flags.has(Flags::GAP) {
                (draft.dropped.min(u64::from(u32::MAX)) as u32, 0)
            } else if length > 0 {
                let fields = here(&self.extra);
                let json = &batch.fields[start as usize..(start + length) as usize];
                self.extra.extend_from_slice(json);
                self.extra.push(b'\n');
                (fields, u16::try_from(length).unwrap_or(LONG_FIELDS))
            } else {
                (0, 0)
            };
            let span = Span {
                seq,
                offset,
                at: draft.at,
                key,
                length: draft.length,
                count: draft.count,
                name,
                run: draft.run,
                pid: draft.pid,
                fields,
                fields_length,
                stream: draft.stream,
                level: draft.level,
                flags: draft.flags,
            };
            self.spans.extend_from_slice(&span.encode());
            seq = span.next_seq();
            offset = span.end();
        }
        key
    }

    /// Undoes a write that came half.
    fn take_back(&mut self) -> Result<(), AppendError> {
        let base = self.fld.length;
        // Its shares may be a batch too large now, which is no matter.
        self.names.retain(|_, (offset, _)| u64::from(*offset) < base);
        for grown in [&self.idx, &self.fld, &self.log] {
            grown.file.set_len(grown.length).map_err(|_| AppendError::Changed)?;
        }
        Ok(())
    }

    /// Brings everything to the disk itself.
    ///
    /// # Errors
    /// What the file system says.
    pub fn sync(&self) -> io::Result<()> {
        self.log.file.sync_data()?;
        self.fld.file.sync_data()?;
        self.idx.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_folded_is_listed_once() {
        let dir = tempfile::tempdir().unwrap();
        let touch = |name: &str| fs::write(dir.path().join(name), b"x").unwrap();
        let shown = || -> Vec<String> {
            list(dir.path()).unwrap().iter().map(ToString::to_string).collect()
        };
        for name in
            ["000001-000002.log", "000001-000002.idx", "000003.log", "000004.log.zst", "000005.log"]
        {
            touch(name);
        }
        assert_eq!(shown(), ["000001-000002", "000003", "000004", "000005"]);
        touch("000001-000004.log");
        assert_eq!(shown(), ["000001-000002", "000003", "000004", "000005"]);
        touch("000001-000004.idx.zst");
        assert_eq!(shown(), ["000001-000004", "000005"]);
        fs::remove_file(dir.path().join("000004.log.zst")).unwrap();
        assert_eq!(shown(), ["000001-000004", "000005"]);
    }

    #[test]
    fn only_segments_are_taken_for_segments() {
        assert_eq!(parse_name("000012.log"), Some((12.into(), "log")));
        assert_eq!(parse_name("1000000.idx"), Some((1_000_000.into(), "idx")));
        let folded = Id { number: 7, from: Some(3) };
        assert_eq!(parse_name("000003-000007.fld.zst"), Some((folded, "fld.zst")));
        for other in [
            "12.log",
            "crashes.jsonl",
            "00001x.log",
            "000001",
            "",
            "000008-000007.log",
            "000001-7.log",
        ] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }
}
