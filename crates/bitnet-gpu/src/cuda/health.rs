//! Whether a device is sound, and how fast its memory is.

use super::buffers::Scratch;
use super::error::Error;
use super::gpu::Gpu;
use super::queue::Queue;
use super::sys;

/// What [`Gpu::check_memory_health`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryResult {
    /// Bytes of the device.
    pub total_bytes: usize,
    /// Bytes that were free before.
    pub free_bytes: usize,
    /// Bytes that were written and read.
    pub tested_bytes: usize,
    /// Bytes that were not what had been written.
    pub wrong_bytes: usize,
    /// Bytes that did not come back; others who use the device may have taken them.
    pub leaked_bytes: usize,
}

impl MemoryResult {
    /// Whether all is as it must be.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.wrong_bytes == 0 && self.leaked_bytes == 0
    }
}

/// Bytes that are written and read at most: enough to see that memory works.
const TESTED: usize = 64 << 20;

impl Gpu {
    /// Takes some memory, writes to it, reads it and gives it back.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], [`Error::OutOfMemory`].
    pub fn check_memory_health(&self) -> Result<MemoryResult, Error> {
        let (free_bytes, total_bytes) = self.free_memory()?;
        let tested_bytes = TESTED.min(free_bytes / 4);
        let mut wrong_bytes = 0;
        {
            let region =
                self.allocate("a test of memory", tested_bytes, "close what else uses it")?;
            // Each of its bits both ways.
            for flip in [0, 0xff] {
                let written: Vec<u8> = (0..tested_bytes)
                    .map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ flip)
                    .collect();
                let mut read = vec![0; tested_bytes];
                sys::upload(self.copy(), &region, &written)?;
                sys::download(self.copy(), &region, &mut read)?;
                wrong_bytes += written.iter().zip(&read).filter(|(a, b)| a != b).count();
            }
        }
        let (after, _) = self.free_memory()?;
        let leaked_bytes = free_bytes.saturating_sub(after);
        Ok(MemoryResult { total_bytes, free_bytes, tested_bytes, wrong_bytes, leaked_bytes })
    }

    /// Bytes that the memory of the device gives and takes in a second, where so many are copied within it: the best of some
    /// copies.
    ///
    /// # Errors
    ///
    /// As [`Gpu::check_memory_health`].
    pub fn copy_rate(&self, bytes: usize) -> Result<f64, Error> {
        const COPIES: usize = 8;
        let hint = "close what else uses the device";
        let [from, to] = [
            self.allocate("a test of its speed", bytes, hint)?,
            self.allocate("a test of its speed", bytes, hint)?,
        ];
        sys::fill(self.compute(), &from, 1)?;
        let mut best = 0.0_f64;
        for _ in 0..COPIES {
            let ms = sys::timed(self.compute(), || sys::copy(self.compute(), &from, &to))?;
            best = best.max(2.0 * bytes as f64 / (f64::from(ms) / 1e3));
        }
        Ok(best)
    }

    /// Milliseconds that the device takes for what `enqueue` enqueues.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], and those of `enqueue`.
    pub fn timed(
        &self,
        scratch: &Scratch,
        enqueue: impl FnOnce(&mut Queue<'_>) -> Result<(), Error>,
    ) -> Result<f32, Error> {
        let mut queue = Queue::new(self, scratch);
        sys::timed(self.compute(), || enqueue(&mut queue))
    }
}
