//! The core against a simulated world: processes that die, ignore TERM, survive KILL, leave children
//! behind, cannot be spawned, fall silent or are paused; operators that change their minds; time that
//! jumps. After every step the machine and the world must agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hilum_shared::config::spec::*;
use hilum_shared::name::{InstanceId, Run};
use hilum_shared::protocol::WorkerState;
use hilum_shared::protocol::control::{Scale, ScaleTo, Targets, Wait};
use hilum_shared::registry::Instance as Entered;
use hilum_shared::signal::{Exit, Signal};
use hilum_shared::status::InstanceStatus;

use super::action::{Action, OrderKind, Reply, Scope};
use super::fixtures::{cluster, needs, ready, service};
use super::input::{
    Entry, FailureClass, Input, Owner, Pulse, Report, Request, RequestId, SpawnFailure,
};
use super::instance::Want;
use super::supervisor::{Options, Supervisor};
use super::time::{Moment, Now};

mod machine;
mod random;

type Key = (InstanceId, Run);

/// The longest silence of the fixtures' cluster.
const SILENCE: Duration = Duration::from_secs(5);

/// One run as the operating system has it.
#[derive(Clone, Debug, Default)]
struct Process {
    leader: bool,
    leftovers: u32,
    stubborn: bool,
    deaf: u32,
    ready: bool,
    paused: bool,
    starved: bool,
    beats: bool,
    subscribed: bool,
}

impl Process {
    fn empty(&self) -> bool {
        !self.leader && self.leftovers == 0
    }
}

/// How the next processes behave.
#[derive(Clone, Copy, Debug, Default)]
struct Nature {
    stubborn: bool,
    deaf: u32,
    leftovers: u32,
    spawn: u8,
}

pub(super) struct World {
    core: Supervisor,
    now: Moment,
    /// What the wall clock said in the beginning.
    wall: f64,
    processes: BTreeMap<Key, Process>,
    pending: Vec<Input>,
    /// The names of all events, in order: `web.1 started`.
    pub(super) events: Vec<String>,
    /// The last event as people read it.
    pub(super) said: String,
    pub(super) replies: BTreeMap<u64, Reply>,
    nature: Nature,
    exits: Vec<i32>,
    requests: u64,
    open: BTreeSet<u64>,
    ready_kinds: BTreeSet<String>,
    /// So many commands of `watch.action` were begun.
    pub(super) watch_commands: u32,
}

