//! Times of cron: five fields in the machine's local time.
//!
//! A time that the clock jumps over in spring is run after the jump, one that comes twice in autumn once.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Why a text is no time of cron.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// It does not parse.
    #[error("`{expression}` is no time of cron: {reason}")]
    Syntax {
        /// What was given.
        expression: String,
        /// What the parser says.
        reason: String,
    },
    /// It never comes.
    #[error("`{expression}` never comes")]
    Never {
        /// What was given.
        expression: String,
    },
}

fn parse(expression: &str) -> Result<Cron, CronError> {
    let error = |reason: String| CronError::Syntax {
        expression: expression.chars().take(60).collect(),
        reason,
    };
    let fields = expression.split_whitespace().count();
    if fields != 5 && !expression.trim().starts_with('@') {
        return Err(error(format!("it has {fields} fields in place of five")));
    }
    CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build()
        .parse(expression)
        .map_err(|e| error(plain(&e.to_string())))
}

/// The parser's words in our manner: lower case, no full stop, without its own classification.
fn plain(text: &str) -> String {
    let text = text.rsplit(": ").next().unwrap_or(text);
    text.trim_end_matches('.').to_lowercase()
}

/// Checks that an expression parses and comes at all.
///
/// # Errors
/// When it does not, or never does, such as on 31 February.
pub fn check(expression: &str) -> Result<(), CronError> {
    let cron = parse(expression)?;
    let start = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
    match cron.find_next_occurrence(&start, false) {
        Ok(_) => Ok(()),
        Err(_) => Err(CronError::Never { expression: expression.to_owned() }),
    }
}

/// The next time after `after_unix` (seconds since 1970), in local time; `None` when there is none.
pub fn next(expression: &str, after_unix: f64) -> Option<f64> {
    next_in(expression, after_unix, TimeZone::system())
}

fn next_in(expression: &str, after_unix: f64, zone: TimeZone) -> Option<f64> {
    let cron = parse(expression).ok()?;
    let after = Timestamp::from_second(after_unix.floor() as i64).ok()?;
    let next = cron.find_next_occurrence(&after.to_zoned(zone), false).ok()?;
    Some(next.timestamp().as_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn the_next_time_lies_ahead() {
        let at = |h, m| {
            date(2026, 11, 21)
                .at(h, m, 0, 0)
                .to_zoned(TimeZone::UTC)
                .unwrap()
                .timestamp()
                .as_second() as f64
        };
        let next = |e: &str, after| next_in(e, after, TimeZone::UTC);
        assert_eq!(next("*/5 * * * *", at(3, 0)), Some(at(3, 5)));
        assert_eq!(next("*/5 * * * *", at(3, 4) + 59.9), Some(at(3, 5)));
        assert_eq!(next("0 4 * * *", at(3, 0)), Some(at(4, 0)));
        assert_eq!(next("@hourly", at(3, 1)), Some(at(4, 0)));
    }

    #[test]
    fn the_clocks_of_spring_and_autumn_neither_skip_nor_repeat_a_job() {
        let Ok(zone) = TimeZone::get("Europe/Berlin") else {
            return; // no time zones on this machine
        };
        let unix = |y, mo, d, h, mi| {
            date(y, mo, d).at(h, mi, 0, 0).to_zoned(TimeZone::UTC).unwrap().timestamp().as_second()
                as f64
        };
        // 2026-03-29 02:30 does not exist in Berlin: the job runs after the jump, on that day.
        let spring = next_in("30 2 * * *", unix(2026, 3, 28, 12, 0), zone.clone()).unwrap();
        assert!((unix(2026, 3, 29, 0, 59)..unix(2026, 3, 29, 2, 0)).contains(&spring), "{spring}");
        // 2026-10-25 02:30 comes twice in Berlin: the job runs once.
        let first = next_in("30 2 * * *", unix(2026, 10, 24, 12, 0), zone.clone()).unwrap();
        let second = next_in("30 2 * * *", first, zone).unwrap();
        assert_eq!(first as i64, unix(2026, 10, 25, 0, 30) as i64);
        assert_eq!(second as i64, unix(2026, 10, 26, 1, 30) as i64);
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for text in
            ["", "* * * *", "61 * * * *", "* * * * * *", "a b c d e", "@fortnightly", "0 0 31 2 *"]
        {
            assert!(check(text).is_err(), "{text}");
        }
        for text in ["0 3 * * *", "*/15 8-18 * * MON-FRI", "@daily", "0 0 29 2 *"] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }
}
