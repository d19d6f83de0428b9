//! The log thread: one epoll over all pipes and a bell for commands.
//!
//! Each turn reads a bounded amount of every pipe that has something (so no flood delays the others) and hands
//! one batch to the disk thread. When that one is behind, batches wait here up to a bound; past it no
//! pipe is read any more (`overflow: block`), or who has added more than there is room left is dropped and
//! counted (`drop`): a flood fills its share, and who writes little loses nothing. When nothing happens it sleeps
//! without a timeout.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use hilum_shared::config::spec::Overflow;
use hilum_shared::name::InstanceId;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;

use super::account::Numbers;
use super::disk::Work;
use super::handle::{Done, LogConfig, LogReport};
use super::post::{Command, Reports, Shared};
use super::record::{Batch, wall};
use super::sources::{Feed, Table};

/// The bell's token; pipes have their place plus one.
pub(super) const BELL: u64 = 0;
/// The size of a pipe as it is made (`man 7 pipe`).
pub(super) const PIPE: usize = 64 * 1024;
/// What a pipe is widened to under load. A user has 16384 pages in all, so only where it pays.
pub(super) const WIDE: usize = 256 * 1024;
/// So many reads in a row must have found the pipe full.
pub(super) const WIDEN_AFTER: u8 = 16;
/// A batch of this size goes to the disk at once; with no room there, reading stops. Small enough that the next
/// processor finds it in a cache, and that it stays below a MiB with one more read: its memory need not be taken anew.
pub(super) const FULL: usize = 512 * 1024;
/// Records that need no pipe are dropped and counted when a batch that waits has this size.
pub(super) const OVERFULL: usize = 8 * 1024 * 1024;
/// A batch that waits for a slow disk grows up to this where lines are dropped rather than held back: the room that who writes
/// little finds beside a flood.
pub(super) const ROOM: usize = 4 * 1024 * 1024;
/// Batches that may be with the disk thread.
pub(super) const IN_FLIGHT: usize = 2;
/// An unfinished line is recorded after this time without bytes (`docs/config.md`, `max_line`).
pub(super) const PARTIAL_AFTER: Duration = Duration::from_secs(1);
/// So long are pipes that others hold open read after the leader's end; `stop` answers then at the latest.
pub(super) const READ_OUT: Duration = Duration::from_secs(2);
/// When reading has stopped for so long, the instances that wait are reported.
pub(super) const HELD_AFTER: Duration = Duration::from_millis(500);
/// For how long a stop waits for a disk that does not answer.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(5);
/// A gap is written this long after its first line was dropped, for all until then: one a second while it goes on.
pub(super) const GAP_AFTER: Duration = Duration::from_secs(1);
/// Under a stream of small writes the next look is this much later, so that a read finds many lines.
pub(super) const GATHER: Duration = Duration::from_micros(300);
/// The disk thread is woken for a batch that pays, or this long after the last one.
pub(super) const POSTPONED: Duration = Duration::from_millis(2);
/// Turns that follow each other this fast are a stream.
pub(super) const QUICK: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// An unfinished line of this pipe.
    Partial(u32),
    /// What the joiner of this pipe holds.
    Joined(u32),
    /// The end of this run.
    Ending(u32),
    /// Gaps that are owed.
    Gaps,
    /// What subscribers did not get.
    Lost,
    /// Reports that found no room.
    Reports,
}

/// What a read found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Bytes(usize),
    Nothing,
    End,
}

/// What a pipe is read into. It begins where a page begins, as what is in the pipe does: the kernel's `rep movsb` copies at a quarter of
/// its speed when the target lies 16 bytes further on in its page than the source (measured: 1.8 instead of 7.4 GB/s), and 16 is
/// what `malloc` makes of every large piece of memory.
#[derive(Default)]
pub(super) struct ReadBuffer {
    memory: Vec<u8>,
    start: usize,
}

impl ReadBuffer {
    const PAGE: usize = 4096;

    /// Its first `count` bytes, [`WIDE`] at most.
    pub(super) fn first(&mut self, count: usize) -> &mut [u8] {
        if self.memory.is_empty() {
            self.memory = vec![0; WIDE + Self::PAGE];
            self.start = self.memory.as_ptr().align_offset(Self::PAGE).min(Self::PAGE);
        }
        &mut self.memory[self.start..self.start + count]
    }

    /// The same, once something has been read.
    pub(super) fn read(&self, count: usize) -> &[u8] {
        &self.memory[self.start..self.start + count]
    }
}

