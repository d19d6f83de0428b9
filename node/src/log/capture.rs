//! The log thread: one epoll over all pipes and a bell for commands.
//!
//! Each turn reads a bounded amount of every pipe that has something (so no flood delays the others) and hands
//! one batch to the disk thread. When that one is behind, batches wait here up to a bound; past it no
//! pipe is read any more (`overflow: block`) or what is read is counted and dropped (`drop`). When nothing
//! happens it sleeps without a timeout.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use hilum_shared::config::spec::Overflow;
use hilum_shared::name::{InstanceId, Run};
use hilum_shared::protocol::LogRecord;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use serde_json::{Map, Value, json};

use super::disk::Work;
use super::handle::{Command, Done, LogConfig, LogReport, NodeRecord, Reports, Shared, Source};
use super::level;
use super::record::{Batch, NODE_NAME, Stream, Who, wall};
use super::sources::{Ending, Feed, NONE, Pipe, RunState, Table};

/// The bell's token; pipes have their place plus one.
const BELL: u64 = 0;
/// The size of a pipe as it is made (`man 7 pipe`).
const PIPE: usize = 64 * 1024;
/// What a pipe is widened to under load. A user has 16384 pages in all, so only where it pays.
const WIDE: usize = 256 * 1024;
/// So many reads in a row must have found the pipe full.
const WIDEN_AFTER: u8 = 16;
/// A batch of this size goes to the disk at once; with no room there, reading stops.
const FULL: usize = 1024 * 1024;
/// Records that need no pipe are dropped and counted when a batch that waits has this size.
const OVERFULL: usize = 8 * FULL;
/// Batches that may be with the disk thread.
const IN_FLIGHT: usize = 2;
/// An unfinished line is recorded after this time without bytes (`docs/config.md`, `max_line`).
const PARTIAL_AFTER: Duration = Duration::from_secs(1);
/// So long are pipes that others hold open read after the leader's end (`docs/cli.md`, `stop`).
const READ_OUT: Duration = Duration::from_secs(2);
/// When reading has stopped for so long, the instances that wait are reported.
const HELD_AFTER: Duration = Duration::from_millis(500);
/// For how long a stop waits for a disk that does not answer.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// A drop's gap is written at the latest after this.
const GAP_AFTER: Duration = Duration::from_secs(1);
/// Under a stream of small writes the next look is this much later, so that a read finds many lines.
const GATHER: Duration = Duration::from_micros(300);
/// Turns that follow each other this fast are a stream.
const QUICK: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// An unfinished line of this pipe.
    Partial(u32),
    /// The end of this run.
    Ending(u32),
    /// A gap that this run is owed.
    Gap(u32),
    /// Reports that found no room.
    Reports,
}

/// What a read found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Bytes(usize),
    Nothing,
    End,
}

pub(super) struct Capture {
    base: PathBuf,
    overflow: Overflow,
    epoll: Epoll,
    shared: Arc<Shared>,
    inbox: Receiver<Command>,
    work: Sender<Work>,
    spare: Receiver<Batch>,
    in_flight: usize,
    feed: Feed,
    after: Vec<Done>,
    crashes: Vec<Map<String, Value>>,
    table: Table,
    timers: BinaryHeap<Reverse<(Instant, Timer)>>,
    report_timer: bool,
    /// The next sequence number of each worker's structured records.
    next_record: HashMap<InstanceId, (Run, u64)>,
    buffer: Vec<u8>,
    stopping: bool,
    /// Since when no pipe is read because the disk is behind.
    holding: Option<Instant>,
    /// Bytes and pipes of this turn, and how many turns in a row were small and at once.
    turn: (usize, usize),
    small_turns: u32,
    last_turn: Instant,
    bytes: u64,
}

