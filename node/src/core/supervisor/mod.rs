//! Routes every input to the instances it concerns, and decides what concerns more than one: who may
//! start (`start`), in which order things stop (`stop`), what an operator asks (`request`), what a new
//! configuration changes (`reload`), how many are replaced one after another (`rolling`), and what news of one
//! instance mean for others (`settle`, `breaker`), who offers what (`registry`).

mod breaker;
mod registry;
mod reload;
mod request;
mod rolling;
mod scale;
mod settle;
mod start;
mod stop;
mod vain;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hilum_shared::config::spec::{
    Cluster, NodeSpec, ReloadVia, ServiceSpec, SocketSpec, Watch, WatchAction,
};
use hilum_shared::name::{InstanceId, Run, ServiceName};
use hilum_shared::signal::Signal;
use hilum_shared::status::{Flag, InstanceStatus, ServiceStatus};

use self::registry::Registry;
use self::rolling::Roll;
use self::start::STARTS_AT_ONCE;
use self::stop::{Going, Order};
use self::vain::Vain;
use super::action::{Action, OrderKind, Scope};
use super::event::EventKind;
use super::graph::Graph;
use super::input::{Input, Owner, Report};
use super::instance::{Instance, Phase, Settings, Want};
use super::operation::{Awaiting, Operations};
use super::output::Output;
use super::service::{Service, WatchRun};
use super::time::{Moment, Now};

/// What the command line decides for a node's whole life.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Chosen profiles.
    pub profiles: Vec<String>,
    /// The node exits when everything has ended by itself.
    pub exit_when_idle: bool,
    /// Any failure ends the cluster.
    pub abort_on_failure: bool,
}

/// The whole cluster's state.
#[derive(Debug)]
pub struct Supervisor {
    cluster: Arc<Cluster>,
    options: Options,
    graph: Graph,
    services: BTreeMap<ServiceName, Service>,
    out: Output,
    /// Deadlines of instances, kept in step by [`Supervisor::with`].
    deadlines: BTreeSet<(Moment, InstanceId)>,
    /// Instances that wait for their turn to start.
    waiting: BTreeMap<ServiceName, BTreeSet<u32>>,
    /// When to look at the waiting ones again without news.
    gate_at: Option<Moment>,
    /// Something happened that may open a gate.
    gate_dirty: bool,
    /// How many instances are between start and ready.
    starting: usize,
    /// How many may be started before the next tick.
    starts_left: usize,
    /// The machine is short of something until then: no start before.
    paused_until: Option<Moment>,
    /// Of what, in words; until something could be started again.
    shortage: Option<String>,
    /// Instances that are to end when those that depend on them have.
    wave: BTreeMap<InstanceId, Order>,
    rolls: BTreeMap<ServiceName, Roll>,
    going: Option<Going>,
    operations: Operations,
    awaiting: Vec<Awaiting>,
    /// What the wall clock says beyond the monotonic one, in seconds.
    wall_ahead: f64,
    /// The operation of the last reload.
    reloading: u64,
    /// It was told that the file cannot be put in force, and not yet that it can.
    refused: bool,
    registry: Registry,
}

fn settings(node: &NodeSpec) -> Settings {
    Settings {
        heartbeat_interval: node.heartbeat_interval,
        heartbeat_timeout: node.heartbeat_timeout,
    }
}

impl Supervisor {
    /// A cluster of which nothing runs; what is to run is asked for by a first `start`.
    pub fn new(cluster: Arc<Cluster>, options: Options, now: Now) -> Self {
        let mut out = Output::new(settings(&cluster.node), options.abort_on_failure);
        out.begin(now);
        out.event_of(None, EventKind::NodeStarted);
        let mut supervisor = Self {
            graph: Graph::of(&cluster),
            cluster: cluster.clone(),
            options,
            services: BTreeMap::new(),
            out,
            deadlines: BTreeSet::new(),
            waiting: BTreeMap::new(),
            gate_at: None,
            gate_dirty: false,
            starting: 0,
            starts_left: STARTS_AT_ONCE,
            paused_until: None,
            shortage: None,
            wave: BTreeMap::new(),
            rolls: BTreeMap::new(),
            going: None,
            operations: Operations::default(),
            awaiting: Vec::new(),
            wall_ahead: start::wall_ahead(now),
            reloading: 0,
            refused: false,
            // Another one in each life of a node.
            registry: Registry::new((now.wall.max(0.0) * 1e6) as u64),
        };
        for spec in cluster.services.values() {
            supervisor.add_service(spec.clone(), Want::Down, now);
        }
        supervisor
    }

