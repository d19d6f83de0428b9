//! Lines that are one record, and their way back to the bytes that they were.

use super::*;
use proptest::prelude::*;

const TRACE: &str = "Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\n    1/0\nZeroDivisionError: division by zero\n";

fn raw(dir: &Path, stream: Stream) -> Vec<u8> {
    let filter = Filter { streams: vec![stream], ..Filter::default() };
    let mut bytes = Vec::new();
    for entry in read(dir, filter, Start::All) {
        entry.write_raw(&mut bytes);
    }
    bytes
}

#[test]
fn a_traceback_is_one_record_stored_as_its_lines() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    let (mut out, mut err) = log.attach("a.1", 1, policy());
    // Whatever the pieces in which it comes, and whatever the other stream writes meanwhile.
    writeln!(err, "ERROR:shop:cannot pay").unwrap();
    for piece in TRACE.as_bytes().chunks(40) {
        err.write_all(piece).unwrap();
        writeln!(out, "    from the other stream").unwrap();
    }
    writeln!(err, "after").unwrap();
    drop((out, err));
    log.ended("a.1", 1).recv_timeout(LONG).unwrap();
    log.stop();
    let errors = Filter { streams: vec![Stream::Err], ..Filter::default() };
    let last = read(dir.path(), errors.clone(), Start::Tail(2));
    assert_eq!(
        texts(&last),
        [format!("ERROR:shop:cannot pay\n{}", TRACE.trim_end()), "after".into()]
    );
    assert_eq!(last[0].level, Some(Level::Error));
    assert!(last[0].flags.has(Flags::JOINED));
    let grave = Filter { level: Some(Level::Error), ..errors };
    assert_eq!(read(dir.path(), grave, Start::Tail(5)).len(), 1, "it is one record with one level");
    let stored = std::fs::read_to_string(dir.path().join("000001.log")).unwrap();
    assert!(stored.contains(" a.1 err |     1/0\n"), "{stored}");
}

#[test]
fn what_is_held_is_shown_by_itself_after_a_moment() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    let (_out, mut err) = log.attach("a.1", 1, policy());
    writeln!(err, "ERROR: alone").unwrap();
    wait_until("the line", || texts(&all(dir.path())) == ["ERROR: alone"]);
    err.write_all(b"Traceback (most recent call last):\n  File \"a.py\"\n").unwrap();
    wait_until("the trace", || all(dir.path()).len() == 2);
    writeln!(err, "ValueError: too late to belong to it").unwrap();
    log.flush();
    assert_eq!(all(dir.path()).len(), 3);
    log.stop();
}

#[test]
fn an_expression_says_what_a_record_is() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    let multiline = Multiline::Starts("^[0-9]".into());
    let (mut out, err) = log.attach("a.1", 1, LogPolicy { multiline, ..policy() });
    out.write_all(b"1 INFO a\nb\n2 WARNING c\nd\ne").unwrap();
    drop((out, err));
    log.ended("a.1", 1).recv_timeout(LONG).unwrap();
    log.stop();
    let entries = all(dir.path());
    assert_eq!(texts(&entries), ["1 INFO a\nb", "2 WARNING c\nd\ne"]);
    assert!(entries[1].is_partial());
    assert_eq!(raw(dir.path(), Stream::Out), b"1 INFO a\nb\n2 WARNING c\nd\ne");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Carriage returns, traces, lines that are too long, unfinished ones, any bytes, in any pieces.
    #[test]
    fn the_original_bytes_come_back(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just(TRACE.as_bytes().to_vec()),
                Just(TRACE.replace('\n', "\r\n").into_bytes()),
                Just(b"ERROR: x\n".to_vec()),
                Just(b"ERROR: y\r\n\tat a.b(C.java:1)\n".to_vec()),
                Just(b"panic: z\n\n".to_vec()),
                Just(vec![b'x'; 700]),
                Just(b"\r\n".to_vec()),
                proptest::collection::vec(any::<u8>(), 0..20),
            ],
            0..12,
        ),
        max in prop_oneof![Just(256_u64), Just(64 * 1024)],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::start(dir.path(), spec());
        let (mut out, err) = log.attach("a.1", 1, LogPolicy { max_line: Bytes(max), ..policy() });
        for piece in &pieces {
            out.write_all(piece).unwrap();
        }
        drop((out, err));
        log.ended("a.1", 1).recv_timeout(LONG).unwrap();
        log.stop();
        prop_assert_eq!(raw(dir.path(), Stream::Out), pieces.concat());
    }
}

#[test]
fn a_line_that_waits_for_more_is_not_overtaken_by_what_others_write_later() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    let (mut a, _a) = log.attach("a.1", 1, policy());
    let (mut b, _b) = log.attach("b.1", 1, policy());
    for round in 0..5 {
        writeln!(a, "ERROR: a fails {round}").unwrap();
        std::thread::sleep(Duration::from_millis(30)); // less than it would wait for a trace
        writeln!(b, "b reacts {round}").unwrap();
        log.flush();
    }
    log.stop();
    let entries = all(dir.path());
    let wanted: Vec<String> = (0..5)
        .flat_map(|round| [format!("ERROR: a fails {round}"), format!("b reacts {round}")])
        .collect();
    assert_eq!(texts(&entries), wanted);
    assert!(entries.windows(2).all(|pair| pair[0].at <= pair[1].at));
}