pub(super) struct Capture {
    pub(super) base: PathBuf,
    pub(super) overflow: Overflow,
    pub(super) epoll: Epoll,
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Receiver<Command>,
    pub(super) work: Sender<Work>,
    pub(super) spare: Receiver<Batch>,
    pub(super) in_flight: usize,
    pub(super) feed: Feed,
    pub(super) after: Vec<Done>,
    pub(super) crashes: Vec<String>,
    pub(super) table: Table,
    /// Pipes whose joiners hold something, and when that was looked at.
    pub(super) holders: VecDeque<(Instant, u32)>,
    pub(super) timers: BinaryHeap<Reverse<(Instant, Timer)>>,
    pub(super) report_timer: bool,
    pub(super) lost_timer: bool,
    pub(super) gap_timer: bool,
    /// How far each worker's structured records are.
    pub(super) numbers: HashMap<InstanceId, Numbers>,
    pub(super) buffer: ReadBuffer,
    pub(super) stopping: bool,
    /// Since when no pipe is read because the disk is behind.
    pub(super) holding: Option<Instant>,
    /// Bytes and pipes of this turn, and how many turns in a row were small and at once.
    pub(super) turn: (usize, usize),
    pub(super) small_turns: u32,
    pub(super) last_turn: Instant,
    /// When the disk thread got its last batch, and until when the one at hand may grow.
    pub(super) handed_over: Instant,
    pub(super) postponed: Option<Instant>,
    pub(super) bytes: u64,
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
            shared: shared.clone(),
            inbox,
            work,
            spare,
            in_flight: 0,
            feed: Feed::new(config.subscriber, reports, shared),
            after: Vec::new(),
            crashes: Vec::new(),
            table: Table::default(),
            holders: VecDeque::new(),
            timers: BinaryHeap::new(),
            report_timer: false,
            lost_timer: false,
            gap_timer: false,
            numbers: HashMap::new(),
            buffer: ReadBuffer::default(),
            stopping: false,
            holding: None,
            turn: (0, 0),
            small_turns: 0,
            last_turn: Instant::now(),
            handed_over: Instant::now(),
            postponed: None,
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
            if !self.postpones() {
                self.hand_over();
            }
            self.turn_over();
        }
        self.finish();
    }

    pub(super) fn tick(&mut self) {
        self.feed.now = Instant::now();
        self.feed.wall = wall();
    }

    /// The end of a turn: figures, reports, the subscriber's batch.
    pub(super) fn turn_over(&mut self) {
        if std::mem::take(&mut self.feed.published) && !self.lost_timer {
            self.lost_timer = true;
            self.timer(GAP_AFTER, Timer::Lost);
        }
        if !self.feed.debts.is_empty() && !std::mem::replace(&mut self.gap_timer, true) {
            self.timer(GAP_AFTER, Timer::Gaps);
        }
        let shared = &self.shared;
        shared.records.fetch_add(std::mem::take(&mut self.feed.records), Ordering::Relaxed);
        shared.bytes.fetch_add(std::mem::take(&mut self.bytes), Ordering::Relaxed);
        shared.sources.store(self.table.pipes.len() as u64, Ordering::Relaxed);
        if self.feed.reports.waiting() && !self.report_timer {
            self.report_timer = true;
            self.timer(Duration::from_millis(50), Timer::Reports);
        }
    }

    pub(super) fn timeout(&self) -> EpollTimeout {
        let next = self.timers.peek().map(|Reverse((at, _))| *at);
        // While pipes are held back we look again and again who waits by now.
        let held = self.holding.map(|_| self.feed.now + HELD_AFTER);
        let Some(at) = next.into_iter().chain(held).chain(self.postponed).min() else {
            return EpollTimeout::NONE;
        };
        let wait = at.saturating_duration_since(Instant::now());
        // Rounded up, so that the timer is due when we wake; at most a minute, which is no matter.
        let millis = (wait.as_micros().div_ceil(1000)).min(60_000) as u16;
        EpollTimeout::from(millis)
    }

    pub(super) fn timer(&mut self, after: Duration, timer: Timer) {
        self.timers.push(Reverse((self.feed.now + after, timer)));
    }

    /// Waits for the bell only: no pipe is looked at.
    pub(super) fn wait_for_bell(&self, timeout: EpollTimeout) {
        let mut fds = [PollFd::new(self.shared.bell().as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(i32::from(timeout)).unwrap_or(PollTimeout::NONE);
        let _ = nix::poll::poll(&mut fds, limit); // a wakeup for nothing does no harm
    }

    /// Lets small writes add up for a moment when they come in a stream; a command ends the moment.
    pub(super) fn gather(&mut self) {
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

    /// Lets the disk thread sleep on when it has just got a batch and nobody waits for this one.
    fn postpones(&mut self) -> bool {
        let until = self.handed_over + POSTPONED;
        let small = !self.feed.batch.is_empty() && self.feed.batch.size() < FULL;
        let postpones =
            small && self.after.is_empty() && self.holding.is_none() && self.feed.now < until;
        self.postponed = postpones.then_some(until);
        postpones
    }

    /// Gives the batch to the disk thread; keeps it when that one has enough.
    pub(super) fn hand_over(&mut self) {
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
        self.handed_over = self.feed.now;
        let (crashes, after) = (std::mem::take(&mut self.crashes), std::mem::take(&mut self.after));
        self.send(Work::Write(batch, crashes, after));
        self.release();
    }

    pub(super) fn empty_batch(&mut self) -> Option<Batch> {
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
    pub(super) fn release(&mut self) {
        if self.holding.take().is_none() {
            return;
        }
        self.shared.holding.store(false, Ordering::Relaxed);
        for run in self.table.runs.iter_mut() {
            run.ahead = 0;
            if std::mem::take(&mut run.held) {
                self.feed.reports.send(LogReport::Held {
                    instance: run.instance.clone(),
                    run: run.run,
                    held: false,
                });
            }
        }
    }

    /// Whether no pipe may be read.
    pub(super) fn is_blocked(&self) -> bool {
        self.holding.is_some() && self.overflow == Overflow::Block
    }

    /// Reports, once the disk has been behind for a while, whose output waits.
    pub(super) fn mark_held(&mut self) {
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
    pub(super) fn finish(&mut self) {
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
        self.unqueued();
        self.unheard();
        self.feed.settle(None);
        self.push_out(limit);
        self.turn_over();
        self.send(Work::Stop);
    }

    /// Hands over, and waits for the disk thread to have room.
    pub(super) fn push_out(&mut self, limit: Instant) {
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

#[cfg(test)]
mod tests;
