//! Any value survives every form that it takes; no bytes bring the decoder down.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use hilum_shared::wire::types::{Date, DateTime, Decimal, Set, Time, Undefined, Uuid};
use hilum_shared::wire::{Value, from_value, pack, to_value, unpack};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(f64),
    Line(i32, i32),
    Named { name: String },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    shapes: Vec<Shape>,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    small: Vec<u8>,
    maybe: Option<String>,
    nothing: Option<u8>,
    set: Set<String>,
    decimal: Decimal,
    moment: DateTime,
    day: Date,
    time: Time,
    uuid: Uuid,
    plain: uuid::Uuid,
    undefined: Undefined,
    numbers: BTreeMap<i32, f32>,
    address: std::net::IpAddr,
    unit: (),
    large: u64,
}

#[test]
fn a_sequence_is_an_array_whatever_it_holds() {
    assert_eq!(pack(&Vec::<u8>::new()).unwrap(), b"\x90");
    assert_eq!(pack(&vec![1_u8, 200]).unwrap(), b"\x92\x01\xcc\xc8");
    assert_eq!(pack(&vec![vec![1_u8], vec![]]).unwrap(), b"\x92\x91\x01\x90");
    assert_eq!(pack(&[7_u8; 2]).unwrap(), b"\x92\x07\x07");
    assert_eq!(pack(&(1_u8, 2_u8)).unwrap(), b"\x92\x01\x02");
    assert_eq!(pack(&serde_bytes::Bytes::new(&[1, 200])).unwrap(), b"\xc4\x02\x01\xc8");
    assert_eq!(pack(&serde_bytes::Bytes::new(&[])).unwrap(), b"\xc4\x00");
    // Both are read as either.
    for packed in [&b"\x92\x01\x02"[..], b"\xc4\x02\x01\x02"] {
        assert_eq!(unpack::<Vec<u8>>(packed, "body").unwrap(), [1, 2]);
        assert_eq!(unpack::<serde_bytes::ByteBuf>(packed, "body").unwrap(), [1, 2]);
    }
}

#[test]
fn a_whole_number_beyond_64_bits_is_refused_and_none_changes() {
    for number in [0, 7, -1, i128::from(i64::MIN), i128::from(u64::MAX)] {
        let packed = pack(&number).unwrap();
        assert_eq!(unpack::<i128>(&packed, "body").unwrap(), number);
    }
    assert_eq!(to_value(&5_u128).unwrap(), Value::Int(5));
    for wrong in [pack(&(i128::from(u64::MAX) + 1)), pack(&i128::MIN), pack(&u128::MAX)] {
        let wrong = wrong.unwrap_err().to_string();
        assert!(wrong.contains("beyond 64 bits") && wrong.contains("Decimal"), "{wrong}");
    }
}

#[test]
fn maps_and_lists_whose_length_nobody_knows_are_written_whole() {
    #[derive(Serialize)]
    struct Flat {
        a: i32,
        #[serde(flatten)]
        more: BTreeMap<String, i32>,
    }
    let flat = Flat { a: 1, more: (0..20).map(|n| (format!("k{n}"), n)).collect() };
    let value = to_value(&[&flat, &flat]).unwrap();
    let Value::List(both) = &value else { panic!("{value:?}") };
    assert_eq!(both[0], both[1]);
    assert_eq!(
        (both[1].get("a"), both[1].get("k19")),
        (Some(&Value::Int(1)), Some(&Value::Int(19)))
    );
}

#[test]
fn a_special_value_is_no_text() {
    let day = to_value(&Date::from(jiff::civil::date(2015, 3, 14))).unwrap();
    let wrong = from_value::<String>(&day).unwrap_err().to_string();
    assert!(wrong.contains("a `date` where a text is meant"), "{wrong}");
    assert!(from_value::<Box<str>>(&day).is_err());
    assert_eq!(from_value::<jiff::civil::Date>(&day).unwrap(), jiff::civil::date(2015, 3, 14));
    assert_eq!(from_value::<Date>(&day).unwrap().to_string(), "2015-03-14");
}

