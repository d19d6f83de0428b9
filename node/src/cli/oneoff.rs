//! One-off processes beside the cluster: what `env` shows, and what `run` and `exec` run.
//!
//! The child has this process's terminal, its signals are handed on, and its exit code is ours.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;

use hilum_shared::config::Loaded;
use hilum_shared::config::spec::{PortChoice, ServiceSpec};
use hilum_shared::name::{InstanceId, Run};
use hilum_shared::protocol::env as variable;
use hilum_shared::run_dir::{Access, RunDir};
use hilum_shared::signal::Exit;
use hilum_shared::status::Snapshot;

use super::exit::{CliError, ExitStatus, Outcome};
use super::session::Session;
use super::target::{Names, nearest};
use crate::daemon::launch;
use crate::driver::sockets::Sockets;
use crate::driver::spawn_error::Stage;
use crate::driver::tether::{self, End, TetherError};
use crate::launch::context::{Context, Endpoints, Ports, inheritable};
use crate::launch::environment::EnvVar;
use crate::launch::prepare::Start;

/// What belongs to one run that the node itself started: a one-off has none of it, so that neither the node takes
/// it for the instance nor a sweep for a leftover.
const NODES_OWN: [&str; 9] = [
    variable::CLUSTER,
    variable::TOKEN,
    variable::HEARTBEAT,
    variable::SHUTDOWN,
    variable::LOG,
    variable::RUN,
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "LISTEN_PID",
];

/// A service, or one instance of it, as it would be started now.
pub(crate) struct Oneoff<'a> {
    context: Context,
    /// The service.
    pub(crate) spec: &'a ServiceSpec,
    /// The instance whose index, ports and environment are taken.
    pub(crate) instance: InstanceId,
    run: Run,
}

impl<'a> Oneoff<'a> {
    /// Reads `web` (its first instance) or `web.2`.
    pub(crate) fn of(session: &Session, loaded: &'a Loaded, name: &str) -> Result<Self, CliError> {
        let services = &loaded.cluster.services;
        let (service, index) = match InstanceId::parse(name) {
            Ok(id) => (id.service.as_str().to_owned(), id.index),
            Err(_) => (name.to_owned(), 1),
        };
        let Some(spec) = services.get(service.as_str()) else {
            let known: Vec<String> = services.keys().map(ToString::to_string).collect();
            return Err(CliError::UnknownTarget {
                target: name.to_owned(),
                nearest: nearest(&service, &known),
                known,
            });
        };
        let snapshot = match session.node().and_then(|node| session.status(&node)) {
            Ok(snapshot) => Some(snapshot),
            Err(CliError::NotRunning { .. }) => None,
            Err(error) => {
                session.out.warn(&format!("{error}: ports are taken from the config"));
                None
            }
        };
        if InstanceId::parse(name).is_ok() {
            let mut names = Names::default();
            names.add_service(&service, spec.numprocesses);
            if let Some(snapshot) = &snapshot {
                names.add_snapshot(snapshot);
            }
            names.check(&[name.to_owned()])?;
        }
        let instance = InstanceId::new(spec.name.clone(), index);
        let run = snapshot
            .as_ref()
            .and_then(|all| all.instances.iter().find(|one| one.instance == instance))
            .map_or(Run(1), |one| one.run);
        let context = context(session, loaded, snapshot.as_ref(), &instance)?;
        Ok(Self { context, spec, instance, run })
    }

    /// What it inherits is the node's, but the terminal is this one.
    pub(crate) fn at_this_terminal(mut self) -> Self {
        if let Some(term) = std::env::var_os("TERM") {
            self.context.inherited.insert("TERM".into(), term);
        }
        self
    }

    fn start(&self) -> Start<'_> {
        Start {
            context: &self.context,
            spec: self.spec,
            instance: &self.instance,
            run: self.run,
            token: "",
        }
    }

    /// The complete environment of its next start, each variable with its origin.
    pub(crate) fn environment(&self) -> Result<Vec<EnvVar<'static>>, CliError> {
        let start = self.start();
        let account = start.account().map_err(|error| self.wrong(&error))?;
        let all = start.environment(&account).map_err(|error| self.wrong(&error))?;
        Ok(all.into_iter().map(EnvVar::into_owned).collect())
    }

    /// The command of the config.
    pub(crate) fn command(&self) -> Result<Vec<OsString>, CliError> {
        let references = crate::launch::context::References {
            instance: &self.instance,
            ports: &self.context.ports,
        };
        self.spec
            .launch
            .command
            .iter()
            .map(|word| word.expand(&references).map(OsString::from))
            .collect::<Result<_, _>>()
            .map_err(|error| self.wrong(&error))
    }

    fn wrong(&self, error: &dyn std::error::Error) -> CliError {
        CliError::failed(format!("`{}`: {error}", self.instance))
    }

    /// Runs these words in the service's place, as the guard of the command with this pid.
    pub(crate) fn run(&self, words: &[OsString], command: u32) -> Outcome {
        if words.is_empty() {
            return Err(CliError::usage("no command", "write it after `--`"));
        }
        let request =
            self.start().prepare_words(words, &NODES_OWN).map_err(|error| self.wrong(&error))?;
        match tether::run(request, End::Guard(command)) {
            Ok(exit) => Ok(code(exit)),
            Err(TetherError::Spawn(error)) if error.stage == Stage::Exec => {
                Err(CliError::NotExecuted {
                    message: format!("`{}`: {error}", self.instance),
                    missing: error.is_missing(),
                })
            }
            Err(error) => Err(self.wrong(&error)),
        }
    }
}

