//! The log as the node uses it: real pipes in, files out, questions answered from the files.
#![allow(clippy::unwrap_used, reason = "a test fails where it is disappointed, helpers included")]

use std::io::{PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hilum_node::log::follow::{Followed, Follower};
use hilum_node::log::query::{Entry, Filter, Reader, Start};
use hilum_node::log::record::{Flags, Stream};
use hilum_node::log::{LogConfig, LogHandle, LogReport, NodeRecord, Source, Started, crashes};
use hilum_shared::config::spec::{Color, LevelFrom, LogPolicy, LogsSpec, Overflow};
use hilum_shared::name::{InstanceId, Run};
use hilum_shared::protocol::{Level, LogRecord};
use hilum_shared::units::Bytes;

const LONG: Duration = Duration::from_secs(30);

fn spec() -> LogsSpec {
    LogsSpec {
        dir: None,
        budget: Bytes(1 << 30),
        keep_free: 0.0,
        segment: Bytes(64 << 20),
        max_age: None,
        compress: false,
        overflow: Overflow::Block,
    }
}

fn policy() -> LogPolicy {
    LogPolicy {
        max_line: Bytes(64 * 1024),
        level_from: LevelFrom::Auto,
        multiline: None,
        color: Color::Keep,
        rate: None,
        file: None,
    }
}

fn id(text: &str) -> InstanceId {
    InstanceId::parse(text).unwrap()
}

struct Log {
    handle: LogHandle,
    reports: tokio::sync::mpsc::Receiver<LogReport>,
    thread: std::thread::JoinHandle<()>,
}

impl Log {
    fn start(dir: &Path, spec: LogsSpec) -> Self {
        let Started { handle, reports, thread } = hilum_node::log::start(LogConfig {
            dir: dir.to_owned(),
            base: dir.to_owned(),
            spec,
            subscriber: None,
        })
        .unwrap();
        Self { handle, reports, thread }
    }

    fn attach(&self, name: &str, run: u32, policy: LogPolicy) -> (PipeWriter, PipeWriter) {
        self.attach_ready(name, run, policy, None)
    }

    fn attach_ready(
        &self,
        name: &str,
        run: u32,
        policy: LogPolicy,
        ready: Option<&str>,
    ) -> (PipeWriter, PipeWriter) {
        let (out, out_end) = std::io::pipe().unwrap();
        let (err, err_end) = std::io::pipe().unwrap();
        self.handle.attach(
            Source {
                instance: id(name),
                run: Run(run),
                pid: 100 + run,
                policy: Arc::new(policy),
                ready_pattern: ready.map(|text| regex::bytes::Regex::new(text).unwrap()),
            },
            OwnedFd::from(out),
            Some(OwnedFd::from(err)),
        );
        (out_end, err_end)
    }

    fn ended(&self, name: &str, run: u32) -> mpsc::Receiver<()> {
        let (tell, told) = mpsc::channel();
        self.handle.ended(id(name), Run(run), move || {
            let _ = tell.send(());
        });
        told
    }

    fn flush(&self) {
        let (tell, told) = mpsc::channel();
        self.handle.flush(move || {
            let _ = tell.send(());
        });
        told.recv_timeout(LONG).unwrap();
    }

    fn stop(self) {
        self.handle.stop();
        self.thread.join().unwrap();
    }
}

fn all(dir: &Path) -> Vec<Entry> {
    read(dir, Filter::default(), Start::All)
}

fn read(dir: &Path, filter: Filter, start: Start) -> Vec<Entry> {
    Reader::open(dir, filter, start).unwrap().collect::<Result<_, _>>().unwrap()
}

fn texts(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| String::from_utf8_lossy(&entry.text).into_owned()).collect()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < limit, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn lines_of_a_run_are_in_the_timeline_when_its_end_is_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    let (mut out, mut err) = log.attach("echo.3", 1, policy());
    out.write_all(b"hello\nworld\r\nunfinished").unwrap();
    err.write_all(b"oops\n").unwrap();
    drop((out, err));
    log.ended("echo.3", 1).recv_timeout(LONG).unwrap();
    let entries = all(dir.path());
    let seqs: Vec<u64> = entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4]);
    let out: Vec<&Entry> =
        entries.iter().filter(|entry| entry.stream == Some(Stream::Out)).collect();
    assert_eq!(out[0].text, b"hello");
    assert_eq!(out[0].instance.as_deref(), Some("echo.3"));
    assert_eq!(out[0].service.as_deref(), Some("echo"));
    assert_eq!((out[0].run, out[0].pid), (Some(Run(1)), Some(101)));
    assert_eq!(
        (out[1].text.as_slice(), out[1].line_end()),
        (b"world".as_slice(), b"\r\n".as_slice())
    );
    assert!(out[2].is_partial());
    let text = std::fs::read_to_string(dir.path().join("000001.log")).unwrap();
    assert!(
        text.contains(" echo.3 out | hello\n") && text.contains(" echo.3 err | oops\n"),
        "{text}"
    );
    log.stop();
}

