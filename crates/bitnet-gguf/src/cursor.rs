//! A position in the header. Every read is checked against the bytes that are left before anything
//! is done with it.

use std::fmt;

use crate::{Bytes, Error};

/// The longest metadata key, in bytes (GGUF specification: 2^16 - 1). Tensor names are held to it
/// too.
pub(crate) const NAME_LIMIT: u64 = 65_535;

/// What is being read, for messages.
#[derive(Clone, Copy)]
pub(crate) enum Part<'a> {
    /// Something that has no name, or not yet.
    Header(&'static str),
    /// The value of a metadata key.
    Value(&'a str),
    /// The description of a tensor.
    Tensor(&'a str),
}

impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Header(what) => f.write_str(what),
            Part::Value(key) => write!(f, "the value of key {key:?}"),
            Part::Tensor(name) => write!(f, "the description of tensor {name:?}"),
        }
    }
}

/// Reads little-endian fields one after another.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    file: &'a str,
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the start of `bytes`; `file` is named in errors.
    pub(crate) fn new(file: &'a str, bytes: &'a Bytes) -> Cursor<'a> {
        Cursor { file, bytes, at: 0 }
    }

    /// Name of the file, as errors carry it.
    pub(crate) fn file(&self) -> String {
        self.file.to_owned()
    }

    /// Byte position of the next field.
    pub(crate) fn offset(&self) -> u64 {
        self.at as u64
    }

    /// The bytes from `start` to here, shared. `start` is an offset this cursor has been at.
    pub(crate) fn since(&self, start: u64) -> Bytes {
        self.bytes.slice(start as usize..self.at)
    }

    fn available(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// The next `length` bytes.
    pub(crate) fn take(&mut self, length: u64, part: Part<'_>) -> Result<&'a [u8], Error> {
        let available = self.available();
        if length > available {
            return Err(Error::Truncated {
                file: self.file(),
                what: part.to_string(),
                offset: self.offset(),
                needed: length,
                available,
            });
        }
        // Not more than the bytes that are in memory, so it fits in usize.
        let start = self.at;
        self.at += length as usize;
        Ok(&self.bytes[start..self.at])
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self, part: Part<'_>) -> Result<[u8; N], Error> {
        let mut field = [0; N];
        field.copy_from_slice(self.take(N as u64, part)?);
        Ok(field)
    }

    pub(crate) fn u32(&mut self, part: Part<'_>) -> Result<u32, Error> {
        self.array(part).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, part: Part<'_>) -> Result<u64, Error> {
        self.array(part).map(u64::from_le_bytes)
    }

    /// Refuses `count` items of at least `least` bytes each when the bytes that are left cannot
    /// hold them.
    /// `offset` is where the count was found.
    pub(crate) fn check_count(
        &self,
        count: u64,
        least: u64,
        offset: u64,
        part: Part<'_>,
    ) -> Result<(), Error> {
        let available = self.available();
        if count.checked_mul(least).is_some_and(|bytes| bytes <= available) {
            return Ok(());
        }
        Err(Error::Count { file: self.file(), what: part.to_string(), offset, count, available })
    }

    /// A string: its length as u64, then that many bytes of UTF-8.
    pub(crate) fn str(&mut self, part: Part<'_>) -> Result<&'a str, Error> {
        let length = self.u64(part)?;
        self.utf8(length, part)
    }

    /// A metadata key or a tensor name: a string of at most [`NAME_LIMIT`] bytes.
    pub(crate) fn name(&mut self, part: Part<'_>) -> Result<&'a str, Error> {
        let offset = self.offset();
        let length = self.u64(part)?;
        if length > NAME_LIMIT {
            return Err(Error::NameLength {
                file: self.file(),
                what: part.to_string(),
                offset,
                length,
                limit: NAME_LIMIT,
            });
        }
        self.utf8(length, part)
    }

    fn utf8(&mut self, length: u64, part: Part<'_>) -> Result<&'a str, Error> {
        let start = self.offset();
        let bytes = self.take(length, part)?;
        std::str::from_utf8(bytes).map_err(|error| Error::NotUtf8 {
            file: self.file(),
            what: part.to_string(),
            offset: start + error.valid_up_to() as u64,
        })
    }
}
