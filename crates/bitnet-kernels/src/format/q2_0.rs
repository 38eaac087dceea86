//! Q2_0 of PrismML's llama.cpp: an `f16` scale and codes of 2 bits, four in a row to a byte, the first
//! in the lowest bits; the number is `(code - 1) * d`, from `-d` to `2 d`. Blocks are 64 numbers now
//! and were 128 once, under the same name.

use super::Float;
use super::float::widen_half;
use crate::simd::Floats;

/// With blocks of sixteen times `CHUNKS` numbers.
pub(crate) struct Q2_0<const CHUNKS: usize>;

impl<const CHUNKS: usize> Float for Q2_0<CHUNKS> {
    const BYTES: usize = 2 + 4 * CHUNKS;
    const CHUNKS: usize = CHUNKS;

    #[inline(always)]
    fn load<S: Floats>(s: S, row: &[u8], i: usize) -> S::F {
        let block = &row[i / CHUNKS * Self::BYTES..][..Self::BYTES];
        let mut q = [0; 16];
        let bytes = &block[2 + 4 * (i % CHUNKS)..][..4];
        for (four, byte) in q.as_chunks_mut::<4>().0.iter_mut().zip(bytes) {
            *four = [0, 2, 4, 6].map(|shift| (byte >> shift & 3).wrapping_sub(1));
        }
        s.mul(s.load_i8(&q), s.splat(widen_half([block[0], block[1]])))
    }
}
