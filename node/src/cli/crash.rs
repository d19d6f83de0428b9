//! `crash`: the dossier of each abnormal end.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::exit::{CliError, ExitStatus, Outcome};
use super::lines;
use super::output::{Style, printable};
use super::session::Session;
use super::table::{Align, Table};
use super::target::{Names, Selection};
use super::time;
use crate::log::console::to_json;
use crate::log::crashes::{self, Crash};
use crate::log::query::Entry;

/// The words of `crash`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum crash                   all that are kept\n  \
    hilum crash show web          the latest of a target\n  \
    hilum crash show 17           one of them\n  \
    hilum crash export 17         write it to crash-17.json, to hand it on")]
pub(crate) struct CrashArgs {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show all that are kept
    Ls {
        /// Services, instances or globs; none = all
        #[arg(value_name = "TARGET", add = super::completions::targets())]
        targets: Vec<String>,
    },
    /// Show one: its exit, last lines, and what is known of it
    Show {
        /// Its number, or a TARGET for its latest
        #[arg(value_name = "ID|TARGET", add = super::completions::targets())]
        which: String,
    },
    /// Write one to a file
    Export {
        /// Its number, or a TARGET for its latest
        #[arg(value_name = "ID|TARGET", add = super::completions::targets())]
        which: String,
        /// The file; `-` is stdout [default: crash-ID.json]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Runs `crash`.
pub(crate) fn run(session: &Session, args: &CrashArgs) -> Outcome {
    match &args.what {
        None => list(session, list_all(session)?, &[]),
        Some(What::Ls { targets }) => list(session, list_all(session)?, targets),
        Some(What::Show { which }) => {
            let crash = pick(session, which)?;
            show(session, &crash, &last_lines(session, &crash)?)
        }
        Some(What::Export { which, output }) => {
            let crash = pick(session, which)?;
            export(session, &crash, &last_lines(session, &crash)?, output.clone())
        }
    }
}

/// Checks targets, with the names of those that crashed among the known.
fn select(session: &Session, all: &[Crash], targets: &[String]) -> Result<Selection, CliError> {
    if targets.is_empty() {
        return Ok(Selection::default());
    }
    let mut crashed = Names::default();
    for id in all.iter().filter_map(Crash::instance) {
        crashed.add_instance(&id);
    }
    crashed.check(targets).or_else(|_| lines::select(session, targets))
}

fn list(session: &Session, all: Vec<Crash>, targets: &[String]) -> Outcome {
    let selection = select(session, &all, targets)?;
    let wanted: Vec<Crash> = all
        .into_iter()
        .filter(|crash| crash.instance().is_some_and(|id| selection.instance(&id)))
        .collect();
    if session.out.json {
        let facts: Vec<&Map<String, Value>> = wanted.iter().map(|crash| &crash.facts).collect();
        session.out.json(&json!({ "crashes": facts }))?;
        return Ok(ExitStatus::Done);
    }
    if wanted.is_empty() {
        session.out.note("nothing has crashed");
        return Ok(ExitStatus::Done);
    }
    let mut table = Table::new(&[
        ("ID", Align::Right),
        ("TIME", Align::Left),
        ("INSTANCE", Align::Left),
        ("RUN", Align::Right),
        ("UPTIME", Align::Right),
        ("EXIT", Align::Left),
    ]);
    for crash in &wanted {
        let facts = &crash.facts;
        table.row(vec![
            crash.id.to_string().into(),
            number(facts, "at").map_or_else(|| "-".into(), time::local).into(),
            crash.instance().map_or_else(|| "-".into(), |id| id.to_string()).into(),
            crash.run().map_or_else(|| "-".into(), |run| run.to_string()).into(),
            number(facts, "uptime").map_or_else(|| "-".into(), time::seconds).into(),
            decoded(facts).into(),
        ]);
    }
    session.out.text(&table.render(session.out.paint))?;
    session.out.note("`hilum crash show ID` shows one");
    Ok(ExitStatus::Done)
}

/// The crash with this number, or the latest of a target, or, for an empty text, of all.
///
/// # Errors
/// When there is none.
pub(crate) fn pick(session: &Session, which: &str) -> Result<Crash, CliError> {
    let all = list_all(session)?;
    if let Ok(id) = which.parse::<u64>() {
        let newest = all.last().map(|crash| crash.id);
        return all.into_iter().find(|crash| crash.id == id).ok_or_else(|| CliError::Usage {
            message: format!("no crash {id} is kept"),
            help: newest.map(|newest| format!("the latest is {newest}; `hilum crash` shows all")),
        });
    }
    let targets = if which.is_empty() { Vec::new() } else { vec![which.to_owned()] };
    let selection = select(session, &all, &targets)?;
    let latest = all
        .into_iter()
        .rev()
        .find(|crash| crash.instance().is_some_and(|id| selection.instance(&id)));
    latest.ok_or_else(|| CliError::Failed {
        message: match which {
            "" => "nothing has crashed".into(),
            which => format!("`{which}` has not crashed"),
        },
        help: Some("`hilum crash` shows what has".into()),
    })
}

fn list_all(session: &Session) -> Result<Vec<Crash>, CliError> {
    let dir = lines::dir(session)?;
    crashes::list(&dir).map_err(|source| CliError::File {
        doing: "cannot read the crashes in",
        path: dir,
        source,
    })
}

fn last_lines(session: &Session, crash: &Crash) -> Result<Vec<Entry>, CliError> {
    crashes::last_lines(&lines::dir(session)?, crash).map_err(lines::unreadable)
}

/// `crash 5 of web.1: exit 3`
pub(crate) fn title(crash: &Crash) -> String {
    let who = crash.instance().map_or_else(|| "?".into(), |id| id.to_string());
    format!("crash {} of {who}: {}", crash.id, decoded(&crash.facts))
}

fn dossier(crash: &Crash, last: &[Entry]) -> Value {
    let mut facts = crash.facts.clone();
    facts.insert("last_lines".into(), last.iter().map(to_json).collect());
    Value::Object(facts)
}

fn show(session: &Session, crash: &Crash, last: &[Entry]) -> Outcome {
    let out = session.out;
    if out.json {
        out.json(&dossier(crash, last))?;
        return Ok(ExitStatus::Done);
    }
    out.line(&out.paint.paint(Style::Bold, &title(crash)))?;
    for (key, value) in &crash.facts {
        if matches!(
            key.as_str(),
            "id" | "instance"
                | "exit"
                | "code"
                | "signal"
                | "seq"
                | "service"
                | "crash"
                | "event"
                | "text"
        ) {
            continue;
        }
        let text = match (key.as_str(), value) {
            (_, Value::Null) => continue,
            (_, Value::Object(map)) if map.is_empty() => continue,
            ("dependencies", Value::Object(services)) => dependencies(services),
            ("command", Value::Array(words)) => command(words),
            ("cpu_seconds", Value::Number(seconds)) => {
                time::seconds(seconds.as_f64().unwrap_or_default())
            }
            ("at", Value::Number(at)) => time::local(at.as_f64().unwrap_or_default()),
            ("uptime", Value::Number(seconds)) => {
                time::seconds(seconds.as_f64().unwrap_or_default())
            }
            (_, Value::Number(bytes)) if key.contains("rss") || key.ends_with("_bytes") => {
                hilum_shared::units::format_size(hilum_shared::units::Bytes(
                    bytes.as_u64().unwrap_or_default(),
                ))
            }
            (_, Value::String(text)) => text.clone(),
            (_, other) => other.to_string(),
        };
        out.line(&format!("  {:<14} {}", format!("{}:", key.replace('_', " ")), printable(&text)))?;
    }
    if last.is_empty() {
        out.line("  it wrote nothing")?;
        return Ok(ExitStatus::Done);
    }
    out.line(&format!("  last {} records:", last.len()))?;
    let mut console = lines::console(session, false, true);
    let mut text = Vec::new();
    for entry in last {
        console.render(entry, &mut text);
    }
    out.text(&String::from_utf8_lossy(&text))?;
    Ok(ExitStatus::Done)
}

/// `db.1 running, db.2 backoff`
fn dependencies(services: &serde_json::Map<String, Value>) -> String {
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

fn export(session: &Session, crash: &Crash, last: &[Entry], output: Option<PathBuf>) -> Outcome {
    let path = output.unwrap_or_else(|| format!("crash-{}.json", crash.id).into());
    let dossier = dossier(crash, last);
    if path.as_os_str() == "-" {
        session.out.json(&dossier)?;
        return Ok(ExitStatus::Done);
    }
    let text = format!("{dossier:#}\n");
    fs::write(&path, text).map_err(|source| CliError::File {
        doing: "cannot write",
        path: path.clone(),
        source,
    })?;
    if session.out.json {
        session.out.json(&json!({ "file": path }))?;
    } else {
        session.out.note(&format!("wrote {}", path.display()));
    }
    Ok(ExitStatus::Done)
}

fn number(facts: &Map<String, Value>, key: &str) -> Option<f64> {
    facts.get(key)?.as_f64()
}

/// The exit in words: what it is called, and what that usually means.
fn decoded(facts: &Map<String, Value>) -> String {
    let exit = match facts.get("exit") {
        Some(Value::Object(exit)) => exit,
        Some(Value::String(text)) => return printable(text).into_owned(),
        _ => facts,
    };
    let core = exit.get("core").and_then(Value::as_bool).unwrap_or(false);
    if let Some(signal) = exit.get("signal").and_then(Value::as_str) {
        let mut text = format!("killed by {signal}");
        if let Some(meaning) = meaning(signal) {
            let _ = write!(text, " ({meaning})"); // a String takes all
        }
        if core {
            text.push_str(", core dumped");
        }
        return text;
    }
    match exit.get("code").and_then(Value::as_i64) {
        Some(code @ 129..=192) => {
            let signal =
                i32::try_from(code - 128).ok().and_then(hilum_shared::signal::Signal::from_number);
            let name = signal.map(hilum_shared::signal::Signal::name).unwrap_or_default();
            format!("exit {code} (a shell says so of a child killed by {name})")
        }
        Some(126) => "exit 126 (a shell could not execute the program)".into(),
        Some(127) => "exit 127 (a shell did not find the program)".into(),
        Some(code) => format!("exit {code}"),
        None => "unknown".into(),
    }
}

fn meaning(signal: &str) -> Option<&'static str> {
    Some(match signal {
        "SEGV" => "touched memory that is not its own",
        "ABRT" => "gave up by itself: an assertion, a panic with abort, or libc found damage",
        "BUS" => "memory that is not there, often a file cut short while mapped",
        "ILL" => "an instruction that this processor does not have",
        "FPE" => "an arithmetic error, such as a division by zero",
        "KILL" => "somebody, or the kernel when memory ran out",
        "PIPE" => "wrote to a pipe whose reader had left",
        "XCPU" => "used up its CPU time limit",
        "XFSZ" => "wrote past its file size limit",
        "SYS" => "a system call that it may not make",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(facts: Value) -> String {
        match facts {
            Value::Object(facts) => decoded(&facts),
            _ => unreachable!("the tests write objects"),
        }
    }

    #[test]
    fn an_exit_is_told_in_words() {
        assert_eq!(text(json!({"exit": {"code": 1, "signal": null}})), "exit 1");
        assert_eq!(text(json!({"code": 1})), "exit 1");
        assert_eq!(text(json!({"exit": "killed by TERM"})), "killed by TERM");
        assert_eq!(
            text(json!({"exit": {"code": null, "signal": "SEGV", "core": true}})),
            "killed by SEGV (touched memory that is not its own), core dumped"
        );
        assert_eq!(
            text(json!({"exit": {"code": 143, "signal": null}})),
            "exit 143 (a shell says so of a child killed by TERM)"
        );
        assert_eq!(text(json!({})), "unknown");
    }
}
