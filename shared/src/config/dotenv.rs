//! Files of variables: `KEY=VALUE`, one a line, as `.env` files are written everywhere.
//!
//! `export ` before a key is passed over. Values: bare (ends at ` #`), `'literal'`, or `"with \n escapes"`; quoted
//! ones may go over several lines. Nothing is expanded: a `$` is a `$`.

/// One variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Where its name starts, in bytes.
    pub at: usize,
}

/// Why a line is no variable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// No `=` in it.
    #[error("a line of variables is `KEY=VALUE`")]
    NoEquals,
    /// The part before `=` is no name.
    #[error("`{name}` is no name of a variable: letters, digits and `_`, not a digit first")]
    Name {
        /// What was given.
        name: String,
    },
    /// A quote that does not end.
    #[error("this quote is not closed")]
    Open,
    /// Something stands behind the closing quote.
    #[error("nothing but a comment may follow the closing quote")]
    Trailing,
    /// A NUL, which no environment can hold.
    #[error("a variable cannot hold a NUL character")]
    Nul,
}

/// An error and where it is, in bytes.
pub type Located = (usize, LineError);

/// Reads all variables, and all errors.
pub fn parse(text: &str) -> (Vec<Variable>, Vec<Located>) {
    let mut variables = Vec::new();
    let mut errors = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let (end, result) = line(text, at);
        match result {
            Ok(Some(variable)) => variables.push(variable),
            Ok(None) => {}
            Err(error) => errors.push(error),
        }
        at = end;
    }
    (variables, errors)
}

/// Reads what starts at `at`; also gives where the next line starts.
fn line(text: &str, at: usize) -> (usize, Result<Option<Variable>, Located>) {
    let end = text[at..].find('\n').map_or(text.len(), |n| at + n + 1);
    let whole = &text[at..end];
    let lead = whole.len() - whole.trim_start().len();
    let trimmed = whole.trim();
    if trimmed.is_empty() || trimmed.starts_with('#') {
        return (end, Ok(None));
    }
    let mut start = at + lead;
    if let Some(rest) = text[start..end].strip_prefix("export")
        && rest.starts_with([' ', '\t'])
    {
        start = end - rest.trim_start().len();
    }
    let Some(equals) = text[start..end].find('=').map(|n| start + n) else {
        return (end, Err((start, LineError::NoEquals)));
    };
    let name = text[start..equals].trim_end();
    if !is_name(name) {
        let name = name.chars().take(60).collect();
        return (end, Err((start, LineError::Name { name })));
    }
    let (end, value) = value(text, equals + 1, end);
    let value =
        value.and_then(
            |value| {
                if value.contains('\0') { Err((start, LineError::Nul)) } else { Ok(value) }
            },
        );
    let name = name.to_owned();
    (end, value.map(|value| Some(Variable { name, value, at: start })))
}

/// Reads the value that starts at `at` in the line that ends at `end`.
fn value(text: &str, at: usize, end: usize) -> (usize, Result<String, Located>) {
    let line = &text[at..end];
    let start = at + line.len() - line.trim_start_matches([' ', '\t']).len();
    let Some(quote) = text[start..end].chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        let bare = text[start..end].trim_end();
        let comment = [" #", "\t#"].iter().filter_map(|mark| bare.find(mark)).min();
        let bare = if bare.starts_with('#') { "" } else { &bare[..comment.unwrap_or(bare.len())] };
        return (end, Ok(bare.trim_end().to_owned()));
    };
    let mut value = String::new();
    let mut characters = text[start + 1..].char_indices();
    while let Some((offset, character)) = characters.next() {
        match character {
            c if c == quote => {
                let after = start + 1 + offset + 1;
                let end = text[after..].find('\n').map_or(text.len(), |n| after + n + 1);
                let rest = text[after..end].trim();
                if rest.is_empty() || rest.starts_with('#') {
                    return (end, Ok(value));
                }
                return (end, Err((after, LineError::Trailing)));
            }
            '\\' if quote == '"' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, 't')) => value.push('\t'),
                Some((_, c @ ('\\' | '"' | '$' | '`'))) => value.push(c),
                Some((_, '\n')) => {}
                Some((_, c)) => value.extend(['\\', c]),
                None => {}
            },
            c => value.push(c),
        }
    }
    (end, Err((start, LineError::Open)))
}

/// Whether this may be the name of a variable.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(String, String)> {
        let (variables, errors) = parse(text);
        assert_eq!(errors, []);
        variables.into_iter().map(|v| (v.name, v.value)).collect()
    }

    #[test]
    fn the_usual_forms_are_read() {
        let text = "# comment\n\nA=1\nexport B = two words  # why\nC='a # $b \\n'\nD=\"x\\ty\\\"\\$\\q\" # end\nE=\nF=a#b\nG=\"one\ntwo\"\nH=#\nexported=1\r\n";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "a # $b \\n"),
            ("D", "x\ty\"$\\q"),
            ("E", ""),
            ("F", "a#b"),
            ("G", "one\ntwo"),
            ("H", ""),
            ("exported", "1"),
        ];
        let expected: Vec<_> = expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(values(text), expected);
    }

    #[test]
    fn every_wrong_line_is_reported_and_the_others_are_read() {
        let (variables, errors) = parse("A=1\nnonsense\n1B=2\nC='x' y\nD=\"open\nE=5\n");
        let names: Vec<_> = variables.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(names, ["A", "E"]);
        let kinds: Vec<_> = errors.into_iter().collect();
        assert_eq!(kinds[0], (4, LineError::NoEquals));
        assert_eq!(kinds[1], (13, LineError::Name { name: "1B".into() }));
        assert_eq!(kinds[2].1, LineError::Trailing);
        assert_eq!(kinds[3].1, LineError::Open);
        assert_eq!(kinds.len(), 4);
    }
}
