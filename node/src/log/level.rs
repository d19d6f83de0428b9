//! The seam for levels in plain output: one place that looks at a line and says how grave it is.
//!
//! Structured records bring their level along. Of plain lines only `level_from: json:KEY` and `regex:RE` could
//! be told without guessing; both, and the common forms of `auto`, come with the recogniser. Until then a
//! plain line has no level and counts as INFO.

use hilum_shared::config::spec::LevelFrom;
use hilum_shared::protocol::Level;

/// The level of a plain line, where it is recognised. Called once a line on the fast path: no allocation here.
#[inline]
pub fn of_line(_from: &LevelFrom, _line: &[u8]) -> Option<Level> {
    None
}

/// The level that a worker's record names; unknown names count as INFO.
pub fn of_record(name: &str) -> Level {
    Level::parse(name).unwrap_or(Level::Info)
}
