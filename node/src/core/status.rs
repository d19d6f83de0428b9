//! The core's state as others see it. What only drivers know (statistics, ports) is added by the runtime.

use std::collections::BTreeMap;

use hilum_shared::config::spec::ReadyKind;
use hilum_shared::status::{ExitStatus, Flag, Hook, InstanceStatus, ServiceStatus, State};
use hilum_shared::units::format_duration;

use super::input::FailureClass;
use super::instance::{Instance, Phase, Want};
use super::service::{Service, is_job};
use super::time::Now;

impl Instance {
    /// The word of `ps`.
    pub fn state(&self) -> State {
        match &self.phase {
            Phase::Down if self.waits() => State::Waiting,
            Phase::Down => State::Stopped,
            Phase::Preparing | Phase::Starting => State::Starting,
            Phase::Running => State::Running,
            Phase::Stopping(_) | Phase::Killing(_) | Phase::Closing(_) => State::Stopping,
            Phase::Backoff { .. } => State::Backoff,
            Phase::Completed => State::Completed,
            Phase::Failed => State::Failed,
        }
    }

    /// The same as a word.
    pub fn state_word(&self) -> &'static str {
        self.state().as_str()
    }

    /// As `ps` shows it.
    pub fn status(&self, now: Now, service: &Service, blocked_by: Vec<String>) -> InstanceStatus {
        let life = self.life.as_ref();
        let next = match &self.phase {
            // A schedule goes before the backoff.
            Phase::Backoff { until } => Some(service.fires_at.map_or(*until, |at| at.min(*until))),
            Phase::Stopping(stop) => Some(stop.kill_at),
            Phase::Starting => life.and_then(|life| life.ready_by),
            Phase::Completed | Phase::Failed | Phase::Down if self.want == Want::Up => {
                service.fires_at
            }
            _ => None,
        };
        let short = self.missed == Some(FailureClass::Shortage);
        let flags = [
            (Flag::Paused, life.is_some_and(|life| life.paused.is_some())),
            (Flag::Stuck, self.stuck()),
            (Flag::Starved, short && matches!(self.phase, Phase::Backoff { .. })),
            (Flag::HeldBack, life.is_some_and(|life| life.held)),
            (Flag::Removed, service.removed),
            (Flag::Outdated, self.is_up() && !self.outdated(&service.spec).is_empty()),
        ];
        InstanceStatus {
            service: self.id.service.clone(),
            instance: self.id.clone(),
            index: self.id.index,
            pid: life.and_then(|life| life.pid),
            state: self.state(),
            ready: self.ready(),
            flags: flags.iter().filter(|(_, is)| *is).map(|(flag, _)| *flag).collect(),
            run: self.run,
            restarts: self.restarts,
            uptime: life.and_then(|life| life.up_at).map(|at| now.mono.since(at).as_secs_f64()),
            exit: self.exit.map(|(exit, at)| ExitStatus::new(exit, at)),
            reason: match (&self.reason, blocked_by.as_slice()) {
                (None, [first, ..]) => Some(format!("waits for {first}")),
                (None, []) => self.awaited(),
                (reason, _) => reason.clone(),
            },
            next_at: next.map(|at| at.since(now.mono).as_secs_f64()),
            info: self.info.clone(),
            cpu_percent: None,
            rss_bytes: None,
            heartbeat_age: life
                .and_then(|life| life.last_beat)
                .map(|at| now.mono.since(at).as_secs_f64()),
            ports: BTreeMap::new(),
            labels: service.spec.policy.labels.clone(),
            blocked_by,
            in_vain: None,
            hook: self.awaited_hook().map(|(point, since)| Hook {
                name: point.as_str().to_owned(),
                uptime: now.mono.since(since).as_secs_f64(),
            }),
            dropped: 0,
            dropped_by: [].into(),
            missed_by: [].into(),
        }
    }
}

impl Instance {
    /// What a run that is up lacks to be ready.
    fn awaited(&self) -> Option<String> {
        let life = self.life.as_ref()?;
        let check = self.spec.policy.ready.as_ref()?;
        if !matches!(self.phase, Phase::Starting | Phase::Running) || life.ready {
            return None;
        }
        if !life.probe_detail.is_empty() {
            return Some(life.probe_detail.clone());
        }
        Some(match &check.kind {
            ReadyKind::Heartbeat => "no heartbeat has said ready".to_owned(),
            ReadyKind::Notify => "`READY=1` has not come".to_owned(),
            ReadyKind::NotifyFd(number) => format!("nothing has come on descriptor {number}"),
            ReadyKind::Probe(_) | ReadyKind::File(_) => "its probe has not answered".to_owned(),
            ReadyKind::Log(pattern) => format!("no line has matched `{pattern}`"),
            ReadyKind::Delay(delay) => format!("ready {} after its start", format_duration(*delay)),
            ReadyKind::Registered(Some(name)) => format!("it has not registered as `{name}`"),
            ReadyKind::Registered(None) => "it has not registered".to_owned(),
        })
    }
}

impl Service {
    /// As `ps` shows it.
    pub fn status(&self) -> ServiceStatus {
        ServiceStatus {
            name: self.spec.name.clone(),
            count: self.count,
            configured: self.spec.numprocesses,
            removed: self.removed,
            job: is_job(&self.spec),
            description: self.spec.policy.description.clone(),
        }
    }
}