    /// Takes one input and adds what is to be done to `actions`.
    pub fn handle(&mut self, input: Input, now: Now, actions: &mut Vec<Action>) {
        self.out.begin(now);
        self.look_at_clocks(now);
        match input {
            Input::Tick => self.tick(now),
            Input::Stalled(by) => self.stalled(by, now),
            Input::Request { id, request } => self.request(id, request, now),
            Input::Report { instance, run, report } => self.report(&instance, run, report, now),
            Input::Entry { id, owner, entry } => self.entry(id, &owner, entry, now),
            Input::Departed(owner) => self.departed(&owner, now),
            Input::RegistryAway(away) => {
                let event = away.map_or(EventKind::RegistryBack, EventKind::RegistryAway);
                self.out.event_of(None, event);
            }
            Input::FilesChanged { service, path } => self.files_changed(&service, &path, now),
            Input::ReloadRefused(why) => {
                self.refused = true;
                self.out.event_of(None, EventKind::ReloadRefused(why));
            }
            Input::WatchActionDone { service, result } => self.watch_action_done(&service, result),
            Input::Reconfigure { reason, cluster, dry_run } => {
                self.reconfigure(reason, cluster, dry_run, now);
                self.offered(now);
            }
        }
        self.settle(now);
        self.out.drain_into(actions);
    }

    /// The next moment at which something is due.
    pub fn deadline(&self) -> Option<Moment> {
        let instances = self.deadlines.first().map(|(at, _)| *at);
        let schedules = self.services.values().filter_map(|service| service.fires_at).min();
        let rolls = self.rolls.values().filter_map(Roll::deadline).min();
        let going = self.going.as_ref().and_then(Going::deadline);
        let breakers = self.breaker_deadline();
        let watches = self.registry.deadline();
        let all = [instances, schedules, rolls, going, breakers, watches, self.gate_at];
        all.into_iter().flatten().min()
    }

    /// Whether the cluster is on its way down.
    pub fn is_stopping(&self) -> bool {
        self.going.is_some()
    }

    /// The configuration in force.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// The shared sockets that are configured, that a run has, or that a next one may get.
    pub fn sockets(&self) -> impl Iterator<Item = &SocketSpec> {
        let services = self.services.values().map(|service| service.spec.as_ref());
        // Nearly all runs have their service's own definition, which is looked at once.
        let older = self.services.values().flat_map(|service| {
            let runs = service.instances.values().filter(|instance| instance.life.is_some());
            let specs = runs.map(|instance| &instance.spec);
            specs.filter(|spec| !Arc::ptr_eq(spec, &service.spec)).map(AsRef::as_ref)
        });
        let specs = services.chain(older).chain(self.rolls.values().filter_map(Roll::previous));
        self.cluster.sockets.iter().chain(specs.flat_map(|spec| &spec.launch.sockets))
    }

    /// The services and instances as `ps` shows them.
    pub fn snapshot(&self, now: Now) -> (Vec<ServiceStatus>, Vec<InstanceStatus>) {
        let services = self.services.values().map(Service::status).collect();
        let mut instances = Vec::new();
        let mut vain = Vain::of(self);
        for service in self.services.values() {
            let blocked = self.blocked_by(service);
            for instance in service.instances.values() {
                let mut blocked = if instance.waits() && !instance.ignore_deps {
                    blocked.clone()
                } else {
                    Vec::new()
                };
                if let Some(tried) = service.on_trial().filter(|_| instance.waits()) {
                    blocked.push(format!("{} to hold: all of them crash", tried.id));
                }
                let mut status = instance.status(now, service, blocked);
                // The time of the whole cluster may be over before the instance's own.
                if let Some(at) = self.going.as_ref().and_then(Going::deadline)
                    && matches!(instance.phase, Phase::Stopping(_))
                {
                    let left = at.since(now.mono).as_secs_f64();
                    status.next_at = status.next_at.map(|next| next.min(left));
                }
                status.in_vain = vain.why(instance);
                if let Some(shortage) = self.shortage.as_ref().filter(|_| instance.waits()) {
                    status.flags.push(Flag::Starved);
                    status.reason.get_or_insert_with(|| shortage.clone());
                }
                instances.push(status);
            }
        }
        (services, instances)
    }

