//! What happens while the disk is behind: the test is the disk thread, and takes its time.

use std::io::{PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread::JoinHandle;

use hilum_shared::config::spec::LogsSpec;
use hilum_shared::name::Run;

use super::*;
use crate::log::account::Why;
use crate::log::handle::Source;
use crate::log::record::parse_line;

#[path = "../../../tests/common/logs.rs"]
mod logs;

const LIMIT: Duration = Duration::from_secs(60);

/// A log thread, and its disk, which gives no batch back until it [`flows`](Self::flows).
struct Slow {
    shared: Arc<Shared>,
    commands: Sender<Command>,
    reports: tokio::sync::mpsc::Receiver<LogReport>,
    works: Receiver<Work>,
    returned: Sender<Batch>,
    thread: JoinHandle<()>,
}

impl Slow {
    fn start(overflow: Overflow) -> Self {
        let config = LogConfig {
            dir: PathBuf::new(),
            base: PathBuf::new(),
            spec: LogsSpec { overflow, ..logs::spec(1 << 30, 1 << 26) },
            subscriber: None,
            untold: Vec::new(),
        };
        let shared = Arc::new(Shared::new().unwrap());
        let (report, reports) = tokio::sync::mpsc::channel(1000);
        let (commands, inbox) = mpsc::channel();
        let (work, works) = mpsc::channel();
        let (returned, spare) = mpsc::channel();
        let reports_out = Reports::new(report);
        let capture =
            Capture::new(config, shared.clone(), reports_out, inbox, work, spare).unwrap();
        let thread = std::thread::spawn(move || capture.run());
        Self { shared, commands, reports, works, returned, thread }
    }

    fn attach(&self, name: &str) -> PipeWriter {
        let (end, out) = std::io::pipe().unwrap();
        let policy = logs::policy();
        let source = Source {
            instance: InstanceId::parse(name).unwrap(),
            run: Run(1),
            pid: 7,
            policy: Arc::new(policy),
            ready_pattern: None,
        };
        self.send(Command::Attach(Box::new(source), OwnedFd::from(end), None));
        out
    }

    fn send(&self, command: Command) {
        self.commands.send(command).unwrap();
        self.shared.ring();
    }

    fn wait_until(&self, what: &str, condition: impl Fn(&Shared) -> bool) {
        let limit = Instant::now() + LIMIT;
        while !condition(&self.shared) {
            assert!(Instant::now() < limit, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The disk takes everything from now on: what was written until the log thread's end, as names and texts.
    fn flows(self) -> (Vec<(String, String)>, Vec<LogReport>) {
        self.shared.ring();
        let mut text = Vec::new();
        loop {
            match self.works.recv_timeout(LIMIT).unwrap() {
                Work::Write(mut batch, _, done) => {
                    text.extend_from_slice(&batch.text);
                    batch.clear(0);
                    let _ = self.returned.send(batch); // the log thread may have ended
                    self.shared.batch_is_back();
                    for done in done {
                        done();
                    }
                }
                Work::Stop => break,
                _ => {}
            }
        }
        self.thread.join().unwrap();
        let mut reports = self.reports;
        let reports = std::iter::from_fn(|| reports.try_recv().ok()).collect();
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let parsed = lines.map(|line| {
            let parsed = parse_line(line).unwrap();
            let text = String::from_utf8_lossy(&line[parsed.prefix..]).into_owned();
            (parsed.name.to_owned(), text)
        });
        (parsed.collect(), reports)
    }
}

/// Lines `0 xxx…` of 100 bytes.
fn flood(out: impl Write, lines: u64) {
    let mut out = std::io::BufWriter::with_capacity(4096, out);
    for number in 0..lines {
        writeln!(out, "{number} {:x<90}", "").unwrap();
    }
}

#[test]
fn with_overflow_drop_nobody_waits_and_each_line_is_whole_or_counted() {
    const LINES: u64 = 40_000;
    let slow = Slow::start(Overflow::Drop);
    let mut out = slow.attach("w.1");
    flood(&mut out, LINES); // ends although the disk takes nothing
    slow.wait_until("the drop", |shared| shared.account().total().dropped() > 0);
    // A line that is longer than what is kept of an unfinished one, and goes on when the disk does.
    let before = slow.shared.bytes.load(Ordering::Relaxed);
    out.write_all("L".repeat(200_000).as_bytes()).unwrap();
    slow.wait_until("the long line to be read", |shared| {
        shared.bytes.load(Ordering::Relaxed) >= before + 200_000
    });
    let rest = std::thread::spawn({
        let shared = slow.shared.clone();
        move || {
            let limit = Instant::now() + LIMIT;
            while shared.holding.load(Ordering::Relaxed) && Instant::now() < limit {
                std::thread::sleep(Duration::from_millis(1));
            }
            out.write_all(b"its end\nafter\n").unwrap();
        }
    });
    // The end is read when all is written.
    let (shared, commands) = (slow.shared.clone(), slow.commands.clone());
    let stop = std::thread::spawn(move || {
        rest.join().unwrap();
        commands.send(Command::Stop).unwrap();
        shared.ring();
    });
    let (lines, reports) = slow.flows();
    stop.join().unwrap();
    let dropped: u64 = reports
        .iter()
        .map(|report| match report {
            LogReport::Dropped { name, lines, why } if &**name == "w.1" && why == "slow disk" => {
                *lines
            }
            other => panic!("{other:?}"),
        })
        .sum();
    let (gaps, kept): (Vec<_>, Vec<_>) = lines.iter().partition(|(_, text)| text.starts_with('…'));
    assert!(gaps.iter().all(|(name, text)| name == "w.1" && text.ends_with("(slow disk)")));
    assert_eq!(kept.len() as u64 + dropped, LINES + 2);
    assert_eq!(kept.last().unwrap().1, "after");
    let mut least = 0;
    for (_, text) in &kept[..kept.len() - 1] {
        assert_eq!(text.len(), text.find(' ').unwrap() + 91, "torn: {text}");
        let number: u64 = text.split(' ').next().unwrap().parse().unwrap();
        assert!(number >= least, "{number} after {least}");
        least = number + 1;
    }
}

#[test]
fn with_overflow_block_a_flood_waits_for_the_disk_and_a_quiet_neighbour_does_not() {
    const LINES: u64 = 40_000;
    let mut slow = Slow::start(Overflow::Block);
    let (out, mut calm) = (slow.attach("flood.1"), slow.attach("calm.1"));
    let flood = std::thread::spawn(move || flood(out, LINES));
    slow.wait_until("the log to wait", |shared| shared.holding.load(Ordering::Relaxed));
    let held = loop {
        if let LogReport::Held { instance, held, .. } = slow.reports.blocking_recv().unwrap() {
            break (instance.to_string(), held);
        }
    };
    assert_eq!(held, ("flood.1".to_owned(), true));
    for number in 0..100 {
        writeln!(calm, "calm {number}").unwrap(); // the pipe takes it
    }
    drop(calm);
    assert!(!flood.is_finished(), "4 MB are more than a pipe and the batches hold");
    let (shared, commands) = (slow.shared.clone(), slow.commands.clone());
    let stop = std::thread::spawn(move || {
        flood.join().unwrap();
        commands.send(Command::Stop).unwrap();
        shared.ring();
    });
    let (lines, reports) = slow.flows();
    stop.join().unwrap();
    let mut last = HashMap::new();
    for report in &reports {
        let LogReport::Held { instance, held, .. } = report else { panic!("{report:?}") };
        last.insert(instance.to_string(), *held);
    }
    assert!(last.contains_key("flood.1") && last.values().all(|held| !held), "{reports:?}");
    let of = |wanted: &str| -> Vec<&str> {
        let his = lines.iter().filter(|(name, _)| name == wanted);
        his.map(|(_, text)| text.as_str()).collect()
    };
    let calm: Vec<String> = (0..100).map(|number| format!("calm {number}")).collect();
    assert_eq!(of("calm.1"), calm);
    let numbers = of("flood.1").into_iter().map(|text| text.split(' ').next().unwrap().parse());
    assert!(numbers.eq((0..LINES).map(Ok)));
    // Each turn reads of every pipe: the neighbour does not come after the flood.
    let last_calm = lines.iter().rposition(|(name, _)| name == "calm.1").unwrap();
    assert!(last_calm < lines.len() / 2, "{last_calm} of {}", lines.len());
}

#[test]
fn with_overflow_drop_a_flood_costs_a_quiet_neighbour_no_line() {
    let slow = Slow::start(Overflow::Drop);
    let (mut loud, mut calm) = (slow.attach("flood.1"), slow.attach("calm.1"));
    let over = Arc::new(AtomicBool::new(false));
    let flood = std::thread::spawn({
        let over = over.clone();
        move || {
            let (block, mut lines) = ("x".repeat(99) + "\n", 0);
            while !over.load(Ordering::Relaxed) {
                loud.write_all(block.repeat(40).as_bytes()).unwrap(); // whole, and never waits for the disk
                lines += 40;
            }
            lines
        }
    });
    slow.wait_until("the flood to lose lines", |shared| shared.account().total().dropped() > 0);
    let mut bytes = 0;
    for number in 0..5000 {
        let line = format!("calm {number:04}\n");
        calm.write_all(line.as_bytes()).unwrap();
        bytes += line.len() as u64;
    }
    over.store(true, Ordering::Relaxed);
    let lines = flood.join().unwrap();
    slow.wait_until("all to be read while the disk takes nothing", |shared| {
        shared.bytes.load(Ordering::Relaxed) == bytes + lines * 100
    });
    assert!(slow.shared.holding.load(Ordering::Relaxed));
    let shared = slow.shared.clone();
    slow.send(Command::Stop);
    let (written, _) = slow.flows();
    let of = |wanted: &str| -> Vec<&str> {
        let his = written.iter().filter(|(name, _)| name == wanted);
        his.map(|(_, text)| text.as_str()).collect()
    };
    let wanted: Vec<String> = (0..5000).map(|number| format!("calm {number:04}")).collect();
    assert_eq!(of("calm.1"), wanted);
    let kept = of("flood.1").iter().filter(|text| !text.starts_with('…')).count() as u64;
    let (account, flood) = (shared.account(), lines - kept);
    assert_eq!(account.of("flood.1").unwrap().of(Why::Overflow), flood);
    assert!(account.of("calm.1").is_none());
    let size: usize = written.iter().map(|(name, text)| name.len() + text.len()).sum();
    assert!(size < ROOM + 2 * 1024 * 1024, "what waits is bounded: {size}");
}
