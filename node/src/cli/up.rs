//! `up`: start the cluster and stream its logs; in the foreground its end is ours, and the other way round.
//!
//! The node runs in the background in its own session, so that Ctrl-C comes to us alone. We hold a descriptor whose
//! closing tells the node that we are gone, however we ended.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hilum_shared::config::spec::Cluster;
use hilum_shared::protocol::control;
use hilum_shared::status::{Flag, InstanceStatus, Snapshot, State};
use serde::Deserialize;

use super::exit::{CliError, ExitStatus, Outcome};
use super::farewell::Farewell;
use super::interrupts::{Interrupt, Interrupts};
use super::lines::Feed;
use super::link::{ANSWER, Node};
use super::operation::{self, Display};
use super::scale::{Count, count};
use super::session::Session;
use super::target::{Names, Selection};
use super::{ps, reload, time};
use crate::daemon::launch::{self, Launched};

/// The words of `up`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum up                        everything; Ctrl-C stops it in order, a second one kills\n  \
    hilum up web                    one service and what it depends on\n  \
    hilum up -d --wait --timeout 1m in the background, when all is ready\n  \
    hilum up --scale web=5          another count than the config's\n\n\
    When the cluster runs already: apply what changed in the config and follow the logs; Ctrl-C then only detaches.")]
pub(crate) struct UpArgs {
    /// Services, instances or globs; none = all that start by themselves
    #[arg(value_name = "TARGET", add = super::completions::targets())]
    targets: Vec<String>,
    /// Return when all are started; the cluster goes on in the background
    #[arg(short, long)]
    detach: bool,
    /// Another process count than the config's
    #[arg(long, value_name = "S=N", value_parser = count, add = super::completions::scales())]
    scale: Vec<Count>,
    /// With -d: return when all are ready
    #[arg(long, requires = "detach")]
    wait: bool,
    /// With -d: wait no longer than this (exit code 4); the cluster goes on
    #[arg(long, value_name = "T", value_parser = time::duration, requires = "detach")]
    timeout: Option<Duration>,
    /// Do not stream logs
    #[arg(long)]
    no_logs: bool,
    /// Leave dependencies of TARGET alone
    #[arg(long)]
    no_deps: bool,
    /// End the cluster, and with an error, as soon as an instance has failed
    #[arg(long)]
    abort_on_failure: bool,
}

/// Why the cluster is stopped when nobody reads its logs any more; said to nobody, since a broken pipe ends silently.
const CLOSED: &str = "the output was closed";
/// Between two looks at logs and signals.
const TICK: Duration = Duration::from_millis(50);

/// Runs `up`.
pub(crate) fn run(session: &Session, args: &UpArgs) -> Outcome {
    let loaded = session.config()?;
    let selection = check_targets(&loaded.cluster, &args.targets, &args.scale)?;
    let interrupts = if args.detach { None } else { Some(Interrupts::listen()?) };
    let mut options = session.node_options()?;
    options.targets.clone_from(&args.targets);
    options.deps = !args.no_deps;
    options.scale = scales(&args.scale);
    options.detached = args.detach;
    options.abort_on_failure = args.abort_on_failure;
    let begun = time::now();
    // asked first: nobody starts a second keeper beside a living node, but for two commands at the same moment
    let launched = match running(session)? {
        Some(pid) => Launched::AlreadyRunning { pid },
        None => launch::launch(&options)?,
    };
    match launched {
        Launched::AlreadyRunning { pid } => {
            apply(session, args)?;
            match &interrupts {
                None => settle(session, args, &selection),
                Some(interrupts) => follow(session, args, &selection, interrupts, pid, begun),
            }
        }
        Launched::Started { pid, owner, .. } => {
            for warning in &loaded.cluster.warnings {
                session.out.warn(warning);
            }
            match interrupts {
                None => settle(session, args, &selection),
                Some(interrupts) => {
                    Foreground::new(session, args, &selection, pid, owner, begun)?.run(&interrupts)
                }
            }
        }
    }
}

