//! `request`: one call of a service, or with `-N` and `-C` many at once and how long they took.

use std::borrow::Cow;
use std::io::Read as _;
use std::time::{Duration, Instant};

use hilum_shared::registry::VersionRequest;
use hilum_shared::rpc::{CallOptions, Error, Reply};
use hilum_shared::wire::limits::{MAX_ANSWER, MAX_TEXT};
use hilum_shared::wire::message::new_id;
use hilum_shared::wire::{JsonError, Value};
use serde_json::json;

use super::caller::{self, CallFailed, Caller, CallerArgs, Place};
use super::exit::{CliError, ExitStatus, Outcome};
use super::output::{Output, printable};
use super::session::Session;
use super::time;

mod load;

/// The words of `request`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum request echo.upper '{\"text\": \"foo\"}'\n  \
    echo '{\"text\": \"foo\"}' | hilum request echo.upper -\n  \
    hilum request echo.upper@1.2 '{\"text\": \"foo\"}'     an instance that is compatible with 1.2\n  \
    hilum request lymph.status --address echo.2          one instance of the running node\n  \
    hilum request echo.upper '{\"text\": \"foo\"}' --address tcp://10.0.0.5:4444\n  \
    hilum request echo.upper '{\"text\": \"foo\"}' -N 10000 -C 64   how fast it is\n  \
    hilum request node.status --json                     the project's own node, where it runs\n  \
    hilum request node.status --address tcp://10.0.0.5:4567   another; `hilum discover node` shows where they are\n\n\
    Values that JSON has no word for are maps: `{\"__type__\": \"Decimal\", \"_\": \"1.50\"}`, and so `set`, `datetime`, `date`,\n\
    `time`, `UUID`, `UndefinedType` (content `\"\"`), `bytes` (`\"00ff\"`), `float` (`\"NaN\"`), `map` (`[[KEY, VALUE]]`), `ext`;\n\
    `--json` prints them so, and what it prints can be sent again.\n\n\
    Exit codes: 1 the service refused or failed, 2 a wrong word or unknown name, 3 no node runs, 4 no answer in time.")]
pub(crate) struct RequestArgs {
    /// What is called: `service.method`, and the version that will do: `service.method@1.2`
    #[arg(value_name = "SUBJECT[@VERSION]", add = super::completions::subjects())]
    subject: String,
    /// The parameters by name, as a JSON object; `-` reads it from stdin [default: none]
    #[arg(value_name = "BODY")]
    body: Option<String>,
    /// Who is asked: a service, an endpoint (`tcp://…`, `ipc://…`), an instance of the running node (`echo.2`), `node`, the own one
    /// [default: the subject up to its last dot]
    #[arg(long, value_name = "ADDRESS", add = super::completions::addresses())]
    address: Option<String>,
    /// How long the answer is waited for, the search for who is asked included
    #[arg(long, value_name = "T", default_value = "2s", value_parser = timeout)]
    timeout: Duration,
    /// Send so many requests, after one to warm up, and say how long they took and how many failed
    #[arg(short = 'N', value_name = "N", default_value_t = 1, value_parser = count::<10_000_000>)]
    requests: u32,
    /// So many of them at once
    #[arg(short = 'C', value_name = "C", default_value_t = 1, value_parser = count::<4096>)]
    concurrency: u32,
    /// The trace under which it is called, for `hilum logs --trace`
    #[arg(long, value_name = "ID", value_parser = trace_id)]
    trace_id: Option<String>,
    /// Show the headers of the answer, too, also where it is a refusal or an error
    #[arg(short = 'D', long)]
    dump_headers: bool,
    #[command(flatten)]
    caller: CallerArgs,
}

/// What is called, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// `interface.method`.
    pub(crate) name: String,
    /// Up to the last dot.
    pub(crate) interface: String,
    /// The version that will do.
    pub(crate) version: Option<VersionRequest>,
}

impl Subject {
    /// Reads `interface.method`, `interface.method@version` or `interface@version.method`.
    ///
    /// # Errors
    /// A usage error.
    pub(crate) fn parse(text: &str) -> Result<Self, CliError> {
        let text = &with_version_behind(text);
        let (name, version) = match text.rsplit_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (text.as_str(), None),
        };
        let version = version.map(VersionRequest::parse).transpose();
        let version =
            version.map_err(|error| CliError::Usage { message: error.to_string(), help: None })?;
        match name.rsplit_once('.') {
            Some((interface, method)) if !interface.is_empty() && !method.is_empty() => {
                let (name, interface) = (name.to_owned(), interface.to_owned());
                Ok(Self { name, interface, version })
            }
            _ => Err(CliError::usage(
                format!("`{text}` is no subject"),
                format!("write `service.method`; `hilum inspect {name}` shows its methods"),
            )),
        }
    }
}

