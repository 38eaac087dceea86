//! What the machine can do at best: the limits that kernels are measured against.

use std::hint::black_box;
use std::time::Instant;

use crate::op::{PeakArgs, PeakFn};
use crate::pool::Pool;
use crate::registry::{NoKernel, select};
use crate::simd::cpu::Cpu;

/// Reads of memory in GB/s, by all threads of `pool`: the best of `rounds` passes over `bytes`
/// bytes, which should be many times the caches.
#[must_use]
pub fn read_bandwidth(pool: &Pool, bytes: usize, rounds: usize) -> f64 {
    /// Numbers of a piece: 1 MiB, so that threads share the work evenly.
    const PIECE: usize = 1 << 17;
    let data: Vec<u64> = (0..bytes as u64 / 8).collect();
    let pieces: Vec<_> = data.chunks(PIECE).collect();
    let mut sums = vec![0_u64; pieces.len()];
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        let start = Instant::now();
        pool.tiles(&mut sums, 1, (1, 1), |mut sum| {
            let row = sum.rows().start;
            sum.row(row)[0] = pieces[row].iter().fold(0, |sum, &x| sum ^ x);
        });
        best = best.min(start.elapsed().as_secs_f64());
        black_box(&sums);
    }
    (data.len() * 8) as f64 / best / 1e9
}

/// Multiply-adds of codes and activations in 10^9 a second, by all threads of `pool`, from
/// registers: the best of `rounds` rounds.
///
/// # Errors
///
/// None on the processors there are: every one has a row in the table.
pub fn int8_peak(cpu: &Cpu, pool: &Pool, rounds: usize) -> Result<f64, NoKernel> {
    const REPEATS: usize = 200_000;
    let peak = select::<PeakFn>(None, cpu)?;
    let mut counts = vec![0_u64; pool.threads()];
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        let start = Instant::now();
        pool.tiles(&mut counts, 1, (1, 1), |mut count| {
            let row = count.rows().start;
            (peak.run)(PeakArgs { repeats: REPEATS, products: &mut count.row(row)[0] });
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(counts.iter().sum::<u64>() as f64 / best / 1e9)
}
