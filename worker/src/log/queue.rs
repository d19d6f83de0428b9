//! Records on their way to the node: numbered, packed, bounded in bytes; and the thread that sends them in batches.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hilum_shared::name::InstanceId;
use hilum_shared::protocol::{LOG_FRAME, LogRecord};
use hilum_shared::rpc::blocking::Push;
use hilum_shared::transport::Frames;
use hilum_shared::wire::message::pack;

use super::Overflow;
use crate::contract::Contract;
use crate::links::HUB_THREAD;

/// Bytes that wait here before the logging call waits.
const ROOM: usize = 1 << 20;
/// Records of one message; the protocol allows 256 frames.
const BATCH: usize = 64;
/// Bytes of one message, unless a single record has more.
const BATCH_BYTES: usize = 64 << 10;
/// Name of the sending thread. Whatever it logs must not wait for it.
const THREAD: &str = "hilum-log";

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It will be sent.
    Taken,
    /// There was no room; the node sees a hole in the numbers.
    Dropped,
    /// Nobody sends any more.
    Closed,
}

/// Whether a push may wait for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// As [`Overflow`] says.
    AsSet,
    /// Never.
    None,
}

/// The records of one run.
#[derive(Debug)]
pub(crate) struct Queue {
    instance: InstanceId,
    token: String,
    overflow: Overflow,
    state: Mutex<State>,
    /// Told when there is room, when all is sent, and at the end.
    room: Condvar,
    /// Told when there is something to send, and at the end.
    work: Condvar,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    seq: u64,
    dropped: u64,
    /// Records of the message that is being sent.
    sending: usize,
    /// Nothing more is taken; what is there is sent.
    closed: bool,
    /// Nothing more is sent.
    abandoned: bool,
    /// Records that were taken here, and not by the node.
    left: u64,
}

impl Queue {
    /// A queue, where the contract has an endpoint for records and says whose they are.
    pub(crate) fn of(contract: &Contract, overflow: Overflow) -> Option<Arc<Self>> {
        contract.log.as_ref()?;
        Some(Arc::new(Self {
            instance: contract.instance.clone()?,
            token: contract.token.clone()?,
            overflow,
            state: Mutex::default(),
            room: Condvar::new(),
            work: Condvar::new(),
        }))
    }

    /// Numbers, packs and queues a record; its instance and number are filled in here.
    pub(crate) fn push(&self, mut record: LogRecord, patience: Patience) -> Pushed {
        let may_wait = patience == Patience::AsSet
            && self.overflow == Overflow::Wait
            && !matches!(std::thread::current().name(), Some(HUB_THREAD | THREAD));
        let mut state = self.lock();
        while may_wait && state.bytes >= ROOM && !state.closed {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return Pushed::Closed;
        }
        state.seq += 1;
        if state.bytes >= ROOM {
            state.dropped += 1;
            return Pushed::Dropped;
        }
        record.instance = self.instance.clone();
        record.seq = Some(state.seq);
        let Ok(frame) = pack(&record) else {
            state.dropped += 1;
            return Pushed::Dropped;
        };
        state.bytes += frame.len();
        state.frames.push_back(frame);
        drop(state);
        self.work.notify_one();
        Pushed::Taken
    }

    /// Whose records these are.
    pub(crate) fn instance(&self) -> &InstanceId {
        &self.instance
    }

    /// Whether records are taken.
    pub(crate) fn is_open(&self) -> bool {
        !self.lock().closed
    }