/// The node that runs and will go on: one that is stopping is waited for.
fn running(session: &Session) -> Result<Option<u32>, CliError> {
    let mut told = false;
    loop {
        let Some(pid) = session.node_pid()? else { return Ok(None) };
        match session.node().and_then(|node| session.status(&node)) {
            Ok(snapshot) if !snapshot.node.stopping => return Ok(Some(pid)),
            Ok(_) if !told => {
                session.out.note(&format!("the node (pid {pid}) is stopping: waiting for its end"));
                told = true;
            }
            Ok(_) | Err(CliError::NotRunning { .. } | CliError::Gone { .. }) => {}
            Err(error) => return Err(error),
        }
        std::thread::sleep(TICK);
    }
}

/// Checks targets and counts against the config.
pub(crate) fn check_targets(
    cluster: &Cluster,
    targets: &[String],
    scale: &[Count],
) -> Result<Selection, CliError> {
    let mut names = Names::default();
    for service in cluster.services.values() {
        let counts = scale.iter().filter(|one| one.service == service.name.as_str());
        let more = counts.map(|one| one.count.max(0)).sum::<i64>();
        names.add_service(
            service.name.as_str(),
            service.numprocesses.saturating_add(u32::try_from(more).unwrap_or(0)),
        );
    }
    for one in scale {
        names.check(std::slice::from_ref(&one.service))?;
        let configured =
            cluster.services.get(one.service.as_str()).map_or(0, |s| i64::from(s.numprocesses));
        if one.relative && configured + one.count < 0 {
            return Err(CliError::usage(
                format!(
                    "`{}={:+}` would be below zero: the config says {configured}",
                    one.service, one.count
                ),
                format!("`{}=0` starts none", one.service),
            ));
        }
    }
    names.check(targets)
}

/// Counts as the node takes them.
pub(crate) fn scales(counts: &[Count]) -> Vec<(String, i64, bool)> {
    counts.iter().map(|one| (one.service.clone(), one.count, one.relative)).collect()
}

/// Brings a running node to the config as it is now, and starts what was asked for.
fn apply(session: &Session, args: &UpArgs) -> Result<(), CliError> {
    let node = session.node()?;
    session.out.note(&format!("a node (pid {}) runs already: applying what changed", node.pid));
    let changed: control::Reloaded =
        node.call("reload", &control::Reload { dry_run: false }, ANSWER)?;
    for warning in &changed.warnings {
        session.out.warn(warning);
    }
    if !session.out.json {
        reload::plan(session.out, &changed.plan)?;
    }
    if !args.scale.is_empty() {
        let changes = args
            .scale
            .iter()
            .map(|one| control::ScaleTo {
                service: one.service.clone(),
                count: one.count,
                relative: one.relative,
            })
            .collect();
        let accepted: control::Accepted =
            node.call("scale", &control::Scale { changes }, ANSWER)?;
        operation::accepted(session.out, &accepted);
    }
    if !args.targets.is_empty() {
        let order = control::Targets {
            targets: args.targets.clone(),
            deps: !args.no_deps,
            rolling: false,
            grace: None,
        };
        let accepted: control::Accepted = node.call("start", &order, ANSWER)?;
        operation::accepted(session.out, &accepted);
    }
    Ok(())
}

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
fn settle(session: &Session, args: &UpArgs, selection: &Selection) -> Outcome {
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
        if begun.elapsed() > Duration::from_millis(300) && display.due() {
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
    Err(CliError::Failed {
        message: named.join("\n       "),
        help: Some("the others run; `hilum why TARGET` and `hilum logs TARGET` say more".into()),
    })
}

/// Follows the logs of a cluster that is not ours.
fn follow(
    session: &Session,
    args: &UpArgs,
    selection: &Selection,
    interrupts: &Interrupts,
    pid: u32,
    begun: f64,
) -> Outcome {
    let mut feed = if args.no_logs { None } else { Some(Feed::since(session, selection, begun)?) };
    session.out.note("following its logs; Ctrl-C detaches, `hilum down` stops the cluster");
    let process = super::process::Process::find(pid);
    loop {
        if let Some(feed) = &mut feed {
            feed.pump(session, &|| {})?;
        }
        match interrupts.wait(TICK) {
            Some(Interrupt::Hup) => return Ok(ExitStatus::Done),
            Some(_) => {
                session.out.note("detached; the cluster goes on");
                return Ok(ExitStatus::Done);
            }
            None => {}
        }
        if !process.is_some_and(super::process::Process::lives) {
            if let Some(feed) = &mut feed {
                feed.pump(session, &|| {})?;
            }
            session.out.note("the cluster was stopped");
            return Ok(ExitStatus::Done);
        }
    }
}

/// A cluster whose life is ours.
struct Foreground<'a> {
    session: &'a Session,
    selection: &'a Selection,
    farewell: Option<Farewell<'a>>,
    node: Option<Node>,
    feed: Option<Feed>,
    display: Display,
    /// Closed by our end, whatever that is.
    owner: Option<OwnedFd>,
    began: f64,
    pid: u32,
    stage: Stage,
    silent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting,
    Running,
    Stopping,
    Killing,
}

