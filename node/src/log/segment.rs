//! One segment: three files that grow together. `000001.log` is the timeline that `grep` reads,
//! `000001.idx` and `000001.fld` are the index (see [`super::index`]).
//!
//! The text is written first, the index last: what a reader finds in the index is there. A write that
//! fails is taken back whole. Files that somebody truncated, deleted or renamed are noticed before the next
//! write and never written to again.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::index::{FIELDS_HEADER, LONG_FIELDS, SPAN, Span, header};
use super::record::{Batch, Flags};

/// The three files of a segment, by their ending.
pub const ENDINGS: [&str; 3] = ["log", "idx", "fld"];

/// The path of a segment's file.
pub fn path(dir: &Path, number: u64, ending: &str) -> PathBuf {
    dir.join(format!("{number:06}.{ending}"))
}

/// The number and the ending of a segment's file name.
pub fn parse_name(name: &str) -> Option<(u64, &str)> {
    let (number, ending) = name.split_once('.')?;
    (number.len() >= 6 && number.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| Some((number.parse().ok()?, ending)))?
}

/// The numbers of all segments in a folder, in order; none where there is no folder.
///
/// # Errors
/// When the folder cannot be read.
pub fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers: Vec<u64> = files(dir)?
        .into_iter()
        .filter(|(_, ending)| ending == "log")
        .map(|(number, _)| number)
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The number and the ending of every file of a segment in a folder, those that were set aside included.
///
/// # Errors
/// When the folder cannot be read.
pub fn files(dir: &Path) -> io::Result<Vec<(u64, String)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if let Some((number, ending)) = name.to_str().and_then(parse_name) {
            files.push((number, ending.to_owned()));
        }
    }
    Ok(files)
}

/// Bytes of all files of a segment.
pub fn size(dir: &Path, number: u64) -> u64 {
    ENDINGS
        .iter()
        .filter_map(|ending| fs::metadata(path(dir, number, ending)).ok())
        .map(|meta| meta.len())
        .sum()
}

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
        let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
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
    /// Its number.
    pub number: u64,
    log: Grown,
    idx: Grown,
    fld: Grown,
    names: HashMap<Arc<str>, u32>,
    /// The index entries and names of the batch at hand.
    spans: Vec<u8>,
    extra: Vec<u8>,
}

impl Segment {
    /// Opens the segment with this number for writing at its end; it is made where it is not.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(dir: &Path, number: u64) -> io::Result<Self> {
        let log = Grown::open(path(dir, number, "log"), b"")?;
        if log.length == 0 {
            // The index of a text that somebody took away must not speak for this one.
            for ending in &ENDINGS[1..] {
                match fs::remove_file(path(dir, number, ending)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        let fld = Grown::open(path(dir, number, "fld"), FIELDS_HEADER)?;
        let idx = Grown::open(path(dir, number, "idx"), &header())?;
        Ok(Self {
            number,
            log,
            idx,
            fld,
            names: HashMap::new(),
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

    /// Whether it holds nothing yet.
    pub fn is_empty(&self) -> bool {
        self.log.length == 0
    }

    /// Whether it may grow no more, whatever the configuration says: offsets of names have 32 bits.
    pub fn is_full(&self) -> bool {
        self.fld.length > u64::from(u32::MAX) / 2
    }

    /// Whether its files still have their names.
    pub fn is_in_place(&self) -> bool {
        self.log.is_in_place() && self.idx.is_in_place() && self.fld.is_in_place()
    }

    /// Writes a batch, whose first record gets `seq`; `key` is the latest wall time so far and is moved on.
    ///
    /// # Errors
    /// See [`AppendError`]; then nothing of the batch is in the files.
    pub fn append(&mut self, batch: &Batch, seq: u64, key: &mut u64) -> Result<(), AppendError> {
        if !(self.log.is_ours() && self.idx.is_ours() && self.fld.is_ours()) {
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
            let name = match self.names.get(&draft.who.name) {
                Some(name) => *name,
                None => {
                    let name = here(&self.extra);
                    self.extra.extend_from_slice(draft.who.name.as_bytes());
                    self.extra.push(b'\n');
                    self.names.insert(draft.who.name.clone(), name);
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
        self.names.retain(|_, offset| u64::from(*offset) < base);
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
    fn only_segments_are_taken_for_segments() {
        assert_eq!(parse_name("000012.log"), Some((12, "log")));
        assert_eq!(parse_name("1000000.idx"), Some((1_000_000, "idx")));
        for other in ["12.log", "crashes.jsonl", "00001x.log", "000001", ""] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }
}
