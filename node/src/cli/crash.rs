//! `crash`: the dossier of each abnormal end.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::exit::{CliError, ExitStatus, Outcome};
use super::lines;
use super::session::Session;
use super::table::{Align, Table};
use super::target::{Names, Selection};
use super::time;
use crate::log::crashes::{self, Crash};
use crate::log::expr::Expr;
use crate::log::json::to_json;
use crate::log::query::{Filter, Reader, Start};
use crate::log::record::Stream;

mod show;

/// The words of `crash`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum crash                   all that are kept\n  \
    hilum crash show web          the latest of a target\n  \
    hilum crash show 17           one of them\n  \
    hilum crash export 17         write it to crash-17.json, to hand it on\n  \
    hilum crash show ./crash-17.json   read it, wherever it came to\n  \
    hilum logs --around-crash 17  what all wrote around it")]
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
        /// Its number, a TARGET for its latest, or a file that `export` wrote, here or elsewhere
        #[arg(value_name = "ID|TARGET|FILE", add = super::completions::targets())]
        which: String,
    },
    /// Write one to a file that says all by itself: facts, last lines, what all wrote around it
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
        Some(What::Show { which }) if is_file(which) => show::file(session, Path::new(which)),
        Some(What::Show { which }) => {
            let crash = pick(session, which)?;
            show::show(session, &dossier(session, &crash)?)
        }
        Some(What::Export { which, output }) => {
            export(session, &pick(session, which)?, output.clone())
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
            show::decoded(facts).into(),
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
    if let Some(latest) = latest {
        return Ok(latest);
    }
    let mut message = match which {
        "" => "nothing has crashed".into(),
        which => format!("`{which}` has not crashed"),
    };
    if let Some((instance, why)) = never_ran(session, &selection)? {
        let _ = write!(message, ", but {instance} could not be started: {why}"); // a String takes all
    }
    Err(CliError::Failed { message, help: Some("`hilum crash` shows what has".into()) })
}

/// Of these, who failed last before it was a process, and why: there is no dossier of a program that was not found.
fn never_ran(
    session: &Session,
    selection: &Selection,
) -> Result<Option<(String, String)>, CliError> {
    let question = "event=\"failed\" || event=\"spawn-failed\" || event=\"started\"";
    let filter = Filter {
        target: lines::target(selection),
        streams: vec![Stream::Node],
        expr: Expr::parse(question).ok().map(Arc::new),
        ..Filter::default()
    };
    let dir = lines::dir(session)?;
    let reader = Reader::open(&dir, filter, Start::Tail(1)).map_err(lines::unreadable)?;
    for entry in reader {
        let entry = entry.map_err(lines::unreadable)?;
        let Some(event) = entry.event() else { continue };
        let text = |key: &str| event.get(key).and_then(Value::as_str);
        if text("event") == Some("started") {
            continue;
        }
        if let (Some(instance), Some(why)) = (text("instance"), text("text")) {
            let why = why.trim_start_matches("failed: ").trim_start_matches("cannot start: ");
            return Ok(Some((instance.to_owned(), why.to_owned())));
        }
    }
    Ok(None)
}

fn list_all(session: &Session) -> Result<Vec<Crash>, CliError> {
    let dir = lines::dir(session)?;
    crashes::list(&dir).map_err(|source| CliError::File {
        doing: "cannot read the crashes in",
        path: dir,
        source,
    })
}

/// `crash 5 of web.1: exit 3`
pub(crate) fn title(crash: &Crash) -> String {
    show::title(&crash.facts)
}

/// Whether it names an exported file and not something of this project.
fn is_file(which: &str) -> bool {
    let path = Path::new(which);
    let named = which.contains('/') || path.extension().is_some_and(|end| end == "json");
    named && path.is_file()
}

/// The facts, with the last lines.
fn dossier(session: &Session, crash: &Crash) -> Result<Map<String, Value>, CliError> {
    let mut facts = crash.facts.clone();
    let last = crashes::last_lines(&lines::dir(session)?, crash).map_err(lines::unreadable)?;
    facts.insert("last_lines".into(), last.iter().map(to_json).collect());
    Ok(facts)
}

/// What all wrote from a while before the end to a while after it.
fn timeline(session: &Session, crash: &Crash) -> Result<Value, CliError> {
    let at = number(&crash.facts, "at").unwrap_or_default();
    let micros = |seconds: f64| (seconds.max(0.0) * 1e6) as u64;
    let filter = Filter {
        since: Some(micros(at - AROUND)),
        until: Some(micros(at + AROUND)),
        ..Filter::default()
    };
    let dir = lines::dir(session)?;
    let reader = Reader::open(&dir, filter, Start::Tail(MOST_AROUND)).map_err(lines::unreadable)?;
    reader
        .map(|entry| entry.map(|entry| Value::Object(to_json(&entry))))
        .collect::<Result<_, _>>()
        .map_err(lines::unreadable)
}

/// An exported timeline goes so many seconds in both directions.
const AROUND: f64 = 10.0;
/// And has at most so many records: a flood would make a file that nobody opens.
const MOST_AROUND: u64 = 10_000;

fn export(session: &Session, crash: &Crash, output: Option<PathBuf>) -> Outcome {
    let path = output.unwrap_or_else(|| format!("crash-{}.json", crash.id).into());
    let mut dossier = dossier(session, crash)?;
    dossier.insert("timeline".into(), timeline(session, crash)?);
    dossier.insert("hilum".into(), json!(env!("CARGO_PKG_VERSION")));
    let dossier = Value::Object(dossier);
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
