//! Tells that something happened to the entries of a folder.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A folder that is watched, one after the other where it is made anew.
pub struct Folder(AsyncFd<Source>);

struct Source(Inotify);

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Folder {
    /// Watches nothing yet. To be called inside a runtime.
    ///
    /// # Errors
    /// Where the user has no more watches (`fs.inotify.max_user_instances`).
    pub fn new() -> io::Result<Self> {
        let source = Source(Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?);
        // SAFETY: the descriptor stays open and the same for as long as the source lives.
        let registered = unsafe { AsyncFd::register_with_interest(source, Interest::READABLE) };
        Ok(Self(registered.map_err(io::Error::from)?))
    }

    /// Watches this folder, too.
    ///
    /// # Errors
    /// Where there is none.
    pub fn add(&self, folder: &Path) -> io::Result<()> {
        let news = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        self.0.get_ref().0.add_watch(folder, news)?;
        Ok(())
    }

    /// Watches whether this folder itself is moved or removed. To be said before [`Self::add`] of the same one, which
    /// tells that and more.
    ///
    /// # Errors
    /// Where there is none, or it may not be read.
    pub fn add_place(&self, folder: &Path) -> io::Result<()> {
        let news =
            AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_ONLYDIR;
        self.0.get_ref().0.add_watch(folder, news)?;
        Ok(())
    }

    /// Waits until something happened, and forgets what. Cancel-safe.
    pub async fn changed(&self) {
        let Ok(mut ready) = self.0.readable().await else {
            return std::future::pending().await; // the runtime shuts down
        };
        while ready.get_inner().0.read_events().is_ok_and(|events| !events.is_empty()) {}
        ready.clear_ready();
    }
}
