//! Multiply-adds and nothing else: the limit that gemv and gemm are measured against.

use crate::simd::{Bytes, Op, PANEL};

/// Sums in flight, enough to hide how long they take: 16-bit lanes are added in one cycle,
/// instructions that multiply and add take five.
const NARROW_CHAINS: usize = 8;
const WIDE_CHAINS: usize = 12;
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
        *args.products = match S::FULL > STEPS {
            true => products::<S, WIDE_CHAINS>(s, args.repeats),
            false => products::<S, NARROW_CHAINS>(s, args.repeats),
        };
    }
}

/// Does `repeats` rounds in `CHAINS` registers.
#[inline(always)]
fn products<S: Bytes, const CHAINS: usize>(s: S, repeats: usize) -> u64 {
    // Operands the compiler cannot see through, and as many steps as 16-bit lanes can take.
    let x = std::hint::black_box([[1; 4]; STEPS]);
    let codes = std::hint::black_box([[1; 4 * PANEL]; CHAINS]);
    let mut sums = [s.sums(); CHAINS];
    for _ in 0..repeats.div_ceil(STEPS) {
        let mut narrow = [s.narrow(); CHAINS];
        for x in &x {
            let x = s.splat(x);
            for (narrow, codes) in narrow.iter_mut().zip(&codes) {
                *narrow = s.dot(*narrow, s.load(codes, 0), x);
            }
        }
        for (sum, narrow) in sums.iter_mut().zip(narrow) {
            *sum = s.widen(*sum, narrow);
        }
    }
    let mut rows = [0; PANEL];
    for sum in sums {
        s.add_to(sum, &mut rows, 0);
    }
    rows.iter().map(|&row| u64::from(row.unsigned_abs())).sum()
}
