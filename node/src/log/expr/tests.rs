use super::*;
use crate::log::record::Stream;
use hilum_shared::name::Run;
use proptest::prelude::*;
use serde_json::json;

fn entry() -> Entry {
    Entry {
        seq: 7,
        at: 1_000_500_000,
        service: Some("web".into()),
        instance: Some("web.2".into()),
        run: Some(Run(3)),
        pid: Some(42),
        stream: Some(Stream::Out),
        level: Some(Level::Warning),
        ..Entry::default()
    }
}

const LINE: &str = r#"{"status": 500, "path": "/api/cart", "took": "12.5", "ok": true, "user": null, "http": {"method": "GET"}, "msg": "slow answer", "level": "odd", "dur": "150ms", "wait": "2m30.5s", "big": 9007199254740993, "tags": ["a", "b"], "ports": [8080]}"#;

fn asks(question: &str) -> bool {
    Expr::parse(question)
        .unwrap_or_else(|error| panic!("{error}"))
        .matches(&entry(), LINE.as_bytes())
}

#[test]
fn questions_are_answered() {
    for yes in [
        "status=500",
        "status==500 && path~\"^/api\"",
        "status>=500 && status<600",
        "status!=404",
        "took>12 && took<13",
        "seq>0 && at>1000 && at<1001",
        "dur>10ms && dur<0.2s && dur<=150ms && wait>2m",
        "big=9007199254740993 && big!=9007199254740992 && big>9007199254740992",
        "tags=b && tags!=c && tags~b && ports>8000",
        "http.method=GET",
        "http.method='GET'",
        "ok",
        "ok=true",
        "!nothing",
        "user=null && nothing=null",
        "nothing!=3 && nothing!~x",
        "level>=warn && level<error && level=warning",
        "level~^WARN",
        "instance=web.2 && service=web && stream=out && run=3 && pid=42",
        "message~slow && msg=\"slow answer\"",
        "line~'\"GET\"'",
        "fields.level=odd",
        "(status=404 || status=500) && !(level=debug)",
        "status=404 || status=500 && ok",
        "status=\"500\"",
        "path>/aaa",
        r#"line~"\d+""#,
        r#"path~"cart$""#,
    ] {
        assert!(asks(yes), "{yes}");
    }
    for no in [
        "status=404",
        "dur>1s",
        "tags=c",
        "ports<8000",
        "status>500",
        "nothing",
        "nothing=3",
        "nothing<3 || nothing>=3",
        "path=500",
        "path<5 || path>5",
        "level>=error",
        "ok=false",
        "!ok",
        "user",
        "status=404 && ok || !ok",
        "user!=null",
    ] {
        assert!(!asks(no), "{no}");
    }
}

#[test]
fn structured_records_and_logfmt_have_fields_too() {
    let mut record = entry();
    let fields = json!({"logger": "shop.cart", "amount": 3});
    record.fields = fields.as_object().cloned();
    let ask = |question: &str, text: &str| {
        Expr::parse(question).unwrap().matches(&record, text.as_bytes())
    };
    assert!(ask("logger=shop.cart && amount>2 && message=paid", "paid"));
    assert!(ask("status=200 && amount=3", "status=200 took=3"));
    record.level = None;
    assert!(Expr::parse("level=info").unwrap().matches(&record, b"x"), "as with --level");
}

#[test]
fn a_trace_is_found_however_it_is_spelled() {
    let trace = Expr::trace("4bf92f3577b34da6a3ce929d0e0e4736");
    let has = |text: &str| trace.matches(&entry(), text.as_bytes());
    for text in [
        r#"{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}"#,
        r#"{"a":1,"traceId": "4bf92f3577b34da6a3ce929d0e0e4736","b":2}"#,
        r#"{"trace":{"id":"4bf92f3577b34da6a3ce929d0e0e4736"}}"#,
        r#"{"trace.id":"4bf92f3577b34da6a3ce929d0e0e4736"}"#,
        "level=info trace_id=4bf92f3577b34da6a3ce929d0e0e4736",
        "traceID=4bf92f3577b34da6a3ce929d0e0e4736 x",
        r#"2026 [INFO] a: hello - trace_id="4bf92f3577b34da6a3ce929d0e0e4736""#,
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ] {
        assert!(has(text), "{text}");
    }
    assert!(!has("4bf92f3577b34da6a3ce929d0e0e4736"));
    assert!(!has("trace_id=4bf92f3577b34da6a3ce929d0e0e47361"));
    let mut record = entry();
    record.fields = json!({"trace_id": "a+b"}).as_object().cloned();
    assert!(Expr::trace("a+b").matches(&record, b"x"));
    assert!(!Expr::trace("aab").matches(&record, b"x"));
}

