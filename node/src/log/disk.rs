//! The thread that writes: it owns the store, so that a slow disk holds up nobody but who must wait for it.
//!
//! A disk that fails is not slow: batches are kept in a bounded memory and tried again, what does not fit
//! is counted by instance, and when the disk is back a gap record says how many lines are lost, and why.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use hilum_shared::config::spec::LogsSpec;
use hilum_shared::protocol::Level;

use super::crashes;
use super::handle::{Done, LogReport};
use super::post::{Reports, Shared};
use super::record::{Batch, NODE_NAME, Stamps, Stream, Who, wall};
use super::store::{Note, Store};

/// Bytes of batches that wait for a disk that fails.
const KEPT: usize = 4 * 1024 * 1024;
/// Between two tries on a disk that fails.
const RETRY: Duration = Duration::from_secs(1);
/// While reports wait for their reader.
const REPORT_AGAIN: Duration = Duration::from_millis(50);
/// What a batch may keep of its memory for the next time.
const BATCH_MEMORY: usize = 1024 * 1024;

/// What the disk thread is asked for.
pub(super) enum Work {
    /// Write this, note these crashes, then call those; the batch comes back empty.
    Write(Batch, Vec<String>, Vec<Done>),
    /// Take new limits.
    Configure(Box<LogsSpec>),
    /// Look at the files' names.
    Reopen,
    /// Write everything down and end.
    Stop,
}

/// The state of the disk thread.
pub(super) struct Disk {
    store: Store,
    crashes: crashes::Writer,
    shared: Arc<Shared>,
    reports: Reports,
    returned: Sender<Batch>,
    kept: VecDeque<Batch>,
    kept_bytes: usize,
    lost: BTreeMap<Arc<str>, (Arc<Who>, u64)>,
    degraded: Option<String>,
    tried: Instant,
    files: HashMap<PathBuf, Option<File>>,
    stamps: Stamps,
}

impl Disk {
    /// A disk thread's state around an open store; `notes` are written down as its first records.
    pub(super) fn new(
        store: Store,
        notes: Vec<Note>,
        crashes: crashes::Writer,
        shared: Arc<Shared>,
        reports: Reports,
        returned: Sender<Batch>,
    ) -> Self {
        let mut disk = Self {
            store,
            crashes,
            shared,
            reports,
            returned,
            kept: VecDeque::new(),
            kept_bytes: 0,
            lost: BTreeMap::new(),
            degraded: None,
            tried: Instant::now(),
            files: HashMap::new(),
            stamps: Stamps::default(),
        };
        for note in notes {
            disk.note(&note);
        }
        disk
    }

