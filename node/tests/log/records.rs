//! What comes by no pipe, and what is said to others.

use super::*;

#[test]
fn structured_records_keep_their_fields_and_a_hole_is_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    let record = |seq, level: &str, message: &str| LogRecord {
        instance: id("a.1"),
        seq: Some(seq),
        at: 0.0,
        level: level.to_owned(),
        logger: "shop.cart".to_owned(),
        message: message.to_owned(),
        fields: [("items".to_owned(), serde_json::json!(3))].into(),
        trace_id: Some("t1".to_owned()),
    };
    log.handle
        .structured(
            id("a.1"),
            Run(1),
            7,
            vec![record(1, "warn", "one\ntwo"), record(4, "loud", "four")],
        )
        .unwrap();
    log.flush();
    let entries = all(dir.path());
    assert_eq!(
        texts(&entries),
        ["one\ntwo", "… 2 lines dropped (records that did not arrive)", "four"]
    );
    assert_eq!(entries[0].level, Some(Level::Warning));
    assert_eq!(entries[2].level, Some(Level::Info));
    let fields = entries[0].fields.as_ref().unwrap();
    assert_eq!(fields["logger"], "shop.cart");
    assert_eq!((&fields["trace_id"], &fields["items"]), (&"t1".into(), &3.into()));
    let grave =
        Filter { level: Some(Level::Warning), streams: vec![Stream::Log], ..Filter::default() };
    let shown = read(dir.path(), grave, Start::All);
    assert_eq!(shown.len(), 2, "the gap is shown, the INFO is not: {shown:?}");
    log.stop();
}

#[test]
fn records_that_are_refused_say_why_and_are_no_hole() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    let record = |seq| LogRecord {
        instance: id("a.1"),
        seq: Some(seq),
        at: 0.0,
        level: "info".to_owned(),
        logger: String::new(),
        message: format!("record {seq}"),
        fields: [].into(),
        trace_id: None,
    };
    let send = |run, seqs: &[u64], refused: &[(&str, u64)]| {
        let records = seqs.iter().map(|seq| record(*seq)).collect();
        let refused = refused.iter().map(|(why, count)| ((*why).to_owned(), *count)).collect();
        log.handle.received(id("a.1"), Run(run), 7, records, refused).unwrap();
    };
    send(1, &[1, 4], &[("too large", 2)]);
    send(1, &[6], &[]); // 5 is missing
    send(1, &[], &[("nonsense", 1)]);
    send(1, &[9], &[]); // 7 was refused, 8 is missing
    send(2, &[1], &[("the first of its life", 0)]);
    for number in 0..1000 {
        send(2, &[], &[(&format!("reason {number}"), 1)]);
    }
    let gaps = || -> Vec<String> {
        let entries = all(dir.path()).into_iter().filter(|entry| entry.dropped.is_some());
        entries.map(|entry| String::from_utf8(entry.text).unwrap()).collect()
    };
    wait_until("what was refused", || gaps().iter().any(|gap| gap.contains("(refused)")));
    let handle = log.handle.clone();
    log.stop();
    let said = gaps();
    let count = |text: &str| said.iter().filter(|gap| *gap == text).count();
    assert_eq!(count("… 2 lines dropped (refused: too large)"), 1, "{said:?}");
    assert_eq!(count("… 1 line dropped (refused: nonsense)"), 1, "{said:?}");
    assert_eq!(count("… 1 line dropped (records that did not arrive)"), 2, "{said:?}");
    assert!(said.len() < 50, "many reasons are told as one: {said:?}");
    let (account, of) = (handle.account(), |why| handle.account().of("a.1").unwrap().of(why));
    assert_eq!((of(Why::Refused), of(Why::Undelivered)), (1003, 2));
    let told: u64 = all(dir.path()).iter().filter_map(|entry| entry.dropped).sum();
    assert_eq!(told, account.total().dropped());
}

