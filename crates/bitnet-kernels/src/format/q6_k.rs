//! Q6_K of ggml: 256 numbers of 6 bits. 128 bytes of low nibbles, 64 bytes of high pairs, sixteen
//! signed scales, and an `f16` scale of those: the number is `d * scale * (q - 32)`, which `f32`
//! holds exactly.
//!
//! Each half of a block has 128 numbers in 64 + 32 bytes. Of number `32 g + l` of a half, the nibble
//! is in byte `32 (g % 2) + l`, high for `g >= 2`; the pair is bits `2 g` of byte `l`.

use super::Float;
use super::float::widen_half;
use crate::simd::Floats;

pub(crate) struct Q6K;

impl Float for Q6K {
    const BYTES: usize = 210;
    const CHUNKS: usize = 16;

    #[inline(always)]
    fn load<S: Floats>(s: S, row: &[u8], i: usize) -> S::F {
        let block = &row.as_chunks::<210>().0[i / 16];
        let chunk = i % 16;
        let (half, group, lane) = (chunk / 8, chunk % 8 / 2, chunk % 2 * 16);
        let nibbles = &block[64 * half + 32 * (group % 2) + lane..][..16];
        let pairs = &block[128 + 32 * half + lane..][..16];
        let mut q = [0; 16];
        for ((q, nibble), pair) in q.iter_mut().zip(nibbles).zip(pairs) {
            let low = (nibble >> (group / 2 * 4)) & 15;
            let high = (pair >> (2 * group)) & 3;
            *q = (low | high << 4).wrapping_sub(32);
        }
        let d = widen_half([block[208], block[209]]);
        let scale = d * f32::from(block[192 + chunk].cast_signed());
        s.mul(s.load_i8(&q), s.splat(scale))
    }
}
