//! What two of ours say to one another in ZMTP commands. Who does not announce in its READY that it understands a word is not told it:
//! lymph and ZeroMQ programs never are.

use super::zmtp::write_command;

/// One command of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word<'a> {
    /// To a service: nobody waits any longer for the answer to the request of this id.
    Cancel(&'a [u8]),
    /// To a caller: the service ends, and begins nothing more.
    Leave,
    /// The answer to that: no request follows.
    Left,
    /// To a caller that was told of the end: the request of this id came too late, and nothing of it was begun.
    Refused(&'a [u8]),
}

/// Their names, with the length of each before it.
const CANCEL: &[u8] = b"\x06CANCEL";
const LEAVE: &[u8] = b"\x05LEAVE";
const LEFT: &[u8] = b"\x04LEFT";
const REFUSED: &[u8] = b"\x07REFUSED";

impl<'a> Word<'a> {
    /// The word that a command is, where it is one of ours.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let after = |name| body.strip_prefix(name);
        let word = after(CANCEL).map(Self::Cancel);
        let word = word.or_else(|| after(REFUSED).map(Self::Refused));
        let word = word.or_else(|| after(LEAVE).map(|_| Self::Leave));
        word.or_else(|| after(LEFT).map(|_| Self::Left))
    }

    /// Writes it as a command.
    pub fn write(self, out: &mut Vec<u8>) {
        let (name, id) = match self {
            Self::Cancel(id) => (CANCEL, id),
            Self::Leave => (LEAVE, &[][..]),
            Self::Left => (LEFT, &[][..]),
            Self::Refused(id) => (REFUSED, id),
        };
        write_command(out, &[name, id].concat());
    }
}

#[cfg(test)]
mod tests {
    use super::super::zmtp::{Item, Reader};
    use super::*;

    #[test]
    fn words_come_as_they_were_written() {
        let words = [Word::Cancel(b"one"), Word::Leave, Word::Left, Word::Refused(b"two")];
        let mut bytes = Vec::new();
        for word in words {
            word.write(&mut bytes);
        }
        let mut reader = Reader::new(1000);
        reader.push(&bytes);
        for word in words {
            let Ok(Some(Item::Command(body))) = reader.next_item() else { panic!("no command") };
            assert_eq!(Word::read(body), Some(word));
        }
        assert_eq!(Word::read(b"\x04PING"), None);
    }
}
