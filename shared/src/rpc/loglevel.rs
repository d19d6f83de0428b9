//! What `lymph.change_loglevel` is asked for, of a service as of a node.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The arguments of `lymph.change_loglevel`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeLoglevel {
    /// The logger; empty = all.
    #[serde(default)]
    pub qualname: String,
    /// A name such as `DEBUG`.
    pub loglevel: String,
    /// Seconds, as they came: see [`ChangeLoglevel::lasts`].
    #[serde(default = "a_minute")]
    pub period: f64,
}

/// lymph's default.
fn a_minute() -> f64 {
    60.0
}

/// A period that is none.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("`period` is {0}, and has to be a number of seconds from 0 on, such as 60")]
pub struct NoPeriod(f64);

impl ChangeLoglevel {
    /// How long the level is to hold.
    ///
    /// # Errors
    /// When the period is below 0, no number, or endless.
    pub fn lasts(&self) -> Result<Duration, NoPeriod> {
        Duration::try_from_secs_f64(self.period).map_err(|_| NoPeriod(self.period))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_a_number_of_seconds_from_0_on() {
        let of =
            |period| ChangeLoglevel { qualname: String::new(), loglevel: String::new(), period };
        assert_eq!(of(1.5).lasts(), Ok(Duration::from_millis(1500)));
        assert_eq!(of(0.0).lasts(), Ok(Duration::ZERO));
        for wrong in [-2.0, f64::NAN, f64::INFINITY] {
            let error = of(wrong).lasts().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`period` is {wrong}, and")), "{error}");
        }
    }
}
