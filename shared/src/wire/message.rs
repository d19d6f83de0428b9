//! lymph's message: five frames, id, type, subject, headers, body.
//!
//! | frame | content |
//! |---|---|
//! | id | text; 32 hex digits where we make it |
//! | type | `REQ`, `REP`, `ACK`, `NACK`, `ERROR` |
//! | subject | of a request `interface.method`, of a reply the request's id |
//! | headers | MessagePack map with `trace_id` and `version` |
//! | body | one MessagePack value; of a request a map of named arguments |
//!
//! The body stays packed until somebody asks for it as a type. Python 2 peers pack text as `bin`: it is taken
//! as text, and `str` is what we send.

mod headers;

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::de::{Decoder, ShapeError};
use super::limits::{self, LimitError, MAX_BODY, MAX_FRAME, MAX_TEXT};
pub use super::ser::EncodeError;
use super::ser::Encoder;
use super::zmtp;
pub use headers::Headers;
use headers::{read_headers, write_headers};

/// How many frames a message has.
pub const FRAMES: usize = 5;

/// One MessagePack nil.
pub const NIL: &[u8] = &[0xc0];

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A call.
    Request,
    /// Its result.
    Reply,
    /// Taken, without a result.
    Ack,
    /// Refused: unknown method, wrong arguments, a fault that has no name.
    Nack,
    /// A named fault; the body is a map with `type` and `message`.
    Error,
}

impl Kind {
    /// The bytes of the frame.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "REQ",
            Self::Reply => "REP",
            Self::Ack => "ACK",
            Self::Nack => "NACK",
            Self::Error => "ERROR",
        }
    }

    fn parse(frame: &[u8]) -> Option<Self> {
        Some(match frame {
            b"REQ" => Self::Request,
            b"REP" => Self::Reply,
            b"ACK" => Self::Ack,
            b"NACK" => Self::Nack,
            b"ERROR" => Self::Error,
            _ => return None,
        })
    }
}

/// Five frames, the body still packed.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Its own id.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// `interface.method`, or the id of the request that it answers.
    pub subject: String,
    /// Trace and version.
    pub headers: Headers,
    /// One MessagePack value.
    pub body: Vec<u8>,
}

/// Why frames are not a message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not five.
    #[error("a message has {FRAMES} frames, this one has {count}")]
    FrameCount {
        /// How many came.
        count: usize,
    },
    /// A text frame is not UTF-8 or longer than [`MAX_TEXT`].
    #[error("frame `{frame}` is not a text of at most {MAX_TEXT} bytes")]
    Text {
        /// Which.
        frame: &'static str,
    },
    /// None of the five types.
    #[error("unknown message type")]
    Kind,
    /// Not one MessagePack value within the limits.
    #[error("frame `{frame}`: {source}")]
    Limit {
        /// Which.
        frame: &'static str,
        /// Why.
        source: LimitError,
    },
    /// Another shape than expected.
    #[error("frame `{frame}`: {source}")]
    Shape {
        /// Which.
        frame: &'static str,
        /// What the decoder says.
        source: ShapeError,
    },
    /// A value that no type gave, such as one with too many members.
    #[error("{source}")]
    Repack {
        /// What the encoder says.
        source: EncodeError,
    },
}

/// Packs a value as all our bodies are: see [`super::ser`].
///
/// # Errors
/// When the type has no MessagePack form, such as a whole number beyond 64 bits, or nobody would take it: see [`super::limits`].
pub fn pack<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    pack_within(value, 0, MAX_BODY)
}

/// Packs a value for a node, whose sockets take less than those of services. `around`: how many levels it will be put into further on.
///
/// # Errors
/// As [`pack`].
pub fn pack_for_node<T: Serialize + ?Sized>(
    value: &T,
    around: usize,
) -> Result<Vec<u8>, EncodeError> {
    pack_within(value, around, MAX_FRAME)
}

/// [`pack`] inside of so many levels, and into no more than so many bytes.
pub(super) fn pack_within<T: Serialize + ?Sized>(
    value: &T,
    around: usize,
    limit: usize,
) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::with_capacity(128);
    value.serialize(&mut Encoder::new(&mut bytes, around))?;
    match bytes.len() {
        size if size > limit => Err(LimitError::Size { size, limit }.into()),
        _ => Ok(bytes),
    }
}

/// Unpacks exactly one value that fills `bytes`.
///
/// # Errors
/// When it breaks a limit or has another shape.
pub fn unpack<T: DeserializeOwned>(bytes: &[u8], frame: &'static str) -> Result<T, DecodeError> {
    limits::check(bytes).map_err(|source| DecodeError::Limit { frame, source })?;
    let shape = |source| DecodeError::Shape { frame, source };
    let mut decoder = Decoder::new(bytes);
    let value = T::deserialize(&mut decoder).map_err(shape)?;
    decoder.finish().map_err(shape)?;
    Ok(value)
}

