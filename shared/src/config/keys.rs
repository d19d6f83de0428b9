//! What keys there are: the one table behind the reader, the defaults, `hilum config --schema` and
//! `docs/config.md`.
//!
//! A key that the table does not have is an error, a key that the reader does not read fails a test.

use std::fmt::Write as _;

pub mod service;
pub mod top;

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// A whole number in a range.
    Int(i64, i64),
    /// A number in a range.
    Number(f64, f64),
    /// A part of a whole: `20%` or `0.2`.
    Share,
    /// A text.
    Text,
    /// A text that may hold `$(instance.…)`, `$(service.name)` and `$(port.…)`.
    Template,
    /// A path.
    Path,
    /// A regular expression.
    Regex,
    /// `auto`, `json:KEY` or `regex:RE`.
    LevelFrom,
    /// Five fields of cron.
    Cron,
    /// A glob.
    Glob,
    /// `250ms`, `10s`, `2m` or seconds.
    Duration,
    /// A duration that is more than nothing.
    Positive,
    /// `64KiB`, `1GB` or bytes.
    Size,
    /// A signal by name or number.
    Signal,
    /// A file mode in octal.
    Mode,
    /// An IP address.
    Ip,
    /// An IP address and a port.
    Address,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A program with its arguments: one text, or a list of texts.
    Command,
    /// Anything; passed over.
    Any,
    /// A list.
    List(&'static Type),
    /// One, or a list of them.
    OneOrMore(&'static Type),
    /// One of several; the first that fits.
    Or(&'static [Type]),
    /// A map with known keys.
    Map(&'static [Key]),
    /// A map with known keys; anything else stands for the key that is named.
    Short(&'static str, &'static [Key]),
    /// A map in which exactly one of the first keys is given; a word stands for `{word: true}`.
    Kinds(&'static Kinds),
    /// A map from names to maps with known keys.
    Named(&'static [Key]),
    /// The same, or a list of names.
    NamedOrList(&'static [Key]),
    /// A list of maps with known keys, or a map from names to them.
    ListOrNamed(&'static [Key]),
    /// A map with keys of the user's.
    Table(&'static Type),
    /// A value of the environment: text, number, truth value, or null to remove the variable.
    Variable,
}

/// The keys of a map that is told apart by one of them.
#[derive(Debug)]
pub struct Kinds {
    /// The keys of which exactly one is given.
    pub kinds: &'static [&'static str],
    /// Those of them that stand alone as a word.
    pub words: &'static [&'static str],
    /// All keys, `kinds` included.
    pub keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub ty: Type,
    /// Its default as YAML; `None`: absent.
    pub default: Option<&'static str>,
    /// What is shown as the default where `default` does not say it.
    pub shown: &'static str,
    /// Whether it must be given.
    pub required: bool,
    /// Whether it is known but refused.
    pub refused: bool,
    /// One sentence.
    pub doc: &'static str,
}

impl Key {
    /// A key without a default.
    pub const fn new(name: &'static str, ty: Type, doc: &'static str) -> Self {
        Self { name, ty, default: None, shown: "", required: false, refused: false, doc }
    }

    /// With this default, written as YAML.
    pub const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    /// With a default that depends on something, in words.
    pub const fn or_as(mut self, shown: &'static str) -> Self {
        self.shown = shown;
        self
    }

    /// That must be given.
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// That is known, and refused with "not supported yet".
    pub const fn refused(mut self) -> Self {
        self.refused = true;
        self
    }
}

impl Type {
    /// What is expected, for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Bool => "`true` or `false`".into(),
            Self::Int(min, i64::MAX) => format!("a whole number from {min}"),
            Self::Int(min, max) => format!("a whole number from {min} to {max}"),
            Self::Number(min, max) => format!("a number from {min} to {max}"),
            Self::Share => "a share such as `20%` or `0.2`".into(),
            Self::Text | Self::Template => "a text".into(),
            Self::Path => "a path".into(),
            Self::Regex => "a regular expression".into(),
            Self::LevelFrom => "`auto`, `json:KEY` or `regex:RE`".into(),
            Self::Cron => "five fields of cron such as `0 3 * * *`".into(),
            Self::Glob => "a glob such as `src/**/*.py`".into(),
            Self::Duration => "a duration such as `250ms`, `10s` or `2m`".into(),
            Self::Positive => "a duration above 0 such as `250ms`, `10s` or `2m`".into(),
            Self::Size => "a size such as `64KiB` or `1GB`".into(),
            Self::Signal => "a signal such as `TERM`".into(),
            Self::Mode => "a mode in octal such as `'022'` or `0o022`".into(),
            Self::Ip => "an IP address".into(),
            Self::Address => "an address and a port".into(),
            Self::Word(words) => match words {
                [one] => format!("`{one}`"),
                words => format!("one of {}", super::diagnostic::list(words)),
            },
            Self::Command => "a command, as a text or a list of texts".into(),
            Self::Any => "anything".into(),
            Self::List(of) => format!("a list, each {}", of.describe()),
            Self::OneOrMore(of) => format!("{}, or a list of such", of.describe()),
            Self::Or(types) => {
                let all: Vec<String> = types.iter().map(Self::describe).collect();
                all.join(", or ")
            }
            Self::Map(_) | Self::Table(_) => "a map".into(),
            Self::Short(key, keys) => match find(keys, key) {
                Some(key) => format!("{}, or a map", key.ty.describe()),
                None => "a map".into(),
            },
            Self::Kinds(kinds) => {
                format!("one of {}, or a map", super::diagnostic::list(kinds.words))
            }
            Self::Named(_) => "a map of names".into(),
            Self::NamedOrList(_) => "a list of names, or a map of names".into(),
            Self::ListOrNamed(_) => "a list of maps, or a map of names".into(),
            Self::Variable => "a text, number or truth value, or nothing".into(),
        }
    }

    /// The keys of the map that this is or may be.
    pub fn keys(&self) -> Option<&'static [Key]> {
        match self {
            Self::Map(keys)
            | Self::Short(_, keys)
            | Self::Named(keys)
            | Self::NamedOrList(keys)
            | Self::ListOrNamed(keys) => Some(keys),
            Self::Kinds(kinds) => Some(kinds.keys),
            Self::Or(types) => types.iter().find_map(Self::keys),
            Self::Table(of) | Self::List(of) | Self::OneOrMore(of) => of.keys(),
            _ => None,
        }
    }

    /// Whether its keys stand below a name of the user's, as in `instances.<name>.command`.
    pub fn named(&self) -> bool {
        matches!(
            self,
            Self::Named(_) | Self::NamedOrList(_) | Self::Table(_) | Self::ListOrNamed(_)
        )
    }
}

/// The key of this name.
pub fn find<'a>(keys: &'a [Key], name: &str) -> Option<&'a Key> {
    keys.iter().find(|key| key.name == name)
}

/// Keys of which a later file's choice takes the place of an earlier one's.
pub(crate) fn exclusive(key: &str) -> &'static [&'static str] {
    match key {
        "ready" => service::READY.kinds,
        "alive" => service::ALIVE.kinds,
        "schedule" => service::SCHEDULE_KINDS,
        _ => &[],
    }
}

