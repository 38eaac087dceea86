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

    /// [`RowScale::dequantize`] of several sums; where there are `fused` multiply-adds, by those, which
    /// keep no vector waiting for a division.
    ///
    /// An estimate of the quotient with the rounded inverse, then twice the exact remainder times the
    /// inverse: the first leaves less than a unit in the last place, so the second rounds as a division
    /// does (Markstein 1990).
    #[inline(always)]
    pub(crate) fn dequantize_all(self, codes: &[i32], d: f32, fused: bool, y: &mut [f32]) {
        /// Scales with which nothing on the way overflows or loses bits.
        const SAFE: std::ops::Range<f32> = 1e-20..1e20;
        let inverse = 1.0 / self.scale;
        if !fused || !SAFE.contains(&self.scale) {
            for (y, &codes) in y.iter_mut().zip(codes) {
                *y = self.dequantize(codes, d);
            }
            return;
        }
        for (y, &codes) in y.iter_mut().zip(codes) {
            let sum = (codes - self.sum) as f32;
            let mend = |q: f32| (-q).mul_add(self.scale, sum).mul_add(inverse, q);
            *y = mend(mend(sum * inverse)) * d;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_by_multiplication_are_quotients() {
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 32) as u32
        };
        let equal = |scale: f32, codes: &[i32; 16]| {
            let (row, mut y) = (RowScale { scale, sum: 5 }, [0.0; 16]);
            row.dequantize_all(codes, 0.75, true, &mut y);
            for (y, &codes) in y.iter().zip(codes) {
                let want = row.dequantize(codes, 0.75);
                let same = y.to_bits() == want.to_bits() || y.is_nan() && want.is_nan();
                assert!(same, "{codes} / {scale:e}: {y:e}, not {want:e}");
            }
        };
        for _ in 0..20_000 {
            // Any mantissa, exponents of real scales; sums small and great.
            let scale = f32::from_bits((90 + random() % 70) << 23 | random() >> 9);
            let bits = random() % 32;
            equal(scale, &std::array::from_fn(|_| random().cast_signed() >> bits >> 1));
        }
        for scale in [f32::NAN, f32::INFINITY, 1e-37, 1e37, 0.999_999_94, 1.999_999_9, 1.0, 1.27e7]
        {
            equal(scale, &std::array::from_fn(|i| (1 << i) - 1));
        }
    }
}
