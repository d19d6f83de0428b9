//! How a command ends: the exit codes, and every error that a user can meet. No other file knows the numbers.

mod shown;

use std::fmt;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use hilum_shared::config::{Diagnostic, Diagnostics};
use hilum_shared::protocol::control::Fault;
use hilum_shared::rpc;

use super::{process, time};
use crate::daemon::launch::LaunchError;

/// The exit codes of every command.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ExitStatus {
    /// 0: done.
    Done,
    /// 1: the operation failed.
    Failed,
    /// 2: usage, unknown name or config error.
    Usage,
    /// 3: no node is running for this project.
    NotRunning,
    /// 4: timed out.
    TimedOut,
    /// 126: of `run` and `exec`: the program is there and cannot be executed, as shells say it.
    NotExecutable,
    /// 127: of `run` and `exec`: there is no such program, as shells say it.
    NoProgram,
    /// What the node in the foreground ended with.
    Native(ExitCode),
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Done => Self::from(0),
            ExitStatus::Failed => Self::from(1),
            ExitStatus::Usage => Self::from(2),
            ExitStatus::NotRunning => Self::from(3),
            ExitStatus::TimedOut => Self::from(4),
            ExitStatus::NotExecutable => Self::from(126),
            ExitStatus::NoProgram => Self::from(127),
            ExitStatus::Native(code) => code,
        }
    }
}

/// What a command returns.
pub(crate) type Outcome = Result<ExitStatus, CliError>;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The reader of our output went away: nobody is left to be told.
    #[error("output closed")]
    Closed,
    /// stdout or stderr cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    /// The words of the command do not fit together.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to write instead.
        help: Option<String>,
    },
    /// No config, neither given nor found.
    #[error("no configuration found: looked for {names} in `{}` and above", folder.display())]
    NoConfig {
        /// The names that were looked for.
        names: String,
        /// Where the search began.
        folder: PathBuf,
    },
    /// The config is not valid: every finding.
    #[error("{}", first(.0).map_or("the configuration is not valid", |one| &one.message))]
    Config(Diagnostics),
    /// A name that neither config nor node knows.
    #[error("unknown target `{target}`")]
    UnknownTarget {
        /// What was given.
        target: String,
        /// Nearest first.
        nearest: Vec<String>,
        /// All that there is, for a short list.
        known: Vec<String>,
    },
    /// An index that a known service does not have.
    #[error("unknown target `{target}`")]
    NoSuchInstance {
        /// What was given.
        target: String,
        /// Which it has.
        help: String,
    },
    /// A name that no registry and no node knows.
    #[error("unknown service `{name}`")]
    UnknownService {
        /// What was given.
        name: String,
        /// Nearest first.
        nearest: Vec<String>,
        /// All that there is, for a short list.
        known: Vec<String>,
    },
    /// The node keeps it, and none of its instances can be called now.
    #[error("none of `{name}` is alive: {states}")]
    NoneAlive {
        /// A service, or one instance.
        name: String,
        /// Of each instance.
        states: String,
        /// The next step.
        help: String,
    },
    /// A call of a service brought no result.
    #[error("{error}")]
    Call {
        /// Why.
        error: Box<rpc::Error>,
        /// The next step.
        help: Option<String>,
        /// Its trace, where it reached somebody whose log may say more.
        trace_id: Option<String>,
    },
    /// Nothing runs here.
    #[error("no node is running for `{}`", config.display())]
    NotRunning {
        /// The first config.
        config: PathBuf,
    },
    /// It took too long.
    #[error("timed out after {after} waiting for {what}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long, for people.
        after: String,
    },
    /// The node refused.
    #[error("{}", .0.message)]
    Fault(Fault),
    /// The node does not answer.
    #[error("the node (pid {pid}) does not answer: {silence}")]
    Silent {
        /// Its process.
        pid: u32,
        /// Why.
        silence: Silence,
    },
    /// The node ended while we talked to it.
    #[error("the node (pid {pid}) ended")]
    Gone {
        /// Its process.
        pid: u32,
    },
    /// The node answered something that this version does not understand.
    #[error("cannot understand the node's answer to `{call}`: {reason}")]
    Protocol {
        /// The call.
        call: String,
        /// What the decoder says.
        reason: String,
    },
    /// The node cannot be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A file or folder cannot be used.
    #[error("{doing} `{}`: {source}", path.display())]
    File {
        /// `cannot read`, `cannot write`.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The operation failed; what there is to say.
    #[error("{message}")]
    Failed {
        /// What, on which thing, why.
        message: String,
        /// The next step.
        help: Option<String>,
    },
    /// A program of `run` or `exec` that is not executed.
    #[error("{message}")]
    NotExecuted {
        /// Which, of which instance, why.
        message: String,
        /// Whether there is no such file.
        missing: bool,
    },
}

