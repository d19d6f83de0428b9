//! The store against what people and power cuts do to its files: random programs beside a small model.
#![allow(clippy::unwrap_used, reason = "a test fails where it is disappointed, helpers included")]

#[path = "common/logs.rs"]
mod logs;

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use hilum_node::log::follow::{Followed, Follower};
use hilum_node::log::query::{Entry, Filter, Reader, Start};
use hilum_node::log::record::{Batch, Flags, Stamps, Stream, Who};
use hilum_node::log::segment::{Id, list, path};
use hilum_node::log::store::Store;
use hilum_shared::config::spec::LogsSpec;
use proptest::prelude::*;

use logs::spec;

fn who(number: usize) -> Arc<Who> {
    Arc::new(Who { name: format!("s.{}", number + 1).into(), file: None })
}

fn batch(of: usize, at: u64, lines: &[String]) -> Batch {
    let mut batch = Batch::default();
    let mut stamps = Stamps::default();
    batch.begin(&who(of), 1, 1, Stream::Out, at, stamps.write(at));
    for line in lines {
        batch.line(line.as_bytes(), None, Flags::NONE);
    }
    batch
}

fn read(dir: &Path, filter: Filter, start: Start) -> Vec<Entry> {
    Reader::open(dir, filter, start).unwrap().collect::<Result<_, _>>().unwrap()
}

