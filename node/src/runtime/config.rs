//! The configuration, read again beside the loop and applied by the core.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use hilum_shared::config::Diagnostics;
use hilum_shared::config::spec::{Cluster, ServiceSpec};
use hilum_shared::protocol::control::{Fault, Targets};

use super::{Aside, Runtime};
use crate::channels::roster::Rhythm;
use crate::core::input::{Input, Request, RequestId, Reread};
use crate::driver::sockets::Unbound;

/// Why the file was read.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// To apply it, or to say what that would do.
    Reload { reason: Reread, dry_run: bool },
    /// To restart something with the file as it is now.
    Restart { request: RequestId, targets: Targets },
}

/// What reading brought.
pub(super) struct Loaded {
    purpose: Purpose,
    cluster: Result<Arc<Cluster>, Diagnostics>,
}

impl Runtime {
    pub(super) fn read_config(&mut self, reason: Reread, dry_run: bool) {
        self.read(Purpose::Reload { reason, dry_run });
    }

    pub(super) fn restart_fresh(&mut self, request: RequestId, targets: Targets) {
        self.read(Purpose::Restart { request, targets });
    }

    /// One file is read at a time: what was read later is applied later.
    fn read(&mut self, purpose: Purpose) {
        self.to_read.push_back(purpose);
        if self.to_read.len() == 1 {
            self.read_next();
        }
    }

    fn read_next(&mut self) {
        let Some(purpose) = self.to_read.front().cloned() else { return };
        let options = self.parts.load.clone();
        let sender = self.aside.0.clone();
        tokio::task::spawn_blocking(move || {
            let loaded = hilum_shared::config::load(&options);
            let cluster = loaded.map(|loaded| loaded.cluster);
            let _ = sender.send(Aside::Loaded(Loaded { purpose, cluster })); // the loop may be gone already
        });
    }

    pub(super) fn loaded(&mut self, loaded: Loaded) {
        self.to_read.pop_front();
        self.read_next();
        match (loaded.purpose, loaded.cluster) {
            (Purpose::Reload { reason, .. }, Err(errors)) => {
                let brief = errors.brief();
                tracing::warn!("the configuration is not valid, nothing changes: {brief}");
                self.refused = Some(format!("it is not valid: {brief}"));
                if let Reread::Asked(id) = reason {
                    self.invalid(id, errors.render(false));
                } else {
                    let why = format!(
                        "the saved configuration is not valid, nothing changes: {brief}; `hilum check` says more"
                    );
                    self.queue.push_back(Input::ReloadRefused(why));
                }
            }
            (Purpose::Reload { reason, dry_run }, Ok(cluster)) => {
                let sockets = &self.context.sockets;
                let taken =
                    if dry_run { sockets.check(&cluster.sockets) } else { self.take(&cluster) };
                self.refused = taken.as_ref().err().map(ToString::to_string);
                if let Err(error) = taken {
                    match reason {
                        Reread::Asked(id) => self.unbound(id, &error),
                        Reread::Saved | Reread::Ordered => self.queue.push_back(Input::ReloadRefused(format!(
                            "the saved configuration cannot be put in force, nothing changes: {error}"
                        ))),
                    }
                    return;
                }
                self.queue.push_back(Input::Reconfigure { reason, cluster, dry_run });
            }
            (Purpose::Restart { request, targets }, cluster) => {
                match &cluster {
                    Err(errors) => {
                        let brief = errors.brief();
                        self.say(
                            "the configuration is not valid, restarted with the last valid one",
                            &brief,
                        );
                        self.refused = Some(format!("it is not valid: {brief}"));
                    }
                    // What was wrong with it is mended, also where only some of it is put in force.
                    Ok(cluster) => {
                        let taken = self.context.sockets.check(&cluster.sockets);
                        self.refused = taken.err().map(|error| error.to_string());
                    }
                }
                let note = cluster.is_err().then(|| {
                    "the configuration file is not valid now: restarted with the last valid one; `hilum check` says more".to_owned()
                });
                let request_ = Request::Restart { targets, fresh: cluster.ok(), note };
                self.queue.push_back(Input::Request { id: request, request: request_ });
            }
        }
    }

    /// Takes what the drivers need of a new configuration; the core takes the rest.
    fn take(&mut self, cluster: &Arc<Cluster>) -> Result<(), Unbound> {
        self.context.sockets.bind(&cluster.sockets)?;
        let (old, new) = (&self.parts.cluster.node, &cluster.node);
        if (old.heartbeat_interval, old.heartbeat_timeout)
            != (new.heartbeat_interval, new.heartbeat_timeout)
        {
            let rhythm =
                Rhythm { interval: new.heartbeat_interval, timeout: new.heartbeat_timeout };
            for (instance, _) in self.held.keys() {
                self.parts.roster.set_rhythm(instance, rhythm);
            }
            let context = Rc::make_mut(&mut self.context);
            (context.heartbeat_interval, context.heartbeat_timeout) =
                (rhythm.interval, rhythm.timeout);
        }
        if cluster.logs != self.parts.cluster.logs {
            self.parts.log.configure(cluster.logs.clone());
        }
        for (name, spec) in &cluster.services {
            let before = self.parts.cluster.services.get(name);
            if before.is_some_and(|before| before.policy.log != spec.policy.log) {
                self.parts.log.policy(name.clone(), Arc::new(spec.policy.log.clone()));
            }
        }
        if self.parts.cgroups.is_none()
            && cluster.needs_cgroups()
            && !self.parts.cluster.needs_cgroups()
        {
            self.say(
                "limits memory_max, cpu_max and pids_max are not in force",
                "a node looks for its part of the cgroup tree at its start: `hilum down`, then `hilum up`",
            );
        }
        let paced = self.parts.cluster.node.stats_interval != cluster.node.stats_interval;
        self.parts.cluster = Arc::clone(cluster);
        if let Some(sampling) = self.sampling.take_if(|_| paced) {
            sampling.abort();
            self.begin_sampling();
        }
        self.hashes.clear();
        self.parts.watcher.watch(cluster, &self.parts.load);
        Ok(())
    }

    /// Lets go of shared sockets that nobody is to get any more.
    pub(super) fn close_sockets(&self) {
        let core = &self.parts.core;
        if self.context.sockets.exceed(&core.cluster().sockets) {
            self.context.sockets.retain(core.sockets());
        }
    }

    fn invalid(&self, id: RequestId, message: String) {
        let help = Some("nothing was changed; `hilum check` shows the same".to_owned());
        self.parts.control.fault(id, &Fault { code: "invalid-config".into(), message, help });
    }

    fn unbound(&self, id: RequestId, error: &Unbound) {
        let help = Some("nothing was changed: free the port, or give another one".to_owned());
        let message = error.to_string();
        self.parts.control.fault(id, &Fault { code: "failed".into(), message, help });
    }

    /// A word in the timeline that is no event of an instance.
    fn say(&self, what: &str, detail: &str) {
        self.parts.log.node(crate::log::handle::NodeRecord {
            level: Some(hilum_shared::protocol::Level::Warning),
            text: format!("{what}\n{detail}"),
            ..Default::default()
        });
    }
}

/// Tells one state of a service's configuration from another, for crash dossiers.
pub(super) fn hash(spec: &ServiceSpec) -> String {
    let mut hasher = DefaultHasher::new();
    format!("{:?}", spec.launch).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
