//! Memory of a device: what is taken, and by whom.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::sys::Region;

/// What is taken of the memory of a device.
#[derive(Debug, Default)]
pub struct MemoryTracker {
    current_allocated: AtomicUsize,
    peak_memory: AtomicUsize,
    allocation_count: AtomicU64,
    deallocation_count: AtomicU64,
}

/// What a [`MemoryTracker`] says at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes that are taken.
    pub current_allocated: usize,
    /// The most that ever were.
    pub peak_memory: usize,
    /// How often memory was taken.
    pub allocation_count: u64,
    /// How often it was given back.
    pub deallocation_count: u64,
}

impl MemoryTracker {
    /// What it is now.
    #[must_use]
    pub fn get(&self) -> MemoryUse {
        MemoryUse {
            current_allocated: self.current_allocated.load(Ordering::Relaxed),
            peak_memory: self.peak_memory.load(Ordering::Relaxed),
            allocation_count: self.allocation_count.load(Ordering::Relaxed),
            deallocation_count: self.deallocation_count.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn taken(&self, bytes: usize) {
        let now = self.current_allocated.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak_memory.fetch_max(now, Ordering::Relaxed);
        self.allocation_count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn given_back(&self, bytes: usize) {
        self.current_allocated.fetch_sub(bytes, Ordering::Relaxed);
        self.deallocation_count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Memory that is handed out piece by piece, and given back as a whole.
#[derive(Debug)]
pub(crate) struct Arena {
    memory: Region,
    used: usize,
}

/// Every piece begins at a multiple of this.
pub(crate) const ALIGN: usize = 256;

/// Bytes that a piece of so many takes of an arena.
pub(crate) fn piece(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN)
}

impl Arena {
    pub(crate) fn new(memory: Region) -> Arena {
        Arena { memory, used: 0 }
    }

    /// A piece.
    ///
    /// # Panics
    ///
    /// If there is not as much left: an arena is made for what it has to hold.
    pub(crate) fn take(&mut self, bytes: usize) -> Region {
        let at = self.used;
        self.used += piece(bytes);
        self.memory.part(at, bytes)
    }
}