/// The lines of the entries, gaps left out.
fn lines(entries: &[Entry]) -> Vec<String> {
    entries
        .iter()
        .filter(|entry| entry.dropped.is_none())
        .flat_map(|entry| {
            String::from_utf8_lossy(&entry.text).split('\n').map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

#[derive(Clone, Debug)]
enum Op {
    Append { of: usize, lines: usize, joined: bool },
    Rotate,
    Restart,
    TruncateCurrent { keep: u64 },
    DeleteCurrent { all: bool },
    RenameCurrent,
    CutText { bytes: u64 },
    CutIndex { bytes: u64 },
    Garbage { bytes: Vec<u8> },
    BreakIndex { which: usize },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..3_usize, 1..40_usize, any::<bool>()).prop_map(|(of, lines, joined)| Op::Append { of, lines, joined }),
        1 => Just(Op::Rotate),
        2 => Just(Op::Restart),
        1 => (0..200_u64).prop_map(|keep| Op::TruncateCurrent { keep }),
        1 => any::<bool>().prop_map(|all| Op::DeleteCurrent { all }),
        1 => Just(Op::RenameCurrent),
        2 => (1..300_u64).prop_map(|bytes| Op::CutText { bytes }),
        2 => (1..300_u64).prop_map(|bytes| Op::CutIndex { bytes }),
        1 => proptest::collection::vec(any::<u8>(), 1..80).prop_map(|bytes| Op::Garbage { bytes }),
        1 => (0..8_usize).prop_map(|which| Op::BreakIndex { which }),
    ]
}

/// One line that was written, where, and whether it must still be there.
struct Written {
    text: String,
    segment: u64,
    size: u64,
    must: bool,
}

struct World {
    dir: tempfile::TempDir,
    store: Option<Store>,
    spec: LogsSpec,
    written: Vec<Written>,
    at: u64,
    rebuilt: bool,
}

impl World {
    fn store(&mut self) -> &mut Store {
        if self.store.is_none() {
            self.store = Some(Store::open(self.dir.path(), &self.spec).unwrap().0);
        }
        self.store.as_mut().unwrap()
    }

    fn current(&self) -> Option<u64> {
        list(self.dir.path()).unwrap().last().map(|id| id.number)
    }

    fn give_up(&mut self, segment: u64) {
        for line in self.written.iter_mut().filter(|line| line.segment == segment) {
            line.must = false;
        }
    }

    fn apply(&mut self, op: &Op) {
        let dir = self.dir.path().to_owned();
        match op {
            Op::Append { of, lines, joined } => {
                // Clocks step back now and then.
                self.at = if lines % 7 == 0 { self.at - 5_000_000 } else { self.at + 1_000_000 };
                let first = self.written.len();
                let texts: Vec<String> =
                    (first..first + lines).map(|number| format!("line {number}")).collect();
                let batch = if *joined {
                    let mut joined = Batch::default();
                    joined.begin(
                        &who(*of),
                        1,
                        1,
                        Stream::Log,
                        self.at,
                        Stamps::default().write(self.at),
                    );
                    joined.record(texts.join("\n").as_bytes(), None, b"{\"a\":1}", 0);
                    joined
                } else {
                    batch(*of, self.at, &texts)
                };
                let size = batch.text.len() as u64 / *lines as u64;
                self.store().append(&batch).unwrap();
                let segment = self.current().unwrap();
                self.written.extend(texts.into_iter().map(|text| Written {
                    text,
                    segment,
                    size,
                    must: true,
                }));
            }
            Op::Rotate => self.store().rotate(),
            Op::Restart => self.store = None,
            Op::TruncateCurrent { keep } => {
                if let Some(current) = self.current() {
                    let log =
                        OpenOptions::new().write(true).open(path(&dir, current, "log")).unwrap();
                    let length = log.metadata().unwrap().len();
                    log.set_len((*keep).min(length)).unwrap();
                    self.give_up(current);
                }
            }
            Op::DeleteCurrent { all } => {
                if let Some(current) = self.current() {
                    fs::remove_file(path(&dir, current, "log")).unwrap();
                    if *all {
                        fs::remove_file(path(&dir, current, "idx")).unwrap();
                        fs::remove_file(path(&dir, current, "fld")).unwrap();
                    }
                    self.give_up(current);
                    // A look at the names is due now; it comes by itself within a second.
                    if let Some(store) = &mut self.store {
                        store.reopen();
                    }
                }
            }
            Op::RenameCurrent => {
                if let Some(current) = self.current() {
                    fs::rename(path(&dir, current, "log"), dir.join("rotated.txt")).unwrap();
                    self.give_up(current);
                    if let Some(store) = &mut self.store {
                        store.reopen();
                    }
                }
            }
            Op::CutText { bytes } => {
                self.store = None;
                if let Some(current) = self.current() {
                    let log =
                        OpenOptions::new().write(true).open(path(&dir, current, "log")).unwrap();
                    let length = log.metadata().unwrap().len();
                    log.set_len(length.saturating_sub(*bytes)).unwrap();
                    let mut left = i64::try_from(*bytes).unwrap();
                    for line in self.written.iter_mut().rev().filter(|line| line.segment == current)
                    {
                        if left > 0 {
                            line.must = false;
                            line.segment = 0;
                        }
                        left -= i64::try_from(line.size).unwrap();
                    }
                    self.store(); // what is torn is cut, so that the next cut is counted from there
                }
            }
            Op::CutIndex { bytes } => {
                self.store = None;
                if let Some(current) = self.current()
                    && let Ok(idx) = OpenOptions::new().write(true).open(path(&dir, current, "idx"))
                {
                    let length = idx.metadata().unwrap().len();
                    idx.set_len(length.saturating_sub(*bytes)).unwrap();
                }
            }
            Op::Garbage { bytes } => {
                use std::io::Write;
                self.store = None;
                if let Some(current) = self.current()
                    // Added to half a line it might make a whole one that nobody wrote.
                    && fs::read(path(&dir, current, "log")).unwrap().ends_with(b"\n")
                {
                    let mut log =
                        OpenOptions::new().append(true).open(path(&dir, current, "log")).unwrap();
                    log.write_all(bytes).unwrap();
                }
            }
            Op::BreakIndex { which } => {
                self.store = None;
                let found: Vec<Id> = list(&dir).unwrap();
                self.rebuilt = true;
                if let Some(id) = found.get(which % found.len().max(1)) {
                    let _ = fs::write(path(&dir, *id, "idx"), b"not an index");
                }
            }
        }
    }

    fn check(&mut self) {
        let entries = read(self.dir.path(), Filter::default(), Start::All);
        let found = lines(&entries);
        let mut model = self.written.iter();
        for line in &found {
            // Torn lines, duplicates and wrong order all end here.
            assert!(
                model.any(|written| written.text == *line),
                "`{line}` was not written there; found {found:?}"
            );
        }
        let found: BTreeSet<&String> = found.iter().collect();
        for written in self.written.iter().filter(|written| written.must) {
            assert!(found.contains(&written.text), "`{}` is lost", written.text);
        }
        let tail = read(self.dir.path(), Filter::default(), Start::Tail(5));
        let last: Vec<&Entry> = entries.iter().rev().take(5).rev().collect();
        // A gap stands for many lines, which count in the index.
        if entries.iter().all(|entry| entry.dropped.is_none()) {
            assert!(tail.iter().eq(last), "the tail is the end of the whole: {tail:?}");
        }
        for (number, pair) in entries.windows(2).enumerate() {
            // An index made again counts the lines of a joined record one by one.
            assert!(self.rebuilt || pair[0].seq < pair[1].seq, "sequence goes back at {number}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_to_the_files_no_line_is_torn_or_twice_and_none_lost_that_was_left_alone(
        ops in proptest::collection::vec(op(), 1..40)
    ) {
        let mut world = World {
            dir: tempfile::tempdir().unwrap(),
            store: None,
            spec: spec(1 << 30, 16 * 1024),
            written: Vec::new(),
            at: 1_795_232_531_000_000,
            rebuilt: false,
        };
        for op in &ops {
            world.apply(op);
        }
        world.store();
        world.check();
    }
}

#[test]
fn the_budget_holds_and_the_oldest_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path(), &spec(256 * 1024, 64 << 20)).unwrap();
    for number in 0..5000 {
        store
            .append(&batch(
                0,
                1_795_232_531_000_000 + number,
                &[format!("line {number} {:x>100}", "")],
            ))
            .unwrap();
        assert!(store.size() <= 256 * 1024 + 1024);
    }
    let on_disk: u64 = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(on_disk <= 256 * 1024 + 1024, "{on_disk}");
    let entries = read(dir.path(), Filter::default(), Start::All);
    assert_eq!(entries.last().unwrap().seq, 5000);
    assert_eq!(hilum_node::log::stats::removed(dir.path()).unwrap(), 5000 - entries.len() as u64);
    assert!(entries.len() > 500, "{} left", entries.len());
    assert!(entries.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
}

#[test]
fn since_until_and_tail_agree_with_a_plain_look_at_everything() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path(), &spec(1 << 30, 16 * 1024)).unwrap();
    let base = 1_795_232_531_000_000_u64;
    let mut at = base;
    for number in 0..600_u64 {
        // Forward, with a step back now and then.
        at = if number % 97 == 96 { at - 30_000_000 } else { at + 1_000_000 };
        let of = (number % 3) as usize;
        let texts: Vec<String> = (0..=(number % 4))
            .map(|part| format!("{number}.{part} status={}", number % 5))
            .collect();
        store.append(&batch(of, at, &texts)).unwrap();
    }
    let all = read(dir.path(), Filter::default(), Start::All);
    let grep = regex::bytes::Regex::new("status=3$").unwrap();
    for (since, until) in [(0, 50), (100, 110), (250, 251), (300, 900), (599, 600)] {
        let (since, until) = (base + since * 1_000_000, base + until * 1_000_000);
        for tail in [None, Some(1), Some(7), Some(1_000_000)] {
            for instance in [None, Some("s.2")] {
                for grep in [None, Some(&grep)] {
                    let wanted: Vec<&Entry> = all
                        .iter()
                        .filter(|entry| (since..=until).contains(&entry.at))
                        .filter(|entry| instance.is_none() || entry.instance.as_deref() == instance)
                        .filter(|entry| grep.is_none_or(|grep| grep.is_match(&entry.text)))
                        .collect();
                    let skip = tail.map_or(0, |tail| wanted.len().saturating_sub(tail));
                    let filter = Filter {
                        since: Some(since),
                        until: Some(until),
                        instance: instance.map(str::to_owned),
                        grep: grep.cloned(),
                        ..Filter::default()
                    };
                    let start = tail.map_or(Start::All, |tail| Start::Tail(tail as u64));
                    let found = read(dir.path(), filter, start);
                    assert!(
                        found.iter().eq(wanted[skip..].iter().copied()),
                        "{since} {until} {tail:?} {instance:?}: {} found, {} wanted",
                        found.len(),
                        wanted.len() - skip
                    );
                }
            }
        }
    }
}

