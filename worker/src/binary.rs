//! The command line that every service's binary has: `instance`, `worker`, `inspect`, `--help`, `--version`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use hilum_shared::config::Diagnostics;
use hilum_shared::config::service::{self, Section, ServiceOptions};

use crate::component::Component;
use crate::container::{Classes, ComponentClass, Container, InterfaceClass, Overrides, snake};
use crate::interface::Interface;
use crate::log;
use crate::run::Builder;

mod describe;
mod reload;

use describe::{as_json, describe, describe_handlers, handler_as_json};
use reload::Program;

/// What a wrong command line or configuration ends with.
const USAGE: u8 = 2;

/// A program that holds interfaces and components; the configuration says which of them run. [`main!`](crate::main) makes it.
#[derive(Clone, Debug)]
pub struct Binary {
    version: &'static str,
    classes: Classes,
}

impl Binary {
    /// A program of this name, which is the first half of `class: "NAME:Type"`.
    pub fn new(name: impl Into<String>, version: &'static str) -> Self {
        let classes =
            Classes { binary: name.into(), interfaces: Vec::new(), components: Vec::new() };
        Self { version, classes }
    }

    /// With an interface.
    pub fn interface<T: Interface>(mut self) -> Self {
        self.classes.interfaces.push(InterfaceClass::of::<T>());
        self
    }

    /// With a component.
    pub fn component<T: Component>(mut self) -> Self {
        self.classes.components.push(ComponentClass::of::<T>());
        self
    }

    /// The whole `main` of a program: reads the command line and does what it says.
    pub fn main(self) -> ExitCode {
        self.run(std::env::args_os())
    }

    /// The same for a command line from elsewhere; the program's name comes first.
    pub fn run(self, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
        let matches = match self.command().try_get_matches_from(arguments) {
            Ok(matches) => matches,
            Err(error) => {
                let _ = error.print(); // a broken stderr changes nothing of the exit code
                return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
            }
        };
        match matches.subcommand() {
            Some(("instance", matches)) => self.instance(matches, false),
            Some(("worker", matches)) => self.instance(matches, true),
            Some(("inspect", matches)) => self.inspect(matches),
            _ => ExitCode::from(USAGE), // clap asks for one of them
        }
    }

