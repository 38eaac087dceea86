//! Multiply-adds and nothing else: the limit that gemv and gemm are measured against.

use crate::simd::{Bytes, Op};

/// Sums in flight: enough to hide the latency of an addition.
const CHAINS: usize = 8;
/// Steps between which sums are widened: what [`Bytes::FULL`] allows everywhere.
const STEPS: usize = 64;

/// How much to compute.
#[derive(Debug)]
pub struct PeakArgs<'a> {
    /// Rounds of one multiply-add in each of some registers.
    pub repeats: usize,
    /// Becomes the number of products.
    pub products: &'a mut u64,
}

/// A kernel that multiplies and adds.
pub type PeakFn = for<'a> fn(PeakArgs<'a>);

pub(crate) struct Peak;

impl<S: Bytes> Op<S> for Peak {
    type Args<'a> = PeakArgs<'a>;

    #[inline(always)]
    fn eval(s: S, args: PeakArgs<'_>) {
        // Operands the compiler cannot see through, and as many steps as 16-bit lanes can take.
        let x = std::hint::black_box([[1; 32]; STEPS]);
        let codes = std::hint::black_box([[1; 32]; CHAINS]);
        let mut sums = [s.sums(); CHAINS];
        for _ in 0..args.repeats.div_ceil(STEPS) {
            let mut narrow = [s.narrow(); CHAINS];
            for x in &x {
                let x = s.splat(x);
                for (narrow, codes) in narrow.iter_mut().zip(&codes) {
                    *narrow = s.dot(*narrow, s.load(codes, codes), x);
                }
            }
            for (sum, narrow) in sums.iter_mut().zip(narrow) {
                *sum = s.widen(*sum, narrow);
            }
        }
        let totals = sums.map(|sum| s.totals(sum));
        let rows = totals.iter().flat_map(|total| &total[..S::ROWS]);
        *args.products = rows.map(|&row| u64::from(row.unsigned_abs())).sum();
    }
}
