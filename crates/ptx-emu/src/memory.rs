//! Memory of a device: buffers with bounds, that know which of their bytes were ever written.

use crate::order::Order;

/// The memory that all threads and the host share.
#[derive(Debug, Default)]
pub struct Memory {
    /// In the order of their addresses.
    buffers: Vec<Buffer>,
    next: u64,
    /// The accesses of the blocks of a launch.
    pub(crate) order: Option<Order>,
}

/// Bytes that were allocated together.
#[derive(Debug)]
pub(crate) struct Buffer {
    base: u64,
    pub(crate) bytes: Vec<u8>,
    /// Whether each was written.
    pub(crate) written: Vec<bool>,
}

/// The first address: none that a program could make by mistake from an index.
const FIRST: u64 = 0x7f00_0000_0000;
/// Between buffers nothing is.
const GUARD: u64 = 0x1_0000;
/// As drivers align.
const ALIGN: u64 = 512;

impl Buffer {
    /// Where `bytes` bytes at an address are in here.
    pub(crate) fn at(&self, address: u64, bytes: usize) -> Option<usize> {
        let offset = usize::try_from(address.checked_sub(self.base)?).ok()?;
        (offset.checked_add(bytes)? <= self.bytes.len()).then_some(offset)
    }
}

impl Memory {
    /// Memory with nothing in it.
    #[must_use]
    pub fn new() -> Memory {
        Memory::from(FIRST)
    }

    /// Memory with nothing in it, whose addresses begin with this one.
    #[must_use]
    pub fn from(first: u64) -> Memory {
        Memory { buffers: Vec::new(), next: first, order: None }
    }

    /// The address of so many bytes that nobody has written yet.
    pub fn allocate(&mut self, bytes: usize) -> u64 {
        let base = self.next;
        self.next += (bytes as u64 + GUARD).next_multiple_of(ALIGN);
        self.buffers.push(Buffer { base, bytes: vec![0xa5; bytes], written: vec![false; bytes] });
        base
    }

    /// The address of a copy of some bytes.
    pub fn copy_of(&mut self, bytes: &[u8]) -> u64 {
        let address = self.allocate(bytes.len());
        self.write(address, bytes);
        address
    }

    /// Frees what [`Memory::allocate`] gave. False where it did not give this address, or it was freed.
    pub fn free(&mut self, address: u64) -> bool {
        match self.buffers.binary_search_by_key(&address, |buffer| buffer.base) {
            Ok(index) => {
                self.buffers.remove(index);
                true
            }
            Err(_) => false,
        }
    }

    /// Bytes that are allocated.
    #[must_use]
    pub fn used(&self) -> usize {
        self.buffers.iter().map(|buffer| buffer.bytes.len()).sum()
    }

    /// Writes bytes. False where they are not in a buffer.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        let Some((buffer, at)) = self.find(address, bytes.len()) else { return false };
        let buffer = &mut self.buffers[buffer];
        buffer.bytes[at..][..bytes.len()].copy_from_slice(bytes);
        buffer.written[at..][..bytes.len()].fill(true);
        true
    }

    /// Some bytes, written or not; nothing where they are not in a buffer.
    #[must_use]
    pub fn read(&self, address: u64, bytes: usize) -> Option<&[u8]> {
        let (buffer, at) = self.find(address, bytes)?;
        Some(&self.buffers[buffer].bytes[at..][..bytes])
    }

    /// The buffer with these bytes, by number, and where they are in it.
    pub(crate) fn find(&self, address: u64, bytes: usize) -> Option<(usize, usize)> {
        let index = self.buffers.partition_point(|buffer| buffer.base <= address).checked_sub(1)?;
        Some((index, self.buffers[index].at(address, bytes)?))
    }

    pub(crate) fn buffer(&mut self, index: usize) -> &mut Buffer {
        &mut self.buffers[index]
    }
}
