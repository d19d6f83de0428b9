//! Which events are meant: AMQP's patterns of words.

use std::fmt;

/// A pattern of event types: words with dots between them, of which `*` stands for any one word and `#` for any number of words,
/// none among them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Any text is a pattern.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an event of this type is meant.
    pub fn matches(&self, kind: &str) -> bool {
        let (pattern, kind): (Vec<&str>, Vec<&str>) = (words(&self.0), words(kind));
        let (mut at, mut seen) = (0, 0);
        // Where the last `#` was, and how much it stands for so far: only that one is ever tried again.
        let mut back = None;
        while seen < kind.len() {
            match pattern.get(at) {
                Some(&"#") => {
                    back = Some((at, seen));
                    at += 1;
                }
                Some(&word) if word == "*" || word == kind[seen] => {
                    at += 1;
                    seen += 1;
                }
                _ => {
                    let Some((hash, taken)) = back else { return false };
                    back = Some((hash, taken + 1));
                    (at, seen) = (hash + 1, taken + 1);
                }
            }
        }
        pattern[at..].iter().all(|word| *word == "#")
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An empty text has no words, as for a broker.
fn words(text: &str) -> Vec<&str> {
    if text.is_empty() { Vec::new() } else { text.split('.').collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_is_one_word_and_a_hash_any_number_of_them() {
        for (pattern, yes, no) in [
            ("a.b", &["a.b"][..], &["a", "a.b.c", "b.a", ""][..]),
            ("*", &["a", "x-y"], &["", "a.b"]),
            ("a.*", &["a.b", "a."], &["a", "a.b.c"]),
            ("*.b", &["a.b", ".b"], &["b", "a.a.b"]),
            ("#", &["", "a", "a.b.c", "x-y.z"], &[]),
            ("interop.#", &["interop", "interop.x", "interop.x.y"], &["interopx", "x.interop"]),
            ("a.#.c", &["a.c", "a.b.c", "a.b.b.c", "a.c.c"], &["a", "c", "a.b", "a.c.b"]),
            ("#.b", &["b", "a.b", "a.b.b"], &["a.b.c", ""]),
            ("#.b.#", &["b", "a.b", "b.c", "a.b.c"], &["a", "bb"]),
            ("*.#", &["a", "a.b"], &[""]),
            ("a.*.#.d", &["a.b.d", "a.b.c.d"], &["a.d"]),
        ] {
            let matches = |kind: &&str| Pattern::new(pattern).matches(kind);
            assert!(yes.iter().all(matches), "{pattern} means all of {yes:?}");
            assert!(!no.iter().any(matches), "{pattern} means none of {no:?}");
        }
    }

    /// The rule as it is written down, in exponential time.
    fn by_the_rule(pattern: &[&str], kind: &[&str]) -> bool {
        match (pattern, kind) {
            ([], []) => true,
            (["#", rest @ ..], _) => {
                (0..=kind.len()).any(|taken| by_the_rule(rest, &kind[taken..]))
            }
            ([first, rest @ ..], [word, others @ ..]) if *first == "*" || first == word => {
                by_the_rule(rest, others)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn every_pattern_means_what_the_rule_says(
            pattern in "([ab*#](\\.[ab*#]){0,5})?", kind in "([ab](\\.[ab]){0,6})?",
        ) {
            let expected = by_the_rule(&words(&pattern), &words(&kind));
            prop_assert_eq!(Pattern::new(&pattern).matches(&kind), expected);
        }
    }
}
