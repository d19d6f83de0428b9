//! The watcher's thread: it alone waits, reads and compares.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hilum_shared::name::ServiceName;
use tokio::sync::mpsc;

use super::config_files::ConfigFiles;
use super::directories::Directories;
use super::tree::Tree;
use super::{Changed, Plan, Shared};

/// Between two looks where the kernel tells nothing.
const POLL: Duration = Duration::from_secs(2);
/// Between two looks into the mail: whoever writes to a file of the folder again and again wakes us no more often.
const GATHER: Duration = Duration::from_millis(20);
/// A look that takes long is made less often, so that at most this part of the time goes into looking.
const POLL_SHARE: u32 = 20;

struct Thread {
    shared: Arc<Shared>,
    changes: mpsc::Sender<Changed>,
    directories: Directories,
    config: ConfigFiles,
    trees: BTreeMap<ServiceName, Tree>,
    next_look: Option<Instant>,
    /// By the last look.
    took: Duration,
}

pub(super) fn start(shared: Arc<Shared>, changes: mpsc::Sender<Changed>) -> io::Result<()> {
    let run = move || {
        // Before the kernel's own thread begins, which takes the mask over.
        let _ = nix::sys::signal::SigSet::all().thread_block(); // cannot fail with a valid set
        let thread = Thread {
            directories: Directories::new(Arc::clone(&shared)),
            shared,
            changes,
            config: ConfigFiles::default(),
            trees: BTreeMap::new(),
            next_look: None,
            took: Duration::ZERO,
        };
        thread.run();
    };
    std::thread::Builder::new().name("watch".into()).spawn(run).map(drop)
}

impl Thread {
    fn run(mut self) {
        loop {
            let mail = self.shared.wait(self.deadline());
            if mail.closed {
                return;
            }
            if let Some((plan, since)) = mail.plan {
                self.adopt(plan, since);
            }
            if mail.exhausted {
                self.directories.exhausted();
            }
            let now = Instant::now();
            if mail.overflow || self.next_look.is_some_and(|at| at <= now) {
                self.next_look = None;
                self.config.suspect(now);
                self.trees.values_mut().for_each(|tree| tree.suspect(now));
            }
            for path in &mail.touched {
                self.touch(path, now);
            }
            if self.settle().is_err() {
                return; // nobody listens any more
            }
            let idle = self.config.dirs.is_empty() && self.trees.is_empty();
            if self.directories.polled() && self.next_look.is_none() && !idle {
                self.next_look = Some(Instant::now() + POLL.max(self.took * POLL_SHARE));
            }
            std::thread::sleep(GATHER);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let trees = self.trees.values().filter_map(|tree| tree.due);
        trees.chain(self.config.due).chain(self.next_look).min()
    }

    fn touch(&mut self, path: &Path, now: Instant) {
        self.config.touch(path, now);
        for tree in self.trees.values_mut() {
            tree.touch(path, now, &mut self.directories);
        }
    }

    fn adopt(&mut self, plan: Plan, since: SystemTime) {
        self.config.set(&plan.config, since, &mut self.directories);
        let mut before = std::mem::take(&mut self.trees);
        let folder = plan.folder.canonicalize().unwrap_or(plan.folder);
        for (service, spec) in plan.services {
            let kept = before
                .remove(&service)
                .and_then(|mut tree| tree.adopt(&folder, &spec).then_some(tree));
            let tree = match kept {
                Some(tree) => tree,
                None => {
                    let tree = Tree::new(&folder, spec, since, &mut self.directories);
                    if tree.crowded() {
                        self.shared.warn(format!(
                            "{service}: `watch` matches too many files, narrow its globs"
                        ));
                    }
                    tree
                }
            };
            self.trees.insert(service, tree);
        }
        self.tidy();
    }

    /// Reports what is over.
    fn settle(&mut self) -> Result<(), mpsc::error::SendError<Changed>> {
        let now = Instant::now();
        if self.deadline().is_none_or(|due| due > now) {
            return Ok(());
        }
        if self.config.settle(now, &mut self.directories) {
            self.changes.blocking_send(Changed::Config)?;
        }
        let mut changed = Vec::new();
        for (service, tree) in &mut self.trees {
            if let Some(path) = tree.settle(now, &mut self.directories) {
                changed.push(Changed::Files { service: service.clone(), path });
            }
        }
        self.took = now.elapsed();
        // A full queue holds back this thread only; what comes meanwhile waits in the mail.
        changed.into_iter().try_for_each(|change| self.changes.blocking_send(change))?;
        self.tidy();
        Ok(())
    }

    /// Ends watches that nobody needs any more.
    fn tidy(&mut self) {
        let trees = self.trees.values().flat_map(Tree::wanted);
        let wanted: HashSet<&Path> =
            self.config.dirs.iter().map(PathBuf::as_path).chain(trees).collect();
        self.directories.keep_only(&wanted);
    }
}
