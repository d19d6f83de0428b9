//! `logs`: the collected log, from its files.

use std::io::Write as _;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hilum_shared::name::InstanceId;
use hilum_shared::protocol::Level;
use regex::bytes::Regex;

use super::exit::{CliError, ExitStatus, Outcome};
use super::lines;
use super::output::{Stream as Output, reader_gone, written};
use super::pager::Pager;
use super::session::Session;
use super::time;
use crate::log::by_time::ByTime;
use crate::log::context::{Context, Part};
use crate::log::expr::Expr;
use crate::log::follow::{Followed, Follower};
use crate::log::gaps::Gaps;
use crate::log::json::to_json;
use crate::log::query::{Entry, Filter, Reader, Start};
use crate::log::record::Stream;

mod stats;

/// With `-f`, so many records of the past are shown first.
pub(crate) const FOLLOWED: u64 = 100;

/// The words of `logs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum logs -f web                   follow one service, through restarts and scaling\n  \
    hilum logs -n 50 web.2 db           the last 50 records of two targets\n  \
    hilum logs --since 10m --level warning --context 3\n  \
    hilum logs --grep 'timeout|refused' -t\n  \
    hilum logs --where 'level>=warn && status=500 && path~\"^/api\"'\n  \
    hilum logs --trace 4bf92f3577b34da6a3ce929d0e0e4736   one request through all services\n  \
    hilum logs --around-crash web       all services, 10s before and after its last crash\n  \
    hilum logs --stats --since 1h       how much, by whom, when\n  \
    hilum logs -o raw web.1 > web.out   its output as it was, byte by byte\n  \
    hilum logs --stream node            what the node itself had to say\n  \
    hilum logs --json | jq 'select(.level == \"ERROR\")'\n\n\
    --where asks for level, instance, service, stream, run, pid, seq, at, logger, message, line, and for any field of structured \
    records, JSON lines and logfmt, with = != < <= > >= ~ !~ && || ! ( ).\n\
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
    /// From here on: `10m` (ago), `14:30`, `2026-11-21T03:42:11Z`, Unix seconds as in --json
    #[arg(long, value_name = "T", value_parser = time::moment, allow_hyphen_values = true)]
    since: Option<f64>,
    /// Up to here; -f then ends at that time
    #[arg(long, value_name = "T", value_parser = time::moment, allow_hyphen_values = true)]
    until: Option<f64>,
    /// Only records that match this regular expression
    #[arg(long, value_name = "RE", value_parser = regex)]
    grep: Option<Regex>,
    /// Only records that answer yes: `level>=warn && status=500`
    #[arg(long = "where", value_name = "EXPR", value_parser = Expr::parse)]
    question: Vec<Expr>,
    /// Only records of the trace with exactly this id, of all services
    #[arg(long, value_name = "ID")]
    trace: Option<String>,
    /// At least this grave: debug, info, warning, error, critical; unknown counts as info
    #[arg(long, value_name = "L", value_parser = level, add = super::completions::levels())]
    level: Option<Level>,
    /// Only these: out, err, log (structured), node (what the node did)
    #[arg(
        long,
        value_name = "S",
        value_delimiter = ',',
        value_parser = stream,
        add = super::completions::streams()
    )]
    stream: Vec<Stream>,
    /// N more records before and after each that --grep, --where, --trace or --level finds
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// What all wrote around a crash: its number, a TARGET for its latest, or nothing for the latest of all
    #[arg(
        long,
        value_name = "ID|TARGET",
        num_args = 0..=1,
        default_missing_value = "",
        conflicts_with_all = ["follow", "since", "until"],
        add = super::completions::targets()
    )]
    around_crash: Option<String>,
    /// So long before and after the crash
    #[arg(long, value_name = "T", value_parser = time::duration, default_value = "10s", requires = "around_crash")]
    within: Duration,
    /// Count lines and bytes by instance and level, and draw them over time
    #[arg(long, conflicts_with_all = ["follow", "context", "output"])]
    stats: bool,
    /// text; json (as --json); raw: the bytes of one instance as it wrote them, of both streams or of --stream
    #[arg(short, long, value_name = "FORM", value_enum)]
    output: Option<Form>,
    /// Without the names in front
    #[arg(long)]
    no_prefix: bool,
    /// With the local time in front
    #[arg(short = 't', long)]
    timestamps: bool,
    /// Not through a pager ($HILUM_PAGER, $PAGER, else `less -FRX`), which is for terminals only
    #[arg(long)]
    no_pager: bool,
}

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// An object a line.
    Json,
    /// The bytes of one instance as it wrote them.
    Raw,
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

pub(crate) fn level(text: &str) -> Result<Level, String> {
    Level::parse(text).ok_or_else(|| {
        format!("`{text}` is no level: write `debug`, `info`, `warning`, `error` or `critical`")
    })
}

