//! `up -d`: when all are started, or ready with `--wait`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hilum_shared::config::spec::{Cluster, Kind, ServiceSpec};
use hilum_shared::status::{Flag, InstanceStatus, Snapshot, State};

use super::UpArgs;
use crate::cli::exit::{CliError, ExitStatus, Outcome};
use crate::cli::last_word::{forsaken, spoke};
use crate::cli::operation::Display;
use crate::cli::output::printable;
use crate::cli::process::Process;
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
    /// Failed, or nobody should wait for it.
    InVain,
}

/// What of a service decides how long `-d` waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// Where it cannot say that it is ready, it is when it has run for so long.
    Service(Duration),
    /// It is waited for until it is completed.
    Job,
    /// Its time will come.
    Scheduled,
}

impl Sort {
    fn of(spec: Option<&Arc<ServiceSpec>>) -> Self {
        match spec.map(|spec| &spec.policy) {
            Some(policy) if policy.schedule.is_some() => Self::Scheduled,
            Some(policy) if policy.kind == Kind::Job => Self::Job,
            Some(policy) if policy.ready.is_none() => Self::Service(policy.restart.min_uptime),
            _ => Self::Service(Duration::ZERO),
        }
    }
}

fn stand(one: &InstanceStatus, ready: bool, sort: Sort) -> Stand {
    let scheduled = sort == Sort::Scheduled;
    let succeeded = one.exit.as_ref().is_some_and(|exit| exit.code == Some(0));
    match one.state {
        // A start that failed is stopped before the next one, or before it is given up.
        State::Stopping if ready && !one.flags.contains(&Flag::Stuck) => Stand::OnTheWay,
        State::Stopped | State::Completed | State::Stopping => Stand::There,
        State::Running if ready && sort == Sort::Job => Stand::OnTheWay,
        State::Running if ready && !has_held(one, sort) => Stand::OnTheWay,
        State::Running if !ready || one.ready => Stand::There,
        State::Starting if !ready && one.pid.is_some() => Stand::There,
        // One that could not be executed yet, its port being taken, has not been started.
        State::Backoff if !ready && (one.exit.is_some() || one.in_vain.is_none()) => Stand::There,
        State::Waiting if scheduled && one.in_vain.is_none() => Stand::There,
        // A job that fails now is tried again when its time comes.
        State::Backoff if scheduled && one.in_vain.is_none() => Stand::There,
        // One that is restarted `always` has done its work once.
        State::Backoff if sort == Sort::Job && succeeded => Stand::There,
        _ if one.state == State::Failed || one.in_vain.is_some() => Stand::InVain,
        _ => Stand::OnTheWay,
    }
}

/// Whether one without a readiness of its own has run for as long as a start that counts (`restart.min_uptime`).
fn has_held(one: &InstanceStatus, sort: Sort) -> bool {
    let Sort::Service(hold) = sort else { return true };
    one.uptime.unwrap_or_default() >= hold.as_secs_f64()
}

/// The services that wait for a schedule's time, or for one that does. Their time will come, too.
fn later<'a>(cluster: &'a Cluster, snapshot: &Snapshot) -> BTreeSet<&'a str> {
    let waits = |name: &str| {
        let mut instances = snapshot.instances.iter().filter(|one| one.service.as_str() == name);
        instances.any(|one| one.state == State::Waiting)
    };
    let mut later = BTreeSet::new();
    loop {
        let known = later.len();
        for service in cluster.services.values() {
            let mut needed = service.policy.depends_on.iter();
            let found = service.policy.schedule.is_some()
                || needed.any(|other| later.contains(other.service.as_str()));
            if found && !later.contains(service.name.as_str()) && waits(service.name.as_str()) {
                later.insert(service.name.as_str());
            }
        }
        if later.len() == known {
            return later;
        }
    }
}

