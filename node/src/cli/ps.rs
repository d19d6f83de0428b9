//! `ps`: a row for each instance.

use hilum_shared::registry::Choice;
use hilum_shared::status::{Flag, InstanceStatus, ServiceStatus, Snapshot, State};
use hilum_shared::units::{Bytes, format_size};
use serde_json::json;
use std::fmt::Write as _;

use super::caller::{self, Caller, CallerArgs};
use super::exit::{CliError, ExitStatus, Outcome};
use super::link::Node;
use super::nodes::{self, Answer, Registered};
use super::output::{Style, printable};
use super::session::Session;
use super::table::{Align, Cell, Table, terminal_width};
use super::target::{Names, Selection};
use super::{ls, time};
use crate::log::account::causes;

/// The words of `ps`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum ps                    all instances\n  \
    hilum ps web 'db*'          some of them\n  \
    hilum ps --json | jq '.instances[] | select(.ready | not)'\n  \
    hilum ps --all-nodes        every node of the registry, else every project of this user\n\n\
    A node of the registry that does not answer has a row that says so, and the exit code stays 0; with `--json` it is in `unreachable`,\n\
    and one of lymph, which does not tell what it runs, in `others`. While the registry is away only the node here is shown, and\n\
    the exit code is 1.")]
pub(crate) struct PsArgs {
    /// Services, instances or globs; none = all
    #[arg(value_name = "TARGET", add = super::completions::targets())]
    targets: Vec<String>,
    /// Every node of the configured registry; with the node's own one all running projects of this user on this machine
    #[arg(long, conflicts_with = "targets")]
    all_nodes: bool,
}

/// Runs `ps`.
pub(crate) fn run(session: &Session, args: &PsArgs) -> Outcome {
    if args.all_nodes {
        // A broken file, or none, is no reason not to show what runs here.
        let choice = session.config().map(|config| config.cluster.container.registry.clone());
        return match choice {
            Ok(Choice::ZooKeeper(_)) => {
                caller::run(session, &CallerArgs::default(), async |caller| {
                    of_registry(caller).await
                })
            }
            _ => all_nodes(session),
        };
    }
    let node = session.node()?;
    let mut snapshot = session.status(&node)?;
    let mut names = Names::default();
    names.add_snapshot(&snapshot);
    let selection = names.check(&args.targets)?;
    snapshot.instances.retain(|one| selection.instance(&one.instance));
    snapshot.services.retain(|service| {
        selection.service(service.name.as_str())
            || snapshot.instances.iter().any(|one| one.service == service.name)
    });
    if session.out.json {
        session.out.json(&snapshot)?;
    } else {
        session.out.text(&shown(session, &snapshot))?;
        for warning in &snapshot.node.warnings {
            session.out.warn(warning);
        }
        if snapshot.node.stopping {
            session.out.note("the node is on its way down");
        }
    }
    Ok(ExitStatus::Done)
}

fn all_nodes(session: &Session) -> Outcome {
    let mut snapshots = Vec::new();
    for project in ls::running() {
        match Node::at(project.run_dir.clone(), project.pid).and_then(|node| session.status(&node))
        {
            Ok(snapshot) => snapshots.push(snapshot),
            Err(error) => session.out.warn(&format!("{}: {error}", project.config.display())),
        }
    }
    if session.out.json {
        session.out.json(&json!({ "nodes": snapshots }))?;
    } else if snapshots.is_empty() {
        session.out.note("no project of this user is running");
    } else {
        for (index, snapshot) in snapshots.iter().enumerate() {
            let heading = format!("{} ({})", snapshot.project, snapshot.config);
            let gap = if index == 0 { "" } else { "\n" };
            session
                .out
                .line(&format!("{gap}{}", session.out.paint.paint(Style::Bold, &heading)))?;
            session.out.text(&shown(session, snapshot))?;
        }
    }
    Ok(ExitStatus::Done)
}

/// Every node that is registered, and what it runs; those that do not answer with the reason. While the registry is away, the node
/// here, and the error.
async fn of_registry(caller: &Caller<'_>) -> Outcome {
    match nodes::ask(caller).await {
        Ok(nodes) => show_nodes(caller.session, &nodes).map(|()| ExitStatus::Done),
        Err(error) => {
            let here = nodes::here(caller.session);
            if !here.is_empty() {
                show_nodes(caller.session, &here)?;
            }
            Err(error)
        }
    }
}

