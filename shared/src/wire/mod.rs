//! Codecs of the wire formats; no sockets.
//!
//! `message` holds lymph's five frames, `limits` what a foreign byte string may be before it is decoded.

pub mod limits;
pub mod message;
