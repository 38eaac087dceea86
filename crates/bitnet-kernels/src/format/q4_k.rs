//! Q4_K of ggml: 256 numbers of 4 bits. `f16` scales of scales and of minima, twelve bytes of eight
//! 6-bit scales and minima, 128 bytes of nibbles. The number is `d * scale * q - dmin * minimum`:
//! both products are exact in `f32`, and their difference is rounded once.
//!
//! Of number `64 g + 32 h + l` the nibble is in byte `32 g + l`, high for `h = 1`; scale and minimum
//! are number `2 g + h` of the eight.

use super::Float;
use super::float::widen_half;
use crate::simd::Floats;

pub(crate) struct Q4K;

impl Float for Q4K {
    const BYTES: usize = 144;
    const CHUNKS: usize = 16;

    #[inline(always)]
    fn load<S: Floats>(s: S, row: &[u8], i: usize) -> S::F {
        let block = &row.as_chunks::<144>().0[i / 16];
        let chunk = i % 16;
        let nibbles = &block[16 + 32 * (chunk / 4) + 16 * (chunk % 2)..][..16];
        let mut q = [0; 16];
        for (q, byte) in q.iter_mut().zip(nibbles) {
            *q = byte >> (chunk % 4 / 2 * 4) & 15;
        }
        let [scale, minimum] = scales(&block[4..16], chunk / 2);
        let scale = widen_half([block[0], block[1]]) * f32::from(scale);
        let minimum = widen_half([block[2], block[3]]) * f32::from(minimum);
        s.sub(s.mul(s.load_i8(&q), s.splat(scale)), s.splat(minimum))
    }
}

/// Scale and minimum `j` of eight. The first four are the low six bits of a byte each; the others have
/// four bits in a byte together, and the two highest above those of the first four.
#[inline(always)]
fn scales(bytes: &[u8], j: usize) -> [u8; 2] {
    match j {
        0..4 => [bytes[j] & 63, bytes[j + 4] & 63],
        _ => [bytes[j + 4] & 15 | bytes[j - 4] >> 6 << 4, bytes[j + 4] >> 4 | bytes[j] >> 6 << 4],
    }
}

/// The twelve bytes of eight scales and minima of six bits.
pub(super) fn pack_scales(scales: &[[u8; 2]; 8]) -> [u8; 12] {
    let mut bytes = [0; 12];
    for j in 0..4 {
        let ([low, low_minimum], [high, high_minimum]) = (scales[j], scales[j + 4]);
        bytes[j] = low | high >> 4 << 6;
        bytes[j + 4] = low_minimum | high_minimum >> 4 << 6;
        bytes[j + 8] = high & 15 | high_minimum << 4;
    }
    bytes
}