#[test]
fn text_that_is_no_timeline_is_set_aside_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path(), &spec(1 << 30, 16 * 1024)).unwrap();
    for text in ["one", "two", "three"] {
        store.append(&batch(0, 1_795_232_531_000_000, &[text.to_owned()])).unwrap();
        store.rotate();
    }
    drop(store);
    fs::write(path(dir.path(), 2, "log"), [0_u8; 500]).unwrap();
    fs::write(path(dir.path(), 2, "idx"), [0_u8; 500]).unwrap();
    let (mut store, notes) = Store::open(dir.path(), &spec(1 << 30, 16 * 1024)).unwrap();
    assert!(notes.iter().any(|note| note.text.contains("000002.log.corrupt")), "{notes:?}");
    store.append(&batch(0, 1_795_232_531_000_000, &["four".to_owned()])).unwrap();
    assert!(dir.path().join("000002.log.corrupt").exists());
    assert_eq!(lines(&read(dir.path(), Filter::default(), Start::All)), ["one", "three", "four"]);
}

#[test]
fn a_reader_without_an_index_reads_the_text() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path(), &spec(1 << 30, 1 << 20)).unwrap();
    store.append(&batch(0, 1_795_232_531_000_000, &["a".into(), "b".into()])).unwrap();
    store.append(&batch(1, 1_795_232_532_000_000, &["c".into()])).unwrap();
    drop(store);
    fs::remove_file(path(dir.path(), 1, "idx")).unwrap();
    let entries = read(dir.path(), Filter::default(), Start::All);
    assert_eq!(lines(&entries), ["a", "b", "c"]);
    assert_eq!(entries[2].instance.as_deref(), Some("s.2"));
    assert_eq!(lines(&read(dir.path(), Filter::default(), Start::Tail(2))), ["b", "c"]);
}

