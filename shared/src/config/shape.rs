//! Checks a document against the table of keys, brings every short spelling to its long one, and
//! fills in the defaults, so that what follows reads one form only.

mod scalar;
mod unknown;

pub(super) use scalar::{mode as read_mode, share as read_share};

use self::unknown::{likely, names};
use super::diagnostic::{Problems, list, nearest, quote};
use super::keys::{self, Key, Kinds, Type};
use super::source::Pos;
use super::tree::{Entry, Map, Node, Style, Value};
use super::variables::push_index;
use crate::name::ServiceName;

/// A text with references that each start fills in, to be checked when all ports are known.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    /// The service it belongs to.
    pub(crate) service: String,
    /// Its key.
    pub(crate) path: String,
    /// Where it stands.
    pub(crate) at: Pos,
    /// What is between the parentheses.
    pub(crate) reference: String,
}

/// The checker of one document.
pub(crate) struct Shape<'a> {
    /// Where errors go.
    pub(crate) problems: &'a mut Problems,
    /// References that were met.
    pub(crate) references: Vec<Reference>,
    /// The service whose keys are checked just now.
    service: String,
}

/// So many keys are few enough to be listed in an error.
const FEW: usize = 16;

impl<'a> Shape<'a> {
    /// A checker that reports to `problems`.
    pub(crate) fn new(problems: &'a mut Problems) -> Self {
        Self { problems, references: Vec::new(), service: String::new() }
    }

    /// Checks and completes a whole document.
    pub(crate) fn document(&mut self, root: &mut Node) {
        self.map(root, keys::top::TOP, &mut String::new(), root.at);
    }

    /// Checks `defaults` by itself, for the errors that no instance would show.
    pub(crate) fn defaults(&mut self, defaults: &Node) {
        let mut copy = defaults.clone();
        let Value::Map(map) = &mut copy.value else {
            self.wrong_shape(&mut copy, &Type::Map(keys::service::SERVICE), "defaults");
            return;
        };
        // What is required is for the instances to give.
        if map.get("command").is_none() {
            map.push("command", Node::plain("-"));
        }
        let at = copy.at;
        self.map(&mut copy, keys::service::SERVICE, &mut "defaults".to_owned(), at);
        self.references.clear();
    }

    /// Checks one value against its type. `key_at` is where its key stands.
    pub(super) fn check(
        &mut self,
        node: &mut Node,
        ty: &'static Type,
        path: &mut String,
        key_at: Pos,
    ) {
        if matches!(node.value, Value::Broken) {
            return;
        }
        match ty {
            Type::Any => {}
            Type::Or(types) => self.one_of(node, ty, types, path, key_at),
            Type::Map(keys) => self.map(node, keys, path, key_at),
            Type::Short(key, keys) => {
                if !matches!(node.value, Value::Map(_)) {
                    wrap(node, key);
                }
                self.map(node, keys, path, key_at);
            }
            Type::Kinds(kinds) => self.kinds(node, kinds, path, key_at),
            Type::Named(keys) => self.named(node, ty, keys, path),
            Type::NamedOrList(keys) => {
                self.names_to_map(node, path);
                self.named(node, ty, keys, path);
            }
            Type::ListOrNamed(keys) => self.list_or_named(node, ty, keys, path),
            Type::Table(of) => self.table(node, ty, of, path),
            Type::List(of) => self.list(node, ty, of, path),
            Type::OneOrMore(of) => {
                if matches!(node.value, Value::Scalar(_)) {
                    let value = Value::List(vec![node.clone()]);
                    node.value = value;
                }
                self.list(node, ty, of, path);
            }
            Type::Command => self.command(node, path),
            _ => self.scalar(node, ty, path),
        }
    }

    /// The value has another shape than is expected.
    fn wrong_shape(&mut self, node: &mut Node, ty: &Type, path: &str) {
        if matches!(node.value, Value::Broken) {
            return;
        }
        let message = format!("expected {}, found {}", ty.describe(), node.describe());
        let problem = self.problems.error(node.at, path, message);
        if let Type::Map(known) = ty {
            let few = known.len() <= FEW;
            let keys = || few.then(|| list(&names(known).collect::<Vec<_>>()));
            let keys = || keys().map(|keys| format!("its keys are {keys}"));
            if let Some(help) = scalar::only_a_command(node, known, path).or_else(keys) {
                problem.help(help);
            }
        }
        node.value = Value::Broken;
    }