/// A new id: 32 hex digits that nobody can guess who has seen others, since an answer is known by the id alone.
pub fn new_id() -> String {
    // SipHash of a counter under keys of the system's randomness: a uuid4 would ask the system each time.
    thread_local!(static KEYS: RandomState = RandomState::new());
    thread_local!(static NEXT: Cell<u64> = const { Cell::new(0) });
    let next = NEXT.replace(NEXT.get().wrapping_add(1));
    let [high, low] = KEYS.with(|keys| [keys.hash_one((next, 0_u8)), keys.hash_one((next, 1_u8))]);
    let digits = high.to_be_bytes().into_iter().chain(low.to_be_bytes());
    let mut id = String::with_capacity(32);
    for byte in digits {
        id.push(HEX[usize::from(byte >> 4)]);
        id.push(HEX[usize::from(byte & 0xf)]);
    }
    id
}

const HEX: [char; 16] =
    ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];

impl Message {
    /// A call of `interface.method` with packed arguments.
    pub fn request(subject: &str, body: Vec<u8>) -> Self {
        Self {
            id: new_id(),
            kind: Kind::Request,
            subject: subject.to_owned(),
            headers: Headers { trace_id: Some(new_id()), ..Headers::default() },
            body,
        }
    }

    /// An answer to the request with this id, under its trace.
    pub fn answer(kind: Kind, request: &str, trace_id: Option<String>, body: Vec<u8>) -> Self {
        Self {
            id: new_id(),
            kind,
            subject: request.to_owned(),
            headers: Headers { trace_id, ..Headers::default() },
            body,
        }
    }

    /// Reads five frames.
    ///
    /// # Errors
    /// See [`DecodeError`]; the body is checked against the limits but not unpacked.
    pub fn decode<F: AsRef<[u8]>>(frames: &[F]) -> Result<Self, DecodeError> {
        let [id, kind, subject, headers, body] = frames else {
            return Err(DecodeError::FrameCount { count: frames.len() });
        };
        let body = body.as_ref();
        limits::check(body).map_err(|source| DecodeError::Limit { frame: "body", source })?;
        Ok(Self {
            id: text(id.as_ref(), "id")?,
            kind: Kind::parse(kind.as_ref()).ok_or(DecodeError::Kind)?,
            subject: text(subject.as_ref(), "subject")?,
            headers: read_headers(headers.as_ref())?,
            body: body.to_vec(),
        })
    }

    /// The id of a request that cannot be read as a whole, to refuse it by.
    pub fn salvage_id<F: AsRef<[u8]>>(frames: &[F]) -> Option<String> {
        let [id, kind, ..] = frames else { return None };
        if Kind::parse(kind.as_ref()) != Some(Kind::Request) {
            return None;
        }
        text(id.as_ref(), "id").ok().filter(|id| !id.is_empty())
    }

    /// The trace of a message whose body cannot be read.
    pub fn salvage_trace<F: AsRef<[u8]>>(frames: &[F]) -> Option<String> {
        read_headers(frames.get(3)?.as_ref()).ok()?.trace_id
    }

    /// The id of the request that unreadable frames answer, as far as they say it.
    pub fn salvage_subject<F: AsRef<[u8]>>(frames: &[F]) -> Option<&str> {
        let [_, kind, subject, ..] = frames else { return None };
        if Kind::parse(kind.as_ref()) == Some(Kind::Request) {
            return None;
        }
        std::str::from_utf8(subject.as_ref()).ok()
    }

    /// The five frames.
    pub fn encode(self) -> Vec<Vec<u8>> {
        let mut headers = Vec::with_capacity(80);
        write_headers(&self.headers, &mut headers);
        vec![
            self.id.into_bytes(),
            self.kind.as_str().as_bytes().to_vec(),
            self.subject.into_bytes(),
            headers,
            self.body,
        ]
    }

    /// Appends the message as ZMTP frames. `headers` is memory that is used again and again.
    pub fn write_to(&self, out: &mut Vec<u8>, headers: &mut Vec<u8>) {
        headers.clear();
        write_headers(&self.headers, headers);
        let frames: [&[u8]; FRAMES] = [
            self.id.as_bytes(),
            self.kind.as_str().as_bytes(),
            self.subject.as_bytes(),
            headers,
            &self.body,
        ];
        zmtp::write_message(out, &frames);
    }

    /// The body as a type.
    ///
    /// # Errors
    /// When it has another shape.
    pub fn unpack<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        unpack(&self.body, "body")
    }

    /// Interface and method of a request's subject: the method is what follows the last dot.
    pub fn interface_and_method(&self) -> Option<(&str, &str)> {
        self.subject.rsplit_once('.')
    }
}

