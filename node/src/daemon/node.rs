//! The node's process: from its folders to its last line.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hilum_shared::config::spec::{Cluster, OnAllExited};
use hilum_shared::config::{LoadOptions, Loaded};
use hilum_shared::lock::{Lock, LockError};
use hilum_shared::name::{InstanceId, Run};
use hilum_shared::protocol::Level;
use hilum_shared::protocol::control::Fault;
use hilum_shared::rpc::publish;
use hilum_shared::run_dir::Access;
use hilum_shared::transport::{Hub, reach};
use nix::unistd::getppid;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::diagnostics::{self, Sink};
use super::guard::{Guard, NotifySocket};
use super::launch::{NodeOptions, Startup, Status};
use super::log_dir;
use super::places::{LastWord, PlaceError, Places};
use super::surroundings::{listen, report, tell_manager, watchdog_of_manager};
use crate::channels::control::Control;
use crate::channels::counters::Counters;
use crate::channels::events::Events;
use crate::channels::heartbeat::Heartbeat;
use crate::channels::publish::Publish;
use crate::channels::records::{Batch, ReadOut, Records};
use crate::channels::roster::Roster;
use crate::channels::shutdown::Shutdown;
use crate::core::action::Reply;
use crate::core::input::{Input, Report};
use crate::core::supervisor::{Options, Supervisor};
use crate::driver::cgroup::Cgroups;
use crate::driver::child::Processes;
use crate::driver::holder;
use crate::driver::keeper;
use crate::driver::limits::Nofile;
use crate::driver::ports::PortTable;
use crate::driver::sockets::{self, Sockets};
use crate::driver::{signals, sys};
use crate::launch::context::{Context, Endpoints};
use crate::log::account::Untold;
use crate::log::handle::{self as log, LogConfig, LogHandle, NodeRecord, QueueFull};
use crate::runtime::{Clock, Parts, Published, Runtime};
use crate::watch::Watcher;

/// So long the node tries to end what is left when its loop is over.
const LAST_PATIENCE: Duration = Duration::from_secs(5);
/// Structured records that found no room are tried again after this.
const RECORDS_AGAIN: Duration = Duration::from_millis(20);
/// Messages that may wait for the loop; senders then hold back (beats are counted as seen).
const INBOX: usize = 4096;

/// Why a node cannot start, for whoever launched it.
struct Refusal {
    message: String,
    code: u8,
}

impl Refusal {
    fn new(message: impl ToString) -> Self {
        Self { message: message.to_string(), code: 1 }
    }

    fn usage(message: impl ToString) -> Self {
        Self { message: message.to_string(), code: 2 }
    }
}

/// What is wrong with an address, and who holds it where that is the reason.
fn held(endpoint: &str, error: &std::io::Error) -> String {
    let port = endpoint.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let in_use = error.kind() == std::io::ErrorKind::AddrInUse;
    match port.filter(|_| in_use).and_then(holder::of_port) {
        Some(holder) => format!("cannot bind `{endpoint}`: held by {holder}"),
        None => format!("cannot bind `{endpoint}`: {error}"),
    }
}

/// Runs the node; the answer is its exit code.
pub(super) fn main(startup: &Startup) -> ExitCode {
    let _ = signals::reset_dispositions(); // cannot fail for these
    sys::set_name(c"hilum-node"); // it was executed as /proc/self/exe
    // Orphans come to the main thread, leaders stay with the thread that starts them: apart, a look at the orphans costs
    // nothing, however many leaders there are.
    let code = std::thread::scope(|scope| {
        let node = std::thread::Builder::new().name("loop".into());
        match node.spawn_scoped(scope, || live(startup)) {
            Ok(node) => node.join().unwrap_or(PANICKED),
            Err(error) => {
                report(startup, &Status::Failed { message: error.to_string(), code: 1 });
                1
            }
        }
    });
    ExitCode::from(code.clamp(0, 255) as u8)
}

/// The exit code of Rust programs that panicked, which is said by then.
const PANICKED: i32 = 101;

fn live(startup: &Startup) -> i32 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            report(startup, &Status::Failed { message: error.to_string(), code: 1 });
            return 1;
        }
    };
    let local = tokio::task::LocalSet::new();
    let code = local.block_on(&runtime, run(startup));
    // Files that are being read for a configuration nobody needs any more.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

