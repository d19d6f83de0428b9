//! The configuration of a service: lymph's files, read by the same reader as the node's.
//!
//! ```text
//! LYMPH_NODE_CONFIG ─► container registry event_system plugins dependencies ─┐ a section of the second file is laid over
//! --config, LYMPH_CONFIG ─► all sections ────────────────────────────────────┴─► the first's, one level deep ─► Section ─► read::<T>()
//! ```
//! `$(env.NAME)`, `$(var.path)`, and what the node fills in at a start (`$(instance.index)`, `$(port.http)`), are replaced. A
//! [`Section`] becomes any `Deserialize` type; what is wrong in it is told with file, line and the nearest key.

mod read;
mod texts;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::diagnostic::{Diagnostics, Problems, nearest, quote};
use super::keys::top::TOP;
use super::load::VARS;
use super::raw::Budget;
use super::read as files;
use super::recover;
use super::source::{Pos, Sources};
use super::template::{Lookup, Template};
use super::tree::{Map, Node, Value};
use super::variables::Variables;
use crate::protocol::env;

/// Names the file of the service's configuration.
pub const CONFIG: &str = "LYMPH_CONFIG";
/// Names the node's configuration, of which services share some sections.
pub const NODE_CONFIG: &str = "LYMPH_NODE_CONFIG";
/// Taken when no file is named and it lies in the current folder.
pub const DEFAULT: &str = ".lymph.yml";
/// Stands in the help, and so in the file, of every program on `hilum-worker`: by it `hilum instance` tells one in PATH from a
/// program that only has its name.
pub const MARK: &str =
    "This program is built on hilum-worker: `hilum instance` runs it for `class: 'PROGRAM:Type'`.";

/// Sections of the node's file that its services share.
const SHARED: [&str; 5] = ["container", "registry", "event_system", "plugins", "dependencies"];
/// Sections that a service reads.
const OWN: [&str; 10] = [
    "name",
    "container",
    "registry",
    "event_system",
    "interfaces",
    "components",
    "dependencies",
    "plugins",
    "logging",
    "debug",
];

/// Which files are read.
#[derive(Clone, Debug, Default)]
pub struct ServiceOptions {
    /// `--config`; else `LYMPH_CONFIG`, else `.lymph.yml` where it exists.
    pub config: Option<PathBuf>,
    /// `--vars`; else `LYMPH_VARS`.
    pub vars: Option<PathBuf>,
    /// Where relative paths start; absolute.
    pub folder: PathBuf,
    /// The environment.
    pub env: BTreeMap<String, String>,
}

/// A part of a configuration, or the place where one would stand.
#[derive(Clone, Debug)]
pub struct Section {
    sources: Arc<Sources>,
    node: Option<Node>,
    /// The key, or where it would stand.
    at: Pos,
    path: String,
}

/// Reads a service's configuration: the whole as one section. Without any file it is empty.
///
/// # Errors
/// With all that is wrong, except inside the sections that types read later.
pub fn load(options: &ServiceOptions) -> Result<Section, Diagnostics> {
    let mut loader = Loader {
        options,
        sources: Sources::default(),
        problems: Problems::default(),
        budget: Budget::default(),
    };
    let root = loader.load();
    if loader.problems.errors() > 0 {
        return Err(loader.problems.finish(&loader.sources));
    }
    Ok(Section {
        at: root.at,
        node: Some(root),
        sources: Arc::new(loader.sources),
        path: String::new(),
    })
}

struct Loader<'a> {
    options: &'a ServiceOptions,
    sources: Sources,
    problems: Problems,
    budget: Budget,
}

