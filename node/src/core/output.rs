//! Where the core's answers go: actions for the drivers, notices for the supervisor itself.

use std::sync::Arc;
use std::time::Duration;

use hilum_shared::config::spec::ServiceSpec;
use hilum_shared::name::{InstanceId, ServiceName};

use super::action::Action;
use super::event::{Event, EventKind};
use super::instance::{Instance, Settings};
use super::time::{Moment, Now};

/// What an instance tells the supervisor: others may wait for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// Down and wanted up.
    Waits,
    /// Executed.
    Started,
    /// Ready.
    Ready {
        /// For the first time in this run.
        first: bool,
    },
    /// A run is over as was asked.
    Stopped {
        /// Whether KILL was needed.
        killed: bool,
    },
    /// Down and not wanted, completed or failed.
    Rests,
    /// It will be started again by itself.
    Restarting {
        /// When its backoff is over; its schedule may come before.
        delay: Duration,
        /// Why it ended.
        reason: String,
    },
    /// Given up, and that concerns others.
    Failed,
    /// Survives KILL.
    Stuck,
    /// As old as `max_age` lets it be.
    Old,
    /// The machine is short of something until then.
    Shortage(Moment),
}

/// Collects what one input brings about.
#[derive(Debug)]
pub struct Output {
    actions: Vec<Action>,
    notices: Vec<(InstanceId, Notice)>,
    reserved: Vec<(InstanceId, Arc<ServiceSpec>)>,
    seq: u64,
    now: Now,
    settings: Settings,
    abort_on_failure: bool,
}

impl Output {
    /// Empty, with the settings in force.
    pub fn new(settings: Settings, abort_on_failure: bool) -> Self {
        Self {
            actions: Vec::new(),
            notices: Vec::new(),
            reserved: Vec::new(),
            seq: 0,
            now: Now::default(),
            settings,
            abort_on_failure,
        }
    }

    /// Begins with another input.
    pub fn begin(&mut self, now: Now) {
        self.now = now;
    }

    /// Replaces the settings.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// The settings in force.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// From now on any failure ends the cluster.
    pub fn set_abort_on_failure(&mut self) {
        self.abort_on_failure = true;
    }

    /// Whether any failure ends the cluster.
    pub fn abort_on_failure(&self) -> bool {
        self.abort_on_failure
    }

    /// Unix seconds, for people.
    pub fn wall(&self) -> f64 {
        self.now.wall
    }

    /// Adds an action.
    pub fn action(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Adds a notice.
    pub fn notice(&mut self, id: &InstanceId, notice: Notice) {
        self.notices.push((id.clone(), notice));
    }

    /// Has an instance's ports numbered before all other actions of this step.
    pub fn reserve(&mut self, id: &InstanceId, spec: &Arc<ServiceSpec>) {
        if !spec.launch.ports.is_empty() {
            self.reserved.push((id.clone(), spec.clone()));
        }
    }

    /// Publishes an event about an instance's present run.
    pub fn event(&mut self, instance: &Instance, kind: EventKind) {
        let pid = instance.life.as_ref().and_then(|life| life.pid);
        let event = Event {
            seq: 0,
            at: 0.0,
            service: Some(instance.id.service.clone()),
            instance: Some(instance.id.clone()),
            run: Some(instance.run),
            pid,
            kind,
        };
        self.publish(event);
    }

    /// Publishes an event about a service, or the whole cluster.
    pub fn event_of(&mut self, service: Option<&ServiceName>, kind: EventKind) {
        self.publish(Event {
            seq: 0,
            at: 0.0,
            service: service.cloned(),
            instance: None,
            run: None,
            pid: None,
            kind,
        });
    }

    fn publish(&mut self, event: Event) {
        self.seq += 1;
        self.actions.push(Action::Publish(Event { seq: self.seq, at: self.now.wall, ..event }));
    }

    /// Takes the notices so far.
    pub fn take_notices(&mut self) -> Vec<(InstanceId, Notice)> {
        std::mem::take(&mut self.notices)
    }

    /// Moves the actions so far to `into`.
    pub fn drain_into(&mut self, into: &mut Vec<Action>) {
        if !self.reserved.is_empty() {
            into.push(Action::Reserve(std::mem::take(&mut self.reserved)));
        }
        into.append(&mut self.actions);
    }
}
