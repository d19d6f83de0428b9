//! Lines that belong together become one record: tracebacks and stack traces of the common languages, or what
//! `log.multiline` says. Pure: no descriptor, no clock.
//!
//! ```text
//!              may begin one                goes on for sure
//!   passing ─────────────────► holding ◄──────────────────┐
//!      ▲                        │  │ ├─ "perhaps": kept, not proven
//!      └── released: what is ───┘  └─┴─────────────────────┘
//!          proven as one record,
//!          the rest line by line
//! ```
//! Nothing else is held: a line passes at once unless it may begin a record, which its first bytes or its level say. One
//! [`Joiner`] belongs to one stream of one run, so that streams and instances never mix. What is held is released by
//! the next line that does not go on, by the end, or after [`QUIET`].

use std::time::Duration;

use hilum_shared::config::spec::Multiline;
use hilum_shared::protocol::Level;
use regex::bytes::Regex;

use super::line::End;
use super::record::Flags;

mod trace;

use trace::{Begin, State, Step};

/// A record that is held goes out after so long without a line. Runtimes print a trace in one go, or line by line within
/// microseconds; a person does not notice the delay.
pub(super) const QUIET: Duration = Duration::from_millis(100);
/// What another one writes after so long goes after what is held: the cause stays before its effect. Where a trace is half
/// told it may need longer, since its program may have to wait for a processor.
pub(super) const SETTLED: Duration = Duration::from_millis(2);
/// The same for a trace that is half told.
pub(super) const HALF_TOLD: Duration = Duration::from_millis(30);
/// A record is cut at this size; what goes on is the next record.
const MOST_BYTES: usize = 256 * 1024;
/// A record is cut at so many lines.
const MOST_LINES: usize = 2000;
/// So many lines in a row may be "perhaps".
const MOST_UNPROVEN: usize = 8;

/// Which lines are one record.
#[derive(Debug)]
pub enum Rule {
    /// Traces of the common languages.
    Traces,
    /// None.
    Off,
    /// What matches begins one.
    Starts(Box<Regex>),
}

impl Rule {
    /// As the configuration says; an expression that is not valid (it was checked there) joins nothing.
    pub fn new(multiline: &Multiline) -> Self {
        match multiline {
            Multiline::Auto => Self::Traces,
            Multiline::Off => Self::Off,
            Multiline::Starts(text) => {
                Regex::new(text).map_or(Self::Off, |regex| Self::Starts(Box::new(regex)))
            }
        }
    }
}

/// A line, or several as one.
pub struct Record<'a> {
    /// The lines, with `\n` between them.
    pub text: &'a [u8],
    /// How grave, where a line says so.
    pub level: Option<Level>,
    /// How its lines ended, and whether they are several.
    pub flags: Flags,
    /// When its first line was read, in microseconds since 1970.
    pub at: u64,
}

#[derive(Clone, Copy)]
struct Line {
    /// Where it ends in the text.
    end: u32,
    level: Option<Level>,
    flags: Flags,
}

struct Held {
    text: Vec<u8>,
    lines: Vec<Line>,
    /// So many of them are one record for sure.
    proven: usize,
    /// What may come next.
    state: State,
    /// Whether a traceback is in it.
    grave: bool,
    at: u64,
}

/// What one stream of a run has on hold.
#[derive(Default)]
pub struct Joiner {
    held: Option<Box<Held>>,
    /// The line at hand has no end yet: what comes next is the rest of it.
    open: bool,
    /// Whether a timer is set to release what is held.
    pub(super) timer: bool,
    /// Whether it is among those that others may overtake.
    pub(super) queued: bool,
}

impl Joiner {
    /// Whether something waits for its next line.
    pub fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Whether a line goes to the store as it is: all but a few do.
    #[inline]
    pub fn passes(&self, rule: &Rule, line: &[u8], level: Option<Level>, end: End) -> bool {
        if self.held.is_some() || self.open || !matches!(end, End::Newline | End::CrNewline) {
            return false;
        }
        match rule {
            Rule::Traces => level < Some(Level::Warning) && !trace::may_begin(line),
            Rule::Off => true,
            Rule::Starts(_) => false,
        }
    }

