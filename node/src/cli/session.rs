//! What every verb needs: which cluster is meant, its config, its node.
//!
//! A cluster is known by where its first config is, never by its content, so that what is only about the running node
//! works while the file is broken: by the config's name in its folder, whatever that file is a link to. Where no node
//! runs under it, one that was started by the same path before a link was switched is meant, or one that runs the same file.

use std::cell::{Cell, OnceCell};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hilum_shared::config::{self, Diagnostics, LoadOptions, Loaded};
use hilum_shared::rpc::blocking::CallError;
use hilum_shared::run_dir::StateDir;
use hilum_shared::status::Snapshot;

use super::exit::CliError;
use super::link::{ANSWER, Node, Nothing, silence};
use super::ls::{self, Running};
use super::named;
use super::options::Common;
use super::output::Output;
use super::process::{self, Process};
use super::target::Names;
use crate::daemon::launch::{self, NodeOptions};

/// A node listens so soon after it took its lock, also on a busy machine.
const OPENS: Duration = Duration::from_secs(5);
/// It writes its pid so soon after it took its lock, also on a busy machine. One of another pid namespace is never seen.
const WRITES: Duration = Duration::from_secs(2);
/// It may hold its lock so long after it closed its sockets. What is older and listens nowhere has lost its run folder.
const CLOSES: Duration = Duration::from_secs(1);
/// Between two looks whether it does.
const AGAIN: Duration = Duration::from_millis(5);

/// The cluster that a command line means.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    /// All configs in order, absolute, as they were named.
    pub(crate) configs: Vec<PathBuf>,
    /// `-p`.
    pub(crate) name: Option<String>,
    /// Where instances run.
    pub(crate) folder: PathBuf,
    /// Its state folder.
    pub(crate) state: StateDir,
}

impl Project {
    /// The first config.
    pub(crate) fn config(&self) -> &Path {
        &self.configs[0]
    }
}

/// One run of the command line.
pub(crate) struct Session {
    /// Where it writes.
    pub(crate) out: Output,
    /// The global options.
    pub(crate) common: Common,
    directory: Option<PathBuf>,
    project_name: Option<String>,
    project: OnceCell<Project>,
    loaded: OnceCell<Loaded>,
    version_told: Cell<bool>,
    /// The environment of the running node, where it is meant and not this process's.
    nodes: OnceCell<Variables>,
}

/// Variables of an environment.
type Variables = Vec<(OsString, OsString)>;

impl Session {
    /// A session with these options.
    pub(crate) fn new(
        out: Output,
        common: Common,
        directory: Option<PathBuf>,
        project: Option<String>,
    ) -> Self {
        Self {
            out,
            common,
            directory,
            project_name: project,
            project: OnceCell::new(),
            loaded: OnceCell::new(),
            version_told: Cell::new(false),
            nodes: OnceCell::new(),
        }
    }

    /// The folder that the search begins in: `-C`, else the current one.
    pub(crate) fn folder(&self) -> Result<PathBuf, CliError> {
        let here = || {
            named::here().map_err(|source| CliError::File {
                doing: "cannot use the current folder",
                path: ".".into(),
                source,
            })
        };
        match &self.directory {
            None => here(),
            Some(path) => path.canonicalize().and_then(|_| named::named(path)).map_err(|source| {
                CliError::Usage {
                    message: format!("cannot use folder `{}`: {source}", path.display()),
                    help: None,
                }
            }),
        }
    }

    /// Which cluster is meant. Reads no file's content.
    ///
    /// # Errors
    /// When there is no config at all.
    pub(crate) fn project(&self) -> Result<&Project, CliError> {
        if let Some(project) = self.project.get() {
            return Ok(project);
        }
        let project = self.find_project()?;
        Ok(self.project.get_or_init(|| project))
    }

