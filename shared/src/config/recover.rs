//! Reading on behind a syntax error, so that all errors of a file are listed at once.
//!
//! The smallest block around the error is blanked (its line and what stands deeper, or the whole entry
//! whose value was being read), and the rest is read again: lines and columns stay what they were.
//! An error within a blanked block means that the block was too small; it grows to the one around it.
//! What was blanked is known by its place in the tree ([`Gaps`]), so that nothing is said to be missing or
//! unknown that may stand there. A file with a syntax error is never accepted: its errors stay errors.

use std::collections::HashSet;

use granit_parser::StructureStyle;

use super::diagnostic::Problems;
use super::raw::{self, Budget, SyntaxError, join};
use super::source::Pos;
use super::tree::{Entry, Map, Node, Value};

/// Most syntax errors that are looked for in one file.
const MAX_ERRORS: usize = 100;
/// Most bytes that are read again and again for that; a second or two.
const MAX_WORK: usize = 64 << 20;
/// How deep a tab indents here: deeper than any spaces before it did, since it belongs to what they began.
const TAB: usize = 8;

/// The blanked parts of one text.
#[derive(Debug, Default)]
pub(crate) struct Holes {
    /// Where the keys start whose values have a hole; `None` is the document itself.
    owners: HashSet<Option<usize>>,
    /// Those of them that were met.
    met: HashSet<Option<usize>>,
    /// The anchors that went with them.
    anchors: HashSet<String>,
}

impl Holes {
    /// Whether there is one in the value of the key at `owner`.
    pub(crate) fn are_in(&mut self, owner: Option<usize>) -> bool {
        self.owners.contains(&owner) && {
            self.met.insert(owner);
            true
        }
    }

    /// Whether the error is only that an anchor was blanked.
    fn explain(&self, error: &SyntaxError, text: &str) -> bool {
        error.message.contains("unknown anchor")
            && text
                .get(error.at..)
                .and_then(|alias| alias.strip_prefix('*'))
                .is_some_and(|alias| self.anchors.contains(name(alias)))
    }
}

/// The name that an anchor or alias begins with.
fn name(text: &str) -> &str {
    text.split(|c: char| c.is_whitespace() || ",[]{}".contains(c)).next().unwrap_or("")
}

/// Reads one file; all that is wrong goes to `problems`. `None` when there is nothing to go on with.
pub(crate) fn parse(
    file: u32,
    text: &str,
    budget: &mut Budget,
    problems: &mut Problems,
) -> Option<Node> {
    let mut rest = text.to_owned();
    let mut holes = Holes::default();
    let mut hole: Option<Block> = None;
    let (mut errors, mut work) = (0, 0);
    loop {
        let mut left = *budget;
        let mut said = Problems::default();
        holes.met.clear();
        let mut error = match raw::read(file, &rest, &mut holes, &mut left, &mut said) {
            Ok(root) => {
                *budget = left;
                problems.append(said);
                return if errors == 0 { root } else { Some(finish(root, &holes)) };
            }
            Err(error) => error,
        };
        work += text.len();
        let lines = Lines::of(&rest);
        let block = match hole {
            Some(hole) if lines.at(error.at) < hole.end => Lines::of(text).around(hole.start),
            _ => {
                let block = lines.faulty(&rest, &mut error);
                if !holes.explain(&error, text) {
                    error.report(file, text, problems);
                    errors += 1;
                }
                block
            }
        };
        let Some(block) = block.filter(|_| errors < MAX_ERRORS && work < MAX_WORK) else {
            if errors >= MAX_ERRORS || work >= MAX_WORK {
                let at = Pos::new(file, error.at, error.at + 1);
                problems.error(at, "", "too many syntax errors: what follows was not read");
            }
            problems.append(said);
            problems.gaps.lost(text);
            return Some(finish(None, &holes));
        };
        let whole = Lines::of(text);
        let (from, to) = (whole.0[block.start].at, whole.0[block.end - 1].end);
        holes.anchors.extend(text[from..to].split('&').skip(1).map(|part| name(part).to_owned()));
        holes.owners.insert(whole.owner(block.start));
        problems.gaps.lost(&text[from..to]);
        let blank = |byte| if byte == b'\n' { '\n' } else { ' ' };
        let blanked: String = rest.as_bytes()[from..to].iter().copied().map(blank).collect();
        rest.replace_range(from..to, &blanked);
        hole = Some(block);
    }
}

