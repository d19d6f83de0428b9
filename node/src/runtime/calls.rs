//! Calls of interface `node`: the way of the command line to the core.

use std::collections::BTreeMap;
use std::time::Duration;

use hilum_shared::name::Run;
use hilum_shared::protocol::control::Fault;
use hilum_shared::registry::directory::{LookupService, Unregister};
use hilum_shared::rpc::ChangeLoglevel;
use hilum_shared::signal::Signal;
use hilum_shared::status::{Flag, NodeStatus, Snapshot};

use super::Runtime;
use crate::channels::control::{Call, ControlCall};
use crate::core::event::Event;
use crate::core::input::{Entry, Input, Request, RequestId, Reread};
use crate::driver::stats::Breadth;
use crate::log::account::{Losses, causes};

impl Runtime {
    pub(super) fn call(&mut self, call: ControlCall) {
        let id = call.id;
        let request = match call.call {
            Call::Status => {
                let snapshot = self.snapshot();
                return self.parts.control.reply(id, &snapshot);
            }
            Call::GetProcesses(which) => {
                let mut instances = self.snapshot().instances;
                if let Some(service) = which.service_type {
                    instances.retain(|instance| instance.service.as_str() == service);
                }
                return self.parts.control.reply(id, &instances);
            }
            Call::Metrics => {
                let figures = self.figures();
                return self.parts.control.reply(id, &figures);
            }
            Call::Events(events) => {
                let later: Vec<&Event> =
                    self.events.iter().filter(|event| event.seq > events.since).collect();
                return self.parts.control.reply(id, &later);
            }
            Call::ChangeLoglevel(change) => {
                return self.change_loglevel(id, &change);
            }
            Call::Reload(reload) => return self.read_config(Reread::Asked(id), reload.dry_run),
            Call::Restart(targets) => return self.restart_fresh(id, targets),
            Call::Start(targets) => Request::Start(targets),
            Call::Stop(targets) => Request::Stop(targets),
            Call::Scale(scale) => Request::Scale(scale),
            Call::Signal(send) => match send.signal.parse::<Signal>() {
                Ok(signal) => Request::Signal { targets: send.targets, signal },
                Err(error) => return self.refuse(id, "usage", error.to_string()),
            },
            Call::AbortOnFailure => Request::AbortOnFailure,
            Call::Shutdown(shutdown) => Request::Shutdown {
                grace: shutdown
                    .grace
                    .and_then(|grace| Duration::try_from_secs_f64(grace.max(0.0)).ok()),
                reason: shutdown.reason,
            },
            Call::Wait(wait) => Request::Wait(wait),
            Call::Await(what) => Request::Await(what),
            Call::Cancel => Request::Cancel(id),
            Call::Register(register) => return self.register(id, &call.peer, *register),
            Call::Unregister(Unregister { service, id: entry }) => {
                return self.entry(id, &call.peer, Entry::Unregister { service, id: entry });
            }
            Call::Lookup(LookupService { service }) => {
                return self.entry(id, &call.peer, Entry::Lookup { service });
            }
            Call::Discover => return self.entry(id, &call.peer, Entry::Discover),
            Call::Watch(watch) => return self.entry(id, &call.peer, Entry::Watch(watch)),
            Call::Departed => return self.departed(&call.peer),
        };
        self.ordered |= matches!(request, Request::Shutdown { .. });
        self.queue.push_back(Input::Request { id, request });
    }

    pub(super) fn refuse(&self, id: RequestId, code: &str, message: String) {
        self.parts.control.fault(id, &Fault { code: code.to_owned(), message, help: None });
    }

    fn change_loglevel(&self, id: RequestId, change: &ChangeLoglevel) {
        let lasts = change.lasts().map_err(|wrong| wrong.to_string());
        let set = |lasts| crate::daemon::diagnostics::change_level(&change.loglevel, lasts);
        match lasts.and_then(set) {
            Ok(()) => self.parts.control.reply(id, &()),
            Err(message) => self.refuse(id, "usage", message),
        }
    }

    /// The core's state, with what only drivers know.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        let (services, mut instances) = self.parts.core.snapshot(self.parts.clock.now());
        let runs: Vec<_> = instances
            .iter()
            .filter_map(|status| Some((status.instance.clone(), status.run, status.pid?)))
            .collect();
        let losses = self.parts.log.account();
        let all = losses.total();
        let samples = self.sampler.sample(&runs, Breadth::Session);
        for status in &mut instances {
            if let Some(sample) = samples.get(&(status.instance.clone(), status.run)) {
                status.cpu_percent = sample.cpu_percent;
                status.rss_bytes = Some(sample.rss.0);
                // The core looks only at those that fell silent; nothing else depends on it.
                if sample.paused && !status.flags.contains(&Flag::Paused) {
                    status.flags.push(Flag::Paused);
                }
            }
            if let Some(losses) = losses.of(&status.instance.to_string()) {
                if losses.run == status.run && losses.run != Run::default() {
                    status.flags.push(Flag::LinesDropped);
                }
                status.dropped = losses.dropped();
                status.dropped_by = losses.by_word(false);
                status.missed_by = losses.by_word(true);
            }
            if let Some(age) = self.parts.roster.heartbeat_age(&status.instance) {
                status.heartbeat_age = Some(age.as_secs_f64());
            }
            if let Some(ports) = self.context.ports.get(&status.instance) {
                status.ports.clone_from(ports);
            }
        }
        let cluster = self.parts.core.cluster();
        Snapshot {
            project: cluster.name.clone(),
            config: self.context.config.display().to_string(),
            node: NodeStatus {
                pid: std::process::id(),
                uptime: self.parts.clock.uptime().as_secs_f64(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                stopping: self.parts.core.is_stopping(),
                log_endpoint: Some(self.context.endpoints.log_endpoint.clone()),
                metrics: self.metrics.clone(),
                warnings: self.warnings(&all),
                ignored: self.ignored(),
                dropped: all.dropped(),
                dropped_by: all.by_word(false),
                missed_by: all.by_word(true),
            },
            services,
            instances,
        }
    }

    fn warnings(&self, losses: &Losses) -> Vec<String> {
        let mut warnings = self.parts.warnings.clone();
        warnings.extend(self.parts.processes.degraded());
        warnings.extend(self.parts.watcher.warnings());
        if let Some(why) = &self.refused {
            warnings.push(format!(
                "the configuration file is not in force, what runs is an older one; {why}"
            ));
        }
        if let Some(away) = &self.away {
            warnings.push(format!("{away}; until then nobody finds the node by the registry"));
        }
        let log = self.parts.log.stats();
        if log.degraded {
            warnings.push("the log disk fails: lines are lost and counted".to_owned());
        }
        if losses.dropped() > 0 {
            let (lines, why) = (losses.dropped(), causes(&losses.by_word(false)));
            warnings
                .push(format!("{lines} log lines were dropped ({why}); the timeline says where"));
        }
        let missed = losses.by_word(true);
        if !missed.is_empty() {
            let why = causes(&missed);
            warnings.push(format!("copies of the log miss lines that the timeline has ({why})"));
        }
        let strays = self.parts.processes.strays();
        if !strays.is_empty() {
            let list: Vec<String> = strays
                .iter()
                .take(5)
                .map(|stray| format!("{} ({})", stray.pid, stray.name))
                .collect();
            let count = strays.len();
            warnings.push(format!(
                "{count} processes that no instance can be named for: {}",
                list.join(", ")
            ));
        }
        warnings
    }

    fn ignored(&self) -> BTreeMap<String, u64> {
        self.parts.counters.snapshot()
    }
}
