//! Floating-point weights to ternary ones, by the mean of their absolute values over the whole matrix
//! (Ma et al. 2024, "The Era of 1-bit LLMs").
//!
//! `m = max(mean |w|, 1e-5)`, `t = clamp(round_half_even(w * (1 / m)), -1, 1)`; the scale of the
//! ternary matrix is `d = 1 / (1 / m)`. The sum of absolute values is taken in blocks of
//! [`ABSMEAN_BLOCK`], each with sixteen strided partial sums in `f32`, and the blocks are added in
//! order in `f64`: however the blocks are shared among threads, no bit changes.

use crate::simd::{Floats, LANES, Op, load_part};

/// Numbers of a block of the sum of absolute values.
pub const ABSMEAN_BLOCK: usize = 4096;

/// Numbers whose absolute values are added.
#[derive(Debug)]
pub struct AbsmeanArgs<'a> {
    /// The numbers: whole blocks of [`ABSMEAN_BLOCK`], but for the last one of a matrix.
    pub x: &'a [f32],
    /// The sum of each block.
    pub sums: &'a mut [f32],
}

/// A kernel that adds absolute values.
pub type AbsmeanFn = for<'a> fn(AbsmeanArgs<'a>);

/// What makes weights ternary: one for a matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TernaryScale {
    /// `1 / m`.
    inverse: f32,
}

impl TernaryScale {
    /// From the sums of all blocks of a matrix of `n` weights.
    ///
    /// Nothing if the sum is not finite: a weight is not, or they are far too great.
    #[must_use]
    pub fn new(sums: &[f32], n: usize) -> Option<TernaryScale> {
        let sum: f64 = sums.iter().map(|&sum| f64::from(sum)).sum();
        let mean = (sum / n.max(1) as f64) as f32;
        let scale = TernaryScale { inverse: 1.0 / mean.max(1e-5) };
        // A mean that is not a number would be lost in the maximum.
        (mean.is_finite() && scale.d().is_finite()).then_some(scale)
    }

    /// The scale `d` of the ternary matrix.
    #[must_use]
    pub fn d(self) -> f32 {
        1.0 / self.inverse
    }
}

/// Weights to make ternary.
#[derive(Debug)]
pub struct TernarizeArgs<'a> {
    /// The weights, finite.
    pub x: &'a [f32],
    /// The scale of the matrix they belong to.
    pub scale: TernaryScale,
    /// The codes `t + 1`: one a byte without a format; in I2_S whole blocks of 32 bytes, filled up
    /// with zero weights.
    pub codes: &'a mut [u8],
}

/// A kernel that makes weights ternary.
pub type TernarizeFn = for<'a> fn(TernarizeArgs<'a>);

pub(crate) struct Absmean;
/// One code a byte.
pub(crate) struct Ternarize;
/// Codes in I2_S.
pub(crate) struct TernarizeI2S;

impl<S: Floats> Op<S> for Absmean {
    type Args<'a> = AbsmeanArgs<'a>;

    #[inline(always)]
    fn eval(s: S, args: AbsmeanArgs<'_>) {
        debug_assert_eq!(args.x.len().div_ceil(ABSMEAN_BLOCK), args.sums.len());
        for (block, sum) in args.x.chunks(ABSMEAN_BLOCK).zip(args.sums) {
            let (chunks, rest) = block.as_chunks::<LANES>();
            let mut sums = s.splat(0.0);
            for x in chunks {
                sums = s.add(sums, s.abs(s.load(x)));
            }
            *sum = s.sum(s.add(sums, s.abs(load_part(s, rest))));
        }
    }
}

/// `t` of sixteen weights.
#[inline(always)]
fn trits<S: Floats>(s: S, x: S::F, scale: TernaryScale) -> S::F {
    let minus_one = s.splat(-1.0);
    // There is no minimum: it is the maximum of the negated numbers.
    let negated = s.max(s.mul(x, s.splat(-scale.inverse)), minus_one);
    s.round(s.max(s.sub(s.splat(0.0), negated), minus_one))
}

/// `t + 1` of sixteen weights.
#[inline(always)]
fn codes<S: Floats>(s: S, x: S::F, scale: TernaryScale) -> [u8; LANES] {
    let mut codes = [0; LANES];
    s.store_i8(s.add(trits(s, x, scale), s.splat(1.0)), &mut codes);
    codes.map(i8::cast_unsigned)
}

impl<S: Floats> Op<S> for Ternarize {
    type Args<'a> = TernarizeArgs<'a>;

    #[inline(always)]
    fn eval(s: S, args: TernarizeArgs<'_>) {
        debug_assert_eq!(args.x.len(), args.codes.len());
        let (chunks, rest) = args.x.as_chunks::<LANES>();
        let (out, out_rest) = args.codes.as_chunks_mut::<LANES>();
        for (x, out) in chunks.iter().zip(out) {
            *out = codes(s, s.load(x), args.scale);
        }
        out_rest.copy_from_slice(&codes(s, load_part(s, rest), args.scale)[..rest.len()]);
    }
}

impl<S: Floats> Op<S> for TernarizeI2S {
    type Args<'a> = TernarizeArgs<'a>;

    #[inline(always)]
    fn eval(s: S, args: TernarizeArgs<'_>) {
        debug_assert_eq!(args.x.len().div_ceil(128) * 32, args.codes.len());
        let (blocks, rest) = args.x.as_chunks::<128>();
        let (out, out_rest) = args.codes.as_chunks_mut::<32>().0.split_at_mut(blocks.len());
        for (x, out) in blocks.iter().zip(out) {
            pack(s, x, args.scale, out);
        }
        if let [last] = out_rest {
            let mut x = [0.0; 128];
            x[..rest.len()].copy_from_slice(rest);
            pack(s, &x, args.scale, last);
        }
    }
}

/// A block of I2_S.
#[inline(always)]
fn pack<S: Floats>(s: S, x: &[f32; 128], scale: TernaryScale, out: &mut [u8; 32]) {
    let chunks = x.as_chunks::<LANES>().0;
    for (half, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        // The byte is `64 (t0 + 1) + 16 (t1 + 1) + 4 (t2 + 1) + t3 + 1`, at most 170: 128 less is a
        // signed byte, and the sum of the ones is 85.
        let mut byte = s.splat(85.0 - 128.0);
        for (field, weight) in [64.0, 16.0, 4.0, 1.0].into_iter().enumerate() {
            let t = trits(s, s.load(&chunks[2 * field + half]), scale);
            byte = s.fma(t, s.splat(weight), byte);
        }
        let mut bytes = [0; LANES];
        s.store_i8(byte, &mut bytes);
        *out = bytes.map(|byte| byte.cast_unsigned() ^ 0x80);
    }
}
