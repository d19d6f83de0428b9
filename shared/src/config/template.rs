//! Texts with `$(…)` that can only be filled in when an instance starts.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A text that may hold `$(instance.index|id|name)`, `$(service.name)`, `$(port.NAME)` or
/// `$(port.SERVICE.N.NAME)`. `$(env.…)` and `$(var.…)` are already replaced, `$$(` stands for a
/// literal `$(`. The references were checked when the file was read.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Template(String);

/// What a template's references stand for at one start.
pub trait Lookup {
    /// The value of `instance.index`, `port.http`, …; `None` when there is no such thing.
    fn lookup(&self, reference: &str) -> Option<Cow<'_, str>>;
}

/// A reference that nothing answers to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `$(` without `)`.
    #[error("`$(` without a closing `)`: write `$$(` for a literal `$(`")]
    Open,
    /// Nothing answers to this reference.
    #[error("`$({reference})` is not known here")]
    Unknown {
        /// The text between the parentheses.
        reference: String,
    },
}

impl Template {
    /// A template of this text, unchecked.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// A template that stands for exactly this text.
    pub fn literal(text: &str) -> Self {
        Self(text.replace("$(", "$$("))
    }

    /// The text as written.
    pub fn source(&self) -> &str {
        &self.0
    }

    /// The text with its references filled in.
    ///
    /// # Errors
    /// When a reference is not closed or not known.
    pub fn expand(&self, values: &impl Lookup) -> Result<String, TemplateError> {
        let mut out = String::with_capacity(self.0.len());
        let mut rest = self.0.as_str();
        while let Some(at) = rest.find("$(") {
            if rest[..at].ends_with('$') {
                out.push_str(&rest[..at - 1]);
                out.push_str("$(");
                rest = &rest[at + 2..];
                continue;
            }
            // A shell's arithmetic is none of ours.
            if rest[at..].starts_with("$((") {
                out.push_str(&rest[..at + 3]);
                rest = &rest[at + 3..];
                continue;
            }
            out.push_str(&rest[..at]);
            let end = rest[at..].find(')').ok_or(TemplateError::Open)? + at;
            let reference = &rest[at + 2..end];
            let value = values
                .lookup(reference)
                .ok_or_else(|| TemplateError::Unknown { reference: reference.to_owned() })?;
            out.push_str(&value);
            rest = &rest[end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    /// The references in it, in order.
    pub fn references(&self) -> Vec<&str> {
        let mut found = Vec::new();
        let mut rest = self.0.as_str();
        while let Some(at) = rest.find("$(") {
            let literal = rest[..at].ends_with('$') || rest[at..].starts_with("$((");
            let after = &rest[at + 2..];
            match after.find(')') {
                Some(end) if !literal => {
                    found.push(&after[..end]);
                    rest = &after[end + 1..];
                }
                _ => rest = after,
            }
        }
        found
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Three;
    impl Lookup for Three {
        fn lookup(&self, reference: &str) -> Option<Cow<'_, str>> {
            (reference == "instance.index").then_some(Cow::Borrowed("3"))
        }
    }

    #[test]
    fn references_are_filled_in_and_doubled_dollars_stay() {
        let text = Template::new("a $(instance.index) $$(instance.index) $5 $");
        assert_eq!(text.expand(&Three).unwrap(), "a 3 $(instance.index) $5 $");
        assert_eq!(text.references(), ["instance.index"]);
        assert_eq!(Template::literal("$(x)").expand(&Three).unwrap(), "$(x)");
        let shell = Template::new("echo $((i + 1)) $(instance.index)");
        assert_eq!(shell.expand(&Three).unwrap(), "echo $((i + 1)) 3");
        assert_eq!(shell.references(), ["instance.index"]);
        assert_eq!(Template::literal("$((x))").expand(&Three).unwrap(), "$((x))");
    }

    #[test]
    fn an_unknown_or_open_reference_is_an_error() {
        let unknown = Template::new("$(port.http)").expand(&Three);
        assert_eq!(unknown, Err(TemplateError::Unknown { reference: "port.http".into() }));
        assert_eq!(Template::new("$(x").expand(&Three), Err(TemplateError::Open));
    }
}