async fn run(startup: &Startup) -> i32 {
    let keeper = getppid();
    let options = &startup.options;
    let refused = |refusal: Refusal| {
        let code = i32::from(refusal.code);
        report(startup, &Status::Failed { message: refusal.message, code: refusal.code });
        code
    };
    let load = options.load();
    let loaded = match hilum_shared::config::load(&load) {
        Ok(loaded) => loaded,
        Err(errors) => return refused(Refusal::usage(errors.render(false).trim_end())),
    };
    let places = match Places::take(options, &loaded.cluster) {
        Ok(places) => Rc::new(places),
        Err(PlaceError::Lock(LockError::Held { pid })) => {
            report(startup, &Status::Running { pid });
            return 1;
        }
        Err(error) => return refused(Refusal::new(error)),
    };
    let sink = match (&options.logfile, startup.launched) {
        (Some(file), _) => Sink::File(file),
        (None, true) => Sink::Folder(places.diagnostics()),
        (None, false) => Sink::Stderr,
    };
    let _guard = diagnostics::begin(&sink, options.loglevel.as_deref());
    let mut node = match Node::open(startup, loaded, load, &places) {
        Ok(node) => node,
        Err(refusal) => {
            let code = i32::from(refusal.code);
            places.leave(&LastWord { code, reason: &refusal.message, ordered: false });
            return refused(refusal);
        }
    };
    // Before the first start: what cannot be written now would end what runs by then.
    if let Err(error) = places.announce(options, &node.cluster) {
        let reason = error.to_string();
        places.leave(&LastWord { code: 1, reason: &reason, ordered: false });
        return refused(Refusal::new(reason));
    }
    let first = node.runtime.begin(options.first_requests());
    if let Some(Reply::Fault(Fault { message, help, .. })) = first {
        let help = help.map_or(String::new(), |help| format!("\nhelp: {help}"));
        places.leave(&LastWord { code: 2, reason: &message, ordered: false });
        return refused(Refusal::usage(format!("{message}{help}")));
    }
    tracing::info!(pid = std::process::id(), project = node.cluster.name, "node up");
    report(
        startup,
        &Status::Started { pid: std::process::id(), run_dir: places.run.path().to_owned() },
    );
    tell_manager("READY=1\n");
    let guard = node.guard(options, &places).map(|guard| tokio::task::spawn_local(guard.keep()));
    let code = node.runtime.run().await;
    if let Some(guard) = guard {
        guard.abort();
        let _ = guard.await; // what it would keep is taken away now
    }
    tell_manager("STOPPING=1\n");
    node.runtime.leave().await;
    let (reason, ordered) = (node.runtime.reason().to_owned(), node.runtime.was_ordered());
    let (survivors, untold) = node.end().await;
    places.untold.replace(untold);
    // without its keeper it was not to end, however orderly it did
    let good = survivors.is_empty() && getppid() == keeper;
    let code = if good { code } else { code.max(1) };
    tracing::info!(code, reason, "node down");
    places.leave(&LastWord { code, reason: &reason, ordered });
    code
}

/// What is open while the node runs.
struct Node {
    cluster: Arc<Cluster>,
    runtime: Runtime,
    processes: Processes,
    log: LogHandle,
    log_thread: std::thread::JoinHandle<()>,
    /// The log folder is ours.
    _log_lock: Option<Lock>,
    /// Whether all records of workers are with the log.
    records: ReadOut,
    hub: Hub,
    publish: publish::Mender,
    _heartbeat: Heartbeat,
    notify: Option<(NotifySocket, JoinHandle<()>)>,
}