#[test]
fn an_unfinished_line_of_one_life_is_never_glued_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    for run in 1..=2 {
        let (mut out, err) = log.attach("a.1", run, policy());
        out.write_all(b"par").unwrap();
        out.write_all(b"tial").unwrap();
        drop((out, err));
        log.ended("a.1", run).recv_timeout(LONG).unwrap();
    }
    log.stop();
    let entries = all(dir.path());
    assert_eq!(texts(&entries), ["partial", "partial"]);
    assert!(entries.iter().all(|entry| entry.flags.has(Flags::PARTIAL)));
    assert_eq!((entries[0].run, entries[1].run), (Some(Run(1)), Some(Run(2))));
}

#[test]
fn a_prompt_without_a_line_end_is_shown_after_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    let (mut out, _err) = log.attach("a.1", 1, policy());
    out.write_all(b"password: ").unwrap();
    let begin = Instant::now();
    wait_until("the prompt", || !all(dir.path()).is_empty());
    assert!(begin.elapsed() >= Duration::from_millis(900), "not before a second");
    assert!(all(dir.path())[0].is_partial());
    out.write_all(b"ok\n").unwrap();
    log.flush();
    assert_eq!(texts(&all(dir.path())), ["password: ", "ok"]);
    log.stop();
}

#[test]
fn pipes_that_others_hold_open_delay_the_end_by_two_seconds_and_are_read_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    let (mut held, err) = log.attach("a.1", 1, policy());
    held.write_all(b"before\n").unwrap();
    drop(err);
    let begin = Instant::now();
    log.ended("a.1", 1).recv_timeout(LONG).unwrap();
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(1900) && took < Duration::from_secs(10), "{took:?}");
    held.write_all(b"after\n").unwrap();
    log.flush();
    let entries = all(dir.path());
    assert_eq!(texts(&entries), ["before", "after"]);
    assert!(entries[1].flags.has(Flags::LATE) && !entries[0].flags.has(Flags::LATE));
    log.handle.close(id("a.1"), Run(1));
    wait_until("the pipe to be closed", || held.write_all(b"x\n").is_err());
    log.stop();
}

#[test]
fn a_ready_pattern_is_reported_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::start(dir.path(), spec());
    let (mut out, _err) = log.attach_ready("a.1", 4, policy(), Some("^listening on [0-9]+$"));
    out.write_all(b"starting\nlistening on 80\nlistening on 81\n").unwrap();
    let report = log.reports.blocking_recv().unwrap();
    assert_eq!(report, LogReport::Matched { instance: id("a.1"), run: Run(4) });
    log.flush();
    assert!(log.reports.try_recv().is_err());
    log.stop();
}

#[test]
fn colours_long_lines_and_rates_are_as_the_policy_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::start(dir.path(), spec());
    let (mut plain, _e1) = log.attach("strip.1", 1, LogPolicy { color: Color::Strip, ..policy() });
    let (mut long, _e2) = log.attach("long.1", 1, LogPolicy { max_line: Bytes(4), ..policy() });
    let (mut fast, _e3) = log.attach("fast.1", 1, LogPolicy { rate: Some(5), ..policy() });
    plain.write_all(b"\x1b[31mred\x1b[0m\n").unwrap();
    long.write_all(b"abcdefgh\n").unwrap();
    fast.write_all(&b"x\n".repeat(20)).unwrap();
    log.flush();
    wait_until("the gap", || all(dir.path()).iter().any(|entry| entry.dropped.is_some()));
    let of = |name: &str| {
        let filter = Filter { instance: Some(name.to_owned()), ..Filter::default() };
        read(dir.path(), filter, Start::All)
    };
    assert_eq!(texts(&of("strip.1")), ["red"]);
    assert_eq!(texts(&of("long.1")), ["abcd", "efgh"]);
    assert!(of("long.1")[0].flags.has(Flags::SPLIT));
    let fast = of("fast.1");
    assert_eq!(fast.len(), 6);
    assert_eq!(fast[5].dropped, Some(15));
    assert_eq!(fast[5].text, "… 15 lines dropped (rate limit)".as_bytes());
    assert!(matches!(log.reports.blocking_recv(), Some(LogReport::Dropped { lines: 15, .. })));
    log.stop();
}

