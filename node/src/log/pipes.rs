//! The log thread's pipes: reading them, and the ends of lines, pipes and runs.

use std::cmp::Reverse;
use std::time::Duration;

use hilum_shared::config::spec::Overflow;
use hilum_shared::name::{InstanceId, Run};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::account::Why;
use super::capture::{
    Capture, FULL, Found, PARTIAL_AFTER, PIPE, READ_OUT, ROOM, Timer, WIDE, WIDEN_AFTER,
};
use super::handle::Done;
use super::join::{HALF_TOLD, QUIET, SETTLED};
use super::sources::{Ending, NONE, Pipe};

impl Pipe {
    /// Drops what was read, and says how many lines are lost by it. The beginning of the line after them is kept, unless it
    /// is longer than `max`: then that one is lost, too.
    fn drop_lines(&mut self, chunk: &[u8], max: usize) -> u64 {
        match memchr::memrchr(b'\n', chunk) {
            Some(end) => {
                let lines = memchr::memchr_iter(b'\n', chunk).count() as u64;
                self.tail = chunk[end + 1..].to_vec();
                lines - u64::from(std::mem::take(&mut self.beheaded)) // it has been counted
            }
            None if self.beheaded => 0,
            None if self.tail.len() + chunk.len() <= max => {
                self.tail.extend_from_slice(chunk);
                0
            }
            None => {
                self.tail = Vec::new();
                self.beheaded = true;
                1
            }
        }
    }

    /// The bytes after the rest of a line whose beginning was dropped: no line is ever torn.
    fn without_beheaded<'a>(&mut self, chunk: &'a [u8]) -> &'a [u8] {
        if !self.beheaded {
            return chunk;
        }
        let end = memchr::memchr(b'\n', chunk);
        self.beheaded = end.is_none();
        end.map_or(&[], |end| &chunk[end + 1..])
    }
}

