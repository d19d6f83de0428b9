//! The loop: the only room that knows both the core and the drivers.
//!
//! ```text
//!  exits · calls · beats · probes · saved files · deadline ─► queue ─► core ─► actions ─► drivers
//!                                                              ▲                          │
//!                                                              └───── their answers ◄─────┘
//! ```
//! Nothing here decides anything and nothing here waits: what takes time runs beside the loop and
//! sends its answer back.

mod abroad;
mod apply;
mod begin;
mod calls;
mod clock;
mod config;
mod dossier;
mod figures;
mod observe;
mod output;
mod publish;
mod registry;

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hilum_shared::config::LoadOptions;
use hilum_shared::config::spec::{Cluster, ServiceSpec};
use hilum_shared::name::{InstanceId, Run, ServiceName};
use hilum_shared::protocol::control::Outcome;
use tokio::sync::{mpsc, oneshot};

use crate::channels::control::{Control, ControlCall};
use crate::channels::counters::Counters;
use crate::channels::events::Events;
use crate::channels::roster::Roster;
use crate::channels::shutdown::Shutdown;
use crate::core::action::Reply;
use crate::core::event::Event;
use crate::core::input::{Input, Report, Request, RequestId, Reread};
use crate::core::supervisor::Supervisor;
use crate::core::time::Now;
use crate::driver::cgroup::{Cgroups, Leaf};
use crate::driver::child::Processes;
use crate::driver::memory;
use crate::driver::ports::PortTable;
use crate::driver::stats::Sampler;
use crate::driver::sweep::Remains;
use crate::driver::wall_clock::WallClock;
use crate::launch::context::Context;
use crate::log::handle::{LogHandle, LogReport, Source};
use crate::watch::{Changed, Watcher};

pub use self::clock::Clock;
pub use self::publish::Published;

/// A tick that comes so late was not late by itself: the node did not run. Nobody is blamed for
/// that time. Well above the scheduling delays of a busy machine, well below any useful timeout.
const STALL: Duration = Duration::from_millis(200);
/// Inputs that are taken at once before the other sources have their turn.
const BATCH: usize = 256;
/// Events that `node.events` can still tell.
const REMEMBERED: usize = 1000;
/// After the last start of a process unused memory is given back, once.
const SETTLED: Duration = Duration::from_secs(2);

/// What the runtime is made of; all of it is opened by the daemon.
pub struct Parts {
    /// The configuration in force.
    pub cluster: Arc<Cluster>,
    /// How it was read, to read it again.
    pub load: LoadOptions,
    /// The core, nothing started.
    pub core: Supervisor,
    /// Time.
    pub clock: Clock,
    /// The process table.
    pub processes: Processes,
    /// Port numbers.
    pub ports: PortTable,
    /// The node's part of the control groups.
    pub cgroups: Option<Cgroups>,
    /// What instances are started with.
    pub context: Context,
    /// The log thread.
    pub log: LogHandle,
    /// Its reports.
    pub reports: mpsc::Receiver<LogReport>,
    /// Living runs.
    pub roster: Roster,
    /// Control.
    pub control: Control,
    /// Calls that came by it.
    pub calls: mpsc::Receiver<ControlCall>,
    /// Orders.
    pub shutdown: Shutdown,
    /// The event broker.
    pub events: Events,
    /// Beats and notify messages.
    pub inputs: mpsc::Receiver<Input>,
    /// For probes and other helpers of the loop.
    pub inbox: mpsc::Sender<Input>,
    /// Ignored messages.
    pub counters: Counters,
    /// Saved files.
    pub watcher: Watcher,
    /// Its news.
    pub changes: mpsc::Receiver<Changed>,
    /// Where Prometheus asks.
    pub metrics: Option<std::net::TcpListener>,
    /// Signals and the owner's end.
    pub orders: mpsc::Receiver<Order>,
    /// Degraded modes and the like, shown by `doctor` and `ps`.
    pub warnings: Vec<String>,
    /// Who is to hear that the loop goes round.
    pub pulse: Option<LoopPulse>,
}

/// A sign of life of the loop itself, for a service manager above.
pub struct LoopPulse {
    /// Between two signs.
    pub every: Duration,
    /// Gives one; never waits.
    pub send: fn(),
}

