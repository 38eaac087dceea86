//! Ternary weights, one code a byte, times 8-bit activations: `C = A B`.
//!
//! For whoever has matrices in that form; models are run by `gemv` and `gemm`. Sums are exact.

use crate::simd::{Op, Token};

/// Rows of `A` that share each decoded code, and columns of `B` that are worked on together then.
const ROWS: (usize, usize) = (4, 32);
/// Columns of `B` that are worked on together for a single row.
const COLS: usize = 128;
/// Products of at most 128 that fit into 16 bits.
const FULL: usize = 255;

/// Two matrices, and where their product goes. All are row-major.
#[derive(Debug)]
pub struct MatmulArgs<'a> {
    /// `[m, k]`.
    pub a: &'a [i8],
    /// `[k, n]`. The two lowest bits of a byte are 0 for -1, 1 or 3 for 0, 2 for +1.
    pub b: &'a [u8],
    /// `[m, n]`.
    pub c: &'a mut [f32],
    /// Rows of `a` and `c`, columns of `b` and `c`, columns of `a` and rows of `b`.
    pub shape: [usize; 3],
}

/// A kernel that multiplies codes.
pub type MatmulFn = for<'a> fn(MatmulArgs<'a>);

pub(crate) struct Matmul;

impl<S: Token> Op<S> for Matmul {
    type Args<'a> = MatmulArgs<'a>;

    #[inline(always)]
    fn eval(_: S, args: MatmulArgs<'_>) {
        let [m, n, k] = args.shape;
        debug_assert!(args.a.len() == m * k && args.b.len() == k * n && args.c.len() == m * n);
        if n == 0 || k == 0 {
            args.c.fill(0.0);
            return;
        }
        let whole = m / ROWS.0 * ROWS.0;
        let (c, c_rest) = args.c.split_at_mut(whole * n);
        let (a, a_rest) = args.a.split_at(whole * k);
        for first in (0..n).step_by(ROWS.1) {
            for (a, c) in a.chunks_exact(ROWS.0 * k).zip(c.chunks_exact_mut(ROWS.0 * n)) {
                tile::<{ ROWS.0 }, { ROWS.1 }>(a, args.b, c, (first, n));
            }
        }
        for first in (0..n).step_by(COLS) {
            for (a, c) in a_rest.chunks_exact(k).zip(c_rest.chunks_exact_mut(n)) {
                tile::<1, COLS>(a, args.b, c, (first, n));
            }
        }
    }
}

/// `C` columns from `first` on, of `n`, of `R` rows.
#[inline(always)]
fn tile<const R: usize, const C: usize>(
    a: &[i8],
    b: &[u8],
    c: &mut [f32],
    (first, n): (usize, usize),
) {
    let (k, width) = (a.len() / R, C.min(n - first));
    let mut sums = [[0_i64; C]; R];
    for begin in (0..k).step_by(FULL) {
        let end = k.min(begin + FULL);
        let mut narrow = [[0_i16; C]; R];
        for l in begin..end {
            let codes = &b[l * n + first..][..width];
            let weights = match codes.first_chunk() {
                Some(codes) => decode(codes),
                None => {
                    let mut whole = [1; C];
                    whole[..width].copy_from_slice(codes);
                    decode(&whole)
                }
            };
            for (r, narrow) in narrow.iter_mut().enumerate() {
                let x = i16::from(a[r * k + l]);
                for (sum, weight) in narrow.iter_mut().zip(weights) {
                    // Cannot wrap; saying so keeps overflow checks out of the loop.
                    *sum = sum.wrapping_add(x.wrapping_mul(weight));
                }
            }
        }
        for (sums, narrow) in sums.as_flattened_mut().iter_mut().zip(narrow.as_flattened()) {
            *sums += i64::from(*narrow);
        }
    }
    for (sums, c) in sums.iter().zip(c.chunks_exact_mut(n)) {
        for (c, sum) in c[first..].iter_mut().zip(sums) {
            *c = *sum as f32;
        }
    }
}

#[inline(always)]
fn decode<const C: usize>(codes: &[u8; C]) -> [i16; C] {
    codes.map(|code| i16::from(code & 3 == 2) - i16::from(code & 3 == 0))
}
