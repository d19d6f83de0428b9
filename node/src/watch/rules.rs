//! What is passed over: `.gitignore` files, `watch.ignore`, and what editors leave for a moment.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Directories that belong to tools, ours among them.
const FOLDERS: [&str; 2] = [".git", ".hilum"];
/// What editors write beside a file while it is open.
const LEFTOVERS: [&str; 6] = ["*.swp", "*.swx", "*~", ".#*", "#*#", "4913"];

/// The rules of one service. A rule nearer to the file wins, and `watch.ignore` wins over all.
#[derive(Debug)]
pub(super) struct Rules {
    folder: PathBuf,
    own: Gitignore,
    leftovers: Gitignore,
    /// Of this machine's user, and of the repositories.
    general: Vec<Gitignore>,
    /// Where the search for `.gitignore` files upwards ends.
    tops: BTreeSet<PathBuf>,
    by_dir: HashMap<PathBuf, Gitignore>,
}

impl Rules {
    /// Globs of `ignore` follow the rules of `.gitignore` and are relative to the project folder.
    pub(super) fn new(folder: &Path, ignore: &[String]) -> Self {
        let lines = |patterns: &mut dyn Iterator<Item = &str>| {
            let mut builder = GitignoreBuilder::new(folder);
            for pattern in patterns {
                let _ = builder.add_line(None, pattern); // was checked with the configuration
            }
            builder.build().unwrap_or_else(|_| Gitignore::empty())
        };
        Self {
            folder: folder.to_owned(),
            own: lines(&mut ignore.iter().map(|line| line.strip_prefix("./").unwrap_or(line))),
            leftovers: lines(&mut LEFTOVERS.into_iter()),
            general: Vec::new(),
            tops: BTreeSet::new(),
            by_dir: HashMap::new(),
        }
    }

    /// Forgets what the files said.
    pub(super) fn forget(&mut self) {
        self.general = vec![Gitignore::global().0];
        self.tops.clear();
        self.by_dir.clear();
    }

    /// Takes note of where files are looked for; the answer is all directories above, whose rules count, too.
    pub(super) fn begin(&mut self, base: &Path) -> Vec<PathBuf> {
        let top = base.ancestors().find(|dir| dir.join(".git").exists());
        if let Some(top) = top
            && !self.tops.contains(top)
        {
            let mut exclude = GitignoreBuilder::new(top);
            if exclude.add(top.join(".git/info/exclude")).is_none()
                && let Ok(exclude) = exclude.build()
            {
                self.general.push(exclude);
            }
        }
        let top = top
            .unwrap_or(if base.starts_with(&self.folder) { &self.folder } else { base })
            .to_owned();
        let above = base.ancestors().skip(1).take_while(|dir| dir.starts_with(&top));
        let above = above.map(Path::to_owned).collect();
        self.tops.insert(top);
        above
    }

    /// Whether an entry of a directory that is not ignored itself is.
    pub(super) fn ignore(&mut self, path: &Path, is_dir: bool) -> bool {
        let Some(name) = path.file_name() else { return false };
        if is_dir && FOLDERS.iter().any(|folder| name == *folder) {
            return true;
        }
        match self.own.matched(path, is_dir) {
            Match::Ignore(_) => return true,
            Match::Whitelist(_) => return false,
            Match::None => {}
        }
        if self.leftovers.matched(path, is_dir).is_ignore() {
            return true;
        }
        for dir in path.ancestors().skip(1) {
            let rules = self.by_dir.entry(dir.to_owned()).or_insert_with(|| {
                let mut builder = GitignoreBuilder::new(dir);
                let _ = builder.add(dir.join(".gitignore")); // mostly there is none; a bad line does not spoil the others
                builder.build().unwrap_or_else(|_| Gitignore::empty())
            });
            match rules.matched(path, is_dir) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
            if self.tops.contains(dir) {
                break;
            }
        }
        self.general.iter().any(|rules| rules.matched(path, is_dir).is_ignore())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_nearest_rule_wins_and_our_own_wins_over_all() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        fs::create_dir_all(folder.join("src")).unwrap();
        fs::write(folder.join(".gitignore"), "*.log\nbuild/\n").unwrap();
        fs::write(folder.join("src/.gitignore"), "!keep.log\n").unwrap();
        let mut rules = Rules::new(folder, &["*.tmp".into(), "!build".into()]);
        rules.forget();
        assert_eq!(rules.begin(&folder.join("src")), [folder.to_owned()]);
        let mut ignored = |path: &str, is_dir| rules.ignore(&folder.join(path), is_dir);
        assert!(ignored("src/a.log", false));
        assert!(!ignored("src/keep.log", false));
        assert!(ignored("keep.log", false));
        assert!(ignored("src/a.tmp", false));
        assert!(!ignored("build", true), "re-included by our own rule");
        assert!(ignored("src/.a.py.swp", false) && ignored("src/a.py~", false));
        assert!(ignored(".git", true) && ignored(".hilum", true));
        assert!(!ignored("src/a.py", false));
    }

    #[test]
    fn rules_of_the_repository_above_count() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".git/info")).unwrap();
        fs::write(dir.path().join(".git/info/exclude"), "secret\n").unwrap();
        fs::write(dir.path().join(".gitignore"), "/app/out\n").unwrap();
        let folder = dir.path().join("app");
        fs::create_dir(&folder).unwrap();
        let mut rules = Rules::new(&folder, &[]);
        rules.forget();
        rules.begin(&folder);
        assert!(rules.ignore(&folder.join("out"), true));
        assert!(rules.ignore(&folder.join("secret"), false));
    }
}
