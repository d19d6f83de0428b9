//! What is wrong with a configuration, where, and what to do about it.
//!
//! Collected, never thrown: a load goes on as far as it can, so that all errors are shown at once.

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::path::PathBuf;

use serde::Serialize;

use super::recover::Gaps;
use super::source::{Pos, Sources};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but is probably not what was meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in lower case and without a full stop.
    pub message: String,
    /// The file, relative to the project folder where it lies below it.
    pub file: Option<PathBuf>,
    /// From 1.
    pub line: Option<usize>,
    /// From 1, in characters.
    pub column: Option<usize>,
    /// The line itself.
    pub snippet: Option<String>,
    /// How many characters of the line are meant.
    #[serde(skip)]
    pub width: usize,
    /// The key: `instances.web.command`.
    pub path: Option<String>,
    /// What to do.
    pub help: Option<String>,
}

/// All that is wrong, errors and warnings, in the order of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(pub Vec<Diagnostic>);

/// So many errors are told in one line.
const MAX_BRIEF: usize = 3;
/// Longest part of a source line that is shown, in characters.
const MAX_SNIPPET: usize = 120;
/// Longest value that is repeated in a message, in characters.
const MAX_QUOTED: usize = 60;

impl Diagnostics {
    /// Whether one of them is an error.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|d| d.severity == Severity::Error)
    }

    /// The text for people, one paragraph for each; with ANSI colours if asked.
    pub fn render(&self, color: bool) -> String {
        let mut out = String::new();
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            diagnostic.render_to(&mut out, color);
        }
        out
    }

    /// The errors in one line, each with its place; of many the first and how many more there are.
    pub fn brief(&self) -> String {
        let errors: Vec<&Diagnostic> =
            self.0.iter().filter(|one| one.severity == Severity::Error).collect();
        let told = errors.iter().take(MAX_BRIEF).map(|error| match error.place() {
            Some(place) => format!("{} ({place})", error.message),
            None => error.message.clone(),
        });
        let more = errors.len().saturating_sub(MAX_BRIEF);
        let more = (more > 0).then(|| format!("and {more} more"));
        let all: Vec<String> = told.chain(more).collect();
        all.join("; ").lines().collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

impl Diagnostic {
    /// `hilum.yml:3:5`.
    fn place(&self) -> Option<String> {
        let file = self.file.as_ref()?.display();
        Some(match (self.line, self.column) {
            (Some(line), Some(column)) => format!("{file}:{line}:{column}"),
            _ => file.to_string(),
        })
    }

    fn render_to(&self, out: &mut String, color: bool) {
        let paint = |code: &'static str| if color { code } else { "" };
        let (bold, dim, reset) = (paint("\x1b[1m"), paint("\x1b[34m"), paint("\x1b[0m"));
        let (word, hue) = match self.severity {
            Severity::Error => ("error", paint("\x1b[1;31m")),
            Severity::Warning => ("warning", paint("\x1b[1;33m")),
        };
        let message = &self.message;
        let _ = writeln!(out, "{hue}{word}{reset}{bold}: {message}{reset}");
        let gutter = self.line.map_or(1, |line| line.to_string().len());
        if let (Some(line), Some(column), Some(snippet)) = (self.line, self.column, &self.snippet) {
            let (text, before, width) = window(snippet, column - 1, self.width);
            let _ = writeln!(out, "{dim}{:gutter$} │{reset}", "");
            let _ = writeln!(out, "{dim}{line} │{reset} {text}");
            let marks = "^".repeat(width);
            let _ = writeln!(
                out,
                "{dim}{:gutter$} │{reset} {}{hue}{marks}{reset}",
                "",
                " ".repeat(before)
            );
        }
        let origin =
            [self.path.clone(), self.place()].into_iter().flatten().collect::<Vec<_>>().join(", ");
        if !origin.is_empty() {
            let _ = writeln!(out, "{dim}{:gutter$} ╰─{reset} {origin}", "");
        }
        if let Some(help) = &self.help {
            let _ = writeln!(out, "{bold}help{reset}: {help}");
        }
    }
}

/// The part of a line around a column that is shown, with how many characters stand before the mark and its width.
fn window(line: &str, column: usize, width: usize) -> (String, usize, usize) {
    let characters: Vec<char> = line.chars().map(printable).collect();
    let column = column.min(characters.len());
    let first = if column + width.min(40) < MAX_SNIPPET {
        0
    } else {
        column.saturating_sub(MAX_SNIPPET / 2)
    };
    let last = (first + MAX_SNIPPET).min(characters.len());
    let mut text = String::new();
    let mut before = column - first;
    if first > 0 {
        text.push('…');
        before += 1;
    }
    text.extend(&characters[first..last]);
    if last < characters.len() {
        text.push('…');
    }
    (text, before, width.min((last - column.min(last)).max(1)).max(1))
}

/// A character that moves no cursor and changes no colour.
fn printable(character: char) -> char {
    match character {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        // Bidirectional overrides would show the line in another order than it is read.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    }
}

/// A text that may hold parts of a file, made safe for a terminal.
fn clean(text: String) -> String {
    if text.chars().all(|c| printable(c) == c) {
        return text;
    }
    text.chars().map(printable).collect()
}

/// A value as it is repeated in a message: in backticks, short, printable.
pub(crate) fn quote(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_QUOTED).map(printable).collect();
    if text.chars().nth(MAX_QUOTED).is_some() {
        short.push('…');
    }
    format!("`{short}`")
}

/// Names in backticks with commas: `` `a`, `b` or `c` ``.
pub(crate) fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|name| format!("`{name}`")).collect();
            format!("{} or `{last}`", first.join(", "))
        }
    }
}

