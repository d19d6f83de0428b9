//! A disk that is full.

use super::*;

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
    assert!(log.handle.stats().degraded);
    let known = log.handle.account().of("a.1").unwrap().clone();
    assert!(known.of(Why::Disk) > 0 && known.run == Run(1), "told while it lasts: {known:?}");
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
fn what_was_lost_before_the_disk_failed_keeps_its_cause() {
    const LINES: u64 = 100_000;
    let Some(disk) = SmallDisk::mount("16m") else {
        return;
    };
    let dir = disk.0.path().join("logs");
    let filler = disk.0.path().join("filler");
    std::fs::write(&filler, vec![1; 15 << 20]).unwrap();
    let mut log = Log::start(&dir, spec());
    let (mut out, e1) = log.attach("a.1", 1, policy());
    let (mut fast, e2) = log.attach("fast.1", 1, LogPolicy { rate: Some(5), ..policy() });
    for number in 0..LINES {
        writeln!(out, "{number:>99}").unwrap();
    }
    wait_until("the loss", || log.handle.account().of("a.1").is_some());
    // Its gap is among what the disk does not take.
    fast.write_all(&b"x\n".repeat(105)).unwrap();
    wait_until("the other loss", || {
        log.handle.account().of("fast.1").is_some_and(|fast| fast.of(Why::Rate) == 100)
    });
    log.flush();
    std::fs::remove_file(&filler).unwrap();
    while log.reports.blocking_recv() != Some(LogReport::Recovered) {}
    drop((out, e1, fast, e2));
    log.ended("a.1", 1).recv_timeout(LONG).unwrap();
    log.ended("fast.1", 1).recv_timeout(LONG).unwrap();
    let account = log.handle.account();
    log.stop();
    let mut told = hilum_node::log::account::Account::default();
    for entry in all(&dir) {
        if let Some(lines) = entry.dropped {
            told.add(&entry.name, entry.run.unwrap_or_default(), Why::of_gap(&entry.text), lines);
        }
    }
    let of = |who: &hilum_node::log::account::Account, name| who.of(name).cloned().unwrap();
    assert_eq!(of(&told, "fast.1"), of(&account, "fast.1"));
    assert_eq!(of(&told, "a.1"), of(&account, "a.1"));
    let fast = of(&account, "fast.1");
    assert_eq!((fast.of(Why::Rate), fast.of(Why::Disk)), (100, 5));
}

#[test]
fn what_is_lost_at_the_end_on_a_full_disk_is_a_gap_of_the_next_start() {
    const LINES: u64 = 500;
    let Some(disk) = SmallDisk::mount("1m") else {
        return;
    };
    let dir = disk.0.path().join("logs");
    let filler = disk.0.path().join("filler");
    let log = Log::start(&dir, spec());
    let (mut out, e1) = log.attach("a.1", 1, policy());
    let (mut fast, e2) = log.attach("fast.1", 1, LogPolicy { rate: Some(5), ..policy() });
    let mut full = std::fs::File::create(&filler).unwrap();
    while full.write_all(&[1; 4096]).is_ok() {}
    for number in 0..LINES {
        writeln!(out, "{number:>99}").unwrap();
    }
    fast.write_all(&b"x\n".repeat(105)).unwrap();
    drop((out, e1, fast, e2));
    let handle = log.handle.clone();
    log.stop();
    let untold = handle.untold();
    let of = |name: &str, why: &str| -> u64 {
        let found = untold.iter().filter(|one| &*one.name == name && one.why == why);
        found.map(|one| one.lines).sum()
    };
    let (lost, slow, rated) =
        (of("a.1", "disk full"), of("fast.1", "disk full"), of("fast.1", "rate limit"));
    assert!(lost > 0 && rated == 100, "{untold:?}");
    drop(full);
    std::fs::remove_file(&filler).unwrap();
    let Log { handle, mut reports, thread } = Log::start_after(&dir, spec(), untold.clone());
    handle.stop();
    thread.join().unwrap();
    let (name, why) = ("a.1".into(), "disk full".into());
    assert_eq!(reports.try_recv(), Ok(LogReport::Dropped { name, lines: lost, why }));
    assert_eq!(handle.untold(), []);
    assert_eq!(handle.account().total().dropped(), 0, "nothing is lost by this one");
    let entries = all(&dir);
    let gaps: Vec<(String, u64, String)> = entries
        .iter()
        .filter_map(|entry| {
            let text = String::from_utf8_lossy(&entry.text).into_owned();
            Some((entry.name.to_string(), entry.dropped?, text))
        })
        .collect();
    let gap = |name: &str, lines: u64, why: &str| {
        (name.to_owned(), lines, format!("… {lines} lines dropped ({why})"))
    };
    let mut wanted = vec![gap("a.1", lost, "disk full")];
    wanted.extend((slow > 0).then(|| gap("fast.1", slow, "disk full")));
    wanted.push(gap("fast.1", 100, "rate limit"));
    assert_eq!(gaps, wanted);
    let kept = entries.iter().filter(|entry| &*entry.name == "a.1" && entry.dropped.is_none());
    assert_eq!(kept.count() as u64 + lost, LINES);
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
fn a_log_file_that_could_not_be_written_comes_back_by_itself_and_says_what_it_misses() {
    let Some(disk) = SmallDisk::mount("1m") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (file, filler) = (disk.0.path().join("web.log"), disk.0.path().join("filler"));
    let mut log = Log::start(dir.path(), spec());
    let (mut out, err) = log.attach("a.1", 1, LogPolicy { file: Some(file.clone()), ..policy() });
    writeln!(out, "before").unwrap();
    log.flush();
    let mut full = std::fs::File::create(&filler).unwrap();
    while full.write_all(&[1; 4096]).is_ok() {}
    for number in 0..200 {
        writeln!(out, "{number:>99}").unwrap();
    }
    log.flush();
    drop(full);
    std::fs::remove_file(&filler).unwrap();
    let text = || std::fs::read_to_string(&file).unwrap();
    wait_until("the file to be written again", || {
        writeln!(out, "after").unwrap();
        log.flush();
        text().contains("after")
    });
    let report = log.reports.blocking_recv().unwrap();
    let LogReport::Dropped { name, lines: dropped, why } = report else {
        panic!("{report:?}");
    };
    assert_eq!(&*name, "a.1");
    assert!(why.contains("No space left on device"), "{why}");
    drop((out, err));
    log.ended("a.1", 1).recv_timeout(LONG).unwrap();
    log.stop();
    let shown = text();
    assert!(
        shown.contains(&format!("a.1 node | … {dropped} lines dropped (No space left on device)"))
    );
    let entries = all(dir.path());
    let lines =
        |text: &str| text.lines().filter(|line| line.contains(" a.1 out | ")).count() as u64;
    let written = entries.iter().filter(|entry| entry.stream == Some(Stream::Out)).count() as u64;
    assert_eq!(lines(&shown) + dropped, written);
    assert!(shown.lines().all(|line| line.contains(" a.1 ")), "no line is torn");
    let event = entries.iter().find_map(Entry::event).unwrap();
    assert_eq!((&event["event"], &event["lines"]), (&"lines-dropped".into(), &dropped.into()));
    let said = texts(&entries);
    assert!(
        said.iter().any(|text| text.contains("cannot be written: No space left on device")),
        "{said:?}"
    );
}
