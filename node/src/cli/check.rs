//! `check`: validate a config, all errors at once.

use std::path::PathBuf;

use super::exit::{CliError, ExitStatus, Outcome};
use super::named;
use super::session::Session;

/// The words of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum check                       the config that `up` would use\n  \
    hilum check hilum.yml prod.yml    these, merged in order\n  \
    hilum check --json | jq '.diagnostics[] | .message'\n\n\
    `$(env.NAME)` is read from this shell's environment, over `--env-file`, over the `.env` beside the config.\n\
    0 when it is valid, 2 when not; findings go to stderr.")]
pub(crate) struct CheckArgs {
    /// Files to check, merged in order; none = the config that `up` would use
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    files: Vec<PathBuf>,
}

/// Runs `check`.
pub(crate) fn run(session: &Session, args: &CheckArgs) -> Outcome {
    let (files, name) = if args.files.is_empty() {
        let project = session.project()?;
        (project.configs.clone(), project.name.clone())
    } else {
        let mut files = Vec::with_capacity(args.files.len());
        for path in &args.files {
            files.push(path.metadata().and_then(|_| named::named(path)).map_err(|error| {
                CliError::Usage {
                    message: format!("cannot read config `{}`: {error}", path.display()),
                    help: None,
                }
            })?);
        }
        (files, None)
    };
    let loaded = match session.load(&files, name)? {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            if session.out.json {
                session
                    .out
                    .json(&serde_json::json!({ "valid": false, "diagnostics": diagnostics }))?;
            }
            return Err(CliError::Config(diagnostics));
        }
    };
    let services = loaded.cluster.services.len();
    let processes: u64 =
        loaded.cluster.services.values().map(|service| u64::from(service.numprocesses)).sum();
    if session.out.json {
        session.out.json(&serde_json::json!({
            "valid": true, "diagnostics": [], "warnings": loaded.cluster.warnings, "services": services,
            "processes": processes, "files": loaded.cluster.files,
        }))?;
        return Ok(ExitStatus::Done);
    }
    for warning in &loaded.cluster.warnings {
        session.out.warn(warning);
    }
    if !session.out.quiet {
        session.out.line(&format!(
            "{} is valid: {services} {}, {processes} {}",
            super::session::shown(&files[0]),
            if services == 1 { "service" } else { "services" },
            if processes == 1 { "process" } else { "processes" },
        ))?;
    }
    Ok(ExitStatus::Done)
}
