//! What is missing, whose, and why: one account, kept where losses are found, from which `ps`, events and figures speak. The
//! timeline has the same as gaps, and [`Why::of_gap`] reads the reason back from one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use hilum_shared::name::{InstanceId, Run};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::record::Who;

/// Why lines are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// More a second than `log.rate` allows.
    Rate,
    /// The disk was slow, and `logs.overflow` is `drop`.
    Overflow,
    /// The node had more to say than the log could take.
    Behind,
    /// Numbers are missing in a worker's structured records.
    Undelivered,
    /// Structured records that cannot be taken.
    Refused,
    /// The disk failed, and what is kept in memory meanwhile was full.
    Disk,
    /// Somebody else moved, removed, cut or damaged files of the store.
    Files,
    /// A subscriber of the log endpoint was too slow.
    Subscriber,
    /// `log.file` could not be written.
    Copy,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Rate,
        Self::Overflow,
        Self::Behind,
        Self::Undelivered,
        Self::Refused,
        Self::Disk,
        Self::Files,
        Self::Subscriber,
        Self::Copy,
    ];

    /// Its word in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Overflow => "overflow",
            Self::Behind => "behind",
            Self::Undelivered => "undelivered",
            Self::Refused => "refused",
            Self::Disk => "disk",
            Self::Files => "files",
            Self::Subscriber => "subscriber",
            Self::Copy => "log-file",
        }
    }

    /// How a gap says it; of [`Self::Disk`], [`Self::Files`] and [`Self::Refused`] it says more.
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Rate => "rate limit",
            Self::Overflow => "slow disk",
            Self::Behind => "the log was behind",
            Self::Undelivered => "records that did not arrive",
            Self::Refused => "refused",
            Self::Disk => "disk",
            Self::Files => "files of the log",
            Self::Subscriber => "a subscriber of the log endpoint was too slow",
            Self::Copy => "log file",
        }
    }

    /// Whether the timeline has the lines all the same: only a copy of them is incomplete.
    pub fn is_kept(self) -> bool {
        matches!(self, Self::Subscriber | Self::Copy)
    }

    /// Why, by the text of a gap: `… 12 lines dropped (rate limit)`.
    pub fn of_gap(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        Self::said(text.split_once('(').map_or("", |(_, said)| said.trim_end_matches(')')))
    }

    /// Why, by what a gap has in its brackets.
    pub fn said(said: &str) -> Self {
        let is = |why: Self| {
            let rest = said.strip_prefix(why.phrase());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', ' ']))
        };
        if is(Self::Disk) || DISK.contains(&said) {
            return Self::Disk;
        }
        Self::ALL.into_iter().find(|why| is(*why)).unwrap_or(Self::Files)
    }
}

/// Errors of a disk in the words of everybody.
pub(super) const DISK: [&str; 3] = ["disk full", "quota exceeded", "read-only file system"];

/// How many lines somebody lost, by cause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// The latest life of which the timeline misses lines; 0 where that is not known.
    pub run: Run,
    lines: [u64; Why::ALL.len()],
}

impl Losses {
    /// Adds lines.
    pub fn add(&mut self, why: Why, lines: u64) {
        self.lines[why as usize] += lines;
    }

    /// Lines that are missing for this reason.
    pub fn of(&self, why: Why) -> u64 {
        self.lines[why as usize]
    }

    /// Lines that the timeline misses.
    pub fn dropped(&self) -> u64 {
        self.each().filter(|(why, _)| !why.is_kept()).map(|(_, lines)| lines).sum()
    }

    /// What is more than nothing.
    pub fn each(&self) -> impl Iterator<Item = (Why, u64)> {
        Why::ALL.into_iter().map(|why| (why, self.of(why))).filter(|(_, lines)| *lines > 0)
    }

    /// By the word of the cause: what the timeline misses, or (`kept`) what only copies of it miss.
    pub fn by_word(&self, kept: bool) -> BTreeMap<String, u64> {
        let of_kind = self.each().filter(|(why, _)| why.is_kept() == kept);
        of_kind.map(|(why, lines)| (why.word().to_owned(), lines)).collect()
    }
}

/// Lines by the word of the cause: `rate 12, disk 3`.
pub fn causes(by: &BTreeMap<String, u64>) -> String {
    let each: Vec<String> = by.iter().map(|(why, lines)| format!("{why} {lines}")).collect();
    each.join(", ")
}

/// Lines that are lost without a gap in the files, since the disk failed until the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untold {
    /// Whose: a name of the timeline.
    pub name: Arc<str>,
    /// How many.
    pub lines: u64,
    /// What their gap will say in its brackets.
    pub why: String,
}

/// Losses since the node's start, by the name in the timeline.
#[derive(Clone, Debug, Default)]
pub struct Account(BTreeMap<Arc<str>, Losses>);

impl Account {
    /// Adds lines of a run (0: it is not known whose).
    pub fn add(&mut self, name: &Arc<str>, run: Run, why: Why, lines: u64) {
        let losses = match self.0.get_mut(name) {
            Some(losses) => losses,
            None => self.0.entry(name.clone()).or_default(),
        };
        losses.add(why, lines);
        if !why.is_kept() {
            losses.run = losses.run.max(run);
        }
    }

    /// What is missing of one name.
    pub fn of(&self, name: &str) -> Option<&Losses> {
        self.0.get(name)
    }

