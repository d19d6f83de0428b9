//! What tests of the log begin with.
#![allow(dead_code, reason = "each test binary uses its own part")]

use hilum_shared::config::spec::{Color, LevelFrom, LogPolicy, LogsSpec, Multiline, Overflow};
use hilum_shared::units::Bytes;

/// A store of this budget with segments of this size, which looks at nothing else.
pub(crate) fn spec(budget: u64, segment: u64) -> LogsSpec {
    LogsSpec {
        dir: None,
        budget: Bytes(budget),
        keep_free: 0.0,
        segment: Bytes(segment),
        max_age: None,
        compress: false,
        overflow: Overflow::Block,
    }
}

/// How output is read where the file says nothing.
pub(crate) fn policy() -> LogPolicy {
    LogPolicy {
        max_line: Bytes(64 * 1024),
        level_from: LevelFrom::Auto,
        multiline: Multiline::Auto,
        color: Color::Keep,
        rate: None,
        file: None,
    }
}
