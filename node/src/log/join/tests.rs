//! Traces as runtimes print them, and random lines.

use super::*;
use crate::log::level;
use proptest::prelude::*;

/// What a joiner makes of lines, with a pause wherever a line is `…`.
fn records(rule: &Rule, lines: &[&str]) -> Vec<(String, Option<Level>, Flags)> {
    let mut joiner = Joiner::default();
    let mut all = Vec::new();
    let mut out = |record: Record<'_>| {
        all.push((String::from_utf8_lossy(record.text).into_owned(), record.level, record.flags));
    };
    for line in lines {
        if *line == "…" {
            joiner.release(&mut out);
            continue;
        }
        let level = level::auto(line.as_bytes());
        let record = Record { text: line.as_bytes(), level, flags: Flags::NONE, at: 0 };
        if joiner.passes(rule, record.text, level, End::Newline) {
            out(record);
        } else {
            joiner.take(rule, record.text, level, Flags::NONE, 0, &mut out);
        }
    }
    joiner.release(&mut out);
    all
}

/// Checks that `lines` are one record of this level, also between plain lines, and when each line comes alone but in time.
#[track_caller]
fn is_one(level: Level, lines: &str) {
    let lines: Vec<&str> = lines.lines().collect();
    let all: Vec<&str> = [&["before"][..], &lines, &["after it"]].concat();
    let found = records(&Rule::Traces, &all);
    let texts: Vec<&str> = found.iter().map(|(text, ..)| text.as_str()).collect();
    assert_eq!(texts, ["before", &lines.join("\n"), "after it"]);
    assert_eq!(found[1].1, Some(level));
    assert!(found[1].2.has(Flags::JOINED) && !found[2].2.has(Flags::JOINED));
}

/// Checks that no two of these lines become one record.
#[track_caller]
fn are_many(lines: &str) {
    let lines: Vec<&str> = lines.lines().collect();
    let found = records(&Rule::Traces, &lines);
    let texts: Vec<&str> = found.iter().map(|(text, ..)| text.as_str()).collect();
    assert_eq!(texts, lines);
}

#[test]
fn python() {
    is_one(
        Level::Error,
        "Traceback (most recent call last):\n  File \"a.py\", line 3, in <module>\n    pay()\n    ~~~^^\n  File \"a.py\", line 1, in pay\n    raise ValueError('none')\nValueError: none",
    );
    is_one(
        Level::Error,
        "ERROR:shop:cannot pay\nTraceback (most recent call last):\n  File \"a.py\", line 3, in <module>\n    pay()\nKeyError: 'x'\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"a.py\", line 5, in <module>\n    raise shop.NoStock\nshop.NoStock",
    );
    is_one(
        Level::Error,
        "  + Exception Group Traceback (most recent call last):\n  |   File \"a.py\", line 1, in <module>\n  | ExceptionGroup: two (2 sub-exceptions)\n  +-+---------------- 1 ----------------\n    | ValueError: 1\n    +------------------------------------",
    );
    is_one(
        Level::Error,
        "Traceback (most recent call last):\n  File \"a.py\", line 3, in <module>\n    x()\npydantic.ValidationError: 1 error\n  Input should be an integer\n    For further information visit x",
    );
}

#[test]
fn a_message_of_several_lines_belongs_to_its_traceback() {
    let trace = "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\n    raise ValueError(x)\nValueError: two\nlines in message";
    let chained = format!(
        "{trace}\n\nThe above exception was the direct cause of the following exception:\n\n{trace}"
    );
    // A logger's line says that the message is over.
    let lines =
        format!("ERROR:app:with exc\n{trace}\nWARNING:app:after\n{chained}\nINFO:app:goes on");
    let mut joiner = Joiner::default();
    let mut all = Vec::new();
    let mut out = |record: Record<'_>| {
        all.push((String::from_utf8_lossy(record.text).into_owned(), record.level));
    };
    for line in lines.lines() {
        let level = level::auto(line.as_bytes());
        joiner.take(&Rule::Traces, line.as_bytes(), level, Flags::NONE, 0, &mut out);
    }
    joiner.release(&mut out);
    let error = Some(Level::Error);
    let wanted = [
        (format!("ERROR:app:with exc\n{trace}"), error),
        // An uncaught exception after a warning is more than a warning.
        (format!("WARNING:app:after\n{chained}"), error),
        ("INFO:app:goes on".to_owned(), Some(Level::Info)),
    ];
    assert_eq!(all, wanted);
    is_one(
        Level::Error,
        "Traceback (most recent call last):\n  File \"a.py\", line 3, in <module>\n    M(x)\npydantic.ValidationError: 1 error for M\nfield\n  Field required [type=missing]\n    For further information visit x",
    );
}