impl Capture {
    pub(super) fn new(
        config: LogConfig,
        shared: Arc<Shared>,
        reports: Reports,
        inbox: Receiver<Command>,
        work: Sender<Work>,
        spare: Receiver<Batch>,
    ) -> std::io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(shared.bell(), EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        Ok(Self {
            base: config.base,
            overflow: config.spec.overflow,
            epoll,
            shared,
            inbox,
            work,
            spare,
            in_flight: 0,
            feed: Feed::new(config.subscriber, reports),
            after: Vec::new(),
            crashes: Vec::new(),
            table: Table::default(),
            timers: BinaryHeap::new(),
            report_timer: false,
            next_record: HashMap::new(),
            buffer: Vec::new(),
            stopping: false,
            holding: None,
            turn: (0, 0),
            small_turns: 0,
            last_turn: Instant::now(),
            bytes: 0,
        })
    }

    pub(super) fn run(mut self) {
        let mut events = vec![EpollEvent::empty(); 512];
        while !self.stopping {
            let timeout = self.timeout();
            if self.is_blocked() {
                self.wait_for_bell(timeout);
                self.tick();
                self.commands();
                self.mark_held();
            } else {
                self.gather();
                let ready = match self.epoll.wait(&mut events, timeout) {
                    Ok(ready) => ready,
                    Err(Errno::EINTR) => 0,
                    // A broken epoll cannot be mended; the commands and the disk still work.
                    Err(_) => {
                        self.wait_for_bell(timeout);
                        0
                    }
                };
                self.tick();
                self.turn = (0, 0);
                for event in &events[..ready] {
                    match event.data() {
                        BELL => self.commands(),
                        token => {
                            self.read((token - 1) as u32);
                        }
                    }
                }
            }
            self.expire();
            self.hand_over();
            self.turn_over();
        }
        self.finish();
    }

    fn tick(&mut self) {
        self.feed.now = Instant::now();
        self.feed.wall = wall();
    }

    /// The end of a turn: figures, reports, the subscriber's batch.
    fn turn_over(&mut self) {
        if let Some(subscriber) = &mut self.feed.subscriber {
            subscriber.turn_over();
        }
        let shared = &self.shared;
        shared.records.fetch_add(std::mem::take(&mut self.feed.records), Ordering::Relaxed);
        shared.dropped.fetch_add(std::mem::take(&mut self.feed.dropped), Ordering::Relaxed);
        shared.bytes.fetch_add(std::mem::take(&mut self.bytes), Ordering::Relaxed);
        shared.sources.store(self.table.pipes.len() as u64, Ordering::Relaxed);
        if self.feed.reports.waiting() && !self.report_timer {
            self.report_timer = true;
            self.timer(Duration::from_millis(50), Timer::Reports);
        }
    }

    fn timeout(&self) -> EpollTimeout {
        let next = self.timers.peek().map(|Reverse((at, _))| *at);
        let held = self.holding.map(|since| since + HELD_AFTER).filter(|at| *at > self.feed.now);
        let Some(at) = next.into_iter().chain(held).min() else {
            return EpollTimeout::NONE;
        };
        let wait = at.saturating_duration_since(Instant::now());
        // Rounded up, so that the timer is due when we wake; at most a minute, which is no matter.
        let millis = (wait.as_micros().div_ceil(1000)).min(60_000) as u16;
        EpollTimeout::from(millis)
    }

    fn timer(&mut self, after: Duration, timer: Timer) {
        self.timers.push(Reverse((self.feed.now + after, timer)));
    }

