//! `run`: a service's own command, once more, in this terminal.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::exit::Outcome;
use super::oneoff::Oneoff;
use super::session::Session;

/// The words of `run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum run web                    its command with its environment, folder and limits\n  \
    hilum run web -- --port 9000     with more arguments\n  \
    hilum exec web -- sh             another program in its place\n\n\
    It has the environment that the running node has, else this shell's. It is not supervised and not counted, and as a worker it has no node; the exit code is the program's. What it leaves running is ended with it.")]
pub(crate) struct RunArgs {
    /// A service, or an instance for its index and ports
    #[arg(value_name = "SERVICE", add = super::completions::services())]
    service: String,
    /// Added to the command of the config
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<OsString>,
}

/// Runs `run`, as the guard of this command.
pub(crate) fn run(session: &Session, args: &RunArgs, command: u32) -> Outcome {
    session.see_as_the_node()?;
    let loaded = session.config()?;
    let oneoff = Oneoff::of(session, loaded, &args.service)?.at_this_terminal();
    let mut words = oneoff.command()?;
    if !args.arguments.is_empty() && ignores_arguments(&words) {
        session.out.warn(&format!(
            "a shell reads the command of `{0}`, which uses no arguments: those given here have no effect; `hilum exec {0} -- CMD` runs another command in its place",
            args.service
        ));
    }
    words.extend(args.arguments.iter().cloned());
    oneoff.run(&words, command)
}

/// Whether this is a shell's text (`shell: true`) that names neither `$0`, `$1`, … nor `$@`.
fn ignores_arguments(words: &[OsString]) -> bool {
    let [shell, option, text, ..] = words else { return false };
    let shell = Path::new(shell).file_name();
    let is_shell = ["sh", "bash", "dash"].iter().any(|name| shell == Some(OsStr::new(name)));
    let text = text.to_string_lossy();
    let uses = text.split('$').skip(1).any(|rest| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        rest.starts_with(|c: char| c.is_ascii_digit() || "@*#".contains(c))
    });
    is_shell && option == "-c" && !uses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_a_shell_would_not_use_are_told_from_those_it_does() {
        let ignores = |words: &[&str]| {
            ignores_arguments(&words.iter().map(OsString::from).collect::<Vec<_>>())
        };
        assert!(ignores(&["/bin/sh", "-c", "echo $X | cat"]));
        assert!(ignores(&["bash", "-c", "echo"]));
        for text in ["exec web \"$@\"", "echo ${1:-x}", "$0"] {
            assert!(!ignores(&["/bin/sh", "-c", text]), "{text}");
        }
        assert!(!ignores(&["./web", "-c", "file"]));
        assert!(!ignores(&["sh", "script"]));
    }
}
