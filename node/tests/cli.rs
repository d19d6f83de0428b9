//! What a user sees of the command line while no node runs: first steps, slips, exit codes.

#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside of test functions")]

#[path = "common/logs.rs"]
mod logs;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use hilum_node::log::LogConfig;
use hilum_shared::name::{InstanceId, Run};
use hilum_shared::protocol::LogRecord;
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
fn init_does_not_take_the_place_of_a_configuration_of_another_name() {
    for name in ["hilum.yaml", ".hilum.yml", ".lymph.yml"] {
        let place = Place::empty();
        let config = place.path().join(name);
        std::fs::write(&config, CONFIG).unwrap();
        let refused = place.run(&["init"]).ends(1);
        assert!(refused.err().contains(name), "{}", refused.err());
        assert!(!place.path().join("hilum.yml").exists());
        place.run(&["init", "--stdout"]).ends(0);
        place.run(&["-c", "new.yml", "init"]).ends(0);
        place.run(&["init", "--force"]).ends(0);
        assert_eq!(std::fs::read_to_string(&config).unwrap(), CONFIG);
    }
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
        r#"{"changed":[],"survivors":[],"lost":[]}"#
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
    let shell = Place::with("instances: {web: {command: echo mine, shell: true}}");
    let ran = shell.run(&["run", "web", "--", "false"]).ends(0);
    assert_eq!(ran.out(), "mine\n");
    assert!(ran.err().contains("have no effect; `hilum exec web -- CMD`"), "{}", ran.err());
    let ran = place.run(&["exec", "web", "--", "no-such-program"]).ends(127);
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
    assert!(place.run(&["help", "--help"]).ends(0).out().contains("Usage:"));
    assert!(place.run(&["--version"]).ends(0).out().starts_with("hilum "));
    let ran = place.run(&["scale", "web", "--json"]).ends(2);
    let error: Value = serde_json::from_str(&ran.err()).unwrap();
    assert_eq!(error["error"]["code"], "usage");
    assert!(place.run(&["list"]).ends(0).out().contains("down, quit"));
}

#[test]
fn a_slip_in_a_call_is_a_usage_error_before_anybody_is_asked() {
    let place = Place::empty();
    let at = ["--address", "tcp://127.0.0.1:1"];
    for (words, said) in [
        (&["request", "echo.upper", "{}", "--timeout", "x"][..], "no duration"),
        (&["request", "echo.upper", "{}", "--timeout", "0"], "within no time"),
        (&["request", "echo.upper", "{text}"], "not JSON"),
        (&["request", "echo.upper", "[1]"], "no JSON object"),
        (&["request", "echo"], "`service.method`"),
        (&["request", "echo.upper@one"], "`one` is no version"),
        (&["request", "echo.upper", "-N", "0"], "-N"),
        (&["request", "echo.upper", "--ip", "127.0.0.1", "-g"], "cannot be used with"),
    ] {
        let ran = place.run(&[words, &at].concat()).ends(2);
        assert!(ran.err().contains(said), "{words:?}: {}", ran.err());
    }
    let ran = place.run(&["change-loglevel", "tcp://127.0.0.1:1", "-l", "loud"]).ends(2);
    assert!(ran.err().contains("`loud` is no level"), "{}", ran.err());
    let ran = place.run(&["inspect", "http://127.0.0.1"]).ends(2);
    assert!(ran.err().contains("tcp://"), "{}", ran.err());
}

#[test]
fn a_call_of_nobody_says_so_by_its_code() {
    // Without a node and without a configuration: an address needs neither.
    let place = Place::empty();
    let request = |address: &str, more: &[&str]| {
        let words = ["request", "echo.upper", "{}", "--address", address, "--json"];
        let ran = place.run(&[&words, more].concat());
        let error: Value = serde_json::from_str(&ran.err()).unwrap();
        (ran.code(), error["error"]["code"].as_str().unwrap().to_owned())
    };
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", closed.local_addr().unwrap());
    // Somebody listens, and never says a word.
    assert_eq!(request(&address, &["--timeout", "0.3"]), (4, "timed-out".to_owned()));
    drop(closed);
    assert_eq!(request(&address, &[]), (1, "not-connected".to_owned()));
    assert_eq!(request("echo", &[]).0, 2, "a name needs a configuration that says where names are");
    let place = Place::with(CONFIG);
    for words in [&["discover"][..], &["inspect", "web"], &["request", "node.status"]] {
        place.run(words).ends(3);
    }
}

