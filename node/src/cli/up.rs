//! `up`: start the cluster and stream its logs; in the foreground its end is ours, and the other way round.
//!
//! The node runs in the background in its own session, so that Ctrl-C comes to us alone. We hold a descriptor whose
//! closing tells the node that we are gone, however we ended.

mod foreground;
mod settle;

use std::time::Duration;

use hilum_shared::config::spec::Cluster;
use hilum_shared::protocol::control;

use super::exit::{CliError, ExitStatus, Outcome};
use super::interrupts::{Interrupt, Interrupts};
use super::last_word::verdict;
use super::lines::Feed;
use super::link::ANSWER;
use super::operation;
use super::output::printable;
use super::scale::{Count, count};
use super::session::Session;
use super::target::{Names, Selection};
use super::{ps, reload, time};

use self::foreground::Foreground;
use self::settle::settle;
use crate::daemon::launch::{self, Launched};

/// The words of `up`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum up                        everything; Ctrl-C stops it in order, a second one kills\n  \
    hilum up web                    one service and what it depends on\n  \
    hilum up -d --wait --timeout 1m in the background, when all is ready\n  \
    hilum up --scale web=5          another count than the config's\n\n\
    When the cluster runs already: apply what changed in the config, start what does not run (also what was\n\
    stopped by hand) and follow the logs; Ctrl-C then only detaches.")]
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
    /// With -d: return when all are ready (or have run for `restart.min_uptime`, where they have no readiness), and jobs completed
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
    /// End the cluster, and with an error, as soon as an instance has failed; also one that runs already
    #[arg(long)]
    abort_on_failure: bool,
}

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
    let launched = loop {
        if let Some(pid) = running(session)? {
            break Launched::AlreadyRunning { pid };
        }
        match launch::launch(&options)? {
            // of two commands at the same moment the other was faster: its node may not listen yet, or be refused
            Launched::AlreadyRunning { .. } => std::thread::sleep(TICK),
            started @ Launched::Started { .. } => break started,
        }
    };
    match launched {
        Launched::AlreadyRunning { pid } => {
            let operation = apply(session, args, &loaded.cluster)?;
            match &interrupts {
                None => {
                    let settled = settle(session, args, &selection, pid, begun)?;
                    if args.wait {
                        all_replaced(session, args, &selection, operation)?;
                    }
                    Ok(settled)
                }
                Some(interrupts) => follow(session, args, &selection, interrupts, pid, begun),
            }
        }
        Launched::Started { pid, owner, .. } => {
            for warning in &loaded.cluster.warnings {
                session.out.warn(warning);
            }
            match interrupts {
                None => settle(session, args, &selection, pid, begun),
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

/// The instances with which something is done now.
fn begun(accepted: &control::Accepted) -> Vec<String> {
    let begun = accepted.changed.iter().filter(|change| change.result.is_none());
    begun.filter_map(|change| change.instance.as_ref().map(ToString::to_string)).collect()
}

/// Whether all that the change replaced has held, and nothing was rolled back.
fn all_replaced(
    session: &Session,
    args: &UpArgs,
    selection: &Selection,
    operation: u64,
) -> Result<(), CliError> {
    let what = "all to be replaced";
    let outcome =
        operation::wait(session, &session.node()?, operation, selection, args.timeout, what)?;
    let text = |change: &control::Change| {
        let result = change.result.as_deref().filter(|result| operation::is_bad(result))?;
        let reason = change.reason.as_deref().unwrap_or("no reason is known");
        Some(format!("`{}` {result}: {}", change.instance.as_ref()?, printable(reason)))
    };
    let bad: Vec<String> = outcome.changed.iter().filter_map(text).collect();
    if bad.is_empty() {
        return Ok(());
    }
    Err(CliError::Failed {
        message: bad.join("\n       "),
        help: Some("`hilum why TARGET` and `hilum logs TARGET` say more".into()),
    })
}

/// Brings a running node to the config as it is now, and starts what was asked for. The answer is the number of the change.
fn apply(session: &Session, args: &UpArgs, cluster: &Cluster) -> Result<u64, CliError> {
    let node = session.node()?;
    session.out.note(&format!("a node (pid {}) runs already: applying what changed", node.pid));
    let changed: control::Reloaded =
        node.call("reload", &control::Reload { dry_run: false }, ANSWER)?;
    // the node's own reading, and what is odd in how this command reads it: its profiles
    let ours = cluster.warnings.iter().filter(|warning| !changed.warnings.contains(warning));
    for warning in changed.warnings.iter().chain(ours) {
        session.out.warn(warning);
    }
    let only_scaled = changed.plan.is_empty() && !args.scale.is_empty();
    if !session.out.json && !only_scaled {
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
        match begun(&accepted) {
            begun if begun.is_empty() => session.out.note("nothing to scale"),
            begun => session.out.note(&format!("scaling: {}", ps::list(&begun))),
        }
    }
    let start = |targets| -> Result<(), CliError> {
        let order = control::Targets { targets, deps: !args.no_deps, rolling: false, grace: None };
        let accepted: control::Accepted = node.call("start", &order, ANSWER)?;
        operation::accepted(session.out, &accepted);
        let begun = begun(&accepted);
        if args.targets.is_empty() && !begun.is_empty() {
            session.out.note(&format!("starting what did not run: {}", ps::list(&begun)));
        }
        Ok(())
    };
    start(args.targets.clone())?;
    if args.targets.is_empty() {
        let chosen = chosen(cluster, &session.profiles());
        if !chosen.is_empty() {
            start(chosen)?;
        }
    }
    if args.abort_on_failure {
        // last: what had failed and was started just now is not failed any more
        let () = node.call("abort_on_failure", &control::AbortOnFailure {}, ANSWER)?;
    }
    Ok(changed.operation)
}

/// The services of the profiles that this `up` names: the node may have been started with others.
fn chosen(cluster: &Cluster, profiles: &[String]) -> Vec<String> {
    let of_a_profile = cluster.services.values().filter(|service| {
        let own = &service.policy.profiles;
        service.policy.autostart && own.iter().any(|one| profiles.contains(one))
    });
    of_a_profile.map(|service| service.name.to_string()).collect()
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
            return verdict(session, pid, begun);
        }
    }
}
