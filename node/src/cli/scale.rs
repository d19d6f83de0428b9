//! `scale`: change process counts now, and in the file when asked to.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hilum_shared::config::{MAX_PROCESSES, OVERRIDE, edit};
use hilum_shared::protocol::control;
use hilum_shared::status::Snapshot;

use super::exit::{CliError, Outcome};
use super::link::ANSWER;
use super::operation;
use super::session::{Session, shown};
use super::target::{Selection, nearest};
use super::time;

/// `web=5`, `web=+2`, `web=-1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    /// Which service.
    pub(crate) service: String,
    /// How many, or how many more or fewer.
    pub(crate) count: i64,
    /// Whether it is added to the present count.
    pub(crate) relative: bool,
}

/// Reads a count.
pub(crate) fn count(text: &str) -> Result<Count, String> {
    let wrong = || format!("`{text}` is no count: write `SERVICE=5`, `SERVICE=+2` or `SERVICE=-1`");
    let (service, number) = text.split_once('=').ok_or_else(wrong)?;
    let service =
        hilum_shared::name::ServiceName::parse(service).map_err(|error| error.to_string())?;
    let relative = number.starts_with(['+', '-']);
    let count: i64 = number.parse().map_err(|_| wrong())?;
    if count.abs() > MAX_PROCESSES {
        return Err(format!("{count} is too many: at most {MAX_PROCESSES} processes of a service"));
    }
    Ok(Count { service: service.as_str().to_owned(), count, relative })
}

/// The words of `scale`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum scale web=5            five processes; the highest indexes go first\n  \
    hilum scale web=+2 api=-1    relative to what there is\n  \
    hilum scale web=5 --save     and write it into the config")]
pub(crate) struct ScaleArgs {
    /// What is wanted
    #[arg(value_name = "SERVICE=N", required = true, value_parser = count, add = super::completions::scales())]
    counts: Vec<Count>,
    /// Write `numprocesses` into the config, keeping its comments and layout
    #[arg(long)]
    save: bool,
    /// Return when the order is given
    #[arg(long)]
    no_wait: bool,
    /// Wait no longer than this (exit code 4)
    #[arg(long, value_name = "T", value_parser = time::duration)]
    timeout: Option<Duration>,
}

/// Runs `scale`.
pub(crate) fn run(session: &Session, args: &ScaleArgs) -> Outcome {
    let node = session.node()?;
    let snapshot = session.status(&node)?;
    let wanted = resolve(&args.counts, &snapshot)?;
    let order = control::Scale {
        changes: wanted
            .iter()
            .map(|(service, count)| control::ScaleTo {
                service: service.clone(),
                count: i64::from(*count),
                relative: false,
            })
            .collect(),
    };
    // Saved first: a node that sees the file changed and reads it now finds the count that is ordered next, never one that
    // was ordered before.
    let saved = if args.save { save(session, &wanted)? } else { Vec::new() };
    let begun: control::Accepted = node.call("scale", &order, ANSWER).inspect_err(|_| {
        for (path, text) in saved.iter().rev() {
            let _ = replace(path, text); // the error that is told is the node's
        }
    })?;
    let is_so = |(name, count): &(String, u32)| {
        snapshot.services.iter().any(|s| s.name.as_str() == name && s.count == *count)
    };
    if begun.changed.is_empty() && wanted.iter().all(is_so) && !session.out.json {
        session.out.note("nothing to scale");
    }
    let targets: Vec<String> = wanted.iter().map(|(service, _)| service.clone()).collect();
    let done = operation::finish(
        session,
        &node,
        begun,
        &Selection::of(&targets),
        args.no_wait,
        args.timeout,
        "the new count",
    )?;
    Ok(done)
}

/// The counts that are meant, several for one service applied in order.
fn resolve(counts: &[Count], snapshot: &Snapshot) -> Result<Vec<(String, u32)>, CliError> {
    let mut wanted: Vec<(String, u32)> = Vec::new();
    for one in counts {
        let Some(service) = snapshot.services.iter().find(|s| s.name.as_str() == one.service)
        else {
            let known: Vec<String> = snapshot.services.iter().map(|s| s.name.to_string()).collect();
            return Err(CliError::UnknownTarget {
                target: one.service.clone(),
                nearest: nearest(&one.service, &known),
                known,
            });
        };
        let at = wanted.iter().position(|(name, _)| *name == one.service);
        let now = i64::from(at.map_or(service.count, |at| wanted[at].1));
        let then = if one.relative { now + one.count } else { one.count };
        let Ok(then) = u32::try_from(then) else {
            return Err(CliError::usage(
                format!("`{}={:+}` would be below zero: there are {now}", one.service, one.count),
                format!("`{}=0` stops them all", one.service),
            ));
        };
        match at {
            Some(at) => wanted[at].1 = then,
            None => wanted.push((one.service.clone(), then)),
        }
    }
    Ok(wanted)
}

/// Writes the counts into the files that decide them; the answer is what was written over.
fn save(session: &Session, wanted: &[(String, u32)]) -> Result<Vec<(PathBuf, String)>, CliError> {
    let mut saved = Vec::new();
    for (service, count) in wanted {
        let one = save_one(session, service, *count).map_err(|error| CliError::Failed {
            message: format!("not saved, so not scaled: {error}"),
            help: error.help().or_else(|| Some(format!(
                "set `numprocesses: {count}` under `instances.{service}` by hand (or the variable that stands there), or leave out `--save`"
            ))),
        })?;
        let path = shown(&one.0);
        session.out.note(&format!("saved `numprocesses: {count}` of `{service}` in {path}"));
        saved.push(one);
    }
    Ok(saved)
}

