//! `log.file`: the lines of instances in a file of their own, besides the store.
//!
//! A file that fails is tried again by itself; what it misses is counted, and a gap in it says so.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::disk::RETRY;
use super::record::{Batch, Stamps, Stream, Who, wall};

/// A file that instances' lines are copied to.
pub(super) struct Copied {
    path: PathBuf,
    /// Open, or since when it fails and why.
    file: Result<File, (Instant, String)>,
    /// What it has missed.
    lost: BTreeMap<Arc<str>, u64>,
    pub(super) news: Vec<News>,
}

/// What there is to say of such a file.
pub(super) enum News {
    Fails(String),
    /// It works again: whose lines are not in it, and why.
    Works(BTreeMap<Arc<str>, u64>, String),
}

impl Copied {
    pub(super) fn new(path: &Path) -> Self {
        let mut copied = Self {
            path: path.to_owned(),
            file: Err((Instant::now(), String::new())),
            lost: BTreeMap::new(),
            news: Vec::new(),
        };
        copied.file = copied.open();
        copied
    }

    fn open(&mut self) -> Result<File, (Instant, String)> {
        let opened = OpenOptions::new().append(true).create(true).open(&self.path);
        opened.map_err(|error| self.fails(&error))
    }

    /// Notes an error, and says so where it is another one.
    fn fails(&mut self, error: &io::Error) -> (Instant, String) {
        let text = error_text(error);
        if !matches!(&self.file, Err((_, known)) if *known == text) {
            self.news.push(News::Fails(text.clone()));
        }
        (Instant::now(), text)
    }

    /// Adds these lines, or counts them while it fails; that is tried again every [`RETRY`].
    pub(super) fn write(&mut self, text: &[u8], name: &Arc<str>, lines: u64) {
        if let Err((since, _)) = &self.file
            && since.elapsed() >= RETRY
        {
            self.file = self.again();
        }
        if let Ok(file) = &mut self.file {
            let Err(error) = write_whole(file, text) else {
                return;
            };
            self.file = Err(self.fails(&error));
        }
        *self.lost.entry(name.clone()).or_default() += lines;
    }

    /// Opens it again and says in it what is missing.
    fn again(&mut self) -> Result<File, (Instant, String)> {
        let why = self.file.as_ref().err().map(|(_, why)| why.clone()).unwrap_or_default();
        let mut file = self.open()?;
        let at = wall();
        let mut gaps = Batch::default();
        for (name, lines) in &self.lost {
            let who = Arc::new(Who { name: name.clone(), file: None });
            gaps.begin(&who, 0, 0, Stream::Node, at, Stamps::default().write(at));
            gaps.gap(*lines, &why);
        }
        write_whole(&mut file, &gaps.text).map_err(|error| self.fails(&error))?;
        self.news.push(News::Works(std::mem::take(&mut self.lost), why));
        Ok(file)
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
