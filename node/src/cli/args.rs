//! What may be written on the command line: the global options and the verbs. The words of a verb are in its own file;
//! no verb knows this one.

use std::any::TypeId;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueHint};

use super::options::Common;
use super::{
    check, completions, config, control, crash, discover, doctor, down, emit, env, events, exec,
    init, inspect, instance, list, loglevel, logs, ls, man, node, ps, reload, request, run, scale,
    shell, signal, subscribe, tail, top, up, wait, why,
};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "hilum",
    version,
    about = "Start a cluster of services, keep it up, scale it, stop it whole",
    long_about = "Start a cluster of services, keep it up, scale it, stop it whole.\n\n\
        The cluster is described by a file, `hilum.yml`, found in this folder or a parent.",
    after_help = "Examples:\n  \
        hilum init                 write a commented starter config\n  \
        hilum up                   start everything and stream its logs; Ctrl-C stops it\n  \
        hilum ps                   what runs\n  \
        hilum logs -f web          follow one service\n  \
        hilum why web.2            why it is in the state it is in\n\n\
        `hilum list` shows all commands with a line each, `hilum help COMMAND` one of them.",
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// Project folder: where the search for the config begins and where instances run
    ///
    /// Files given with `-c` stay relative to the current folder.
    #[arg(short = 'C', long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) directory: Option<PathBuf>,
    /// Tells apart several clusters that share one config
    #[arg(short, long, value_name = "NAME", value_parser = project_name)]
    pub(crate) project: Option<String>,
    /// Options that may stand before or after the command.
    #[command(flatten)]
    pub(crate) common: Common,
    /// The verb.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The verbs, in the order in which one meets them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a commented starter config
    Init(init::InitArgs),
    /// Validate a config: all errors at once, with file, line and column
    Check(check::CheckArgs),
    /// Start the cluster and stream its logs; when it runs already, apply what changed
    Up(up::UpArgs),
    /// Stop everything in reverse order of dependencies, then the node
    #[command(visible_alias = "quit")]
    Down(down::DownArgs),
    /// Show all instances and their state
    #[command(visible_alias = "status")]
    Ps(ps::PsArgs),
    /// Explain a state, and what happens next by itself
    Why(why::WhyArgs),
    /// Read the collected log, also when nothing runs
    Logs(logs::LogsArgs),
    /// Read what happened: starts, ends, restarts, scaling, reloads
    Events(events::EventsArgs),
    /// Follow log endpoints over the network: of this node, of services, of lymph's containers
    Tail(tail::TailArgs),
    /// Tell the services that something happened
    Emit(emit::EmitArgs),
    /// Show events as they are emitted; `*` is one word, `#` any number
    Subscribe(subscribe::SubscribeArgs),
    /// Show how something ended: exit, last lines, memory, restarts
    Crash(crash::CrashArgs),
    /// Live table of CPU, memory, restarts and heartbeats
    Top(top::TopArgs),
    /// Start instances and what they depend on
    Start(control::StartArgs),
    /// Stop instances; they stay stopped
    Stop(control::StopArgs),
    /// Restart instances with the config as it is now
    Restart(control::RestartArgs),
    /// Change how many processes a service has
    Scale(scale::ScaleArgs),
    /// Apply what changed in the config
    Reload(reload::ReloadArgs),
    /// Send a signal: `signal HUP web`
    Signal(signal::SignalArgs),
    /// Send a signal: `kill -s HUP web`
    Kill(signal::KillArgs),
    /// Wait until targets are ready, running, stopped, or have ended
    Wait(wait::WaitArgs),
    /// Run a one-off process of a service in this terminal
    Run(run::RunArgs),
    /// Run any command in a service's environment and folder
    Exec(exec::ExecArgs),
    /// Show which services are registered, in which versions, and where
    Discover(discover::DiscoverArgs),
    /// Show what can be called at an address, with its documentation
    Inspect(inspect::InspectArgs),
    /// Call a service and print the answer; with -N and -C measure how fast it is
    Request(request::RequestArgs),
    /// Call services from a prompt with completion, history and variables
    Shell(shell::ShellArgs),
    /// Change the log level of running services for a while
    ChangeLoglevel(loglevel::LoglevelArgs),
    /// Run one process of a service from its config
    Instance(instance::InstanceArgs),
    /// Run one process for a service's tasks from its config
    Worker(instance::WorkerArgs),
    /// Show the environment of a service, each value with its origin
    Env(env::EnvArgs),
    /// Show the config after includes, variables and defaults
    Config(config::ConfigArgs),
    /// The node in the foreground, for service managers
    Node(node::NodeArgs),
    /// Show every running project of this user
    Ls(ls::LsArgs),
    /// Find what is wrong with this machine or project, and how to mend it
    Doctor(doctor::DoctorArgs),
    /// Print the completion script of a shell
    Completions(completions::CompletionsArgs),
    /// Print the manual page
    Man(man::ManArgs),
    /// Show all commands with a line each
    List(list::ListArgs),
    /// The process above the node; started by `up`.
    #[command(name = "__keeper", hide = true)]
    Keeper {
        /// The node's options.
        options: String,
    },
    /// `run` and `exec` again, as the guard of what they run.
    #[command(name = "__oneoff", hide = true)]
    Oneoff {
        /// The pid of the command.
        command: u32,
        /// The command line, without the program's name.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<std::ffi::OsString>,
    },
    /// The node; started by the keeper.
    #[command(name = "__node", hide = true)]
    InnerNode {
        /// The node's options.
        options: String,
    },
}

