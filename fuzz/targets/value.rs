//! Any bytes are a value or an error, and a value is the same when it is written and read again.
#![no_main]

use hilum_shared::wire::{Value, pack, unpack};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = unpack::<Value>(bytes, "fuzz") else { return };
    let again: Value = unpack(&pack(&value).expect("what was read is written"), "fuzz").expect("and read again");
    // As text: NaN is not equal to itself.
    assert_eq!(format!("{value:?}"), format!("{again:?}"));
    let json = value.to_json();
    assert_eq!(format!("{:?}", Value::from_json(&json).expect("what was written is read").to_json()), format!("{json:?}"));
    let _ = format!("{value:#}");
});