#[test]
fn structured_records_keep_their_fields_and_a_hole_is_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    let record = |seq, level: &str, message: &str| LogRecord {
        instance: id("a.1"),
        seq: Some(seq),
        at: 0.0,
        level: level.to_owned(),
        logger: "shop.cart".to_owned(),
        message: message.to_owned(),
        fields: [("items".to_owned(), serde_json::json!(3))].into(),
        trace_id: Some("t1".to_owned()),
    };
    log.handle
        .structured(
            id("a.1"),
            Run(1),
            7,
            vec![record(1, "warn", "one\ntwo"), record(4, "loud", "four")],
        )
        .unwrap();
    log.flush();
    let entries = all(dir.path());
    assert_eq!(
        texts(&entries),
        ["one\ntwo", "… 2 lines dropped (records that the worker did not deliver)", "four"]
    );
    assert_eq!(entries[0].level, Some(Level::Warning));
    assert_eq!(entries[2].level, Some(Level::Info));
    let fields = entries[0].fields.as_ref().unwrap();
    assert_eq!(fields["logger"], "shop.cart");
    assert_eq!((&fields["trace_id"], &fields["items"]), (&"t1".into(), &3.into()));
    let grave =
        Filter { level: Some(Level::Warning), streams: vec![Stream::Log], ..Filter::default() };
    let shown = read(dir.path(), grave, Start::All);
    assert_eq!(shown.len(), 2, "the gap is shown, the INFO is not: {shown:?}");
    log.stop();
}

#[test]
fn a_thousand_events_at_once_come_in_order_with_their_fields() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    for number in 1..=1000 {
        let mut fields = serde_json::Map::new();
        fields.insert("event".into(), "started".into());
        fields.insert("number".into(), number.into());
        log.handle.node(NodeRecord {
            instance: Some(id(&format!("a.{number}"))),
            run: Some(Run(1)),
            pid: Some(number),
            level: Some(Level::Info),
            text: "started".into(),
            fields,
            ..NodeRecord::default()
        });
    }
    log.handle.node(NodeRecord { text: "node ready".into(), ..NodeRecord::default() });
    log.flush();
    let events = read(
        dir.path(),
        Filter { streams: vec![Stream::Node], ..Filter::default() },
        Start::Tail(1001),
    );
    assert_eq!(events.len(), 1001);
    for (number, event) in (1..=1000).zip(&events) {
        assert_eq!(event.event().unwrap()["number"], number);
    }
    assert_eq!((&*events[1000].name, events[1000].instance.as_ref()), ("*", None));
    log.stop();
}

#[test]
fn the_next_life_goes_on_in_number_and_files() {
    let dir = tempfile::tempdir().unwrap();
    for life in 0..3 {
        let log = Log::start(dir.path(), spec());
        let (mut out, err) = log.attach("a.1", 1, policy());
        writeln!(out, "life {life}").unwrap();
        drop((out, err));
        log.ended("a.1", 1).recv_timeout(LONG).unwrap();
        log.stop();
    }
    let entries = all(dir.path());
    assert_eq!(texts(&entries), ["life 0", "life 1", "life 2"]);
    assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(!dir.path().join("000002.log").exists());
}

#[test]
fn stop_takes_what_is_in_the_pipes() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    let (mut out, _err) = log.attach("a.1", 1, policy());
    out.write_all(&b"line\n".repeat(10_000)).unwrap();
    log.stop();
    assert_eq!(all(dir.path()).len(), 10_000);
}

