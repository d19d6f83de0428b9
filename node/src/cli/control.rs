//! `start`, `stop`, `restart`: tell the node, wait until it is done, say how it went.

use std::time::Duration;

use hilum_shared::protocol::control;

use super::exit::Outcome;
use super::link::ANSWER;
use super::operation;
use super::session::Session;
use super::target::Names;
use super::time;

/// The words that the three have in words.
#[derive(Debug, clap::Args)]
pub(crate) struct Words {
    /// Services, instances or globs
    #[arg(value_name = "TARGET", required = true, add = super::completions::targets())]
    targets: Vec<String>,
    /// Wait no longer than this (exit code 4); the order stays given
    #[arg(long, value_name = "T", value_parser = time::duration)]
    timeout: Option<Duration>,
    /// Return when the order is given
    #[arg(long)]
    no_wait: bool,
}

/// The words of `start`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum start web              and what it depends on, until it is ready\n  \
    hilum start web.2 --no-deps  one instance alone\n  \
    hilum start '*'              everything, also what is not started by `up`")]
pub(crate) struct StartArgs {
    #[command(flatten)]
    words: Words,
    /// Leave dependencies as they are
    #[arg(long)]
    no_deps: bool,
    /// One at a time, each when the one before is ready
    #[arg(long)]
    rolling: bool,
}

/// The words of `stop`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum stop web               it stays stopped through crashes and reloads\n  \
    hilum stop web.2 --now       KILL at once\n  \
    hilum stop '*' --timeout 20s")]
pub(crate) struct StopArgs {
    #[command(flatten)]
    words: Words,
    /// KILL at once
    #[arg(long)]
    now: bool,
    /// One at a time
    #[arg(long)]
    rolling: bool,
}

/// The words of `restart`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum restart web            with the config as it is now\n  \
    hilum restart web --rolling  one at a time, each when the one before is ready\n  \
    hilum restart 'w*' --no-wait")]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    words: Words,
    /// Leave dependencies as they are
    #[arg(long)]
    no_deps: bool,
    /// One (or `rolling.max_unavailable`) at a time, each when the one before is ready
    #[arg(long)]
    rolling: bool,
    /// KILL at once
    #[arg(long)]
    now: bool,
}

/// Runs `start`.
pub(crate) fn start(session: &Session, args: &StartArgs) -> Outcome {
    let order = control::Targets {
        targets: args.words.targets.clone(),
        deps: !args.no_deps,
        rolling: args.rolling,
        grace: None,
    };
    run(session, "start", order, &args.words)
}

/// Runs `stop`.
pub(crate) fn stop(session: &Session, args: &StopArgs) -> Outcome {
    let order = control::Targets {
        targets: args.words.targets.clone(),
        deps: false,
        rolling: args.rolling,
        grace: args.now.then_some(0.0),
    };
    run(session, "stop", order, &args.words)
}

/// Runs `restart`.
pub(crate) fn restart(session: &Session, args: &RestartArgs) -> Outcome {
    let order = control::Targets {
        targets: args.words.targets.clone(),
        deps: !args.no_deps,
        rolling: args.rolling,
        grace: args.now.then_some(0.0),
    };
    run(session, "restart", order, &args.words)
}

fn run(session: &Session, verb: &str, order: control::Targets, words: &Words) -> Outcome {
    let node = session.node()?;
    let mut names = Names::default();
    names.add_snapshot(&session.status(&node)?);
    let selection = names.check(&words.targets)?;
    let begun: control::Accepted = node.call(verb, &order, ANSWER)?;
    let what = format!("the {verb} of {}", words.targets.join(" "));
    operation::finish(session, &node, begun, &selection, words.no_wait, words.timeout, &what)
}
