//! The fourth frame of a message, read and written.

use serde::{Deserialize, Serialize};

use super::super::limits::MAX_TEXT;
use super::{DecodeError, unpack};

/// The fourth frame. Unknown keys are ignored; absent and nil are the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Headers {
    /// Of the interface that is asked or that answered.
    #[serde(default)]
    pub version: Option<String>,
    /// Of the request that all this belongs to.
    #[serde(default)]
    pub trace_id: Option<String>,
    /// Of a request: seconds that its caller waits. Ours send it and stop working when it is over; lymph passes over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
    /// Of a refusal that we write: nobody was found who could have a version, so there is no word of one.
    #[serde(skip)]
    pub unserved: bool,
}

/// Reads the frame.
pub(super) fn read_headers(frame: &[u8]) -> Result<Headers, DecodeError> {
    let headers: Headers = unpack(frame, "headers")?;
    let too_long = |text: &Option<String>| text.as_ref().is_some_and(|text| text.len() > MAX_TEXT);
    if too_long(&headers.version) || too_long(&headers.trace_id) {
        return Err(DecodeError::Text { frame: "headers" });
    }
    Ok(headers)
}

/// The headers as lymph writes them: by hand, since every message has them.
pub(super) fn write_headers(headers: &Headers, out: &mut Vec<u8>) {
    let text = |out: &mut Vec<u8>, text: Option<&str>| {
        match text.map(|text| (text, text.len())) {
            None => out.push(0xc0),
            Some((_, length @ 0..=31)) => out.push(0xa0 | length as u8),
            Some((_, length @ 32..=0xff)) => out.extend_from_slice(&[0xd9, length as u8]),
            Some((_, length @ 0x100..=0xffff)) => {
                out.push(0xda);
                out.extend_from_slice(&(length as u16).to_be_bytes());
            }
            Some((_, length)) => {
                out.push(0xdb);
                out.extend_from_slice(&(length as u32).to_be_bytes());
            }
        }
        out.extend_from_slice(text.unwrap_or_default().as_bytes());
    };
    out.push(0x81 + u8::from(headers.timeout.is_some()) + u8::from(!headers.unserved));
    if !headers.unserved {
        text(out, Some("version"));
        text(out, headers.version.as_deref());
    }
    text(out, Some("trace_id"));
    text(out, headers.trace_id.as_deref());
    if let Some(timeout) = headers.timeout {
        text(out, Some("timeout"));
        out.push(0xcb);
        out.extend_from_slice(&timeout.to_bits().to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::pack;
    use super::*;

    #[test]
    fn headers_by_hand_are_headers() {
        let long = |count: usize| Some("x".repeat(count));
        for version in [None, long(0), long(31), long(32), long(255), long(256), long(4000)] {
            for timeout in [None, Some(1.5)] {
                let headers = Headers {
                    version: version.clone(),
                    trace_id: long(5),
                    timeout,
                    unserved: false,
                };
                let mut out = Vec::new();
                write_headers(&headers, &mut out);
                assert_eq!(out, pack(&headers).unwrap());
            }
        }
    }
}
