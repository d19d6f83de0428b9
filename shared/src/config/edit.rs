//! Changes of one value in a file's text that keep its comments and layout, for `scale --save`.
//!
//! The place is found by the reader's own positions; afterwards the text is read again, and must differ in
//! exactly that value.

use super::diagnostic::Problems;
use super::raw::{self, Budget};
use super::source::Pos;
use super::tree::{Map, Node, Value};

/// Why a file cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// It is no valid YAML.
    #[error("the file is not valid YAML: {reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// It does not have the service.
    #[error("the file has no service `{service}`: it is declared in another file")]
    NoService {
        /// Its name.
        service: String,
    },
    /// The count is not written there, but taken from elsewhere.
    #[error("`instances.{service}.numprocesses` is `{written}`, which is set elsewhere")]
    Variable {
        /// Its name.
        service: String,
        /// What stands there.
        written: String,
    },
    /// The whole service is an alias of what stands elsewhere.
    #[error("`instances.{service}` is the alias `{alias}`, which takes no keys of its own")]
    Alias {
        /// Its name.
        service: String,
        /// `*name`.
        alias: String,
        /// What should be there.
        count: u32,
    },
    /// It is written in a way in which one value cannot be changed alone.
    #[error(
        "`instances.{service}` is written in a way that cannot be changed safely: set `numprocesses: {count}` by hand"
    )]
    Unsafe {
        /// Its name.
        service: String,
        /// What should be there.
        count: u32,
    },
}

impl EditError {
    /// What to write by hand, where that is not plain from the error.
    pub fn help(&self) -> Option<String> {
        let Self::Alias { service, alias, count } = self else { return None };
        Some(format!(
            "write the service out, or `{service}: {{<<: {alias}, numprocesses: {count}}}`, or leave out `--save`"
        ))
    }
}

/// Sets `instances.SERVICE.numprocesses` in a file's text.
///
/// # Errors
/// When the file is invalid, lacks the service, or the value is shared (by an anchor) with something else.
pub fn set_numprocesses(text: &str, service: &str, count: u32) -> Result<String, EditError> {
    let root = read(text)?;
    let unsafe_here = || EditError::Unsafe { service: service.to_owned(), count };
    let entry = root
        .as_map()
        .and_then(|map| map.get("instances"))
        .and_then(Node::as_map)
        .and_then(|map| map.entry(service))
        .ok_or_else(|| EditError::NoService { service: service.to_owned() })?;
    let written = entry.value.as_map().and_then(|map| map.get("numprocesses"));
    if let Some(written) = written.and_then(Node::as_scalar_text)
        && written.contains("$(")
    {
        return Err(EditError::Variable {
            service: service.to_owned(),
            written: written.to_owned(),
        });
    }
    if let Some(alias) = alias(text, entry.key_at) {
        return Err(EditError::Alias { service: service.to_owned(), alias, count });
    }
    let mut expected = root.clone();
    expect(&mut expected, service, count).ok_or_else(unsafe_here)?;
    // Each way is tried in turn; the text that reads back as expected is right by proof.
    let candidates = [
        replace(text, &entry.value, count),
        insert_into_flow(text, &entry.value, count),
        insert_line(text, entry.key_at, &entry.value, count),
        insert_under_null(text, entry.key_at, &entry.value, count),
    ];
    candidates
        .into_iter()
        .flatten()
        .find(|candidate| read(candidate).is_ok_and(|tree| same(&tree, &expected)))
        .ok_or_else(unsafe_here)
}

/// Whether this file itself says how many processes the service has.
pub fn has_numprocesses(text: &str, service: &str) -> bool {
    let has = |root: Node| {
        let instances = root.as_map()?.get("instances")?.as_map()?;
        instances.get(service)?.as_map()?.get("numprocesses").map(|_| ())
    };
    read(text).ok().and_then(has).is_some()
}

fn read(text: &str) -> Result<Node, EditError> {
    let mut problems = Problems::default();
    let tree = raw::parse(0, text, &mut Budget::default(), &mut problems);
    match tree {
        Some(tree) if problems.errors() == 0 => Ok(tree),
        _ => {
            let mut sources = super::source::Sources::default();
            sources.add("config".into(), std::path::Path::new(""), text.to_owned());
            let first = problems.finish(&sources).0.into_iter().next();
            let reason = first.map_or_else(|| "it is empty".to_owned(), |first| first.message);
            Err(EditError::Invalid { reason })
        }
    }
}