impl Node {
    fn open(
        startup: &Startup,
        loaded: Loaded,
        load: LoadOptions,
        places: &Places,
    ) -> Result<Self, Refusal> {
        let options = &startup.options;
        let cluster = loaded.cluster;
        let id = places.state.id();
        // Before there is a thread or a child: whoever was left behind by a killed node goes now.
        let survivors = keeper::sweep_marked(&id, LAST_PATIENCE);
        let mut warnings = Vec::new();
        if !survivors.is_empty() {
            warnings.push(format!("left by an earlier node and still there: {survivors:?}"));
        }
        let nofile = Nofile::raise().map_err(Refusal::new)?;
        let wanted = cluster.services.values().map(|spec| u64::from(spec.numprocesses)).sum();
        warnings.extend(nofile.too_few_for(wanted));
        sys::become_subreaper().map_err(Refusal::new)?;
        let processes = Processes::new(&id).map_err(Refusal::new)?;
        let cgroups = match cluster.needs_cgroups().then(Cgroups::detect) {
            Some(Ok(cgroups)) => Some(cgroups),
            Some(Err(why)) => {
                warnings.push(format!(
                    "limits memory_max, cpu_max and pids_max are not in force: {why}"
                ));
                None
            }
            None => None,
        };
        let shared = Sockets::default();
        shared.bind(&cluster.sockets).map_err(Refusal::new)?;

        let metrics = match cluster.node.metrics {
            Some(at) => Some(listen_for_prometheus(at)?),
            None => None,
        };

        let hub = Hub::start("zmq").map_err(Refusal::new)?;
        let counters = Counters::default();
        let roster = Roster::default();
        let (inbox, inputs) = mpsc::channel(INBOX);
        let (call_sender, calls) = mpsc::channel(INBOX);
        let mode = if places.access == Access::Shared { 0o666 } else { 0o600 };
        let endpoint = |name: &str| places.run.endpoint(name);
        let control = Control::open(&hub, &endpoint("node.sock"), call_sender, counters.clone())
            .map_err(Refusal::new)?;
        let shutdown = Shutdown::open(&hub, &endpoint("shutdown.sock"), mode, counters.clone())
            .map_err(Refusal::new)?;
        let heartbeat = Heartbeat::open(
            &hub,
            &endpoint("heartbeat.sock"),
            mode,
            roster.clone(),
            inbox.clone(),
            counters.clone(),
        )
        .map_err(Refusal::new)?;
        let log_endpoint =
            cluster.container.log_endpoint.clone().unwrap_or_else(|| endpoint("pub.sock"));
        let publish = Publish::open(&log_endpoint, mode)
            .map_err(|error| Refusal::new(held(&log_endpoint, &error)))?;
        let publish_mender = publish.mender();
        let log_endpoint = reach::told(publish.endpoint());

        let logs = cluster.logs.dir.clone().unwrap_or_else(|| places.state.logs());
        let elsewhere = cluster.logs.dir.is_some();
        let logs = log_dir::make(&places.state, &logs, elsewhere, places.access);
        let config = options.configs.first().cloned().unwrap_or_default();
        let log_lock = log_dir::claim(&logs, &config).map_err(Refusal::new)?;
        let log = log::start(LogConfig {
            dir: logs,
            base: options.project_dir.clone(),
            spec: cluster.logs.clone(),
            subscriber: Some(Box::new(Published::new(publish))),
            untold: places.untold.borrow().clone(),
        })
        .map_err(Refusal::new)?;
        if !log.handle.stats().degraded {
            places.untold.take(); // it stands in the log
        }
        let (held_sender, held) = mpsc::unbounded_channel();
        let records = Records::open(
            &hub,
            &endpoint("log.sock"),
            mode,
            roster.clone(),
            record_sink(log.handle.clone(), held_sender),
            counters.clone(),
        )
        .map_err(Refusal::new)?;
        let read_out = records.read_out();
        tokio::task::spawn_local(resume_records(records, held, inbox.clone()));
        let events =
            Events::open(&hub, &endpoint("events.sock"), mode, roster.clone(), counters.clone())
                .map_err(Refusal::new)?;
        let notify = NotifySocket {
            path: places.run.socket("notify.sock"),
            mode,
            processes: processes.clone(),
            inbox: inbox.clone(),
            counters: counters.clone(),
        };
        let serving = notify.serve().map_err(Refusal::new)?;
        if places.bereaved {
            log.handle.node(NodeRecord {
                level: Some(Level::Warning),
                text: "the node before this one was killed; what it had started was ended".into(),
                ..NodeRecord::default()
            });
        }
        let (change_sender, changes) = mpsc::channel(256);
        let context = Context {
            project: cluster.name.clone(),
            project_dir: options.project_dir.clone(),
            container_ip: cluster.container.ip,
            endpoints: Endpoints {
                node: endpoint("node.sock"),
                shutdown: endpoint("shutdown.sock"),
                heartbeat: endpoint("heartbeat.sock"),
                log: endpoint("log.sock"),
                events: endpoint("events.sock"),
                log_endpoint,
                notify: notify.path.clone(),
            },
            lock: places.lock_path(),
            config,
            cluster_mark: startup.mark.clone(),
            heartbeat_interval: cluster.node.heartbeat_interval,
            heartbeat_timeout: cluster.node.heartbeat_timeout,
            inherited: options.inherited(),
            sockets: shared,
            ports: Default::default(),
            nofile: Some(nofile.original),
        };
        let clock = Clock::start();
        let core_options = Options {
            profiles: options.profiles.clone(),
            exit_when_idle: match cluster.node.on_all_exited {
                Some(choice) => choice == OnAllExited::Exit,
                None => !options.detached,
            },
            abort_on_failure: options.abort_on_failure,
        };
        let core = Supervisor::new(cluster.clone(), core_options, clock.now());
        let orders = listen(startup).map_err(Refusal::new)?;
        let runtime = Runtime::new(Parts {
            cluster: cluster.clone(),
            load,
            core,
            clock,
            processes: processes.clone(),
            ports: PortTable::new(&id, Default::default()),
            cgroups,
            context,
            log: log.handle.clone(),
            reports: log.reports,
            roster,
            control,
            calls,
            shutdown,
            events,
            inputs,
            inbox,
            counters,
            watcher: Watcher::new(change_sender),
            changes,
            metrics,
            orders,
            warnings,
            pulse: watchdog_of_manager(),
        });
        Ok(Self {
            cluster,
            runtime,
            processes,
            log: log.handle,
            records: read_out,
            log_thread: log.thread,
            _log_lock: log_lock,
            hub,
            publish: publish_mender,
            _heartbeat: heartbeat,
            notify: Some((notify, serving)),
        })
    }