    /// Runs until it is told to stop or nobody is left to tell it.
    pub(super) fn run(mut self, work: &Receiver<Work>) {
        loop {
            let next = match self.timeout() {
                None => work.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(timeout) => work.recv_timeout(timeout),
            };
            self.reports.flush();
            match next {
                Ok(Work::Write(batch, crashes, done)) => self.write(batch, &crashes, done),
                Ok(Work::Configure(spec)) => self.store.configure(&spec),
                Ok(Work::Reopen) => {
                    self.files.clear();
                    self.store.reopen();
                    self.retry();
                }
                Err(RecvTimeoutError::Timeout) => {
                    if self.degraded.is_some() && self.tried.elapsed() >= RETRY {
                        self.retry();
                    }
                }
                Ok(Work::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    if self.degraded.is_some() {
                        self.retry();
                    }
                    let _ = self.store.sync(); // the text is written; only a power loss could take it
                    self.reports.flush();
                    return;
                }
            }
            for note in self.store.notes() {
                self.note(&note);
            }
            self.shared.store_bytes.store(self.store.size(), Ordering::Relaxed);
            self.shared.next_seq.store(self.store.next_seq(), Ordering::Relaxed);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if self.reports.waiting() {
            return Some(REPORT_AGAIN);
        }
        self.degraded.is_some().then(|| RETRY.saturating_sub(self.tried.elapsed()))
    }

    fn write(&mut self, batch: Batch, crashes: &[String], done: Vec<Done>) {
        if self.degraded.is_some() && self.tried.elapsed() >= RETRY {
            self.retry();
        }
        self.copy_to_files(&batch);
        if self.degraded.is_some() {
            self.keep(batch);
        } else if let Err(error) = self.append(&batch) {
            self.degrade(&error);
            self.keep(batch);
        } else {
            self.give_back(batch);
        }
        if !crashes.is_empty()
            && let Err(error) = self.crashes.write(crashes, self.store.next_seq())
        {
            self.say(Level::Warning, &format!("a crash could not be noted: {error}"));
        }
        for done in done {
            done();
        }
    }

    fn append(&mut self, batch: &Batch) -> io::Result<()> {
        self.shared.writing();
        let result = self.store.append(batch);
        self.shared.written();
        result
    }

    fn give_back(&mut self, mut batch: Batch) {
        batch.clear(BATCH_MEMORY);
        let _ = self.returned.send(batch); // the log thread may have ended
        self.shared.batch_is_back();
    }

    /// Keeps a batch for later, or counts what it held.
    fn keep(&mut self, batch: Batch) {
        let size = batch.size();
        // Once something is lost all is, until the gap is written: what is lost lies in one place.
        if self.lost.is_empty() && self.kept_bytes + size <= KEPT {
            self.kept_bytes += size;
            self.kept.push_back(batch);
            self.give_back(Batch::default());
            return;
        }
        let mut lines = 0;
        for draft in &batch.drafts {
            let count =
                u64::from(draft.count) + draft.dropped.saturating_sub(u64::from(draft.dropped > 0));
            self.lost.entry(draft.who.name.clone()).or_insert_with(|| (draft.who.clone(), 0)).1 +=
                count;
            lines += count;
        }
        self.shared.dropped.fetch_add(lines, Ordering::Relaxed);
        self.give_back(batch);
    }

    fn degrade(&mut self, error: &io::Error) {
        self.tried = Instant::now();
        let why = why(error);
        if self.degraded.as_ref() != Some(&why) {
            self.reports.send(LogReport::Degraded(format!(
                "logs cannot be written ({why}); lines are kept in memory, then counted"
            )));
        }
        self.degraded = Some(why);
        self.shared.degraded.store(true, Ordering::Relaxed);
    }

    /// Tries a disk that failed.
    fn retry(&mut self) {
        self.tried = Instant::now();
        let Some(reason) = self.degraded.clone() else {
            return;
        };
        while let Some(batch) = self.kept.pop_front() {
            if let Err(error) = self.append(&batch) {
                self.kept.push_front(batch);
                self.degrade(&error);
                return;
            }
            self.kept_bytes = self.kept_bytes.saturating_sub(batch.size());
        }
        let mut gaps = Batch::default();
        for (who, count) in self.lost.values() {
            let at = wall();
            gaps.begin(who, 0, 0, Stream::Node, at, self.stamps.write(at));
            gaps.gap(*count, &reason);
        }
        if let Err(error) = self.append(&gaps) {
            self.degrade(&error);
            return;
        }
        for (name, (_, lines)) in std::mem::take(&mut self.lost) {
            self.reports.send(LogReport::Dropped { name, lines, why: reason.clone() });
        }
        self.degraded = None;
        self.shared.degraded.store(false, Ordering::Relaxed);
        self.reports.send(LogReport::Recovered);
    }

    /// Writes down what happened to the files, and what was lost by it.
    fn note(&mut self, note: &Note) {
        if note.lines == 0 {
            return self.say(Level::Warning, &format!("log store: {}", note.text));
        }
        let who = Arc::new(Who { name: NODE_NAME.into(), file: None });
        let at = wall();
        let mut batch = Batch::default();
        batch.begin(&who, 0, 0, Stream::Node, at, self.stamps.write(at));
        batch.gap(note.lines, &note.text);
        self.shared.dropped.fetch_add(note.lines, Ordering::Relaxed);
        let (name, why) = (who.name.clone(), note.text.clone());
        self.reports.send(LogReport::Dropped { name, lines: note.lines, why });
        self.write(batch, &[], Vec::new());
    }

    /// Writes a record of the store's own.
    fn say(&mut self, level: Level, text: &str) {
        let who = Arc::new(Who { name: NODE_NAME.into(), file: None });
        let at = wall();
        let mut batch = Batch::default();
        batch.begin(&who, 0, 0, Stream::Node, at, self.stamps.write(at));
        batch.record(text.as_bytes(), Some(level), b"", 0);
        if self.degraded.is_some() {
            return;
        }
        if let Err(error) = self.append(&batch) {
            self.degrade(&error);
        }
    }

    /// `log.file`: the same lines, besides the store.
    fn copy_to_files(&mut self, batch: &Batch) {
        let mut offset = 0;
        let mut failed = Vec::new();
        for draft in &batch.drafts {
            let text = &batch.text[offset..offset + draft.length as usize];
            offset += draft.length as usize;
            let Some(path) = &draft.who.file else {
                continue;
            };
            let file = match self.files.get_mut(path) {
                Some(file) => file,
                None => {
                    let opened = OpenOptions::new().append(true).create(true).open(path);
                    if let Err(error) = &opened {
                        failed.push((path.clone(), error.kind().to_string()));
                    }
                    self.files.entry(path.clone()).or_insert(opened.ok())
                }
            };
            // A file that fails is given up until SIGUSR1; the store has every line.
            if let Some(open) = file
                && let Err(error) = open.write_all(text)
            {
                failed.push((path.clone(), error.kind().to_string()));
                *file = None;
            }
        }
        for (path, error) in failed {
            self.say(
                Level::Warning,
                &format!(
                    "log file `{}` cannot be written: {error}; its lines are in the store only, until SIGUSR1",
                    path.display()
                ),
            );
        }
    }
}

/// The reason in a few words.
fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull => "disk full".to_owned(),
        io::ErrorKind::QuotaExceeded => "quota exceeded".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "read-only file system".to_owned(),
        _ => error.to_string(),
    }
}
