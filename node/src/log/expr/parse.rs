//! From text to [`Node`]s.

use regex::bytes::RegexBuilder;

use super::{ExprError, Field, Literal, Node, Op, duration, level_named};
use crate::log::record::Stream;

/// Parentheses and `!` inside each other.
const DEEPEST: usize = 64;
/// Largest compiled regular expression, in bytes.
const MAX_REGEX: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    And,
    Or,
    Not,
    Open,
    Close,
    Op(Op),
    Like,
    NotLike,
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
}

pub(super) fn parse(text: &str) -> Result<Node, ExprError> {
    let tokens = tokens(text)?;
    let mut parser = Parser { text, tokens, next: 0, depth: 0 };
    let node = parser.any()?;
    match parser.peek() {
        None => Ok(node),
        Some(Token::Close) => Err(parser.wrong("no `(` belongs to this `)`")),
        Some(Token::Word(_) | Token::Quoted(_)) => {
            Err(parser.wrong("`&&` or `||` is missing before this"))
        }
        Some(_) => Err(parser.wrong("this cannot stand here")),
    }
}

fn wrong(text: &str, at: usize, message: impl Into<String>) -> ExprError {
    let message = message.into();
    // A question with line ends or tabs would put the caret elsewhere.
    let source_text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    ExprError { at: text[..at].chars().count(), source_text, message }
}

fn is_mark(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, '(' | ')' | '&' | '|' | '!' | '=' | '<' | '>' | '~' | '"' | '\'')
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, ExprError> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let (length, token) = match first {
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            '(' => (1, Token::Open),
            ')' => (1, Token::Close),
            '&' if rest.starts_with("&&") => (2, Token::And),
            '&' => return Err(wrong(text, at, "write `&&` for \"and\"")),
            '|' if rest.starts_with("||") => (2, Token::Or),
            '|' => return Err(wrong(text, at, "write `||` for \"or\"")),
            '!' if rest.starts_with("!=") => (2, Token::Op(Op::NotEqual)),
            '!' if rest.starts_with("!~") => (2, Token::NotLike),
            '!' => (1, Token::Not),
            '=' if rest.starts_with("=~") => {
                return Err(wrong(text, at, "write `~` for a regular expression"));
            }
            '=' => (1 + usize::from(rest.starts_with("==")), Token::Op(Op::Equal)),
            '<' if rest.starts_with("<=") => (2, Token::Op(Op::LessOrEqual)),
            '<' => (1, Token::Op(Op::Less)),
            '>' if rest.starts_with(">=") => (2, Token::Op(Op::GreaterOrEqual)),
            '>' => (1, Token::Op(Op::Greater)),
            '~' => (1, Token::Like),
            '"' | '\'' => quoted(text, at, first)?,
            _ => {
                let length = rest.find(is_mark).unwrap_or(rest.len());
                (length, Token::Word(rest[..length].to_owned()))
            }
        };
        all.push((at, token));
        at += length;
    }
    Ok(all)
}