#[test]
fn what_is_wrong_is_shown_where_it_is() {
    let shown = |question: &str| Expr::parse(question).unwrap_err().to_string();
    let all: Vec<String> = [
        "",
        "level>=",
        "level>=loud",
        "status=500 & ok",
        "status=500 ok=true",
        "(status=500 && (ok)",
        "ok)",
        "path~\"(\"",
        "path=\"/api",
        "=500",
        "a=~x",
        "größe>3 &&",
    ]
    .iter()
    .map(|question| shown(question))
    .collect();
    insta::assert_snapshot!(all.join("\n---\n"));
}

#[test]
fn nesting_is_bounded() {
    assert!(Expr::parse(&"!".repeat(100_000)).is_err());
    assert!(Expr::parse(&"(".repeat(100_000)).is_err());
    assert!(Expr::parse(&format!("{}a{}", "(".repeat(30), ")".repeat(30))).is_ok());
}

/// A question as a tree, its text, and what it says of a record with `a`..`d` = 0 or 1.
#[derive(Clone, Debug)]
enum Tree {
    Leaf(usize, bool),
    Not(Box<Tree>),
    And(Box<Tree>, Box<Tree>),
    Or(Box<Tree>, Box<Tree>),
}

impl Tree {
    fn text(&self) -> String {
        match self {
            Self::Leaf(name, value) => {
                format!("{}={}", ["a", "b", "c", "d"][*name], u8::from(*value))
            }
            Self::Not(tree) => format!("!({})", tree.text()),
            Self::And(left, right) => format!("({}) && ({})", left.text(), right.text()),
            Self::Or(left, right) => format!("({}) || ({})", left.text(), right.text()),
        }
    }

    fn says(&self, values: [bool; 4]) -> bool {
        match self {
            Self::Leaf(name, value) => values[*name] == *value,
            Self::Not(tree) => !tree.says(values),
            Self::And(left, right) => left.says(values) && right.says(values),
            Self::Or(left, right) => left.says(values) || right.says(values),
        }
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = (0_usize..4, any::<bool>()).prop_map(|(name, value)| Tree::Leaf(name, value));
    leaf.prop_recursive(5, 24, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|tree| Tree::Not(Box::new(tree))),
            (inner.clone(), inner.clone())
                .prop_map(|(left, right)| Tree::And(Box::new(left), Box::new(right))),
            (inner.clone(), inner)
                .prop_map(|(left, right)| Tree::Or(Box::new(left), Box::new(right))),
        ]
    })
}

proptest! {
    #[test]
    fn a_question_means_what_it_says(tree in tree(), values: [bool; 4]) {
        let [a, b, c, d] = values.map(u8::from);
        let line = format!("a={a} b={b} c={c} d={d}");
        let question = Expr::parse(&tree.text()).unwrap();
        prop_assert_eq!(question.matches(&Entry::default(), line.as_bytes()), tree.says(values));
    }

    #[test]
    fn no_text_breaks_the_parser(text in "[a-z0-9 ()!&|=<>~\"'\\\\é\n]{0,40}") {
        if let Err(error) = Expr::parse(&text) {
            prop_assert!(error.at <= text.chars().count());
            let _ = error.to_string();
        }
    }
}

#[test]
fn values_that_no_record_can_have_are_refused() {
    for (question, at) in [("stream=bogus", 7), ("run=x", 4), ("level=info && pid=abc", 18)] {
        let error = Expr::parse(question).unwrap_err();
        assert_eq!(error.at, at, "{error}");
    }
    assert!(Expr::parse("fields.run=x && run!=null").is_ok());
}

#[test]
fn lengths_of_time_are_read_as_programs_write_them() {
    for (text, seconds) in [("150µs", 150e-6), ("1h2m", 3720.0), ("1.5s", 1.5), ("0.25ms", 25e-5)]
    {
        assert!(duration(text).is_some_and(|own| (own - seconds).abs() < 1e-12), "{text}");
    }
    for text in ["", "5", "ms", "5 ms", "1.2.3s", "5x", "12:00"] {
        assert_eq!(duration(text), None, "{text}");
    }
}
