//! Questions about records in a small language: `level>=warn && status=500 && path~"^/api"`.
//!
//! ```text
//! any   = all { "||" all }          field  = level | instance | service | stream | run | pid | seq | at
//! all   = one { "&&" one }                 | logger | message | line | NAME | fields.NAME
//! one   = "!" one | "(" any ")"     NAME   = a key of the record's fields, dots lead into objects
//!       | field [ op value ]        value  = WORD | NUMBER | TIME | "text" | 'text' | true | false | null
//! op    = "=" "!=" "<" "<=" ">" ">=" "~" "!~"
//! ```
//! Fields are those of a structured record, of a JSON line, of logfmt. Numbers compare as numbers, also where the field
//! holds one as text, whole ones exactly; lengths of time (`1.5ms`, `2m30s`) as such; of a list one member is enough. A field that is not there is equal to nothing: `=` and the orders are false, `!=` and `!~` true. A
//! field alone asks whether it is there, and not `false`.

use std::borrow::Cow;
use std::fmt;

use hilum_shared::protocol::Level;
use regex::bytes::Regex;
use serde_json::Value;

use super::fields;
use super::level;
use super::query::Entry;

mod parse;

/// A question that a record answers with yes or no.
#[derive(Clone, Debug)]
pub struct Expr(Node);

#[derive(Clone, Debug)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Has(Field),
    Level(Op, Level),
    Compare(Field, Op, Literal),
    Matches(Field, Regex),
    Trace(String, Regex),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    Level,
    Instance,
    Service,
    Stream,
    Run,
    Pid,
    Seq,
    At,
    Logger,
    Message,
    Line,
    Named(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
enum Literal {
    Text(String),
    Number(f64, String),
    /// In seconds.
    Time(f64, String),
    Bool(bool),
    Null,
}

/// What is wrong with a question, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ExprError {
    /// The question.
    pub source_text: String,
    /// The place, in characters from 0.
    pub at: usize,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for ExprError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source_text, at, message } = self;
        write!(f, "{message}\n\n  {source_text}\n  {:at$}^ column {}", "", at + 1)
    }
}

impl Expr {
    /// Reads a question.
    ///
    /// # Errors
    /// When it cannot be read: what is wrong and where.
    pub fn parse(text: &str) -> Result<Self, ExprError> {
        parse::parse(text).map(Self)
    }

    /// Whether the record belongs to this trace: its `trace_id`, whichever way its program spells it (`traceId`,
    /// `trace.id`, `"trace": {"id": …}`, the middle of a `traceparent`), in fields or in the text.
    pub fn trace(id: &str) -> Self {
        let id_text = regex::escape(id);
        let forms = format!(
            r#"(?i:trace[._-]?id|"trace"\s*:\s*\{{[^{{}}]*"id)["']?\s*[:=]\s*["']?{id_text}(?:[^0-9A-Za-z_-]|$)|\b[0-9a-f]{{2}}-{id_text}-[0-9a-f]{{16}}\b"#
        );
        match Regex::new(&forms) {
            Ok(regex) => Self(Node::Trace(id.to_owned(), regex)),
            // An id of many kilobytes is nobody's.
            Err(_) => Self(Node::Any(Vec::new())),
        }
    }

    /// All of them.
    pub fn all(questions: Vec<Self>) -> Option<Self> {
        let mut nodes: Vec<Node> = questions.into_iter().map(|question| question.0).collect();
        if nodes.len() > 1 {
            return Some(Self(Node::All(nodes)));
        }
        nodes.pop().map(Self)
    }

    /// Whether a record with this `text`, and all else as in `shared`, is meant.
    pub fn matches(&self, shared: &Entry, text: &[u8]) -> bool {
        self.0.matches(&Facts { shared, text })
    }

    /// Whether one of the lines that were lost in this gap may have been meant.
    pub fn may_match(&self, gap: &Entry) -> bool {
        self.0.of_lost(gap) != Some(false)
    }
}

/// A record: its text, and all else.
struct Facts<'a> {
    shared: &'a Entry,
    text: &'a [u8],
}