/// The command line as clap sees it: with the global options also after every verb.
pub(crate) fn command() -> clap::Command {
    fn with_common(command: clap::Command) -> clap::Command {
        if command.get_name().starts_with("__") {
            return command;
        }
        Common::augment_args(command).mut_subcommands(with_common)
    }
    flowing(Cli::command().mut_subcommands(with_common).mut_subcommands(with_signs))
}

/// Lets the paragraphs behind the examples be wrapped by the terminal's width alone: where the source breaks their lines says nothing.
fn flowing(command: clap::Command) -> clap::Command {
    let command = command.mut_subcommands(flowing);
    let Some(text) = command.get_after_help().map(ToString::to_string) else { return command };
    let mut flowed = String::with_capacity(text.len());
    let mut in_paragraph = false;
    for line in text.lines() {
        let is_text = !line.is_empty() && !line.starts_with(' ');
        if !flowed.is_empty() {
            flowed.push(if in_paragraph && is_text { ' ' } else { '\n' });
        }
        flowed.push_str(line);
        in_paragraph = is_text;
    }
    command.after_help(flowed)
}

/// Lets options that take a number or a time see what begins with `-`, so that it is refused as their value and not as another option.
fn with_signs(command: clap::Command) -> clap::Command {
    fn is_measured(arg: &clap::Arg) -> bool {
        let kind = arg.get_value_parser().type_id();
        let measured = [
            TypeId::of::<Duration>(),
            TypeId::of::<u32>(),
            TypeId::of::<u16>(),
            TypeId::of::<f64>(),
        ];
        !arg.is_positional() && measured.iter().any(|one| kind == *one)
    }
    let hidden = command.get_name().starts_with("__");
    let command = command.mut_subcommands(with_signs);
    if hidden {
        return command;
    }
    command.mut_args(|arg| if is_measured(&arg) { arg.allow_hyphen_values(true) } else { arg })
}

/// Reads a command line, the program's name first.
///
/// # Errors
/// clap's error, which is also how help and version are asked for.
pub(crate) fn parse<I>(arguments: I) -> Result<Cli, clap::Error>
where
    I: IntoIterator,
    I::Item: Into<std::ffi::OsString> + Clone,
{
    let mut command = command();
    let mut words: Vec<std::ffi::OsString> = arguments.into_iter().map(Into::into).collect();
    signal_as_kill_has_it(&mut words);
    help_of_help(&mut words);
    let matches = command.try_get_matches_from_mut(words)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    let mut inner = matches.subcommand();
    while let Some((name, below)) = inner {
        if name.starts_with("__") {
            break;
        }
        cli.common.merge(Common::from_arg_matches(below)?);
        inner = below.subcommand();
    }
    Ok(cli)
}

/// `help --help` is `help help`, which clap would take for the name of a command.
fn help_of_help(words: &mut [std::ffi::OsString]) {
    if words.len() == 3 && words[1] == "help" && (words[2] == "--help" || words[2] == "-h") {
        words[2] = "help".into();
    }
}

/// `kill -9 web` and `kill -HUP web` are `kill -s 9 web` and `kill -s HUP web`, as fingers know it.
fn signal_as_kill_has_it(words: &mut Vec<std::ffi::OsString>) {
    let dashed =
        |word: &std::ffi::OsString| word.to_str().is_some_and(|word| word.starts_with('-'));
    // the verb is the first word that is neither an option nor an option's value
    let verb =
        (1..words.len()).find(|&at| !dashed(&words[at]) && (at == 1 || !dashed(&words[at - 1])));
    let Some(at) = verb.filter(|&at| words[at] == "kill").map(|at| at + 1) else { return };
    let signal = words.get(at).and_then(|word| word.to_str()?.strip_prefix('-'));
    let Some(signal) = signal.filter(|text| text.len() > 1 || text.parse::<u8>().is_ok()) else {
        return;
    };
    if signal.parse::<hilum_shared::signal::Signal>().is_ok() {
        let signal = signal.to_owned();
        words.splice(at..=at, ["-s".into(), signal.into()]);
    }
}