    fn map(&mut self, node: &mut Node, known: &'static [Key], path: &mut String, key_at: Pos) {
        if node.is_null() {
            node.value = Value::Map(Map::default());
        }
        let at = if key_at.is_some() { key_at } else { node.at };
        let Value::Map(map) = &mut node.value else {
            self.wrong_shape(node, &Type::Map(known), path);
            return;
        };
        map.0.retain(|entry| !entry.key.starts_with("x-"));
        let length = path.len();
        let mut kept = Vec::with_capacity(map.0.len());
        let mut unknown = Vec::new();
        for mut entry in std::mem::take(&mut map.0) {
            if let Some(key) = self.known(known, &entry, path) {
                // A key without a value is a key that is not given.
                if entry.value.is_null() && !matches!(key.ty, Type::Any) {
                    continue;
                }
                push(path, key.name);
                self.check(&mut entry.value, &key.ty, path, entry.key_at);
                path.truncate(length);
                kept.push(entry);
            } else {
                unknown.push(entry.key);
            }
        }
        map.0 = kept;
        // a mistyped key is there: one error is enough
        let meant =
            |name: &str| unknown.iter().any(|other| likely(other, known).as_deref() == Some(name));
        for key in known {
            if map.get(key.name).is_some() {
                continue;
            }
            if key.required && !meant(key.name) && !self.problems.gaps.at(path) {
                let path = super::raw::join(path, key.name);
                self.problems
                    .error(at, &path, format!("the key `{}` is missing", key.name))
                    .help(format!("give {}", key.ty.describe()));
            }
            if let Some(default) = key.default {
                let mut value = default_value(default);
                push(path, key.name);
                self.check(&mut value, &key.ty, path, Pos::NONE);
                path.truncate(length);
                map.push(key.name, value);
            }
        }
    }

