//! The thread that writes: it owns the store, so that a slow disk holds up nobody but who must wait for it.
//!
//! A disk that fails is not slow: batches are kept in a bounded memory and tried again, what does not fit
//! is counted by instance, and when the disk is back a gap record says how many lines are lost, and why.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use hilum_shared::config::spec::LogsSpec;
use hilum_shared::name::Run;
use hilum_shared::protocol::Level;
use serde_json::Value;

use super::account::{self, DISK, Untold, Why};
use super::console::structured_text;
use super::copies::{Copied, News};
use super::crashes;
use super::handle::{Done, LogReport};
use super::post::{Reports, Shared};
use super::record::{Batch, NODE_NAME, Stamps, Stream, Who, wall};
use super::store::{Note, Store};

/// Bytes of batches that wait for a disk that fails.
const KEPT: usize = 4 * 1024 * 1024;
/// Between two tries on a disk that fails.
pub(super) const RETRY: Duration = Duration::from_secs(1);
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
    /// What found no room while the disk fails: of whom, and what a gap that is among it said.
    lost: BTreeMap<(Arc<str>, Option<String>), Lost>,
    degraded: Option<String>,
    tried: Instant,
    files: HashMap<PathBuf, Copied>,
    /// A structured record as `log.file` shows it.
    shown: Vec<u8>,
    stamps: Stamps,
}

/// Lines that found no room.
struct Lost {
    who: Arc<Who>,
    /// 0: of several lives, or nobody knows.
    run: u32,
    pid: u32,
    lines: u64,
}

impl Disk {
    /// A disk thread's state around an open store.
    pub(super) fn new(
        store: Store,
        crashes: crashes::Writer,
        shared: Arc<Shared>,
        reports: Reports,
        returned: Sender<Batch>,
    ) -> Self {
        Self {
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
            shown: Vec::new(),
            stamps: Stamps::default(),
        }
    }

    /// Writes its first records: the gaps that the log before this one could not write, then what happened to the files.
    pub(super) fn beginning_with(mut self, untold: Vec<Untold>, notes: &[Note]) -> Self {
        for Untold { name, lines, why } in untold {
            let who = Arc::new(Who { name: name.clone(), file: None });
            self.lost.insert((name, Some(why)), Lost { who, run: 0, pid: 0, lines });
        }
        if let Err(error) = self.write_gaps() {
            self.degrade(&error);
        }
        for note in notes {
            self.note(note);
        }
        self
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
                    self.files.retain(|_, file| file.reopen());
                    self.tell_of_files();
                    self.store.reopen();
                    self.retry();
                }
                Err(RecvTimeoutError::Timeout) => {
                    if self.degraded.is_some() && self.tried.elapsed() >= RETRY {
                        self.retry();
                    }
                    self.store.age();
                }
                Ok(Work::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    if self.degraded.is_some() {
                        self.retry();
                    }
                    self.files.values_mut().for_each(Copied::finish);
                    self.tell_of_files();
                    self.give_up();
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
        let retry = self.degraded.is_some().then(|| RETRY.saturating_sub(self.tried.elapsed()));
        retry.or_else(|| self.store.ages_in())
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
        self.count_lost(&batch);
        self.give_back(batch);
    }

    fn count_lost(&mut self, batch: &Batch) {
        let mut offset = 0;
        for draft in &batch.drafts {
            let text = &batch.text[offset..offset + draft.length as usize];
            offset += draft.length as usize;
            let (said, lines) = match draft.dropped {
                0 => (None, memchr::memchr_iter(b'\n', text).count() as u64),
                // Its lines are in the account already.
                dropped => (Some(said(text)), dropped),
            };
            let name = &draft.who.name;
            if said.is_none() {
                self.shared.lose(name, Run(draft.run), Why::Disk, lines);
            }
            let lost = self.lost.entry((name.clone(), said));
            let new = || Lost { who: draft.who.clone(), run: draft.run, pid: draft.pid, lines: 0 };
            let lost = lost.or_insert_with(new);
            lost.lines += lines;
            if lost.run != draft.run {
                (lost.run, lost.pid) = (0, 0);
            }
        }
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
        while let Some(batch) = self.kept.pop_front() {
            if let Err(error) = self.append(&batch) {
                self.kept.push_front(batch);
                self.degrade(&error);
                return;
            }
            self.kept_bytes = self.kept_bytes.saturating_sub(batch.size());
        }
        if let Err(error) = self.write_gaps() {
            self.degrade(&error);
            return;
        }
        self.degraded = None;
        self.shared.degraded.store(false, Ordering::Relaxed);
        self.reports.send(LogReport::Recovered);
    }

    /// Writes a gap for all that found no room.
    fn write_gaps(&mut self) -> io::Result<()> {
        let reason = self.reason();
        let mut gaps = Batch::default();
        for ((_, said), Lost { who, run, pid, lines }) in &self.lost {
            let at = wall();
            gaps.begin(who, *run, *pid, Stream::Node, at, self.stamps.write(at));
            gaps.gap(*lines, said.as_ref().unwrap_or(&reason));
        }
        self.append(&gaps)?;
        for ((name, said), Lost { lines, .. }) in std::mem::take(&mut self.lost) {
            let why = said.unwrap_or_else(|| reason.clone());
            // Who lost lines by another cause has told of it.
            if Why::said(&why) == Why::Disk {
                self.reports.send(LogReport::Dropped { name, lines, why });
            }
        }
        Ok(())
    }

