//! `why`: one sentence on a state and the next automatic step.

use hilum_shared::status::{Flag, InstanceStatus, State};

use super::exit::{ExitStatus, Outcome};
use super::output::printable;
use super::session::Session;
use super::target::Names;
use super::{ps, time};
use crate::log::account::causes;

/// The words of `why`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum why             all that are not as they should be\n  \
    hilum why web.2       why it is in the state it is in, and what happens next\n  \
    hilum why web         each instance of a service\n  \
    hilum why 'web*' --json")]
pub(crate) struct WhyArgs {
    /// Services, instances or globs; none: all that are not as they should be
    #[arg(value_name = "TARGET", add = super::completions::targets())]
    targets: Vec<String>,
}

/// Runs `why`.
pub(crate) fn run(session: &Session, args: &WhyArgs) -> Outcome {
    let node = session.node()?;
    let snapshot = session.status(&node)?;
    let mut names = Names::default();
    names.add_snapshot(&snapshot);
    let selection = names.check(&args.targets)?;
    let mut sentences = Vec::new();
    let named = !args.targets.is_empty();
    for one in ps::chosen(&snapshot, &selection).filter(|one| named || !is_well(one)) {
        let last = match one.state {
            State::Backoff | State::Failed | State::Starting => {
                super::lines::last_line(session, &one.instance)
            }
            _ => None,
        };
        sentences.push((one, sentence(one, last.as_deref()), last));
    }
    if session.out.json {
        let all: Vec<_> = sentences
            .iter()
            .map(|(one, sentence, last)| {
                serde_json::json!({
                    "instance": one.instance, "state": one.state, "sentence": sentence, "reason": one.reason,
                    "next_at": one.next_at, "blocked_by": one.blocked_by, "exit": one.exit, "last_line": last,
                    "hook": one.hook,
                })
            })
            .collect();
        let warnings = &snapshot.node.warnings;
        session.out.json(&serde_json::json!({ "instances": all, "warnings": warnings }))?;
        return Ok(ExitStatus::Done);
    }
    if sentences.is_empty() {
        session.out.line(if named {
            "no processes are wanted: its count is 0"
        } else {
            "every instance is as it should be"
        })?;
    }
    let several = sentences.len() > 1 || !named;
    let width = sentences.iter().map(|(one, ..)| one.instance.to_string().len()).max().unwrap_or(0);
    for (one, sentence, _) in &sentences {
        if several {
            session.out.line(&format!("{:width$}  {sentence}", one.instance.to_string()))?;
        } else {
            session.out.line(sentence)?;
        }
    }
    // What is wrong with the node may be why an instance waits.
    for warning in &snapshot.node.warnings {
        session.out.warn(warning);
    }
    Ok(ExitStatus::Done)
}

/// Whether nobody would ask why.
fn is_well(one: &InstanceStatus) -> bool {
    match one.state {
        State::Running => one.ready && one.flags.is_empty(),
        State::Stopped => one.in_vain.is_none(),
        State::Completed => true,
        _ => false,
    }
}

