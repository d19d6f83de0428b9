//! Where a node keeps its things: the state folder beside the config, the run folder with the sockets.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The longest path of a Unix socket, in bytes (`sun_path` of `man 7 unix`, less its NUL).
pub const MAX_SOCKET_PATH: usize = 107;

/// The folder that outlives a node: `lock`, `run` (the run folder's path), `logs/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
}

/// Another user's `.hilum/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anothers {
    folder: PathBuf,
    owner: String,
    user: String,
}

impl Anothers {
    /// What is wrong.
    pub fn message(&self) -> String {
        format!("`{}` belongs to {}, whose cluster this is", self.folder.display(), self.owner)
    }

    /// What to do.
    pub fn help(&self) -> String {
        format!("`sudo chown -R {} {}` makes it yours", self.user, self.folder.display())
    }
}

impl StateDir {
    /// A state folder that is known by its path.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The state folder of the cluster with this first config and `-p` name. The path of the config is to be free of links but
    /// for its last part, so that it is the same however it was named.
    pub fn of(config: &Path, project: Option<&str>) -> Self {
        let mut name = config.file_name().unwrap_or_default().to_os_string();
        if let Some(project) = project {
            name.push("@");
            name.push(project);
        }
        let parent = config.parent().unwrap_or(Path::new("."));
        Self { path: parent.join(".hilum").join(name) }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lock file, which decides who is the node.
    pub fn lock(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// The file that holds the run folder's path.
    pub fn run_pointer(&self) -> PathBuf {
        self.path.join("run")
    }

    /// The log store, where `logs.dir` says nothing else.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// 12 hex digits of a hash of the folder's path.
    pub fn id(&self) -> String {
        use std::os::unix::ffi::OsStrExt;
        let digest = Sha256::digest(self.path.as_os_str().as_bytes());
        use std::fmt::Write;
        digest.iter().take(6).fold(String::new(), |mut id, byte| {
            let _ = write!(id, "{byte:02x}"); // writing to a String cannot fail
            id
        })
    }

    /// Whose it is, where that is another user: `sudo hilum up` leaves a folder of root's.
    pub fn anothers(&self) -> Option<Anothers> {
        let known = self.path.ancestors().take(2).find_map(|path| fs::metadata(path).ok())?;
        let (owner, user) = (known.uid(), nix::unistd::geteuid().as_raw());
        let name = |uid: u32| {
            let known = nix::unistd::User::from_uid(uid.into()).ok().flatten();
            known.map_or_else(|| uid.to_string(), |user| user.name)
        };
        let folder = self.path.parent().unwrap_or(&self.path).to_owned();
        (owner != user).then(|| Anothers { folder, owner: name(owner), user: name(user) })
    }

    /// Makes the folder, and `.gitignore` in `.hilum/`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(&self) -> io::Result<()> {
        fs::create_dir_all(&self.path)?;
        if let Some(root) = self.path.parent() {
            let ignore = root.join(".gitignore");
            if !ignore.exists()
                && let Err(error) = fs::write(&ignore, "*\n")
            {
                let _ = fs::remove_file(ignore); // an empty one, on a full disk, would stay so
                return Err(error);
            }
        }
        Ok(())
    }
}

/// What a node makes in its run folder beside sockets.
const ITS_FILES: [&str; 3] = ["project.json", "exit", "node.lock"];

/// The folder of a running node's sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

/// Why a run folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// A file, a link, or somebody else's.
    #[error("run folder `{}` is a file, a link or another user's: remove it or set `node.run_dir`", path.display())]
    NotOurs {
        /// The folder.
        path: PathBuf,
    },
    /// So long that its sockets' paths do not fit.
    #[error("run folder `{}` makes socket paths of {length} bytes, {MAX_SOCKET_PATH} is the most: set a shorter `node.run_dir`", path.display())]
    TooLong {
        /// The folder.
        path: PathBuf,
        /// The longest socket path in it.
        length: usize,
    },
    /// The file system said no.
    #[error("run folder `{}` cannot be made: {source}\nhelp: set `node.run_dir` to a folder that can be", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Who may use the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only the node's own user.
    Private,
    /// Instances of other users (`user:`), too.
    Shared,
}

impl RunDir {
    /// The run folder of the node with this state folder.
    pub fn of(state: &StateDir, access: Access) -> Self {
        let base = match (access, std::env::var_os("XDG_RUNTIME_DIR")) {
            (Access::Private, Some(dir)) if Path::new(&dir).is_absolute() => {
                PathBuf::from(dir).join("hilum")
            }
            _ => PathBuf::from(format!("/tmp/hilum-{}", nix::unistd::geteuid())),
        };
        Self { path: base.join(state.id()) }
    }