/// `echo@1.2.upper` as `echo.upper@1.2`; other texts as they are.
pub(crate) fn with_version_behind(subject: &str) -> String {
    if let Some((interface, rest)) = subject.split_once('@')
        && let Some((version, method)) = rest.rsplit_once('.')
        && !method.starts_with(|c: char| c.is_ascii_digit())
    {
        return format!("{interface}.{method}@{version}");
    }
    subject.to_owned()
}

/// The help of a body that cannot be sent.
const EXAMPLE: &str = "write the parameters by name: '{\"text\": \"foo\"}'";

/// Runs `request`.
pub(crate) fn run(session: &Session, args: &RequestArgs) -> Outcome {
    let subject = Subject::parse(&args.subject)?;
    let many = args.requests > 1 || args.concurrency > 1;
    if many && args.dump_headers {
        return Err(CliError::usage(
            "`-D` shows the headers of one answer, `-N` and `-C` make many",
            "leave one of them out",
        ));
    }
    let body = body(args.body.as_deref())?;
    caller::run(session, &args.caller, async |caller| {
        let address = args.address.as_deref().unwrap_or(&subject.interface);
        let begun = Instant::now();
        let place = caller.place(address, args.timeout).await?;
        let trace_id = args.trace_id.clone().unwrap_or_else(new_id);
        let options = CallOptions {
            version: subject.version.clone(),
            timeout: args.timeout,
            trace_id: Some(trace_id.clone()),
            ..CallOptions::default()
        };
        // What is looked up takes from the time; whoever waits in vain is told all of it.
        let left = args.timeout.saturating_sub(begun.elapsed());
        let first = CallOptions { timeout: left, ..options.clone() };
        let mut answer = caller.exchange(&place, &subject.name, &body, first).await;
        if let Err(CallFailed::Rpc(Error::Timeout { after, .. })) = &mut answer {
            *after = args.timeout;
        }
        if !many {
            return match answer {
                Ok(reply) => show(caller, &place, &subject, &body, reply, args.dump_headers).await,
                Err(failed) => {
                    Err(caller.explain(&place, &subject, &body, &trace_id, failed).await)
                }
            };
        }
        match answer.and_then(|reply| Ok(reply.understood(&subject.name)?)) {
            Ok(_) => {}
            Err(CallFailed::Rpc(error))
                if load::may_pass(&error)
                    && !(matches!(error, Error::Nack { .. })
                        && caller.is_wrong(&place, &subject, &body).await) =>
            {
                caller.session.out.note(&format!(
                    "the first request failed ({error}), the others are sent all the same"
                ));
            }
            Err(failed) => {
                return Err(caller.explain(&place, &subject, &body, &trace_id, failed).await);
            }
        }
        let load = load::Load {
            subject: &subject.name,
            place: &place,
            body,
            options,
            requests: args.requests,
            concurrency: args.concurrency.min(args.requests),
        };
        load.run(caller).await
    })
}

/// The parameters, from the word or from stdin.
fn body(word: Option<&str>) -> Result<Value, CliError> {
    match word {
        None => Ok(Value::Map(Vec::new())),
        Some(word) => parse_body(&given(word)?),
    }
}

/// A body as it was given: the word, or for `-` what stdin holds.
///
/// # Errors
/// When stdin cannot be read, is no text, or either is longer than anybody takes.
pub(crate) fn given(word: &str) -> Result<Cow<'_, str>, CliError> {
    let text = if word == "-" {
        let mut bytes = Vec::new();
        // One byte more than fits tells that it is too much.
        let most = MAX_ANSWER as u64 + 1;
        std::io::stdin().lock().take(most).read_to_end(&mut bytes).map_err(|source| {
            CliError::File { doing: "cannot read the body from", path: "/dev/stdin".into(), source }
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            CliError::usage(
                format!("the body is no text: byte {} is not UTF-8", at + 1),
                "bytes are written in hexadecimal: {\"__type__\": \"bytes\", \"_\": \"00ff\"}",
            )
        })?;
        Cow::Owned(text)
    } else {
        Cow::Borrowed(word)
    };
    if text.len() > MAX_ANSWER {
        return Err(CliError::usage(
            format!("the body has more than {MAX_ANSWER} bytes"),
            "no service takes so much",
        ));
    }
    Ok(text)
}

