//! From YAML's text to a [`Node`]: the shape of one file, with every key's and value's place.
//!
//! Driven by the events of granit-parser (the parser below serde-saphyr), since only there places,
//! anchors and equal keys are still to be seen. Everything is bounded: a file's size, its nesting,
//! and how much its aliases may blow it up.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle, Tag};

use super::diagnostic::{Problems, quote};
use super::recover::Holes;
use super::source::Pos;
use super::tree::{Entry, Map, Node, Size, Style, Value};

/// The largest file that is read, in bytes; 2000 services take about 200 KB.
pub(crate) const MAX_FILE: usize = 4 << 20;
/// The deepest nesting, aliases included; also the bound of every recursion over a tree.
pub(crate) const MAX_DEPTH: usize = 64;
/// Most values in all files together, aliases and merge keys expanded.
pub(crate) const MAX_NODES: usize = 400_000;
/// Most bytes of text in all files together, aliases, merge keys and variables expanded.
pub(crate) const MAX_BYTES: usize = 32 << 20;

/// What may still be made out of the files of one load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    nodes: usize,
    bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { nodes: MAX_NODES, bytes: MAX_BYTES }
    }
}

impl Budget {
    /// Takes so much; `false` when it is spent.
    pub(crate) fn take(&mut self, nodes: usize, bytes: usize) -> bool {
        match (self.nodes.checked_sub(nodes), self.bytes.checked_sub(bytes)) {
            (Some(nodes), Some(bytes)) => {
                *self = Self { nodes, bytes };
                true
            }
            _ => false,
        }
    }
}

/// Why YAML could not be read on.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    /// Where, in bytes.
    pub(crate) at: usize,
    /// What it is in, for people.
    pub(crate) path: String,
    /// The parser's words.
    pub(crate) message: String,
    /// Where the key of the block entry starts whose value was being read, in bytes.
    pub(crate) entry: Option<usize>,
    /// Where the collection starts that was being read, and how it is written.
    pub(crate) within: Option<(usize, StructureStyle)>,
}

impl SyntaxError {
    /// Notes it as an error of this file.
    pub(crate) fn report(&self, file: u32, text: &str, problems: &mut Problems) {
        let at = Pos::new(file, self.at, self.at + 1);
        let message = format!("not valid YAML: {}", self.message);
        let problem = problems.error(at, &self.path, message);
        if let Some(help) = hint(&self.message, text, self.at) {
            problem.help(help);
        }
    }
}

/// Reads one file up to its first syntax error; what is wrong goes to `problems`. `None` when there
/// is no document to go on with.
pub(crate) fn parse(
    file: u32,
    text: &str,
    budget: &mut Budget,
    problems: &mut Problems,
) -> Option<Node> {
    read(file, text, &mut Holes::default(), budget, problems).unwrap_or_else(|error| {
        error.report(file, text, problems);
        None
    })
}

/// The same, with parts left out.
pub(crate) fn read(
    file: u32,
    text: &str,
    holes: &mut Holes,
    budget: &mut Budget,
    problems: &mut Problems,
) -> Result<Option<Node>, SyntaxError> {
    let mut options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    options.set_emit_comments(false);
    let mut reader = Reader {
        file,
        text,
        holes,
        budget,
        problems,
        stack: Vec::new(),
        anchors: HashMap::new(),
        root: None,
        documents: 0,
        read: 0,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => {
                if reader.event(event, span).is_none() {
                    break;
                }
            }
            Err(error) => return Err(reader.syntax_error(&error)),
        }
    }
    Ok(reader.root)
}

/// A collection that is being read.
enum Frame {
    List {
        at: Pos,
        anchor: usize,
        style: StructureStyle,
        items: Vec<Node>,
    },
    Map {
        at: Pos,
        anchor: usize,
        style: StructureStyle,
        entries: Vec<Entry>,
        /// What `<<` refers to, with the number of entries before it.
        merges: Vec<(usize, Node)>,
        seen: HashMap<String, Pos>,
        key: Option<(String, Pos, bool)>,
    },
}

impl Frame {
    fn start(&self) -> (usize, StructureStyle) {
        match self {
            Self::List { at, style, .. } | Self::Map { at, style, .. } => {
                (at.start as usize, *style)
            }
        }
    }
}

struct Reader<'a> {
    file: u32,
    text: &'a str,
    holes: &'a mut Holes,
    budget: &'a mut Budget,
    problems: &'a mut Problems,
    stack: Vec<Frame>,
    anchors: HashMap<usize, (Node, Size)>,
    root: Option<Node>,
    documents: usize,
    /// Where the last event ended, in bytes.
    read: usize,
}

