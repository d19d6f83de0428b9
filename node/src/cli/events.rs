//! `events`: what happened, from the log's files.

use serde_json::{Map, Value, json};

use super::exit::{CliError, ExitStatus, Outcome};
use super::lines;
use super::logs::{self, Tail, tail};
use super::output::{Stream as Output, Style, printable};
use super::session::Session;
use super::time;
use crate::log::account::{self, Why};
use crate::log::query::{Entry, Filter, Reader};
use crate::log::record::Stream;

/// The words of `events`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum events                    all that happened\n  \
    hilum events -f web             follow one service\n  \
    hilum events --since 1h --json | jq 'select(.event == \"exited\" and .crash)'")]
pub(crate) struct EventsArgs {
    /// Services, instances or globs; none = all
    #[arg(value_name = "TARGET", add = super::completions::targets())]
    targets: Vec<String>,
    /// Go on with what happens from now on
    #[arg(short, long)]
    follow: bool,
    /// Only the last N, or `all` [default: all, with -f 100]
    #[arg(short = 'n', long, value_name = "N|all", value_parser = tail)]
    tail: Option<Tail>,
    /// From here on: `10m` (ago), `14:30`, `2026-11-21T03:42:11Z`, Unix seconds as in --json
    #[arg(long, value_name = "T", value_parser = time::moment, allow_hyphen_values = true)]
    since: Option<f64>,
}

/// Runs `events`.
pub(crate) fn run(session: &Session, args: &EventsArgs) -> Outcome {
    let selection = lines::select(session, &args.targets)?;
    let filter = Filter {
        target: lines::target(&selection),
        streams: vec![Stream::Node],
        since: args.since.map(|seconds| (seconds.max(0.0) * 1e6) as u64),
        ..Filter::default()
    };
    let start = logs::beginning(args.tail, args.follow, args.since.is_some());
    let out = session.out;
    let show = move |entry: &Entry, stream: &mut Output| -> Result<(), CliError> {
        let dropped = dropped(entry);
        let Some(event) = entry.event().or(dropped.as_ref()) else {
            return Ok(()); // the node's own diagnostics are no events
        };
        if out.json {
            return stream.json(event);
        }
        let name = event.get("event").and_then(serde_json::Value::as_str).unwrap_or("?");
        let who = if &*entry.name == "*" { "hilum" } else { &entry.name };
        let text = String::from_utf8_lossy(&entry.text);
        let said = printable(&text);
        let style = match name {
            "failed" | "stuck" | "dependency-timeout" => Style::Bad,
            "ready" | "completed" | "started" => Style::Good,
            "stopped" | "stopping" | "scaled" | "reloaded" => Style::Dim,
            _ => Style::Warn,
        };
        stream.line(&format!(
            "{}  {who:<12}  {}  {said}",
            time::local(entry.at as f64 / 1e6),
            out.paint.paint(style, &format!("{name:<16}")),
        ))
    };
    if args.follow {
        return logs::follow(session, filter, start, &mut { show });
    }
    let mut stream = out.stream();
    let mut reader =
        Reader::open(&lines::dir(session)?, filter, start).map_err(lines::unreadable)?;
    let mut entry = Entry::default();
    while reader.read(&mut entry).map_err(lines::unreadable)? {
        show(&entry, &mut stream)?;
    }
    stream.flush()?;
    Ok(ExitStatus::Done)
}

/// A gap of the timeline is something that happened, too.
fn dropped(entry: &Entry) -> Option<Map<String, Value>> {
    let what = (Why::of_gap(&entry.text), entry.dropped?);
    let text = String::from_utf8_lossy(&entry.text);
    let mut event = account::event(entry.at, &entry.name, entry.run, entry.pid, what, &text);
    event.insert("service".to_owned(), json!(entry.service));
    Some(event)
}
