//! `logs`: the collected log, from its files.

use std::io::Write as _;
use std::os::fd::AsFd;
use std::time::Duration;

use hilum_shared::protocol::Level;
use regex::bytes::Regex;

use super::exit::{CliError, ExitStatus, Outcome};
use super::lines;
use super::output::{Stream as Output, reader_gone, written};
use super::session::Session;
use super::time;
use crate::log::console::{Console, to_json};
use crate::log::follow::{Followed, Follower};
use crate::log::query::{Entry, Filter, Reader, Start};
use crate::log::record::Stream;

/// With `-f`, so many records of the past are shown first.
pub(crate) const FOLLOWED: u64 = 100;

/// The words of `logs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum logs -f web                   follow one service, through restarts and scaling\n  \
    hilum logs -n 50 web.2 db           the last 50 records of two targets\n  \
    hilum logs --since 10m --level warning\n  \
    hilum logs --grep 'timeout|refused' -t\n  \
    hilum logs --stream node            what the node itself had to say\n  \
    hilum logs --json | jq 'select(.level == \"ERROR\")'\n\n\
    Works with the node down, too; -f then waits for it. The records lie in plain text files, see `hilum doctor`.")]
pub(crate) struct LogsArgs {
    /// Services, instances or globs; none = all. What the config has no more can still be read
    #[arg(value_name = "TARGET", add = super::completions::targets())]
    targets: Vec<String>,
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// Only the last N records, or `all` [default: all, with -f 100]
    #[arg(short = 'n', long, value_name = "N|all", value_parser = tail, allow_negative_numbers = true)]
    tail: Option<Tail>,
    /// From here on: `10m` (ago), `14:30`, `2026-11-21T03:42:11Z`
    #[arg(long, value_name = "T", value_parser = time::moment)]
    since: Option<f64>,
    /// Up to here
    #[arg(long, value_name = "T", value_parser = time::moment, conflicts_with = "follow")]
    until: Option<f64>,
    /// Only records that match this regular expression
    #[arg(long, value_name = "RE", value_parser = Regex::new)]
    grep: Option<Regex>,
    /// At least this grave: debug, info, warning, error, critical; unknown counts as info
    #[arg(long, value_name = "L", value_parser = level)]
    level: Option<Level>,
    /// Only these: out, err, log (structured), node (what the node did)
    #[arg(long, value_name = "S", value_delimiter = ',', value_parser = stream)]
    stream: Vec<Stream>,
    /// Without the names in front
    #[arg(long)]
    no_prefix: bool,
    /// With the local time in front
    #[arg(short = 't', long)]
    timestamps: bool,
}

/// `-n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    All,
    Last(u64),
}

pub(crate) fn tail(text: &str) -> Result<Tail, String> {
    if text == "all" {
        return Ok(Tail::All);
    }
    text.parse()
        .map(Tail::Last)
        .map_err(|_| format!("`{text}` is no count: write a number or `all`"))
}

fn level(text: &str) -> Result<Level, String> {
    Level::parse(text).ok_or_else(|| {
        format!("`{text}` is no level: write `debug`, `info`, `warning`, `error` or `critical`")
    })
}

fn stream(text: &str) -> Result<Stream, String> {
    Stream::parse(text)
        .ok_or_else(|| format!("`{text}` is no stream: write `out`, `err`, `log` or `node`"))
}

/// Runs `logs`.
pub(crate) fn run(session: &Session, args: &LogsArgs) -> Outcome {
    let selection = lines::select(session, &args.targets)?;
    let micros = |seconds: f64| (seconds.max(0.0) * 1e6) as u64;
    let filter = Filter {
        target: lines::target(&selection),
        streams: args.stream.clone(),
        since: args.since.map(micros),
        until: args.until.map(micros),
        grep: args.grep.clone(),
        level: args.level,
        ..Filter::default()
    };
    let start = beginning(args.tail, args.follow, args.since.is_some());
    let mut console = lines::console(session, !args.no_prefix, args.timestamps);
    let json = session.out.json;
    let mut show = |entry: &Entry, out: &mut Output| -> Result<(), CliError> {
        if json {
            return out.json(&to_json(entry));
        }
        print(&mut console, entry, out)
    };
    if args.follow {
        if session.node_pid()?.is_none() {
            session.out.note("no node is running; waiting for one");
        }
        return follow(session, filter, start, &mut show);
    }
    let mut out = session.out.stream();
    let mut reader =
        Reader::open(&lines::dir(session)?, filter, start).map_err(lines::unreadable)?;
    let mut entry = Entry::default();
    let mut any = false;
    while reader.read(&mut entry).map_err(lines::unreadable)? {
        any = true;
        show(&entry, &mut out)?;
    }
    out.flush()?;
    if !any {
        session.out.detail("no records");
    }
    Ok(ExitStatus::Done)
}

fn print(console: &mut Console, entry: &Entry, out: &mut Output) -> Result<(), CliError> {
    let mut text = Vec::with_capacity(entry.text.len() + 64);
    console.render(entry, &mut text);
    written(out.write_all(&text))
}

/// Where to begin with these options.
pub(crate) fn beginning(tail: Option<Tail>, follow: bool, since: bool) -> Start {
    match tail {
        Some(Tail::All) => Start::All,
        Some(Tail::Last(0)) if follow => Start::End,
        Some(Tail::Last(count)) => Start::Tail(count),
        None if follow && !since => Start::Tail(FOLLOWED),
        None => Start::All,
    }
}

/// Shows what comes, until the reader goes away or a signal ends us.
pub(crate) fn follow(
    session: &Session,
    filter: Filter,
    start: Start,
    show: &mut dyn FnMut(&Entry, &mut Output) -> Result<(), CliError>,
) -> Outcome {
    let mut follower =
        Follower::open(&lines::dir(session)?, filter, start).map_err(lines::unreadable)?;
    let stdout = std::io::stdout();
    // a pipe whose reader left wakes us; a terminal would wake us at each key
    let wake = super::output::stdout_is_pipe().then(|| stdout.as_fd());
    let mut entry = Entry::default();
    let mut out = session.out.stream();
    loop {
        let mut came = follower.next(&mut entry, Some(Duration::ZERO), None);
        if matches!(came, Ok(Followed::Quiet)) {
            out.flush()?;
            came = follower.next(&mut entry, None, wake);
        }
        match came.map_err(lines::unreadable)? {
            Followed::Record => show(&entry, &mut out)?,
            Followed::Quiet if reader_gone() => return Ok(ExitStatus::Done),
            Followed::Quiet => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn following_begins_near_the_end_and_reading_at_the_beginning() {
        assert_eq!(beginning(None, false, false), Start::All);
        assert_eq!(beginning(None, true, false), Start::Tail(100));
        assert_eq!(beginning(None, true, true), Start::All);
        assert_eq!(beginning(Some(Tail::All), true, false), Start::All);
        assert_eq!(beginning(Some(Tail::Last(0)), true, false), Start::End);
        assert_eq!(beginning(Some(Tail::Last(7)), false, true), Start::Tail(7));
    }

    #[test]
    fn options_are_checked_before_anything_is_read() {
        assert_eq!(tail("all"), Ok(Tail::All));
        assert_eq!(tail("5"), Ok(Tail::Last(5)));
        assert!(tail("-5").is_err() && tail("x").is_err());
        assert_eq!(level("warn"), Ok(Level::Warning));
        assert!(level("loud").unwrap_err().contains("`critical`"));
        assert!(stream("stdout").is_err());
        assert_eq!(stream("err"), Ok(Stream::Err));
    }
}
