//! The thread that brings closed segments to the disk itself and compresses them: neither may hold up the one that writes.
//! It does one thing at a time; what finds it busy is asked for again later.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::pack::{pack, packed_path};
use super::segment::{ENDINGS, Id, path};

enum Job {
    /// Bring it to the disk; only a power loss could take it now.
    Sync(Vec<File>),
    /// Compress it.
    Pack(Id),
}

/// The way to the thread; it ends with it.
pub(super) struct Closer {
    jobs: Sender<Job>,
    done: Receiver<Option<(Id, io::Result<()>)>>,
    busy: bool,
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
        Ok(Self { jobs, done, busy: false, packing: None })
    }

    /// Whether it has nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        !self.busy
    }

    /// Syncs a segment's files, unless it is busy: the kernel writes them back soon in any case.
    pub(super) fn sync(&mut self, files: Vec<File>) {
        if !self.busy {
            self.busy = self.jobs.send(Job::Sync(files)).is_ok();
        }
    }

    /// Compresses a segment; ask [`Self::is_idle`] before.
    pub(super) fn pack(&mut self, id: Id) {
        self.busy = self.jobs.send(Job::Pack(id)).is_ok();
        self.packing = self.busy.then_some(id);
    }

    /// What has been compressed since the last call, or could not be.
    pub(super) fn packed(&mut self) -> Option<(Id, io::Result<()>)> {
        let done = self.done.try_recv().ok()?;
        self.busy = false;
        self.packing = None;
        done
    }

    /// Waits until nobody else changes the files of this segment.
    pub(super) fn wait_for(&mut self, id: Id) -> Option<(Id, io::Result<()>)> {
        if self.packing != Some(id) {
            return None;
        }
        let done = self.done.recv();
        self.busy = false;
        self.packing = None;
        done.ok().flatten()
    }
}

fn run(dir: &Path, work: &Receiver<Job>, tell: &Sender<Option<(Id, io::Result<()>)>>) {
    while let Ok(job) = work.recv() {
        let done = match job {
            Job::Sync(files) => {
                for file in files {
                    let _ = file.sync_data(); // it is written; only a power loss could take it
                }
                None
            }
            Job::Pack(id) => Some((id, pack_segment(dir, id))),
        };
        if tell.send(done).is_err() {
            return;
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