#[test]
fn a_thousand_events_at_once_come_in_order_with_their_fields() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    for number in 1..=1000 {
        let fields = format!(r#"{{"event":"started","number":{number}}}"#);
        log.handle.node(NodeRecord {
            instance: Some(id(&format!("a.{number}"))),
            run: Some(Run(1)),
            pid: Some(number),
            level: Some(Level::Info),
            text: "started".into(),
            fields,
            ..NodeRecord::default()
        });
    }
    log.handle.node(NodeRecord { text: "node ready".into(), ..NodeRecord::default() });
    log.flush();
    let events = read(
        dir.path(),
        Filter { streams: vec![Stream::Node], ..Filter::default() },
        Start::Tail(1001),
    );
    assert_eq!(events.len(), 1001);
    for (number, event) in (1..=1000).zip(&events) {
        assert_eq!(event.event().unwrap()["number"], number);
    }
    assert_eq!((&*events[1000].name, events[1000].instance.as_ref()), ("*", None));
    log.stop();
}

#[test]
fn the_next_life_goes_on_in_number_and_files() {
    let dir = tempfile::tempdir().unwrap();
    for life in 0..3 {
        let log = Log::start(dir.path(), spec());
        let (mut out, err) = log.attach("a.1", 1, policy());
        writeln!(out, "life {life}").unwrap();
        drop((out, err));
        log.ended("a.1", 1).recv_timeout(LONG).unwrap();
        log.stop();
    }
    let entries = all(dir.path());
    assert_eq!(texts(&entries), ["life 0", "life 1", "life 2"]);
    assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(!dir.path().join("000002.log").exists());
}

#[test]
fn a_crash_is_noted_with_its_last_lines() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    for run in 1..=2 {
        let (mut out, err) = log.attach("a.1", run, policy());
        for number in 0..300 {
            writeln!(out, "run {run} line {number}").unwrap();
        }
        let facts = serde_json::json!({"instance": "a.1", "run": run, "pid": 100 + run, "code": 3});
        log.handle.crash(id("a.1"), Run(run), facts.to_string());
        drop((out, err));
        log.ended("a.1", run).recv_timeout(LONG).unwrap();
    }
    // On its way when the run ended.
    let late = LogRecord {
        instance: id("a.1"),
        seq: None,
        at: 0.0,
        level: "error".into(),
        logger: String::new(),
        message: "last words".into(),
        fields: [].into(),
        trace_id: None,
    };
    log.handle.structured(id("a.1"), Run(1), 101, vec![late]).unwrap();
    log.stop();
    let known = crashes::list(dir.path()).unwrap();
    assert_eq!(known.iter().map(|crash| crash.id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(known[0].facts["code"], 3);
    let lines = texts(&crashes::last_lines(dir.path(), &known[0]).unwrap());
    assert_eq!(lines.len(), 200);
    assert_eq!((lines[0].as_str(), lines[198].as_str()), ("run 1 line 101", "run 1 line 299"));
    assert_eq!(lines[199], "last words");
}

#[test]
fn a_file_besides_the_store_has_the_same_lines() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    let (mut out, _err) =
        log.attach("a.1", 1, LogPolicy { file: Some("own.txt".into()), ..policy() });
    let (mut other, _err2) = log.attach("b.1", 1, policy());
    writeln!(out, "mine").unwrap();
    writeln!(other, "not mine").unwrap();
    log.flush();
    std::fs::rename(dir.path().join("own.txt"), dir.path().join("own.1")).unwrap();
    log.handle.reopen();
    writeln!(out, "again").unwrap();
    log.flush();
    let first = std::fs::read_to_string(dir.path().join("own.1")).unwrap();
    let second = std::fs::read_to_string(dir.path().join("own.txt")).unwrap();
    assert!(first.ends_with(" a.1 out | mine\n") && first.lines().count() == 1, "{first}");
    assert!(second.ends_with(" a.1 out | again\n") && second.lines().count() == 1, "{second}");
    log.stop();
}

