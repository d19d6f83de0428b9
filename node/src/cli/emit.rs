//! `emit`: tells the services of the running cluster that something happened.

use std::time::Duration;

use hilum_shared::events::{EventError, is_kind, messages};
use hilum_shared::rpc::blocking::{CallError, Client};
use hilum_shared::wire::event::TRACE_ID;
use hilum_shared::wire::message::new_id;
use hilum_shared::wire::{Event, Value};
use serde_json::json;

use super::exit::{CliError, ExitStatus, Outcome};
use super::link::ANSWER;
use super::output::printable;
use super::session::Session;
use super::time;

/// The words of `emit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum emit cache.clear\n  \
    hilum emit order.paid '{\"id\": 7}' --delay 5m\n  \
    jq -c .order < order.json | hilum emit order.paid -\n\n\
    It is with the event broker when this returns; each service that has subscribed gets it once. What lymph calls special\n\
    types is written as it writes them in JSON: {\"__type__\": \"Decimal\", \"_\": \"1.5\"}.")]
pub(crate) struct EmitArgs {
    /// Its type: words with dots between them
    #[arg(value_name = "EVENT")]
    event: String,
    /// What is told, as JSON; `-` reads it from stdin
    #[arg(value_name = "BODY", default_value = "{}")]
    body: String,
    /// Held back this long
    #[arg(long, value_name = "T", value_parser = time::duration)]
    delay: Option<Duration>,
    /// The trace that it belongs to, for `hilum logs --trace` [default: a new one]
    #[arg(long, value_name = "ID")]
    trace_id: Option<String>,
}

/// Runs `emit`.
pub(crate) fn run(session: &Session, args: &EmitArgs) -> Outcome {
    if args.event.contains(['*', '#']) {
        let help = "patterns are for `hilum subscribe`; an event has one type";
        return Err(CliError::usage(format!("`{}` is a pattern", args.event), help));
    }
    check_kind(&args.event)?;
    let body = body(&args.body)?;
    let node = session.node()?;
    let trace_id = args.trace_id.clone().unwrap_or_else(new_id);
    let mut event = Event { kind: args.event.clone(), headers: Value::Nil, body, source: None };
    event.set_header(TRACE_ID, Value::Str(trace_id.clone()));
    check_delivery(&event)?;
    let emit = messages::Emit {
        kind: event.kind,
        headers: event.headers,
        body: event.body,
        source: Some(format!("hilum emit, pid {}", std::process::id())),
        delay: args.delay.unwrap_or_default().as_secs_f64(),
        queue: None,
        token: None,
    };
    let place = node.run_dir.endpoint("events.sock");
    let failed = |error: CallError| match error {
        CallError::Fault(fault) => CliError::Fault(fault),
        // Packed well a moment ago, so it is its size.
        CallError::Arguments { source, .. } => {
            CliError::usage(format!("the event {source}"), "send a reference to where it is kept")
        }
        other => CliError::failed(format!("the event broker cannot be reached: {other}")),
    };
    let mut client = Client::connect(&place).map_err(failed)?;
    let emitted: messages::Emitted = client.call("events.emit", &emit, ANSWER).map_err(failed)?;
    let at_once = args.delay.is_none_or(|delay| delay.is_zero());
    if session.out.json {
        session.out.json(&json!({
            "event": args.event,
            "trace_id": trace_id,
            "queues": at_once.then_some(emitted.queues),
        }))?;
    } else if at_once && emitted.queues == 0 {
        let kind = printable(&args.event);
        session.out.note(&format!("no service has subscribed to `{kind}`: nobody will hear of it"));
    } else {
        session.out.detail(&format!("trace {trace_id}"));
    }
    Ok(ExitStatus::Done)
}

/// Whether those who have subscribed can read it.
fn check_delivery(event: &Event) -> Result<(), CliError> {
    let refused = |error: EventError| CliError::usage(error.to_string(), "nobody could read it");
    messages::deliverable(event).map(drop).map_err(refused)
}

/// Whether a word can be an event's type, or a pattern of types.
pub(crate) fn check_kind(text: &str) -> Result<(), CliError> {
    if is_kind(text) {
        return Ok(());
    }
    Err(CliError::usage(
        format!("`{text}` is no type of events"),
        "it is words with dots between them, none empty, of 255 bytes at most: `order.paid`",
    ))
}

/// The body, from the command line or stdin.
fn body(text: &str) -> Result<Value, CliError> {
    Value::parse_json(&super::request::given(text)?).map_err(|error| {
        let help = "write JSON, in quotes for the shell: '{\"id\": 7}', or '\"a text\"'";
        CliError::usage(format!("the body: {error}"), help)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_with_lymphs_types() {
        assert_eq!(body("{}").unwrap(), Value::Map(Vec::new()));
        let decimal = body(r#"{"__type__": "Decimal", "_": "1.5"}"#).unwrap();
        assert!(matches!(decimal, Value::Decimal(_)), "{decimal:?}");
        let error = body("{id: 7}").unwrap_err();
        assert_eq!(error.status(), ExitStatus::Usage);
    }

    #[test]
    fn a_body_that_could_be_emitted_and_not_delivered_is_refused() {
        let event = |levels: usize| {
            let body = body(&format!("{}{}", "[".repeat(levels), "]".repeat(levels))).unwrap();
            Event { kind: "a.b".into(), headers: Value::Nil, body, source: None }
        };
        check_delivery(&event(62)).unwrap();
        let error = check_delivery(&event(63)).unwrap_err();
        assert_eq!(error.status(), ExitStatus::Usage);
        assert!(error.to_string().contains("deeper than 64 levels"), "{error}");
    }

    #[test]
    fn an_event_has_no_empty_words() {
        for bad in ["", ".", "a..b", ".a", "a."] {
            assert_eq!(check_kind(bad).unwrap_err().status(), ExitStatus::Usage, "{bad}");
        }
        check_kind("order.#").unwrap();
    }
}
