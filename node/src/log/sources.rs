//! What the log thread knows of each run and each pipe, and how bytes of a pipe become records of a batch.
//! A quiet pipe costs its few words here and no buffer.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use hilum_shared::config::spec::{Color, LogPolicy};
use hilum_shared::name::{InstanceId, Run};

use super::account::{Debt, Debts, Why};
use super::handle::{Done, Finished, LogReport, Source, Subscriber};
use super::join::{Joiner, Record, Rule};
use super::level::Levels;
use super::line::{End, close, split, strip_colors};
use super::post::{Reports, Shared};
use super::record::{Batch, Flags, Stamps, Stream, Who};

/// No pipe.
pub(super) const NONE: u32 = u32::MAX;

/// One pipe.
pub(super) struct Pipe {
    pub(super) fd: OwnedFd,
    /// Its run's place.
    pub(super) run: u32,
    pub(super) stream: Stream,
    /// Whether a timer for its unfinished line is set.
    pub(super) timer: bool,
    /// Whether a larger pipe was asked for.
    pub(super) widened: bool,
    /// Reads in a row that found the pipe full.
    pub(super) full: u8,
    /// Whether the beginning of the line at hand was dropped and counted: its rest goes, too.
    pub(super) beheaded: bool,
    /// When bytes came last.
    pub(super) last: Instant,
    /// The unfinished line.
    pub(super) tail: Vec<u8>,
    /// Lines that may become one record.
    pub(super) join: Joiner,
}

/// Lines a second that a run may write.
struct Rate {
    limit: f64,
    tokens: f64,
    at: Instant,
}

impl Rate {
    fn new(limit: u32, now: Instant) -> Self {
        let limit = f64::from(limit);
        Self { limit, tokens: limit, at: now }
    }

    fn allows(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.tokens = (self.tokens + passed * self.limit).min(self.limit.max(1.0));
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// The end of a run that is being read out.
pub(super) struct Ending {
    pub(super) deadline: Instant,
    pub(super) done: Vec<Done>,
}

/// How lines are understood.
struct Reading {
    levels: Levels,
    rule: Rule,
}

impl Reading {
    fn new(policy: &LogPolicy) -> Self {
        Self { levels: Levels::new(&policy.level_from), rule: Rule::new(&policy.multiline) }
    }
}

/// One run.
pub(super) struct RunState {
    pub(super) who: Arc<Who>,
    reading: Box<Reading>,
    pub(super) instance: InstanceId,
    pub(super) run: Run,
    pub(super) pid: u32,
    pub(super) policy: Arc<LogPolicy>,
    ready: Option<Box<regex::bytes::Regex>>,
    rate: Option<Box<Rate>>,
    /// Its pipes' places.
    pub(super) pipes: [u32; 2],
    pub(super) ending: Option<Box<Ending>>,
    /// A crash to be noted when its output is complete.
    pub(super) crash: Option<String>,
    /// Whether its leader has ended and been reported so.
    pub(super) late: bool,
    /// Whether we said that it is held back.
    pub(super) held: bool,
    /// Lines of the bytes at hand that the rate did not allow.
    limited: u64,
    /// Bytes that it has added to a batch that waits for a slow disk (`overflow: drop`).
    pub(super) ahead: usize,
}

impl RunState {
    pub(super) fn new(source: Source, base: &Path, now: Instant) -> Self {
        Self {
            who: who(&source.instance, &source.policy, base),
            reading: Box::new(Reading::new(&source.policy)),
            instance: source.instance,
            run: source.run,
            pid: source.pid,
            ready: source.ready_pattern.map(Box::new),
            rate: source.policy.rate.map(|limit| Box::new(Rate::new(limit, now))),
            policy: source.policy,
            pipes: [NONE; 2],
            ending: None,
            crash: None,
            late: false,
            held: false,
            limited: 0,
            ahead: 0,
        }
    }

    /// Takes a changed policy.
    pub(super) fn reconfigure(&mut self, policy: &Arc<LogPolicy>, base: &Path, now: Instant) {
        self.who = who(&self.instance, policy, base);
        *self.reading = Reading::new(policy);
        self.rate = policy.rate.map(|limit| Box::new(Rate::new(limit, now)));
        self.policy = policy.clone();
    }

    pub(super) fn has_pipes(&self) -> bool {
        self.pipes != [NONE; 2]
    }

    fn flags(&self, end: End) -> Flags {
        let flags = match end {
            End::Newline => Flags::NONE,
            End::CrNewline => Flags::CR,
            End::Split => Flags::SPLIT,
            End::Partial => Flags::PARTIAL,
        };
        if self.late { flags.with(Flags::LATE) } else { flags }
    }
}

fn who(instance: &InstanceId, policy: &LogPolicy, base: &Path) -> Arc<Who> {
    Arc::new(Who {
        name: instance.to_string().into(),
        file: policy.file.as_ref().map(|file| base.join(file)),
    })
}

/// A table of things with stable places.
pub(super) struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, item: T) -> u32 {
        if let Some(place) = self.free.pop() {
            self.items[place as usize] = Some(item);
            return place;
        }
        self.items.push(Some(item));
        (self.items.len() - 1) as u32
    }