#[test]
fn java_and_kotlin() {
    is_one(
        Level::Error,
        "Exception in thread \"main\" java.lang.IllegalStateException: no\n\tat com.shop.Cart.pay(Cart.java:3)\n\tat com.shop.Main.main(Main.java:9)\n\tSuppressed: java.io.IOException: y\n\t\tat a.B.c(B.java:1)\nCaused by: java.io.IOException: x\n\tat com.shop.Cart.read(Cart.java:7)\n\t... 2 more",
    );
    is_one(
        Level::Error,
        "2026-11-24 12:00:00,123 [main] ERROR c.s.Cart - cannot pay\njava.lang.IllegalStateException: no\nand why\n\tat com.shop.Cart.pay(Cart.java:3)",
    );
    is_one(
        Level::Warning,
        "12:00:00.123 [main] WARN c.s.Cart - slow\n\tat com.shop.Cart.pay(Cart.kt:3)\n\tat com.shop.Main.main(Main.kt:9)",
    );
    is_one(
        Level::Error,
        "Exception in thread \"main\" java.lang.Error: x\n\tat a.B.c(B.java:1)\nCaused by: a.NoException: one\ntwo\n\tat a.B.d(B.java:2)\n\t... 1 more\nCaused by: a.NoException: one\ntwo\n\t... 3 more",
    );
    is_one(
        Level::Error,
        "kotlin.UninitializedPropertyAccessException: lateinit property x\n\tat MainKt.main(Main.kt:9)",
    );
}

#[test]
fn rust() {
    is_one(
        Level::Error,
        "thread 'main' panicked at src/main.rs:3:5:\nindex out of bounds: the len is 1 but the index is 2\nstack backtrace:\n   0: rust_begin_unwind\n             at /rustc/x/library/std/src/panicking.rs:3\n   1: core::panicking::panic_fmt\nnote: Some details are omitted, run with `RUST_BACKTRACE=full` for a verbose backtrace.",
    );
    is_one(
        Level::Error,
        "thread 'main' (19963) panicked at src/main.rs:3:5:\nassertion `left == right` failed\n  left: 1\n right: 2\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace",
    );
    is_one(
        Level::Error,
        "thread 'main' panicked at 'old form', src/main.rs:3:5\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace",
    );
}

#[test]
fn a_panic_in_a_handler_of_go() {
    for head in ["2026/11/24 12:00:00 ", "2026/11/24 12:00:00.123456 ", ""] {
        is_one(
            Level::Error,
            &format!(
                "{head}http: panic serving 127.0.0.1:40000: boom\ngoroutine 19 [running]:\nnet/http.(*conn).serve.func1()\n\t/usr/lib/go/src/net/http/server.go:1947 +0xbe\npanic({{0x6a3a40?, 0x7a8e30?}})\n\t/usr/lib/go/src/runtime/panic.go:787 +0x132\nmain.main.func1({{0x1, 0x2}}, 0x3)\n\t/app/main.go:9 +0x25\ncreated by net/http.(*Server).Serve in goroutine 1\n\t/usr/lib/go/src/net/http/server.go:3454 +0x485"
            ),
        );
    }
}

#[test]
fn go() {
    is_one(
        Level::Critical,
        "panic: runtime error: index out of range [2] with length 1\n\ngoroutine 1 [running]:\nmain.pay(0x1, {0x2, 0x3})\n\t/app/main.go:3 +0x1d\nmain.main()\n\t/app/main.go:9 +0x2\n\ngoroutine 7 [chan receive]:\nmain.wait()\n\t/app/main.go:5\ncreated by main.main in goroutine 1\n\t/app/main.go:8\nexit status 2",
    );
    is_one(
        Level::Critical,
        "panic: no\n[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x1]\n\ngoroutine 1 [running]:\nmain.main()\n\t/app/main.go:9 +0x2",
    );
    is_one(
        Level::Error,
        "fatal error: all goroutines are asleep - deadlock!\n\ngoroutine 1 [chan receive]:\nmain.main()\n\t/app/main.go:9 +0x2",
    );
}

