//! What somebody else takes from the log: counted in its place, told once, never mistaken for what the budget took.
#![allow(clippy::unwrap_used, reason = "a test fails where it is disappointed, helpers included")]

#[path = "common/logs.rs"]
mod logs;

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hilum_node::log::follow::{Followed, Follower};
use hilum_node::log::query::{Entry, Filter, Reader, Start};
use hilum_node::log::record::{Batch, Flags, Stamps, Stream, Who};
use hilum_node::log::segment::path;
use hilum_node::log::stats::{removed, removed_gaps};
use hilum_node::log::store::{Note, Store};

use logs::spec;

const BASE: u64 = 1_795_232_531_000_000;

/// A line of `s.1` and one of `other.1`, in turns, each of a length of its own, with its number.
fn batch(number: u64) -> Batch {
    let name = if number % 2 == 1 { "s.1" } else { "other.1" };
    let who = Arc::new(Who { name: name.into(), file: None });
    let mut batch = Batch::default();
    let at = BASE + number;
    batch.begin(&who, 1, 1, Stream::Out, at, Stamps::default().write(at));
    let filler = "x".repeat((number % 7) as usize);
    batch.line(format!("{name} line {number} {filler}").as_bytes(), None, Flags::NONE);
    batch
}

/// Ten lines in each of so many segments; the last one stays open.
fn filled(dir: &Path, segments: u64) -> Store {
    let (mut store, _) = Store::open(dir, &spec(1 << 30, 1 << 20)).unwrap();
    for segment in 0..segments {
        if segment > 0 {
            store.rotate();
        }
        for number in segment * 10 + 1..=segment * 10 + 10 {
            store.append(&batch(number)).unwrap();
        }
    }
    store
}

fn reopened(dir: &Path) -> (Store, Vec<Note>) {
    Store::open(dir, &spec(1 << 30, 1 << 20)).unwrap()
}

fn remove(dir: &Path, number: u64) {
    for ending in ["log", "idx", "fld"] {
        fs::remove_file(path(dir, number, ending)).unwrap();
    }
}

fn read(dir: &Path, filter: Filter, start: Start) -> Vec<Entry> {
    Reader::open(dir, filter, start).unwrap().collect::<Result<_, _>>().unwrap()
}

/// The texts, those of gaps included.
fn shown(dir: &Path, filter: Filter) -> Vec<String> {
    let entries = read(dir, filter, Start::All);
    let texts = entries.iter().map(|entry| String::from_utf8_lossy(&entry.text).into_owned());
    texts.map(|text| text.trim_end_matches([' ', 'x']).to_owned()).collect()
}

fn lines(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    let name = |number: u64| if number % 2 == 1 { "s.1" } else { "other.1" };
    numbers.map(|number| format!("{} line {number}", name(number))).collect()
}

fn all_with(gap: &str, before: u64, after: u64, last: u64) -> Vec<String> {
    let mut wanted = lines(1..=before);
    wanted.push(gap.to_owned());
    wanted.extend(lines(after..=last));
    wanted
}

fn total(notes: &[Note]) -> u64 {
    notes.iter().map(|note| note.lines).sum()
}

fn wait_for_notes(store: &mut Store, next: &mut u64) -> Vec<Note> {
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        store.append(&batch(*next)).unwrap();
        *next += 1;
        let notes = store.notes();
        if !notes.is_empty() {
            return notes;
        }
        assert!(Instant::now() < limit, "nothing was noticed");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_closed_file_that_was_removed_is_a_gap_in_its_place_for_everybody_and_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = filled(dir.path(), 4);
    fs::remove_file(path(dir.path(), 2, "log")).unwrap();
    let gap = "… 10 lines dropped (000002.log was moved or removed by somebody else)";
    assert_eq!(shown(dir.path(), Filter::default()), all_with(gap, 10, 21, 40));
    let of_one = Filter { instance: Some("s.1".into()), ..Filter::default() };
    let seen = shown(dir.path(), of_one.clone());
    assert_eq!(seen.iter().filter(|line| *line == gap).count(), 1, "{seen:?}");
    assert_eq!(removed(dir.path()).unwrap(), 0);
    let mut next = 41;
    let notes = wait_for_notes(&mut store, &mut next);
    assert_eq!(total(&notes), 10);
    assert_eq!(shown(dir.path(), Filter::default()), all_with(gap, 10, 21, next - 1));
    // The next life has nothing to add.
    store.sync().unwrap();
    drop(store);
    assert_eq!(total(&reopened(dir.path()).1), 0);
    assert_eq!(shown(dir.path(), Filter::default()), all_with(gap, 10, 21, next - 1));
}

