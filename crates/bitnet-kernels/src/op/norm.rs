//! RMSNorm (Zhang and Sennrich 2019): `y = w * (x * 1 / sqrt(mean(x^2) + eps))`.
//!
//! The sum of squares has sixteen strided partial sums, each by fused multiply-add. Where it is not
//! finite, neither is the result.

use crate::simd::{Floats, LANES, Op, load_part, store_part};

/// One row to normalise.
#[derive(Debug)]
pub struct NormArgs<'a> {
    /// The row.
    pub x: &'a [f32],
    /// As many weights.
    pub weight: &'a [f32],
    /// Added to the mean of squares.
    pub eps: f32,
    /// As many results.
    pub y: &'a mut [f32],
}

/// A norm kernel.
pub type NormFn = for<'a> fn(NormArgs<'a>);

pub(crate) struct Norm;

impl<S: Floats> Op<S> for Norm {
    type Args<'a> = NormArgs<'a>;

    #[inline(always)]
    fn eval(s: S, args: NormArgs<'_>) {
        debug_assert!(args.x.len() == args.weight.len() && args.x.len() == args.y.len());
        let (chunks, rest) = args.x.as_chunks::<LANES>();
        let mut squares = s.splat(0.0);
        for x in chunks {
            let x = s.load(x);
            squares = s.fma(x, x, squares);
        }
        let last = load_part(s, rest);
        squares = s.fma(last, last, squares);
        let mean = s.sum(squares) / args.x.len() as f32;
        let factor = 1.0 / (mean + args.eps).sqrt();
        let factor = s.splat(if mean.is_finite() { factor } else { f32::NAN });

        let (weights, weight_rest) = args.weight.as_chunks::<LANES>();
        let (out, out_rest) = args.y.as_chunks_mut::<LANES>();
        for ((x, w), y) in chunks.iter().zip(weights).zip(out) {
            s.store(s.mul(s.load(w), s.mul(s.load(x), factor)), y);
        }
        let weight = load_part(s, weight_rest);
        store_part(s, s.mul(weight, s.mul(last, factor)), out_rest);
    }
}
