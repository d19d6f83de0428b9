//! Facts of abnormal ends: `crashes.jsonl` beside the segments, the latest few hundred.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use hilum_shared::name::{InstanceId, Run};
use serde_json::{Map, Value};

use super::query::{Entry, Filter, QueryError, Reader, Start};

/// So many are kept for sure; the file is cut to them when it has twice as many.
pub const KEPT: usize = 500;
/// So many of its last lines belong to a crash.
pub const LAST_LINES: u64 = 200;
/// A line of facts is no longer than this.
const LONGEST: usize = 1024 * 1024;
/// Of longer ones these are kept.
const FEW: [&str; 4] = ["instance", "run", "pid", "at"];

/// The file.
pub fn file(dir: &Path) -> PathBuf {
    dir.join("crashes.jsonl")
}

/// One abnormal end.
#[derive(Clone, Debug, PartialEq)]
pub struct Crash {
    /// Its number, counted on from one node to the next.
    pub id: u64,
    /// What is known: `instance`, `run`, `pid`, `at`, `seq` and what the node added.
    pub facts: Map<String, Value>,
}

impl Crash {
    /// Whose.
    pub fn instance(&self) -> Option<InstanceId> {
        self.facts.get("instance")?.as_str()?.parse().ok()
    }

    /// Which of its lives.
    pub fn run(&self) -> Option<Run> {
        Some(Run(self.facts.get("run")?.as_u64()?.try_into().ok()?))
    }
}

/// Writes them. Used by the disk thread only.
pub(super) struct Writer {
    path: PathBuf,
    next: u64,
    lines: usize,
}

impl Writer {
    /// Goes on where the file ends.
    pub(super) fn open(dir: &Path) -> Self {
        let known = list(dir).unwrap_or_default();
        Self {
            path: file(dir),
            next: known.last().map_or(1, |crash| crash.id + 1),
            lines: known.len(),
        }
    }

    /// Adds these, each a JSON object; `seq` is that of the next record: most of their lines lie before it.
    pub(super) fn write(&mut self, crashes: &[String], seq: u64) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (facts, id) in crashes.iter().zip(self.next..) {
            let few;
            let facts = if facts.len() > LONGEST {
                few = fewer(facts);
                &few
            } else {
                facts
            };
            write!(bytes, r#"{{"id":{id},"seq":{seq}"#)?;
            match facts.strip_prefix('{') {
                Some("}") | None => bytes.push(b'}'),
                Some(rest) => {
                    bytes.push(b',');
                    bytes.extend_from_slice(rest.as_bytes());
                }
            }
            bytes.push(b'\n');
        }
        // Environments are in it.
        let mut out =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        // A torn line of an earlier life must not swallow this one.
        let length = out.metadata()?.len();
        if length > 0 {
            out.seek(SeekFrom::Start(length - 1))?;
            let mut last = [0];
            out.read_exact(&mut last)?;
            if last != *b"\n" {
                bytes.insert(0, b'\n');
            }
        }
        out.write_all(&bytes)?;
        self.next += crashes.len() as u64;
        self.lines += crashes.len();
        if self.lines >= 2 * KEPT {
            self.cut()?;
        }
        Ok(())
    }

    fn cut(&mut self) -> io::Result<()> {
        let text = fs::read(&self.path)?;
        let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        let kept = &lines[lines.len().saturating_sub(KEPT)..];
        let new = self.path.with_extension("jsonl.new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&kept.concat())?;
        fs::rename(&new, &self.path)?;
        self.lines = kept.len();
        Ok(())
    }
}

/// The facts that no dossier can do without.
fn fewer(facts: &str) -> String {
    let all: Map<String, Value> = serde_json::from_str(facts).unwrap_or_default();
    let mut few = Map::new();
    few.insert("facts".to_owned(), "too long".into());
    few.extend(all.into_iter().filter(|(key, _)| FEW.contains(&key.as_str())));
    Value::Object(few).to_string()
}

/// All that are kept, the oldest first; a line that is no crash is passed over.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn list(dir: &Path) -> io::Result<Vec<Crash>> {
    let file = match fs::File::open(file(dir)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut reader = BufReader::new(file);
    let mut crashes = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(crashes);
        }
        if let Ok(Value::Object(facts)) = serde_json::from_slice(&line)
            && let Some(id) = facts.get("id").and_then(Value::as_u64)
        {
            crashes.push(Crash { id, facts });
        }
    }
}

/// The last lines of the run that crashed, at most [`LAST_LINES`]; structured records that were still on their way at its
/// end are among them.
///
/// # Errors
/// When the store cannot be read.
pub fn last_lines(dir: &Path, crash: &Crash) -> Result<Vec<Entry>, QueryError> {
    let (Some(instance), Some(run)) = (crash.instance(), crash.run()) else {
        return Ok(Vec::new());
    };
    let filter = Filter {
        instance: Some(instance.to_string()),
        run: Some(run),
        pid: crash.facts.get("pid").and_then(Value::as_u64).and_then(|pid| pid.try_into().ok()),
        ..Filter::default()
    };
    Reader::open(dir, filter, Start::Tail(LAST_LINES))?.collect()
}