/// Why a node does not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Silence {
    /// Its process is not let run.
    #[error("{0}")]
    Halted(&'static str),
    /// It runs, and said nothing for so long.
    #[error("it is busy, no answer within {}", time::seconds(.0.as_secs_f64()))]
    Busy(Duration),
    /// Somebody removed its sockets.
    #[error("its run folder `{}` is gone", .0.display())]
    NoFolder(PathBuf),
    /// What the transport says.
    #[error("{0}")]
    Transport(String),
}

impl CliError {
    /// A usage error with a help line.
    pub(crate) fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), help: Some(help.into()) }
    }

    /// A failure without more to say.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), help: None }
    }

    /// How the command ends.
    pub(crate) fn status(&self) -> ExitStatus {
        match self {
            Self::Closed => ExitStatus::Done,
            Self::Usage { .. }
            | Self::NoConfig { .. }
            | Self::Config(_)
            | Self::UnknownTarget { .. }
            | Self::NoSuchInstance { .. }
            | Self::UnknownService { .. } => ExitStatus::Usage,
            Self::Call { error, .. } if matches!(**error, rpc::Error::Timeout { .. }) => {
                ExitStatus::TimedOut
            }
            Self::NotRunning { .. } => ExitStatus::NotRunning,
            Self::TimedOut { .. } => ExitStatus::TimedOut,
            Self::Fault(fault) => match fault.code.as_str() {
                "unknown-target" | "invalid-config" | "usage" => ExitStatus::Usage,
                _ => ExitStatus::Failed,
            },
            Self::Launch(LaunchError::Refused { code: 2, .. }) => ExitStatus::Usage,
            Self::NotExecuted { missing: true, .. } => ExitStatus::NoProgram,
            Self::NotExecuted { missing: false, .. } => ExitStatus::NotExecutable,
            _ => ExitStatus::Failed,
        }
    }

    /// A stable word for programs.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Closed | Self::Output(_) => "output",
            Self::Usage { .. } => "usage",
            Self::NoConfig { .. } => "no-config",
            Self::Config(_) => "invalid-config",
            Self::UnknownTarget { .. } | Self::NoSuchInstance { .. } => "unknown-target",
            Self::UnknownService { .. } => "unknown-service",
            Self::NoneAlive { .. } => "none-alive",
            Self::Call { error, .. } => call_code(error),
            Self::NotRunning { .. } => "not-running",
            Self::TimedOut { .. } => "timed-out",
            Self::Fault(fault) => &fault.code,
            Self::Silent { .. } => "no-answer",
            Self::Gone { .. } => "node-gone",
            Self::Protocol { .. } => "protocol",
            Self::Launch(_) => "launch",
            Self::File { .. } => "file",
            Self::Failed { .. } => "failed",
            Self::NotExecuted { .. } => "not-executed",
        }
    }

    /// The next step.
    pub(crate) fn help(&self) -> Option<String> {
        match self {
            Self::Usage { help, .. } | Self::Failed { help, .. } | Self::Call { help, .. } => {
                help.clone()
            }
            Self::NoConfig { .. } => {
                Some("write one with `hilum init`, or name one with `-c FILE`".into())
            }
            Self::NoSuchInstance { help, .. } | Self::NoneAlive { help, .. } => Some(help.clone()),
            Self::UnknownTarget { nearest, known, .. }
            | Self::UnknownService { nearest, known, .. }
                if nearest.is_empty() =>
            {
                (!known.is_empty()).then(|| format!("there is {}", quoted(known, 12)))
            }
            Self::UnknownTarget { nearest, .. } | Self::UnknownService { nearest, .. } => {
                Some(format!("did you mean {}?", quoted(nearest, 3)))
            }
            Self::NotRunning { .. } => {
                Some("start it with `hilum up`; `hilum ls` shows what runs elsewhere".into())
            }
            Self::TimedOut { .. } => {
                Some("`hilum ps` and `hilum why TARGET` show what holds it".into())
            }
            Self::Config(all) => first(all)?.help.clone(),
            Self::Fault(fault) => fault.help.clone(),
            Self::Silent { pid, .. } if process::is_anothers(*pid) => Some(
                "it belongs to another user: only they, or root, can stop it or let it go on"
                    .into(),
            ),
            Self::Silent { pid, silence: Silence::Halted(_) } => {
                Some(format!("`kill -CONT {pid}` lets it go on, `hilum down --now` ends it"))
            }
            Self::Silent { silence: Silence::NoFolder(_), .. } => Some(
                "what it started goes on; `hilum down` stops it by signal, then `hilum up`".into(),
            ),
            Self::Silent { pid, .. } => {
                Some(format!("try `hilum doctor`; `hilum down --now` ends it, `kill {pid}` too"))
            }
            Self::Gone { .. } => Some("`hilum logs --stream node` shows its last words".into()),
            Self::Protocol { .. } => {
                Some("node and command differ in version: restart the node with this one".into())
            }
            _ => None,
        }
    }
}

