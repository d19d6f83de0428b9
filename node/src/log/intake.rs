//! What the log thread is asked for: commands, and the records that come by no pipe.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::TryRecvError;

use hilum_shared::name::{InstanceId, Run};
use hilum_shared::protocol::{Level, LogRecord};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use serde_json::{Map, Value, json};

use super::account::{self, Debt, Numbers, Why};
use super::capture::{Capture, OVERFULL};
use super::console::structured_tail;
use super::disk::Work;
use super::handle::{LogReport, NodeRecord, Refused, Source};
use super::join::Joiner;
use super::level;
use super::post::Command;
use super::record::{NODE_NAME, Stream, Who, gap_text, wall};
use super::sources::{Ending, NONE, Pipe, RunState};

impl Capture {
    pub(super) fn commands(&mut self) {
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
            self.unqueued();
        }
    }

    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Attach(source, stdout, stderr) => self.attach(*source, stdout, stderr),
            Command::AttachAfter(record, size, source, stdout, stderr) => {
                self.shared.taken(size);
                self.attach(*source, stdout, stderr); // read when all commands are done
                self.node(*record);
            }
            Command::AttachAside(source, stdout, stderr) => {
                self.attach_aside(*source, stdout, stderr);
            }
            Command::Policy(service, policy) => {
                let now = self.feed.now;
                for run in self.table.runs.iter_mut() {
                    if run.instance.service == service {
                        run.reconfigure(&policy, &self.base, now);
                    }
                }
            }
            Command::Structured(instance, run, pid, records, refused, size) => {
                self.shared.taken(size);
                self.refused(&instance, run, pid, refused);
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
                    _ => self.crashes.push(facts),
                }
            }
            Command::Flush(done) => {
                for pipe in self.table.pipes.places() {
                    self.drain(pipe, 4);
                    self.let_go(pipe);
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

    pub(super) fn send(&self, work: Work) {
        let _ = self.work.send(work); // the disk thread ends after us unless it panicked
    }

    pub(super) fn attach(&mut self, source: Source, stdout: OwnedFd, stderr: Option<OwnedFd>) {
        let key = (source.instance.clone(), source.run);
        if let Some(old) = self.table.places.get(&key).copied() {
            // The same run twice: the first one's pipes are read out and closed.
            self.read_out(old);
            self.complete(old);
            self.drop_pipes(old);
        }
        let state = RunState::new(source, &self.base, self.feed.now);
        let run = self.table.runs.insert(state);
        self.table.places.insert(key, run);
        self.attach_pipes(run, stdout, stderr);
    }

    /// The output of a command beside a run: nobody asks for it by the run's number, and it is over
    /// with its pipes.
    fn attach_aside(&mut self, source: Source, stdout: OwnedFd, stderr: OwnedFd) {
        let mut state = RunState::new(source, &self.base, self.feed.now);
        state.ending = Some(Box::new(Ending { deadline: self.feed.now, done: Vec::new() }));
        let run = self.table.runs.insert(state);
        self.attach_pipes(run, stdout, Some(stderr));
    }

    fn attach_pipes(&mut self, run: u32, stdout: OwnedFd, stderr: Option<OwnedFd>) {
        let Some(instance) = self.table.runs.get(run).map(|state| state.instance.clone()) else {
            return;
        };
        let pipes = [Some((stdout, Stream::Out)), stderr.map(|fd| (fd, Stream::Err))];
        for (number, (fd, stream)) in pipes.into_iter().flatten().enumerate() {
            if let Err(error) = self.attach_pipe(run, number, fd, stream) {
                self.node(NodeRecord {
                    instance: Some(instance.clone()),
                    level: Some(Level::Error),
                    text: format!("its {} cannot be captured: {error}", stream.as_str()),
                    ..NodeRecord::default()
                });
            }
        }
    }

    pub(super) fn attach_pipe(
        &mut self,
        run: u32,
        number: usize,
        fd: OwnedFd,
        stream: Stream,
    ) -> nix::Result<()> {
        // Of the flags that can be set it has none.
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let place = self.table.pipes.insert(Pipe {
            fd,
            run,
            stream,
            timer: false,
            widened: false,
            full: 0,
            beheaded: false,
            last: self.feed.now,
            tail: Vec::new(),
            join: Joiner::default(),
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

    pub(super) fn structured(
        &mut self,
        instance: &InstanceId,
        run: Run,
        pid: u32,
        records: Vec<LogRecord>,
    ) {
        if !self.holders.is_empty() {
            self.before_others(NONE);
        }
        let who = self.who(instance, run);
        for record in records {
            let missing = record.seq.map_or(0, |seq| self.numbers(instance).missing(run, seq));
            if missing > 0 {
                let stamp = self.feed.stamps.write(self.feed.wall);
                self.feed.batch.begin(&who, run.0, pid, Stream::Node, self.feed.wall, stamp);
                let why = Why::Undelivered;
                self.feed.gap_here(&who.name, run, (why, missing), why.phrase());
            }
            let level = level::of_record(&record.level);
            let at = self.said(record.at);
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
            let fields =
                if fields.is_empty() { String::new() } else { Value::Object(fields).to_string() };
            self.put(&who, Stream::Log, Some(level), record.message.as_bytes(), fields);
        }
    }

    /// The time that somebody gave to a record (Unix seconds), where it is credible, in microseconds. It says when, the
    /// sequence number says in which order.
    fn said(&mut self, at: f64) -> u64 {
        let said = (at.max(0.0) * 1e6) as u64;
        if said > self.feed.wall {
            self.feed.wall = wall(); // ours is that of the turn's begin; what is read after this came after it
        }
        let recent = self.feed.wall.saturating_sub(60_000_000)..=self.feed.wall;
        if recent.contains(&said) { said } else { self.feed.wall }
    }

    fn numbers(&mut self, instance: &InstanceId) -> &mut Numbers {
        self.numbers.entry(instance.clone()).or_default()
    }

    /// Notes records that came and cannot be taken.
    fn refused(&mut self, instance: &InstanceId, run: Run, pid: u32, refused: Refused) {
        for (said, lines) in refused {
            self.numbers(instance).refuse(run, lines);
            let (who, why) = (self.who(instance, run), Why::Refused);
            let text = format!("{}: {said}", why.phrase()).into();
            self.feed.debts.add(Debt { who, run, pid, why, text, lines });
        }
    }

    pub(super) fn node(&mut self, record: NodeRecord) {
        if self.feed.batch.size() > OVERFULL {
            self.shared.unqueued.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if !self.holders.is_empty() {
            self.before_others(NONE);
        }
        let who = match (&record.instance, &record.service) {
            (Some(instance), _) => self.who(instance, record.run.unwrap_or_default()),
            (None, Some(service)) => named(service.as_str()),
            (None, None) => named(NODE_NAME),
        };
        let (run, pid) = (record.run.unwrap_or_default().0, record.pid.unwrap_or(0));
        let at = self.said(record.at);
        let stamp = self.feed.stamps.write(at);
        self.feed.batch.begin(&who, run, pid, Stream::Node, at, stamp);
        self.put(&who, Stream::Node, record.level, record.text.as_bytes(), record.fields);
    }

    pub(super) fn put(
        &mut self,
        who: &Arc<Who>,
        stream: Stream,
        level: Option<Level>,
        text: &[u8],
        mut fields: String,
    ) {
        /// Fields of more than this many bytes are not kept.
        const LONGEST: usize = 1024 * 1024;
        if fields.len() > LONGEST {
            fields = json!({"too_long": fields.len()}).to_string();
        }
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        self.feed.batch.record(text, level, fields.as_bytes(), 0);
        self.feed.records += 1;
        if stream == Stream::Log && !fields.is_empty() && self.feed.listened() {
            let published = published(text, &fields);
            self.feed.publish(&who.name, stream, level, &published);
        } else {
            self.feed.publish(&who.name, stream, level, text);
        }
    }

    /// Who that is: as its run knows it, with its `log.file`.
    pub(super) fn who(&mut self, instance: &InstanceId, run: Run) -> Arc<Who> {
        let place = self.table.find(instance, run);
        match place.and_then(|place| self.table.runs.get(place)) {
            Some(state) => state.who.clone(),
            None => named(&instance.to_string()),
        }
    }

    /// Writes down that subscribers did not get so many lines: they themselves are told by who publishes, and the timeline has the lines.
    pub(super) fn unheard(&mut self) {
        let lines = self.feed.subscriber.as_mut().map_or(0, |subscriber| subscriber.lost());
        if lines == 0 {
            return;
        }
        let (who, why, at) = (named(NODE_NAME), Why::Subscriber, self.feed.wall);
        let said = format!("{}; the files have them", why.phrase());
        let text = gap_text(lines, &said);
        let event = Value::Object(account::event(at, &who.name, None, None, (why, lines), &text));
        let stamp = self.feed.stamps.write(at);
        self.feed.batch.begin(&who, 0, 0, Stream::Node, at, stamp);
        let fields = event.to_string();
        self.feed.batch.record(text.as_bytes(), Some(Level::Warning), fields.as_bytes(), 0);
        self.feed.records += 1;
        self.shared.lose(&who.name, Run(0), why, lines);
        self.feed.reports.send(LogReport::Dropped { name: who.name.clone(), lines, why: said });
    }

    /// Writes down what the node had to say and the log could not take.
    pub(super) fn unqueued(&mut self) {
        let lines = self.shared.unqueued.swap(0, Ordering::Relaxed);
        if lines > 0 {
            let (who, why) = (named(NODE_NAME), Why::Behind);
            let stamp = self.feed.stamps.write(self.feed.wall);
            self.feed.batch.begin(&who, 0, 0, Stream::Node, self.feed.wall, stamp);
            self.feed.gap_here(&who.name, Run(0), (why, lines), why.phrase());
        }
    }
}

fn named(name: &str) -> Arc<Who> {
    Arc::new(Who { name: name.into(), file: None })
}

/// A structured record as a line: `shop.cart: it failed status=500`.
fn published(text: &[u8], fields: &str) -> Vec<u8> {
    let Ok(fields) = serde_json::from_str::<Map<String, Value>>(fields) else {
        return text.to_vec();
    };
    let mut line = Vec::with_capacity(text.len() + 64);
    if let Some(logger) = fields.get("logger").and_then(Value::as_str) {
        line.extend_from_slice(logger.as_bytes());
        line.extend_from_slice(b": ");
    }
    line.extend_from_slice(text);
    structured_tail(&fields, &mut line);
    line
}
