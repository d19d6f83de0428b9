//! The log store as the verbs read it: where it is, whose names it knows, following it.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hilum_shared::name::InstanceId;

use super::exit::CliError;
use super::session::Session;
use super::target::{Names, Selection};
use crate::daemon::log_pointer;
use crate::log::console::{Console, Look};
use crate::log::follow::{Followed, Follower};
use crate::log::query::{Entry, Filter, QueryError, Reader, Start, Target};
use crate::log::record::Stream;

/// How the console calls the node's own records.
const NODE: &str = "hilum";
/// So many records are written before signals are looked at again.
const AT_ONCE: usize = 10_000;

/// The log folder: where the node that runs, or ran last, has written, else where the config says that one will.
pub(crate) fn dir(session: &Session) -> Result<PathBuf, CliError> {
    let project = session.project()?;
    let pointer = log_pointer(&project.state);
    match std::fs::read(&pointer) {
        Ok(path) => return Ok(PathBuf::from(OsString::from_vec(path))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => {
            return Err(CliError::File { doing: "cannot read", path: pointer, source });
        }
    }
    let usual = project.state.logs();
    if usual.is_dir() {
        return Ok(usual);
    }
    let set = session.config()?.cluster.logs.dir.as_ref();
    Ok(set.map_or(usual, |dir| project.folder.join(dir)))
}

/// The error of a question to the store.
pub(crate) fn unreadable(error: QueryError) -> CliError {
    let QueryError::Read { path, source } = error;
    CliError::File { doing: "cannot read the log in", path, source }
}

/// The store's predicate for what is chosen. The node's own records belong to no target.
pub(crate) fn target(selection: &Selection) -> Option<Target> {
    if selection.is_all() {
        return None;
    }
    let selection = selection.clone();
    Some(Arc::new(move |service: &str, instance: Option<&str>| {
        match instance.and_then(|id| InstanceId::parse(id).ok()) {
            Some(id) => selection.instance(&id),
            None => selection.service(service),
        }
    }))
}

/// Checks targets against config, node and store, so that what was removed from the config can still be read.
pub(crate) fn select(session: &Session, targets: &[String]) -> Result<Selection, CliError> {
    if targets.is_empty() {
        return Ok(Selection::default());
    }
    let mut names = session.names();
    let dir = dir(session)?;
    for target in targets {
        remember(&mut names, &dir, target);
    }
    names.check(targets).map_err(|error| match error {
        CliError::UnknownTarget { target, .. } if target == NODE => CliError::usage(
            format!("unknown target `{target}`: what the node itself says belongs to no target"),
            "`hilum logs --stream node` shows it",
        ),
        error => error,
    })
}

/// Adds the name of a record that `target` means, when the store has one.
fn remember(names: &mut Names, dir: &std::path::Path, one: &String) {
    if names.check(std::slice::from_ref(one)).is_ok() {
        return;
    }
    let filter =
        Filter { target: target(&Selection::of(std::slice::from_ref(one))), ..Filter::default() };
    let Ok(mut found) = Reader::open(dir, filter, Start::Tail(1)) else {
        return;
    };
    let mut entry = Entry::default();
    if !matches!(found.read(&mut entry), Ok(true)) {
        return;
    }
    if let Some(id) = entry.instance.as_deref().and_then(|id| InstanceId::parse(id).ok()) {
        names.add_instance(&id);
    } else if let Some(service) = &entry.service {
        names.add_service(service, 0);
    }
}

/// The last line that an instance wrote.
pub(crate) fn last_line(session: &Session, id: &InstanceId) -> Option<String> {
    let filter = Filter {
        instance: Some(id.to_string()),
        streams: vec![Stream::Out, Stream::Err, Stream::Log],
        ..Filter::default()
    };
    let mut reader = Reader::open(&dir(session).ok()?, filter, Start::Tail(1)).ok()?;
    let mut entry = Entry::default();
    if !reader.read(&mut entry).ok()? {
        return None;
    }
    let text = String::from_utf8_lossy(&entry.text);
    // of a traceback the last line says what it was
    text.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
}

/// How records look, for this output.
pub(crate) fn console(session: &Session, prefix: bool, times: bool) -> Console {
    let width = session.config().map_or(0, |loaded| {
        let services = loaded.cluster.services.values();
        let names = services.map(|one| one.name.as_str().len() + 1 + digits(one.numprocesses));
        names.max().unwrap_or(0)
    });
    Console::new(Look { color: session.out.paint.on(), prefix, times, width })
}

fn digits(number: u32) -> usize {
    number.max(1).ilog10() as usize + 1
}

/// The lines of a cluster from a moment on, for `up`.
pub(crate) struct Feed {
    follower: Follower,
    console: Console,
    entry: Entry,
}

impl Feed {
    /// What `selection` writes from `since` (Unix seconds) on.
    pub(crate) fn since(
        session: &Session,
        selection: &Selection,
        since: f64,
    ) -> Result<Self, CliError> {
        let filter = Filter {
            target: target(selection),
            since: Some((since.max(0.0) * 1e6) as u64),
            ..Filter::default()
        };
        let follower = Follower::open(&dir(session)?, filter, Start::All).map_err(unreadable)?;
        Ok(Self { follower, console: console(session, true, false), entry: Entry::default() })
    }

    /// Prints what has come, without waiting. `before` is called before the first line of it.
    pub(crate) fn pump(&mut self, session: &Session, before: &dyn Fn()) -> Result<(), CliError> {
        let mut stream = None;
        let mut text = Vec::new();
        for _ in 0..AT_ONCE {
            let came = self.follower.next(&mut self.entry, Some(Duration::ZERO), None);
            if came.map_err(unreadable)? == Followed::Quiet {
                break;
            }
            let stream = stream.get_or_insert_with(|| {
                before();
                session.out.stream()
            });
            if session.out.json {
                stream.json(&crate::log::json::to_json(&self.entry))?;
            } else {
                text.clear();
                self.console.render(&self.entry, &mut text);
                super::output::written(stream.write_all(&text))?;
            }
        }
        match stream {
            Some(mut stream) => stream.flush(),
            None => Ok(()),
        }
    }
}
