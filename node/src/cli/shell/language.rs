//! What may be typed at the prompt: a command, an expression, or `name = expression`.
//!
//! ```text
//! expression:  null true 7 1.5 "text" 'text'   [1, 2]   {"a": 1}   Decimal("1.50") set([1])   name
//!              proxy.SERVICE[@VERSION].METHOD(parameter=expression, …)   each with .field or [index] behind it
//! ```
//! JSON is a part of it, and so is every value as it is shown (`Decimal(1.50)`). `None`, `True` and `False` are understood, too.

use hilum_shared::wire::{JsonError, Value};
use serde_json::json;

use super::super::request::with_version_behind;

/// Brackets within brackets; a call takes no deeper values.
const DEEPEST: usize = 64;

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Statement {
    /// Nothing, or a comment.
    Nothing,
    /// `discover echo`: a command's name and what is behind it.
    Command(String, String),
    /// `x = …`.
    Assign(String, Expr),
    /// What is to be shown.
    Show(Expr),
}

/// What has a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    Literal(Value),
    Name(String),
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    /// `Decimal("1.50")`.
    Special(String, Vec<Expr>),
    /// `proxy.echo@1.2.upper(text="x")`: the subject `echo.upper@1.2`, and the parameters by name.
    Call(String, Vec<(String, Expr)>),
    /// `x.name` and `x["name"]`, `x[0]`.
    Item(Box<Expr>, Box<Expr>),
}

/// Why a line is none: what, and in which column, from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} in column {column}")]
pub(super) struct SyntaxError {
    what: String,
    column: usize,
}

/// The names that make special values.
pub(super) const SPECIAL: [&str; 9] =
    ["set", "datetime", "date", "time", "Decimal", "UUID", "bytes", "ext", "Undefined"];

/// Reads a line; `commands` are the words that begin one.
///
/// # Errors
/// Where it makes no sense.
pub(super) fn read(line: &str, commands: &[&str]) -> Result<Statement, SyntaxError> {
    let text = line.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(Statement::Nothing);
    }
    let (word, rest) =
        text.split_at(text.find(|c: char| !is_name(c) && c != '-').unwrap_or(text.len()));
    // A variable may have any name: `x = …` and `x.y` are not commands.
    let behind = rest.trim_start();
    let is_command = commands.contains(&word)
        && (rest.is_empty() || rest.starts_with(char::is_whitespace))
        && !behind.starts_with('=');
    if is_command {
        return Ok(Statement::Command(word.to_owned(), behind.to_owned()));
    }
    let mut reader = Reader { text: line, at: 0, depth: 0 };
    reader.blanks();
    let before = reader.at;
    if let Some(name) = reader.name() {
        reader.blanks();
        if reader.eat('=') {
            let value = reader.whole()?;
            let taken = ["proxy", "true", "false", "null", "NaN", "inf", "Undefined"];
            if taken.contains(&name.as_str()) {
                return Err(reader.error(format!("`{name}` cannot be a variable"), before));
            }
            return Ok(Statement::Assign(name, value));
        }
    }
    reader.at = before;
    reader.whole().map(Statement::Show)
}

/// Reads an expression alone.
///
/// # Errors
/// Where it makes no sense.
pub(super) fn expression(text: &str) -> Result<Expr, SyntaxError> {
    Reader { text, at: 0, depth: 0 }.whole()
}

/// Whether a line goes on in the next: a bracket is open.
pub(super) fn is_open(text: &str) -> bool {
    let (mut open, mut quote, mut escaped) = (0_i64, None, false);
    for c in text.chars() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(end), c) if c == end => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '#') if open == 0 => return false,
            (None, '(' | '[' | '{') => open += 1,
            (None, ')' | ']' | '}') => open -= 1,
            _ => {}
        }
    }
    open > 0
}

/// The word of a line that wants to be a command and is none of `commands`: a name with something behind it that no expression has there.
pub(super) fn unknown_command(line: &str) -> Option<&str> {
    let (word, behind) = line.trim().split_once(char::is_whitespace)?;
    let is_word =
        word.starts_with(char::is_alphabetic) && word.chars().all(|c| is_name(c) || c == '-');
    (is_word && !behind.trim_start().starts_with(['=', '.', '[', '(', '#'])).then_some(word)
}

/// The call within whose brackets a text ends, where the name of a parameter may stand: its subject, and what is in the brackets yet.
pub(super) fn parameters(before: &str) -> Option<(String, &str)> {
    let (mut open, mut quote, mut escaped) = (Vec::new(), None, false);
    for (at, c) in before.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(end), c) if c == end => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '(' | '[' | '{') => open.push(at),
            (None, ')' | ']' | '}') => drop(open.pop()),
            _ => {}
        }
    }
    let at = *open.last().filter(|_| quote.is_none())?;
    let given = before[at..].strip_prefix('(')?;
    let called = &before[..at];
    let begun = called
        .rfind(|c| !is_subject(c))
        .map_or(0, |at| at + called[at..].chars().next().map_or(1, char::len_utf8));
    let subject = called[begun..].strip_prefix("proxy.")?;
    let ready = given.trim_end();
    (ready.is_empty() || ready.ends_with(',')).then(|| (with_version_behind(subject), given))
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_subject(c: char) -> bool {
    is_name(c) || matches!(c, '.' | '-' | '@' | '!' | '?')
}