fn text(frame: &[u8], name: &'static str) -> Result<String, DecodeError> {
    if frame.len() > MAX_TEXT {
        return Err(DecodeError::Text { frame: name });
    }
    match std::str::from_utf8(frame) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(DecodeError::Text { frame: name }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADERS: &[u8] = b"\x82\xa7version\xc0\xa8trace_id\xa6abcdef";

    fn frames(parts: [&[u8]; 5]) -> Vec<Vec<u8>> {
        parts.iter().map(|part| part.to_vec()).collect()
    }

    #[test]
    fn a_request_of_a_python_service_is_read_and_written_alike() {
        let bytes = frames([
            b"ab8489be31a7485d979a6b2d4fd0d24e",
            b"REQ",
            b"fake.echo",
            HEADERS,
            b"\x81\xa4text\xa3foo",
        ]);
        let message = Message::decode(&bytes).unwrap();
        assert_eq!(message.kind, Kind::Request);
        assert_eq!(message.interface_and_method(), Some(("fake", "echo")));
        assert_eq!(message.headers.trace_id.as_deref(), Some("abcdef"));
        assert_eq!(
            message.unpack::<serde_json::Value>().unwrap(),
            serde_json::json!({"text": "foo"})
        );
        assert_eq!(message.encode(), bytes);
    }

    #[test]
    fn bytes_of_a_python_2_peer_are_taken_as_text() {
        let bytes = frames([
            b"1",
            b"ERROR",
            b"2",
            b"\x82\xc4\x07version\xc0\xc4\x08trace_id\xc4\x02tt",
            b"\x82\xc4\x04type\xc4\x05usage\xc4\x07message\xc4\x01m",
        ]);
        let message = Message::decode(&bytes).unwrap();
        assert_eq!(message.headers.trace_id.as_deref(), Some("tt"));
        let fault: crate::protocol::control::Fault = message.unpack().unwrap();
        assert_eq!((fault.code.as_str(), fault.message.as_str()), ("usage", "m"));
    }

    #[test]
    fn what_kills_a_real_receiver_is_only_an_error_here() {
        let bad = |headers: &[u8], body: &[u8]| {
            Message::decode(&frames([b"1", b"REQ", b"a.b", headers, body])).unwrap_err()
        };
        for headers in [&b"\xc0"[..], b"\x90", b"\x92\xa1a\xa1b", b"\xa1x", b""] {
            assert!(
                matches!(
                    bad(headers, NIL),
                    DecodeError::Shape { frame: "headers", .. }
                        | DecodeError::Limit { frame: "headers", .. }
                ),
                "{headers:?}"
            );
        }
        assert!(matches!(bad(HEADERS, b"\xc0\xc0"), DecodeError::Limit { frame: "body", .. }));
        assert!(matches!(bad(HEADERS, b""), DecodeError::Limit { .. }));
    }

    #[test]
    fn frames_are_counted_and_typed() {
        assert!(matches!(Message::decode(&[b"1"]), Err(DecodeError::FrameCount { count: 1 })));
        assert!(matches!(
            Message::decode(&frames([b"1", b"HUH", b"s", HEADERS, NIL])),
            Err(DecodeError::Kind)
        ));
        assert!(matches!(
            Message::decode(&frames([b"\xff", b"REQ", b"s", HEADERS, NIL])),
            Err(DecodeError::Text { frame: "id" })
        ));
        let long = vec![b'x'; MAX_TEXT + 1];
        assert!(matches!(
            Message::decode(&frames([b"1", b"REQ", &long, HEADERS, NIL])),
            Err(DecodeError::Text { frame: "subject" })
        ));
    }

    #[test]
    fn only_a_broken_request_is_worth_refusing() {
        assert_eq!(Message::salvage_id(&[&b"7"[..], b"REQ", b"x"]), Some("7".to_owned()));
        assert_eq!(Message::salvage_id(&[&b"7"[..], b"REP", b"x"]), None);
        assert_eq!(Message::salvage_id(&[b"7"]), None);
        let broken = frames([b"7", b"REQ", b"a.b", HEADERS, b"\xc1"]);
        assert_eq!(Message::salvage_trace(&broken).as_deref(), Some("abcdef"));
        assert_eq!(Message::salvage_trace(&broken[..3]), None);
    }

    fn any_kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::Request),
            Just(Kind::Reply),
            Just(Kind::Ack),
            Just(Kind::Nack),
            Just(Kind::Error)
        ]
    }

    proptest! {
        #[test]
        fn any_frames_get_an_answer(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..7),
        ) {
            let _ = Message::decode(&frames);
            let _ = Message::salvage_id(&frames);
        }

        #[test]
        fn any_headers_and_body_get_an_answer(
            headers in proptest::collection::vec(any::<u8>(), 0..64),
            body in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let frames = frames([b"1", b"REQ", b"a.b", &headers, &body]);
            if let Ok(message) = Message::decode(&frames) {
                let _ = message.unpack::<serde_json::Value>();
                let _ = message.unpack::<crate::protocol::control::Targets>();
            }
        }

        #[test]
        fn what_is_written_is_read(
            kind in any_kind(), id in ".{1,40}", subject in ".{1,40}",
            trace_id in proptest::option::of(".{0,40}"), body in proptest::collection::vec(any::<i64>(), 0..20),
        ) {
            let message = Message {
                id, kind, subject, headers: Headers { trace_id, ..Headers::default() }, body: pack(&body).unwrap(),
            };
            prop_assert_eq!(Message::decode(&message.clone().encode()).unwrap(), message);
        }
    }
}
