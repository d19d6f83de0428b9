//! `init`: a commented starter config.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use hilum_shared::config;

use super::exit::{CliError, ExitStatus, Outcome};
use super::session::Session;

/// The words of `init`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum init                  write hilum.yml into this folder\n  \
    hilum -C /srv/shop init     into another one\n  \
    hilum init --stdout         only show it")]
pub(crate) struct InitArgs {
    /// Print it instead of writing a file
    #[arg(long)]
    stdout: bool,
    /// Overwrite a config that is there, or write one that is taken before another
    #[arg(long, conflicts_with = "stdout")]
    force: bool,
}

/// Runs `init`.
pub(crate) fn run(session: &Session, args: &InitArgs) -> Outcome {
    let text = config::starter();
    if args.stdout {
        session.out.text(text)?;
        return Ok(ExitStatus::Done);
    }
    let path: PathBuf = match session.common.config.first() {
        Some(path) => path.clone(),
        None => {
            let folder = session.folder()?;
            let path = folder.join("hilum.yml");
            let other = config::find_in(&folder).filter(|other| *other != path && !args.force);
            if let Some(other) = other {
                return Err(CliError::Failed {
                    message: format!(
                        "`{}` is this folder's configuration already: nothing would read it beside `hilum.yml`",
                        other.display()
                    ),
                    help: Some(
                        "`--force` writes one all the same, `--stdout` only shows the starter"
                            .into(),
                    ),
                });
            }
            path
        }
    };
    let mut options = OpenOptions::new();
    options.write(true);
    if args.force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let written = options.open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(CliError::Failed {
                message: format!("`{}` is there already", path.display()),
                help: Some("`--force` overwrites it, `--stdout` only shows the starter".into()),
            });
        }
        Err(source) => {
            return Err(CliError::File { doing: "cannot write", path, source });
        }
    }
    if session.out.json {
        session.out.json(&serde_json::json!({ "config": path }))?;
    } else {
        session.out.note(&format!(
            "wrote {}\nnext: edit it, `hilum check` validates it, `hilum up` starts it",
            path.display()
        ));
    }
    Ok(ExitStatus::Done)
}