/// A regular expression; where it is none, what is wrong and where, and how to look for a mark itself.
pub(crate) fn regex(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| {
        format!("{error}\n\na backslash before one of `( ) [ ] {{ }} . * + ? ^ $ | \\` looks for the mark itself")
    })
}

fn stream(text: &str) -> Result<Stream, String> {
    Stream::parse(text)
        .ok_or_else(|| format!("`{text}` is no stream: write `out`, `err`, `log` or `node`"))
}

/// Runs `logs`.
pub(crate) fn run(session: &Session, args: &LogsArgs) -> Outcome {
    let form = form(session, args)?;
    let mut filter = filter(session, args)?;
    if let Some(which) = &args.around_crash {
        around(session, which, args.within, &mut filter)?;
    }
    if form == Form::Raw {
        raw(session, args, &mut filter)?;
    }
    let dir = lines::dir(session)?;
    let start = beginning(args.tail, args.follow, args.since.is_some());
    if args.stats {
        return stats::run(session, &dir, filter, start);
    }
    let (view, start, mut context) = match args.context {
        None => (filter.clone(), start, None),
        Some(count) => {
            let (context, start) = begin_context(&dir, &filter, start, count)?;
            (filter.view(), start, Some(context))
        }
    };
    let mut console =
        lines::console(session, !args.no_prefix, args.timestamps).marking(args.grep.clone());
    let mut text = Vec::new();
    let mut print = |part: Part<'_>, out: &mut Output| -> Result<(), CliError> {
        text.clear();
        match (part, form) {
            (Part::Record(entry), Form::Json) => return out.json(&to_json(entry)),
            (Part::Record(entry), Form::Text) => console.render(entry, &mut text),
            (Part::Record(entry), Form::Raw) => raw_record(session, entry, &mut text),
            (Part::Break, Form::Text) => text.extend_from_slice(b"--\n"),
            (Part::Break, _) => {}
        }
        written(out.write_all(&text))
    };
    let mut show = |entry: &Entry, out: &mut Output| -> Result<(), CliError> {
        match &mut context {
            None => print(Part::Record(entry), out),
            Some(context) => context.take(entry, filter.picks(entry), |part| print(part, out)),
        }
    };
    if args.follow {
        if session.node_pid()?.is_none() {
            session.out.note("no node is running; waiting for one");
        }
        return follow(session, view, start, &mut show);
    }
    // In this order: the pager waits for the end of its input.
    let pager = (form == Form::Text && !args.no_pager).then(|| Pager::start(session.out)).flatten();
    let (_pager, mut out) = match pager {
        Some((pager, stdin)) => (Some(pager), session.out.stream_to(stdin)),
        None => (None, session.out.stream()),
    };
    let mut reader = Reader::open(&dir, view, start).map_err(lines::unreadable)?;
    let mut entry = Entry::default();
    let mut any = false;
    // Programs get each, people those between two records at once.
    let joins_gaps = form == Form::Text && filter.picks_some() && args.context.is_none();
    let mut gaps = Gaps::default();
    let mut take = |entry: &Entry| {
        if joins_gaps && entry.dropped.is_some() {
            gaps.add(entry);
            return Ok(());
        }
        for gap in gaps.take() {
            show(&gap, &mut out)?;
        }
        show(entry, &mut out)
    };
    let sorts = args.trace.is_some() && args.context.is_none();
    let mut by_time = ByTime::default();
    while reader.read(&mut entry).map_err(lines::unreadable)? {
        any = true;
        if sorts {
            by_time.add(std::mem::take(&mut entry));
            while let Some(first) = by_time.passed() {
                take(&first)?;
            }
        } else {
            take(&entry)?;
        }
    }
    for entry in by_time.rest() {
        take(&entry)?;
    }
    for gap in gaps.take() {
        show(&gap, &mut out)?;
    }
    out.flush()?;
    if !any && args.tail != Some(Tail::Last(0)) {
        session.out.note("no records");
    }
    Ok(ExitStatus::Done)
}

/// The form of the output.
fn form(session: &Session, args: &LogsArgs) -> Result<Form, CliError> {
    match args.output {
        Some(Form::Text | Form::Raw) if session.out.json => Err(CliError::usage(
            "`--json` and `-o` ask for different forms",
            "leave one of them out",
        )),
        Some(form) => Ok(form),
        None if session.out.json => Ok(Form::Json),
        None => Ok(Form::Text),
    }
}

