//! The pure core: it is told what happened ([`input`]) and when, and answers with what to do ([`action`]).
//!
//! No clock, no process, no file, no socket, no randomness: a test guards the wall.

pub mod action;
pub mod event;
pub mod graph;
pub mod input;
pub mod instance;
pub mod output;
pub mod restart;
pub mod target;
pub mod time;