/// What the node's own surroundings tell it: signals, its owner's end.
#[derive(Clone, Debug)]
pub enum Order {
    /// Read the configuration again.
    Reload,
    /// Open log files anew.
    ReopenLogs,
    /// Stop in order, and why.
    Stop(String),
    /// Stop now, and why.
    StopNow(String),
}

/// What comes back from work beside the loop.
enum Aside {
    /// A run's output is complete.
    OutputDone,
    /// All is written: the client may be told.
    Tell(RequestId, Box<Outcome>),
    /// The configuration was read again.
    Loaded(config::Loaded),
    /// Look at the memory of instances that have a limit.
    SampleMemory,
    /// The registry that other hosts know is away for a reason, or there.
    Registry(Option<String>),
    /// Prometheus asks.
    Scrape(oneshot::Sender<String>),
}

/// Output that is not read yet.
struct Output {
    source: Source,
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
}

/// What is held for one run.
#[derive(Default)]
struct Held {
    token: String,
    probes: [Option<tokio::task::JoinHandle<()>>; 2],
    hooks: Vec<tokio::task::JoinHandle<()>>,
    leaf: Option<Leaf>,
    /// Read from its `started` on, so that none of its lines comes before that.
    output: Option<Output>,
    readiness: Option<tokio::task::JoinHandle<()>>,
    output_ended: bool,
}

/// The running node.
pub struct Runtime {
    parts: Parts,
    context: Rc<Context>,
    sampler: Sampler,
    memory: Sampler,
    queue: VecDeque<Input>,
    /// Answers to spawns, with the time of each: told before anything else that waits.
    spawned: VecDeque<(Input, Now)>,
    held: HashMap<(InstanceId, Run), Held>,
    sweeps: Vec<(InstanceId, Run)>,
    kills: Vec<(InstanceId, Run)>,
    draining: Arc<Mutex<output::Draining>>,
    next_drain: u64,
    /// Answers of this turn. Each wakes three threads, which on few processors would go before the processes that are being started.
    answers: Vec<(RequestId, Reply)>,
    /// Answers that wait for the output of runs that ended before.
    late: Vec<(u64, RequestId, Outcome)>,
    aside: (mpsc::UnboundedSender<Aside>, mpsc::UnboundedReceiver<Aside>),
    events: VecDeque<Event>,
    /// The first `start`'s answer, for whoever launched the node.
    first: Option<Reply>,
    sampling: Option<tokio::task::JoinHandle<()>>,
    /// Something was started: when that has settled, unused memory is given back.
    settles_at: Option<tokio::time::Instant>,
    /// What crash dossiers call the state of a service's configuration, made at its first crash.
    hashes: HashMap<ServiceName, (Arc<ServiceSpec>, String)>,
    oom: crate::driver::oom::Watch,
    /// The `on_crash` hooks that run.
    crash_hooks: HashMap<InstanceId, tokio::task::AbortHandle>,
    /// Crashes of this turn: what is started again does not wait until their dossiers are written.
    dossiers: Vec<dossier::Dossier>,
    to_read: VecDeque<config::Purpose>,
    reason: String,
    /// Whether somebody told the node to end.
    ordered: bool,
    exit: Option<i32>,
    /// The node's part in a registry of several hosts.
    abroad: Option<abroad::Abroad>,
    /// Why that registry is away.
    away: Option<String>,
    /// Why the file as it is now is not in force.
    refused: Option<String>,
    /// Where Prometheus asks.
    metrics: Option<String>,
}

