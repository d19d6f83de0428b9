//! What of the store goes when its room is needed, and what becomes of closed segments.
#![allow(clippy::unwrap_used, reason = "a test fails where it is disappointed, helpers included")]

#[path = "common/logs.rs"]
mod logs;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hilum_node::log::follow::{Followed, Follower};
use hilum_node::log::query::{Entry, Filter, Reader, Start};
use hilum_node::log::record::{Batch, Flags, Stamps, Stream, Who, wall};
use hilum_node::log::segment::{files, list, path};
use hilum_node::log::store::Store;
use hilum_shared::config::spec::LogsSpec;
use proptest::prelude::*;

use logs::spec;

const BASE: u64 = 1_795_232_531_000_000;

fn batch(name: &str, at: u64, lines: &[String]) -> Batch {
    let who = Arc::new(Who { name: name.into(), file: None });
    let mut batch = Batch::default();
    batch.begin(&who, 1, 1, Stream::Out, at, Stamps::default().write(at));
    for line in lines {
        batch.line(line.as_bytes(), None, Flags::NONE);
    }
    batch
}

fn fields(name: &str, at: u64, text: &str, json: &str) -> Batch {
    let who = Arc::new(Who { name: name.into(), file: None });
    let mut batch = Batch::default();
    batch.begin(&who, 1, 1, Stream::Log, at, Stamps::default().write(at));
    batch.record(text.as_bytes(), None, json.as_bytes(), 0);
    batch
}

fn read(dir: &Path, filter: Filter, start: Start) -> Vec<Entry> {
    Reader::open(dir, filter, start).unwrap().collect::<Result<_, _>>().unwrap()
}

fn of(name: &str) -> Filter {
    Filter { instance: Some(name.to_owned()), ..Filter::default() }
}

fn texts(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| String::from_utf8_lossy(&entry.text).into_owned()).collect()
}

/// The bytes of what counts in the budget: all but the word of what is gone.
fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let counted = entries.filter(|entry| entry.file_name() != "gone");
    counted.map(|entry| entry.metadata().unwrap().len()).sum()
}

/// Appends something small, to give the store its chance to look around, until the condition holds.
fn wait_until(store: &mut Store, what: &str, mut condition: impl FnMut(&Store) -> bool) {
    let limit = Instant::now() + Duration::from_secs(30);
    while !condition(store) {
        assert!(Instant::now() < limit, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
        store.reopen(); // a look is due
        store.append(&batch("tick.1", wall(), &["tick".to_owned()])).unwrap();
    }
}

/// Three closed segments and a bit, of a budget of a megabyte.
fn three_segments(dir: &Path) -> Store {
    let (mut store, _) = Store::open(dir, &spec(1 << 20, 64 << 10)).unwrap();
    let lines: Vec<String> = (0..100).map(|line| format!("{line:0>99}")).collect();
    let mut at = BASE;
    while list(dir).unwrap().len() < 4 {
        at += 1;
        store.append(&batch("web.1", at, &lines)).unwrap();
    }
    store
}

#[test]
fn what_somebody_moves_away_counts_no_more_and_what_comes_back_counts_again() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut store = three_segments(dir.path());
    let whole = size(dir.path());
    assert_eq!(store.size(), whole);
    let names = ["000002.log", "000002.idx", "000002.fld"];
    for name in names {
        fs::copy(dir.path().join(name), elsewhere.path().join(name)).unwrap();
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    wait_until(&mut store, "it counts no more", |store| store.size() == size(dir.path()));
    assert!(store.size() < whole);
    let said: Vec<String> = store.notes().into_iter().map(|note| note.text).collect();
    assert_eq!(said, ["000002.log was moved or removed by somebody else"]);
    for name in names {
        fs::copy(elsewhere.path().join(name), dir.path().join(name)).unwrap();
    }
    wait_until(&mut store, "it counts again", |store| store.size() == size(dir.path()));
    assert!(store.size() >= whole);
    let entries = read(dir.path(), Filter::default(), Start::All);
    assert!(entries.windows(2).all(|pair| pair[0].seq < pair[1].seq), "read in its place");
}

#[test]
fn an_index_without_its_text_counts_and_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = three_segments(dir.path());
    fs::remove_file(path(dir.path(), 3, "log")).unwrap();
    fs::write(path(dir.path(), 3, "idx"), vec![0; 100_000]).unwrap();
    fs::write(dir.path().join("000009.log.corrupt"), vec![0; 1000]).unwrap();
    wait_until(&mut store, "it counts", |store| store.size() == size(dir.path()));
    assert!(path(dir.path(), 3, "idx").exists());
    let lines: Vec<String> = (0..100).map(|line| format!("{line:0>99}")).collect();
    let first = read(dir.path(), Filter::default(), Start::All)[0].seq;
    let mut at = BASE + 1000;
    while path(dir.path(), 3, "idx").exists() {
        at += 1;
        store.append(&batch("web.1", at, &lines)).unwrap();
        assert!(at < BASE + 2000, "it stays for ever");
    }
    let entries = read(dir.path(), Filter::default(), Start::All);
    assert_eq!(entries[0].seq, first, "no line went for it");
    assert_eq!(store.size(), size(dir.path()));
    for _ in 0..300 {
        at += 1;
        store.append(&batch("web.1", at, &lines)).unwrap();
        assert!(size(dir.path()) <= 1 << 20);
    }
    assert!(!dir.path().join("000009.log.corrupt").exists(), "it goes in its turn");
}

