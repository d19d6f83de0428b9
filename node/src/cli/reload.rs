//! `reload`: apply what changed in the config, or only say it.

use std::time::Duration;

use hilum_shared::protocol::control;

use super::exit::{CliError, ExitStatus, Outcome};
use super::link::ANSWER;
use super::operation;
use super::output::{Output, Style};
use super::session::Session;
use super::target::Selection;
use super::time;

/// The words of `reload`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum reload --dry-run    what would change: `+ web.2`, `- web.3`, `~ db.1 env: restart`\n  \
    hilum reload              apply it; an invalid config changes nothing")]
pub(crate) struct ReloadArgs {
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    /// Return when the order is given
    #[arg(long)]
    no_wait: bool,
    /// Wait no longer than this (exit code 4)
    #[arg(long, value_name = "T", value_parser = time::duration)]
    timeout: Option<Duration>,
}

/// Runs `reload`.
pub(crate) fn run(session: &Session, args: &ReloadArgs) -> Outcome {
    let node = session.node()?;
    let _ = session.status(&node)?; // says when the versions differ
    let order = control::Reload { dry_run: args.dry_run };
    let answer: control::Reloaded =
        node.call("reload", &order, ANSWER).map_err(|error| explained(session, error))?;
    for warning in &answer.warnings {
        session.out.warn(warning);
    }
    let wait = !args.dry_run && !args.no_wait && answer.operation != 0;
    if !session.out.json {
        if answer.plan.is_empty() && answer.changed.iter().any(|change| change.result.is_none()) {
            session.out.note("nothing new: a change is under way");
        } else {
            plan(session.out, &answer.plan)?;
        }
    }
    let mut outcome =
        control::Outcome { changed: answer.changed.clone(), survivors: Vec::new(), ok: true };
    if wait {
        outcome = operation::wait(
            session,
            &node,
            answer.operation,
            &Selection::default(),
            args.timeout,
            "the reload",
        )?;
    }
    if session.out.json {
        session.out.json(&serde_json::json!({
            "changed": outcome.changed,
            "survivors": outcome.survivors,
            "plan": answer.plan,
            "warnings": answer.warnings,
        }))?;
    } else if wait {
        return operation::report(session.out, &outcome);
    }
    let good = outcome.ok && outcome.survivors.is_empty();
    Ok(if good { ExitStatus::Done } else { ExitStatus::Failed })
}

/// The node sends its findings as a text. Where the file reads the same from here, they are had with their places.
pub(crate) fn explained(session: &Session, error: CliError) -> CliError {
    match &error {
        CliError::Fault(fault) if fault.code == "invalid-config" => match session.config() {
            Err(found @ CliError::Config(_)) => {
                if !session.out.json {
                    session.out.note("the configuration is not valid: nothing was changed");
                }
                found
            }
            _ => error,
        },
        _ => error,
    }
}

/// Prints the lines of a plan.
pub(crate) fn plan(out: Output, plan: &[String]) -> Result<(), super::exit::CliError> {
    if plan.is_empty() {
        out.note("nothing changed");
    }
    for line in plan {
        let style = match line.chars().next() {
            Some('+') => Style::Good,
            Some('-') => Style::Bad,
            _ => Style::Warn,
        };
        out.line(&out.paint.paint(style, line))?;
    }
    Ok(())
}
