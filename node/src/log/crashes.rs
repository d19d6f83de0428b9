//! Facts of abnormal ends: `crashes.jsonl` beside the segments, the latest few hundred.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use hilum_shared::name::{InstanceId, Run};
use serde_json::{Map, Value, json};

use super::query::{Entry, Filter, QueryError, Reader, Start};

/// So many are kept for sure; the file is cut to them when it has twice as many.
pub const KEPT: usize = 500;
/// So many of its last lines belong to a crash.
pub const LAST_LINES: u64 = 200;
/// A line of facts is no longer than this.
const LONGEST: usize = 1024 * 1024;

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

    /// Adds one; `seq` is that of the next record, so that its last lines lie before it.
    pub(super) fn write(&mut self, facts: &Map<String, Value>, seq: u64) -> io::Result<()> {
        let mut line = json!({"id": self.next, "seq": seq});
        if let Some(map) = line.as_object_mut() {
            for (key, value) in facts {
                map.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        let mut bytes = serde_json::to_vec(&line)?;
        if bytes.len() > LONGEST {
            let few = ["instance", "run", "pid", "at"];
            let facts: Map<String, Value> = facts
                .iter()
                .filter(|(key, _)| few.contains(&key.as_str()))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            bytes = serde_json::to_vec(&json!({"id": self.next, "seq": seq, "facts": "too long"}))?;
            bytes.pop();
            let rest = serde_json::to_vec(&facts)?;
            bytes.push(b',');
            bytes.extend_from_slice(&rest[1..]);
        }
        bytes.push(b'\n');
        let mut out = OpenOptions::new().read(true).append(true).create(true).open(&self.path)?;
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
        self.next += 1;
        self.lines += 1;
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
        fs::write(&new, kept.concat())?;
        fs::rename(&new, &self.path)?;
        self.lines = kept.len();
        Ok(())
    }
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

/// The last lines of the run that crashed, at most [`LAST_LINES`].
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
        before_seq: crash.facts.get("seq").and_then(Value::as_u64),
        ..Filter::default()
    };
    Reader::open(dir, filter, Start::Tail(LAST_LINES))?.collect()
}