#[test]
fn a_chatterbox_does_not_erase_what_the_others_said() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path(), &spec(1 << 20, 64 << 10)).unwrap();
    let mut at = BASE;
    let mut quiet = Vec::new();
    // Ten times the budget by one, a line now and then by two others.
    for round in 0..1000 {
        at += 1000;
        let flood: Vec<String> =
            (0..70).map(|number| format!("{round} {number} {:x>100}", "")).collect();
        store.append(&batch("loud.1", at, &flood)).unwrap();
        if round % 10 == 0 {
            let text = format!("quiet {round}");
            store.append(&fields("quiet.1", at, &text, r#"{"logger":"q"}"#)).unwrap();
            quiet.push(text);
            store.append(&batch("other.1", at, &[format!("other {round}")])).unwrap();
        }
        assert!(store.size() <= 1 << 20, "round {round}: {}", store.size());
    }
    assert!(size(dir.path()) <= 1 << 20);
    let kept = read(dir.path(), of("quiet.1"), Start::All);
    assert_eq!(texts(&kept), quiet);
    assert!(kept.iter().all(|entry| entry.fields.as_ref().unwrap()["logger"] == "q"));
    assert_eq!(read(dir.path(), of("other.1"), Start::All).len(), 100);
    let loud = texts(&read(dir.path(), of("loud.1"), Start::All));
    assert!(loud.len() > 2000 && loud.last().unwrap().starts_with("999 69 "), "{}", loud.len());
    let all = read(dir.path(), Filter::default(), Start::All);
    assert!(all.windows(2).all(|pair| pair[0].seq < pair[1].seq), "in order, none twice");
    let few = list(dir.path()).unwrap().len();
    assert!(few <= 24, "{few} segments");
    // The next life sees the same, and goes on.
    drop(store);
    let (mut store, notes) = Store::open(dir.path(), &spec(1 << 20, 64 << 10)).unwrap();
    assert_eq!(notes, []);
    store.append(&batch("quiet.1", at, &["new life".to_owned()])).unwrap();
    assert_eq!(read(dir.path(), of("quiet.1"), Start::All).len(), 101);
    let tail = texts(&read(dir.path(), of("quiet.1"), Start::Tail(2)));
    assert_eq!(tail, ["quiet 990", "new life"]);
}

#[test]
fn a_reader_under_way_reads_each_line_once_while_segments_are_folded() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path(), &spec(512 << 10, 16 << 10)).unwrap();
    let write = |store: &mut Store, round: u64| {
        let flood: Vec<String> = (0..20).map(|_| format!("{:x>100}", "")).collect();
        store.append(&batch("loud.1", BASE + round, &flood)).unwrap();
        store.append(&batch("quiet.1", BASE + round, &[format!("quiet {round}")])).unwrap();
    };
    for round in 0..300 {
        write(&mut store, round);
    }
    // One line is read for two that are written: everything is folded under the reader again and again.
    let mut reader = Reader::open(dir.path(), of("quiet.1"), Start::All).unwrap();
    let mut follower = Follower::open(dir.path(), of("quiet.1"), Start::All).unwrap();
    let (mut entry, mut seen, mut followed) = (Entry::default(), Vec::new(), Vec::new());
    for round in 300..1000 {
        write(&mut store, round);
        if round % 2 == 0 && reader.read(&mut entry).unwrap() {
            seen.push(String::from_utf8(entry.text.clone()).unwrap());
        }
        if round % 2 == 0
            && follower.next(&mut entry, Some(Duration::ZERO), None).unwrap() == Followed::Record
            && entry.dropped.is_none()
        {
            followed.push(String::from_utf8(entry.text.clone()).unwrap());
        }
    }
    while reader.read(&mut entry).unwrap() {
        seen.push(String::from_utf8(entry.text.clone()).unwrap());
    }
    let numbers = |lines: &[String]| -> Vec<u64> {
        lines.iter().map(|line| line[6..].parse().unwrap()).collect()
    };
    let wanted: Vec<u64> = (0..300).collect();
    assert_eq!(numbers(&seen), wanted, "what was there when it was opened");
    let followed = numbers(&followed);
    let wanted: Vec<u64> = (0..followed.len() as u64).collect();
    assert_eq!(followed, wanted, "a quiet one's lines are all there for a slow follower");
}

