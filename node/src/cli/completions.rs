//! `completions`: scripts for shells, which ask this program and so know the names of the running node.

use std::time::Duration;

use clap_complete::engine::{ArgValueCandidates, ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;
use hilum_shared::protocol::Level;
use hilum_shared::signal::Signal;

use super::caller::{self, CallerArgs};
use super::exit::{CliError, ExitStatus, Outcome};
use super::options::Common;
use super::output::{ColorChoice, Output, Surroundings};
use super::session::Session;
use crate::log::record::Stream;

/// The variable by which a script asks; its value is the shell.
const ASKED_BY: &str = "HILUM_COMPLETE";

/// A shell that has a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
    /// elvish
    Elvish,
    /// PowerShell
    Powershell,
}

/// The words of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    echo 'source <(hilum completions bash)' >> ~/.bashrc\n  \
    echo 'source <(hilum completions zsh)' >> ~/.zshrc\n  \
    hilum completions fish > ~/.config/fish/completions/hilum.fish\n  \
    hilum completions elvish >> ~/.config/elvish/rc.elv\n  \
    hilum completions powershell >> $PROFILE")]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// Runs `completions`.
pub(crate) fn run(session: &Session, args: &CompletionsArgs) -> Outcome {
    session.out.text(&script(args.shell)?)?;
    Ok(ExitStatus::Done)
}

fn script(shell: Shell) -> Result<String, CliError> {
    let name = match shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
        Shell::Elvish => "elvish",
        Shell::Powershell => "powershell",
    };
    let shells = Shells::builtins();
    let completer = shells.completer(name).ok_or_else(|| {
        CliError::failed(format!("no completion script for {name} in this build"))
    })?;
    let mut script = Vec::new();
    completer
        .write_registration(ASKED_BY, "hilum", "hilum", "hilum", &mut script)
        .map_err(CliError::Output)?;
    Ok(String::from_utf8_lossy(&script).into_owned())
}

/// Answers the script of a shell about this command line, when it is one that asks.
pub(crate) fn answer(command: fn() -> clap::Command) -> bool {
    if std::env::var_os(ASKED_BY).is_none() {
        return false;
    }
    let folder = std::env::current_dir().ok();
    clap_complete::CompleteEnv::with_factory(command)
        .var(ASKED_BY)
        .try_complete(std::env::args_os(), folder.as_deref())
        .unwrap_or(true)
}

/// Completes TARGET with services and instances.
pub(crate) fn targets() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &std::ffi::OsStr| candidates(typed, names(Wanted::Targets)))
}

/// Completes SERVICE.
pub(crate) fn services() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &std::ffi::OsStr| candidates(typed, names(Wanted::Services)))
}

/// Completes SERVICE=N.
pub(crate) fn scales() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &std::ffi::OsStr| {
        let services = names(Wanted::Services);
        candidates(typed, services.iter().map(|name| format!("{name}=")).collect())
    })
}

/// Completes a level of a record.
pub(crate) fn levels() -> ArgValueCandidates {
    let all = [Level::Debug, Level::Info, Level::Warning, Level::Error, Level::Critical];
    words(all.map(|level| level.as_str().to_ascii_lowercase()).into())
}

/// Completes a stream of the log.
pub(crate) fn streams() -> ArgValueCandidates {
    let all = [Stream::Out, Stream::Err, Stream::Log, Stream::Node];
    words(all.map(|stream| stream.as_str().to_owned()).into())
}

fn words(words: Vec<String>) -> ArgValueCandidates {
    ArgValueCandidates::new(move || words.iter().map(CompletionCandidate::new).collect())
}

/// Completes SIGNAL, with or without SIG.
pub(crate) fn signals() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &std::ffi::OsStr| {
        let sig = if typed.to_string_lossy().starts_with('S') { "SIG" } else { "" };
        let both = ["", sig].map(|sig| Signal::named().map(move |one| format!("{sig}{one}")));
        let mut names: Vec<String> = both.into_iter().flatten().collect();
        names.sort();
        names.dedup();
        candidates(typed, names)
    })
}

/// Completes the name of a service of the registry.
pub(crate) fn registered() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &std::ffi::OsStr| candidates(typed, names(Wanted::Registered)))
}

/// Completes ADDRESS.
pub(crate) fn addresses() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &std::ffi::OsStr| candidates(typed, names(Wanted::Addresses)))
}

/// Completes SUBJECT.
pub(crate) fn subjects() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &std::ffi::OsStr| {
        let subject = typed.to_string_lossy();
        candidates(typed, names(Wanted::Subjects(&subject)))
    })
}

#[derive(Clone, Copy)]
enum Wanted<'a> {
    Targets,
    Services,
    Registered,
    Addresses,
    Subjects(&'a str),
}

/// A shell waits no longer for names of services.
const PATIENCE: Duration = Duration::from_secs(2);

fn candidates(typed: &std::ffi::OsStr, names: Vec<String>) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    names
        .into_iter()
        .filter(|name| name.starts_with(typed.as_ref()))
        .map(CompletionCandidate::new)
        .collect()
}

/// The names of the cluster that the words typed so far mean.
fn names(wanted: Wanted<'_>) -> Vec<String> {
    let words: Vec<String> = std::env::args().collect();
    let after = |short: &str, long: &str| {
        words
            .iter()
            .position(|word| word == short || word == long)
            .and_then(|at| words.get(at + 1))
            .cloned()
    };
    let common = Common {
        config: after("-c", "--config").into_iter().map(Into::into).collect(),
        quiet: true,
        ..Common::default()
    };
    let out = Output::new(Surroundings::default(), ColorChoice::Never, false, true, 0);
    let directory = after("-C", "--directory").map(Into::into);
    let session = Session::new(out, common, directory, after("-p", "--project"));
    let known = |services: bool| {
        let names = session.names();
        if services { names.services().map(str::to_owned).collect() } else { names.all() }
    };
    match wanted {
        Wanted::Targets => known(false),
        Wanted::Services => known(true),
        asked => of_services(&session, asked),
    }
}

/// What the registry and the services say.
fn of_services(session: &Session, wanted: Wanted<'_>) -> Vec<String> {
    let mut found = Vec::new();
    // Whatever fails, there is nothing to complete then.
    let _ = caller::run(session, &CallerArgs::default(), async |caller| {
        let asked = async {
            match wanted {
                Wanted::Subjects(typed) => caller.subjects(typed, None).await,
                Wanted::Addresses => caller.addresses().await.into_iter().collect(),
                _ => caller.discover().await.unwrap_or_default().into_keys().collect(),
            }
        };
        found = tokio::time::timeout(PATIENCE, asked).await.unwrap_or_default();
        Ok(ExitStatus::Done)
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_has_a_script_that_asks_us() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::Powershell] {
            let script = script(shell).unwrap();
            assert!(script.contains("hilum") && script.contains(ASKED_BY), "{shell:?}: {script}");
        }
    }
}
