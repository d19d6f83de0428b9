//! `log.file`: the lines of instances in a file of their own, besides the store.
//!
//! A file that was renamed or removed (logrotate without `copytruncate`) is made anew with the next lines; those that went into a
//! removed one are written again. A file that fails is tried again by itself; what it misses is counted, and a gap in it
//! says so.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::disk::RETRY;
use super::record::{Batch, Stamps, Stream, Who, wall};

/// Lines by the name of the timeline.
type Lines = BTreeMap<Arc<str>, u64>;

/// What is kept of the memory that a batch's lines took.
const KEPT: usize = 64 * 1024;

/// A file that instances' lines are copied to.
pub(super) struct Copied {
    path: PathBuf,
    /// Open, or since when it fails and why.
    file: Result<Open, (Instant, String)>,
    /// The lines of the batch at hand.
    text: Vec<u8>,
    lines: Lines,
    /// What it has missed.
    lost: Lines,
    pub(super) news: Vec<News>,
}

/// An open file, and which one it is.
struct Open {
    file: File,
    id: (u64, u64),
}

/// What there is to say of such a file.
pub(super) enum News {
    Fails(String),
    /// It works again: whose lines are not in it, and why.
    Works(Lines, String),
    /// It never did again.
    Ends(Lines, String),
}

impl Copied {
    pub(super) fn new(path: &Path) -> Self {
        let mut copied = Self {
            path: path.to_owned(),
            file: Err((Instant::now(), String::new())),
            text: Vec::new(),
            lines: Lines::new(),
            lost: Lines::new(),
            news: Vec::new(),
        };
        copied.file = copied.open();
        copied
    }

    fn open(&mut self) -> Result<Open, (Instant, String)> {
        let opened = OpenOptions::new().append(true).create(true).open(&self.path);
        let known = opened.and_then(|file| {
            let meta = file.metadata()?;
            Ok(Open { file, id: (meta.dev(), meta.ino()) })
        });
        known.map_err(|error| self.fails(&error))
    }

    /// Notes an error, and says so where it is another one.
    fn fails(&mut self, error: &io::Error) -> (Instant, String) {
        let text = error_text(error);
        if !matches!(&self.file, Err((_, known)) if *known == text) {
            self.news.push(News::Fails(text.clone()));
        }
        (Instant::now(), text)
    }

    /// Adds lines to what is written next.
    pub(super) fn add(&mut self, text: &[u8], name: &Arc<str>) {
        self.text.extend_from_slice(text);
        let lines = memchr::memchr_iter(b'\n', text).count() as u64;
        *self.lines.entry(name.clone()).or_default() += lines;
    }

    /// Writes what was added, or counts it while it fails; that is tried again every [`RETRY`].
    pub(super) fn write(&mut self) {
        if self.text.is_empty() {
            return;
        }
        if let Err((since, _)) = &self.file
            && since.elapsed() >= RETRY
        {
            self.file = self.again();
        }
        let text = std::mem::take(&mut self.text);
        if self.put(&text) {
            self.lines.clear();
        } else {
            for (name, lines) in std::mem::take(&mut self.lines) {
                *self.lost.entry(name).or_default() += lines;
            }
        }
        self.text = text;
        self.text.clear();
        self.text.shrink_to(KEPT);
    }

    /// Writes `text` into the file that has the name now. Looked at once a batch, not once a line.
    fn put(&mut self, text: &[u8]) -> bool {
        if !self.is_in_place() {
            self.file = self.open();
        }
        // Once more where it was removed meanwhile: nobody would ever read that.
        for _ in 0..2 {
            let Ok(open) = &mut self.file else {
                return false;
            };
            if let Err(error) = write_whole(&mut open.file, text) {
                self.file = Err(self.fails(&error));
                return false;
            }
            if open.file.metadata().map_or(1, |meta| meta.nlink()) > 0 {
                return true;
            }
            self.file = self.open();
        }
        true // it is removed as fast as it is made: by somebody who does not want it
    }

    /// Whether the open file is the one that has its name. What cannot be told is taken for so.
    fn is_in_place(&self) -> bool {
        let Ok(Open { id, .. }) = &self.file else {
            return true;
        };
        match std::fs::metadata(&self.path) {
            Ok(meta) => *id == (meta.dev(), meta.ino()),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Opens it anew, now (SIGUSR1). `false`: it can be forgotten, the next line opens it.
    pub(super) fn reopen(&mut self) -> bool {
        if self.file.is_err() {
            self.file = self.again();
        }
        self.file.is_err()
    }

    /// Nothing more comes: tries once more, and tells what is missing.
    pub(super) fn finish(&mut self) {
        if self.lost.is_empty() {
            return;
        }
        self.file = self.again();
        if let Err((_, why)) = &self.file {
            self.news.push(News::Ends(std::mem::take(&mut self.lost), why.clone()));
        }
    }

    /// Opens it again and says in it what is missing.
    fn again(&mut self) -> Result<Open, (Instant, String)> {
        let why = self.file.as_ref().err().map(|(_, why)| why.clone()).unwrap_or_default();
        let mut open = self.open()?;
        let at = wall();
        let mut gaps = Batch::default();
        for (name, lines) in &self.lost {
            let who = Arc::new(Who { name: name.clone(), file: None });
            gaps.begin(&who, 0, 0, Stream::Node, at, Stamps::default().write(at));
            gaps.gap(*lines, &why);
        }
        write_whole(&mut open.file, &gaps.text).map_err(|error| self.fails(&error))?;
        self.news.push(News::Works(std::mem::take(&mut self.lost), why));
        Ok(open)
    }
}

/// Writes all, or takes back what it could: no line is torn.
fn write_whole(file: &mut File, text: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < text.len() {
        let error = match file.write(&text[done..]) {
            Ok(0) => io::Error::from(io::ErrorKind::WriteZero),
            Ok(count) => {
                done += count;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        let length = file.metadata().map_or(0, |meta| meta.len());
        if let Some(whole) = length.checked_sub(done as u64).filter(|_| done > 0) {
            let _ = file.set_len(whole); // a pipe or a device has no length
        }
        return Err(error);
    }
    Ok(())
}

/// What the system calls it: `No space left on device`.
fn error_text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}