    pub(super) fn get(&mut self, place: u32) -> Option<&mut T> {
        self.items.get_mut(place as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, place: u32) -> Option<T> {
        let item = self.items.get_mut(place as usize)?.take()?;
        self.free.push(place);
        Some(item)
    }

    pub(super) fn places(&self) -> impl Iterator<Item = u32> + use<T> {
        let taken: Vec<u32> = (0..self.items.len())
            .filter(|place| self.items[*place].is_some())
            .map(|place| place as u32)
            .collect();
        taken.into_iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.items.iter_mut().flatten()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }
}

/// The runs and pipes.
#[derive(Default)]
pub(super) struct Table {
    pub(super) pipes: Slab<Pipe>,
    pub(super) runs: Slab<RunState>,
    pub(super) places: HashMap<(InstanceId, Run), u32>,
}

impl Table {
    pub(super) fn find(&self, instance: &InstanceId, run: Run) -> Option<u32> {
        self.places.get(&(instance.clone(), run)).copied()
    }
}

/// Makes records of bytes.
pub(super) struct Feed {
    pub(super) batch: Batch,
    pub(super) stamps: Stamps,
    pub(super) subscriber: Option<Box<dyn Subscriber>>,
    pub(super) reports: Reports,
    pub(super) shared: Arc<Shared>,
    /// Lines that are lost without a gap so far.
    pub(super) debts: Debts,
    /// Wall time of this turn, in microseconds since 1970.
    pub(super) wall: u64,
    /// Monotonic time of this turn.
    pub(super) now: Instant,
    /// Records made since the last turn.
    pub(super) records: u64,
    /// Whether a subscriber got something since the last turn.
    pub(super) published: bool,
    scratch: Vec<u8>,
}

impl Feed {
    pub(super) fn new(
        subscriber: Option<Box<dyn Subscriber>>,
        reports: Reports,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            batch: Batch::default(),
            stamps: Stamps::default(),
            subscriber,
            reports,
            shared,
            debts: Debts::default(),
            wall: 0,
            now: Instant::now(),
            records: 0,
            published: false,
            scratch: Vec::new(),
        }
    }

    fn begin(&mut self, run: &RunState, stream: Stream) {
        let stamp = self.stamps.write(self.wall);
        self.batch.begin(&run.who, run.run.0, run.pid, stream, self.wall, stamp);
    }

    pub(super) fn listened(&self) -> bool {
        self.subscriber.as_ref().is_some_and(|subscriber| subscriber.wanted())
    }

    /// Takes bytes of a pipe.
    pub(super) fn bytes(
        &mut self,
        run: &mut RunState,
        stream: Stream,
        tail: &mut Vec<u8>,
        join: &mut Joiner,
        chunk: &[u8],
    ) {
        self.begin(run, stream);
        let max = run.policy.max_line.0 as usize;
        let strip = run.policy.color == Color::Strip;
        if strip || run.ready.is_some() || run.rate.is_some() || self.listened() {
            split(tail, max, chunk, |line, end| {
                self.careful(run, stream, join, line, end);
            });
            return self.limited(run);
        }
        let run: &RunState = run;
        let Reading { levels, rule } = &*run.reading;
        split(tail, max, chunk, |line, end| {
            let level = levels.of_line(line);
            if join.passes(rule, line, level, end) {
                self.records += 1;
                self.batch.line(line, level, run.flags(end));
            } else {
                let now = self.wall;
                let out = &mut |record: Record<'_>| self.joined(run, stream, &record);
                join.take(rule, line, level, run.flags(end), now, out);
            }
        });
    }

    /// Closes the unfinished line, and what is held with it.
    pub(super) fn close(
        &mut self,
        run: &mut RunState,
        stream: Stream,
        tail: &mut Vec<u8>,
        join: &mut Joiner,
    ) {
        if !tail.is_empty() {
            self.begin(run, stream);
            close(tail, |line, end| self.careful(run, stream, join, line, end));
            self.limited(run);
        }
        self.release(run, stream, join);
    }

    /// Records what a pipe's joiner holds.
    pub(super) fn release(&mut self, run: &RunState, stream: Stream, join: &mut Joiner) {
        if join.is_holding() {
            self.begin(run, stream);
            join.release(&mut |record| self.joined(run, stream, &record));
        }
    }

