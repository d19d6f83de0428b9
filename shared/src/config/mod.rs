//! From YAML to [`spec::Cluster`].
//!
//! ```text
//! text ─ raw ─► tree ─ load: includes, variables, defaults ─► tree ─ shape: keys, types, defaults of the table ─► tree
//!                                                                    ─ build ─► spec ─ validate: cross checks ─► Loaded
//! ```
//! The `tree` is the document with every key's and value's place. [`keys`] is the one table of what may be
//! written; reader, defaults, JSON Schema and reference are made of it. What is wrong is collected in
//! a [`Diagnostics`], so that all of it is shown at once.

mod build;
pub mod cron;
mod diagnostic;
pub mod dotenv;
pub mod edit;
pub mod keys;
mod load;
mod raw;
mod read;
mod recover;
mod schema;
pub mod service;
mod shape;
mod source;
pub mod spec;
#[cfg(test)]
mod table_tests;
pub mod template;
mod tree;
mod validate;
mod variables;

pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use keys::service::MAX_PROCESSES;
pub use load::{LoadOptions, Loaded, NAMES, OVERRIDE, VARS, find_in, load};
pub use schema::schema;

/// The commented configuration that `hilum init` writes.
pub fn starter() -> &'static str {
    include_str!("starter.yml")
}

/// The YAML text of a value, as `hilum config` shows it.
pub fn render(value: &impl serde::Serialize) -> String {
    // Only a map with a map as its key cannot be written, and no key of ours is one.
    serde_yaml::to_string(value).unwrap_or_default()
}

/// The value at a dotted key such as `instances.web.stop.timeout` or `sockets.0.port`.
pub fn lookup<'a>(resolved: &'a serde_yaml::Value, key: &str) -> Option<&'a serde_yaml::Value> {
    if key.is_empty() {
        return Some(resolved);
    }
    // A key may hold dots itself: the longest one that is there is taken.
    if let Some(found) = resolved.get(key) {
        return Some(found);
    }
    let ends = key.match_indices('.').map(|(at, _)| at);
    ends.rev().find_map(|at| {
        let (head, rest) = (&key[..at], &key[at + 1..]);
        let inner = match resolved.as_sequence() {
            Some(items) => items.get(head.parse::<usize>().ok()?)?,
            None => resolved.get(head)?,
        };
        match inner.as_sequence() {
            Some(items) if !rest.contains('.') => items.get(rest.parse::<usize>().ok()?),
            _ => lookup(inner, rest),
        }
    })
}