impl<'a> Foreground<'a> {
    fn new(
        session: &'a Session,
        args: &UpArgs,
        selection: &'a Selection,
        pid: u32,
        owner: Option<OwnedFd>,
        began: f64,
    ) -> Result<Self, CliError> {
        let everything = Selection::default();
        let feed =
            if args.no_logs { None } else { Some(Feed::since(session, &everything, began)?) };
        Ok(Self {
            session,
            selection,
            farewell: Farewell::of(session, pid),
            node: session.node().ok(),
            feed,
            display: Display::new(session.out),
            owner,
            began,
            pid,
            stage: Stage::Starting,
            silent: false,
        })
    }

    fn run(mut self, interrupts: &Interrupts) -> Outcome {
        let mut output = Ok(());
        loop {
            if output.is_ok() {
                output = self.pump();
                // Nobody reads us any more: that is a stop, too, but never a second one.
                if output.is_err() && self.stage < Stage::Stopping {
                    self.stop(CLOSED)?;
                }
            }
            match interrupts.wait(TICK) {
                Some(Interrupt::Int) => self.stop("Ctrl-C")?,
                Some(Interrupt::Term) => self.stop("SIGTERM")?,
                Some(Interrupt::Hup) if self.stage < Stage::Stopping => {
                    self.stop("the terminal was closed")?;
                }
                Some(Interrupt::Hup) | None => {}
            }
            self.show();
            if self.farewell.as_ref().is_none_or(Farewell::over) {
                break;
            }
        }
        self.clear();
        if output.is_ok() {
            output = self.pump();
        }
        drop(self.owner.take());
        let survivors = self.farewell.as_ref().map(Farewell::survivors).unwrap_or_default();
        if !survivors.is_empty() {
            return Err(CliError::failed(format!(
                "these processes survived: {}",
                operation::survivors(&survivors)
            )));
        }
        match output {
            // that nobody reads us is no fault of the cluster
            Ok(()) | Err(CliError::Closed) => self.verdict(),
            Err(error) => Err(error),
        }
    }

    fn pump(&mut self) -> Result<(), CliError> {
        let Self { feed, display, farewell, session, .. } = self;
        let clear = || {
            display.clear();
            if let Some(farewell) = &*farewell {
                farewell.clear();
            }
        };
        match feed {
            Some(feed) => feed.pump(session, &clear),
            None => Ok(()),
        }
    }