    /// One instance.
    pub fn instance(&self, id: &InstanceId) -> Option<&Instance> {
        self.services.get(&id.service)?.instances.get(&id.index)
    }

    /// How many processes of a service are wanted now.
    pub fn count(&self, service: &str) -> u32 {
        self.services.get(service).map_or(0, |service| service.count)
    }

    /// All instances.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.services.values().flat_map(|service| service.instances.values())
    }

    // --- the one way to an instance -------------------------------------------------------------

    /// Lets `act` change an instance and keeps the indexes in step. Nothing else may change one.
    fn with(&mut self, id: &InstanceId, act: impl FnOnce(&mut Instance, &mut Output)) {
        let Some(service) = self.services.get_mut(&id.service) else { return };
        let Some(instance) = service.instances.get_mut(&id.index) else { return };
        let before = instance.deadline(self.out.settings());
        let was_starting = is_starting(instance);
        let (offered, was_paused) = (instance.offers(), instance.is_paused());
        act(instance, &mut self.out);
        if let Some(run) = offered {
            let owner = Owner::Run(id.clone(), run);
            if instance.offers() != Some(run) {
                self.registry.gone(&owner, &mut self.out);
            } else if instance.is_paused() != was_paused {
                self.registry.withhold(&owner, !was_paused, &mut self.out);
            }
        }
        let after = instance.deadline(self.out.settings());
        match (was_starting, is_starting(instance)) {
            (false, true) => self.starting += 1,
            (true, false) => self.starting -= 1,
            _ => {}
        }
        if before != after {
            if let Some(at) = before {
                self.deadlines.remove(&(at, id.clone()));
            }
            if let Some(at) = after {
                self.deadlines.insert((at, id.clone()));
            }
        }
        if instance.waits() {
            self.waiting.entry(id.service.clone()).or_default().insert(id.index);
            self.gate_dirty = true;
        } else if let Some(indexes) = self.waiting.get_mut(&id.service) {
            indexes.remove(&id.index);
            if indexes.is_empty() {
                self.waiting.remove(&id.service);
            }
        }
    }

    fn add_service(&mut self, spec: Arc<ServiceSpec>, want: Want, now: Now) {
        let name = spec.name.clone();
        let count = spec.numprocesses;
        let mut service = Service::new(spec, want);
        service.plan_next(None, now);
        self.services.insert(name.clone(), service);
        self.grow(&name, count, want, now);
    }

    /// Makes instances up to `count`; those that are there and were to go stay.
    fn grow(&mut self, name: &ServiceName, count: u32, want: Want, now: Now) -> Vec<InstanceId> {
        let mut grown = Vec::new();
        let Some(service) = self.services.get_mut(name) else { return grown };
        let spec = service.spec.clone();
        for index in 1..=count {
            let id = InstanceId::new(name.clone(), index);
            let leaving = service.instances.get(&index).map(|instance| instance.dropping);
            if leaving == Some(false) {
                continue;
            }
            if leaving.is_none() {
                let instance = Instance::new(id.clone(), spec.clone(), Want::Down, now.mono);
                service.instances.insert(index, instance);
                self.out.reserve(&id, &spec);
            }
            grown.push(id);
        }
        for id in &grown {
            self.wave.remove(id);
            self.with(id, |instance, out| {
                instance.dropping = false;
                if want == Want::Up {
                    instance.want_up(now.mono, out);
                }
            });
        }
        grown
    }

    /// Forgets an instance that is down for good.
    fn remove(&mut self, id: &InstanceId) {
        self.with(id, |instance, _| {
            instance.phase = Phase::Down;
            instance.want = Want::Down;
        });
        if let Some(service) = self.services.get_mut(&id.service) {
            service.instances.remove(&id.index);
            self.out.action(Action::Drop { instance: id.clone() });
            if service.removed && service.instances.is_empty() {
                self.services.remove(&id.service);
                self.rolls.remove(&id.service);
            }
        }
    }

    // --- inputs ---------------------------------------------------------------------------------

    fn report(&mut self, id: &InstanceId, run: Run, report: Report, now: Now) {
        let current = self
            .instance(id)
            .is_some_and(|instance| instance.run == run && instance.life.is_some());
        if current {
            self.with(id, |instance, out| instance.report(report, now.mono, out));
        }
    }

    fn stalled(&mut self, by: Duration, now: Now) {
        self.out.event_of(None, EventKind::Stalled(by));
        let ids: Vec<InstanceId> = self.instances().map(|instance| instance.id.clone()).collect();
        for id in &ids {
            self.with(id, |instance, _| instance.stalled(by, now.mono));
        }
        for roll in self.rolls.values_mut() {
            roll.stalled(by);
        }
        if let Some(going) = &mut self.going {
            going.stalled(by);
        }
    }

    fn tick(&mut self, now: Now) {
        let due: Vec<InstanceId> = self
            .deadlines
            .iter()
            .take_while(|(at, _)| *at <= now.mono)
            .map(|(_, id)| id.clone())
            .collect();
        for id in &due {
            self.with(id, |instance, out| instance.tick(now.mono, out));
        }
        self.fire_schedules(now);
        self.advance_rolls(now);
        self.close_breakers(now);
        self.hasten_shutdown(now);
        self.expire_watches(now);
        self.starts_left = STARTS_AT_ONCE;
        if self.gate_at.is_some_and(|at| at <= now.mono) {
            self.gate_dirty = true;
        }
    }

    fn files_changed(&mut self, name: &ServiceName, path: &str, now: Now) {
        let Some(service) = self.services.get(name) else { return };
        let Some(watch) = service.spec.policy.watch.clone() else { return };
        if self.going.is_some() {
            return;
        }
        self.out.event_of(Some(name), EventKind::FilesChanged(path.to_owned()));
        let up: Vec<InstanceId> = service
            .instances
            .values()
            .filter(|i| i.want == Want::Up)
            .map(|i| i.id.clone())
            .collect();
        match watch.action {
            WatchAction::Restart => self.replace(name, up, &format!("{path} changed"), None, now),
            WatchAction::Run(_) => self.run_watch_command(name),
            WatchAction::Reload => {
                for id in up {
                    self.ask_to_reload(&id, &format!("{path} changed"));
                }
            }
        }
    }

    /// One at a time: what changes meanwhile is told to one more.
    fn run_watch_command(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get_mut(name) else { return };
        let Some(Watch { action: WatchAction::Run(command), .. }) = &service.spec.policy.watch
        else {
            return;
        };
        if service.watch == WatchRun::Idle {
            service.watch = WatchRun::Running;
            let (spec, command) = (service.spec.clone(), command.clone());
            self.out.action(Action::RunWatchCommand { spec, command });
        } else {
            service.watch = WatchRun::Again;
        }
    }

    fn watch_action_done(&mut self, name: &ServiceName, result: Result<(), String>) {
        if let Err(message) = result {
            self.out.event_of(Some(name), EventKind::WatchActionFailed(message));
        }
        let Some(service) = self.services.get_mut(name) else { return };
        let before = std::mem::take(&mut service.watch);
        if before == WatchRun::Again && self.going.is_none() {
            self.run_watch_command(name);
        }
    }

    /// Tells what runs to read its configuration again.
    fn ask_to_reload(&mut self, id: &InstanceId, why: &str) {
        let via = self.services.get(&id.service).and_then(|service| service.spec.policy.reload);
        let via = via.unwrap_or(ReloadVia::Signal(Signal::HUP));
        self.with(id, |instance, out| {
            if !instance.started() {
                return;
            }
            let (instance_id, run) = (instance.id.clone(), instance.run);
            let event = EventKind::ReloadAsked { via: via.to_string(), why: why.to_owned() };
            out.event(instance, event);
            out.action(match via {
                ReloadVia::Signal(signal) => {
                    Action::Signal { instance: instance_id, run, signal, scope: Scope::Leader }
                }
                ReloadVia::Message => Action::Order {
                    instance: instance_id,
                    run,
                    order: OrderKind::Reload,
                    reason: why.to_owned(),
                },
            });
        });
    }
}

fn is_starting(instance: &Instance) -> bool {
    matches!(instance.phase, Phase::Preparing | Phase::Starting)
}
