//! The node's endpoints towards its workers and clients (`docs/protocol.md`).
//!
//! Each decodes on the ZeroMQ thread (`publish` on one of its own), throws away and counts what is not for it, and hands the rest into a bounded
//! channel; none of them decides anything. What happens when a channel is full is written at each.
//!
//! | room | socket | when its consumer is full |
//! |---|---|---|
//! | `control` | ROUTER | the call is refused with a fault |
//! | `shutdown` | XPUB | nothing to consume |
//! | `heartbeat` | ROUTER | the beat is answered and noted, its news waits for the next beat |
//! | `records` | PULL | the socket is not read: workers wait at their high-water mark |
//! | `publish` | XPUB | lines are dropped, and subscribers told how many |
//! | `notify` | datagram | the sender waits in the kernel |
//! | `scrape` | HTTP, where `node.metrics` says so | no more connections are accepted |
//! | `events` | ROUTER | the socket is not read: emitters wait; what the broker has no room for is refused |

pub mod control;
pub mod counters;
pub mod events;
pub mod heartbeat;
pub mod notify;

#[cfg(test)]
mod document;
pub mod publish;
pub mod records;
pub mod roster;
pub(crate) mod scrape;
pub mod shutdown;
#[cfg(test)]
mod testing;

/// Unix seconds, for people and workers; nothing is decided by it.
fn unix_now() -> f64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
