//! Q4_0 of ggml: an `f16` scale and 32 numbers of 4 bits, the first sixteen in the low nibbles of
//! sixteen bytes; the number is `(q - 8) * d`.

use super::Float;
use super::float::widen_half;
use crate::simd::Floats;

pub(crate) struct Q4_0;

impl Float for Q4_0 {
    const BYTES: usize = 18;
    const CHUNKS: usize = 2;

    #[inline(always)]
    fn load<S: Floats>(s: S, row: &[u8], i: usize) -> S::F {
        let block = &row.as_chunks::<18>().0[i / 2];
        let mut q = [0; 16];
        for (q, byte) in q.iter_mut().zip(&block[2..]) {
            *q = ((byte >> (i % 2 * 4)) & 15).wrapping_sub(8);
        }
        s.mul(s.load_i8(&q), s.splat(widen_half([block[0], block[1]])))
    }
}