impl Loader<'_> {
    fn load(&mut self) -> Node {
        let vars = self.named(self.options.vars.clone(), VARS);
        let vars = vars.and_then(|(path, origin)| self.file(&path, &origin));
        let vars = vars.map(|mut vars| {
            self.replace(&mut vars, None, "");
            vars
        });
        let mut root = Node::map(Pos::NONE);
        if let Some((path, origin)) = self.named(None, NODE_CONFIG)
            && let Some(mut node) = self.document(&path, &origin)
        {
            if let Value::Map(map) = &mut node.value {
                map.0.retain(|entry| SHARED.contains(&entry.key.as_str()));
                if let Some(Value::Map(container)) =
                    map.get_mut("container").map(|it| &mut it.value)
                {
                    container.remove("port"); // the node's own
                }
            }
            self.finish(&mut node, vars.as_ref());
            lay_over(&mut root, node);
        }
        let config = self.named(self.options.config.clone(), CONFIG).or_else(|| {
            let beside = self.options.folder.join(DEFAULT);
            beside.is_file().then(|| (beside, String::new()))
        });
        if let Some((path, origin)) = config
            && let Some(mut node) = self.document(&path, &origin)
        {
            self.check_keys(&node);
            if let Value::Map(map) = &mut node.value {
                // In one file with the node's: the rest is the node's, who fills it in, too.
                map.0.retain(|entry| OWN.contains(&entry.key.as_str()));
            }
            self.finish(&mut node, vars.as_ref());
            lay_over(&mut root, node);
        }
        root
    }

    /// The file of an option, or of a variable; with what to say when it cannot be read.
    fn named(&self, option: Option<PathBuf>, variable: &str) -> Option<(PathBuf, String)> {
        if let Some(path) = option {
            return Some((path, String::new()));
        }
        let path = self.options.env.get(variable).filter(|path| !path.is_empty())?;
        Some((PathBuf::from(path), format!(" of `{variable}`")))
    }

    fn file(&mut self, path: &Path, origin: &str) -> Option<Node> {
        let path = self.options.folder.join(path);
        let text = match files::text(&path) {
            Ok(text) => text,
            Err(error) => {
                let shown = quote(&path.to_string_lossy());
                self.problems.error(Pos::NONE, "", format!("cannot read {shown}{origin}: {error}"));
                return None;
            }
        };
        let number = self.sources.add(path, &self.options.folder, text.clone());
        recover::parse(number, &text, &mut self.budget, &mut self.problems)
    }

    /// A file that must hold a map; an empty one is an empty map.
    fn document(&mut self, path: &Path, origin: &str) -> Option<Node> {
        let before = self.problems.errors();
        let node = self.file(path, origin);
        if self.problems.errors() > before {
            return None;
        }
        match node {
            None => Some(Node::map(Pos::NONE)),
            Some(node) if node.is_null() => Some(Node::map(node.at)),
            Some(node) if node.as_map().is_some() => Some(node),
            Some(node) => {
                let found = node.describe();
                self.problems
                    .error(
                        node.at,
                        "",
                        format!("a configuration is a map of keys, this is {found}"),
                    )
                    .help("start with `interfaces:`");
                None
            }
        }
    }

    fn check_keys(&mut self, node: &Node) {
        let Some(map) = node.as_map() else { return };
        for entry in &map.0 {
            let known = TOP.iter().map(|key| key.name);
            if entry.key.starts_with("x-") || known.clone().any(|key| key == entry.key) {
                continue;
            }
            let message = format!("unknown key {}", quote(&entry.key));
            let near = nearest(&entry.key, known);
            let problem = self.problems.error(entry.key_at, &entry.key, message);
            match near {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None => problem.help("a service's own settings stand below its interface; keys that start with `x-` are free"),
            };
        }
    }

    fn finish(&mut self, node: &mut Node, vars: Option<&Node>) {
        let Value::Map(map) = &mut node.value else { return };
        for entry in &mut map.0 {
            let path = entry.key.clone();
            self.replace(&mut entry.value, vars, &path);
            fill_in(&mut entry.value, &Started(&self.options.env), &path, &mut self.problems);
        }
    }

    fn replace(&mut self, node: &mut Node, vars: Option<&Node>, path: &str) {
        Variables { env: &self.options.env, vars, sources: &self.sources }.apply(
            node,
            &mut path.to_owned(),
            &mut self.budget,
            &mut self.problems,
        );
    }
}

/// Lays the sections of a file over those of another, each one level deep: what is nested is replaced, as in lymph.
fn lay_over(root: &mut Node, over: Node) {
    let (Value::Map(root), Value::Map(over)) = (&mut root.value, over.value) else { return };
    for entry in over.0 {
        let Some(under) = root.0.iter_mut().find(|under| under.key == entry.key) else {
            root.0.push(entry);
            continue;
        };
        under.key_at = entry.key_at;
        match (&mut under.value.value, entry.value.value) {
            (Value::Map(under), Value::Map(over)) => {
                for entry in over.0 {
                    under.remove(&entry.key);
                    under.0.push(entry);
                }
            }
            (under, over) => *under = over,
        }
    }
}

/// What the node said of this start in the environment.
struct Started<'a>(&'a BTreeMap<String, String>);

impl Lookup for Started<'_> {
    fn lookup(&self, reference: &str) -> Option<Cow<'_, str>> {
        let name: Cow<'_, str> = match reference {
            "instance.index" => env::INDEX.into(),
            "instance.id" | "instance.name" => env::INSTANCE.into(),
            "service.name" => env::SERVICE.into(),
            port => {
                let name = port.strip_prefix("port.").filter(|name| !name.contains('.'))?;
                format!("PORT_{}", name.to_ascii_uppercase().replace('-', "_")).into()
            }
        };
        self.0.get(&*name).map(Into::into)
    }
}

