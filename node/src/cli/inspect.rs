//! `inspect`: what can be called at an address.

use std::fmt::Write as _;
use std::time::Duration;

use hilum_shared::registry::BUILTIN;
use serde_json::json;

use super::caller::{self, Caller, CallerArgs, Method};
use super::exit::{ExitStatus, Outcome};
use super::output::{Painter, Style, printable};
use super::session::Session;

/// The words of `inspect`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum inspect echo                   a service of the registry\n  \
    hilum inspect echo.2                 one instance of the running node\n  \
    hilum inspect tcp://10.0.0.5:4444    any container, also one of lymph's\n  \
    hilum inspect node                   the running node itself\n  \
    hilum inspect echo --json | jq -r '.methods[].name'")]
pub(crate) struct InspectArgs {
    /// A service, an endpoint (`tcp://…`, `ipc://…`), an instance of the running node, or `node`
    #[arg(value_name = "ADDRESS", add = super::completions::addresses())]
    address: String,
    /// How long the answer is waited for
    #[arg(long, value_name = "T", default_value = "5s", value_parser = super::request::timeout)]
    timeout: Duration,
    #[command(flatten)]
    pub(crate) caller: CallerArgs,
}

/// Runs `inspect`.
pub(crate) fn run(session: &Session, args: &InspectArgs) -> Outcome {
    caller::run(session, &args.caller, async |caller| show(caller, args).await)
}

/// Shows the methods at the address.
pub(crate) async fn show(caller: &Caller<'_>, args: &InspectArgs) -> Outcome {
    let place = caller.place(&args.address).await?;
    let mut methods = caller.methods(&place, args.timeout).await?;
    // What every container has is the least interesting.
    methods.sort_by_key(|method| (is_builtin(method), method.name.clone()));
    let out = caller.session.out;
    if out.json {
        let methods: Vec<_> = methods
            .iter()
            .map(|method| {
                json!({
                    "name": method.name, "version": method.version(), "params": method.params,
                    "optional": method.optional, "raises": method.raises, "help": method.help,
                })
            })
            .collect();
        out.json(&json!({"address": args.address, "methods": methods}))?;
    } else {
        out.text(&render(&args.address, &methods, out.paint))?;
    }
    Ok(ExitStatus::Done)
}

fn is_builtin(method: &Method) -> bool {
    method.name.rsplit_once('.').is_some_and(|(interface, _)| interface == BUILTIN)
}

fn render(address: &str, methods: &[Method], paint: Painter) -> String {
    let mut text = format!("RPC interface of {}\n", printable(address));
    for method in methods {
        let signature = method.signature();
        let signature = printable(&signature);
        let version = method.version().map(|version| format!("  @{}", printable(version)));
        let version = version.unwrap_or_default();
        // A String takes all.
        let _ = writeln!(text, "\nrpc {}{version}", paint.paint(Style::Bold, &signature));
        for line in method.help.lines() {
            let line = format!("    {}", printable(line));
            let _ = writeln!(text, "{}", line.trim_end());
        }
        if !method.raises.is_empty() {
            let raises = method.raises.join(", ");
            let _ = writeln!(text, "    raises {}", printable(&raises));
        }
    }
    text
}
