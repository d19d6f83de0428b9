//! A dossier for people.

use std::fmt::Write as _;
use std::path::Path;

use hilum_shared::units::{Bytes, format_size};
use serde_json::{Map, Value};

use super::super::exit::{CliError, ExitStatus, Outcome};
use super::super::lines;
use super::super::output::{Style, printable};
use super::super::session::Session;
use super::super::time;
use super::number;
use crate::log::console::Console;
use crate::log::json::from_json;

/// Shows an exported dossier.
pub(super) fn file(session: &Session, path: &Path) -> Outcome {
    let failed = |source| CliError::File { doing: "cannot read", path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(facts)) if facts.contains_key("last_lines") => show(session, &facts),
        _ => Err(CliError::usage(
            format!("`{}` is no exported crash", path.display()),
            "`hilum crash export ID` writes one",
        )),
    }
}

/// Shows a dossier.
pub(super) fn show(session: &Session, facts: &Map<String, Value>) -> Outcome {
    let out = session.out;
    if out.json {
        out.json(&facts)?;
        return Ok(ExitStatus::Done);
    }
    out.line(&out.paint.paint(Style::Bold, &printable(&title(facts))))?;
    out.text(&render(facts))?;
    let last = facts.get("last_lines").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut text = Vec::new();
    records(&mut lines::console(session, false, true), last, &mut text);
    out.text(&String::from_utf8_lossy(&text))?;
    Ok(ExitStatus::Done)
}

fn records(console: &mut Console, last: &[Value], text: &mut Vec<u8>) {
    let heading = match last.len() {
        0 => "it wrote nothing".to_owned(),
        count => format!("last {count} records:"),
    };
    text.extend_from_slice(format!("  {heading}\n").as_bytes());
    for entry in last.iter().filter_map(Value::as_object) {
        console.render(&from_json(entry), text);
    }
}

/// `crash 5 of web.1: exit 3`
pub(super) fn title(facts: &Map<String, Value>) -> String {
    let text = |key| facts.get(key).and_then(Value::as_str);
    let id = facts.get("id").and_then(Value::as_u64).unwrap_or_default();
    format!("crash {id} of {}: {}", text("instance").unwrap_or("?"), decoded(facts))
}

/// All facts but the title's, a line each.
fn render(facts: &Map<String, Value>) -> String {
    let mut out = String::new();
    let mut say = |name: &str, text: Option<String>| {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            let _ = writeln!(out, "  {:<14} {}", format!("{name}:"), printable(&text)); // a String takes all
        }
    };
    let text = |key: &str| facts.get(key).and_then(Value::as_str).map(str::to_owned);
    let whole = |key: &str| facts.get(key).and_then(Value::as_u64);
    let map = |key: &str| facts.get(key).and_then(Value::as_object);
    say("at", number(facts, "at").map(time::local));
    let pid = whole("pid").map_or(String::new(), |pid| format!(", pid {pid}"));
    say("run", whole("run").map(|run| format!("{run}{pid}")));
    say("uptime", number(facts, "uptime").map(time::seconds));
    say("restarts", whole("restarts").map(|count| count.to_string()));
    say("status", text("info"));
    say("command", facts.get("command").and_then(Value::as_array).map(|words| command(words)));
    say("ports", map("ports").map(|ports| pairs(ports, " ")));
    say("peak memory", peak_memory(whole));
    say("cpu", number(facts, "cpu_seconds").map(time::seconds));
    say("dependencies", map("dependencies").map(dependencies));
    say("config hash", text("config_hash"));
    let given = map("environment").into_iter().flatten().filter(|(name, _)| !is_ours(name));
    for (number, (name, value)) in given.enumerate() {
        let value = value.as_str().unwrap_or_default();
        say(if number == 0 { "environment" } else { "" }, Some(format!("{name}={value}")));
    }
    out.replace("  :              ", "                 ")
}

/// `34M` where it is known; `at least 3M, under 20M` where the run had less than the node, which hides it, and what was seen now and
/// then is no peak. Several processes may have more in sum than the bound of each.
fn peak_memory(whole: impl Fn(&str) -> Option<u64>) -> Option<String> {
    let size = |bytes| format_size(Bytes(bytes));
    if let Some(peak) = whole("peak_rss_bytes") {
        return Some(size(peak));
    }
    match (whole("peak_rss_at_least_bytes").filter(|seen| *seen > 0), whole("peak_rss_below_bytes"))
    {
        (Some(seen), Some(below)) if seen < below => {
            Some(format!("at least {}, under {}", size(seen), size(below)))
        }
        (Some(seen), _) => Some(format!("at least {}", size(seen))),
        (None, below) => Some(format!("under {}", size(below?))),
    }
}

