//! The files a configuration was read from, and places in them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// A stretch of one file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Pos {
    file: u32,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Pos {
    /// No place: a default of ours, or an option of the command line.
    pub(super) const NONE: Self = Self { file: u32::MAX, start: 0, end: 0 };

    /// A stretch of the file with this number (see [`Sources::add`]).
    pub(super) fn new(file: u32, start: usize, end: usize) -> Self {
        Self { file, start: start as u32, end: end.max(start) as u32 }
    }

    /// Whether this is a place at all.
    pub(super) fn is_some(self) -> bool {
        self != Self::NONE
    }

    /// The number of its file.
    pub(super) fn file(self) -> Option<u32> {
        self.is_some().then_some(self.file)
    }
}

/// One file as it was read.
#[derive(Clone, Debug)]
pub(super) struct SourceFile {
    /// Absolute.
    pub path: PathBuf,
    /// As it is shown: relative to the project folder where it lies below it.
    pub shown: PathBuf,
    /// Its text, without a byte order mark.
    pub text: String,
    /// Where each line starts.
    lines: Vec<usize>,
}

/// A place as people count: line and column from 1, the column in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The whole line.
    pub text: String,
    /// How many characters are meant, at least 1, within this line.
    pub width: usize,
}

/// All files of one load, numbered in the order in which they were read.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    files: Vec<SourceFile>,
}

impl Sources {
    /// Takes a file in and returns its number.
    pub(super) fn add(&mut self, path: PathBuf, base: &Path, text: String) -> u32 {
        let mut lines = vec![0];
        lines.extend(text.match_indices('\n').map(|(at, _)| at + 1));
        let shown = path.strip_prefix(base).map_or_else(|_| path.clone(), Path::to_path_buf);
        self.files.push(SourceFile { path, shown, text, lines });
        self.files.len() as u32 - 1
    }

    /// The file that a place is in.
    pub(super) fn file(&self, pos: Pos) -> Option<&SourceFile> {
        pos.file().and_then(|number| self.files.get(number as usize))
    }

    /// All files.
    pub(super) fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// Another one when any file's name or text is another.
    pub(super) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for file in &self.files {
            (&file.path, &file.text).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// `hilum.yml:12`, for people.
    pub(super) fn origin(&self, pos: Pos) -> String {
        match (self.file(pos), self.place(pos)) {
            (Some(file), Some(place)) => format!("{}:{}", file.shown.display(), place.line),
            _ => "default".to_owned(),
        }
    }

    /// Line and column of a place.
    pub(super) fn place(&self, pos: Pos) -> Option<Place> {
        let file = self.file(pos)?;
        let start = floor(&file.text, pos.start as usize);
        let line = file.lines.partition_point(|at| *at <= start).max(1) - 1;
        let line_start = file.lines[line];
        let text = file.text[line_start..].lines().next().unwrap_or("");
        let column = file.text[line_start..start].chars().count();
        let end = floor(&file.text, pos.end as usize).min(line_start + text.len());
        let width = file.text.get(start..end).map_or(0, |t| t.chars().count());
        Some(Place {
            line: line + 1,
            column: column + 1,
            text: text.to_owned(),
            width: width.max(1),
        })
    }
}

/// The nearest character border at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_lines_and_characters_from_one() {
        let mut sources = Sources::default();
        let file = sources.add("/p/a.yml".into(), Path::new("/p"), "a: 1\nü: 2\n".into());
        let place = sources.place(Pos::new(file, 9, 10)).unwrap();
        assert_eq!((place.line, place.column, place.width), (2, 4, 1));
        assert_eq!(place.text, "ü: 2");
        assert_eq!(sources.origin(Pos::new(file, 9, 10)), "a.yml:2");
    }

    #[test]
    fn a_place_past_the_end_is_the_end() {
        let mut sources = Sources::default();
        let file = sources.add("/p/a.yml".into(), Path::new("/p"), "a".into());
        let place = sources.place(Pos::new(file, 90, 95)).unwrap();
        assert_eq!((place.line, place.column, place.width), (1, 2, 1));
        assert_eq!(sources.place(Pos::NONE), None);
    }
}
