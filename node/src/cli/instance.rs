//! `instance` and `worker`: one process of a service, run from its configuration.
//!
//! The program is the first half of `class: 'binary:Type'`. It is looked for beside the configuration, then among what cargo built
//! (`$CARGO_TARGET_DIR`, `target/` of the configuration's folder and of those above it; of `debug` and `release` the newer one), then in
//! PATH; this process becomes it. A program on `hilum-worker` has the same commands itself, and the one in PATH must be one: there, a name
//! like `echo` or `test` is somebody else's.

use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use hilum_shared::config::service::{self, Section, ServiceOptions};

use super::exit::{CliError, Outcome};
use super::session::Session;

/// The words of `instance`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum instance -c conf/echo.yml                 with `class: 'echo:Echo'`, the program is `echo`\n  \
    hilum instance -c conf/echo.yml -p 4444 -g      at this port, reachable from outside\n  \
    hilum instance --interface echo:Echo -i         one interface, registered nowhere\n\n\
    The configuration is `-c FILE`, else $LYMPH_CONFIG, else `.lymph.yml` in this folder. The program that its classes name\n\
    (`class: 'binary:Type'`) is looked for beside it, then in $CARGO_TARGET_DIR and `target/` of its folder and of those above it (of\n\
    `debug` and `release` the newer one), then, if it is a program on `hilum-worker`, in PATH. `PROGRAM instance` is the same.")]
pub(crate) struct InstanceArgs {
    #[command(flatten)]
    words: Words,
}

/// The words of `worker`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum worker -c conf/jobs.yml            works on the tasks of its interfaces\n  \
    hilum worker -c conf/jobs.yml --reload   and starts anew when its program is built anew\n  \
    hilum worker --interface jobs:Mail       the tasks of one interface\n\n\
    The configuration and the program are found as by `hilum instance`; `PROGRAM worker` is the same.")]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    words: Words,
}

/// What both take, and hand on.
#[derive(Debug, Default, clap::Args)]
struct Words {
    /// Listen on this address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    /// Listen on the address that leads outside
    #[arg(short, long, conflicts_with = "ip")]
    guess_external_ip: bool,
    /// Listen on this port [default: a free one]
    #[arg(short, long, value_name = "PORT")]
    port: Option<u16>,
    /// Register nowhere: only who knows the address can call
    #[arg(short, long)]
    isolated: bool,
    /// Start anew when the program's file is another one: by itself, or by the node that it is under
    #[arg(long)]
    reload: bool,
    /// As `--loglevel DEBUG`
    #[arg(long)]
    debug: bool,
    /// Run this interface (`binary:Type`) under its own name, whatever the configuration names
    #[arg(long, value_name = "CLASS")]
    interface: Vec<String>,
}

impl Words {
    fn append_to(&self, command: &mut Command) {
        for class in &self.interface {
            command.args(["--interface", class]);
        }
        if let Some(ip) = self.ip {
            command.arg("--ip").arg(ip.to_string());
        }
        if let Some(port) = self.port {
            command.arg("--port").arg(port.to_string());
        }
        let flags = [
            (self.guess_external_ip, "--guess-external-ip"),
            (self.isolated, "--isolated"),
            (self.reload, "--reload"),
            (self.debug, "--debug"),
        ];
        command.args(flags.iter().filter(|(given, _)| *given).map(|(_, flag)| flag));
    }
}

/// Runs `instance`: returns only when it cannot.
pub(crate) fn instance(session: &Session, args: &InstanceArgs) -> Outcome {
    run(session, "instance", &args.words)
}

/// Runs `worker`: returns only when it cannot.
pub(crate) fn worker(session: &Session, args: &WorkerArgs) -> Outcome {
    run(session, "worker", &args.words)
}

fn run(session: &Session, verb: &str, words: &Words) -> Outcome {
    let folder = session.folder()?;
    let options = ServiceOptions {
        config: given(session)?,
        vars: session.common.vars.as_deref().map(std::path::absolute).transpose().map_err(here)?,
        folder: folder.clone(),
        env: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
    };
    let config = file(&options);
    let wanted = match words.interface.as_slice() {
        [] => of_config(&options, config.as_deref())?,
        classes => of_classes(classes)?,
    };
    let beside = config.as_deref().and_then(Path::parent).unwrap_or(&folder);
    let places = Places {
        beside: beside.to_owned(),
        cargo: std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from),
        path: std::env::var_os("PATH")
            .map(|path| std::env::split_paths(&path).collect())
            .unwrap_or_default(),
    };
    let Some(program) = places.find(&wanted) else {
        return Err(places.not_found(&wanted));
    };
    session.out.detail(&format!("runs {}", program.display()));
    let mut command = Command::new(&program);
    command.arg(verb).current_dir(&folder);
    if let Some(config) = &options.config {
        command.arg("--config").arg(config);
    }
    if let Some(vars) = &options.vars {
        command.arg("--vars").arg(vars);
    }
    if let Some(level) = &session.common.loglevel {
        command.arg("--loglevel").arg(level);
    }
    if let Some(file) = &session.common.logfile {
        command.arg("--logfile").arg(std::path::absolute(file).map_err(here)?);
    }
    words.append_to(&mut command);
    let source = command.exec();
    Err(CliError::File { doing: "cannot run", path: program, source })
}

