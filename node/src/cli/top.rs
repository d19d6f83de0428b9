//! `top`: a live table of CPU, memory, restarts and heartbeat age.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{execute, queue};
use hilum_shared::status::{InstanceStatus, Snapshot};
use hilum_shared::units::{Bytes, format_size};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::exit::{CliError, ExitStatus, Outcome};
use super::interrupts::Interrupts;
use super::output::{Style, written};
use super::session::Session;
use super::table::{Align, Table, cut, terminal_width};
use super::target::Names;
use super::{ps, time};

/// The words of `top`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum top              keys: c CPU, m memory, r restarts, h heartbeat, n name, q quit\n  \
    hilum top web -n 1s    one service, looked at every second\n  \
    hilum top --json       one look for programs")]
pub(crate) struct TopArgs {
    /// Services, instances or globs; none = all
    #[arg(value_name = "TARGET", add = super::completions::targets())]
    targets: Vec<String>,
    /// Between two looks
    #[arg(short = 'n', long, value_name = "T", default_value = "2s", value_parser = time::duration)]
    interval: Duration,
    /// What comes first
    #[arg(long, value_enum, default_value = "name")]
    sort: Sort,
}

/// What a table is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Sort {
    /// Service and index.
    Name,
    /// CPU, the most first.
    Cpu,
    /// Memory, the most first.
    Memory,
    /// Restarts, the most first.
    Restarts,
    /// Heartbeat age, the oldest first.
    Heartbeat,
}

/// Statistics need two samples; so long after the first the second is there.
const SECOND_SAMPLE: Duration = Duration::from_millis(500);

/// Runs `top`.
pub(crate) fn run(session: &Session, args: &TopArgs) -> Outcome {
    let node = session.node()?;
    let mut names = Names::default();
    names.add_snapshot(&session.status(&node)?);
    let selection = names.check(&args.targets)?;
    let look = |sort: Sort| -> Result<Snapshot, CliError> {
        let mut snapshot = session.status(&node)?;
        snapshot.instances.retain(|one| selection.instance(&one.instance));
        arrange(&mut snapshot.instances, sort);
        Ok(snapshot)
    };
    if session.out.json || !session.out.screen {
        std::thread::sleep(SECOND_SAMPLE);
        let snapshot = look(args.sort)?;
        if session.out.json {
            session.out.json(&snapshot)?;
        } else {
            session.out.text(&table(&snapshot.instances).render(session.out.paint))?;
        }
        return Ok(ExitStatus::Done);
    }
    let interrupts = Interrupts::listen()?;
    let mut sort = args.sort;
    let mut snapshot = look(sort)?;
    let screen = Screen::open()?;
    let mut looked = Instant::now();
    loop {
        draw(session, &snapshot, sort)?;
        let rest = args.interval.max(SECOND_SAMPLE).saturating_sub(looked.elapsed());
        // short, so that SIGTERM and SIGHUP are seen soon
        if screen.closes_within(rest.min(Duration::from_millis(200)))? {
            return Ok(ExitStatus::Done);
        }
        while event::poll(Duration::ZERO).map_err(CliError::Output)? {
            if let Event::Key(key) = event::read().map_err(CliError::Output)?
                && key.kind != KeyEventKind::Release
            {
                let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
                match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(ExitStatus::Done),
                    KeyCode::Char('c') if ctrl => return Ok(ExitStatus::Done),
                    KeyCode::Char('c') => sort = Sort::Cpu,
                    KeyCode::Char('m') => sort = Sort::Memory,
                    KeyCode::Char('r') => sort = Sort::Restarts,
                    KeyCode::Char('h') => sort = Sort::Heartbeat,
                    KeyCode::Char('n') => sort = Sort::Name,
                    _ => {}
                }
            }
            arrange(&mut snapshot.instances, sort);
        }
        if interrupts.wait(Duration::ZERO).is_some() {
            return Ok(ExitStatus::Done);
        }
        if looked.elapsed() >= args.interval.max(SECOND_SAMPLE) {
            snapshot = look(sort)?;
            looked = Instant::now();
        }
    }
}

/// The terminal while the table is on it; given back when dropped, also by a panic.
struct Screen {
    /// Where its keys come from.
    keys: OwnedFd,
}

impl Screen {
    fn open() -> Result<Self, CliError> {
        let stdin = io::stdin();
        let keys = if stdin.is_terminal() {
            stdin.as_fd().try_clone_to_owned()
        } else {
            File::open("/dev/tty").map(OwnedFd::from)
        };
        let keys = keys.map_err(CliError::Output)?;
        enable_raw_mode().map_err(CliError::Output)?;
        let screen = Self { keys };
        written(execute!(io::stdout(), EnterAlternateScreen, Hide))?;
        Ok(screen)
    }

