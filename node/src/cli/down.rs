//! `down`: stop everything, then the node; done when nothing is left.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hilum_shared::protocol::Level;
use hilum_shared::protocol::control::Change;
use hilum_shared::status::State;
use nix::sys::signal::Signal;

use super::exit::{CliError, ExitStatus, Outcome};
use super::farewell::{Farewell, Ordered};
use super::last_word::{losses, warn_of_losses};
use super::session::Session;
use super::{lines, operation, ps, time};
use crate::log::account::Untold;
use crate::log::query::{Entry, Filter, Reader, Start};
use crate::log::record::Stream;

/// The words of `down`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum down                 in reverse order of dependencies, then the node\n  \
    hilum down --now           KILL everything at once\n  \
    hilum down --timeout 20s   exit code 4 when it takes longer; the order stays given\n\n\
    0 also when no node was running; 1 when something survived, which is then named.")]
pub(crate) struct DownArgs {
    /// Wait no longer than this (exit code 4); the order stays given
    #[arg(long, value_name = "T", value_parser = time::duration)]
    timeout: Option<Duration>,
    /// KILL everything at once
    #[arg(long)]
    now: bool,
}

/// With `--now`, a node that obeyed the order is gone long before this; what is not gets KILL.
const NOW: Duration = Duration::from_secs(10);

/// Runs `down`.
pub(crate) fn run(session: &Session, args: &DownArgs) -> Outcome {
    let pid = session.node_pid()?;
    let Some(farewell) = pid.and_then(|pid| Farewell::of(session, pid)) else {
        session.out.note("no node is running");
        return report(session, Vec::new(), &[], &[], Ordered::Told);
    };
    // what runs now is what will have been stopped
    let mut changed = if farewell.answers() { running(session) } else { Vec::new() };
    let (begun, began) = (Instant::now(), time::now());
    let mut ordered = farewell.order(args.now.then_some(0.0), "hilum down")?;
    while !farewell.over() {
        if let Some(limit) = args.timeout
            && begun.elapsed() >= limit
        {
            farewell.clear();
            return Err(CliError::TimedOut {
                what: "the cluster to stop".into(),
                after: time::seconds(limit.as_secs_f64()),
            });
        }
        if args.now && ordered == Ordered::Told && begun.elapsed() >= NOW {
            farewell.clear();
            let why = format!("the node has not ended within {}", time::seconds(NOW.as_secs_f64()));
            ordered = farewell.force(Signal::SIGKILL, &why)?;
        }
        farewell.look();
        farewell.mind_keeper(args.now);
        std::thread::sleep(Duration::from_millis(20));
    }
    farewell.clear();
    let survivors = farewell.survivors();
    let lost = losses(session, began);
    let killed = killed(session, began);
    for change in &mut changed {
        if change.instance.as_ref().is_some_and(|id| killed.contains(&id.to_string())) {
            change.result = Some("killed".into());
        }
    }
    report(session, changed, &survivors, &lost, ordered)
}

fn running(session: &Session) -> Vec<Change> {
    let Ok(snapshot) = session.node().and_then(|node| session.status(&node)) else {
        return Vec::new();
    };
    snapshot
        .instances
        .iter()
        .filter(|one| !matches!(one.state, State::Stopped | State::Completed | State::Failed))
        .map(|one| Change {
            instance: Some(one.instance.clone()),
            action: "stop".into(),
            result: Some("stopped".into()),
            reason: None,
        })
        .collect()
}

/// Whose stop since this Unix time needed KILL, as the timeline has it (a warning; other stops are none). Nobody, where it cannot be
/// read: that all has ended is known without it.
fn killed(session: &Session, since: f64) -> BTreeSet<String> {
    let filter = Filter {
        streams: vec![Stream::Node],
        since: Some((since * 1e6) as u64),
        level: Some(Level::Warning),
        ..Filter::default()
    };
    let reader = lines::dir(session).ok().map(|dir| Reader::open(&dir, filter, Start::All));
    let Some(Ok(mut reader)) = reader else { return BTreeSet::new() };
    let (mut killed, mut entry) = (BTreeSet::new(), Entry::default());
    while matches!(reader.read(&mut entry), Ok(true)) {
        let event = entry.event().and_then(|event| event.get("event"));
        if event.is_some_and(|name| name == "stopped") {
            killed.insert(entry.name.to_string());
        }
    }
    killed
}

fn report(
    session: &Session,
    changed: Vec<Change>,
    survivors: &[u32],
    lost: &[Untold],
    ordered: Ordered,
) -> Outcome {
    let out = session.out;
    if out.json {
        out.json(&serde_json::json!({ "changed": changed, "survivors": survivors, "lost": lost }))?;
    } else if let (Ordered::Signalled(signal), []) = (ordered, survivors) {
        out.note(&match signal {
            Signal::SIGKILL => {
                "killed the node; its keeper ended what it had started; nothing is left".to_owned()
            }
            signal => format!("ended the node by {signal}; nothing is left"),
        });
    } else if !changed.is_empty() && survivors.is_empty() {
        let what = match changed.len() {
            1 => "1 instance".to_owned(),
            n => format!("{n} instances"),
        };
        let killed = changed.iter().filter(|change| change.result.as_deref() == Some("killed"));
        let killed: Vec<String> =
            killed.filter_map(|change| Some(change.instance.as_ref()?.to_string())).collect();
        let by_kill = match killed.len() {
            0 => String::new(),
            n if n == changed.len() => ", by KILL".to_owned(),
            _ => format!(", {} by KILL", ps::list(&killed)),
        };
        out.note(&format!("stopped {what}{by_kill} and the node; nothing is left"));
    } else if survivors.is_empty() && changed.is_empty() {
        out.detail("nothing is left");
    }
    warn_of_losses(session, lost);
    if survivors.is_empty() {
        return Ok(ExitStatus::Done);
    }
    Err(CliError::Failed {
        message: format!("these processes survived: {}", operation::survivors(survivors)),
        help: Some("a process that survives SIGKILL hangs in the kernel; `hilum doctor --mend` tries again".into()),
    })
}