/// Reads parameters by name.
///
/// # Errors
/// A usage error that says where it is no JSON, or holds what cannot be sent as it is written.
pub(crate) fn parse_body(text: &str) -> Result<Value, CliError> {
    match Value::parse_json(text).map_err(refused)? {
        body @ Value::Map(_) => Ok(body),
        _ => Err(CliError::usage("the body is no JSON object", EXAMPLE)),
    }
}

/// Parameters that were not written as JSON, if they can be sent.
///
/// # Errors
/// A usage error that says what cannot, and where it is.
pub(crate) fn sendable(body: Value) -> Result<Value, CliError> {
    body.sendable().map_err(refused)
}

fn refused(error: JsonError) -> CliError {
    CliError::usage(format!("the body: {error}"), EXAMPLE)
}

/// Shows what came, a refusal or an error, too: with its headers where they were asked for.
async fn show(
    caller: &Caller<'_>,
    place: &Place,
    subject: &Subject,
    body: &Value,
    reply: Reply,
    headers: bool,
) -> Outcome {
    let out = caller.session.out;
    let message = &reply.message;
    if let Some(trace) = &message.headers.trace_id {
        out.detail(&format!(
            "answered by {}; `hilum logs --trace {trace}` shows the way",
            reply.address
        ));
    }
    let entries = [
        ("type", Some(message.kind.as_str().to_owned())),
        ("trace_id", message.headers.trace_id.clone()),
        ("version", message.headers.version.clone()),
        ("address", Some(reply.address.clone())),
    ];
    if headers && !out.json {
        for (key, value) in &entries {
            out.line(&format!("{key}: {}", printable(value.as_deref().unwrap_or("-"))))?;
        }
        out.line("")?;
    }
    let answer = message.unpack::<Value>().map_err(|error| {
        CliError::failed(format!("`{}` answered something unreadable: {error}", reply.address))
    });
    if headers && out.json {
        let headers: serde_json::Map<String, serde_json::Value> =
            entries.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
        let shown = answer.as_ref().map_or(serde_json::Value::Null, Value::to_json);
        out.json(&json!({"headers": headers, "body": shown}))?;
    }
    let trace_id = message.headers.trace_id.clone().unwrap_or_default();
    if let Err(error) = reply.understood(&subject.name) {
        return Err(caller.explain(place, subject, body, &trace_id, error.into()).await);
    }
    let answer = answer?;
    if !(headers && out.json) {
        print(out, &answer)?;
    }
    Ok(ExitStatus::Done)
}

/// Prints a value: for people, or with `--json` so that nothing of it is lost.
pub(crate) fn print(out: Output, value: &Value) -> Result<(), CliError> {
    if out.json {
        return out.json(&value.to_json());
    }
    let text = format!("{value:#}");
    let lines: Vec<_> = text.lines().map(printable).collect();
    out.line(&lines.join("\n"))
}

/// clap's parser of a number from 1 to `MOST`.
fn count<const MOST: u32>(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=MOST).contains(number));
    number.ok_or_else(|| format!("write a whole number from 1 to {MOST}"))
}

/// clap's parser of a trace's id: what a frame's headers take.
fn trace_id(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_TEXT || text.contains(char::is_control) {
        return Err(format!("write 1 to {MAX_TEXT} bytes of text, without control characters"));
    }
    Ok(text.to_owned())
}

/// clap's parser of a timeout: nothing is answered within no time.
pub(crate) fn timeout(text: &str) -> Result<Duration, String> {
    match time::duration(text)? {
        Duration::ZERO => Err("nothing is answered within no time".to_owned()),
        timeout => Ok(timeout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_all_before_the_last_dot() {
        let subject = Subject::parse("job.worker.ping@1.2").unwrap();
        assert_eq!((&*subject.interface, &*subject.name), ("job.worker", "job.worker.ping"));
        assert_eq!(subject.version.unwrap().to_string(), "1.2.0");
        let subject = Subject::parse("job.worker@1.2.ping").unwrap();
        assert_eq!((&*subject.interface, &*subject.name), ("job.worker", "job.worker.ping"));
        for bad in ["echo", ".x", "x.", "echo.upper@v1", "echo.upper@", "echo@1."] {
            assert!(Subject::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_body_is_an_object_and_may_hold_special_values() {
        let body = parse_body(r#"{"at": {"__type__": "date", "_": "2015-03-14"}}"#).unwrap();
        assert_eq!(body.to_string(), r#"{"at": date(2015-03-14)}"#);
        for bad in ["[1]", "7", "{", "", r#"{"__type__": "date", "_": "2015-03-14"}"#] {
            assert!(parse_body(bad).is_err(), "{bad}");
        }
    }
}