#[test]
fn a_users_types_travel_as_they_are() {
    let everything = Everything {
        shapes: vec![
            Shape::Point,
            Shape::Circle(1.5),
            Shape::Line(1, -2),
            Shape::Named { name: "n".into() },
        ],
        bytes: vec![0, 255],
        small: vec![0, 255],
        maybe: Some("x".into()),
        nothing: None,
        set: ["a".to_owned()].into(),
        decimal: "1.50".parse().unwrap(),
        moment: "2015-03-14T09:26:53.5+05:30".parse().unwrap(),
        day: jiff::civil::date(2015, 3, 14).into(),
        time: jiff::civil::time(9, 26, 53, 0).into(),
        uuid: uuid::Uuid::nil().into(),
        plain: uuid::Uuid::max(),
        undefined: Undefined,
        numbers: [(-7, 1.25)].into(),
        address: "::1".parse().unwrap(),
        unit: (),
        large: u64::MAX,
    };
    let bytes = pack(&everything).unwrap();
    assert_eq!(unpack::<Everything>(&bytes, "body").unwrap(), everything);
    let value = to_value(&everything).unwrap();
    assert_eq!(from_value::<Everything>(&value).unwrap(), everything);
    assert_eq!(value.get("bytes"), Some(&Value::Bytes(vec![0, 255])));
    assert_eq!(value.get("small"), Some(&Value::List(vec![Value::Int(0), Value::Int(255)])));
    assert_eq!(value.get("moment").unwrap().to_string(), "datetime(2015-03-14T09:26:53.5+0530)");
    assert!(matches!(value.get("set"), Some(Value::Set(members)) if members.len() == 1));
    assert_eq!(value.get("plain").and_then(Value::as_str).map(str::len), Some(36));
    let json = serde_json::to_value(&everything).unwrap();
    assert_eq!(json["decimal"], serde_json::json!({"__type__": "Decimal", "_": "1.50"}));
    assert_eq!(serde_json::from_value::<Everything>(json).unwrap(), everything);
}