/// What the node sets for every instance says nothing of this one; `--json` has it.
fn is_ours(name: &str) -> bool {
    ["HILUM_", "LYMPH_", "LISTEN_", "WATCHDOG_"].iter().any(|prefix| name.starts_with(prefix))
        || matches!(name, "NOTIFY_SOCKET" | "PYTHONUNBUFFERED")
}

fn pairs(map: &Map<String, Value>, between: &str) -> String {
    let all: Vec<String> =
        map.iter().map(|(name, value)| format!("{name}{between}{value}")).collect();
    all.join(", ")
}

/// `db.1 running, db.2 backoff`
fn dependencies(services: &Map<String, Value>) -> String {
    let states = services.values().filter_map(Value::as_array).flatten().filter_map(|one| {
        let state = one["state"].as_str()?;
        let ready = if one["ready"] == Value::Bool(false) && state == "running" {
            ", not ready"
        } else {
            ""
        };
        Some(format!("{} {state}{ready}", one["instance"].as_str()?))
    });
    states.collect::<Vec<_>>().join(", ")
}

/// As a shell would read it.
fn command(words: &[Value]) -> String {
    let quoted = words.iter().filter_map(Value::as_str).map(|word| {
        let plain = !word.is_empty()
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c));
        if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// The exit in words: what it is called, and why, as far as that is known.
pub(super) fn decoded(facts: &Map<String, Value>) -> String {
    let exit = match facts.get("exit") {
        Some(Value::Object(exit)) => exit,
        Some(Value::String(text)) => return printable(text).into_owned(),
        _ => facts,
    };
    let signal = exit.get("signal").and_then(Value::as_str);
    let code = exit.get("code").and_then(Value::as_i64);
    let (what, usually) = match (signal, code) {
        (Some(signal), _) => (format!("killed by {signal}"), of_signal(signal)),
        (None, Some(code)) => (format!("exit {code}"), of_code(code)),
        (None, None) => ("unknown".into(), None),
    };
    let known =
        facts.get("cause").and_then(Value::as_str).map(|cause| printable(cause).into_owned());
    let why = known
        .or_else(|| of_memory(facts.get("oom")?))
        .or_else(|| of_cpu(facts.get("cpu_limit_seconds")?))
        .or(usually);
    let core = exit.get("core").and_then(Value::as_bool).unwrap_or(false);
    let mut text = what;
    if let Some(why) = why {
        let _ = write!(text, " ({why})"); // a String takes all
    }
    if core {
        text.push_str(", core dumped");
    }
    text
}

/// What is known of the kernel's part.
fn of_memory(oom: &Value) -> Option<String> {
    let kills = oom["kills"].as_u64().unwrap_or(1);
    let processes = if kills == 1 { "a process".into() } else { format!("{kills} processes") };
    Some(match oom["by"].as_str()? {
        "cgroup" => {
            format!("out of memory: the kernel killed {processes} of its control group")
        }
        "kernel" => "out of memory: the kernel killed it".into(),
        _ => format!(
            "likely out of memory: the kernel killed {processes} of this machine about then"
        ),
    })
}

fn of_cpu(limit: &Value) -> Option<String> {
    Some(format!("its CPU time came to `limits.cpu`, {}s", limit.as_u64()?))
}

fn of_code(code: i64) -> Option<String> {
    Some(match code {
        101 => "a panic, if it is a Rust program".into(),
        126 => "a shell could not execute the program".into(),
        127 => "a shell did not find the program".into(),
        129..=192 => {
            let number = i32::try_from(code - 128).ok()?;
            let name = hilum_shared::signal::Signal::from_number(number)?.name();
            format!("a shell says so of a child killed by {name}")
        }
        _ => return None,
    })
}

fn of_signal(signal: &str) -> Option<String> {
    let usual = match signal {
        "SEGV" => "touched memory that is not its own",
        "ABRT" => "gave up by itself: an assertion, a panic with abort, or libc found damage",
        "BUS" => "memory that is not there, often a file cut short while mapped",
        "ILL" => "an instruction that this processor does not have",
        "FPE" => "an arithmetic error, such as a division by zero",
        "KILL" => "by somebody: not by the node, and nothing says by the kernel",
        "TERM" | "INT" | "HUP" | "QUIT" => "by somebody: not by the node",
        "PIPE" => "wrote to a pipe whose reader had left",
        "XCPU" => "used up its CPU time limit",
        "XFSZ" => "wrote past its file size limit",
        "SYS" => "a system call that it may not make",
        "TRAP" => "a breakpoint, or a check that the compiler put in",
        _ => return None,
    };
    Some(usual.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::console::Look;
    use serde_json::json;

    fn facts(value: &Value) -> &Map<String, Value> {
        value.as_object().unwrap()
    }

    #[test]
    fn an_exit_is_told_in_words() {
        let text = |value: Value| decoded(facts(&value));
        assert_eq!(text(json!({"code": 1, "signal": null})), "exit 1");
        assert_eq!(text(json!({"exit": "killed by TERM"})), "killed by TERM");
        assert_eq!(
            text(json!({"code": null, "signal": "SEGV", "core": true})),
            "killed by SEGV (touched memory that is not its own), core dumped"
        );
        assert_eq!(
            text(json!({"code": 143})),
            "exit 143 (a shell says so of a child killed by TERM)"
        );
        assert_eq!(text(json!({})), "unknown");
    }

    #[test]
    fn what_the_node_knows_goes_before_what_is_usual() {
        let text = |value: Value| decoded(facts(&value));
        let silent = "heartbeat lost: silent for 5s";
        assert_eq!(
            text(json!({"signal": "KILL", "cause": silent, "oom": {"by": "machine"}})),
            format!("killed by KILL ({silent})")
        );
        assert_eq!(text(json!({"code": 0, "cause": "too big"})), "exit 0 (too big)");
        let oom = |by: &str| text(json!({"signal": "KILL", "oom": {"by": by, "kills": 2}}));
        assert_eq!(
            oom("cgroup"),
            "killed by KILL (out of memory: the kernel killed 2 processes of its control group)"
        );
        assert_eq!(oom("kernel"), "killed by KILL (out of memory: the kernel killed it)");
        assert!(oom("machine").contains("likely"));
        assert_eq!(
            text(json!({"signal": "XCPU", "cpu_limit_seconds": 1})),
            "killed by XCPU (its CPU time came to `limits.cpu`, 1s)"
        );
        assert!(text(json!({"signal": "KILL"})).contains("not by the node"));
    }

    #[test]
    fn a_peak_that_is_not_known_is_not_told_as_one() {
        let shown = |facts: Value| {
            peak_memory(|key| facts.get(key).and_then(Value::as_u64)).unwrap_or_default()
        };
        let mib = |count: u64| count << 20;
        assert_eq!(shown(json!({"peak_rss_bytes": mib(34)})), "34.0 MiB");
        assert_eq!(
            shown(
                json!({"peak_rss_bytes": null, "peak_rss_at_least_bytes": mib(3), "peak_rss_below_bytes": mib(20)})
            ),
            "at least 3.0 MiB, under 20.0 MiB"
        );
        assert_eq!(
            shown(json!({"peak_rss_at_least_bytes": mib(30), "peak_rss_below_bytes": mib(20)})),
            "at least 30.0 MiB"
        );
        assert_eq!(
            shown(json!({"peak_rss_at_least_bytes": null, "peak_rss_below_bytes": mib(20)})),
            "under 20.0 MiB"
        );
        assert_eq!(shown(json!({})), "");
    }

    #[test]
    fn a_dossier_reads_as_a_page() {
        let dossier = json!({
            "id": 5, "at": 1_795_232_531.5, "instance": "web.2", "run": 3, "pid": 42, "text": "left out",
            "code": null, "signal": "KILL", "core": false, "uptime": 12.5, "crash": true,
            "cause": "heartbeat lost: silent for 5s", "restarts": 2, "info": "busy\u{1b}[2J",
            "command": ["./web", "--name", "it's"], "ports": {"http": 8080}, "peak_rss_bytes": 1_048_576,
            "cpu_seconds": 0.25, "config_hash": "0123", "reason": "left out",
            "dependencies": {"db": [{"instance": "db.1", "state": "running", "ready": false}]},
            "environment": {"HILUM_RUN": "3", "MODE": "test", "DB_PASSWORD": "********"},
            "last_lines": [],
        });
        let shown = format!("{}\n{}", title(facts(&dossier)), render(facts(&dossier)));
        let at = time::local(1_795_232_531.5);
        insta::assert_snapshot!(shown.replace(&at, "[TIME]"));
    }

    #[test]
    fn last_lines_come_back_from_json() {
        let mut text = Vec::new();
        let look = Look { prefix: true, ..Look::default() };
        let line = json!({"seq": 1, "at": 1.5, "service": "web", "instance": "web.1", "run": 1, "pid": 2, "stream": "err", "level": "ERROR", "line": "no\n  more", "partial": true, "fields": null});
        records(&mut Console::new(look), &[line], &mut text);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "  last 1 records:\nweb.1!| no\nweb.1!|   more ⏎̸\n"
        );
    }
}