fn fill_in(node: &mut Node, started: &Started<'_>, path: &str, problems: &mut Problems) {
    match &mut node.value {
        Value::Map(Map(entries)) => {
            for entry in entries {
                fill_in(&mut entry.value, started, &format!("{path}.{}", entry.key), problems);
            }
        }
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                fill_in(item, started, &format!("{path}[{index}]"), problems);
            }
        }
        Value::Scalar(scalar) if scalar.text.contains("$(") => {
            match Template::new(scalar.text.as_str()).expand(started) {
                Ok(text) => {
                    scalar.text = text;
                    if scalar.style == super::tree::Style::Plain {
                        scalar.style = super::tree::Style::Variable;
                    }
                }
                Err(error) => {
                    problems
                        .error(node.at, path, error.to_string())
                        .help("the node says it to the instances that it starts");
                    node.value = Value::Broken;
                }
            }
        }
        _ => {}
    }
}

impl Section {
    /// A section that is not there.
    pub fn empty() -> Self {
        Self { sources: Arc::default(), node: None, at: Pos::NONE, path: String::new() }
    }

    /// The whole of a document that was read elsewhere.
    pub(super) fn of(root: Node, sources: Sources) -> Self {
        Self { at: root.at, node: Some(root), sources: Arc::new(sources), path: String::new() }
    }

    /// Its key with those around it: `interfaces.echo`; empty for the whole.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether it is there, and not null.
    pub fn is_given(&self) -> bool {
        self.node.as_ref().is_some_and(|node| !node.is_null())
    }

    /// Whether it is a map.
    pub fn is_map(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.as_map().is_some())
    }

    /// Whether something in it could not be read, which was said then.
    pub(super) fn is_broken(&self) -> bool {
        fn broken(node: &Node) -> bool {
            match &node.value {
                Value::Broken => true,
                Value::Map(map) => map.0.iter().any(|entry| broken(&entry.value)),
                Value::List(items) => items.iter().any(broken),
                Value::Scalar(_) => false,
            }
        }
        self.node.as_ref().is_some_and(broken)
    }

    /// Whether exactly this word stands there, were it one that YAML takes for nothing.
    pub fn is_word(&self, word: &str) -> bool {
        let value = self.node.as_ref().map(|node| &node.value);
        matches!(value, Some(Value::Scalar(scalar)) if scalar.text == word)
    }

    /// The section below a key, whether it is there or not.
    pub fn get(&self, key: &str) -> Self {
        let entry = self.node.as_ref().and_then(Node::as_map).and_then(|map| map.entry(key));
        let (node, at) =
            entry.map_or((None, self.at), |entry| (Some(entry.value.clone()), entry.key_at));
        let dot = if self.path.is_empty() { "" } else { "." };
        let path = format!("{}{dot}{key}", self.path);
        Self { sources: Arc::clone(&self.sources), node, at, path }
    }

    /// What stands below it, by name, in the file's order.
    ///
    /// # Errors
    /// When it is no map.
    pub fn entries(&self) -> Result<Vec<(String, Self)>, Diagnostics> {
        let Some(node) = self.node.as_ref().filter(|node| !node.is_null()) else {
            return Ok(Vec::new());
        };
        let Some(map) = node.as_map() else {
            return Err(
                self.error(format!("expected a map of names, found {}", node.describe()), None)
            );
        };
        Ok(map.0.iter().map(|entry| (entry.key.clone(), self.get(&entry.key))).collect())
    }

    /// The same without some keys, which somebody else reads.
    pub fn without(&self, keys: &[&str]) -> Self {
        let mut section = self.clone();
        if let Some(Node { value: Value::Map(map), .. }) = &mut section.node {
            map.0.retain(|entry| !keys.contains(&entry.key.as_str()));
        }
        section
    }

    /// The text that it is; `None` when it is not there.
    ///
    /// # Errors
    /// When it is something else.
    pub fn text(&self) -> Result<Option<String>, Diagnostics> {
        self.read()
    }

    /// Reads it as a type. One that is absent or null is an empty map, where the type takes one, else nothing.
    ///
    /// # Errors
    /// With what does not fit, where it stands, and the nearest known key.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Diagnostics> {
        let absent = Node::plain("");
        let node = self.node.as_ref().unwrap_or(&absent);
        read::read(node, self.at).map_err(|misfit| {
            let path = [self.path.as_str(), &misfit.path()].concat();
            self.problem(misfit.at, path.trim_start_matches('.'), misfit.message, misfit.help)
        })
    }

    /// Something that is wrong with it.
    pub fn error(&self, message: impl Into<String>, help: Option<String>) -> Diagnostics {
        let at = match &self.node {
            Some(node) if node.as_map().is_none() => node.at,
            _ => self.at,
        };
        self.problem(at, &self.path, message.into(), help)
    }

    fn problem(&self, at: Pos, path: &str, message: String, help: Option<String>) -> Diagnostics {
        let mut problems = Problems::default();
        let problem = problems.error(at, path, message);
        if let Some(help) = help {
            problem.help(help);
        }
        problems.finish(&self.sources)
    }
}
