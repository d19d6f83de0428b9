//! Fair eviction: what of an old segment stays when its room is needed.
//!
//! Each name of the timeline is entitled to an even share of *half* the budget. When room is needed the oldest lines go first, but
//! of each name its newest lines stay, up to its share. So a flood never erases what the quiet ones wrote, and the
//! quiet ones never take more than half of the store from the loud. What stays of a segment is folded
//! into what stayed of the one before: `000003-000007.log` holds what is left of the segments 3 to 7, with its numbers.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use super::gone::Word;
use super::index::{FIELDS_HEADER, LONG_FIELDS, SPAN, Span, header};
use super::losses::word;
use super::record::Flags;
use super::scan::SegmentReader;
use super::segment::{Id, Shares, path, remove};

/// A segment's names and how much room each takes, from its index; nothing where that cannot be read.
pub(super) fn shares(dir: &Path, id: Id) -> Shares {
    let mut shares = Shares::new();
    let Some(mut segment) = SegmentReader::open(dir, id, 1) else {
        return shares;
    };
    let mut names: HashMap<u32, Arc<str>> = HashMap::new();
    for position in 0..segment.len() {
        let Some(span) = segment.span(position) else {
            continue;
        };
        let name = names.entry(span.name).or_insert_with(|| name_of(&mut segment, &span));
        *shares.entry(name.clone()).or_default() += span.weight();
    }
    shares
}

fn name_of(segment: &mut SegmentReader, span: &Span) -> Arc<str> {
    segment.name_of(span).unwrap_or_else(|| "?".to_owned()).into()
}

/// What is to be done to make room.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Remove this segment whole.
    Remove(usize),
    /// Fold as many from this one on as there are shares: of each name so much stays in each.
    Fold(usize, Vec<Shares>),
}

/// Chooses what goes; `None` where nothing can go fairly. `closed` holds the shares of the segments, oldest first, and whether each was folded before;
/// `current` those of the one that is written to.
pub(super) fn plan(
    closed: &[(&Shares, bool)],
    current: &Shares,
    budget: u64,
    segment: u64,
) -> Option<Plan> {
    let mut newer: HashMap<&Arc<str>, u64> = HashMap::new();
    for name in closed.iter().flat_map(|(shares, _)| shares.keys()).chain(current.keys()) {
        newer.insert(name, 0);
    }
    let entitled = budget / 2 / (newer.len() as u64).max(1);
    let add = |newer: &mut HashMap<_, u64>, shares: &'_ Shares| {
        for (name, bytes) in shares {
            if let Some(newer) = newer.get_mut(name) {
                *newer += bytes;
            }
        }
    };
    add(&mut newer, current);
    // From the newest to the oldest: what each name may keep there is what its newer lines leave of its share.
    let mut kept: Vec<Shares> = Vec::new();
    for (shares, _) in closed.iter().rev() {
        let keeps = shares.iter().filter_map(|(name, bytes)| {
            let left = entitled.saturating_sub(newer.get(name).copied().unwrap_or_default());
            (left > 0).then(|| (name.clone(), left.min(*bytes)))
        });
        kept.push(keeps.collect());
        add(&mut newer, shares);
    }
    kept.reverse();
    // Of no name newer lines go before older ones: where something older is left over, nothing newer goes.
    let mut waiting: HashSet<&Arc<str>> = HashSet::new();
    let (mut first, mut best) = (None, None);
    for (at, (shares, _)) in closed.iter().enumerate() {
        for name in shares.keys().filter(|name| waiting.contains(name)) {
            kept[at].insert(name.clone(), shares[name]);
        }
        let goes = total(shares) - total(&kept[at]);
        if best.is_some() {
            continue;
        }
        // One whose lines may almost all stay is not worth the copying, as long as there are others.
        if goes > 0 && goes.saturating_mul(4) >= total(shares) {
            best = Some(at);
        } else if goes > 0 {
            first = first.or(Some(at));
            waiting.extend(shares.keys().filter(|name| kept[at].get(*name) != shares.get(*name)));
        }
    }
    let at = best.or(first)?;
    if total(&kept[at]) == 0 {
        return Some(Plan::Remove(at));
    }
    // What was folded grows to a quarter of a segment, so that folding again stays cheap and the files stay few.
    let joins = |at: usize| {
        at > 0 && closed[at - 1].1 && total(closed[at - 1].0) + total(&kept[at]) <= segment / 4
    };
    let (first, last) = match closed[at].1 {
        _ if joins(at) => (at - 1, at),
        false => (at, at),
        // Never into itself, since readers may have it open by its name: into the next one, which is next in turn.
        true if at + 1 < closed.len() => (at, at + 1),
        true => return None,
    };
    Some(Plan::Fold(first, kept.drain(first..=last).collect()))
}