#[test]
fn node_ruby_and_dotnet() {
    is_one(
        Level::Error,
        "/app/cart.js:12\n    throw new TypeError('no');\n    ^\n\nTypeError: no\n    at pay (/app/cart.js:12:11)\n    at Object.<anonymous> (/app/cart.js:15:1) {\n  code: 'E_NO',\n  [cause]: Error: why\n      at x (/app/y.js:1:1)\n}\n\nNode.js v20.1.0",
    );
    is_one(
        Level::Error,
        "Error: connect ECONNREFUSED 127.0.0.1:1\n    at TCPConnectWrap.afterConnect [as oncomplete] (node:net:1555:16)",
    );
    is_one(Level::Error, "cart.rb:3:in 'Cart#pay': none (NoStock)\n\tfrom cart.rb:9:in '<main>'");
    is_one(
        Level::Error,
        "Unhandled exception. System.InvalidOperationException: no\n ---> System.IO.IOException: x\n   at Shop.Cart.Read() in /app/Cart.cs:line 7\n   --- End of inner exception stack trace ---\n   at Shop.Cart.Pay() in /app/Cart.cs:line 3",
    );
}

#[test]
fn what_is_no_trace_stays_line_by_line() {
    are_many("ERROR: one\nERROR: two\n  indented\nplain\n\n\nERROR: three\nplain");
    are_many("panic: said somebody\na\nb\nc\nd\ne\nf\ng\nh\ni\nj");
    are_many("TypeError: one\nTypeError: two\nsomething else");
    are_many("{\n  \"pretty\": \"json\",\n  \"at\": 3\n}");
    are_many("  at noon\n  at midnight");
    are_many("/app/cart.js:12\nanother line\nTraceback is a word");
    are_many("note: x\nstack backtrace:\n   0: not after a panic");
}

#[test]
fn two_traces_in_a_row_are_two_records() {
    let one = "Traceback (most recent call last):\n  File \"a.py\", line 3\nValueError: x";
    let text = format!("{one}\n{one}");
    let lines: Vec<&str> = text.lines().collect();
    let found = records(&Rule::Traces, &lines);
    assert_eq!(found.iter().map(|(text, ..)| text.as_str()).collect::<Vec<_>>(), [one, one]);
}

#[test]
fn the_end_of_a_program_does_not_belong_to_its_last_warning() {
    let found = records(
        &Rule::Traces,
        &[
            "WARNING: careful",
            "Exception in thread \"main\" a.NoException: x",
            "\tat a.B.c(B.java:1)",
        ],
    );
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].1, found[1].1), (Some(Level::Warning), Some(Level::Error)));
    let found = records(&Rule::Traces, &["ERROR x", "panic: y", "", "goroutine 1 [running]:"]);
    assert_eq!(found.len(), 2);
}

#[test]
fn a_pause_ends_a_record() {
    let found = records(
        &Rule::Traces,
        &["ERROR: x", "…", "Traceback (most recent call last):", "  File", "…", "    y()", "E: z"],
    );
    let texts: Vec<&str> = found.iter().map(|(text, ..)| text.as_str()).collect();
    assert_eq!(
        texts,
        ["ERROR: x", "Traceback (most recent call last):\n  File", "    y()", "E: z"]
    );
}

#[test]
fn an_expression_says_where_records_begin() {
    let rule = Rule::new(&Multiline::Starts("^\\d{4}-".into()));
    let found = records(&rule, &["rest", "2026-11-24 ERROR a", "b", " c", "2026-11-25 d"]);
    let texts: Vec<&str> = found.iter().map(|(text, ..)| text.as_str()).collect();
    assert_eq!(texts, ["rest", "2026-11-24 ERROR a\nb\n c", "2026-11-25 d"]);
    assert_eq!((found[0].1, found[1].1), (None, Some(Level::Error)));
    let off = Rule::new(&Multiline::Off);
    assert_eq!(records(&off, &["Traceback (most recent call last):", "  File"]).len(), 2);
}

