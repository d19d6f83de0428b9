//! Helpers of the end-to-end tests: a cluster in a folder of its own, driven by the real binary.
//!
//! Every process of a test carries a token in its environment, or in its arguments where it cleared
//! the environment; a test that leaves one behind fails.

mod processes;
mod running;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub use processes::{Process, alive, signal, suspend, with_text};
pub use running::{Outcome, Running};

/// Longest wait for something that takes a moment; a machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(30);
/// The variable that carries a test's token.
const TOKEN: &str = "E2E_TOKEN";

/// Waits until something is so.
///
/// # Panics
/// When it is not so within `limit`, with `what` was waited for.
#[track_caller]
pub fn wait_until(limit: Duration, what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !so() {
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A binary of this package, which cargo builds before its tests.
fn binary(name: &str) -> PathBuf {
    let me = std::env::current_exe().expect("a test has a path");
    let found = me.ancestors().map(|dir| dir.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no {name} above {}", me.display()))
}

/// The path of a worker on our library; what it does is said by its first argument.
pub fn worker() -> String {
    binary("worker-under-test").display().to_string()
}

/// The path of the demo's services.
pub fn demo() -> String {
    binary("demo-under-test").display().to_string()
}

/// The path of the command line.
pub fn hilum() -> PathBuf {
    binary("hilum-under-test")
}

/// The path of a service that writes down the events that it hears.
pub fn events() -> String {
    binary("events-under-test").display().to_string()
}

/// A cluster in a temporary folder. Dropping it takes it down and checks that nothing is left.
#[derive(Debug)]
pub struct Cluster {
    home: TempDir,
    token: String,
    binary: PathBuf,
}

impl Cluster {
    /// A folder with this `hilum.yml`; nothing is started.
    pub fn new(yaml: &str) -> Self {
        // Short, so that the addresses of its sockets are.
        let home =
            tempfile::Builder::new().prefix("ht").tempdir_in("/tmp").expect("a folder in /tmp");
        let token = format!("e2e-{}", home.path().file_name().expect("has one").display());
        let cluster = Self { home, token, binary: hilum() };
        cluster.write("hilum.yml", yaml);
        fs::create_dir(cluster.path("run")).expect("a run folder");
        cluster
    }

    /// The same, and started.
    #[track_caller]
    pub fn up(yaml: &str) -> Self {
        let cluster = Self::new(yaml);
        cluster.ok("up -d");
        cluster
    }

    /// The project folder.
    pub fn dir(&self) -> &Path {
        self.home.path()
    }

    /// A path in the project folder.
    pub fn path(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    /// What every process of this test carries in its environment; programs that clear theirs shall carry it as an
    /// argument.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Writes a file in the project folder.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("is in a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    /// Replaces the configuration as editors do, by rename.
    pub fn configure(&self, yaml: &str) {
        self.write("hilum.yml.new", yaml);
        fs::rename(self.path("hilum.yml.new"), self.path("hilum.yml")).expect("renamed");
    }

    /// A file's text; empty where there is none.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// Runs the command line with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let ours = ["HILUM_", "LYMPH_", "LISTEN_", "NOTIFY_", "WATCHDOG_", "NEXTEST", "CARGO"];
            if ours.iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.args(arguments).current_dir(self.dir()).stdin(Stdio::null());
        command.env(TOKEN, &self.token).env("XDG_RUNTIME_DIR", self.path("run"));
        command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "1");
        command
    }

    /// The command line with these arguments, run by another program: `["setsid", "--ctty"]`.
    pub fn command_by(&self, by: &[&str], arguments: &[&str]) -> Command {
        let plain = self.command(arguments);
        let mut command = Command::new(by[0]);
        command.args(&by[1..]).arg(plain.get_program()).args(plain.get_args());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir(self.dir()).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end; the arguments are separated by spaces.
    #[track_caller]
    pub fn run(&self, arguments: &str) -> Outcome {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        self.run_words(&words)
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn run_words(&self, arguments: &[&str]) -> Outcome {
        self.start(arguments).finish(2 * LIMIT)
    }

    /// Starts a command that runs beside the test.
    pub fn start(&self, arguments: &[&str]) -> Running {
        self.running(self.command(arguments), arguments)
    }

    /// The same, run by another program.
    pub fn start_by(&self, by: &[&str], arguments: &[&str]) -> Running {
        self.running(self.command_by(by, arguments), arguments)
    }

    fn running(&self, mut command: Command, arguments: &[&str]) -> Running {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child =
            command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.binary.display()));
        Running::new(child, arguments.join(" "))
    }

    /// Runs a command that must succeed; the answer is what it printed.
    #[track_caller]
    pub fn ok(&self, arguments: &str) -> String {
        self.run(arguments).code(0).out
    }

    /// `ps --json`.
    #[track_caller]
    pub fn ps(&self) -> Value {
        self.json("ps --json")
    }

    /// What a command prints, as JSON.
    #[track_caller]
    pub fn json(&self, arguments: &str) -> Value {
        let text = self.ok(arguments);
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{arguments} printed no JSON ({error}): {text}"))
    }

    /// What `ps` shows of an instance, `null` where there is none.
    #[track_caller]
    pub fn instance(&self, id: &str) -> Value {
        let ps = self.ps();
        let all = ps["instances"].as_array().expect("a list");
        all.iter().find(|instance| instance["instance"] == id).cloned().unwrap_or(Value::Null)
    }

    /// An instance's state.
    #[track_caller]
    pub fn state(&self, id: &str) -> String {
        self.instance(id)["state"].as_str().unwrap_or("none").to_owned()
    }

    /// The pid of an instance that runs.
    #[track_caller]
    pub fn pid(&self, id: &str) -> u32 {
        let instance = self.instance(id);
        let pid =
            instance["pid"].as_u64().unwrap_or_else(|| panic!("{id} does not run: {instance}"));
        u32::try_from(pid).expect("is a pid")
    }

    /// Every instance runs and is ready.
    #[track_caller]
    pub fn assert_all_ready(&self) {
        for instance in self.ps()["instances"].as_array().expect("a list") {
            let so = instance["state"] == "running" && instance["ready"] == true;
            assert!(so, "{instance:#}");
        }
    }

    /// Waits until `ps` shows of an instance what is asked for.
    #[track_caller]
    pub fn wait(&self, id: &str, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        let mut seen = Value::Null;
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            seen = self.instance(id);
            if so(&seen) {
                return seen;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("waited in vain for {id}: {what}; it is {seen:#}");
    }

    /// Waits for a state.
    #[track_caller]
    pub fn wait_state(&self, id: &str, state: &str) -> Value {
        self.wait(id, state, |instance| instance["state"] == state)
    }

    /// The log's plain lines.
    #[track_caller]
    pub fn logs(&self, arguments: &str) -> String {
        self.ok(&format!("logs {arguments}"))
    }

    /// Waits until the log holds a text.
    #[track_caller]
    pub fn wait_log(&self, text: &str) {
        wait_until(LIMIT, &format!("{text:?} in the log"), || self.logs("").contains(text));
    }

    /// The names of all events so far, of one instance or service, in order.
    #[track_caller]
    pub fn events(&self, target: &str) -> Vec<String> {
        let text = self.ok(&format!("events --json {target}"));
        let events =
            text.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event is JSON"));
        events.map(|event| event["event"].as_str().expect("has a name").to_owned()).collect()
    }

    /// All that carries the token, node and keeper included.
    pub fn processes(&self) -> Vec<Process> {
        processes::with_token(TOKEN, &self.token)
    }

    /// Takes everything down; nothing may be left.
    #[track_caller]
    pub fn down(&self) -> Outcome {
        let outcome = self.run("down").code(0);
        self.assert_empty();
        outcome
    }

    /// Nothing of this test runs, or will not in a moment.
    #[track_caller]
    pub fn assert_empty(&self) {
        self.assert_empty_within(Duration::from_secs(5));
    }

    /// The same with a limit of its own.
    #[track_caller]
    pub fn assert_empty_within(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left after {limit:?}: {left:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What helps to understand a failed test.
    #[expect(
        clippy::print_stdout,
        reason = "the test runner keeps it, and shows it when the test has failed"
    )]
    fn explain(&self) {
        println!("--- hilum.yml\n{}", self.read("hilum.yml"));
        for arguments in ["ps", "logs -n 60"] {
            let words: Vec<&str> = arguments.split(' ').collect();
            let outcome = self.start(&words).collect(Duration::from_secs(10));
            let outcome =
                outcome.map_or("no answer".to_owned(), |outcome| outcome.out + &outcome.err);
            println!("--- {arguments}\n{outcome}");
        }
        let state = self.path(".hilum/hilum.yml");
        for entry in fs::read_dir(state).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("node.") {
                println!("--- {name}\n{}", fs::read_to_string(entry.path()).unwrap_or_default());
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            self.explain();
        }
        let down = self.start(&["down", "--now"]).collect(LIMIT);
        let down = down.map_or("it did not end".to_owned(), |outcome| format!("{outcome:#?}"));
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut left = self.processes();
        while !left.is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
            left = self.processes();
        }
        left.iter().for_each(Process::kill);
        if !failed {
            assert!(left.is_empty(), "left behind: {left:#?}\nafter `down --now`: {down}");
        }
    }
}
