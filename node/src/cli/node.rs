//! `node`: the node in the foreground, for service managers.

use super::exit::{CliError, ExitStatus, Outcome};
use super::scale::{Count, count};
use super::session::Session;
use super::up;

/// The words of `node`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum node                         its own diagnostics on stderr; TERM stops it in order\n  \
    hilum -C /srv/shop node --loglevel debug\n\n\
    In a systemd unit: Type=notify, ExecStart=/usr/bin/hilum -C /srv/shop node, KillMode=mixed")]
pub(crate) struct NodeArgs {
    /// Services, instances or globs to start; none = all
    #[arg(value_name = "TARGET", add = super::completions::targets())]
    targets: Vec<String>,
    /// Another process count than the config's
    #[arg(long, value_name = "S=N", value_parser = count)]
    scale: Vec<Count>,
    /// Leave dependencies of TARGET alone
    #[arg(long)]
    no_deps: bool,
    /// End with an error as soon as an instance has failed
    #[arg(long)]
    abort_on_failure: bool,
}

/// Runs `node`. The config is checked first, so that its errors look as they do everywhere.
pub(crate) fn run(session: &Session, args: &NodeArgs) -> Outcome {
    let loaded = session.config()?;
    up::check_targets(&loaded.cluster, &args.targets, &args.scale)?;
    if let Some(pid) = session.node_pid()? {
        return Err(CliError::Failed {
            message: format!(
                "a node (pid {pid}) runs already for `{}`",
                session.project()?.config().display()
            ),
            help: Some("`hilum reload` applies a changed config, `hilum down` stops it".into()),
        });
    }
    let mut options = session.node_options()?;
    options.targets.clone_from(&args.targets);
    options.deps = !args.no_deps;
    options.scale = up::scales(&args.scale);
    options.abort_on_failure = args.abort_on_failure;
    let code = crate::daemon::foreground(&options);
    Ok(ExitStatus::Native(code))
}