    fn find_project(&self) -> Result<Project, CliError> {
        let folder = self.folder()?;
        let mut given = self.common.config.clone();
        let mut source = "-c";
        if given.is_empty() {
            for name in ["HILUM_CONFIG", "LYMPH_CONFIG"] {
                if let Some(path) = std::env::var_os(name).filter(|path| !path.is_empty()) {
                    given = vec![PathBuf::from(path)];
                    source = name;
                    break;
                }
            }
        }
        let searched = given.is_empty();
        if searched {
            let real = folder.canonicalize().unwrap_or_else(|_| folder.clone());
            let found = real.ancestors().find_map(|above| {
                let name = self.config_in(above)?.file_name()?.to_owned();
                Some(named::on_the_way(above, &folder).join(name))
            });
            given = vec![found.ok_or_else(|| CliError::NoConfig {
                names: config::NAMES.join(", "),
                folder: folder.clone(),
            })?];
        }
        let unread = |path: &Path, error| CliError::Usage {
            message: format!("cannot read config `{}`, given by {source}: {error}", path.display()),
            help: None,
        };
        let mut configs = Vec::with_capacity(given.len());
        for path in &given {
            configs.push(named::named(path).map_err(|error| unread(path, error))?);
        }
        let identity = named::identity(&configs[0]).unwrap_or_else(|_| configs[0].clone());
        let mut state = StateDir::of(&identity, self.project_name.as_deref());
        let runs = launch::node_pid(&state).is_ok_and(|pid| pid.is_some());
        if let Some(other) = (!runs).then(|| self.runs_elsewhere(&configs[0])).flatten() {
            if other.config != configs[0] {
                self.out.note(&format!(
                    "`{}` is the same file as `{}`, whose cluster runs: that one is meant",
                    configs[0].display(),
                    other.config.display()
                ));
            }
            state = other.state;
            configs[0] = other.config;
        }
        for (path, config) in given.iter().zip(&configs) {
            // a config that was deleted under a running node still names it
            let known = config == &configs[0] && state.path().exists();
            match config.metadata() {
                Err(error) if !known => return Err(unread(path, error)),
                _ => {}
            }
        }
        if let Some(folder) = configs.iter().find(|path| path.is_dir()) {
            return Err(CliError::usage(
                format!("config `{}`, given by {source}, is a folder", folder.display()),
                "name the file in it, or the folder with `-C DIR` before the command",
            ));
        }
        let parent = configs[0].parent().unwrap_or(Path::new("/"));
        let project_folder = match (&self.directory, searched) {
            (Some(_), _) => folder,
            (None, true) => parent.to_owned(),
            (None, false) => folder,
        };
        Ok(Project { configs, name: self.project_name.clone(), folder: project_folder, state })
    }

    /// The running cluster that was started by this path, though a link on the way led elsewhere then, or by another name of
    /// the same file.
    fn runs_elsewhere(&self, config: &Path) -> Option<Running> {
        let mut all = ls::running();
        all.retain(|one| one.name() == self.project_name.as_deref());
        let real = config.canonicalize().ok();
        let same = |one: &Running| real.is_some() && one.config.canonicalize().ok() == real;
        let found = all.iter().position(|one| one.config == config);
        found.or_else(|| all.iter().position(same)).map(|index| all.swap_remove(index))
    }

    /// The config of this very folder, also one that was deleted or renamed under a node that still runs: what runs is
    /// meant before a file of another name that nobody has started.
    fn config_in(&self, folder: &Path) -> Option<PathBuf> {
        let runs = |path: &PathBuf| {
            let state = StateDir::of(path, self.project_name.as_deref());
            launch::node_pid(&state).is_ok_and(|pid| pid.is_some())
        };
        let found = config::find_in(folder);
        if found.as_ref().is_some_and(runs) {
            return found;
        }
        let mut gone =
            config::NAMES.iter().map(|name| folder.join(name)).filter(|path| !path.exists());
        gone.find(runs).or(found)
    }

    /// The profiles: `--profile`, else `$HILUM_PROFILES`.
    pub(crate) fn profiles(&self) -> Vec<String> {
        if !self.common.profile.is_empty() {
            return self.common.profile.clone();
        }
        std::env::var("HILUM_PROFILES")
            .unwrap_or_default()
            .split(',')
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect()
    }

    /// What a node of this cluster is started with.
    pub(crate) fn node_options(&self) -> Result<NodeOptions, CliError> {
        let project = self.project()?;
        let (vars, env_files) = self.given_files()?;
        Ok(NodeOptions {
            configs: project.configs.clone(),
            state: project.state.path().to_owned(),
            vars,
            env_files,
            profiles: self.profiles(),
            project: project.name.clone(),
            project_dir: project.folder.clone(),
            loglevel: self.common.loglevel.clone(),
            logfile: self.common.logfile.as_deref().map(absolute).transpose()?,
            deps: true,
            ..NodeOptions::default()
        })
    }

    /// `--vars` and `--env-file`, as a process in another folder can use them.
    fn given_files(&self) -> Result<(Option<PathBuf>, Vec<PathBuf>), CliError> {
        let vars = self.common.vars.as_deref().map(absolute).transpose()?;
        let env_files = self.common.env_file.iter().map(|path| absolute(path));
        Ok((vars, env_files.collect::<Result<_, _>>()?))
    }

    /// The configuration as it is now.
    ///
    /// # Errors
    /// [`CliError::Config`] with every finding.
    pub(crate) fn config(&self) -> Result<&Loaded, CliError> {
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let project = self.project()?;
        let missing = project.configs.iter().find(|path| !path.exists());
        if let Some(missing) = missing {
            return Err(CliError::usage(
                format!(
                    "config `{}` was deleted or renamed; its cluster still runs",
                    missing.display()
                ),
                "put it back under this name, or `hilum down` stops the cluster",
            ));
        }
        let loaded =
            self.load(&project.configs, project.name.clone())?.map_err(CliError::Config)?;
        Ok(self.loaded.get_or_init(|| loaded))
    }