#[test]
fn pieces_of_lines_are_never_joined_and_line_ends_do_not_mix() {
    let mut joiner = Joiner::default();
    let mut all = Vec::new();
    for (line, flags) in [
        ("ERROR: x", Flags::SPLIT),
        ("Traceback (most recent call last):", Flags::NONE),
        ("Traceback (most recent call last):", Flags::CR),
        ("  File", Flags::CR),
        ("  File", Flags::NONE),
        ("Traceback (most recent call last):", Flags::NONE),
        ("  unfini", Flags::PARTIAL),
        ("  shed", Flags::NONE),
    ] {
        let out = &mut |record: Record<'_>| {
            all.push((String::from_utf8_lossy(record.text).into_owned(), record.flags));
        };
        joiner.take(&Rule::Traces, line.as_bytes(), level::auto(line.as_bytes()), flags, 0, out);
    }
    let trace = "Traceback (most recent call last):";
    assert_eq!(
        all,
        [
            ("ERROR: x".into(), Flags::SPLIT),
            (trace.into(), Flags::NONE),
            (format!("{trace}\n  File"), Flags::CR.with(Flags::JOINED)),
            ("  File".into(), Flags::NONE),
            (format!("{trace}\n  unfini"), Flags::PARTIAL.with(Flags::JOINED)),
            ("  shed".into(), Flags::NONE),
        ]
    );
}

#[test]
fn a_record_is_bounded() {
    let long = "  x".repeat(1000);
    let mut lines = vec!["Traceback (most recent call last):"];
    lines.extend(std::iter::repeat_n(long.as_str(), 500));
    let found = records(&Rule::Traces, &lines);
    assert!(found.len() > 3 && found.iter().all(|(text, ..)| text.len() < MOST_BYTES + 4000));
    assert_eq!(found.iter().map(|(text, ..)| text.lines().count()).sum::<usize>(), 501);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn every_line_comes_out_once_and_in_order(lines in proptest::collection::vec(prop_oneof![
        Just("Traceback (most recent call last):"), Just("  File \"x\""), Just("ValueError: x"), Just(""),
        Just("During handling of the above exception, another exception occurred:"),
        Just("ERROR: x"), Just("java.lang.Error: y"), Just("\tat a.b(C.java:1)"), Just("Caused by: x.YException"),
        Just("thread 'main' panicked at a.rs:1:2:"), Just("note: x"), Just("stack backtrace:"), Just("   0: x"),
        Just("panic: z"), Just("goroutine 1 [running]:"), Just("main.main()"), Just("/a/b.js:1"), Just("}"), Just("…"), Just("plain"),
    ], 0..60), rule in prop_oneof![Just("auto"), Just("off"), Just("RE")]) {
        let rule = match rule {
            "RE" => Rule::new(&Multiline::Starts("^[A-Z]".into())),
            "off" => Rule::Off,
            _ => Rule::Traces,
        };
        let found = records(&rule, &lines);
        let back: Vec<&str> = found.iter().flat_map(|(text, ..)| text.split('\n')).collect();
        let lines: Vec<&str> = lines.into_iter().filter(|line| *line != "…").collect();
        prop_assert_eq!(back, lines);
        prop_assert!(found.iter().all(|(text, _, flags)| text.contains('\n') == flags.has(Flags::JOINED)));
    }
}