#[test]
fn a_flood_of_four_loses_tears_and_reorders_nothing() {
    const LINES: usize = 30_000;
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), LogsSpec { segment: Bytes(2 << 20), ..spec() });
    let mut writers = Vec::new();
    for worker in 1..=4_usize {
        let (mut out, err) = log.attach(&format!("w.{worker}"), 1, policy());
        writers.push(std::thread::spawn(move || {
            let mut block = Vec::new();
            for number in 0..LINES {
                let line = format!("{number:08} {worker:x>90}\n");
                if worker % 2 == 0 {
                    out.write_all(line.as_bytes()).unwrap();
                    continue;
                }
                // Blocks that straddle lines.
                block.extend_from_slice(line.as_bytes());
                while block.len() >= 65_536 {
                    out.write_all(&block[..65_536]).unwrap();
                    block.drain(..65_536);
                }
            }
            out.write_all(&block).unwrap();
            drop((out, err));
        }));
    }
    for writer in writers {
        writer.join().unwrap();
    }
    for worker in 1..=4 {
        log.ended(&format!("w.{worker}"), 1).recv_timeout(LONG).unwrap();
    }
    let mut next = [0_usize; 5];
    let mut seq = 0;
    let mut reader = Reader::open(dir.path(), Filter::default(), Start::All).unwrap();
    let mut entry = Entry::default();
    while reader.read(&mut entry).unwrap() {
        seq += 1;
        assert_eq!(entry.seq, seq);
        let worker: usize = entry.instance.as_deref().unwrap()[2..].parse().unwrap();
        let wanted = format!("{:08} {:x>90}", next[worker], worker);
        assert_eq!(String::from_utf8_lossy(&entry.text), wanted);
        next[worker] += 1;
    }
    assert_eq!(&next[1..], [LINES; 4]);
    for worker in 1..=4 {
        let tail = read(
            dir.path(),
            Filter { instance: Some(format!("w.{worker}")), ..Filter::default() },
            Start::Tail(3),
        );
        assert_eq!(tail.len(), 3);
        assert!(texts(&tail)[2].starts_with(&format!("{:08}", LINES - 1)));
    }
    assert_eq!(log.handle.stats().dropped, 0);
    log.stop();
}

#[test]
fn a_follower_sees_every_line_through_rotation_and_a_new_life() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("not/yet/there");
    let mut follower = Follower::open(&store, Filter::default(), Start::All).unwrap();
    let (tell, told) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut entry = Entry::default();
        let mut seen = Vec::new();
        let mut quiet = 0;
        while seen.len() < 6000 && quiet < 30 {
            match follower.next(&mut entry, Some(Duration::from_secs(1)), None).unwrap() {
                Followed::Record => {
                    seen.push(String::from_utf8_lossy(&entry.text).into_owned());
                    quiet = 0;
                }
                Followed::Quiet => quiet += 1,
            }
        }
        tell.send(()).unwrap();
        seen
    });
    for life in 0..3 {
        let log = Log::start(&store, LogsSpec { segment: Bytes(32 << 10), ..spec() });
        let (mut out, err) = log.attach("a.1", 1, policy());
        for number in 0..2000 {
            writeln!(out, "{}", life * 2000 + number).unwrap();
        }
        drop((out, err));
        log.ended("a.1", 1).recv_timeout(LONG).unwrap();
        log.stop();
    }
    told.recv_timeout(LONG * 2).unwrap();
    let seen = reader.join().unwrap();
    let wanted: Vec<String> = (0..6000).map(|number| number.to_string()).collect();
    assert_eq!(seen, wanted);
    assert!(store.join("000003.log").exists(), "it did rotate");
}

#[test]
fn a_quiet_follower_is_woken_by_a_line_and_by_its_caller() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    let (mut out, _err) = log.attach("a.1", 1, policy());
    writeln!(out, "old").unwrap();
    log.flush();
    let mut follower = Follower::open(dir.path(), Filter::default(), Start::End).unwrap();
    let mut entry = Entry::default();
    let begin = Instant::now();
    writeln!(out, "new").unwrap();
    assert_eq!(follower.next(&mut entry, Some(LONG), None).unwrap(), Followed::Record);
    assert_eq!(entry.text, b"new");
    let (wake, mut bell) = std::io::pipe().unwrap();
    bell.write_all(b"x").unwrap();
    use std::os::fd::AsFd;
    let next = follower.next(&mut entry, None, Some(wake.as_fd())).unwrap();
    assert_eq!(next, Followed::Quiet);
    assert!(begin.elapsed() < LONG);
    log.stop();
}

