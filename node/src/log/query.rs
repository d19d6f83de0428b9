//! Questions about the past, answered from the files: with the node down as well as while it writes, without a
//! lock. Who asks for the end reads the index backwards; text is read only where it is shown or searched.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use hilum_shared::name::Run;
use hilum_shared::protocol::Level;
use regex::bytes::Regex;
use serde_json::{Map, Value};

use super::expr::Expr;
use super::line::uncolored;
pub use super::reader::Reader;
use super::record::{Flags, Stream};

/// A predicate on names: service and, where it concerns one, instance.
pub type Target = Arc<dyn Fn(&str, Option<&str>) -> bool + Send + Sync>;

/// Which records are wanted; the default is all.
#[derive(Clone, Default)]
pub struct Filter {
    /// Of whom: called with the service and the instance. The node itself is service `*`.
    pub target: Option<Target>,
    /// Only of this instance (`echo.3`).
    pub instance: Option<String>,
    /// Only of this life.
    pub run: Option<Run>,
    /// Only of the run with this leader.
    pub pid: Option<u32>,
    /// Only from these streams; empty = all.
    pub streams: Vec<Stream>,
    /// Not before this wall time, in microseconds since 1970.
    pub since: Option<u64>,
    /// Not after this wall time, in microseconds since 1970.
    pub until: Option<u64>,
    /// Only what matches. Gaps are shown all the same: what was lost might have matched.
    pub grep: Option<Regex>,
    /// Only what answers yes. Gaps are shown all the same, but where what is known of the lost lines says no.
    pub expr: Option<Arc<Expr>>,
    /// At least this grave; a record without a level counts as INFO. Gaps are shown all the same.
    pub level: Option<Level>,
    /// Only records with a smaller sequence number.
    pub before_seq: Option<u64>,
}

impl Filter {
    /// The same without what looks at each record: level, `grep` and `expr`. What is left is a view, in which
    /// [`Self::picks`] finds the records.
    #[must_use]
    pub fn view(&self) -> Self {
        Self { grep: None, expr: None, level: None, ..self.clone() }
    }

    /// Whether it looks at each record: by level, `grep` or `expr`.
    pub fn picks_some(&self) -> bool {
        self.grep.is_some() || self.expr.is_some() || self.level.is_some()
    }

    /// Whether this name of the timeline is asked for.
    pub(super) fn wants_name(&self, name: &str) -> bool {
        let (service, instance) = match name.rsplit_once('.') {
            Some((service, _)) => (service, Some(name)),
            None => (name, None),
        };
        self.target.as_ref().is_none_or(|target| target(service, instance))
            && self.instance.as_ref().is_none_or(|only| instance == Some(only))
    }

    /// Whether level, `grep` and `expr` want this record, or may have wanted what was lost in this gap.
    pub fn picks(&self, entry: &Entry) -> bool {
        if entry.dropped.is_some() {
            return self.wants_gap(entry);
        }
        self.level.is_none_or(|least| entry.level.unwrap_or(Level::Info) >= least)
            && self.wants_text(entry, &entry.text)
    }

    /// Whether `expr` may have wanted the lines of this gap: whose they were is known, what they said is not.
    pub(super) fn wants_gap(&self, gap: &Entry) -> bool {
        self.expr.as_ref().is_none_or(|expr| expr.may_match(gap))
    }

    /// Whether `grep` and `expr` want a record with this text, and all else as in `shared`. Colours are no part of the text.
    pub(super) fn wants_text(&self, shared: &Entry, text: &[u8]) -> bool {
        if self.grep.is_none() && self.expr.is_none() {
            return true;
        }
        let plain = uncolored(text);
        let text = plain.as_ref();
        self.grep.as_ref().is_none_or(|grep| grep.is_match(text))
            && self.expr.as_ref().is_none_or(|expr| expr.matches(shared, text))
    }
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest record that is wanted.
    All,
    /// With the last so many that are wanted, and the gaps among and after them, which do not count.
    Tail(u64),
    /// With this sequence number, or the next one there is.
    From(u64),
    /// After the last record there is now (to follow).
    End,
}

/// Why a question cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The files cannot be read.
    #[error("log folder `{}`: {source}", path.display())]
    Read {
        /// The folder.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

/// One record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// Counts through the whole store; a hole is a loss.
    pub seq: u64,
    /// Wall time in microseconds since 1970.
    pub at: u64,
    /// `echo.3`, `echo`, or `*` for the node: as in the timeline.
    pub name: Arc<str>,
    /// The service, where it concerns one.
    pub service: Option<Arc<str>>,
    /// The instance, where it concerns one.
    pub instance: Option<Arc<str>>,
    /// Which life, where it is known.
    pub run: Option<Run>,
    /// The leader, where it is known.
    pub pid: Option<u32>,
    /// Where from; `None` only in a gap that the reader found.
    pub stream: Option<Stream>,
    /// How grave, where it is known.
    pub level: Option<Level>,
    /// The bytes, without a line end; a joined record holds `\n`.
    pub text: Vec<u8>,
    /// What is special.
    pub flags: Flags,
    /// For a gap: how many lines it stands for.
    pub dropped: Option<u64>,
    /// A structured record's fields, an event's JSON.
    pub fields: Option<Map<String, Value>>,
}

impl Entry {
    /// Whether it is a line, or a part of one, without its end.
    pub fn is_partial(&self) -> bool {
        self.flags.has(Flags::PARTIAL) || self.flags.has(Flags::SPLIT)
    }

    /// Appends the bytes as they came by the pipe, line ends included.
    pub fn write_raw(&self, out: &mut Vec<u8>) {
        let inner: &[u8] = if self.flags.has(Flags::CR) { b"\r\n" } else { b"\n" };
        for (number, line) in self.text.split(|byte| *byte == b'\n').enumerate() {
            if number > 0 {
                out.extend_from_slice(inner);
            }
            out.extend_from_slice(line);
        }
        out.extend_from_slice(self.line_end());
    }

    /// The event's fields, when it is one: what `events --json` prints.
    pub fn event(&self) -> Option<&Map<String, Value>> {
        self.fields
            .as_ref()
            .filter(|fields| self.stream == Some(Stream::Node) && fields.contains_key("event"))
    }

    /// The bytes that ended the line in the pipe, so that the output can be given back as it was.
    pub fn line_end(&self) -> &'static [u8] {
        if self.is_partial() {
            b""
        } else if self.flags.has(Flags::CR) {
            b"\r\n"
        } else {
            b"\n"
        }
    }
}
