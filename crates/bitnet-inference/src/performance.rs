//! What was done on a GPU, and what it took.

use std::collections::BTreeMap;

use serde::Serialize;

/// What a [`Session`](crate::Session) had a GPU do so far.
///
/// Transfers and memory are those of the device since the engine opened it: those of the weights are in them, and those of
/// other sessions that compute there. The rest is of the session alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PerformanceStats {
    /// Launches of kernels, as receipts have them: those of a pass that was [dropped](PerformanceStats::dropped_passes) are not counted.
    pub total_kernel_launches: u64,
    /// Those of each kernel, by its id.
    pub kernel_launches: BTreeMap<&'static str, u64>,
    /// Milliseconds for which the host enqueued passes and waited for what they gave. What the device computes while the host does
    /// something else is not in it.
    pub total_execution_time_ms: f64,
    /// Copies from the host to the device.
    pub memory_transfers_host_to_device: u64,
    /// Copies from the device to the host.
    pub memory_transfers_device_to_host: u64,
    /// Copies to the device from the memory of other devices.
    pub memory_transfers_peer_to_device: u64,
    /// Bytes from the host to the device.
    pub bytes_transferred_h2d: u64,
    /// Bytes from the device to the host.
    pub bytes_transferred_d2h: u64,
    /// Bytes to the device from the memory of other devices.
    pub bytes_transferred_p2d: u64,
    /// Passes that were enqueued as one of their size had been recorded before.
    pub cache_hits: u64,
    /// Passes that had to be recorded first.
    pub cache_misses: u64,
    /// Passes that were begun before their tokens were known, and were not what came next.
    pub dropped_passes: u64,
    /// Bytes of the memory of the device that are taken.
    pub current_memory_bytes: u64,
    /// The most that ever were.
    pub peak_memory_bytes: u64,
}

impl PerformanceStats {
    /// The share of passes that were [recorded before](PerformanceStats::cache_hits), from 0 to 1; none before the first pass.
    #[must_use]
    pub fn cache_hit_ratio(&self) -> Option<f64> {
        let all = self.cache_hits + self.cache_misses;
        (all > 0).then(|| self.cache_hits as f64 / all as f64)
    }
}
