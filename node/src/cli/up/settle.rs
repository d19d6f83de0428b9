//! `up -d`: when all are started, or ready with `--wait`.

use std::time::{Duration, Instant};

use hilum_shared::status::{Flag, InstanceStatus, Snapshot, State};

use super::UpArgs;
use crate::cli::exit::{CliError, ExitStatus, Outcome};
use crate::cli::operation::Display;
use crate::cli::session::Session;
use crate::cli::target::Selection;
use crate::cli::{ps, time};

/// What `-d` thinks of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// Where it should be, or not wanted at all.
    There,
    /// On its way.
    OnTheWay,
    /// Waits for something that has failed.
    InVain,
    /// Failed.
    Failed,
}

fn stand(one: &InstanceStatus, snapshot: &Snapshot, ready: bool, scheduled: bool) -> Stand {
    match one.state {
        State::Stopped | State::Completed | State::Stopping => Stand::There,
        State::Failed => Stand::Failed,
        State::Running if !ready || one.ready => Stand::There,
        State::Starting if !ready && one.pid.is_some() => Stand::There,
        State::Backoff if !ready => Stand::There,
        State::Waiting if scheduled => Stand::There,
        State::Waiting => {
            let failed = |name: &str| {
                snapshot
                    .instances
                    .iter()
                    .any(|other| other.state == State::Failed && names(name, other))
            };
            if one.blocked_by.iter().any(|what| failed(what)) {
                Stand::InVain
            } else {
                Stand::OnTheWay
            }
        }
        _ => Stand::OnTheWay,
    }
}

/// Whether `db.1 to be ready` or `db to be ready` is about this instance.
fn names(what: &str, one: &InstanceStatus) -> bool {
    what.split([' ', ',', '`'])
        .any(|word| word == one.service.as_str() || word == one.instance.to_string())
}

/// Instances for which the machine is short of something may never start: so long `-d` waits for them.
const STARVED: Duration = Duration::from_secs(5);

/// Waits until all are started (or ready), for `-d`.
pub(super) fn settle(session: &Session, args: &UpArgs, selection: &Selection) -> Outcome {
    let loaded = session.config()?;
    let node = session.node()?;
    let display = Display::new(session.out);
    let begun = Instant::now();
    let mut pause = Duration::from_millis(10);
    let (snapshot, failed) = loop {
        let snapshot = session.status(&node)?;
        let mut on_the_way = 0;
        let mut starved = Vec::new();
        let mut failed = Vec::new();
        for one in &snapshot.instances {
            let spec = loaded.cluster.services.get(one.service.as_str());
            let scheduled = spec.is_some_and(|spec| spec.policy.schedule.is_some());
            match stand(one, &snapshot, args.wait, scheduled) {
                Stand::There => {}
                Stand::OnTheWay => {
                    on_the_way += 1;
                    if one.flags.contains(&Flag::Starved) {
                        starved.push(one.clone());
                    }
                }
                Stand::InVain | Stand::Failed => failed.push(one.clone()),
            }
        }
        if on_the_way == 0 {
            break (snapshot, failed);
        }
        if starved.len() == on_the_way && begun.elapsed() >= STARVED {
            failed.extend(starved);
            break (snapshot, failed);
        }
        if let Some(limit) = args.timeout
            && begun.elapsed() >= limit
        {
            let what = if args.wait { "all to be ready" } else { "all to be started" };
            return Err(CliError::TimedOut {
                what: format!("{what}; the cluster goes on"),
                after: time::seconds(limit.as_secs_f64()),
            });
        }
        if begun.elapsed() > display.pause() && display.due() {
            display.show(&snapshot, selection);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(250));
    };
    drop(display);
    if session.out.json {
        session.out.json(&snapshot)?;
    } else {
        let running = snapshot.instances.iter().filter(|one| one.pid.is_some()).count();
        let completed =
            match snapshot.instances.iter().filter(|one| one.state == State::Completed).count() {
                0 => String::new(),
                count => format!(", {count} completed"),
            };
        session.out.note(&format!(
            "{}: {running} of {} instances run in the background{completed} (node pid {}); `hilum logs -f` follows, `hilum down` stops",
            snapshot.project,
            snapshot.instances.len(),
            snapshot.node.pid
        ));
    }
    if failed.is_empty() {
        return Ok(ExitStatus::Done);
    }
    let named: Vec<String> = failed
        .iter()
        .map(|one| format!("`{}` {}: {}", one.instance, one.state.as_str(), ps::info(one)))
        .collect();
    let others = if snapshot.instances.iter().any(|one| one.pid.is_some()) {
        "the others run; "
    } else {
        ""
    };
    Err(CliError::Failed {
        message: named.join("\n       "),
        help: Some(format!("{others}`hilum why TARGET` and `hilum logs TARGET` say more")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ps::tests::{instance, snapshot};

    #[test]
    fn started_is_not_ready_and_backoff_is_not_failed() {
        let all = snapshot();
        let look = |state, ready| stand(&instance("web.1", state), &all, ready, false);
        assert_eq!(look(State::Running, false), Stand::There);
        assert_eq!(look(State::Running, true), Stand::There);
        assert_eq!(look(State::Backoff, false), Stand::There);
        assert_eq!(look(State::Backoff, true), Stand::OnTheWay);
        assert_eq!(look(State::Failed, false), Stand::Failed);
        assert_eq!(look(State::Starting, false), Stand::OnTheWay, "not executed yet");
        let mut starting = instance("web.1", State::Starting);
        starting.pid = Some(1);
        assert_eq!(stand(&starting, &all, false, false), Stand::There);
        assert_eq!(stand(&starting, &all, true, false), Stand::OnTheWay);
        assert_eq!(
            stand(&instance("j.1", State::Waiting), &all, true, true),
            Stand::There,
            "its time will come"
        );
    }

    #[test]
    fn what_waits_for_a_failed_one_waits_in_vain() {
        let mut all = snapshot();
        all.instances[0].state = State::Failed; // db.1
        let mut one = instance("web.1", State::Waiting);
        one.blocked_by = vec!["db.1 to be ready".into()];
        assert_eq!(stand(&one, &all, false, false), Stand::InVain);
        one.blocked_by = vec!["web.2 to be ready".into()];
        assert_eq!(stand(&one, &all, false, false), Stand::OnTheWay);
    }
}