#[test]
fn what_was_removed_while_no_node_ran_is_told_by_the_next_one() {
    for number in [1, 2, 4] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = filled(dir.path(), 4);
        store.sync().unwrap();
        drop(store);
        remove(dir.path(), number);
        let (mut store, notes) = reopened(dir.path());
        assert_eq!(total(&notes), 10, "{number}: {notes:?}");
        store.append(&batch(41)).unwrap();
        let entries = read(dir.path(), Filter::default(), Start::All);
        assert_eq!(entries.last().unwrap().seq, 41, "no number is used twice");
        let lost: u64 = entries.iter().filter_map(|entry| entry.dropped).sum();
        assert_eq!(lost, 10);
        assert_eq!(removed(dir.path()).unwrap(), 0);
    }
}

#[test]
fn a_file_that_was_copied_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = filled(dir.path(), 4);
    let copy = |from: u64, to: u64| {
        for ending in ["log", "fld", "idx"] {
            fs::copy(path(dir.path(), from, ending), path(dir.path(), to, ending)).unwrap();
        }
    };
    copy(2, 9);
    let mut next = 41;
    let notes = wait_for_notes(&mut store, &mut next);
    assert_eq!(total(&notes), 0);
    assert!(notes[0].text.contains("000009.log is a copy of 000002.log"), "{notes:?}");
    assert_eq!(shown(dir.path(), Filter::default()), lines(1..next));
    store.sync().unwrap();
    drop(store);
    copy(1, 20);
    let (mut store, notes) = reopened(dir.path());
    assert!(notes[0].text.contains("000020.log is a copy of 000001.log"), "{notes:?}");
    store.append(&batch(next)).unwrap();
    assert_eq!(shown(dir.path(), Filter::default()), lines(1..=next));
}

#[test]
fn what_the_budget_took_is_no_loss_and_a_loss_is_nothing_that_it_took() {
    let dir = tempfile::tempdir().unwrap();
    let limits = spec(128 * 1024, 16 * 1024);
    let (mut store, _) = Store::open(dir.path(), &limits).unwrap();
    for number in 1..4000 {
        store.append(&batch(number)).unwrap();
    }
    let entries = read(dir.path(), Filter::default(), Start::All);
    let evicted = 3999 - entries.len() as u64;
    assert!(evicted > 0 && entries.iter().all(|entry| entry.dropped.is_none()));
    assert_eq!(removed(dir.path()).unwrap(), evicted);
    store.sync().unwrap();
    drop(store);
    assert_eq!(total(&Store::open(dir.path(), &limits).unwrap().1), 0);
    let found = hilum_node::log::segment::list(dir.path()).unwrap();
    remove(dir.path(), found[found.len() / 2].number);
    let left = read(dir.path(), Filter::default(), Start::All);
    let lost: u64 = left.iter().filter_map(|entry| entry.dropped).sum();
    let kept = left.iter().filter(|entry| entry.dropped.is_none()).count() as u64;
    assert_eq!((kept + lost, removed(dir.path()).unwrap()), (entries.len() as u64, evicted));
    assert!(lost > 0);
}