/// A stable word for why a call brought no result.
fn call_code(error: &rpc::Error) -> &'static str {
    match error {
        rpc::Error::NoSuchService { .. } => "unknown-service",
        rpc::Error::NoneAlive { .. } => "none-alive",
        rpc::Error::NoneCompatible { .. } => "none-compatible",
        rpc::Error::NotConnected { .. } => "not-connected",
        rpc::Error::Lost { .. } => "connection-lost",
        rpc::Error::Timeout { .. } => "timed-out",
        rpc::Error::Nack { .. } => "refused",
        rpc::Error::Remote { .. } => "remote-error",
        rpc::Error::Overloaded { .. } => "overloaded",
        rpc::Error::Congested { .. } => "congested",
        rpc::Error::Registry(_) => "registry",
        _ => "call",
    }
}

/// The first thing that is wrong with a config.
fn first(all: &Diagnostics) -> Option<&Diagnostic> {
    shown::errors(all).next()
}

/// "`a`, `b` and 3 more".
fn quoted(names: &[String], most: usize) -> String {
    let mut text =
        names.iter().take(most).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > most {
        let _ = write!(text, " and {} more", names.len() - most); // a String takes all
    }
    text
}

impl From<fmt::Error> for CliError {
    fn from(_: fmt::Error) -> Self {
        Self::Output(io::Error::other("formatting failed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Painter;

    fn fault(code: &str) -> CliError {
        CliError::Fault(Fault { code: code.into(), message: "no".into(), help: None })
    }

    #[test]
    fn every_error_ends_with_the_promised_code() {
        let not_running = CliError::NotRunning { config: "/srv/hilum.yml".into() };
        assert_eq!(not_running.status(), ExitStatus::NotRunning);
        assert_eq!(CliError::Closed.status(), ExitStatus::Done);
        assert_eq!(CliError::usage("a", "b").status(), ExitStatus::Usage);
        assert_eq!(fault("unknown-target").status(), ExitStatus::Usage);
        assert_eq!(fault("invalid-config").status(), ExitStatus::Usage);
        assert_eq!(fault("refused").status(), ExitStatus::Failed);
        let late = CliError::TimedOut { what: "web".into(), after: "5s".into() };
        assert_eq!(late.status(), ExitStatus::TimedOut);
        for (status, number) in [
            (ExitStatus::Done, 0),
            (ExitStatus::Failed, 1),
            (ExitStatus::Usage, 2),
            (ExitStatus::NotRunning, 3),
            (ExitStatus::TimedOut, 4),
        ] {
            assert_eq!(ExitCode::from(status), ExitCode::from(number));
        }
    }

    #[test]
    fn an_unknown_target_names_the_nearest_or_all() {
        let near = CliError::UnknownTarget {
            target: "ehco".into(),
            nearest: vec!["echo".into()],
            known: vec!["echo".into(), "db".into()],
        };
        insta::assert_snapshot!(near.render(Painter::plain()), @r"
        error: unknown target `ehco`
        help: did you mean `echo`?
        ");
        let far = CliError::UnknownTarget {
            target: "xyz".into(),
            nearest: vec![],
            known: vec!["db".into(), "echo".into()],
        };
        insta::assert_snapshot!(far.render(Painter::plain()), @r"
        error: unknown target `xyz`
        help: there is `db`, `echo`
        ");
    }

    #[test]
    fn an_error_is_an_object_for_programs() {
        let error = CliError::NotRunning { config: "/srv/hilum.yml".into() };
        insta::assert_snapshot!(error.to_json(), @r#"{"error":{"code":"not-running","message":"no node is running for `/srv/hilum.yml`","help":"start it with `hilum up`; `hilum ls` shows what runs elsewhere","where":null}}"#);
    }
}
