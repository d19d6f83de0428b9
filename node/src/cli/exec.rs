//! `exec`: any command in a service's environment and folder, in this terminal.

use std::ffi::OsString;

use super::exit::Outcome;
use super::oneoff::Oneoff;
use super::session::Session;

/// The words of `exec`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum exec web -- env                 what its processes see\n  \
    hilum exec db.2 -- sh -c 'psql $URL'  of one instance, with its ports\n\n\
    It has the environment that the running node has, else this shell's. The exit code is the program's. What it leaves running is ended with it.")]
pub(crate) struct ExecArgs {
    /// A service, or an instance for its index and ports
    #[arg(value_name = "SERVICE", add = super::completions::services())]
    service: String,
    /// The command and its arguments
    #[arg(
        value_name = "CMD",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) command: Vec<OsString>,
}

/// Runs `exec`, as the guard of this command.
pub(crate) fn run(session: &Session, args: &ExecArgs, command: u32) -> Outcome {
    session.see_as_the_node()?;
    let loaded = session.config()?;
    Oneoff::of(session, loaded, &args.service)?.at_this_terminal().run(&args.command, command)
}
