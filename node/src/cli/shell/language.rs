//! What may be typed at the prompt: a command, an expression, or `name = expression`.
//!
//! ```text
//! expression:  null true 7 1.5 "text" 'text'   [1, 2]   {"a": 1}   Decimal("1.50") set([1])   name
//!              proxy.SERVICE.METHOD(parameter=expression, …)        each with .field or [index] behind it
//! ```
//! JSON is a part of it. `None`, `True` and `False` are understood, too.

use hilum_shared::wire::{JsonError, Value};

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
    /// `proxy.echo.upper(text="x")`: the subject, and the parameters by name.
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
pub(super) const SPECIAL: [&str; 8] =
    ["set", "datetime", "date", "time", "Decimal", "UUID", "bytes", "Undefined"];

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
            if matches!(name.as_str(), "proxy" | "true" | "false" | "null") {
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

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
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
            special if SPECIAL.contains(&special) && self.peek() == Some('(') => {
                self.at += 1;
                Expr::Special(name, self.many(')', Self::value)?)
            }
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
        let is_subject = |c: char| is_name(c) || matches!(c, '.' | '-' | '@' | '!' | '?');
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
        Ok(Expr::Call(subject, parameters))
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
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Statement, String> {
        read(line, &["discover", "request", "change-loglevel"]).map_err(|error| error.to_string())
    }

    fn text(text: &str) -> Expr {
        Expr::Literal(Value::from(text))
    }

    #[test]
    fn a_line_is_a_command_an_assignment_or_an_expression() {
        let command = |name: &str, rest: &str| Ok(Statement::Command(name.into(), rest.into()));
        assert_eq!(parse("discover echo"), command("discover", "echo"));
        assert_eq!(
            parse(" change-loglevel echo -l info"),
            command("change-loglevel", "echo -l info")
        );
        assert_eq!(parse("request a.b {\"x\": 1}"), command("request", "a.b {\"x\": 1}"));
        assert_eq!(
            parse("discover = 1"),
            Ok(Statement::Assign("discover".into(), Expr::Literal(1.into())))
        );
        assert_eq!(parse("  # nothing"), Ok(Statement::Nothing));
        assert_eq!(parse("x"), Ok(Statement::Show(Expr::Name("x".into()))));
        assert!(matches!(parse("x[0].name  # first"), Ok(Statement::Show(Expr::Item(..)))));
    }

    #[test]
    fn calls_are_written_as_in_lymph() {
        let call = Expr::Call("job.echo.upper".into(), vec![("text".into(), text("it's"))]);
        assert_eq!(
            parse("x = proxy.job.echo.upper(text=\"it's\")"),
            Ok(Statement::Assign("x".into(), call.clone()))
        );
        assert_eq!(parse(r"proxy.job.echo.upper( text = 'it\'s', )"), Ok(Statement::Show(call)));
        let nested = parse("proxy.a.b(c=proxy.d.e(), f=[1, {'g': None}], h=x)").unwrap();
        assert!(
            matches!(nested, Statement::Show(Expr::Call(_, arguments)) if arguments.len() == 3)
        );
    }

    #[test]
    fn json_is_an_expression() {
        let json = r#"{"a": [1, -2.5, 1e3, true, false, null], "b": {"\u00e4\n": "\"'"}}"#;
        assert!(matches!(expression(json), Ok(Expr::Map(entries)) if entries.len() == 2));
    }

    #[test]
    fn slips_are_told_with_their_column() {
        let said = |line: &str| parse(line).unwrap_err();
        assert_eq!(
            said("proxy.echo(x=1)"),
            "a call is `proxy.SERVICE.METHOD(parameter=value)` in column 6"
        );
        assert_eq!(
            said("proxy.echo.upper(\"x\")"),
            "parameters go by name, `text=\"foo\"` in column 18"
        );
        assert_eq!(said("x = [1 2]"), "`,` or `]` expected, found `2` in column 8");
        assert_eq!(said("x = "), "a value expected, but the line ends in column 5");
        assert_eq!(
            said("upper(1)"),
            "`upper` cannot be called; write `proxy.SERVICE.METHOD(…)` in column 1"
        );
        assert_eq!(said("\"abc"), "a text without its closing quote in column 1");
        assert!(said("1.2.3").contains("no number"));
        assert!(said("proxy = 1").contains("cannot be a variable"));
        assert!(said(&"[".repeat(100_000)).contains("too deep"));
        assert!(said(&format!("x{}", "[0]".repeat(100_000))).contains("too many"));
    }

    #[test]
    fn a_line_goes_on_while_a_bracket_is_open() {
        assert!(is_open("proxy.a.b(") && is_open("{\"a\": [1,"));
        assert!(
            !is_open("x = \"(\"") && !is_open(r#""\"(""#) && !is_open("x # (") && !is_open("a)")
        );
    }
}
