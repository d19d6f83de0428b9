//! Pipes become lines, whatever is done to the pipes.

use super::*;

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
fn a_rate_that_goes_on_makes_one_gap_a_second_and_each_line_is_there_or_counted() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    let limited = |rate| LogPolicy { rate: Some(rate), ..policy() };
    // One that ends, one whose policy changes and whose node stops.
    let (mut ends, e1) = log.attach("ends.1", 1, limited(200));
    let (mut stays, _e2) = log.attach("stays.1", 1, limited(200));
    let gaps = |name: &str| -> Vec<u64> {
        let filter = Filter { instance: Some(name.to_owned()), ..Filter::default() };
        read(dir.path(), filter, Start::All).iter().filter_map(|entry| entry.dropped).collect()
    };
    let (begin, mut written) = (Instant::now(), 0_u64);
    while gaps("ends.1").len() < 3 || gaps("stays.1").len() < 3 {
        assert!(begin.elapsed() < LONG, "waited in vain for gaps");
        for _ in 0..20 {
            ends.write_all(b"x\n").unwrap();
            stays.write_all(b"x\n").unwrap();
            written += 1;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let seen = gaps("ends.1").len();
    let most = begin.elapsed().as_secs() as usize + 1;
    assert!(seen <= most, "{seen} gaps in {most}s");
    for _ in 0..1000 {
        ends.write_all(b"x\n").unwrap();
    }
    drop((ends, e1));
    log.ended("ends.1", 1).recv_timeout(LONG).unwrap();
    let all_of = |name: &str| {
        let filter = Filter { instance: Some(name.to_owned()), ..Filter::default() };
        let entries = read(dir.path(), filter, Start::All);
        let dropped: u64 = entries.iter().filter_map(|entry| entry.dropped).sum();
        let lines = entries.iter().filter(|entry| entry.dropped.is_none()).count() as u64;
        let said = texts(&entries).iter().filter(|text| text.contains("(rate limit)")).count();
        assert_eq!(said, gaps(name).len());
        (dropped, lines + dropped)
    };
    let (dropped, all) = all_of("ends.1");
    assert_eq!(all, written + 1000, "also of its last moment");
    assert_eq!(log.handle.account().of("ends.1").unwrap().of(Why::Rate), dropped);
    stays.write_all(&b"x\n".repeat(1000)).unwrap();
    log.handle.policy("stays".parse().unwrap(), Arc::new(policy())); // it has no rate any more
    stays.write_all(b"x\n").unwrap();
    let handle = log.handle.clone();
    log.stop();
    let (dropped, all) = all_of("stays.1");
    assert_eq!(all, written + 1001, "also of the node's last moment");
    assert_eq!(handle.account().of("stays.1").unwrap().of(Why::Rate), dropped);
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

#[cfg(target_arch = "x86_64")]
const EPOLL: [libc::c_long; 2] = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait];
#[cfg(not(target_arch = "x86_64"))]
const EPOLL: [libc::c_long; 1] = [libc::SYS_epoll_pwait];

/// Whether the thread of this name is in one of these calls, whose fourth argument says "for ever" (`man 5 proc`,
/// `/proc/PID/syscall`): -1 of epoll, no time of futex.
fn sleeps_for_ever(name: &str, calls: &[libc::c_long]) -> bool {
    let mut tasks = std::fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
    let task = tasks.find(|task| {
        let comm = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        comm.trim() == name
    });
    let Some(task) = task else { return false };
    let Ok(text) = std::fs::read_to_string(task.path().join("syscall")) else {
        return true; // this kernel does not tell what threads wait for
    };
    let words: Vec<&str> = text.split(' ').collect();
    let called = words[0].parse().is_ok_and(|call| calls.contains(&call));
    let for_ever: &[&str] = match calls {
        [libc::SYS_futex] => &["0x0"],
        _ => &["0xffffffff", "0xffffffffffffffff"],
    };
    called && words.get(4).is_some_and(|timeout| for_ever.contains(timeout))
}

#[test]
fn a_thousand_quiet_instances_wake_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    let pipes: Vec<_> =
        (1..=150).map(|number| log.attach(&format!("q.{number}"), 1, policy())).collect();
    log.flush();
    wait_until("all pipes", || log.handle.stats().sources == 300);
    // Other tests of this process have threads of the same name: only a process of its own can tell.
    if std::env::var_os("NEXTEST").is_some() {
        wait_until("both threads to sleep without a timeout", || {
            sleeps_for_ever("log", &EPOLL) && sleeps_for_ever("log-disk", &[libc::SYS_futex])
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
