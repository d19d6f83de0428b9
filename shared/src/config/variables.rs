//! `$(env.NAME)`, `$(env.NAME:-default)` and `$(var.path)`: replaced when the file is read.
//!
//! `$(instance.…)`, `$(service.name)` and `$(port.…)` stay, for each start to fill in; `$$(` stays, too.
//! What a variable brings in is never read as a reference itself.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::diagnostic::{Problems, nearest, quote};
use super::dotenv;
use super::keys::top::SERVICES_OWN;
use super::raw::Budget;
use super::source::{Pos, Sources};
use super::tree::{Entry, Map, Node, Style, Value};

/// All namespaces, those that stay included.
const NAMESPACES: [&str; 5] = ["env", "var", "instance", "service", "port"];

/// What references are replaced with.
pub(crate) struct Variables<'a> {
    /// The process's environment over the `.env` files.
    pub(crate) env: &'a BTreeMap<String, String>,
    /// The file of `--vars` or `LYMPH_VARS`.
    pub(crate) vars: Option<&'a Node>,
    /// For the place of a reference within its value.
    pub(crate) sources: &'a Sources,
}

/// The text below a key of a map.
fn text<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.as_map()?.get(key)?.as_scalar().map(|scalar| scalar.text.as_str())
}

/// What one reference stands for.
enum Found<'a> {
    /// A text of the environment, or a default.
    Text(Cow<'a, str>),
    /// A value of the variables file.
    Node(&'a Node),
    /// One that each start fills in.
    Later,
}

impl Variables<'_> {
    /// Replaces all references below a document's root. Sections that services read stay as they are.
    pub(crate) fn apply_to_root(
        &self,
        root: &mut Node,
        budget: &mut Budget,
        problems: &mut Problems,
    ) {
        let Value::Map(map) = &mut root.value else {
            return;
        };
        for entry in &mut map.0 {
            let mut path = entry.key.clone();
            match entry.key.as_str() {
                "registry" => {
                    self.apply_to_registry(&mut entry.value, "registry", budget, problems);
                }
                name if name.starts_with("x-") || SERVICES_OWN.contains(&name) => {}
                "container" => self.apply_to_container(&mut entry.value, budget, problems),
                _ => self.apply(&mut entry.value, &mut path, budget, problems),
            }
        }
        self.apply_to_dependency(map, budget, problems);
    }

    fn apply_to_container(&self, node: &mut Node, budget: &mut Budget, problems: &mut Problems) {
        let Value::Map(map) = &mut node.value else {
            return;
        };
        for entry in &mut map.0 {
            let mut path = format!("container.{}", entry.key);
            match (entry.key.as_str(), &mut entry.value.value) {
                ("ip" | "port" | "log_endpoint", _) => {
                    self.apply(&mut entry.value, &mut path, budget, problems);
                }
                ("registry", _) => {
                    self.apply_to_registry(&mut entry.value, &path, budget, problems);
                }
                ("events", Value::Map(inner)) => {
                    if let Some(class) = inner.get_mut("class") {
                        path.push_str(".class");
                        self.apply(class, &mut path, budget, problems);
                    }
                }
                _ => {}
            }
        }
    }

    /// The node needs to know where ZooKeeper is. The hosts of a fixed list are for services, and may hold what only a service's environment has:
    /// such a text stays as it is.
    fn apply_to_registry(
        &self,
        node: &mut Node,
        path: &str,
        budget: &mut Budget,
        problems: &mut Problems,
    ) {
        let mut replaced = node.clone();
        let mut wrong = Problems::default();
        self.apply(&mut replaced, &mut path.to_owned(), budget, &mut wrong);
        let needed = text(&replaced, "class").is_some_and(|class| class.contains("zookeeper"));
        if needed {
            problems.append(wrong);
        } else if wrong.errors() > 0 {
            return;
        }
        *node = replaced;
    }

    /// What `zkclient: dep:NAME` of a registry names is read by the node, too.
    fn apply_to_dependency(&self, map: &mut Map, budget: &mut Budget, problems: &mut Problems) {
        let container = map.get("container").and_then(Node::as_map);
        let registry = container.and_then(|map| map.get("registry")).or(map.get("registry"));
        let client = registry.and_then(|registry| text(registry, "zkclient"));
        let Some(name) = client.and_then(|client| client.strip_prefix("dep:")) else { return };
        let (name, mut path) = (name.to_owned(), format!("dependencies.{name}"));
        if let Some(Value::Map(all)) = map.get_mut("dependencies").map(|node| &mut node.value)
            && let Some(node) = all.get_mut(&name)
        {
            self.apply(node, &mut path, budget, problems);
        }
    }

    /// Replaces all references below a node.
    pub(crate) fn apply(
        &self,
        node: &mut Node,
        path: &mut String,
        budget: &mut Budget,
        problems: &mut Problems,
    ) {
        let length = path.len();
        match &mut node.value {
            Value::Map(Map(entries)) => {
                for entry in entries {
                    path.push('.');
                    path.push_str(&entry.key);
                    self.apply(&mut entry.value, path, budget, problems);
                    path.truncate(length);
                }
            }
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    push_index(path, index);
                    self.apply(item, path, budget, problems);
                    path.truncate(length);
                }
            }
            Value::Scalar(scalar) if scalar.text.contains("$(") => {
                let text = std::mem::take(&mut scalar.text);
                let style = scalar.style;
                node.value = match self.expand(&text, style, node.at, path, budget, problems) {
                    Some(value) => value,
                    None => Value::Broken,
                };
            }
            _ => {}
        }
    }

    fn expand(
        &self,
        text: &str,
        style: Style,
        at: Pos,
        path: &str,
        budget: &mut Budget,
        problems: &mut Problems,
    ) -> Option<Value> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let mut replaced = false;
        let (mut good, mut later) = (true, false);
        while let Some(start) = rest.find("$(") {
            add(&mut out, &rest[..start]);
            if rest[..start].ends_with('$') {
                out.push_str("$(");
                rest = &rest[start + 2..];
                continue;
            }
            // A shell's arithmetic, `$((i + 1))`, is none of ours.
            if rest[start..].starts_with("$((") {
                out.push_str("$((");
                rest = &rest[start + 3..];
                continue;
            }
            let Some(end) = rest[start..].find(')').map(|n| start + n) else {
                problems
                    .error(self.locate(at, &rest[start..]), path, "`$(` without a closing `)`")
                    .help("write `$$(` for a literal `$(`");
                return None;
            };
            let whole = &rest[start..=end];
            match self.look_up(&rest[start + 2..end], self.locate(at, whole), path, problems) {
                Some(Found::Text(value)) => {
                    add(&mut out, &value.replace("$(", "$$("));
                    replaced = true;
                }
                Some(Found::Node(node)) if whole == text => {
                    let size = node.size();
                    if !budget.take(size.nodes, size.bytes) {
                        too_much(at, path, problems);
                        return None;
                    }
                    return Some(node.value.clone());
                }
                Some(Found::Node(node)) => match &node.value {
                    Value::Scalar(scalar) if !scalar.is_null() => {
                        add(&mut out, &scalar.text);
                        replaced = true;
                    }
                    _ => {
                        let what = node.describe();
                        problems
                            .error(
                                self.locate(at, whole),
                                path,
                                format!(
                                    "{} is {what} and cannot stand inside a text",
                                    quote(whole)
                                ),
                            )
                            .help("use it as the whole value, or give the path of a text in it");
                        good = false;
                    }
                },
                Some(Found::Later) => {
                    out.push_str(whole);
                    later = true;
                }
                None => good = false,
            }
            rest = &rest[end + 1..];
            if !budget.take(0, out.len().saturating_sub(text.len())) {
                too_much(at, path, problems);
                return None;
            }
        }
        add(&mut out, rest);
        let style = if replaced { Style::Variable } else { style };
        // Without what is wrong, so that the references that each start fills in are judged in the same round.
        (good || later).then(|| Node::scalar(out, style, at).value)
    }

    fn look_up(
        &self,
        reference: &str,
        at: Pos,
        path: &str,
        problems: &mut Problems,
    ) -> Option<Found<'_>> {
        let (namespace, name) = reference.split_once('.').unwrap_or((reference, ""));
        match namespace {
            "env" => self.env(name, at, path, problems),
            "var" => self.var(name, at, path, problems),
            "instance" | "service" | "port" => Some(Found::Later),
            other => {
                let shown = quote(&format!("$({reference})"));
                let problem = problems.error(at, path, format!("{shown} names no known namespace"));
                match nearest(other, NAMESPACES) {
                    Some(near) => problem.help(format!("did you mean `$({near}.…)`? `$$(` is a literal `$(`")),
                    None => problem.help("known are `env`, `var`, `instance`, `service` and `port`; `$$(` is a literal `$(`"),
                };
                None
            }
        }
    }

    fn env<'a>(
        &'a self,
        name: &str,
        at: Pos,
        path: &str,
        problems: &mut Problems,
    ) -> Option<Found<'a>> {
        let (name, default) = match name.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (name, None),
        };
        if !dotenv::is_name(name) {
            problems
                .error(at, path, format!("{} is no name of a variable", quote(name)))
                .help("write `$(env.NAME)` or `$(env.NAME:-default)`");
            return None;
        }
        match (self.env.get(name), default) {
            (Some(value), Some(_)) if !value.is_empty() => Some(Found::Text(value.into())),
            (_, Some(default)) if default.contains("$(") => {
                problems
                    .error(at, path, "a default cannot hold another reference")
                    .help("give the other variable its own default, in `.env` for example");
                None
            }
            (_, Some(default)) => Some(Found::Text(default.to_owned().into())),
            (Some(value), None) => Some(Found::Text(value.into())),
            (None, None) => {
                let problem =
                    problems.error(at, path, format!("the variable {} is not set", quote(name)));
                match nearest(name, self.env.keys().map(String::as_str)) {
                    Some(near) => problem.help(format!(
                        "did you mean `{near}`? a default is written `$(env.{name}:-default)`"
                    )),
                    None => problem.help(format!(
                        "set it, put it into `.env`, or give a default: `$(env.{name}:-default)`"
                    )),
                };
                None
            }
        }
    }

    fn var(&self, name: &str, at: Pos, path: &str, problems: &mut Problems) -> Option<Found<'_>> {
        let Some(mut node) = self.vars else {
            problems
                .error(
                    at,
                    path,
                    format!("{} needs a file of variables", quote(&format!("$(var.{name})"))),
                )
                .help("give one with `--vars FILE` or `LYMPH_VARS`");
            return None;
        };
        for part in name.split('.') {
            let map = node.as_map();
            let Some(found) = map.and_then(|map| map.get(part)) else {
                if map.is_some_and(|map| map.0.iter().any(Entry::is_hole)) {
                    return None;
                }
                let known = map.map(|map| map.0.iter().map(|entry| entry.key.as_str()));
                let near = known.and_then(|known| nearest(part, known).map(str::to_owned));
                let problem =
                    problems.error(at, path, format!("the variables file has no {}", quote(name)));
                if let Some(near) = near {
                    problem.help(format!("did you mean `{near}` in place of `{part}`?"));
                }
                return None;
            };
            node = found;
        }
        (!matches!(node.value, Value::Broken)).then_some(Found::Node(node))
    }

    /// Where a reference stands in its value.
    fn locate(&self, at: Pos, reference: &str) -> Pos {
        let Some((file, source)) = at.file().zip(self.sources.file(at)) else {
            return at;
        };
        let slice = source.text.get(at.start as usize..at.end as usize).unwrap_or("");
        match slice.find(reference) {
            Some(offset) => {
                let start = at.start as usize + offset;
                Pos::new(file, start, start + reference.len())
            }
            None => at,
        }
    }
}

/// Appends `[3]` to a path.
pub(super) fn push_index(path: &mut String, index: usize) {
    path.push('[');
    path.push_str(&index.to_string());
    path.push(']');
}

/// Appends a literal so that it makes no reference with what stands before it.
fn add(out: &mut String, text: &str) {
    if out.ends_with('$') && text.starts_with('(') {
        out.push('$');
    }
    out.push_str(text);
}

fn too_much(at: Pos, path: &str, problems: &mut Problems) {
    problems
        .error(at, path, "variables make the configuration too large")
        .help("at most 32 MiB of text are made of all files together");
}