    /// Waits for the bell only: no pipe is looked at.
    fn wait_for_bell(&self, timeout: EpollTimeout) {
        let mut fds = [PollFd::new(self.shared.bell().as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(i32::from(timeout)).unwrap_or(PollTimeout::NONE);
        let _ = nix::poll::poll(&mut fds, limit); // a wakeup for nothing does no harm
    }

    /// Lets small writes add up for a moment when they come in a stream; a command ends the moment.
    fn gather(&mut self) {
        let (bytes, pipes) = self.turn;
        let now = Instant::now();
        let quick = now.duration_since(std::mem::replace(&mut self.last_turn, now)) < QUICK;
        let small = quick && pipes > 0 && bytes / pipes < PIPE / 4;
        self.small_turns = if small { self.small_turns + 1 } else { 0 };
        if self.small_turns < 4 {
            return;
        }
        let mut fds = [PollFd::new(self.shared.bell().as_fd(), PollFlags::POLLIN)];
        let _ = ppoll(&mut fds, Some(TimeSpec::from(GATHER)), None); // EINTR: gathered less
    }

    // --- commands

    fn commands(&mut self) {
        self.shared.heard();
        loop {
            match self.inbox.try_recv() {
                Ok(command) => self.command(command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.stopping = true;
                    break;
                }
            }
        }
        if self.feed.batch.size() <= OVERFULL {
            let lost = self.shared.unqueued.swap(0, Ordering::Relaxed);
            if lost > 0 {
                self.node_gap(lost, "the log was behind");
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Attach(source, stdout, stderr) => self.attach(*source, stdout, stderr),
            Command::Policy(service, policy) => {
                let now = self.feed.now;
                for run in self.table.runs.iter_mut() {
                    if run.instance.service == service {
                        run.reconfigure(&policy, &self.base, now);
                    }
                }
            }
            Command::Structured(instance, run, pid, records, size) => {
                self.shared.taken(size);
                self.structured(&instance, run, pid, records);
            }
            Command::Node(record, size) => {
                self.shared.taken(size);
                self.node(*record);
            }
            Command::Ended(instance, run, done) => self.ended(&instance, run, done),
            Command::Close(instance, run) => {
                if let Some(place) = self.table.find(&instance, run) {
                    self.read_out(place);
                    self.complete(place);
                    self.drop_pipes(place);
                }
            }
            Command::Crash(instance, run, facts) => {
                let place = self.table.find(&instance, run);
                match place.and_then(|place| self.table.runs.get(place)) {
                    Some(state) if !state.late => state.crash = Some(facts),
                    _ => self.crashes.push(*facts),
                }
            }
            Command::Flush(done) => {
                for pipe in self.table.pipes.places() {
                    self.drain(pipe, 4);
                }
                self.after.push(done);
            }
            Command::Configure(spec) => {
                self.overflow = spec.overflow;
                self.send(Work::Configure(spec));
            }
            Command::Reopen => self.send(Work::Reopen),
            Command::Stop => self.stopping = true,
        }
    }

    fn send(&self, work: Work) {
        let _ = self.work.send(work); // the disk thread ends after us unless it panicked
    }

    fn attach(&mut self, source: Source, stdout: OwnedFd, stderr: Option<OwnedFd>) {
        let key = (source.instance.clone(), source.run);
        if let Some(old) = self.table.places.get(&key).copied() {
            // The same run twice: the first one's pipes are read out and closed.
            self.read_out(old);
            self.complete(old);
            self.drop_pipes(old);
        }
        let state = RunState::new(source, &self.base, self.feed.now);
        let instance = state.instance.clone();
        let run = self.table.runs.insert(state);
        self.table.places.insert(key, run);
        let pipes = [Some((stdout, Stream::Out)), stderr.map(|fd| (fd, Stream::Err))];
        for (number, (fd, stream)) in pipes.into_iter().flatten().enumerate() {
            if let Err(error) = self.attach_pipe(run, number, fd, stream) {
                self.node(NodeRecord {
                    instance: Some(instance.clone()),
                    level: Some(hilum_shared::protocol::Level::Error),
                    text: format!("its {} cannot be captured: {error}", stream.as_str()),
                    ..NodeRecord::default()
                });
            }
        }
    }

    fn attach_pipe(
        &mut self,
        run: u32,
        number: usize,
        fd: OwnedFd,
        stream: Stream,
    ) -> nix::Result<()> {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let place = self.table.pipes.insert(Pipe {
            fd,
            run,
            stream,
            timer: false,
            widened: false,
            full: 0,
            last: self.feed.now,
            tail: Vec::new(),
        });
        let Some(pipe) = self.table.pipes.get(place) else {
            return Ok(());
        };
        let event = EpollEvent::new(EpollFlags::EPOLLIN, u64::from(place) + 1);
        if let Err(error) = self.epoll.add(&pipe.fd, event) {
            self.table.pipes.remove(place);
            return Err(error);
        }
        if let Some(state) = self.table.runs.get(run) {
            state.pipes[number] = place;
        }
        Ok(())
    }

    fn structured(&mut self, instance: &InstanceId, run: Run, pid: u32, records: Vec<LogRecord>) {
        if self.is_overfull(records.len()) {
            return;
        }
        let who = self.who(instance, run);
        for record in records {
            if let Some(seq) = record.seq {
                let missing = self.missing(instance, run, seq);
                if missing > 0 {
                    let stamp = self.feed.stamps.write(self.feed.wall);
                    self.feed.batch.begin(&who, run.0, pid, Stream::Node, self.feed.wall, stamp);
                    self.feed.gap_here(
                        &who.name,
                        missing,
                        "records that the worker did not deliver",
                    );
                    self.feed.dropped += missing;
                }
            }
            let level = level::of_record(&record.level);
            // The worker's own time, where it is credible: it says when, the sequence number says in which order.
            let said = (record.at.max(0.0) * 1e6) as u64;
            let recent = self.feed.wall.saturating_sub(60_000_000)..=self.feed.wall;
            let at = if recent.contains(&said) { said } else { self.feed.wall };
            let mut fields = Map::new();
            if !record.logger.is_empty() {
                fields.insert("logger".into(), Value::String(record.logger));
            }
            if let Some(trace) = record.trace_id {
                fields.insert("trace_id".into(), Value::String(trace));
            }
            for (key, value) in record.fields {
                fields.entry(key).or_insert(value);
            }
            let stamp = self.feed.stamps.write(at);
            self.feed.batch.begin(&who, run.0, pid, Stream::Log, at, stamp);
            self.put(&who, Stream::Log, Some(level), record.message.as_bytes(), &fields);
        }
    }

    /// How many records are missing before this one.
    fn missing(&mut self, instance: &InstanceId, run: Run, seq: u64) -> u64 {
        let next = match self.next_record.get_mut(instance) {
            Some(next) => next,
            None => self.next_record.entry(instance.clone()).or_insert((run, 1)),
        };
        if next.0 != run {
            if run < next.0 {
                return 0; // a straggler of an earlier life
            }
            *next = (run, 1);
        }
        let missing = seq.saturating_sub(next.1);
        next.1 = next.1.max(seq.saturating_add(1));
        missing
    }

    fn node(&mut self, record: NodeRecord) {
        if self.is_overfull(1) {
            return;
        }
        let who = match (&record.instance, &record.service) {
            (Some(instance), _) => self.who(instance, record.run.unwrap_or_default()),
            (None, Some(service)) => named(service.as_str()),
            (None, None) => named(NODE_NAME),
        };
        let (run, pid) = (record.run.unwrap_or_default().0, record.pid.unwrap_or(0));
        let stamp = self.feed.stamps.write(self.feed.wall);
        self.feed.batch.begin(&who, run, pid, Stream::Node, self.feed.wall, stamp);
        self.put(&who, Stream::Node, record.level, record.text.as_bytes(), &record.fields);
    }

    fn put(
        &mut self,
        who: &Arc<Who>,
        stream: Stream,
        level: Option<hilum_shared::protocol::Level>,
        text: &[u8],
        fields: &Map<String, Value>,
    ) {
        /// Fields of more than this many bytes are not kept.
        const LONGEST: usize = 1024 * 1024;
        let mut json = if fields.is_empty() {
            Vec::new()
        } else {
            serde_json::to_vec(fields).unwrap_or_default()
        };
        if json.len() > LONGEST {
            json = json!({"too_long": json.len()}).to_string().into_bytes();
        }
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        self.feed.batch.record(text, level, &json, 0);
        self.feed.records += 1;
        self.feed.publish(&who.name, stream, level, text);
    }

    /// Who that is: as its run knows it, with its `log.file`.
    fn who(&mut self, instance: &InstanceId, run: Run) -> Arc<Who> {
        let place = self.table.find(instance, run);
        match place.and_then(|place| self.table.runs.get(place)) {
            Some(state) => state.who.clone(),
            None => named(&instance.to_string()),
        }
    }

    /// Whether so much waits for the disk that `count` more records are only counted.
    fn is_overfull(&self, count: usize) -> bool {
        let overfull = self.feed.batch.size() > OVERFULL;
        if overfull {
            self.shared.unqueued.fetch_add(count as u64, Ordering::Relaxed);
        }
        overfull
    }

    fn node_gap(&mut self, count: u64, why: &str) {
        let who = named(NODE_NAME);
        let stamp = self.feed.stamps.write(self.feed.wall);
        self.feed.batch.begin(&who, 0, 0, Stream::Node, self.feed.wall, stamp);
        self.feed.gap_here(&who.name, count, why);
        self.feed.dropped += count;
    }

    // --- pipes

    /// One read of a pipe.
    fn read(&mut self, place: u32) -> Found {
        let Some(pipe) = self.table.pipes.get(place) else {
            return Found::Nothing;
        };
        if self.buffer.is_empty() {
            self.buffer = vec![0; WIDE];
        }
        let wanted = if pipe.widened { WIDE } else { PIPE };
        let found = loop {
            match nix::unistd::read(&pipe.fd, &mut self.buffer[..wanted]) {
                Ok(0) => break Found::End,
                Ok(count) => break Found::Bytes(count),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break Found::Nothing,
                // A pseudo-terminal whose other end is closed says EIO.
                Err(_) => break Found::End,
            }
        };
        match found {
            Found::Bytes(count) => self.take(place, count),
            Found::End => self.end_of_pipe(place),
            Found::Nothing => {}
        }
        if self.feed.batch.size() >= FULL {
            self.hand_over();
        }
        found
    }

    /// Takes what a read brought.
    fn take(&mut self, place: u32, count: usize) {
        self.bytes += count as u64;
        self.turn.0 += count;
        self.turn.1 += 1;
        let Some(pipe) = self.table.pipes.get(place) else {
            return;
        };
        pipe.last = self.feed.now;
        pipe.full = if count >= PIPE { pipe.full.saturating_add(1) } else { 0 };
        if pipe.full >= WIDEN_AFTER && !pipe.widened {
            // EPERM: the user's pipe pages are used up; then it stays as it is.
            pipe.widened = fcntl(&pipe.fd, FcntlArg::F_SETPIPE_SZ(WIDE as i32)).is_ok();
            pipe.full = 0;
        }
        let Some(run) = self.table.runs.get(pipe.run) else {
            return;
        };
        let dropping = self.holding.is_some() && self.overflow == Overflow::Drop;
        if dropping {
            // The unfinished line and what follows it are lost together.
            let chunk = &self.buffer[..count];
            let lines = memchr::memchr_iter(b'\n', chunk).count() as u64;
            run.overflowed += lines;
            self.feed.dropped += lines;
            if let Some(end) = memchr::memrchr(b'\n', chunk) {
                pipe.tail = chunk[end + 1..].to_vec();
            } else if pipe.tail.len() + chunk.len() <= run.policy.max_line.0 as usize {
                pipe.tail.extend_from_slice(chunk);
            }
        } else {
            self.feed.bytes(run, pipe.stream, &mut pipe.tail, &self.buffer[..count]);
        }
        let partial = !pipe.tail.is_empty() && !pipe.timer;
        pipe.timer |= partial;
        let owed = pipe.run;
        let gap = Feed::owes_gap(run);
        if partial {
            self.timer(PARTIAL_AFTER, Timer::Partial(place));
        }
        if gap && !self.timers.iter().any(|Reverse((_, timer))| *timer == Timer::Gap(owed)) {
            self.timer(GAP_AFTER, Timer::Gap(owed));
        }
    }

    /// Reads a pipe until it is empty, `most` times at most.
    fn drain(&mut self, place: u32, most: usize) {
        for _ in 0..most {
            match self.read(place) {
                Found::Bytes(_) => {}
                Found::Nothing | Found::End => return,
            }
        }
    }

    fn end_of_pipe(&mut self, place: u32) {
        let Some(mut pipe) = self.table.pipes.remove(place) else {
            return;
        };
        let _ = self.epoll.delete(&pipe.fd); // closing it would do the same
        let Some(run) = self.table.runs.get(pipe.run) else {
            return;
        };
        self.feed.close(run, pipe.stream, &mut pipe.tail);
        for slot in &mut run.pipes {
            if *slot == place {
                *slot = NONE;
            }
        }
        if !run.has_pipes() && (run.ending.is_some() || run.late) {
            self.complete(pipe.run);
        }
    }

    // --- the end of a run

    fn ended(&mut self, instance: &InstanceId, run: Run, done: Done) {
        let Some(place) = self.table.find(instance, run) else {
            self.after.push(done);
            return;
        };
        let deadline = self.feed.now + READ_OUT;
        let Some(state) = self.table.runs.get(place) else {
            return;
        };
        match &mut state.ending {
            Some(ending) => ending.done.push(done),
            None => {
                state.ending = Some(Box::new(Ending { deadline, done: vec![done] }));
            }
        }
        self.read_out(place);
        match self.table.runs.get(place) {
            Some(state) if !state.has_pipes() => self.complete(place),
            Some(_) => self.timer(READ_OUT, Timer::Ending(place)),
            None => {}
        }
    }

    /// Reads what is in a run's pipes now.
    fn read_out(&mut self, place: u32) {
        let pipes = self.table.runs.get(place).map_or([NONE; 2], |run| run.pipes);
        for pipe in pipes {
            self.drain(pipe, 32);
        }
    }

    /// All that a run wrote is in the batch: says so when it is on the disk. What others still hold open
    /// is read on, marked as late.
    fn complete(&mut self, place: u32) {
        let Some(run) = self.table.runs.get(place) else {
            return;
        };
        for pipe in run.pipes {
            if let Some(pipe) = self.table.pipes.get(pipe) {
                self.feed.close(run, pipe.stream, &mut pipe.tail);
            }
        }
        self.feed.gaps(run);
        run.late = true;
        if let Some(ending) = run.ending.take() {
            self.after.extend(ending.done);
        }
        self.crashes.extend(run.crash.take().map(|facts| *facts));
        if !run.has_pipes() {
            let key = (run.instance.clone(), run.run);
            if self.table.places.get(&key) == Some(&place) {
                self.table.places.remove(&key);
            }
            self.table.runs.remove(place);
        }
    }

    /// Closes a run's pipes.
    fn drop_pipes(&mut self, place: u32) {
        let pipes = self.table.runs.get(place).map_or([NONE; 2], |run| run.pipes);
        for pipe in pipes {
            self.end_of_pipe(pipe);
        }
    }

    fn expire(&mut self) {
        while let Some(Reverse((at, timer))) = self.timers.peek().copied() {
            if at > self.feed.now {
                return;
            }
            self.timers.pop();
            match timer {
                Timer::Reports => {
                    self.report_timer = false;
                    self.feed.reports.flush();
                }
                Timer::Gap(place) => {
                    if let Some(run) = self.table.runs.get(place) {
                        self.feed.gaps(run);
                    }
                }
                Timer::Ending(place) => {
                    let due = self
                        .table
                        .runs
                        .get(place)
                        .and_then(|run| run.ending.as_ref())
                        .is_some_and(|ending| ending.deadline <= self.feed.now);
                    if due {
                        self.read_out(place);
                        self.complete(place);
                    }
                }
                Timer::Partial(place) => self.partial(place),
            }
        }
    }

    /// Records an unfinished line, if its pipe is empty and has been for a second.
    fn partial(&mut self, place: u32) {
        let now = self.feed.now;
        let Some(pipe) = self.table.pipes.get(place) else {
            return;
        };
        pipe.timer = false;
        if pipe.tail.is_empty() {
            return;
        }
        let due = pipe.last + PARTIAL_AFTER;
        if due > now || self.holding.is_some() {
            pipe.timer = true;
            let wait = due.saturating_duration_since(now).max(Duration::from_millis(100));
            self.timer(wait, Timer::Partial(place));
            return;
        }
        if self.read(place) == Found::Nothing
            && let Some(pipe) = self.table.pipes.get(place)
            && let Some(run) = self.table.runs.get(pipe.run)
        {
            self.feed.close(run, pipe.stream, &mut pipe.tail);
        }
    }

    // --- the disk

    /// Gives the batch to the disk thread; keeps it when that one has enough.
    fn hand_over(&mut self) {
        if self.feed.batch.is_empty() && self.after.is_empty() && self.crashes.is_empty() {
            self.release();
            return;
        }
        let Some(empty) = self.empty_batch() else {
            if self.feed.batch.size() >= FULL && self.holding.is_none() {
                self.holding = Some(self.feed.now);
                self.shared.holding.store(true, Ordering::Relaxed);
            }
            return;
        };
        let batch = std::mem::replace(&mut self.feed.batch, empty);
        self.in_flight += 1;
        let after = std::mem::take(&mut self.after);
        self.send(Work::Write(batch, after));
        for facts in std::mem::take(&mut self.crashes) {
            self.send(Work::Crash(Box::new(facts)));
        }
        self.release();
    }

    fn empty_batch(&mut self) -> Option<Batch> {
        if let Ok(batch) = self.spare.try_recv() {
            self.in_flight = self.in_flight.saturating_sub(1);
            return Some(batch);
        }
        if self.in_flight < IN_FLIGHT {
            return Some(Batch::default());
        }
        self.shared.waiting.store(true, Ordering::SeqCst);
        let batch = self.spare.try_recv().ok()?;
        self.in_flight = self.in_flight.saturating_sub(1);
        Some(batch)
    }

    /// Pipes are read again.
    fn release(&mut self) {
        if self.holding.take().is_none() {
            return;
        }
        self.shared.holding.store(false, Ordering::Relaxed);
        for run in self.table.runs.iter_mut() {
            if std::mem::take(&mut run.held) {
                self.feed.reports.send(LogReport::Held {
                    instance: run.instance.clone(),
                    run: run.run,
                    held: false,
                });
            }
            if Feed::owes_gap(run) {
                self.feed.gaps(run);
            }
        }
    }

    /// Whether no pipe may be read.
    fn is_blocked(&self) -> bool {
        self.holding.is_some() && self.overflow == Overflow::Block
    }

    /// Reports, once the disk has been behind for a while, whose output waits.
    fn mark_held(&mut self) {
        if self.holding.is_none_or(|since| self.feed.now.duration_since(since) < HELD_AFTER) {
            return;
        }
        let mut events = [EpollEvent::empty(); 512];
        let ready = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        for event in events[..ready].iter().filter(|event| event.data() != BELL) {
            if let Some(pipe) = self.table.pipes.get((event.data() - 1) as u32)
                && let Some(run) = self.table.runs.get(pipe.run)
                && !run.held
            {
                run.held = true;
                self.feed.reports.send(LogReport::Held {
                    instance: run.instance.clone(),
                    run: run.run,
                    held: true,
                });
            }
        }
    }

    /// Reads what is in the pipes, writes it, ends the disk thread.
    fn finish(&mut self) {
        self.tick();
        let limit = self.feed.now + STOP_LIMIT;
        for place in self.table.pipes.places() {
            self.drain(place, 64);
            if self.feed.batch.size() >= FULL {
                self.push_out(limit);
            }
        }
        for place in self.table.runs.places() {
            self.complete(place);
        }
        self.push_out(limit);
        self.turn_over();
        self.send(Work::Stop);
    }

    /// Hands over, and waits for the disk thread to have room.
    fn push_out(&mut self, limit: Instant) {
        loop {
            self.hand_over();
            let rest = limit.saturating_duration_since(Instant::now());
            if (self.feed.batch.is_empty() && self.after.is_empty()) || rest.is_zero() {
                return;
            }
            self.wait_for_bell(EpollTimeout::from(100_u8));
            self.shared.heard();
        }
    }
}

fn named(name: &str) -> Arc<Who> {
    Arc::new(Who { name: name.into(), file: None })
}
