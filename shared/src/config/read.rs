//! Files into text: bounded, UTF-8, without a byte order mark.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::diagnostic::Problems;
use super::dotenv;
use super::raw::MAX_FILE;
use super::source::Pos;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It cannot be opened or read.
    #[error("{}", kind(.0))]
    Io(#[from] io::Error),
    /// It is a folder, a device or a pipe, which may never end.
    #[error("it is no regular file")]
    NotAFile,
    /// It is larger than any configuration.
    #[error("it is larger than {} MiB", MAX_FILE >> 20)]
    TooLarge,
    /// It is in another encoding.
    #[error("it is UTF-16; save it as UTF-8")]
    Utf16,
    /// It is no text.
    #[error("it is not UTF-8: byte {byte:#04x} on line {line}")]
    NotUtf8 {
        /// The first wrong byte.
        byte: u8,
        /// Its line.
        line: usize,
        /// Its offset, in the file and in `text`.
        at: usize,
        /// The file with U+FFFD in place of what is no text, to be shown.
        text: String,
    },
}

/// The system's word without its number.
fn kind(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "it may not be read (permission denied)".to_owned(),
        _ => error.to_string(),
    }
}

/// Reads a file.
pub(crate) fn text(path: &Path) -> Result<String, ReadError> {
    // Looked at before it is opened: opening a pipe waits for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(ReadError::NotAFile);
    }
    let mut bytes = Vec::new();
    let limit = MAX_FILE as u64 + 1;
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_FILE {
        return Err(ReadError::TooLarge);
    }
    decode(bytes)
}

/// Makes bytes to text.
pub(crate) fn decode(mut bytes: Vec<u8>) -> Result<String, ReadError> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(ReadError::Utf16);
    }
    if bytes.starts_with("\u{feff}".as_bytes()) {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        ReadError::NotUtf8 {
            byte: bytes[at],
            line: bytes[..at].split(|byte| *byte == b'\n').count(),
            at,
            text: String::from_utf8_lossy(bytes).into_owned(),
        }
    })
}

/// Reports what is wrong in a file of variables.
pub(crate) fn dotenv_errors(file: u32, errors: Vec<dotenv::Located>, problems: &mut Problems) {
    for (at, error) in errors {
        problems.error(Pos::new(file, at, at + 1), "", error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_utf_8_with_or_without_a_mark() {
        assert_eq!(decode(b"\xef\xbb\xbfa: 1".to_vec()).unwrap(), "a: 1");
        assert_eq!(decode(b"a: 1".to_vec()).unwrap(), "a: 1");
        assert!(matches!(decode(b"\xff\xfea\0".to_vec()), Err(ReadError::Utf16)));
        let error = decode(b"a: 1\nb: \xff".to_vec()).unwrap_err();
        assert_eq!(error.to_string(), "it is not UTF-8: byte 0xff on line 2");
    }

    #[test]
    fn a_device_is_never_read() {
        assert!(matches!(text(Path::new("/dev/zero")), Err(ReadError::NotAFile)));
        assert!(matches!(text(Path::new("/")), Err(ReadError::NotAFile)));
    }
}