/// The alias that stands behind a key.
fn alias(text: &str, key: Pos) -> Option<String> {
    let (_, value) = text.get(key.end as usize..)?.split_once(':')?;
    let name = value.trim_start().strip_prefix('*')?;
    let end = name.find(|c: char| c.is_whitespace() || ",[]{}".contains(c));
    Some(format!("*{}", &name[..end.unwrap_or(name.len())]))
}

/// The tree as it must read afterwards.
fn expect(root: &mut Node, service: &str, count: u32) -> Option<()> {
    let Value::Map(map) = &mut root.value else {
        return None;
    };
    let Value::Map(instances) = &mut map.get_mut("instances")?.value else {
        return None;
    };
    let instance = instances.get_mut(service)?;
    if instance.is_null() {
        instance.value = Value::Map(Map::default());
    }
    let Value::Map(keys) = &mut instance.value else {
        return None;
    };
    let value = Node::plain(count.to_string());
    match keys.get_mut("numprocesses") {
        Some(old) => *old = value,
        None => keys.push("numprocesses", value),
    }
    Some(())
}

/// Whether two trees say the same, wherever it stands and in whatever order keys are.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::Map(a), Value::Map(b)) => {
            a.0.len() == b.0.len()
                && a.0.iter().enumerate().all(|(index, entry)| {
                    // Mostly in the same order: look there first.
                    let at = b.0.get(index).filter(|other| other.key == entry.key);
                    at.or_else(|| b.entry(&entry.key))
                        .is_some_and(|other| same(&entry.value, &other.value))
                })
        }
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (a, b) => a == b,
    }
}

fn splice(text: &str, start: usize, end: usize, with: &str) -> Option<String> {
    Some(format!("{}{with}{}", text.get(..start)?, text.get(end..)?))
}

/// The value that is there, replaced.
fn replace(text: &str, instance: &Node, count: u32) -> Option<String> {
    let entry = instance.as_map()?.entry("numprocesses")?;
    let at = entry.value.at;
    let written = text.get(at.start as usize..at.end as usize)?;
    if written.trim().is_empty() {
        // `numprocesses:` with nothing behind it.
        let end = entry.key_at.end as usize;
        let colon = end + text.get(end..)?.find(':')? + 1;
        return splice(text, colon, colon, &format!(" {count}"));
    }
    splice(
        text,
        at.start as usize,
        at.start as usize + written.trim_end().len(),
        &count.to_string(),
    )
}

/// `{command: x}` as `{command: x, numprocesses: 3}`.
fn insert_into_flow(text: &str, instance: &Node, count: u32) -> Option<String> {
    let open = instance.at.start as usize;
    if !text.get(open..)?.starts_with('{') {
        return None;
    }
    let empty = text[open + 1..].trim_start().starts_with('}');
    let comma = if empty { "" } else { ", " };
    splice(text, open + 1, open + 1, &format!("numprocesses: {count}{comma}"))
}

/// A line of its own before the first key of a block map, indented as that key is.
fn insert_line(text: &str, name: Pos, instance: &Node, count: u32) -> Option<String> {
    // The first key that stands in this map itself; keys from `<<` stand elsewhere in the file.
    let after = name.end as usize;
    let mut at = after + text.get(after..)?.find('\n')? + 1;
    while let Some(line) = text.get(at..).and_then(|rest| rest.split_inclusive('\n').next()) {
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') {
            at += line.len();
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let newline = if line.ends_with("\r\n") { "\r\n" } else { "\n" };
        instance.as_map()?;
        return splice(text, at, at, &format!("{}numprocesses: {count}{newline}", &line[..indent]));
    }
    None
}

