//! `inspect`: what can be called at an address.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use hilum_shared::registry::{BUILTIN, VersionRequest};
use serde_json::json;

use super::caller::{self, Caller, CallerArgs, Method};
use super::exit::{CliError, ExitStatus, Outcome};
use super::output::{Painter, Style, printable};
use super::session::Session;

/// The words of `inspect`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum inspect echo                   a service of the registry\n  \
    hilum inspect echo.2                 one instance of the running node\n  \
    hilum inspect tcp://10.0.0.5:4444    any container, also one of lymph's\n  \
    hilum inspect echo@1.2               what is compatible with version 1.2\n  \
    hilum inspect node                   the running node itself\n  \
    hilum inspect echo --json | jq -r '.methods[].name'")]
pub(crate) struct InspectArgs {
    /// A service, an endpoint (`tcp://…`, `ipc://…`), an instance of the running node, or `node`; of a service also `NAME@VERSION`
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
    let begun = Instant::now();
    let (name, version) = taken_apart(&args.address)?;
    let place = caller.place(name, args.timeout).await?;
    let left = args.timeout.saturating_sub(begun.elapsed());
    let mut methods = caller.methods(&place, left).await?;
    if let Some(wanted) = version {
        let (fit, others): (Vec<Method>, Vec<Method>) = methods
            .into_iter()
            .partition(|method| is_builtin(method) || wanted.admits(method.version()));
        if fit.iter().all(is_builtin) {
            let there: BTreeSet<&str> = others.iter().filter_map(Method::version).collect();
            let there: Vec<&str> = there.into_iter().collect();
            let there = if there.is_empty() { "no version".to_owned() } else { there.join(", ") };
            return Err(CliError::usage(
                format!("nothing at `{name}` is compatible with {wanted}"),
                format!("there is {there}; `hilum inspect {name}` shows all"),
            ));
        }
        methods = fit;
    }
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

/// `name@version` in its parts; what is no version is an error, as it is in a subject.
fn taken_apart(address: &str) -> Result<(&str, Option<VersionRequest>), CliError> {
    match address.rsplit_once('@') {
        Some((name, version)) if !address.contains("://") => {
            let version = VersionRequest::parse(version)
                .map_err(|error| CliError::Usage { message: error.to_string(), help: None })?;
            Ok((name, Some(version)))
        }
        _ => Ok((address, None)),
    }
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