    /// Records that found no room, ever.
    pub(crate) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Takes nothing more and waits until all is with the kernel, at most this long; then nothing more is sent.
    fn close(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let mut state = self.lock();
        state.closed = true;
        self.work.notify_all();
        self.room.notify_all();
        while !state.abandoned && (state.sending > 0 || !state.frames.is_empty()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.room.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.abandoned = true;
        drop(state);
        self.work.notify_all();
    }

    /// The next batch as a whole message; `None` at the end.
    fn next(&self) -> Option<Frames> {
        let mut state = self.lock();
        state.sending = 0;
        if state.frames.is_empty() {
            self.room.notify_all();
        }
        loop {
            if state.abandoned || (state.closed && state.frames.is_empty()) {
                self.room.notify_all();
                return None;
            }
            if !state.frames.is_empty() {
                break;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mut message = vec![LOG_FRAME.to_vec(), self.token.clone().into_bytes()];
        let mut bytes = 0;
        while let Some(frame) = state.frames.front()
            && message.len() < BATCH + 2
            && (bytes == 0 || bytes + frame.len() <= BATCH_BYTES)
        {
            bytes += frame.len();
            message.extend(state.frames.pop_front());
        }
        state.bytes -= bytes;
        state.sending = message.len() - 2;
        drop(state);
        self.room.notify_all();
        Some(message)
    }

    /// Nobody sends any more, because all is done or the node is gone: who waits is let go, who comes is told so, and what is
    /// still here is lost.
    fn abandon(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.abandoned = true;
        let lost = (state.frames.len() + std::mem::take(&mut state.sending)) as u64;
        state.left += lost;
        state.dropped += lost;
        state.frames.clear();
        state.bytes = 0;
        drop(state);
        self.room.notify_all();
    }

    fn is_abandoned(&self) -> bool {
        self.lock().abandoned
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sending thread.
pub(crate) struct Shipping {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
    patience: Duration,
}

impl Shipping {
    /// Sends what is in `queue` by `push`. `is_gone` is asked while the node takes nothing, with the time that it has not: `true`
    /// ends it. Dropped, it sends what is there for as long as `patience`.
    pub(crate) fn start(
        queue: Arc<Queue>,
        mut push: Push,
        patience: Duration,
        is_gone: impl Fn(Duration) -> bool + Send + 'static,
    ) -> std::io::Result<Self> {
        let own = Arc::clone(&queue);
        let thread = std::thread::Builder::new()
            .name(THREAD.to_owned())
            .stack_size(128 << 10)
            .spawn(move || {
                while let Some(message) = own.next() {
                    let begun = Instant::now();
                    if !push.send(&message, &|| own.is_abandoned() || is_gone(begun.elapsed())) {
                        break;
                    }
                }
                own.abandon();
            })?;
        Ok(Self { queue, thread: Some(thread), patience })
    }

    /// Sends what is there, at most this long, and ends. What is lost is told on stderr.
    pub(crate) fn finish(mut self, within: Duration) {
        self.end(within);
    }

    fn end(&mut self, within: Duration) {
        let Some(thread) = self.thread.take() else { return };
        self.queue.close(within);
        // A panic there has been told by the panic hook.
        let _ = thread.join();
        let left = self.queue.lock().left;
        if left > 0 {
            tracing::error!(left, "records could not be sent before the end");
        }
    }
}

impl Drop for Shipping {
    fn drop(&mut self) {
        self.end(self.patience); // a panic is under way: what says why is worth the wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(overflow: Overflow) -> Arc<Queue> {
        let contract = Contract {
            instance: Some(InstanceId::parse("a.1").unwrap()),
            token: Some("t".into()),
            log: Some("ipc:///nowhere".into()),
            ..Contract::none()
        };
        Queue::of(&contract, overflow).unwrap()
    }

    fn record(text: String) -> LogRecord {
        LogRecord {
            instance: InstanceId::parse("x.1").unwrap(),
            seq: None,
            at: 0.0,
            level: "INFO".into(),
            logger: String::new(),
            message: text,
            fields: std::collections::BTreeMap::new(),
            trace_id: None,
        }
    }

    fn fill(queue: &Queue) -> u64 {
        let mut count = 0;
        while queue.push(record("x".repeat(1000)), Patience::None) == Pushed::Taken {
            count += 1;
        }
        count
    }

    #[test]
    fn a_full_queue_drops_counts_and_leaves_a_hole() {
        let queue = queue(Overflow::Drop);
        let taken = fill(&queue);
        assert!((900..1100).contains(&taken), "{taken}");
        assert_eq!(queue.push(record("x".into()), Patience::AsSet), Pushed::Dropped);
        assert_eq!(queue.dropped(), 2);
        let message = queue.next().unwrap();
        let first: LogRecord = hilum_shared::wire::message::unpack(&message[2], "r").unwrap();
        assert_eq!((first.seq, first.instance.to_string().as_str()), (Some(1), "a.1"));
        assert!(message.iter().map(Vec::len).sum::<usize>() <= BATCH_BYTES + 10);
        assert_eq!(queue.push(record("after".into()), Patience::AsSet), Pushed::Taken);
        let state = queue.lock();
        let last: LogRecord =
            hilum_shared::wire::message::unpack(state.frames.back().unwrap(), "r").unwrap();
        assert_eq!(last.seq, Some(taken + 3));
    }

    #[test]
    fn who_waits_is_let_go_when_the_node_is_gone() {
        let queue = queue(Overflow::Wait);
        fill(&queue);
        let waiting = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || queue.push(record("late".into()), Patience::AsSet))
        };
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        queue.abandon();
        assert_eq!(waiting.join().unwrap(), Pushed::Closed);
        assert!(!queue.is_open());
    }

    #[test]
    fn many_small_records_go_together_and_closing_is_bounded() {
        let queue = queue(Overflow::Wait);
        for n in 0..100 {
            queue.push(record(n.to_string()), Patience::AsSet);
        }
        assert_eq!(queue.next().unwrap().len(), BATCH + 2);
        queue.close(Duration::from_millis(10));
        assert_eq!(queue.push(record("no".into()), Patience::AsSet), Pushed::Closed);
        assert!(queue.next().is_none());
    }
}
