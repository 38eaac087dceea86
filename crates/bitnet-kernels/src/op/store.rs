//! Keys and values into the format of their cache.

use std::marker::PhantomData;

use super::attend::KV_BLOCK;
use crate::format::{F16, F32, Float, Q8_0};
use crate::simd::{Floats, Op, Token};

/// A key or a value of one head, to write in a floating-point format.
#[derive(Debug)]
pub struct StoreArgs<'a> {
    /// The numbers.
    pub x: &'a [f32],
    /// How they are to lie in `out`.
    pub place: Place,
    /// Whole blocks of the format, the last one filled up with zeros: of this position, or of all
    /// [`KV_BLOCK`].
    pub out: &'a mut [u8],
}

/// How the numbers of a position lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// One after another, as in a file.
    Row,
    /// As this one of [`KV_BLOCK`] positions side by side: of each block of the format the scales of
    /// all positions, then the first numbers of all, the second numbers, and so on.
    Lane(usize),
}

/// A kernel that stores.
pub type StoreFn = for<'a> fn(StoreArgs<'a>);

/// Into the format `F`.
pub(crate) struct Store<F>(PhantomData<F>);

/// A format that numbers can be written in.
pub(crate) trait Stored<const N: usize, const B: usize>: 'static {
    /// A block of `N` numbers in `B` bytes: some of a scale, then the same number of each.
    fn block(x: &[f32; N]) -> [u8; B];
}

/// A format of keys and values.
pub(crate) trait Cached: 'static {
    /// Numbers of a block.
    const NUMBERS: usize;
    /// Bytes of one number of all positions side by side.
    const KEYS: usize;
    /// Of positions side by side, the numbers of block `i`, and its scales, if it has any.
    fn block<S: Floats>(s: S, keys: &[u8], i: usize) -> (&[u8], S::F);
    /// One number of each position, with the scales of its block.
    fn keys<S: Floats>(s: S, numbers: &[u8], scales: S::F) -> S::F;
}

/// Keys without scales.
macro_rules! plain {
    ($($format:ty),+) => {$(
        impl Cached for $format {
            const NUMBERS: usize = 16;
            const KEYS: usize = <$format as Float>::BYTES;

            #[inline(always)]
            fn block<S: Floats>(s: S, keys: &[u8], i: usize) -> (&[u8], S::F) {
                let bytes = Self::KEYS * Self::NUMBERS;
                (&keys[i * bytes..][..bytes], s.splat(1.0))
            }

            #[inline(always)]
            fn keys<S: Floats>(s: S, numbers: &[u8], _: S::F) -> S::F {
                <$format as Float>::load(s, numbers, 0)
            }
        }
    )+};
}

plain!(F32, F16);

impl Cached for Q8_0 {
    const NUMBERS: usize = 32;
    const KEYS: usize = KV_BLOCK;

    #[inline(always)]
    fn block<S: Floats>(s: S, keys: &[u8], i: usize) -> (&[u8], S::F) {
        let (scales, numbers) = keys[i * 34 * KV_BLOCK..][..34 * KV_BLOCK].split_at(2 * KV_BLOCK);
        (numbers, s.load_f16(&scales.as_chunks().0[0]))
    }

    #[inline(always)]
    fn keys<S: Floats>(s: S, numbers: &[u8], scales: S::F) -> S::F {
        s.mul(s.load_i8(&numbers.as_chunks().0[0]), scales)
    }
}

/// Rows of the formats, whose blocks differ.
macro_rules! store {
    ($($format:ty: $n:literal, $bytes:literal);+) => {$(
        impl<S: Token> Op<S> for Store<$format> {
            type Args<'a> = StoreArgs<'a>;

            #[inline(always)]
            fn eval(_: S, args: StoreArgs<'_>) {
                blocks::<$format, $n, $bytes>(args);
            }
        }
    )+};
}

store! {
    F32: 16, 64;
    F16: 16, 32;
    Q8_0: 32, 34
}

#[inline(always)]
fn blocks<F: Stored<N, B>, const N: usize, const B: usize>(args: StoreArgs<'_>) {
    let (blocks, rest) = args.x.as_chunks::<N>();
    for (i, x) in blocks.iter().enumerate() {
        put::<N, B>(F::block(x), i, args.place, args.out);
    }
    if !rest.is_empty() {
        let mut x = [0.0; N];
        x[..rest.len()].copy_from_slice(rest);
        put::<N, B>(F::block(&x), blocks.len(), args.place, args.out);
    }
}

