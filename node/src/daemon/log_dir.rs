//! Where the log lies: its folder is made for whom the project is for, and where it is not in the state folder, that is noted
//! there for who reads without a configuration that can be read.

use std::fs::{self, DirBuilder, Permissions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hilum_shared::lock::{self, Lock, LockError};
use hilum_shared::run_dir::{Access, StateDir};

use super::held;

/// The file that holds the path of the log folder, where `logs.dir` sets another one.
pub(crate) fn log_pointer(state: &StateDir) -> PathBuf {
    state.path().join("log-dir")
}

/// Another node writes there.
#[derive(Debug, thiserror::Error)]
#[error(
    "the log folder `{}` belongs to the node of `{config}`, pid {pid}\nhelp: set another `logs.dir`, or stop that node", dir.display()
)]
pub(super) struct InUse {
    dir: PathBuf,
    config: String,
    pid: u32,
}

/// Makes the folder this node's for as long as the lock is held: two that write to one store would take each other's lines for
/// damage. Where no lock can be made (a full disk, a file system without them) the log goes on without.
///
/// # Errors
/// Where another node has it.
pub(super) fn claim(dir: &Path, config: &Path) -> Result<Option<Lock>, InUse> {
    let path = dir.join("lock");
    let config = config.display().to_string().replace('\n', "?");
    match held::take(&path, &config) {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::Held { pid }) => {
            let config = lock::purpose(&path).unwrap_or_else(|| "another project".into());
            Err(InUse { dir: dir.to_owned(), config, pid })
        }
        Err(error) => {
            // Another user's lock cannot be taken, but be looked at.
            if let Ok(Some(pid)) = lock::holder(&path) {
                let config = lock::purpose(&path).unwrap_or_else(|| "another project".into());
                return Err(InUse { dir: dir.to_owned(), config, pid });
            }
            tracing::warn!(%error, "the log folder is not locked");
            Ok(None)
        }
    }
}

/// Makes the folder, and notes where it is: its real path, which is the answer, since a link on the way may be switched. What
/// fails here is told by who opens the log.
pub(super) fn make(state: &StateDir, dir: &Path, elsewhere: bool, access: Access) -> PathBuf {
    let mode = match access {
        Access::Private => 0o700,
        Access::Shared => 0o755,
    };
    let made = !dir.exists() && DirBuilder::new().recursive(true).mode(mode).create(dir).is_ok();
    // One that was there before and lies elsewhere is its owner's.
    if access == Access::Private && (made || !elsewhere) {
        let _ = fs::set_permissions(dir, Permissions::from_mode(mode));
    }
    let real = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let pointer = log_pointer(state);
    let noted = if elsewhere {
        fs::File::create(pointer).and_then(|mut file| file.write_all(real.as_os_str().as_bytes()))
    } else {
        fs::remove_file(pointer)
    };
    let _ = noted; // mostly none is there
    real
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_for_its_user_unless_others_take_part() {
        let base = tempfile::tempdir().unwrap();
        let state = StateDir::of(&base.path().join("hilum.yml"), None);
        fs::create_dir_all(state.path()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        make(&state, &state.logs(), false, Access::Private);
        assert_eq!(mode(&state.logs()), 0o700);
        assert!(!log_pointer(&state).exists());
        let other = base.path().join("a/b");
        make(&state, &other, true, Access::Shared);
        assert_ne!(mode(&other), 0o700);
        assert_eq!(fs::read(log_pointer(&state)).unwrap(), other.as_os_str().as_bytes());
        // One that somebody has made for others stays so.
        make(&state, &other, true, Access::Private);
        assert_ne!(mode(&other), 0o700);
        make(&state, &state.logs(), false, Access::Private);
        assert!(!log_pointer(&state).exists());
    }
}