/// The candidate that `text` was probably meant to be.
pub(crate) fn nearest<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let lower = text.to_ascii_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|candidate| {
            let plain = candidate.to_ascii_lowercase().replace('-', "_");
            (strsim::damerau_levenshtein(&lower, &plain), candidate)
        })
        .filter(|(distance, candidate)| {
            let length = text.chars().count();
            // what has nothing in common with it was not meant
            *distance <= (length.max(candidate.len()) / 3).max(1) && *distance < length
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// One thing that is wrong, before its place is looked up.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    severity: Severity,
    at: Pos,
    path: Option<String>,
    message: String,
    help: Option<String>,
}

impl Problem {
    /// Says what to do.
    pub(crate) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }
}

/// The collector of one load.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: Vec<Problem>,
    errors: usize,
    /// What somebody else found, with its places.
    found: Vec<Diagnostic>,
    /// What could not be read: nothing that may stand there is said to be missing.
    pub(crate) gaps: Gaps,
}

/// More than this many are not worth reading; the count of what was left out is shown.
const MAX_PROBLEMS: usize = 200;

impl Problems {
    /// Notes an error.
    pub(crate) fn error(
        &mut self,
        at: Pos,
        path: &str,
        message: impl Into<String>,
    ) -> &mut Problem {
        self.errors += 1;
        self.push(Severity::Error, at, path, message.into())
    }

    /// Notes a warning.
    pub(crate) fn warning(
        &mut self,
        at: Pos,
        path: &str,
        message: impl Into<String>,
    ) -> &mut Problem {
        self.push(Severity::Warning, at, path, message.into())
    }

    fn push(&mut self, severity: Severity, at: Pos, path: &str, message: String) -> &mut Problem {
        self.list.push(Problem {
            severity,
            at,
            path: (!path.is_empty()).then(|| path.to_owned()),
            message,
            help: None,
        });
        self.list.last_mut().expect("one was pushed just now")
    }