/// Runs this command line again, as the guard of what it runs.
pub(crate) fn guard() -> Outcome {
    let failed =
        |error: &dyn std::error::Error| CliError::failed(format!("cannot run it: {error}"));
    let own = std::process::id().to_string();
    let words = std::env::args_os().skip(1);
    let words = ["hilum".into(), "__oneoff".into(), own.into()].into_iter().chain(words);
    let words: Vec<OsString> = words.collect();
    let request = launch::again(&words).map_err(|error| failed(&error))?;
    let exit = tether::run(request, End::Command).map_err(|error| failed(&error))?;
    Ok(code(exit))
}

fn code(exit: Exit) -> ExitStatus {
    ExitStatus::Native(ExitCode::from(exit.shell_code().clamp(0, 255) as u8))
}

fn context(
    session: &Session,
    loaded: &Loaded,
    snapshot: Option<&Snapshot>,
    instance: &InstanceId,
) -> Result<Context, CliError> {
    let project = session.project()?;
    let cluster = &loaded.cluster;
    let run_dir = RunDir::find(&project.state).unwrap_or_else(|_| match &cluster.node.run_dir {
        Some(path) => RunDir::at(project.folder.join(path)),
        None => RunDir::of(&project.state, Access::Private),
    });
    let log_endpoint = cluster.container.log_endpoint.clone();
    Ok(Context {
        project: cluster.name.clone(),
        project_dir: project.folder.clone(),
        container_ip: cluster.container.ip,
        endpoints: Endpoints {
            node: run_dir.endpoint("node.sock"),
            shutdown: run_dir.endpoint("shutdown.sock"),
            heartbeat: run_dir.endpoint("heartbeat.sock"),
            log: run_dir.endpoint("log.sock"),
            events: run_dir.endpoint("events.sock"),
            log_endpoint: log_endpoint.unwrap_or_else(|| run_dir.endpoint("pub.sock")),
            notify: run_dir.socket("notify.sock"),
        },
        lock: project.state.lock(),
        config: project.config().to_owned(),
        cluster_mark: String::new(),
        heartbeat_interval: cluster.node.heartbeat_interval,
        heartbeat_timeout: cluster.node.heartbeat_timeout,
        inherited: inheritable(session.variables()),
        sockets: Sockets::default(),
        ports: ports(loaded, snapshot, instance),
        nofile: None,
    })
}

/// The ports of all instances: as the node has them, else as the config fixes them; free ones for the rest of `mine`.
fn ports(loaded: &Loaded, snapshot: Option<&Snapshot>, mine: &InstanceId) -> Ports {
    let mut all: Ports = BTreeMap::new();
    for spec in loaded.cluster.services.values() {
        let most = if spec.name == mine.service {
            spec.numprocesses.max(mine.index)
        } else {
            spec.numprocesses
        };
        for index in 1..=most {
            let id = InstanceId::new(spec.name.clone(), index);
            let mut ports = BTreeMap::new();
            for port in &spec.launch.ports {
                let number = match port.choice {
                    PortChoice::Fixed(number) => Some(number),
                    PortChoice::PerInstance(base) => {
                        u16::try_from(u32::from(base) + index - 1).ok()
                    }
                    PortChoice::Auto if id == *mine => free_port(),
                    PortChoice::Auto => None,
                };
                ports.extend(number.map(|number| (port.name.clone(), number)));
            }
            all.insert(id, ports);
        }
    }
    for one in snapshot.map(|all| all.instances.as_slice()).unwrap_or_default() {
        all.entry(one.instance.clone()).or_default().extend(one.ports.clone());
    }
    all
}

fn free_port() -> Option<u16> {
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).ok()?;
    Some(socket.local_addr().ok()?.port())
}