#[test]
fn segments_older_than_max_age_go() {
    let dir = tempfile::tempdir().unwrap();
    let hour = Duration::from_secs(3600);
    let aged = LogsSpec { max_age: Some(hour), ..spec(1 << 20, 16 << 10) };
    let (mut store, _) = Store::open(dir.path(), &aged).unwrap();
    let now = wall();
    for (text, hours) in [("old", 3), ("late", 2), ("recent", 0)] {
        let at = now - hours * 3_600_000_000;
        store.append(&batch("a.1", at, &[text.to_owned()])).unwrap();
        store.rotate();
    }
    store.reopen();
    store.append(&batch("a.1", now, &["new".to_owned()])).unwrap();
    assert_eq!(texts(&read(dir.path(), Filter::default(), Start::All)), ["recent", "new"]);
}

#[test]
fn what_is_too_old_goes_when_nothing_more_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), &spec(1 << 20, 16 << 10)).unwrap().0;
    store.append(&batch("a.1", wall() - 7_200_000_000, &["old".to_owned()])).unwrap();
    store.sync().unwrap();
    drop(store);
    let hour = Duration::from_secs(3600);
    let log = hilum_node::log::start(hilum_node::log::LogConfig {
        dir: dir.path().to_owned(),
        base: dir.path().to_owned(),
        spec: LogsSpec { max_age: Some(hour), ..spec(1 << 20, 16 << 10) },
        subscriber: None,
        untold: Vec::new(),
    })
    .unwrap();
    // A quarter of the age is how often it is looked; a second now.
    log.handle
        .configure(LogsSpec { max_age: Some(Duration::from_secs(4)), ..spec(1 << 20, 16 << 10) });
    let limit = Instant::now() + Duration::from_secs(60);
    while !read(dir.path(), Filter::default(), Start::All).is_empty() {
        assert!(Instant::now() < limit, "it is still there");
        std::thread::sleep(Duration::from_millis(50));
    }
    log.handle.stop();
    log.thread.join().unwrap();
}

