//! lymph's event: one MessagePack map of `type`, `headers`, `body` and `source`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::limits::MAX_BODY;
use super::message::{DecodeError, EncodeError, pack_within, unpack};
use super::value::{Value, from_value, to_value};

/// The header that carries the trace.
pub const TRACE_ID: &str = "trace_id";
/// The header that says how many more times a handler that failed may try.
pub const RETRY_COUNT: &str = "retry_count";
/// How many maps an event stands in where it is delivered; where it is emitted its own is the outermost.
pub(crate) const DELIVERED: usize = 1;

/// Something that happened, told to whoever wants to know. Keys that are unknown are passed over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What happened: words with dots between them, such as `order.paid`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A map; the trace is in it.
    #[serde(default = "no_headers")]
    pub headers: Value,
    /// What is told, usually a map.
    #[serde(default)]
    pub body: Value,
    /// Who told it.
    #[serde(default)]
    pub source: Option<String>,
}

fn no_headers() -> Value {
    Value::Map(Vec::new())
}

impl Event {
    /// An event without headers.
    ///
    /// # Errors
    /// When the body has no MessagePack form.
    pub fn new<T: Serialize + ?Sized>(
        kind: impl Into<String>,
        body: &T,
    ) -> Result<Self, EncodeError> {
        let body = to_value(body)?;
        Ok(Self { kind: kind.into(), headers: no_headers(), body, source: None })
    }

    /// Reads a packed event.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        unpack(bytes, "event")
    }

    /// Packs it, to be delivered inside of a message.
    ///
    /// # Errors
    /// When nobody could read it there: see [`limits`](super::limits).
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        pack_within(self, DELIVERED, MAX_BODY)
    }

    /// The body as any type.
    ///
    /// # Errors
    /// When it has another shape.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        from_value(&self.body)
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&Value> {
        self.headers.get(name)
    }

    /// Sets a header, in place of one of that name.
    pub fn set_header(&mut self, name: &str, value: Value) {
        if !matches!(self.headers, Value::Map(_)) {
            self.headers = no_headers(); // a peer that has none may send nil
        }
        let Value::Map(entries) = &mut self.headers else { return };
        match entries.iter_mut().find(|(key, _)| key.as_str() == Some(name)) {
            Some((_, old)) => *old = value,
            None => entries.push((Value::Str(name.to_owned()), value)),
        }
    }

    /// The trace that it belongs to.
    pub fn trace_id(&self) -> Option<&str> {
        self.header(TRACE_ID).and_then(Value::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_lymphs_map_in_lymphs_order() {
        let mut event = Event::new("a.b", &7).unwrap();
        event.set_header(TRACE_ID, Value::Str("t".into()));
        event.source = Some("me".into());
        let expected =
            b"\x84\xa4type\xa3a.b\xa7headers\x81\xa8trace_id\xa1t\xa4body\x07\xa6source\xa2me";
        assert_eq!(event.encode().unwrap(), expected);
        assert_eq!(Event::decode(expected).unwrap(), event);
    }

    #[test]
    fn texts_of_python_2_and_absent_parts_are_taken() {
        let event = Event::decode(b"\x82\xc4\x04type\xc4\x01a\xc4\x04body\xc4\x01x").unwrap();
        assert_eq!((event.kind.as_str(), event.trace_id()), ("a", None));
        assert_eq!(event.body::<String>().unwrap(), "x");
        let event = Event::decode(b"\x82\xa4type\xa1a\xa7headers\xc0");
        let mut event = event.unwrap();
        event.set_header(RETRY_COUNT, Value::Int(1));
        assert_eq!(event.header(RETRY_COUNT), Some(&Value::Int(1)));
        assert!(Event::decode(b"\x81\xa4body\xc0").is_err(), "an event has a type");
    }
}
