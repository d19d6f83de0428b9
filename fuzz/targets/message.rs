//! Any five frames are a message or an error, and a message is the same when it is written and read again.
#![no_main]

use hilum_shared::wire::message::Message;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let frames: Vec<&[u8]> = bytes.split(|byte| *byte == 0xc1).collect();
    let _ = Message::salvage_id(&frames);
    let Ok(message) = Message::decode(&frames) else { return };
    let again = Message::decode(&message.clone().encode()).expect("what was written is read");
    assert_eq!(format!("{message:?}"), format!("{again:?}"));
});
