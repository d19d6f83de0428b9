//! An error as it is shown: to people, and to programs.

use std::fmt::Write as _;

use hilum_shared::config::{Diagnostic, Diagnostics, Severity};
use serde_json::{Value, json};

use super::super::output::{Painter, Style, printable};
use super::{CliError, first};

impl CliError {
    /// The object that `--json` prints on stderr. `where` is a place in a file; of a config that is not valid `errors`
    /// holds all that is wrong, and the rest is the first of them; `incomplete`: a file could not be read to its end. Of an error that
    /// a service raised `type` is its name and `body` all that it said; of every call that reached a service `trace_id` is its trace.
    pub(crate) fn to_json(&self) -> Value {
        let place = match self {
            Self::Config(all) => first(all).map_or(Value::Null, self::place),
            Self::File { path, .. } => json!({"file": path, "line": null, "column": null}),
            _ => Value::Null,
        };
        let mut error = json!({
            "code": self.code(),
            "message": self.to_string(),
            "help": self.help(),
            "where": place,
        });
        if let Self::Call { error: call, .. } = self
            && let Some(kind) = call.kind()
        {
            error["type"] = kind.into();
            error["body"] = call.downcast::<Value>(kind).unwrap_or_default();
        }
        if let Self::Call { trace_id: Some(trace_id), .. } = self {
            error["trace_id"] = trace_id.as_str().into();
        }
        if let Self::Config(all) = self {
            error["incomplete"] = hides_more(all).into();
            error["errors"] = errors(all)
                .map(|one| {
                    json!({
                        "message": one.message, "help": one.help, "key": one.path, "where": self::place(one),
                    })
                })
                .collect();
        }
        json!({"error": error})
    }

    /// The text for people.
    pub(crate) fn render(&self, paint: Painter) -> String {
        if let Self::Config(all) = self {
            let total = match errors(all).count() {
                1 => "1 error in the configuration".to_owned(),
                n => format!("{n} errors in the configuration"),
            };
            let more = if hides_more(all) {
                "; what is not valid YAML is not checked further, so there may be more"
            } else {
                ""
            };
            let text = all.render(paint.on());
            return format!(
                "{}\n{} {total}{more}",
                text.trim_end(),
                paint.paint(Style::Error, "error:")
            );
        }
        // the node's findings about a config begin with the word themselves
        let message = self.to_string();
        let message = message.strip_prefix("error: ").unwrap_or(&message).trim_end();
        // a service may say anything
        let foreign = matches!(self, Self::Call { .. });
        let message = if foreign { printable(message) } else { message.into() };
        let mut text = format!("{} {message}", paint.paint(Style::Error, "error:"));
        if let Some(help) = self.help() {
            let _ = write!(text, "\n{} {help}", paint.paint(Style::Help, "help:")); // a String takes all
        }
        if let Self::Call { trace_id: Some(trace_id), .. } = self {
            let trace_id = printable(trace_id);
            let label = paint.paint(Style::Help, "trace:");
            let _ = write!(text, "\n{label} {trace_id} (`hilum logs --trace {trace_id}`)");
        }
        text
    }
}

/// What is wrong with a config, without the warnings.
pub(super) fn errors(all: &Diagnostics) -> impl Iterator<Item = &Diagnostic> {
    all.0.iter().filter(|one| one.severity == Severity::Error)
}

/// Whether a file could not be read to its end, so that nobody knows what else is wrong in it.
fn hides_more(all: &Diagnostics) -> bool {
    errors(all).any(|one| one.message.starts_with("not valid YAML"))
}

fn place(one: &Diagnostic) -> Value {
    let Some(file) = &one.file else { return Value::Null };
    json!({"file": file, "line": one.line, "column": one.column})
}
