//! The thread that brings closed segments to the disk itself and compresses them: neither may hold up the one that writes.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::pack::{pack, packed_path};
use super::segment::{ENDINGS, Id, path};

/// So long after its end a segment is brought to the disk: a burst goes at the speed of memory, and the disk works after it. Well
/// before the kernel would do it by itself (30 s, `vm.dirty_expire_centisecs`).
const SETTLE: Duration = Duration::from_secs(5);

enum Job {
    /// Bring it to the disk in a while; only a power loss could take it now.
    Sync(Id),
    /// Bring it to the disk at once: what it was made of is gone.
    SyncNow(Id),
    /// Compress it.
    Pack(Id),
}

/// The way to the thread; it ends with it.
pub(super) struct Closer {
    jobs: Sender<Job>,
    done: Receiver<(Id, io::Result<()>)>,
    /// What is being compressed.
    packing: Option<Id>,
}

impl Closer {
    /// Starts the thread for this folder.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(super) fn start(dir: &Path) -> io::Result<Self> {
        let (jobs, work) = channel();
        let (tell, done) = channel();
        let dir = dir.to_owned();
        std::thread::Builder::new().name("log-close".into()).spawn(move || {
            super::handle::block_signals();
            run(&dir, &work, &tell);
        })?;
        Ok(Self { jobs, done, packing: None })
    }

    /// Whether it can compress one more.
    pub(super) fn is_idle(&self) -> bool {
        self.packing.is_none()
    }

    /// Syncs a segment some seconds from now.
    pub(super) fn sync(&self, id: Id) {
        let _ = self.jobs.send(Job::Sync(id)); // without the thread the kernel does it, later
    }

    /// Syncs a segment that took the place of others.
    pub(super) fn sync_now(&self, id: Id) {
        let _ = self.jobs.send(Job::SyncNow(id)); // the same
    }

    /// Compresses a segment; ask [`Self::is_idle`] before.
    pub(super) fn pack(&mut self, id: Id) {
        self.packing = self.jobs.send(Job::Pack(id)).is_ok().then_some(id);
    }

    /// What has been compressed since the last call, or could not be.
    pub(super) fn packed(&mut self) -> Option<(Id, io::Result<()>)> {
        let done = self.done.try_recv().ok()?;
        self.packing = None;
        Some(done)
    }

    /// Waits until nobody else changes the files of this segment.
    pub(super) fn wait_for(&mut self, id: Id) -> Option<(Id, io::Result<()>)> {
        if self.packing != Some(id) {
            return None;
        }
        self.packing = None;
        self.done.recv().ok()
    }
}

fn run(dir: &Path, work: &Receiver<Job>, tell: &Sender<(Id, io::Result<()>)>) {
    let mut unsynced: VecDeque<(Instant, Id)> = VecDeque::new();
    loop {
        let job = match unsynced.front() {
            None => work.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some((at, _)) => work.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match job {
            Ok(Job::Sync(id)) => unsynced.push_back((Instant::now() + SETTLE, id)),
            Ok(Job::SyncNow(id)) => sync(dir, id),
            Ok(Job::Pack(id)) => {
                if tell.send((id, pack_segment(dir, id))).is_err() {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some((_, id)) = unsynced.pop_front() {
                    sync(dir, id);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Brings a segment to the disk itself. No descriptor of it is kept until then: what is evicted meanwhile gives its room back at once.
fn sync(dir: &Path, id: Id) {
    for ending in ENDINGS {
        if let Ok(file) = File::open(path(dir, id, ending)) {
            let _ = file.sync_data(); // it is written; only a power loss could take it
        }
    }
}

/// Makes the compressed files, gives them their names (the text last: from then on they count), and removes the plain ones.
fn pack_segment(dir: &Path, id: Id) -> io::Result<()> {
    let plain = ["fld", "idx", "log"].map(|ending| path(dir, id, ending));
    let new = |plain: &PathBuf| {
        let mut name = packed_path(plain).into_os_string();
        name.push(".new");
        PathBuf::from(name)
    };
    let made: io::Result<()> = plain.iter().try_for_each(|path| pack(path, &new(path)).map(drop));
    let named = made
        .and_then(|()| plain.iter().try_for_each(|path| fs::rename(new(path), packed_path(path))));
    if named.is_err() {
        for path in &plain {
            let _ = fs::remove_file(new(path)); // those that were made
            let _ = fs::remove_file(packed_path(path)); // the plain ones are all there
        }
        return named;
    }
    for path in &plain {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// After a node that ended in between: half-made files go, and of two forms of a file one stays.
pub(super) fn tidy(dir: &Path) -> io::Result<()> {
    for (id, ending) in super::segment::files(dir)? {
        if ending.rsplit('.').next() == Some("new") {
            let _ = fs::remove_file(path(dir, id, &ending)); // it does no harm where it stays
        }
    }
    for (id, ending) in super::segment::files(dir)? {
        let plain = path(dir, id, &ending);
        if ENDINGS.contains(&ending.as_str()) && packed_path(&plain).exists() {
            let complete = packed_path(&path(dir, id, "log")).exists();
            let _ = fs::remove_file(if complete { plain } else { packed_path(&plain) });
        }
    }
    Ok(())
}