/// `web:` with nothing below it, all of it inherited from `defaults`.
fn insert_under_null(text: &str, name: Pos, instance: &Node, count: u32) -> Option<String> {
    if !instance.is_null() {
        return None;
    }
    let after = name.end as usize;
    let colon = after + text.get(after..)?.find(':')? + 1;
    let rest = text.get(colon..)?;
    let value_end = colon + rest.find(['\n', '#', ',', '}']).unwrap_or(rest.len());
    let written = text.get(colon..value_end)?.trim_end();
    splice(text, colon, colon + written.len(), &format!(" {{numprocesses: {count}}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(text: &str) -> String {
        set_numprocesses(text, "web", 7).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn a_value_is_replaced_and_everything_else_stays() {
        let text = "# top\ninstances:\n  web:   # the front\n    command: ./web # run\n    numprocesses: 3 # three\n  db: {command: ./db}\n";
        assert_eq!(edit(text), text.replace("numprocesses: 3", "numprocesses: 7"));
        assert_eq!(
            edit("instances: {web: {numprocesses: '3', command: x}}"),
            "instances: {web: {numprocesses: 7, command: x}}"
        );
        assert_eq!(
            edit("instances:\n  web:\n    numprocesses: cores\n    command: x\n"),
            "instances:\n  web:\n    numprocesses: 7\n    command: x\n"
        );
        assert_eq!(
            edit("instances:\n  web:\n    numprocesses:\n    command: x\n"),
            "instances:\n  web:\n    numprocesses: 7\n    command: x\n"
        );
    }

    #[test]
    fn a_variable_is_not_written_over() {
        let text = "instances:\n  web:\n    numprocesses: $(env.N:-2)\n    command: x\n";
        let error = set_numprocesses(text, "web", 7).unwrap_err();
        let said = "`instances.web.numprocesses` is `$(env.N:-2)`, which is set elsewhere";
        assert_eq!(error.to_string(), said);
    }

    #[test]
    fn a_missing_key_is_put_in() {
        assert_eq!(
            edit("instances:\n  web:\n    command: x\n  db:\n    command: y\n"),
            "instances:\n  web:\n    numprocesses: 7\n    command: x\n  db:\n    command: y\n"
        );
        assert_eq!(
            edit("instances:\n  web: {command: x}\n"),
            "instances:\n  web: {numprocesses: 7, command: x}\n"
        );
        assert_eq!(edit("instances:\n  web: {}\n"), "instances:\n  web: {numprocesses: 7}\n");
        assert_eq!(
            edit("defaults: {command: x}\ninstances:\n  web:\n  db:\n"),
            "defaults: {command: x}\ninstances:\n  web: {numprocesses: 7}\n  db:\n"
        );
        assert_eq!(
            edit("instances:\r\n  web:\r\n    # first\r\n    command: x\r\n"),
            "instances:\r\n  web:\r\n    # first\r\n    numprocesses: 7\r\n    command: x\r\n"
        );
        assert_eq!(
            edit("instances:\n  web:\n    command: x"),
            "instances:\n  web:\n    numprocesses: 7\n    command: x"
        );
    }

    #[test]
    fn what_comes_from_a_merge_key_is_overridden_in_place() {
        let text = "x-a: &a {numprocesses: 2, command: x}\ninstances:\n  web:\n    <<: *a\n    tty: true\n  db: *a\n";
        let edited = edit(text);
        assert_eq!(edited, text.replace("  web:\n", "  web:\n    numprocesses: 7\n"));
    }

    #[test]
    fn a_value_that_others_share_is_not_touched() {
        let shared = "x-n: &n 3\ninstances:\n  web: {command: x, numprocesses: *n}\n  db: {command: y, numprocesses: *n}\n";
        let edited = set_numprocesses(shared, "web", 7);
        assert!(matches!(edited, Err(EditError::Unsafe { .. })), "{edited:?}");
        let whole = "x-s: &s {command: x, numprocesses: 1}\ninstances:\n  web: *s\n  db: *s\n";
        let error = set_numprocesses(whole, "web", 7).unwrap_err();
        assert!(error.to_string().contains("the alias `*s`"), "{error}");
        let help = error.help().unwrap();
        let written = "web: {<<: *s, numprocesses: 7}";
        assert!(help.contains(written), "{help}");
        let by_hand = whole.replace("web: *s", written);
        assert_eq!(set_numprocesses(&by_hand, "web", 7).as_ref(), Ok(&by_hand), "it works");
    }

    #[test]
    fn a_file_without_the_service_or_without_yaml_is_refused() {
        assert!(matches!(
            set_numprocesses("instances: {db: {command: x}}", "web", 7),
            Err(EditError::NoService { .. })
        ));
        assert!(matches!(
            set_numprocesses("instances: [", "web", 7),
            Err(EditError::Invalid { .. })
        ));
        assert!(matches!(set_numprocesses("", "web", 7), Err(EditError::Invalid { .. })));
    }
}