    /// What keeps the run folder; once.
    fn guard(&mut self, options: &NodeOptions, places: &Rc<Places>) -> Option<Guard> {
        let (notify, serving) = self.notify.take()?;
        Some(Guard {
            places: places.clone(),
            project: places.project(options, &self.cluster),
            sockets: self.hub.mender(),
            publish: self.publish.clone(),
            notify,
            serving: Some(serving),
            log: self.log.clone(),
        })
    }

    /// Ends whatever is left, writes the last lines. The answer is what survived, and what could not be written.
    async fn end(self) -> (Vec<u32>, Vec<Untold>) {
        let until = Instant::now() + LAST_PATIENCE;
        let mut survivors = self.processes.kill_everything();
        while !survivors.is_empty() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
            self.processes.take_exits();
            self.processes.reap_strays();
            survivors = self.processes.kill_everything();
        }
        // Who is dead writes no more, and what they wrote is in their sockets.
        while !self.records.is_so() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(self.runtime);
        self.log.stop();
        if self.log_thread.join().is_err() {
            tracing::error!("the log thread panicked");
        }
        let untold = self.log.untold();
        if !untold.is_empty() {
            let lost: u64 = untold.iter().map(|one| one.lines).sum();
            tracing::error!(lost, "the log could not be written to its end");
        }
        let report = self.hub.close(Duration::from_millis(200));
        tracing::debug!(?report, "sockets closed");
        (survivors, untold)
    }
}

/// `node.metrics`.
fn listen_for_prometheus(at: SocketAddr) -> Result<std::net::TcpListener, Refusal> {
    let refused = |why: &dyn std::fmt::Display| {
        Refusal::new(format!("{why}\nhelp: `node.metrics.listen` says where metrics are served"))
    };
    let (listener, port) =
        sockets::listener(&at.ip().to_string(), at.port()).map_err(|error| refused(&error))?;
    listener.set_nonblocking(true).map_err(|error| refused(&error))?;
    tracing::info!(address = %SocketAddr::new(at.ip(), port), "serving metrics");
    Ok(listener)
}

/// Structured records go to the log thread; while that is behind, workers wait. Whoever waits is
/// named, so that its silence is not held against it.
fn record_sink(
    log: LogHandle,
    held: mpsc::UnboundedSender<(InstanceId, Run)>,
) -> crate::channels::records::Sink {
    Box::new(move |batch: Batch| {
        let Batch { instance, run, records, refused } = batch;
        let known = (instance.clone(), run);
        log.received(instance, run, 0, records, refused).map_err(|QueueFull(records, refused)| {
            let _ = held.send(known.clone()); // one message for each held batch; the loop may be gone
            Batch { instance: known.0, run, records, refused }
        })
    })
}

/// Tries held batches again.
async fn resume_records(
    records: Records,
    mut held: mpsc::UnboundedReceiver<(InstanceId, Run)>,
    inbox: mpsc::Sender<Input>,
) {
    while let Some((instance, run)) = held.recv().await {
        for held in [true, false] {
            let report = Report::Held(held);
            let input = Input::Report { instance: instance.clone(), run, report };
            if inbox.send(input).await.is_err() {
                return;
            }
            if held {
                tokio::time::sleep(RECORDS_AGAIN).await;
            }
        }
        records.resume();
    }
}
