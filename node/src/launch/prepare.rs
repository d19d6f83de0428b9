//! From a spec to the request for the spawner.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hilum_shared::config::spec::{Limits, ReadyKind, ServiceSpec};
use hilum_shared::config::template::{Template, TemplateError};
use hilum_shared::name::{InstanceId, Run};

use super::context::{Context, References};
use super::environment::{EnvVar, FIRST_SOCKET, OURS, environment};
use crate::core::input::{FailureClass, SpawnFailure};
use crate::driver::identity::{self, Account, IdentityError};
use crate::driver::request::{NulByte, PID_WIDTH, Rlimit, SpawnRequest, Strings};

/// Where programs are looked for when the environment has no `PATH` (`man 3 execvp`).
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// Why a start could not be prepared. No retry helps until the configuration changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// A reference without a value.
    #[error("`{key}`: {source}")]
    Template {
        /// The key that holds it.
        key: String,
        /// Which reference.
        source: TemplateError,
    },
    /// A text that cannot be handed to a program.
    #[error("`{key}`: {source}")]
    Nul {
        /// The key that holds it.
        key: String,
        /// The text.
        source: NulByte,
    },
    /// A variable's name that no environment can hold.
    #[error("`env`: `{name}` is no name of a variable: it is empty or holds `=`")]
    VariableName {
        /// The name.
        name: String,
    },
    /// Nobody of this name.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Nothing to execute.
    #[error("`command` is empty")]
    NoCommand,
    /// The readiness descriptor is one of the shared sockets'.
    #[error(
        "`ready.notify_fd: {fd}` is taken by a shared socket (descriptors 3 to {last}): choose another number"
    )]
    DescriptorTaken {
        /// The number.
        fd: i32,
        /// The last one of the sockets.
        last: i32,
    },
}

impl From<LaunchError> for SpawnFailure {
    fn from(error: LaunchError) -> Self {
        Self { message: error.to_string(), class: FailureClass::Permanent }
    }
}

/// A start that only lacks its output.
#[derive(Debug)]
pub struct Prepared {
    /// For the spawner. `stdio` is still [`Stdio::Null`](crate::driver::request::Stdio::Null); for `notify_fd` the
    /// write end of a pipe has to be added to `descriptors`.
    pub request: SpawnRequest,
    /// The number under which the program expects the readiness pipe.
    pub notify_fd: Option<RawFd>,
}

/// One run of one instance, for which things are prepared.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// What all starts have in common.
    pub context: &'a Context,
    /// The service.
    pub spec: &'a ServiceSpec,
    /// The instance.
    pub instance: &'a InstanceId,
    /// Which of its lives.
    pub run: Run,
    /// Its secret.
    pub token: &'a str,
}

