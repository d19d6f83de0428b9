//! What a byte string of a stranger may be before anything is allocated for it, and so what we send.
//!
//! The numbers stand here alone. Who packs is held to them as who reads is, so that nothing leaves that is refused where it arrives: a
//! message that is too large would end the connection, with every other call on it.
//!
//! [`check`] walks one MessagePack value without building it: its nesting, its number of items, and that
//! nothing follows it (`rmp-serde` accepts trailing bytes, which would hide a framing fault).

/// The deepest nesting of arrays and maps that is packed and decoded.
pub const MAX_DEPTH: usize = 64;

/// The most values in one frame that is packed or decoded, arrays' and maps' members included.
pub const MAX_ITEMS: usize = 1_000_000;

/// The largest frame that a node accepts from a worker or a client, in bytes.
pub const MAX_FRAME: usize = 1 << 20;

/// The largest message between services, and the largest answer that a client accepts from a node, in bytes: a status of tens of
/// thousands of instances.
pub const MAX_ANSWER: usize = 64 << 20;

/// The largest body that is packed, in bytes: what [`MAX_ANSWER`] leaves beside the envelope's four texts and the heads of its frames.
pub const MAX_BODY: usize = MAX_ANSWER - 5 * MAX_TEXT;

/// The most frames in one message, envelope included.
pub const MAX_FRAMES: usize = 256;

/// The longest id, subject or header text, in bytes.
pub const MAX_TEXT: usize = 4096;

/// Why a byte string is not one acceptable MessagePack value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// It ends inside a value.
    #[error("it ends too early")]
    Truncated,
    /// Bytes follow the value.
    #[error("{extra} bytes follow the value")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// Arrays and maps inside one another.
    #[error("it is nested deeper than {MAX_DEPTH} levels")]
    Depth,
    /// More values than are taken.
    #[error("it holds more than {MAX_ITEMS} values")]
    Items,
    /// More bytes than whom it is packed for takes.
    #[error("it has {size} bytes, and {limit} is the most that may be sent")]
    Size {
        /// How many.
        size: usize,
        /// The most.
        limit: usize,
    },
    /// The one marker that MessagePack never uses, `c1`.
    #[error("byte {at} is no MessagePack marker")]
    Marker {
        /// Where.
        at: usize,
    },
}

/// Walks `bytes` and makes sure that they are exactly one MessagePack value within the limits.
///
/// # Errors
/// See [`LimitError`].
pub fn check(bytes: &[u8]) -> Result<(), LimitError> {
    let mut walk = Walk { bytes, at: 0 };
    // One entry for each open array or map: how many values are still to come in it.
    let mut open = [0_u64; MAX_DEPTH];
    let mut depth = 0;
    let mut items = 0;
    loop {
        items += 1;
        if items > MAX_ITEMS {
            return Err(LimitError::Items);
        }
        let members = walk.value()?;
        if members > 0 {
            *open.get_mut(depth).ok_or(LimitError::Depth)? = members;
            depth += 1;
            continue;
        }
        while depth > 0 {
            open[depth - 1] -= 1;
            if open[depth - 1] > 0 {
                break;
            }
            depth -= 1;
        }
        if depth == 0 {
            break;
        }
    }
    match bytes.len() - walk.at {
        0 => Ok(()),
        extra => Err(LimitError::Trailing { extra }),
    }
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    /// Steps over one scalar, or over the head of an array or map, and says how many values it holds.
    fn value(&mut self) -> Result<u64, LimitError> {
        let at = self.at;
        let marker = self.number(1)?;
        let skip = match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => 0,
            0x80..=0x8f => return Ok(2 * (marker & 0x0f)),
            0x90..=0x9f => return Ok(marker & 0x0f),
            0xa0..=0xbf => marker & 0x1f,
            0xc4 | 0xd9 => self.number(1)?,
            0xc5 | 0xda => self.number(2)?,
            0xc6 | 0xdb => self.number(4)?,
            0xc7 => self.number(1)? + 1,
            0xc8 => self.number(2)? + 1,
            0xc9 => self.number(4)? + 1,
            0xcc | 0xd0 => 1,
            0xcd | 0xd1 => 2,
            0xca | 0xce | 0xd2 => 4,
            0xcb | 0xcf | 0xd3 => 8,
            0xd4..=0xd8 => 1 + (1 << (marker - 0xd4)),
            0xdc => return self.number(2),
            0xdd => return self.number(4),
            0xde => return Ok(2 * self.number(2)?),
            0xdf => return Ok(2 * self.number(4)?),
            _ => return Err(LimitError::Marker { at }),
        };
        self.skip(skip)?;
        Ok(0)
    }

    fn number(&mut self, width: usize) -> Result<u64, LimitError> {
        let start = self.at;
        self.skip(width as u64)?;
        Ok(self.bytes[start..self.at].iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn skip(&mut self, length: u64) -> Result<(), LimitError> {
        let left = self.bytes.len() - self.at;
        if length > left as u64 {
            return Err(LimitError::Truncated);
        }
        self.at += length as usize;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_whole_value_passes() {
        let value = serde_json::json!({"a": [1, -1, 300, 70000, 1.5, null, true], "b": {"c": "x".repeat(300)}, "e": [[]]});
        check(&rmp_serde::to_vec_named(&value).unwrap()).unwrap();
        check(&[0xd6, 5, 1, 2, 3, 4]).unwrap(); // fixext 4
        check(&[0xc7, 2, 5, 1, 2]).unwrap(); // ext 8
    }

    #[test]
    fn what_is_not_one_value_is_refused() {
        assert_eq!(check(&[]), Err(LimitError::Truncated));
        assert_eq!(check(&[0x92, 1]), Err(LimitError::Truncated));
        assert_eq!(check(&[1, 2]), Err(LimitError::Trailing { extra: 1 }));
        assert_eq!(check(&[0xc1]), Err(LimitError::Marker { at: 0 }));
        assert_eq!(check(&[0xc6, 0xff, 0xff, 0xff, 0xff, 0]), Err(LimitError::Truncated));
        assert_eq!(check(&[0xdd, 0xff, 0xff, 0xff, 0xff]), Err(LimitError::Truncated));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| {
            let mut bytes = vec![0x91; levels];
            bytes.push(0xc0);
            bytes
        };
        check(&nested(MAX_DEPTH)).unwrap();
        assert_eq!(check(&nested(MAX_DEPTH + 1)), Err(LimitError::Depth));
    }

    #[test]
    fn the_number_of_values_is_bounded() {
        let mut bytes = vec![0xdd, 0x00, 0x10, 0x00, 0x00];
        bytes.resize(5 + (1 << 20), 0xc0);
        assert_eq!(check(&bytes), Err(LimitError::Items));
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = check(&bytes);
        }

        #[test]
        fn it_agrees_with_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            // What passes is decoded to its end; what the decoder reads to its end passes. 0xc1 means
            // nothing in MessagePack; we refuse it, the decoder reads nil.
            prop_assume!(!bytes.contains(&0xc1));
            let mut rest = bytes.as_slice();
            let decoded = rmpv::decode::read_value(&mut rest).is_ok() && rest.is_empty();
            prop_assert_eq!(check(&bytes).is_ok(), decoded);
        }
    }
}