enum Found<'a> {
    Text(Cow<'a, str>),
    Bytes(&'a [u8]),
    Number(f64),
    /// Beyond 2^53 a float would be another number.
    Whole(i128),
    Bool(bool),
    Many(Vec<Value>),
    Absent,
}

impl Node {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.matches(facts)),
            Self::Any(nodes) => nodes.iter().any(|node| node.matches(facts)),
            Self::Not(node) => !node.matches(facts),
            Self::Has(field) => !matches!(facts.find(field), Found::Absent | Found::Bool(false)),
            // As with `--level`: what has no level counts as INFO.
            Self::Level(op, level) => {
                op.holds(Some(facts.shared.level.unwrap_or(Level::Info).cmp(level)))
            }
            Self::Compare(field, op, literal) => match facts.find(field) {
                Found::Many(all) if *literal != Literal::Null => {
                    let holds = |op: Op| {
                        let mut each = all.iter().map(|one| Found::of(Cow::Borrowed(one)));
                        each.any(|one| op.holds(one.compare(literal)))
                    };
                    // That something is not a member says that none is.
                    if *op == Op::NotEqual { !holds(Op::Equal) } else { holds(*op) }
                }
                found => op.holds(found.compare(literal)),
            },
            Self::Matches(field, regex) => facts.find(field).matches(regex),
            Self::Trace(id, regex) => {
                let own =
                    facts.shared.fields.as_ref().and_then(|all| fields::find(all, "trace_id"));
                own.and_then(Value::as_str) == Some(id) || regex.is_match(facts.text)
            }
        }
    }
}

impl Node {
    /// The answer for lines that were lost; `None` where it depends on what is not known of them.
    fn of_lost(&self, gap: &Entry) -> Option<bool> {
        let all = |nodes: &[Self], ends: bool| {
            let mut answers = nodes.iter().map(|node| node.of_lost(gap));
            if answers.clone().any(|answer| answer == Some(ends)) {
                return Some(ends);
            }
            answers.all(|answer| answer.is_some()).then_some(!ends)
        };
        match self {
            Self::All(nodes) => all(nodes, false),
            Self::Any(nodes) => all(nodes, true),
            Self::Not(node) => node.of_lost(gap).map(|answer| !answer),
            Self::Has(field) | Self::Compare(field, ..) | Self::Matches(field, _) => {
                let known = match field {
                    Field::Instance => gap.instance.is_some(),
                    Field::Service => gap.service.is_some(),
                    Field::Run => gap.run.is_some(),
                    Field::Pid => gap.pid.is_some(),
                    Field::Seq | Field::At => true,
                    _ => false,
                };
                known.then(|| self.matches(&Facts { shared: gap, text: b"" }))
            }
            Self::Level(..) | Self::Trace(..) => None,
        }
    }
}

impl Op {
    /// Whether it holds for two values that compare like this; `None`: there is nothing to compare.
    fn holds(self, order: Option<std::cmp::Ordering>) -> bool {
        let Some(order) = order else {
            return self == Self::NotEqual;
        };
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl<'a> Facts<'a> {
    fn find(&self, field: &Field) -> Found<'_> {
        let shared = self.shared;
        let text =
            |text: Option<&'a str>| text.map_or(Found::Absent, |text| Found::Text(text.into()));
        match field {
            Field::Level => text(Some(shared.level.unwrap_or(Level::Info).as_str())),
            Field::Instance => text(shared.instance.as_deref()),
            Field::Service => text(shared.service.as_deref()),
            Field::Stream => text(shared.stream.map(super::record::Stream::as_str)),
            Field::Run => shared.run.map_or(Found::Absent, |run| Found::Whole(run.0.into())),
            Field::Pid => shared.pid.map_or(Found::Absent, |pid| Found::Whole(pid.into())),
            Field::Seq => Found::Whole(shared.seq.into()),
            Field::At => Found::Number(shared.at as f64 / 1e6),
            Field::Line => Found::Bytes(self.text),
            Field::Logger => self.first(&["logger", "logger_name", "log.logger", "target", "name"]),
            Field::Message => match self.first(&["message", "msg"]) {
                Found::Absent => Found::Bytes(self.text),
                found => found,
            },
            Field::Named(name) => self.first(&[name]),
        }
    }

    /// The first of these fields that is there: in the record's own, then in the line.
    fn first(&self, names: &[&str]) -> Found<'_> {
        let own = self.shared.fields.as_ref();
        if let Some(value) = names.iter().find_map(|name| fields::find(own?, name)) {
            return Found::of(Cow::Borrowed(value));
        }
        let in_line = names.iter().find_map(|name| fields::in_line(self.text, name));
        in_line.map_or(Found::Absent, |value| Found::of(Cow::Owned(value)))
    }
}

