//! `down`: stop everything, then the node; done when nothing is left.

use std::time::{Duration, Instant};

use hilum_shared::protocol::control::Change;
use hilum_shared::status::State;
use nix::sys::signal::Signal;

use super::exit::{CliError, ExitStatus, Outcome};
use super::farewell::{Farewell, Ordered};
use super::last_word::{losses, warn_of_losses};
use super::operation;
use super::session::Session;
use super::time;
use crate::log::account::Untold;

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
    let changed = if farewell.answers() { running(session) } else { Vec::new() };
    let mut ordered = farewell.order(args.now.then_some(0.0), "hilum down")?;
    let (begun, began) = (Instant::now(), time::now());
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
        out.note(&format!("stopped {what} and the node; nothing is left"));
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