/// A line as the splitter gives it, or a pause.
#[derive(Clone, Copy, Debug)]
enum Piece {
    Line(&'static str, Flags),
    Pause,
}

/// What `log.multiline: RE` promises, said plainly: a record goes from one match to the next; pieces of a line that has no end
/// yet stand alone, and lines that end in another way begin anew.
fn by_matches(regex: &Regex, pieces: &[Piece]) -> Vec<(String, Flags)> {
    let mut records: Vec<(String, Flags)> = Vec::new();
    let (mut goes_on, mut unfinished) = (false, false);
    for piece in pieces {
        let Piece::Line(text, flags) = *piece else {
            goes_on = false;
            continue;
        };
        let ends = !flags.has(Flags::PARTIAL) && !flags.has(Flags::SPLIT);
        let whole = !unfinished && !flags.has(Flags::SPLIT);
        let last = records.last_mut().filter(|(_, before)| {
            let alike = before.without(Flags::JOINED) == flags || flags.has(Flags::PARTIAL);
            goes_on && whole && alike && !regex.is_match(text.as_bytes())
        });
        match last {
            Some((record, of_it)) => {
                *record = format!("{record}\n{text}");
                *of_it = of_it.with(Flags::JOINED);
                if flags.has(Flags::PARTIAL) {
                    *of_it = of_it.with(Flags::PARTIAL);
                }
            }
            None => records.push((text.to_owned(), flags)),
        }
        goes_on = whole && ends;
        unfinished = !ends;
    }
    records
}

fn piece() -> impl Strategy<Value = Piece> {
    let text = prop_oneof![Just("2026 one"), Just("and on"), Just(" x"), Just(""), Just("2027")];
    let flags = prop_oneof![
        6 => Just(Flags::NONE), 2 => Just(Flags::CR), 1 => Just(Flags::PARTIAL), 1 => Just(Flags::SPLIT),
    ];
    prop_oneof![
        9 => (text, flags).prop_map(|(text, flags)| Piece::Line(text, flags)),
        1 => Just(Piece::Pause),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn an_expression_joins_as_it_is_promised(pieces in proptest::collection::vec(piece(), 0..40)) {
        let regex = Regex::new("^\\d{4}").unwrap();
        let rule = Rule::Starts(Box::new(regex.clone()));
        let (mut joiner, mut found) = (Joiner::default(), Vec::new());
        let mut out = |record: Record<'_>| {
            found.push((String::from_utf8_lossy(record.text).into_owned(), record.flags));
        };
        for piece in &pieces {
            match *piece {
                Piece::Line(text, flags) => joiner.take(&rule, text.as_bytes(), None, flags, 0, &mut out),
                Piece::Pause => joiner.release(&mut out),
            }
        }
        joiner.release(&mut out);
        prop_assert_eq!(found, by_matches(&regex, &pieces));
    }

    #[test]
    fn a_line_that_passes_would_have_come_out_the_same(line in "[ \t]?(Traceback|thread 'a' panicked at|at|E|Caused by:|/a.js:1|x.YError|panic:|goroutine 1|fatal error:|.{0,6})[ (:)]?.{0,8}") {
        let level = level::auto(line.as_bytes());
        let mut joiner = Joiner::default();
        if joiner.passes(&Rule::Traces, line.as_bytes(), level, End::Newline) {
            let mut count = 0;
            joiner.take(&Rule::Traces, line.as_bytes(), level, Flags::NONE, 0, &mut |_| count += 1);
            prop_assert_eq!((count, joiner.is_holding()), (1, false));
        }
    }
}

/// What runtimes print, `%%` between the records.
#[track_caller]
fn are_as_marked(samples: &str) {
    let wanted: Vec<&str> = samples.trim_end_matches('\n').split("\n%%\n").collect();
    let lines: Vec<&str> = wanted.iter().flat_map(|record| record.split('\n')).collect();
    let found = records(&Rule::Traces, &lines);
    let texts: Vec<&str> = found.iter().map(|(text, ..)| text.as_str()).collect();
    for (found, wanted) in texts.iter().zip(&wanted) {
        assert_eq!(found, wanted);
    }
    assert_eq!(texts.len(), wanted.len());
    for (text, level, flags) in found {
        let joined = text.contains('\n');
        assert_eq!(flags.has(Flags::JOINED), joined, "{text}");
        let usual = match &text {
            text if text.contains(": UserWarning: ") => Level::Warning,
            text if text.starts_with("Trace: ") => Level::Debug,
            _ => Level::Error,
        };
        assert!(!joined || level >= Some(usual), "{level:?}: {text}");
    }
}

#[test]
fn what_runtimes_print_is_joined_as_a_person_would() {
    are_as_marked(include_str!("samples/python.txt"));
    are_as_marked(include_str!("samples/node.txt"));
    are_as_marked(include_str!("samples/java.txt"));
    are_as_marked(include_str!("samples/rust.txt"));
    are_as_marked(include_str!("samples/rest.txt"));
}
