//! The section `logging` of a configuration: what lymph gives to Python's `dictConfig`. Its levels count here; handlers and formatters
//! are Python's.

use std::collections::BTreeMap;

use hilum_shared::config::Diagnostics;
use hilum_shared::config::service::Section;
use serde::Deserialize;

use super::level::level_word;

/// Those of our own loggers that stand for lymph's `lymph`.
const OWN: [&str; 2] = ["hilum_worker", "hilum_shared"];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Written {
    root: Logger,
    loggers: BTreeMap<String, Logger>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Logger {
    level: Option<Level>,
}

/// A word, or one of Python's numbers.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Level {
    Number(u32),
    Word(String),
}

impl Level {
    /// The word of `tracing`; `None` where nothing is said.
    fn word(&self) -> Result<Option<String>, String> {
        let word = match self {
            Self::Number(0) => return Ok(None),
            Self::Number(1..=10) => "debug",
            Self::Number(11..=20) => "info",
            Self::Number(21..=30) => "warning",
            Self::Number(_) => "error",
            Self::Word(word) if word.eq_ignore_ascii_case("notset") => return Ok(None),
            Self::Word(word) => word,
        };
        level_word(word).map(Some).map_err(|error| error.to_string())
    }
}

/// The levels that the section says, in the form of `RUST_LOG`.
///
/// # Errors
/// With what is no level.
pub(crate) fn levels_of(section: &Section) -> Result<String, Diagnostics> {
    let written: Written = section.read()?;
    let mut directives = Vec::new();
    let root = written.root.level.as_ref().map_or(Ok(None), Level::word);
    directives
        .extend(root.map_err(|message| section.get("root").get("level").error(message, None))?);
    for (name, logger) in &written.loggers {
        let level = logger.level.as_ref().map_or(Ok(None), Level::word).map_err(|message| {
            section.get("loggers").get(name).get("level").error(message, None)
        })?;
        let Some(level) = level else { continue };
        if name == "lymph" {
            directives.extend(OWN.map(|own| format!("{own}={level}")));
        } else {
            directives.push(format!("{}={level}", name.replace('.', "::")));
        }
    }
    Ok(directives.join(","))
}

#[cfg(test)]
mod tests {
    use hilum_shared::config::service::{self, ServiceOptions};

    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(".lymph.yml"), text).unwrap();
        let options = ServiceOptions { folder: folder.path().to_owned(), ..Default::default() };
        let config = service::load(&options).unwrap();
        levels_of(&config.get("logging")).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn levels_of_a_file_of_lymph_count() {
        assert_eq!(read("name: x"), Ok(String::new()));
        let file = "logging:
  version: 1
  formatters: {short: {format: '%(message)s'}}
  root: {level: WARNING, handlers: [console]}
  loggers: {lymph: {level: DEBUG}, my.part: {level: 40}, quiet: {level: NOTSET}, other: {propagate: false}}
";
        assert_eq!(
            read(file).unwrap(),
            "warn,hilum_worker=debug,hilum_shared=debug,my::part=error"
        );
        let wrong = read("logging: {loggers: {a: {level: LOUD}}}").unwrap_err();
        assert!(wrong.contains("`LOUD` is no level") && wrong.contains("logging"), "{wrong}");
        assert!(read("logging: {root: {level: [1]}}").is_err());
    }
}