/// `-c`: one file, since a service's is not merged of several.
fn given(session: &Session) -> Result<Option<PathBuf>, CliError> {
    match session.common.config.as_slice() {
        [] => Ok(None),
        [one] => std::path::absolute(one).map(Some).map_err(here),
        _ => Err(CliError::usage(
            "a service has one configuration",
            "give `-c` once; what services share stands in the node's file",
        )),
    }
}

fn here(source: std::io::Error) -> CliError {
    CliError::File { doing: "cannot use the current folder", path: ".".into(), source }
}

/// The service's file, as the program itself will find it.
fn file(options: &ServiceOptions) -> Option<PathBuf> {
    let named = options.config.clone().or_else(|| {
        let named = options.env.get(service::CONFIG).filter(|path| !path.is_empty())?;
        Some(options.folder.join(named))
    });
    named.or_else(|| {
        let beside = options.folder.join(service::DEFAULT);
        beside.is_file().then_some(beside)
    })
}

/// The program that a configuration's interfaces name.
fn of_config(options: &ServiceOptions, config: Option<&Path>) -> Result<String, CliError> {
    if config.is_none() {
        return Err(CliError::usage(
            "no configuration of a service found",
            "name one with `-c FILE`, or run `PROGRAM instance`; it is also read from $LYMPH_CONFIG and `.lymph.yml`",
        ));
    }
    let root = service::load(options).map_err(CliError::Config)?;
    let interfaces = root.get("interfaces");
    let mut found: Option<String> = None;
    for (name, interface) in interfaces.entries().map_err(CliError::Config)? {
        let class = interface.get("class");
        let text = class.text().map_err(CliError::Config)?.unwrap_or_default();
        let wrong = |message: String, help: &str| {
            CliError::Config(place(&class, &interface).error(message, Some(help.to_owned())))
        };
        let program = match program(&text) {
            Ok(program) => program,
            Err(Unfit::Python) => return Err(wrong(python(&text), PYTHON)),
            Err(Unfit::NoProgram) => {
                return Err(wrong(
                    format!("interface `{name}` does not say which program holds it"),
                    "write `class: 'binary:Type'`, or run `PROGRAM instance`",
                ));
            }
        };
        match &found {
            Some(first) if *first != program => {
                return Err(wrong(
                    format!(
                        "`{first}` and `{program}` are two programs, and an instance is one process"
                    ),
                    "give each a configuration of its own",
                ));
            }
            _ => found = Some(program),
        }
    }
    found.ok_or_else(|| {
        let help = "name them: `interfaces: {echo: {class: 'binary:Type'}}`".to_owned();
        CliError::Config(interfaces.error("there are no interfaces", Some(help)))
    })
}

/// Where a class is, or would be.
fn place<'a>(class: &'a Section, interface: &'a Section) -> &'a Section {
    if class.is_given() { class } else { interface }
}

/// The program that `--interface` names.
fn of_classes(classes: &[String]) -> Result<String, CliError> {
    let mut found = None;
    for class in classes {
        match program(class) {
            Err(Unfit::Python) => return Err(CliError::usage(python(class), PYTHON)),
            Err(Unfit::NoProgram) => {
                return Err(CliError::usage(
                    format!("`{class}` does not say which program holds it"),
                    "write `--interface binary:Type`, or run `PROGRAM instance --interface Type`",
                ));
            }
            Ok(program) if found.as_ref().is_some_and(|first| *first != program) => {
                return Err(CliError::usage(
                    "the interfaces are of several programs, and an instance is one process",
                    "start one for each",
                ));
            }
            Ok(program) => found = Some(program),
        }
    }
    Ok(found.unwrap_or_default())
}

const PYTHON: &str =
    "`lymph instance` runs it, under a node as well: `command: lymph instance --config=FILE`";

fn python(class: &str) -> String {
    format!("`{class}` is a class of Python")
}

/// Why a class names no program.
#[derive(Debug, PartialEq)]
enum Unfit {
    Python,
    NoProgram,
}

/// The first half of `binary:Type`.
fn program(class: &str) -> Result<String, Unfit> {
    match class.split_once(':') {
        Some((module, _)) if module.contains('.') && !module.contains('/') => Err(Unfit::Python),
        Some((binary, kind)) if !binary.is_empty() && !kind.is_empty() && !binary.contains('/') => {
            Ok(binary.to_owned())
        }
        _ => Err(Unfit::NoProgram),
    }
}