fn total(shares: &Shares) -> u64 {
    shares.values().sum()
}

/// Writes what stays of these segments into one, and removes them; `gone` hears which numbers do not stay, and what gaps among
/// them tell, before they go. `None` where nothing stays.
///
/// # Errors
/// What the file system says; then all is as it was.
pub(super) fn fold(
    dir: &Path,
    ids: &[Id],
    allowed: &[Shares],
    mut gone: impl FnMut(&[(u64, u64)], &[Word]),
) -> io::Result<Option<Id>> {
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else {
        return Ok(None);
    };
    let id = Id { number: last.number, from: Some(first.first()) };
    let written = Folding::begin(dir, id).and_then(|mut folding| {
        for (id, allowed) in ids.iter().zip(allowed) {
            folding.take(dir, *id, allowed.clone())?;
        }
        gone(&folding.gone, &folding.words);
        folding.end(dir, id)
    });
    match written {
        Ok(stays) => {
            for old in ids.iter().filter(|old| **old != id) {
                remove(dir, *old);
            }
            Ok(stays.then_some(id))
        }
        Err(error) => {
            for ending in ["log", "fld", "idx"] {
                let _ = fs::remove_file(new(dir, id, ending)); // may never have been made
            }
            Err(error)
        }
    }
}

/// As much of a span's end as there is room for: what came in one read may be more than a share.
fn newest_of(segment: &mut SegmentReader, span: &Span, name: &str, room: u64) -> Option<Span> {
    let room = room.checked_sub(SPAN as u64)? as usize;
    if span.flags.has(Flags::JOINED) || span.count < 2 || span.fields_length > 0 {
        return None;
    }
    let text = segment.text(span, name)?;
    let least = text.len().saturating_sub(room);
    // After the first line end that leaves no more than that.
    let cut = memchr::memchr(b'\n', &text[least.saturating_sub(1)..])? + least.max(1);
    let stays = &text[cut..];
    let count = memchr::memchr_iter(b'\n', stays).count() as u32;
    (count > 0).then(|| Span {
        seq: span.next_seq() - u64::from(count),
        offset: span.offset + cut as u64,
        length: stays.len() as u32,
        count,
        ..*span
    })
}

fn new(dir: &Path, id: Id, ending: &str) -> std::path::PathBuf {
    dir.join(format!("{id}.{ending}.new"))
}

struct Folding {
    log: BufWriter<File>,
    fld: BufWriter<File>,
    idx: BufWriter<File>,
    names: HashMap<Arc<str>, u32>,
    text: u64,
    fields: u64,
    spans: u64,
    /// The numbers that do not stay.
    gone: Vec<(u64, u64)>,
    /// What gaps among them tell.
    words: Vec<Word>,
}

impl Folding {
    fn begin(dir: &Path, id: Id) -> io::Result<Self> {
        let open = |ending| File::create(new(dir, id, ending)).map(BufWriter::new);
        let mut folding = Self {
            log: open("log")?,
            fld: open("fld")?,
            idx: open("idx")?,
            names: HashMap::new(),
            text: 0,
            fields: FIELDS_HEADER.len() as u64,
            spans: 0,
            gone: Vec::new(),
            words: Vec::new(),
        };
        folding.fld.write_all(FIELDS_HEADER)?;
        folding.idx.write_all(&header())?;
        Ok(folding)
    }

    /// Takes of a segment what is allowed to stay: of each name the newest.
    fn take(&mut self, dir: &Path, id: Id, mut allowed: Shares) -> io::Result<()> {
        let Some(mut segment) = SegmentReader::open(dir, id, 1) else {
            return Ok(()); // somebody took it away
        };
        let mut names: HashMap<u32, Arc<str>> = HashMap::new();
        // Of each span so much of its end.
        let mut stays: Vec<Option<Span>> = vec![None; segment.len() as usize];
        for position in (0..stays.len()).rev() {
            let Some(span) = segment.span(position as u64) else {
                continue;
            };
            let name = names.entry(span.name).or_insert_with(|| name_of(&mut segment, &span));
            if let Some(left) = allowed.get_mut(name) {
                match left.checked_sub(span.weight()) {
                    Some(rest) => {
                        *left = rest;
                        stays[position] = Some(span);
                    }
                    // What is older goes, too: no holes.
                    None => {
                        stays[position] = newest_of(&mut segment, &span, name, *left);
                        *left = 0;
                    }
                }
            }
        }
        for (position, stays) in stays.into_iter().enumerate() {
            let Some(span) = segment.span(position as u64) else {
                continue;
            };
            let first = stays.map_or(span.next_seq(), |span| span.seq);
            if first > span.seq {
                self.gone.push((span.seq, first));
                self.words.extend(word(&mut segment, &span));
            }
            let Some(span) = stays else {
                continue;
            };
            let name =
                names.get(&span.name).cloned().unwrap_or_else(|| name_of(&mut segment, &span));
            self.copy(&mut segment, span, name)?;
        }
        Ok(())
    }

