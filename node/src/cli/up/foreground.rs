//! `up` in the foreground: the logs, the way up, and the end, which is ours and the cluster's.

use std::os::fd::OwnedFd;
use std::time::Duration;

use super::{TICK, UpArgs};
use crate::cli::exit::{CliError, ExitStatus, Outcome};
use crate::cli::farewell::Farewell;
use crate::cli::interrupts::{Interrupt, Interrupts};
use crate::cli::last_word::{spoke, verdict};
use crate::cli::lines::Feed;
use crate::cli::link::Node;
use crate::cli::operation::{self, Display};
use crate::cli::ps;
use crate::cli::session::Session;
use crate::cli::target::Selection;

/// Why the cluster is stopped when nobody reads its logs any more; said to nobody, since a broken pipe ends silently.
const CLOSED: &str = "the output was closed";

/// A cluster whose life is ours.
pub(super) struct Foreground<'a> {
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Starting,
    Running,
    Stopping,
    Killing,
}

impl<'a> Foreground<'a> {
    pub(super) fn new(
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

    pub(super) fn run(mut self, interrupts: &Interrupts) -> Outcome {
        loop {
            self.stream()?;
            match interrupts.wait(TICK) {
                Some(Interrupt::Int) => self.stop("Ctrl-C")?,
                Some(Interrupt::Term) => self.stop("SIGTERM")?,
                Some(Interrupt::Hup) if self.stage < Stage::Stopping => {
                    self.stop("the terminal was closed")?;
                }
                Some(Interrupt::Hup) | None => {}
            }
            self.show();
            if let Some(farewell) = &self.farewell {
                farewell.mind_keeper(self.stage == Stage::Killing);
            }
            if self.farewell.as_ref().is_none_or(Farewell::over) {
                break;
            }
        }
        self.clear();
        self.stream()?;
        drop(self.owner.take());
        let survivors = self.farewell.as_ref().map(Farewell::survivors).unwrap_or_default();
        if !survivors.is_empty() {
            return Err(CliError::failed(format!(
                "these processes survived: {}",
                operation::survivors(&survivors)
            )));
        }
        match verdict(self.session, self.pid, self.began) {
            Err(_) if self.stage >= Stage::Stopping && !spoke(self.session, self.began) => {
                Ok(ExitStatus::Done)
            }
            verdict => verdict,
        }
    }

    /// Shows what has come. That nobody reads us any more is a stop, too, but never a second one, and no fault of the
    /// cluster.
    fn stream(&mut self) -> Result<(), CliError> {
        match self.pump() {
            Ok(()) => return Ok(()),
            Err(CliError::Closed) if self.stage < Stage::Stopping => self.stop(CLOSED)?,
            Err(CliError::Closed) => {}
            Err(error) => {
                let text = format!("{error}; the cluster goes on, its logs are not shown any more");
                self.session.out.warn(&text);
            }
        }
        self.feed = None;
        Ok(())
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
            if let Some(farewell) = &self.farewell
                && !self.silent
            {
                farewell.look();
            }
            return;
        }
        // elsewhere the logs tell it
        if self.stage != Stage::Starting || !self.session.out.live || !self.display.due() {
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
}