#[test]
fn the_current_file_moved_emptied_or_removed_is_one_gap_with_one_number() {
    for how in ["move", "remove", "truncate", "folder"] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("logs");
        let mut store = filled(&dir, 2);
        let log = path(&dir, 2, "log");
        let lost = match how {
            "move" => fs::rename(&log, dir.join("old")).map(|()| 10),
            "remove" => fs::remove_file(&log).map(|()| 10),
            "folder" => fs::remove_dir_all(&dir).map(|()| 20),
            _ => OpenOptions::new()
                .write(true)
                .open(&log)
                .and_then(|log| log.set_len(0))
                .map(|()| 10),
        }
        .unwrap();
        let mut next = 21;
        let mut notes = wait_for_notes(&mut store, &mut next);
        store.reopen();
        store.append(&batch(next)).unwrap();
        notes.extend(store.notes());
        let entries = read(&dir, Filter::default(), Start::All);
        let gaps: Vec<u64> = entries.iter().filter_map(|entry| entry.dropped).collect();
        assert!(gaps.len() == 1 && gaps[0] >= lost, "{how}: {gaps:?}");
        assert_eq!(total(&notes), gaps[0], "{how}: {notes:?}");
        let kept = entries.iter().filter(|entry| entry.dropped.is_none()).count() as u64;
        assert_eq!(kept + gaps[0], next, "{how}");
        let of_one = Filter { instance: Some("s.1".into()), ..Filter::default() };
        let seen = read(&dir, of_one, Start::All);
        assert_eq!(seen.iter().filter_map(|entry| entry.dropped).collect::<Vec<_>>(), gaps);
    }
}

#[test]
fn bytes_taken_out_of_the_middle_never_put_a_line_under_another_name() {
    let dir = tempfile::tempdir().unwrap();
    let _store = filled(dir.path(), 3);
    let log = path(dir.path(), 2, "log");
    let text = fs::read_to_string(&log).unwrap();
    let less: Vec<&str> = text
        .split_inclusive('\n')
        .enumerate()
        .filter(|(at, _)| *at != 3)
        .map(|(_, line)| line)
        .collect();
    fs::write(&log, less.concat()).unwrap();
    let entries = read(dir.path(), Filter::default(), Start::All);
    for entry in entries.iter().filter(|entry| entry.dropped.is_none()) {
        let text = String::from_utf8_lossy(&entry.text);
        assert!(text.starts_with(&format!("{} line {} ", entry.name, entry.seq)), "{entry:?}");
    }
    let lost: u64 = entries.iter().filter_map(|entry| entry.dropped).sum();
    let kept = entries.iter().filter(|entry| entry.dropped.is_none()).count() as u64;
    assert_eq!((kept, lost), (29, 1), "only what was taken is missing");
}

#[test]
fn an_index_that_is_missing_or_no_index_is_read_from_the_text_with_its_numbers() {
    for (ending, garbage) in [("idx", false), ("idx", true), ("fld", false), ("fld", true)] {
        for number in [1, 2, 3] {
            let dir = tempfile::tempdir().unwrap();
            drop(filled(dir.path(), 3));
            let file = path(dir.path(), number, ending);
            if garbage {
                let length = fs::metadata(&file).unwrap().len() as usize;
                fs::write(file, &"garbage ".repeat(length).as_bytes()[..length]).unwrap();
            } else {
                fs::remove_file(file).unwrap();
            }
            for start in [Start::All, Start::Tail(30)] {
                let entries = read(dir.path(), Filter::default(), start);
                let seqs: Vec<u64> = entries.iter().map(|entry| entry.seq).collect();
                assert_eq!(
                    seqs,
                    (1..=30).collect::<Vec<_>>(),
                    "{ending} {garbage} {number} {start:?}"
                );
                assert!(entries.iter().all(|entry| entry.text.starts_with(entry.name.as_bytes())));
            }
        }
    }
}

#[test]
fn names_that_are_damaged_are_taken_from_the_text() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path(), 2));
    let file = path(dir.path(), 1, "fld");
    let names = fs::read_to_string(&file).unwrap();
    fs::write(&file, names.replace("other.1", "\u{1}thex?\t")).unwrap();
    let entries = read(dir.path(), Filter::default(), Start::All);
    assert_eq!(entries.len(), 20);
    assert!(entries.iter().all(|entry| entry.text.starts_with(entry.name.as_bytes())));
}

#[test]
fn a_file_that_is_set_aside_leaves_a_gap_with_its_number_of_lines() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = filled(dir.path(), 3);
    store.sync().unwrap();
    drop(store);
    fs::write(path(dir.path(), 2, "log"), "no timeline at all\n".repeat(5)).unwrap();
    fs::remove_file(path(dir.path(), 2, "idx")).unwrap();
    let (_store, notes) = reopened(dir.path());
    assert_eq!(total(&notes), 10, "{notes:?}");
    let gap = "… 10 lines dropped (000002.log is damaged: set aside as 000002.log.corrupt)";
    assert_eq!(shown(dir.path(), Filter::default()), all_with(gap, 10, 21, 30));
}