fn show_nodes(session: &Session, nodes: &[Registered]) -> Result<(), CliError> {
    if session.out.json {
        let (mut answered, mut others, mut silent) = (Vec::new(), Vec::new(), Vec::new());
        for node in nodes {
            let entry = node.instance.as_ref();
            let about = entry.map(|entry| json!({"name": node.name, "endpoint": entry.endpoint}));
            match &node.answer {
                Answer::Runs(snapshot) => {
                    let mut one = json!(snapshot);
                    one["registered"] = json!(about);
                    answered.push(one);
                }
                Answer::Other(reason) => {
                    others.push(json!({"registered": about, "reason": reason}));
                }
                Answer::Silent(reason) => {
                    silent.push(json!({"registered": about, "reason": reason}));
                }
            }
        }
        session.out.json(&json!({"nodes": answered, "others": others, "unreachable": silent}))?;
    } else if nodes.is_empty() {
        session.out.note("no node is registered");
    } else {
        let node = [("NODE", Align::Left), ("PROJECT", Align::Left)];
        let columns: Vec<_> = node.iter().chain(COLUMNS).copied().collect();
        let mut table = Table::new(&columns);
        for node in nodes {
            let project = match &node.answer {
                Answer::Runs(snapshot) => printable(&snapshot.project).into_owned(),
                Answer::Other(_) | Answer::Silent(_) => "-".to_owned(),
            };
            let head = || [Cell::from(node.name.clone()), Cell::from(project.clone())].into_iter();
            let short = |what: Cell| {
                let dashes = (0..COLUMNS.len() - 1).map(|_| Cell::from("-"));
                head().chain(dashes).chain([what]).collect()
            };
            let said = |text: &str, style| Cell::styled(printable(text).into_owned(), style);
            match &node.answer {
                Answer::Runs(snapshot) if snapshot.services.is_empty() => {
                    table.row(short(said("no services", Style::Dim)));
                }
                Answer::Runs(snapshot) => {
                    for row in rows(snapshot) {
                        table.row(head().chain(row).collect());
                    }
                }
                Answer::Other(reason) => table.row(short(said(reason, Style::Dim))),
                Answer::Silent(reason) => table.row(short(said(reason, Style::Bad))),
            }
        }
        session.out.text(&table.render(session.out.paint))?;
        for node in nodes {
            let Answer::Runs(snapshot) = &node.answer else { continue };
            let warnings = snapshot.node.warnings.iter();
            warnings.for_each(|warning| session.out.warn(&format!("{}: {warning}", node.name)));
        }
    }
    Ok(())
}

/// The columns of `ps`.
const COLUMNS: &[(&str, Align)] = &[
    ("SERVICE", Align::Left),
    ("INSTANCE", Align::Left),
    ("PID", Align::Right),
    ("STATE", Align::Left),
    ("READY", Align::Left),
    ("RESTARTS", Align::Right),
    ("UPTIME", Align::Right),
    ("CPU%", Align::Right),
    ("RSS", Align::Right),
    ("HEARTBEAT", Align::Right),
    ("PORTS", Align::Left),
    ("INFO", Align::Left),
];

/// What a narrow terminal can do without, the least wanted first.
const SPARE: &[&str] = &["HEARTBEAT", "CPU%", "RSS", "PID", "PORTS", "UPTIME"];

/// The table as it fits the terminal; whole where the output is none.
fn shown(session: &Session, snapshot: &Snapshot) -> String {
    let (out, table) = (session.out, table(snapshot));
    if out.screen {
        table.fitted(out.paint, terminal_width(), SPARE)
    } else {
        table.render(out.paint)
    }
}

/// The table of a snapshot.
pub(crate) fn table(snapshot: &Snapshot) -> Table {
    let mut table = Table::new(COLUMNS);
    for row in rows(snapshot) {
        table.row(row);
    }
    table
}

fn rows(snapshot: &Snapshot) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    for service in &snapshot.services {
        let mut first = true;
        for one in snapshot.instances.iter().filter(|one| one.service == service.name) {
            let heading = if first { service_cell(service) } else { service.name.to_string() };
            first = false;
            rows.push(row(heading, one));
        }
        if first {
            let mut cells: Vec<Cell> = vec![service_cell(service).into()];
            cells.extend((1..COLUMNS.len() - 1).map(|_| Cell::from("-")));
            cells.push(Cell::styled("no processes wanted", Style::Dim));
            rows.push(cells);
        }
    }
    rows
}

