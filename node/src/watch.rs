//! Saved files: the configuration, and what services `watch`.
//!
//! The kernel's word is only a hint. A thread of its own waits until a change is over, compares what
//! the files hold now with what they held before, and reports once. Directories are watched, never
//! files: editors replace a file by rename, and a watched file is then gone. Where the kernel has no
//! watches left, the same comparison is made every few seconds, and [`Watcher::warnings`] says so.
//!
//! What a change means is the core's business.

mod config_files;
mod content;
mod directories;
mod globs;
mod places;
mod rules;
mod thread;
mod tree;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hilum_shared::config::spec::{Cluster, Watch};
use hilum_shared::config::{LoadOptions, OVERRIDE, VARS};
use hilum_shared::name::ServiceName;
use tokio::sync::mpsc;

/// Most paths that wait for the thread; past them it looks at everything.
const MAX_TOUCHED: usize = 4096;
/// Times of files may lag behind the clock by a tick of the kernel, 10 ms at most.
const TICK: Duration = Duration::from_millis(10);

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// A file of the configuration holds something else.
    Config,
    /// Files that a service watches do, and for the service's `debounce` no other one changed.
    Files {
        /// Whose.
        service: ServiceName,
        /// The first of them, relative to the project folder where it lies in it.
        path: String,
    },
}

/// Watches files and reports changes of their content.
#[derive(Debug)]
pub struct Watcher {
    changes: mpsc::Sender<Changed>,
    shared: Arc<Shared>,
    plan: Plan,
    running: bool,
}

/// What is to be watched.
#[derive(Clone, Debug, Default, PartialEq)]
struct Plan {
    /// The project folder.
    folder: PathBuf,
    /// Files of the configuration, also those that may appear.
    config: Vec<PathBuf>,
    services: BTreeMap<ServiceName, Watch>,
}

/// What the thread finds when it wakes.
#[derive(Debug, Default)]
struct Mail {
    /// In the order in which they came.
    touched: Vec<PathBuf>,
    /// Some of them did not fit, here or in the kernel.
    overflow: bool,
    /// The kernel refused a watch.
    exhausted: bool,
    /// A new plan, and when it was made.
    plan: Option<(Plan, SystemTime)>,
    closed: bool,
}

/// Between the kernel's thread, the loop and our thread. Held for moments only.
#[derive(Debug, Default)]
struct Shared {
    mail: Mutex<Mail>,
    bell: Condvar,
    warnings: Mutex<Vec<String>>,
}

impl Watcher {
    /// A watcher that watches nothing yet and reports to `changes`.
    pub fn new(changes: mpsc::Sender<Changed>) -> Self {
        Self { changes, shared: Arc::default(), plan: Plan::default(), running: false }
    }

    /// Watches what this cluster asks for: its files where `node.watch_config` is set, and the globs of
    /// its services. What was watched before and still is goes on without a gap.
    pub fn watch(&mut self, cluster: &Arc<Cluster>, load: &LoadOptions) {
        let plan = Plan::new(cluster, load);
        if plan == self.plan || (!self.running && plan.is_empty()) {
            return;
        }
        self.plan = plan.clone();
        self.shared.post(|mail| mail.plan = Some((plan, SystemTime::now() - TICK)));
        if !self.running {
            self.running = true;
            if let Err(error) = thread::start(Arc::clone(&self.shared), self.changes.clone()) {
                self.shared.warn(format!(
                    "saved files are not noticed: no thread for it ({error}); use `hilum reload`"
                ));
            }
        }
    }

    /// Ways in which watching is worse than it should be, for people.
    pub fn warnings(&self) -> Vec<String> {
        lock(&self.shared.warnings).clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.post(|mail| mail.closed = true);
    }
}

impl Plan {
    fn new(cluster: &Cluster, load: &LoadOptions) -> Self {
        let services = cluster.services.values().filter_map(|service| {
            let watch = service.policy.watch.clone()?;
            Some((service.name.clone(), watch))
        });
        let mut plan = Self {
            folder: load.project_dir.clone(),
            config: Vec::new(),
            services: services.collect(),
        };
        if cluster.node.watch_config {
            let first = cluster.files.first().or(load.files.first());
            let beside = first.and_then(|file| file.parent());
            let named = load.vars.iter().chain(&load.env_files).cloned();
            let by_env = load.env.get(VARS).map(PathBuf::from);
            let files = cluster.files.iter().chain(&load.files).cloned();
            let files = files.chain(named).chain(by_env);
            let files = files
                .chain(beside.into_iter().flat_map(|dir| [dir.join(OVERRIDE), dir.join(".env")]));
            plan.config = files.map(|file| plan.folder.join(file)).collect();
            plan.config.sort();
            plan.config.dedup();
        }
        plan
    }

    fn is_empty(&self) -> bool {
        self.config.is_empty() && self.services.is_empty()
    }
}

impl Shared {
    fn post(&self, write: impl FnOnce(&mut Mail)) {
        write(&mut lock(&self.mail));
        self.bell.notify_one();
    }

    fn touched(&self, path: PathBuf) {
        self.post(|mail| {
            if mail.touched.last() == Some(&path) {
            } else if mail.touched.len() < MAX_TOUCHED {
                mail.touched.push(path);
            } else {
                mail.overflow = true;
            }
        });
    }

    fn warn(&self, warning: String) {
        tracing::warn!("{warning}");
        lock(&self.warnings).push(warning);
    }

    /// Sleeps until there is mail or `deadline` has come.
    fn wait(&self, deadline: Option<Instant>) -> Mail {
        let mut mail = lock(&self.mail);
        while mail.is_empty() {
            mail = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                Some(left) if left.is_zero() => break,
                Some(left) => {
                    self.bell.wait_timeout(mail, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.bell.wait(mail).unwrap_or_else(PoisonError::into_inner),
            };
        }
        std::mem::take(&mut mail)
    }
}

impl Mail {
    fn is_empty(&self) -> bool {
        self.touched.is_empty()
            && !self.overflow
            && !self.exhausted
            && self.plan.is_none()
            && !self.closed
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