    fn reason(&self) -> String {
        self.degraded.clone().unwrap_or_else(|| Why::Disk.phrase().to_owned())
    }

    /// The node ends: where the disk still fails, what is kept is lost, too, and has to be told elsewhere.
    fn give_up(&mut self) {
        for batch in std::mem::take(&mut self.kept) {
            self.count_lost(&batch);
        }
        let reason = self.reason();
        let lost = std::mem::take(&mut self.lost).into_iter();
        let untold = lost.map(|((name, said), Lost { lines, .. })| {
            let why = said.unwrap_or_else(|| reason.clone());
            Untold { name, lines, why }
        });
        self.shared.leave_untold(untold.collect());
    }

    /// Writes down what happened to the files, and what was lost by it. The loss itself shows in the numbers that are missing.
    fn note(&mut self, note: &Note) {
        let Note { text, lines, names } = note;
        if *lines == 0 {
            return self.say(Level::Warning, &format!("log store: {text}"));
        }
        let plural = if *lines == 1 { "line is" } else { "lines are" };
        self.say(Level::Warning, &format!("log store: {text}, {lines} {plural} lost"));
        let nobody = (names.is_empty()).then(|| (Arc::from(NODE_NAME), *lines));
        for (name, lines) in names.clone().into_iter().chain(nobody) {
            self.shared.lose(&name, Run(0), Why::Files, lines);
            self.reports.send(LogReport::Dropped { name, lines, why: text.clone() });
        }
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
        for draft in &batch.drafts {
            let text = &batch.text[offset..offset + draft.length as usize];
            offset += draft.length as usize;
            let Some(path) = &draft.who.file else {
                continue;
            };
            let file = match self.files.get_mut(path) {
                Some(file) => file,
                None => self.files.entry(path.clone()).or_insert_with(|| Copied::new(path)),
            };
            let text = match batch.fields_of(draft).filter(|_| draft.stream == Stream::Log) {
                Some(json) => {
                    self.shown.clear();
                    let fields = serde_json::from_slice(json).ok();
                    structured_text(text, draft.level, fields, &mut self.shown);
                    &self.shown
                }
                None if draft.stream == Stream::Log => {
                    self.shown.clear();
                    structured_text(text, draft.level, None, &mut self.shown);
                    &self.shown
                }
                None => text,
            };
            file.add(text, &draft.who.name);
        }
        self.files.values_mut().for_each(Copied::write);
        self.tell_of_files();
    }

    /// What happened to the files that lines are copied to.
    fn tell_of_files(&mut self) {
        let mut said = Vec::new();
        for (path, file) in &mut self.files {
            said.extend(file.news.drain(..).map(|news| (path.clone(), news)));
        }
        for (path, news) in said {
            self.tell_of_file(&path, news);
        }
    }

    fn tell_of_file(&mut self, path: &Path, news: News) {
        let path = path.display();
        match news {
            News::Fails(error) => self.say(
                Level::Warning,
                &format!(
                    "log file `{path}` cannot be written: {error}; until it can, its lines are in the store only"
                ),
            ),
            News::Works(lost, why) => {
                for (name, lines) in lost {
                    let text = format!("log file `{path}` is written again: {lines} lines are missing in it");
                    self.missed(name, lines, &text, &why);
                }
            }
            News::Ends(lost, why) => {
                for (name, lines) in lost {
                    let text = format!("log file `{path}` misses {lines} lines: {why}");
                    self.missed(name, lines, &text, &why);
                }
            }
        }
    }

    /// Writes down a `lines-dropped` of lines that are in the store all the same.
    fn missed(&mut self, name: Arc<str>, lines: u64, text: &str, error: &str) {
        let (why, at) = (Why::Copy, wall());
        let who = Arc::new(Who { name: name.clone(), file: None });
        let mut batch = Batch::default();
        batch.begin(&who, 0, 0, Stream::Node, at, self.stamps.write(at));
        let fields = Value::Object(account::event(at, &name, None, None, (why, lines), text));
        batch.record(text.as_bytes(), Some(Level::Warning), fields.to_string().as_bytes(), 0);
        if self.degraded.is_none()
            && let Err(error) = self.append(&batch)
        {
            self.degrade(&error);
        }
        self.shared.lose(&name, Run(0), why, lines);
        let why = format!("not in its {}: {error}", why.phrase());
        self.reports.send(LogReport::Dropped { name, lines, why });
    }
}

/// What a gap says in its brackets.
fn said(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text.trim_ascii_end());
    let said = text.split_once(" dropped (").map_or("", |(_, said)| said);
    said.strip_suffix(')').unwrap_or(said).to_owned()
}

/// The reason in a few words, which [`Why::of_gap`] knows for the disk's.
fn why(error: &io::Error) -> String {
    let [full, quota, read_only] = DISK;
    match error.kind() {
        io::ErrorKind::StorageFull => full.to_owned(),
        io::ErrorKind::QuotaExceeded => quota.to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => read_only.to_owned(),
        _ => format!("{}: {error}", Why::Disk.phrase()),
    }
}
