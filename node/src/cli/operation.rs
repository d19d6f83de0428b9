//! Waiting for an operation of the node, with a display of what it waits for, and saying how it went.

use std::cell::{OnceCell, RefCell};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use hilum_shared::protocol::control;
use hilum_shared::status::{Flag, InstanceStatus, Snapshot, State};

use super::exit::{CliError, ExitStatus, Outcome};
use super::link::Node;
use super::output::{Output, Style, printable};
use super::session::Session;
use super::target::Selection;
use super::{ps, time};

/// Between two looks at the state while something is waited for.
const LOOK: Duration = Duration::from_millis(250);
/// The same where each change is a line for good.
const LOOK_PLAIN: Duration = Duration::from_secs(1);
/// So many waiting instances are listed, the rest is counted.
const LISTED: usize = 8;

/// A display of what is waited for: redrawn on a terminal, a line for each change elsewhere, at most one a second.
pub(crate) struct Display {
    out: Output,
    /// Jobs are waited for until they are completed.
    jobs: bool,
    inner: RefCell<Inner>,
}

struct Inner {
    drawn: usize,
    looked: Option<Instant>,
    stopping: Vec<(String, Instant)>,
    said: String,
}

impl Display {
    /// One that shows nothing yet.
    pub(crate) fn new(out: Output) -> Self {
        Self::with_jobs(out, false)
    }

    /// The same; with `jobs` also of those that run, until they are completed.
    pub(crate) fn with_jobs(out: Output, jobs: bool) -> Self {
        let inner = Inner { drawn: 0, looked: None, stopping: Vec::new(), said: String::new() };
        Self { out, jobs, inner: RefCell::new(inner) }
    }

    /// Between two looks.
    pub(crate) fn pause(&self) -> Duration {
        if self.out.live { LOOK } else { LOOK_PLAIN }
    }

    /// Whether it is time for another look; never where nobody reads it.
    pub(crate) fn due(&self) -> bool {
        !self.out.json
            && !self.out.quiet
            && self.inner.borrow().looked.is_none_or(|at| at.elapsed() >= self.pause())
    }

    /// Shows what of `selection` is not there yet.
    pub(crate) fn show(&self, snapshot: &Snapshot, selection: &Selection) {
        let mut inner = self.inner.borrow_mut();
        inner.looked = Some(Instant::now());
        let stopping: Vec<(String, Instant)> = snapshot
            .instances
            .iter()
            .filter(|one| one.state == State::Stopping)
            .map(|one| {
                let name = one.instance.to_string();
                let since = inner.stopping.iter().find(|(known, _)| *known == name);
                let since = since.map_or_else(Instant::now, |(_, since)| *since);
                (name, since)
            })
            .collect();
        inner.stopping = stopping;
        let job = |one: &InstanceStatus| {
            self.jobs
                && one.state == State::Running
                && snapshot
                    .services
                    .iter()
                    .any(|service| service.job && service.name == one.service)
        };
        let mut waiting: Vec<&InstanceStatus> = ps::chosen(snapshot, selection)
            .filter(|one| job(one) || waiting_text(one, Duration::ZERO).is_some())
            .collect();
        // what the others wait for comes first
        waiting.sort_by_key(|one| one.state == State::Waiting);
        if !self.out.live {
            let texts: Vec<String> = waiting.iter().map(|one| plain_text(one, job(one))).collect();
            let hook = |one: &InstanceStatus| one.hook.as_ref().map(|hook| hook.name.clone());
            let who = waiting
                .iter()
                .map(|one| format!("{} {:?} {:?} ", one.instance, one.state, hook(one)));
            let who: String = who.collect(); // a time that runs down is no news
            if !texts.is_empty() && inner.said != who {
                self.out.note(&format!("waiting for: {}", ps::list(&texts)));
                inner.said = who;
            }
            return;
        }
        let mut lines = Vec::new();
        for one in waiting.iter().take(LISTED) {
            let since = inner
                .stopping
                .iter()
                .find(|(name, _)| *name == one.instance.to_string())
                .map_or(Duration::ZERO, |(_, since)| since.elapsed());
            let name = one.instance.to_string();
            let name = self.out.paint_err.paint(ps::state_style(one.state), &name);
            let text = if job(one) {
                let up = time::seconds(one.uptime.unwrap_or_default());
                format!("has run for {up}, not completed yet")
            } else {
                waiting_text(one, since).unwrap_or_default()
            };
            lines.push(format!("  {name} {text}"));
        }
        if waiting.len() > LISTED {
            lines.push(format!("  and {} more", waiting.len() - LISTED));
        }
        if !lines.is_empty() {
            let all = ps::chosen(snapshot, selection).count();
            let heading = format!("waiting for {} of {all}:", waiting.len());
            lines.insert(0, self.out.paint_err.paint(Style::Dim, &heading));
        }
        inner.drawn = self.out.redraw(inner.drawn, &lines);
    }