/// `web`, or `web 5 (config 3)` where the count was changed by hand.
fn service_cell(service: &ServiceStatus) -> String {
    if service.count == service.configured {
        service.name.to_string()
    } else {
        format!("{} {} (config {})", service.name, service.count, service.configured)
    }
}

fn row(service: String, one: &InstanceStatus) -> Vec<Cell> {
    let dash = || "-".to_owned();
    vec![
        service.into(),
        one.instance.to_string().into(),
        one.pid.map_or_else(dash, |pid| pid.to_string()).into(),
        state_cell(one),
        ready_cell(one),
        if one.restarts == 0 {
            "0".into()
        } else {
            Cell::styled(one.restarts.to_string(), Style::Warn)
        },
        one.uptime.map_or_else(dash, time::seconds).into(),
        one.cpu_percent.map_or_else(dash, |cpu| format!("{cpu:.1}")).into(),
        one.rss_bytes.map_or_else(dash, |rss| format_size(Bytes(rss))).into(),
        one.heartbeat_age.map_or_else(dash, time::seconds).into(),
        ports(one).into(),
        info(one).into(),
    ]
}

/// The state with what is so besides: `running (paused)`.
pub(crate) fn state_text(one: &InstanceStatus) -> String {
    if one.flags.is_empty() {
        return one.state.as_str().to_owned();
    }
    let flags: Vec<&str> = one.flags.iter().map(|flag| flag_text(*flag)).collect();
    format!("{} ({})", one.state.as_str(), flags.join(", "))
}

fn flag_text(flag: Flag) -> &'static str {
    match flag {
        Flag::Paused => "paused",
        Flag::Stuck => "stuck",
        Flag::Starved => "starved",
        Flag::HeldBack => "held-back",
        Flag::LinesDropped => "lines-dropped",
        Flag::Removed => "removed",
        Flag::Outdated => "outdated",
    }
}

/// What is so of one that a reload did not reach.
pub(crate) const OUTDATED: &str = "runs the definition before the last reload";

/// How a state looks.
pub(crate) fn state_style(state: State) -> Style {
    match state {
        State::Running | State::Completed => Style::Good,
        State::Starting | State::Waiting | State::Stopping | State::Backoff => Style::Warn,
        State::Failed => Style::Bad,
        State::Stopped => Style::Dim,
    }
}

/// The cell of a state.
pub(crate) fn state_cell(one: &InstanceStatus) -> Cell {
    Cell::styled(state_text(one), state_style(one.state))
}

fn ready_cell(one: &InstanceStatus) -> Cell {
    match one.state {
        _ if one.ready => Cell::styled("yes", Style::Good),
        State::Starting | State::Running => Cell::styled("no", Style::Warn),
        _ => "-".into(),
    }
}

fn ports(one: &InstanceStatus) -> String {
    match one.ports.len() {
        0 => "-".into(),
        1 => one.ports.values().map(u16::to_string).collect(),
        _ => one
            .ports
            .iter()
            .map(|(name, port)| format!("{name}:{port}"))
            .collect::<Vec<_>>()
            .join(","),
    }
}

/// The program's own words while it runs well, else why it does not.
pub(crate) fn info(one: &InstanceStatus) -> String {
    let own = one.info.as_deref().unwrap_or_default();
    let mut text = match one.state {
        State::Running => match (&one.reason, one.ready) {
            (Some(reason), false) => reason.clone(),
            _ if one.flags.contains(&Flag::Outdated) => OUTDATED.to_owned(),
            _ if own.is_empty() => String::new(),
            _ => own.to_owned(),
        },
        State::Starting | State::Stopping if one.hook.is_some() => {
            let parts = [one.reason.clone(), hook(one)];
            parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
        }
        State::Waiting if !one.blocked_by.is_empty() => {
            format!("waits for {}", list(&one.blocked_by))
        }
        // What it says of itself tells more than what it has not said.
        State::Starting if !own.is_empty() => own.to_owned(),
        _ => one.reason.clone().unwrap_or_else(|| own.to_owned()),
    };
    if one.flags.contains(&Flag::LinesDropped) {
        if !text.is_empty() {
            text.push_str("; ");
        }
        let _ = write!(text, "lines dropped: {}", causes(&one.dropped_by)); // a String takes all
    }
    let step = match one.state {
        State::Backoff => Some("next try"),
        State::Waiting | State::Completed | State::Stopped => Some("runs next"),
        _ => None,
    };
    if let (Some(step), Some(next)) = (step, one.next_at) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        let _ = write!(text, "{step} in {}", time::seconds(next)); // a String takes all
    }
    printable(&text).into_owned()
}

