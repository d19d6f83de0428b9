//! `log.sock`: structured records of workers, for the log thread.
//!
//! When the sink has no room the socket is not read until [`Records::resume`]: workers wait at their high-water mark,
//! and no record is lost.

use hilum_shared::name::{InstanceId, Run};
use hilum_shared::protocol::{LOG_FRAME, LOG_HIGH_WATER, LogRecord};
use hilum_shared::transport::{
    Flow, Frames, Handler, Hub, Kind, OpenError, Port, Socket, SocketSpec,
};
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
}

/// Takes a batch without blocking, or gives it back.
pub type Sink = Box<dyn FnMut(Batch) -> Result<(), Batch> + Send>;

/// The endpoint. Dropping it closes the socket.
pub struct Records {
    socket: Socket,
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
        let mut spec = SocketSpec::new(Kind::Pull).bind(endpoint);
        (spec.mode, spec.high_water) = (mode, LOG_HIGH_WATER);
        Ok(Self { socket: hub.open(spec, Inlet { roster, sink, counters, parked: None })? })
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
        let mut batch = Batch { instance, run, records: Vec::with_capacity(records.len()) };
        for frame in records {
            match unpack::<LogRecord>(frame, "record") {
                Ok(record) if record.instance == batch.instance => batch.records.push(record),
                Ok(_) => self.counters.count("log: token of another instance"),
                Err(_) => self.counters.count("log: malformed"),
            }
        }
        (!batch.records.is_empty()).then_some(batch)
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