#[test]
fn where_too_little_of_the_disk_is_free_the_loud_give_way_and_nobody_loses_all() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path(), &spec(64 << 10, 8 << 10)).unwrap();
    store.append(&batch("quiet.1", BASE, &["once".to_owned()])).unwrap();
    // No disk has all of its room free.
    store.configure(&LogsSpec { keep_free: 1.0, ..spec(64 << 10, 8 << 10) });
    for number in 0..2000_u64 {
        let text = format!("line {number} {:x>60}", "");
        store.append(&batch("loud.1", BASE + number, &[text])).unwrap();
    }
    store.reopen();
    store.append(&batch("loud.1", BASE + 2000, &["last".to_owned()])).unwrap();
    let kept = texts(&read(dir.path(), Filter::default(), Start::All));
    assert_eq!(kept.first().map(String::as_str), Some("once"));
    assert_eq!(kept.last().map(String::as_str), Some("last"));
    // A quarter of the budget is each name's share, see `fold`; the index takes its part of it.
    assert!(store.size() < 48 << 10 && kept.len() > 50, "{} lines, {}", kept.len(), store.size());
}

/// A store with some compressed segments; the lines in it.
fn compressed(dir: &Path) -> (Store, Vec<String>) {
    let packed = LogsSpec { compress: true, ..spec(1 << 30, 256 << 10) };
    let (mut store, _) = Store::open(dir, &packed).unwrap();
    let mut wanted = Vec::new();
    for number in 0..300_u64 {
        let lines: Vec<String> =
            (0..20).map(|part| format!("line {number}.{part} {:x>60}", number % 7)).collect();
        store
            .append(&batch(&format!("s.{}", number % 3), BASE + number * 1_000_000, &lines))
            .unwrap();
        wanted.extend(lines);
    }
    store.append(&fields("s.9", BASE, "with fields", r#"{"trace_id":"t"}"#)).unwrap();
    wanted.push("with fields".to_owned());
    store.rotate();
    let plain = |dir: &Path| {
        list(dir).unwrap().into_iter().filter(|id| path(dir, *id, "log").exists()).count()
    };
    wait_until(&mut store, "compression", |_| plain(dir) == 1);
    (store, wanted)
}

#[test]
fn compressed_segments_are_read_as_plain_ones_and_take_little_room() {
    let dir = tempfile::tempdir().unwrap();
    let (store, wanted) = compressed(dir.path());
    let plain: usize = wanted.iter().map(|line| line.len() + 40).sum();
    assert!(size(dir.path()) < plain as u64 / 4, "{} of {plain}", size(dir.path()));
    assert_eq!(store.size(), size(dir.path()));
    let quiet = |filter: Filter, start| {
        let entries = read(dir.path(), filter, start);
        entries.into_iter().filter(|entry| &*entry.name != "tick.1").collect::<Vec<_>>()
    };
    let all = quiet(Filter::default(), Start::All);
    assert_eq!(texts(&all), wanted);
    assert_eq!(all.last().unwrap().fields.as_ref().unwrap()["trace_id"], "t");
    let grep = regex::bytes::Regex::new(r"^line 123\.1 ").unwrap();
    let found = quiet(Filter { grep: Some(grep), ..Filter::default() }, Start::All);
    assert_eq!(found.len(), 1);
    let since = Filter { since: Some(BASE + 299_000_000), ..Filter::default() };
    assert_eq!(quiet(since, Start::All).len(), 20);
    assert_eq!(texts(&quiet(of("s.1"), Start::Tail(1))), [wanted[wanted.len() - 22].clone()]);
}

#[test]
fn compressed_files_are_what_the_common_tool_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, wanted) = compressed(dir.path());
    let file = dir.path().join("000001.log.zst");
    let plain = zstd::decode_all(fs::File::open(&file).unwrap()).unwrap();
    let text = String::from_utf8(plain).unwrap();
    assert!(text.lines().next().unwrap().ends_with(&format!(" s.0 out | {}", wanted[0])));
}

