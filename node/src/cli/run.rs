//! `run`: a service's own command, once more, in this terminal.

use std::ffi::OsString;

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
    words.extend(args.arguments.iter().cloned());
    oneoff.run(&words, command)
}
