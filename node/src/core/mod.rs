//! The pure core: it is told what happened ([`input`]) and when, and answers with what to do ([`action`]).
//!
//! No clock, no process, no file, no socket, no randomness: a test guards the wall.

pub mod action;
pub mod event;
pub mod graph;
pub mod input;
pub mod instance;
pub mod operation;
pub mod output;
pub mod plan;
pub mod restart;
pub mod service;
pub mod status;
pub mod supervisor;
pub mod target;
pub mod time;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod wall;
#[cfg(test)]
mod world;