#[test]
fn a_damaged_compressed_segment_is_mended_or_set_aside_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (store, wanted) = compressed(dir.path());
    drop(store);
    let packed = LogsSpec { compress: true, ..spec(1 << 30, 256 << 10) };
    fs::write(dir.path().join("000001.idx.zst"), b"nonsense").unwrap();
    fs::write(dir.path().join("000002.log.zst"), b"nonsense").unwrap();
    let (_store, notes) = Store::open(dir.path(), &packed).unwrap();
    assert!(
        notes.iter().any(|note| note.text.contains("000001.log was damaged: rebuilt")),
        "{notes:?}"
    );
    assert!(notes.iter().any(|note| note.text.contains("000002.log.zst.corrupt")), "{notes:?}");
    let found = texts(&read(dir.path(), Filter::default(), Start::All));
    assert_eq!(found[0], wanted[0]);
    let third = found.iter().position(|line| *line == wanted[wanted.len() - 1]);
    assert!(third.is_some() && found.len() < wanted.len());
}

#[test]
fn compression_that_was_cut_short_leaves_each_line_once() {
    for stage in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let (store, wanted) = compressed(dir.path());
        drop(store);
        // As it is when a node dies between the steps: some files in both forms, some half made.
        let both = |ending: &str| {
            let packed = dir.path().join(format!("000001.{ending}.zst"));
            let plain = zstd::decode_all(fs::File::open(&packed).unwrap()).unwrap();
            fs::write(dir.path().join(format!("000001.{ending}")), plain).unwrap();
            packed
        };
        let files = ["log", "idx", "fld"].map(both);
        fs::write(dir.path().join("000001.log.zst.new"), b"half").unwrap();
        match stage {
            0 => {}
            1 => fs::remove_file(&files[0]).unwrap(),
            2 => files[..2].iter().for_each(|file| fs::remove_file(file).unwrap()),
            _ => fs::remove_file(dir.path().join("000001.fld")).unwrap(),
        }
        let (_store, notes) = Store::open(dir.path(), &spec(1 << 30, 256 << 10)).unwrap();
        assert_eq!(notes, [], "stage {stage}");
        let found = texts(&read(dir.path(), Filter::default(), Start::All));
        let lines: Vec<&String> = found.iter().filter(|line| *line != "tick").collect();
        assert!(lines.into_iter().eq(&wanted), "stage {stage}");
        assert!(!dir.path().join("000001.log.zst.new").exists());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]
    #[test]
    fn whoever_wrote_less_than_the_share_keeps_all_and_nobody_loses_newer_before_older(
        appends in proptest::collection::vec((0_usize..5, 1_usize..60), 50..400),
        compress in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let budget = 192 << 10;
        let (mut store, _) =
            Store::open(dir.path(), &LogsSpec { compress, ..spec(budget, 16 << 10) }).unwrap();
        let mut written: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        let mut bytes: BTreeMap<usize, u64> = BTreeMap::new();
        for (number, (of, count)) in appends.iter().enumerate() {
            // The first names are much louder than the last.
            let count = count * 4 / (of * of + 1) + 1;
            let lines: Vec<String> = (0..count).map(|line| format!("{number}.{line} {:x>50}", "")).collect();
            let batch = batch(&format!("s.{}", of + 1), BASE + number as u64, &lines);
            store.append(&batch).unwrap();
            *bytes.entry(*of).or_default() += batch.text.len() as u64 + 64;
            written.entry(*of).or_default().extend(lines);
            prop_assert!(store.size() <= budget + (16 << 10));
        }
        drop(store);
        let names = written.len() as u64;
        for (of, written) in &written {
            let found = texts(&read(dir.path(), self::of(&format!("s.{}", of + 1)), Start::All));
            prop_assert!(written.ends_with(&found), "s.{} lost newer lines before older ones", of + 1);
            if bytes[of] <= budget / 2 / names {
                prop_assert_eq!(found.len(), written.len(), "s.{} is within its share", of + 1);
            }
        }
    }
}