    /// Waits for a key, no longer than this; `true` when the terminal was closed, from which crossterm would read for ever.
    fn closes_within(&self, limit: Duration) -> Result<bool, CliError> {
        let mut fds = [PollFd::new(self.keys.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO);
        match poll(&mut fds, limit) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(false),
            Err(error) => return Err(CliError::Output(error.into())),
        }
        let closed = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        Ok(fds[0].revents().is_some_and(|found| found.intersects(closed)))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // best effort: nobody could be told of a failure
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

fn draw(session: &Session, snapshot: &Snapshot, sort: Sort) -> Result<(), CliError> {
    let columns = terminal_width();
    let rows = crossterm::terminal::size().map_or(0, |(_, rows)| usize::from(rows));
    // a terminal that nobody has told its size says 0
    let rows = if rows == 0 { 24 } else { rows };
    let paint = session.out.paint;
    let mut lines = vec![cut(&summary(snapshot, sort), columns)];
    lines.extend(table(&snapshot.instances).lines(paint, Some(columns)));
    let hidden = (lines.len() + 1).saturating_sub(rows);
    lines.truncate(rows.saturating_sub(1));
    let more = match hidden {
        0 => String::new(),
        n => format!("   {n} more below"),
    };
    let keys = format!("c CPU  m memory  r restarts  h heartbeat  n name  q quit{more}");
    lines.push(paint.paint(Style::Dim, &cut(&keys, columns)));
    let mut out = io::stdout().lock();
    let mut text = || -> io::Result<()> {
        queue!(out, MoveTo(0, 0))?;
        for (row, line) in lines.iter().enumerate() {
            queue!(out, MoveTo(0, row as u16), Clear(ClearType::CurrentLine))?;
            write!(out, "{line}")?;
        }
        queue!(out, Clear(ClearType::FromCursorDown))?;
        out.flush()
    };
    written(text())
}

fn summary(snapshot: &Snapshot, sort: Sort) -> String {
    let running = snapshot.instances.iter().filter(|one| one.pid.is_some()).count();
    // nothing sums up to -0
    let cpu = 0.0 + snapshot.instances.iter().filter_map(|one| one.cpu_percent).sum::<f64>();
    let rss: u64 = snapshot.instances.iter().filter_map(|one| one.rss_bytes).sum();
    let by = match sort {
        Sort::Name => "name",
        Sort::Cpu => "CPU",
        Sort::Memory => "memory",
        Sort::Restarts => "restarts",
        Sort::Heartbeat => "heartbeat age",
    };
    format!(
        "{}: {running} of {} running, {cpu:.1}% CPU, {}, up {}, by {by}",
        snapshot.project,
        snapshot.instances.len(),
        format_size(Bytes(rss)),
        time::seconds(snapshot.node.uptime)
    )
}

fn arrange(instances: &mut [InstanceStatus], sort: Sort) {
    let down = |a: Option<f64>, b: Option<f64>| {
        b.unwrap_or(-1.0).partial_cmp(&a.unwrap_or(-1.0)).unwrap_or(Ordering::Equal)
    };
    instances.sort_by(|a, b| {
        let first = match sort {
            Sort::Name => Ordering::Equal,
            Sort::Cpu => down(a.cpu_percent, b.cpu_percent),
            Sort::Memory => b.rss_bytes.unwrap_or(0).cmp(&a.rss_bytes.unwrap_or(0)),
            Sort::Restarts => b.restarts.cmp(&a.restarts),
            Sort::Heartbeat => down(a.heartbeat_age, b.heartbeat_age),
        };
        first.then_with(|| a.instance.cmp(&b.instance))
    });
}

fn table(instances: &[InstanceStatus]) -> Table {
    let mut table = Table::new(&[
        ("INSTANCE", Align::Left),
        ("PID", Align::Right),
        ("STATE", Align::Left),
        ("CPU%", Align::Right),
        ("RSS", Align::Right),
        ("RESTARTS", Align::Right),
        ("HEARTBEAT", Align::Right),
        ("UPTIME", Align::Right),
        ("INFO", Align::Left),
    ]);
    let dash = || "-".to_owned();
    for one in instances {
        table.row(vec![
            one.instance.to_string().into(),
            one.pid.map_or_else(dash, |pid| pid.to_string()).into(),
            ps::state_cell(one),
            one.cpu_percent.map_or_else(dash, |cpu| format!("{cpu:.1}")).into(),
            one.rss_bytes.map_or_else(dash, |rss| format_size(Bytes(rss))).into(),
            one.restarts.to_string().into(),
            one.heartbeat_age.map_or_else(dash, time::seconds).into(),
            one.uptime.map_or_else(dash, time::seconds).into(),
            ps::info(one).into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::ps::tests::snapshot;
    use super::*;

    fn order(sort: Sort) -> Vec<String> {
        let mut all = snapshot().instances;
        arrange(&mut all, sort);
        all.iter().map(|one| one.instance.to_string()).collect()
    }

    #[test]
    fn the_greediest_come_first() {
        assert_eq!(order(Sort::Name), ["db.1", "web.1", "web.2", "worker.1"]);
        assert_eq!(order(Sort::Cpu)[0], "web.1");
        assert_eq!(order(Sort::Memory)[0], "web.1");
        assert_eq!(order(Sort::Restarts)[0], "web.2");
        assert_eq!(order(Sort::Heartbeat)[0], "web.1");
    }

    #[test]
    fn the_first_line_sums_up() {
        assert_eq!(
            summary(&snapshot(), Sort::Cpu),
            "shop: 2 of 4 running, 12.3% CPU, 45.0 MiB, up 3m20s, by CPU"
        );
    }
}
