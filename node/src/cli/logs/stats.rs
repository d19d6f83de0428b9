//! `logs --stats`: lines and bytes by instance and level, and over time.

use std::path::Path;

use hilum_shared::units::{Bytes, format_size};
use serde_json::{Map, Value, json};

use super::super::exit::{CliError, ExitStatus, Outcome};
use super::super::lines;
use super::super::output::{Painter, Style};
use super::super::session::Session;
use super::super::table::{Align, Cell, Table};
use super::super::time;
use crate::log::account::causes;
use crate::log::query::{Entry, Filter, Reader, Start};
use crate::log::record::NODE_NAME;
use crate::log::stats::{Bar, Count, LEVELS, Stats, Told, removed, removed_gaps};

/// Heights of a bar, from next to nothing to full.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Counts and shows.
pub(super) fn run(session: &Session, dir: &Path, filter: Filter, start: Start) -> Outcome {
    let told = match start {
        Start::All => removed_gaps(dir, &filter),
        _ => Vec::new(),
    };
    let mut reader = Reader::open(dir, filter, start).map_err(lines::unreadable)?;
    let mut stats = Stats::default();
    let mut entry = Entry::default();
    while reader.read(&mut entry).map_err(lines::unreadable)? {
        stats.add(&entry);
    }
    let removed = removed(dir).map_err(|source| CliError::File {
        doing: "cannot read the log in",
        path: dir.to_owned(),
        source,
    })?;
    stats.add_removed(&told);
    let out = session.out;
    if out.json {
        out.json(&to_json(&stats, removed, &told))?;
        return Ok(ExitStatus::Done);
    }
    if stats.names.is_empty() {
        out.note("no records");
    } else {
        out.text(&render(&stats, out.paint, &|at| time::local(at)))?;
    }
    if removed > 0 {
        out.note(&format!(
            "{removed} older records were removed for `logs.budget`, `keep_free` or `max_age`"
        ));
    }
    if !told.is_empty() {
        out.note(&in_words(&told));
    }
    Ok(ExitStatus::Done)
}

/// The most of what evicted gaps told, in one line.
fn in_words(told: &[Told]) -> String {
    const SHOWN: usize = 4;
    let mut most: Vec<&Told> = told.iter().collect();
    most.sort_by_key(|told| std::cmp::Reverse(told.lines));
    let all: u64 = told.iter().map(|told| told.lines).sum();
    let mut parts: Vec<String> = most
        .iter()
        .take(SHOWN)
        .map(|Told { name, why, lines }| format!("{lines} of {} ({why})", shown(name)))
        .collect();
    if most.len() > SHOWN {
        let rest: u64 = most[SHOWN..].iter().map(|told| told.lines).sum();
        parts.push(format!("{rest} more"));
    }
    format!("they told of {all} lost lines, which DROPPED counts: {}", parts.join(", "))
}

fn to_json(stats: &Stats, removed: u64, told: &[Told]) -> Value {
    let seconds = stats.seconds();
    let count = |count: &Count| {
        let levels: Map<String, Value> = LEVELS
            .iter()
            .zip(count.levels)
            .map(|(level, lines)| (level.as_str().to_owned(), json!(lines)))
            .collect();
        json!({
            "records": count.records,
            "lines": count.lines,
            "bytes": count.bytes,
            "lines_per_second": count.lines as f64 / seconds,
            "levels": levels,
            "dropped": count.losses.dropped(),
            "dropped_by": count.losses.by_word(false),
        })
    };
    let names: Map<String, Value> =
        stats.names.iter().map(|(name, one)| (shown(name).to_owned(), count(one))).collect();
    let told: Vec<Value> = told
        .iter()
        .map(|Told { name, why, lines }| json!({"name": shown(name), "why": why, "dropped": lines}))
        .collect();
    let (width, bars) = stats.bars();
    let bars: Vec<Value> = bars
        .iter()
        .map(|(at, bar)| json!({"at": at, "lines": bar.lines, "bad": bar.bad}))
        .collect();
    json!({
        "from": stats.range.map(|(first, _)| first as f64 / 1e6),
        "to": stats.range.map(|(_, last)| last as f64 / 1e6),
        "removed": removed,
        "removed_gaps": told,
        "total": count(&stats.total),
        "names": names,
        "bar_seconds": width,
        "bars": bars,
    })
}

