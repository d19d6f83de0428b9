//! `log.sock`: structured records of workers, for the log thread.
//!
//! When the sink has no room the socket is not read until [`Records::resume`]: workers wait at their high-water mark,
//! and no record is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hilum_shared::name::{InstanceId, Run};
use hilum_shared::protocol::{LOG_FRAME, LOG_HIGH_WATER, LogRecord};
use hilum_shared::transport::{
    Flow, Frames, Handler, Hub, Kind, OpenError, Port, Socket, SocketEvent, SocketSpec,
};
use hilum_shared::units::{Bytes, format_size};
use hilum_shared::wire::limits::MAX_FRAME;
use hilum_shared::wire::message::unpack;

use super::counters::Counters;
use super::roster::Roster;

/// Records of one run that came in one message.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Whose.
    pub instance: InstanceId,
    /// Which life.
    pub run: Run,
    /// In the order in which they were written.
    pub records: Vec<LogRecord>,
    /// Those among them that cannot be taken: how many, and why.
    pub refused: BTreeMap<String, u64>,
}

/// A frame of more than this ends the connection; one of more than [`MAX_FRAME`] is refused, and said to be.
const LARGEST: usize = 8 * MAX_FRAME;

/// While what the last worker left is read: between two looks whether that is all.
const LOOK: Duration = Duration::from_millis(1);

/// Takes a batch without blocking, or gives it back.
pub type Sink = Box<dyn FnMut(Batch) -> Result<(), Batch> + Send>;

/// The endpoint. Dropping it closes the socket.
pub struct Records {
    socket: Socket,
    read_out: ReadOut,
}

/// Whether all is read: nobody is connected, and the sink has taken what those wrote who were.
#[derive(Clone, Debug)]
pub struct ReadOut(Arc<AtomicBool>);

impl ReadOut {
    /// Whether it is so now.
    pub fn is_so(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Records {
    /// Binds `endpoint` with this file mode. Records whose token `roster` knows go to `sink`, on the ZeroMQ thread.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn open(
        hub: &Hub,
        endpoint: &str,
        mode: u32,
        roster: Roster,
        sink: Sink,
        counters: Counters,
    ) -> Result<Self, OpenError> {
        let spec = SocketSpec {
            mode,
            high_water: LOG_HIGH_WATER,
            monitor: true,
            max_frame: LARGEST,
            ..SocketSpec::new(Kind::Pull).bind(endpoint)
        };
        let read_out = ReadOut(Arc::new(AtomicBool::new(true)));
        let inlet =
            Inlet { roster, sink, counters, parked: None, peers: 0, read_out: read_out.clone() };
        Ok(Self { socket: hub.open(spec, inlet)?, read_out })
    }

    /// To ask whether all is read.
    pub fn read_out(&self) -> ReadOut {
        self.read_out.clone()
    }

    /// Call it after each batch that the sink's consumer took.
    pub fn resume(&self) {
        self.socket.resume();
    }

    /// Whether workers' records are held back now.
    pub fn is_held(&self) -> bool {
        self.socket.is_paused()
    }

    /// A handle for the consumer's thread, to [`Socket::resume`].
    pub fn socket(&self) -> Socket {
        self.socket.clone()
    }
}

struct Inlet {
    roster: Roster,
    sink: Sink,
    counters: Counters,
    /// What the sink gave back; it comes again as frames that need not be decoded twice.
    parked: Option<Batch>,
    /// Connections that have not ended. One ends when all that came by it is in the socket's queue.
    peers: usize,
    read_out: ReadOut,
}

impl Handler for Inlet {
    fn message(&mut self, frames: Frames, _port: &mut Port<'_>) -> Flow {
        let Some(batch) = self.parked.take().or_else(|| self.decode(&frames)) else {
            return Flow::Taken;
        };
        match (self.sink)(batch) {
            Ok(()) => Flow::Taken,
            Err(batch) => {
                self.parked = Some(batch);
                Flow::Full(frames)
            }
        }
    }

    fn rejected(&mut self) {
        self.counters.count("log: malformed");
    }

    fn event(&mut self, event: SocketEvent, port: &mut Port<'_>) {
        match event {
            SocketEvent::Accepted => self.peers += 1,
            SocketEvent::Disconnected => self.peers = self.peers.saturating_sub(1),
            SocketEvent::Connected | SocketEvent::Refused => return,
        }
        self.read_out.0.store(false, Ordering::SeqCst);
        self.timer(port);
    }

    fn timer(&mut self, port: &mut Port<'_>) {
        if self.peers > 0 {
            return; // the last one to go asks again
        }
        if self.parked.is_some() || port.is_readable() {
            port.wake_in(LOOK);
        } else {
            self.read_out.0.store(true, Ordering::SeqCst);
        }
    }
}

impl Inlet {
    fn decode(&self, frames: &[Vec<u8>]) -> Option<Batch> {
        let [kind, token, records @ ..] = frames else {
            self.counters.count("log: malformed");
            return None;
        };
        if kind != LOG_FRAME {
            self.counters.count("log: malformed");
            return None;
        }
        let owner = std::str::from_utf8(token).ok().and_then(|token| self.roster.owner(token));
        let Some((instance, run)) = owner else {
            self.counters.count("log: wrong token");
            return None;
        };
        let taken = Vec::with_capacity(records.len());
        let mut batch = Batch { instance, run, records: taken, refused: BTreeMap::new() };
        for frame in records {
            let why = match self.record(frame, &batch.instance) {
                Ok(record) => {
                    batch.records.push(record);
                    continue;
                }
                Err(why) => why,
            };
            *batch.refused.entry(why).or_default() += 1;
        }
        (batch.records.len() + batch.refused.len() > 0).then_some(batch)
    }