    /// What is missing of all.
    pub fn total(&self) -> Losses {
        let mut total = Losses::default();
        for (why, lines) in self.0.values().flat_map(Losses::each) {
            total.add(why, lines);
        }
        total
    }
}

/// Lines that are lost and that no gap stands for yet: gaps of one cause are written about once a second, however the lines
/// between them come.
#[derive(Default)]
pub(super) struct Debts(BTreeMap<Key, Debt>);

/// Whose, why, and what the gap says.
type Key = (Arc<str>, Run, Why, Cow<'static, str>);

/// How many, and whose.
pub(super) struct Debt {
    pub(super) who: Arc<Who>,
    pub(super) run: Run,
    pub(super) pid: u32,
    pub(super) why: Why,
    /// What the gap says in its brackets.
    pub(super) text: Cow<'static, str>,
    pub(super) lines: u64,
}

impl Debts {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, mut debt: Debt) {
        /// Different words about one cause within a second; more are told as one.
        const MOST: usize = 8;
        let alike = |key: &&Key| key.0 == debt.who.name && (key.1, key.2) == (debt.run, debt.why);
        if debt.why == Why::Refused && self.0.keys().filter(alike).count() >= MOST {
            debt.text = debt.why.phrase().into();
        }
        let key = (debt.who.name.clone(), debt.run, debt.why, debt.text.clone());
        match self.0.get_mut(&key) {
            Some(known) => known.lines += debt.lines,
            None => {
                self.0.insert(key, debt);
            }
        }
    }

    /// Takes out what is owed to one run, or to all.
    pub(super) fn take(&mut self, of: Option<(&str, Run)>) -> Vec<Debt> {
        let wanted = |key: &Key| of.is_none_or(|(name, run)| &*key.0 == name && key.1 == run);
        self.0.extract_if(.., |key, _| wanted(key)).map(|(_, debt)| debt).collect()
    }
}

/// How far the structured records of a worker are.
#[derive(Default)]
pub(super) struct Numbers {
    run: Run,
    /// The last number that came.
    last: u64,
    /// Records that came and were refused; theirs are among the numbers that will be missing.
    refused: u64,
}

impl Numbers {
    /// Whether this is the latest life; a later one begins anew.
    fn is_of(&mut self, run: Run) -> bool {
        if run > self.run {
            *self = Self { run, ..Self::default() };
        }
        run == self.run // or it is a straggler
    }

    /// Notes records that were refused.
    pub(super) fn refuse(&mut self, run: Run, records: u64) {
        if self.is_of(run) {
            self.refused += records;
        }
    }

    /// How many records before this one did not come at all.
    pub(super) fn missing(&mut self, run: Run, seq: u64) -> u64 {
        if !self.is_of(run) {
            return 0;
        }
        let hole = seq.saturating_sub(self.last.saturating_add(1));
        self.last = self.last.max(seq);
        let refused = hole.min(self.refused);
        self.refused -= refused;
        hole - refused
    }
}

/// The event `lines-dropped`.
pub fn event(
    at: u64,
    name: &str,
    run: Option<Run>,
    pid: Option<u32>,
    (why, lines): (Why, u64),
    text: &str,
) -> Map<String, Value> {
    let instance = InstanceId::parse(name).ok();
    let service = instance.as_ref().map(|instance| instance.service.to_string());
    let event = json!({
        "seq": null, "at": at as f64 / 1e6, "event": "lines-dropped", "service": service,
        "instance": instance.map(|instance| instance.to_string()), "run": run, "pid": pid,
        "lines": lines, "why": why.word(), "kept": why.is_kept(), "text": text,
    });
    match event {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_says_why_and_is_read_back() {
        let why = |said: &str| Why::of_gap(format!("… 12 lines dropped ({said})").as_bytes());
        for known in Why::ALL {
            assert_eq!(why(known.phrase()), known);
        }
        assert_eq!(why("disk full"), Why::Disk);
        assert_eq!(why("disk: Input/output error (os error 5)"), Why::Disk);
        assert_eq!(why("refused: a record of 2.0 MiB, 1.0 MiB at most"), Why::Refused);
        assert_eq!(why("000001.log was moved or removed by somebody else"), Why::Files);
        assert_eq!(why("diskette"), Why::Files);
        assert_eq!(Why::of_gap(b"nonsense"), Why::Files);
    }

    #[test]
    fn the_account_tells_what_is_lost_from_what_only_a_copy_misses() {
        let (mut account, name) = (Account::default(), Arc::from("a.1"));
        account.add(&name, Run(3), Why::Rate, 5);
        account.add(&name, Run(0), Why::Disk, 2);
        account.add(&name, Run(4), Why::Copy, 9);
        account.add(&Arc::from("*"), Run(0), Why::Subscriber, 100);
        let one = account.of("a.1").unwrap();
        assert_eq!((one.dropped(), one.run), (7, Run(3)));
        assert_eq!(one.by_word(false), [("disk".to_owned(), 2), ("rate".to_owned(), 5)].into());
        let all = account.total();
        assert_eq!(all.dropped(), 7);
        let missed = [("log-file".to_owned(), 9), ("subscriber".to_owned(), 100)];
        assert_eq!(all.by_word(true), missed.into());
        assert!(account.of("b.1").is_none());
    }
}
