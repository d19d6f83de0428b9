//! A real node around a test: the `hilum` binary, a folder of its own, and a way to call what runs in it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use hilum_shared::config::Diagnostics;
use hilum_shared::config::service::{self, ServiceOptions};

use crate::container::{Container, Running, Settings, StartError};
use crate::context::{Context, Proxy};
use crate::contract::Contract;
use crate::worker::Worker;

/// The variable that names the binary.
const BINARY: &str = "HILUM_BIN";
/// The name of the configuration in the node's folder.
const CONFIG: &str = "hilum.yml";
/// Variables of a node around the test, which the node in it must not inherit.
const FOREIGN: [&str; 5] = ["HILUM_", "LYMPH_", "LISTEN_", "NOTIFY_", "WATCHDOG_"];

/// The longest name of a folder for temporary files (`TMPDIR`) in which a node's sockets fit: a socket's path has 107 bytes at most
/// (`man 7 unix`), the longest of ours ends with 62.
const LONGEST_BASE: usize = 45;

/// Where a node's folder is made: where the system says, or `/tmp` if its sockets would not fit there.
fn base() -> PathBuf {
    let base = std::env::temp_dir();
    if base.as_os_str().len() <= LONGEST_BASE { base } else { PathBuf::from("/tmp") }
}

/// Why a real node does not do what a test asks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RealNodeError {
    /// The program cannot be run.
    #[error("cannot run `{}`: {source}; put `hilum` in PATH, or its path in {BINARY}", binary.display())]
    Binary {
        /// What was tried.
        binary: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The folder of the node.
    #[error("the node's folder: {0}")]
    Folder(#[from] io::Error),
    /// A command did not succeed.
    #[error("`hilum {command}` ended with {status}\n{output}")]
    Command {
        /// Its arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed on both.
        output: String,
    },
    /// The sections that services share cannot be read.
    #[error("{0}")]
    Config(#[from] Diagnostics),
    /// The test's own side of the calls.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// A node that is to be started. Files and variables come before the start.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use hilum_worker::args;
/// use hilum_worker::testing::NodeFixture;
///
/// let node = NodeFixture::new("
/// defaults: {directory: $(env.CARGO_MANIFEST_DIR)}
/// instances:
///   echo: {command: target/debug/echo instance, ready: heartbeat, numprocesses: 2}
/// ").start().await?;
/// let shout: String = node.proxy("echo").call("upper", args! { text: "foo" }).await?;
/// assert_eq!(shout, "FOO");
/// node.hilum(&["stop", "echo.1"]).await?;
/// node.stop().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing runs before `start`"]
pub struct NodeFixture {
    yaml: String,
    binary: Option<PathBuf>,
    files: Vec<(PathBuf, String)>,
    env: Vec<(OsString, OsString)>,
}

impl NodeFixture {
    /// A node with this configuration (`hilum.yml`) in a temporary folder.
    pub fn new(yaml: impl Into<String>) -> Self {
        let (files, env) = (Vec::new(), Vec::new());
        Self { yaml: yaml.into(), binary: None, files, env }
    }

    /// By this program in place of `$HILUM_BIN`, or `hilum` in `PATH`.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// With a file beside the configuration: a service's own, for example.
    pub fn file(mut self, path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        self.files.push((path.into(), text.into()));
        self
    }

    /// With a variable for the node and all that it starts.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts it, and waits until every instance is ready.
    ///
    /// # Errors
    /// See [`RealNodeError`]; that an instance failed comes with what it wrote. Nothing is left running.
    pub async fn start(self) -> Result<RealNode, RealNodeError> {
        let home = tempfile::Builder::new().prefix("hilum-test-").tempdir_in(base())?;
        std::fs::create_dir(home.path().join("run"))?;
        let config = home.path().join(CONFIG);
        std::fs::write(&config, self.yaml)?;
        for (path, text) in &self.files {
            let path = home.path().join(path);
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(path, text)?;
        }
        let given = self.binary.or_else(|| std::env::var_os(BINARY).map(PathBuf::from));
        let driver = Driver {
            binary: given.unwrap_or_else(|| PathBuf::from("hilum")),
            env: self.env,
            home: home.path().to_owned(),
        };
        // From here on what was started is taken down again, whatever happens.
        let mut started = Started { driver, home };
        let up = started.driver.clone().run_away(words(&["up", "-d", "--wait"])).await;
        if let Err(RealNodeError::Command { command, status, mut output }) = up {
            output += &started.driver.account();
            return Err(RealNodeError::Command { command, status, output });
        }
        up?;
        let caller = started.caller(&config).await?;
        Ok(RealNode { context: caller.context(), _caller: caller, started })
    }
}

/// A node that runs around a test, with all that its configuration names. Dropping it takes everything down and removes its folder; when the test
/// is failing, it says on stderr what ran and what was logged.
pub struct RealNode {
    context: Context,
    _caller: Running,
    started: Started,
}

impl RealNode {
    /// The folder with `hilum.yml`.
    pub fn dir(&self) -> &Path {
        self.started.home.path()
    }

    /// A context from which the test calls. It finds what the services find, and emits where they do: by the registry and the event
    /// system that the configuration names.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// A service to call.
    pub fn proxy(&self, service: &str) -> Proxy {
        self.context.proxy(service)
    }

    /// Runs a command of `hilum` on this node; the answer is what it printed.
    ///
    /// # Errors
    /// When it does not exit with 0.
    pub async fn hilum<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String, RealNodeError> {
        self.started.driver.clone().run_away(words(arguments)).await
    }

    /// All that was logged.
    ///
    /// # Errors
    /// As [`RealNode::hilum`].
    pub async fn logs(&self) -> Result<String, RealNodeError> {
        self.hilum(&["logs"]).await
    }

    /// Stops everything in order, as `hilum down` does.
    ///
    /// # Errors
    /// As [`RealNode::hilum`].
    pub async fn stop(self) -> Result<(), RealNodeError> {
        self.hilum(&["down"]).await.map(drop)
    }
}

fn words<S: AsRef<OsStr>>(arguments: &[S]) -> Vec<OsString> {
    arguments.iter().map(|word| word.as_ref().to_owned()).collect()
}

/// The binary in its folder.
#[derive(Clone)]
struct Driver {
    binary: PathBuf,
    env: Vec<(OsString, OsString)>,
    home: PathBuf,
}

impl Driver {
    fn run(&self, arguments: &[OsString]) -> Result<String, RealNodeError> {
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if FOREIGN.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        command.args([OsStr::new("-c"), OsStr::new(CONFIG)]).args(arguments);
        command.current_dir(&self.home).stdin(Stdio::null());
        command.env("XDG_RUNTIME_DIR", self.home.join("run")).env("NO_COLOR", "1");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let output = command
            .output()
            .map_err(|source| RealNodeError::Binary { binary: self.binary.clone(), source })?;
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(out);
        }
        let texts: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
        let (command, status) = (texts.join(" "), output.status);
        let output = out + &String::from_utf8_lossy(&output.stderr);
        Err(RealNodeError::Command { command, status, output })
    }

    /// The same on a thread for what blocks.
    async fn run_away(self, arguments: Vec<OsString>) -> Result<String, RealNodeError> {
        let ran = tokio::task::spawn_blocking(move || self.run(&arguments)).await;
        ran.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// What helps to understand a failed test.
    fn account(&self) -> String {
        let shown = [&["ps"][..], &["logs", "-n", "60"]].map(|arguments| {
            let said = self.run(&words(arguments)).unwrap_or_else(|error| error.to_string());
            format!("--- hilum {}\n{said}", arguments.join(" "))
        });
        shown.join("\n")
    }
}

/// What has to be taken down.
struct Started {
    driver: Driver,
    home: tempfile::TempDir,
}

impl Started {
    /// A container that serves nothing: the test's side of the calls.
    async fn caller(&mut self, config: &Path) -> Result<Running, RealNodeError> {
        let node = BTreeMap::from([("LYMPH_NODE_CONFIG".to_owned(), config.display().to_string())]);
        let folder = self.home.path().to_owned();
        let config =
            service::load(&ServiceOptions { config: None, vars: None, folder, env: node })?;
        let state = self.home.path().join(".hilum").join(CONFIG);
        let run = std::fs::read_to_string(state.join("run"))?;
        let endpoint = |name: &str| Some(format!("ipc://{}/{name}", run.trim()));
        let contract = Contract {
            node: endpoint("node.sock"),
            events: endpoint("events.sock"),
            ..Contract::none()
        };
        let settings = Settings { isolated: true, ..Settings::default() };
        let container = Container::new().settings(settings).shared_by(&config)?;
        Ok(container.start(Worker::new(contract)).await?)
    }
}

impl Drop for Started {
    #[expect(clippy::print_stderr, reason = "the test has failed: its runner shows this")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.driver.account());
        }
        if let Err(error) = self.driver.run(&words(&["down", "--now"]))
            && !matches!(error, RealNodeError::Binary { .. })
        {
            eprintln!("{error}");
        }
    }
}
