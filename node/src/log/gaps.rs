//! Gaps between two records that are shown, as one line for each name and reason: where few records are picked, a flood that
//! is dropped line by line would bury them.

use super::query::Entry;

/// The gaps since the last record that was shown.
#[derive(Debug, Default)]
pub struct Gaps {
    held: Vec<Entry>,
}

impl Gaps {
    /// Takes a gap.
    pub fn add(&mut self, gap: &Entry) {
        let known = self
            .held
            .iter_mut()
            .find(|held| held.name == gap.name && reason(&held.text) == reason(&gap.text));
        let Some(known) = known else {
            self.held.push(gap.clone());
            return;
        };
        let lines = known.dropped.unwrap_or_default() + gap.dropped.unwrap_or_default();
        known.dropped = Some(lines);
        let mut text = format!("… {lines} lines").into_bytes();
        text.extend_from_slice(reason(&gap.text));
        known.text = text;
    }

    /// Gives them, each with the time of its first.
    pub fn take(&mut self) -> std::vec::Drain<'_, Entry> {
        self.held.drain(..)
    }
}

/// ` dropped (rate limit)`
fn reason(text: &[u8]) -> &[u8] {
    memchr::memmem::find(text, b" dropped (").map_or(text, |at| &text[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_of_one_name_and_one_reason_become_one() {
        let mut gaps = Gaps::default();
        for (name, lines, why) in [
            ("a.1", 1, "rate limit"),
            ("b.1", 2, "rate limit"),
            ("a.1", 3, "disk full"),
            ("a.1", 4, "rate limit"),
        ] {
            let word = if lines == 1 { "line" } else { "lines" };
            gaps.add(&Entry {
                name: name.into(),
                dropped: Some(lines),
                text: format!("… {lines} {word} dropped ({why})").into_bytes(),
                ..Entry::default()
            });
        }
        let shown: Vec<String> = gaps
            .take()
            .map(|gap| {
                let text = String::from_utf8_lossy(&gap.text).into_owned();
                format!("{} {} {text}", gap.name, gap.dropped.unwrap_or_default())
            })
            .collect();
        assert_eq!(
            shown,
            [
                "a.1 5 … 5 lines dropped (rate limit)",
                "b.1 2 … 2 lines dropped (rate limit)",
                "a.1 3 … 3 lines dropped (disk full)",
            ]
        );
        assert_eq!(gaps.take().count(), 0);
    }
}
