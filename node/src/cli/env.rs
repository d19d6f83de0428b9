//! `env`: the environment of a service, each value with its origin.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

use hilum_shared::secret::{MASK, masked};

use super::exit::{ExitStatus, Outcome};
use super::oneoff::Oneoff;
use super::output::Style;
use super::session::Session;

/// The words of `env`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum env web                  of its first instance, as the next start would have it, by the running node's environment\n  \
    hilum env web.2 --reveal       secrets, too\n  \
    hilum env web --json | jq '.env[] | select(.origin != \"inherited\")'")]
pub(crate) struct EnvArgs {
    /// A service, or an instance for its index and ports
    #[arg(value_name = "SERVICE|INSTANCE", add = super::completions::targets())]
    service: String,
    /// Show secrets
    #[arg(long)]
    reveal: bool,
}

/// Runs `env`.
pub(crate) fn run(session: &Session, args: &EnvArgs) -> Outcome {
    use hilum_shared::protocol::env as variable;
    let node = session.see_as_the_node()?;
    let loaded = session.config()?;
    let oneoff = Oneoff::of(session, loaded, &args.service)?;
    let mut shown = Vec::new();
    for one in oneoff.environment()? {
        let name = one.name.to_string_lossy().into_owned();
        let value = one.value.to_string_lossy().into_owned();
        let value = match name.as_str() {
            // made anew for each run, so there is none to show
            variable::TOKEN | variable::CLUSTER | "LISTEN_PID" => MASK.to_owned(),
            _ if args.reveal => value,
            _ => masked(&name, &value),
        };
        shown.push((name, value, one.origin));
    }
    if session.out.json {
        let all: Vec<_> = shown
            .iter()
            .map(|(name, value, origin)| serde_json::json!({"name": name, "value": value, "origin": origin}))
            .collect();
        session.out.json(&serde_json::json!({ "instance": oneoff.instance, "env": all }))?;
        return Ok(ExitStatus::Done);
    }
    if let Some(pid) = node {
        let others = different(&loaded.raw, &session.variables());
        if !others.is_empty() {
            session.out.note(&format!(
                "shown is what the node (pid {pid}) runs with; in this shell {} {} another value",
                others.join(", "),
                if others.len() == 1 { "has" } else { "have" },
            ));
        }
    }
    let mut out = session.out.stream();
    for (name, value, origin) in &shown {
        let origin = session.out.paint.paint(Style::Dim, &format!("# {origin}"));
        out.line(&format!("{name}={}  {origin}", readable(value)))?;
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}

/// A value on one line: as it is, or as a shell would read it where it has line breaks or control codes.
fn readable(value: &str) -> Cow<'_, str> {
    if !value.starts_with("$'") && !value.chars().any(char::is_control) {
        return Cow::Borrowed(value);
    }
    let mut quoted = String::from("$'");
    for c in value.chars() {
        match c {
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            '\\' | '\'' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let code = u32::from(c);
                let (mark, width) = if c.is_ascii() { ('x', 2) } else { ('u', 4) };
                let _ = write!(quoted, "\\{mark}{code:0width$x}"); // a String takes all
            }
            c => quoted.push(c),
        }
    }
    quoted.push('\'');
    Cow::Owned(quoted)
}

/// The names of `$(env.…)` in the files that have another value in this process than among `nodes`.
fn different(files: &[(PathBuf, String)], nodes: &[(OsString, OsString)]) -> Vec<String> {
    let mut names = BTreeSet::new();
    for (_, text) in files {
        for reference in text.split("$(env.").skip(1) {
            names.insert(reference.split([')', ':']).next().unwrap_or_default());
        }
    }
    let theirs = |name: &str| nodes.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let other = |name: &&str| theirs(name) != std::env::var_os(name).as_ref();
    names.into_iter().filter(other).map(|name| format!("`{name}`")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_several_lines_is_not_taken_for_one_with_blanks() {
        assert_eq!(readable("a \"b\" it's \\ ü"), "a \"b\" it's \\ ü");
        assert_eq!(readable("line1\nline2"), r"$'line1\nline2'");
        assert_eq!(readable("it's\t\\n\x1b[2J\u{85}"), r"$'it\'s\t\\n\x1b[2J\u0085'");
        assert_eq!(readable("$'a'"), r"$'$\'a\''");
    }
}