    /// A run folder at exactly this path.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The run folder of a running node, as its state folder tells.
    pub fn find(state: &StateDir) -> io::Result<Self> {
        let text = fs::read_to_string(state.run_pointer())?;
        Ok(Self { path: PathBuf::from(text.trim_end_matches('\n')) })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A socket's path in it.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The lock of whose sockets are in it.
    pub fn lock(&self) -> PathBuf {
        self.path.join("node.lock")
    }

    /// A ZeroMQ endpoint in it: `ipc://…/node.sock`.
    pub fn endpoint(&self, name: &str) -> String {
        format!("ipc://{}", self.socket(name).display())
    }

    /// Whether the paths of its sockets are short enough.
    ///
    /// # Errors
    /// [`RunDirError::TooLong`].
    pub fn fits(&self) -> Result<(), RunDirError> {
        let longest = self.socket("heartbeat.sock").as_os_str().len();
        if longest > MAX_SOCKET_PATH {
            return Err(RunDirError::TooLong { path: self.path.clone(), length: longest });
        }
        Ok(())
    }

    /// Whether it is free to be made, or a folder of this user's already.
    ///
    /// # Errors
    /// [`RunDirError::NotOurs`].
    pub fn is_ours(&self) -> Result<(), RunDirError> {
        let Ok(meta) = fs::symlink_metadata(&self.path) else { return Ok(()) };
        if !meta.is_dir() || meta.uid() != nix::unistd::geteuid().as_raw() {
            return Err(RunDirError::NotOurs { path: self.path.clone() });
        }
        Ok(())
    }

    /// Makes the folder, with both levels' modes set, and refuses what is not ours.
    ///
    /// # Errors
    /// See [`RunDirError`].
    pub fn create(&self, access: Access) -> Result<(), RunDirError> {
        self.fits()?;
        let mode = match access {
            Access::Private => 0o700,
            Access::Shared => 0o711,
        };
        if let Some(parent) = self.path.parent()
            && !parent.exists()
        {
            Self::create_level(parent, mode)?;
        }
        Self::create_level(&self.path, mode)?;
        if access == Access::Shared
            && let Some(parent) = self.path.parent()
            && parent.file_name().is_some_and(|name| name.to_string_lossy().starts_with("hilum"))
        {
            Self::create_level(parent, mode)?;
        }
        Ok(())
    }

    /// The same folder by its real path, since a link on the way may be switched; as it is named where that is too long.
    #[must_use]
    pub fn real(self) -> Self {
        let real = self.path.canonicalize().map(Self::at);
        real.ok().filter(|real| real.fits().is_ok()).unwrap_or(self)
    }

    /// Removes what a node made in it, and the folder where nothing else is in it: `node.run_dir` may be a folder of the user's.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self) -> io::Result<()> {
        // Services that were killed leave theirs.
        let is_socket = |entry: &fs::DirEntry| {
            entry.file_type().is_ok_and(|kind| kind.is_socket())
                && entry.path().extension().is_some_and(|end| end == "sock")
        };
        let sockets = fs::read_dir(&self.path)?.flatten().filter(is_socket);
        let its = ITS_FILES.map(|name| self.socket(name)).into_iter();
        for path in sockets.map(|entry| entry.path()).chain(its) {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            other => other,
        }
    }

    fn create_level(path: &Path, mode: u32) -> Result<(), RunDirError> {
        let was_there = path.is_dir();
        let failed = |source| RunDirError::Io { path: path.to_owned(), source };
        match fs::DirBuilder::new().mode(mode).recursive(true).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        Self::at(path.to_owned()).is_ours()?;
        let meta = fs::symlink_metadata(path).map_err(failed)?;
        // `node.run_dir` may be a folder that others use, too: nothing is taken from them.
        let usual = path.ancestors().take(2).any(|path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with("hilum")
        });
        let kept = if was_there && !usual { meta.permissions().mode() & 0o7777 } else { 0 };
        fs::set_permissions(path, fs::Permissions::from_mode(kept | mode)).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_configs_in_one_folder_do_not_meet() {
        let one = StateDir::of(Path::new("/srv/shop/hilum.yml"), None);
        let two = StateDir::of(Path::new("/srv/shop/other.yml"), None);
        let named = StateDir::of(Path::new("/srv/shop/hilum.yml"), Some("test"));
        assert_eq!(one.path(), Path::new("/srv/shop/.hilum/hilum.yml"));
        assert_eq!(named.path(), Path::new("/srv/shop/.hilum/hilum.yml@test"));
        assert_ne!(one.id(), two.id());
        assert_ne!(one.id(), named.id());
        assert_eq!(one.id().len(), 12);
    }

    #[test]
    fn a_linked_or_too_long_run_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(matches!(
            RunDir::at(link).create(Access::Private),
            Err(RunDirError::NotOurs { .. })
        ));
        let long = dir.path().join("x".repeat(120));
        assert!(matches!(
            RunDir::at(long).create(Access::Private),
            Err(RunDirError::TooLong { .. })
        ));
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(matches!(
            RunDir::at(dir.path().join("file")).create(Access::Private),
            Err(RunDirError::NotOurs { .. })
        ));
        let ours = RunDir::at(dir.path().join("r"));
        ours.create(Access::Private).unwrap();
        let mode = || fs::metadata(ours.path()).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o700);
        fs::set_permissions(ours.path(), fs::Permissions::from_mode(0o750)).unwrap();
        ours.create(Access::Shared).unwrap();
        assert_eq!(mode(), 0o751, "what its users need, and no less than they had");
    }

    #[test]
    fn what_others_have_in_a_run_folder_stays() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::at(dir.path().join("run"));
        run.create(Access::Private).unwrap();
        for name in ["node.sock", "echo.1.sock"] {
            std::os::unix::net::UnixListener::bind(run.socket(name)).unwrap();
        }
        fs::write(run.socket("precious"), "").unwrap();
        run.remove().unwrap();
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 1);
        assert!(run.socket("precious").exists());
        fs::remove_file(run.socket("precious")).unwrap();
        run.remove().unwrap();
        assert!(!run.path().exists());
    }
}