#[test]
fn a_crash_is_noted_with_its_last_lines() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    for run in 1..=2 {
        let (mut out, err) = log.attach("a.1", run, policy());
        for number in 0..300 {
            writeln!(out, "run {run} line {number}").unwrap();
        }
        let facts = serde_json::json!({"instance": "a.1", "run": run, "pid": 100 + run, "code": 3});
        log.handle.crash(id("a.1"), Run(run), facts.as_object().unwrap().clone());
        drop((out, err));
        log.ended("a.1", run).recv_timeout(LONG).unwrap();
    }
    log.stop();
    let known = crashes::list(dir.path()).unwrap();
    assert_eq!(known.iter().map(|crash| crash.id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(known[0].facts["code"], 3);
    let lines = texts(&crashes::last_lines(dir.path(), &known[0]).unwrap());
    assert_eq!(lines.len(), 200);
    assert_eq!((lines[0].as_str(), lines[199].as_str()), ("run 1 line 100", "run 1 line 299"));
}

#[test]
fn a_file_besides_the_store_has_the_same_lines() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    let (mut out, _err) =
        log.attach("a.1", 1, LogPolicy { file: Some("own.txt".into()), ..policy() });
    let (mut other, _err2) = log.attach("b.1", 1, policy());
    writeln!(out, "mine").unwrap();
    writeln!(other, "not mine").unwrap();
    log.flush();
    std::fs::rename(dir.path().join("own.txt"), dir.path().join("own.1")).unwrap();
    log.handle.reopen();
    writeln!(out, "again").unwrap();
    log.flush();
    let first = std::fs::read_to_string(dir.path().join("own.1")).unwrap();
    let second = std::fs::read_to_string(dir.path().join("own.txt")).unwrap();
    assert!(first.ends_with(" a.1 out | mine\n") && first.lines().count() == 1, "{first}");
    assert!(second.ends_with(" a.1 out | again\n") && second.lines().count() == 1, "{second}");
    log.stop();
}

/// A file system of this size, unmounted in the end; `None` where we may not mount.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(dir.path())
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(dir));
        }
        let _ = writeln!(std::io::stderr(), "skipped: a tmpfs cannot be mounted here");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[test]
fn a_full_disk_holds_no_worker_back_and_the_loss_is_counted_when_it_is_mended() {
    const LINES: u64 = 120_000;
    let Some(disk) = SmallDisk::mount("16m") else {
        return;
    };
    let dir = disk.0.path().join("logs");
    let filler = disk.0.path().join("filler");
    std::fs::write(&filler, vec![1; 15 << 20]).unwrap();
    let mut log = Log::start(&dir, spec());
    let (mut out, err) = log.attach("a.1", 1, policy());
    // About 17 MB of timeline: 1 MB fits the disk, a few the memory. No write may wait for the disk.
    for number in 0..LINES {
        writeln!(out, "{number:>99}").unwrap();
    }
    log.flush();
    assert!(
        matches!(log.reports.blocking_recv(), Some(LogReport::Degraded(why)) if why.contains("disk full"))
    );
    assert!(log.handle.stats().degraded && log.handle.stats().dropped > 0);
    std::fs::remove_file(&filler).unwrap();
    let dropped = loop {
        match log.reports.blocking_recv().unwrap() {
            LogReport::Dropped { lines, .. } => break lines,
            LogReport::Degraded(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(log.reports.blocking_recv(), Some(LogReport::Recovered));
    writeln!(out, "after").unwrap();
    drop((out, err));
    log.ended("a.1", 1).recv_timeout(LONG).unwrap();
    log.stop();
    let entries = all(&dir);
    let (gaps, lines): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().partition(|entry| entry.dropped.is_some());
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0].dropped, Some(dropped));
    assert_eq!(gaps[0].text, format!("… {dropped} lines dropped (disk full)").as_bytes());
    assert_eq!(lines.len() as u64 - 1 + dropped, LINES);
    assert_eq!(lines.last().unwrap().text, b"after");
    for (number, line) in lines[..lines.len() - 1].iter().enumerate() {
        assert_eq!(String::from_utf8_lossy(&line.text), format!("{number:>99}"));
    }
}

#[test]
fn old_segments_make_room_on_a_full_disk() {
    let Some(disk) = SmallDisk::mount("2m") else {
        return;
    };
    let log = Log::start(disk.0.path(), LogsSpec { segment: Bytes(256 << 10), ..spec() });
    let (mut out, err) = log.attach("a.1", 1, policy());
    for number in 0..50_000 {
        writeln!(out, "{number:>99}").unwrap();
    }
    drop((out, err));
    log.ended("a.1", 1).recv_timeout(LONG).unwrap();
    assert_eq!(log.handle.stats().dropped, 0);
    log.stop();
    let entries = all(disk.0.path());
    assert!(entries.len() > 1000, "{}", entries.len());
    assert_eq!(entries.last().unwrap().text, format!("{:>99}", 49_999).as_bytes());
}

#[test]
fn a_thousand_quiet_instances_wake_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    let pipes: Vec<_> =
        (1..=150).map(|number| log.attach(&format!("q.{number}"), 1, policy())).collect();
    log.flush();
    wait_until("all pipes", || log.handle.stats().sources == 300);
    let switches = || {
        std::fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|task| {
                let task = task.ok()?.path();
                let name = std::fs::read_to_string(task.join("comm")).ok()?;
                let status = std::fs::read_to_string(task.join("status")).ok()?;
                let count = status
                    .lines()
                    .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?
                    .trim()
                    .parse::<u64>()
                    .ok()?;
                (name.trim() == "log" || name.trim() == "log-disk").then_some(count)
            })
            .sum::<u64>()
    };
    // Other tests of this process have threads of the same name: only a process of its own can tell.
    if std::env::var_os("NEXTEST").is_some() {
        wait_until("a second in which nobody wakes", || {
            let before = switches();
            std::thread::sleep(Duration::from_secs(1));
            switches() == before
        });
    }
    drop(pipes);
    log.stop();
}