/// "its hook before_stop has run for 3s".
pub(crate) fn hook(one: &InstanceStatus) -> Option<String> {
    let hook = one.hook.as_ref()?;
    Some(format!("its hook {} has run for {}", hook.name, time::seconds(hook.uptime)))
}

/// "a, b and 3 more".
pub(crate) fn list(names: &[String]) -> String {
    const MOST: usize = 3;
    let shown = names.iter().take(MOST).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Whether this instance is chosen and not at rest by the user's will.
pub(crate) fn chosen<'a>(
    snapshot: &'a Snapshot,
    selection: &'a Selection,
) -> impl Iterator<Item = &'a InstanceStatus> {
    snapshot.instances.iter().filter(|one| selection.instance(&one.instance))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::output::Painter;
    use super::*;
    use hilum_shared::name::{InstanceId, Run, ServiceName};
    use hilum_shared::status::{ExitStatus as End, NodeStatus};

    pub(crate) fn service(name: &str, count: u32, configured: u32) -> ServiceStatus {
        ServiceStatus {
            name: ServiceName::parse(name).unwrap(),
            count,
            configured,
            removed: false,
            job: false,
            description: None,
        }
    }

    pub(crate) fn instance(id: &str, state: State) -> InstanceStatus {
        let id = InstanceId::parse(id).unwrap();
        let running = state == State::Running;
        InstanceStatus {
            service: id.service.clone(),
            index: id.index,
            instance: id,
            pid: running.then_some(4711),
            state,
            ready: running,
            flags: vec![],
            run: Run(1),
            restarts: 0,
            uptime: running.then_some(192.0),
            exit: None,
            reason: None,
            next_at: None,
            info: None,
            cpu_percent: None,
            rss_bytes: None,
            heartbeat_age: None,
            ports: [].into(),
            labels: [].into(),
            blocked_by: vec![],
            in_vain: None,
            hook: None,
            dropped: 0,
            dropped_by: [].into(),
            missed_by: [].into(),
        }
    }

    pub(crate) fn snapshot() -> Snapshot {
        let mut web = instance("web.1", State::Running);
        web.cpu_percent = Some(12.34);
        web.rss_bytes = Some(45 << 20);
        web.heartbeat_age = Some(0.4);
        web.ports = [("http".to_owned(), 8080)].into();
        web.info = Some("3 requests\x1b[2J".into());
        let mut crashing = instance("web.2", State::Backoff);
        crashing.restarts = 3;
        crashing.reason = Some("exit 1 three times in 20s".into());
        crashing.next_at = Some(6.2);
        crashing.exit = Some(End { code: Some(1), signal: None, at: 0.0 });
        let mut waiting = instance("worker.1", State::Waiting);
        waiting.blocked_by = vec!["web.2 to be ready".into()];
        let mut paused = instance("db.1", State::Running);
        paused.flags = vec![Flag::Paused, Flag::LinesDropped];
        paused.dropped_by = [("disk".to_owned(), 3), ("rate".to_owned(), 12)].into();
        Snapshot {
            project: "shop".into(),
            config: "/srv/shop/hilum.yml".into(),
            node: NodeStatus {
                pid: 17,
                uptime: 200.0,
                version: "0.1.0".into(),
                ..NodeStatus::default()
            },
            services: vec![
                service("db", 1, 1),
                service("idle", 0, 0),
                service("web", 2, 3),
                service("worker", 1, 1),
            ],
            instances: vec![paused, web, crashing, waiting],
        }
    }

    #[test]
    fn the_table_shows_what_one_wants_to_know() {
        insta::assert_snapshot!(table(&snapshot()).render(Painter::plain()), @"
        SERVICE           INSTANCE   PID  STATE                            READY  RESTARTS  UPTIME  CPU%       RSS  HEARTBEAT  PORTS  INFO
        db                db.1      4711  running (paused, lines-dropped)  yes           0   3m12s     -         -          -  -      lines dropped: disk 3, rate 12
        idle              -            -  -                                -             -       -     -         -          -  -      no processes wanted
        web 2 (config 3)  web.1     4711  running                          yes           0   3m12s  12.3  45.0 MiB      400ms  8080   3 requests�[2J
        web               web.2        -  backoff                          -             3       -     -         -          -  -      exit 1 three times in 20s, next try in 6.2s
        worker            worker.1     -  waiting                          -             0       -     -         -          -  -      waits for web.2 to be ready
        ");
    }
}
