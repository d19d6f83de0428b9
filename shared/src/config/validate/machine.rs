//! What the machine does not have: users, folders, programs, processors.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use nix::unistd::{Group, SysconfVar, User, access, geteuid, sysconf};

use super::super::diagnostic::{Problems, quote};
use super::super::load::LoadOptions;
use super::super::spec::ServiceSpec;
use super::super::template::Template;
use super::Check;

/// Where programs are looked up when no `PATH` is set (`execvp` of `man 3 exec`).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

impl Check<'_> {
    /// All services. Programs that are not there yet are worth a note only: they may appear before the start.
    pub(super) fn machine(&mut self, options: &LoadOptions, notes: &mut Problems) {
        let mut users = HashMap::new();
        let mut groups = HashMap::new();
        for service in self.whole_services() {
            if let Some(user) = &service.launch.user {
                let known = *users.entry(user).or_insert_with(|| user_id(user));
                self.user(service, user, known);
            }
            if let Some(group) = &service.launch.group
                && !*groups.entry(group).or_insert_with(|| group_exists(group))
            {
                let message = format!("there is no group {}", quote(group));
                self.error(service, &["group"], message, "give one of /etc/group, or a number");
            }
            self.processors(service);
            let folder = self.directory(service, options);
            self.program(service, folder, options, notes);
        }
    }

    fn user(&mut self, service: &ServiceSpec, user: &str, known: Option<u32>) {
        let own = geteuid();
        match known {
            None => {
                let message = format!("there is no user {}", quote(user));
                self.error(service, &["user"], message, "give one of /etc/passwd, or a number");
            }
            Some(id) if !own.is_root() && id != own.as_raw() => {
                let message = format!(
                    "only root may run programs as another user, the node runs as user {own}"
                );
                self.error(service, &["user"], message, "remove `user`, or run the node as root");
            }
            Some(_) => {}
        }
    }

    fn processors(&mut self, service: &ServiceSpec) {
        let Some(largest) = service.launch.cpus.as_ref().and_then(|cpus| cpus.iter().max()) else {
            return;
        };
        let count = sysconf(SysconfVar::_NPROCESSORS_CONF).ok().flatten().unwrap_or(i64::MAX);
        if i64::try_from(*largest).is_ok_and(|largest| largest >= count) {
            let message = format!(
                "there is no processor {largest}: this machine has {count}, counted from 0"
            );
            self.error(
                service,
                &["cpus"],
                message,
                "name only those that are there; without `cpus` it may use all",
            );
        }
    }

    /// The folder it runs in, when that is known before the start.
    fn directory(&mut self, service: &ServiceSpec, options: &LoadOptions) -> Option<PathBuf> {
        let Some(directory) = &service.launch.directory else {
            return Some(options.project_dir.clone());
        };
        let path = options.project_dir.join(plain(directory)?);
        if !path.is_dir() {
            let what = if path.exists() { "is no folder" } else { "does not exist" };
            let message = format!("the folder {} {what}", quote(&path.to_string_lossy()));
            self.warning(
                service,
                &["directory"],
                message,
                "a relative one is relative to the project folder",
            );
        }
        Some(path)
    }

    fn program(
        &mut self,
        service: &ServiceSpec,
        folder: Option<PathBuf>,
        options: &LoadOptions,
        notes: &mut Problems,
    ) {
        let Some(program) = service.launch.command.first().and_then(plain) else {
            return;
        };
        let (help, found) = if program.contains('/') {
            let Some(folder) = folder else { return };
            (
                "a relative path is relative to the working folder".to_owned(),
                executable(&folder.join(&program)),
            )
        } else {
            let path = search_path(service, options);
            let found = path.split(':').any(|folder| executable(&Path::new(folder).join(&program)));
            (format!("it is looked up in the service's own PATH ({})", quote(&path)), found)
        };
        if !found {
            let (at, path) = self.locate(service, &["command"]);
            notes
                .warning(
                    at,
                    &path,
                    format!("the program {} is not there, or not executable", quote(&program)),
                )
                .help(help);
        }
    }
}

/// A text without references.
fn plain(template: &Template) -> Option<String> {
    template.references().is_empty().then(|| template.source().replace("$$(", "$("))
}

fn executable(path: &Path) -> bool {
    path.is_file() && access(path, nix::unistd::AccessFlags::X_OK).is_ok()
}

fn user_id(user: &str) -> Option<u32> {
    match user.parse() {
        Ok(id) => Some(id),
        Err(_) => Some(User::from_name(user).ok()??.uid.as_raw()),
    }
}

fn group_exists(group: &str) -> bool {
    group.parse::<u32>().is_ok() || matches!(Group::from_name(group), Ok(Some(_)))
}

fn search_path(service: &ServiceSpec, options: &LoadOptions) -> String {
    let own = service.launch.env.get("PATH").and_then(|value| value.value.as_ref()).and_then(plain);
    let inherited = || options.env.get("PATH").filter(|_| service.launch.inherit_env).cloned();
    own.or_else(inherited).unwrap_or_else(|| DEFAULT_PATH.to_owned())
}
