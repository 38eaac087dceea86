//! F32, F16 and BF16: sixteen numbers after sixteen numbers.

use super::Float;
use crate::simd::Floats;

pub(crate) struct F32;
pub(crate) struct F16;
pub(crate) struct Bf16;

/// A half-precision number, widened.
#[inline(always)]
pub(super) fn widen_half(bytes: [u8; 2]) -> f32 {
    /// What the exponent of `f32` has more.
    const BIAS: u32 = 112 << 23;
    let bits = u32::from(u16::from_le_bytes(bytes));
    let magnitude = (bits & 0x7FFF) << 13;
    let number = match bits >> 10 & 31 {
        // A multiple of 2^-24: behind the point of 2^-14. As a subnormal number it would take a
        // processor a hundred cycles.
        0 => f32::from_bits(magnitude + BIAS + (1 << 23)) - f32::from_bits(BIAS + (1 << 23)),
        31 => f32::from_bits(magnitude | 0x7F80_0000),
        _ => f32::from_bits(magnitude + BIAS),
    };
    f32::from_bits(number.to_bits() | (bits & 0x8000) << 16)
}

impl Float for F32 {
    const BYTES: usize = 64;
    const CHUNKS: usize = 1;

    #[inline(always)]
    fn load<S: Floats>(s: S, row: &[u8], i: usize) -> S::F {
        let chunk = &row.as_chunks::<64>().0[i];
        let mut x = [0.0; 16];
        for (x, bytes) in x.iter_mut().zip(chunk.as_chunks::<4>().0) {
            *x = f32::from_le_bytes(*bytes);
        }
        s.load(&x)
    }
}

impl Float for F16 {
    const BYTES: usize = 32;
    const CHUNKS: usize = 1;

    #[inline(always)]
    fn load<S: Floats>(s: S, row: &[u8], i: usize) -> S::F {
        s.load_f16(&row.as_chunks::<32>().0[i])
    }
}

impl Float for Bf16 {
    const BYTES: usize = 32;
    const CHUNKS: usize = 1;

    #[inline(always)]
    fn load<S: Floats>(s: S, row: &[u8], i: usize) -> S::F {
        s.load_bf16(&row.as_chunks::<32>().0[i])
    }
}

#[cfg(test)]
mod tests {
    use super::widen_half;

    #[test]
    fn every_half_precision_number_is_widened() {
        for bits in 0..=u16::MAX {
            let (got, want) = (widen_half(bits.to_le_bytes()), half::f16::from_bits(bits).to_f32());
            assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{bits:#x}");
        }
    }
}
