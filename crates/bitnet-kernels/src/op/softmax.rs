//! Softmax, and the exponential function that it and attention share.

use crate::simd::{Floats, LANES, Op, load_part, store_part};

/// Numbers to turn into probabilities.
#[derive(Debug)]
pub struct SoftmaxArgs<'a> {
    /// Becomes `exp(x - max) / Σ exp(x - max)`. Must be finite, not empty.
    pub x: &'a mut [f32],
}

/// A softmax kernel.
pub type SoftmaxFn = for<'a> fn(SoftmaxArgs<'a>);

pub(crate) struct Softmax;

/// `e^x` for `x <= 0`, within two units in the last place; below -87 it stays at `e^-87`.
///
/// `e^x = 2^n e^r` with `n` the integer nearest to `x / ln 2`, `|r| <= ln 2 / 2`, and `e^r` by its
/// Taylor polynomial of degree 7. `ln 2` is taken in two parts, the first of few bits, so that
/// `n ln 2` is exact. Every step is one rounding, the same everywhere.
#[inline(always)]
pub(crate) fn exp<S: Floats>(s: S, x: S::F) -> S::F {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// `1 / 6!` down to `1 / 0!`.
    const COEFFICIENTS: [f32; 7] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let x = s.max(x, s.splat(-87.0));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let minus_n = s.sub(s.splat(0.0), n);
    let r = s.fma(minus_n, s.splat(LN2_HIGH), x);
    let r = s.fma(minus_n, s.splat(LN2_LOW), r);
    let mut power = s.splat(1.0 / 5040.0);
    for c in COEFFICIENTS {
        power = s.fma(power, r, s.splat(c));
    }
    s.mul(power, s.exp2(n))
}

impl<S: Floats> Op<S> for Softmax {
    type Args<'a> = SoftmaxArgs<'a>;

    #[inline(always)]
    fn eval(s: S, args: SoftmaxArgs<'_>) {
        let greatest = args.x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let by = s.splat(greatest);
        let (chunks, rest) = args.x.as_chunks_mut::<LANES>();
        let mut sums = s.splat(0.0);
        for x in chunks.iter_mut() {
            let e = exp(s, s.sub(s.load(x), by));
            s.store(e, x);
            sums = s.add(sums, e);
        }
        let mut whole = [f32::NEG_INFINITY; LANES];
        whole[..rest.len()].copy_from_slice(rest);
        store_part(s, exp(s, s.sub(s.load(&whole), by)), rest);
        sums = s.add(sums, load_part(s, rest));

        let factor = s.splat(1.0 / s.sum(sums));
        for x in chunks {
            s.store(s.mul(s.load(x), factor), x);
        }
        let last = s.mul(load_part(s, rest), factor);
        store_part(s, last, rest);
    }
}