/// The tree of what could be read; a hole whose place is not in it may have held anything.
fn finish(root: Option<Node>, holes: &Holes) -> Node {
    match root {
        Some(root) if root.is_null() || matches!(root.value, Value::Broken) => unread(),
        Some(mut root) => {
            if holes.met.len() < holes.owners.len() {
                root.leave_hole();
            }
            root
        }
        None => unread(),
    }
}

/// What stands for a file that could not be read at all.
pub(crate) fn unread() -> Node {
    Node { at: Pos::NONE, value: Value::Map(Map(vec![Entry::hole()])) }
}

/// Lines of a text, from the first up to one that is no longer in it.
#[derive(Clone, Copy, Debug)]
struct Block {
    start: usize,
    end: usize,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    /// Where it starts and ends, in bytes; the newline is not in it.
    at: usize,
    end: usize,
    /// Where its text starts.
    text: usize,
    /// How far that is indented; `None` where it is empty or a comment.
    indent: Option<usize>,
    /// Its first character: a list's items and closing brackets may stand in their key's column.
    first: u8,
}

struct Lines(Vec<Line>);

impl Lines {
    fn of(text: &str) -> Self {
        let mut at = 0;
        let lines = text.split('\n').map(|line| {
            let inner = line.trim_start_matches([' ', '\t']);
            let before = &line[..line.len() - inner.len()];
            let indent = before.bytes().map(|byte| if byte == b'\t' { TAB } else { 1 }).sum();
            let nothing = inner.trim_end().is_empty() || inner.starts_with('#');
            let start = at;
            at += line.len() + 1;
            Line {
                at: start,
                end: start + line.len(),
                text: start + before.len(),
                indent: (!nothing).then_some(indent),
                first: inner.bytes().next().unwrap_or(b' '),
            }
        });
        Self(lines.collect())
    }

    /// The line of a byte.
    fn at(&self, byte: usize) -> usize {
        self.0.partition_point(|line| line.at <= byte).max(1) - 1
    }

    fn item(&self, line: usize) -> bool {
        self.0[line].first == b'-'
    }

    /// Whether `inner` stands deeper than `outer`, where both have a text.
    fn deeper(&self, inner: usize, outer: usize) -> bool {
        match (self.0[inner].indent, self.0[outer].indent) {
            (Some(inner_indent), Some(outer_indent)) => {
                inner_indent > outer_indent
                    || (inner_indent == outer_indent && self.item(inner) && !self.item(outer))
            }
            _ => false,
        }
    }

    /// The line that a line stands below.
    fn parent(&self, line: usize) -> Option<usize> {
        (0..line).rev().find(|outer| self.deeper(line, *outer))
    }

    /// Where the key starts whose value a line is in.
    fn owner(&self, line: usize) -> Option<usize> {
        let mut parent = self.parent(line)?;
        while self.item(parent) {
            parent = self.parent(parent)?;
        }
        Some(self.0[parent].text)
    }

    /// A line and all that stands below it.
    fn block(&self, start: usize) -> Block {
        let mut end = start + 1;
        for line in start + 1..self.0.len() {
            let closes = self.0[line].indent == self.0[start].indent
                && matches!(self.0[line].first, b'}' | b']');
            if self.deeper(line, start) || closes {
                end = line + 1;
            } else if self.0[line].indent.is_some() {
                break;
            }
        }
        Block { start, end }
    }

    /// The block around the one at a line.
    fn around(&self, line: usize) -> Option<Block> {
        Some(self.block(self.parent(line)?))
    }

    /// The last line with a text up to this one.
    fn written(&self, line: usize) -> Option<usize> {
        (0..=line).rev().find(|line| self.0[*line].indent.is_some())
    }

    /// Where the first colon after a key is in a line.
    fn colon(&self, text: &str, line: usize) -> Option<usize> {
        let Line { text: start, end, .. } = self.0[line];
        let inner = &text[start..end];
        let at = inner
            .find(": ")
            .or(inner.trim_end().ends_with(':').then(|| inner.trim_end().len() - 1));
        at.map(|at| start + at)
    }