/// A special value by what stands in its brackets when it is shown: `Decimal(1.50)`, `date(2015-03-14)`, `bytes(00ff)`.
fn shown(name: &str, text: &str) -> Option<Value> {
    let content = match name {
        "set" | "Undefined" => return None,
        "ext" => {
            let (kind, bytes) = text.split_once(',')?;
            json!([kind.trim().parse::<i8>().ok()?, bytes.trim()])
        }
        _ => json!(text),
    };
    Value::from_json(&json!({"__type__": name, "_": content})).ok()
}

/// What is wrong with a special value, and how one is written.
pub(super) fn no_special(name: &str, content: &str) -> String {
    let form = match name {
        "set" => "`set(1, 2)`",
        "datetime" => {
            "`datetime(2015-03-14T09:26:53+0530)`, the offset in whole minutes (or `Z`), where there is one"
        }
        "date" => "`date(2015-03-14)`",
        "time" => "`time(09:26:53Z)`, without parts of a second, which no other service could read",
        "Decimal" => "`Decimal(1.50)`",
        "UUID" => "`UUID(8d5b7bbe-9bd8-4c4b-a2e3-6a7c8d1f0e55)`",
        "bytes" => "`bytes(00ff)`, hexadecimal digits",
        "ext" => "`ext(7, 00ff)`, a number and hexadecimal digits",
        _ => "`Undefined`",
    };
    if content.is_empty() {
        return format!("`{name}` needs a value (write {form})");
    }
    format!("`{content}` is no `{name}` (write {form})")
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, c: char) -> bool {
        let there = self.peek() == Some(c);
        if there {
            self.at += c.len_utf8();
        }
        there
    }

    fn expect(&mut self, c: char) -> Result<(), SyntaxError> {
        self.blanks();
        if self.eat(c) { Ok(()) } else { Err(self.unexpected(&format!("`{c}` expected"))) }
    }

    fn error(&self, what: impl Into<String>, at: usize) -> SyntaxError {
        SyntaxError { what: what.into(), column: self.text[..at].chars().count() + 1 }
    }

    fn unexpected(&self, wanted: &str) -> SyntaxError {
        match self.peek() {
            Some(c) => self.error(format!("{wanted}, found `{c}`"), self.at),
            None => self.error(format!("{wanted}, but the line ends"), self.at),
        }
    }

    fn name(&mut self) -> Option<String> {
        let rest = self.rest();
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let name = rest[..end].to_owned();
        self.at += end;
        (!name.is_empty()).then_some(name)
    }

    /// An expression and nothing else.
    fn whole(&mut self) -> Result<Expr, SyntaxError> {
        let value = self.value()?;
        self.blanks();
        match self.peek() {
            None | Some('#') => Ok(value),
            Some(_) => Err(self.unexpected("end of the line expected")),
        }
    }

    fn value(&mut self) -> Result<Expr, SyntaxError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.error("brackets are nested too deep", self.at));
        }
        self.blanks();
        let mut value = self.plain()?;
        let mut items = 0;
        loop {
            if self.eat('.') {
                let name = self.name().ok_or_else(|| self.unexpected("a field's name expected"))?;
                let key = Expr::Literal(Value::Str(name));
                value = Expr::Item(Box::new(value), Box::new(key));
            } else if self.eat('[') {
                let key = self.value()?;
                self.expect(']')?;
                value = Expr::Item(Box::new(value), Box::new(key));
            } else {
                break;
            }
            items += 1;
            if items > DEEPEST {
                return Err(self.error("too many fields in a row", self.at));
            }
        }
        self.depth -= 1;
        Ok(value)
    }

    fn plain(&mut self) -> Result<Expr, SyntaxError> {
        let begun = self.at;
        match self.peek() {
            Some('"' | '\'') => self.string().map(|text| Expr::Literal(Value::Str(text))),
            Some('-' | '0'..='9') => self.number(),
            Some('[') => {
                self.at += 1;
                self.many(']', Self::value).map(Expr::List)
            }
            Some('{') => {
                self.at += 1;
                let pairs = self.many('}', |reader| {
                    let key = reader.value()?;
                    reader.expect(':')?;
                    Ok((key, reader.value()?))
                });
                pairs.map(Expr::Map)
            }
            Some(_) => {
                let name = self.name().ok_or_else(|| self.unexpected("a value expected"))?;
                self.named(name, begun)
            }
            None => Err(self.unexpected("a value expected")),
        }
    }

    fn named(&mut self, name: String, begun: usize) -> Result<Expr, SyntaxError> {
        Ok(match name.as_str() {
            "null" | "None" => Expr::Literal(Value::Nil),
            "true" | "True" => Expr::Literal(Value::Bool(true)),
            "false" | "False" => Expr::Literal(Value::Bool(false)),
            "proxy" => self.call()?,
            "NaN" => Expr::Literal(Value::Float(f64::NAN)),
            "inf" => Expr::Literal(Value::Float(f64::INFINITY)),
            special if SPECIAL.contains(&special) && self.peek() == Some('(') => {
                self.at += 1;
                let end = self.rest().find(')').unwrap_or(0);
                if let Some(value) = shown(&name, self.rest()[..end].trim()) {
                    self.at += end + 1;
                    return Ok(Expr::Literal(value));
                }
                let (inside, bare) = (self.at, self.rest()[..end].trim().to_owned());
                match self.many(')', Self::value) {
                    Ok(arguments) => Expr::Special(name, arguments),
                    // No expression at all: meant as it would be shown.
                    Err(_) if !bare.is_empty() && !bare.contains(['"', '\'', '[', '{', '(']) => {
                        return Err(self.error(no_special(&name, &bare), inside));
                    }
                    Err(error) => return Err(error),
                }
            }
            "Undefined" => Expr::Literal(Value::Undefined),
            _ if self.peek() == Some('(') => {
                let hint = format!("`{name}` cannot be called; write `proxy.SERVICE.METHOD(…)`");
                return Err(self.error(hint, begun));
            }
            _ => Expr::Name(name),
        })
    }

    /// What is behind `proxy`.
    fn call(&mut self) -> Result<Expr, SyntaxError> {
        let begun = self.at;
        let end = self.rest().find(|c| !is_subject(c)).unwrap_or(self.rest().len());
        let subject = self.rest()[..end].trim_start_matches('.').to_owned();
        self.at += end;
        if !subject.contains('.') || self.peek() != Some('(') {
            return Err(self.error("a call is `proxy.SERVICE.METHOD(parameter=value)`", begun));
        }
        self.at += 1;
        let parameters = self.many(')', |reader| {
            reader.blanks();
            let begun = reader.at;
            let name = reader.name();
            reader.blanks();
            match name {
                Some(name) if reader.eat('=') => Ok((name, reader.value()?)),
                _ => Err(reader.error("parameters go by name, `text=\"foo\"`", begun)),
            }
        })?;
        Ok(Expr::Call(with_version_behind(&subject), parameters))
    }

    /// Members up to the closing bracket; a comma may stand at the end.
    fn many<T>(
        &mut self,
        close: char,
        mut one: impl FnMut(&mut Self) -> Result<T, SyntaxError>,
    ) -> Result<Vec<T>, SyntaxError> {
        let mut all = Vec::new();
        loop {
            self.blanks();
            if self.eat(close) {
                return Ok(all);
            }
            if !all.is_empty() {
                if !self.eat(',') {
                    return Err(self.unexpected(&format!("`,` or `{close}` expected")));
                }
                self.blanks();
                if self.eat(close) {
                    return Ok(all);
                }
            }
            all.push(one(self)?);
        }
    }

    fn number(&mut self) -> Result<Expr, SyntaxError> {
        let begun = self.at;
        if let Some(rest) = self.rest().strip_prefix("-inf")
            && !rest.starts_with(is_name)
        {
            self.at += "-inf".len();
            return Ok(Expr::Literal(Value::Float(f64::NEG_INFINITY)));
        }
        let of_number = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
        let end = self.rest().find(|c| !of_number(c)).unwrap_or(self.rest().len());
        let text = &self.rest()[..end];
        let number = Value::parse_json(text).map_err(|error| match error {
            JsonError::TooLarge { .. } => {
                format!("`{text}` is beyond 64 bits; `Decimal(\"{text}\")` keeps it")
            }
            _ => format!("`{text}` is no number"),
        });
        let number = number.map_err(|message| self.error(message, begun))?;
        self.at += end;
        Ok(Expr::Literal(number))
    }

    /// A text with JSON's escapes, in either kind of quotes.
    fn string(&mut self) -> Result<String, SyntaxError> {
        let begun = self.at;
        let quote = self.peek().unwrap_or('"');
        let mut json = String::from('"');
        let mut escaped = false;
        for (offset, c) in self.rest().char_indices().skip(1) {
            match c {
                '\'' if escaped => {
                    json.pop(); // JSON knows no such escape, and needs none
                    json.push('\'');
                }
                '"' if quote == '\'' && !escaped => json.push_str("\\\""),
                c if c == quote && !escaped => {
                    json.push('"');
                    self.at += offset + 1;
                    let wrong = |error| self.error(format!("no text ({error})"), begun);
                    return serde_json::from_str(&json).map_err(wrong);
                }
                c => json.push(c),
            }
            escaped = c == '\\' && !escaped;
        }
        Err(self.error("a text without its closing quote", begun))
    }
}

#[cfg(test)]
mod tests;