    /// One record, or in a few words why it is none.
    fn record(&self, frame: &[u8], owner: &InstanceId) -> Result<LogRecord, String> {
        /// What a decoder says may hold what the sender wrote.
        const LONGEST: usize = 120;
        if frame.len() > MAX_FRAME {
            self.counters.count("log: too large");
            let [size, most] = [frame.len(), MAX_FRAME].map(|size| format_size(Bytes(size as u64)));
            return Err(format!("a record of {size}, {most} at most"));
        }
        match unpack::<LogRecord>(frame, "record") {
            Ok(record) if record.instance == *owner => Ok(record),
            Ok(_) => {
                self.counters.count("log: token of another instance");
                Err("its `instance` is another one".to_owned())
            }
            Err(error) => {
                self.counters.count("log: malformed");
                let text = error.to_string();
                Err(text.chars().filter(|char| !char.is_control()).take(LONGEST).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, TrySendError, sync_channel};
    use std::time::Duration;

    use hilum_shared::wire::message::pack;
    use serde_json::json;

    use super::*;
    use crate::channels::roster::Rhythm;
    use crate::channels::testing::{LIMIT, World, wait_until};

    fn open(world: &World, room: usize) -> (Records, Receiver<Batch>, Roster, Counters) {
        let (roster, counters) = (Roster::default(), Counters::default());
        let (sender, receiver) = sync_channel(room);
        let sink = Box::new(move |batch| match sender.try_send(batch) {
            Err(TrySendError::Full(batch)) => Err(batch),
            _ => Ok(()),
        });
        let endpoint = world.address("l");
        let records =
            Records::open(&world.hub, &endpoint, 0o600, roster.clone(), sink, counters.clone())
                .unwrap();
        let rhythm = Rhythm { interval: Duration::from_secs(1), timeout: Duration::from_secs(5) };
        roster.expect(InstanceId::parse("a.1").unwrap(), Run(1), "secret".into(), rhythm);
        (records, receiver, roster, counters)
    }

    fn record(instance: &str, seq: u64) -> Vec<u8> {
        pack(&json!({"instance": instance, "seq": seq, "level": "INFO", "message": "m", "fields": {"n": [1, null]}}))
            .unwrap()
    }

    fn log(records: &[Vec<u8>]) -> Frames {
        let mut frames = vec![LOG_FRAME.to_vec(), b"secret".to_vec()];
        frames.extend_from_slice(records);
        frames
    }

    #[test]
    fn good_records_of_a_batch_are_taken_and_the_rest_counted() {
        let world = World::new();
        let (_records, batches, roster, counters) = open(&world, 10);
        let worker = world.pusher("l");
        worker.send(vec![b"LOG".to_vec(), b"wrong".to_vec(), record("a.1", 1)]);
        worker.send(vec![b"GOL".to_vec()]);
        worker.send(vec![vec![0xff; 10]]);
        roster.forget(&InstanceId::parse("a.1").unwrap(), Run(1)); // it ended with records still on their way
        worker.send(log(&[record("a.1", 1), vec![0xc1], record("b.1", 2), record("a.1", 3)]));
        let batch = batches.recv_timeout(LIMIT).unwrap();
        assert_eq!((batch.instance.to_string().as_str(), batch.run), ("a.1", Run(1)));
        assert_eq!(
            batch.records.iter().map(|record| record.seq).collect::<Vec<_>>(),
            [Some(1), Some(3)]
        );
        assert_eq!(counters.get("log: wrong token"), 1);
        assert_eq!(counters.get("log: malformed"), 3);
        assert_eq!(counters.get("log: token of another instance"), 1);
    }

    #[test]
    fn all_is_read_when_the_last_worker_has_gone_and_the_sink_has_taken_what_it_left() {
        let world = World::new();
        let (records, batches, ..) = open(&world, 1);
        let read_out = records.read_out();
        assert!(read_out.is_so(), "nobody was there");
        let worker = world.pusher("l");
        for seq in 1..=100 {
            worker.send(log(&[record("a.1", seq)]));
        }
        wait_until(|| records.is_held() && !read_out.is_so());
        drop(worker);
        for seq in 1..=100 {
            assert!(seq == 100 || !read_out.is_so(), "{seq} is to come");
            assert_eq!(batches.recv_timeout(LIMIT).unwrap().records[0].seq, Some(seq));
            records.resume();
        }
        wait_until(|| read_out.is_so());
    }

    #[test]
    fn a_full_sink_holds_workers_back_and_loses_nothing() {
        let world = World::new();
        let (records, batches, ..) = open(&world, 2);
        let worker = world.pusher("l");
        for seq in 1..=500 {
            worker.send(log(&[record("a.1", seq)]));
        }
        wait_until(|| records.is_held());
        for seq in 1..=500 {
            let batch = batches.recv_timeout(LIMIT).unwrap();
            assert_eq!(batch.records[0].seq, Some(seq));
            records.resume();
        }
        wait_until(|| !records.is_held());
    }
}