    /// The first time in order, the second time by KILL.
    fn stop(&mut self, why: &str) -> Result<(), CliError> {
        self.clear();
        let out = self.session.out;
        self.silent |= why == CLOSED;
        let grace = match self.stage {
            Stage::Starting | Stage::Running => {
                if why != CLOSED {
                    out.note(&format!("stopping ({why}); Ctrl-C again kills"));
                }
                self.stage = Stage::Stopping;
                None
            }
            Stage::Stopping => {
                out.note("killing");
                self.stage = Stage::Killing;
                Some(0.0)
            }
            Stage::Killing => return Ok(()),
        };
        match &self.farewell {
            Some(farewell) => farewell.order(grace, why).map(drop),
            None => Ok(()),
        }
    }

    fn show(&mut self) {
        if matches!(self.stage, Stage::Stopping | Stage::Killing) {
            if let Some(farewell) = &mut self.farewell
                && !self.silent
            {
                farewell.look();
            }
            return;
        }
        if self.stage != Stage::Starting || !self.display.due() {
            return;
        }
        let Some(snapshot) = self.node.as_ref().and_then(|node| self.session.status(node).ok())
        else {
            return;
        };
        self.display.show(&snapshot, self.selection);
        let waiting = ps::chosen(&snapshot, self.selection)
            .any(|one| operation::waiting_text(one, Duration::ZERO).is_some());
        if !waiting {
            self.stage = Stage::Running;
            self.display.clear();
        }
    }

    fn clear(&self) {
        self.display.clear();
        if let Some(farewell) = &self.farewell {
            farewell.clear();
        }
    }

    /// What the node left as its last word.
    fn verdict(&self) -> Outcome {
        let state = &self.session.project()?.state;
        let path = state.path().join("exit");
        let fresh = std::fs::metadata(&path)
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok())
            // file systems round: a second is far below any node's life that matters
            .is_some_and(|at| at.as_secs_f64() >= self.began - 1.0);
        let last: Option<LastWord> = std::fs::read(&path)
            .ok()
            .filter(|_| fresh)
            .and_then(|text| serde_json::from_slice(&text).ok());
        match last {
            Some(last) => last.verdict(),
            None if matches!(self.stage, Stage::Stopping | Stage::Killing) => Ok(ExitStatus::Done),
            None => Err(CliError::Failed {
                message: format!(
                    "the node (pid {}) was killed; its keeper ended what it left",
                    self.pid
                ),
                help: Some("`hilum logs --stream node` shows its last words".into()),
            }),
        }
    }
}

impl PartialOrd for Stage {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (*self as u8).partial_cmp(&(*other as u8))
    }
}

/// The file `exit` of the state folder.
#[derive(Debug, Deserialize)]
struct LastWord {
    code: i32,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    service: Option<String>,
}

impl LastWord {
    fn verdict(self) -> Outcome {
        if self.code == 0 {
            return Ok(ExitStatus::Done);
        }
        let who = self.service.map_or_else(String::new, |service| format!("`{service}`: "));
        let why = self.reason.unwrap_or_else(|| "no reason given".into());
        Err(CliError::Failed {
            message: format!("the cluster ended by itself: {who}{why} (code {})", self.code),
            help: Some("`hilum crash` shows how it ended".into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ps::tests::{instance, snapshot};
    use super::*;

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

    #[test]
    fn a_cluster_that_ended_itself_says_whose_code_it_was() {
        let word: LastWord =
            serde_json::from_str(r#"{"code": 3, "reason": "exit 3", "service": "api"}"#).unwrap();
        let error = word.verdict().unwrap_err();
        assert_eq!(error.to_string(), "the cluster ended by itself: `api`: exit 3 (code 3)");
        assert_eq!(error.status(), ExitStatus::Failed);
        let word: LastWord =
            serde_json::from_str(r#"{"code": 0, "reason": "hilum down"}"#).unwrap();
        assert_eq!(word.verdict().unwrap(), ExitStatus::Done);
    }
}