/// A text in quotes; a backslash keeps a quote or a backslash, before anything else it is itself, as regular
/// expressions want it.
fn quoted(text: &str, at: usize, quote: char) -> Result<(usize, Token), ExprError> {
    let mut value = String::new();
    let mut rest = text[at + 1..].char_indices();
    while let Some((place, c)) = rest.next() {
        if c == quote {
            return Ok((place + 2, Token::Quoted(value)));
        }
        if c == '\\' {
            match rest.clone().next() {
                Some((_, next)) if next == quote || next == '\\' => {
                    // Of `\\` both are kept: in an expression it means one backslash.
                    if next == '\\' {
                        value.push('\\');
                    }
                    value.push(next);
                    rest.next();
                }
                _ => value.push('\\'),
            }
            continue;
        }
        value.push(c);
    }
    Err(wrong(text, at, format!("no {quote} ends this text")))
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.next += usize::from(found);
        found
    }

    /// What is wrong with the next token, or the end.
    fn wrong(&self, message: impl Into<String>) -> ExprError {
        self.wrong_at(self.next, message)
    }

    fn wrong_at(&self, token: usize, message: impl Into<String>) -> ExprError {
        let at = self.tokens.get(token).map_or(self.text.len(), |(at, _)| *at);
        wrong(self.text, at, message)
    }

    fn any(&mut self) -> Result<Node, ExprError> {
        let mut nodes = vec![self.all()?];
        while self.take(&Token::Or) {
            nodes.push(self.all()?);
        }
        Ok(one_or(nodes, Node::Any))
    }

    fn all(&mut self) -> Result<Node, ExprError> {
        let mut nodes = vec![self.one()?];
        while self.take(&Token::And) {
            nodes.push(self.one()?);
        }
        Ok(one_or(nodes, Node::All))
    }

    fn one(&mut self) -> Result<Node, ExprError> {
        if self.depth == DEEPEST {
            return Err(self.wrong(format!("more than {DEEPEST} of `(` and `!` inside each other")));
        }
        self.depth += 1;
        let node = self.inner();
        self.depth -= 1;
        node
    }

    fn inner(&mut self) -> Result<Node, ExprError> {
        if self.take(&Token::Not) {
            return Ok(Node::Not(Box::new(self.one()?)));
        }
        let opened = self.next;
        if self.take(&Token::Open) {
            let node = self.any()?;
            if self.take(&Token::Close) {
                return Ok(node);
            }
            return match self.peek() {
                None => Err(self.wrong_at(opened, "no `)` closes this")),
                Some(_) => Err(self.wrong("`&&`, `||` or `)` is missing before this")),
            };
        }
        let Some(Token::Word(name)) = self.peek() else {
            let what = "a field is missing here: write one, as in `level>=warn` or `status=500`";
            return Err(self.wrong(what));
        };
        let field = field(name);
        self.next += 1;
        match self.peek() {
            Some(Token::Op(op)) => {
                let op = *op;
                self.next += 1;
                self.comparison(field, op)
            }
            Some(Token::Like) => self.matching(field),
            Some(Token::NotLike) => Ok(Node::Not(Box::new(self.matching(field)?))),
            _ => Ok(Node::Has(field)),
        }
    }

    fn comparison(&mut self, field: Field, op: Op) -> Result<Node, ExprError> {
        let literal = match self.peek() {
            Some(Token::Quoted(text)) => Literal::Text(text.clone()),
            Some(Token::Word(word)) => literal(word),
            _ => return Err(self.wrong("a value is missing here")),
        };
        if field == Field::Level {
            let (Literal::Text(word) | Literal::Number(_, word) | Literal::Time(_, word)) =
                &literal
            else {
                let what = "this is no level: write `debug`, `info`, `warning`, `error` or `critical` (`fields.level` is the field itself)";
                return Err(self.wrong(what));
            };
            let Some(level) = level_named(word) else {
                return Err(self.wrong(format!(
                    "`{word}` is no level: write `debug`, `info`, `warning`, `error` or `critical` (`fields.level` is the field itself)"
                )));
            };
            self.next += 1;
            return Ok(Node::Level(op, level));
        }
        if let Some(what) = impossible(&field, &literal) {
            return Err(self.wrong(what));
        }
        self.next += 1;
        Ok(Node::Compare(field, op, literal))
    }

    fn matching(&mut self, field: Field) -> Result<Node, ExprError> {
        self.next += 1;
        let Some(Token::Quoted(text) | Token::Word(text)) = self.peek() else {
            return Err(self.wrong("a regular expression is missing here: write it in quotes"));
        };
        let regex = RegexBuilder::new(text).size_limit(MAX_REGEX).build().map_err(|error| {
            let text = error.to_string();
            let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            self.wrong(format!("this is no regular expression: {why}"))
        })?;
        self.next += 1;
        Ok(Node::Matches(field, regex))
    }
}

fn one_or(mut nodes: Vec<Node>, several: fn(Vec<Node>) -> Node) -> Node {
    match nodes.pop() {
        Some(only) if nodes.is_empty() => only,
        last => {
            nodes.extend(last);
            several(nodes)
        }
    }
}

/// Why no record can have this value there.
fn impossible(field: &Field, literal: &Literal) -> Option<String> {
    let name = match (field, literal) {
        (_, Literal::Null) => return None,
        (Field::Stream, Literal::Text(text)) if Stream::parse(text).is_some() => return None,
        (Field::Stream, _) => {
            return Some("this is no stream: write `out`, `err`, `log` or `node`".into());
        }
        (Field::Run | Field::Pid | Field::Seq | Field::At, Literal::Number(..)) => return None,
        (Field::Run, _) => "run",
        (Field::Pid, _) => "pid",
        (Field::Seq, _) => "seq",
        (Field::At, _) => "at",
        _ => return None,
    };
    let of = if name == "at" { "Unix seconds" } else { "a number" };
    Some(format!("`{name}` is {of}: write that (`fields.{name}` is a field of that name)"))
}

fn field(name: &str) -> Field {
    match name {
        "level" => Field::Level,
        "instance" => Field::Instance,
        "service" => Field::Service,
        "stream" => Field::Stream,
        "run" => Field::Run,
        "pid" => Field::Pid,
        "seq" => Field::Seq,
        "at" => Field::At,
        "logger" => Field::Logger,
        "message" => Field::Message,
        "line" => Field::Line,
        _ => Field::Named(name.strip_prefix("fields.").unwrap_or(name).to_owned()),
    }
}

fn literal(word: &str) -> Literal {
    match word {
        "true" => Literal::Bool(true),
        "false" => Literal::Bool(false),
        "null" => Literal::Null,
        _ => match word.parse::<f64>() {
            Ok(number) if number.is_finite() => Literal::Number(number, word.to_owned()),
            _ => match duration(word) {
                Some(seconds) => Literal::Time(seconds, word.to_owned()),
                None => Literal::Text(word.to_owned()),
            },
        },
    }
}
