//! `signal` and `kill`: the same, in the order of words that fingers know.

use hilum_shared::protocol::control;
use hilum_shared::signal::Signal;

use super::exit::{ExitStatus, Outcome};
use super::link::ANSWER;
use super::operation;
use super::session::Session;
use super::target::Names;

/// The words of `signal`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum signal HUP web      to all instances of web that run\n  \
    hilum signal 10 web.2     by number\n\n\
    1 when none of them runs, so that nothing was sent.")]
pub(crate) struct SignalArgs {
    /// A name, with or without SIG, or a number
    #[arg(value_name = "SIGNAL", value_parser = signal, add = super::completions::signals())]
    signal: Signal,
    /// Services, instances or globs
    #[arg(value_name = "TARGET", required = true, add = super::completions::targets())]
    targets: Vec<String>,
}

/// The words of `kill`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum kill web.2          KILL; the restart policy then does its part\n  \
    hilum kill -9 web.2       the same, as kill(1) has it\n  \
    hilum kill -s HUP web     another signal")]
pub(crate) struct KillArgs {
    /// A name, with or without SIG, or a number
    #[arg(short, long, value_name = "SIG", default_value = "KILL", value_parser = signal, add = super::completions::signals())]
    signal: Signal,
    /// Services, instances or globs
    #[arg(value_name = "TARGET", required = true, add = super::completions::targets())]
    targets: Vec<String>,
}

fn signal(text: &str) -> Result<Signal, String> {
    text.parse().map_err(|error: hilum_shared::signal::UnknownSignal| error.to_string())
}

/// Runs `signal`.
pub(crate) fn signal_verb(session: &Session, args: &SignalArgs) -> Outcome {
    send(session, args.signal, &args.targets)
}

/// Runs `kill`.
pub(crate) fn kill_verb(session: &Session, args: &KillArgs) -> Outcome {
    send(session, args.signal, &args.targets)
}

fn send(session: &Session, signal: Signal, targets: &[String]) -> Outcome {
    let node = session.node()?;
    let mut names = Names::default();
    names.add_snapshot(&session.status(&node)?);
    let selection = names.check(targets)?;
    let order = control::Send { targets: targets.to_vec(), signal: signal.name() };
    let begun: control::Accepted = node.call("signal", &order, ANSWER)?;
    let sent = begun.changed.iter().any(|change| change.result.as_deref() == Some("sent"));
    let done =
        operation::finish(session, &node, begun, &selection, false, Some(ANSWER), "the signal")?;
    Ok(if sent { done } else { ExitStatus::Failed })
}
