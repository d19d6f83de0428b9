//! Codecs of the wire formats; no sockets.
