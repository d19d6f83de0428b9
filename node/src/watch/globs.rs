//! One glob of `watch.paths`: where it begins, and what below matches.
//!
//! `*` stays within a name, `**` goes through directories. A path without any wildcard means that file,
//! or all that is below that directory.

use std::path::{Component, Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// One glob.
#[derive(Debug)]
pub(super) struct Glob {
    /// As it is shown, without wildcards: relative to the project folder, or absolute.
    shown: PathBuf,
    /// The same, absolute.
    pub(super) base: PathBuf,
    /// What follows, as a pattern below the base; `None`: everything.
    below: Option<Gitignore>,
    /// So many names below the base at most; `None`: any.
    depth: Option<usize>,
}

impl Glob {
    /// `None` where the pattern cannot be read; the configuration was checked before.
    pub(super) fn new(folder: &Path, pattern: &str) -> Option<Self> {
        let wild = |part: &&str| part.contains(['*', '?', '[', '{', '\\']);
        let parts: Vec<&str> = pattern.split('/').collect();
        let literal = parts.iter().take_while(|part| !wild(part)).count();
        let (head, tail) = parts.split_at(literal);
        let head = if head == [""] { "/".to_owned() } else { head.join("/") };
        let shown = plain(Path::new(&head));
        let base = plain(&folder.join(&shown));
        if tail.is_empty() {
            return Some(Self { shown, base, below: None, depth: None });
        }
        let mut tail = tail.join("/");
        if tail.ends_with('/') {
            tail.push_str("**");
        }
        // The base is a placeholder here: what is matched is relative to it.
        let mut matcher = GitignoreBuilder::new("/");
        matcher.add_line(None, &format!("/{tail}")).ok()?;
        let depth = (!tail.contains("**")).then(|| tail.split('/').count());
        Some(Self { shown, base, below: Some(matcher.build().ok()?), depth })
    }

    /// Whether a file matches; `below` is its path relative to the base.
    pub(super) fn matches(&self, below: &Path) -> bool {
        match &self.below {
            None => true,
            Some(pattern) => below != Path::new("") && pattern.matched(below, false).is_ignore(),
        }
    }

    /// Whether files in a directory may match; `below` is its path relative to the base.
    pub(super) fn enters(&self, below: &Path) -> bool {
        self.depth.is_none_or(|depth| below.components().count() < depth)
    }

    /// How a path below the base is shown.
    pub(super) fn show(&self, below: &Path) -> String {
        let path = self.shown.join(below);
        path.to_string_lossy().trim_end_matches('/').to_owned()
    }
}

/// Without `.` and, where that can be told from the text, without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(plain.components().next_back(), Some(Component::Normal(_))) =>
            {
                plain.pop();
            }
            Component::ParentDir if plain.has_root() => {}
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let glob = Glob::new(Path::new("/p"), pattern).unwrap();
        Path::new(path).strip_prefix(&glob.base).is_ok_and(|below| glob.matches(below))
    }

    #[test]
    fn a_star_stays_within_a_name_and_two_do_not() {
        assert!(matches("*.py", "/p/a.py"));
        assert!(!matches("*.py", "/p/x/a.py"));
        assert!(matches("src/**/*.py", "/p/src/a.py"));
        assert!(matches("src/**/*.py", "/p/src/x/y/a.py"));
        assert!(!matches("src/**/*.py", "/p/a.py"));
        assert!(matches("**", "/p/x/y"));
        assert!(matches("src/*/", "/p/src/x/y"));
        assert!(!matches("src/*", "/p/src/x/y"));
        assert!(matches("{a,b}/*.[ch]", "/p/b/x.c"));
        assert!(matches("#odd!*", "/p/#odd!x"));
    }

    #[test]
    fn a_plain_path_means_the_file_or_all_below() {
        for path in ["./src", "src/", "src", "x/../src", "/p/src"] {
            assert!(matches(path, "/p/src/a/b"), "{path}");
            assert!(matches(path, "/p/src"), "{path}");
            assert!(!matches(path, "/p/other"), "{path}");
        }
        assert!(matches("../lib/*.so", "/lib/x.so"));
        assert!(matches("/*.conf", "/x.conf"));
    }

    #[test]
    fn only_directories_that_may_hold_a_match_are_entered() {
        let flat = Glob::new(Path::new("/p"), "*.py").unwrap();
        assert!(flat.enters(Path::new("")) && !flat.enters(Path::new("x")));
        let deep = Glob::new(Path::new("/p"), "**/*.py").unwrap();
        assert!(deep.enters(Path::new("x/y/z")));
    }

    #[test]
    fn a_path_is_shown_as_it_was_written() {
        let glob = |pattern| Glob::new(Path::new("/p"), pattern).unwrap();
        assert_eq!(glob("./src/**").show(Path::new("a.py")), "src/a.py");
        assert_eq!(glob("app.conf").show(Path::new("")), "app.conf");
        assert_eq!(glob("../x/*").show(Path::new("y")), "../x/y");
    }
}
