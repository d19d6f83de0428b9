//! The ZeroMQ thread and its typed sockets.