#[test]
fn embedded_values_stand_in_their_place() {
    // Extension 101 with {"k": [1]}, as a member and as a struct.
    let bytes = b"\x81\xa1a\xc7\x05\x65\x81\xa1k\x91\x01";
    let value: Value = unpack(bytes, "body").unwrap();
    assert_eq!(value.to_string(), r#"{"a": {"k": [1]}}"#);
    let typed: BTreeMap<String, BTreeMap<String, Vec<u8>>> = unpack(bytes, "body").unwrap();
    assert_eq!(typed["a"]["k"], [1]);
    assert!(unpack::<Value>(b"\xd5\x65\x01\x01", "body").is_err(), "two values in one");
    let mut deep = vec![0xc0];
    for _ in 0..100 {
        let length = deep.len() as u16;
        deep = [&[0xc8][..], &length.to_be_bytes(), &[101], &deep].concat();
    }
    assert!(unpack::<Value>(&deep, "body").is_err(), "nested too deep");
}

#[test]
fn what_kills_a_real_receiver_is_a_value_here() {
    let value: Value = unpack(b"\x82\xa8__type__\xa7Unknown\xa1_\xa1x", "body").unwrap();
    assert_eq!(value.get("__type__").and_then(Value::as_str), Some("Unknown"));
    let value: Value = unpack(b"\x82\xa8__type__\xa7Decimal\xa1_\xa1x", "body").unwrap();
    assert!(matches!(value, Value::Map(_)), "a content that does not fit");
    assert_eq!(Value::from_json(&value.to_json()).unwrap(), value);
    let value: Value = unpack(b"\xa2\xff\xfe", "body").unwrap();
    assert_eq!(value, Value::Bytes(vec![0xff, 0xfe]));
    assert!(unpack::<String>(b"\xa2\xff\xfe", "body").is_err());
    assert!(unpack::<Shape>(b"\x92\x01\x02", "body").is_err());
    let array = unpack::<Everything>(b"\x90", "body").unwrap_err();
    assert!(array.to_string().contains("an array where the map"), "{array}");
}

#[test]
fn what_does_not_fit_is_named_with_its_place() {
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "never made")]
    struct Arguments {
        count: Option<i32>,
        items: Vec<BTreeMap<String, Uuid>>,
    }
    let said = |json: &str| {
        let body = pack(&Value::parse_json(json).unwrap()).unwrap();
        unpack::<Arguments>(&body, "body").unwrap_err().to_string()
    };
    let count = said(r#"{"count": [1], "items": []}"#);
    assert!(count.starts_with("frame `body`: `count`: invalid type: sequence"), "{count}");
    let deep = said(r#"{"items": [{}, {"id": {"__type__": "Decimal", "_": "1"}}]}"#);
    assert!(deep.starts_with("frame `body`: `items[1].id"), "{deep}");
    assert_eq!(said("{}"), "frame `body`: missing field `items`");
}

#[test]
fn json_that_could_not_be_sent_as_it_is_written_is_refused_with_its_place() {
    for (json, place, why) in [
        (r#"{"a": [1, {"__type__": "sett", "_": [1]}]}"#, "a[1]: ", "`set`, `datetime`, `date`"),
        (r#"{"__type__": "datetime", "_": "nonsense"}"#, "", "`\"nonsense\"` is no `datetime`"),
        (
            r#"{"x": {"__type__": "set", "_": [{"__type__": "date", "_": 7}]}}"#,
            "x[0]: ",
            "`7` is no `date`",
        ),
        (r#"{"x": {"__type__": "time", "_": "09:26:53.5Z"}}"#, "x: ", "no parts of a second"),
        (
            r#"{"x": {"__type__": "datetime", "_": "2015-03-14T09:26:53+05:30:15"}}"#,
            "x: ",
            "whole minutes",
        ),
        (r#"{"x": {"__type__": "UndefinedType", "_": "x"}}"#, "x: ", "write `\"\"`"),
        (r#"{"x": {"y": {"__type__": "UUID"}}}"#, "x.y: ", "and nothing else"),
        (r#"{"x": {"__type__": "UUID", "_": "", "z": 1}}"#, "x: ", "and nothing else"),
        (r#"{"x": {"__type__": "bytes", "_": "+1"}}"#, "x: ", "hexadecimal"),
        (r#"{"x": {"__type__": "map", "_": [[1, 2], [3]]}}"#, "x: ", "[[KEY, VALUE], …]"),
        (
            "{\"x\": \"99\\\"99999999999999999999\",\n \"y\": [-99999999999999999999]}",
            "line 2 column 8",
            "`Decimal",
        ),
        (r#"{"x": 18446744073709551616}"#, "line 1 column 7", "beyond 64 bits"),
        (r#"{"x": {"y": 1, "y": 2}}"#, "line 1 column 18", "the key `y` stands twice"),
        (
            r#"{"x": [{"__type__": "map", "_": [["y", 1], ["z", 0], ["y", 2]]}]}"#,
            "x[0]: ",
            "the key `y` stands twice",
        ),
        (
            r#"{"x": {"__type__": "map", "_": [[1, {"__type__": "map", "_": [[7, 1], [7, 2]]}]]}}"#,
            "x.1: ",
            "the key `7` stands twice",
        ),
        ("{x: 1}", "line 1 column 2", "not JSON"),
    ] {
        let error = Value::parse_json(json).unwrap_err().to_string();
        assert!(
            error.contains(place) && error.contains(why.trim_start_matches("`Decimal")),
            "{json}: {error}"
        );
    }
    let exact = r#"{"a": 18446744073709551615, "b": -9223372036854775808, "c": 1e20, "d": "99999999999999999999", "e": {"__type__": "UndefinedType", "_": ""}}"#;
    let value = Value::parse_json(exact).unwrap();
    assert_eq!(value.get("a"), Some(&Value::UInt(u64::MAX)));
    assert_eq!(value.get("b"), Some(&Value::Int(i64::MIN)));
    assert_eq!(value.get("c"), Some(&Value::Float(1e20)));
    assert_eq!(value.get("e"), Some(&Value::Undefined));
    // A number and a text of it are two keys.
    Value::parse_json(r#"{"__type__": "map", "_": [[1, 0], ["1", 0], [1.0, 0]]}"#).unwrap();
}

/// Seen with Python: a container of lymph never answers again after any of the first ten.
#[test]
fn what_would_end_a_container_of_lymph_or_nobody_reads_is_refused_with_its_place() {
    let nested = |levels: usize| format!("{{\"v\": {}{}}}", "[".repeat(levels), "]".repeat(levels));
    let in_a_map = |levels: usize| {
        let list = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"v": {{"__type__": "map", "_": [["a", {list}]]}}}}"#)
    };
    for (json, place, why) in [
        (
            r#"{"v": {"__type__": "map", "_": [["__type__", "nope"], ["_", 1]]}}"#,
            "v: ",
            "`__type__`",
        ),
        (
            r#"{"v": {"__type__": "map", "_": [["__type__", "Decimal"], ["_", "zz"]]}}"#,
            "v: ",
            "`__type__`",
        ),
        (
            r#"{"v": [{"__type__": "map", "_": [["a", {"__type__": "map", "_": [["__type__", 1]]}]]}]}"#,
            "v[0].a: ",
            "`__type__`",
        ),
        (
            r#"{"v": {"__type__": "map", "_": [[{"__type__": "bytes", "_": "5f5f747970655f5f"}, 1]]}}"#,
            "v: ",
            "`__type__`",
        ),
        (
            r#"{"v": {"__type__": "ext", "_": [101, "81a85f5f747970655f5fa16e"]}}"#,
            "v: ",
            "`__type__`",
        ),
        (
            r#"{"v": {"__type__": "set", "_": [1, [2]]}}"#,
            "v[1]: ",
            "a list cannot be a member of a set",
        ),
        (
            r#"{"v": {"__type__": "set", "_": [{"__type__": "ext", "_": [101, "9101"]}]}}"#,
            "v[0]: ",
            "a list cannot",
        ),
        (r#"{"v": {"__type__": "map", "_": [[[1], 2]]}}"#, "v[1]: ", "a list cannot be a key"),
        (
            r#"{"v": {"__type__": "set", "_": [{"__type__": "Decimal", "_": "sNaN"}]}}"#,
            "v[0]: ",
            "no hash",
        ),
        (r#"{"v": {"__type__": "Decimal", "_": "1E+1000000000000000000"}}"#, "v: ", "17 digits"),
        (r#"{"v": {"__type__": "ext", "_": [101, "c1"]}}"#, "v: ", "no MessagePack marker"),
        (r#"{"v": {"__type__": "ext", "_": [101, "0101"]}}"#, "v: ", "follow the value"),
        (r#"{"v": {"__type__": "date", "_": "-000001-01-01"}}"#, "v: ", "year -1"),
        (&nested(64), "v[0][0]", "deeper than 64 levels"),
        (&in_a_map(63), "v.a[0]", "deeper than 64 levels"),
        (
            &nested(63).replace("[]", r#"[{"__type__": "date", "_": "2015-03-14"}]"#),
            "v[0][0]",
            "deeper than 64 levels",
        ),
    ] {
        let error = Value::parse_json(json).unwrap_err().to_string();
        assert!(error.contains(place) && error.contains(why), "{json}: {error}");
    }
    for json in [&nested(63), &in_a_map(62)] {
        let value = Value::parse_json(json).unwrap();
        assert_eq!(unpack::<Value>(&pack(&value).unwrap(), "body").unwrap(), value);
    }
    let many = format!("[{}0]", "0,".repeat(1_000_000));
    let error = Value::parse_json(&many).unwrap_err().to_string();
    assert!(error.contains("more than 1000000 values"), "{error}");
}

#[test]
fn what_is_packed_is_read_up_to_every_bound() {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    enum Way {
        One(Box<Way>),
        Two(Box<Way>, ()),
        Named { way: Option<Box<Way>> },
    }
    fn read<T>(value: &T) -> Result<(), String>
    where
        T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let packed = pack(value).map_err(|error| error.to_string())?;
        assert_eq!(&unpack::<T>(&packed, "value").unwrap(), value);
        Ok(())
    }
    let deep = "it is nested deeper than 64 levels";
    let leaf = || Way::Named { way: None }; // two levels
    let one = |levels| (2..levels).fold(leaf(), |way, _| Way::One(Box::new(way)));
    let two = |levels| (1..levels / 2).fold(leaf(), |way, _| Way::Two(Box::new(way), ()));
    let named =
        |levels| (1..levels / 2).fold(leaf(), |way, _| Way::Named { way: Some(Box::new(way)) });
    for way in [one(64), two(64), named(64)] {
        read(&way).unwrap();
    }
    for way in [one(65), two(66), named(66)] {
        let error = read(&way).unwrap_err();
        assert!(error.contains(deep), "{error}");
    }
    let many = "it holds more than 1000000 values";
    read(&vec![0_u8; 999_999]).unwrap();
    assert!(read(&vec![0_u8; 1_000_000]).unwrap_err().contains(many));
    let map = |entries| (0..entries).map(|key| (key, 0_u8)).collect::<BTreeMap<u32, u8>>();
    read(&map(499_999)).unwrap();
    assert!(read(&map(500_000)).unwrap_err().contains(many));
    let rows = |count| vec![vec![(); 999]; count];
    read(&rows(999)).unwrap();
    assert!(read(&rows(1000)).unwrap_err().contains(many));
    struct Unknown(usize);
    impl serde::Serialize for Unknown {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq((0..self.0).filter(|_| true)) // nobody can say how many
        }
    }
    pack(&Unknown(999_999)).unwrap();
    assert!(pack(&Unknown(1_000_000)).unwrap_err().to_string().contains(many));
}

#[test]
fn a_special_value_that_we_would_write_otherwise_stays_as_it_came() {
    let value: Value = unpack(b"\x82\xa8__type__\xa4time\xa1_\xab09:26:53.5Z", "body").unwrap();
    assert!(matches!(value, Value::Map(_)), "{value:?}");
    assert_eq!(Value::from_json(&value.to_json()).unwrap(), value);
    let typed: Time = from_value(&value).unwrap();
    assert_eq!(typed.0.subsec_nanosecond(), 500_000_000);
}

#[test]
fn a_long_value_is_broken_over_lines() {
    let long = Value::map([(
        "texts",
        Value::List(vec!["x".repeat(50).as_str().into(), "y".repeat(50).as_str().into()]),
    )]);
    let text = format!("{long:#}");
    assert_eq!(text.lines().count(), 6, "{text}");
    assert!(text.starts_with("{\n  \"texts\": [\n    \"xxx"), "{text}");
    assert_eq!(
        format!("{:#}", Value::map([("a", 1_i64)].map(|(k, v)| (k, Value::from(v))))),
        r#"{"a": 1}"#
    );
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e300..1e300_f64).prop_map(Value::from),
        Just(Value::Float(f64::INFINITY)),
        ".{0,12}".prop_map(Value::from),
        "__type__|_|set|UUID".prop_map(Value::from),
        proptest::collection::vec(any::<u8>(), 0..12).prop_map(Value::Bytes),
        "-?[0-9]{1,30}(\\.[0-9]{1,9})?(E[+-]?[0-9]{1,3})?"
            .prop_map(|text| Value::Decimal(text.parse().unwrap())),
        any::<u128>().prop_map(|bits| Uuid(uuid::Uuid::from_u128(bits)).into()),
        (1_i16..9999, 1_i8..13, 1_i8..28, 0_i8..24, -14_i8..15, any::<bool>(), 0..1_000_000_000)
            .prop_map(|(year, month, day, hour, offset, naive, nanosecond)| {
                let civil = jiff::civil::datetime(year, month, day, hour, 59, 1, nanosecond);
                let offset = (!naive).then(|| jiff::tz::Offset::constant(offset));
                Value::DateTime(DateTime { civil, offset })
            }),
        (0_i8..24, 0_i8..60).prop_map(|(h, m)| Time(jiff::civil::time(h, m, 7, 0)).into()),
        Just(Date(jiff::civil::date(1, 2, 3)).into()),
        Just(Value::Undefined),
        (
            any::<i8>().prop_filter("101 is taken apart", |kind| *kind != 101),
            proptest::collection::vec(any::<u8>(), 0..9)
        )
            .prop_map(|(kind, bytes)| Value::Ext(kind, bytes)),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let list = proptest::collection::vec(inner.clone(), 0..5);
        prop_oneof![
            list.clone().prop_map(Value::List),
            list.prop_map(Value::Set),
            proptest::collection::vec((inner.clone(), inner), 0..5)
                // Such a map *is* the special value.
                .prop_filter("no special value", |entries| !entries
                    .iter()
                    .any(|(key, _)| key.as_str() == Some("__type__")))
                .prop_map(Value::Map),
        ]
    })
}

proptest! {
    /// What others write of the same value.
    #[test]
    fn numbers_and_texts_are_as_short_as_can_be(
        numbers in proptest::collection::vec(any::<i64>().prop_flat_map(|n| (0..64_u32).prop_map(move |by| n >> by)), 0..40),
        unsigned in any::<u64>(),
        text in ".{0,300}",
        map in proptest::collection::btree_map(".{0,40}", any::<(bool, f32, f64, Option<char>)>(), 0..20),
    ) {
        let value = (numbers, unsigned, text, map);
        prop_assert_eq!(pack(&value).unwrap(), rmp_serde::to_vec_named(&value).unwrap());
    }

    #[test]
    fn any_value_survives_messagepack(value in any_value()) {
        let bytes = pack(&value).unwrap();
        prop_assert_eq!(unpack::<Value>(&bytes, "value").unwrap(), value);
    }

    #[test]
    fn any_value_survives_json(value in any_value()) {
        let text = value.to_json().to_string();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&Value::from_json(&json).unwrap(), &value);
        // What somebody writes is refused where not everybody could read it.
        match (Value::parse_json(&text), value.clone().sendable()) {
            (Ok(parsed), Ok(_)) => prop_assert_eq!(parsed, value),
            (Err(error), Err(same)) => prop_assert_eq!(error.to_string(), same.to_string()),
            (parsed, sendable) => prop_assert!(false, "{:?} but {:?}", parsed, sendable),
        }
    }

    #[test]
    fn any_value_can_be_shown(value in any_value()) {
        let shown = format!("{value}{value:#}");
        prop_assert!(!shown.is_empty());
    }

    #[test]
    fn any_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = unpack::<Value>(&bytes, "value");
        let _ = unpack::<Everything>(&bytes, "value");
        let _ = unpack::<Vec<Shape>>(&bytes, "value");
    }

    #[test]
    fn what_is_read_is_the_same_when_written_and_read_again(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(value) = unpack::<Value>(&bytes, "value") {
            let again: Value = unpack(&pack(&value).unwrap(), "value").unwrap();
            prop_assert_eq!(format!("{again:?}"), format!("{value:?}"));
        }
    }
}

#[test]
fn a_number_that_does_not_fit_is_refused_and_made_infinite_by_nobody() {
    let read = |value: f64| unpack::<f32>(&pack(&value).unwrap(), "args");
    let error = read(1e40).unwrap_err().to_string();
    assert!(error.contains("1e40") || error.contains("10000000000000000000000"), "{error}");
    assert!(read(-1e40).is_err());
    assert_eq!(read(1.5).unwrap().to_bits(), 1.5_f32.to_bits());
    assert!(read(f64::INFINITY).unwrap().is_infinite());
    assert!(read(f64::NAN).unwrap().is_nan());
    assert_eq!(unpack::<f32>(&pack(&3).unwrap(), "args").unwrap().to_bits(), 3_f32.to_bits());
}
