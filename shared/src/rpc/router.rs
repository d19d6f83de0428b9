//! Requests as a ROUTER receives them, and the frames that answer them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::protocol::control::Fault;
use crate::transport::Frames;
use crate::wire::Value;
use crate::wire::message::{DecodeError, EncodeError, Kind, Message, NIL, pack};

/// A peer of a ROUTER, by its routing id.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub Vec<u8>);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if text.chars().all(|c| !c.is_control()) => f.write_str(text),
            _ => self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// To whom an answer goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The peer.
    pub peer: PeerId,
    /// The id of its request.
    pub request: String,
    /// Its trace.
    pub trace_id: Option<String>,
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming {
    /// To whom the answer goes.
    pub caller: Caller,
    /// The request itself.
    pub message: Message,
}

/// Why frames at a ROUTER are no request.
#[derive(Debug)]
pub enum NotARequest {
    /// The answer to a request of ours, such as a ping.
    Answer {
        /// Whose.
        peer: PeerId,
        /// The answer.
        message: Box<Message>,
    },
    /// Broken; the NACK goes back where the sender and its id could be read.
    Broken {
        /// What is wrong.
        error: DecodeError,
        /// The refusal to send.
        nack: Option<Frames>,
    },
}

impl Incoming {
    /// Reads `[routing id, five frames]`.
    ///
    /// # Errors
    /// See [`NotARequest`].
    pub fn decode(mut frames: Frames) -> Result<Self, NotARequest> {
        if frames.is_empty() {
            let error = DecodeError::FrameCount { count: 0 };
            return Err(NotARequest::Broken { error, nack: None });
        }
        let peer = PeerId(frames.remove(0));
        let message = match Message::decode(&frames) {
            Ok(message) => message,
            Err(error) => {
                let trace_id = Message::salvage_trace(&frames);
                let nack = Message::salvage_id(&frames)
                    .map(|request| Caller { peer, request, trace_id }.nack());
                return Err(NotARequest::Broken { error, nack });
            }
        };
        if message.kind != Kind::Request {
            return Err(NotARequest::Answer { peer, message: Box::new(message) });
        }
        let caller = Caller {
            peer,
            request: message.id.clone(),
            trace_id: message.headers.trace_id.clone(),
        };
        Ok(Self { caller, message })
    }
}

impl Incoming {
    /// The answer to `lymph.ping`: its payload, whatever it is.
    pub fn pong(&self) -> Frames {
        match self.message.unpack::<Option<Ping>>() {
            Ok(ping) => {
                let payload = ping.map_or(Value::Nil, |ping| ping.payload);
                self.caller.reply(&payload).unwrap_or_else(|_| self.caller.nack())
            }
            Err(_) => self.caller.nack(),
        }
    }
}

#[derive(Deserialize)]
struct Ping {
    #[serde(default = "nil")]
    payload: Value,
}

fn nil() -> Value {
    Value::Nil
}

impl Caller {
    /// The result.
    ///
    /// # Errors
    /// When the value has no MessagePack form.
    pub fn reply<T: Serialize + ?Sized>(&self, value: &T) -> Result<Frames, EncodeError> {
        Ok(self.answer(Kind::Reply, pack(value)?))
    }

    /// The refusal of what is unknown or broken.
    pub fn nack(&self) -> Frames {
        self.answer(Kind::Nack, NIL.to_vec())
    }

    /// A fault with a name.
    pub fn fault(&self, fault: &Fault) -> Frames {
        self.answer(Kind::Error, pack(fault).expect("a map of texts always packs"))
    }

    /// A request of ours to the peer: `lymph.ping` shows whether it is still there.
    pub fn ping(&self) -> Frames {
        let body =
            pack(&[("payload", "")].into_iter().collect::<std::collections::BTreeMap<_, _>>());
        let message = Message::request("lymph.ping", body.expect("a map of texts always packs"));
        self.envelope(message)
    }

    fn answer(&self, kind: Kind, body: Vec<u8>) -> Frames {
        self.envelope(Message::answer(kind, &self.request, self.trace_id.clone(), body))
    }

    fn envelope(&self, message: Message) -> Frames {
        let mut frames = message.encode();
        frames.insert(0, self.peer.0.clone());
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_goes_to_the_peer_under_the_requests_id_and_trace() {
        let request = Message::request("node.status", NIL.to_vec());
        let (id, trace) = (request.id.clone(), request.headers.trace_id.clone());
        let mut frames = request.encode();
        frames.insert(0, b"peer".to_vec());
        let incoming = Incoming::decode(frames).unwrap();
        let answer = incoming.caller.reply(&7).unwrap();
        assert_eq!(answer[0], b"peer");
        let message = Message::decode(&answer[1..]).unwrap();
        assert_eq!(
            (message.kind, message.subject, message.headers.trace_id),
            (Kind::Reply, id, trace)
        );
    }

    #[test]
    fn a_broken_request_is_refused_where_its_id_is_readable() {
        let frames = |id: &[u8]| vec![b"p".to_vec(), id.to_vec(), b"REQ".to_vec(), b"x.y".to_vec()];
        let Err(NotARequest::Broken { nack: Some(nack), .. }) = Incoming::decode(frames(b"77"))
        else {
            panic!("no refusal")
        };
        let message = Message::decode(&nack[1..]).unwrap();
        assert_eq!((message.kind, message.subject.as_str()), (Kind::Nack, "77"));
        assert!(matches!(
            Incoming::decode(frames(b"\xff")),
            Err(NotARequest::Broken { nack: None, .. })
        ));
        assert!(matches!(Incoming::decode(vec![]), Err(NotARequest::Broken { nack: None, .. })));
    }
}