/// Where programs are looked for.
#[derive(Debug)]
struct Places {
    beside: PathBuf,
    cargo: Option<PathBuf>,
    path: Vec<PathBuf>,
}

impl Places {
    fn find(&self, program: &str) -> Option<PathBuf> {
        let beside = self.beside.join(program);
        if is_program(&beside) {
            return Some(beside);
        }
        let above = self.beside.ancestors().map(|folder| folder.join("target"));
        let built = self.cargo.iter().cloned().chain(above).find_map(|target| {
            let both = ["debug", "release"].map(|profile| target.join(profile).join(program));
            both.into_iter().filter(|path| is_program(path)).max_by_key(|path| age(path))
        });
        built.or_else(|| self.in_path(program).find(|path| is_service(path)))
    }

    /// Those of the name in PATH, whatever they are.
    fn in_path(&self, program: &str) -> impl Iterator<Item = PathBuf> {
        self.path.iter().map(move |folder| folder.join(program)).filter(|path| is_program(path))
    }

    fn not_found(&self, program: &str) -> CliError {
        let script = self.beside.join(format!("{program}.py"));
        let looked = format!(
            "looked in `{}`, in `target` there and above{}, and in PATH",
            self.beside.display(),
            if self.cargo.is_some() { ", in $CARGO_TARGET_DIR" } else { "" },
        );
        let help = if script.exists() {
            PYTHON.to_owned()
        } else if let Some(other) = self.in_path(program).next() {
            format!(
                "build it (`cargo build`); {looked}, where `{}` is no program on hilum-worker",
                other.display()
            )
        } else {
            format!("build it (`cargo build`), or put it in PATH; {looked}")
        };
        CliError::usage(format!("service program `{program}` not found"), help)
    }
}

/// Whether a program is one on `hilum-worker`: the library's mark is in it, and it is not this command itself.
fn is_service(path: &Path) -> bool {
    let same = |one: &std::fs::Metadata, other: &std::fs::Metadata| {
        (one.dev(), one.ino()) == (other.dev(), other.ino())
    };
    let (Ok(mut file), Ok(own)) = (std::fs::File::open(path), std::fs::metadata("/proc/self/exe"))
    else {
        return false;
    };
    if file.metadata().is_ok_and(|program| same(&program, &own)) {
        return false;
    }
    let mark = memchr::memmem::Finder::new(service::MARK);
    let mut piece = vec![0; 1 << 20];
    let mut kept = 0; // the end of the piece before, where the mark may begin
    loop {
        match file.read(&mut piece[kept..]) {
            Ok(0) | Err(_) => return false,
            Ok(count) => {
                let filled = kept + count;
                if mark.find(&piece[..filled]).is_some() {
                    return true;
                }
                kept = filled.min(service::MARK.len() - 1);
                piece.copy_within(filled - kept..filled, 0);
            }
        }
    }
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

fn age(path: &Path) -> SystemTime {
    let modified = std::fs::metadata(path).and_then(|it| it.modified());
    modified.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_names_its_program() {
        assert_eq!(program("echo:Echo"), Ok("echo".to_owned()));
        assert_eq!(program("shop.cart:Cart"), Err(Unfit::Python));
        for unclear in ["Echo", ":Echo", "echo:", "../echo:Echo", ""] {
            assert_eq!(program(unclear), Err(Unfit::NoProgram), "{unclear}");
        }
    }

    #[test]
    fn a_program_is_looked_for_beside_the_file_then_built_then_in_path() {
        let home = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = home.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            path
        };
        let places = Places {
            beside: home.path().join("app/conf"),
            cargo: None,
            path: ["bin", "cargo/bin"].map(|folder| home.path().join(folder)).to_vec(),
        };
        let make = |path: &str| write(path, "");
        assert_eq!(places.find("echo"), None);
        let other = write("bin/echo", "#!/bin/sh\necho $*\n");
        assert_eq!(places.find("echo"), None, "the `echo` of the system");
        let CliError::Usage { help: Some(help), .. } = places.not_found("echo") else {
            panic!("no usage error")
        };
        assert!(help.contains(&format!("`{}` is no program on hilum-worker", other.display())));
        // Across the border of two pieces that are read.
        let text = format!("{}{}", "x".repeat((1 << 20) - 5), service::MARK);
        let installed = write("cargo/bin/echo", &text);
        assert_eq!(places.find("echo"), Some(installed));
        let built = make("app/target/release/echo");
        assert_eq!(places.find("echo"), Some(built));
        let beside = make("app/conf/echo");
        assert_eq!(places.find("echo"), Some(beside.clone()));
        std::fs::set_permissions(&beside, PermissionsExt::from_mode(0o644)).unwrap();
        assert_ne!(places.find("echo"), Some(beside), "a file that is no program");
    }
}