/// Writes block `i`.
#[inline(always)]
fn put<const N: usize, const B: usize>(block: [u8; B], i: usize, place: Place, out: &mut [u8]) {
    match place {
        Place::Row => out[i * B..][..B].copy_from_slice(&block),
        Place::Lane(lane) => {
            let out = &mut out[i * B * KV_BLOCK..][..B * KV_BLOCK];
            let (scale, numbers) = block.split_at(B % N);
            let (scales, lanes) = out.split_at_mut(scale.len() * KV_BLOCK);
            scales[lane * scale.len()..][..scale.len()].copy_from_slice(scale);
            let numbers = numbers.chunks_exact(B / N);
            for (number, lanes) in numbers.zip(lanes.chunks_exact_mut(B / N * KV_BLOCK)) {
                lanes[lane * (B / N)..][..B / N].copy_from_slice(number);
            }
        }
    }
}

impl Stored<16, 64> for F32 {
    #[inline(always)]
    fn block(x: &[f32; 16]) -> [u8; 64] {
        let mut out = [0; 64];
        for (out, x) in out.as_chunks_mut().0.iter_mut().zip(x) {
            *out = x.to_le_bytes();
        }
        out
    }
}

/// Rounded to the nearest, halves to even; what is too great is infinite.
impl Stored<16, 32> for F16 {
    #[inline(always)]
    fn block(x: &[f32; 16]) -> [u8; 32] {
        let mut out = [0; 32];
        for (out, x) in out.as_chunks_mut().0.iter_mut().zip(x) {
            *out = half_bits(*x).to_le_bytes();
        }
        out
    }
}

/// As ggml's reference: `d = max |x| / 127`, halves away from zero. Of numbers that are not all
/// finite, or one of which is over 8.3 million, none is left: they come back as NaN or infinite.
impl Stored<32, 34> for Q8_0 {
    #[inline(always)]
    fn block(x: &[f32; 32]) -> [u8; 34] {
        // Magnitudes are in the order of their bits, infinity and NaN last.
        let bits = x.iter().fold(0, |most, x| (x.to_bits() & 0x7FFF_FFFF).max(most));
        let d = match f32::from_bits(bits) {
            greatest if greatest.is_finite() => greatest / 127.0,
            _ => f32::NAN,
        };
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let mut out = [0; 34];
        let (scale, bytes) = out.split_at_mut(2);
        scale.copy_from_slice(&half_bits(d).to_le_bytes());
        for (out, x) in bytes.iter_mut().zip(x) {
            *out = ((x * inverse).round() as i8).cast_unsigned();
        }
        out
    }
}

/// The bits of the nearest half-precision number, without a branch, so that it is vectorised.
#[inline(always)]
fn half_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7FFF_FFFF;
    // Adding this and dropping 13 bits rounds, halves to even.
    let even = 0xFFF + (magnitude >> 13 & 1);
    // Exponents are 112 less.
    let normal = magnitude.wrapping_add(even).wrapping_sub(112 << 23) >> 13;
    // The last place of 0.5 is the least half-precision number: the addition rounds.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5_f32.to_bits());
    let beyond = if magnitude > 0x7F80_0000 { 0x7E00 } else { 0x7C00 };
    let half = if magnitude < 113 << 23 { subnormal } else { normal };
    let half = if magnitude >= 143 << 23 { beyond } else { half };
    (half | bits >> 16 & 0x8000) as u16
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn half_bits_are_those_of_every_number() {
        // Every half-precision number, and those around the middle between it and the next.
        for bits in 0..=u16::MAX {
            let x = f16::from_bits(bits);
            if x.is_nan() {
                assert!(f16::from_bits(half_bits(x.to_f32())).is_nan());
                continue;
            }
            assert_eq!(half_bits(x.to_f32()), bits);
            let middle = x.to_f32().to_bits() + (1 << 12);
            for y in [middle - 1, middle, middle + 1].map(f32::from_bits) {
                assert_eq!(half_bits(y), f16::from_f32(y).to_bits(), "{y:e}");
            }
        }
        for y in [65519.996, 65520.0, 65536.0, f32::MAX, f32::INFINITY, 2.98e-8, 2.981e-8, 1e-45] {
            assert_eq!(half_bits(y), f16::from_f32(y).to_bits(), "{y:e}");
            assert_eq!(half_bits(-y), f16::from_f32(-y).to_bits(), "{y:e}");
        }
    }
}