#[test]
fn a_log_file_that_is_renamed_or_removed_is_made_anew_and_misses_no_line() {
    const LINES: usize = 3000;
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(&dir.path().join("store"), spec());
    let file = dir.path().join("own.txt");
    let (mut out, _err) = log.attach("a.1", 1, LogPolicy { file: Some(file.clone()), ..policy() });
    let texts_of = |path: &Path| -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| line.split_once(" | ").unwrap().1.to_owned()).collect()
    };
    writeln!(out, "first").unwrap();
    log.flush();
    // As logrotate does it without `copytruncate`, and nobody sends SIGUSR1.
    std::fs::rename(&file, dir.path().join("own.txt.1")).unwrap();
    writeln!(out, "second").unwrap();
    log.flush();
    assert_eq!(texts_of(&dir.path().join("own.txt.1")), ["first"]);
    assert_eq!(texts_of(&file), ["second"]);
    std::fs::remove_file(&file).unwrap();
    writeln!(out, "third").unwrap();
    log.flush();
    assert_eq!(texts_of(&file), ["third"]);
    // While lines are written; what is removed was read before.
    let writer = std::thread::spawn(move || {
        for number in 0..LINES {
            writeln!(out, "{number}").unwrap();
        }
        out
    });
    let mut rotated = vec![file.clone()];
    while !writer.is_finished() {
        let old = dir.path().join(format!("own.txt.{}", rotated.len() + 1));
        if std::fs::rename(&file, &old).is_ok() {
            rotated.insert(1, old);
        }
    }
    let _out = writer.join().unwrap();
    log.flush();
    let mut seen: Vec<String> = rotated.iter().rev().flat_map(|path| texts_of(path)).collect();
    assert_eq!(seen.remove(0), "third");
    let wanted: Vec<String> = (0..LINES).map(|number| number.to_string()).collect();
    assert_eq!(seen, wanted, "in {} files", rotated.len());
    assert_eq!(log.handle.account().total().each().count(), 0);
    log.stop();
}

/// Counts what it sees.
struct Listener(mpsc::Sender<(String, Stream, Option<Level>, Vec<u8>)>);

impl hilum_node::log::Subscriber for Listener {
    fn wanted(&self) -> bool {
        true
    }

    fn record(&mut self, record: &hilum_node::log::handle::Finished<'_>) {
        let _ = self.0.send((
            record.name.to_owned(),
            record.stream,
            record.level,
            record.text.to_vec(),
        ));
    }
}

#[test]
fn a_subscriber_sees_every_record() {
    let dir = tempfile::tempdir().unwrap();
    let (tell, told) = mpsc::channel();
    let started = hilum_node::log::start(LogConfig {
        dir: dir.path().to_owned(),
        base: dir.path().to_owned(),
        spec: spec(),
        subscriber: Some(Box::new(Listener(tell))),
        untold: Vec::new(),
    })
    .unwrap();
    let log = Log { handle: started.handle, reports: started.reports, thread: started.thread };
    let (mut out, err) = log.attach("a.1", 1, policy());
    out.write_all(b"hello\nrest").unwrap();
    drop((out, err));
    log.ended("a.1", 1).recv_timeout(LONG).unwrap();
    log.handle.node(NodeRecord {
        instance: Some(id("a.1")),
        level: Some(Level::Error),
        text: "failed".into(),
        ..NodeRecord::default()
    });
    log.stop();
    let seen: Vec<_> = told.iter().collect();
    let of =
        |stream, level, text: &str| ("a.1".to_owned(), stream, level, text.as_bytes().to_vec());
    assert_eq!(
        seen,
        [
            of(Stream::Out, None, "hello"),
            of(Stream::Out, None, "rest"),
            of(Stream::Node, Some(Level::Error), "failed"),
        ]
    );
}

#[test]
fn a_log_file_has_a_structured_record_as_it_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("web.log");
    let log = Log::start(&dir.path().join("store"), spec());
    let (_out, _err) = log.attach("a.1", 1, LogPolicy { file: Some(file.clone()), ..policy() });
    let record = LogRecord {
        instance: id("a.1"),
        seq: None,
        at: 0.0,
        level: "WARNING".into(),
        logger: "shop".into(),
        message: "cannot pay\nat all".into(),
        trace_id: Some("4bf9".into()),
        fields: [("status".into(), 500.into()), ("path".into(), "/a b".into())].into(),
    };
    log.handle.structured(id("a.1"), Run(1), 101, vec![record]).unwrap();
    log.flush();
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().map(|line| line.split_once(" | ").unwrap().1).collect();
    assert_eq!(
        lines,
        ["WARNING shop: cannot pay", "WARNING shop: at all path=\"/a b\" status=500 trace_id=4bf9"]
    );
    log.stop();
}

