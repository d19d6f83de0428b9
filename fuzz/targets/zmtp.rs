//! Any bytes, however they are cut, are messages or an error.
#![no_main]

use hilum_shared::wire::zmtp::{Reader, read_ready};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = read_ready(bytes);
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let mut reader = Reader::new(1000);
    for piece in bytes.chunks(usize::from(*cut).max(1)) {
        reader.push(piece);
        loop {
            match reader.next_item() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