    fn command(&self) -> Command {
        let config = Arg::new("config")
            .short('c')
            .long("config")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("The configuration [default: $LYMPH_CONFIG, else .lymph.yml where there is one]");
        let vars = Arg::new("vars")
            .long("vars")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("Variables for $(var.…) [default: $LYMPH_VARS]");
        let class = Arg::new("interface")
            .long("interface")
            .value_name("CLASS")
            .action(ArgAction::Append)
            .help("Run this interface (`Type` or `binary:Type`) under its own name, whatever the configuration names");
        let arguments = [
            config,
            vars,
            class,
            Arg::new("ip")
                .long("ip")
                .value_name("ADDRESS")
                .value_parser(value_parser!(IpAddr))
                .help("Listen on this address"),
            Arg::new("guess-external-ip")
                .short('g')
                .long("guess-external-ip")
                .action(ArgAction::SetTrue)
                .conflicts_with("ip")
                .help("Listen on the address that leads outside"),
            Arg::new("port")
                .short('p')
                .long("port")
                .value_name("PORT")
                .value_parser(value_parser!(u16))
                .help("Listen on this port [default: a free one]"),
            Arg::new("isolated")
                .short('i')
                .long("isolated")
                .action(ArgAction::SetTrue)
                .help("Register nowhere: only who knows the address can call"),
            Arg::new("reload")
                .long("reload")
                .action(ArgAction::SetTrue)
                .help("Start anew when the program's file is another one: by itself, or by the node that it is under"),
            Arg::new("debug")
                .long("debug")
                .action(ArgAction::SetTrue)
                .conflicts_with("loglevel")
                .help("As `--loglevel DEBUG`"),
            Arg::new("loglevel")
                .long("loglevel")
                .value_name("LEVEL")
                .value_parser(log::level_word)
                .help("Log from this level on: DEBUG, INFO, WARNING, ERROR [default: $RUST_LOG, else `logging` of the configuration, else INFO]"),
            Arg::new("logfile")
                .long("logfile")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Append to this file what is logged to stderr"),
        ];
        let instance = Command::new("instance")
            .about("Runs the interfaces of the configuration until it is told to stop")
            .args(&arguments);
        let worker = Command::new("worker")
            .about("Works on the tasks of the configuration's interfaces, and on nothing else, until it is told to stop")
            .args(&arguments);
        let inspect = Command::new("inspect")
            .about("Shows the methods of this program's interfaces; needs no network")
            .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("As JSON"))
            .arg(Arg::new("name").value_name("INTERFACE").help("Only this one"));
        let names: Vec<&str> = self.classes.interfaces.iter().map(|class| class.name).collect();
        Command::new(self.classes.binary.clone())
            .version(self.version)
            .about(format!("A service on hilum; it holds {}", names.join(", ")))
            .after_help(service::MARK)
            .subcommand_required(true)
            .arg_required_else_help(true)
            .subcommands([instance, worker, inspect])
    }

    fn instance(&self, matches: &ArgMatches, tasks: bool) -> ExitCode {
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
        let folder = match std::env::current_dir() {
            Ok(folder) => folder,
            Err(error) => return complain(&format!("error: the current folder: {error}\n")),
        };
        let options = ServiceOptions { config: path("config"), vars: path("vars"), folder, env };
        let overrides = Overrides {
            ip: matches.get_one::<IpAddr>("ip").copied(),
            guess_external_ip: matches.get_flag("guess-external-ip"),
            port: matches.get_one::<u16>("port").copied(),
            isolated: matches.get_flag("isolated"),
        };
        let only: Vec<String> =
            matches.get_many("interface").into_iter().flatten().cloned().collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return complain(&format!("error: starting: {error}\n")),
        };
        let program = matches.get_flag("reload").then(Program::of_this_process);
        let level = match (matches.get_one::<String>("loglevel"), matches.get_flag("debug")) {
            (Some(level), _) => Some(level.clone()),
            (None, true) => Some("debug".to_owned()),
            (None, false) => None,
        };
        let code = runtime.block_on(async {
            let made = service::load(&options).and_then(|config| {
                let levels = log::levels_of(&config.get("logging"))?;
                Ok((self.container(&config, &overrides, &options.env, &only)?, levels))
            });
            let (container, levels) = match made {
                Ok((container, levels)) if tasks => (container.tasks(), levels),
                Ok(made) => made,
                Err(problems) => return complain(&rendered(&problems)),
            };
            if tasks && container.is_empty() {
                let text = "error: no interface of the configuration has tasks\nhelp: methods with `#[task]` are tasks\n";
                return complain(text);
            }
            let mut builder = Builder::new().levels(levels, level);
            if let Some(path) = path("logfile") {
                match OpenOptions::new().create(true).append(true).open(&path) {
                    Ok(file) => builder = builder.log_file(file),
                    Err(error) => {
                        let text = format!("error: cannot write {}: {error}\n", path.display());
                        return complain(&text);
                    }
                }
            }
            let watched = program.clone();
            builder
                .run(|worker| async move {
                    if let Some(program) = watched {
                        program.watch(worker.clone());
                    }
                    container.run(worker).await
                })
                .await
        });
        // What is spawned ends before the process becomes another.
        drop(runtime);
        match program.filter(Program::is_to_run) {
            Some(program) => complain(&format!("error: cannot start anew: {}\n", program.run())),
            None => code,
        }
    }

    /// What a configuration makes of this program.
    ///
    /// # Errors
    /// With what is wrong in it, where it stands.
    pub fn container(
        &self,
        config: &Section,
        overrides: &Overrides,
        env: &BTreeMap<String, String>,
        only: &[String],
    ) -> Result<Container, Diagnostics> {
        Container::from_config(&self.classes, config, overrides, env, only)
    }

    fn inspect(&self, matches: &ArgMatches) -> ExitCode {
        let wanted = matches.get_one::<String>("name");
        let mut out = Vec::new();
        let mut found = Vec::new();
        for class in &self.classes.interfaces {
            let name = snake(class.name);
            if wanted.is_some_and(|wanted| wanted != class.name && *wanted != name) {
                continue;
            }
            found.push(serde_json::json!({
                "name": name,
                "class": format!("{}:{}", self.classes.binary, class.name),
                "methods": class.methods.iter().map(|method| as_json(&name, method)).collect::<Vec<_>>(),
                "handlers": class.handlers.iter().map(|it| handler_as_json(&name, it)).collect::<Vec<_>>(),
            }));
            describe(&mut out, &name, class.methods);
            describe_handlers(&mut out, &name, class.handlers);
        }
        if let (true, Some(wanted)) = (found.is_empty(), wanted) {
            let names: Vec<String> =
                self.classes.interfaces.iter().map(|class| snake(class.name)).collect();
            return complain(&format!(
                "error: no interface `{wanted}`; there is {}\n",
                names.join(", ")
            ));
        }
        if matches.get_flag("json") {
            out = serde_json::to_vec_pretty(&serde_json::json!({ "interfaces": found }))
                .unwrap_or_default();
            out.push(b'\n');
        }
        // A reader that has gone wants no more.
        let _ = std::io::stdout().lock().write_all(&out);
        ExitCode::SUCCESS
    }
}

fn rendered(problems: &Diagnostics) -> String {
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    problems.render(color)
}

fn complain(text: &str) -> ExitCode {
    // A broken stderr changes nothing of the exit code.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
    ExitCode::from(USAGE)
}

/// The `main` of a program that holds these interfaces, and, after a semicolon, these components:
/// `hilum_worker::main!(Echo, Demo; Pool);`
#[macro_export]
macro_rules! main {
    ($($interface:ty),+ $(,)? $(; $($component:ty),+ $(,)?)?) => {
        fn main() -> ::std::process::ExitCode {
            let name = match option_env!("CARGO_BIN_NAME") {
                Some(name) => name,
                None => env!("CARGO_PKG_NAME"),
            };
            $crate::Binary::new(name, env!("CARGO_PKG_VERSION"))
                $(.interface::<$interface>())+
                $($(.component::<$component>())+)?
                .main()
        }
    };
}
