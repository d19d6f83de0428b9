//! However bytes come by a pipe, the same lines come out, none longer than allowed, and together they are the bytes again.
#![no_main]

use hilum_node::log::line::{End, close, split, strip_colors};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [max, step, bytes @ ..] = input else { return };
    let (max, step) = (usize::from(*max).max(1), usize::from(*step).max(1));
    let whole = lines(max, std::iter::once(bytes));
    assert_eq!(lines(max, bytes.chunks(step)), whole);
    let mut again = Vec::new();
    for (line, end) in &whole {
        assert!(line.len() <= max && !line.contains(&b'\n'));
        again.extend_from_slice(line);
        again.extend_from_slice(end.bytes());
    }
    assert_eq!(again, bytes);
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    strip_colors(bytes, &mut once);
    assert!(once.len() <= bytes.len());
    strip_colors(&once, &mut twice);
    assert!(twice.len() <= once.len());
});

fn lines<'a>(max: usize, chunks: impl Iterator<Item = &'a [u8]>) -> Vec<(Vec<u8>, End)> {
    let (mut tail, mut lines) = (Vec::new(), Vec::new());
    for chunk in chunks {
        split(&mut tail, max, chunk, |line, end| lines.push((line.to_vec(), end)));
        assert!(tail.len() <= max, "what is unfinished is bounded");
    }
    close(&mut tail, |line, end| lines.push((line.to_vec(), end)));
    lines
}
