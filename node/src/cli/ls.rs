//! `ls`: every running project of this user on this machine.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hilum_shared::run_dir::{RunDir, StateDir};
use serde::Deserialize;

use super::exit::{ExitStatus, Outcome};
use super::process::Process;
use super::session::Session;
use super::table::{Align, Table};
use crate::daemon::launch;

/// The words of `ls`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum ls\n  \
    hilum ls --json | jq -r '.projects[].config'")]
pub(crate) struct LsArgs {}

/// A running node.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    /// The project's name.
    pub(crate) project: String,
    /// The first config.
    pub(crate) config: PathBuf,
    /// Its process.
    pub(crate) pid: u32,
    /// Its sockets' folder.
    pub(crate) run_dir: RunDir,
    /// Its state folder.
    pub(crate) state: StateDir,
}

impl Running {
    /// `-p` of the command that started it: what its state folder's name has after the config's.
    pub(crate) fn name(&self) -> Option<&str> {
        let (state, config) = (self.state.path().file_name()?, self.config.file_name()?);
        state.to_str()?.strip_prefix(config.to_str()?)?.strip_prefix('@')
    }
}

/// `project.json` of a run folder.
#[derive(Debug, Deserialize)]
struct ProjectFile {
    config: PathBuf,
    project: String,
    pid: u32,
    state: PathBuf,
    run_dir: PathBuf,
}

/// The folders that hold run folders of this user.
pub(crate) fn roots() -> Vec<PathBuf> {
    let mut roots = Vec::new();
    let dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    // an empty one is none, as it is for the node
    roots.extend(dir.filter(|dir| dir.is_absolute()).map(|dir| dir.join("hilum")));
    let user = nix::unistd::geteuid();
    roots.push(PathBuf::from(format!("/tmp/hilum-{user}")));
    // where a login's XDG_RUNTIME_DIR is, which cron and services do not have
    let login = PathBuf::from(format!("/run/user/{user}/hilum"));
    if login.is_dir() && !roots.contains(&login) {
        roots.push(login);
    }
    roots
}

/// The run folders of this user, of living nodes or dead ones.
pub(crate) fn run_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = roots()
        .iter()
        .filter_map(|root| fs::read_dir(root).ok())
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_ours(path))
        .collect();
    folders.sort();
    folders
}

/// Whether a folder is this user's: in `/tmp` others may have been faster, and what they say would be believed.
fn is_ours(folder: &Path) -> bool {
    let me = nix::unistd::geteuid().as_raw();
    fs::symlink_metadata(folder).is_ok_and(|meta| meta.is_dir() && meta.uid() == me)
}

/// The nodes that run now.
pub(crate) fn running() -> Vec<Running> {
    let mut found: Vec<Running> = run_folders().iter().filter_map(|one| node_of(one)).collect();
    found.sort_by(|a, b| (&a.project, &a.config).cmp(&(&b.project, &b.config)));
    found
}

/// The config of the node that a run folder was made for.
pub(crate) fn config_of(folder: &Path) -> Option<PathBuf> {
    Some(project_file(folder)?.config)
}

/// The state folder of the node that a run folder was made for.
pub(crate) fn state_of(folder: &Path) -> Option<StateDir> {
    Some(StateDir::at(project_file(folder)?.state))
}

fn project_file(folder: &Path) -> Option<ProjectFile> {
    serde_json::from_slice(&fs::read(folder.join("project.json")).ok()?).ok()
}

/// The living node of a run folder.
pub(crate) fn node_of(folder: &Path) -> Option<Running> {
    let file = project_file(folder)?;
    Process::find(file.pid)?;
    // the lock decides who is the node; a pid may have been given to somebody else
    let state = StateDir::at(file.state);
    if launch::node_pid(&state).ok()? != Some(file.pid) {
        return None;
    }
    Some(Running {
        project: file.project,
        config: file.config,
        pid: file.pid,
        run_dir: RunDir::at(file.run_dir),
        state,
    })
}

/// Runs `ls`.
pub(crate) fn run(session: &Session, _args: &LsArgs) -> Outcome {
    let all = running();
    if session.out.json {
        let projects: Vec<_> = all
            .iter()
            .map(|one| {
                serde_json::json!({
                    "project": one.project, "config": one.config, "pid": one.pid, "run_dir": one.run_dir.path(),
                })
            })
            .collect();
        session.out.json(&serde_json::json!({ "projects": projects }))?;
    } else if all.is_empty() {
        session.out.note("no project of this user is running");
    } else {
        let mut table =
            Table::new(&[("PROJECT", Align::Left), ("PID", Align::Right), ("CONFIG", Align::Left)]);
        for one in &all {
            table.row(vec![
                one.project.clone().into(),
                one.pid.to_string().into(),
                one.config.display().to_string().into(),
            ]);
        }
        session.out.text(&table.render(session.out.paint))?;
    }
    Ok(ExitStatus::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_another_user_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (mine, link) = (dir.path().join("mine"), dir.path().join("link"));
        fs::create_dir(&mine).unwrap();
        std::os::unix::fs::symlink(&mine, &link).unwrap();
        assert!(is_ours(&mine) && !is_ours(&link));
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&mine, Some(65534), None).unwrap();
            assert!(!is_ours(&mine));
        }
    }

    #[test]
    fn a_folder_of_a_dead_node_is_not_a_running_project() {
        let dir = tempfile::tempdir().unwrap();
        assert!(node_of(dir.path()).is_none(), "no file");
        fs::write(dir.path().join("project.json"), "{").unwrap();
        assert!(node_of(dir.path()).is_none(), "half a file");
        let dead = r#"{"config": "/srv/hilum.yml", "project": "x", "pid": 4294967, "state": "/srv/.hilum/hilum.yml"}"#;
        fs::write(dir.path().join("project.json"), dead).unwrap();
        assert!(node_of(dir.path()).is_none(), "a dead pid");
        let us = dead.replace("4294967", &std::process::id().to_string());
        fs::write(dir.path().join("project.json"), us).unwrap();
        assert!(node_of(dir.path()).is_none(), "a pid that does not hold the lock");
    }
}
