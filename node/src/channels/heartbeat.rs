//! `heartbeat.sock`: life signs of workers, answered on the ZeroMQ thread, so that an echo says "the node's process
//! lives" even while its loop is busy; what the beat says goes to the loop.
//!
//! When the loop's inbox is full a beat's news is dropped, for each beat repeats it; that it came is noted in the
//! roster all the same.

use std::time::Duration;

use hilum_shared::protocol::{Beat, Echo, HEARTBEAT_FRAME};
use hilum_shared::transport::{
    Flow, Frames, Handler, Hub, Kind, OpenError, Port, Socket, SocketSpec,
};
use hilum_shared::wire::message::{pack, unpack};
use tokio::sync::mpsc;

use super::counters::Counters;
use super::roster::{Roster, Stranger};
use super::unix_now;
use crate::core::input::{Input, Report};

/// The longest status text that is passed on, in bytes.
const MAX_STATUS: usize = 1024;

/// Between two rounds of reading: beats of many workers share a wake-up (measured at 1000 a second: less than half the CPU).
const PACE: Duration = Duration::from_millis(10);

/// The endpoint. Dropping it closes the socket.
pub struct Heartbeat {
    _socket: Socket,
}

impl Heartbeat {
    /// Binds `endpoint` with this file mode. Beats that `roster` knows become `Report::Beat` in `inbox`.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn open(
        hub: &Hub,
        endpoint: &str,
        mode: u32,
        roster: Roster,
        inbox: mpsc::Sender<Input>,
        counters: Counters,
    ) -> Result<Self, OpenError> {
        // A beat is small and repeated: few need to wait for a peer, and a thousand peers cost little.
        let spec = SocketSpec {
            mode,
            pace: PACE,
            high_water: 16,
            max_frame: 64 << 10,
            ..SocketSpec::new(Kind::Router).bind(endpoint)
        };
        let socket = hub.open(spec, Pulse { roster, inbox, counters })?;
        Ok(Self { _socket: socket })
    }
}

struct Pulse {
    roster: Roster,
    inbox: mpsc::Sender<Input>,
    counters: Counters,
}

impl Handler for Pulse {
    fn message(&mut self, mut frames: Frames, port: &mut Port<'_>) -> Flow {
        let beat = match frames.as_slice() {
            [_, kind, body] if kind == HEARTBEAT_FRAME => unpack::<Beat>(body, "beat").ok(),
            _ => None,
        };
        let Some(mut beat) = beat else {
            self.counters.count("heartbeat: malformed");
            return Flow::Taken;
        };
        let rhythm = match self.roster.beat(&beat.instance, beat.run, &beat.token) {
            Ok(rhythm) => rhythm,
            Err(stranger) => {
                self.counters.count(match stranger {
                    Stranger::Instance => "heartbeat: unknown instance",
                    Stranger::Run => "heartbeat: another run",
                    Stranger::Token => "heartbeat: wrong token",
                });
                return Flow::Taken;
            }
        };
        self.roster.set_metrics(&beat.instance, std::mem::take(&mut beat.metrics));
        let echo = Echo {
            seq: beat.seq,
            at: unix_now(),
            interval: rhythm.interval.as_secs_f64(),
            timeout: rhythm.timeout.as_secs_f64(),
        };
        frames[2] = pack(&echo).expect("a map of numbers always packs");
        // A worker that is gone or does not read misses its echo, and nothing else comes of it.
        let _ = port.send(frames);
        if let Some(status) = &mut beat.status {
            status.truncate(status.floor_char_boundary(MAX_STATUS));
        }
        let report = Report::Beat { state: beat.state, status: beat.status, told: rhythm.timeout };
        let input = Input::Report { instance: beat.instance, run: beat.run, report };
        if self.inbox.try_send(input).is_err() {
            self.counters.count("heartbeat: noted, node too busy for its news");
        }
        Flow::Taken
    }

    fn rejected(&mut self) {
        self.counters.count("heartbeat: malformed");
    }
}

#[cfg(test)]
mod tests {
    use hilum_shared::name::{InstanceId, Run};
    use hilum_shared::protocol::WorkerState;