impl Start<'_> {
    /// The instance's own command.
    ///
    /// # Errors
    /// See [`LaunchError`].
    pub fn prepare(&self) -> Result<Prepared, LaunchError> {
        let mut request = self.base(&self.spec.launch.command, "command", &[])?;
        let sockets = self.spec.launch.sockets.iter();
        let bound = sockets.filter_map(|socket| self.context.sockets.get(socket));
        request.descriptors.extend(bound.zip(FIRST_SOCKET..));
        let ready = self.spec.policy.ready.as_ref();
        let notify_fd = ready.and_then(|ready| match ready.kind {
            ReadyKind::NotifyFd(fd) => Some(fd),
            _ => None,
        });
        if let Some(fd) = notify_fd {
            let last = FIRST_SOCKET + request.descriptors.len() as i32 - 1;
            if (FIRST_SOCKET..=last).contains(&fd) {
                return Err(LaunchError::DescriptorTaken { fd, last });
            }
        }
        Ok(Prepared { request, notify_fd })
    }

    /// Another command as if it were the instance: a hook, a probe. It has the same environment
    /// (besides `LISTEN_*` and the watchdog), folder, user and limits; `more` is added to the environment.
    ///
    /// # Errors
    /// See [`LaunchError`].
    pub fn prepare_command(
        &self,
        command: &[Template],
        key: &str,
        more: &[(&str, String)],
    ) -> Result<SpawnRequest, LaunchError> {
        self.base(command, key, more)
    }

    /// Who runs it, with what their environment says of them.
    ///
    /// # Errors
    /// When nobody has that name.
    pub fn account(&self) -> Result<Account, LaunchError> {
        let launch = &self.spec.launch;
        if launch.user.is_none() && launch.group.is_none() {
            return Ok(Account { identity: None, variables: Vec::new() });
        }
        let account = identity::resolve(launch.user.as_deref(), launch.group.as_deref())?;
        Ok(account)
    }

    /// The complete environment, each variable with its origin, in the order of the names.
    ///
    /// # Errors
    /// When a `$(…)` has no value.
    pub fn environment<'a>(&'a self, account: &'a Account) -> Result<Vec<EnvVar<'a>>, LaunchError> {
        environment(*self, account)
    }

    /// Fills in one text; `key` is where it stands.
    ///
    /// # Errors
    /// When a reference has no value.
    pub fn expand(&self, template: &Template, key: &str) -> Result<String, LaunchError> {
        let references = References { instance: self.instance, ports: &self.context.ports };
        template
            .expand(&references)
            .map_err(|source| LaunchError::Template { key: key.to_owned(), source })
    }

    fn base(
        &self,
        command: &[Template],
        key: &str,
        more: &[(&str, String)],
    ) -> Result<SpawnRequest, LaunchError> {
        let launch = &self.spec.launch;
        let account = self.account()?;
        let mut variables = self.environment(&account)?;
        let own = std::ptr::eq(command, launch.command.as_slice());
        if !own {
            let instance_only = |name: &OsStr| {
                let name = name.as_encoded_bytes();
                name.starts_with(b"LISTEN_")
                    || name == b"LYMPH_SHARED_SOCKET_FDS"
                    || name == b"WATCHDOG_USEC"
            };
            variables.retain(|variable| !instance_only(&variable.name));
        }
        variables.extend(more.iter().map(|(name, value)| EnvVar {
            name: OsStr::new(name).into(),
            value: OsStr::new(value).into(),
            origin: OURS.into(),
        }));
        let mut words = Vec::with_capacity(command.len());
        for (at, argument) in command.iter().enumerate() {
            words.push(self.expand(argument, &format!("{key}[{at}]"))?.into());
        }
        self.request(&words, key, &variables, &account)
    }

    /// The words as they are, in the instance's place and without what only the node's own runs have: `run`, `exec`.
    /// `omitted` says which variables these are.
    ///
    /// # Errors
    /// See [`LaunchError`].
    pub fn prepare_words(
        &self,
        words: &[OsString],
        omitted: &[&str],
    ) -> Result<SpawnRequest, LaunchError> {
        let account = self.account()?;
        let mut variables = self.environment(&account)?;
        variables.retain(|variable| !omitted.iter().any(|name| *variable.name == **name));
        self.request(words, "command", &variables, &account)
    }

    fn request(
        &self,
        words: &[OsString],
        key: &str,
        variables: &[EnvVar<'_>],
        account: &Account,
    ) -> Result<SpawnRequest, LaunchError> {
        let launch = &self.spec.launch;
        let nul = |key: &str| {
            let key = key.to_owned();
            move |source| LaunchError::Nul { key, source }
        };
        let mut argv = Strings::default();
        for word in words {
            argv.push(word.as_bytes()).map_err(nul(key))?;
        }
        let program =
            words.first().filter(|program| !program.is_empty()).ok_or(LaunchError::NoCommand)?;
        let directory = self.directory()?;
        let path = variables
            .iter()
            .find(|variable| *variable.name == *"PATH")
            .map_or(DEFAULT_PATH, |variable| variable.value.as_bytes());
        let candidates = candidates(program.as_bytes(), path).map_err(nul("PATH"))?;
        let (env, listen_pid) = env_block(variables)?;
        let directory = CString::new(directory.into_os_string().into_encoded_bytes());
        Ok(SpawnRequest {
            program: program.to_string_lossy().into_owned(),
            candidates,
            argv,
            env,
            listen_pid,
            directory: Some(directory.map_err(|error| LaunchError::Nul {
                key: "directory".to_owned(),
                source: NulByte { text: String::from_utf8_lossy(&error.into_vec()).into_owned() },
            })?),
            limits: limits(&launch.limits, self.context.nofile),
            identity: account.identity.clone(),
            umask: launch.umask,
            nice: launch.nice,
            cpus: launch.cpus.clone(),
            no_new_privs: launch.no_new_privs,
            ..SpawnRequest::default()
        })
    }

    /// The working folder, absolute when the project folder is.
    ///
    /// # Errors
    /// When a `$(…)` has no value.
    pub fn directory(&self) -> Result<PathBuf, LaunchError> {
        match &self.spec.launch.directory {
            None => Ok(self.context.project_dir.clone()),
            Some(template) => {
                let text = self.expand(template, "directory")?;
                let text = Path::new(&text);
                let text = text.strip_prefix(".").unwrap_or(text);
                Ok(self.context.project_dir.join(text))
            }
        }
    }
}