impl<'a> Found<'a> {
    fn of(value: Cow<'a, Value>) -> Self {
        match value.as_ref() {
            Value::Null => return Self::Absent,
            Value::Bool(value) => return Self::Bool(*value),
            Value::Number(number) => {
                let whole = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
                return whole.map_or_else(
                    || Self::Number(number.as_f64().unwrap_or_default()),
                    Self::Whole,
                );
            }
            Value::Array(all) => return Self::Many(all.clone()),
            Value::Object(_) => return Self::Text(value.to_string().into()),
            Value::String(_) => {}
        }
        match value {
            Cow::Borrowed(Value::String(text)) => Self::Text(text.into()),
            Cow::Owned(Value::String(text)) => Self::Text(text.into()),
            _ => Self::Absent,
        }
    }

    fn text(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Self::Text(text) => Cow::Borrowed(text.as_ref()),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes),
            Self::Number(number) => number.to_string().into(),
            Self::Whole(number) => number.to_string().into(),
            Self::Many(all) => Value::Array(all.clone()).to_string().into(),
            Self::Bool(value) => value.to_string().into(),
            Self::Absent => return None,
        })
    }

    fn matches(&self, regex: &Regex) -> bool {
        match self {
            Self::Bytes(bytes) => regex.is_match(bytes),
            other => other.text().is_some_and(|text| regex.is_match(text.as_bytes())),
        }
    }

    /// How it compares to a value; `None` when it does not.
    fn compare(&self, literal: &Literal) -> Option<std::cmp::Ordering> {
        match literal {
            Literal::Null => matches!(self, Self::Absent).then_some(std::cmp::Ordering::Equal),
            Literal::Bool(value) => {
                Some(self.text()?.as_ref().cmp(if *value { "true" } else { "false" }))
            }
            Literal::Text(text) => Some(self.text()?.as_ref().cmp(text.as_str())),
            Literal::Time(seconds, written) => {
                let text = self.text()?;
                match duration(text.trim()) {
                    Some(own) => own.partial_cmp(seconds),
                    None => Some(text.as_ref().cmp(written.as_str())),
                }
            }
            Literal::Number(number, written) => {
                let whole = match self {
                    Self::Whole(own) => Some(*own),
                    Self::Text(text) => text.trim().parse().ok(),
                    _ => None,
                };
                if let (Some(own), Ok(wanted)) = (whole, written.parse::<i128>()) {
                    return Some(own.cmp(&wanted));
                }
                let own = match self {
                    Self::Number(own) => Some(*own),
                    Self::Whole(own) => Some(*own as f64),
                    other => other.text()?.trim().parse().ok(),
                };
                match own {
                    Some(own) => own.partial_cmp(number),
                    // Not a number: equal only if it is the same text, in no order to it.
                    None => (self.text()?.as_ref() == written).then_some(std::cmp::Ordering::Equal),
                }
            }
        }
    }
}

/// A length of time as programs write it (`1.5ms`, `2m30s`, `150µs`), in seconds.
fn duration(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 9] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("μs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
        ("d", 86_400.0),
    ];
    let (mut rest, mut seconds) = (text, 0.0);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit = &rest[end..];
        let length = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == &unit[..length])?;
        seconds += number * factor;
        rest = &unit[length..];
    }
    Some(seconds)
}

/// The level that a word names.
fn level_named(text: &str) -> Option<Level> {
    Level::parse(text).or_else(|| level::word(text.as_bytes()))
}

#[cfg(test)]
mod tests;