#[test]
fn an_instance_without_a_program_is_told_where_it_was_looked_for() {
    let place = Place::empty();
    assert!(place.run(&["instance"]).ends(2).err().contains("`-c FILE`"));
    let write = |text: &str| std::fs::write(place.path().join(".lymph.yml"), text).unwrap();
    write("interfaces: {echo: {class: 'no-such-program:Echo'}}");
    let ran = place.run(&["instance"]).ends(2);
    assert!(ran.err().contains("`no-such-program` not found"), "{}", ran.err());
    assert!(ran.err().contains("PATH") && ran.err().contains("`target`"), "{}", ran.err());
    write("interfaces: {echo: {class: 'shop.echo:Echo'}}");
    let ran = place.run(&["worker"]).ends(2);
    assert!(ran.err().contains(".lymph.yml:1:28"), "{}", ran.err());
    assert!(ran.err().contains("`lymph instance`"), "{}", ran.err());
    write("interfaces: {echo: {class: 'a:Echo'}, shop: {class: 'b:Shop'}}");
    assert!(place.run(&["instance"]).ends(2).err().contains("two programs"));
    write("interfaces: {echo: {limit: 1}}");
    assert!(place.run(&["instance"]).ends(2).err().contains("`class: 'binary:Type'`"));
}

#[test]
fn an_instance_becomes_the_program_of_its_class() {
    let place = Place::empty();
    std::fs::create_dir_all(place.path().join("conf")).unwrap();
    std::fs::create_dir_all(place.path().join("target/debug")).unwrap();
    let config = place.path().join("conf/echo.yml");
    std::fs::write(&config, "interfaces: {echo: {class: 'echo-service:Echo'}}").unwrap();
    let program = place.path().join("target/debug/echo-service");
    std::fs::write(&program, "#!/bin/sh\necho \"$@\"\nexit 7\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let ran =
        place.run(&["instance", "-c", "conf/echo.yml", "-p", "4444", "-i", "--ip", "127.0.0.1"]);
    let ran = ran.ends(7);
    let config = config.display();
    assert_eq!(
        ran.out(),
        format!("instance --config {config} --ip 127.0.0.1 --port 4444 --isolated\n")
    );
    let ran = place.run(&["worker", "-c", "conf/echo.yml", "--reload"]).ends(7);
    assert_eq!(ran.out(), format!("worker --config {config} --reload\n"));
    // The interfaces that are named stand above the file for both.
    for verb in ["instance", "worker"] {
        let ran = place.run(&[verb, "-c", "conf/echo.yml", "--interface", "echo-service:Echo"]);
        let said = format!("{verb} --config {config} --interface echo-service:Echo\n");
        assert_eq!(ran.ends(7).out(), said);
    }
}

#[test]
fn a_shell_without_a_terminal_goes_through_its_lines_and_tells_by_its_code() {
    use std::io::Write as _;
    let place = Place::empty();
    let shell = |lines: &str| {
        let mut command = place.command(&["shell"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        Ran(child.wait_with_output().unwrap())
    };
    let ran =
        shell("# values\nx = {\"a\": [1,\n  Decimal(\"1.50\")]}\nx.a[1]\n_\nvars\nhelp vars\n")
            .ends(0);
    assert!(ran.out().starts_with("Decimal(1.50)\nDecimal(1.50)\n"), "{}", ran.out());
    let ran = shell("nope\n1\nexit\n2\n").ends(1);
    assert_eq!(ran.out(), "1\n");
    assert!(ran.err().contains("no command or variable `nope`"), "{}", ran.err());
    let ran = shell("1\nx = [1,\n2\n3\n").ends(1);
    assert!(ran.err().contains("a bracket of line 2 is not closed"), "{}", ran.err());
    assert!(ran.err().contains("the 2 lines after it"), "{}", ran.err());
    let ran = shell("proxy.echo.upper(text=\"x\")\n").ends(1);
    assert!(ran.err().contains("no configuration found"), "{}", ran.err());
}

/// What fish is told of the last of these words.
fn completed(place: &Place, words: &[&str]) -> Vec<String> {
    let mut command = place.command(&["--", "hilum"]);
    let ran = command.args(words).env("HILUM_COMPLETE", "fish").output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    said.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

#[test]
fn values_of_options_and_signals_are_completed() {
    let place = Place::with(CONFIG);
    let of = |words: &[&str]| completed(&place, words);
    assert_eq!(of(&["logs", "--stream", ""]), ["out", "err", "log", "node"]);
    assert_eq!(of(&["logs", "--stream=n"]), ["--stream=node"]);
    assert_eq!(of(&["logs", "--stream", "out,e"]), ["out,err"]);
    assert_eq!(of(&["logs", "--level", ""]), ["debug", "info", "warning", "error", "critical"]);
    assert_eq!(of(&["tail", "-l", "w"]), ["warning"]);
    assert_eq!(of(&["change-loglevel", "-l", "e"]), ["error"]);
    assert_eq!(of(&["signal", "US"]), ["USR1", "USR2"]);
    assert_eq!(of(&["signal", "SIGUS"]), ["SIGUSR1", "SIGUSR2"]);
    assert!(of(&["signal", ""]).contains(&"TERM".to_owned()));
    assert_eq!(of(&["kill", "-s", "HU"]), ["HUP"]);
    for value in of(&["signal", "S"]) {
        assert!(value.parse::<hilum_shared::signal::Signal>().is_ok(), "{value}");
    }
    assert!(of(&["signal", "HUP", "w"]).contains(&"web".to_owned()));
}

#[test]
fn a_trace_is_shown_in_the_order_of_its_records_own_times() {
    let place = Place::with(CONFIG);
    let started = hilum_node::log::start(LogConfig {
        dir: place.path().join(".hilum/hilum.yml/logs"),
        base: place.path().to_owned(),
        spec: logs::spec(1 << 20, 1 << 18),
        subscriber: None,
        untold: Vec::new(),
    })
    .unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() - 1.0;
    // What was called has sent its records first, the caller both of its own at once.
    let batches: [(&str, &[(&str, f64)]); 2] = [
        ("called.1", &[("called", 0.001), ("called on", 0.002)]),
        ("caller.1", &[("calls", 0.0), ("answered", 0.003), ("as late", 0.003)]),
    ];
    for (name, said) in batches {
        let record = |(message, after): &(&str, f64)| LogRecord {
            instance: InstanceId::parse(name).unwrap(),
            seq: None,
            at: now + after,
            level: "INFO".into(),
            logger: "x".into(),
            message: (*message).to_owned(),
            fields: BTreeMap::new(),
            trace_id: Some("abc".into()),
        };
        let records = said.iter().map(record).collect();
        started.handle.structured(InstanceId::parse(name).unwrap(), Run(1), 7, records).unwrap();
    }
    started.handle.stop();
    started.thread.join().unwrap();
    let shown = |words: &[&str]| -> Vec<String> {
        let all = place.run(words).ends(0).out();
        let lines = all.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| line["line"].as_str().unwrap().to_owned()).collect()
    };
    let read = ["called", "called on", "calls", "answered", "as late"];
    assert_eq!(shown(&["logs", "--json"]), read);
    let in_time = ["calls", "called", "called on", "answered", "as late"];
    assert_eq!(shown(&["logs", "--trace", "abc", "--json"]), in_time);
    assert_eq!(
        shown(&["logs", "--trace", "abc", "--json", "-n", "3"]),
        ["calls", "answered", "as late"]
    );
}
