//! `list`: all commands with a line each.

use super::args;
use super::exit::{ExitStatus, Outcome};
use super::session::Session;
use super::table::{Align, Cell, Table};

/// The words of `list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum list\n  \
    hilum list --json | jq -r '.commands[].name'")]
pub(crate) struct ListArgs {}

/// Runs `list`.
pub(crate) fn run(session: &Session, _args: &ListArgs) -> Outcome {
    if session.out.json {
        let commands: Vec<_> = verbs()
            .into_iter()
            .map(|(name, aliases, about)| serde_json::json!({"name": name, "aliases": aliases, "about": about}))
            .collect();
        session.out.json(&serde_json::json!({ "commands": commands }))?;
    } else {
        session.out.text(&table().render(session.out.paint))?;
    }
    Ok(ExitStatus::Done)
}

fn verbs() -> Vec<(String, Vec<String>, String)> {
    let mut command = args::command();
    command.build();
    command
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set())
        .map(|verb| {
            (
                verb.get_name().to_owned(),
                verb.get_visible_aliases().map(str::to_owned).collect(),
                verb.get_about().map(ToString::to_string).unwrap_or_default(),
            )
        })
        .collect()
}

fn table() -> Table {
    let mut table = Table::new(&[("COMMAND", Align::Left), ("DOES", Align::Left)]);
    for (name, aliases, about) in verbs() {
        let name = std::iter::once(name).chain(aliases).collect::<Vec<_>>().join(", ");
        table.row(vec![Cell::new(name), Cell::new(about)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::output::Painter;
    use super::*;

    #[test]
    fn all_commands_are_listed() {
        insta::assert_snapshot!(table().render(Painter::plain()), @"");
    }
}
