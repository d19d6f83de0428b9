//! One-off processes beside the cluster: what `env` shows, and what `run` and `exec` become.
//!
//! The child takes this process's place, so that terminal, signals and exit code are its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use hilum_shared::config::Loaded;
use hilum_shared::config::spec::{Limits, PortChoice, ServiceSpec};
use hilum_shared::name::{InstanceId, Run};
use hilum_shared::protocol::env as variable;
use hilum_shared::run_dir::{Access, RunDir};
use hilum_shared::status::Snapshot;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

use super::exit::{CliError, Outcome};
use super::session::Session;
use super::target::nearest;
use crate::driver::identity;
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
        let snapshot = session.node().and_then(|node| session.status(&node)).ok();
        let instance = InstanceId::new(spec.name.clone(), index);
        let run = snapshot
            .as_ref()
            .and_then(|all| all.instances.iter().find(|one| one.instance == instance))
            .map_or(Run(1), |one| one.run);
        let context = context(session, loaded, snapshot.as_ref(), &instance)?;
        Ok(Self { context, spec, instance, run })
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
    pub(crate) fn environment(&self) -> Result<Vec<EnvVar>, CliError> {
        self.start().environment().map_err(|error| self.wrong(&error))
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

    /// Becomes `command`. Returns only when it cannot.
    pub(crate) fn become_command(&self, command: &[OsString]) -> Outcome {
        let Some((program, arguments)) = command.split_first() else {
            return Err(CliError::usage("no command", "write it after `--`"));
        };
        let directory = self.start().directory().map_err(|error| self.wrong(&error))?;
        let environment = self.environment()?;
        let mut child = match self.spec.launch.nice {
            // setting it needs an unsafe call; the program of coreutils does the same
            Some(nice) if nice != 0 => {
                let mut child = Command::new("nice");
                child.arg(format!("-n{nice}")).arg(program);
                child
            }
            _ => Command::new(program),
        };
        child.args(arguments).current_dir(&directory).env_clear().envs(
            environment
                .into_iter()
                .filter(|one| !NODES_OWN.iter().any(|own| one.name == *own))
                .map(|one| (one.name, one.value)),
        );
        self.take_on().map_err(|(what, source)| CliError::Failed {
            message: format!("cannot set {what} for `{}`: {source}", self.instance),
            help: Some("run it as a user who may, or change the service's config".into()),
        })?;
        let source = child.exec();
        if !directory.is_dir() {
            return Err(CliError::File { doing: "cannot use folder", path: directory, source });
        }
        Err(CliError::Program { program: program.to_string_lossy().into_owned(), source })
    }

    /// Sets limits and identity of this process, which is about to become the child.
    fn take_on(&self) -> Result<(), (&'static str, io::Error)> {
        let launch = &self.spec.launch;
        for (name, resource, value) in rlimits(&launch.limits) {
            let hard = getrlimit(resource).map_or(value, |(_, hard)| hard);
            // lowering the hard limit is always allowed, raising it only for root
            setrlimit(resource, value, value)
                .or_else(
                    |errno| {
                        if value <= hard { setrlimit(resource, value, hard) } else { Err(errno) }
                    },
                )
                .map_err(|errno| (name, errno.into()))?;
        }
        if let Some(mask) = launch.umask {
            umask(Mode::from_bits_truncate(mask));
        }
        if let Some(cpus) = &launch.cpus {
            let failed = |errno: nix::Error| ("cpus", errno.into());
            let mut set = nix::sched::CpuSet::new();
            for cpu in cpus {
                set.set(*cpu).map_err(failed)?;
            }
            nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).map_err(failed)?;
        }
        if launch.user.is_some() || launch.group.is_some() {
            let account = identity::resolve(launch.user.as_deref(), launch.group.as_deref())
                .map_err(|error| ("user", io::Error::other(error)))?;
            if let Some(identity) = account.identity {
                let failed = |errno: nix::Error| ("user", errno.into());
                if let Some(groups) = &identity.groups {
                    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
                    setgroups(&groups).map_err(failed)?;
                }
                setgid(Gid::from_raw(identity.gid)).map_err(failed)?;
                setuid(Uid::from_raw(identity.uid)).map_err(failed)?;
            }
        }
        if launch.no_new_privs {
            nix::sys::prctl::set_no_new_privs().map_err(|errno| ("no_new_privs", errno.into()))?;
        }
        Ok(())
    }
}

fn rlimits(limits: &Limits) -> Vec<(&'static str, Resource, u64)> {
    [
        ("limits.nofile", Resource::RLIMIT_NOFILE, limits.nofile),
        ("limits.nproc", Resource::RLIMIT_NPROC, limits.nproc),
        ("limits.core", Resource::RLIMIT_CORE, limits.core),
        ("limits.as", Resource::RLIMIT_AS, limits.address_space),
        ("limits.cpu", Resource::RLIMIT_CPU, limits.cpu),
        ("limits.stack", Resource::RLIMIT_STACK, limits.stack),
    ]
    .into_iter()
    .filter_map(|(name, resource, value)| Some((name, resource, value?)))
    .collect()
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
            log_endpoint: log_endpoint.unwrap_or_else(|| run_dir.endpoint("pub.sock")),
            notify: run_dir.socket("notify.sock"),
        },
        lock: project.state.lock(),
        config: project.config().to_owned(),
        cluster_mark: String::new(),
        heartbeat_interval: cluster.node.heartbeat_interval,
        heartbeat_timeout: cluster.node.heartbeat_timeout,
        inherited: inheritable(std::env::vars_os()),
        sockets: Vec::new(),
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
