//! The JSON Schema beside the reader: it takes all that the reader takes, and refuses what an editor can tell is wrong.
//!
//! Needs a Python with jsonschema, which `scripts/python-env` makes; without one the tests say so and skip.
#![allow(clippy::print_stderr, reason = "a test says that it skips")]
#![allow(clippy::unwrap_used, reason = "this is test code")]

#[path = "config_support/mod.rs"]
mod config_support;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use config_support::Project;
use hilum_shared::config::{keys, schema};
use serde_json::{Value, json};

const JUDGE: &str = "
import json, sys
from jsonschema import Draft7Validator
given = json.load(sys.stdin)
Draft7Validator.check_schema(given['schema'])
judge = Draft7Validator(given['schema'])
json.dump([next((str(e.json_path) + ': ' + e.message[:200] for e in judge.iter_errors(one)), None) for one in given['documents']], sys.stdout)
";

/// What is wrong with each document, `None` where nothing is; nothing at all where there is no Python.
fn judged(documents: &[Value]) -> Option<Vec<Option<String>>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let made = target.join("python/bin/python");
    let python = match std::env::var_os("HILUM_TEST_PYTHON") {
        Some(python) => python,
        None if made.exists() => made.into_os_string(),
        None => OsString::from("python3"),
    };
    let tried = Command::new(&python).args(["-c", "import jsonschema"]).output();
    if !tried.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: {} with jsonschema is needed", python.to_string_lossy());
        return None;
    }
    let mut judge = Command::new(&python)
        .args(["-c", JUDGE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let given = json!({"schema": schema(), "documents": documents}).to_string();
    judge.stdin.take().unwrap().write_all(given.as_bytes()).unwrap();
    let output = judge.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// A document as an editor sees it; `None` where JSON has no word for it.
fn document(yaml: &str) -> Option<Value> {
    let mut value: serde_yaml::Value = serde_yaml::from_str(yaml).ok()?;
    value.apply_merge().ok()?;
    serde_json::to_value(value).ok()
}

/// The files that are shown to people.
fn shown() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(root.join("conf")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "yml") {
            all.push((path.display().to_string(), std::fs::read_to_string(path).unwrap()));
        }
    }
    for name in ["README.md", "docs/config.md", "docs/logs.md", "docs/lymph.md", "docs/services.md"]
    {
        let text = std::fs::read_to_string(root.join(name)).unwrap();
        let blocks = text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        all.extend(
            blocks.enumerate().map(|(at, block)| (format!("{name} #{at}"), block.to_owned())),
        );
    }
    all
}

/// Whether the reader finds nothing wrong.
fn is_valid(yaml: &str) -> bool {
    let project = Project::new(yaml)
        .file("included.yml", "{}")
        .file("everything.env", "")
        .env("USER_ID", "0");
    project.load().is_ok()
}

#[test]
fn what_is_shown_to_people_is_valid() {
    let all = shown();
    let (names, documents): (Vec<_>, Vec<_>) = all
        .iter()
        .filter(|(_, text)| is_valid(text))
        .filter_map(|(name, text)| Some((name, document(text)?)))
        .unzip();
    assert!(names.len() > 8, "{names:?}");
    let Some(verdicts) = judged(&documents) else { return };
    for (name, verdict) in names.iter().zip(verdicts) {
        assert_eq!(verdict, None, "{name}");
    }
}