    /// The key of an entry, or an error that names the nearest one.
    fn known(&mut self, known: &'static [Key], entry: &Entry, path: &str) -> Option<&'static Key> {
        let name = entry.key.as_str();
        let path = super::raw::join(path, name);
        match keys::find(known, name) {
            Some(key) if key.refused => {
                self.problems
                    .error(entry.key_at, &path, format!("`{name}` is not supported yet"))
                    .help("remove it");
                None
            }
            Some(key) => Some(key),
            None => {
                let problem = self.problems.error(
                    entry.key_at,
                    &path,
                    format!("unknown key {}", quote(name)),
                );
                match likely(name, known) {
                    Some(near) => problem.help(format!("did you mean `{near}`?")),
                    None if known.len() <= FEW => {
                        let known: Vec<_> = names(known).collect();
                        problem.help(format!("known are {}", list(&known)))
                    }
                    None => problem.help(
                        "keys of your own start with `x-`; docs/config.md lists those of hilum",
                    ),
                };
                None
            }
        }
    }

    fn kinds(&mut self, node: &mut Node, kinds: &'static Kinds, path: &mut String, key_at: Pos) {
        if let Some(scalar) = node.as_scalar() {
            let word = scalar.text.clone();
            if kinds.words.contains(&word.as_str()) {
                wrap(node, &word);
                if let Value::Map(map) = &mut node.value {
                    map.0[0].value = Node::scalar("true", Style::Plain, node.at);
                }
            } else {
                let refused = keys::find(kinds.keys, &word).is_some_and(|key| key.refused);
                let known: Vec<&str> = kinds
                    .kinds
                    .iter()
                    .copied()
                    .filter(|kind| keys::find(kinds.keys, kind).is_some_and(|key| !key.refused))
                    .collect();
                let message = if refused {
                    format!("`{word}` is not supported yet")
                } else {
                    format!("{} is none of the kinds", quote(&word))
                };
                let problem = self.problems.error(node.at, path, message);
                let near = nearest(&word, kinds.kinds.iter().copied());
                let quoted = quoted_map(&word, kinds.kinds.iter().copied());
                match near.filter(|near| *near != word) {
                    _ if quoted.is_some() => problem.help(quoted.unwrap_or_default()),
                    _ if refused => problem.help(format!("known are {}", list(&known))),
                    Some(near) if kinds.words.contains(&near) => {
                        problem.help(format!("did you mean `{near}`?"))
                    }
                    Some(near) => problem.help(format!("did you mean `{{{near}: …}}`?")),
                    None if known.contains(&word.as_str()) => problem
                        .help(format!("write `{{{word}: …}}`, or one of {}", list(kinds.words))),
                    None => problem.help(format!("known are {}", list(&known))),
                };
                node.value = Value::Broken;
                return;
            }
        }
        let Value::Map(map) = &mut node.value else {
            self.wrong_shape(node, &Type::Kinds(kinds), path);
            return;
        };
        let mut given: Vec<(String, Pos)> = Vec::new();
        for entry in &mut map.0 {
            if !kinds.kinds.contains(&entry.key.as_str()) {
                continue;
            }
            given.push((entry.key.clone(), entry.key_at));
            if kinds.words.contains(&entry.key.as_str()) && entry.value.is_null() {
                entry.value = Node::scalar("true", Style::Plain, entry.key_at);
            }
        }
        match &given[..] {
            [_] => {}
            [] if self.problems.gaps.at(path) => {}
            [] => {
                self.problems
                    .error(
                        if key_at.is_some() { key_at } else { node.at },
                        path,
                        "the kind is missing",
                    )
                    .help(format!("give one of {}", list(kinds.kinds)));
            }
            [(first, _), .., (last, at)] => {
                self.problems
                    .error(*at, path, format!("`{first}` and `{last}` exclude each other"))
                    .help("keep one of them");
            }
        }
        self.map(node, kinds.keys, path, key_at);
        if let (Value::Map(map), [(kind, at)]) = (&node.value, &given[..]) {
            let off =
                map.get(kind).and_then(Node::as_scalar).and_then(super::tree::Scalar::as_bool)
                    == Some(false);
            if off && kinds.words.contains(&kind.as_str()) {
                self.problems
                    .error(*at, path, format!("`{kind}` cannot be false"))
                    .help("leave the whole key out");
            }
        }
    }

    /// `[a, b]` as `{a: {}, b: {}}`.
    fn names_to_map(&mut self, node: &mut Node, path: &str) {
        if matches!(node.value, Value::Scalar(_)) && !node.is_null() {
            node.value = Value::List(vec![node.clone()]);
        }
        let Value::List(items) = &mut node.value else {
            return;
        };
        let mut map = Map::default();
        for item in std::mem::take(items) {
            match item.as_scalar() {
                Some(name) if map.get(&name.text).is_none() => {
                    let name = name.text.clone();
                    map.push(name, Node::map(item.at));
                }
                Some(name) => {
                    let message = format!("{} is given twice", quote(&name.text));
                    self.problems.error(item.at, path, message);
                }
                None if matches!(item.value, Value::Broken) => {}
                None => {
                    let message = format!("expected a name, found {}", item.describe());
                    self.problems
                        .error(item.at, path, message)
                        .help("a list holds names only; for more use a map: `{name: {…}}`");
                }
            }
        }
        node.value = Value::Map(map);
    }

    fn named(&mut self, node: &mut Node, ty: &Type, known: &'static [Key], path: &mut String) {
        let Value::Map(map) = &mut node.value else {
            self.wrong_shape(node, ty, path);
            return;
        };
        map.0.retain(|entry| !entry.key.starts_with("x-"));
        let length = path.len();
        let services = path.as_str() == "instances";
        for entry in &mut map.0 {
            push(path, &entry.key);
            if let Err(error) = ServiceName::parse(&entry.key) {
                self.problems.error(entry.key_at, path, error.to_string());
            }
            if services {
                self.service.clone_from(&entry.key);
            }
            self.map(&mut entry.value, known, path, entry.key_at);
            path.truncate(length);
        }
        if services {
            self.service.clear();
        }
    }

    fn list_or_named(
        &mut self,
        node: &mut Node,
        ty: &Type,
        known: &'static [Key],
        path: &mut String,
    ) {
        if let Value::Map(map) = &mut node.value {
            let mut items = Vec::with_capacity(map.0.len());
            for entry in std::mem::take(&mut map.0) {
                if entry.key.starts_with("x-") {
                    continue;
                }
                let mut item = entry.value;
                if let Value::Map(inner) = &mut item.value
                    && inner.get("name").is_none()
                {
                    inner.push("name", Node::scalar(entry.key, Style::Quoted, entry.key_at));
                }
                items.push(item);
            }
            node.value = Value::List(items);
        }
        let Value::List(items) = &mut node.value else {
            self.wrong_shape(node, ty, path);
            return;
        };
        let length = path.len();
        for (index, item) in items.iter_mut().enumerate() {
            push_index(path, index);
            let at = item.at;
            if item.is_null() {
                self.wrong_shape(item, &Type::Map(known), path);
            }
            self.map(item, known, path, at);
            path.truncate(length);
        }
    }

    fn table(&mut self, node: &mut Node, ty: &Type, of: &'static Type, path: &mut String) {
        let Value::Map(map) = &mut node.value else {
            self.wrong_shape(node, ty, path);
            return;
        };
        let length = path.len();
        for entry in &mut map.0 {
            push(path, &entry.key);
            self.check(&mut entry.value, of, path, entry.key_at);
            path.truncate(length);
        }
    }

    fn list(&mut self, node: &mut Node, ty: &Type, of: &'static Type, path: &mut String) {
        let Value::List(items) = &mut node.value else {
            self.wrong_shape(node, ty, path);
            return;
        };
        let length = path.len();
        for (index, item) in items.iter_mut().enumerate() {
            push_index(path, index);
            self.check(item, of, path, Pos::NONE);
            path.truncate(length);
        }
    }

    /// The first type whose shape fits speaks for all.
    fn one_of(
        &mut self,
        node: &mut Node,
        whole: &Type,
        types: &'static [Type],
        path: &mut String,
        key_at: Pos,
    ) {
        match types.iter().find(|ty| scalar::fits(node, ty)) {
            Some(ty) => self.check(node, ty, path, key_at),
            None => {
                let word = node.as_scalar().map(|scalar| scalar.text.clone());
                let words = types.iter().find_map(|ty| match ty {
                    Type::Word(words) => Some(*words),
                    _ => None,
                });
                let found = word.as_deref().map_or_else(|| node.describe().to_owned(), quote);
                let quoted = node.as_scalar().is_some_and(|scalar| {
                    scalar.style == Style::Quoted
                        && scalar.text.parse::<f64>().is_ok()
                        && types.iter().any(|ty| matches!(ty, Type::Int(..) | Type::Number(..)))
                });
                let quotes = if quoted { " in quotes" } else { "" };
                let message = format!("expected {}, found {found}{quotes}", whole.describe());
                let problem = self.problems.error(node.at, path, message);
                if quoted {
                    problem.help("remove the quotes");
                    node.value = Value::Broken;
                    return;
                }
                let keys = types.iter().filter_map(|ty| match ty {
                    Type::Map(keys) => Some(keys.iter().map(|key| key.name)),
                    _ => None,
                });
                if let Some(help) =
                    word.as_deref().and_then(|word| quoted_map(word, keys.flatten()))
                {
                    problem.help(help);
                } else if let (Some(word), Some(words)) = (word, words)
                    && let Some(near) = nearest(&word, words.iter().copied())
                {
                    problem.help(format!("did you mean `{near}`?"));
                }
                node.value = Value::Broken;
            }
        }
    }
}

/// What to say of a text that would be one of the maps that are meant here, were it not for its quotes.
fn quoted_map<'a>(text: &str, mut keys: impl Iterator<Item = &'a str>) -> Option<String> {
    let (key, value) = text.split_once(": ")?;
    keys.any(|known| known == key)
        .then(|| format!("without the quotes it is a map: `{{{key}: {}}}`", value.trim()))
}

/// Makes `value` to `{key: value}`.
fn wrap(node: &mut Node, key: &str) {
    let mut map = Map::default();
    map.push(key, node.clone());
    node.value = Value::Map(map);
}

/// A default of the table as a value.
fn default_value(text: &str) -> Node {
    let value = match text {
        "{}" => Value::Map(Map::default()),
        "[]" => Value::List(Vec::new()),
        "[0]" => Value::List(vec![Node::plain("0")]),
        text => return Node::plain(text),
    };
    let at = Pos::NONE;
    Node { at, value }
}

/// Appends a key to a path.
fn push(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}
