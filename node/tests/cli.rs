//! What a user sees of the command line while no node runs: first steps, slips, exit codes.

#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside of test functions")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A folder with a config, and `hilum` in it with an environment of its own.
struct Place {
    dir: TempDir,
}

const CONFIG: &str = "\
name: shop
env: {DB_PASSWORD: hush}
instances:
  web: {command: sleep 1000, numprocesses: 2}
  job: {command: 'true', kind: job}
";

impl Place {
    fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn with(config: &str) -> Self {
        let place = Self::empty();
        std::fs::write(place.path().join("hilum.yml"), config).unwrap();
        place
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hilum"));
        command.args(words).current_dir(self.path()).stdin(Stdio::null());
        for name in ["HILUM_CONFIG", "LYMPH_CONFIG", "HILUM_PROFILES", "HILUM_COMPLETE"] {
            command.env_remove(name);
        }
        command.env("XDG_RUNTIME_DIR", self.path().join("run"));
        command
    }

    fn run(&self, words: &[&str]) -> Ran {
        Ran(self.command(words).output().unwrap())
    }
}

struct Ran(Output);

impl Ran {
    fn code(&self) -> i32 {
        self.0.status.code().unwrap_or(-1)
    }

    fn out(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    fn err(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    #[track_caller]
    fn ends(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "out: {}\nerr: {}", self.out(), self.err());
        self
    }
}

#[test]
fn a_first_run_without_config_says_how_to_begin_and_init_does_it() {
    let place = Place::empty();
    let ran = place.run(&["up"]).ends(2);
    assert!(ran.err().contains("no configuration found"), "{}", ran.err());
    assert!(ran.err().contains("`hilum init`"), "{}", ran.err());
    place.run(&["init"]).ends(0);
    place.run(&["check"]).ends(0);
    let again = place.run(&["init"]).ends(1);
    assert!(again.err().contains("is there already"), "{}", again.err());
}

#[test]
fn a_slip_in_a_word_or_name_names_what_is_near() {
    let place = Place::with(CONFIG);
    assert!(place.run(&["lgos"]).ends(2).err().contains("'logs'"));
    assert!(place.run(&["logs", "wbe"]).ends(2).err().contains("`web`"));
    assert!(place.run(&["exec", "wbe", "--", "true"]).ends(2).err().contains("`web`"));
    assert!(place.run(&["config", "instances.wbe"]).ends(2).err().contains("`web`"));
}

#[test]
fn without_a_node_commands_end_with_3_and_down_with_0() {
    let place = Place::with(CONFIG);
    for words in [&["ps"][..], &["stop", "web"], &["scale", "web=3"], &["reload"], &["wait", "web"]]
    {
        place.run(words).ends(3);
    }
    place.run(&["down"]).ends(0);
    assert_eq!(
        place.run(&["down", "--json"]).ends(0).out().replace(['\n', ' '], ""),
        r#"{"changed":[],"survivors":[]}"#
    );
    let ran = place.run(&["ps", "--json"]).ends(3);
    let error: Value = serde_json::from_str(&ran.err()).unwrap();
    assert_eq!(error["error"]["code"], "not-running");
    assert!(ran.out().is_empty());
}

#[test]
fn a_broken_config_is_explained_and_does_not_hide_the_cluster() {
    let place = Place::with("instances:\n  web:\n    comand: sleep 1\n");
    let ran = place.run(&["check"]).ends(2);
    assert!(
        ran.err().contains("hilum.yml:3:5") && ran.err().contains("`command`"),
        "{}",
        ran.err()
    );
    assert!(ran.out().is_empty(), "diagnostics belong to stderr");
    place.run(&["up"]).ends(2);
    std::fs::create_dir(place.path().join("sub")).unwrap();
    let mut below = place.command(&["ps"]);
    below.current_dir(place.path().join("sub"));
    Ran(below.output().unwrap()).ends(3);
}

#[test]
fn one_off_processes_have_the_services_environment_and_give_their_code() {
    let place = Place::with(CONFIG);
    let ran = place
        .run(&["exec", "web.2", "--", "sh", "-c", "echo $HILUM_INSTANCE $DB_PASSWORD; exit 7"])
        .ends(7);
    assert_eq!(ran.out(), "web.2 hush\n");
    place.run(&["run", "job"]).ends(0);
    let ran = place.run(&["exec", "web", "--", "no-such-program"]).ends(1);
    assert!(ran.err().contains("`no-such-program`"), "{}", ran.err());
    let marks = place.run(&["exec", "web", "--", "env"]).ends(0);
    assert!(!marks.out().contains("HILUM_CLUSTER"), "a sweep must not take it for a leftover");
}

#[test]
fn secrets_are_masked_unless_revealed() {
    let place = Place::with(CONFIG);
    for words in [&["env", "web"][..], &["config"]] {
        assert!(!place.run(words).ends(0).out().contains("hush"), "{words:?}");
        let reveal: Vec<&str> = words.iter().copied().chain(["--reveal"]).collect();
        assert!(place.run(&reveal).ends(0).out().contains("hush"), "{words:?}");
    }
    let ran = place.run(&["env", "web", "--json"]).ends(0);
    let all: Value = serde_json::from_str(&ran.out()).unwrap();
    let one =
        all["env"].as_array().unwrap().iter().find(|one| one["name"] == "DB_PASSWORD").unwrap();
    assert_eq!(one["origin"], "hilum.yml:2");
}

#[test]
fn a_reader_that_leaves_ends_a_command_silently() {
    let place = Place::with(CONFIG);
    let mut child =
        place.command(&["man"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = Ran(child.wait_with_output().unwrap()).ends(0);
    assert_eq!(ran.err(), "");
}

#[test]
fn help_and_version_are_results_and_errors_can_be_objects() {
    let place = Place::empty();
    assert!(place.run(&["help", "scale"]).ends(0).out().contains("Examples:"));
    assert!(place.run(&["--version"]).ends(0).out().starts_with("hilum "));
    let ran = place.run(&["scale", "web", "--json"]).ends(2);
    let error: Value = serde_json::from_str(&ran.err()).unwrap();
    assert_eq!(error["error"]["code"], "usage");
    assert!(place.run(&["list"]).ends(0).out().contains("down, quit"));
}