#[test]
fn a_terminal_is_one_stream_and_its_end_is_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    let terminal = nix::pty::openpty(None, None).unwrap();
    log.handle.attach(
        Source {
            instance: id("t.1"),
            run: Run(1),
            pid: 7,
            policy: Arc::new(policy()),
            ready_pattern: None,
        },
        terminal.master,
        None,
    );
    let mut program = std::fs::File::from(terminal.slave);
    program.write_all(b"one\ntwo\npart").unwrap();
    drop(program);
    let begin = Instant::now();
    log.ended("t.1", 1).recv_timeout(LONG).unwrap();
    assert!(begin.elapsed() < Duration::from_millis(1500), "its end was seen");
    let entries = all(dir.path());
    assert_eq!(texts(&entries), ["one", "two", "part"]);
    assert!(entries[0].flags.has(Flags::CR) && entries[2].is_partial());
    assert!(entries.iter().all(|entry| entry.stream == Some(Stream::Out)));
    log.stop();
}

/// Counts what it sees.
struct Listener(mpsc::Sender<(String, Stream, Option<Level>, Vec<u8>)>);

impl hilum_node::log::Subscriber for Listener {
    fn wanted(&self) -> bool {
        true
    }

    fn record(&mut self, record: &hilum_node::log::handle::Finished<'_>) {
        let _ = self.0.send((
            record.name.to_owned(),
            record.stream,
            record.level,
            record.text.to_vec(),
        ));
    }
}

#[test]
fn a_subscriber_sees_every_record() {
    let dir = tempfile::tempdir().unwrap();
    let (tell, told) = mpsc::channel();
    let started = hilum_node::log::start(LogConfig {
        dir: dir.path().to_owned(),
        base: dir.path().to_owned(),
        spec: spec(),
        subscriber: Some(Box::new(Listener(tell))),
    })
    .unwrap();
    let log = Log { handle: started.handle, reports: started.reports, thread: started.thread };
    let (mut out, err) = log.attach("a.1", 1, policy());
    out.write_all(b"hello\nrest").unwrap();
    drop((out, err));
    log.ended("a.1", 1).recv_timeout(LONG).unwrap();
    log.handle.node(NodeRecord {
        instance: Some(id("a.1")),
        level: Some(Level::Error),
        text: "failed".into(),
        ..NodeRecord::default()
    });
    log.stop();
    let seen: Vec<_> = told.iter().collect();
    let of =
        |stream, level, text: &str| ("a.1".to_owned(), stream, level, text.as_bytes().to_vec());
    assert_eq!(
        seen,
        [
            of(Stream::Out, None, "hello"),
            of(Stream::Out, None, "rest"),
            of(Stream::Node, Some(Level::Error), "failed"),
        ]
    );
}