/// Calls `see` with the dotted path of every key in the table and the key, section by section.
pub fn walk(see: &mut impl FnMut(&str, &'static Key)) {
    let mut sections: Vec<(String, &'static [Key])> = vec![(String::new(), top::TOP)];
    while let Some((path, keys)) = sections.pop() {
        let mut below = Vec::new();
        for key in keys {
            let path = super::raw::join(&path, key.name);
            see(&path, key);
            // `defaults` has the keys of `instances.<name>`.
            let Some(inner) = key.ty.keys().filter(|_| key.name != "defaults") else {
                continue;
            };
            let named = if key.ty.named() { ".<name>" } else { "" };
            below.push((format!("{path}{named}"), inner));
        }
        sections.extend(below.into_iter().rev());
    }
}

/// The table as Markdown, the middle part of `docs/config.md`.
pub fn reference() -> String {
    let mut out = String::new();
    let mut section = String::new();
    walk(&mut |path, key| {
        let parent = path.strip_suffix(key.name).unwrap_or(path).trim_end_matches('.');
        let name = key.name;
        if parent != section || out.is_empty() {
            let title = match parent {
                "" => "The file".to_owned(),
                parent => format!("`{parent}`"),
            };
            let _ = write!(
                out,
                "\n### {title}\n\n| key | takes | default | meaning |\n|---|---|---|---|\n"
            );
            parent.clone_into(&mut section);
        }
        let default = match (key.default, key.shown) {
            _ if key.refused => "not supported yet".to_owned(),
            _ if key.required => "required".to_owned(),
            (Some(default), _) => format!("`{default}`"),
            (None, shown) => shown.to_owned(),
        };
        let takes = key.ty.describe().replace('|', "\\|");
        let _ = writeln!(out, "| `{name}` | {takes} | {default} | {} |", key.doc);
    });
    out
}
