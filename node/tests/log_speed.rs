//! How fast the log is beside a bare pump that copies pipes into one file without looking at them, in the same run.
//! `cargo nextest run -p hilum-node --run-ignored only -E 'binary(log_speed)' --no-capture`
#![allow(clippy::unwrap_used, reason = "a test fails where it is disappointed, helpers included")]

#[path = "common/logs.rs"]
mod logs;

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hilum_node::log::query::{Entry, Filter, Reader, Start};
use hilum_node::log::{LogConfig, Source};
use hilum_shared::name::{InstanceId, Run};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

const WORKERS: usize = 4;
const LINES: usize = 250_000;

#[derive(Clone, Copy, Debug)]
enum Kind {
    OneWriteALine,
    Blocks,
}

fn writer(mut out: PipeWriter, kind: Kind) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut block = Vec::with_capacity(1 << 17);
        for number in 0..LINES {
            let start = block.len();
            writeln!(block, "{number:>99}").unwrap();
            match kind {
                Kind::OneWriteALine => {
                    out.write_all(&block[start..]).unwrap();
                    block.clear();
                }
                Kind::Blocks if block.len() >= 65_536 => {
                    out.write_all(&block[..65_536]).unwrap();
                    block.drain(..65_536);
                }
                Kind::Blocks => {}
            }
        }
        out.write_all(&block).unwrap();
    })
}

/// Nanoseconds on a processor of the threads with these names.
fn cpu(names: &[&str]) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| {
            let task = task.ok()?.path();
            let name = std::fs::read_to_string(task.join("comm")).ok()?;
            let times = std::fs::read_to_string(task.join("schedstat")).ok()?;
            let time = times.split(' ').next()?.parse::<u64>().ok()?;
            names.contains(&name.trim()).then_some(time)
        })
        .sum()
}

/// Copies all pipes into one file; returns its processor time.
fn pump(mut pipes: Vec<PipeReader>, file: &Path) -> u64 {
    let thread = std::thread::Builder::new().name("pump".into());
    let file = file.to_owned();
    let work = move || {
        let mut file = std::fs::File::create(file).unwrap();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        for (number, pipe) in pipes.iter().enumerate() {
            epoll.add(pipe.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, number as u64)).unwrap();
        }
        let mut open = pipes.len();
        let mut buffer = vec![0; 65_536];
        let mut events = [EpollEvent::empty(); 16];
        while open > 0 {
            let ready = epoll.wait(&mut events, EpollTimeout::NONE).unwrap();
            for event in &events[..ready] {
                let pipe = &mut pipes[event.data() as usize];
                match pipe.read(&mut buffer).unwrap() {
                    0 => {
                        epoll.delete(pipe.as_fd()).unwrap();
                        open -= 1;
                    }
                    count => file.write_all(&buffer[..count]).unwrap(),
                }
            }
        }
        cpu(&["pump"])
    };
    thread.spawn(work).unwrap().join().unwrap()
}

fn bare(dir: &Path, kind: Kind) -> (Duration, u64) {
    let begin = Instant::now();
    let (pipes, writers): (Vec<_>, Vec<_>) = (0..WORKERS)
        .map(|_| {
            let (end, out) = std::io::pipe().unwrap();
            (end, writer(out, kind))
        })
        .unzip();
    let cpu = pump(pipes, &dir.join("bare"));
    for writer in writers {
        writer.join().unwrap();
    }
    (begin.elapsed(), cpu)
}

fn ours(dir: &Path, kind: Kind) -> (Duration, u64) {
    let log = hilum_node::log::start(LogConfig {
        dir: dir.to_owned(),
        base: dir.to_owned(),
        spec: logs::spec(4 << 30, 64 << 20),
        subscriber: None,
        untold: Vec::new(),
    })
    .unwrap();
    let policy = Arc::new(logs::policy());
    let before = cpu(&["log", "log-disk"]);
    let begin = Instant::now();
    let mut writers = Vec::new();
    let (tell, told) = mpsc::channel();
    for worker in 1..=WORKERS {
        let (end, out) = std::io::pipe().unwrap();
        let (error, _) = std::io::pipe().unwrap();
        let instance = InstanceId::parse(&format!("w.{worker}")).unwrap();
        log.handle.attach(
            Source { instance, run: Run(1), pid: 1, policy: policy.clone(), ready_pattern: None },
            OwnedFd::from(end),
            Some(OwnedFd::from(error)),
        );
        writers.push(writer(out, kind));
    }
    for (number, writer) in writers.into_iter().enumerate() {
        writer.join().unwrap();
        let tell = tell.clone();
        let instance = InstanceId::parse(&format!("w.{}", number + 1)).unwrap();
        log.handle.ended(instance, Run(1), move || tell.send(()).unwrap());
    }
    for _ in 0..WORKERS {
        told.recv().unwrap();
    }
    let took = begin.elapsed();
    let cpu = cpu(&["log", "log-disk"]) - before;
    log.handle.stop();
    log.thread.join().unwrap();
    (took, cpu)
}

#[test]
#[ignore = "a measurement: minutes on a slow disk"]
fn beside_a_bare_pump() {
    for kind in [Kind::OneWriteALine, Kind::Blocks] {
        for _ in 0..3 {
            let dir = tempfile::tempdir().unwrap();
            let lines = (WORKERS * LINES) as f64;
            let (bare, bare_cpu) = bare(dir.path(), kind);
            let store = dir.path().join("logs");
            let (ours, cpu) = ours(&store, kind);
            let speed = |took: Duration| lines / took.as_secs_f64() / 1e6;
            println!(
                "{kind:?}: bare {:.2} M lines/s, ours {:.2}, ratio {:.2}; CPU a line {:.3} us, bare {:.3}",
                speed(bare),
                speed(ours),
                speed(ours) / speed(bare),
                cpu as f64 / 1e3 / lines,
                bare_cpu as f64 / 1e3 / lines,
            );
            let begin = Instant::now();
            let mut reader = Reader::open(&store, Filter::default(), Start::All).unwrap();
            let mut entry = Entry::default();
            let mut count = 0;
            while reader.read(&mut entry).unwrap() {
                count += 1;
            }
            assert_eq!(count, WORKERS * LINES);
            let read = begin.elapsed();
            let begin = Instant::now();
            let filter = Filter { instance: Some("w.3".into()), ..Filter::default() };
            let tail = Reader::open(&store, filter, Start::Tail(100)).unwrap().count();
            println!(
                "  reading all: {:.2} M lines/s; the last {tail} of one instance: {:?}",
                speed(read),
                begin.elapsed()
            );
        }
    }
}