fn save_one(session: &Session, service: &str, count: u32) -> Result<(PathBuf, String), CliError> {
    let project = session.project()?;
    let before = session.load(&project.configs, project.name.clone())?.map_err(CliError::Config)?;
    let mut why = None;
    for (path, text) in by_weight(&project.configs, &before.raw, service) {
        let new = match edit::set_numprocesses(text, service, count) {
            Ok(new) => new,
            // This file decides, and another one would not be heard.
            Err(error @ edit::EditError::Variable { .. }) => {
                return Err(CliError::failed(format!("{}: {error}", shown(path))));
            }
            Err(error) => {
                why.get_or_insert_with(|| CliError::Failed {
                    message: format!("{}: {error}", shown(path)),
                    help: error.help(),
                });
                continue;
            }
        };
        let write = |text: &str| {
            replace(path, text).map_err(|source| CliError::File {
                doing: "cannot write",
                path: path.clone(),
                source,
            })
        };
        write(&new)?;
        let after = session.load(&project.configs, project.name.clone())?;
        let now = after.as_ref().ok().and_then(|after| after.cluster.services.get(service));
        if now.map(|spec| spec.numprocesses) != Some(count) {
            write(text)?;
            after.map_err(CliError::Config)?;
            return Err(CliError::failed(format!(
                "{} would have it, but another file overrides it",
                shown(path)
            )));
        }
        return Ok((path.clone(), text.clone()));
    }
    Err(why.unwrap_or_else(|| CliError::failed("no file has it")))
}

/// The files, those that have the count of the service before those that do not, and of each those that win first: what
/// lies over another file before it, included ones last.
fn by_weight<'a>(
    configs: &[PathBuf],
    files: &'a [(PathBuf, String)],
    service: &str,
) -> Vec<&'a (PathBuf, String)> {
    let over = configs.first().map(|first| first.with_file_name(OVERRIDE));
    let weight = |path: &PathBuf| match configs.iter().position(|config| config == path) {
        Some(0) => 0,
        Some(at) => 2 + at as i64,
        None if Some(path) == over.as_ref() => 1,
        None => -1,
    };
    let mut files: Vec<_> = files.iter().collect();
    files
        .sort_by_cached_key(|(path, text)| (!edit::has_numprocesses(text, service), -weight(path)));
    files
}

/// Writes beside the file and renames, so that nobody ever reads half of it.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let written = fs::write(&new, text)
        .and_then(|()| fs::set_permissions(&new, fs::metadata(path)?.permissions()))
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new); // what is told is why it could not be written
    }
    written
}

#[cfg(test)]
mod tests {
    use super::super::exit::ExitStatus;
    use super::super::ps::tests::snapshot;
    use super::*;

    fn resolved(words: &[&str]) -> Result<Vec<(String, u32)>, CliError> {
        let counts: Vec<Count> = words.iter().map(|word| count(word).unwrap()).collect();
        resolve(&counts, &snapshot())
    }

    #[test]
    fn counts_are_absolute_or_relative() {
        assert_eq!(resolved(&["web=5"]).unwrap(), [("web".to_owned(), 5)]);
        assert_eq!(resolved(&["web=+2"]).unwrap(), [("web".to_owned(), 4)]);
        assert_eq!(resolved(&["web=-2"]).unwrap(), [("web".to_owned(), 0)]);
        assert_eq!(resolved(&["web=+1", "web=+1"]).unwrap(), [("web".to_owned(), 4)]);
    }

    #[test]
    fn below_zero_and_unknown_names_are_usage_errors() {
        let error = resolved(&["db=-2"]).unwrap_err();
        assert_eq!(error.status(), ExitStatus::Usage);
        assert_eq!(error.to_string(), "`db=-2` would be below zero: there are 1");
        assert_eq!(resolved(&["wbe=1"]).unwrap_err().status(), ExitStatus::Usage);
    }

    #[test]
    fn the_file_that_wins_is_edited_first() {
        let file = |name: &str| (PathBuf::from(format!("/srv/{name}")), String::new());
        let files =
            [file("common.yml"), file("hilum.yml"), file("hilum.override.yml"), file("b.yml")];
        let configs = [PathBuf::from("/srv/hilum.yml"), PathBuf::from("/srv/b.yml")];
        let order = |files: &[(PathBuf, String)]| -> Vec<String> {
            let files = by_weight(&configs, files, "web").into_iter();
            files.map(|(path, _)| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(order(&files), ["b.yml", "hilum.override.yml", "hilum.yml", "common.yml"]);
        let mut files = files;
        files[1].1 = "instances: {web: {numprocesses: 2}}".into();
        files[3].1 = "instances: {web: {command: x}, db: {numprocesses: 2}}".into();
        assert_eq!(order(&files)[0], "hilum.yml", "the value comes from there");
    }

    #[test]
    fn nonsense_is_refused_before_the_node_is_asked() {
        for bad in ["web", "web=", "web=x", "web=1.5", "=3", "a b=1", "web=999999999"] {
            assert!(count(bad).is_err(), "{bad}");
        }
    }
}