/// A name for `-p` becomes part of a file's name.
fn project_name(text: &str) -> Result<String, String> {
    hilum_shared::name::ServiceName::parse(text)
        .map(|name| name.as_str().to_owned())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::output::ColorChoice;
    use super::*;

    fn read(words: &str) -> Cli {
        parse(words.split(' ')).unwrap_or_else(|error| panic!("{words}: {error}"))
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_verb() {
        let cli = read("hilum -c a.yml -v ps -c b.yml --json -v");
        assert_eq!(cli.common.config, [PathBuf::from("a.yml"), PathBuf::from("b.yml")]);
        assert!(cli.common.json);
        assert_eq!(cli.common.verbose, 2);
        let cli = read("hilum crash show 7 --json -c c.yml");
        assert!(cli.common.json);
        assert_eq!(cli.common.config, [PathBuf::from("c.yml")]);
        let cli = read("hilum --color never ps --profile a,b --profile c");
        assert_eq!(cli.common.color, Some(ColorChoice::Never));
        assert_eq!(cli.common.profile, ["a", "b", "c"]);
        // As lymph has them.
        assert_eq!(read("hilum request echo.x --no-color").common.color(), ColorChoice::Never);
        assert_eq!(read("hilum request echo.x --color").common.color(), ColorChoice::Always);
        assert_eq!(read("hilum request --color -N 5 echo.x").common.color(), ColorChoice::Always);
    }

    #[test]
    fn folder_and_project_stand_before_the_verb_only() {
        let cli = read("hilum -C /srv -p blue ps");
        assert_eq!(cli.directory.as_deref(), Some(std::path::Path::new("/srv")));
        assert_eq!(cli.project.as_deref(), Some("blue"));
        assert!(parse(["hilum", "ps", "-C", "/srv"]).is_err());
        assert!(parse(["hilum", "-p", "../x", "ps"]).is_err());
    }

    #[test]
    fn aliases_are_the_same_verbs() {
        assert!(matches!(read("hilum status").command, Command::Ps(_)));
        assert!(matches!(read("hilum quit --now").command, Command::Down(_)));
        assert!(matches!(read("hilum kill -s HUP web").command, Command::Kill(_)));
        for signal in ["-9", "-KILL", "-SIGHUP", "-q -TERM"] {
            let words = format!("hilum -C /srv kill {signal} web.5");
            assert_eq!(parse(words.split(' ')).is_ok(), !signal.contains(' '), "{words}");
        }
        assert!(matches!(read("hilum kill -q web").command, Command::Kill(_)));
    }

    #[test]
    fn every_verb_has_examples_in_its_help() {
        fn check(command: &clap::Command) {
            for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
                let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
                if verb.get_name() != "help" && command.get_name() == "hilum" {
                    assert!(help.contains("Examples:\n"), "`{}` has no examples", verb.get_name());
                    assert!(verb.get_about().is_some(), "`{}` has no line", verb.get_name());
                }
            }
        }
        check(&command());
    }

    #[test]
    fn what_stands_behind_the_examples_is_wrapped_once() {
        let mut request = command().find_subcommand("request").unwrap().clone().term_width(60);
        let help = request.render_long_help().to_string();
        let lines: Vec<&str> =
            help.lines().skip_while(|line| !line.starts_with("Values")).collect();
        let (paragraph, _) = lines.split_at(lines.iter().position(|line| line.is_empty()).unwrap());
        let (last, full) = paragraph.split_last().unwrap();
        assert!(full.len() > 3 && !last.is_empty(), "{help}");
        for (line, next) in full.iter().zip(&paragraph[1..]) {
            let word = next.split(' ').next().unwrap();
            let with_next = line.chars().count() + 1 + word.chars().count();
            assert!(with_next > 60, "`{line}` has room for `{word}`");
        }
        assert!(help.contains("\n\nExit codes: "), "{help}");
    }

    #[test]
    fn the_words_of_children_are_not_ours() {
        let cli = read("hilum exec web -- sh -c ls --json");
        assert!(!cli.common.json);
        let Command::Exec(exec) = cli.command else {
            panic!("not exec");
        };
        assert_eq!(exec.command, ["sh", "-c", "ls", "--json"]);
    }
}