    /// The configuration in these files, or all that is wrong with it.
    pub(crate) fn load(
        &self,
        configs: &[PathBuf],
        name: Option<String>,
    ) -> Result<Result<Loaded, Diagnostics>, CliError> {
        let folder = match self.project.get() {
            Some(project) => project.folder.clone(),
            None => self.folder()?,
        };
        let (vars, env_files) = self.given_files()?;
        let options = LoadOptions {
            files: configs.to_vec(),
            vars,
            env_files,
            profiles: self.profiles(),
            project: name,
            project_dir: folder,
            // what is no text cannot be meant by `$(env.…)`
            env: self
                .variables()
                .into_iter()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
        };
        Ok(config::load(&options))
    }

    /// From now on the environment is that of the running node, if one runs and its environment may be read: what its
    /// instances inherit, and what `$(env.…)` means to it. The answer is the node's pid then.
    pub(crate) fn see_as_the_node(&self) -> Result<Option<u32>, CliError> {
        let Some(pid) = self.node_pid()? else { return Ok(None) };
        let Some(variables) = process::environment(pid) else {
            self.out.warn(&format!(
                "the environment of the node (pid {pid}) cannot be read: this shell's is taken"
            ));
            return Ok(None);
        };
        Ok(self.nodes.set(variables).is_ok().then_some(pid))
    }

    /// The environment that is meant: this process's, or the node's.
    pub(crate) fn variables(&self) -> Variables {
        self.nodes.get().cloned().unwrap_or_else(|| std::env::vars_os().collect())
    }

    /// Where a running node is, or nothing.
    pub(crate) fn node_pid(&self) -> Result<Option<u32>, CliError> {
        let state = &self.project()?.state;
        let begun = Instant::now();
        loop {
            let pid = launch::node_pid(state).map_err(|source| match state.anothers() {
                Some(anothers) => {
                    CliError::Failed { message: anothers.message(), help: Some(anothers.help()) }
                }
                None => CliError::File { doing: "cannot ask the lock", path: state.lock(), source },
            })?;
            // it takes the lock first and writes its pid then: until that, the last one's is there, or none
            let written = pid.is_none_or(|pid| Process::find(pid).is_some());
            if written || begun.elapsed() >= WRITES {
                return Ok(pid);
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// The node of this cluster.
    ///
    /// # Errors
    /// [`CliError::NotRunning`] when there is none.
    pub(crate) fn node(&self) -> Result<Node, CliError> {
        let project = self.project()?;
        let begun = Instant::now();
        loop {
            let Some(pid) = self.node_pid()? else {
                return Err(CliError::NotRunning { config: project.config().to_owned() });
            };
            let young = Process::find(pid).is_none_or(|node| node.age() < OPENS);
            let patience = if young { OPENS } else { CLOSES };
            match Node::connect(&project.state, pid, Some(self.out)) {
                // it holds its lock before it listens, and for a moment after
                Err(CallError::Gone { .. }) if begun.elapsed() < patience => {
                    std::thread::sleep(AGAIN);
                }
                answer => return answer.map_err(|error| silence(&project.state, pid, error)),
            }
        }
    }

    /// The node's state; says once when it is of another version.
    pub(crate) fn status(&self, node: &Node) -> Result<Snapshot, CliError> {
        let snapshot: Snapshot = node.call("status", &Nothing {}, ANSWER)?;
        let ours = env!("CARGO_PKG_VERSION");
        let theirs = &snapshot.node.version;
        if !theirs.is_empty() && theirs != ours && !self.version_told.replace(true) {
            self.out.warn(&format!(
                "the node is version {theirs}, this command {ours}; what both know goes on working"
            ));
        }
        Ok(snapshot)
    }

    /// The names that the config has, as far as it can be read, and the node, where one runs.
    pub(crate) fn names(&self) -> Names {
        let mut names = Names::default();
        if let Ok(loaded) = self.config() {
            for service in loaded.cluster.services.values() {
                names.add_service(service.name.as_str(), service.numprocesses);
            }
        }
        if let Ok(node) = self.node()
            && let Ok(snapshot) = self.status(&node)
        {
            names.add_snapshot(&snapshot);
        }
        names
    }
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(|source| CliError::File {
        doing: "cannot use",
        path: path.to_owned(),
        source,
    })
}

/// A path as short as it can be said from here.
pub(crate) fn shown(path: &Path) -> String {
    let here = named::here().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}
