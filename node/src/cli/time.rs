//! Times as people give and read them on the command line.

use std::time::Duration;

use hilum_shared::units::{format_duration, parse_duration};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A number of at least so many is a time and no duration: 1973, or three years.
const UNIX: f64 = 1e8;

/// Parses `--since` and `--until`: `5m` or `-5m` (ago), Unix seconds (`0`: all there is, `@86400`, `1795720400.25`), `now`, `today`, `yesterday`, a time of today (`14:30`),
/// a date, or a timestamp with or without zone (local time where it has none). Returns Unix seconds.
///
/// # Errors
/// A sentence that lists what may be written.
pub(crate) fn parse_moment(text: &str, now: Timestamp, zone: &TimeZone) -> Result<f64, String> {
    let text = text.trim();
    let seconds = |at: Timestamp| at.as_nanosecond() as f64 / 1e9;
    // `--json` says `at` in Unix seconds; no duration is three years long without saying so.
    let unix = text.strip_prefix('@').unwrap_or(text);
    if let Ok(at) = unix.parse::<f64>()
        && at.is_finite()
        && (unix != text || at >= UNIX || at == 0.0)
    {
        return Ok(at);
    }
    if let Ok(ago) = parse_duration(text.strip_prefix('-').unwrap_or(text)) {
        return Ok(seconds(now) - ago.as_secs_f64());
    }
    let today = now.to_zoned(zone.clone()).date();
    let local =
        |at: jiff::civil::DateTime| at.to_zoned(zone.clone()).map(|z| seconds(z.timestamp()));
    let parsed = match text {
        "now" => return Ok(seconds(now)),
        "today" => local(today.at(0, 0, 0, 0)),
        "yesterday" => today.yesterday().and_then(|day| local(day.at(0, 0, 0, 0))),
        _ => {
            if let Ok(at) = text.parse::<Timestamp>() {
                return Ok(seconds(at));
            }
            // a time is also read out of a whole timestamp, so what has a date must be tried as one
            if text.contains('-') {
                text.parse::<jiff::civil::DateTime>().and_then(local)
            } else {
                text.parse::<jiff::civil::Time>().and_then(|time| local(today.to_datetime(time)))
            }
        }
    };
    parsed.map_err(|_| {
        format!("`{text}` is no time: write `5m` (ago), `2h30m`, `14:30`, `2026-11-21`, `2026-11-21T03:42:11Z` or Unix seconds")
    })
}

/// clap's parser of a moment.
pub(crate) fn moment(text: &str) -> Result<f64, String> {
    parse_moment(text, Timestamp::now(), &TimeZone::system())
}

/// clap's parser of a duration.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

/// Seconds for people: `12s`, `3m12s`.
pub(crate) fn seconds(value: f64) -> String {
    let duration = Duration::try_from_secs_f64(value.max(0.0)).unwrap_or(Duration::ZERO);
    format_duration(duration)
}

/// Unix seconds in local time: `2026-11-21 03:42:11.123`.
pub(crate) fn local(at: f64) -> String {
    format_at(at, &TimeZone::system())
}

/// Unix seconds in this zone.
pub(crate) fn format_at(at: f64, zone: &TimeZone) -> String {
    match Timestamp::from_microsecond((at * 1e6) as i64) {
        Ok(stamp) => stamp.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(),
        Err(_) => at.to_string(),
    }
}

/// Now, in Unix seconds.
pub(crate) fn now() -> f64 {
    Timestamp::now().as_microsecond() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Result<i64, String> {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        parse_moment(text, now, &zone).map(|seconds| seconds as i64)
    }

    fn unix(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    #[test]
    fn a_duration_is_so_long_ago() {
        assert_eq!(at("5m").unwrap(), unix("2026-11-21T11:55:00Z"));
        assert_eq!(at("2h30m").unwrap(), unix("2026-11-21T09:30:00Z"));
        assert_eq!(at("10").unwrap(), unix("2026-11-21T11:59:50Z"));
    }

    #[test]
    fn unix_seconds_are_that_moment() {
        assert_eq!(at("1795720400").unwrap(), 1_795_720_400);
        assert_eq!(at("1795720400.75").unwrap(), 1_795_720_400);
        assert_eq!(at("@86400").unwrap(), 86_400);
        assert_eq!(at("0"), Ok(0), "from the beginning, not from now on");
        assert_eq!(at("0s").unwrap(), unix("2026-11-21T12:00:00Z"));
        assert_eq!(at("-5m"), at("5m"));
        assert!(at("@x").is_err());
    }

    #[test]
    fn times_without_a_zone_are_local() {
        assert_eq!(at("10:30").unwrap(), unix("2026-11-21T09:30:00Z"));
        assert_eq!(at("2026-11-20").unwrap(), unix("2026-11-19T23:00:00Z"));
        assert_eq!(at("2026-11-20 08:00").unwrap(), unix("2026-11-20T07:00:00Z"));
        assert_eq!(at("2026-11-20T08:00:00Z").unwrap(), unix("2026-11-20T08:00:00Z"));
        assert_eq!(at("yesterday").unwrap(), unix("2026-11-19T23:00:00Z"));
        assert_eq!(at("now").unwrap(), unix("2026-11-21T12:00:00Z"));
    }

    #[test]
    fn nonsense_says_what_may_be_written() {
        assert!(at("soon").unwrap_err().contains("`5m` (ago)"));
        assert!(at("25:99").is_err());
    }

    #[test]
    fn moments_are_shown_with_milliseconds() {
        let zone = TimeZone::UTC;
        assert_eq!(format_at(1_795_232_531.25, &zone), "2026-11-21 03:42:11.250");
    }
}
