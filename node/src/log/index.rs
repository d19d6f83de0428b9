//! The index beside a segment: fixed-size [`Span`]s, one for each stretch of records that differ in their
//! text only. A flood costs one span a read, not one a line; `-n`, `--since` and one instance's view
//! look at spans and touch only the text that they show.
//!
//! `000001.idx`: a header of [`SPAN`] bytes, then spans. `000001.fld`: a header line, then names (a
//! line each) and the JSON of fields, both found by their offset. Numbers are little endian.

use hilum_shared::protocol::Level;

use super::record::{Flags, Stream};

/// Bytes of a span, and of the header.
pub const SPAN: usize = 64;
/// The first bytes of an index: a name and the version of its form.
pub const HEADER: &[u8; 16] = b"hilum index 1\n\0\0";
/// The first line of a field file; offset 0 is therefore nobody's.
pub const FIELDS_HEADER: &[u8] = b"hilum fields 1\n";

/// A stretch of records in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Of its first record; the others count on.
    pub seq: u64,
    /// Where its text begins in the segment.
    pub offset: u64,
    /// Wall time in microseconds since 1970.
    pub at: u64,
    /// The latest `at` up to here: it never goes back, so that a time is found by bisection.
    pub key: u64,
    /// Bytes of text.
    pub length: u32,
    /// How many records.
    pub count: u32,
    /// Offset of its name in the field file.
    pub name: u32,
    /// Which life; 0 = none.
    pub run: u32,
    /// The leader; 0 = none.
    pub pid: u32,
    /// Offset of its fields in the field file; of a gap: how many lines are lost (at most `u32::MAX`).
    pub fields: u32,
    /// Length of its fields; 0 = none, [`LONG_FIELDS`] = to the next line end.
    pub fields_length: u16,
    /// Where from.
    pub stream: Stream,
    /// How grave.
    pub level: Option<Level>,
    /// What is special.
    pub flags: Flags,
}

/// The length of fields that are longer than it says: they end with their line.
pub const LONG_FIELDS: u16 = u16::MAX;

impl Span {
    /// As it is written.
    pub fn encode(&self) -> [u8; SPAN] {
        let mut out = [0; SPAN];
        out[0..8].copy_from_slice(&self.seq.to_le_bytes());
        out[8..16].copy_from_slice(&self.offset.to_le_bytes());
        out[16..24].copy_from_slice(&self.at.to_le_bytes());
        out[24..32].copy_from_slice(&self.key.to_le_bytes());
        out[32..36].copy_from_slice(&self.length.to_le_bytes());
        out[36..40].copy_from_slice(&self.name.to_le_bytes());
        out[40..44].copy_from_slice(&self.run.to_le_bytes());
        out[44..48].copy_from_slice(&self.pid.to_le_bytes());
        out[48..52].copy_from_slice(&self.fields.to_le_bytes());
        out[52..54].copy_from_slice(&self.fields_length.to_le_bytes());
        // A count (below 2^24: a span holds at most 256 KiB and a batch) shares a word with the stream and the level.
        out[54..56].copy_from_slice(&self.flags.0.to_le_bytes());
        let kind =
            u32::from(self.stream.code() & 0xf) | u32::from(level_code(self.level) & 0xf) << 4;
        out[56..60].copy_from_slice(&(kind | self.count << 8).to_le_bytes());
        let check = check(&out[..60]);
        out[60..64].copy_from_slice(&check.to_le_bytes());
        out
    }

    /// Reads one back; `None` when it is damaged.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SPAN] = bytes.get(..SPAN)?.try_into().ok()?;
        let long = |at: usize| {
            let mut value = [0; 8];
            value.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(value)
        };
        let word = |at: usize| {
            let mut value = [0; 4];
            value.copy_from_slice(&bytes[at..at + 4]);
            u32::from_le_bytes(value)
        };
        if word(60) != check(&bytes[..60]) {
            return None;
        }
        let kind = word(56);
        Some(Self {
            seq: long(0),
            offset: long(8),
            at: long(16),
            key: long(24),
            length: word(32),
            count: kind >> 8,
            name: word(36),
            run: word(40),
            pid: word(44),
            fields: word(48),
            fields_length: u16::from_le_bytes([bytes[52], bytes[53]]),
            stream: Stream::from_code((kind & 0xf) as u8)?,
            level: level_from(((kind >> 4) & 0xf) as u8),
            flags: Flags(u16::from_le_bytes([bytes[54], bytes[55]])),
        })
    }

    /// The sequence number after its last record.
    pub fn next_seq(&self) -> u64 {
        self.seq + u64::from(self.count)
    }

    /// The room that it takes in all files, but for the length of very long fields.
    pub(super) fn weight(&self) -> u64 {
        SPAN as u64 + u64::from(self.length) + u64::from(self.fields_length)
    }

    /// Where its text ends.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }
}

/// The whole header.
pub fn header() -> [u8; SPAN] {
    let mut out = [0; SPAN];
    out[..16].copy_from_slice(HEADER);
    out
}

fn level_code(level: Option<Level>) -> u8 {
    match level {
        None => 0,
        Some(Level::Debug) => 1,
        Some(Level::Info) => 2,
        Some(Level::Warning) => 3,
        Some(Level::Error) => 4,
        Some(Level::Critical) => 5,
    }
}

/// A code of a later version reads as no level.
fn level_from(code: u8) -> Option<Level> {
    match code {
        1 => Some(Level::Debug),
        2 => Some(Level::Info),
        3 => Some(Level::Warning),
        4 => Some(Level::Error),
        5 => Some(Level::Critical),
        _ => None,
    }
}

/// FNV-1a over eight bytes at a time: it finds torn and zeroed spans, it is no proof against malice.
fn check(bytes: &[u8]) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for piece in bytes.chunks(8) {
        let mut value = [0; 8];
        value[..piece.len()].copy_from_slice(piece);
        hash = (hash ^ u64::from_le_bytes(value)).wrapping_mul(0x0000_0100_0000_01b3);
        hash ^= hash >> 29;
    }
    (hash ^ (hash >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_span_is_read_as_it_is_written(seq: u64, offset: u64, at: u64, length: u32, count in 0_u32..1 << 24, name: u32, flags: u16, flip in 0_usize..SPAN * 8) {
            let span = Span {
                seq, offset, at, key: at, length, count, name, run: 3, pid: 9, fields: 4, fields_length: 5,
                stream: Stream::Node, level: Some(Level::Critical), flags: Flags(flags),
            };
            let mut bytes = span.encode();
            prop_assert_eq!(Span::decode(&bytes), Some(span));
            bytes[flip / 8] ^= 1 << (flip % 8);
            prop_assert_eq!(Span::decode(&bytes), None);
        }
    }

    #[test]
    fn zeros_are_no_span() {
        assert_eq!(Span::decode(&[0; SPAN]), None);
    }
}
