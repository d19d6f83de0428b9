//! Paths as the user named them. Links stay in them, so that one that is switched is followed; only what two spellings of one
//! folder must have in common is without.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// The current folder by the name under which the shell went there (`$PWD`), as `pwd -L` has it.
pub(crate) fn here() -> io::Result<PathBuf> {
    let real = std::env::current_dir()?;
    let told = std::env::var_os("PWD").map(PathBuf::from);
    Ok(told.filter(|told| is_plain(told) && same_folder(told, &real)).unwrap_or(real))
}

/// A path, absolute and without `.` and `..`. What is before a `..` is resolved: where that leads no text tells.
pub(crate) fn named(path: &Path) -> io::Result<PathBuf> {
    let path = here()?.join(path);
    let mut named = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                named = named.canonicalize()?;
                named.pop();
            }
            Component::CurDir => {}
            part => named.push(part),
        }
    }
    Ok(named)
}

/// What all spellings of a file's path have in common: its folder without links, and its name in it. A file that is a link itself
/// keeps its name, whatever it leads to.
pub(crate) fn identity(named: &Path) -> io::Result<PathBuf> {
    let (Some(folder), Some(name)) = (named.parent(), named.file_name()) else {
        return Ok(named.to_owned());
    };
    Ok(folder.canonicalize()?.join(name))
}

/// The name that a folder without links has on the way to `from`, which may lead through links.
pub(crate) fn on_the_way(folder: &Path, from: &Path) -> PathBuf {
    let known = from.ancestors().find(|known| same_folder(known, folder));
    known.unwrap_or(folder).to_owned()
}

fn is_plain(path: &Path) -> bool {
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    path.is_absolute() && path.components().all(plain)
}

fn same_folder(one: &Path, other: &Path) -> bool {
    let file = |path: &Path| path.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
    file(one).is_some_and(|one| file(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_and_what_two_dots_mean_is_looked_up() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(real.join("releases/7/sub")).unwrap();
        std::fs::write(real.join("releases/7/x.yml"), "").unwrap();
        symlink("releases/7", real.join("current")).unwrap();
        symlink("releases/7/x.yml", real.join("linked.yml")).unwrap();
        let is = |path: &str| named(&real.join(path)).unwrap();
        assert_eq!(is("current/./x.yml"), real.join("current/x.yml"));
        assert_eq!(is("current/../x.yml"), real.join("releases/x.yml"));
        assert_eq!(is("releases/../current/x.yml"), real.join("current/x.yml"));
        let known = |path: &str| identity(&real.join(path)).unwrap();
        assert_eq!(known("current/x.yml"), known("releases/7/x.yml"));
        assert_eq!(known("linked.yml"), real.join("linked.yml"));
        let way = on_the_way(&real.join("releases/7"), &real.join("current/sub"));
        assert_eq!(way, real.join("current"));
        assert_eq!(
            on_the_way(&real.join("releases"), &real.join("current/sub")),
            real.join("releases")
        );
    }
}