/// Follows a store that is written in small segments; returns the lines and the number of lines in gaps.
fn follow_while_written(budget: u64, appends: u64, pause_of_reader: bool) -> (Vec<String>, u64) {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path(), &spec(budget, 16 * 1024)).unwrap();
    let mut follower = Follower::open(dir.path(), Filter::default(), Start::All).unwrap();
    let (tell, told) = mpsc::channel();
    let writer = std::thread::spawn(move || {
        for number in 0..appends {
            let text = format!("line {number} {:x>300}", "");
            store.append(&batch(0, 1_795_232_531_000_000 + number, &[text])).unwrap();
        }
        let _ = tell.send(());
        store
    });
    if pause_of_reader {
        told.recv().unwrap();
    }
    let mut entry = Entry::default();
    let (mut lines, mut lost) = (Vec::new(), 0);
    while lines.len() as u64 + lost < appends {
        let next = follower.next(&mut entry, Some(Duration::from_secs(30)), None).unwrap();
        assert_eq!(next, Followed::Record, "{} lines and {lost} lost", lines.len());
        match entry.dropped {
            Some(count) => lost += count,
            None => lines.push(String::from_utf8_lossy(&entry.text).into_owned()),
        }
    }
    drop(writer.join().unwrap());
    (lines, lost)
}

#[test]
fn a_follower_loses_nothing_while_segments_change_under_it() {
    let (lines, lost) = follow_while_written(1 << 30, 8000, false);
    assert_eq!(lost, 0);
    for (number, line) in lines.iter().enumerate() {
        assert!(line.starts_with(&format!("line {number} ")), "{number}: {line}");
    }
}

