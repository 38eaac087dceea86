//! What the machine can do at best: the limits that kernels are measured against.

use std::fmt;
use std::hint::black_box;
use std::time::Instant;

use crate::manager::{KernelManager, NoKernel};
use crate::op::{PeakArgs, PeakFn, ReadArgs, ReadFn};
use crate::pool::Pool;

/// Why a machine cannot be measured.
#[derive(Clone, Debug, PartialEq)]
pub enum LimitError {
    /// There is no kernel: not so on the processors there are.
    Kernel(NoKernel),
    /// There is not enough memory to read.
    Memory {
        /// Bytes that are needed.
        bytes: usize,
    },
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitError::Kernel(missing) => missing.fmt(f),
            LimitError::Memory { bytes } => write!(f, "not enough memory to read {bytes} bytes"),
        }
    }
}

impl std::error::Error for LimitError {}

impl From<NoKernel> for LimitError {
    fn from(missing: NoKernel) -> LimitError {
        LimitError::Kernel(missing)
    }
}

/// Bytes that are read to measure the bandwidth: more than most caches hold.
pub const STREAMED: usize = 512 << 20;

/// Reads of memory in GB/s, by all threads of `pool` with the best instruction set of the
/// processor: the best of `rounds` passes over `bytes` bytes, which should be many times the
/// caches.
#[must_use]
pub fn read_bandwidth(pool: &Pool, bytes: usize, rounds: usize) -> f64 {
    let rates = read_rates(&KernelManager::new(), pool, bytes, rounds);
    rates.map_or(f64::NAN, |rates| best(&rates))
}

/// Reads of memory in GB/s, by all threads of `pool`, in each of `rounds` passes over `bytes`
/// bytes, which should be many times the caches.
///
/// # Errors
///
/// [`LimitError::Memory`] where there is not so much memory.
pub fn read_rates(
    manager: &KernelManager,
    pool: &Pool,
    bytes: usize,
    rounds: usize,
) -> Result<Vec<f64>, LimitError> {
    /// Numbers of a piece: 1 MiB, so that threads share the work evenly.
    const PIECE: usize = 1 << 18;
    let read = manager.select::<ReadFn>(None)?;
    let mut data = Vec::new();
    data.try_reserve_exact(bytes / 4).map_err(|_| LimitError::Memory { bytes })?;
    data.resize(bytes / 4, 1.0_f32);
    let pieces: Vec<_> = data.chunks(PIECE).collect();
    let mut sums = vec![0.0; pieces.len()];
    let rates = (0..rounds).map(|_| {
        let start = Instant::now();
        pool.tiles(&mut sums, 1, (1, 1), |mut sum| {
            let row = sum.rows().start;
            (read.run)(ReadArgs { data: pieces[row], sum: &mut sum.row(row)[0] });
        });
        let seconds = start.elapsed().as_secs_f64();
        black_box(&sums);
        size_of_val(&*data) as f64 / seconds / 1e9
    });
    Ok(rates.collect())
}

/// Multiply-adds of codes and activations in 10^9 a second, by all threads of `pool`, from
/// registers: the best of `rounds` rounds.
///
/// # Errors
///
/// As [`peak_rates`].
pub fn int8_peak(manager: &KernelManager, pool: &Pool, rounds: usize) -> Result<f64, NoKernel> {
    peak_rates(manager, pool, rounds).map(|rates| best(&rates))
}

/// Multiply-adds of codes and activations in 10^9 a second, by all threads of `pool`, from
/// registers, in each of `rounds` rounds.
///
/// # Errors
///
/// None on the processors there are: every one has a row in the table.
pub fn peak_rates(
    manager: &KernelManager,
    pool: &Pool,
    rounds: usize,
) -> Result<Vec<f64>, NoKernel> {
    /// Seconds of a round: threads take microseconds to start.
    const ROUND: f64 = 0.003;
    /// Repeats to find out how many a round needs.
    const FEW: usize = 10_000;
    let peak = manager.select::<PeakFn>(None)?;
    let mut counts = vec![0_u64; pool.threads()];
    let mut round = |repeats| {
        let start = Instant::now();
        pool.tiles(&mut counts, 1, (1, 1), |mut count| {
            let row = count.rows().start;
            (peak.run)(PeakArgs { repeats, products: &mut count.row(row)[0] });
        });
        let seconds = start.elapsed().as_secs_f64();
        (counts.iter().sum::<u64>() as f64 / seconds / 1e9, seconds)
    };
    let (_, seconds) = round(FEW);
    let repeats = (FEW as f64 * ROUND / seconds) as usize;
    Ok((0..rounds).map(|_| round(repeats.max(FEW)).0).collect())
}

/// The middle one of some rates or times, or the mean of the middle two.
///
/// # Panics
///
/// If there are none.
#[must_use]
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0
}

fn best(rates: &[f64]) -> f64 {
    rates.iter().copied().fold(0.0, f64::max)
}