#[test]
fn what_the_reader_takes_the_schema_takes() {
    // One key with one value, in a map with what has to stand beside it.
    let values = [
        "null",
        "true",
        "'true'",
        "0",
        "1",
        "5",
        "100000",
        "-1",
        "0.5",
        "1.5",
        "x",
        "'5'",
        "''",
        "10s",
        "1h30m",
        "64KiB",
        "64kib",
        "20%",
        "TERM",
        "sigusr1",
        "RTMIN+2",
        "'022'",
        "$(env.HOME)",
        "$(var.any)",
        "[]",
        "[x]",
        "[x, 5]",
        "[1]",
        "[$(env.HOME)]",
        "{}",
        "{x: y}",
        "{a: {}}",
        "{command: x}",
        "[{port: 1}]",
        "{a: {port: 80}}",
        "{x-own: 1}",
        "auto",
        "unlimited",
        "cores",
        "never",
        "127.0.0.1",
        "'127.0.0.1:80'",
        "json:x",
        "'0 3 * * *'",
        "50%",
        "all",
        "{tcp: x}",
        "{notify: null}",
        "{every: 1h}",
        "{signal: 9}",
    ];
    let mut samples: Vec<String> = Vec::new();
    keys::walk(&mut |path, _| {
        let beside = [
            ("instances.<name>", "command: x"),
            ("instances.<name>.watch", "paths: x"),
            ("instances.<name>.reload", "signal: HUP"),
            ("instances.<name>.watch.action", "run: x"),
            ("instances.<name>.max_age", "age: 1h"),
            ("sockets.<name>", "port: 80"),
        ];
        for value in values {
            let mut text = value.to_owned();
            let mut rest = path;
            while let Some((above, key)) = rest.rsplit_once('.').or(Some(("", rest))) {
                let (kept, own) = (above, if key == "<name>" { "web" } else { key });
                let more = beside
                    .iter()
                    .find(|(place, more)| *place == kept && !more.starts_with(&format!("{own}:")));
                let more = more.map_or(String::new(), |(_, more)| format!(", {more}"));
                let kind = match kept {
                    "instances.<name>.ready" | "instances.<name>.alive"
                        if ["interval", "timeout", "failures", "within", "diagnose"]
                            .contains(&own) =>
                    {
                        ", tcp: 'h:1'"
                    }
                    _ => "",
                };
                text = format!("{{{own}: {text}{more}{kind}}}");
                if above.is_empty() {
                    break;
                }
                rest = above;
            }
            samples.push(text);
        }
    });
    assert!(samples.len() > 3000, "{}", samples.len());
    let taken = samples.into_iter().filter(|sample| {
        let vars = "any: {command: x}";
        let mut project = Project::new(sample).file("vars.yml", vars);
        project.options.vars = Some(project.path("vars.yml"));
        project.load().is_ok()
    });
    let (samples, documents): (Vec<_>, Vec<_>) =
        taken.filter_map(|sample| document(&sample).map(|document| (sample, document))).unzip();
    assert!(samples.len() > 500, "{}", samples.len());
    let Some(verdicts) = judged(&documents) else { return };
    let tighter: Vec<_> =
        samples.iter().zip(verdicts).filter(|(_, verdict)| verdict.is_some()).collect();
    assert!(tighter.is_empty(), "{} of {}: {tighter:#?}", tighter.len(), samples.len());
}

#[test]
fn files_that_lie_over_others_are_valid_in_part() {
    let parts = [
        "instances: {web: {ready: {interval: 5s}, watch: {debounce: 1s}, max_age: {variance: 1h}}}",
        "instances: {web: null, db: {depends_on: null, numprocesses: null}}",
        "instances: $(var.all)",
        "sockets: {front: {host: 127.0.0.1}}",
        "defaults: {stop: {timeout: 5s}}",
        "x-own: [1, {a: b}]",
    ];
    let documents: Vec<_> = parts.iter().map(|part| document(part).unwrap()).collect();
    let Some(verdicts) = judged(&documents) else { return };
    for (part, verdict) in parts.iter().zip(verdicts) {
        assert_eq!(verdict, None, "{part}");
    }
}

#[test]
fn what_is_wrong_in_itself_is_refused() {
    let web = |keys: &str| format!("instances: {{web: {{command: x, {keys}}}}}");
    let wrong = [
        "instances: {'my web': {command: x}}".to_owned(),
        format!("instances: {{{}: {{command: x}}}}", "a".repeat(64)),
        "instances: {web: {comand: x}}".to_owned(),
        "instances: [web]".to_owned(),
        "logs: {keep_free: 200%}".to_owned(),
        "logs: {keep_free: 1.5}".to_owned(),
        "sockets: [{host: 127.0.0.1}]".to_owned(),
        web("stop: {signal: TREM}"),
        web("stop: {signal: 65}"),
        web("restart: {jitter: much}"),
        web("restart: {min_uptime: 10x}"),
        web("restart: sometimes"),
        web("ready: {tcp: 'h:1', http: 'http://h'}"),
        web("ready: heartbeets"),
        web("alive: {rpc: true, notify: true}"),
        web("kind: job, schedule: {cron: '0 3 * * *', every: 1h}"),
        web("numprocesses: -1"),
        web("depends_on: {'a b': {}}"),
        web("log: {level_from: xml}"),
        web("user: ''"),
    ];
    for text in &wrong {
        assert!(!is_valid(text), "the reader takes {text}");
    }
    let documents: Vec<_> = wrong.iter().map(|text| document(text).unwrap()).collect();
    let Some(verdicts) = judged(&documents) else { return };
    let passed: Vec<_> =
        wrong.iter().zip(verdicts).filter(|(_, verdict)| verdict.is_none()).collect();
    assert!(passed.is_empty(), "{passed:#?}");
}