#[test]
fn with_the_smallest_budget_and_the_largest_writes_nobody_loses_all() {
    // 128 KiB is the least that a configuration may say; a write may bring a mebibyte, in reads of 256 KiB.
    for (budget, segment) in [(128, 64), (256, 64), (512, 64)] {
        for size in [40_usize, 250, 1000] {
            let dir = tempfile::tempdir().unwrap();
            let limits = spec(budget << 10, segment << 10);
            let (mut store, _) = Store::open(dir.path(), &limits).unwrap();
            let mut quiet = Vec::new();
            for round in 0..20_u64 {
                let mut flood = Batch::default();
                let who = Arc::new(Who { name: "loud.1".into(), file: None });
                for read in 0..size.div_ceil(250) as u64 {
                    let at = BASE + round * 1000 + read;
                    flood.begin(&who, 1, 1, Stream::Out, at, Stamps::default().write(at));
                    for line in 0..(size << 10).min(250 << 10) / 150 {
                        let text = format!("{round} {read} {line} {:x>100}", "");
                        flood.line(text.as_bytes(), None, Flags::NONE);
                    }
                }
                store.append(&flood).unwrap();
                assert!(store.size() <= budget << 10, "{budget} {size}: {}", store.size());
                quiet.push(format!("quiet {round}"));
                let at = BASE + round * 1000 + 500;
                store.append(&batch("quiet.1", at, &quiet[quiet.len() - 1..])).unwrap();
                if round % 9 == 8 {
                    drop(store);
                    store = Store::open(dir.path(), &limits).unwrap().0;
                }
                if round % 5 < 4 {
                    continue;
                }
                let what = format!("budget {budget}, writes of {size}, round {round}");
                assert_eq!(texts(&read(dir.path(), of("quiet.1"), Start::All)), quiet, "{what}");
                let loud = texts(&read(dir.path(), of("loud.1"), Start::All));
                let bytes: u64 = loud.iter().map(|line| line.len() as u64 + 100).sum();
                let last = loud.last().map_or("", String::as_str);
                assert!(last.starts_with(&format!("{round} ")), "{what}: {} left", loud.len());
                // A quarter of the budget is its share, of which the index takes its part.
                assert!(bytes >= ((budget << 10) / 8).min(size as u64 * 900), "{what}: {bytes}");
            }
        }
    }
}

#[test]
fn what_was_folded_shrinks_with_the_budget_and_does_not_go_whole() {
    const ROUNDS: u64 = 25;
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path(), &spec(1 << 20, 256 << 10)).unwrap();
    let line = |of: u64, round: u64, at: u64| format!("{of} {round} {at} {:x>100}", "");
    let folded = || list(dir.path()).unwrap().into_iter().find(|id| id.from.is_some());
    let mut round = 0;
    while folded().is_none() {
        round += 1;
        assert!(round < 10_000, "nothing is folded");
        let say = |of: u64| (0..20).map(|at| line(of, round, at)).collect::<Vec<_>>();
        let loud = [say(0), say(0), say(0)].concat();
        store.append(&batch("loud.1", BASE + round, &loud)).unwrap();
        for of in (1..=4).filter(|_| round < ROUNDS) {
            store.append(&batch(&format!("s.{of}"), BASE + round, &say(of))).unwrap();
        }
    }
    drop(store);
    // Nothing but what was folded is left.
    let only = folded().unwrap();
    for (id, ending) in files(dir.path()).unwrap() {
        if id != only {
            fs::remove_file(path(dir.path(), id, &ending)).unwrap();
        }
    }
    assert!(size(dir.path()) > 100 << 10, "it is more than the next budget");
    let lines = |of: u64| -> Vec<String> {
        let mut found = read(dir.path(), self::of(&format!("s.{of}")), Start::All);
        found.retain(|entry| entry.dropped.is_none());
        texts(&found)
    };
    let before: Vec<Vec<String>> = (2..=4).map(lines).collect();
    let (mut store, _) = Store::open(dir.path(), &spec(64 << 10, 16 << 10)).unwrap();
    store.append(&batch("s.1", BASE + round + 1, &["new".to_owned()])).unwrap();
    assert!(store.size() <= 64 << 10, "{}", store.size());
    for (of, before) in (2..=4).zip(before) {
        let found = lines(of);
        assert!(before.ends_with(&found) && found.len() > 20, "{} left of s.{of}", found.len());
    }
}
