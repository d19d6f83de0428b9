//! The one place that reads clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::core::time::{Moment, Now};

/// Both clocks, the monotonic one counted from the node's start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
}

impl Clock {
    /// Begins to count.
    pub fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// Both clocks now.
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Now { mono: Moment(self.began.elapsed()), wall: wall.as_secs_f64() }
    }

    /// The moment as the timer wants it.
    pub fn instant(&self, at: Moment) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.began + at.0)
    }

    /// How long the node has run.
    pub fn uptime(&self) -> Duration {
        self.began.elapsed()
    }
}