    /// Takes over what another collector has.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.list.append(&mut other.list);
        self.found.append(&mut other.found);
        self.errors += other.errors;
    }

    /// Takes in what somebody else found.
    pub(crate) fn take(&mut self, found: Diagnostics) {
        self.errors += found.0.iter().filter(|one| one.severity == Severity::Error).count();
        self.found.extend(found.0);
    }

    /// How many errors were noted so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// Whether anything was noted of this file.
    pub(crate) fn complained_of(&self, file: u32) -> bool {
        self.list.iter().any(|p| p.at.file() == Some(file))
    }

    /// Looks up all places; what is said twice of one place (`defaults`, anchors) is said once.
    pub(crate) fn finish(mut self, sources: &Sources) -> Diagnostics {
        self.list.sort_by_key(|p| (p.severity, p.at.file().unwrap_or(u32::MAX), p.at.start));
        let mut seen = HashSet::new();
        self.list.retain(|p| {
            let key = (p.at, p.message.clone());
            !p.at.is_some() || seen.insert(key)
        });
        let left_out = self.list.len().saturating_sub(MAX_PROBLEMS);
        self.list.truncate(MAX_PROBLEMS);
        let mut out: Vec<Diagnostic> = self.list.into_iter().map(|p| p.place(sources)).collect();
        out.append(&mut self.found);
        out.sort_by_key(|one| one.severity);
        if left_out > 0 {
            out.push(Diagnostic::bare(Severity::Error, format!("and {left_out} more like these")));
        }
        Diagnostics(out)
    }
}

impl Diagnostic {
    /// One without a place.
    pub(crate) fn bare(severity: Severity, message: String) -> Self {
        Self {
            severity,
            message,
            file: None,
            line: None,
            column: None,
            snippet: None,
            width: 0,
            path: None,
            help: None,
        }
    }
}

impl Problem {
    fn place(self, sources: &Sources) -> Diagnostic {
        let place = sources.place(self.at);
        Diagnostic {
            file: sources.file(self.at).map(|file| file.shown.clone()),
            line: place.as_ref().map(|place| place.line),
            column: place.as_ref().map(|place| place.column),
            width: place.as_ref().map_or(0, |place| place.width),
            snippet: place.map(|place| place.text),
            path: self.path.map(clean),
            help: self.help.map(clean),
            ..Diagnostic::bare(self.severity, clean(self.message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        let known = ["command", "numprocesses", "on_failure"];
        assert_eq!(nearest("comand", known), Some("command"));
        assert_eq!(nearest("num-processes", known), Some("numprocesses"));
        assert_eq!(nearest("on-failure", known), Some("on_failure"));
        assert_eq!(nearest("banana", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn a_long_line_is_shown_around_the_mark() {
        let line = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let (text, before, width) = window(&line, 500, 1);
        assert_eq!(text.chars().nth(before), Some('X'));
        assert_eq!(width, 1);
        assert!(text.chars().count() <= MAX_SNIPPET + 2);
    }

    #[test]
    fn in_brief_errors_are_one_line_with_their_places() {
        let one = |line: usize| Diagnostic {
            file: Some("hilum.yml".into()),
            line: Some(line),
            column: Some(3),
            snippet: Some("  a: b".into()),
            help: Some("do better".into()),
            ..Diagnostic::bare(Severity::Error, format!("wrong {line}"))
        };
        let warning = Diagnostic::bare(Severity::Warning, "odd".into());
        let brief = Diagnostics(vec![one(1), warning, one(2)]).brief();
        assert_eq!(brief, "wrong 1 (hilum.yml:1:3); wrong 2 (hilum.yml:2:3)");
        let brief = Diagnostics((1..=5).map(one).collect()).brief();
        assert!(brief.ends_with("wrong 3 (hilum.yml:3:3); and 2 more"), "{brief}");
        let bare = Diagnostic::bare(Severity::Error, "no file\nat all".into());
        assert_eq!(Diagnostics(vec![bare]).brief(), "no file at all");
    }

    #[test]
    fn nothing_of_a_file_reaches_the_terminal_as_a_control_code() {
        assert_eq!(quote("a\x1b[2Jb"), "`a\u{fffd}[2Jb`");
        let (text, ..) = window("\x1b[31m\tx\u{202e}", 0, 1);
        assert_eq!(text, "\u{fffd}[31m x\u{fffd}");
    }
}
