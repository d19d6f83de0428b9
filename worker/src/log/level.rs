//! Which events are let through, and changing that for a while.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hilum_shared::protocol::Level;
use tokio::time::Instant;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, reload};

/// Changes that may be in force at once; a further one takes the place of the oldest.
const MAX_CHANGES: usize = 64;
/// The longest that a change lasts.
const MAX_PERIOD: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why a level is not changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LevelError {
    /// No word for a level.
    #[error("`{level}` is no level: DEBUG, INFO, WARNING, ERROR, CRITICAL or TRACE")]
    Level {
        /// What was given.
        level: String,
    },
    /// No name of a logger.
    #[error("`{logger}` is no name of a logger")]
    Logger {
        /// What was given.
        logger: String,
    },
    /// Neither 0 nor more.
    #[error("{0} is no period in seconds")]
    Period(f64),
    /// The author's own subscriber filters.
    #[error("the levels of this process are its author's own business")]
    NotOurs,
}

/// A logger, its level, and until when.
#[derive(Clone, Debug)]
struct Change {
    logger: String,
    level: LevelFilter,
    until: Instant,
}

/// The filter of this process.
struct Levels {
    base: String,
    changes: Vec<Change>,
    /// Puts another filter into the subscriber.
    set: Box<dyn Fn(EnvFilter) + Send>,
}

static LEVELS: Mutex<Option<Levels>> = Mutex::new(None);

fn levels() -> MutexGuard<'static, Option<Levels>> {
    LEVELS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is let through from the start on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Start {
    /// What the configuration says, in the form of `RUST_LOG`, which stands above it.
    pub(crate) configured: String,
    /// From which level on, above both.
    pub(crate) level: Option<String>,
}

impl Start {
    /// In the form of `RUST_LOG`; of two words for the same the latter counts.
    fn directives(self, rust_log: Option<String>) -> String {
        let mut directives = rust_log.filter(|text| !text.is_empty()).unwrap_or(self.configured);
        if let Some(level) = self.level {
            directives.push(',');
            directives.push_str(&level);
        }
        directives
    }
}

/// The word of `tracing` for a level of lymph or `TRACE`, in capital letters or not.
///
/// # Errors
/// When it is none.
pub(crate) fn level_word(text: &str) -> Result<String, LevelError> {
    let filter = match text.to_ascii_lowercase().as_str() {
        "trace" => LevelFilter::TRACE,
        word => match Level::parse(word) {
            Some(Level::Debug) => LevelFilter::DEBUG,
            Some(Level::Info) => LevelFilter::INFO,
            Some(Level::Warning) => LevelFilter::WARN,
            Some(Level::Error | Level::Critical) => LevelFilter::ERROR,
            None => return Err(LevelError::Level { level: text.to_owned() }),
        },
    };
    Ok(filter.to_string())
}

/// The filter for a new subscriber and the way to change it: everything from `info` on, where nothing else is said.
pub(super) fn filter<S: Subscriber>(start: Start) -> (reload::Layer<EnvFilter, S>, impl FnOnce()) {
    let base = start.directives(std::env::var("RUST_LOG").ok());
    let (layer, handle) = reload::Layer::new(parse(&base, &[]));
    let install = move || {
        // A subscriber that is gone needs no filter.
        let set = Box::new(move |filter| drop(handle.reload(filter)));
        *levels() = Some(Levels { base, changes: Vec::new(), set });
    };
    (layer, install)
}

fn parse(base: &str, changes: &[Change]) -> EnvFilter {
    let mut filter =
        EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse_lossy(base);
    for change in changes {
        let text = match change.logger.as_str() {
            "" => change.level.to_string(),
            logger => format!("{logger}={}", change.level),
        };
        if let Ok(directive) = text.parse() {
            filter = filter.add_directive(directive);
        }
    }
    filter
}

/// Lets a logger's events through from `level` on, for `period` seconds; then what was before holds again. An empty name means
/// all loggers; dots in a name mean `::`.
///
/// # Errors
/// See [`LevelError`].
pub fn change(logger: &str, level: &str, period: f64) -> Result<(), LevelError> {
    let filter = level_word(level)?.parse().unwrap_or(LevelFilter::INFO);
    let name = logger.replace('.', "::");
    let good = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | ':');
    if name.len() > 256 || !name.chars().all(good) {
        return Err(LevelError::Logger { logger: logger.to_owned() });
    }
    let lasts = Duration::try_from_secs_f64(period)
        .map_err(|_| LevelError::Period(period))?
        .min(MAX_PERIOD);
    let until = Instant::now() + lasts;
    {
        let mut levels = levels();
        let levels = levels.as_mut().ok_or(LevelError::NotOurs)?;
        levels.changes.retain(|change| change.logger != name);
        if levels.changes.len() == MAX_CHANGES {
            levels.changes.remove(0);
        }
        levels.changes.push(Change { logger: name, level: filter, until });
        levels.apply();
    }
    tokio::spawn(async move {
        tokio::time::sleep_until(until).await;
        if let Some(levels) = levels().as_mut() {
            levels.changes.retain(|change| change.until > until);
            levels.apply();
        }
    });
    Ok(())
}

impl Levels {
    fn apply(&self) {
        (self.set)(parse(&self.base, &self.changes));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// The one test that uses the process' filter.
    #[tokio::test(start_paused = true)]
    async fn a_change_takes_effect_and_falls_back() {
        assert_eq!(change("", "DEBUG", 1.0), Err(LevelError::NotOurs));
        let shown = Arc::new(Mutex::new(String::new()));
        let seen = Arc::clone(&shown);
        *levels() = Some(Levels {
            base: "warn".into(),
            changes: Vec::new(),
            set: Box::new(move |filter| *seen.lock().unwrap() = filter.to_string()),
        });
        let now = || shown.lock().unwrap().clone();
        change("my.part", "debug", 60.0).unwrap();
        change("", "ERROR", 10.0).unwrap();
        assert!(now().contains("my::part=debug") && now().contains("error"), "{}", now());
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert!(
            now().contains("my::part=debug") && now().contains("warn") && !now().contains("error"),
            "{}",
            now()
        );
        // The later change of a logger holds, also when the earlier one's time is over.
        change("my.part", "INFO", 100.0).unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(now().contains("my::part=info"), "{}", now());
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(now(), "warn");
        assert!(matches!(change("", "loud", 1.0), Err(LevelError::Level { .. })));
        assert!(matches!(change("a b", "info", 1.0), Err(LevelError::Logger { .. })));
        assert!(matches!(change("a", "info", -1.0), Err(LevelError::Period(_))));
        assert!(matches!(change("a", "info", f64::NAN), Err(LevelError::Period(_))));
        change("a", "info", 1e300).unwrap_err();
    }
}