impl Reader<'_> {
    /// Takes one event; `None` stops the reading.
    fn event(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        let at = self.pos(span);
        self.read = self.read.max(at.end as usize);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.problems
                        .error(at, "", "a configuration is one document, here starts a second one")
                        .help("remove the `---`, or give each document a file of its own and `include` it");
                    return None;
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.take(1, text.len(), at)?;
                let node = self.scalar(text, style, tag.as_deref(), at);
                let merge = matches!(&node.value, Value::Scalar(s) if s.text == "<<" && s.style == Style::Plain);
                self.complete(node, anchor, merge);
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.take(1, 0, at)?;
                self.collection_tag(tag.as_deref(), "seq", at);
                let items = Vec::new();
                self.stack.push(Frame::List { at, anchor, style, items });
            }
            Event::MappingStart(style, anchor, tag) => {
                self.take(1, 0, at)?;
                self.collection_tag(tag.as_deref(), "map", at);
                self.stack.push(Frame::Map {
                    at,
                    anchor,
                    style,
                    entries: Vec::new(),
                    merges: Vec::new(),
                    seen: HashMap::new(),
                    key: None,
                });
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop()? {
                Frame::List { at, anchor, items, .. } => {
                    let value = Value::List(items);
                    self.complete(Node { at, value }, anchor, false);
                }
                Frame::Map { at, anchor, entries, merges, .. } => {
                    let map = self.merge_keys(entries, merges);
                    let value = Value::Map(map);
                    self.complete(Node { at, value }, anchor, false);
                }
            },
            Event::Alias(id) => {
                let Some((node, size)) = self.anchors.get(&id).cloned() else {
                    self.problems.error(
                        at,
                        "",
                        format!("alias {} stands inside its own anchor", self.slice(at)),
                    );
                    return None;
                };
                self.take(size.nodes, size.bytes, at)?;
                if self.stack.len() + size.depth > MAX_DEPTH {
                    self.problems.error(at, "", format!("nested deeper than {MAX_DEPTH} levels"));
                    return None;
                }
                self.complete(node, 0, false);
            }
            _ => {}
        }
        Some(())
    }

    fn take(&mut self, nodes: usize, bytes: usize, at: Pos) -> Option<()> {
        if self.budget.take(nodes, bytes) {
            return Some(());
        }
        self.problems
            .error(
                at,
                "",
                format!(
                    "too much: more than {MAX_NODES} values or {} MiB of text",
                    MAX_BYTES >> 20
                ),
            )
            .help("aliases and merge keys count as often as they are used");
        None
    }

    fn scalar(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        tag: Option<&Tag>,
        at: Pos,
    ) -> Node {
        let plain = style == ScalarStyle::Plain;
        let style = match tag.map(|tag| (tag.is_yaml_core_schema(), tag.suffix())) {
            None if plain => Style::Plain,
            None | Some((true, "str")) => Style::Quoted,
            Some((true, "int" | "float" | "bool" | "null")) => Style::Plain,
            Some((_, suffix)) if suffix.is_empty() || suffix == "!" => Style::Quoted,
            Some(_) => {
                self.unknown_tag(at);
                Style::Quoted
            }
        };
        Node::scalar(text, style, at)
    }

    fn collection_tag(&mut self, tag: Option<&Tag>, own: &str, at: Pos) {
        if tag.is_some_and(|tag| !tag.is_yaml_core_schema_tag(own)) {
            self.unknown_tag(at);
        }
    }

    fn unknown_tag(&mut self, at: Pos) {
        let path = self.path();
        self.problems
            .error(at, &path, "this tag means nothing here")
            .help("a configuration needs no tags beside `!!str`; remove it");
    }

    /// Hands a finished node to what it is in.
    fn complete(&mut self, mut node: Node, anchor: usize, merge: bool) {
        let owner = match self.stack.last() {
            None => Some(None),
            Some(Frame::Map { key: Some((_, at, _)), .. }) => Some(Some(at.start as usize)),
            Some(_) => None,
        };
        let whole = !owner.is_some_and(|owner| self.holes.are_in(owner)) || node.leave_hole();
        if anchor > 0 {
            let size = node.size();
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map { entries, merges, seen, key, .. }) => match key.take() {
                Some((name, key_at, merge_key)) => {
                    if let Some(first) = seen.get(&name) {
                        let first = *first;
                        self.duplicate(&name, key_at, first);
                        return;
                    }
                    seen.insert(name.clone(), key_at);
                    if merge_key {
                        merges.push((entries.len(), node));
                    } else {
                        entries.push(Entry { key: name, key_at, value: node });
                    }
                    if !whole {
                        entries.push(Entry::hole());
                    }
                }
                None => match node.value {
                    Value::Scalar(scalar) => *key = Some((scalar.text, node.at, merge)),
                    _ => {
                        *key = Some((String::new(), node.at, false));
                        let path = self.path();
                        self.problems
                            .error(node.at, &path, "a key must be a text, not a list or map")
                            .help("quote it when it starts with `{` or `[`");
                    }
                },
            },
        }
    }

    fn duplicate(&mut self, name: &str, at: Pos, first: Pos) {
        let before = &self.text[..(first.start as usize).min(self.text.len())];
        let line = before.matches('\n').count() + 1;
        let path = join(&self.path(), name);
        self.problems
            .error(at, &path, format!("{} is given twice", quote(name)))
            .help(format!("it is already on line {line}; keep one of them"));
    }

    /// Replaces `<<` by what it refers to; keys of the map itself win, then earlier maps of the list.
    fn merge_keys(&mut self, entries: Vec<Entry>, merges: Vec<(usize, Node)>) -> Map {
        if merges.is_empty() {
            return Map(entries);
        }
        let mut taken: HashSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
        let mut out = Vec::with_capacity(entries.len());
        let mut entries = entries.into_iter();
        let mut before = 0;
        for (position, node) in merges {
            out.extend(entries.by_ref().take(position - before));
            before = position;
            for source in self.merge_sources(node) {
                for merged in source.0 {
                    if taken.insert(merged.key.clone()) {
                        out.push(merged);
                    }
                }
            }
        }
        out.extend(entries);
        Map(out)
    }

    fn merge_sources(&mut self, node: Node) -> Vec<Map> {
        let at = node.at;
        let items = match node.value {
            Value::List(items) => items,
            _ => vec![node],
        };
        let mut maps = Vec::with_capacity(items.len());
        for item in items {
            match item.value {
                Value::Map(map) => maps.push(map),
                _ => {
                    let path = self.path();
                    self.problems
                        .error(at, &path, "`<<` takes a map or a list of maps")
                        .help("write `<<: *anchor` or `<<: [*one, *two]`");
                }
            }
        }
        maps
    }

    fn syntax_error(&self, error: &granit_parser::ScanError) -> SyntaxError {
        let marker = error.marker();
        let mut at = marker.byte_offset().unwrap_or_else(|| {
            let line_start = self
                .text
                .split_inclusive('\n')
                .take(marker.line().saturating_sub(1))
                .map(str::len)
                .sum::<usize>();
            line_start + marker.col()
        });
        let message = error.info();
        if message.contains("quoted scalar") {
            // It is noticed where the text ends; what is wrong is where it began.
            at = self.open_quote(at).unwrap_or(at);
        }
        let block = self.stack.iter().take_while(|frame| frame.start().1 == StructureStyle::Block);
        let entry = block.filter_map(|frame| match frame {
            Frame::Map { key: Some((_, at, _)), .. } => Some(at.start as usize),
            _ => None,
        });
        let entry = entry.last();
        let within = self.stack.last().map(Frame::start);
        SyntaxError { at, path: self.path(), message, entry, within }
    }

    /// The first quote between what was read and `end`, comments passed over.
    fn open_quote(&self, end: usize) -> Option<usize> {
        let mut comment = false;
        let unread = self.text.get(self.read..end)?;
        unread
            .char_indices()
            .find(|(_, character)| {
                comment = match character {
                    '\n' => false,
                    '#' => true,
                    _ => comment,
                };
                !comment && matches!(character, '"' | '\'')
            })
            .map(|(offset, _)| self.read + offset)
    }

    fn pos(&self, span: Span) -> Pos {
        let start = span.start.byte_offset().unwrap_or(0);
        let end = span.end.byte_offset().unwrap_or(start);
        Pos::new(self.file, start, end)
    }

    fn slice(&self, at: Pos) -> String {
        quote(self.text.get(at.start as usize..at.end as usize).unwrap_or(""))
    }

    /// The key path of what is being read.
    fn path(&self) -> String {
        let mut path = String::new();
        for frame in &self.stack {
            match frame {
                Frame::List { items, .. } => path = format!("{path}[{}]", items.len()),
                Frame::Map { key: Some((name, ..)), .. } => path = join(&path, name),
                Frame::Map { .. } => {}
            }
        }
        path
    }
}

/// `a` and `b` as `a.b`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The usual reason of a syntax error.
fn hint(message: &str, text: &str, at: usize) -> Option<&'static str> {
    let line_start = text.get(..at)?.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[line_start..].lines().next().unwrap_or("");
    if line.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t') {
        return Some("YAML is indented with spaces, this line starts with a tab");
    }
    if message.contains("mapping values are not allowed") {
        return Some("put a text that holds `: ` in quotes, and check the indentation");
    }
    if message.contains("expected key")
        || message.contains("indentation") && !message.contains("quoted")
    {
        return Some("the keys of one map stand in one column");
    }
    if message.contains("quoted scalar") {
        return Some("the quote that is opened here is not closed");
    }
    if message.contains("anchor") {
        return Some(
            "an alias `*name` needs an anchor `&name` before it; put a text that starts with `*` or `&` in quotes",
        );
    }
    if message.contains("directive") || line.trim_start().starts_with(['@', '`', '%']) {
        return Some("put a text that starts with `%`, `@` or a backtick in quotes");
    }
    if message.contains("nest") || message.contains("depth") || message.contains("recursion") {
        return Some("at most 64 levels are read");
    }
    None
}
