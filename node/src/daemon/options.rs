//! What a node is started with, and what follows from it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use hilum_shared::config::LoadOptions;
use hilum_shared::protocol::control::{Scale, ScaleTo, Targets};
use hilum_shared::run_dir::StateDir;
use serde::{Deserialize, Serialize};

use crate::core::input::Request;
use crate::launch::context::inheritable;

/// What a node is started with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeOptions {
    /// All configs in order, absolute, as they were named: a link may be switched meanwhile.
    pub configs: Vec<PathBuf>,
    /// The path of the cluster's state folder.
    pub state: PathBuf,
    /// `--vars`.
    pub vars: Option<PathBuf>,
    /// `--env-file`.
    pub env_files: Vec<PathBuf>,
    /// The chosen profiles.
    pub profiles: Vec<String>,
    /// `-p`.
    pub project: Option<String>,
    /// Where instances run.
    pub project_dir: PathBuf,
    /// Level of the node's own diagnostics.
    pub loglevel: Option<String>,
    /// File of the node's own diagnostics.
    pub logfile: Option<PathBuf>,
    /// What to start; none = all.
    pub targets: Vec<String>,
    /// Whether what they depend on is started, too.
    pub deps: bool,
    /// Counts in place of the config's: service, count, whether it is relative.
    pub scale: Vec<(String, i64, bool)>,
    /// Whether it goes on without us.
    pub detached: bool,
    /// Whether the first failed instance ends it.
    pub abort_on_failure: bool,
}

impl NodeOptions {
    /// The state folder of the cluster.
    pub fn state_dir(&self) -> StateDir {
        StateDir::at(self.state.clone())
    }

    /// As the configuration is read.
    pub(super) fn load(&self) -> LoadOptions {
        LoadOptions {
            files: self.configs.clone(),
            vars: self.vars.clone(),
            env_files: self.env_files.clone(),
            profiles: self.profiles.clone(),
            project: self.project.clone(),
            project_dir: self.project_dir.clone(),
            env: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
        }
    }

    /// What is asked of the core before anybody else asks.
    pub(super) fn first_requests(&self) -> Vec<Request> {
        let mut requests = Vec::new();
        if !self.scale.is_empty() {
            let change = |(service, count, relative): &(String, i64, bool)| ScaleTo {
                service: service.clone(),
                count: *count,
                relative: *relative,
            };
            requests
                .push(Request::Scale(Scale { changes: self.scale.iter().map(change).collect() }));
        }
        requests.push(Request::Start(Targets {
            targets: self.targets.clone(),
            deps: self.deps,
            rolling: false,
            grace: None,
        }));
        requests
    }

    /// The node's environment without its own, in order; `--vars` reaches lymph's services, too.
    pub(super) fn inherited(&self) -> BTreeMap<OsString, OsString> {
        let mut variables = inheritable(std::env::vars_os());
        let vars =
            self.vars.as_ref().map(|vars| ("LYMPH_VARS".into(), vars.clone().into_os_string()));
        variables.extend(vars);
        variables
    }
}
