//! `list`: all commands with a line each.

use super::exit::{ExitStatus, Outcome};
use super::session::Session;
use super::table::{Align, Cell, Table};

/// The words of `list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum list\n  \
    hilum list --json | jq -r '.commands[].name'")]
pub(crate) struct ListArgs {}

/// Runs `list` for the whole command line.
pub(crate) fn run(session: &Session, _args: &ListArgs, all: clap::Command) -> Outcome {
    if session.out.json {
        let commands: Vec<_> = verbs(all)
            .into_iter()
            .map(|(name, aliases, about)| serde_json::json!({"name": name, "aliases": aliases, "about": about}))
            .collect();
        session.out.json(&serde_json::json!({ "commands": commands }))?;
    } else {
        session.out.text(&table(all).render(session.out.paint))?;
    }
    Ok(ExitStatus::Done)
}

fn verbs(mut command: clap::Command) -> Vec<(String, Vec<String>, String)> {
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

fn table(all: clap::Command) -> Table {
    let mut table = Table::new(&[("COMMAND", Align::Left), ("DOES", Align::Left)]);
    for (name, aliases, about) in verbs(all) {
        let name = std::iter::once(name).chain(aliases).collect::<Vec<_>>().join(", ");
        table.row(vec![Cell::new(name), Cell::new(about)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::args;
    use super::super::output::Painter;
    use super::*;

    #[test]
    fn all_commands_are_listed() {
        insta::assert_snapshot!(table(args::command()).render(Painter::plain()), @"
        COMMAND          DOES
        init             Write a commented starter config
        check            Validate a config: all errors at once, with file, line and column
        up               Start the cluster and stream its logs; when it runs already, apply what changed
        down, quit       Stop everything in reverse order of dependencies, then the node
        ps, status       Show all instances and their state
        why              Explain a state, and what happens next by itself
        logs             Read the collected log, also when nothing runs
        events           Read what happened: starts, ends, restarts, scaling, reloads
        tail             Follow log endpoints over the network: of this node, of services, of lymph's containers
        emit             Tell the services that something happened
        subscribe        Show events as they are emitted; `*` is one word, `#` any number
        crash            Show how something ended: exit, last lines, memory, restarts
        top              Live table of CPU, memory, restarts and heartbeats
        start            Start instances and what they depend on
        stop             Stop instances; they stay stopped
        restart          Restart instances with the config as it is now
        scale            Change how many processes a service has
        reload           Apply what changed in the config
        signal           Send a signal: `signal HUP web`
        kill             Send a signal: `kill -s HUP web`
        wait             Wait until targets are ready, running, stopped, or have ended
        run              Run a one-off process of a service in this terminal
        exec             Run any command in a service's environment and folder
        discover         Show which services are registered, in which versions, and where
        inspect          Show what can be called at an address, with its documentation
        request          Call a service and print the answer; with -N and -C measure how fast it is
        shell            Call services from a prompt with completion, history and variables
        change-loglevel  Change the log level of running services for a while
        instance         Run one process of a service from its config
        worker           Run one process for a service's tasks from its config
        env              Show the environment of a service, each value with its origin
        config           Show the config after includes, variables and defaults
        node             The node in the foreground, for service managers
        ls               Show every running project of this user
        doctor           Find what is wrong with this machine or project, and how to mend it
        completions      Print the completion script of a shell
        man              Print the manual page
        list             Show all commands with a line each
        help             Print this message or the help of the given subcommand(s)
        ");
    }
}
