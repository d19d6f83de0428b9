//! `config`: the configuration as the node understands it, its source, or its schema.

use hilum_shared::config;
use hilum_shared::secret::{MASK, is_secret, masked};
use serde_json::Value;

use super::exit::{CliError, ExitStatus, Outcome};
use super::session::Session;
use super::target::nearest;

/// The words of `config`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum config                            after includes, variables and defaults\n  \
    hilum config instances.web.command      one key, or its default\n  \
    hilum config --raw                      the files as they are\n  \
    hilum config --schema > hilum.schema.json\n  \
    hilum config --reveal > all.yml         one file that means the same, for `up` from this folder\n\n\
    `$(env.NAME)` is read from this shell's environment, over `--env-file`, over the `.env` beside the config; a running\n\
    node reads its own. Secrets are masked unless --reveal is given.")]
pub(crate) struct ConfigArgs {
    /// One key: `instances.web.env.PORT`
    #[arg(value_name = "KEY", conflicts_with_all = ["raw", "schema"])]
    key: Option<String>,
    /// After includes, variables and defaults (this is what is shown without an option, too)
    #[arg(long, conflicts_with_all = ["raw", "schema"])]
    resolved: bool,
    /// The files as they are
    #[arg(long, conflicts_with = "schema")]
    raw: bool,
    /// The JSON Schema of the file
    #[arg(long)]
    schema: bool,
    /// Show secrets
    #[arg(long)]
    reveal: bool,
}

/// Runs `config`.
pub(crate) fn run(session: &Session, args: &ConfigArgs) -> Outcome {
    if args.schema {
        session.out.json(&config::schema())?;
        return Ok(ExitStatus::Done);
    }
    if args.raw {
        return raw(session);
    }
    let loaded = session.config()?;
    // as JSON, so that only `shared/config` needs to know the YAML crate
    let mut value = serde_json::to_value(&loaded.resolved)
        .map_err(|error| CliError::failed(format!("cannot show the configuration: {error}")))?;
    if !args.reveal {
        let before = value.clone();
        mask(&mut value);
        if value != before && args.key.is_none() {
            session
                .out
                .note("secrets are masked; `--reveal` shows them, for a file that is to run");
        }
    }
    let default;
    let shown = match &args.key {
        None => &value,
        Some(key) => match find(&value, key) {
            Ok(shown) => shown,
            Err(error) => {
                let name = || Some(Value::from(loaded.cluster.name.as_str()));
                let known = if key == "name" { name() } else { default_of(&value, key) };
                default = known.ok_or(error)?;
                &default
            }
        },
    };
    match shown {
        _ if session.out.json => session.out.json(shown)?,
        Value::String(text) => session.out.line(text)?,
        Value::Object(_) | Value::Array(_) => session.out.text(&config::render(shown))?,
        other => session.out.line(&other.to_string())?,
    }
    Ok(ExitStatus::Done)
}

fn raw(session: &Session) -> Outcome {
    let project = session.project()?;
    for (index, path) in project.configs.iter().enumerate() {
        let text = std::fs::read_to_string(path).map_err(|source| CliError::File {
            doing: "cannot read",
            path: path.clone(),
            source,
        })?;
        if project.configs.len() > 1 {
            let gap = if index == 0 { "" } else { "\n" };
            session.out.line(&format!("{gap}# {}", path.display()))?;
        }
        session.out.text(&text)?;
        if !text.ends_with('\n') {
            session.out.line("")?;
        }
    }
    Ok(ExitStatus::Done)
}

/// The value at `instances.web.command`, lists by index.
fn find<'a>(value: &'a Value, key: &str) -> Result<&'a Value, CliError> {
    let mut at = value;
    let mut path = String::new();
    for part in key.split('.') {
        let (next, known): (Option<&Value>, Vec<String>) = match at {
            Value::Object(map) => (map.get(part), map.keys().cloned().collect()),
            Value::Array(list) => (
                part.parse::<usize>().ok().and_then(|index| list.get(index)),
                (0..list.len()).map(|index| index.to_string()).collect(),
            ),
            _ => (None, Vec::new()),
        };
        let Some(next) = next else {
            let place =
                if path.is_empty() { "the configuration".to_owned() } else { format!("`{path}`") };
            let near = nearest(part, &known);
            let names = if near.is_empty() { &known } else { &near };
            return Err(CliError::Usage {
                message: format!("{place} has no key `{part}`"),
                help: (!names.is_empty()).then(|| format!("there is `{}`", names.join("`, `"))),
            });
        };
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(part);
        at = next;
    }
    Ok(at)
}

/// The default of a key that the configuration leaves out, where all that it lies in is there or has one, too.
fn default_of(value: &Value, key: &str) -> Option<Value> {
    let schema = config::schema();
    let (mut at, mut written) = (&schema, Some(value));
    for part in key.split('.') {
        while let Some(inner) = at.get("$ref").or_else(|| at.pointer("/allOf/0/$ref")) {
            at = schema.pointer(inner.as_str()?.strip_prefix('#')?)?;
        }
        let map = |schema: &&Value| schema.get("properties").is_some();
        let variants = at.get("anyOf").and_then(Value::as_array);
        at = variants.and_then(|all| all.iter().find(map)).unwrap_or(at);
        written = written.and_then(|value| value.get(part));
        at = match at.pointer(&format!("/properties/{part}")) {
            Some(inner) => inner,
            // a name that nobody wrote has nothing
            None => {
                written?;
                at.get("additionalProperties").filter(|inner| inner.is_object())?
            }
        };
    }
    at.get("default").cloned()
}

/// Masks what lies under a key that names a secret.
fn mask(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) => *text = masked(key, text),
                    Value::Number(_) if is_secret(key) => *value = MASK.into(),
                    other => mask(other),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(mask),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_masked_by_name_and_in_urls() {
        let mut value = json!({"env": {
            "DB_PASSWORD": "x", "API_KEY": "x", "github-token": "x", "PORT": "80", "PIN_SECRET": 7,
            "URL": "postgres://me:hush@db/x?a=b", "PLAIN": "http://host:80/a@b", "EMPTY_TOKEN": "",
        }});
        mask(&mut value);
        assert_eq!(
            value,
            json!({"env": {
                "DB_PASSWORD": MASK, "API_KEY": MASK, "github-token": MASK, "PORT": "80", "PIN_SECRET": MASK,
                "URL": format!("postgres://me:{MASK}@db/x?a=b"), "PLAIN": "http://host:80/a@b", "EMPTY_TOKEN": "",
            }})
        );
    }

    #[test]
    fn a_key_is_found_or_its_neighbours_are_named() {
        let value = json!({"instances": {"web": {"command": ["a", "b"]}}});
        assert_eq!(find(&value, "instances.web.command.1").unwrap(), "b");
        assert_eq!(default_of(&value, "instances.web.numprocesses"), Some(json!(1)));
        assert_eq!(default_of(&value, "instances.web.stop.timeout"), Some(json!("10s")));
        assert_eq!(default_of(&value, "logs.budget"), Some(json!("1GiB")));
        assert_eq!(default_of(&value, "instances.wbe.numprocesses"), None);
        assert_eq!(default_of(&value, "logs.bugdet"), None);
        let error = find(&value, "instances.wbe").unwrap_err();
        assert_eq!(error.to_string(), "`instances` has no key `wbe`");
        assert_eq!(error.help().unwrap(), "there is `web`");
        assert_eq!(error.status(), ExitStatus::Usage);
    }
}