impl World {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Self::with(cluster, Options::default())
    }

    pub(super) fn with(cluster: Arc<Cluster>, options: Options) -> Self {
        let ready_kinds = cluster
            .services
            .values()
            .filter(|spec| spec.policy.ready.is_some())
            .map(|spec| spec.name.to_string())
            .collect();
        let core = Supervisor::new(cluster, options, Now::default());
        Self {
            core,
            now: Moment::default(),
            wall: 1.7e9,
            processes: BTreeMap::new(),
            pending: Vec::new(),
            events: Vec::new(),
            said: String::new(),
            replies: BTreeMap::new(),
            nature: Nature::default(),
            exits: Vec::new(),
            requests: 0,
            open: BTreeSet::new(),
            ready_kinds,
            watch_commands: 0,
        }
    }

    pub(super) fn ask(&mut self, request: Request) -> RequestId {
        self.requests += 1;
        self.open.insert(self.requests);
        let id = RequestId(self.requests);
        self.feed(Input::Request { id, request });
        id
    }

    /// Expects one answer to a request with this number.
    pub(super) fn open(&mut self, request: u64) {
        self.open.insert(request);
    }

    pub(super) fn feed(&mut self, input: Input) {
        self.pending.push(input);
        let mut steps = 0;
        while !self.pending.is_empty() {
            let input = self.pending.remove(0);
            let mut actions = Vec::new();
            let now = Now { mono: self.now, wall: self.wall + self.now.0.as_secs_f64() };
            self.core.handle(input, now, &mut actions);
            for action in actions {
                self.act(action);
            }
            self.agree();
            steps += 1;
            assert!(steps < 2000, "inputs never end");
        }
        // What is found in the registry is there.
        for owner in self.core.registered() {
            let Some((id, run)) = owner.split_once('#') else { continue };
            let key = (InstanceId::parse(id).unwrap(), Run(run.parse().unwrap()));
            let alive = self.processes.get(&key).is_some_and(|process| process.leader);
            assert!(alive, "{owner} is registered and does not live");
        }
    }

    /// Asks the registry.
    pub(super) fn entry(&mut self, owner: Owner, entry: Entry) -> RequestId {
        self.requests += 1;
        self.open.insert(self.requests);
        let id = RequestId(self.requests);
        self.feed(Input::Entry { id, owner, entry });
        id
    }

    /// The present run of an instance registers itself under a service's name.
    pub(super) fn registers(&mut self, id: &str, service: &str) -> RequestId {
        let owner = Owner::Run(InstanceId::parse(id).unwrap(), Run(self.run_of(id)));
        self.entry(owner, Self::entry_of(service, id))
    }

    pub(super) fn entry_of(service: &str, id: &str) -> Entry {
        let instance = Box::new(Entered::new(service, &format!("mock://{id}"), None));
        Entry::Register { service: service.to_owned(), instance }
    }

    /// The addresses of a service.
    pub(super) fn found(&mut self, service: &str) -> Vec<String> {
        let lookup = Entry::Lookup { service: service.to_owned() };
        let id = self.entry(Owner::Peer("asker".into()), lookup);
        match &self.replies[&id.0] {
            Reply::View(view) => {
                let mut found: Vec<String> =
                    view.instances.iter().map(|it| it.endpoint.clone()).collect();
                found.sort();
                found
            }
            other => panic!("no view: {other:?}"),
        }
    }

    fn report(&mut self, (instance, run): Key, report: Report) {
        self.pending.push(Input::Report { instance, run, report });
    }

    /// The machine and the world hold the same view.
    fn agree(&self) {
        for ((id, run), process) in &self.processes {
            if process.empty() {
                continue;
            }
            let instance = self.core.instance(id).expect("a process of nobody");
            assert_eq!(instance.run, *run, "an old run of {id} lives");
            assert!(instance.life.is_some(), "{id} is {:?} and has a process", instance.phase);
        }
        for instance in self.core.instances() {
            if instance.at_rest() {
                let alive = self
                    .processes
                    .iter()
                    .any(|((id, _), process)| *id == instance.id && !process.empty());
                assert!(
                    !alive,
                    "{} is at rest in {:?} with a process",
                    instance.id, instance.phase
                );
            }
        }
    }

    /// Lets time pass, deadline by deadline.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut spins = 0;
        while let Some(at) = self.core.deadline().filter(|at| *at <= end) {
            if at > self.now {
                spins = 0;
            }
            self.now = self.now.max(at);
            self.feed(Input::Tick);
            spins += 1;
            assert!(spins < 100, "a deadline that never passes: {at:?}");
        }
        self.now = end;
    }

    /// Starts everything that `up` starts.
    pub(super) fn up(cluster: Arc<Cluster>) -> Self {
        let mut world = Self::new(cluster);
        world.ask(Request::Start(Targets { deps: true, ..Targets::default() }));
        world
    }

    /// The word of `ps`.
    pub(super) fn state(&self, id: &str) -> &'static str {
        self.instance(id).map_or("gone", super::instance::Instance::state_word)
    }

    pub(super) fn instance(&self, id: &str) -> Option<&super::instance::Instance> {
        self.core.instance(&InstanceId::parse(id).unwrap())
    }

    /// As `ps` gets it.
    pub(super) fn status(&self, id: &str) -> InstanceStatus {
        let (_, all) = self.core.snapshot(Now { mono: self.now, wall: self.wall });
        all.into_iter().find(|one| one.instance.to_string() == id).unwrap()
    }

    /// The ports of the shared sockets that are kept.
    pub(super) fn sockets(&self) -> Vec<u16> {
        let kept: BTreeSet<u16> = self.core.sockets().map(|socket| socket.port).collect();
        kept.into_iter().collect()
    }

    /// The present run's number.
    pub(super) fn run_of(&self, id: &str) -> u32 {
        self.instance(id).map_or(0, |instance| instance.run.0)
    }

    /// News of the present run.
    pub(super) fn tell(&mut self, id: &str, report: Report) {
        let run = Run(self.run_of(id));
        self.feed(Input::Report { instance: InstanceId::parse(id).unwrap(), run, report });
    }

    /// The leader ends by itself.
    pub(super) fn ends(&mut self, id: &str, exit: Exit) {
        let key = (InstanceId::parse(id).unwrap(), Run(self.run_of(id)));
        self.end(&key, exit);
        if let Some(input) = self.pending.pop() {
            self.feed(input);
        }
    }

    /// Says what its kind says when it is ready.
    pub(super) fn says_ready(&mut self, id: &str) {
        let key = (InstanceId::parse(id).unwrap(), Run(self.run_of(id)));
        if let Some(process) = self.processes.get_mut(&key) {
            process.ready = true;
        }
        self.tell(id, Report::Beat { state: WorkerState::Ready, status: None, told: SILENCE });
    }

    pub(super) fn pause(&mut self, id: &str, paused: bool) {
        let key = (InstanceId::parse(id).unwrap(), Run(self.run_of(id)));
        self.processes.get_mut(&key).unwrap().paused = paused;
    }

    pub(super) fn starve(&mut self, id: &str, starved: bool) {
        let key = (InstanceId::parse(id).unwrap(), Run(self.run_of(id)));
        self.processes.get_mut(&key).unwrap().starved = starved;
    }

    /// Sets the wall clock by so many seconds.
    pub(super) fn set_clock(&mut self, by: f64) {
        self.wall += by;
    }

    pub(super) fn stall(&mut self, by: Duration) {
        let due = self.core.deadline();
        self.now = self.now + by;
        // As the loop measures it: nobody knows how long the node did not run before the deadline.
        let late = due.map_or(Duration::ZERO, |at| self.now.since(at));
        self.feed(Input::Stalled(late));
        self.feed(Input::Tick);
    }

    pub(super) fn exits(&self) -> &[i32] {
        &self.exits
    }

    pub(super) fn stubborn(&mut self, stubborn: bool) {
        self.nature.stubborn = stubborn;
    }

    /// The next processes outlive so many KILLs.
    pub(super) fn deaf(&mut self, kills: u32) {
        self.nature.deaf = kills;
    }

    /// Whether somebody else has the port of whatever is started.
    pub(super) fn ports_are_held(&mut self, held: bool) {
        self.nature.spawn = if held { 4 } else { 0 };
    }

    /// A beat whose echo calls so much silence too long.
    pub(super) fn beats(&mut self, id: &str, told: Duration) {
        self.tell(id, Report::Beat { state: WorkerState::Ready, status: None, told });
    }

    pub(super) fn blocked_by(&self, id: &str) -> Vec<String> {
        self.status(id).blocked_by
    }

    fn keys(&self) -> Vec<Key> {
        self.processes
            .iter()
            .filter(|(_, process)| process.leader)
            .map(|(key, _)| key.clone())
            .collect()
    }

    fn pick(&self, n: usize) -> Option<Key> {
        let keys = self.keys();
        (!keys.is_empty()).then(|| keys[n % keys.len()].clone())
    }

    /// Every living process says what its kind says when it is ready.
    pub(super) fn all_say_ready(&mut self) {
        for key in self.keys() {
            // One that was ready a moment ago may have been told to stop by another's readiness.
            let Some(process) =
                self.processes.get_mut(&key).filter(|process| process.leader && !process.paused)
            else {
                continue;
            };
            process.ready = true;
            let report = if key.0.service.as_str() == "db" {
                Report::Notify(super::input::NotifyMessage { ready: true, ..Default::default() })
            } else {
                process.beats = true;
                Report::Beat { state: WorkerState::Ready, status: None, told: SILENCE }
            };
            self.feed(Input::Report { instance: key.0, run: key.1, report });
        }
    }
}