    use super::*;
    use crate::channels::roster::Rhythm;
    use crate::channels::testing::{Peer, World, next, wait_until};

    fn beat(run: u32, token: &str, seq: u64) -> Frames {
        let beat = Beat {
            instance: InstanceId::parse("a.1").unwrap(),
            run: Run(run),
            pid: 7,
            token: token.to_owned(),
            seq,
            state: WorkerState::Ready,
            at: 0.0,
            status: Some("busy".into()),
            metrics: [("queue".to_owned(), 3.0)].into(),
        };
        vec![HEARTBEAT_FRAME.to_vec(), pack(&beat).unwrap()]
    }

    fn world(room: usize) -> (World, Roster, Counters, Heartbeat, mpsc::Receiver<Input>, Peer) {
        let world = World::new();
        let (roster, counters) = (Roster::default(), Counters::default());
        let (sender, inbox) = mpsc::channel(room);
        let endpoint = world.address("h");
        let heartbeat =
            Heartbeat::open(&world.hub, &endpoint, 0o600, roster.clone(), sender, counters.clone())
                .unwrap();
        let rhythm = Rhythm { interval: Duration::from_secs(2), timeout: Duration::from_secs(9) };
        roster.expect(InstanceId::parse("a.1").unwrap(), Run(3), "secret".into(), rhythm);
        let worker = world.dealer("h", b"a.1#3");
        (world, roster, counters, heartbeat, inbox, worker)
    }

    #[test]
    fn a_beat_is_echoed_with_the_rhythm_and_told_to_the_loop() {
        let (_world, roster, counters, _heartbeat, mut inbox, worker) = world(10);
        worker.send(beat(3, "secret", 41));
        let frames = worker.next();
        assert_eq!(frames[0], HEARTBEAT_FRAME);
        let echo: Echo = rmp_serde::from_slice(&frames[1]).unwrap();
        assert_eq!((echo.seq, echo.interval, echo.timeout), (41, 2.0, 9.0));
        let Input::Report { instance, run, report: Report::Beat { state, status, told } } =
            next(&mut inbox)
        else {
            panic!("no beat")
        };
        assert_eq!(
            (instance.to_string().as_str(), run, state),
            ("a.1", Run(3), WorkerState::Ready)
        );
        assert_eq!((status.as_deref(), told.as_secs()), (Some("busy"), 9));
        assert!(roster.heartbeat_age(&instance).is_some());
        assert_eq!(roster.metrics(&instance), [("queue".to_owned(), 3.0)].into());
        assert!(counters.snapshot().is_empty());
    }

    #[test]
    fn strangers_ghosts_and_garbage_are_counted_and_hear_nothing() {
        let (_world, _roster, counters, _heartbeat, mut inbox, worker) = world(10);
        worker.send(beat(2, "secret", 1));
        worker.send(beat(3, "wrong", 2));
        worker.send(vec![HEARTBEAT_FRAME.to_vec(), vec![0xc1]]);
        worker.send(vec![HEARTBEAT_FRAME.to_vec()]);
        worker.send(vec![b"XX".to_vec(), beat(3, "secret", 3).remove(1)]);
        worker.send(vec![vec![]; 300]);
        worker.send(beat(3, "secret", 4));
        let echo: Echo = rmp_serde::from_slice(&worker.next()[1]).unwrap();
        assert_eq!(echo.seq, 4);
        let Input::Report { .. } = next(&mut inbox) else { panic!("no beat") };
        assert!(inbox.try_recv().is_err());
        assert_eq!(counters.get("heartbeat: another run"), 1);
        assert_eq!(counters.get("heartbeat: wrong token"), 1);
        assert_eq!(counters.get("heartbeat: malformed"), 4);
    }

    #[test]
    fn a_busy_loop_costs_no_echo() {
        let (_world, _roster, counters, _heartbeat, _inbox, worker) = world(1);
        for seq in 1..=20 {
            worker.send(beat(3, "secret", seq));
            let echo: Echo = rmp_serde::from_slice(&worker.next()[1]).unwrap();
            assert_eq!(echo.seq, seq);
        }
        wait_until(|| counters.get("heartbeat: noted, node too busy for its news") == 19);
    }
}
