//! `logs -f`: goes on where a [`Reader`] ends, through rotation, the node's restart and a folder that does not
//! exist yet. It is woken by inotify and sleeps without a timeout; where there is no inotify it looks twice
//! a second.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::query::{Entry, Filter, QueryError, Reader, Start};

/// Between two looks where inotify does not work.
const SLOW: Duration = Duration::from_millis(500);
/// While the folder is missing its parents are watched, and looked at this often, too: a parent of a parent may be
/// made between two looks.
const MISSING: Duration = Duration::from_secs(1);

/// What [`Follower::next`] came back with.
#[derive(Debug, PartialEq)]
pub enum Followed {
    /// A record: it is in the entry.
    Record,
    /// Time is up, or the other descriptor has something, or a signal came.
    Quiet,
}

/// Reads records as they are written.
pub struct Follower {
    dir: PathBuf,
    reader: Reader,
    inotify: Option<Inotify>,
    /// Whether the folder itself is watched.
    watched: bool,
    /// Whether the folder that was watched is gone. The next one may have its number.
    gone: bool,
    identity: Option<Identity>,
    filter: Filter,
    /// The last number that was shown, and the latest wall time.
    shown: (u64, u64),
    /// The same at the time when the folder was found to be another one: what is not after it in both has been shown.
    before: Option<(u64, u64)>,
}

impl Follower {
    /// Begins at `start` in the store in `dir`, which need not exist.
    ///
    /// # Errors
    /// When the folder is there and cannot be read.
    pub fn open(dir: &Path, filter: Filter, start: Start) -> Result<Self, QueryError> {
        let mut follower = Self {
            dir: dir.to_owned(),
            reader: Reader::follow(dir, filter.clone(), start)?,
            inotify: Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok(),
            watched: false,
            gone: false,
            identity: None,
            filter,
            shown: (0, 0),
            before: None,
        };
        follower.watch();
        Ok(follower)
    }

    /// Waits for the next record and reads it into `entry`: until `timeout` is over (`None`: for ever), `wake`
    /// has something to read, or a signal comes.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn next(
        &mut self,
        entry: &mut Entry,
        timeout: Option<Duration>,
        wake: Option<BorrowedFd<'_>>,
    ) -> Result<Followed, QueryError> {
        let until = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            if self.reader.read(entry)? {
                if self.was_shown(entry) {
                    continue;
                }
                return Ok(Followed::Record);
            }
            let rest = until.map(|until| until.saturating_duration_since(Instant::now()));
            if rest.is_some_and(|rest| rest.is_zero()) {
                return Ok(Followed::Quiet);
            }
            if self.wait(rest, wake) {
                return Ok(Followed::Quiet);
            }
        }
    }

    /// Whether a record of the new folder had been read on from the old one. A life that counts from 1 again is later.
    fn was_shown(&mut self, entry: &Entry) -> bool {
        if let Some((seq, at)) = self.before {
            if entry.seq <= seq && entry.at <= at {
                return true;
            }
            self.before = None;
            self.shown = (0, 0);
        }
        self.shown = (self.shown.0.max(entry.seq), self.shown.1.max(entry.at));
        false
    }

    /// Waits until something may have been written; `true` = something else came.
    fn wait(&mut self, rest: Option<Duration>, wake: Option<BorrowedFd<'_>>) -> bool {
        let look = match (&self.inotify, self.watched) {
            (Some(_), true) => None,
            (Some(_), false) => Some(MISSING),
            (None, _) => Some(SLOW),
        };
        let limit = rest.into_iter().chain(look).min();
        let timeout = limit.map_or(PollTimeout::NONE, |limit| {
            PollTimeout::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = Vec::with_capacity(2);
        if let Some(wake) = wake {
            fds.push(PollFd::new(wake, PollFlags::POLLIN));
        }
        if let Some(inotify) = &self.inotify {
            fds.push(PollFd::new(inotify.as_fd(), PollFlags::POLLIN));
        }
        let polled = poll(&mut fds, timeout);
        let woken = wake.is_some()
            && fds.first().and_then(PollFd::revents).is_some_and(|events| !events.is_empty());
        drop(fds);
        if let Some(inotify) = &self.inotify {
            // Of files it does not matter what happened, but that something did.
            let gone = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_IGNORED;
            while let Ok(events) = inotify.read_events() {
                self.gone |= events.iter().any(|event| event.mask.intersects(gone));
            }
        }
        self.watch();
        woken || polled == Err(Errno::EINTR)
    }

    /// Watches the folder, or the nearest parent while there is none, and notices when it was replaced.
    fn watch(&mut self) {
        let identity = identity(&self.dir);
        let is_another = self.gone || identity != self.identity;
        if self.watched && !is_another {
            return;
        }
        if self.identity.is_some() && identity.is_some() && is_another {
            self.gone = false;
            // Another folder under the same name, made by the same life of the node or by another one.
            if let Ok(mut reader) = Reader::follow(&self.dir, self.filter.clone(), Start::All) {
                reader.go_on_from(&self.reader);
                self.reader = reader;
                self.before = Some(self.shown);
            }
        }
        let Some(inotify) = &self.inotify else {
            self.identity = identity;
            return;
        };
        // That it goes is told above it: a folder that somebody holds open says nothing of its own end.
        let entries = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE;
        if let Some(parent) = self.dir.ancestors().skip(1).find(|parent| parent.is_dir()) {
            let _ = inotify.add_watch(parent, entries); // the slow look stands behind it
        }
        let files = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        self.watched = identity.is_some() && inotify.add_watch(&self.dir, files).is_ok();
        if self.watched {
            self.identity = identity;
        }
    }
}

/// Device and number of a folder and, since numbers are used again, when it was made, where the file system knows.
type Identity = (u64, u64, Option<SystemTime>);

fn identity(dir: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(dir).ok()?;
    Some((meta.dev(), meta.ino(), meta.created().ok()))
}