/// The state in a sentence: what, why, what next, what blocks it, its last words.
pub(crate) fn sentence(one: &InstanceStatus, last_line: Option<&str>) -> String {
    let mut text = ps::state_text(one);
    let mut say = |separator: &str, part: &str| {
        if !part.is_empty() {
            text.push_str(separator);
            text.push_str(part);
        }
    };
    let reason = one.reason.as_deref().unwrap_or_default();
    match one.state {
        State::Running | State::Starting => {
            if let Some(uptime) = one.uptime {
                say(" for ", &time::seconds(uptime));
            }
            say(": ", reason);
            say(": ", &ps::hook(one).unwrap_or_default());
            if !one.ready {
                say(", ", "not ready yet");
            }
        }
        State::Completed => {
            say(": ", if reason.is_empty() { "it ended with success" } else { reason });
        }
        _ => {
            say(": ", reason);
            say("; ", &ps::hook(one).unwrap_or_default());
        }
    }
    let told = |fragment: &str| reason.contains(fragment);
    if let Some(exit) = &one.exit
        && !told("exit")
        && !told("killed")
        && !matches!(one.state, State::Running | State::Completed)
    {
        match (&exit.code, &exit.signal) {
            (Some(code), _) => say(", ", &format!("last exit {code}")),
            (_, Some(signal)) => say(", ", &format!("last killed by {signal}")),
            _ => {}
        }
    }
    if !one.blocked_by.is_empty() && !told("waits for ") {
        say("; waits for ", &one.blocked_by.join(", "));
    }
    if let Some(next) = one.next_at {
        let step = match one.state {
            State::Backoff => "next try",
            State::Stopping => "kill",
            State::Starting => "given up as a failed start",
            _ => "runs next",
        };
        say(", ", &format!("{step} in {}", time::seconds(next)));
    }
    let dropped = format!(
        "lines of its output were dropped ({}), `hilum logs` says where",
        causes(&one.dropped_by)
    );
    for flag in &one.flags {
        say(
            "; ",
            match flag {
                Flag::Paused => {
                    "it is stopped by a signal or held by a debugger, so its silence is not held against it"
                }
                Flag::Stuck => {
                    "it survives SIGKILL: it hangs in the kernel, and its index is not used again before it ends"
                }
                Flag::Starved => "the machine has no time for it",
                Flag::HeldBack => {
                    "its output waits for the log store, so its silence is not held against it"
                }
                Flag::LinesDropped => &dropped,
                Flag::Removed => "the config has it no more",
                Flag::Outdated => {
                    "it runs the definition before the last reload; `hilum reload` goes on with it"
                }
            },
        );
    }
    if let Some(age) = one.heartbeat_age.filter(|_| one.flags.contains(&Flag::Paused)) {
        say("; ", &format!("its last heartbeat came {} ago", time::seconds(age)));
    }
    match one.state {
        // its schedule wakes it
        State::Failed if one.next_at.is_some() => {}
        State::Failed => say(
            "; ",
            &format!("nothing more happens by itself: `hilum start {}` tries again", one.instance),
        ),
        State::Stopped if one.in_vain.is_some() => {
            say(
                "; ",
                &format!("it comes back with that one, or by `hilum start {}`", one.instance),
            );
        }
        State::Stopped => say("; ", &format!("`hilum start {}` starts it", one.instance)),
        _ => {}
    }
    if let Some(line) = last_line {
        say("; last line: ", line.trim());
    }
    printable(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::ps::tests::instance;
    use super::*;
    use hilum_shared::status::{ExitStatus as End, Hook};

    #[test]
    fn a_crash_loop_is_told_with_the_next_try_and_the_last_words() {
        let mut one = instance("web.2", State::Backoff);
        one.reason = Some("exit 1 three times in 20s".into());
        one.next_at = Some(6.0);
        assert_eq!(
            sentence(&one, Some("no such table: users\n")),
            "backoff: exit 1 three times in 20s, next try in 6s; last line: no such table: users"
        );
    }

    #[test]
    fn a_hook_that_is_waited_for_is_named() {
        let mut one = instance("web.1", State::Stopping);
        one.reason = Some("hilum down".into());
        one.hook = Some(Hook { name: "before_stop".into(), uptime: 3.0 });
        one.next_at = Some(7.0);
        assert_eq!(
            sentence(&one, None),
            "stopping: hilum down; its hook before_stop has run for 3s, kill in 7s"
        );
        assert_eq!(ps::info(&one), "hilum down; its hook before_stop has run for 3s");
        let mut one = instance("web.1", State::Starting);
        one.hook = Some(Hook { name: "before_start".into(), uptime: 3.0 });
        assert_eq!(
            sentence(&one, None),
            "starting: its hook before_start has run for 3s, not ready yet"
        );
        assert_eq!(ps::info(&one), "its hook before_start has run for 3s");
    }

    #[test]
    fn what_blocks_it_is_named() {
        let mut one = instance("web.1", State::Waiting);
        one.blocked_by = vec!["db.1 to be ready".into(), "db.2 to be ready".into()];
        assert_eq!(sentence(&one, None), "waiting; waits for db.1 to be ready, db.2 to be ready");
    }

    #[test]
    fn a_scheduled_job_says_when_it_runs() {
        let mut one = instance("job.1", State::Completed);
        one.reason = Some("exit 0".into());
        one.next_at = Some(599.0);
        assert_eq!(sentence(&one, None), "completed: exit 0, runs next in 9m59s");
        let mut one = instance("job.1", State::Waiting);
        one.next_at = Some(227.0);
        assert_eq!(sentence(&one, None), "waiting, runs next in 3m47s");
    }

    #[test]
    fn what_rests_says_how_to_wake_it() {
        let mut one = instance("web.1", State::Failed);
        one.exit = Some(End { code: None, signal: Some("SEGV".into()), at: 0.0 });
        one.reason = Some("restart limit reached".into());
        assert_eq!(
            sentence(&one, None),
            "failed: restart limit reached, last killed by SEGV; nothing more happens by itself: `hilum start web.1` tries again"
        );
        let mut one = instance("web.1", State::Stopped);
        assert_eq!(sentence(&one, None), "stopped; `hilum start web.1` starts it");
        assert!(is_well(&one));
        one.reason = Some("db.1 failed".into());
        one.in_vain = Some("it was stopped because `db` failed".into());
        assert_eq!(
            sentence(&one, None),
            "stopped: db.1 failed; it comes back with that one, or by `hilum start web.1`"
        );
        assert!(!is_well(&one), "nobody stopped it by hand");
    }

    #[test]
    fn a_paused_one_is_explained() {
        let mut one = instance("web.1", State::Running);
        one.flags = vec![Flag::Paused];
        assert!(
            sentence(&one, None)
                .starts_with("running (paused) for 3m12s; it is stopped by a signal")
        );
        one.heartbeat_age = Some(17.0);
        assert!(sentence(&one, None).ends_with("; its last heartbeat came 17s ago"));
    }
}
