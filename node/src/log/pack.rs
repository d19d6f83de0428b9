//! Compressed files that are read from anywhere: zstd frames of a fixed length of plain bytes, one after another, and a table of
//! them at the end (the "zstd seekable format": a skippable frame, so that `zstdcat` and `zstdgrep` read the file as it is).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use zstd::bulk::{Compressor, Decompressor};

/// Plain bytes in a frame: what one look at a record costs, beside how well it compresses.
const FRAME: usize = 128 * 1024;
/// zstd's own default: faster than a disk, and more hardly pays for lines.
const LEVEL: i32 = 3;
/// `0x184D2A5E` begins the table (contrib/seekable_format of zstd, version 0.1.0).
const TABLE: [u8; 4] = 0x184D_2A5E_u32.to_le_bytes();
/// `0x8F92EAB1` ends it.
const END: [u8; 4] = 0x8F92_EAB1_u32.to_le_bytes();
/// Frames, a descriptor, the magic number.
const FOOTER: u64 = 9;
/// Compressed and plain length of a frame.
const ENTRY: usize = 8;
/// No table of ours is longer: 64 GiB of text.
const MOST_FRAMES: u64 = 512 * 1024;

/// Compresses a file into another, which is on the disk when this returns, and says how long it is.
///
/// # Errors
/// What the file system says; then `to` is not left behind.
pub(super) fn pack(from: &Path, to: &Path) -> io::Result<u64> {
    let packed = write(from, to);
    if packed.is_err() {
        let _ = fs::remove_file(to); // may never have been made
    }
    packed
}

fn write(from: &Path, to: &Path) -> io::Result<u64> {
    let plain = File::open(from)?;
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).open(to)?;
    let mut compressor = Compressor::new(LEVEL)?;
    compressor.include_checksum(true)?;
    let mut buffer = vec![0; FRAME];
    let mut table = Vec::new();
    let mut length = 0;
    let mut offset = 0;
    loop {
        let count = read_at(&plain, &mut buffer, offset)?;
        if count == 0 {
            break;
        }
        offset += count as u64;
        let frame = compressor.compress(&buffer[..count])?;
        out.write_all(&frame)?;
        length += frame.len() as u64;
        table.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        table.extend_from_slice(&(count as u32).to_le_bytes());
    }
    let frames = (table.len() / ENTRY) as u32;
    let mut end = TABLE.to_vec();
    end.extend_from_slice(&(table.len() as u32 + FOOTER as u32).to_le_bytes());
    end.append(&mut table);
    end.extend_from_slice(&frames.to_le_bytes());
    end.push(0); // no checksums in the table: each frame has its own
    end.extend_from_slice(&END);
    out.write_all(&end)?;
    out.sync_data()?;
    Ok(length + end.len() as u64)
}

/// Makes the plain file again.
///
/// # Errors
/// What the file system says, or that the file is damaged.
pub(super) fn unpack(from: &Path, to: &Path) -> io::Result<()> {
    let mut packed = Packed::open(File::open(from)?)?;
    let mut out = File::create(to)?;
    let mut buffer = vec![0; FRAME];
    let mut offset = 0;
    while offset < packed.length {
        let count = packed.read_at(&mut buffer, offset)?;
        out.write_all(&buffer[..count])?;
        offset += count as u64;
    }
    Ok(())
}

/// A compressed file, open for reading.
pub(super) struct Packed {
    file: File,
    /// Where each frame begins: in the file, and in the plain bytes.
    frames: Vec<(u64, u64)>,
    /// Plain bytes in all.
    pub(super) length: u64,
    /// Bytes of frames.
    end: u64,
    /// The frame that `plain` holds.
    held: Option<usize>,
    plain: Vec<u8>,
    compressed: Vec<u8>,
    decompressor: Decompressor<'static>,
}

impl Packed {
    /// # Errors
    /// When it cannot be read, or its table is none.
    pub(super) fn open(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        let mut footer = [0; FOOTER as usize];
        let at = size.checked_sub(FOOTER).ok_or_else(damaged)?;
        file.read_exact_at(&mut footer, at)?;
        let count = u64::from(word(&footer));
        let table = count * ENTRY as u64;
        let Some(begin) = size.checked_sub(table + FOOTER) else {
            return Err(damaged());
        };
        if footer[5..] != END || count > MOST_FRAMES {
            return Err(damaged());
        }
        let mut entries = vec![0; table as usize];
        file.read_exact_at(&mut entries, begin)?;
        let mut frames = Vec::with_capacity(count as usize);
        let (mut end, mut length) = (0, 0);
        for entry in entries.chunks_exact(ENTRY) {
            frames.push((end, length));
            end += u64::from(word(entry));
            let plain = u64::from(word(&entry[4..]));
            if plain > FRAME as u64 {
                return Err(damaged());
            }
            length += plain;
        }
        if end + TABLE.len() as u64 + 4 != begin {
            return Err(damaged());
        }
        Ok(Self {
            file,
            frames,
            length,
            end,
            held: None,
            plain: Vec::new(),
            compressed: Vec::new(),
            decompressor: Decompressor::new()?,
        })
    }

