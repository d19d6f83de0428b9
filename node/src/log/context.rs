//! The records around those that were asked for, as `grep -C` shows the lines around a match.

use std::collections::VecDeque;

use super::query::Entry;

/// What is to be shown next.
#[derive(Debug, PartialEq)]
pub enum Part<'a> {
    /// A record.
    Record(&'a Entry),
    /// Records in between are not shown.
    Break,
}

/// Keeps what may have to be shown before a match, and counts what is shown after it.
#[derive(Debug)]
pub struct Context {
    count: usize,
    before: VecDeque<Entry>,
    /// So many are still shown.
    after: usize,
    /// Whether something was shown, and whether something was passed over since.
    begun: bool,
    passed: bool,
}

impl Context {
    /// With so many records on either side.
    pub fn new(count: usize) -> Self {
        Self { count, before: VecDeque::new(), after: 0, begun: false, passed: false }
    }

    /// Takes the next record of the view, picked or not, and shows what there is to show by now.
    ///
    /// # Errors
    /// What `show` says.
    pub fn take<E>(
        &mut self,
        entry: &Entry,
        picked: bool,
        mut show: impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if picked {
            if self.begun && std::mem::take(&mut self.passed) {
                show(Part::Break)?;
            }
            for before in self.before.drain(..) {
                show(Part::Record(&before))?;
            }
            self.begun = true;
            self.passed = false;
            self.after = self.count;
            return show(Part::Record(entry));
        }
        if self.after > 0 {
            self.after -= 1;
            return show(Part::Record(entry));
        }
        self.before.push_back(entry.clone());
        if self.before.len() > self.count {
            self.before.pop_front();
            self.passed = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `.` is passed over, `x` is picked; the answer has what is shown.
    fn shown(count: usize, records: &str) -> String {
        let mut context = Context::new(count);
        let mut text = String::new();
        for (number, mark) in records.chars().enumerate() {
            let entry = Entry { seq: number as u64, ..Entry::default() };
            let shown = context.take(&entry, mark == 'x', |part| {
                match part {
                    Part::Record(entry) => text += &entry.seq.to_string(),
                    Part::Break => text += "-",
                }
                Ok::<(), ()>(())
            });
            assert_eq!(shown, Ok(()));
        }
        text
    }

    #[test]
    fn what_is_near_is_shown_once_and_breaks_are_marked() {
        assert_eq!(shown(1, "...x..."), "234");
        assert_eq!(shown(1, "x..x"), "0123");
        assert_eq!(shown(1, "x...x"), "01-34");
        assert_eq!(shown(2, ".xx.x.....x"), "0123456-8910");
        assert_eq!(shown(0, "x.xx"), "0-23");
        assert_eq!(shown(3, "...."), "");
    }
}
