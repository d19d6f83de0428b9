//! Whatever lines come, with pauses between, as pieces or whole: each comes out once, in order, and only whole lines that end
//! alike are one record.
#![no_main]

use hilum_node::log::join::{Joiner, Record, Rule};
use hilum_node::log::level::auto;
use hilum_node::log::line::End;
use hilum_node::log::record::Flags;
use hilum_shared::config::spec::Multiline;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [rule, text @ ..] = input else { return };
    let rule = match rule % 3 {
        0 => Rule::new(&Multiline::Auto),
        1 => Rule::new(&Multiline::Off),
        _ => Rule::new(&Multiline::Starts("^[A-Z0-9]".into())),
    };
    let (mut joiner, mut given, mut found) = (Joiner::default(), Vec::new(), Vec::new());
    let mut out = |record: Record<'_>| found.push((record.text.to_vec(), record.flags));
    for line in text.split(|byte| *byte == b'\n') {
        let (flags, line) = match line {
            [1, ..] => {
                joiner.release(&mut out);
                assert!(!joiner.is_holding());
                continue;
            }
            [2, line @ ..] => (Flags::CR, line),
            [3, line @ ..] => (Flags::SPLIT, line),
            [4, line @ ..] => (Flags::PARTIAL, line),
            line => (Flags::NONE, line),
        };
        given.push((line, flags));
        let level = auto(line);
        if flags == Flags::NONE && joiner.passes(&rule, line, level, End::Newline) {
            out(Record { text: line, level, flags, at: 0 });
        } else {
            joiner.take(&rule, line, level, flags, 0, &mut out);
        }
    }
    joiner.release(&mut out);
    let mut given = given.into_iter();
    for (text, flags) in found {
        let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        assert_eq!(lines.len() > 1, flags.has(Flags::JOINED));
        assert!(lines.len() <= 2000, "a record is bounded");
        for (at, line) in lines.iter().enumerate() {
            let (own, of_it) = given.next().expect("nothing comes out that did not go in");
            assert_eq!(own, *line);
            let alone = of_it.has(Flags::SPLIT);
            let ends_it = of_it.has(Flags::PARTIAL);
            assert!(!alone || lines.len() == 1, "a piece is never joined");
            assert!(!ends_it || at + 1 == lines.len(), "what is unfinished is the last of its record");
            assert_eq!(flags.has(Flags::CR), of_it.has(Flags::CR) || (ends_it && flags.has(Flags::CR)));
        }
    }
    assert!(given.next().is_none(), "nothing stays inside");
});