/// `a.1` and `b.1` write `one` and `two` each, with two lines lost in between; then the one says `three`.
fn with_gaps(dir: &Path) {
    let log = Log::start(dir, spec());
    let say = |name: &str, seq, message: &str| {
        let record = LogRecord {
            instance: id(name),
            seq: Some(seq),
            at: 0.0,
            level: "info".to_owned(),
            logger: "x".to_owned(),
            message: message.to_owned(),
            fields: BTreeMap::new(),
            trace_id: None,
        };
        log.handle.structured(id(name), Run(1), 7, vec![record]).unwrap();
    };
    say("a.1", 1, "one");
    say("b.1", 1, "one");
    say("a.1", 4, "two");
    say("b.1", 4, "two");
    say("a.1", 5, "three");
    log.flush();
    log.stop();
}

/// Whose, and what: `…` for a gap.
fn short(entries: &[Entry]) -> Vec<String> {
    let text = |entry: &Entry| match entry.dropped {
        Some(_) => "…".to_owned(),
        None => String::from_utf8_lossy(&entry.text).into_owned(),
    };
    entries.iter().map(|entry| format!("{} {}", entry.name, text(entry))).collect()
}

#[test]
fn gaps_are_shown_where_they_fall_and_do_not_count_among_the_last_records() {
    let dir = tempfile::tempdir().unwrap();
    with_gaps(dir.path());
    let last = |count, filter| short(&read(dir.path(), filter, Start::Tail(count)));
    let all = ["a.1 one", "b.1 one", "a.1 …", "a.1 two", "b.1 …", "b.1 two", "a.1 three"];
    for count in 1..=5 {
        let records = all.iter().enumerate().filter(|(_, record)| !record.ends_with('…'));
        let (from, _) = records.rev().nth(count - 1).unwrap();
        assert_eq!(last(count as u64, Filter::default()), all[from..], "the last {count}");
    }
    let of_a = Filter { instance: Some("a.1".into()), ..Filter::default() };
    assert_eq!(last(2, of_a.clone()), ["a.1 two", "a.1 three"]);
    assert_eq!(last(3, of_a), ["a.1 one", "a.1 …", "a.1 two", "a.1 three"]);
    let one = Filter { grep: regex::bytes::Regex::new("one").ok(), ..Filter::default() };
    assert_eq!(last(2, one), ["a.1 one", "b.1 one", "a.1 …", "b.1 …"]);
    let three = Filter { grep: regex::bytes::Regex::new("three").ok(), ..Filter::default() };
    assert_eq!(last(1, three), ["a.1 three"]);
}

#[test]
fn a_question_is_answered_with_the_gaps_of_those_that_may_have_been_meant() {
    let dir = tempfile::tempdir().unwrap();
    with_gaps(dir.path());
    let asked = |question: &str| {
        let expr = Expr::parse(question).unwrap();
        let filter = Filter { expr: Some(Arc::new(expr)), ..Filter::default() };
        short(&read(dir.path(), filter, Start::All))
    };
    assert_eq!(asked("instance=b.1 && line~one"), ["b.1 one", "b.1 …"]);
    assert_eq!(asked("!(instance=a.1) && message=two"), ["b.1 …", "b.1 two"]);
    assert_eq!(
        asked("service=b || line=three"),
        ["b.1 one", "a.1 …", "b.1 …", "b.1 two", "a.1 three"]
    );
    assert_eq!(asked("run=2 && line~one"), [""; 0]);
    assert_eq!(asked("line~one"), ["a.1 one", "b.1 one", "a.1 …", "b.1 …"]);
}
