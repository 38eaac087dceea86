//! The bytes of a file: mapped, static or owned. The only `unsafe` of the crate are the calls that
//! map, and that give memory back.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::{Bound, Deref, Range, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

use crate::Error;

/// Immutable shared bytes: a range of a memory map, of a static or of a vector.
///
/// Cloning and slicing copy nothing; the memory lives until the last `Bytes` of it is dropped.
#[derive(Clone)]
pub struct Bytes {
    memory: Memory,
    // Always within `memory`: set whole by the constructors, narrowed by `get`.
    range: Range<usize>,
}

#[derive(Clone)]
enum Memory {
    Map(Arc<Mmap>),
    Static(&'static [u8]),
    Owned(Arc<Vec<u8>>),
}

impl Memory {
    fn as_slice(&self) -> &[u8] {
        match self {
            Memory::Map(map) => map,
            Memory::Static(bytes) => bytes,
            Memory::Owned(bytes) => bytes,
        }
    }
}

impl Bytes {
    /// Bytes that live as long as the program, such as `include_bytes!` gives.
    pub fn from_static(bytes: &'static [u8]) -> Bytes {
        Bytes::whole(Memory::Static(bytes))
    }

    /// Maps a regular file into memory, read only. Nobody may change it while the result lives: see
    /// [`Gguf::open`](crate::Gguf::open).
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::NotAFile`].
    pub fn open(path: &Path) -> Result<Bytes, Error> {
        let file = || path.display().to_string();
        let open = || {
            // Before opening: opening a pipe would wait for its other end.
            if !fs::metadata(path)?.is_file() {
                return Ok(None);
            }
            Bytes::map(&File::open(path)?).map(Some)
        };
        match open() {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(Error::NotAFile { file: file() }),
            Err(source) => Err(Error::Io { file: file(), source }),
        }
    }

    /// Maps `file`, read only.
    fn map(file: &File) -> io::Result<Bytes> {
        // SAFETY: the map is read only and private to this value, and `Mmap` unmaps only when the
        // last `Bytes` is gone. That nobody changes the file meanwhile cannot be checked; as in
        // every reader that maps files, it is accepted, and said in the docs of `Gguf::open`.
        // Nothing read here is trusted later: text is checked each time it is read, and numbers
        // are only computed with.
        let map = unsafe { Mmap::map(file) }?;
        Ok(Bytes::whole(Memory::Map(Arc::new(map))))
    }

    fn whole(memory: Memory) -> Bytes {
        let range = 0..memory.as_slice().len();
        Bytes { memory, range }
    }

    /// Gives the memory that holds these bytes back to the system, if they are mapped and it can
    /// take it: they are read from the file again when they are needed again.
    pub fn evict(&self) {
        #[cfg(unix)]
        if let Memory::Map(map) = &self.memory {
            // Whole pages of any size there is; what is left at the ends stays.
            const PAGE: usize = 1 << 16;
            let start = self.range.start.next_multiple_of(PAGE);
            let end = self.range.end / PAGE * PAGE;
            if start < end {
                // SAFETY: the map is shared with the file and never written, so pages that are
                // dropped come back with the same bytes.
                let advised = unsafe {
                    map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start)
                };
                // It is advice: where it is not taken, memory is not given back.
                let _ = advised;
            }
        }
    }

    /// The part `range` of these bytes, counted from their start.
    ///
    /// # Panics
    ///
    /// When `range` does not lie within these bytes, as indexing a slice does. [`Bytes::get`] does
    /// not panic.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Bytes {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.len(),
        };
        self.get(start..end)
            .unwrap_or_else(|| panic!("range {start}..{end} of {} bytes", self.len()))
    }

    /// The part `range` of these bytes, counted from their start; `None` when it does not lie
    /// within them.
    pub fn get(&self, range: Range<usize>) -> Option<Bytes> {
        if range.start > range.end || range.end > self.len() {
            return None;
        }
        let first = self.range.start;
        Some(Bytes { memory: self.memory.clone(), range: first + range.start..first + range.end })
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes::whole(Memory::Owned(Arc::new(bytes)))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory.as_slice()[self.range.clone()]
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Bytes) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Bytes {}

/// Prints the length only: a model file would fill the terminal.
impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_share_and_nest() {
        let all = Bytes::from(vec![0, 1, 2, 3, 4, 5]);
        let middle = all.slice(1..5);
        assert_eq!(&middle[..], [1, 2, 3, 4]);
        assert_eq!(&middle.slice(2..)[..], [3, 4]);
        assert_eq!(&middle.slice(..=0)[..], [1]);
        assert_eq!(middle.as_ptr(), all[1..].as_ptr());
        drop(all);
        assert_eq!(&middle[..], [1, 2, 3, 4]);
    }

    #[test]
    fn evicted_bytes_come_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(file.path(), &bytes).unwrap();
        let map = Bytes::map(file.as_file()).unwrap().slice(5..);
        assert_eq!(map[..], bytes[5..]);
        map.evict();
        assert_eq!(map[..], bytes[5..]);
        Bytes::from(bytes).evict();
    }

    #[test]
    fn a_range_outside_is_none() {
        let bytes = Bytes::from_static(b"abc").slice(1..);
        assert!(bytes.get(0..2).is_some());
        assert!(bytes.get(0..3).is_none(), "the static has more, the slice has not");
        assert!(bytes.get(Range { start: 2, end: 1 }).is_none());
        assert!(bytes.get(usize::MAX..usize::MAX).is_none());
    }

    #[test]
    fn is_send_and_sync() {
        fn check<T: Send + Sync + Clone>() {}
        check::<Bytes>();
    }
}
