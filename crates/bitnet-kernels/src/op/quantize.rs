//! Activations to signed bytes, per row (Ma et al. 2024, "The Era of 1-bit LLMs").
//!
//! `amax = max(|x|, 1e-5)`, `s = 127 / amax`, `q = round_half_even(x * s)`. A row that is not finite
//! has no bytes: `s` is NaN and makes everything after it NaN, so that it cannot pass for a result.

use crate::simd::{Floats, LANES, Op, load_part};

/// What turns sums of a quantised row back into numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowScale {
    /// `s`: activations were multiplied by it.
    pub scale: f32,
    /// `Σ q`.
    pub sum: i32,
}

impl RowScale {
    /// The result for a sum of codes `w + 1` times activations, with the scale `d` of the weights.
    #[inline(always)]
    pub(crate) fn dequantize(self, codes: i32, d: f32) -> f32 {
        (codes - self.sum) as f32 / self.scale * d
    }
}

/// One row to quantise.
#[derive(Debug)]
pub struct QuantizeArgs<'a> {
    /// The row.
    pub x: &'a [f32],
    /// As many bytes.
    pub q: &'a mut [i8],
    /// Scale and sum of `q`.
    pub scale: &'a mut RowScale,
}

/// A kernel that quantises activations.
pub type QuantizeFn = for<'a> fn(QuantizeArgs<'a>);

pub(crate) struct Quantize;

impl<S: Floats> Op<S> for Quantize {
    type Args<'a> = QuantizeArgs<'a>;

    #[inline(always)]
    fn eval(s: S, args: QuantizeArgs<'_>) {
        debug_assert_eq!(args.x.len(), args.q.len());
        let (chunks, rest) = args.x.as_chunks::<LANES>();
        let (last, zero) = (load_part(s, rest), s.splat(0.0));
        let mut greatest = s.abs(last);
        // Zero times a number is zero, times anything else NaN, which `max` would lose.
        let mut poison = s.mul(last, zero);
        for x in chunks {
            let x = s.load(x);
            greatest = s.max(greatest, s.abs(x));
            poison = s.fma(x, zero, poison);
        }
        if s.sum(poison).is_nan() {
            args.q.fill(0);
            *args.scale = RowScale { scale: f32::NAN, sum: 0 };
            return;
        }
        let scale = 127.0 / s.greatest(greatest).max(1e-5);
        let by = s.splat(scale);

        let (out, out_rest) = args.q.as_chunks_mut::<LANES>();
        for (x, q) in chunks.iter().zip(out) {
            s.store_i8(s.round(s.mul(s.load(x), by)), q);
        }
        let mut bytes = [0; LANES];
        s.store_i8(s.round(s.mul(last, by)), &mut bytes);
        out_rest.copy_from_slice(&bytes[..rest.len()]);

        let sum = args.q.iter().map(|&q| i32::from(q)).sum();
        *args.scale = RowScale { scale, sum };
    }
}
