//! `change-loglevel`: another log level for running services, for a while.

use std::collections::BTreeSet;
use std::time::Duration;

use hilum_shared::registry::Instance;
use hilum_shared::rpc::CallOptions;
use hilum_shared::wire::Value;
use serde_json::json;

use super::caller::{self, CallFailed, Caller, CallerArgs, Place, REGISTRY};
use super::exit::{CliError, ExitStatus, Outcome};
use super::output::{Style, printable};
use super::session::Session;
use super::table::{Align, Cell, Table};
use super::time;

/// The words of `change-loglevel`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum change-loglevel echo                      all of it at DEBUG for a minute\n  \
    hilum change-loglevel echo -n shop.cart -p 10m  one part of it, for ten minutes\n  \
    hilum change-loglevel echo.2 -l warning         one instance of the running node\n  \
    hilum change-loglevel node -l debug             the node's own diagnostics")]
pub(crate) struct LoglevelArgs {
    /// A service (all its instances), an endpoint, an instance of the running node, or `node`
    #[arg(value_name = "ADDRESS", add = super::completions::addresses())]
    address: String,
    /// The logger, with all below it [default: everything]
    #[arg(short, long, value_name = "LOGGER", default_value = "", hide_default_value = true)]
    name: String,
    /// The level that it gets: debug, info, warning, error, critical; of services in Rust also trace
    #[arg(short, long, value_name = "LEVEL", default_value = "debug", value_parser = level, add = super::completions::levels())]
    level: String,
    /// How long; then its level is as before
    #[arg(short, long, value_name = "PERIOD", default_value = "60s", value_parser = period)]
    period: Duration,
    #[command(flatten)]
    pub(crate) caller: CallerArgs,
}

/// How long an instance may take to answer.
const ANSWER: Duration = Duration::from_secs(3);

/// Runs `change-loglevel`.
pub(crate) fn run(session: &Session, args: &LoglevelArgs) -> Outcome {
    caller::run(session, &args.caller, async |caller| change(caller, args).await)
}

/// Changes the level of every instance at the address.
pub(crate) async fn change(caller: &Caller<'_>, args: &LoglevelArgs) -> Outcome {
    let place = caller.place(&args.address, REGISTRY).await?;
    let body = Value::map([
        ("qualname", Value::from(args.name.as_str())),
        ("loglevel", Value::from(args.level.as_str())),
        ("period", Value::from(args.period.as_secs_f64())),
    ]);
    let mut results = Vec::new();
    for (instance, one) in containers(&place) {
        let options = CallOptions { timeout: ANSWER, ..CallOptions::default() };
        let answer = caller.call(&one, "lymph.change_loglevel", &body, options).await;
        results.push((instance, answer.err().map(|failed| reason(failed, caller.session))));
    }
    let failed = results.iter().filter(|(_, reason)| reason.is_some()).count();
    let out = caller.session.out;
    if out.json {
        let changed: Vec<_> = results
            .iter()
            .map(|(instance, reason)| {
                json!({
                    "identity": instance.identity,
                    "endpoint": instance.endpoint,
                    "result": if reason.is_none() { "changed" } else { "failed" },
                    "reason": reason,
                })
            })
            .collect();
        out.json(&json!({"changed": changed}))?;
    } else {
        let what = format!("{} for {}", args.level, time::seconds(args.period.as_secs_f64()));
        let mut table = Table::new(&[("ENDPOINT", Align::Left), ("RESULT", Align::Left)]);
        for (instance, reason) in &results {
            let result = match reason {
                None => Cell::styled(what.clone(), Style::Good),
                Some(reason) => Cell::styled(printable(reason).into_owned(), Style::Bad),
            };
            table.row(vec![printable(&instance.endpoint).into_owned().into(), result]);
        }
        out.text(&table.render(out.paint))?;
    }
    match failed {
        0 => Ok(ExitStatus::Done),
        _ => Ok(ExitStatus::Failed),
    }
}

/// Each process once, though it may offer several versions.
fn containers(place: &Place) -> Vec<(Instance, Place)> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for instance in place.instances.iter() {
        if seen.insert(instance.endpoint.clone()) {
            all.push((instance.clone(), place.only(instance)));
        }
    }
    all
}

fn reason(failed: CallFailed, session: &Session) -> String {
    match failed.plain(session) {
        CliError::Call { error, .. } => error.to_string(),
        other => other.to_string(),
    }
}

/// clap's parser of a level: lymph's names, and tracing's `trace`.
pub(super) fn level(text: &str) -> Result<String, String> {
    if text.eq_ignore_ascii_case("trace") {
        return Ok("TRACE".to_owned());
    }
    super::logs::level(text)
        .map(|level| level.as_str().to_owned())
        .map_err(|error| error.replace("write `debug`", "write `trace`, `debug`"))
}

/// clap's parser of a period.
fn period(text: &str) -> Result<Duration, String> {
    match time::duration(text)? {
        Duration::ZERO => Err("a level for no time changes nothing: write `30s`, `10m`".to_owned()),
        period => Ok(period),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn levels_are_sent_by_lymphs_names() {
        assert_eq!(level("warn").unwrap(), "WARNING");
        assert_eq!(level("Trace").unwrap(), "TRACE");
        assert!(level("loud").unwrap_err().contains("`trace`, `debug`"));
        assert!(period("0").unwrap_err().contains("changes nothing"));
        for wrong in ["-2", "NaN", "inf", "-5m"] {
            assert!(period(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_process_with_two_versions_is_told_once() {
        let version = |version| Instance::new("echo", "tcp://127.0.0.1:1", Some(version));
        let other = Instance::new("echo", "tcp://127.0.0.1:2", None);
        let place = Place::of("echo", Arc::new(vec![version("1.0.0"), version("2.0.0"), other]));
        let told: Vec<_> = containers(&place).into_iter().map(|(one, _)| one.endpoint).collect();
        assert_eq!(told, ["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"]);
    }
}