    /// The smallest block that holds an error. The parser notices some only later: those are moved to where they
    /// begin.
    fn faulty(&self, text: &str, error: &mut SyntaxError) -> Option<Block> {
        let mut line = self.at(error.at);
        let entry = error.entry.map(|at| self.at(at));
        if error.message.contains("found a tab") {
            let tab = |line: &Line| text[line.at..line.text].contains('\t');
            if let Some(found) = (line..self.0.len()).find(|line| tab(&self.0[*line])) {
                line = found;
                error.at = self.0[line].at;
            }
        }
        line = self.written(line)?;
        match (error.within, entry) {
            (Some((start, StructureStyle::Flow)), Some(entry)) => {
                let block = self.block(entry);
                let last = self.written(block.end - 1)?;
                if line >= block.end || !text[..self.0[last].end].trim_end().ends_with([']', '}']) {
                    error.at = start;
                    error.message = format!("unclosed bracket '{}'", &text[start..=start]);
                }
                return Some(block);
            }
            (Some((start, StructureStyle::Block)), _)
                if error.message.contains("expected '-'") && self.colon(text, line).is_some() =>
            {
                // A list that begins where keys of a map go on: it is the list that does not belong here.
                let start = self.at(start);
                error.at = self.0[start].text;
                return Some(Block { start, end: line.max(start + 1) });
            }
            _ => {}
        }
        if error.message.contains("mapping values") && self.colon(text, line) == Some(error.at) {
            // The line by itself is right: what is above it is a text, which it continues.
            if let Some(above) = line.checked_sub(1).and_then(|above| self.written(above)) {
                if self.deeper(line, above) {
                    return Some(Block { start: line, end: self.block(above).end });
                }
                if self.colon(text, above).is_none() {
                    error.at = self.0[above].text;
                    "simple key expected ':'".clone_into(&mut error.message);
                    return Some(self.block(above));
                }
            }
        }
        match entry {
            // It stands beside the entry that was being read, which did not end where it should.
            Some(entry) if entry < line && !self.deeper(line, entry) => Some(self.block(entry)),
            _ => Some(self.block(line)),
        }
    }
}

/// What of a configuration could not be read.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    /// Where, as keys: `instances.web`, or empty for the whole.
    paths: Vec<String>,
    /// The texts that were blanked.
    texts: Vec<String>,
    /// A file could not be read at all: it may have held any name.
    unread: bool,
}

impl Gaps {
    /// Finds the holes of a tree, and takes them out.
    pub(crate) fn take(&mut self, root: &mut Node) {
        self.look(root, "");
    }

    /// Notes a text that was blanked.
    pub(crate) fn lost(&mut self, text: &str) {
        self.texts.push(text.to_owned());
    }

    /// Notes that a file is missing.
    pub(crate) fn lost_a_file(&mut self) {
        self.unread = true;
    }

    /// Whether a key of this name may stand in what could not be read: there in so many letters, or brought by what
    /// has it elsewhere (an alias, an included file, an escape).
    pub(crate) fn may_hold(&self, name: &str) -> bool {
        const BRINGS: [&str; 3] = ["*", "include", "\\"];
        let holds = |text: &String| {
            text.contains(name) || BRINGS.iter().any(|brings| text.contains(brings))
        };
        self.unread || self.texts.iter().any(holds)
    }

    fn look(&mut self, node: &mut Node, path: &str) {
        match &mut node.value {
            Value::Map(Map(entries)) => {
                let all = entries.len();
                entries.retain(|entry| !entry.is_hole());
                if entries.len() < all {
                    self.paths.push(path.to_owned());
                }
                for entry in entries {
                    self.look(&mut entry.value, &join(path, &entry.key));
                }
            }
            Value::List(items) => items.iter_mut().for_each(|item| self.look(item, path)),
            _ => {}
        }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Whether keys of this very map may be missing.
    pub(crate) fn at(&self, path: &str) -> bool {
        self.paths.iter().any(|gap| gap == path)
    }

    /// Whether something of this key or below it may be missing.
    pub(crate) fn below(&self, path: &str) -> bool {
        let below = |gap: &str| {
            gap.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.paths.iter().any(|gap| gap.is_empty() || below(gap))
    }

    /// Whether something of this service may be missing.
    pub(crate) fn in_service(&self, name: &str) -> bool {
        self.below("defaults") || self.below(&join("instances", name))
    }

    /// Whether a service of this name may be missing.
    pub(crate) fn may_hold_service(&self, name: &str) -> bool {
        (self.at("") || self.at("instances")) && self.may_hold(name)
    }

    /// Whether something beside the services may be missing.
    pub(crate) fn beside_services(&self) -> bool {
        self.paths.iter().any(|gap| !gap.starts_with("instances"))
    }
}