#[test]
fn a_follower_shows_nothing_twice_when_the_folder_is_removed_under_the_node() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("logs");
    let mut store = filled(&dir, 2);
    let mut follower = Follower::open(&dir, Filter::default(), Start::All).unwrap();
    let mut entry = Entry::default();
    let mut seen = Vec::new();
    let mut pump = |follower: &mut Follower, seen: &mut Vec<u64>| {
        while follower.next(&mut entry, Some(Duration::from_millis(50)), None).unwrap()
            == Followed::Record
        {
            if entry.dropped.is_none() {
                seen.push(entry.seq);
            }
        }
    };
    pump(&mut follower, &mut seen);
    fs::remove_dir_all(&dir).unwrap();
    let mut next = 21;
    wait_for_notes(&mut store, &mut next);
    // It may read on in the new folder before it sees that it is another one.
    store.rotate();
    store.append(&batch(next)).unwrap();
    pump(&mut follower, &mut seen);
    store.append(&batch(next + 1)).unwrap();
    pump(&mut follower, &mut seen);
    assert!(seen.contains(&(next + 1)), "{seen:?}");
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
}

#[test]
fn a_follower_goes_on_with_a_store_that_begins_anew_after_its_folder_was_missing() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("logs");
    let store = filled(&dir, 2);
    let mut follower = Follower::open(&dir, Filter::default(), Start::All).unwrap();
    let mut entry = Entry::default();
    let mut pump = |follower: &mut Follower| {
        let mut seen = Vec::new();
        while follower.next(&mut entry, Some(Duration::from_millis(50)), None).unwrap()
            == Followed::Record
        {
            seen.push(entry.seq);
        }
        seen
    };
    assert_eq!(pump(&mut follower).len(), 20);
    drop(store);
    fs::remove_dir_all(&dir).unwrap();
    assert!(pump(&mut follower).is_empty());
    let (mut store, _) = reopened(&dir);
    for number in 1001..1004 {
        store.append(&batch(number)).unwrap();
    }
    let limit = Instant::now() + Duration::from_secs(30);
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(pump(&mut follower));
        assert!(Instant::now() < limit, "{seen:?}");
    }
    assert_eq!(seen, [1, 2, 3]);
}

/// A gap of `s.1`.
fn gap(number: u64, lines: u64, why: &str) -> Batch {
    let who = Arc::new(Who { name: "s.1".into(), file: None });
    let mut batch = Batch::default();
    let at = BASE + number;
    batch.begin(&who, 1, 1, Stream::Node, at, Stamps::default().write(at));
    batch.gap(lines, why);
    batch
}

#[test]
fn how_many_lines_an_evicted_gap_told_of_is_known_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let limits = spec(128 * 1024, 16 * 1024);
    let (mut store, _) = Store::open(dir.path(), &limits).unwrap();
    let mut told = 0;
    for number in 1..6000_u64 {
        if number % 10 == 0 {
            let why = if number % 20 == 0 { "over `rate: 5`" } else { "disk full" };
            store.append(&gap(number, number % 7 + 1, why)).unwrap();
            told += number % 7 + 1;
        } else {
            store.append(&batch(number)).unwrap();
        }
        if number % 2000 == 0 {
            drop(store);
            store = Store::open(dir.path(), &limits).unwrap().0;
        }
    }
    let known = |filter: &Filter| {
        let entries = read(dir.path(), filter.clone(), Start::All);
        let there: u64 = entries.iter().filter_map(|entry| entry.dropped).sum();
        (there, removed_gaps(dir.path(), filter))
    };
    let (there, gone) = known(&Filter::default());
    assert!(there < told, "some are evicted");
    assert_eq!(there + gone.iter().map(|told| told.lines).sum::<u64>(), told);
    let reasons: Vec<(&str, &str)> =
        gone.iter().map(|told| (told.name.as_str(), told.why.as_str())).collect();
    assert_eq!(reasons, [("s.1", "disk full"), ("s.1", "over `rate: 5`")]);
    let of_one = |name: &str| Filter { instance: Some(name.into()), ..Filter::default() };
    assert_eq!(known(&of_one("s.1")), (there, gone));
    assert_eq!(known(&of_one("other.1")), (0, vec![]));
}