    /// Records what a joiner let go: at the time of its first line.
    fn joined(&mut self, run: &RunState, stream: Stream, record: &Record<'_>) {
        let now = self.wall;
        if record.at != now {
            self.wall = record.at;
            self.begin(run, stream);
            self.wall = now;
        }
        if record.flags.has(Flags::JOINED) {
            self.batch.joined(record.text, record.level, record.flags);
        } else {
            self.batch.line(record.text, record.level, record.flags);
        }
        if record.at != now {
            self.begin(run, stream);
        }
        self.records += 1;
        self.publish(&run.who.name, stream, record.level, record.text);
    }

    /// One line, with all that a policy may ask for.
    fn careful(
        &mut self,
        run: &mut RunState,
        stream: Stream,
        join: &mut Joiner,
        line: &[u8],
        end: End,
    ) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let colored = memchr::memchr(0x1b, line).is_some();
        if let Some(ready) = &run.ready {
            // As it is read by people, too.
            let plain = colored && {
                strip_colors(line, &mut scratch);
                ready.is_match(&scratch)
            };
            if plain || ready.is_match(line) {
                run.ready = None;
                self.reports
                    .send(LogReport::Matched { instance: run.instance.clone(), run: run.run });
            }
        }
        if let Some(rate) = &mut run.rate
            && !rate.allows(self.now)
        {
            run.limited += 1;
            self.scratch = scratch;
            return;
        }
        let text = if run.policy.color == Color::Strip && colored {
            strip_colors(line, &mut scratch);
            &scratch
        } else {
            line
        };
        let run: &RunState = run;
        let Reading { levels, rule } = &*run.reading;
        let (level, flags) = (levels.of_line(text), run.flags(end));
        if join.passes(rule, text, level, end) {
            self.joined(run, stream, &Record { text, level, flags, at: self.wall });
        } else {
            let now = self.wall;
            let out = &mut |record: Record<'_>| self.joined(run, stream, &record);
            join.take(rule, text, level, flags, now, out);
        }
        self.scratch = scratch;
    }

    /// Notes what the rate did not allow.
    fn limited(&mut self, run: &mut RunState) {
        let lines = std::mem::take(&mut run.limited);
        self.owe(run, Why::Rate, lines);
    }

    /// Notes that lines of a run are lost: a gap will say so.
    pub(super) fn owe(&mut self, run: &RunState, why: Why, lines: u64) {
        if lines > 0 {
            let (who, text) = (run.who.clone(), why.phrase().into());
            self.debts.add(Debt { who, run: run.run, pid: run.pid, why, text, lines });
        }
    }

    /// Writes down what is owed to one run, or to all.
    pub(super) fn settle(&mut self, of: Option<(&str, Run)>) {
        if self.debts.is_empty() {
            return;
        }
        for Debt { who, run, pid, why, text, lines } in self.debts.take(of) {
            let stamp = self.stamps.write(self.wall);
            self.batch.begin(&who, run.0, pid, Stream::Node, self.wall, stamp);
            self.gap_here(&who.name, run, (why, lines), &text);
        }
    }

    /// Writes down a gap of whom `begin` named: the one place where a loss of this thread meets the timeline and the account.
    pub(super) fn gap_here(
        &mut self,
        name: &Arc<str>,
        run: Run,
        (why, lines): (Why, u64),
        said: &str,
    ) {
        let start = self.batch.text.len();
        self.batch.gap(lines, said);
        self.records += 1;
        self.shared.lose(name, run, why, lines);
        self.reports.send(LogReport::Dropped { name: name.clone(), lines, why: said.to_owned() });
        if self.listened() {
            let line = self.batch.text[start..].to_vec();
            if let Some(parsed) = super::record::parse_line(&line) {
                let text = &line[parsed.prefix..line.len() - 1];
                self.publish(
                    name,
                    Stream::Node,
                    Some(hilum_shared::protocol::Level::Warning),
                    text,
                );
            }
        }
    }

    pub(super) fn publish(
        &mut self,
        name: &str,
        stream: Stream,
        level: Option<hilum_shared::protocol::Level>,
        text: &[u8],
    ) {
        if let Some(subscriber) = &mut self.subscriber
            && subscriber.wanted()
        {
            subscriber.record(&Finished { name, stream, level, text });
            self.published = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_run_with_two_pipes_costs_little() {
        let per_source = size_of::<Option<Pipe>>() + size_of::<Option<RunState>>() / 2;
        assert!(per_source <= 200, "{per_source} bytes");
    }

    #[test]
    fn places_are_used_again() {
        let mut slab = Slab::default();
        let one = slab.insert('a');
        let two = slab.insert('b');
        assert_eq!(slab.remove(one), Some('a'));
        assert_eq!(slab.remove(one), None);
        assert_eq!((slab.insert('c'), slab.len()), (one, 2));
        assert_eq!(slab.get(two), Some(&mut 'b'));
    }
}