    /// Takes the display away, before other text is written.
    pub(crate) fn clear(&self) {
        let mut inner = self.inner.borrow_mut();
        if inner.drawn > 0 {
            self.out.redraw(inner.drawn, &[]);
            inner.drawn = 0;
            inner.looked = None;
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What is waited for, in a word: `db.1 (starting)`; of a stop when it will be killed.
fn plain_text(one: &InstanceStatus, job: bool) -> String {
    match one.state {
        State::Running if job => format!("{} (not completed)", one.instance),
        State::Stopping if one.flags.contains(&Flag::Stuck) => {
            format!("{} (survives SIGKILL)", one.instance)
        }
        State::Stopping => {
            let kill = one.next_at.map(|next| format!("kill in {}", time::seconds(next.ceil())));
            let parts: Vec<String> = ps::hook(one).into_iter().chain(kill).collect();
            if parts.is_empty() {
                return one.instance.to_string();
            }
            format!("{} ({})", one.instance, parts.join(", "))
        }
        State::Running => format!("{} (not ready)", one.instance),
        State::Starting => format!("{} (starting{})", one.instance, colon(one)),
        state => format!("{} ({})", one.instance, state.as_str()),
    }
}

/// The reason after a colon.
fn colon(one: &InstanceStatus) -> String {
    let reason = ps::hook(one).or_else(|| one.reason.clone());
    reason.map_or(String::new(), |reason| format!(": {reason}"))
}

/// What an instance is waited for, or nothing when it is where it should be.
pub(crate) fn waiting_text(one: &InstanceStatus, since: Duration) -> Option<String> {
    let text = match one.state {
        State::Waiting if one.blocked_by.is_empty() => {
            one.reason.clone().unwrap_or_else(|| "waits for its turn".into())
        }
        State::Waiting => format!("waits for {}", ps::list(&one.blocked_by)),
        State::Starting => match one.uptime {
            Some(up) => format!("started {} ago, not ready yet{}", time::seconds(up), colon(one)),
            None => format!("starting{}", colon(one)),
        },
        State::Running if !one.ready => format!("not ready{}", colon(one)),
        State::Backoff => ps::info(one),
        State::Stopping if one.flags.contains(&Flag::Stuck) => {
            "survives SIGKILL: stuck in the kernel".into()
        }
        State::Stopping => {
            let mut text = match (ps::hook(one), since.as_secs()) {
                (Some(hook), _) => hook,
                (None, 0) => "told to stop just now".to_owned(),
                (None, ago) => format!("told to stop {} ago", time::seconds(ago as f64)),
            };
            if let Some(next) = one.next_at {
                let _ = write!(text, ", kill in {}", time::seconds(next.ceil())); // a String takes all
            }
            text
        }
        _ => return None,
    };
    Some(printable(&text).into_owned())
}

/// Waits for an operation, with a display of what of `selection` it waits for.
///
/// # Errors
/// [`CliError::TimedOut`] after `timeout`.
pub(crate) fn wait(
    session: &Session,
    node: &Node,
    operation: u64,
    selection: &Selection,
    timeout: Option<Duration>,
    what: &str,
) -> Result<control::Outcome, CliError> {
    let display = Display::new(session.out);
    let looker = OnceCell::new();
    let begun = Instant::now();
    let look = || {
        // a short operation needs no display
        if begun.elapsed() > display.pause()
            && display.due()
            && let Some(looker) =
                looker.get_or_init(|| Node::at(node.run_dir.clone(), node.pid).ok())
            && let Ok(snapshot) = session.status(looker)
        {
            display.show(&snapshot, selection);
        }
        false
    };
    let answer = node.call_long("wait", &control::Wait { operation }, timeout, &look)?;
    answer.ok_or_else(|| CliError::TimedOut {
        what: what.to_owned(),
        after: time::seconds(timeout.unwrap_or_default().as_secs_f64()),
    })
}

/// Says how an operation went, and turns it into an exit code.
pub(crate) fn report(out: Output, outcome: &control::Outcome) -> Outcome {
    if out.json {
        out.json(&serde_json::json!({
            "changed": outcome.changed,
            "survivors": outcome.survivors,
        }))?;
    } else {
        for group in outcome.changed.chunk_by(is_alike) {
            if out.quiet && !group[0].result.as_deref().is_some_and(is_bad) {
                continue;
            }
            if group.len() < COLLAPSED {
                for change in group {
                    out.line(&change_line(out, change, &name_of(change)))?;
                }
            } else {
                let (first, last) = (&group[0], &group[group.len() - 1]);
                let who = format!("{} … {} ({})", name_of(first), name_of(last), group.len());
                out.line(&change_line(out, first, &who))?;
            }
        }
    }
    let failed = |change: &&control::Change| change.result.as_deref() == Some("failed");
    if let Some(bad) = outcome.changed.iter().find(failed)
        && let Some(id) = &bad.instance
    {
        out.note(&format!(
            "{} `hilum why {id}`, `hilum crash show {id}` and `hilum logs {id}` say more",
            out.paint_err.paint(Style::Help, "help:")
        ));
    }
    if !outcome.survivors.is_empty() {
        out.warn(&format!("these processes survived: {}", survivors(&outcome.survivors)));
    }
    Ok(if outcome.ok && outcome.survivors.is_empty() {
        ExitStatus::Done
    } else {
        ExitStatus::Failed
    })
}

/// "pid 17 (sleep 1000), pid 18 (…)".
pub(crate) fn survivors(pids: &[u32]) -> String {
    pids.iter()
        .map(|pid| match super::process::command_of(*pid) {
            Some(command) => format!("pid {pid} ({command})"),
            None => format!("pid {pid}"),
        })
        .collect::<Vec<_>>()
        .join(", ")
}

/// Whether what was asked for was not done.
pub(crate) fn is_bad(result: &str) -> bool {
    matches!(result, "failed" | "kept" | "superseded")
}

/// From so many instances of one service on that fared alike, one line tells it of all.
const COLLAPSED: usize = 9;

fn is_alike(a: &control::Change, b: &control::Change) -> bool {
    let service = |change: &control::Change| change.instance.as_ref().map(|id| id.service.clone());
    (service(a), &a.action, &a.result, &a.reason) == (service(b), &b.action, &b.result, &b.reason)
}

fn name_of(change: &control::Change) -> String {
    change.instance.as_ref().map_or_else(|| "cluster".to_owned(), ToString::to_string)
}

fn change_line(out: Output, change: &control::Change, who: &str) -> String {
    let what = change.result.as_deref().unwrap_or(&change.action);
    let style = match what {
        "failed" => Style::Bad,
        "killed" | "superseded" | "pending" | "kept" => Style::Warn,
        "unchanged" => Style::Dim,
        _ if what.starts_with("not sent") => Style::Warn,
        _ => Style::Good,
    };
    let mut line = format!("{who}  {}", out.paint.paint(style, what));
    if let Some(reason) = &change.reason {
        let _ = write!(line, ": {}", printable(reason)); // a String takes all
    }
    line
}

/// What a started operation is told, before it is waited for.
pub(crate) fn accepted(out: Output, accepted: &control::Accepted) {
    for note in &accepted.notes {
        out.note(&format!("{} {note}", out.paint_err.paint(Style::Help, "note:")));
    }
}

/// Waits unless the user does not want to, and reports.
pub(crate) fn finish(
    session: &Session,
    node: &Node,
    begun: control::Accepted,
    selection: &Selection,
    no_wait: bool,
    timeout: Option<Duration>,
    what: &str,
) -> Outcome {
    accepted(session.out, &begun);
    let outcome = if no_wait || begun.operation == 0 {
        let mut changed = begun.changed;
        if no_wait {
            for change in &mut changed {
                change.result.get_or_insert_with(|| "pending".to_owned());
            }
        }
        control::Outcome { changed, survivors: Vec::new(), ok: true }
    } else {
        wait(session, node, begun.operation, selection, timeout, what)?
    };
    report(session.out, &outcome)
}

#[cfg(test)]
mod tests {
    use super::super::ps::tests::instance;
    use super::*;
    use hilum_shared::status::Hook;

    #[test]
    fn what_is_waited_for_says_how_long_and_what_comes_then() {
        let mut one = instance("x.2", State::Stopping);
        one.next_at = Some(2.6);
        assert_eq!(
            waiting_text(&one, Duration::from_millis(7300)).unwrap(),
            "told to stop 7s ago, kill in 3s"
        );
        one.hook = Some(Hook { name: "before_stop".into(), uptime: 3.2 });
        let text = waiting_text(&one, Duration::from_millis(7300)).unwrap();
        assert_eq!(text, "its hook before_stop has run for 3.2s, kill in 3s");
        let text = plain_text(&one, false);
        assert_eq!(text, "x.2 (its hook before_stop has run for 3.2s, kill in 3s)");
        one.next_at = None;
        assert_eq!(plain_text(&one, false), "x.2 (its hook before_stop has run for 3.2s)");
        one.flags = vec![Flag::Stuck];
        assert!(waiting_text(&one, Duration::ZERO).unwrap().contains("SIGKILL"));
        let mut one = instance("x.2", State::Waiting);
        one.blocked_by = vec!["db.1 to be ready".into()];
        assert_eq!(waiting_text(&one, Duration::ZERO).unwrap(), "waits for db.1 to be ready");
        assert_eq!(waiting_text(&instance("x.2", State::Running), Duration::ZERO), None);
        assert_eq!(waiting_text(&instance("x.2", State::Failed), Duration::ZERO), None);
    }
}