#[test]
fn a_loss_by_somebody_else_is_still_counted_when_all_around_it_is_evicted() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = filled(dir.path(), 4);
    store.sync().unwrap();
    drop(store);
    remove(dir.path(), 2);
    let (mut store, _) = Store::open(dir.path(), &spec(128 * 1024, 16 * 1024)).unwrap();
    for number in 41..6000 {
        store.append(&batch(number)).unwrap();
    }
    let gone: u64 =
        removed_gaps(dir.path(), &Filter::default()).iter().map(|told| told.lines).sum();
    let there: u64 = read(dir.path(), Filter::default(), Start::All)
        .iter()
        .filter_map(|entry| entry.dropped)
        .sum();
    assert_eq!((gone, there), (10, 0));
}

#[test]
fn newest_lines_that_are_gone_are_told_with_the_node_down_too() {
    for how in ["remove", "index", "all", "truncate"] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = filled(dir.path(), 3);
        store.sync().unwrap();
        drop(store);
        let kept = match how {
            "remove" => {
                remove(dir.path(), 3);
                20
            }
            "index" => {
                fs::remove_file(path(dir.path(), 3, "log")).unwrap();
                20
            }
            "truncate" => {
                for ending in ["log", "idx"] {
                    fs::write(path(dir.path(), 3, ending), "").unwrap();
                }
                20
            }
            _ => {
                (1..=3).for_each(|number| remove(dir.path(), number));
                0
            }
        };
        let mut wanted = lines(1..=kept);
        let why = "the last files were moved or removed by somebody else";
        wanted.push(format!("… {} lines dropped ({why})", 30 - kept));
        assert_eq!(shown(dir.path(), Filter::default()), wanted, "{how}");
        let tail = read(dir.path(), Filter::default(), Start::Tail(2));
        assert_eq!(tail.last().and_then(|entry| entry.dropped), Some(30 - kept), "{how}");
        let early = Filter { until: Some(BASE + 1000), ..Filter::default() };
        assert_eq!(shown(dir.path(), early).len() as u64, kept, "{how}");
        // The next life tells the same, in the same place.
        let (mut store, notes) = reopened(dir.path());
        assert_eq!(total(&notes), 30 - kept, "{how}");
        store.append(&batch(31)).unwrap();
        let entries = read(dir.path(), Filter::default(), Start::All);
        let gaps: Vec<u64> = entries.iter().filter_map(|entry| entry.dropped).collect();
        assert_eq!((gaps, entries.last().unwrap().seq), (vec![30 - kept], 31), "{how}");
    }
}

#[test]
fn lines_behind_a_damaged_end_of_an_index_are_read_with_the_node_down() {
    for number in [1, 3] {
        for how in ["cut", "torn", "zeros", "first", "middle", "all"] {
            let dir = tempfile::tempdir().unwrap();
            let mut store = filled(dir.path(), 3);
            store.sync().unwrap();
            drop(store);
            let idx = path(dir.path(), number, "idx");
            let mut bytes = fs::read(&idx).unwrap();
            let length = bytes.len();
            match how {
                "cut" => bytes.truncate(length - 4 * 64),
                "torn" => bytes.truncate(length - 100),
                "zeros" => bytes[length - 200..].fill(0),
                "first" => bytes[64..128].fill(0),
                "middle" => bytes[64 * 3..64 * 6].fill(0),
                _ => bytes[64..].fill(0),
            }
            fs::write(&idx, bytes).unwrap();
            // Nobody is between text and index any more.
            let log = OpenOptions::new().write(true).open(path(dir.path(), number, "log")).unwrap();
            log.set_modified(std::time::SystemTime::now() - Duration::from_secs(60)).unwrap();
            for start in [Start::All, Start::Tail(30)] {
                let entries = read(dir.path(), Filter::default(), start);
                let seqs: Vec<u64> = entries.iter().map(|entry| entry.seq).collect();
                assert_eq!(seqs, (1..=30).collect::<Vec<_>>(), "{how} {number} {start:?}");
                let own = |entry: &Entry| entry.text.starts_with(entry.name.as_bytes());
                assert!(entries.iter().all(own), "{how} {number}");
            }
        }
    }
}