impl Runtime {
    /// A node that has started nothing yet.
    pub fn new(mut parts: Parts) -> Self {
        let context = Rc::new(parts.context.clone());
        parts.watcher.watch(&parts.cluster, &parts.load);
        let mut runtime = Self {
            parts,
            context,
            sampler: Sampler::new(),
            memory: Sampler::new(),
            queue: VecDeque::new(),
            spawned: VecDeque::new(),
            held: HashMap::new(),
            sweeps: Vec::new(),
            kills: Vec::new(),
            draining: Arc::default(),
            next_drain: 0,
            answers: Vec::new(),
            late: Vec::new(),
            // Only our own tasks write here, each a bounded number of messages.
            aside: mpsc::unbounded_channel(),
            events: VecDeque::new(),
            first: None,
            sampling: None,
            settles_at: None,
            hashes: HashMap::new(),
            oom: crate::driver::oom::Watch::start(),
            crash_hooks: HashMap::new(),
            dossiers: Vec::new(),
            to_read: VecDeque::new(),
            reason: String::new(),
            ordered: false,
            exit: None,
            abroad: None,
            away: None,
            refused: None,
            metrics: None,
        };
        runtime.register_itself();
        runtime.go_abroad();
        runtime.answer_prometheus();
        runtime
    }

    /// Gives the first orders; the answer of the last one comes back.
    pub fn begin(&mut self, requests: Vec<Request>) -> Option<Reply> {
        for request in requests {
            self.first = None;
            self.queue.push_back(Input::Request { id: RequestId(0), request });
            self.turn();
            if matches!(self.first, Some(Reply::Fault(_))) {
                break;
            }
        }
        self.first.take()
    }

    /// Runs until all is down; the answer is the exit code.
    pub async fn run(&mut self) -> i32 {
        let processes = self.parts.processes.clone();
        let wall_clock = WallClock::watch()
            .inspect_err(|error| tracing::warn!(%error, "a step of the wall clock is noticed late"))
            .ok();
        let next_pulse = |pulse: &LoopPulse| tokio::time::Instant::now() + pulse.every;
        let mut pulse_at = self.parts.pulse.as_ref().map(next_pulse);
        loop {
            self.turn();
            if let Some(code) = self.exit {
                return code;
            }
            let deadline = self.core_deadline();
            tokio::select! {
                Some(input) = self.parts.inputs.recv() => {
                    self.queue.push_back(input);
                    self.drain_inputs();
                }
                Ok(()) = processes.wait() => self.children_ended(),
                Some(call) = self.parts.calls.recv() => self.call(call),
                Some(report) = self.parts.reports.recv() => self.log_report(report),
                Some(aside) = self.aside.1.recv() => self.aside(aside),
                Some(change) = self.parts.changes.recv() => self.changed(change),
                Some(order) = self.parts.orders.recv() => self.order(order),
                () = sleep_until(deadline) => self.tick(),
                () = was_set(wall_clock.as_ref()) => self.queue.push_back(Input::Tick),
                () = sleep_until(pulse_at) => {
                    self.parts.pulse.iter().for_each(|pulse| (pulse.send)());
                    pulse_at = self.parts.pulse.as_ref().map(next_pulse);
                }
                () = sleep_until(self.settles_at) => {
                    self.settles_at = None;
                    memory::give_back();
                }
            }
        }
    }

    fn core_deadline(&self) -> Option<tokio::time::Instant> {
        self.parts.core.deadline().map(|at| self.parts.clock.instant(at))
    }

    fn next_input(&mut self) -> Option<(Input, Now)> {
        let spawned = self.spawned.pop_front();
        spawned.or_else(|| Some((self.queue.pop_front()?, self.parts.clock.now())))
    }

    /// Feeds the core until it has nothing more to say.
    fn turn(&mut self) {
        let mut actions = Vec::new();
        let _quiet = self.parts.log.quietly();
        loop {
            let mut fed = 0;
            while let Some((input, now)) = self.next_input() {
                self.parts.core.handle(input, now, &mut actions);
                for action in actions.drain(..) {
                    self.apply(action);
                }
                fed += 1;
                if fed % BATCH == 0 {
                    self.tell(); // a start of thousands takes seconds
                }
            }
            if self.kills.is_empty() && self.sweeps.is_empty() {
                self.write_dossiers();
                self.close_sockets();
                return self.tell();
            }
            // One look at the process table answers for a whole batch.
            let kills = std::mem::take(&mut self.kills);
            let sweeps = std::mem::take(&mut self.sweeps);
            let mut found = Vec::new();
            if !kills.is_empty() {
                found.extend(self.parts.processes.kill(&kills));
            }
            if !sweeps.is_empty() {
                found.extend(self.parts.processes.sweep(&sweeps));
            }
            let lost = self.parts.processes.lost();
            self.sweep_held(lost);
            for (instance, run, remains) in found {
                let report = match remains {
                    Remains::Empty => Report::Empty,
                    Remains::Left { pids, stuck } => Report::Left { pids, stuck },
                };
                self.queue.push_back(Input::Report { instance, run, report });
            }
        }
    }