impl Capture {
    /// One read of a pipe.
    pub(super) fn read(&mut self, place: u32) -> Found {
        if !self.holders.is_empty() {
            self.before_others(place);
        }
        let Some(pipe) = self.table.pipes.get(place) else {
            return Found::Nothing;
        };
        let wanted = if pipe.widened { WIDE } else { PIPE };
        let found = loop {
            match nix::unistd::read(&pipe.fd, self.buffer.first(wanted)) {
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

    /// Lets go of what was held for a moment by other pipes than this one, which is about to be read: what came first stands first.
    pub(super) fn before_others(&mut self, place: u32) {
        for _ in 0..self.holders.len() {
            let now = self.feed.now;
            let Some((at, other)) = self.holders.front().copied() else {
                return;
            };
            if at + SETTLED > now {
                return;
            }
            self.holders.pop_front();
            let Some(pipe) = self.table.pipes.get(other) else {
                continue;
            };
            if !pipe.join.is_holding() {
                pipe.join.queued = false;
                continue;
            }
            let wait = if pipe.join.is_settled() { SETTLED } else { HALF_TOLD };
            if other == place || pipe.last + wait > now || self.holding.is_some() {
                self.holders.push_back((now, other));
                continue;
            }
            pipe.join.queued = false;
            if self.read(other) == Found::Nothing {
                self.let_go(other);
            }
        }
    }

    /// Takes what a read brought.
    pub(super) fn take(&mut self, place: u32, count: usize) {
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
        // Nobody may have more of the room than is left of it: whatever floods there are, the rest is for who writes little.
        let behind = self.holding.is_some() && self.overflow == Overflow::Drop;
        let before = self.feed.batch.size();
        let chunk = self.buffer.read(count);
        if behind && run.ahead >= ROOM.saturating_sub(before) {
            self.feed.release(run, pipe.stream, &mut pipe.join);
            let lines = pipe.drop_lines(chunk, run.policy.max_line.0 as usize);
            self.feed.owe(run, Why::Overflow, lines);
        } else {
            let chunk = pipe.without_beheaded(chunk);
            if !chunk.is_empty() {
                self.feed.bytes(run, pipe.stream, &mut pipe.tail, &mut pipe.join, chunk);
            }
            if behind {
                run.ahead += self.feed.batch.size() - before;
            }
        }
        let holds = pipe.join.is_holding() && !std::mem::replace(&mut pipe.join.timer, true);
        if pipe.join.is_holding() && !std::mem::replace(&mut pipe.join.queued, true) {
            self.holders.push_back((self.feed.now, place));
        }
        let partial = !pipe.tail.is_empty() && !pipe.timer;
        pipe.timer |= partial;
        if partial {
            self.timer(PARTIAL_AFTER, Timer::Partial(place));
        }
        if holds {
            self.timer(QUIET, Timer::Joined(place));
        }
    }

    /// Reads a pipe until it is empty, `most` times at most.
    pub(super) fn drain(&mut self, place: u32, most: usize) {
        for _ in 0..most {
            match self.read(place) {
                Found::Bytes(_) => {}
                Found::Nothing | Found::End => return,
            }
        }
    }

    pub(super) fn end_of_pipe(&mut self, place: u32) {
        let Some(mut pipe) = self.table.pipes.remove(place) else {
            return;
        };
        let Some(run) = self.table.runs.get(pipe.run) else {
            return;
        };
        self.feed.close(run, pipe.stream, &mut pipe.tail, &mut pipe.join);
        for slot in &mut run.pipes {
            if *slot == place {
                *slot = NONE;
            }
        }
        if !run.has_pipes() && (run.ending.is_some() || run.late) {
            self.complete(pipe.run);
        }
    }

    pub(super) fn ended(&mut self, instance: &InstanceId, run: Run, done: Done) {
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
    pub(super) fn read_out(&mut self, place: u32) {
        let pipes = self.table.runs.get(place).map_or([NONE; 2], |run| run.pipes);
        for pipe in pipes {
            self.drain(pipe, 32);
        }
    }

    /// All that a run wrote is in the batch: says so when it is on the disk. What others still hold open
    /// is read on, marked as late.
    pub(super) fn complete(&mut self, place: u32) {
        let Some(run) = self.table.runs.get(place) else {
            return;
        };
        for pipe in run.pipes {
            if let Some(pipe) = self.table.pipes.get(pipe) {
                self.feed.close(run, pipe.stream, &mut pipe.tail, &mut pipe.join);
            }
        }
        self.feed.settle(Some((&run.who.name, run.run)));
        run.late = true;
        if let Some(ending) = run.ending.take() {
            self.after.extend(ending.done);
        }
        self.crashes.extend(run.crash.take());
        if !run.has_pipes() {
            let key = (run.instance.clone(), run.run);
            if self.table.places.get(&key) == Some(&place) {
                self.table.places.remove(&key);
            }
            self.table.runs.remove(place);
        }
    }

    /// Closes a run's pipes.
    pub(super) fn drop_pipes(&mut self, place: u32) {
        let pipes = self.table.runs.get(place).map_or([NONE; 2], |run| run.pipes);
        for pipe in pipes {
            self.end_of_pipe(pipe);
        }
    }

    pub(super) fn expire(&mut self) {
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
                Timer::Lost => {
                    self.lost_timer = false;
                    self.unheard();
                }
                Timer::Gaps => {
                    self.gap_timer = false;
                    self.feed.settle(None);
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
                Timer::Joined(place) => self.joined(place),
            }
        }
    }

    /// Records an unfinished line, if its pipe is empty and has been for a second.
    pub(super) fn partial(&mut self, place: u32) {
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
            self.feed.close(run, pipe.stream, &mut pipe.tail, &mut pipe.join);
        }
    }

    /// Records what the joiner of a pipe holds.
    pub(super) fn let_go(&mut self, place: u32) {
        if let Some(pipe) = self.table.pipes.get(place)
            && let Some(run) = self.table.runs.get(pipe.run)
        {
            self.feed.release(run, pipe.stream, &mut pipe.join);
        }
    }

    /// Lets go of what a joiner holds when its pipe has been quiet for a moment.
    fn joined(&mut self, place: u32) {
        let Some(pipe) = self.table.pipes.get(place) else {
            return;
        };
        if !pipe.join.is_holding() {
            pipe.join.timer = false;
            return;
        }
        let due = pipe.last + QUIET;
        if due > self.feed.now || self.holding.is_some() {
            let wait = due.saturating_duration_since(self.feed.now).max(QUIET / 10);
            self.timer(wait, Timer::Joined(place));
            return;
        }
        pipe.join.timer = false;
        if self.read(place) == Found::Nothing {
            self.let_go(place);
        }
    }
}