    /// Takes a line that does not pass; what is finished by it goes to `out`.
    pub fn take(
        &mut self,
        rule: &Rule,
        line: &[u8],
        level: Option<Level>,
        flags: Flags,
        at: u64,
        out: &mut dyn FnMut(Record<'_>),
    ) {
        let rest = std::mem::replace(&mut self.open, flags.0 & OPEN.0 != 0);
        // A piece of a line is never looked at: it is what it is.
        let whole = !rest && !flags.has(Flags::SPLIT);
        // Kept for the next one: a flood of warnings is a flood of records that are held for a moment.
        let mut spare = None;
        if let Some(mut held) = self.held.take() {
            // All lines of a record end in the same way, but the last one may be unfinished.
            let alike = held.lines.is_empty()
                || held.flags() == flags.without(Flags::PARTIAL)
                || flags.has(Flags::PARTIAL);
            let step = if !whole || !alike {
                Step::Cut
            } else if let Rule::Starts(regex) = rule {
                if regex.is_match(line) { Step::Cut } else { Step::Join(State::Custom) }
            } else {
                held.state.step(line, held.last())
            };
            let step = match step {
                // A logger's next line: what came before it was the message.
                Step::Perhaps(_) if level.is_some() && held.state == State::PythonEnd => {
                    held.prove_all();
                    Step::Cut
                }
                // So it is below a trace that may be over.
                Step::Perhaps(State::Exception) if level.is_some() && held.proven > 0 => Step::Cut,
                step => step,
            };
            held.grave |= matches!(step, Step::Join(State::Python | State::PythonEnd));
            let kept = match step {
                Step::Join(state) => {
                    held.push(line, level, flags);
                    held.proven = held.lines.len();
                    held.state = state;
                    true
                }
                Step::Perhaps(state) if held.lines.len() - held.proven < MOST_UNPROVEN => {
                    held.push(line, level, flags);
                    held.state = state;
                    true
                }
                Step::Perhaps(_) | Step::Cut => false,
            };
            let full = held.is_full();
            if !kept || self.open || full {
                held.give(out);
                held.begin(held.state, at);
            }
            if kept {
                self.held = (!self.open).then_some(held);
                return;
            }
            spare = Some(held);
        }
        let begin = match rule {
            _ if !whole => None,
            Rule::Off => None,
            Rule::Traces => trace::begin_or_name(line).or_else(|| {
                (level >= Some(Level::Warning))
                    .then_some(Begin { state: State::Header, sure: false })
            }),
            Rule::Starts(_) => Some(Begin { state: State::Custom, sure: true }),
        };
        match begin {
            Some(begin) if !self.open => {
                let mut held = spare.unwrap_or_else(|| Box::new(Held::new()));
                held.begin(begin.state, at);
                held.push(line, level, flags);
                held.proven = usize::from(begin.sure);
                self.held = Some(held);
            }
            _ => out(Record { text: line, level, flags, at }),
        }
    }

    /// Whether what is held waits only in case that more follows, and is nothing half told.
    pub(super) fn is_settled(&self) -> bool {
        self.held.as_ref().is_none_or(|held| {
            held.proven == 0 || matches!(held.state, State::Header | State::PythonEnd)
        })
    }

    /// Lets go of what is held.
    pub fn release(&mut self, out: &mut dyn FnMut(Record<'_>)) {
        if let Some(held) = self.held.take() {
            held.give(out);
        }
    }
}

/// What says that a line has no end.
const OPEN: Flags = Flags(Flags::PARTIAL.0 | Flags::SPLIT.0);

impl Held {
    fn new() -> Self {
        Self {
            text: Vec::new(),
            lines: Vec::new(),
            proven: 0,
            state: State::Header,
            grave: false,
            at: 0,
        }
    }

    /// Forgets its lines; what comes next goes on from this state.
    fn begin(&mut self, state: State, at: u64) {
        self.text.clear();
        self.lines.clear();
        self.proven = 0;
        self.state = state;
        self.grave = false;
        self.at = at;
    }

    /// All of its lines are one record, but blank ones at its end.
    fn prove_all(&mut self) {
        let begin = |at: usize| if at == 0 { 0 } else { self.lines[at - 1].end as usize + 1 };
        let is_blank = |at: &usize| {
            self.text[begin(*at)..self.lines[*at].end as usize].trim_ascii().is_empty()
        };
        let blank = (self.proven..self.lines.len()).rev().take_while(is_blank).count();
        self.proven = self.lines.len() - blank;
    }

    /// Gives what is proven as one record and the rest line by line.
    fn give(&self, out: &mut dyn FnMut(Record<'_>)) {
        let mut from = 0;
        if self.proven > 0 {
            let end = self.lines[self.proven - 1].end as usize;
            out(self.record(end));
            from = end + 1;
        }
        for line in &self.lines[self.proven..] {
            let end = line.end as usize;
            let text = &self.text[from..end];
            out(Record { text, level: line.level, flags: line.flags, at: self.at });
            from = end + 1;
        }
    }

    fn push(&mut self, line: &[u8], level: Option<Level>, flags: Flags) {
        if !self.lines.is_empty() {
            self.text.push(b'\n');
        }
        self.text.extend_from_slice(line);
        self.lines.push(Line { end: self.text.len() as u32, level, flags });
    }

    fn flags(&self) -> Flags {
        self.lines.first().map_or(Flags::NONE, |line| line.flags)
    }

    fn last(&self) -> &[u8] {
        let before =
            self.lines.len().checked_sub(2).map_or(0, |at| self.lines[at].end as usize + 1);
        self.text.get(before..).unwrap_or_default()
    }

    fn is_full(&self) -> bool {
        self.text.len() >= MOST_BYTES || self.lines.len() >= MOST_LINES
    }

    /// The proven lines as one. A trace whose first line names no level is an ERROR, and a traceback always is: it may be that of the
    /// program's end, which follows on a warning by chance.
    fn record(&self, end: usize) -> Record<'_> {
        let lines = &self.lines[..self.proven];
        let level = if self.state == State::Custom {
            lines.iter().find_map(|line| line.level)
        } else {
            let usual =
                if self.state == State::PythonWarning { Level::Warning } else { Level::Error };
            let said = lines.first().and_then(|line| line.level).unwrap_or(usual);
            Some(if self.grave { said.max(Level::Error) } else { said })
        };
        let mut flags = self.flags();
        if lines.len() > 1 {
            flags = flags.with(Flags::JOINED);
        }
        if lines.last().is_some_and(|line| line.flags.has(Flags::PARTIAL)) {
            flags = flags.with(Flags::PARTIAL);
        }
        Record { text: &self.text[..end], level, flags, at: self.at }
    }
}

#[cfg(test)]
mod tests;