fn filter(session: &Session, args: &LogsArgs) -> Result<Filter, CliError> {
    let selection = lines::select(session, &args.targets)?;
    let micros = |seconds: f64| (seconds.max(0.0) * 1e6) as u64;
    let mut questions = args.question.clone();
    questions.extend(args.trace.as_deref().map(Expr::trace));
    let picks = args.grep.is_some() || args.level.is_some() || !questions.is_empty();
    if args.context.is_some() && !picks {
        return Err(CliError::usage(
            "`--context` needs something to look around",
            "add `--grep`, `--where`, `--trace` or `--level`",
        ));
    }
    if let (Some(since), Some(until)) = (args.since, args.until)
        && since > until
    {
        return Err(CliError::usage(
            format!(
                "`--since` ({}) is later than `--until` ({})",
                time::local(since),
                time::local(until)
            ),
            "exchange them: from the earlier time to the later one",
        ));
    }
    Ok(Filter {
        target: lines::target(&selection),
        streams: args.stream.clone(),
        since: args.since.map(micros),
        until: args.until.map(micros),
        grep: args.grep.clone(),
        expr: Expr::all(questions).map(Arc::new),
        level: args.level,
        ..Filter::default()
    })
}

/// Sets the time to that around a crash.
fn around(
    session: &Session,
    which: &str,
    within: Duration,
    filter: &mut Filter,
) -> Result<(), CliError> {
    let crash = super::crash::pick(session, which)?;
    let at = crash.facts.get("at").and_then(serde_json::Value::as_f64).unwrap_or_default();
    let micros = |seconds: f64| (seconds.max(0.0) * 1e6) as u64;
    filter.since = Some(micros(at - within.as_secs_f64()));
    filter.until = Some(micros(at + within.as_secs_f64()));
    session.out.note(&format!("{} at {}", super::crash::title(&crash), time::local(at)));
    Ok(())
}

/// Sets instance and streams for `-o raw`.
fn raw(session: &Session, args: &LogsArgs, filter: &mut Filter) -> Result<(), CliError> {
    if session.out.screen {
        return Err(CliError::usage(
            "raw bytes may change what your terminal does",
            "redirect them: `hilum logs -o raw web.1 > web.out`, or leave out `-o raw`",
        ));
    }
    let only = match args.targets.as_slice() {
        [one] if InstanceId::parse(one).is_ok() => Some(one.clone()),
        [one] => session.names().only_instance(one),
        _ => None,
    };
    let Some(instance) = only else {
        return Err(CliError::usage(
            "`-o raw` is for one instance: the bytes of several cannot be told apart",
            "name it: `hilum logs -o raw web.1`",
        ));
    };
    if args.stream.iter().any(|stream| !matches!(stream, Stream::Out | Stream::Err)) {
        return Err(CliError::usage(
            "only the streams `out` and `err` have raw bytes",
            "records of workers and of the node are in `--json`",
        ));
    }
    filter.instance = Some(instance);
    if filter.streams.is_empty() {
        filter.streams = vec![Stream::Out, Stream::Err];
    }
    Ok(())
}

fn raw_record(session: &Session, entry: &Entry, out: &mut Vec<u8>) {
    match entry.dropped {
        None => entry.write_raw(out),
        Some(_) => session.out.warn(&String::from_utf8_lossy(&entry.text)),
    }
}

/// What lies before the first record that is wanted, and where to go on.
fn begin_context(
    dir: &Path,
    filter: &Filter,
    start: Start,
    count: usize,
) -> Result<(Context, Start), CliError> {
    let mut context = Context::new(count);
    let Start::Tail(_) = start else {
        return Ok((context, start));
    };
    let mut entry = Entry::default();
    let mut reader = Reader::open(dir, filter.clone(), start).map_err(lines::unreadable)?;
    if !reader.read(&mut entry).map_err(lines::unreadable)? {
        return Ok((context, Start::End));
    }
    let first = entry.seq;
    let before = Filter { before_seq: Some(first), ..filter.view() };
    let mut reader =
        Reader::open(dir, before, Start::Tail(count as u64)).map_err(lines::unreadable)?;
    while reader.read(&mut entry).map_err(lines::unreadable)? {
        context.take(&entry, false, |_| Ok::<(), CliError>(()))?;
    }
    Ok((context, Start::From(first)))
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

/// A record may need so long from its time to its file.
const ON_ITS_WAY: Duration = Duration::from_millis(300);

/// Shows what comes, until the filter's time is over, the reader goes away or a signal ends us.
pub(crate) fn follow(
    session: &Session,
    filter: Filter,
    start: Start,
    show: &mut dyn FnMut(&Entry, &mut Output) -> Result<(), CliError>,
) -> Outcome {
    let end = filter.until.map(|until| until as f64 / 1e6 + ON_ITS_WAY.as_secs_f64());
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
            let rest = end.map(|end| end - time::now());
            if rest.is_some_and(|rest| rest <= 0.0) {
                return Ok(ExitStatus::Done);
            }
            let rest = rest.and_then(|rest| Duration::try_from_secs_f64(rest).ok());
            came = follower.next(&mut entry, rest, wake);
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
        assert!(level("40").unwrap_err().contains("`error`"));
        let wrong = regex("a(b").unwrap_err();
        assert!(wrong.contains("a(b\n     ^") && wrong.contains("backslash"), "{wrong}");
        assert!(stream("stdout").is_err());
        assert_eq!(stream("err"), Ok(Stream::Err));
    }
}