#[test]
fn a_follower_that_is_too_slow_is_told_how_much_it_missed() {
    let (lines, lost) = follow_while_written(256 * 1024, 4000, true);
    assert!(lost > 0);
    assert!(lines.last().unwrap().starts_with("line 3999 "));
    assert_eq!(lines.len() as u64 + lost, 4000);
}

#[test]
fn a_file_that_is_moved_just_before_it_is_full_is_counted_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path(), &spec(1 << 30, 16 * 1024)).unwrap();
    let few: Vec<String> = (0..7).map(|number| format!("line {number}")).collect();
    store.append(&batch(0, 1_795_232_531_000_000, &few)).unwrap();
    fs::rename(path(dir.path(), 1, "log"), dir.path().join("taken")).unwrap();
    // Fills the segment before the next look at the names.
    store.append(&batch(0, 1_795_232_532_000_000, &["x".repeat(20_000)])).unwrap();
    let notes = store.notes();
    assert_eq!(notes.iter().map(|note| note.lines).sum::<u64>(), 8, "{notes:?}");
    assert!(notes[0].text.contains("000001.log was moved or removed"), "{notes:?}");
}

#[test]
fn text_that_somebody_emptied_is_one_gap_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path(), &spec(1 << 30, 1 << 20)).unwrap();
    for number in 0..10 {
        let text = format!("line {number}");
        store.append(&batch(number % 2, 1_795_232_531_000_000, &[text])).unwrap();
    }
    store.rotate();
    store.append(&batch(0, 1_795_232_532_000_000, &["after".to_owned()])).unwrap();
    fs::write(path(dir.path(), 1, "log"), "").unwrap();
    let shown = |filter: Filter| -> Vec<(String, String)> {
        let entries = read(dir.path(), filter, Start::All);
        let text = |entry: &Entry| String::from_utf8_lossy(&entry.text).into_owned();
        entries.iter().map(|entry| (entry.name.to_string(), text(entry))).collect()
    };
    let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    assert_eq!(
        shown(Filter::default()),
        [pair("*", "… 10 lines dropped (the text of 000001.log is gone)"), pair("s.1", "after")]
    );
    let one = Filter { instance: Some("s.2".into()), ..Filter::default() };
    assert_eq!(shown(one), [pair("s.2", "… 5 lines dropped (the text of 000001.log is gone)")]);
}

#[test]
fn a_follower_that_looks_while_the_store_is_made_sees_all_of_it() {
    for round in 0..300 {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("logs");
        let mut follower = Follower::open(&dir, Filter::default(), Start::All).unwrap();
        let writer = std::thread::spawn({
            let dir = dir.clone();
            move || {
                let (mut store, _) = Store::open(&dir, &spec(1 << 20, 1 << 18)).unwrap();
                for line in 0..3 {
                    store.append(&batch(0, 1_000_000, &[format!("line {line}")])).unwrap();
                }
            }
        });
        let mut entry = Entry::default();
        for line in 0..3 {
            // Without a pause: the look is to meet the store while it is half made.
            let limit = std::time::Instant::now() + Duration::from_secs(10);
            while follower.next(&mut entry, Some(Duration::ZERO), None).unwrap() != Followed::Record
            {
                assert!(
                    std::time::Instant::now() < limit,
                    "round {round}: line {line} never comes"
                );
            }
            assert_eq!(entry.text, format!("line {line}").into_bytes(), "round {round}");
        }
        writer.join().unwrap();
    }
}

#[test]
fn a_tail_is_no_longer_than_asked_while_the_store_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path(), &spec(256 * 1024, 32 * 1024)).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let writer = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            for number in 0.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let texts = [format!("line {number}"), format!("line {number} again")];
                store.append(&batch(0, 1_795_232_531_000_000 + number, &texts)).unwrap();
            }
        })
    };
    for _ in 0..300 {
        let tail = read(dir.path(), Filter::default(), Start::Tail(3));
        assert!(tail.len() <= 3, "{}", tail.len());
    }
    over.store(true, Ordering::Relaxed);
    writer.join().unwrap();
}
