//! The node's ZeroMQ endpoints and the notify socket.
