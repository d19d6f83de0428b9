//! Where a path really leads: the links on the way, and the place where it ends or stops to exist.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// The way to a path. All paths are absolute and free of links but for their last part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    /// The links that are followed, each of which may be set anew.
    pub(super) links: Vec<PathBuf>,
    /// The end; where something is missing, the first place that is.
    pub(super) end: PathBuf,
    /// Whether the end is the whole path.
    pub(super) exists: bool,
}

impl Way {
    pub(super) fn to(path: &Path) -> Self {
        let mut way = Self { links: Vec::new(), end: PathBuf::from("/"), exists: true };
        let mut left: VecDeque<OsString> = parts(path).collect();
        while let Some(part) = left.pop_front() {
            if part == ".." {
                way.end.pop();
                continue;
            }
            way.end.push(part);
            let Ok(metadata) = way.end.symlink_metadata() else {
                way.exists = false;
                return way;
            };
            if !metadata.is_symlink() {
                continue;
            }
            let Some(target) = way.end.read_link().ok().filter(|_| way.links.len() < MAX_LINKS)
            else {
                way.exists = false;
                return way;
            };
            way.links.push(way.end.clone());
            way.end.pop();
            if target.is_absolute() {
                way.end = PathBuf::from("/");
            }
            for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                left.push_front(part);
            }
        }
        way
    }

    /// The places whose change makes the path lead elsewhere, or begin or cease to exist.
    pub(super) fn places(&self) -> impl Iterator<Item = &PathBuf> {
        self.links.iter().chain([&self.end])
    }
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_through_links_tells_each_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::fs::create_dir(real.join("v1")).unwrap();
        std::fs::write(real.join("v1/c.yml"), "").unwrap();
        symlink("v1", real.join("data")).unwrap();
        symlink("data/c.yml", real.join("c.yml")).unwrap();
        let way = Way::to(&real.join("c.yml"));
        assert_eq!(way.links, [real.join("c.yml"), real.join("data")]);
        assert_eq!((way.end, way.exists), (real.join("v1/c.yml"), true));
    }

    #[test]
    fn a_missing_path_ends_where_it_stops_to_exist() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        let way = Way::to(&real.join("a/b/c"));
        assert_eq!((way.end, way.exists), (real.join("a"), false));
    }

    #[test]
    fn a_circle_of_links_ends() {
        let dir = tempfile::tempdir().unwrap();
        symlink("x", dir.path().join("x")).unwrap();
        assert!(!Way::to(&dir.path().join("x")).exists);
    }
}