fn shown(name: &str) -> &str {
    if name == NODE_NAME { "hilum" } else { name }
}

fn render(stats: &Stats, paint: Painter, local: &dyn Fn(f64) -> String) -> String {
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("LINES", Align::Right),
        ("BYTES", Align::Right),
        ("LINES/S", Align::Right),
        ("DEBUG", Align::Right),
        ("INFO", Align::Right),
        ("WARNING", Align::Right),
        ("ERROR", Align::Right),
        ("CRITICAL", Align::Right),
        ("DROPPED", Align::Right),
    ]);
    let seconds = stats.seconds();
    let mut names: Vec<(&str, &Count)> =
        stats.names.iter().map(|(name, count)| (shown(name), count)).collect();
    names.sort_by_key(|(_, count)| std::cmp::Reverse(count.lines));
    if names.len() > 1 {
        names.push(("all", &stats.total));
    }
    for (name, count) in names {
        let number = |lines: u64, style: Option<Style>| match (lines, style) {
            (0, _) => Cell::new("-"),
            (lines, Some(style)) => Cell::styled(lines.to_string(), style),
            (lines, None) => Cell::new(lines.to_string()),
        };
        let [debug, info, warning, error, critical] = count.levels;
        table.row(vec![
            name.into(),
            count.lines.to_string().into(),
            format_size(Bytes(count.bytes)).into(),
            format!("{:.1}", count.lines as f64 / seconds).into(),
            number(debug, None),
            number(info, None),
            number(warning, Some(Style::Warn)),
            number(error, Some(Style::Bad)),
            number(critical, Some(Style::Bad)),
            number(count.losses.dropped(), Some(Style::Warn)),
        ]);
    }
    let mut text = table.render(paint);
    let dropped = causes(&stats.total.losses.by_word(false));
    if !dropped.is_empty() {
        text.push_str(&paint.paint(Style::Warn, &format!("\ndropped: {dropped}")));
        text.push('\n');
    }
    let (width, bars) = stats.bars();
    if let (Some((first, last)), true) = (stats.range, bars.len() > 1) {
        let most = bars.iter().map(|(_, bar)| bar.lines).max().unwrap_or(0);
        let row = |count: &dyn Fn(&Bar) -> u64| -> String {
            bars.iter().map(|(_, bar)| height(count(bar), most)).collect()
        };
        let width = time::seconds(width as f64);
        let all = row(&|bar| bar.lines);
        let mut say = |line: String| text.extend(["\n", &line]);
        say(format!("lines      {all}  a bar is {width}, the highest {most}"));
        if bars.iter().any(|(_, bar)| bar.bad > 0) {
            let bad = paint.paint(Style::Warn, &row(&|bar| bar.bad));
            say(format!("warnings+  {bad}"));
        }
        let at = |micros: u64| local(micros as f64 / 1e6);
        say(format!("from {} to {}\n", at(first), at(last)));
    }
    text
}

/// A bar: something is never shown as nothing.
fn height(lines: u64, most: u64) -> char {
    if lines == 0 {
        return ' ';
    }
    let step = (lines * HEIGHTS.len() as u64).div_ceil(most.max(1)) as usize;
    HEIGHTS[step.clamp(1, HEIGHTS.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use hilum_shared::protocol::Level;

    #[test]
    fn counts_are_a_table_and_a_picture() {
        let mut stats = Stats::default();
        for second in 0..30_u64 {
            for number in 0..=second % 7 {
                let level = (number == 3).then_some(Level::Error);
                stats.add(&Entry {
                    name: if number % 2 == 0 { "web.1" } else { NODE_NAME }.into(),
                    at: (1_795_232_531 + second) * 1_000_000,
                    text: b"a line of text".to_vec(),
                    level,
                    ..Entry::default()
                });
            }
        }
        let local = |at: f64| format!("second {at}");
        insta::assert_snapshot!(render(&stats, Painter::plain(), &local));
        assert_eq!(to_json(&stats, 0, &[])["total"]["levels"]["ERROR"], 16);
    }

    #[test]
    fn a_few_lines_beside_many_are_still_seen() {
        assert_eq!((height(0, 9), height(1, 1_000_000), height(9, 9)), (' ', '▁', '█'));
    }
}