/// The paths that `execvp` would try: the program itself where it has a slash, else each folder of `PATH`.
fn candidates(program: &[u8], path: &[u8]) -> Result<Strings, NulByte> {
    let mut candidates = Strings::default();
    if program.contains(&b'/') {
        candidates.push(program)?;
        return Ok(candidates);
    }
    for folder in path.split(|&byte| byte == b':') {
        match folder {
            // An empty entry is the working folder.
            b"" => candidates.push_parts(&[b"./", program])?,
            _ => candidates.push_parts(&[folder, b"/", program])?,
        };
    }
    Ok(candidates)
}

fn env_block(variables: &[EnvVar<'_>]) -> Result<(Strings, Option<usize>), LaunchError> {
    let bytes = |one: &EnvVar<'_>| one.name.len() + 1 + one.value.len().max(PID_WIDTH);
    let mut block = Strings::with_room(variables.len(), variables.iter().map(bytes).sum());
    let mut listen_pid = None;
    for variable in variables {
        let name = variable.name.as_bytes();
        let shown = || variable.name.to_string_lossy().into_owned();
        if name.is_empty() || name.contains(&b'=') {
            return Err(LaunchError::VariableName { name: shown() });
        }
        let value = match name {
            b"LISTEN_PID" => &[b' '; PID_WIDTH],
            _ => variable.value.as_bytes(),
        };
        let start = block
            .push_parts(&[name, b"=", value])
            .map_err(|source| LaunchError::Nul { key: format!("env.{}", shown()), source })?;
        if name == b"LISTEN_PID" {
            listen_pid = Some(start + name.len() + 1);
        }
    }
    Ok((block, listen_pid))
}

/// Seconds of CPU time that a program has after XCPU.
const CPU_GRACE: u64 = 5;

fn limits(limits: &Limits, original_nofile: Option<(u64, u64)>) -> Vec<Rlimit> {
    let both = |name, resource: u32, value: Option<u64>| {
        value.map(|value| Rlimit { name, resource: resource as i32, soft: value, hard: value })
    };
    let nofile = both("nofile", libc::RLIMIT_NOFILE, limits.nofile).or_else(|| {
        // The node has raised its own; select() breaks above 1024.
        original_nofile.map(|(soft, hard)| Rlimit {
            name: "nofile",
            resource: libc::RLIMIT_NOFILE as i32,
            soft,
            hard,
        })
    });
    // The kernel says XCPU at the soft limit and KILL at the hard one; a program may clean up in between.
    let cpu = limits.cpu.map(|soft| Rlimit {
        name: "cpu",
        resource: libc::RLIMIT_CPU as i32,
        soft,
        hard: soft.saturating_add(CPU_GRACE),
    });
    [
        nofile,
        both("nproc", libc::RLIMIT_NPROC, limits.nproc),
        both("core", libc::RLIMIT_CORE, limits.core),
        both("as", libc::RLIMIT_AS, limits.address_space),
        cpu,
        both("stack", libc::RLIMIT_STACK, limits.stack),
    ]
    .into_iter()
    .flatten()
    .collect()
}