    /// Reads until the buffer is full or the file ends.
    ///
    /// # Errors
    /// When a frame cannot be read or is damaged.
    pub(super) fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() && offset + (done as u64) < self.length {
            let at = offset + done as u64;
            let frame = self.frames.partition_point(|(_, plain)| *plain <= at) - 1;
            self.load(frame)?;
            let from = (at - self.frames[frame].1) as usize;
            let part = self.plain.get(from..).unwrap_or_default();
            let count = part.len().min(buffer.len() - done);
            if count == 0 {
                return Err(damaged());
            }
            buffer[done..done + count].copy_from_slice(&part[..count]);
            done += count;
        }
        Ok(done)
    }

    fn load(&mut self, frame: usize) -> io::Result<()> {
        if self.held == Some(frame) {
            return Ok(());
        }
        self.held = None;
        let begin = self.frames[frame].0;
        let end = self.frames.get(frame + 1).map_or(self.end, |next| next.0);
        self.compressed.resize((end - begin) as usize, 0);
        self.file.read_exact_at(&mut self.compressed, begin)?;
        self.plain.clear();
        self.plain.reserve(FRAME);
        self.decompressor.decompress_to_buffer(&self.compressed, &mut self.plain)?;
        self.held = Some(frame);
        Ok(())
    }
}

fn word(bytes: &[u8]) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[..4]);
    u32::from_le_bytes(value)
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the compressed file is damaged")
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// A file of a segment, plain or compressed.
pub(super) enum Stored {
    Plain(File),
    Packed(Box<std::cell::RefCell<Packed>>),
}

impl Stored {
    /// Opens `plain`, or what it was compressed into.
    ///
    /// # Errors
    /// What the file system says, or that the compressed file is damaged.
    pub(super) fn open(plain: &Path) -> io::Result<Self> {
        match File::open(plain) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened.map(Self::Plain),
        }
        match File::open(packed_path(plain)) {
            // Evicted, or unpacked between the two looks.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                File::open(plain).map(Self::Plain)
            }
            opened => Ok(Self::Packed(Box::new(Packed::open(opened?)?.into()))),
        }
    }

    /// Plain bytes in it now.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn len(&self) -> io::Result<u64> {
        match self {
            Self::Plain(file) => Ok(file.metadata()?.len()),
            Self::Packed(packed) => Ok(packed.borrow().length),
        }
    }

    /// Whether it was last written to longer ago than that; a compressed one is not written to.
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        match self {
            Self::Plain(file) => file
                .metadata()
                .and_then(|meta| meta.modified())
                .is_ok_and(|at| at.elapsed().is_ok_and(|since| since > age)),
            Self::Packed(_) => true,
        }
    }

    /// Reads until the buffer is full or the file ends.
    ///
    /// # Errors
    /// What the file system says, or that it is damaged.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Plain(file) => read_at(file, buffer, offset),
            Self::Packed(packed) => packed.borrow_mut().read_at(buffer, offset),
        }
    }

    /// A stretch of it, to be read in order.
    pub(super) fn stretch(&self, from: u64, to: u64) -> Stretch<'_> {
        Stretch { stored: self, at: from, to }
    }
}

/// Where the compressed form of a file is.
pub(super) fn packed_path(plain: &Path) -> std::path::PathBuf {
    let mut name = plain.as_os_str().to_owned();
    name.push(PACKED);
    name.into()
}

/// What the name of a compressed file ends with.
pub(super) const PACKED: &str = ".zst";

/// See [`Stored::stretch`].
pub(super) struct Stretch<'a> {
    stored: &'a Stored,
    at: u64,
    to: u64,
}

impl Read for Stretch<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.to.saturating_sub(self.at) as usize);
        let count = self.stored.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]
        #[test]
        fn any_part_of_a_packed_file_is_what_the_plain_one_holds(
            seed in any::<u8>(),
            length in 0_usize..400_000,
            looks in proptest::collection::vec((0_usize..420_000, 0_usize..200_000), 1..6),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let plain: Vec<u8> = (0..length).map(|at| (at / 7) as u8 ^ seed).collect();
            let (from, to) = (dir.path().join("plain"), dir.path().join("plain.zst"));
            fs::write(&from, &plain).unwrap();
            prop_assert_eq!(pack(&from, &to).unwrap(), fs::metadata(&to).unwrap().len());
            fs::remove_file(&from).unwrap();
            let stored = Stored::open(&from).unwrap();
            prop_assert_eq!(stored.len().unwrap(), length as u64);
            for (offset, count) in looks {
                let mut buffer = vec![0; count];
                let got = stored.read_at(&mut buffer, offset as u64).unwrap();
                let offset = offset.min(length);
                prop_assert_eq!(&buffer[..got], &plain[offset..length.min(offset + count)]);
            }
            unpack(&to, &from).unwrap();
            prop_assert_eq!(fs::read(&from).unwrap(), plain);
        }

        #[test]
        fn a_damaged_file_is_an_error_and_no_other_bytes(at in 0_usize..4000, bit in 0_u8..8, cut in any::<bool>()) {
            let dir = tempfile::tempdir().unwrap();
            let plain: Vec<u8> = (0..300_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 27) as u8).collect();
            let (from, to) = (dir.path().join("plain"), dir.path().join("plain.zst"));
            fs::write(&from, &plain).unwrap();
            pack(&from, &to).unwrap();
            let mut bytes = fs::read(&to).unwrap();
            // Spread over the whole file.
            let at = at * bytes.len() / 4000;
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            fs::write(&to, bytes).unwrap();
            if let Ok(mut packed) = Packed::open(File::open(&to).unwrap()) {
                let mut buffer = vec![0; plain.len()];
                if let Ok(count) = packed.read_at(&mut buffer, 0) {
                    prop_assert_eq!(&buffer[..count], &plain[..count]);
                }
            }
        }
    }
}