    fn tick(&mut self) {
        let now = self.parts.clock.now();
        let late = self.parts.core.deadline().map_or(Duration::ZERO, |at| now.mono.since(at));
        // What came meanwhile is heard before anybody is judged.
        self.drain_inputs();
        if late >= STALL {
            self.children_ended();
            self.queue.push_front(Input::Stalled(late));
        }
        self.queue.push_back(Input::Tick);
    }

    fn drain_inputs(&mut self) {
        for _ in 0..BATCH {
            let Ok(input) = self.parts.inputs.try_recv() else { return };
            self.queue.push_back(input);
        }
    }

    fn children_ended(&mut self) {
        let exits = self.parts.processes.take_exits();
        if exits.is_empty() {
            // An orphan, then. Where leaders ended, too, the sweep of their runs finds it.
            let runs = self.parts.processes.reap_strays();
            self.sweep_held(runs);
        }
        for (instance, run, exit) in exits {
            if let Some(held) = self.held.get(&(instance.clone(), run)) {
                self.parts.events.ended(&held.token);
            }
            self.queue.push_back(Input::Report { instance, run, report: Report::Exited(exit) });
        }
    }

    /// Orphans have ended: what was left of their runs may be gone.
    fn sweep_held(&mut self, runs: Vec<(InstanceId, Run)>) {
        self.sweeps.extend(runs.into_iter().filter(|run| self.held.contains_key(run)));
    }

    fn aside(&mut self, aside: Aside) {
        match aside {
            Aside::OutputDone => self.answer_late(),
            Aside::Tell(id, outcome) => self.parts.control.reply(id, &*outcome),
            Aside::Loaded(loaded) => self.loaded(loaded),
            Aside::SampleMemory => self.sample_memory(),
            Aside::Registry(away) => self.registry_news(away),
            Aside::Scrape(answer) => self.scraped(answer),
        }
    }

    fn log_report(&mut self, report: LogReport) {
        match report {
            LogReport::Matched { instance, run } => {
                self.queue.push_back(Input::Report { instance, run, report: Report::Ready });
            }
            LogReport::Held { instance, run, held } => {
                self.queue.push_back(Input::Report { instance, run, report: Report::Held(held) });
            }
            LogReport::Degraded(why) => tracing::error!(%why, "log disk fails"),
            LogReport::Recovered => tracing::warn!("log disk works again"),
            LogReport::Dropped { name, lines, why } => {
                tracing::warn!(%name, lines, %why, "log lines dropped");
            }
        }
    }

    fn order(&mut self, order: Order) {
        let request = match order {
            Order::Reload => return self.read_config(Reread::Ordered, false),
            Order::ReopenLogs => return self.parts.log.reopen(),
            Order::Stop(reason) => Request::Shutdown { grace: None, reason },
            Order::StopNow(reason) => Request::Shutdown { grace: Some(Duration::ZERO), reason },
        };
        self.ordered = true;
        self.queue.push_back(Input::Request { id: RequestId(0), request });
    }

    fn changed(&mut self, change: Changed) {
        match change {
            Changed::Config => self.read_config(Reread::Saved, false),
            Changed::Files { service, path } => {
                self.queue.push_back(Input::FilesChanged { service, path });
            }
        }
    }

    /// Why the node ended, for whoever started it.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether it ended because it was told to.
    pub fn was_ordered(&self) -> bool {
        self.ordered
    }
}

async fn was_set(wall_clock: Option<&WallClock>) {
    let set = match wall_clock {
        Some(clock) => clock.was_set().await,
        None => std::future::pending().await,
    };
    if let Err(error) = set {
        tracing::warn!(%error, "the wall clock is not watched any more");
        std::future::pending::<()>().await;
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A loop that cannot act any more leaves nothing running.
impl Drop for Runtime {
    fn drop(&mut self) {
        let _ = self.parts.processes.kill_everything();
    }
}