    fn copy(
        &mut self,
        segment: &mut SegmentReader,
        mut span: Span,
        name: Arc<str>,
    ) -> io::Result<()> {
        if !span.flags.has(Flags::GAP) && span.fields_length > 0 {
            match segment.raw_fields(&span) {
                Some(json) => {
                    span.fields = self.fields as u32;
                    span.fields_length = u16::try_from(json.len()).unwrap_or(LONG_FIELDS);
                    self.field(&json)?;
                }
                None => (span.fields, span.fields_length) = (0, 0),
            }
        }
        let whose = name.clone();
        span.name = match self.names.get(&name) {
            Some(offset) => *offset,
            None => {
                let offset = self.fields as u32;
                self.field(name.as_bytes())?;
                self.names.insert(name, offset);
                offset
            }
        };
        let Some(text) = segment.text(&span, &whose) else {
            return Ok(()); // it is damaged: a reader would find nothing either
        };
        self.log.write_all(text)?;
        span.offset = self.text;
        self.text += u64::from(span.length);
        self.spans += 1;
        self.idx.write_all(&span.encode())
    }

    fn field(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.fields += bytes.len() as u64 + 1;
        self.fld.write_all(bytes)?;
        self.fld.write_all(b"\n")
    }

    /// Gives the files their names, the index last: from then on it counts. False, and no files, where nothing is in them.
    fn end(self, dir: &Path, id: Id) -> io::Result<bool> {
        for (ending, file) in [("log", self.log), ("fld", self.fld), ("idx", self.idx)] {
            file.into_inner()?;
            if self.spans == 0 {
                fs::remove_file(new(dir, id, ending))?;
            }
        }
        if self.spans == 0 {
            return Ok(false);
        }
        for ending in ["log", "fld", "idx"] {
            fs::rename(new(dir, id, ending), path(dir, id, ending))?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(of: &[(&str, u64)]) -> Shares {
        of.iter().map(|(name, bytes)| ((*name).into(), *bytes)).collect()
    }

    #[test]
    fn equally_loud_ones_lose_whole_segments() {
        let one = shares(&[("a", 50), ("b", 50)]);
        let closed: Vec<_> = (0..8).map(|_| (&one, false)).collect();
        assert_eq!(plan(&closed, &one, 900, 100), Some(Plan::Remove(0)));
    }

    #[test]
    fn a_quiet_one_keeps_all_and_the_loud_one_its_newest() {
        let old = shares(&[("loud", 95), ("quiet", 5)]);
        let new = shares(&[("loud", 100)]);
        let closed = [(&old, false), (&new, false), (&new, false), (&new, false)];
        let allowed = vec![shares(&[("quiet", 5)])];
        let wanted = Plan::Fold(0, allowed);
        assert_eq!(plan(&closed, &shares(&[]), 400, 100), Some(wanted));
        // What was folded before stays; the next one is folded into it.
        let kept = shares(&[("quiet", 5)]);
        let closed = [(&kept, true), (&old, false), (&new, false), (&new, false), (&new, false)];
        let allowed = vec![kept.clone(), kept.clone()];
        let wanted = Plan::Fold(0, allowed);
        assert_eq!(plan(&closed, &shares(&[]), 400, 100), Some(wanted));
    }

    #[test]
    fn one_that_was_loud_and_is_quiet_now_keeps_its_newest_lines() {
        let old = shares(&[("was", 100)]);
        let new = shares(&[("is", 100)]);
        let closed = [(&old, false), (&old, false), (&new, false), (&new, false)];
        // Entitled to 100 of 400: the first goes, the second stays.
        assert_eq!(plan(&closed, &shares(&[]), 400, 100), Some(Plan::Remove(0)));
        assert_eq!(plan(&closed[1..], &shares(&[("is", 100)]), 400, 100), Some(Plan::Remove(1)));
    }
}
