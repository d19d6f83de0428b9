//! `wait`: for scripts that need to know when something is so.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use hilum_shared::protocol::control::{Await, AwaitState, Outcome as Answer};
use hilum_shared::status::{InstanceStatus, State};

use super::exit::{CliError, ExitStatus, Outcome};
use super::link::Node;
use super::operation::Display;
use super::session::Session;
use super::target::Names;
use super::{ps, time};

/// What may be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum For {
    /// Ready (a job: completed).
    Ready,
    /// Executed and not ended.
    Running,
    /// Nothing of it is left.
    Stopped,
    /// The present run has ended, or the next one where none runs.
    Exit,
}

/// The words of `wait`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum wait web --for ready --timeout 30s && ./smoke-test\n  \
    hilum wait migrate --for exit\n  \
    hilum wait 'w*' --for stopped\n\n\
    A job is ready when a run of it has completed; where none has yet, its schedule's time is waited for.\n\
    1 when it has failed and cannot come any more, 4 when it took too long.")]
pub(crate) struct WaitArgs {
    /// Services, instances or globs
    #[arg(value_name = "TARGET", required = true, add = super::completions::targets())]
    targets: Vec<String>,
    /// What is waited for
    #[arg(long = "for", value_name = "STATE", value_enum, default_value = "ready")]
    state: For,
    /// Wait no longer than this (exit code 4)
    #[arg(long, value_name = "T", value_parser = time::duration)]
    timeout: Option<Duration>,
}

/// Between two looks at whether it can still come.
const LOOK: Duration = Duration::from_millis(250);

/// Runs `wait`.
pub(crate) fn run(session: &Session, args: &WaitArgs) -> Outcome {
    let node = session.node()?;
    let mut names = Names::default();
    names.add_snapshot(&session.status(&node)?);
    let selection = names.check(&args.targets)?;
    let looker = Node::at(node.run_dir.clone(), node.pid)?;
    let display = Display::with_jobs(session.out, args.state == For::Ready);
    let looked = Cell::new(Instant::now());
    let lost: RefCell<Option<String>> = RefCell::new(None);
    let look = || {
        if looked.get().elapsed() < LOOK {
            return false;
        }
        looked.set(Instant::now());
        let Ok(snapshot) = session.status(&looker) else {
            return false;
        };
        if display.due() {
            display.show(&snapshot, &selection);
        }
        if matches!(args.state, For::Ready | For::Running) {
            *lost.borrow_mut() = ps::chosen(&snapshot, &selection).find_map(cannot_come);
        }
        lost.borrow().is_some()
    };
    let order = Await {
        targets: args.targets.clone(),
        state: match args.state {
            For::Ready => AwaitState::Ready,
            For::Running => AwaitState::Running,
            For::Stopped => AwaitState::Stopped,
            For::Exit => AwaitState::Exit,
        },
    };
    let answer: Option<Answer> = node.call_long("await", &order, args.timeout, &look)?;
    drop(display);
    let lost = lost.into_inner().or_else(|| answer.as_ref().and_then(in_vain));
    if let Some(message) = lost {
        return Err(CliError::Failed {
            message,
            help: Some(format!("`hilum why {}` says more", args.targets.join(" "))),
        });
    }
    if answer.is_none() {
        return Err(CliError::TimedOut {
            what: args.targets.join(" "),
            after: time::seconds(args.timeout.unwrap_or_default().as_secs_f64()),
        });
    }
    if session.out.json {
        let mut snapshot = session.status(&node)?;
        snapshot.instances.retain(|one| selection.instance(&one.instance));
        session.out.json(&serde_json::json!({ "instances": snapshot.instances }))?;
    }
    Ok(ExitStatus::Done)
}

/// Why one does not come by itself any more: it has failed, or another's failure stopped it.
fn cannot_come(one: &InstanceStatus) -> Option<String> {
    match (one.state, &one.in_vain) {
        (State::Failed, _) => Some(format!("`{}` has failed: {}", one.instance, ps::info(one))),
        (State::Stopped, Some(why)) => Some(format!("`{}` does not come: {why}", one.instance)),
        _ => None,
    }
}

/// What a node says that gave up waiting: who cannot come any more, and why.
fn in_vain(answer: &Answer) -> Option<String> {
    if answer.ok {
        return None;
    }
    let failed = answer.changed.iter().find(|one| one.result.as_deref() == Some("failed"))?;
    let name = failed.instance.as_ref().map_or("the cluster".to_owned(), ToString::to_string);
    let why = failed.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
    Some(format!("`{name}` has failed{why}"))
}
