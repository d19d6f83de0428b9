//! The command line: one file per verb. It is a client of the node's interface `node`, and of services where it is told to
//! call them; logs, events and crashes are read from files.
//!
//! Services are called through [`caller`], which finds them by [`registry`].
//!
//! [`args`] says what may be written ([`options`] for all verbs), [`session`] which cluster is meant and how its node is reached, [`output`] is
//! the only place that prints, [`exit`] knows the codes.

use std::ffi::OsString;
use std::process::ExitCode;

use self::args::{Cli, Command};
use self::exit::{CliError, ExitStatus, Outcome};
use self::output::{ColorChoice, Output, Surroundings};
use self::session::Session;

mod args;
mod caller;
mod check;
mod completions;
mod config;
mod control;
mod crash;
mod discover;
mod doctor;
mod down;
mod emit;
mod env;
mod events;
mod exec;
mod exit;
mod farewell;
mod init;
mod inspect;
mod instance;
mod interrupts;
mod last_word;
mod lines;
mod link;
mod list;
mod loglevel;
mod logs;
mod ls;
mod man;
mod named;
mod node;
mod nodes;
mod oneoff;
mod operation;
mod options;
mod output;
mod pager;
mod process;
mod ps;
mod registry;
mod reload;
mod request;
mod run;
mod scale;
mod session;
mod shell;
mod signal;
mod subscribe;
mod table;
mod tail;
mod target;
mod time;
mod top;
mod up;
mod wait;
mod why;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    if completions::answer(args::command) {
        return ExitCode::SUCCESS;
    }
    run(std::env::args_os().collect(), None)
}

/// Runs one command line; `guarded` is the command whose guard this process is.
fn run(arguments: Vec<OsString>, guarded: Option<u32>) -> ExitCode {
    let cli = match args::parse(arguments.iter().cloned()) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, &arguments),
    };
    match cli.command {
        Command::Keeper { options } => return crate::daemon::keeper_main(&options),
        Command::InnerNode { options } => return crate::daemon::node_main(&options),
        Command::Oneoff { command, words } if guarded.is_none() => {
            let arguments = std::iter::once("hilum".into()).chain(words).collect();
            return run(arguments, Some(command));
        }
        _ => {}
    }
    let common = &cli.common;
    let out = Output::new(
        Surroundings::here(),
        common.color(),
        common.json,
        common.quiet,
        common.verbose,
    );
    let Cli { directory, project, common, command } = cli;
    let session = Session::new(out, common, directory, project);
    match dispatch(&session, command, guarded) {
        Ok(status) => status.into(),
        Err(error) => {
            out.error(&error);
            error.status().into()
        }
    }
}

fn dispatch(session: &Session, command: Command, guarded: Option<u32>) -> Outcome {
    match (command, guarded) {
        // all that is said about them is said by their guard
        (Command::Run(_) | Command::Exec(_), None) => oneoff::guard(),
        (Command::Run(args), Some(command)) => run::run(session, &args, command),
        (Command::Exec(args), Some(command)) => exec::run(session, &args, command),
        (command, _) => plain(session, command),
    }
}

fn plain(session: &Session, command: Command) -> Outcome {
    match command {
        Command::Init(args) => init::run(session, &args),
        Command::Check(args) => check::run(session, &args),
        Command::Up(args) => up::run(session, &args),
        Command::Down(args) => down::run(session, &args),
        Command::Ps(args) => ps::run(session, &args),
        Command::Why(args) => why::run(session, &args),
        Command::Logs(args) => logs::run(session, &args),
        Command::Events(args) => events::run(session, &args),
        Command::Tail(args) => tail::run(session, &args),
        Command::Emit(args) => emit::run(session, &args),
        Command::Subscribe(args) => subscribe::run(session, &args),
        Command::Crash(args) => crash::run(session, &args),
        Command::Top(args) => top::run(session, &args),
        Command::Start(args) => control::start(session, &args),
        Command::Stop(args) => control::stop(session, &args),
        Command::Restart(args) => control::restart(session, &args),
        Command::Scale(args) => scale::run(session, &args),
        Command::Reload(args) => reload::run(session, &args),
        Command::Signal(args) => signal::signal_verb(session, &args),
        Command::Kill(args) => signal::kill_verb(session, &args),
        Command::Wait(args) => wait::run(session, &args),
        Command::Discover(args) => discover::run(session, &args),
        Command::Inspect(args) => inspect::run(session, &args),
        Command::Request(args) => request::run(session, &args),
        Command::Shell(args) => shell::run(session, &args),
        Command::ChangeLoglevel(args) => loglevel::run(session, &args),
        Command::Instance(args) => instance::instance(session, &args),
        Command::Worker(args) => instance::worker(session, &args),
        Command::Env(args) => env::run(session, &args),
        Command::Config(args) => config::run(session, &args),
        Command::Node(args) => node::run(session, &args),
        Command::Ls(args) => ls::run(session, &args),
        Command::Doctor(args) => doctor::run(session, &args),
        Command::Completions(args) => completions::run(session, &args),
        Command::Man(words) => man::run(session, &words, args::command()),
        Command::List(words) => list::run(session, &words, args::command()),
        // dispatched before
        Command::Keeper { .. }
        | Command::InnerNode { .. }
        | Command::Oneoff { .. }
        | Command::Run(_)
        | Command::Exec(_) => Ok(ExitStatus::Usage),
    }
}

/// A command line that clap does not take: help and version are results, the rest are usage errors.
fn refuse(error: &clap::Error, arguments: &[std::ffi::OsString]) -> ExitCode {
    use clap::error::ErrorKind;
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let ours = arguments.iter().take_while(|word| *word != "--");
    let words: Vec<&std::ffi::OsString> = ours.clone().collect();
    let json = words.iter().any(|word| {
        ["--json", "-ojson", "-o=json", "--output=json"].iter().any(|form| *word == form)
    }) || words
        .windows(2)
        .any(|pair| ["-o", "--output"].iter().any(|option| pair[0] == option) && pair[1] == "json");
    let out = Output::new(Surroundings::here(), ColorChoice::Auto, json, false, 0);
    if asked {
        return match out.text(&error.render().to_string()) {
            Ok(()) => ExitStatus::Done.into(),
            Err(error) => error.status().into(),
        };
    }
    if json {
        let text = error.render().to_string();
        // the first paragraph: which arguments are missing stands below the first line
        let lines = text.trim_start_matches("error: ").lines().map(str::trim);
        let paragraph: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
        out.error(&CliError::Usage {
            message: paragraph.join(" "),
            help: Some("see `hilum help`".into()),
        });
    } else if out.paint_err.on() {
        out.say(error.render().ansi().to_string().trim_end());
    } else {
        out.say(error.render().to_string().trim_end());
    }
    ExitStatus::Usage.into()
}
