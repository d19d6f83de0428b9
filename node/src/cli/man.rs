//! `man`: the manual pages, made from the same words as `--help`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::exit::{CliError, ExitStatus, Outcome};
use super::session::Session;

/// The words of `man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum man | man -l -                        read it\n  \
    hilum man --dir ~/.local/share/man/man1     install all pages")]
pub(crate) struct ManArgs {
    /// Write a page for each command into this folder
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

/// Runs `man` for the whole command line.
pub(crate) fn run(session: &Session, args: &ManArgs, mut command: clap::Command) -> Outcome {
    command.build();
    match &args.dir {
        None => {
            let page = render(command).map_err(CliError::Output)?;
            session.out.text(&String::from_utf8_lossy(&page))?;
        }
        Some(dir) => {
            let count = write_all(command, dir)?;
            session.out.note(&format!("wrote {count} pages to {}", dir.display()));
        }
    }
    Ok(ExitStatus::Done)
}

fn render(command: clap::Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(page)
}

fn write_all(command: clap::Command, dir: &Path) -> Result<usize, CliError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CliError::File { doing: "cannot write", path, source }
    };
    fs::create_dir_all(dir).map_err(failed(dir))?;
    let verbs: Vec<clap::Command> = command
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
        .map(|verb| {
            let name = format!("hilum-{}", verb.get_name());
            verb.clone().name(name)
        })
        .collect();
    let mut count = 0;
    for page in std::iter::once(command).chain(verbs) {
        let path = dir.join(format!("{}.1", page.get_name()));
        let text = render(page).map_err(CliError::Output)?;
        fs::write(&path, text).map_err(failed(&path))?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::super::args;
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = args::command();
        command.build();
        let count = write_all(command, dir.path()).unwrap();
        assert!(count > 25, "{count}");
        let page = fs::read_to_string(dir.path().join("hilum-up.1")).unwrap();
        assert!(page.contains("hilum") && page.contains("detach"), "{page}");
    }
}