/// Between the end of a node's connections and its last word.
const LAST: Duration = Duration::from_secs(5);
/// What is waited for so long without a sign of it is told.
const LONG: Duration = Duration::from_secs(2);
/// Instances for which the machine is short of something may never start: so long `-d` waits for them.
const STARVED: Duration = Duration::from_secs(5);

/// Waits until all are started (or ready), for `-d`.
pub(super) fn settle(
    session: &Session,
    args: &UpArgs,
    selection: &Selection,
    pid: u32,
    began: f64,
) -> Outcome {
    let loaded = session.config()?;
    let node = match session.node() {
        Err(CliError::NotRunning { .. }) => return forsaken(session, pid, began),
        node => node?,
    };
    let display = Display::with_jobs(session.out, args.wait);
    let begun = Instant::now();
    let mut pause = Duration::from_millis(10);
    let process = Process::find(pid);
    let mut said = false;
    let (snapshot, mut failed) = loop {
        let snapshot = match session.status(&node) {
            Ok(snapshot) => snapshot,
            // a failure has ended the cluster
            Err(error) => {
                let over = Instant::now() + LAST;
                while process.is_some_and(Process::lives) && Instant::now() < over {
                    std::thread::sleep(Duration::from_millis(10));
                }
                return match error {
                    CliError::Gone { .. } => forsaken(session, pid, began),
                    _ if spoke(session, began) => forsaken(session, pid, began),
                    error => Err(error),
                };
            }
        };
        let later = later(&loaded.cluster, &snapshot);
        let mut on_the_way = 0;
        let mut holding = Vec::new();
        let mut starved = Vec::new();
        let mut failed = Vec::new();
        for one in &snapshot.instances {
            let spec = loaded.cluster.services.get(one.service.as_str());
            let sort = match Sort::of(spec) {
                Sort::Service(_) | Sort::Job if later.contains(one.service.as_str()) => {
                    Sort::Scheduled
                }
                sort => sort,
            };
            match stand(one, args.wait, sort) {
                Stand::There => {}
                Stand::OnTheWay => {
                    on_the_way += 1;
                    if one.state == State::Running && one.ready && !has_held(one, sort) {
                        holding.push(one.instance.to_string());
                    }
                    if one.flags.contains(&Flag::Starved) {
                        starved.push(one.clone());
                    }
                }
                Stand::InVain => failed.push(one.clone()),
            }
        }
        // a cluster that is on its way down is waited for: its last word tells why
        if on_the_way == 0 && !snapshot.node.stopping {
            break (snapshot, failed);
        }
        if on_the_way > 0 && starved.len() == on_the_way && begun.elapsed() >= STARVED {
            failed.extend(starved);
            break (snapshot, failed);
        }
        if let Some(limit) = args.timeout
            && begun.elapsed() >= limit
        {
            let what =
                if args.wait { "all to be ready, and jobs completed" } else { "all to be started" };
            return Err(CliError::TimedOut {
                what: format!("{what}; the cluster goes on"),
                after: time::seconds(limit.as_secs_f64()),
            });
        }
        if on_the_way > 0 && on_the_way == holding.len() && begun.elapsed() >= LONG && !said {
            said = true;
            display.clear();
            let who = ps::list(&holding);
            session.out.note(&format!("waiting until it has run for `restart.min_uptime`: {who}"));
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
    failed.sort_by_key(|one| one.state == State::Waiting); // what the others wait for comes first
    let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
    for one in &failed {
        let why = one.in_vain.clone().unwrap_or_else(|| ps::info(one));
        let reason = format!("{}: {}", one.state.as_str(), printable(&why));
        let name = format!("`{}`", one.instance);
        match reasons.iter_mut().find(|(same, _)| *same == reason) {
            Some((_, names)) => names.push(name),
            None => reasons.push((reason, vec![name])),
        }
    }
    let named: Vec<String> =
        reasons.iter().map(|(reason, names)| format!("{} {reason}", ps::list(names))).collect();
    let others = if snapshot.instances.iter().any(|one| one.pid.is_some()) {
        "the others run; "
    } else {
        ""
    };
    Err(CliError::Failed {
        message: named.join("\n       "),
        help: Some(format!(
            "{others}`hilum why TARGET`, `hilum crash show TARGET` and `hilum logs TARGET` say more"
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ps::tests::instance;

    #[test]
    fn started_is_not_ready_and_backoff_is_not_failed() {
        let look =
            |state, ready| stand(&instance("web.1", state), ready, Sort::Service(Duration::ZERO));
        assert_eq!(look(State::Running, false), Stand::There);
        assert_eq!(look(State::Running, true), Stand::There);
        assert_eq!(look(State::Backoff, false), Stand::There);
        assert_eq!(look(State::Backoff, true), Stand::OnTheWay);
        assert_eq!(look(State::Failed, false), Stand::InVain);
        assert_eq!(look(State::Stopping, false), Stand::There);
        assert_eq!(look(State::Stopping, true), Stand::OnTheWay, "what becomes of it is open");
        assert_eq!(look(State::Starting, false), Stand::OnTheWay, "not executed yet");
        let mut young = instance("web.1", State::Running);
        young.ready = true;
        young.uptime = Some(0.5);
        let sort = Sort::Service(Duration::from_secs(1));
        assert_eq!(stand(&young, true, sort), Stand::OnTheWay, "it may end at once");
        assert_eq!(stand(&young, false, sort), Stand::There);
        young.uptime = Some(1.0);
        assert_eq!(stand(&young, true, sort), Stand::There);
        let mut starting = instance("web.1", State::Starting);
        starting.pid = Some(1);
        assert_eq!(stand(&starting, false, Sort::Service(Duration::ZERO)), Stand::There);
        assert_eq!(stand(&starting, true, Sort::Service(Duration::ZERO)), Stand::OnTheWay);
        assert_eq!(
            stand(&instance("j.1", State::Waiting), true, Sort::Scheduled),
            Stand::There,
            "its time will come"
        );
    }

    #[test]
    fn a_job_is_there_when_it_is_completed() {
        let mut job = instance("job.1", State::Running);
        job.ready = true;
        assert_eq!(stand(&job, true, Sort::Job), Stand::OnTheWay);
        assert_eq!(stand(&job, false, Sort::Job), Stand::There, "started, for `-d` alone");
        assert_eq!(stand(&job, true, Sort::Scheduled), Stand::There);
        job.state = State::Completed;
        assert_eq!(stand(&job, true, Sort::Job), Stand::There);
        job.state = State::Backoff;
        assert_eq!(stand(&job, true, Sort::Job), Stand::OnTheWay);
        job.exit = Some(hilum_shared::status::ExitStatus { code: Some(0), signal: None, at: 0.0 });
        assert_eq!(stand(&job, true, Sort::Job), Stand::There, "restarted always");
    }

    #[test]
    fn one_that_comes_in_vain_is_not_waited_for() {
        let mut one = instance("web.1", State::Waiting);
        assert_eq!(stand(&one, true, Sort::Service(Duration::ZERO)), Stand::OnTheWay);
        one.in_vain = Some("it waits for db.1 to be ready".into());
        assert_eq!(stand(&one, true, Sort::Service(Duration::ZERO)), Stand::InVain);
        one.state = State::Backoff;
        assert_eq!(stand(&one, true, Sort::Service(Duration::ZERO)), Stand::InVain);
        assert_eq!(
            stand(&one, false, Sort::Service(Duration::ZERO)),
            Stand::InVain,
            "it never was started"
        );
        let exit = hilum_shared::signal::Exit::Code(1);
        one.exit = Some(hilum_shared::status::ExitStatus::new(exit, 0.0));
        assert_eq!(
            stand(&one, false, Sort::Service(Duration::ZERO)),
            Stand::There,
            "`-d` alone does not ask for it"
        );
    }
}
