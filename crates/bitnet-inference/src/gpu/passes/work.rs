//! What passes took.

use std::time::{Duration, Instant};

use super::Passes;
use crate::PerformanceStats;

/// What is counted of passes, besides launches.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// How long the host enqueued them, and waited for what they gave.
    time: Duration,
    /// Those that had been recorded.
    pub(super) repeated: u64,
    /// Those that had to be.
    pub(super) recorded: u64,
}

impl Passes {
    /// Does something, and adds the time that it takes.
    pub(super) fn timed<R>(&mut self, work: impl FnOnce(&mut Passes) -> R) -> R {
        let start = Instant::now();
        let result = work(self);
        self.work.time += start.elapsed();
        result
    }

    /// What they did so far, and what it took.
    pub(crate) fn performance_stats(&self) -> PerformanceStats {
        let (gpu, Work { time, repeated, recorded }) = (&self.on.gpu, &self.work);
        let (transfers, memory) = (gpu.transfers(), gpu.memory());
        PerformanceStats {
            total_kernel_launches: self.launches.iter().map(|(_, launches)| launches).sum(),
            kernel_launches: self.launches().into_iter().collect(),
            total_execution_time_ms: 1e3 * time.as_secs_f64(),
            memory_transfers_host_to_device: transfers.to_device,
            memory_transfers_device_to_host: transfers.to_host,
            memory_transfers_peer_to_device: transfers.from_peers,
            bytes_transferred_h2d: transfers.bytes_to_device,
            bytes_transferred_d2h: transfers.bytes_to_host,
            bytes_transferred_p2d: transfers.bytes_from_peers,
            cache_hits: *repeated,
            cache_misses: *recorded,
            dropped_passes: self.dropped(),
            current_memory_bytes: memory.current_allocated as u64,
            peak_memory_bytes: memory.peak_memory as u64,
        }
    }
}
