//! Tables of text: columns as wide as their cells, the last one as wide as it likes.

use super::output::{Painter, Style};

/// One cell: its text, and how it looks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    style: Option<Style>,
}

impl Cell {
    /// Plain text.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: None }
    }

    /// Text in a style.
    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style: Some(style) }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

/// Which edge a column's cells stand at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table that is filled row by row.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table with these headings.
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The lines, each cut to `width` columns where a width is given.
    pub(crate) fn lines(&self, paint: Painter, width: Option<usize>) -> Vec<String> {
        let last = self.columns.len().saturating_sub(1);
        let mut widths: Vec<usize> = self.columns.iter().map(|(name, _)| columns(name)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(columns(&cell.text));
            }
        }
        let heading: Vec<Cell> =
            self.columns.iter().map(|(name, _)| Cell::styled(*name, Style::Bold)).collect();
        let mut lines = Vec::with_capacity(self.rows.len() + 1);
        for row in std::iter::once(&heading).chain(&self.rows) {
            let mut line = String::new();
            let mut used = 0;
            for (index, (_, align)) in self.columns.iter().enumerate() {
                let empty = Cell::default();
                let cell = row.get(index).unwrap_or(&empty);
                let gap = if index == 0 { 0 } else { 2 };
                let room = width.map_or(usize::MAX, |w| w.saturating_sub(used + gap));
                let text = cut(&cell.text, room);
                let pad = " ".repeat(widths[index].min(room).saturating_sub(columns(&text)));
                line.push_str(&" ".repeat(gap));
                if *align == Align::Right {
                    line.push_str(&pad);
                }
                match cell.style {
                    Some(style) if !text.is_empty() => line.push_str(&paint.paint(style, &text)),
                    _ => line.push_str(&text),
                }
                if *align == Align::Left && index != last {
                    line.push_str(&pad);
                }
                used += gap + widths[index];
            }
            lines.push(line.trim_end().to_owned());
        }
        lines
    }

    /// The whole table as text for a terminal of `width` columns. Where it is wider, columns of `spare` are left out:
    /// first those that say nothing in any row, then the others in their order; at last lines are cut.
    pub(crate) fn fitted(mut self, paint: Painter, width: usize, spare: &[&str]) -> String {
        while self.least_width() > width {
            let place = |name: &&str| self.columns.iter().position(|(column, _)| column == name);
            let silent = |index: &usize| {
                self.rows.iter().all(|row| row.get(*index).is_none_or(|cell| cell.text == "-"))
            };
            let mut there = spare.iter().filter_map(place);
            let Some(index) = there.clone().find(silent).or_else(|| there.next()) else { break };
            self.columns.remove(index);
            for row in self.rows.iter_mut().filter(|row| index < row.len()) {
                row.remove(index);
            }
        }
        let mut text = self.lines(paint, Some(width)).join("\n");
        text.push('\n');
        text
    }

    /// How wide it is when the last column is cut as far as is sensible.
    fn least_width(&self) -> usize {
        /// So much of a long last column is worth more than a column of numbers.
        const LAST: usize = 24;
        let widths = self.columns.iter().enumerate().map(|(index, (name, _))| {
            let cells = self.rows.iter().filter_map(|row| row.get(index));
            cells.map(|cell| columns(&cell.text)).fold(columns(name), usize::max)
        });
        let last = self.columns.len().saturating_sub(1);
        let all = widths.enumerate().map(|(i, w)| if i == last { w.min(LAST) } else { w + 2 });
        all.sum()
    }

    /// The whole table as text, one line a row.
    pub(crate) fn render(&self, paint: Painter) -> String {
        let mut text = self.lines(paint, None).join("\n");
        text.push('\n');
        text
    }
}

/// How many columns a text takes, near enough: one for each character, two for the wide ones of East Asia.
fn columns(text: &str) -> usize {
    text.chars().map(wide).sum()
}

fn wide(c: char) -> usize {
    match c {
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{1f300}'..='\u{1faff}' => 2,
        '\u{0300}'..='\u{036f}' | '\u{200b}'..='\u{200f}' => 0,
        _ => 1,
    }
}

/// `text` cut to `width` columns with `…` at the end, colour codes not counted.
pub(crate) fn cut(text: &str, width: usize) -> String {
    let mut used = 0;
    let mut escape = false;
    let mut coloured = false;
    let visible = visible_columns(text);
    if visible <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    for c in text.chars() {
        if escape {
            short.push(c);
            escape = c != 'm';
            continue;
        }
        if c == '\x1b' {
            escape = true;
            coloured = true;
            short.push(c);
            continue;
        }
        if used + wide(c) + 1 > width {
            break;
        }
        used += wide(c);
        short.push(c);
    }
    if width > 0 {
        short.push('…');
    }
    if coloured {
        short.push_str("\x1b[0m");
    }
    short
}

fn visible_columns(text: &str) -> usize {
    let mut escape = false;
    let mut used = 0;
    for c in text.chars() {
        match c {
            _ if escape => escape = c != 'm',
            '\x1b' => escape = true,
            c => used += wide(c),
        }
    }
    used
}

/// The width of the terminal, 80 where it is not known.
pub(crate) fn terminal_width() -> usize {
    match crossterm::terminal::size() {
        // a terminal that nobody has told its size says 0
        Ok((columns, _)) if columns > 0 => usize::from(columns).max(20),
        _ => 80,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table =
            Table::new(&[("NAME", Align::Left), ("PID", Align::Right), ("INFO", Align::Left)]);
        table.row(vec!["web.1".into(), "17".into(), "a long text at the end".into()]);
        table.row(vec!["database.10".into(), "12345".into()]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        insta::assert_snapshot!(table().render(Painter::plain()), @r"
        NAME           PID  INFO
        web.1           17  a long text at the end
        database.10  12345
        ");
    }

    #[test]
    fn a_line_is_cut_to_the_terminal() {
        let lines = table().lines(Painter::plain(), Some(30));
        assert_eq!(lines[1], "web.1           17  a long te…");
        assert!(lines.iter().all(|line| columns(line) <= 30), "{lines:?}");
    }

    #[test]
    fn a_narrow_terminal_gets_fewer_columns_the_silent_ones_first() {
        let table = || {
            let names = ["NAME", "PID", "RSS", "PORT", "INFO"];
            let mut table = Table::new(&names.map(|name| (name, Align::Left)));
            table.row(
                ["web.1", "17", "1.5 MiB", "-", "a text of thirty-two columns here"]
                    .map(Cell::from)
                    .into(),
            );
            table.row(["web.2", "-", "-", "-", ""].map(Cell::from).into());
            table
        };
        let fit = |width| table().fitted(Painter::plain(), width, &["RSS", "PORT", "PID"]);
        assert_eq!(fit(200), table().render(Painter::plain()));
        insta::assert_snapshot!(fit(46), @r"
        NAME   PID  RSS      INFO
        web.1  17   1.5 MiB  a text of thirty-two col…
        web.2  -    -
        ");
        insta::assert_snapshot!(fit(36), @r"
        NAME   PID  INFO
        web.1  17   a text of thirty-two co…
        web.2  -
        ");
        insta::assert_snapshot!(fit(20), @r"
        NAME   INFO
        web.1  a text of th…
        web.2
        ");
    }

    #[test]
    fn a_cut_does_not_count_or_lose_colour_codes() {
        assert_eq!(cut("\x1b[31mabcdef\x1b[0m", 4), "\x1b[31mabc…\x1b[0m");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("abc", 3), "abc");
    }
}
