//! Bytes of a pipe become lines. Pure: no descriptor, no clock.

use std::borrow::Cow;

/// How a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With `\n`.
    Newline,
    /// With `\r\n`.
    CrNewline,
    /// Not: it is longer than the longest line, and goes on in the next one.
    Split,
    /// Not: nothing more came.
    Partial,
}

impl End {
    /// The bytes that ended it in the pipe.
    pub fn bytes(self) -> &'static [u8] {
        match self {
            Self::Newline => b"\n",
            Self::CrNewline => b"\r\n",
            Self::Split | Self::Partial => b"",
        }
    }
}

/// Splits `chunk`, which follows on `tail` (the unfinished line so far), and gives every finished line to
/// `emit`. What is unfinished then is in `tail`. A line with more than `max` bytes is split there,
/// wherever the chunks happen to end.
pub fn split(tail: &mut Vec<u8>, max: usize, chunk: &[u8], mut emit: impl FnMut(&[u8], End)) {
    let max = max.max(1);
    let mut rest = chunk;
    if !tail.is_empty() {
        let end = memchr::memchr(b'\n', rest);
        let take = end.unwrap_or(rest.len());
        // At most `max` bytes and one chunk are held at once.
        tail.extend_from_slice(&rest[..take]);
        rest = &rest[end.map_or(take, |end| end + 1)..];
        let mut done = 0;
        while tail.len() - done > max {
            emit(&tail[done..done + max], End::Split);
            done += max;
        }
        if end.is_some() {
            whole(&tail[done..], &mut emit);
            *tail = Vec::new();
        } else {
            tail.drain(..done);
            return;
        }
    }
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', rest) {
        while end - start > max {
            emit(&rest[start..start + max], End::Split);
            start += max;
        }
        whole(&rest[start..end], &mut emit);
        start = end + 1;
    }
    while rest.len() - start > max {
        emit(&rest[start..start + max], End::Split);
        start += max;
    }
    if start < rest.len() {
        tail.extend_from_slice(&rest[start..]);
    }
}

#[inline]
fn whole(line: &[u8], emit: &mut impl FnMut(&[u8], End)) {
    match line {
        [text @ .., b'\r'] => emit(text, End::CrNewline),
        text => emit(text, End::Newline),
    }
}

/// Closes the line that `tail` holds, if any.
pub fn close(tail: &mut Vec<u8>, emit: impl FnOnce(&[u8], End)) {
    if !tail.is_empty() {
        emit(tail, End::Partial);
        *tail = Vec::new();
    }
}

/// Copies `line` without its colours (`ESC [ … m`) into `out`.
pub fn strip_colors(line: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut rest = line;
    while let Some(escape) = memchr::memchr(0x1b, rest) {
        out.extend_from_slice(&rest[..escape]);
        let length = color(&rest[escape..]);
        // What is no colour stays as it is.
        out.extend_from_slice(&rest[escape..escape + usize::from(length == 0)]);
        rest = &rest[escape + length.max(1)..];
    }
    out.extend_from_slice(rest);
}

/// `line` as a person sees it: without colours and the erasing of line ends that goes with them.
pub fn uncolored(line: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(0x1b, line).is_none() {
        return Cow::Borrowed(line);
    }
    let mut plain = Vec::with_capacity(line.len());
    strip_colors(line, &mut plain);
    while let Some(at) = memchr::memmem::find(&plain, b"\x1b[K") {
        plain.drain(at..at + 3);
    }
    Cow::Owned(plain)
}

/// The length of the colour sequence at the start of `bytes` (which begin with ESC); 0 = none.
pub fn color(bytes: &[u8]) -> usize {
    if bytes.get(1) != Some(&b'[') {
        return 0;
    }
    let body = bytes[2..]
        .iter()
        .take(64)
        .take_while(|byte| matches!(byte, b'0'..=b'9' | b';' | b':'))
        .count();
    if bytes.get(2 + body) == Some(&b'm') { body + 3 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(max: usize, chunks: &[&[u8]]) -> Vec<(Vec<u8>, End)> {
        let mut lines = Vec::new();
        let mut tail = Vec::new();
        for chunk in chunks {
            split(&mut tail, max, chunk, |line, end| {
                lines.push((line.to_vec(), end));
            });
            assert!(tail.len() <= max, "the tail is bounded");
        }
        close(&mut tail, |line, end| lines.push((line.to_vec(), end)));
        lines
    }

    #[test]
    fn lines_end_where_the_program_said() {
        assert_eq!(
            run(100, &[b"a\nb\r\n\nc"]),
            [
                (b"a".to_vec(), End::Newline),
                (b"b".to_vec(), End::CrNewline),
                (b"".to_vec(), End::Newline),
                (b"c".to_vec(), End::Partial),
            ]
        );
    }

    #[test]
    fn a_line_of_just_the_longest_length_is_whole() {
        assert_eq!(run(4, &[b"abcd\n"]), [(b"abcd".to_vec(), End::Newline)]);
        assert_eq!(
            run(4, &[b"abcd", b"e\n"]),
            [(b"abcd".to_vec(), End::Split), (b"e".to_vec(), End::Newline)]
        );
    }

    #[test]
    fn only_colours_are_stripped() {
        let mut out = Vec::new();
        strip_colors(b"\x1b[1;31mred\x1b[0m \x1b[2Jx\x1b", &mut out);
        assert_eq!(out, b"red \x1b[2Jx\x1b");
        assert_eq!(*uncolored(b"\x1b[1;31me\x1b[0mrr\x1b[K or"), *b"err or");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn any_chunking_gives_the_same_lines_and_loses_nothing(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'x'), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(0_usize..200, 0..8),
            max in 1_usize..40,
        ) {
            let whole = run(max, &[&bytes]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut chunks: Vec<&[u8]> = Vec::new();
            let mut last = 0;
            for cut in cuts {
                chunks.push(&bytes[last..cut]);
                last = cut;
            }
            chunks.push(&bytes[last..]);
            prop_assert_eq!(&run(max, &chunks), &whole);
            let back: Vec<u8> = whole
                .iter()
                .flat_map(|(line, end)| line.iter().chain(end.bytes()).copied())
                .collect();
            prop_assert_eq!(back, bytes);
            prop_assert!(whole.iter().all(|(line, _)| line.len() <= max && !line.contains(&b'\n')));
        }
    }
}
