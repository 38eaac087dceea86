//! Keys and values that go from one device to another.

use std::sync::PoisonError;

use super::error::Error;
use super::gpu::Gpu;
use super::queue::Cache;
use super::sys;

impl Gpu {
    /// Whether this device copies from the memory of another by itself. It is made able to when that is asked for the first
    /// time.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub fn reaches(&self, other: &Gpu) -> Result<bool, Error> {
        let number = other.info().device_id;
        if !self.info().peers.contains(&number) {
            return Ok(false);
        }
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(does) = reached.get(&number) {
            return Ok(*does);
        }
        let does = sys::enable_peer(&self.context(), &other.context())?;
        reached.insert(number, does);
        Ok(does)
    }
}

impl Cache {
    /// Copies blocks of another cache with blocks as large, on another device: pairs of the block there and the block here.
    /// It goes from device to device where the device reaches the other, and through the host where not. Waits until
    /// all are here.
    ///
    /// Whoever has the other cache must be done with what writes the blocks, and must not write them meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], of either device.
    ///
    /// # Panics
    ///
    /// If there are no such blocks, or they are of another size.
    pub fn copy_blocks(
        &self,
        gpu: &Gpu,
        (other, theirs): (&Gpu, &Cache),
        pairs: &[(u32, u32)],
    ) -> Result<(), Error> {
        assert_eq!(self.block_bytes, theirs.block_bytes, "blocks of the same size");
        let reaches = gpu.reaches(other)?;
        let mut bytes = vec![0; if reaches { 0 } else { self.block_bytes }];
        for &(there, here) in pairs {
            let (from, to) = (theirs.block(there), self.block(here));
            if reaches {
                sys::copy_from_peer(gpu.compute(), &from, &to)?;
                gpu.traffic.across(from.bytes());
            } else {
                // Not in the stream of its kernels, which another thread may be recording.
                sys::download(other.copy(), &from, &mut bytes)?;
                other.traffic.down(bytes.len());
                sys::upload(gpu.compute(), &to, &bytes)?;
                gpu.traffic.up(bytes.len());
            }
        }
        sys::synchronize(gpu.compute())
    }
}
